//! Reading and writing by descriptor.

use abi::{Errno, SysResult, args};

use crate::{Curlwp, Uio, fd};

const SEEK_SET: i32 = 0;
const SEEK_CUR: i32 = 1;

/// read(2).
pub(super) fn read(cx: &Curlwp<'_>, a: args::read) -> SysResult {
    cx.proc()
        .fds()
        .with(a.fd, |of| of.read(cx, &mut Uio::user(a.buf, a.count, 0)))
}

/// write(2).
pub(super) fn write(cx: &Curlwp<'_>, a: args::write) -> SysResult {
    cx.proc()
        .fds()
        .with(a.fd, |of| of.write(cx, &mut Uio::user(a.buf, a.count, 0)))
}

/// pread(2).
pub(super) fn pread64(cx: &Curlwp<'_>, a: args::pread64) -> SysResult {
    let offset = u64::try_from(a.offset).map_err(|_| Errno::EINVAL)?;
    cx.proc().fds().with(a.fd, |of| {
        of.pread(cx, &mut Uio::user(a.buf, a.count, offset))
    })
}

/// pwrite(2).
pub(super) fn pwrite64(cx: &Curlwp<'_>, a: args::pwrite64) -> SysResult {
    let offset = u64::try_from(a.offset).map_err(|_| Errno::EINVAL)?;
    cx.proc().fds().with(a.fd, |of| {
        of.pwrite(cx, &mut Uio::user(a.buf, a.count, offset))
    })
}

/// readv(2).
pub(super) fn readv(cx: &Curlwp<'_>, a: args::readv) -> SysResult {
    let file = cx.file(a.fd)?;
    file.read(cx, &mut Uio::user_iov(cx, a.iov, a.iovcnt, 0)?)
}

/// writev(2).
pub(super) fn writev(cx: &Curlwp<'_>, a: args::writev) -> SysResult {
    let file = cx.file(a.fd)?;
    file.write(cx, &mut Uio::user_iov(cx, a.iov, a.iovcnt, 0)?)
}

/// lseek(2).
pub(super) fn lseek(cx: &Curlwp<'_>, a: args::lseek) -> SysResult {
    let of = cx.file(a.fd)?;
    if !of.file().seekable() {
        return Err(Errno::ESPIPE);
    }
    let mut offset = of.lock_offset(cx);
    let new = match a.whence {
        SEEK_SET => u64::try_from(a.offset).map_err(|_| Errno::EINVAL)?,
        SEEK_CUR => offset
            .checked_add_signed(a.offset)
            .filter(|&n| n <= i64::MAX as u64)
            .ok_or(Errno::EINVAL)?,
        whence => of.file().seek(cx, a.offset, whence)?,
    };
    *offset = new;
    Ok(new as i64)
}

/// close(2).
pub(super) fn close(cx: &Curlwp<'_>, a: args::close) -> SysResult {
    let file = cx.proc().fds().remove(cx, a.fd)?;
    fd::release(cx, &file);
    Ok(0)
}

/// fstat(2).
pub(super) fn fstat(cx: &Curlwp<'_>, a: args::fstat) -> SysResult {
    let stat = cx.proc().fds().with(a.fd, |of| of.file().stat(cx))?;
    cx.copyout(&stat.to_bytes(), a.statbuf)?;
    Ok(0)
}

/// preadv(2).
pub(super) fn preadv(cx: &Curlwp<'_>, a: args::preadv) -> SysResult {
    let offset = u64::try_from(a.offset).map_err(|_| Errno::EINVAL)?;
    let file = cx.file(a.fd)?;
    file.pread(cx, &mut Uio::user_iov(cx, a.iov, a.iovcnt, offset)?)
}

/// pwritev(2).
pub(super) fn pwritev(cx: &Curlwp<'_>, a: args::pwritev) -> SysResult {
    let offset = u64::try_from(a.offset).map_err(|_| Errno::EINVAL)?;
    let file = cx.file(a.fd)?;
    file.pwrite(cx, &mut Uio::user_iov(cx, a.iov, a.iovcnt, offset)?)
}

/// A hint of preadv2(2) that changes nothing here.
const RWF_HIPRI: i32 = 1;

/// preadv2(2): with the offset -1 as readv(2).
pub(super) fn preadv2(cx: &Curlwp<'_>, a: args::preadv2) -> SysResult {
    if a.flags & !RWF_HIPRI != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    let file = cx.file(a.fd)?;
    if a.offset == -1 {
        return file.read(cx, &mut Uio::user_iov(cx, a.iov, a.iovcnt, 0)?);
    }
    let offset = u64::try_from(a.offset).map_err(|_| Errno::EINVAL)?;
    file.pread(cx, &mut Uio::user_iov(cx, a.iov, a.iovcnt, offset)?)
}

/// pwritev2(2): with the offset -1 as writev(2).
pub(super) fn pwritev2(cx: &Curlwp<'_>, a: args::pwritev2) -> SysResult {
    if a.flags & !RWF_HIPRI != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    let file = cx.file(a.fd)?;
    if a.offset == -1 {
        return file.write(cx, &mut Uio::user_iov(cx, a.iov, a.iovcnt, 0)?);
    }
    let offset = u64::try_from(a.offset).map_err(|_| Errno::EINVAL)?;
    file.pwrite(cx, &mut Uio::user_iov(cx, a.iov, a.iovcnt, offset)?)
}

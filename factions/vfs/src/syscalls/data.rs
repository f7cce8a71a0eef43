//! The data of files: cutting, syncing, advice.

use std::sync::Arc;

use abi::{AT_FDCWD, Errno, SysResult, args};
use kern::Curlwp;

use super::{require_regular, vnode_file};
use crate::access::{self, Change, Want};
use crate::file::VnodeFile;
use crate::namei::namei;
use crate::{Vnode, VnodeKind, pages};

/// truncate(2).
pub(super) fn truncate(cx: &Curlwp<'_>, a: args::truncate) -> SysResult {
    let size = u64::try_from(a.length).map_err(|_| Errno::EINVAL)?;
    let vp = namei(cx, AT_FDCWD, &cx.copyin_path(a.path)?, true)?;
    require_regular(&vp)?;
    access::check(cx, &cx.cred(), &vp, Want::WRITE)?;
    cut(cx, &vp, size)
}

/// ftruncate(2).
pub(super) fn ftruncate(cx: &Curlwp<'_>, a: args::ftruncate) -> SysResult {
    let size = u64::try_from(a.length).map_err(|_| Errno::EINVAL)?;
    vnode_file(cx, a.fd, Errno::EINVAL, |of, file| {
        if !of.writable() || file.vnode().kind != VnodeKind::Regular {
            return Err(Errno::EINVAL);
        }
        cut(cx, file.vnode(), size)
    })
}

fn cut(cx: &Curlwp<'_>, vp: &Arc<Vnode>, size: u64) -> SysResult {
    let _change = Change::begin(cx, vp)?;
    access::clear_set_id(cx, vp)?;
    pages::truncate(cx, vp, size)?;
    Ok(0)
}

/// fsync(2).
pub(super) fn fsync(cx: &Curlwp<'_>, a: args::fsync) -> SysResult {
    vnode_file(cx, a.fd, Errno::EINVAL, |_, file| {
        sync_file(cx, file, false)
    })
}

/// fdatasync(2).
pub(super) fn fdatasync(cx: &Curlwp<'_>, a: args::fdatasync) -> SysResult {
    vnode_file(cx, a.fd, Errno::EINVAL, |_, file| sync_file(cx, file, true))
}

fn sync_file(cx: &Curlwp<'_>, file: &VnodeFile, data_only: bool) -> SysResult {
    let vp = file.vnode();
    match vp.kind {
        VnodeKind::Regular | VnodeKind::Directory | VnodeKind::Block => {}
        _ => return Err(Errno::EINVAL),
    }
    file.fsync(cx, data_only)?;
    Ok(0)
}

/// sync_file_range(2): the whole file, which is more than was asked for.
pub(super) fn sync_file_range(cx: &Curlwp<'_>, a: args::sync_file_range) -> SysResult {
    super::known_flags(a.flags, 7)?;
    if a.offset < 0 || a.nbytes < 0 || a.offset.checked_add(a.nbytes).is_none() {
        return Err(Errno::EINVAL);
    }
    vnode_file(cx, a.fd, Errno::ESPIPE, |_, file| {
        pages::flush(cx, file.vnode())?;
        Ok(0)
    })
}

/// readahead(2).
pub(super) fn readahead(cx: &Curlwp<'_>, a: args::readahead) -> SysResult {
    vnode_file(cx, a.fd, Errno::EINVAL, |of, file| {
        if !of.readable() {
            return Err(Errno::EBADF);
        }
        require_regular(file.vnode()).map_err(|_| Errno::EINVAL)?;
        pages::readahead(cx, file.vnode(), a.offset as u64, a.count as u64);
        Ok(0)
    })
}

const POSIX_FADV_WILLNEED: i32 = 3;
const POSIX_FADV_DONTNEED: i32 = 4;

/// posix_fadvise(2). What will be needed is read ahead, what will not be leaves the cache; other advice is checked and
/// changes nothing, for how a file is read is seen when it is.
pub(super) fn fadvise64(cx: &Curlwp<'_>, a: args::fadvise64) -> SysResult {
    vnode_file(cx, a.fd, Errno::ESPIPE, |_, file| {
        if a.len < 0 || !(0..=5).contains(&a.advice) {
            return Err(Errno::EINVAL);
        }
        let vp = file.vnode();
        if vp.kind == VnodeKind::Fifo {
            return Err(Errno::ESPIPE);
        }
        if vp.kind == VnodeKind::Regular && a.offset >= 0 {
            let (offset, len) = (
                a.offset as u64,
                if a.len == 0 { u64::MAX } else { a.len as u64 },
            );
            match a.advice {
                POSIX_FADV_WILLNEED => pages::readahead(cx, vp, offset, len),
                POSIX_FADV_DONTNEED => pages::evict(cx, vp, offset, len),
                _ => {}
            }
        }
        Ok(0)
    })
}

const KEEP_SIZE: i32 = 0x01;
const PUNCH_HOLE: i32 = 0x02;
const COLLAPSE_RANGE: i32 = 0x08;
const ZERO_RANGE: i32 = 0x10;
const INSERT_RANGE: i32 = 0x20;
const UNSHARE_RANGE: i32 = 0x40;

/// fallocate(2). Collapsing and inserting ranges answers `EOPNOTSUPP`.
pub(super) fn fallocate(cx: &Curlwp<'_>, a: args::fallocate) -> SysResult {
    let all = KEEP_SIZE | PUNCH_HOLE | COLLAPSE_RANGE | ZERO_RANGE | INSERT_RANGE | UNSHARE_RANGE;
    if a.mode & !all != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    let offset = u64::try_from(a.offset).map_err(|_| Errno::EINVAL)?;
    let len = u64::try_from(a.len)
        .ok()
        .filter(|&len| len != 0)
        .ok_or(Errno::EINVAL)?;
    if offset + len > i64::MAX as u64 {
        return Err(Errno::EFBIG);
    }
    let keep = a.mode & KEEP_SIZE != 0;
    vnode_file(cx, a.fd, Errno::ESPIPE, |of, file| {
        if !of.writable() {
            return Err(Errno::EBADF);
        }
        let vp = file.vnode();
        match vp.kind {
            VnodeKind::Regular => {}
            VnodeKind::Directory => return Err(Errno::EISDIR),
            VnodeKind::Fifo => return Err(Errno::ESPIPE),
            _ => return Err(Errno::ENODEV),
        }
        let _change = Change::begin(cx, vp)?;
        access::clear_set_id(cx, vp)?;
        match a.mode & !KEEP_SIZE {
            0 => pages::allocate(cx, vp, offset, len, keep)?,
            PUNCH_HOLE if keep => pages::punch(cx, vp, offset, len)?,
            ZERO_RANGE => pages::zero(cx, vp, offset, len, keep)?,
            _ => return Err(Errno::EOPNOTSUPP),
        }
        Ok(0)
    })
}

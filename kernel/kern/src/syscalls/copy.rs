//! Copying between files inside the kernel.

use std::sync::Arc;

use abi::{Errno, SysResult, UserAddr, args};

use crate::uio::MAX_RW_COUNT;
use crate::{Curlwp, OpenFile, Uio};

/// Bytes that are moved at a time.
const CHUNK: usize = 64 << 10;
const S_IFMT: u32 = 0o170000;
const S_IFDIR: u32 = 0o040000;
const S_IFREG: u32 = 0o100000;

/// Where a side of the copy stands: an offset that the caller keeps, or the open file's own.
pub(super) enum Place {
    Caller(UserAddr, u64),
    File(u64),
    /// A file without offsets.
    Stream,
}

impl Place {
    pub(super) fn of(cx: &Curlwp<'_>, of: &OpenFile, at: UserAddr) -> Result<Place, Errno> {
        if !of.file().seekable() {
            return if at.is_null() {
                Ok(Place::Stream)
            } else {
                Err(Errno::ESPIPE)
            };
        }
        if at.is_null() {
            return Ok(Place::File(*of.lock_offset(cx)));
        }
        let mut raw = [0; 8];
        cx.copyin(at, &mut raw)?;
        let offset = i64::from_le_bytes(raw);
        let offset = u64::try_from(offset).map_err(|_| Errno::EINVAL)?;
        Ok(Place::Caller(at, offset))
    }

    pub(super) fn offset(&self) -> Option<u64> {
        match self {
            Place::Caller(_, offset) | Place::File(offset) => Some(*offset),
            Place::Stream => None,
        }
    }

    /// Moves it on.
    pub(super) fn advance(&self, cx: &Curlwp<'_>, of: &OpenFile, by: u64) -> Result<(), Errno> {
        match self {
            Place::Caller(at, offset) => cx.copyout(&(offset + by).to_le_bytes(), *at),
            Place::File(offset) => {
                *of.lock_offset(cx) = offset + by;
                Ok(())
            }
            Place::Stream => Ok(()),
        }
    }
}

/// sendfile(2): from a file with offsets to anything.
pub(super) fn sendfile(cx: &Curlwp<'_>, a: args::sendfile) -> SysResult {
    let (from, to) = (cx.file(a.in_fd)?, cx.file(a.out_fd)?);
    if !from.readable() || !to.writable() {
        return Err(Errno::EBADF);
    }
    if !from.file().seekable() || to.appends() {
        return Err(Errno::EINVAL);
    }
    let source = Place::of(cx, &from, a.offset)?;
    let target = Place::of(cx, &to, UserAddr::NULL)?;
    copy(cx, (&from, source), (&to, target), a.count)
}

/// copy_file_range(2): between regular files. The bytes are copied; nothing is shared on the disk.
pub(super) fn copy_file_range(cx: &Curlwp<'_>, a: args::copy_file_range) -> SysResult {
    if a.flags != 0 {
        return Err(Errno::EINVAL);
    }
    let (from, to) = (cx.file(a.fd_in)?, cx.file(a.fd_out)?);
    if !from.readable() || !to.writable() || to.appends() {
        return Err(Errno::EBADF);
    }
    let mut identity = [(0, 0); 2];
    for (of, identity) in [&from, &to].into_iter().zip(&mut identity) {
        let stat = of.file().stat(cx)?;
        match stat.st_mode & S_IFMT {
            S_IFREG => *identity = (stat.st_dev, stat.st_ino),
            S_IFDIR => return Err(Errno::EISDIR),
            _ => return Err(Errno::EINVAL),
        }
    }
    let source = Place::of(cx, &from, a.off_in)?;
    let target = Place::of(cx, &to, a.off_out)?;
    if identity[0] == identity[1]
        && let (Some(from), Some(to)) = (source.offset(), target.offset())
        && from.abs_diff(to) < a.len as u64
    {
        return Err(Errno::EINVAL);
    }
    copy(cx, (&from, source), (&to, target), a.len)
}

fn copy(
    cx: &Curlwp<'_>,
    (from, source): (&Arc<OpenFile>, Place),
    (to, target): (&Arc<OpenFile>, Place),
    len: usize,
) -> SysResult {
    let len = len.min(MAX_RW_COUNT);
    let mut buf = vec![0; len.min(CHUNK)];
    let mut done = 0;
    let mut result = Ok(());
    while done < len && result.is_ok() {
        let want = buf.len().min(len - done);
        let at = source.offset().ok_or(Errno::EINVAL)? + done as u64;
        let got = match from.pread(cx, &mut Uio::fill(&mut buf[..want], at)) {
            Ok(0) => break,
            Ok(got) => got as usize,
            Err(error) => {
                result = Err(error);
                break;
            }
        };
        let mut rest = &buf[..got];
        while !rest.is_empty() {
            let moved = match target.offset() {
                Some(at) => to.pwrite(cx, &mut Uio::drain(rest, at + done as u64)),
                None => to.write(cx, &mut Uio::drain(rest, 0)),
            };
            match moved {
                Ok(0) => return Err(Errno::EIO),
                Ok(moved) => {
                    rest = &rest[moved as usize..];
                    done += moved as usize;
                }
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
    }
    if done == 0 {
        result?;
    }
    source.advance(cx, from, done as u64)?;
    target.advance(cx, to, done as u64)?;
    Ok(done as i64)
}

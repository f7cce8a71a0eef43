//! Descriptors: duplicating, their flags, ranges of them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use abi::{Errno, Fdinfo, Flock, SysResult, UserAddr, args};
use abi::{
    F_DUPFD, F_DUPFD_CLOEXEC, F_GETFD, F_GETFL, F_GETLK, F_GETPIPE_SZ, F_OFD_GETLK, F_OFD_SETLK,
    F_OFD_SETLKW, F_RDLCK, F_SETFD, F_SETFL, F_SETLK, F_SETLKW, F_SETPIPE_SZ, F_UNLCK, F_WRLCK,
    FD_CLOEXEC, O_APPEND, O_CLOEXEC, O_DIRECT, O_NOATIME, O_NONBLOCK, O_PATH, SEEK_CUR, SEEK_END,
    SEEK_SET,
};

use crate::fd::{self, FD_MAX};
use crate::pipe::PipeEnd;
use crate::{Curlwp, LockKind, LockOwner, OpenFile, RecordLock};

/// What F_GETFL leaves out: flags that only the opening knows.
const OPEN_ONLY: i32 = abi::O_CREAT | abi::O_EXCL | abi::O_NOCTTY | abi::O_TRUNC | O_CLOEXEC;
/// What F_SETFL can change.
const SETTABLE: i32 = O_APPEND | O_NONBLOCK | O_DIRECT | O_NOATIME;

const CLOSE_RANGE_UNSHARE: i32 = 2;
const CLOSE_RANGE_CLOEXEC: i32 = 4;

const FIONCLEX: u32 = 0x5450;
const FIOCLEX: u32 = 0x5451;
const FIONBIO: u32 = 0x5421;

/// dup(2).
pub(super) fn dup(cx: &Curlwp<'_>, a: args::dup) -> SysResult {
    dup_from(cx, a.oldfd, 0, false)
}

/// dup2(2).
pub(super) fn dup2(cx: &Curlwp<'_>, a: args::dup2) -> SysResult {
    if a.oldfd == a.newfd {
        cx.file(a.oldfd)?;
        return Ok(i64::from(a.newfd));
    }
    dup_to(cx, a.oldfd, a.newfd, false)
}

/// dup3(2).
pub(super) fn dup3(cx: &Curlwp<'_>, a: args::dup3) -> SysResult {
    if a.oldfd == a.newfd || a.flags & !O_CLOEXEC != 0 {
        return Err(Errno::EINVAL);
    }
    dup_to(cx, a.oldfd, a.newfd, a.flags & O_CLOEXEC != 0)
}

fn dup_from(cx: &Curlwp<'_>, old: i32, min: i32, cloexec: bool) -> SysResult {
    if let Some(chosen) = cx.lwp().take_fd_hint() {
        let there = cx.proc().fds().dup_to(cx, old, chosen, FD_MAX, cloexec)?;
        release(cx, there);
        return Ok(i64::from(chosen));
    }
    let limit = cx.proc().fd_limit(cx);
    Ok(cx.proc().fds().dup(cx, old, min, limit, cloexec)?.into())
}

fn dup_to(cx: &Curlwp<'_>, old: i32, new: i32, cloexec: bool) -> SysResult {
    // A client that keeps a host descriptor of this number has passed its own limit already.
    let limit = match cx.lwp().take_fd_hint() {
        Some(chosen) if chosen == new => FD_MAX,
        _ => cx.proc().fd_limit(cx),
    };
    release(cx, cx.proc().fds().dup_to(cx, old, new, limit, cloexec)?);
    Ok(new.into())
}

fn release(cx: &Curlwp<'_>, file: Option<Arc<OpenFile>>) {
    if let Some(file) = file {
        fd::release(cx, &file);
    }
}

/// fcntl(2).
pub(super) fn fcntl(cx: &Curlwp<'_>, a: args::fcntl) -> SysResult {
    let fds = cx.proc().fds();
    let number = a.arg.0;
    match a.cmd {
        F_DUPFD => return dup_from(cx, a.fd, number as i32, false),
        F_DUPFD_CLOEXEC => return dup_from(cx, a.fd, number as i32, true),
        F_GETFD => return Ok(i64::from(fds.close_on_exec(a.fd)?)),
        F_SETFD => {
            fds.set_close_on_exec(a.fd, number as i32 & FD_CLOEXEC != 0)?;
            return Ok(0);
        }
        _ => {}
    }
    let of = cx.file(a.fd)?;
    if a.cmd == F_GETFL {
        return Ok(i64::from(of.flags() & !OPEN_ONLY));
    }
    if of.flags() & O_PATH != 0 {
        return Err(Errno::EBADF);
    }
    match a.cmd {
        F_SETFL => {
            of.set_flags(SETTABLE, number as i32);
            Ok(0)
        }
        F_GETLK | F_OFD_GETLK => get_lock(cx, &of, a.cmd == F_OFD_GETLK, a.arg),
        F_SETLK | F_SETLKW => set_lock(cx, &of, false, a.cmd == F_SETLKW, a.arg),
        F_OFD_SETLK | F_OFD_SETLKW => set_lock(cx, &of, true, a.cmd == F_OFD_SETLKW, a.arg),
        F_GETPIPE_SZ => {
            let end: &PipeEnd = of.downcast().ok_or(Errno::EBADF)?;
            Ok(end.pipe().capacity(cx) as i64)
        }
        F_SETPIPE_SZ => {
            let end: &PipeEnd = of.downcast().ok_or(Errno::EBADF)?;
            let size = usize::try_from(number as i32).map_err(|_| Errno::EINVAL)?;
            Ok(end.pipe().set_capacity(cx, size)? as i64)
        }
        _ => Err(Errno::EINVAL),
    }
}

fn set_lock(cx: &Curlwp<'_>, of: &OpenFile, ofd: bool, wait: bool, arg: UserAddr) -> SysResult {
    let lock = copyin_lock(cx, of, ofd, arg)?.1;
    let allowed = match lock.kind {
        LockKind::Read => of.readable(),
        LockKind::Write => of.writable(),
        LockKind::Unlock => true,
    };
    if !allowed {
        return Err(Errno::EBADF);
    }
    of.file().lock(cx, of, lock, wait)?;
    Ok(0)
}

fn get_lock(cx: &Curlwp<'_>, of: &OpenFile, ofd: bool, arg: UserAddr) -> SysResult {
    let (mut flock, lock) = copyin_lock(cx, of, ofd, arg)?;
    if lock.kind == LockKind::Unlock {
        return Err(Errno::EINVAL);
    }
    match of.file().conflicting_lock(cx, of, lock)? {
        None => flock.l_type = F_UNLCK,
        Some(other) => {
            let to_end = other.end >= i64::MAX as u64;
            flock = Flock {
                l_type: match other.kind {
                    LockKind::Write => F_WRLCK,
                    LockKind::Read | LockKind::Unlock => F_RDLCK,
                },
                l_whence: SEEK_SET as i16,
                l_start: other.start as i64,
                l_len: if to_end {
                    0
                } else {
                    (other.end - other.start + 1) as i64
                },
                l_pid: match other.owner {
                    LockOwner::Process(pid) => pid,
                    LockOwner::OpenFile => -1,
                },
                ..flock
            };
        }
    }
    cx.copyout(&flock.to_bytes(), arg)?;
    Ok(0)
}

/// The `struct flock` of a call, and what it means for this file.
fn copyin_lock(
    cx: &Curlwp<'_>,
    of: &OpenFile,
    ofd: bool,
    arg: UserAddr,
) -> Result<(Flock, RecordLock), Errno> {
    let mut raw = [0; Flock::SIZE];
    cx.copyin(arg, &mut raw)?;
    let flock = Flock::from_bytes(&raw);
    if ofd && flock.l_pid != 0 {
        return Err(Errno::EINVAL);
    }
    let base = match i32::from(flock.l_whence) {
        SEEK_SET => 0,
        SEEK_CUR => *of.lock_offset(cx),
        SEEK_END => of.file().seek(cx, 0, SEEK_END)?,
        _ => return Err(Errno::EINVAL),
    };
    let base = i64::try_from(base).map_err(|_| Errno::EOVERFLOW)?;
    let from = base.checked_add(flock.l_start).ok_or(Errno::EOVERFLOW)?;
    // A negative length means the bytes before.
    let (start, end) = match flock.l_len {
        0 => (from, i64::MAX),
        len if len > 0 => (from, from.checked_add(len - 1).ok_or(Errno::EOVERFLOW)?),
        len => (from.checked_add(len).ok_or(Errno::EINVAL)?, from - 1),
    };
    if start < 0 || end < start {
        return Err(Errno::EINVAL);
    }
    let kind = match flock.l_type {
        F_RDLCK => LockKind::Read,
        F_WRLCK => LockKind::Write,
        F_UNLCK => LockKind::Unlock,
        _ => return Err(Errno::EINVAL),
    };
    let owner = if ofd {
        LockOwner::OpenFile
    } else {
        LockOwner::Process(cx.proc().pid)
    };
    let lock = RecordLock {
        kind,
        start: start as u64,
        end: end as u64,
        owner,
    };
    Ok((flock, lock))
}

/// ioctl(2).
pub(super) fn ioctl(cx: &Curlwp<'_>, a: args::ioctl) -> SysResult {
    let fds = cx.proc().fds();
    let op = a.op as u32;
    match op {
        FIOCLEX | FIONCLEX => {
            fds.set_close_on_exec(a.fd, op == FIOCLEX)?;
            return Ok(0);
        }
        _ => {}
    }
    let of = cx.file(a.fd)?;
    if of.flags() & O_PATH != 0 {
        return Err(Errno::EBADF);
    }
    if op == FIONBIO {
        let mut on = [0; 4];
        cx.copyin(a.arg, &mut on)?;
        let on = on != [0; 4];
        of.set_flags(O_NONBLOCK, if on { O_NONBLOCK } else { 0 });
        return Ok(0);
    }
    of.file().ioctl(cx, &of, op, a.arg)
}

/// close_range(2).
pub(super) fn close_range(cx: &Curlwp<'_>, a: args::close_range) -> SysResult {
    if a.first > a.last || a.flags & !(CLOSE_RANGE_UNSHARE | CLOSE_RANGE_CLOEXEC) != 0 {
        return Err(Errno::EINVAL);
    }
    let fds = cx.proc().fds();
    if a.flags & CLOSE_RANGE_UNSHARE != 0 && fds.users.load(Ordering::Relaxed) != 1 {
        return Err(Errno::EINVAL);
    }
    for number in fds.numbers(cx, a.first as usize, a.last as usize) {
        if a.flags & CLOSE_RANGE_CLOEXEC != 0 {
            let _ = fds.set_close_on_exec(number, true);
        } else {
            release(cx, fds.remove(cx, number).ok());
        }
    }
    Ok(0)
}

/// getfdinfo: the open descriptors, as many as fit, lowest first; answers how many there are.
pub(super) fn getfdinfo(cx: &Curlwp<'_>, a: args::getfdinfo) -> SysResult {
    let fds = cx.proc().fds();
    let numbers = fds.numbers(cx, 0, FD_MAX);
    for (i, &fd) in numbers.iter().enumerate().take(a.bufsize / Fdinfo::SIZE) {
        let info = Fdinfo {
            fd,
            cloexec: u32::from(fds.close_on_exec(fd).unwrap_or(false)),
        };
        cx.copyout(&info.to_bytes(), a.buf.add(i * Fdinfo::SIZE))?;
    }
    Ok(numbers.len() as i64)
}

/// getmapping: maps a part of a file to share it. Answers the host descriptor, in the kernel's host process, of the memory to map, at
/// the same offset; a client on the same host maps it by way of /proc. `ENODEV` when the file has no such memory.
pub(super) fn getmapping(cx: &Curlwp<'_>, a: args::getmapping) -> SysResult {
    let offset = u64::try_from(a.offset).map_err(|_| Errno::EINVAL)?;
    let file = cx.file(a.fd)?;
    let mappings = cx.proc().mappings();
    mappings.map(cx, file.clone(), a.prot, offset, a.len as u64)
}

/// putmapping: the client has unmapped what it had by getmapping.
pub(super) fn putmapping(cx: &Curlwp<'_>, a: args::putmapping) -> SysResult {
    cx.proc().mappings().unmap(cx, a.hostfd)
}

/// syncmapping: makes durable what was written to a file that the process has mapped, msync(2) with `MS_SYNC`.
pub(super) fn syncmapping(cx: &Curlwp<'_>, a: args::syncmapping) -> SysResult {
    cx.proc().mappings().sync(cx, a.hostfd)
}

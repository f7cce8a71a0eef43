//! Resource limits. The kernel keeps all of Linux's and enforces those that concern it: descriptors here, file sizes
//! in the vfs.

use abi::{Errno, Rlimit, SysResult, UserAddr, args};

use crate::proc::{Limits, RLIMIT_NOFILE};
use crate::{Curlwp, Pid, Proc};

/// getrlimit(2).
pub(super) fn getrlimit(cx: &Curlwp<'_>, a: args::getrlimit) -> SysResult {
    limit(cx, cx.proc(), a.resource, UserAddr::NULL, a.rlim)
}

/// setrlimit(2).
pub(super) fn setrlimit(cx: &Curlwp<'_>, a: args::setrlimit) -> SysResult {
    if a.rlim.is_null() {
        return Err(Errno::EFAULT);
    }
    limit(cx, cx.proc(), a.resource, a.rlim, UserAddr::NULL)
}

/// prlimit64(2): of the caller with pid 0; of others, the superuser's and their own user's.
pub(super) fn prlimit64(cx: &Curlwp<'_>, a: args::prlimit64) -> SysResult {
    if a.pid == 0 || a.pid == cx.proc().pid {
        return limit(cx, cx.proc(), a.resource, a.new_limit, a.old_limit);
    }
    let other = cx
        .kernel()
        .find_proc(cx, a.pid as Pid)
        .ok_or(Errno::ESRCH)?;
    let (mine, theirs) = (cx.cred(), other.cred());
    let same = [theirs.ruid, theirs.euid, theirs.suid] == [mine.ruid; 3]
        && [theirs.rgid, theirs.egid, theirs.sgid] == [mine.rgid; 3];
    if !same && !mine.is_superuser() {
        return Err(Errno::EPERM);
    }
    limit(cx, &other, a.resource, a.new_limit, a.old_limit)
}

fn limit(cx: &Curlwp<'_>, proc: &Proc, resource: i32, new: UserAddr, old: UserAddr) -> SysResult {
    let resource = usize::try_from(resource)
        .ok()
        .filter(|&n| n < Limits::COUNT)
        .ok_or(Errno::EINVAL)?;
    let wanted = if new.is_null() {
        None
    } else {
        let mut raw = [0; Rlimit::SIZE];
        cx.copyin(new, &mut raw)?;
        let new = Rlimit::from_bytes(&raw);
        if new.rlim_cur > new.rlim_max {
            return Err(Errno::EINVAL);
        }
        if resource == RLIMIT_NOFILE && new.rlim_max > crate::fd::FD_MAX as u64 {
            return Err(Errno::EPERM);
        }
        Some((new.rlim_cur, new.rlim_max))
    };
    let before = {
        let mut limits = proc.limits.lock(cx.cpu());
        let slot = &mut limits.0[resource];
        let before = *slot;
        if let Some(wanted) = wanted {
            if wanted.1 > before.1 && !cx.cred().is_superuser() {
                return Err(Errno::EPERM);
            }
            *slot = wanted;
        }
        before
    };
    if !old.is_null() {
        let before = Rlimit {
            rlim_cur: before.0,
            rlim_max: before.1,
        };
        cx.copyout(&before.to_bytes(), old)?;
    }
    Ok(0)
}

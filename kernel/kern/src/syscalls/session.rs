//! Process groups, sessions, and who is logged in.

use abi::{Errno, SysResult, args};

use crate::{Curlwp, Pid, Proc, session};
use std::sync::Arc;

/// The most bytes of a login name, with its NUL, as NetBSD has it.
const LOGIN_NAME_MAX: usize = 17;

/// The process of a number, 0 for the current one.
fn proc_of(cx: &Curlwp<'_>, pid: Pid) -> Result<Arc<Proc>, Errno> {
    match pid {
        0 => Ok(cx.proc().clone()),
        pid => cx.kernel().find_proc(cx, pid).ok_or(Errno::ESRCH),
    }
}

/// setpgid(2).
pub(super) fn setpgid(cx: &Curlwp<'_>, a: args::setpgid) -> SysResult {
    if a.pgid < 0 {
        return Err(Errno::EINVAL);
    }
    let pid = match a.pid {
        0 => cx.proc().pid,
        pid => pid,
    };
    let pgid = match a.pgid {
        0 => pid,
        pgid => pgid,
    };
    session::setpgid(cx, pid, pgid)?;
    Ok(0)
}

/// getpgid(2).
pub(super) fn getpgid(cx: &Curlwp<'_>, a: args::getpgid) -> SysResult {
    Ok(proc_of(cx, a.pid)?.pgid().into())
}

/// getpgrp(2).
pub(super) fn getpgrp(cx: &Curlwp<'_>, _: args::getpgrp) -> SysResult {
    Ok(cx.proc().pgid().into())
}

/// setsid(2).
pub(super) fn setsid(cx: &Curlwp<'_>, _: args::setsid) -> SysResult {
    Ok(session::setsid(cx)?.into())
}

/// getsid(2).
pub(super) fn getsid(cx: &Curlwp<'_>, a: args::getsid) -> SysResult {
    Ok(proc_of(cx, a.pid)?.session().sid.into())
}

/// getlogin(2) of NetBSD: the name with its NUL. `ERANGE` when it does not fit.
pub(super) fn getlogin(cx: &Curlwp<'_>, a: args::__getlogin) -> SysResult {
    let mut name = cx.proc().session().login(cx).into_bytes();
    name.push(0);
    if a.namelen < name.len() {
        return Err(Errno::ERANGE);
    }
    cx.copyout(&name, a.namebuf)?;
    Ok(0)
}

/// setlogin(2) of NetBSD: the superuser's. `EINVAL` for a name that is too long.
pub(super) fn setlogin(cx: &Curlwp<'_>, a: args::__setlogin) -> SysResult {
    if !cx.cred().is_superuser() {
        return Err(Errno::EPERM);
    }
    let name = cx
        .copyin_str(a.namebuf, LOGIN_NAME_MAX - 1)
        .map_err(|error| match error {
            Errno::ENAMETOOLONG => Errno::EINVAL,
            other => other,
        })?;
    let name = std::str::from_utf8(&name).map_err(|_| Errno::EINVAL)?;
    cx.proc().session().set_login(cx, name);
    Ok(0)
}

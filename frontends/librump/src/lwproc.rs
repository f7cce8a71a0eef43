//! rump_pub_lwproc_*: processes and lwps, and which one the thread is.

use std::ffi::c_int;

use kern::{Errno, RforkFds};

use crate::context::{self, CLwp};
use crate::misuse::misuse;

/// rfork with a copy of the descriptors.
pub const RUMP_RFFDG: c_int = 0x01;
/// rfork with no descriptors.
pub const RUMP_RFCFDG: c_int = 0x02;

/// Makes a child of the thread's process (of the first one for an implicit thread) and makes the thread its first lwp.
/// Descriptors are shared, or by `flags` copied or cleared; both is `EINVAL`, as is anything else.
#[unsafe(no_mangle)]
pub extern "C" fn rump_pub_lwproc_rfork(flags: c_int) -> c_int {
    let fds = match flags {
        0 => RforkFds::Share,
        RUMP_RFFDG => RforkFds::Copy,
        RUMP_RFCFDG => RforkFds::Clear,
        _ => return Errno::EINVAL.0,
    };
    let child = context::enter(|cx| kern::lwproc::rfork(cx, fds));
    bind(child.and_then(|made| made))
}

/// Makes an lwp in the process `pid` and makes the thread it. `ESRCH` when there is no such process, `EBUSY` when it is going
/// away.
#[unsafe(no_mangle)]
pub extern "C" fn rump_pub_lwproc_newlwp(pid: libc::pid_t) -> c_int {
    let made = context::enter(|cx| {
        let proc = cx.kernel().find_proc(cx, pid).ok_or(Errno::ESRCH)?;
        kern::lwproc::newlwp(cx, &proc)
    });
    bind(made.and_then(|made| made))
}

/// Makes the thread a new lwp.
fn bind(made: Result<kern::LwpHandle, Errno>) -> c_int {
    match made {
        Ok(handle) => {
            // Nobody else knows the new lwp, so it runs nowhere.
            context::switch(CLwp::new(handle));
            0
        }
        Err(errno) => errno.0,
    }
}

/// Makes the thread another lwp, or implicit when `lwp` is null. Panics when the lwp is some thread's already.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_pub_lwproc_switch(lwp: *const CLwp) {
    if !context::switch(lwp) {
        // SAFETY: C's pointer to an lwp is one that it got from here and that was not released since.
        let lwp = unsafe { &*lwp };
        misuse(
            rump_pub_lwproc_switch as *const (),
            "rump_pub_lwproc_switch",
            format_args!("{lwp} is running already"),
        );
    }
}

/// Releases the thread's lwp, at once or with the CPU that the thread holds by rump_schedule. The last lwp of a process takes
/// it along. Panics for a thread without an lwp of its own.
#[unsafe(no_mangle)]
pub extern "C" fn rump_pub_lwproc_releaselwp() {
    if !context::release() {
        misuse(
            rump_pub_lwproc_releaselwp as *const (),
            "rump_pub_lwproc_releaselwp",
            format_args!("the thread has no lwp of its own to release"),
        );
    }
}

/// The thread's lwp; null when it is implicit or has released it.
#[unsafe(no_mangle)]
pub extern "C" fn rump_pub_lwproc_curlwp() -> *const CLwp {
    context::curlwp()
}

/// Has the thread's process use the kernel's own system-call vector. There is no other.
#[unsafe(no_mangle)]
pub extern "C" fn rump_pub_lwproc_sysent_usenative() {}

/// Has the thread's process answer with another number of its own, for a file server that acts for processes of its host.
/// The number of the lwp, which no call shows, stays. All bets are off: other processes find it by its old number.
#[unsafe(no_mangle)]
pub extern "C" fn rump_pub_allbetsareoff_setid(pid: libc::pid_t, lid: c_int) {
    let _ = lid;
    if context::curlwp().is_null() {
        misuse(
            rump_pub_allbetsareoff_setid as *const (),
            "rump_pub_allbetsareoff_setid",
            format_args!("the thread has no lwp of its own"),
        );
    }
    // A bound thread has a kernel.
    let _ = context::enter(|cx| cx.proc().set_shown_pid(pid));
}

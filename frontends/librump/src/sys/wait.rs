//! Waiting, where NetBSD leaves the time that it is given as it is and Linux writes the rest into it.

use std::ffi::{c_int, c_uint, c_void};

use super::files::as_error;
use super::{answer, call};

/// A copy that the kernel may write to, and its address; null stays null.
///
/// # Safety
/// The pointer is null or that of a time.
unsafe fn copy(time: *const libc::timespec, to: &mut libc::timespec) -> *mut c_void {
    if time.is_null() {
        return std::ptr::null_mut();
    }
    // SAFETY: the caller's condition.
    *to = unsafe { *time };
    std::ptr::from_mut(to).cast()
}

const ZERO: libc::timespec = libc::timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_sys_pollts(
    fds: *mut c_void,
    nfds: c_uint,
    ts: *const libc::timespec,
    _mask: *const c_void,
) -> c_int {
    let mut rest = ZERO;
    // SAFETY: C gives null or a time.
    let ts = unsafe { copy(ts, &mut rest) };
    answer(call!(ppoll(fds, nfds, ts, 0, 0))) as c_int
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_sys_pselect(
    nd: c_int,
    r: *mut c_void,
    w: *mut c_void,
    x: *mut c_void,
    ts: *const libc::timespec,
    _mask: *const c_void,
) -> c_int {
    let mut rest = ZERO;
    // SAFETY: C gives null or a time.
    let ts = unsafe { copy(ts, &mut rest) };
    answer(call!(pselect6(nd, r, w, x, ts, 0))) as c_int
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_sys_clock_nanosleep(
    clock: c_int,
    flags: c_int,
    request: *const c_void,
    remain: *mut c_void,
) -> c_int {
    as_error(call!(clock_nanosleep(clock, flags, request, remain)))
}

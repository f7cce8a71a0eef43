//! Timers, whose identifiers are addresses in C and numbers in the kernel.

use std::ffi::{c_int, c_void};

use abi::Errno;

use super::{answer, call, fail};

#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_sys_timer_create(
    clock: c_int,
    event: *mut c_void,
    timerid: *mut libc::timer_t,
) -> c_int {
    let mut id: c_int = 0;
    let at = std::ptr::from_mut(&mut id).cast::<c_void>();
    if timerid.is_null() {
        return fail(Errno::EFAULT) as c_int;
    }
    let made = call!(timer_create(clock, event, at));
    if made.is_ok() {
        // SAFETY: C gives the place of an identifier.
        unsafe { *timerid = std::ptr::without_provenance_mut(id as usize) };
    }
    answer(made) as c_int
}

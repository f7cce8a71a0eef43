//! System calls that are not the table's: of the process, and the end of the kernel.
#![allow(missing_docs)] // the calls' documentation is their manual pages

use std::ffi::{c_char, c_int};

use crate::kernel;
use crate::sys::fail;

#[unsafe(no_mangle)]
pub extern "C" fn rump_sys_issetugid() -> c_int {
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_sys_reboot(opt: c_int, _bootstr: *const c_char) -> c_int {
    fail(kernel::reboot(opt)) as c_int
}

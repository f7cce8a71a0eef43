//! System calls that are not the table's: of the process, and the end of the kernel.
#![allow(missing_docs)] // the calls' documentation is their manual pages

use std::ffi::{c_char, c_int};

use abi::nr;

use crate::context;
use crate::sys::fail;

/// Flags of reboot: stay down, do not exit.
const RB_HALT: c_int = 0x008;

#[unsafe(no_mangle)]
pub extern "C" fn rump_sys_issetugid() -> c_int {
    0
}

/// reboot: the kernel syncs, unmounts and goes down; its process exits unless `RB_HALT` says to stay.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_sys_reboot(opt: c_int, _bootstr: *const c_char) -> c_int {
    const MAGIC: [u64; 2] = [0xfee1_dead, 672_274_793];
    const HALT: u64 = 0xcdef_0123;
    const POWER_OFF: u64 = 0x4321_fedc;
    let op = if opt & RB_HALT != 0 { HALT } else { POWER_OFF };
    match context::syscall(nr::reboot, &[MAGIC[0], MAGIC[1], op, 0, 0, 0]) {
        Ok(_) => 0,
        Err(errno) => fail(errno) as c_int,
    }
}

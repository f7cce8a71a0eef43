//! What passes between a module and a kernel, in C's layout; `include/rump/rumpmodule.h` says the same for C.
//!
//! Functions answer 0 or an errno. `cx` stands for the lwp that runs and is good until the function that was given it comes back, in its
//! thread. A module's functions run with a virtual CPU held: what waits for something outside the kernel does so under
//! [`Ops::unscheduled`].
#![allow(missing_docs)] // the fields are explained in the header; here they have their types

use std::ffi::{c_char, c_int, c_void};

/// The form of the interface; another one for every change of this file.
const REVISION: u64 = 1;

/// The version of this crate as rump_getversion(3) has it: major * 100,000,000 + minor * 1,000,000 + patch * 100.
pub const VERSION: u32 = part(env!("CARGO_PKG_VERSION_MAJOR")) * 100_000_000
    + part(env!("CARGO_PKG_VERSION_MINOR")) * 1_000_000
    + part(env!("CARGO_PKG_VERSION_PATCH")) * 100;

/// The word that a module exports as `rump_module_abi`, looked at before anything else of it: version and form of the interface.
pub const ABI: u64 = (VERSION as u64) << 16 | REVISION;

/// The name of the exported word.
pub const ABI_SYMBOL: &std::ffi::CStr = c"rump_module_abi";
/// The name of the exported pointer to a [`RawInfo`].
pub const INFO_SYMBOL: &std::ffi::CStr = c"rump_module_info";

const fn part(text: &str) -> u32 {
    let (bytes, mut n, mut i) = (text.as_bytes(), 0, 0);
    while i < bytes.len() {
        n = n * 10 + (bytes[i] - b'0') as u32;
        i += 1;
    }
    n
}

/// `enum modcmd`: start.
pub const MODULE_CMD_INIT: c_int = 0;
/// `enum modcmd`: end.
pub const MODULE_CMD_FINI: c_int = 1;

/// `struct modinfo`: what a module says of itself.
#[repr(C)]
#[derive(Debug)]
pub struct RawInfo {
    /// [`VERSION`] of the headers that it was compiled with.
    pub version: u32,
    pub class: c_int,
    /// Starts and ends it; is given a [`RawCx`].
    pub modcmd: Option<unsafe extern "C" fn(c_int, *mut c_void) -> c_int>,
    pub name: *const c_char,
    /// Names of other modules, with commas between; null for none.
    pub required: *const c_char,
}

// SAFETY: it is read only, and what its pointers name lasts and does not change.
unsafe impl Sync for RawInfo {}

/// A [`RawInfo`]'s address, as a module exports it.
#[repr(transparent)]
#[derive(Debug)]
pub struct InfoRef(pub *const RawInfo);

// SAFETY: as with what it points to.
unsafe impl Sync for InfoRef {}

/// `struct rump_cx`. The kernel has more behind it.
#[repr(C)]
#[derive(Debug)]
pub struct RawCx {
    pub ops: *const Ops,
}

pub type Free = Option<unsafe extern "C" fn(*mut c_void)>;
pub type GetInt = unsafe extern "C" fn(*const RawCx, *mut c_void, *mut i64) -> c_int;
pub type SetInt = unsafe extern "C" fn(*const RawCx, *mut c_void, i64) -> c_int;
pub type GetText = unsafe extern "C" fn(*const RawCx, *mut c_void, *mut c_char, usize) -> c_int;
pub type SetText = unsafe extern "C" fn(*const RawCx, *mut c_void, *const c_char) -> c_int;
pub type Handler = unsafe extern "C" fn(*const RawCx, *mut c_void, *const u64, *mut i64) -> c_int;

/// `struct rump_sysctl`: a node, with the functions for a number or those for a text.
#[repr(C)]
#[derive(Debug)]
pub struct RawSysctl {
    pub name: *const c_char,
    pub get_int: Option<GetInt>,
    pub set_int: Option<SetInt>,
    pub get_text: Option<GetText>,
    pub set_text: Option<SetText>,
    pub arg: *mut c_void,
    pub free: Free,
}

/// `struct rump_cdevsw`: a driver of a character device. What is null is not there.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct RawCdevsw {
    pub open: Option<unsafe extern "C" fn(*const RawCx, *mut c_void, c_int) -> c_int>,
    pub close: Option<unsafe extern "C" fn(*const RawCx, *mut c_void)>,
    pub read: Option<
        unsafe extern "C" fn(
            *const RawCx,
            *mut c_void,
            *mut u8,
            usize,
            u64,
            c_int,
            *mut usize,
        ) -> c_int,
    >,
    pub write: Option<
        unsafe extern "C" fn(
            *const RawCx,
            *mut c_void,
            *const u8,
            usize,
            u64,
            c_int,
            *mut usize,
        ) -> c_int,
    >,
    pub ioctl: Option<unsafe extern "C" fn(*const RawCx, *mut c_void, u32, u64, *mut i64) -> c_int>,
}

/// An argument of [`Ops::invoke`]: a number, or memory that is lent for the call.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct RawArg {
    /// [`ARG_VALUE`] and so on.
    pub kind: u32,
    /// The number, or the address.
    pub value: u64,
    /// Bytes of the memory.
    pub len: usize,
}

/// A [`RawArg`] that is a number.
pub const ARG_VALUE: u32 = 0;
/// Memory that the kernel reads.
pub const ARG_IN: u32 = 1;
/// Memory that the kernel writes, or reads and writes.
pub const ARG_OUT: u32 = 2;
/// A string with its NUL, `len` bytes with it.
pub const ARG_STR: u32 = 3;

/// `struct rump_ops`: what the kernel does for a module.
///
/// The first three register something, while the module starts only (`EPERM` later). `arg` is handed to the functions; `free` is called
/// with it once when they will not be called any more, also when registering fails.
#[repr(C)]
#[derive(Debug)]
pub struct Ops {
    pub sysctl: unsafe extern "C" fn(*const RawCx, *const RawSysctl) -> c_int,
    pub syscall: unsafe extern "C" fn(*const RawCx, c_int, Handler, *mut c_void, Free) -> c_int,
    pub cdev: unsafe extern "C" fn(
        *const RawCx,
        *const c_char,
        u32,
        *const RawCdevsw,
        *mut c_void,
        Free,
    ) -> c_int,
    /// The memory of who makes the call.
    pub copyin: unsafe extern "C" fn(*const RawCx, u64, *mut c_void, usize) -> c_int,
    pub copyout: unsafe extern "C" fn(*const RawCx, *const c_void, u64, usize) -> c_int,
    pub copyinstr: unsafe extern "C" fn(*const RawCx, u64, *mut c_char, usize, *mut usize) -> c_int,
    /// A system call of the lwp, with registers that name memory of this process.
    pub call: unsafe extern "C" fn(*const RawCx, c_int, *const u64, *mut i64) -> c_int,
    /// A system call that reaches only what its arguments lend.
    pub invoke: unsafe extern "C" fn(*const RawCx, u32, *mut RawArg, usize, *mut i64) -> c_int,
    pub getpid: unsafe extern "C" fn(*const RawCx) -> i32,
    /// The effective user.
    pub geteuid: unsafe extern "C" fn(*const RawCx) -> u32,
    pub kill: unsafe extern "C" fn(*const RawCx, i32, c_int) -> c_int,
    /// A line for the message buffer.
    pub log: unsafe extern "C" fn(*const RawCx, *const c_char),
    /// Sleeps until a wakeup of the identity, at most so many nanoseconds (0: without end): `EWOULDBLOCK`, `EINTR`.
    pub tsleep: unsafe extern "C" fn(*const RawCx, *const c_void, u64) -> c_int,
    pub wakeup: unsafe extern "C" fn(*const RawCx, *const c_void),
    /// Calls a function without the virtual CPU.
    pub unscheduled:
        unsafe extern "C" fn(*const RawCx, unsafe extern "C" fn(*mut c_void), *mut c_void),
}

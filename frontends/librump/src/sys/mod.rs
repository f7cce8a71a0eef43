//! rump_sys_*: the system calls, under NetBSD's names and with its argument order, for C.
//!
//! A call answers as on the host: a value, or -1 with the host's errno. Most are shims made from `syscalls.master`
//! ([`generated`]); what NetBSD has other than Linux is beside it, one file a family.
//!
//! librumpclient compiles these files too: they know nothing but `crate::context::syscall`, by which a call is made, here in
//! the kernel of this process and there in one of another.
#![allow(missing_docs)] // the calls' documentation is their manual pages

use std::ffi::{c_int, c_long, c_void};

use abi::{Errno, SysResult};

use crate::signal;

mod aio;
mod extattr;
mod files;
#[rustfmt::skip]
mod generated;
mod handle;
mod mount;
mod sysctl;
mod timer;
mod wait;

pub use aio::*;
pub use extattr::*;
pub use files::*;
pub use generated::*;
pub use handle::*;
pub use mount::*;
pub use sysctl::*;
pub use timer::*;
pub use wait::*;

/// Makes a call, and raises the signal that comes with its error.
#[inline]
pub(crate) fn syscall(nr: u32, args: &[u64; 6]) -> SysResult {
    let result = crate::context::syscall(nr, args);
    if result == Err(Errno::EPIPE) && abi::sends_sigpipe(nr, args) {
        signal::sigpipe();
    }
    result
}

/// Makes a call by its number, with its registers as an array of `size` bytes. Answers 0 or the errno, `EINVAL` for more than six
/// registers; the value goes to `retval`.
///
/// # Safety
/// `args` has `size` bytes, and what they name is good for the call; `retval` is null or the place of a value.
pub(crate) unsafe fn by_number(
    num: c_int,
    args: *const c_void,
    size: usize,
    retval: *mut c_long,
) -> c_int {
    let mut registers = [0u64; 6];
    if size > size_of_val(&registers) {
        return Errno::EINVAL.0;
    }
    if size != 0 {
        // SAFETY: C gives an array of `size` bytes, and there is room for them.
        unsafe {
            std::ptr::copy_nonoverlapping(args.cast(), registers.as_mut_ptr().cast::<u8>(), size)
        };
    }
    let Ok(nr) = u32::try_from(num) else {
        return Errno::ENOSYS.0;
    };
    match syscall(nr, &registers) {
        Ok(value) => {
            // SAFETY: C gives null or the place of a value.
            if let Some(to) = unsafe { retval.as_mut() } {
                *to = value;
            }
            0
        }
        Err(errno) => errno.0,
    }
}

/// An argument as a register.
trait Register {
    fn register(self) -> u64;
}

macro_rules! register {
    ($($ty:ty)*) => {
        $(impl Register for $ty {
            #[inline]
            fn register(self) -> u64 {
                self as u64
            }
        })*
    };
}
register!(i32 u32 i64 u64 usize isize *const c_void *mut c_void);

/// Arguments as registers; those that the call has not are 0.
#[inline]
fn registers<const N: usize>(args: [u64; N]) -> [u64; 6] {
    let mut all = [0; 6];
    all[..N].copy_from_slice(&args);
    all
}

/// What C is answered: the value, or -1 and errno.
#[inline]
fn answer(result: SysResult) -> i64 {
    match result {
        Ok(value) => value,
        Err(errno) => fail(errno),
    }
}

/// Sets errno. Answers -1.
#[cold]
pub(crate) fn fail(errno: Errno) -> i64 {
    // SAFETY: the thread's own errno.
    unsafe { *libc::__errno_location() = errno.0 };
    -1
}

/// A call of the table: `call!(openat(fd, path, flags, mode))`, to be answered with [`answer`].
macro_rules! call {
    ($call:ident ( $($arg:expr),* )) => {
        $crate::sys::syscall(
            abi::nr::$call,
            &$crate::sys::registers([$($crate::sys::Register::register($arg)),*]),
        )
    };
}
pub(crate) use call;

/// Shims: a C function that is a call of the table. What C declares as `...` is an argument like any other here: it comes in the same
/// register, and what is in it when C passes none is not looked at by the kernel.
macro_rules! shims {
    ($(fn $name:ident ( $($arg:ident : $ty:ty),* ) -> $ret:ty = $call:ident ( $($e:expr),* );)*) => {
        $(
            #[unsafe(no_mangle)]
            #[allow(unused_variables)] // a call may need fewer
            pub unsafe extern "C" fn $name($($arg: $ty),*) -> $ret {
                $crate::sys::answer($crate::sys::call!($call($($e),*))) as $ret
            }
        )*
    };
}
pub(crate) use shims;

/// What is not there: a C function that answers an error.
macro_rules! absent {
    ($(fn $name:ident ( $($arg:ident : $ty:ty),* ) -> $ret:ty = $errno:ident;)*) => {
        $(
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $name($($arg: $ty),*) -> $ret {
                $(let _ = $arg;)*
                $crate::sys::fail(abi::Errno::$errno) as $ret
            }
        )*
    };
}
pub(crate) use absent;

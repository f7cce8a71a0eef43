//! The working directory: the host's, or the kernel's when the program has gone below the prefix. The host's stays
//! where it was meanwhile.

use core::sync::atomic::Ordering;

use abi::{AT_FDCWD, Errno, nr};

use crate::config::Config;
use crate::fds::{err, kernel_call};
use crate::names::{Place, place};
use crate::state::Process;
use crate::sys::{self, failed};

/// chdir(2) to either side.
pub(crate) fn chdir(config: &Config<'_>, process: &Process, args: &[u64; 6]) -> Option<i64> {
    // SAFETY: the program's path.
    match unsafe { place(config, process, AT_FDCWD, args[0] as *const u8) } {
        Place::Host => leave(process, nr::chdir, args),
        Place::Kernel(path) => Some(enter(process, nr::chdir, &[path as u64, 0, 0, 0, 0, 0])),
    }
}

/// fchdir(2) to either side.
pub(crate) fn fchdir(process: &Process, args: &[u64; 6]) -> Option<i64> {
    if process.is_kernel(args[0] as i32) {
        return Some(enter(process, nr::fchdir, args));
    }
    if process.is_own(args[0] as i32) {
        return Some(err(Errno::EBADF));
    }
    leave(process, nr::fchdir, args)
}

fn enter(process: &Process, number: u32, args: &[u64; 6]) -> i64 {
    let ret = kernel_call(number, args);
    if ret == 0 {
        process.cwd_inside.store(1, Ordering::Release);
    }
    ret
}

fn leave(process: &Process, number: u32, args: &[u64; 6]) -> Option<i64> {
    if process.cwd_inside.load(Ordering::Acquire) == 0 {
        return None;
    }
    // SAFETY: the program's call.
    let ret = unsafe { sys::syscall(number, *args) };
    if !failed(ret) {
        process.cwd_inside.store(0, Ordering::Release);
    }
    Some(ret)
}

/// getcwd(2): the kernel's answer below the prefix.
pub(crate) fn getcwd(config: &Config<'_>, process: &Process, args: &[u64; 6]) -> Option<i64> {
    if process.cwd_inside.load(Ordering::Acquire) == 0 {
        return None;
    }
    let prefix = config.path.unwrap_or(b"");
    // Of "//" one slash is the kernel's own.
    let prefix = if prefix.iter().all(|&b| b == b'/') {
        prefix.get(1..).unwrap_or(b"")
    } else {
        prefix
    };
    let (buf, size) = (args[0], args[1] as usize);
    if size <= prefix.len() + 1 {
        return Some(err(Errno::ERANGE));
    }
    let at = buf.wrapping_add(prefix.len() as u64);
    let len = kernel_call(nr::getcwd, &[at, (size - prefix.len()) as u64, 0, 0, 0, 0]);
    if len <= 0 {
        return Some(len);
    }
    // SAFETY: the kernel has just written behind the prefix's place in the program's buffer of `size` bytes, so it is there.
    unsafe {
        core::ptr::copy_nonoverlapping(prefix.as_ptr(), buf as *mut u8, prefix.len());
        if len == 2 && !prefix.is_empty() {
            // The root: "/rump" and not "/rump/".
            *(at as *mut u8) = 0;
            return Some(prefix.len() as i64 + 1);
        }
    }
    Some(prefix.len() as i64 + len)
}

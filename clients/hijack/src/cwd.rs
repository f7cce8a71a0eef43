//! The working directory: the host's, or the kernel's when the program has gone below the prefix. The host's stays
//! where it was meanwhile.

use core::sync::atomic::Ordering;

use abi::{AT_FDCWD, Errno, nr};

use crate::config::Config;
use crate::fds::{err, kernel_call};
use crate::names::{Place, place};
use crate::state::Process;
use crate::sys::{self, failed, host};

/// [`Process::cwd`]: somewhere on the host. Relative names are the host's.
pub(crate) const HOST: u32 = 0;
/// In the kernel. Relative names are the kernel's.
pub(crate) const INSIDE: u32 = 1;
/// On the host above the prefix. `rump/x` in `/` is the kernel's.
pub(crate) const ABOVE: u32 = 2;

/// chdir(2) to either side.
pub(crate) fn chdir(config: &Config<'_>, process: &Process, args: &[u64; 6]) -> Option<i64> {
    // SAFETY: the program's path.
    match unsafe { place(config, process, AT_FDCWD, args[0] as *const u8) } {
        Place::Host => Some(leave(config, process, nr::chdir, args)),
        Place::Kernel(path) => Some(enter(process, nr::chdir, &[path as u64, 0, 0, 0, 0, 0])),
    }
}

/// fchdir(2) to either side.
pub(crate) fn fchdir(config: &Config<'_>, process: &Process, args: &[u64; 6]) -> Option<i64> {
    if process.is_kernel(args[0] as i32) {
        return Some(enter(process, nr::fchdir, args));
    }
    if process.is_own(args[0] as i32) {
        return Some(err(Errno::EBADF));
    }
    Some(leave(config, process, nr::fchdir, args))
}

fn enter(process: &Process, number: u32, args: &[u64; 6]) -> i64 {
    let ret = kernel_call(number, args);
    if ret == 0 {
        process.cwd.store(INSIDE, Ordering::Release);
    }
    ret
}

fn leave(config: &Config<'_>, process: &Process, number: u32, args: &[u64; 6]) -> i64 {
    // SAFETY: the program's call.
    let ret = unsafe { sys::syscall(number, *args) };
    if !failed(ret) {
        settle_on_host(config, process);
    }
    ret
}

/// Notes where on the host the working directory is.
pub(crate) fn settle_on_host(config: &Config<'_>, process: &Process) {
    let mut buffer = [0u8; 4096];
    let above = config
        .path
        .zip(of_host(&mut buffer))
        .is_some_and(|(prefix, dir)| remainder(prefix, dir).is_some());
    process
        .cwd
        .store(if above { ABOVE } else { HOST }, Ordering::Release);
}

/// The host's working directory.
pub(crate) fn of_host(buffer: &mut [u8; 4096]) -> Option<&[u8]> {
    // SAFETY: a buffer of that length.
    let len = unsafe { host!(getcwd, buffer.as_mut_ptr(), buffer.len()) };
    buffer.get(..usize::try_from(len - 1).ok()?)
}

/// The directory that a host descriptor is.
pub(crate) fn of_descriptor(fd: i32, buffer: &mut [u8; 4096]) -> Option<&[u8]> {
    let mut name = *b"/proc/self/fd/\0\0\0\0\0\0\0\0\0\0\0";
    let (_, digits) = name.split_at_mut(14);
    let mut rest = u32::try_from(fd).ok()?;
    let len = rest.checked_ilog10().unwrap_or(0) as usize + 1;
    for digit in digits.get_mut(..len)?.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    // SAFETY: a NUL-terminated name, and a buffer of that length.
    let len = unsafe { host!(readlink, name.as_ptr(), buffer.as_mut_ptr(), buffer.len()) };
    buffer.get(..usize::try_from(len).ok()?)
}

/// What of the prefix lies below `dir`, when something does.
pub(crate) fn remainder<'p>(prefix: &'p [u8], dir: &[u8]) -> Option<&'p [u8]> {
    let dir = dir.strip_suffix(b"/").unwrap_or(dir);
    prefix
        .strip_prefix(dir)
        .filter(|rest| rest.len() > 1 && rest.first() == Some(&b'/') && rest.get(1) != Some(&b'/'))
}

/// getcwd(2): the kernel's answer below the prefix.
pub(crate) fn getcwd(config: &Config<'_>, process: &Process, args: &[u64; 6]) -> Option<i64> {
    if process.cwd.load(Ordering::Acquire) != INSIDE {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_of_a_prefix_lies_below_its_parents() {
        for (prefix, dir, want) in [
            ("/rump", "/", Some("/rump")),
            ("/a/b", "/a", Some("/b")),
            ("/a/b", "/", Some("/a/b")),
            ("/a/b", "/a/b", None),
            ("/ab", "/a", None),
            ("/rump", "/tmp", None),
            ("//", "/", None),
        ] {
            let got = remainder(prefix.as_bytes(), dir.as_bytes());
            assert_eq!(got, want.map(str::as_bytes), "{prefix} {dir}");
        }
    }
}

//! Descriptors: the kernel's have the number of a host descriptor that stands in for them.
//!
//! A new one takes a host slot first (a duplicate of the placeholder), and the kernel is told to use its number. A
//! close leaves the kernel first and gives the slot back last, so nobody else can get the number in between.

use abi::{Errno, F_DUPFD, F_DUPFD_CLOEXEC, F_SETFD, FD_CLOEXEC, O_CLOEXEC, nr};

use crate::epoll;
use crate::retry;
use crate::state::{FD_MAX, Kind, Process, process, raw_thread};
use crate::sys::{failed, host};

/// close_range(2): set close-on-exec instead.
const CLOSE_RANGE_CLOEXEC: u64 = 4;
/// close_range(2): with a table of its own.
const CLOSE_RANGE_UNSHARE: u64 = 2;
/// unshare(2): the descriptor table.
const CLONE_FILES: u64 = 0x400;
/// ioctl(2): clear and set close-on-exec.
const FIONCLEX: u64 = 0x5450;
const FIOCLEX: u64 = 0x5451;

/// -errno, as the kernel answers.
pub(crate) const fn err(errno: Errno) -> i64 {
    -(errno.0 as i64)
}

/// Makes a call of the kernel.
pub(crate) fn kernel_call(number: u32, args: &[u64; 6]) -> i64 {
    kernel_call_hinted(number, args, -1)
}

/// Makes a call that opens one descriptor in the kernel, with the number that it is to have.
pub(crate) fn kernel_call_hinted(number: u32, args: &[u64; 6], fd: i32) -> i64 {
    let process = process();
    let call = || {
        process
            .client
            .call_hinted(raw_thread(), number, args, [fd, -1])
    };
    let answer = call();
    match retry::again(process, answer) {
        true => call(),
        false => answer,
    }
}

/// Makes a call that opens one descriptor in the kernel.
pub(crate) fn open(number: u32, args: &[u64; 6], cloexec: bool) -> i64 {
    let process = process();
    let command = if cloexec { F_DUPFD_CLOEXEC } else { F_DUPFD };
    // SAFETY: duplicates a descriptor of the shim's own.
    let slot = unsafe { host!(fcntl, process.placeholder(), command, 0) };
    if failed(slot) {
        return slot;
    }
    let fd = kernel_call_hinted(number, args, slot as i32);
    settle(process, fd, slot, Kind::Kernel)
}

/// Ends the making of a descriptor: the slot becomes what it shall be, or is given back with the error.
fn settle(process: &Process, fd: i64, slot: i64, kind: Kind) -> i64 {
    if fd == slot && (slot as usize) < FD_MAX {
        process.set(slot as i32, kind);
        return fd;
    }
    if fd >= 0 {
        kernel_call(nr::close, &[fd as u64, 0, 0, 0, 0, 0]);
    }
    // SAFETY: the slot is the shim's and nobody knows its number yet.
    unsafe { host!(close, slot) };
    if fd < 0 { fd } else { err(Errno::EMFILE) }
}

/// close(2) of a host descriptor that may have a shadow in the kernel.
pub(crate) fn close_host(fd: i32) -> Option<i64> {
    epoll::unshadow(process(), fd);
    None
}

/// close(2) of a kernel descriptor.
pub(crate) fn close(fd: i32) -> i64 {
    let process = process();
    let ret = kernel_call(nr::close, &[fd as u64, 0, 0, 0, 0, 0]);
    if ret != err(Errno::EBADF) {
        process.set(fd, Kind::Host);
        // SAFETY: the slot of the descriptor that was just closed.
        unsafe { host!(close, fd) };
    }
    ret
}

/// Duplicates in the kernel what it has, onto a number that the host has given. A shadow is never closed on exec: whether it goes on
/// is seen by its descriptor.
fn dup_in_kernel(old: i32, new: i32, kind: Kind, flags: u64) -> i64 {
    let flags = if kind == Kind::Shadowed { 0 } else { flags };
    kernel_call_hinted(nr::dup3, &[old as u64, new as u64, flags, 0, 0, 0], new)
}

/// dup(2) and `F_DUPFD` of a descriptor that the kernel has: the lowest host slot from `min` on.
pub(crate) fn dup(fd: i32, min: u64, cloexec: bool) -> i64 {
    let process = process();
    let command = if cloexec { F_DUPFD_CLOEXEC } else { F_DUPFD };
    // SAFETY: duplicates a slot of the shim's own, or an epoll descriptor as the program asked.
    let slot = unsafe { host!(fcntl, fd, command, min) };
    if failed(slot) {
        return slot;
    }
    let flags = if cloexec { O_CLOEXEC as u64 } else { 0 };
    let kind = process.kind(fd);
    let new = dup_in_kernel(fd, slot as i32, kind, flags);
    settle(process, new, slot, kind)
}

/// dup(2) and fcntl(2) of an epoll descriptor that has a shadow: duplicates have it too, the rest is the host's.
pub(crate) fn dup_shadowed(number: u32, args: &[u64; 6]) -> Option<i64> {
    let (fd, command) = (args[0] as i32, args[1] as i32);
    match command {
        _ if number == nr::dup => Some(dup(fd, 0, false)),
        F_DUPFD | F_DUPFD_CLOEXEC => Some(dup(fd, args[2], command == F_DUPFD_CLOEXEC)),
        _ => None,
    }
}

/// dup2(2) and dup3(2), with either descriptor the kernel's, the shim's own or the host's. `None` when it is all the
/// host's.
pub(crate) fn dup2(old: i32, new: i32, flags: Option<u64>) -> Option<i64> {
    let process = process();
    if process.is_own(old) {
        return Some(err(Errno::EBADF));
    }
    if process.is_own(new) && !make_room(process, new) {
        return Some(err(Errno::EBUSY));
    }
    let (kind, replaced) = (process.kind(old), process.kind(new));
    // What is the host's it knows to be open.
    if kind == Kind::Host && replaced == Kind::Host || old == new && kind != Kind::Kernel {
        return None;
    }
    if old == new {
        return Some(if flags.is_some() {
            err(Errno::EINVAL)
        } else {
            i64::from(new)
        });
    }
    if new as usize >= FD_MAX {
        return Some(err(Errno::EBADF));
    }
    let host_flags = flags.unwrap_or(0);
    // SAFETY: what the program asked for; the slot that it replaces is a kernel descriptor's or the program's.
    let ret = unsafe { host!(dup3, old, new, host_flags) };
    if failed(ret) {
        return Some(ret);
    }
    let answer = match kind {
        Kind::Host => ret,
        kind => dup_in_kernel(old, new, kind, host_flags),
    };
    if kind == Kind::Host || failed(answer) {
        // What the kernel had there goes as well.
        process.set(new, Kind::Host);
        kernel_call(nr::close, &[new as u64, 0, 0, 0, 0, 0]);
    } else {
        process.set(new, kind);
    }
    if failed(answer) {
        // SAFETY: the slot was made above.
        unsafe { host!(close, new) };
    }
    Some(answer)
}

/// Moves the placeholder away from a number that the program wants. The client core's own stay.
fn make_room(process: &Process, fd: i32) -> bool {
    if fd != process.placeholder() {
        return false;
    }
    let floor = process.floor.load(core::sync::atomic::Ordering::Acquire);
    // SAFETY: duplicates the placeholder; the old number is given to the program.
    let moved = unsafe { host!(fcntl, fd, F_DUPFD_CLOEXEC, floor) };
    if failed(moved) {
        return false;
    }
    process.set_placeholder(moved as i32);
    true
}

/// fcntl(2) of a kernel descriptor.
pub(crate) fn fcntl(args: &[u64; 6]) -> i64 {
    let fd = args[0] as i32;
    match args[1] as i32 {
        F_DUPFD => dup(fd, args[2], false),
        F_DUPFD_CLOEXEC => dup(fd, args[2], true),
        F_SETFD => {
            // SAFETY: changes the flag of the slot, in step with the kernel's.
            unsafe { host!(fcntl, fd, F_SETFD, args[2]) };
            kernel_call(nr::fcntl, args)
        }
        _ => kernel_call(nr::fcntl, args),
    }
}

/// ioctl(2) of a kernel descriptor.
pub(crate) fn ioctl(args: &[u64; 6]) -> i64 {
    let flag = match args[1] {
        FIOCLEX => FD_CLOEXEC,
        FIONCLEX => 0,
        _ => return kernel_call(nr::ioctl, args),
    };
    fcntl(&[args[0], F_SETFD as u64, flag as u64, 0, 0, 0])
}

/// close_range(2): the kernel closes its own, the host the rest, and the shim's stay open.
pub(crate) fn close_range(args: &[u64; 6]) -> Option<i64> {
    let process = process();
    let (first, last, flags) = (
        u64::from(args[0] as u32),
        u64::from(args[1] as u32),
        args[2],
    );
    if first > last || flags & !(CLOSE_RANGE_CLOEXEC | CLOSE_RANGE_UNSHARE) != 0 {
        return None;
    }
    if flags & CLOSE_RANGE_UNSHARE != 0 {
        // SAFETY: the first half of what the program asked for.
        let ret = unsafe { host!(unshare, CLONE_FILES) };
        if failed(ret) {
            return Some(ret);
        }
    }
    let flags = flags & CLOSE_RANGE_CLOEXEC;
    let end = (last + 1).min(FD_MAX as u64) as usize;
    let cloexec = flags != 0;
    for fd in process.kernel_fds(first as usize, end) {
        match process.kind(fd) {
            Kind::Kernel if cloexec => {
                fcntl(&[fd as u64, F_SETFD as u64, FD_CLOEXEC as u64, 0, 0, 0]);
            }
            Kind::Kernel => {
                close(fd);
            }
            Kind::Shadowed if !cloexec => epoll::unshadow(process, fd),
            _ => {}
        }
    }
    let mut from = first;
    let floor = u64::from(process.floor.load(core::sync::atomic::Ordering::Acquire));
    let mut ret = 0;
    // The shim's descriptors stand close together above the floor.
    for own in
        (floor.max(first)..=last.min(floor + OWN_SPAN)).filter(|&fd| process.is_own(fd as i32))
    {
        if own > from {
            ret = host_close_range(from, own - 1, flags);
        }
        from = own + 1;
    }
    if from <= last {
        ret = host_close_range(from, last, flags);
    }
    Some(ret)
}

/// How far above the floor the shim's descriptors can be.
const OWN_SPAN: u64 = 1024;

fn host_close_range(first: u64, last: u64, flags: u64) -> i64 {
    // SAFETY: the program's own descriptors, as it asked.
    unsafe { host!(close_range, first, last, flags) }
}

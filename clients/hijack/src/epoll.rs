//! epoll(7) over host and kernel descriptors.
//!
//! An epoll descriptor is the host's. It has a *shadow*: an epoll instance of the kernel, under the same number there, which knows
//! the kernel's part. Duplicates of the descriptor are duplicates of the shadow. A program whose sockets are the kernel's gets the
//! shadow when it makes the instance, so that whoever duplicates the descriptor, forks, or sleeps in a wait before the first kernel
//! descriptor is added has part in it; any other when a kernel descriptor is added. A wait is one of the kernel's, and the thread sleeps
//! for its end in a host ppoll(2) beside the host's part; when that comes first, the kernel's wait is interrupted. A thread
//! without a ring looks at both and has the kernel watch its part: what it is to watch stays in place from wait to wait, until
//! it has rung. A fork copies both, as it copies any descriptor.
//!
//! The host's part alone is seen by who has the descriptor in another way: from another process by a message, or, where the shadow comes
//! with the first kernel descriptor, by a duplicate or a fork of before.

use abi::{EPOLL_CTL_ADD, EPOLL_CTL_DEL, Errno, Pollfd, nr};
use rumpclient::raw::Watch;

use crate::fds::{err, kernel_call, kernel_call_hinted};
use crate::poll::{
    Deadline, Mask, POLLIN, Waited, host_ppoll, input, millis, split, timespec, wait_in_kernel,
};
use crate::state::{Kind, Process, raw_thread, shadows};
use crate::sys::{self, failed};

/// epoll_create(2) of a program whose sockets are the kernel's.
pub(crate) fn create(process: &Process, number: u32, args: &[u64; 6]) -> i64 {
    // SAFETY: what the program asked for.
    let epfd = unsafe { sys::syscall(number, *args) };
    if !failed(epfd) {
        // If it cannot have one now, who adds a kernel descriptor tries again and is told.
        let _ = shadow(process, epfd as i32);
    }
    epfd
}

/// Makes an instance of the kernel the shadow of a host epoll descriptor.
fn shadow(process: &Process, epfd: i32) -> Result<(), i64> {
    let made = kernel_call_hinted(nr::epoll_create1, &[0; 6], epfd);
    if failed(made) {
        return Err(made);
    }
    process.set(epfd, Kind::Shadowed);
    Ok(())
}

/// epoll_ctl(2) and the waits.
pub(crate) fn call(process: &Process, number: u32, args: &[u64; 6]) -> Option<i64> {
    let epfd = args[0] as i32;
    if process.is_kernel(epfd) {
        return Some(kernel_call(number, args));
    }
    if number == nr::epoll_ctl {
        return control(process, epfd, args);
    }
    if !process.is_shadowed(epfd) {
        return None;
    }
    let span = if number == nr::epoll_pwait2 {
        match timespec(args[3]) {
            Ok(nanos) => nanos,
            Err(errno) => return Some(err(errno)),
        }
    } else {
        millis(args[3] as i32)
    };
    let mask = if number == nr::epoll_wait {
        Mask(0, 0)
    } else {
        Mask(args[4], args[5])
    };
    Some(wait(process, epfd, args[1], args[2] as i32, span, mask))
}

fn control(process: &Process, epfd: i32, args: &[u64; 6]) -> Option<i64> {
    let fd = args[2] as i32;
    if process.is_own(fd) {
        return Some(err(Errno::EBADF));
    }
    let kind = process.kind(fd);
    if kind == Kind::Host {
        return None;
    }
    if kind == Kind::Shadowed {
        // An instance in an instance: both sides of one are in both sides of the other.
        // SAFETY: what the program asked for.
        let answer = unsafe { sys::syscall(nr::epoll_ctl, *args) };
        if failed(answer) {
            return Some(answer);
        }
    }
    if !process.is_shadowed(epfd) {
        let refused = refuse(process, epfd);
        if refused != err(Errno::ENOENT) || args[1] as i32 != EPOLL_CTL_ADD {
            return Some(refused);
        }
        if let Err(answer) = shadow(process, epfd) {
            return Some(answer);
        }
    }
    Some(kernel_call(nr::epoll_ctl, args))
}

/// What the host says to who changes an entry that an instance does not have: `ENOENT`, or why it is no instance.
fn refuse(process: &Process, epfd: i32) -> i64 {
    let Some(never_in) = process.client.socket() else {
        return err(Errno::ENOTCONN);
    };
    let args = [epfd as u64, EPOLL_CTL_DEL as u64, never_in as u64, 0, 0, 0];
    // SAFETY: takes a descriptor out that is in no instance.
    unsafe { sys::syscall(nr::epoll_ctl, args) }
}

/// The host closes the descriptor or puts another in its place: its shadow goes.
pub(crate) fn unshadow(process: &Process, epfd: i32) {
    if process.is_shadowed(epfd) {
        process.set(epfd, Kind::Host);
        kernel_call(nr::close, &[epfd as u64, 0, 0, 0, 0, 0]);
    }
}

fn wait(process: &Process, epfd: i32, events: u64, max: i32, span: Option<u64>, mask: Mask) -> i64 {
    if max <= 0 {
        return err(Errno::EINVAL);
    }
    let deadline = Deadline::after(span.filter(|&span| span != 0));
    let mut left = span;
    loop {
        if left == Some(0) || is_readable(epfd) {
            let ready = look(process, epfd, events, max as u64);
            if ready != 0 || left == Some(0) {
                return ready;
            }
        }
        let time = left.map(split);
        let time = time.as_ref().map_or(0, |time| time.as_ptr() as u64);
        let args = [epfd as u64, events, max as u64, time, 0, 0];
        let mut on_host = [input(epfd), input(-1)];
        match wait_in_kernel(process, nr::epoll_pwait2, &args, &mut on_host, mask) {
            Waited::Over(answer) => return answer,
            Waited::Host => left = deadline.left(),
            Waited::NoRing => return watch_both(process, epfd, events, max, deadline, mask),
        }
    }
}

/// Whether the host has something ready now.
fn is_readable(epfd: i32) -> bool {
    host_ppoll(&mut [input(epfd)], Some(0), Mask(0, 0)) > 0
}

/// The wait of a thread without a ring.
fn watch_both(
    process: &Process,
    epfd: i32,
    events: u64,
    max: i32,
    deadline: Deadline,
    mask: Mask,
) -> i64 {
    let ts = raw_thread();
    let name = u64::from(shadows()) << 32 | epfd as u64;
    loop {
        let ready = look(process, epfd, events, max as u64);
        if ready != 0 {
            break ready;
        }
        let kept = process.client.pollwatch_kept(ts, name);
        let bell = match kept {
            // It went with the kernel that had it.
            _ if !process.is_shadowed(epfd) => Ok(Some(-1)),
            Some(bell) => Ok(Some(bell)),
            None => watch(process, epfd, name),
        };
        let bell = match bell {
            Ok(Some(bell)) => bell,
            Ok(None) => continue,
            Err(errno) => break err(errno),
        };
        let mut items = [input(epfd), input(bell)];
        let ret = host_ppoll(&mut items, deadline.left(), mask);
        if failed(ret) || ret == 0 {
            break ret;
        }
        if Pollfd::from_bytes(&items[1]).revents != 0 {
            process.client.pollwatch_clear(ts);
        }
    }
}

/// Has the kernel watch a shadow: the descriptor that it makes readable, or `None` when something is ready already.
fn watch(process: &Process, epfd: i32, name: u64) -> Result<Option<i32>, Errno> {
    let ts = raw_thread();
    let mut watch = [Watch {
        fd: epfd,
        events: POLLIN as u32,
        revents: 0,
    }];
    let (ready, bell) = process.client.pollwatch(ts, &mut watch)?;
    if ready > 0 {
        return Ok(None);
    }
    process.client.pollwatch_keep(ts, name);
    Ok(Some(bell))
}

/// What is ready now, the kernel's first: a number of events, 0, or -errno.
fn look(process: &Process, epfd: i32, events: u64, max: u64) -> i64 {
    let kernels = kernel_call(nr::epoll_wait, &[epfd as u64, events, max, 0, 0, 0]);
    // The call may have found that the kernel is another one.
    if failed(kernels) && process.is_shadowed(epfd) {
        return kernels;
    }
    let kernels = kernels.max(0);
    let rest = max - kernels as u64;
    if rest == 0 {
        return kernels;
    }
    let at = events + kernels as u64 * abi::EpollEvent::SIZE as u64;
    // SAFETY: the rest of the program's array.
    let hosts = unsafe { sys::syscall(nr::epoll_wait, [epfd as u64, at, rest, 0, 0, 0]) };
    if failed(hosts) && kernels == 0 {
        return hosts;
    }
    kernels + hosts.max(0)
}

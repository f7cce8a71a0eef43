//! Pipes, eventfds and timerfds.

use std::sync::Arc;

use abi::{
    Errno, Itimerspec, O_CLOEXEC, O_NONBLOCK, O_RDONLY, O_RDWR, O_WRONLY, SysResult, UserAddr, args,
};
use hypercall::{Clock, Nanos};

use super::time::{clock, nanos};
use crate::eventfd::EventFd;
use crate::pipe::{Pipe, Side};
use crate::timerfd::{Setting, TimerFd};
use crate::{Curlwp, File, OpenFile, fd};

const EFD_SEMAPHORE: i32 = 1;

/// pipe(2).
pub(super) fn pipe(cx: &Curlwp<'_>, a: args::pipe) -> SysResult {
    make_pipe(cx, a.pipefd, 0)
}

/// pipe2(2).
pub(super) fn pipe2(cx: &Curlwp<'_>, a: args::pipe2) -> SysResult {
    make_pipe(cx, a.pipefd, a.flags)
}

fn make_pipe(cx: &Curlwp<'_>, to: UserAddr, flags: i32) -> SysResult {
    if flags & !(O_CLOEXEC | O_NONBLOCK) != 0 {
        return Err(Errno::EINVAL);
    }
    let pipe = Pipe::new(cx);
    let status = flags & O_NONBLOCK;
    let cloexec = flags & O_CLOEXEC != 0;
    let reader = OpenFile::new(pipe.end(cx, Side::Read), O_RDONLY | status);
    let writer = OpenFile::new(pipe.end(cx, Side::Write), O_WRONLY | status);
    let read_fd = cx.install(reader, cloexec)?;
    let write_fd = cx
        .install(writer, cloexec)
        .inspect_err(|_| close(cx, read_fd))?;
    let mut both = [0; 8];
    both[..4].copy_from_slice(&read_fd.to_le_bytes());
    both[4..].copy_from_slice(&write_fd.to_le_bytes());
    cx.copyout(&both, to).inspect_err(|_| {
        close(cx, read_fd);
        close(cx, write_fd);
    })?;
    Ok(0)
}

fn close(cx: &Curlwp<'_>, number: i32) {
    if let Ok(file) = cx.proc().fds().remove(cx, number) {
        fd::release(cx, &file);
    }
}

/// eventfd(2), the first one.
pub(super) fn eventfd(cx: &Curlwp<'_>, a: args::eventfd) -> SysResult {
    make_eventfd(cx, a.initval, 0)
}

/// eventfd(2).
pub(super) fn eventfd2(cx: &Curlwp<'_>, a: args::eventfd2) -> SysResult {
    make_eventfd(cx, a.initval, a.flags)
}

fn make_eventfd(cx: &Curlwp<'_>, initial: u32, flags: i32) -> SysResult {
    if flags & !(O_CLOEXEC | O_NONBLOCK | EFD_SEMAPHORE) != 0 {
        return Err(Errno::EINVAL);
    }
    let file = EventFd::new(cx, initial.into(), flags & EFD_SEMAPHORE != 0);
    open(cx, Arc::new(file), flags)
}

/// Makes a descriptor for a new file, by the `O_CLOEXEC` and `O_NONBLOCK` in the flags of the call.
pub(super) fn open(cx: &Curlwp<'_>, file: Arc<dyn File>, flags: i32) -> SysResult {
    let of = OpenFile::new(file, O_RDWR | flags & O_NONBLOCK);
    Ok(cx.install(of, flags & O_CLOEXEC != 0)?.into())
}

const TFD_TIMER_ABSTIME: i32 = 1;
const TFD_TIMER_CANCEL_ON_SET: i32 = 2;

/// timerfd_create(2).
pub(super) fn timerfd_create(cx: &Curlwp<'_>, a: args::timerfd_create) -> SysResult {
    if a.flags & !(O_CLOEXEC | O_NONBLOCK) != 0 {
        return Err(Errno::EINVAL);
    }
    let clock = match a.clockid {
        // CLOCK_REALTIME_ALARM, CLOCK_BOOTTIME_ALARM: nothing sleeps here that could be woken.
        8 => Clock::Realtime,
        9 => Clock::Monotonic,
        id => clock(id)?,
    };
    open(cx, TimerFd::new(cx, clock), a.flags)
}

/// timerfd_settime(2).
pub(super) fn timerfd_settime(cx: &Curlwp<'_>, a: args::timerfd_settime) -> SysResult {
    if a.flags & !(TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET) != 0 {
        return Err(Errno::EINVAL);
    }
    let asked = copyin_setting(cx, a.new_value)?;
    let of = cx.file(a.fd)?;
    let timer: &TimerFd = of.downcast().ok_or(Errno::EINVAL)?;
    let absolute = a.flags & TFD_TIMER_ABSTIME != 0;
    let old = timer.set(cx, setting(cx, timer.clock(), asked, absolute));
    if !a.old_value.is_null() {
        copyout_setting(cx, old, a.old_value)?;
    }
    Ok(0)
}

/// timerfd_gettime(2).
pub(super) fn timerfd_gettime(cx: &Curlwp<'_>, a: args::timerfd_gettime) -> SysResult {
    let of = cx.file(a.fd)?;
    let timer: &TimerFd = of.downcast().ok_or(Errno::EINVAL)?;
    copyout_setting(cx, timer.get(cx), a.curr_value)?;
    Ok(0)
}

/// The value and the interval that a caller asks for.
pub(super) fn copyin_setting(cx: &Curlwp<'_>, from: UserAddr) -> Result<(Nanos, Nanos), Errno> {
    let mut raw = [0; Itimerspec::SIZE];
    cx.copyin(from, &mut raw)?;
    let new = Itimerspec::from_bytes(&raw);
    let value = nanos(new.value_sec, new.value_nsec)?;
    let interval = nanos(new.interval_sec, new.interval_nsec)?;
    Ok((value, interval))
}

/// What they mean for a timer of this clock, now. A value is a span unless it is `absolute`.
pub(super) fn setting(
    cx: &Curlwp<'_>,
    clock: Clock,
    (value, interval): (Nanos, Nanos),
    absolute: bool,
) -> Setting {
    let next = if value == 0 || absolute {
        value
    } else {
        cx.now(clock).saturating_add(value)
    };
    Setting { next, interval }
}

pub(super) fn copyout_setting(
    cx: &Curlwp<'_>,
    (left, interval): (Nanos, Nanos),
    to: UserAddr,
) -> Result<(), Errno> {
    const SECOND: Nanos = 1_000_000_000;
    let spec = Itimerspec {
        interval_sec: (interval / SECOND) as i64,
        interval_nsec: (interval % SECOND) as i64,
        value_sec: (left / SECOND) as i64,
        value_nsec: (left % SECOND) as i64,
    };
    cx.copyout(&spec.to_bytes(), to)
}

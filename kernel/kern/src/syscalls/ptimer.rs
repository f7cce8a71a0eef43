//! Timers that send signals.

use abi::{Errno, Itimerspec, SysResult, UserAddr, args};
use hypercall::Nanos;

use super::ipc::{copyin_setting, copyout_setting, setting};
use super::time::{clock, nanos};
use crate::Curlwp;
use crate::signal::{NSIG, SIGALRM};

/// Bytes of a `struct sigevent`.
const SIGEVENT_SIZE: usize = 64;
const SIGEV_SIGNAL: u32 = 0;
const SIGEV_NONE: u32 = 1;
const TIMER_ABSTIME: i32 = 1;
const ITIMER_REAL: i32 = 0;

/// timer_create(2). Without an event it sends SIGALRM.
pub(super) fn timer_create(cx: &Curlwp<'_>, a: args::timer_create) -> SysResult {
    let clock = clock(a.clockid)?;
    let signo = sigevent(cx, a.sevp)?;
    let timers = cx.proc().timers();
    let id = timers.create(cx, clock, signo)?;
    cx.copyout(&id.to_le_bytes(), a.timerid)
        .or_else(|error| timers.delete(cx, id).and(Err(error)))?;
    Ok(0)
}

/// The signal that an event asks for. `EINVAL` for one that is none, and for threads, which are the program's to start.
fn sigevent(cx: &Curlwp<'_>, at: UserAddr) -> Result<Option<u32>, Errno> {
    if at.is_null() {
        return Ok(Some(SIGALRM));
    }
    let mut raw = [0; SIGEVENT_SIZE];
    cx.copyin(at, &mut raw)?;
    let number = |at: usize| u32::from_le_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]]);
    match (number(12), number(8)) {
        (SIGEV_NONE, _) => Ok(None),
        (SIGEV_SIGNAL, signo @ 1..=NSIG) => Ok(Some(signo)),
        _ => Err(Errno::EINVAL),
    }
}

/// timer_settime(2).
pub(super) fn timer_settime(cx: &Curlwp<'_>, a: args::timer_settime) -> SysResult {
    let asked = copyin_setting(cx, a.new_value)?;
    let timer = cx.proc().timers().get(cx, a.timerid)?;
    let absolute = a.flags & TIMER_ABSTIME != 0;
    let old = timer.set(cx, setting(cx, timer.clock(), asked, absolute));
    if !a.old_value.is_null() {
        copyout_setting(cx, old, a.old_value)?;
    }
    Ok(0)
}

/// timer_gettime(2).
pub(super) fn timer_gettime(cx: &Curlwp<'_>, a: args::timer_gettime) -> SysResult {
    let timer = cx.proc().timers().get(cx, a.timerid)?;
    copyout_setting(cx, timer.get(cx), a.curr_value)?;
    Ok(0)
}

/// timer_getoverrun(2).
pub(super) fn timer_getoverrun(cx: &Curlwp<'_>, a: args::timer_getoverrun) -> SysResult {
    let timer = cx.proc().timers().get(cx, a.timerid)?;
    Ok(timer.overrun(cx) as i64)
}

/// timer_delete(2).
pub(super) fn timer_delete(cx: &Curlwp<'_>, a: args::timer_delete) -> SysResult {
    cx.proc().timers().delete(cx, a.timerid)?;
    Ok(0)
}

/// setitimer(2). The clocks of CPU time are the host's, so there is `ITIMER_REAL` only.
pub(super) fn setitimer(cx: &Curlwp<'_>, a: args::setitimer) -> SysResult {
    if a.which != ITIMER_REAL {
        return Err(Errno::EINVAL);
    }
    let mut raw = [0; Itimerspec::SIZE];
    if !a.new_value.is_null() {
        cx.copyin(a.new_value, &mut raw)?;
    }
    let new = Itimerspec::from_bytes(&raw);
    let micros = |sec, usec: i64| match usec {
        0..1_000_000 => nanos(sec, usec * 1000),
        _ => Err(Errno::EINVAL),
    };
    let value = micros(new.value_sec, new.value_nsec)?;
    let interval = micros(new.interval_sec, new.interval_nsec)?;
    let timer = cx.proc().timers().real(cx);
    let asked = (value, interval);
    let old = timer.set(cx, setting(cx, timer.clock(), asked, false));
    copyout_itimer(cx, old, a.old_value)
}

/// getitimer(2).
pub(super) fn getitimer(cx: &Curlwp<'_>, a: args::getitimer) -> SysResult {
    if a.which != ITIMER_REAL {
        return Err(Errno::EINVAL);
    }
    let timer = cx.proc().timers().real(cx);
    if a.curr_value.is_null() {
        return Err(Errno::EFAULT);
    }
    copyout_itimer(cx, timer.get(cx), a.curr_value)
}

fn copyout_itimer(cx: &Curlwp<'_>, (left, interval): (Nanos, Nanos), to: UserAddr) -> SysResult {
    if to.is_null() {
        return Ok(0);
    }
    // A timer that runs never shows nothing left.
    let micros = |span: Nanos| span.div_ceil(1000);
    let split = |span: Nanos| {
        let span = micros(span);
        ((span / 1_000_000) as i64, (span % 1_000_000) as i64)
    };
    let ((value_sec, value_nsec), (interval_sec, interval_nsec)) = (split(left), split(interval));
    let spec = Itimerspec {
        interval_sec,
        interval_nsec,
        value_sec,
        value_nsec,
    };
    cx.copyout(&spec.to_bytes(), to)?;
    Ok(0)
}

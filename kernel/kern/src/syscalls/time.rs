//! Clocks and sleeping.

use abi::{Errno, SysResult, Timespec, Timeval, UserAddr, args};
use hypercall::{Clock, Nanos};

use crate::Curlwp;

const SECOND: Nanos = 1_000_000_000;
const TIMER_ABSTIME: i32 = 1;

/// The clock of a Linux clock number. `EINVAL` for those that the kernel has not: CPU time is the host's.
pub(super) fn clock(id: i32) -> Result<Clock, Errno> {
    match id {
        // CLOCK_REALTIME, its coarse twin, and TAI, which is not known to differ.
        0 | 5 | 11 => Ok(Clock::Realtime),
        // CLOCK_MONOTONIC, raw, coarse, and CLOCK_BOOTTIME.
        1 | 4 | 6 | 7 => Ok(Clock::Monotonic),
        _ => Err(Errno::EINVAL),
    }
}

/// A span or point in time from a `struct timespec`. `EINVAL` when negative or not normal.
pub(super) fn nanos(sec: i64, nsec: i64) -> Result<Nanos, Errno> {
    let sec = u64::try_from(sec).map_err(|_| Errno::EINVAL)?;
    let nsec = u64::try_from(nsec)
        .ok()
        .filter(|&n| n < SECOND)
        .ok_or(Errno::EINVAL)?;
    Ok(sec.saturating_mul(SECOND).saturating_add(nsec))
}

pub(super) fn copyin_timespec(cx: &Curlwp<'_>, from: UserAddr) -> Result<Nanos, Errno> {
    let mut raw = [0; Timespec::SIZE];
    cx.copyin(from, &mut raw)?;
    let ts = Timespec::from_bytes(&raw);
    nanos(ts.tv_sec, ts.tv_nsec)
}

pub(super) fn copyout_timespec(cx: &Curlwp<'_>, time: Nanos, to: UserAddr) -> Result<(), Errno> {
    let ts = Timespec {
        tv_sec: (time / SECOND) as i64,
        tv_nsec: (time % SECOND) as i64,
    };
    cx.copyout(&ts.to_bytes(), to)
}

/// nanosleep(2).
pub(super) fn nanosleep(cx: &Curlwp<'_>, a: args::nanosleep) -> SysResult {
    let span = copyin_timespec(cx, a.duration)?;
    sleep_for(cx, span, a.rem)
}

/// clock_nanosleep(2).
pub(super) fn clock_nanosleep(cx: &Curlwp<'_>, a: args::clock_nanosleep) -> SysResult {
    let clock = clock(a.clockid)?;
    let time = copyin_timespec(cx, a.t)?;
    if a.flags & TIMER_ABSTIME == 0 {
        return sleep_for(cx, time, a.remain);
    }
    // On the realtime clock look again after the sleep: it may have been set meanwhile.
    while let left @ 1.. = time.saturating_sub(cx.now(clock)) {
        cx.sleep_until(cx.now(Clock::Monotonic).saturating_add(left))?;
    }
    Ok(0)
}

fn sleep_for(cx: &Curlwp<'_>, span: Nanos, rem: UserAddr) -> SysResult {
    let deadline = cx.now(Clock::Monotonic).saturating_add(span);
    let slept = cx.sleep_until(deadline);
    if slept.is_err() && !rem.is_null() {
        let left = deadline.saturating_sub(cx.now(Clock::Monotonic));
        copyout_timespec(cx, left, rem)?;
    }
    slept.map(|()| 0)
}

/// clock_gettime(2).
pub(super) fn clock_gettime(cx: &Curlwp<'_>, a: args::clock_gettime) -> SysResult {
    copyout_timespec(cx, cx.now(clock(a.clockid)?), a.tp)?;
    Ok(0)
}

/// clock_getres(2): the host's clocks have full resolution.
pub(super) fn clock_getres(cx: &Curlwp<'_>, a: args::clock_getres) -> SysResult {
    clock(a.clockid)?;
    if !a.res.is_null() {
        copyout_timespec(cx, 1, a.res)?;
    }
    Ok(0)
}

/// gettimeofday(2). The time zone is always UTC.
pub(super) fn gettimeofday(cx: &Curlwp<'_>, a: args::gettimeofday) -> SysResult {
    let now = cx.now(Clock::Realtime);
    if !a.tv.is_null() {
        let tv = Timeval {
            tv_sec: (now / SECOND) as i64,
            tv_usec: (now % SECOND / 1000) as i64,
        };
        cx.copyout(&tv.to_bytes(), a.tv)?;
    }
    if !a.tz.is_null() {
        cx.copyout(&[0; 8], a.tz)?;
    }
    Ok(0)
}

/// time(2).
pub(super) fn time(cx: &Curlwp<'_>, a: args::time) -> SysResult {
    let sec = (cx.now(Clock::Realtime) / SECOND) as i64;
    if !a.tloc.is_null() {
        cx.copyout(&sec.to_le_bytes(), a.tloc)?;
    }
    Ok(sec)
}

//! A process's timers, which tell it of their end by a signal: timer_create(2) and setitimer(2).

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, Weak};

use abi::Errno;
use hypercall::{Clock, Nanos};
use sync::Mutex;

use crate::callout::Callout;
use crate::timerfd::Setting;
use crate::{Curlwp, Proc};

/// The most timers of a process.
const TIMERS_MAX: usize = 256;
/// The highest overrun that is told.
const DELAYTIMER_MAX: u64 = i32::MAX as u64;

/// A timer. `state` comes before the lock of the callouts.
pub(crate) struct PosixTimer {
    clock: Clock,
    /// The signal that is sent; `None` for a timer that only runs.
    signo: Option<u32>,
    proc: Weak<Proc>,
    state: Mutex<State>,
    callout: Callout,
}

#[derive(Default)]
struct State {
    setting: Setting,
    /// How many expirations the last signal stood for beside its own.
    overrun: u64,
}

impl PosixTimer {
    fn new(cx: &Curlwp<'_>, clock: Clock, signo: Option<u32>) -> Arc<PosixTimer> {
        Arc::new_cyclic(|me: &Weak<PosixTimer>| {
            let me = me.clone();
            PosixTimer {
                clock,
                signo,
                proc: Arc::downgrade(cx.proc()),
                state: Mutex::default(),
                callout: Callout::new(cx.kernel(), move |cx| {
                    if let Some(timer) = me.upgrade() {
                        timer.expired(cx);
                    }
                }),
            }
        })
    }

    /// Its clock.
    pub(crate) fn clock(&self) -> Clock {
        self.clock
    }

    /// Sets it; answers the time that was left and the interval that was set.
    pub(crate) fn set(&self, cx: &Curlwp<'_>, new: Setting) -> (Nanos, Nanos) {
        let now = cx.now(self.clock);
        let mut state = self.state.lock(cx.cpu());
        let old = std::mem::replace(&mut state.setting, new);
        state.overrun = 0;
        self.arm(cx, new);
        (old.left(now), old.interval)
    }

    /// The time that is left until the next expiration, and the interval.
    pub(crate) fn get(&self, cx: &Curlwp<'_>) -> (Nanos, Nanos) {
        let setting = self.state.lock(cx.cpu()).setting;
        (setting.left(cx.now(self.clock)), setting.interval)
    }

    /// How many expirations the last signal stood for beside its own.
    pub(crate) fn overrun(&self, cx: &Curlwp<'_>) -> u64 {
        self.state.lock(cx.cpu()).overrun
    }

    /// Has the callout come with the next expiration. A timer without a signal needs none: what is asked of it is
    /// computed from the clock.
    fn arm(&self, cx: &Curlwp<'_>, setting: Setting) {
        if setting.next == 0 || self.signo.is_none() {
            self.callout.stop(cx.cpu());
            return;
        }
        let left = setting.next.saturating_sub(cx.now(self.clock));
        let at = cx.now(Clock::Monotonic).saturating_add(left);
        self.callout.schedule(cx.cpu(), at);
    }

    fn expired(&self, cx: &Curlwp<'_>) {
        let (Some(signo), Some(proc)) = (self.signo, self.proc.upgrade()) else {
            return;
        };
        let pending = proc.pending_signals() >> (signo - 1) & 1 != 0;
        let mut state = self.state.lock(cx.cpu());
        // Set anew meanwhile, there may be none.
        let count = state.setting.expirations(cx.now(self.clock));
        if count != 0 {
            let more = match pending {
                true => state.overrun.saturating_add(count),
                false => count - 1,
            };
            state.setting = state.setting.after(count);
            state.overrun = more.min(DELAYTIMER_MAX);
        }
        self.arm(cx, state.setting);
        drop(state);
        if count != 0 && !pending {
            // A signal that there is.
            let _ = cx.psignal(&proc, signo);
        }
    }
}

/// The timers of a process. `timers` is a leaf.
#[derive(Default)]
pub(crate) struct PosixTimers {
    timers: Mutex<BTreeMap<i32, Arc<PosixTimer>>>,
    /// setitimer's `ITIMER_REAL`.
    real: OnceLock<Arc<PosixTimer>>,
}

impl PosixTimers {
    /// Makes a timer; answers its number, the lowest free one. `EAGAIN` when there are too many.
    pub(crate) fn create(
        &self,
        cx: &Curlwp<'_>,
        clock: Clock,
        signo: Option<u32>,
    ) -> Result<i32, Errno> {
        let mut timers = self.timers.lock(cx.cpu());
        if timers.len() >= TIMERS_MAX {
            return Err(Errno::EAGAIN);
        }
        let free = (0..).zip(timers.keys()).find(|(n, used)| n != *used);
        let id = free.map_or(timers.len() as i32, |(n, _)| n);
        timers.insert(id, PosixTimer::new(cx, clock, signo));
        Ok(id)
    }

    /// The timer of a number. `EINVAL`.
    pub(crate) fn get(&self, cx: &Curlwp<'_>, id: i32) -> Result<Arc<PosixTimer>, Errno> {
        let timers = self.timers.lock(cx.cpu());
        timers.get(&id).cloned().ok_or(Errno::EINVAL)
    }

    /// Takes a timer away. `EINVAL`.
    pub(crate) fn delete(&self, cx: &Curlwp<'_>, id: i32) -> Result<(), Errno> {
        let timer = self.timers.lock(cx.cpu()).remove(&id);
        timer
            .map(|timer| timer.set(cx, Setting::default()))
            .ok_or(Errno::EINVAL)?;
        Ok(())
    }

    /// The timer of setitimer(2), which runs on wall-clock time and survives an exec.
    pub(crate) fn real(&self, cx: &Curlwp<'_>) -> &Arc<PosixTimer> {
        let new = || PosixTimer::new(cx, Clock::Monotonic, Some(crate::signal::SIGALRM));
        self.real.get_or_init(new)
    }

    /// Stops and forgets the timers of timer_create(2), as an exec does.
    pub(crate) fn clear(&self, cx: &Curlwp<'_>) {
        let timers = std::mem::take(&mut *self.timers.lock(cx.cpu()));
        for timer in timers.values() {
            timer.set(cx, Setting::default());
        }
    }

    /// The same for the process's end, with the one of setitimer(2).
    pub(crate) fn end(&self, cx: &Curlwp<'_>) {
        self.clear(cx);
        if let Some(real) = self.real.get() {
            real.set(cx, Setting::default());
        }
    }
}

//! timerfd_create(2): a timer that is read.

use std::any::Any;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use abi::{Errno, Stat};
use hypercall::{Clock, Nanos};
use sync::{Condvar, Mutex, Wake};

use crate::callout::Callout;
use crate::poll::{Events, PollHead, Watcher};
use crate::{Curlwp, File, OpenFile, Uio, anon};

/// A timer. `setting` is a leaf. Expirations are counted from the clock when somebody looks; the callout is there only
/// for those who watch.
pub struct TimerFd {
    clock: Clock,
    setting: Mutex<Setting>,
    changed: Condvar,
    poll: PollHead,
    watched: AtomicBool,
    callout: Callout,
    ident: anon::Ident,
}

/// When a timer expires, in times of its clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Setting {
    /// The first expiration that has not been read; 0 for a timer that does not run.
    pub next: Nanos,
    /// The time between expirations; 0 for a single one.
    pub interval: Nanos,
}

impl Setting {
    /// Expirations that have not been read.
    pub(crate) fn expirations(self, now: Nanos) -> u64 {
        if self.next == 0 || now < self.next {
            return 0;
        }
        match (now - self.next).checked_div(self.interval) {
            None => 1,
            Some(more) => 1 + more,
        }
    }

    /// The setting once so many expirations have been read.
    pub(crate) fn after(self, read: u64) -> Setting {
        let next = match self.interval {
            0 => 0,
            interval => self.next.saturating_add(interval.saturating_mul(read)),
        };
        Setting { next, ..self }
    }

    /// Time until the next expiration; 0 for none.
    pub(crate) fn left(self, now: Nanos) -> Nanos {
        self.after_expired(now).next.saturating_sub(now)
    }

    fn after_expired(self, now: Nanos) -> Setting {
        match self.expirations(now) {
            0 => self,
            n => self.after(n),
        }
    }
}

impl TimerFd {
    /// A timer on a clock that does not run.
    pub fn new(cx: &Curlwp<'_>, clock: Clock) -> Arc<TimerFd> {
        Arc::new_cyclic(|me: &Weak<TimerFd>| {
            let me = me.clone();
            TimerFd {
                clock,
                setting: Mutex::default(),
                changed: Condvar::new("timerfd"),
                poll: PollHead::new(),
                watched: AtomicBool::new(false),
                callout: Callout::new(cx.kernel(), move |cx| {
                    if let Some(timer) = me.upgrade() {
                        timer.expired(cx);
                    }
                }),
                ident: anon::Ident::new(cx),
            }
        })
    }

    /// Sets it; answers the time that was left and the interval that was set.
    pub fn set(&self, cx: &Curlwp<'_>, new: Setting) -> (Nanos, Nanos) {
        let old = {
            let mut setting = self.setting.lock(cx.cpu());
            std::mem::replace(&mut *setting, new)
        };
        self.changed.broadcast(cx.cpu());
        self.arm(cx);
        (old.left(cx.now(self.clock)), old.interval)
    }

    /// The time that is left until the next expiration, and the interval.
    pub fn get(&self, cx: &Curlwp<'_>) -> (Nanos, Nanos) {
        let setting = *self.setting.lock(cx.cpu());
        (setting.left(cx.now(self.clock)), setting.interval)
    }

    /// Its clock.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// A point in time of its clock, on the monotonic one.
    fn monotonic(&self, cx: &Curlwp<'_>, at: Nanos) -> Nanos {
        let left = at.saturating_sub(cx.now(self.clock));
        cx.now(Clock::Monotonic).saturating_add(left)
    }

    /// Has the callout come with the next expiration, if anybody watches.
    fn arm(&self, cx: &Curlwp<'_>) {
        if !self.watched.load(Ordering::SeqCst) {
            return;
        }
        match self.setting.lock(cx.cpu()).next {
            0 => {
                self.callout.stop(cx.cpu());
            }
            next => self.callout.schedule(cx.cpu(), self.monotonic(cx, next)),
        }
    }

    fn expired(&self, cx: &Curlwp<'_>) {
        let setting = *self.setting.lock(cx.cpu());
        if setting.expirations(cx.now(self.clock)) != 0 {
            self.poll.notify(cx.cpu(), Events::IN | Events::RDNORM);
        } else {
            // It was set anew meanwhile, or its clock was.
            self.arm(cx);
        }
    }
}

impl File for TimerFd {
    fn read(&self, cx: &Curlwp<'_>, of: &OpenFile, uio: &mut Uio<'_>) -> Result<(), Errno> {
        if uio.resid() < 8 {
            return Err(Errno::EINVAL);
        }
        let mut setting = self.setting.lock(cx.cpu());
        let count = loop {
            let count = setting.expirations(cx.now(self.clock));
            if count != 0 {
                *setting = setting.after(count);
                break count;
            }
            if of.nonblocking() {
                return Err(Errno::EAGAIN);
            }
            let deadline = match setting.next {
                0 => None,
                next => Some(self.monotonic(cx, next)),
            };
            let wake;
            (setting, wake) = self.changed.wait_intr(cx.cpu(), setting, deadline);
            if wake == Wake::Interrupted {
                return Err(Errno::EINTR);
            }
        };
        drop(setting);
        self.arm(cx);
        uio.put(cx, &count.to_le_bytes()).map(drop)
    }

    fn write(&self, _: &Curlwp<'_>, _: &OpenFile, _: &mut Uio<'_>) -> Result<(), Errno> {
        Err(Errno::EINVAL)
    }

    fn poll(&self, cx: &Curlwp<'_>, events: Events, watcher: Option<&Arc<dyn Watcher>>) -> Events {
        if let Some(watcher) = watcher {
            self.poll.watch(cx.cpu(), watcher);
            self.watched.store(true, Ordering::SeqCst);
            self.arm(cx);
        }
        let setting = *self.setting.lock(cx.cpu());
        if setting.expirations(cx.now(self.clock)) == 0 {
            return Events::NONE;
        }
        (Events::IN | Events::RDNORM) & events
    }

    fn stat(&self, _: &Curlwp<'_>) -> Result<Stat, Errno> {
        Ok(self.ident.stat(0o600))
    }

    fn close(&self, cx: &Curlwp<'_>, _: &OpenFile) {
        self.callout.stop(cx.cpu());
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::Setting;

    #[test]
    fn expirations_are_counted_from_the_clock() {
        let once = Setting {
            next: 100,
            interval: 0,
        };
        assert_eq!((once.expirations(99), once.left(99)), (0, 1));
        assert_eq!((once.expirations(500), once.left(500)), (1, 0));
        let often = Setting {
            next: 100,
            interval: 10,
        };
        assert_eq!((often.expirations(100), often.left(100)), (1, 10));
        assert_eq!((often.expirations(125), often.left(125)), (3, 5));
        assert_eq!(often.after(3).next, 130);
        assert_eq!(Setting::default().expirations(500), 0);
    }
}

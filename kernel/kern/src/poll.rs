//! Readiness: how files say that reading or writing has become possible, and to whom.
//!
//! Each pollable file has a [`PollHead`]. Whoever waits for the file (poll, select, epoll) registers a [`Watcher`]
//! there; the file calls [`PollHead::notify`] when an event may have become true. A watcher is told, looks again by
//! [`crate::File::poll`], and decides.

use std::collections::VecDeque;
use std::ops::{BitAnd, BitOr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use abi::Errno;
use hypercall::Nanos;
use smallvec::SmallVec;
use sync::{Condvar, Mutex, Parker, Wake};

use crate::Curlwp;

/// A set of `POLL*` bits, poll(2); the `EPOLL*` bits have the same values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events(pub u32);

#[allow(missing_docs)] // the names are poll(2)'s
impl Events {
    pub const NONE: Events = Events(0);
    pub const IN: Events = Events(0x001);
    pub const PRI: Events = Events(0x002);
    pub const OUT: Events = Events(0x004);
    pub const ERR: Events = Events(0x008);
    pub const HUP: Events = Events(0x010);
    pub const NVAL: Events = Events(0x020);
    pub const RDNORM: Events = Events(0x040);
    pub const RDBAND: Events = Events(0x080);
    pub const WRNORM: Events = Events(0x100);
    pub const WRBAND: Events = Events(0x200);
    pub const RDHUP: Events = Events(0x2000);
}

impl Events {
    /// Whether no bit is set.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// What is always reported, asked for or not.
    pub const ALWAYS: Events = Events(0x008 | 0x010 | 0x020);

    /// Whether any bit is set in both.
    pub fn intersects(self, other: Events) -> bool {
        self.0 & other.0 != 0
    }
}

impl BitOr for Events {
    type Output = Events;
    fn bitor(self, other: Events) -> Events {
        Events(self.0 | other.0)
    }
}

impl BitAnd for Events {
    type Output = Events;
    fn bitand(self, other: Events) -> Events {
        Events(self.0 & other.0)
    }
}

/// Somebody who waits for readiness.
pub trait Watcher: Send + Sync {
    /// Some of the events may have become true. Called with the locks of the file held or not, with or without a
    /// virtual CPU: it may only take leaf locks of its own and wake somebody.
    fn notify(&self, parker: &dyn Parker, events: Events);

    /// Whether telling one such watcher of a file is enough (`EPOLLEXCLUSIVE`).
    fn exclusive(&self) -> bool {
        false
    }

    /// Tells an exclusive watcher; false when nobody waits there, so that another one should be told too.
    fn notify_exclusive(&self, parker: &dyn Parker, events: Events) -> bool {
        self.notify(parker, events);
        true
    }
}

/// The watchers of one file. Costs one load when nobody watches.
///
/// The list's mutex is a leaf, held while watchers are told; a watcher's own lock comes after it.
#[derive(Default)]
pub struct PollHead {
    count: AtomicU32,
    /// Most files have none, and most others one.
    watchers: Mutex<Option<Box<Watchers>>>,
}

type Watchers = SmallVec<[Weak<dyn Watcher>; 1]>;

impl PollHead {
    /// Nobody watches yet.
    pub const fn new() -> PollHead {
        PollHead {
            count: AtomicU32::new(0),
            watchers: Mutex::new(None),
        }
    }

    /// Registers a watcher; the same one twice counts once. It stays until it is removed or dropped. Register
    /// before looking at the condition, so that no change is missed.
    pub fn watch(&self, parker: &dyn Parker, watcher: &Arc<dyn Watcher>) {
        let mut watchers = self.watchers.lock(parker);
        let watchers = watchers.get_or_insert_default();
        watchers.retain(|w| w.strong_count() != 0);
        let weak = Arc::downgrade(watcher);
        if !watchers.iter().any(|w| w.ptr_eq(&weak)) {
            watchers.push(weak);
        }
        self.count.store(watchers.len() as u32, Ordering::SeqCst);
    }

    /// Removes a watcher.
    pub fn unwatch(&self, parker: &dyn Parker, watcher: &Arc<dyn Watcher>) {
        let weak = Arc::downgrade(watcher);
        let mut watchers = self.watchers.lock(parker);
        let Some(watchers) = &mut *watchers else {
            return;
        };
        watchers.retain(|w| !w.ptr_eq(&weak) && w.strong_count() != 0);
        self.count.store(watchers.len() as u32, Ordering::SeqCst);
    }

    /// Tells one exclusive watcher, if there is any: something is left over for another one.
    pub fn hand_on(&self, parker: &dyn Parker, events: Events) {
        if self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        if let Some(watchers) = &*self.watchers.lock(parker) {
            let exclusive = watchers.iter().filter_map(Weak::upgrade);
            let _ = exclusive
                .filter(|w| w.exclusive())
                .any(|w| w.notify_exclusive(parker, events));
        }
    }

    /// Tells every watcher that the events may have become true, of the exclusive ones the first that takes it; whether one did.
    pub fn notify(&self, parker: &dyn Parker, events: Events) -> bool {
        if self.count.load(Ordering::SeqCst) == 0 {
            return false;
        }
        let mut watchers = self.watchers.lock(parker);
        let Some(watchers) = &mut *watchers else {
            return false;
        };
        let mut taken = false;
        let mut gone = false;
        for weak in watchers.iter() {
            match weak.upgrade() {
                None => gone = true,
                Some(w) if !w.exclusive() => w.notify(parker, events),
                Some(_) if taken => {}
                Some(w) => taken = w.notify_exclusive(parker, events),
            }
        }
        if gone {
            watchers.retain(|w| w.strong_count() != 0);
            self.count.store(watchers.len() as u32, Ordering::SeqCst);
        }
        taken
    }
}

/// Lets one lwp wait for any of several files: register it as watcher with each, look at them once more, and
/// [`wait`](Self::wait). Whatever a file tells after the registration ends the wait.
pub struct LwpWaiter {
    told: Mutex<bool>,
    changed: Condvar,
}

impl LwpWaiter {
    /// Nobody has told it anything yet.
    pub fn new() -> Arc<LwpWaiter> {
        Arc::new(LwpWaiter {
            told: Mutex::new(false),
            changed: Condvar::new("poll"),
        })
    }

    /// Sleeps until a file tells something or the deadline on the monotonic clock; forgets what was told. `EINTR`
    /// when interrupted.
    pub fn wait(&self, cx: &Curlwp<'_>, deadline: Option<Nanos>) -> Result<Wake, Errno> {
        let mut told = self.told.lock(cx.cpu());
        while !*told {
            let wake;
            let until = cx.until_due(deadline);
            (told, wake) = self.changed.wait_intr(cx.cpu(), told, until);
            match wake {
                Wake::Woken => {}
                Wake::TimedOut if until != deadline => {
                    drop(told);
                    cx.kernel().serve_all(cx);
                    told = self.told.lock(cx.cpu());
                }
                Wake::TimedOut => return Ok(Wake::TimedOut),
                Wake::Interrupted => return Err(Errno::EINTR),
            }
        }
        *told = false;
        Ok(Wake::Woken)
    }
}

impl Watcher for LwpWaiter {
    fn notify(&self, parker: &dyn Parker, _: Events) {
        *self.told.lock(parker) = true;
        self.changed.signal(parker);
    }
}

/// Collects events from a queue of what is ready, waiting until the deadline (0: not at all) for the first. `EINTR`; with a head
/// that is told when there is something, `ERESTART` for a caller that would rather be told than sleep.
pub(crate) fn wait_for<I, E>(
    cx: &Curlwp<'_>,
    ready: &Mutex<VecDeque<I>>,
    changed: &Condvar,
    head: Option<&PollHead>,
    deadline: Option<Nanos>,
    collect: impl Fn() -> Vec<E>,
) -> Result<Vec<E>, Errno> {
    loop {
        let events = collect();
        if !events.is_empty() || deadline == Some(0) {
            return Ok(events);
        }
        if let Some(head) = head
            && let Some(watcher) = cx.waits_by(deadline)
        {
            head.watch(cx.cpu(), &watcher);
            if ready.lock(cx.cpu()).is_empty() {
                return Err(Errno::ERESTART);
            }
            continue;
        }
        let queue = ready.lock(cx.cpu());
        if !queue.is_empty() {
            continue;
        }
        let until = cx.until_due(deadline);
        let (queue, wake) = changed.wait_intr(cx.cpu(), queue, until);
        drop(queue);
        match wake {
            Wake::Woken => {}
            Wake::TimedOut if until != deadline => cx.kernel().serve_all(cx),
            Wake::TimedOut => return Ok(collect()),
            Wake::Interrupted => return Err(Errno::EINTR),
        }
    }
}

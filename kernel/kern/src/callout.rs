//! Callouts: functions that run at a time to come, as callout(9) has them.
//!
//! One thread serves all of a kernel's, and sleeps until the next is due: there is no tick.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use hypercall::{Clock, Host, Nanos};
use sync::{Condvar, Mutex, OffCpu, Parker};

use crate::service::{Duty, Service};
use crate::{Curlwp, Kernel};

/// What a callout runs: on the callout thread, as an lwp of the kernel. It may take locks but should not wait long,
/// because the others wait behind it.
type Function = dyn Fn(&Curlwp<'_>) + Send + Sync;

/// The callouts of a kernel. `state` is a leaf and is not held while a callout's function runs.
pub(crate) struct Timers {
    service: Arc<Service>,
    state: Mutex<State>,
    finished: Condvar,
    next_id: AtomicU64,
}

#[derive(Default)]
struct State {
    /// By the time they are due, and among those of one time in the order of their making.
    due: BTreeMap<(Nanos, u64), Arc<Entry>>,
    /// The one whose function runs.
    running: Option<u64>,
}

struct Entry {
    id: u64,
    /// When it is due; 0 for not at all. Guarded by `Timers::state`.
    at: AtomicU64,
    function: Box<Function>,
}

impl Timers {
    pub(crate) fn new(kernel: Weak<Kernel>, host: Arc<dyn Host>) -> Arc<Timers> {
        let timers = Arc::new(Timers {
            service: Service::new(kernel, host, "callout"),
            state: Mutex::default(),
            finished: Condvar::new("callout"),
            next_id: AtomicU64::new(1),
        });
        let duty: Weak<Timers> = Arc::downgrade(&timers);
        timers.service.set_duty(duty);
        timers
    }

    pub(crate) fn service(&self) -> &Arc<Service> {
        &self.service
    }

    /// Makes an entry due at a time (0: not at all); answers whether it was due before.
    fn set(&self, parker: &dyn Parker, entry: &Arc<Entry>, at: Nanos) -> bool {
        let mut state = self.state.lock(parker);
        let before = entry.at.swap(at, Ordering::Relaxed);
        if before != 0 {
            state.due.remove(&(before, entry.id));
        }
        if at != 0 {
            state.due.insert((at, entry.id), entry.clone());
            let first = state.due.keys().next() == Some(&(at, entry.id));
            drop(state);
            if first {
                self.service.kick();
            }
        }
        before != 0
    }
}

impl Duty for Timers {
    fn next(&self, off: &OffCpu<'_>) -> Option<Nanos> {
        self.state.lock(off).due.keys().next().map(|&(at, _)| at)
    }

    fn work(&self, cx: &Curlwp<'_>) {
        let now = cx.now(Clock::Monotonic);
        loop {
            let mut state = self.state.lock(cx.cpu());
            match state.due.first_entry() {
                Some(first) if first.key().0 <= now => {
                    let entry = first.remove();
                    entry.at.store(0, Ordering::Relaxed);
                    state.running = Some(entry.id);
                    drop(state);
                    (entry.function)(cx);
                    self.state.lock(cx.cpu()).running = None;
                    self.finished.broadcast(cx.cpu());
                }
                _ => return,
            }
        }
    }
}

/// A function to run at a time to come. Dropping it stops it.
pub struct Callout {
    timers: Arc<Timers>,
    entry: Arc<Entry>,
}

impl Callout {
    /// A callout that is not due. The function should hold nothing that keeps the kernel alive: it gets the kernel
    /// with its argument.
    pub fn new(kernel: &Kernel, function: impl Fn(&Curlwp<'_>) + Send + Sync + 'static) -> Callout {
        let timers = kernel.timers().clone();
        let entry = Arc::new(Entry {
            id: timers.next_id.fetch_add(1, Ordering::Relaxed),
            at: AtomicU64::new(0),
            function: Box::new(function),
        });
        Callout { timers, entry }
    }

    /// Makes it due at a time of the monotonic clock, instead of a time set before. In the past means at once.
    pub fn schedule(&self, parker: &dyn Parker, at: Nanos) {
        self.timers.set(parker, &self.entry, at.max(1));
    }

    /// Makes it not due; answers whether it was. Its function may be running.
    pub fn stop(&self, parker: &dyn Parker) -> bool {
        self.timers.set(parker, &self.entry, 0)
    }

    /// Stops it and waits until its function does not run. Not from the function itself.
    pub fn halt(&self, cx: &Curlwp<'_>) {
        self.stop(cx.cpu());
        let mut state = self.timers.state.lock(cx.cpu());
        while state.running == Some(self.entry.id) {
            state = self.timers.finished.wait(cx.cpu(), state);
        }
    }

    /// Whether it is due.
    pub fn pending(&self) -> bool {
        self.entry.at.load(Ordering::Relaxed) != 0
    }
}

impl Drop for Callout {
    fn drop(&mut self) {
        if self.pending() {
            self.stop(&OffCpu(self.timers.service.host()));
        }
    }
}

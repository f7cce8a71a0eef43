//! The condition variable.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::host::atomic::{AtomicU32, Ordering};
use crate::host::{Nanos, const_fn};
use crate::{Cpu, Mutex, MutexGuard, OffCpu, Parker, Sleeper, Wake};

/// A condition variable: lwps wait on it for something that a mutex guards to become true.
///
/// The queue's own mutex is a leaf: nothing is locked under it. The waiter enters the queue before it lets go of
/// the mutex it came with, so a wake-up under that mutex is never lost.
pub struct Condvar {
    /// What the waiting is for, as ps(1) shows it: the wait channel's name.
    wmesg: &'static str,
    /// Lets wakers skip the queue when nobody waits.
    waiters: AtomicU32,
    queue: Mutex<VecDeque<Arc<Sleeper>>>,
}

impl Condvar {
    const_fn! {
        /// A condition variable with the name of its wait channel.
        pub fn new(wmesg: &'static str) -> Condvar {
            Condvar {
                wmesg,
                waiters: AtomicU32::new(0),
                queue: Mutex::new(VecDeque::new()),
            }
        }
    }

    /// The name of the wait channel.
    pub fn wmesg(&self) -> &'static str {
        self.wmesg
    }

    /// Waits until woken. The mutex is free meanwhile and held again on return. Look at the condition again: it
    /// may have changed since the wake-up.
    pub fn wait<'a, T: ?Sized>(
        &self,
        cpu: &Cpu<'_>,
        guard: MutexGuard<'a, T>,
    ) -> MutexGuard<'a, T> {
        self.wait_in(cpu, guard, None, false).0
    }

    /// Like [`wait`](Self::wait), until a deadline on the monotonic clock, and ended by an interrupt.
    pub fn wait_intr<'a, T: ?Sized>(
        &self,
        cpu: &Cpu<'_>,
        guard: MutexGuard<'a, T>,
        deadline: Option<Nanos>,
    ) -> (MutexGuard<'a, T>, Wake) {
        self.wait_in(cpu, guard, deadline, true)
    }

    /// Like [`wait`](Self::wait), until a deadline on the monotonic clock.
    pub fn wait_until<'a, T: ?Sized>(
        &self,
        cpu: &Cpu<'_>,
        guard: MutexGuard<'a, T>,
        deadline: Nanos,
    ) -> (MutexGuard<'a, T>, Wake) {
        self.wait_in(cpu, guard, Some(deadline), false)
    }

    fn wait_in<'a, T: ?Sized>(
        &self,
        cpu: &Cpu<'_>,
        guard: MutexGuard<'a, T>,
        deadline: Option<Nanos>,
        interruptible: bool,
    ) -> (MutexGuard<'a, T>, Wake) {
        let sleeper = cpu.sleeper();
        sleeper.prepare(interruptible);
        {
            // Held on to the CPU: giving it up would run software interrupts, and one of them may want the mutex.
            let stay = OffCpu(cpu.host());
            let mut queue = self.queue.lock(&stay);
            queue.push_back(sleeper.clone());
            self.waiters.fetch_add(1, Ordering::SeqCst);
        }
        let (mutex, parker) = guard.parts();
        drop(guard);
        cpu.host().waits_for(self.wmesg);
        let wake = sleeper.sleep(cpu, deadline);
        if wake != Wake::Woken {
            self.forget(cpu, sleeper);
        }
        (mutex.lock(parker), wake)
    }

    /// Takes a sleeper that left by itself out of the queue.
    fn forget(&self, cpu: &Cpu<'_>, sleeper: &Arc<Sleeper>) {
        let mut queue = self.queue.lock(cpu);
        if let Some(at) = queue.iter().position(|s| Arc::ptr_eq(s, sleeper)) {
            queue.remove(at);
            self.waiters.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Wakes one waiter, the one that has waited longest.
    pub fn signal(&self, parker: &dyn Parker) {
        if let Some(sleeper) = self.claim_first(parker) {
            sleeper.unpark(parker.host());
        }
    }

    /// Wakes everybody who waits now.
    pub fn broadcast(&self, parker: &dyn Parker) {
        // Who comes back meanwhile is behind them in the queue.
        for _ in 0..self.waiters.load(Ordering::SeqCst) {
            let Some(sleeper) = self.claim_first(parker) else {
                return;
            };
            sleeper.unpark(parker.host());
        }
    }

    /// Whether anybody waits.
    pub fn has_waiters(&self) -> bool {
        self.waiters.load(Ordering::SeqCst) != 0
    }

    /// Takes the first waiter out of the queue whose sleep has not ended otherwise, and ends it.
    fn claim_first(&self, parker: &dyn Parker) -> Option<Arc<Sleeper>> {
        if self.waiters.load(Ordering::SeqCst) == 0 {
            return None;
        }
        let mut queue = self.queue.lock(parker);
        loop {
            let sleeper = queue.pop_front()?;
            self.waiters.fetch_sub(1, Ordering::SeqCst);
            if sleeper.claim() {
                return Some(sleeper);
            }
        }
    }
}

impl std::fmt::Debug for Condvar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Condvar({})", self.wmesg)
    }
}

//! Virtual CPUs and their scheduler.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use hypercall::{Host, Nanos, WakeReason};

use crate::{Parker, Sleeper};

/// The most virtual CPUs a kernel can have.
pub const MAX_CPUS: usize = 256;

/// Set in a CPU's word while an lwp holds it; the other bits name the lwp that has it or had it last.
const BUSY: u64 = 1 << 63;

/// One virtual CPU, alone on its cache lines.
#[repr(align(128))]
struct Slot {
    state: AtomicU64,
    /// Work that must run on this CPU before it is given up (software interrupts), a bit each.
    pending: AtomicU32,
}

/// Called on a CPU that is about to be given up with work pending on it.
pub type PendingHook = Box<dyn Fn(&Cpu<'_>, u32) + Send + Sync>;

/// The virtual CPUs of a kernel.
///
/// An lwp that comes back to the CPU it had last, with nobody in between, gets it by one compare-and-swap.
/// Otherwise it takes any free one, and when there is none it parks until one is given up. There is no kernel
/// preemption.
///
/// No lock: each CPU's word says who has it; `waiting` is raised before the last look at the words and read
/// after a word is freed, so that one side always sees the other.
pub struct Cpus {
    identity: Arc<()>,
    host: Arc<dyn Host>,
    slots: Box<[Slot]>,
    waiting: AtomicU32,
    /// Changes when a CPU is freed while somebody waits; the waiters park on it.
    freed: AtomicU32,
    hook: OnceLock<PendingHook>,
}

impl Cpus {
    /// `count` virtual CPUs, at least one and at most [`MAX_CPUS`].
    pub fn new(host: Arc<dyn Host>, count: usize) -> Cpus {
        let slot = |_| Slot {
            state: AtomicU64::new(0),
            pending: AtomicU32::new(0),
        };
        Cpus {
            identity: Arc::new(()),
            host,
            slots: (0..count.clamp(1, MAX_CPUS)).map(slot).collect(),
            waiting: AtomicU32::new(0),
            freed: AtomicU32::new(0),
            hook: OnceLock::new(),
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn identity(&self) -> &Arc<()> {
        &self.identity
    }

    /// The host that the waits go to.
    pub fn host(&self) -> &Arc<dyn Host> {
        &self.host
    }

    /// Sets what runs pending work; once, at boot.
    pub fn set_pending_hook(&self, hook: PendingHook) {
        let _ = self.hook.set(hook);
    }

    /// Takes a virtual CPU for the lwp that sleeps on `sleeper`, waiting until one is free. The lwp must not hold
    /// one already.
    #[inline]
    pub fn schedule<'k>(&'k self, sleeper: &'k Arc<Sleeper>) -> Cpu<'k> {
        let index = self.acquire(sleeper);
        Cpu {
            cpus: self,
            sleeper,
            index: Cell::new(index),
            _thread_bound: PhantomData,
        }
    }

    /// Marks work as pending on a CPU. It runs at the latest when that CPU is next given up; false when the CPU
    /// is idle, so that the caller has to see to it that somebody takes it.
    pub fn post(&self, cpu: usize, bits: u32) -> bool {
        let slot = &self.slots[cpu];
        slot.pending.fetch_or(bits, Ordering::SeqCst);
        slot.state.load(Ordering::SeqCst) & BUSY != 0
    }

    #[inline]
    fn acquire(&self, sleeper: &Sleeper) -> usize {
        let index = sleeper.last_cpu();
        if let Some(slot) = self.slots.get(index) {
            let mine = slot.state.compare_exchange(
                sleeper.id(),
                sleeper.id() | BUSY,
                Ordering::Acquire,
                Ordering::Relaxed,
            );
            if mine.is_ok() {
                return index;
            }
        }
        self.acquire_slow(sleeper)
    }

    #[cold]
    fn acquire_slow(&self, sleeper: &Sleeper) -> usize {
        let index = self
            .try_any(sleeper)
            .unwrap_or_else(|| self.wait_for_any(sleeper));
        sleeper.set_last_cpu(index);
        index
    }

    /// Any free CPU, from the one the lwp had last onward.
    fn try_any(&self, sleeper: &Sleeper) -> Option<usize> {
        let start = sleeper.last_cpu();
        (0..self.slots.len())
            .map(|i| (start + i) % self.slots.len())
            .find(|&i| {
                let state = &self.slots[i].state;
                let seen = state.load(Ordering::SeqCst);
                seen & BUSY == 0
                    && state
                        .compare_exchange(
                            seen,
                            sleeper.id() | BUSY,
                            Ordering::SeqCst,
                            Ordering::Relaxed,
                        )
                        .is_ok()
            })
    }

    fn wait_for_any(&self, sleeper: &Sleeper) -> usize {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let index = loop {
            let seen = self.freed.load(Ordering::SeqCst);
            if let Some(index) = self.try_any(sleeper) {
                break index;
            }
            self.host.park(&self.freed, seen, None);
        };
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        index
    }

    #[inline]
    fn release(&self, index: usize, id: u64) {
        self.slots[index].state.swap(id, Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) != 0 {
            self.wake_waiter();
        }
    }

    #[cold]
    fn wake_waiter(&self) {
        self.freed.fetch_add(1, Ordering::SeqCst);
        self.host.unpark(&self.freed, 1);
    }
}

/// A virtual CPU that this host thread holds. While the value lives (outside [`unscheduled`](Cpu::unscheduled))
/// no other thread runs on that CPU, which is what per-CPU data stands on.
pub struct Cpu<'k> {
    cpus: &'k Cpus,
    sleeper: &'k Arc<Sleeper>,
    index: Cell<usize>,
    /// A CPU is held by the host thread that took it.
    _thread_bound: PhantomData<*const ()>,
}

impl<'k> Cpu<'k> {
    /// Which CPU; stays the same until the next blocking operation.
    #[inline]
    pub fn index(&self) -> usize {
        self.index.get()
    }

    /// All CPUs of the kernel.
    pub fn cpus(&self) -> &'k Cpus {
        self.cpus
    }

    /// Where the lwp on this CPU sleeps.
    #[inline]
    pub fn sleeper(&self) -> &'k Arc<Sleeper> {
        self.sleeper
    }

    /// Gives the CPU up for the time of `f`, which may block but may not touch per-CPU data, and takes one again,
    /// perhaps another.
    pub fn unscheduled<R>(&self, f: impl FnOnce() -> R) -> R {
        /// Takes the CPU back also when `f` unwinds: the value must stay true.
        struct Back<'a, 'k>(&'a Cpu<'k>);
        impl Drop for Back<'_, '_> {
            fn drop(&mut self) {
                let cpu = self.0;
                cpu.index.set(cpu.cpus.acquire(cpu.sleeper));
            }
        }
        self.give_up();
        let _back = Back(self);
        f()
    }

    /// Lets others that wait for a CPU have this one, if there are any.
    pub fn yield_cpu(&self) {
        if self.cpus.waiting.load(Ordering::Relaxed) != 0 {
            self.unscheduled(|| self.cpus.host.relax());
        }
    }

    /// Runs what is pending on this CPU now.
    #[inline]
    pub fn run_pending(&self) {
        let pending = &self.cpus.slots[self.index()].pending;
        while pending.load(Ordering::Relaxed) != 0 {
            let bits = pending.swap(0, Ordering::SeqCst);
            if let Some(hook) = self.cpus.hook.get() {
                hook(self, bits);
            }
        }
    }

    #[inline]
    fn give_up(&self) {
        self.run_pending();
        self.cpus.release(self.index(), self.sleeper.id());
    }
}

impl Drop for Cpu<'_> {
    #[inline]
    fn drop(&mut self) {
        self.give_up();
    }
}

impl Parker for Cpu<'_> {
    fn host(&self) -> &dyn Host {
        &*self.cpus.host
    }

    fn park(&self, word: &AtomicU32, expected: u32, deadline: Option<Nanos>) -> WakeReason {
        self.unscheduled(|| self.cpus.host.park(word, expected, deadline))
    }
}

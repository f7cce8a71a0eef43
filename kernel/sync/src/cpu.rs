//! Virtual CPUs and their scheduler.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::OnceLock;

use crate::host::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::host::{Host, Nanos, WakeReason};
use crate::{Parker, Sleeper};

/// The most virtual CPUs a kernel can have.
pub const MAX_CPUS: usize = 256;

/// In a CPU's word: an lwp holds it. The bits below [`WANTED`] name the lwp that has it or had it last.
const BUSY: u64 = 1 << 63;
/// In a CPU's word: there is work to run before it is given up.
const PENDING: u64 = 1 << 62;
/// In a CPU's word: somebody waits for a CPU.
const WANTED: u64 = 1 << 61;

/// One virtual CPU, alone on its cache lines.
#[repr(align(128))]
struct Slot {
    state: AtomicU64,
    /// Work that must run on this CPU before it is given up (software interrupts), a bit each.
    pending: AtomicU32,
}

/// Called on a CPU that is about to be given up with work pending on it.
pub type PendingHook = Box<dyn Fn(&Cpu<'_>, u32) + Send + Sync>;

/// Told when an lwp is about to wait: see [`Cpus::schedule_for`].
pub type OnBlock<'a> = &'a dyn Fn();

/// The virtual CPUs of a kernel.
///
/// An lwp that comes back to the CPU it had last, with nobody in between, gets it by one compare-and-swap.
/// Otherwise it takes any free one, and when there is none it parks until one is given up. There is no kernel
/// preemption.
///
/// No lock: everything that decides is in each CPU's word. Who gives a CPU up does so by a compare-and-swap that
/// fails when somebody has left a mark there (work to run, a waiter to wake), so neither mark is ever missed.
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
        self.schedule_for(sleeper, None)
    }

    /// [`schedule`](Self::schedule), with somebody who is told each time the lwp gives its CPU up to wait, or has to wait
    /// for one. He is told without a CPU, and may block.
    #[inline]
    pub fn schedule_for<'k>(
        &'k self,
        sleeper: &'k Arc<Sleeper>,
        on_block: Option<OnBlock<'k>>,
    ) -> Cpu<'k> {
        let index = self.acquire(sleeper, on_block);
        Cpu {
            cpus: self,
            sleeper,
            index: Cell::new(index),
            on_block,
            _thread_bound: PhantomData,
        }
    }

    /// Leaves work for a CPU: a bit each, for the hook. It runs at the latest when that CPU is next given up; false
    /// when the CPU is idle, so that the caller has to see to it that somebody takes it ([`Cpu::try_migrate`]).
    pub fn post(&self, cpu: usize, bits: u32) -> bool {
        let slot = &self.slots[cpu];
        slot.pending.fetch_or(bits, Ordering::Relaxed);
        slot.state.fetch_or(PENDING, Ordering::AcqRel) & BUSY != 0
    }

    #[inline]
    fn acquire(&self, sleeper: &Sleeper, on_block: Option<OnBlock<'_>>) -> usize {
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
        self.acquire_slow(sleeper, on_block)
    }

    #[cold]
    fn acquire_slow(&self, sleeper: &Sleeper, on_block: Option<OnBlock<'_>>) -> usize {
        let index = self.try_any(sleeper).unwrap_or_else(|| {
            if let Some(told) = on_block {
                told();
            }
            self.wait_for_any(sleeper)
        });
        sleeper.set_last_cpu(index);
        index
    }

    /// Any free CPU. The one the lwp had last comes last: somebody else has been there since, and two lwps that take
    /// turns on one CPU while another idles would fight for its cache lines at every call.
    fn try_any(&self, sleeper: &Sleeper) -> Option<usize> {
        let start = sleeper.last_cpu() + 1;
        (0..self.slots.len())
            .map(|i| (start + i) % self.slots.len())
            .find(|&i| self.try_take(i, sleeper).is_ok())
    }

    /// Takes a CPU if it is free, with the work that may be pending on it. Else answers its word.
    fn try_take(&self, index: usize, sleeper: &Sleeper) -> Result<(), u64> {
        let state = &self.slots[index].state;
        let mut seen = state.load(Ordering::Relaxed);
        while seen & BUSY == 0 {
            match state.compare_exchange_weak(
                seen,
                sleeper.id() | BUSY | seen & PENDING,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Ok(()),
                Err(now) => seen = now,
            }
        }
        Err(seen)
    }

    fn wait_for_any(&self, sleeper: &Sleeper) -> usize {
        self.check_it_has_none(sleeper);
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let index = loop {
            let freed = self.freed.load(Ordering::Acquire);
            if let Some(index) = self.take_or_mark(sleeper) {
                break index;
            }
            self.host.waits_for("virtual cpu");
            self.host.park(&self.freed, freed, None);
        };
        if self.waiting.fetch_sub(1, Ordering::SeqCst) > 1 {
            // The mark went when this CPU was freed; the others that wait need it again.
            self.slots[index].state.fetch_or(WANTED, Ordering::Relaxed);
        }
        index
    }

    /// Who waits for a CPU while it has one would wait for itself: code that runs in the kernel enters it again.
    fn check_it_has_none(&self, sleeper: &Sleeper) {
        let mine = sleeper.id() | BUSY;
        let is_mine =
            |slot: &Slot| slot.state.load(Ordering::Relaxed) & !(PENDING | WANTED) == mine;
        if let Some(index) = self.slots.iter().position(is_mine) {
            panic!(
                "lwp {} has virtual CPU {index} already and wants another: who runs in the kernel does not enter it again",
                sleeper.id()
            );
        }
    }

    /// Takes a free CPU, or marks every one as wanted.
    fn take_or_mark(&self, sleeper: &Sleeper) -> Option<usize> {
        for (index, slot) in self.slots.iter().enumerate() {
            loop {
                match self.try_take(index, sleeper) {
                    Ok(()) => return Some(index),
                    Err(seen) if seen & WANTED != 0 => break,
                    Err(seen) => {
                        let marked = slot.state.compare_exchange(
                            seen,
                            seen | WANTED,
                            Ordering::Relaxed,
                            Ordering::Relaxed,
                        );
                        if marked.is_ok() {
                            break;
                        }
                    }
                }
            }
        }
        None
    }

    #[cold]
    fn wake_waiter(&self) {
        self.freed.fetch_add(1, Ordering::Release);
        self.host.unpark(&self.freed, 1);
    }
}

/// A virtual CPU that this host thread holds. While the value lives (outside [`unscheduled`](Cpu::unscheduled))
/// no other thread runs on that CPU, which is what per-CPU data stands on.
pub struct Cpu<'k> {
    cpus: &'k Cpus,
    sleeper: &'k Arc<Sleeper>,
    index: Cell<usize>,
    on_block: Option<OnBlock<'k>>,
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
                cpu.index.set(cpu.cpus.acquire(cpu.sleeper, cpu.on_block));
            }
        }
        self.give_up();
        let _back = Back(self);
        if let Some(told) = self.on_block {
            told();
        }
        f()
    }

    /// Lets others that wait for a CPU have this one, if there are any.
    pub fn yield_cpu(&self) {
        if self.cpus.waiting.load(Ordering::Relaxed) != 0 {
            self.unscheduled(|| self.cpus.host.relax());
        }
    }

    /// Gives this CPU up for another one that is idle; false, with a CPU held as before, when that one is taken.
    pub fn try_migrate(&self, index: usize) -> bool {
        if index == self.index() {
            return true;
        }
        self.give_up();
        let moved = self.cpus.try_take(index, self.sleeper).is_ok();
        if moved {
            self.sleeper.set_last_cpu(index);
            self.index.set(index);
        } else {
            self.index
                .set(self.cpus.acquire(self.sleeper, self.on_block));
        }
        moved
    }

    /// Runs what is pending on this CPU now.
    #[inline]
    pub fn run_pending(&self) {
        if self.slot().state.load(Ordering::Relaxed) & PENDING != 0 {
            self.run_pending_slow();
        }
    }

    #[cold]
    fn run_pending_slow(&self) {
        while self.slot().state.load(Ordering::Relaxed) & PENDING != 0 {
            let slot = self.slot();
            slot.state.fetch_and(!PENDING, Ordering::Acquire);
            let bits = slot.pending.swap(0, Ordering::Relaxed);
            if let Some(hook) = self.cpus.hook.get()
                && bits != 0
            {
                hook(self, bits);
            }
        }
    }

    #[inline]
    fn slot(&self) -> &'k Slot {
        &self.cpus.slots[self.index()]
    }

    #[inline]
    fn give_up(&self) {
        let id = self.sleeper.id();
        let freed =
            self.slot()
                .state
                .compare_exchange(id | BUSY, id, Ordering::Release, Ordering::Relaxed);
        if freed.is_err() {
            self.give_up_slow();
        }
    }

    /// Gives a CPU up on which somebody has left a mark.
    #[cold]
    fn give_up_slow(&self) {
        let id = self.sleeper.id();
        loop {
            self.run_pending();
            // What ran may have waited, and come back on another CPU.
            let slot = self.slot();
            let seen = slot.state.load(Ordering::Relaxed);
            if seen & PENDING != 0 {
                continue;
            }
            let freed = slot
                .state
                .compare_exchange(seen, id, Ordering::Release, Ordering::Relaxed);
            if freed.is_ok() {
                if seen & WANTED != 0 {
                    self.cpus.wake_waiter();
                }
                return;
            }
        }
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

    fn lwp(&self) -> u64 {
        self.sleeper.id()
    }

    fn park(&self, word: &AtomicU32, expected: u32, deadline: Option<Nanos>) -> WakeReason {
        self.unscheduled(|| self.cpus.host.park(word, expected, deadline))
    }
}

//! What an lwp sleeps on, and how it is woken or interrupted.

use crate::Parker;
use crate::host::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use crate::host::{Host, Nanos, WakeReason, in_order};

const AWAKE: u32 = 0;
const ASLEEP: u32 = 1;
const ASLEEP_INTR: u32 = 2;
/// Added to `ASLEEP_INTR` by an interrupt.
const INTERRUPTED: u32 = 4;

/// Why a sleep ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// Somebody woke the sleeper.
    Woken,
    /// The deadline passed first.
    TimedOut,
    /// The sleeper was interrupted: a signal, or its process is going away.
    Interrupted,
}

/// The sleeping place of one lwp. One lwp sleeps in one place at a time, so this one word serves every
/// condition variable, poll and wait of that lwp.
///
/// Protocol: the lwp calls [`prepare`](Self::prepare), makes itself findable (a queue), looks at its condition
/// once more, and calls [`sleep`](Self::sleep). A waker takes it from the queue and [`claim`](Self::claim)s it under the
/// queue's lock, which a sleeper that left by itself takes to leave the queue: so a wake-up never goes to a later sleep
/// of the same lwp. The word alone decides who came first, so there is no lost wake-up and no lock order.
#[derive(Debug)]
pub struct Sleeper {
    id: u64,
    word: AtomicU32,
    interrupted: AtomicBool,
    last_cpu: AtomicU64,
}

impl Sleeper {
    /// A sleeping place for the lwp of this number. The number is unique in its kernel and below 2^62.
    pub fn new(id: u64) -> Sleeper {
        Sleeper {
            id,
            word: AtomicU32::new(AWAKE),
            interrupted: AtomicBool::new(false),
            last_cpu: AtomicU64::new(0),
        }
    }

    /// The lwp's number.
    pub fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn last_cpu(&self) -> usize {
        self.last_cpu.load(Ordering::Relaxed) as usize
    }

    pub(crate) fn set_last_cpu(&self, cpu: usize) {
        self.last_cpu.store(cpu as u64, Ordering::Relaxed);
    }

    /// Says that a sleep is about to begin, before the sleeper can be found by wakers.
    pub fn prepare(&self, interruptible: bool) {
        self.word.store(
            if interruptible { ASLEEP_INTR } else { ASLEEP },
            Ordering::SeqCst,
        );
        in_order();
    }

    /// Takes back [`prepare`](Self::prepare) when the condition has come true meanwhile.
    pub fn cancel(&self) {
        self.word.store(AWAKE, Ordering::Relaxed);
    }

    /// Sleeps until woken, interrupted (if prepared so) or the deadline on the monotonic clock.
    pub fn sleep(&self, parker: &dyn Parker, deadline: Option<Nanos>) -> Wake {
        loop {
            let word = self.word.load(Ordering::Acquire);
            if word == AWAKE {
                return Wake::Woken;
            }
            if word & ASLEEP_INTR != 0 && self.interrupted.load(Ordering::SeqCst) {
                return self.leave(Wake::Interrupted);
            }
            if parker.park(&self.word, word, deadline) == WakeReason::TimedOut {
                return self.leave(Wake::TimedOut);
            }
        }
    }

    /// Leaves a sleep that nobody has ended yet; a wake that came first wins.
    fn leave(&self, why: Wake) -> Wake {
        if self.word.swap(AWAKE, Ordering::AcqRel) == AWAKE {
            Wake::Woken
        } else {
            why
        }
    }

    /// Ends the sleep; its thread is to be [unparked](Self::unpark). False when it had ended already, so that the waker can pick
    /// another sleeper. Under the lock of the queue where the sleeper was found: only as long is it certain that this is
    /// the sleep it was queued for.
    pub fn claim(&self) -> bool {
        self.word.swap(AWAKE, Ordering::AcqRel) != AWAKE
    }

    /// Unparks the thread of a sleep that was [claimed](Self::claim).
    pub fn unpark(&self, host: &dyn Host) {
        host.unpark(&self.word, 1);
    }

    /// Makes the present and every later interruptible sleep end at once, until [`clear`](Self::clear).
    pub fn interrupt(&self, host: &dyn Host) {
        self.interrupted.store(true, Ordering::SeqCst);
        in_order();
        if self.word.load(Ordering::SeqCst) == ASLEEP_INTR {
            // The sleeper itself decides what its sleep ended with; the new value of the word only keeps a
            // thread that is just about to park from sleeping through this.
            if self
                .word
                .compare_exchange(
                    ASLEEP_INTR,
                    ASLEEP_INTR | INTERRUPTED,
                    Ordering::SeqCst,
                    Ordering::SeqCst,
                )
                .is_ok()
            {
                host.unpark(&self.word, 1);
            }
        }
    }

    /// Whether an interrupt is pending.
    pub fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::SeqCst)
    }

    /// Forgets a pending interrupt.
    pub fn clear(&self) {
        self.interrupted.store(false, Ordering::SeqCst);
    }
}

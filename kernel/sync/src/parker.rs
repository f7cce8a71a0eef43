//! How to wait: with a virtual CPU to give up, or without one.

use crate::host::atomic::AtomicU32;
use crate::host::{Host, Nanos, WakeReason};

/// Somebody who can wait on a word. The locks take one and use it only when they are contended.
pub trait Parker {
    /// The host that carries the waits.
    fn host(&self) -> &dyn Host;

    /// Sleeps while `*word == expected`, without a virtual CPU. May return early for no reason.
    fn park(&self, word: &AtomicU32, expected: u32, deadline: Option<Nanos>) -> WakeReason;

    /// The number of the lwp that waits; 0 for a thread outside the kernel.
    fn lwp(&self) -> u64 {
        0
    }

    /// Wakes up to `count` threads parked on the word.
    fn unpark(&self, word: &AtomicU32, count: u32) {
        self.host().unpark(word, count);
    }
}

/// A place at which a host that explores orders lets others come in between. Costs nothing in optimised builds.
#[inline(always)]
pub(crate) fn preempt(parker: &dyn Parker) {
    #[cfg(all(debug_assertions, not(loom)))]
    parker.host().preempt();
    #[cfg(not(all(debug_assertions, not(loom))))]
    let _ = parker;
}

/// A host thread that holds no virtual CPU.
#[derive(Clone, Copy)]
pub struct OffCpu<'h>(pub &'h dyn Host);

impl Parker for OffCpu<'_> {
    fn host(&self) -> &dyn Host {
        self.0
    }

    fn park(&self, word: &AtomicU32, expected: u32, deadline: Option<Nanos>) -> WakeReason {
        self.0.park(word, expected, deadline)
    }
}

//! What this crate stands on: atomics and the host. Under `cfg(loom)` both are loom's, so that the models in
//! `models` see every interleaving and every value that the memory orderings allow.

#[cfg(not(loom))]
pub(crate) use hypercall::{Host, Nanos, WakeReason};
#[cfg(not(loom))]
pub(crate) use std::sync::atomic;

#[cfg(loom)]
pub(crate) use loom::sync::atomic;
#[cfg(all(test, loom))]
pub(crate) use model::ModelHost;
#[cfg(loom)]
#[allow(unreachable_pub)]
pub use model::{Host, Nanos, WakeReason};

/// Stands between a sequentially consistent store and a later load in the models only: loom takes such accesses for weaker ones, and
/// knows the order of fences.
#[inline(always)]
pub(crate) fn in_order() {
    #[cfg(loom)]
    atomic::fence(atomic::Ordering::SeqCst);
}

/// How often a thread looks before it parks; the holder is most often a few instructions from letting go.
pub(crate) const SPINS: u32 = if cfg!(loom) { 1 } else { 100 };

/// A `const fn`, which loom's atomics do not allow.
macro_rules! const_fn {
    ($(#[$meta:meta])* pub fn $($rest:tt)*) => {
        #[cfg(not(loom))]
        $(#[$meta])* pub const fn $($rest)*
        #[cfg(loom)]
        $(#[$meta])* pub fn $($rest)*
    };
}
pub(crate) use const_fn;

#[cfg(loom)]
#[cfg_attr(not(test), allow(dead_code))]
#[allow(missing_docs, unreachable_pub)] // the parts of hypercall that the models need; see there
mod model {
    use super::atomic::{AtomicU32, Ordering};
    use std::collections::BTreeMap;

    pub type Nanos = u64;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum WakeReason {
        Woken,
        TimedOut,
    }

    pub trait Host: Send + Sync {
        fn park(&self, word: &AtomicU32, expected: u32, deadline: Option<Nanos>) -> WakeReason;
        fn unpark(&self, word: &AtomicU32, count: u32);
        fn waits_for(&self, _: &'static str) {}
        fn relax(&self);
    }

    /// futex(2) as its manual page says, and no wake-up beyond that: a lost one shows as a deadlock.
    #[derive(Default)]
    pub struct ModelHost {
        queues: loom::sync::Mutex<BTreeMap<usize, Queue>>,
        woken: loom::sync::Condvar,
    }

    #[derive(Default)]
    struct Queue {
        waiting: u32,
        wakes: u32,
    }

    fn key(word: &AtomicU32) -> usize {
        std::ptr::from_ref(word).addr()
    }

    impl Host for ModelHost {
        fn park(&self, word: &AtomicU32, expected: u32, _: Option<Nanos>) -> WakeReason {
            let mut queues = self.queues.lock().unwrap();
            if word.load(Ordering::SeqCst) != expected {
                return WakeReason::Woken;
            }
            queues.entry(key(word)).or_default().waiting += 1;
            loop {
                queues = self.woken.wait(queues).unwrap();
                let queue = queues.entry(key(word)).or_default();
                if queue.wakes > 0 {
                    queue.wakes -= 1;
                    queue.waiting -= 1;
                    return WakeReason::Woken;
                }
            }
        }

        fn unpark(&self, word: &AtomicU32, count: u32) {
            let mut queues = self.queues.lock().unwrap();
            let queue = queues.entry(key(word)).or_default();
            queue.wakes = queue.wakes.saturating_add(count).min(queue.waiting);
            self.woken.notify_all();
        }

        fn relax(&self) {
            loom::thread::yield_now();
        }
    }
}

//! The mutex.

use std::cell::UnsafeCell;
use std::fmt;
use std::ops::{Deref, DerefMut};

use crate::Parker;
use crate::host::atomic::{AtomicU32, Ordering};
use crate::host::{SPINS, const_fn};
use crate::lockdebug::LockDebug;
use crate::parker::preempt;

const FREE: u32 = 0;
const HELD: u32 = 1;
/// Held, and somebody may be parked on the word.
const CONTENDED: u32 = 2;

/// Mutual exclusion around a value. Taking it free is one compare-and-swap; waiting spins shortly and then parks,
/// without a virtual CPU. Not recursive, not fair.
pub struct Mutex<T: ?Sized> {
    word: AtomicU32,
    debug: LockDebug,
    value: UnsafeCell<T>,
}

// SAFETY: the word lets one thread at a time reach the value, so sharing the mutex only ever moves access to `T`
// from thread to thread, which `T: Send` allows.
unsafe impl<T: ?Sized + Send> Sync for Mutex<T> {}
// SAFETY: owning the mutex is owning the value.
unsafe impl<T: ?Sized + Send> Send for Mutex<T> {}

impl<T> Mutex<T> {
    const_fn! {
        /// A free mutex around `value`.
        pub fn new(value: T) -> Mutex<T> {
            Mutex {
                word: AtomicU32::new(FREE),
                debug: LockDebug::new("mutex"),
                value: UnsafeCell::new(value),
            }
        }
    }

    /// The value, when the mutex is no longer needed.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

impl<T: ?Sized> Mutex<T> {
    /// Takes the mutex, waiting while another has it.
    #[inline]
    #[cfg_attr(all(feature = "lockdebug", not(loom)), track_caller)]
    pub fn lock<'a>(&'a self, parker: &'a dyn Parker) -> MutexGuard<'a, T> {
        preempt(parker);
        if self
            .word
            .compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed)
            .is_err()
        {
            self.debug.wants(parker);
            self.lock_slow(parker);
        }
        self.debug.locked(parker);
        MutexGuard {
            mutex: self,
            parker,
        }
    }

    /// Takes the mutex if it is free.
    #[inline]
    #[cfg_attr(all(feature = "lockdebug", not(loom)), track_caller)]
    pub fn try_lock<'a>(&'a self, parker: &'a dyn Parker) -> Option<MutexGuard<'a, T>> {
        self.word
            .compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed)
            .ok()?;
        self.debug.locked(parker);
        Some(MutexGuard {
            mutex: self,
            parker,
        })
    }

    /// The value; no locking is needed by who owns the mutex alone.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    #[cold]
    fn lock_slow(&self, parker: &dyn Parker) {
        for _ in 0..SPINS {
            if self.word.load(Ordering::Relaxed) == FREE
                && self
                    .word
                    .compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed)
                    .is_ok()
            {
                return;
            }
            std::hint::spin_loop();
        }
        while self.word.swap(CONTENDED, Ordering::Acquire) != FREE {
            parker.host().waits_for("mutex");
            parker.park(&self.word, CONTENDED, None);
        }
    }
}

impl<T: Default> Default for Mutex<T> {
    fn default() -> Self {
        Mutex::new(T::default())
    }
}

impl<T: ?Sized> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mutex")
    }
}

/// Holds a [`Mutex`]; dropping it lets go.
pub struct MutexGuard<'a, T: ?Sized> {
    mutex: &'a Mutex<T>,
    parker: &'a dyn Parker,
}

impl<'a, T: ?Sized> MutexGuard<'a, T> {
    /// The mutex that is held, for taking it again after a wait.
    pub(crate) fn parts(&self) -> (&'a Mutex<T>, &'a dyn Parker) {
        (self.mutex, self.parker)
    }
}

impl<T: ?Sized> Drop for MutexGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.mutex.debug.unlocked();
        if self.mutex.word.swap(FREE, Ordering::Release) == CONTENDED {
            self.parker.unpark(&self.mutex.word, 1);
        }
        preempt(self.parker);
    }
}

impl<T: ?Sized> Deref for MutexGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the guard exists only while its thread holds the mutex.
        unsafe { &*self.mutex.value.get() }
    }
}

impl<T: ?Sized> DerefMut for MutexGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the guard exists only while its thread holds the mutex, and `&mut self` makes this the one use.
        unsafe { &mut *self.mutex.value.get() }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::OffCpu;

    #[test]
    fn a_try_that_fails_leaves_the_lock_to_its_holder() {
        let host = hypercall::PosixHost::new();
        let parker = OffCpu(&*host);
        let mutex = Mutex::new(1);
        let held = mutex.lock(&parker);
        assert!(mutex.try_lock(&parker).is_none());
        assert!(mutex.try_lock(&parker).is_none(), "it is held still");
        drop(held);
        assert!(mutex.try_lock(&parker).is_some());
    }
}

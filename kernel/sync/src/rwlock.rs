//! The readers-writer lock.

use std::cell::UnsafeCell;
use std::fmt;
use std::ops::{Deref, DerefMut};

use crate::Parker;
use crate::host::atomic::{AtomicU32, Ordering};
use crate::host::{SPINS, const_fn};
use crate::lockdebug::LockDebug;
use crate::parker::preempt;

/// Held by a writer.
const WRITER: u32 = 1 << 31;
/// Somebody is parked on the word. New readers queue up behind, so that a writer's turn comes.
const WAITERS: u32 = 1 << 30;
/// How many readers hold it.
const READERS: u32 = WAITERS - 1;

/// Many readers or one writer around a value. Free, either takes one compare-and-swap. A writer that waits keeps
/// new readers out. Not recursive: a thread that reads already may not read again.
pub struct RwLock<T: ?Sized> {
    word: AtomicU32,
    /// Of a writer.
    debug: LockDebug,
    value: UnsafeCell<T>,
}

// SAFETY: as for the standard library's lock: `&T` is handed to several threads (`Sync`), `&mut T` to one at a time
// (`Send`).
unsafe impl<T: ?Sized + Send + Sync> Sync for RwLock<T> {}
// SAFETY: owning the lock is owning the value.
unsafe impl<T: ?Sized + Send> Send for RwLock<T> {}

impl<T> RwLock<T> {
    const_fn! {
    /// A free lock around `value`.
    pub fn new(value: T) -> RwLock<T> {
        RwLock {
            word: AtomicU32::new(0),
            debug: LockDebug::new("rwlock"),
            value: UnsafeCell::new(value),
        }
    }
    }

    /// The value, when the lock is no longer needed.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

impl<T: ?Sized> RwLock<T> {
    /// Takes the lock for reading.
    #[inline]
    #[cfg_attr(all(feature = "lockdebug", not(loom)), track_caller)]
    pub fn read<'a>(&'a self, parker: &'a dyn Parker) -> ReadGuard<'a, T> {
        preempt(parker);
        if !self.try_read_word() {
            self.debug.wants(parker);
            self.wait(parker, RwLock::try_read_word);
        }
        ReadGuard { lock: self, parker }
    }

    /// Takes the lock for writing.
    #[inline]
    #[cfg_attr(all(feature = "lockdebug", not(loom)), track_caller)]
    pub fn write<'a>(&'a self, parker: &'a dyn Parker) -> WriteGuard<'a, T> {
        preempt(parker);
        if !self.try_write_word() {
            self.debug.wants(parker);
            self.wait(parker, RwLock::try_write_word);
        }
        self.debug.locked(parker);
        WriteGuard { lock: self, parker }
    }

    /// Takes the lock for writing if it is free.
    #[inline]
    #[cfg_attr(all(feature = "lockdebug", not(loom)), track_caller)]
    pub fn try_write<'a>(&'a self, parker: &'a dyn Parker) -> Option<WriteGuard<'a, T>> {
        if !self.try_write_word() {
            return None;
        }
        self.debug.locked(parker);
        Some(WriteGuard { lock: self, parker })
    }

    /// The value; no locking is needed by who owns the lock alone.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    #[inline]
    fn try_read_word(&self) -> bool {
        let seen = self.word.load(Ordering::Relaxed);
        seen & (WRITER | WAITERS) == 0
            && self
                .word
                .compare_exchange(seen, seen + 1, Ordering::Acquire, Ordering::Relaxed)
                .is_ok()
    }

    #[inline]
    fn try_write_word(&self) -> bool {
        let seen = self.word.load(Ordering::Relaxed);
        seen & (WRITER | READERS) == 0
            && self
                .word
                .compare_exchange(seen, seen | WRITER, Ordering::Acquire, Ordering::Relaxed)
                .is_ok()
    }

    #[cold]
    fn wait(&self, parker: &dyn Parker, attempt: impl Fn(&Self) -> bool) {
        loop {
            for _ in 0..SPINS {
                if attempt(self) {
                    return;
                }
                std::hint::spin_loop();
            }
            let seen = self.word.load(Ordering::Relaxed);
            if seen & (WRITER | READERS) == 0 {
                // Free but for the mark of waiters: whoever comes first clears it and lets all try.
                if self
                    .word
                    .compare_exchange(seen, 0, Ordering::Relaxed, Ordering::Relaxed)
                    .is_ok()
                {
                    parker.unpark(&self.word, u32::MAX);
                }
            } else if seen & WAITERS != 0
                || self
                    .word
                    .compare_exchange(seen, seen | WAITERS, Ordering::Relaxed, Ordering::Relaxed)
                    .is_ok()
            {
                parker.host().waits_for("rwlock");
                parker.park(&self.word, seen | WAITERS, None);
            }
        }
    }

    /// Wakes those who wait after the last holder has gone; they all try again.
    #[cold]
    fn wake_all(&self, parker: &dyn Parker) {
        self.word.fetch_and(!WAITERS, Ordering::Relaxed);
        parker.unpark(&self.word, u32::MAX);
    }
}

impl<T: Default> Default for RwLock<T> {
    fn default() -> Self {
        RwLock::new(T::default())
    }
}

impl<T: ?Sized> fmt::Debug for RwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RwLock")
    }
}

/// Holds a [`RwLock`] for reading.
pub struct ReadGuard<'a, T: ?Sized> {
    lock: &'a RwLock<T>,
    parker: &'a dyn Parker,
}

impl<T: ?Sized> Drop for ReadGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        let before = self.lock.word.fetch_sub(1, Ordering::Release);
        if before == WAITERS | 1 {
            self.lock.wake_all(self.parker);
        }
        preempt(self.parker);
    }
}

impl<T: ?Sized> Deref for ReadGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: while a reader holds the lock no writer does.
        unsafe { &*self.lock.value.get() }
    }
}

/// Holds a [`RwLock`] for writing.
pub struct WriteGuard<'a, T: ?Sized> {
    lock: &'a RwLock<T>,
    parker: &'a dyn Parker,
}

impl<T: ?Sized> Drop for WriteGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.lock.debug.unlocked();
        let before = self.lock.word.fetch_and(!WRITER, Ordering::Release);
        if before & WAITERS != 0 {
            self.lock.wake_all(self.parker);
        }
        preempt(self.parker);
    }
}

impl<T: ?Sized> Deref for WriteGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the writer is alone with the value.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T: ?Sized> DerefMut for WriteGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the writer is alone with the value, and `&mut self` makes this the one use.
        unsafe { &mut *self.lock.value.get() }
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
        let lock = RwLock::new(1);
        let held = lock.write(&parker);
        assert!(lock.try_write(&parker).is_none());
        assert!(lock.try_write(&parker).is_none(), "it is held still");
        drop(held);
        let held = lock.read(&parker);
        assert!(lock.try_write(&parker).is_none());
        drop(held);
        assert!(lock.try_write(&parker).is_some());
    }
}

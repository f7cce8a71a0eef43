//! Who has a lock and where it was taken: so that a lock that is taken twice by one lwp, or freed while it is held, is a panic that
//! names the lock and both places, and not a hang or worse.
//!
//! With the feature `lockdebug`; without it nothing of it is there, and locks are smaller. The reference has it as a build option, too.

#[cfg(all(feature = "lockdebug", not(loom)))]
pub(crate) use on::LockDebug;

#[cfg(not(all(feature = "lockdebug", not(loom))))]
pub(crate) use off::LockDebug;

#[cfg(all(feature = "lockdebug", not(loom)))]
mod on {
    use std::panic::Location;
    use std::ptr;
    use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

    use crate::Parker;

    /// What is known of a lock. For its holder to write; others may see what was true a moment ago, but nobody sees
    /// himself as the holder who is not.
    pub(crate) struct LockDebug {
        kind: &'static str,
        /// The lwp that has it; 0 for nobody, or for a thread outside the kernel.
        owner: AtomicU64,
        /// Where it was taken; null for a lock that nobody has.
        place: AtomicPtr<Location<'static>>,
    }

    impl LockDebug {
        pub(crate) const fn new(kind: &'static str) -> LockDebug {
            LockDebug {
                kind,
                owner: AtomicU64::new(0),
                place: AtomicPtr::new(ptr::null_mut()),
            }
        }

        /// Before it is waited for.
        #[track_caller]
        pub(crate) fn wants(&self, parker: &dyn Parker) {
            let me = parker.lwp();
            if me != 0 && self.owner.load(Ordering::Relaxed) == me {
                panic!(
                    "{} {self:p}: lwp {me} locks it twice: taken at {}, again at {}",
                    self.kind,
                    self.place(),
                    Location::caller()
                );
            }
        }

        /// It is taken.
        #[track_caller]
        pub(crate) fn locked(&self, parker: &dyn Parker) {
            self.owner.store(parker.lwp(), Ordering::Relaxed);
            let place = ptr::from_ref(Location::caller()).cast_mut();
            self.place.store(place, Ordering::Relaxed);
        }

        /// It is about to be let go.
        pub(crate) fn unlocked(&self) {
            self.owner.store(0, Ordering::Relaxed);
            self.place.store(ptr::null_mut(), Ordering::Relaxed);
        }

        fn place(&self) -> String {
            let place = self.place.load(Ordering::Relaxed);
            // SAFETY: null, or the address of a location, which lasts.
            unsafe { place.as_ref() }.map_or("an unknown place".to_owned(), Location::to_string)
        }
    }

    impl Drop for LockDebug {
        fn drop(&mut self) {
            if !self.place.get_mut().is_null() && !std::thread::panicking() {
                let owner = *self.owner.get_mut();
                panic!(
                    "{} {self:p}: freed while lwp {owner} has it, taken at {}",
                    self.kind,
                    self.place()
                );
            }
        }
    }
}

#[cfg(not(all(feature = "lockdebug", not(loom))))]
mod off {
    use crate::Parker;

    /// Nothing.
    pub(crate) struct LockDebug;

    impl LockDebug {
        #[inline(always)]
        pub(crate) const fn new(_: &'static str) -> LockDebug {
            LockDebug
        }

        #[inline(always)]
        pub(crate) fn wants(&self, _: &dyn Parker) {}

        #[inline(always)]
        pub(crate) fn locked(&self, _: &dyn Parker) {}

        #[inline(always)]
        pub(crate) fn unlocked(&self) {}
    }
}

#[cfg(all(test, not(loom)))]
#[allow(unused_imports)] // some tests are of the feature
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Arc;

    use crate::{Cpus, Mutex, OffCpu, RwLock, Sleeper};

    /// What a panic says.
    fn said(f: impl FnOnce()) -> String {
        let panic = catch_unwind(AssertUnwindSafe(f)).expect_err("it panics");
        panic.downcast_ref::<String>().expect("text").clone()
    }

    #[cfg(feature = "lockdebug")]
    #[test]
    fn a_lock_that_is_taken_twice_names_itself_and_both_places() {
        let cpus = Cpus::new(hypercall::PosixHost::new(), 2);
        let sleeper = Arc::new(Sleeper::new(7));
        let cpu = cpus.schedule(&sleeper);
        let (mutex, rwlock) = (Mutex::new(()), RwLock::new(()));
        let text = said(|| {
            let _once = mutex.lock(&cpu);
            let _twice = mutex.lock(&cpu);
        });
        assert!(text.starts_with("mutex 0x"), "{text}");
        assert!(text.contains("lwp 7 locks it twice"), "{text}");
        assert_eq!(text.matches("lockdebug.rs:").count(), 2, "{text}");
        let text = said(|| {
            let _once = rwlock.write(&cpu);
            let _twice = rwlock.read(&cpu);
        });
        assert!(text.starts_with("rwlock 0x"), "{text}");
        // They were let go on the way, and another lwp may wait for what somebody has.
        drop((mutex.lock(&cpu), rwlock.write(&cpu)));
    }

    #[cfg(feature = "lockdebug")]
    #[test]
    fn a_lock_that_is_freed_while_it_is_held_names_where_it_was_taken() {
        let host = hypercall::PosixHost::new();
        let mutex = Mutex::new(());
        std::mem::forget(mutex.lock(&OffCpu(&*host)));
        let text = said(|| drop(mutex));
        assert!(text.contains("freed while"), "{text}");
        assert!(text.contains("lockdebug.rs:"), "{text}");
    }

    #[test]
    fn an_lwp_that_waits_for_a_cpu_while_it_has_one_is_named() {
        let cpus = Cpus::new(hypercall::PosixHost::new(), 1);
        let sleeper = Arc::new(Sleeper::new(9));
        let cpu = cpus.schedule(&sleeper);
        let text = said(|| drop(cpus.schedule(&sleeper)));
        assert!(text.contains("lwp 9 has virtual CPU 0 already"), "{text}");
        drop(cpu);
    }
}

//! Models of the locks and of the CPUs' hand-over, checked by loom in every interleaving up to a bound. A lost
//! wake-up is a deadlock there, a missing ordering a race on what the lock guards.

mod exit;

use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread;

use crate::host::{Host, ModelHost};
use crate::{Condvar, Cpus, Mutex, OffCpu, Parker, RwLock, Sleeper, Wake};

/// What must be reached by one at a time: loom complains when it is not.
#[derive(Default)]
struct Guarded(UnsafeCell<u32>);

// SAFETY: loom panics on any access that another one is not ordered before.
unsafe impl Sync for Guarded {}
// SAFETY: it is a number.
unsafe impl Send for Guarded {}

impl Guarded {
    fn bump(&self) {
        // SAFETY: loom checks that this is the one access.
        self.0.with_mut(|n| unsafe { *n += 1 });
    }

    fn get(&self) -> u32 {
        // SAFETY: loom checks that nobody writes.
        self.0.with(|n| unsafe { *n })
    }
}

fn model(preemptions: usize, f: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(f);
}

fn host() -> Arc<dyn Host> {
    Arc::new(ModelHost::default())
}

/// Runs bodies on threads of their own, the last one here, and waits for all.
fn all<const N: usize>(bodies: [Box<dyn FnOnce() + Send>; N]) {
    let mut bodies = Vec::from(bodies);
    let here = bodies.pop();
    let threads: Vec<_> = bodies.into_iter().map(thread::spawn).collect();
    here.into_iter().for_each(|f| f());
    threads.into_iter().for_each(|t| t.join().unwrap());
}

#[test]
fn a_mutex_excludes_and_wakes() {
    model(3, || {
        let shared = Arc::new((host(), Mutex::new(()), Guarded::default()));
        let body = || -> Box<dyn FnOnce() + Send> {
            let shared = shared.clone();
            Box::new(move || {
                let off = OffCpu(&*shared.0);
                let _held = shared.1.lock(&off);
                shared.2.bump();
            })
        };
        all([body(), body(), body()]);
        assert_eq!(shared.2.get(), 3);
    });
}

#[test]
fn a_try_lock_that_fails_changes_nothing() {
    model(3, || {
        let shared = Arc::new((host(), Mutex::new(()), Guarded::default()));
        let body = |attempt: bool| -> Box<dyn FnOnce() + Send> {
            let shared = shared.clone();
            Box::new(move || {
                let off = OffCpu(&*shared.0);
                let held = if attempt {
                    shared.1.try_lock(&off)
                } else {
                    Some(shared.1.lock(&off))
                };
                if held.is_some() {
                    shared.2.bump();
                }
            })
        };
        all([body(true), body(false), body(true)]);
    });
}

#[test]
fn readers_share_writers_exclude_and_all_are_woken() {
    model(2, || {
        let shared = Arc::new((host(), RwLock::new(()), Guarded::default()));
        let body = |write: bool| -> Box<dyn FnOnce() + Send> {
            let shared = shared.clone();
            Box::new(move || {
                let off = OffCpu(&*shared.0);
                if write {
                    let _held = shared.1.write(&off);
                    shared.2.bump();
                } else {
                    let _held = shared.1.read(&off);
                    shared.2.get();
                }
            })
        };
        all([body(true), body(false), body(true)]);
    });
}

#[test]
fn a_cpu_has_one_lwp_and_is_handed_over() {
    model(3, || {
        let shared = Arc::new((Cpus::new(host(), 1), Guarded::default()));
        let body = |id| -> Box<dyn FnOnce() + Send> {
            let shared = shared.clone();
            Box::new(move || {
                let sleeper = Arc::new(Sleeper::new(id));
                for _ in 0..2 {
                    let _cpu = shared.0.schedule(&sleeper);
                    shared.1.bump();
                }
            })
        };
        all([body(1), body(2)]);
        assert_eq!(shared.1.get(), 4);
    });
}

#[test]
fn three_lwps_share_a_cpu_and_none_is_forgotten() {
    model(2, || {
        let shared = Arc::new((Cpus::new(host(), 1), Guarded::default()));
        let body = |id| -> Box<dyn FnOnce() + Send> {
            let shared = shared.clone();
            Box::new(move || {
                let sleeper = Arc::new(Sleeper::new(id));
                let _cpu = shared.0.schedule(&sleeper);
                shared.1.bump();
            })
        };
        all([body(1), body(2), body(3)]);
        assert_eq!(shared.1.get(), 3);
    });
}

#[test]
fn work_posted_to_a_busy_cpu_is_done_when_it_is_given_up() {
    model(3, || {
        let cpus = Arc::new(Cpus::new(host(), 1));
        let done = Arc::new(AtomicU32::new(0));
        let counter = done.clone();
        cpus.set_pending_hook(Box::new(move |_, bits| {
            counter.fetch_add(bits, Ordering::Relaxed);
        }));
        let (holder, poster) = (cpus.clone(), cpus.clone());
        all([
            Box::new(move || {
                let sleeper = Arc::new(Sleeper::new(1));
                drop(holder.schedule(&sleeper));
                drop(holder.schedule(&sleeper));
            }),
            Box::new(move || {
                if !poster.post(0, 1) {
                    // Idle: whoever posts sees to it.
                    let sleeper = Arc::new(Sleeper::new(2));
                    drop(poster.schedule(&sleeper));
                }
            }),
        ]);
        assert_eq!(done.load(Ordering::Relaxed), 1, "once, and not lost");
    });
}

#[test]
fn a_condition_variable_loses_no_signal() {
    model(2, || {
        let shared = Arc::new((
            Cpus::new(host(), 1),
            Mutex::new(false),
            Condvar::new("model"),
        ));
        let (waiter, teller) = (shared.clone(), shared.clone());
        all([
            Box::new(move || {
                let sleeper = Arc::new(Sleeper::new(1));
                let cpu = waiter.0.schedule(&sleeper);
                let mut true_now = waiter.1.lock(&cpu);
                while !*true_now {
                    true_now = waiter.2.wait(&cpu, true_now);
                }
            }),
            Box::new(move || {
                let sleeper = Arc::new(Sleeper::new(2));
                let cpu = teller.0.schedule(&sleeper);
                *teller.1.lock(&cpu) = true;
                teller.2.signal(&cpu);
            }),
        ]);
    });
}

#[test]
fn a_sleep_ends_once_whether_woken_or_interrupted() {
    model(3, || {
        let host = host();
        let sleeper = Arc::new(Sleeper::new(1));
        sleeper.prepare(true);
        let (a, b) = (sleeper.clone(), sleeper.clone());
        let (host_a, host_b) = (host.clone(), host.clone());
        let woke = Arc::new(AtomicU32::new(0));
        let told = woke.clone();
        all([
            Box::new(move || {
                if a.claim() {
                    a.unpark(&*host_a);
                    told.store(1, Ordering::Relaxed);
                }
            }),
            Box::new(move || b.interrupt(&*host_b)),
            Box::new(move || {
                let off = OffCpu(&*host);
                let why = sleeper.sleep(off.me(), None);
                assert_ne!(why, Wake::TimedOut);
                assert!(
                    why == Wake::Woken || sleeper.is_interrupted(),
                    "nobody interrupted"
                );
            }),
        ]);
        let _ = woke;
    });
}

/// The parker that a value is, as the trait object that the locks take.
trait Me: Parker + Sized {
    fn me(&self) -> &dyn Parker {
        self
    }
}

impl Me for OffCpu<'_> {}

//! Models of the end of a process from outside, kern's `proc_exit` and what its lwps do meanwhile, with kern's steps in its order: every
//! lwp leaves its wait, whenever it went to sleep; none comes anew; and the last one to leave gives the process's things back, when
//! nobody can be using them any more.

use std::sync::Arc;

use loom::sync::atomic::{AtomicU32, Ordering};

use super::{Guarded, all, host, model};
use crate::{Condvar, Cpus, Mutex, OffCpu, SleepQueues, Sleeper, Wake};

/// A process as kern has it: who its lwps are, and whether it is going.
struct Proc {
    cpus: Cpus,
    lwps: Mutex<Lwps>,
    /// What its lwps use while they are there, and the last one gives back.
    things: Guarded,
    given_back: AtomicU32,
}

#[derive(Default)]
struct Lwps {
    exiting: bool,
    sleepers: Vec<Arc<Sleeper>>,
}

impl Proc {
    /// With one lwp, which keeps it until somebody leaves as that.
    fn new(cpus: usize) -> (Arc<Proc>, Arc<Sleeper>) {
        let main = Arc::new(Sleeper::new(1));
        let proc = Proc {
            cpus: Cpus::new(host(), cpus),
            lwps: Mutex::new(Lwps {
                exiting: false,
                sleepers: vec![main.clone()],
            }),
            things: Guarded::default(),
            given_back: AtomicU32::new(0),
        };
        (Arc::new(proc), main)
    }

    /// newlwp: `None` when it is going.
    fn newlwp(&self, id: u64) -> Option<Arc<Sleeper>> {
        let off = OffCpu(&**self.cpus.host());
        let mut lwps = self.lwps.lock(&off);
        if lwps.exiting {
            return None;
        }
        let sleeper = Arc::new(Sleeper::new(id));
        lwps.sleepers.push(sleeper.clone());
        Some(sleeper)
    }

    /// proc_exit, for somebody who is none of its lwps.
    fn exit(&self) {
        let off = OffCpu(&**self.cpus.host());
        let mut lwps = self.lwps.lock(&off);
        lwps.exiting = true;
        for sleeper in &lwps.sleepers {
            sleeper.interrupt(&**self.cpus.host());
        }
    }

    /// What an lwp does at its end.
    fn leave(&self, lwp: &Arc<Sleeper>) {
        let off = OffCpu(&**self.cpus.host());
        let last = {
            let mut lwps = self.lwps.lock(&off);
            lwps.sleepers.retain(|s| !Arc::ptr_eq(s, lwp));
            let last = lwps.sleepers.is_empty();
            lwps.exiting |= last;
            last
        };
        if last {
            // Loom complains if anybody may still be looking.
            self.things.bump();
            self.given_back.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[test]
fn every_lwp_leaves_its_wait_and_the_last_one_gives_back() {
    model(2, || {
        let (proc, main) = Proc::new(1);
        let (waiter, dying) = (proc.clone(), proc.clone());
        all([
            Box::new(move || {
                let Some(lwp) = waiter.newlwp(2) else { return };
                let nothing = (Mutex::new(()), Condvar::new("nothing"));
                {
                    let cpu = waiter.cpus.schedule(&lwp);
                    waiter.things.get();
                    let held = nothing.0.lock(&cpu);
                    let (held, wake) = nothing.1.wait_intr(&cpu, held, None);
                    assert_eq!(wake, Wake::Interrupted, "nobody else ends it");
                    drop(held);
                    waiter.things.get();
                }
                waiter.leave(&lwp);
            }),
            Box::new(move || {
                dying.exit();
                dying.leave(&main);
            }),
        ]);
        assert_eq!(proc.given_back.load(Ordering::Relaxed), 1, "once");
    });
}

#[test]
fn an_lwp_that_was_interrupted_before_does_not_sleep_again() {
    model(2, || {
        let (proc, main) = Proc::new(1);
        let (waiter, dying) = (proc.clone(), proc.clone());
        all([
            Box::new(move || {
                let Some(lwp) = waiter.newlwp(2) else { return };
                let queues = SleepQueues::default();
                {
                    let cpu = waiter.cpus.schedule(&lwp);
                    // Whichever sleep the end falls into, between them, or before: each ends.
                    for ident in [0x40, 0x80] {
                        assert_eq!(
                            queues.tsleep(&cpu, ident, "nothing", None),
                            Wake::Interrupted
                        );
                    }
                }
                waiter.leave(&lwp);
            }),
            Box::new(move || {
                dying.exit();
                dying.leave(&main);
            }),
        ]);
        assert_eq!(proc.given_back.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn a_wake_up_that_meets_the_end_goes_to_who_stays() {
    model(2, || {
        let (proc, _main) = Proc::new(2);
        // What two lwps wait for; one of them is of the dying process.
        let shared = Arc::new((Mutex::new(0u32), Condvar::new("thing")));
        let waiting = |id: u64| -> Box<dyn FnOnce() + Send> {
            let (proc, shared) = (proc.clone(), shared.clone());
            Box::new(move || {
                let dies = id == 2;
                let lwp = match dies {
                    true => proc.newlwp(id),
                    false => Some(Arc::new(Sleeper::new(id))),
                };
                let Some(lwp) = lwp else { return };
                let cpu = proc.cpus.schedule(&lwp);
                let mut things = shared.0.lock(&cpu);
                while *things == 0 {
                    let wake;
                    (things, wake) = shared.1.wait_intr(&cpu, things, None);
                    if wake == Wake::Interrupted {
                        assert!(dies);
                        return;
                    }
                }
                // The dying one looks and goes; what it was woken for, another can have.
                if dies {
                    shared.1.signal(&cpu);
                } else {
                    *things -= 1;
                }
            })
        };
        let (teller, told) = (proc.clone(), shared.clone());
        all([
            waiting(2),
            waiting(3),
            Box::new(move || {
                // The dying one may still be in the queue when the signal comes.
                teller.exit();
                let off = OffCpu(&**teller.cpus.host());
                *told.0.lock(&off) += 1;
                told.1.signal(&off);
            }),
        ]);
        assert_eq!(*shared.0.lock(&OffCpu(&**proc.cpus.host())), 0);
    });
}

//! The kernel proper on the simulated host: every switch is drawn from a seed, over many seeds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use abi::{Errno, Syscalls};
use hypercall::Host;
use hypercall::sim::{Run, SimConfig, SimHost};
use kern::{Kernel, KernelMemory, LwpHandle, RforkFds};
use sync::{Condvar, Mutex, RwLock, Wake};

const SEEDS: u64 = 1000;

/// Boots a kernel with so many virtual CPUs and runs `f` on it.
fn with_kernel<R: Send + 'static>(
    seed: u64,
    ncpu: usize,
    f: impl FnOnce(&Arc<SimHost>, &Arc<Kernel>) -> R + Send + 'static,
) -> Run<R> {
    let config = SimConfig::new(seed).param("RUMP_NCPU", &ncpu.to_string());
    SimHost::run(config, move |host| {
        let as_host: Arc<dyn Host> = host.clone();
        let kernel = Kernel::builder(as_host).boot().expect("boots");
        let result = f(host, &kernel);
        kernel.shutdown(true).expect("halts");
        result
    })
}

/// Runs `body` as an lwp of its own on each of `count` threads, and waits for all.
fn on_threads(
    host: &Arc<SimHost>,
    kernel: &Arc<Kernel>,
    count: usize,
    body: impl Fn(usize, &LwpHandle) + Send + Sync + 'static,
) {
    let body = Arc::new(body);
    let threads: Vec<_> = (0..count)
        .map(|i| {
            let (kernel, body) = (kernel.clone(), body.clone());
            let run = move || {
                let lwp = kernel.rfork(RforkFds::Clear).expect("a process");
                body(i, &lwp);
            };
            host.spawn(&format!("user{i}"), Box::new(run))
                .expect("a thread")
        })
        .collect();
    threads.into_iter().for_each(|t| t.join());
}

fn over_seeds<R: Send + 'static>(make: impl Fn(u64) -> Run<R>) {
    for seed in 0..SEEDS {
        let run = make(seed);
        if let Err(failure) = run.result {
            panic!(
                "seed {seed}: {failure:?}\n{}",
                String::from_utf8_lossy(&run.console)
            );
        }
        assert!(
            run.leftover.is_empty(),
            "seed {seed} leaves {:?}",
            run.leftover
        );
    }
}

#[test]
fn a_mutex_excludes_whatever_the_order() {
    over_seeds(|seed| {
        with_kernel(seed, 2, |host, kernel| {
            let shared = Arc::new(Mutex::new((0u32, false)));
            let inner = shared.clone();
            on_threads(host, kernel, 4, move |_, lwp| {
                for _ in 0..5 {
                    lwp.enter(&KernelMemory, |cx| {
                        let mut held = inner.lock(cx.cpu());
                        assert!(!held.1, "two in the critical section");
                        held.1 = true;
                        cx.unscheduled(|| cx.kernel().host().relax());
                        held.1 = false;
                        held.0 += 1;
                    });
                }
            });
            let total = kernel.implicit(&KernelMemory, |cx| shared.lock(cx.cpu()).0);
            assert_eq!(total, 20);
        })
    });
}

#[test]
fn readers_share_and_writers_do_not() {
    over_seeds(|seed| {
        with_kernel(seed, 2, |host, kernel| {
            let lock = Arc::new(RwLock::new([0u32; 2]));
            on_threads(host, kernel, 4, move |i, lwp| {
                for _ in 0..5 {
                    lwp.enter(&KernelMemory, |cx| {
                        if i == 0 {
                            let mut pair = lock.write(cx.cpu());
                            pair[0] += 1;
                            cx.unscheduled(|| cx.kernel().host().relax());
                            pair[1] += 1;
                        } else {
                            let pair = lock.read(cx.cpu());
                            cx.unscheduled(|| cx.kernel().host().relax());
                            assert_eq!(pair[0], pair[1]);
                        }
                    });
                }
            });
        })
    });
}

#[test]
fn no_wake_up_is_lost() {
    over_seeds(|seed| {
        with_kernel(seed, 1 + seed as usize % 2, |host, kernel| {
            // A bounded buffer of one place between two producers and two consumers.
            let place = Arc::new((
                Mutex::new(None::<u32>),
                Condvar::new("full"),
                Condvar::new("empty"),
            ));
            let sum = Arc::new(AtomicU32::new(0));
            let total = sum.clone();
            on_threads(host, kernel, 4, move |i, lwp| {
                for n in 1..=4 {
                    lwp.enter(&KernelMemory, |cx| {
                        let (slot, full, empty) = &*place;
                        let mut slot = slot.lock(cx.cpu());
                        if i % 2 == 0 {
                            while slot.is_some() {
                                slot = empty.wait(cx.cpu(), slot);
                            }
                            *slot = Some(n);
                            full.signal(cx.cpu());
                        } else {
                            while slot.is_none() {
                                slot = full.wait(cx.cpu(), slot);
                            }
                            total.fetch_add(slot.take().unwrap_or(0), Ordering::SeqCst);
                            empty.signal(cx.cpu());
                        }
                    });
                }
            });
            assert_eq!(sum.load(Ordering::SeqCst), 20);
        })
    });
}

#[test]
fn more_lwps_than_cpus_all_come_to_run() {
    over_seeds(|seed| {
        with_kernel(seed, 1, |host, kernel| {
            on_threads(host, kernel, 6, |_, lwp| {
                for _ in 0..4 {
                    assert_eq!(lwp.getpid(), Ok(i64::from(lwp.pid())));
                }
            });
        })
    });
}

#[test]
fn a_dying_process_leaves_every_wait_at_once() {
    over_seeds(|seed| {
        with_kernel(seed, 2, |host, kernel| {
            let first = kernel.rfork(RforkFds::Clear).expect("a process");
            let pid = first.pid();
            let nothing = Arc::new((Mutex::new(()), Condvar::new("nothing")));
            let woken = Arc::new(AtomicU32::new(0));
            let waiters: Vec<_> = (0..3)
                .map(|i| {
                    let (kernel, nothing, woken) = (kernel.clone(), nothing.clone(), woken.clone());
                    let run = move || {
                        // The process may be gone before this lwp is made.
                        let Ok(lwp) = kernel.newlwp(pid) else { return };
                        lwp.enter(&KernelMemory, |cx| {
                            let guard = nothing.0.lock(cx.cpu());
                            let (_guard, why) = nothing.1.wait_intr(cx.cpu(), guard, None);
                            assert_eq!(why, Wake::Interrupted);
                            woken.fetch_add(1, Ordering::SeqCst);
                        });
                    };
                    host.spawn(&format!("waiter{i}"), Box::new(run))
                        .expect("a thread")
                })
                .collect();
            for _ in 0..host.draw(8) {
                host.relax();
            }
            kernel.implicit(&KernelMemory, |cx| {
                let proc = kernel.find_proc(cx, pid).expect("it lives");
                kernel.proc_exit(cx, &proc);
            });
            assert!(matches!(kernel.newlwp(pid), Err(Errno::EBUSY)));
            waiters.into_iter().for_each(|t| t.join());
            drop(first);
            assert!(matches!(kernel.newlwp(pid), Err(Errno::ESRCH)));
        })
    });
}

#[test]
fn two_runs_of_a_seed_are_the_same_to_the_byte() {
    let run = |seed| {
        let config = SimConfig {
            keep_trace: true,
            ..SimConfig::new(seed)
        };
        SimHost::run(config, |host| {
            let as_host: Arc<dyn Host> = host.clone();
            let kernel = Kernel::builder(as_host).boot().expect("boots");
            on_threads(host, &kernel, 4, |_, lwp| {
                for _ in 0..10 {
                    let _ = lwp.getpid();
                    let _ = lwp.rfork(RforkFds::Copy);
                }
            });
        })
    };
    let (a, b) = (run(42), run(42));
    assert!(a.result.is_ok());
    assert_eq!(a.trace, b.trace);
}

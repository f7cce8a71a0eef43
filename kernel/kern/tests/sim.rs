//! The kernel proper on the simulated host: every switch is drawn from a seed, over many seeds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use abi::{Errno, Syscalls};
use hypercall::sim::{Failure, Run, SimConfig, SimHost};
use hypercall::{Clock, Host};
use kern::callout::Callout;
use kern::workqueue::Workqueue;
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
fn no_readiness_is_lost_whoever_waits_and_however() {
    over_seeds(|seed| {
        with_kernel(seed, 1 + seed as usize % 2, |host, kernel| {
            let main = kernel.rfork(RforkFds::Clear).expect("a process");
            let pid = main.pid();
            main.pipe2(&mut [0; 8], abi::O_NONBLOCK).expect("a pipe");
            let epoll = main.epoll_create1(0).expect("an instance") as i32;
            let event = |events| abi::EpollEvent { events, data: 0 }.to_bytes();
            // Edge-triggered: an event that is missed is never told again.
            main.epoll_ctl(epoll, 1, 0, &event(1 | 1 << 31))
                .expect("added");
            let got = Arc::new(AtomicU32::new(0));
            let (counter, users) = (got.clone(), kernel.clone());
            on_threads(host, kernel, 3, move |i, _| {
                let lwp = users.newlwp(pid).expect("an lwp");
                let mut buf = [0; 1];
                let entry = abi::Pollfd {
                    fd: 0,
                    events: 1,
                    revents: 0,
                };
                for _ in 0..4 {
                    if i == 0 {
                        lwp.write(1, b"xx", 2).expect("written");
                        continue;
                    }
                    // Each takes a byte, after waiting in its own way.
                    while lwp.read(0, &mut buf, 1) == Err(Errno::EAGAIN) {
                        if i == 1 {
                            lwp.poll(&mut entry.to_bytes(), 1, -1).expect("polls");
                        } else {
                            lwp.epoll_wait(epoll, &mut [0; 12], 1, -1).expect("waits");
                        }
                    }
                    counter.fetch_add(1, Ordering::SeqCst);
                }
            });
            assert_eq!(got.load(Ordering::SeqCst), 8);
        })
    });
}

#[test]
fn callouts_come_once_not_early_and_not_after_they_were_stopped() {
    over_seeds(|seed| {
        with_kernel(seed, 2, |host, kernel| {
            let done = Arc::new((Mutex::new(Vec::new()), Condvar::new("callouts")));
            let make = |name: u64, due: u64| {
                let done = done.clone();
                Callout::new(kernel, move |cx| {
                    assert!(cx.now(Clock::Monotonic) >= due, "early");
                    done.0.lock(cx.cpu()).push((due, name));
                    done.1.broadcast(cx.cpu());
                })
            };
            kernel.implicit(&KernelMemory, |cx| {
                let now = cx.now(Clock::Monotonic);
                let set: Vec<_> = (0..8)
                    .map(|name| {
                        let due = now + host.draw(1_000_000);
                        let callout = make(name, due);
                        callout.schedule(cx.cpu(), due);
                        (due, name, callout)
                    })
                    .collect();
                let mut due: Vec<_> = Vec::new();
                for (i, (at, name, callout)) in set.iter().enumerate() {
                    // One that could not be stopped has come or is about to.
                    if i % 2 == 0 || !callout.stop(cx.cpu()) {
                        due.push((*at, *name));
                    }
                }
                due.sort_unstable();
                let mut came = done.0.lock(cx.cpu());
                while came.len() < due.len() {
                    came = done.1.wait(cx.cpu(), came);
                }
                drop(came);
                for (_, _, callout) in &set {
                    callout.halt(cx);
                }
                let mut came = done.0.lock(cx.cpu()).clone();
                came.sort_unstable();
                assert_eq!(came, due);
            });
        })
    });
}

#[test]
fn descriptors_made_and_closed_by_many_are_each_closed_once() {
    over_seeds(|seed| {
        with_kernel(seed, 2, |host, kernel| {
            let main = kernel.rfork(RforkFds::Clear).expect("a process");
            let pid = main.pid();
            main.pipe2(&mut [0; 8], 0).expect("a pipe");
            let users = kernel.clone();
            on_threads(host, kernel, 3, move |i, _| {
                let lwp = users.newlwp(pid).expect("an lwp");
                for n in 0..6 {
                    // All fight for descriptor 9, two of them by closing it.
                    match (i + n) % 3 {
                        0 => assert_eq!(lwp.dup2(1, 9), Ok(9)),
                        1 => drop(lwp.close(9)),
                        _ => {
                            if let Ok(fd) = lwp.dup(9) {
                                lwp.close(fd as i32).expect("closed");
                            }
                        }
                    }
                }
            });
            let _ = main.close(9);
            assert_eq!(main.close(1), Ok(0));
            assert_eq!(main.read(0, &mut [0; 1], 1), Ok(0), "no writer is left");
        })
    });
}

#[test]
fn an_exec_waits_for_the_others_to_leave() {
    over_seeds(|seed| {
        with_kernel(seed, 2, |host, kernel| {
            let main = kernel.rfork(RforkFds::Clear).expect("a process");
            let pid = main.pid();
            main.pipe2(&mut [0; 8], 0).expect("a pipe");
            let threads: Vec<_> = (0..3)
                .map(|i| {
                    let kernel = kernel.clone();
                    let run = move || {
                        // An exec under way takes no new lwps.
                        let Ok(lwp) = kernel.newlwp(pid) else { return };
                        let _ = lwp.read(0, &mut [0; 1], 1);
                    };
                    host.spawn(&format!("reader{i}"), Box::new(run))
                        .expect("a thread")
                })
                .collect();
            for _ in 0..host.draw(8) {
                host.relax();
            }
            main.enter(&KernelMemory, |cx| kern::lwproc::exec(cx, "other"))
                .expect("execs");
            // Those that came after it read on; the end of the pipe sends them home.
            assert_eq!(main.close(1), Ok(0));
            threads.into_iter().for_each(|t| t.join());
        })
    });
}

#[test]
fn work_is_done_in_order_and_before_the_kernel_is_down() {
    over_seeds(|seed| {
        with_kernel(seed, 2, |host, kernel| {
            let done = Arc::new(Mutex::new(Vec::new()));
            let inner = done.clone();
            let queue = kernel.implicit(&KernelMemory, |cx| Workqueue::new(cx, "work"));
            kernel.implicit(&KernelMemory, |cx| {
                for n in 0..5 {
                    let done = inner.clone();
                    queue.enqueue(cx.cpu(), move |cx| done.lock(cx.cpu()).push(n));
                    for _ in 0..host.draw(3) {
                        cx.unscheduled(|| host.relax());
                    }
                }
            });
            kernel.shutdown(true).expect("halts");
            let all = kernel.implicit(&KernelMemory, |cx| done.lock(cx.cpu()).clone());
            assert_eq!(all, [0, 1, 2, 3, 4]);
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

#[test]
fn a_pipe_keeps_order_and_small_writes_whole() {
    over_seeds(|seed| {
        with_kernel(seed, 2, |host, kernel| {
            let parent = kernel.rfork(RforkFds::Clear).expect("a process");
            let mut fds = [0; 8];
            parent.pipe2(&mut fds, 0).expect("a pipe");
            let [r, w] =
                [0, 4].map(|at| i32::from_le_bytes(fds[at..at + 4].try_into().expect("4 bytes")));
            let writers: Vec<_> = (0..3u8)
                .map(|i| {
                    let child = parent.rfork(RforkFds::Copy).expect("a process");
                    let run = move || {
                        assert_eq!(child.close(r), Ok(0));
                        for n in 0..6u8 {
                            let record = [i << 4 | n; 4000];
                            assert_eq!(child.write(w, &record, 4000), Ok(4000));
                        }
                    };
                    host.spawn(&format!("writer{i}"), Box::new(run))
                        .expect("a thread")
                })
                .collect();
            assert_eq!(parent.close(w), Ok(0));
            let mut next = [0u8; 3];
            let mut all = Vec::new();
            loop {
                let mut buf = [0; 7000];
                match parent.read(r, &mut buf, 7000).expect("read") {
                    0 => break,
                    n => all.extend_from_slice(&buf[..n as usize]),
                }
            }
            for record in all.chunks(4000) {
                let (i, n) = (record[0] >> 4, record[0] & 15);
                assert!(record.iter().all(|b| *b == record[0]), "writes are mixed");
                assert_eq!(
                    next[usize::from(i)],
                    n,
                    "a writer's writes keep their order"
                );
                next[usize::from(i)] += 1;
            }
            assert_eq!(next, [6; 3]);
            writers.into_iter().for_each(|t| t.join());
        })
    });
}

#[test]
fn epoll_and_poll_miss_no_event() {
    over_seeds(|seed| {
        with_kernel(seed, 1 + seed as usize % 2, move |host, kernel| {
            let parent = kernel.rfork(RforkFds::Clear).expect("a process");
            let event = parent.eventfd2(0, 0o4000).expect("an eventfd") as i32;
            let epfd = parent.epoll_create1(0).expect("an epoll") as i32;
            // Edge-triggered for odd seeds.
            let wanted = abi::EpollEvent {
                events: 1 | (seed as u32 % 2) << 31,
                data: 7,
            };
            parent
                .epoll_ctl(epfd, abi::EPOLL_CTL_ADD, event, &wanted.to_bytes())
                .expect("added");
            let child = parent.rfork(RforkFds::Share).expect("a process");
            let run = move || {
                for _ in 0..5 {
                    assert_eq!(child.write(event, &1u64.to_le_bytes(), 8), Ok(8));
                }
            };
            let writer = host.spawn("writer", Box::new(run)).expect("a thread");
            let mut seen = 0;
            while seen < 5 {
                if host.draw(2) == 0 {
                    let mut events = [0; 24];
                    assert_eq!(parent.epoll_wait(epfd, &mut events, 2, -1), Ok(1));
                } else {
                    let watch = abi::Pollfd {
                        fd: event,
                        events: 1,
                        revents: 0,
                    };
                    assert_eq!(parent.poll(&mut watch.to_bytes(), 1, -1), Ok(1));
                }
                let mut count = [0; 8];
                if let Ok(8) = parent.read(event, &mut count, 8) {
                    seen += u64::from_le_bytes(count);
                }
            }
            writer.join();
        })
    });
}

#[test]
fn a_deadlock_is_reported_with_what_each_lwp_waits_for() {
    let deadlocked = (0..SEEDS).find_map(|seed| {
        let run = with_kernel(seed, 2, |host, kernel| {
            let locks = Arc::new([Mutex::new(()), Mutex::new(())]);
            on_threads(host, kernel, 2, move |i, lwp| {
                lwp.enter(&KernelMemory, |cx| {
                    let _one = locks[i].lock(cx.cpu());
                    cx.unscheduled(|| cx.kernel().host().relax());
                    let _other = locks[1 - i].lock(cx.cpu());
                });
            });
        });
        match run.result {
            Err(Failure::Deadlock(who)) => Some(who),
            _ => None,
        }
    });
    assert_eq!(
        deadlocked.expect("a seed finds it"),
        ["main", "user0 (mutex)", "user1 (mutex)"]
    );
}

#[test]
fn sleepers_on_an_identity_are_woken_by_it_alone() {
    over_seeds(|seed| {
        with_kernel(seed, 1 + seed as usize % 2, |host, kernel| {
            // Tokens of two kinds; each kind has its own identity, which may share a queue.
            let tokens = Arc::new(Mutex::new([0u32; 2]));
            on_threads(host, kernel, 6, move |i, lwp| {
                lwp.enter(&KernelMemory, |cx| {
                    let (kind, sleepq) = (i % 2, cx.kernel().sleepq());
                    let ident = 0x1000 + (kind << 16);
                    let mut held = tokens.lock(cx.cpu());
                    if i < 4 {
                        while held[kind] == 0 {
                            let (back, wake) = sleepq.mtsleep(cx.cpu(), ident, "token", held, None);
                            assert_eq!(wake, Wake::Woken);
                            held = back;
                        }
                        held[kind] -= 1;
                    } else {
                        held[kind] += 2;
                        drop(held);
                        cx.wakeup(ident);
                    }
                });
            });
            kernel.implicit(&KernelMemory, |cx| {
                assert_eq!(cx.tsleep(7, "nothing", Some(1000)), Err(Errno::EWOULDBLOCK));
                assert_eq!(cx.wakeup(7), 0);
                assert!(!cx.kernel().sleepq().wakeup_one(cx.cpu(), 7));
            });
        })
    });
}

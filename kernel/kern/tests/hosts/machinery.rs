//! Callouts, work queues, threads, software interrupts and cross-calls.

use std::sync::Arc;
use std::sync::Mutex as HostMutex;
use std::sync::atomic::{AtomicU32, Ordering};

use abi::Errno;
use hypercall::Clock;
use kern::callout::Callout;
use kern::softint::Softint;
use kern::workqueue::Workqueue;
use kern::{Curlwp, KernelMemory};
use sync::{Condvar, Mutex};
use testing::on_both_hosts;

fn relax(cx: &Curlwp<'_>, times: u64) {
    for _ in 0..times {
        cx.unscheduled(|| cx.kernel().host().relax());
    }
}

#[test]
fn callouts_come_once_not_early_and_not_after_they_were_stopped() {
    on_both_hosts(|bed| {
        let done = Arc::new((Mutex::new(Vec::new()), Condvar::new("callouts")));
        let make = |name: u64, due: u64| {
            let done = done.clone();
            Callout::new(bed.kernel(), move |cx| {
                assert!(cx.now(Clock::Monotonic) >= due, "early");
                done.0.lock(cx.cpu()).push((due, name));
                done.1.broadcast(cx.cpu());
            })
        };
        bed.kernel().implicit(&KernelMemory, |cx| {
            let now = cx.now(Clock::Monotonic);
            let set: Vec<_> = (0..8)
                .map(|name| {
                    let due = now + bed.draw(1_000_000);
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
    });
}

#[test]
fn a_callout_that_many_set_and_halt_does_not_run_after_a_halt() {
    on_both_hosts(|bed| {
        let running = Arc::new(AtomicU32::new(0));
        let callout = {
            let running = running.clone();
            Arc::new(Callout::new(bed.kernel(), move |cx| {
                assert_eq!(running.fetch_add(1, Ordering::SeqCst), 0, "twice at a time");
                relax(cx, 2);
                running.fetch_sub(1, Ordering::SeqCst);
            }))
        };
        let (inner, alone) = (callout.clone(), running.clone());
        bed.users(3, move |i, lwp| {
            for n in 0..4 {
                lwp.enter(&KernelMemory, |cx| {
                    let soon = cx.now(Clock::Monotonic) + 500 * n;
                    inner.schedule(cx.cpu(), soon);
                    relax(cx, i as u64);
                    let _ = inner.stop(cx.cpu());
                });
            }
        });
        bed.kernel().implicit(&KernelMemory, |cx| {
            callout.schedule(cx.cpu(), 1);
            relax(cx, bed.draw(3));
            callout.halt(cx);
            assert_eq!(alone.load(Ordering::SeqCst), 0);
            assert!(!callout.pending());
        });
    });
}

#[test]
fn work_is_done_in_order_and_before_the_kernel_is_down() {
    on_both_hosts(|bed| {
        let done = Arc::new(Mutex::new(Vec::new()));
        let queue = bed
            .kernel()
            .implicit(&KernelMemory, |cx| Workqueue::new(cx, "work"));
        bed.kernel().implicit(&KernelMemory, |cx| {
            for n in 0..5 {
                let done = done.clone();
                queue.enqueue(cx.cpu(), move |cx| done.lock(cx.cpu()).push(n));
                relax(cx, bed.draw(3));
            }
        });
        bed.kernel().shutdown(true).expect("halts");
        let all = bed
            .kernel()
            .implicit(&KernelMemory, |cx| done.lock(cx.cpu()).clone());
        assert_eq!(all, [0, 1, 2, 3, 4]);
    });
}

#[test]
fn who_waits_for_a_work_queue_sees_all_that_it_gave() {
    on_both_hosts(|bed| {
        let queue = bed
            .kernel()
            .implicit(&KernelMemory, |cx| Workqueue::new(cx, "work"));
        let queue = Arc::new(queue);
        let inner = queue.clone();
        bed.users(3, move |_, lwp| {
            for _ in 0..3 {
                let mine = Arc::new(AtomicU32::new(0));
                lwp.enter(&KernelMemory, |cx| {
                    for _ in 0..2 {
                        let mine = mine.clone();
                        inner.enqueue(cx.cpu(), move |cx| {
                            relax(cx, 1);
                            mine.fetch_add(1, Ordering::SeqCst);
                        });
                    }
                    inner.wait(cx);
                });
                assert_eq!(mine.load(Ordering::SeqCst), 2);
            }
        });
        drop(queue);
    });
}

#[test]
fn threads_are_sent_home_and_waited_for() {
    on_both_hosts(|bed| {
        let (begun, ended) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let start = {
            let (begun, ended) = (begun.clone(), ended.clone());
            move |cx: &Curlwp<'_>| {
                let (its_begun, its_ended) = (begun.clone(), ended.clone());
                let made = cx.kernel().kthread_create(cx, "test", move |cx| {
                    its_begun.fetch_add(1, Ordering::SeqCst);
                    while !cx.lwp().is_leaving() {
                        let _ = cx.sleep_until(u64::MAX);
                    }
                    its_ended.fetch_add(1, Ordering::SeqCst);
                });
                assert!(matches!(made, Ok(()) | Err(Errno::ESHUTDOWN)));
                u32::from(made.is_ok())
            }
        };
        let made = Arc::new(AtomicU32::new(0));
        let maker = {
            let (bed2, made, start) = (bed.clone(), made.clone(), start.clone());
            bed.spawn("maker", move || {
                for _ in 0..3 {
                    let one = bed2.kernel().implicit(&KernelMemory, &start);
                    made.fetch_add(one, Ordering::SeqCst);
                }
            })
        };
        made.fetch_add(
            bed.kernel().implicit(&KernelMemory, &start),
            Ordering::SeqCst,
        );
        bed.pause();
        bed.kernel().shutdown(true).expect("halts");
        maker.join();
        let made = made.load(Ordering::SeqCst);
        assert!(made >= 1);
        assert_eq!(begun.load(Ordering::SeqCst), made);
        assert_eq!(ended.load(Ordering::SeqCst), made);
    });
}

#[test]
fn a_software_interrupt_runs_where_it_came_up_and_before_the_cpu_goes() {
    on_both_hosts(|bed| {
        // For each virtual CPU the users whose interrupts have still to run there.
        let waiting: Arc<[HostMutex<Vec<usize>>; 3]> = Arc::default();
        let done: Arc<[AtomicU32; 4]> = Arc::default();
        let (inner, its_done) = (waiting.clone(), done.clone());
        let softint = bed.kernel().implicit(&KernelMemory, |cx| {
            Softint::establish(cx, move |cpu| {
                for user in inner[cpu.index()].lock().expect("a list").drain(..) {
                    its_done[user].fetch_add(1, Ordering::SeqCst);
                }
            })
            .expect("a place")
        });
        bed.users(4, move |i, lwp| {
            for n in 1..=4 {
                lwp.enter(&KernelMemory, |cx| {
                    waiting[cx.index()].lock().expect("a list").push(i);
                    softint.schedule(cx.cpu());
                    softint.schedule(cx.cpu());
                    cx.unscheduled(|| assert_eq!(done[i].load(Ordering::SeqCst), n));
                });
            }
        });
    });
}

#[test]
fn a_cross_call_runs_once_on_each_cpu_before_it_returns() {
    on_both_hosts(|bed| {
        // Nobody else is on a CPU while a cross-call runs there.
        let inside: Arc<[AtomicU32; 3]> = Arc::default();
        bed.users(3, move |i, lwp| {
            for n in 0..3 {
                lwp.enter(&KernelMemory, |cx| {
                    let seen: Arc<[AtomicU32; 3]> = Arc::default();
                    let (its_seen, inside) = (seen.clone(), inside.clone());
                    let function = move |cpu: &sync::Cpu<'_>| {
                        assert_eq!(inside[cpu.index()].fetch_add(1, Ordering::SeqCst), 0);
                        its_seen[cpu.index()].fetch_add(1, Ordering::SeqCst);
                        inside[cpu.index()].fetch_sub(1, Ordering::SeqCst);
                    };
                    let count = cx.kernel().cpus().count();
                    let want: Vec<u32> = if n == 2 {
                        cx.kernel().xcall_unicast(cx, i % count, function);
                        (0..count).map(|cpu| u32::from(cpu == i % count)).collect()
                    } else {
                        cx.kernel().xcall_broadcast(cx, function);
                        vec![1; count]
                    };
                    let got = seen.iter().map(|n| n.load(Ordering::SeqCst));
                    assert_eq!(got.take(count).collect::<Vec<_>>(), want);
                });
            }
        });
    });
}

#[test]
fn events_are_counted_wherever_they_happen() {
    on_both_hosts(|bed| {
        let event = bed.kernel().implicit(&KernelMemory, |cx| {
            cx.kernel().evcnts().attach(cx, "test", "event")
        });
        bed.users(4, move |_, lwp| {
            for _ in 0..5 {
                lwp.enter(&KernelMemory, |cx| {
                    cx.kernel().evcnts().count(cx.cpu(), event);
                });
            }
        });
        bed.kernel().implicit(&KernelMemory, |cx| {
            assert!(cx.kernel().evcnts().text(cx).contains("test event 20\n"));
        });
    });
}

//! Processes that die or exec while their lwps sleep.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use abi::{Errno, Syscalls};
use kern::{KernelMemory, LwpHandle, RforkFds};
use sync::{Condvar, Mutex, Wake};
use testing::{Thread, on_both_hosts};

use super::pipe;

/// What the lwps of a process may wait for when it goes.
struct Nothing {
    lock: Mutex<()>,
    never: Condvar,
    /// Descriptors: an empty pipe, a full pipe, an eventfd, a timer that does not run, an epoll instance.
    empty: i32,
    full: i32,
    event: i32,
    timer: i32,
    epoll: i32,
}

const WAITS: usize = 11;

impl Nothing {
    fn prepare(lwp: &LwpHandle) -> Nothing {
        let (empty, _) = pipe(lwp, 0);
        let (_, full) = pipe(lwp, 0);
        assert_eq!(lwp.write(full, &[0; 65_536], 65_536), Ok(65_536));
        let epoll = lwp.epoll_create1(0).expect("an instance") as i32;
        let event = abi::EpollEvent { events: 1, data: 0 };
        lwp.epoll_ctl(epoll, abi::EPOLL_CTL_ADD, empty, &event.to_bytes())
            .expect("added");
        Nothing {
            lock: Mutex::new(()),
            never: Condvar::new("nothing"),
            empty,
            full,
            event: lwp.eventfd2(0, 0).expect("an eventfd") as i32,
            timer: lwp.timerfd_create(1, 0).expect("a timer") as i32,
            epoll,
        }
    }

    /// Waits in one of many ways for what never comes.
    fn wait(&self, lwp: &LwpHandle, how: usize) -> Result<i64, Errno> {
        let entry = |fd| {
            let events = 1;
            abi::Pollfd {
                fd,
                events,
                revents: 0,
            }
            .to_bytes()
        };
        let hour = abi::Timespec {
            tv_sec: 3600,
            tv_nsec: 0,
        };
        match how {
            0 => lwp.enter(&KernelMemory, |cx| {
                let guard = self.lock.lock(cx.cpu());
                match self.never.wait_intr(cx.cpu(), guard, None).1 {
                    Wake::Interrupted => Err(Errno::EINTR),
                    other => panic!("{other:?}"),
                }
            }),
            1 => lwp.enter(&KernelMemory, |cx| {
                cx.tsleep(0x77, "nothing", None).map(|()| 0)
            }),
            2 => lwp.read(self.empty, &mut [0; 1], 1),
            3 => lwp.write(self.full, b"x", 1),
            4 => lwp.poll(&mut entry(self.empty), 1, -1),
            5 => lwp.poll(&mut entry(self.epoll), 1, -1),
            6 => {
                let mut reads = (1u64 << self.empty).to_le_bytes();
                lwp.select(self.empty + 1, &mut reads, &mut [], &mut [], &mut [])
            }
            7 => lwp.epoll_wait(self.epoll, &mut [0; 12], 1, -1),
            8 => lwp.read(self.event, &mut [0; 8], 8),
            9 => lwp.read(self.timer, &mut [0; 8], 8),
            _ => lwp.nanosleep(&hour.to_bytes(), &mut [0; 16]),
        }
    }
}

#[test]
fn a_dying_process_leaves_every_kind_of_wait_at_once() {
    on_both_hosts(|bed| {
        let first = bed.process();
        let pid = first.pid();
        let nothing = Arc::new(Nothing::prepare(&first));
        // Sees when everything is given back.
        let (r, w) = pipe(&first, 0);
        let watcher = first.rfork(RforkFds::Copy).expect("a process");
        watcher.close(w).expect("closed");
        let waiters: Vec<_> = (0..WAITS)
            .map(|how| {
                let (kernel, nothing) = (bed.kernel().clone(), nothing.clone());
                bed.spawn(&format!("waiter{how}"), move || {
                    // The process may be gone before this lwp is made.
                    let Ok(lwp) = kernel.newlwp(pid) else { return };
                    let ended = nothing.wait(&lwp, how);
                    assert_eq!(ended, Err(Errno::EINTR), "wait {how}");
                    // And so does every later one.
                    assert_eq!(nothing.wait(&lwp, (how + 3) % WAITS), Err(Errno::EINTR));
                })
            })
            .collect();
        bed.pause();
        bed.end(pid);
        assert!(matches!(bed.kernel().newlwp(pid), Err(Errno::EBUSY)));
        drop(first);
        assert_eq!(watcher.read(r, &mut [0; 1], 1), Ok(0), "all is closed");
        waiters.into_iter().for_each(Thread::join);
        assert!(matches!(bed.kernel().newlwp(pid), Err(Errno::ESRCH)));
    });
}

#[test]
fn who_waits_for_a_lock_gets_it_before_it_leaves() {
    on_both_hosts(|bed| {
        let dying = bed.process();
        let pid = dying.pid();
        let shared = Arc::new(Mutex::new(0u32));
        let inner = shared.clone();
        let waiter = bed.spawn("waiter", move || {
            dying.enter(&KernelMemory, |cx| {
                for _ in 0..3 {
                    // Not a wait that an end of the process ends: the lock guards what others need.
                    *inner.lock(cx.cpu()) += 1;
                }
                assert_eq!(cx.sleep_until(u64::MAX), Err(Errno::EINTR));
            });
        });
        bed.kernel().implicit(&KernelMemory, |cx| {
            let mut held = shared.lock(cx.cpu());
            cx.unscheduled(|| bed.pause());
            let proc = cx.kernel().find_proc(cx, pid).expect("it lives");
            cx.kernel().proc_exit(cx, &proc);
            *held += 1;
        });
        waiter.join();
        let sum = bed
            .kernel()
            .implicit(&KernelMemory, |cx| *shared.lock(cx.cpu()));
        assert_eq!(sum, 4);
    });
}

#[test]
fn an_exec_waits_for_the_others_to_leave() {
    on_both_hosts(|bed| {
        let main = bed.process();
        let pid = main.pid();
        let (r, w) = pipe(&main, 0);
        let threads: Vec<_> = (0..3)
            .map(|i| {
                let kernel = bed.kernel().clone();
                bed.spawn(&format!("reader{i}"), move || {
                    // An exec under way takes no new lwps.
                    let Ok(lwp) = kernel.newlwp(pid) else { return };
                    let _ = lwp.read(r, &mut [0; 1], 1);
                })
            })
            .collect();
        bed.pause();
        main.enter(&KernelMemory, |cx| kern::lwproc::exec(cx, "other"))
            .expect("execs");
        // Those that came after it read on; the end of the pipe sends them home.
        assert_eq!(main.close(w), Ok(0));
        threads.into_iter().for_each(Thread::join);
    });
}

#[test]
fn of_two_that_exec_one_does_and_the_other_goes() {
    on_both_hosts(|bed| {
        let main = bed.process();
        let pid = main.pid();
        let done = Arc::new(AtomicU32::new(0));
        let threads: Vec<_> = (0..3)
            .map(|i| {
                let (kernel, done) = (bed.kernel().clone(), done.clone());
                bed.spawn(&format!("thread{i}"), move || {
                    let Ok(lwp) = kernel.newlwp(pid) else { return };
                    match lwp.enter(&KernelMemory, |cx| kern::lwproc::exec(cx, "other")) {
                        Ok(()) => drop(done.fetch_add(1, Ordering::SeqCst)),
                        Err(error) => assert!(matches!(error, Errno::EBUSY | Errno::EINTR)),
                    }
                })
            })
            .collect();
        bed.pause();
        drop(main);
        threads.into_iter().for_each(Thread::join);
        assert!(matches!(bed.kernel().newlwp(pid), Err(Errno::ESRCH)));
    });
}

#[test]
fn children_and_parents_end_in_any_order() {
    on_both_hosts(|bed| {
        let before = bed
            .kernel()
            .implicit(&KernelMemory, |cx| cx.kernel().proc_count(cx));
        bed.users(3, |i, lwp| {
            let parent = i64::from(lwp.pid());
            let child = lwp.rfork(RforkFds::Share).expect("a process");
            assert_eq!(child.getppid(), Ok(parent));
            let grandchild = child.rfork(RforkFds::Copy).expect("a process");
            if i % 2 == 0 {
                drop(child);
                assert_eq!(grandchild.getppid(), Ok(1));
            } else {
                assert_eq!(grandchild.getppid(), child.getpid());
            }
        });
        let after = bed
            .kernel()
            .implicit(&KernelMemory, |cx| cx.kernel().proc_count(cx));
        assert_eq!(before, after);
    });
}

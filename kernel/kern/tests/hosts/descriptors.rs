//! Descriptors that many make and close, pipes, eventfds and timers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use abi::{Errno, Itimerspec, O_NONBLOCK, Syscalls};
use hypercall::Clock;
use kern::{LwpHandle, RforkFds};
use testing::{Thread, on_both_hosts};

use super::pipe;

#[test]
fn descriptors_made_and_closed_by_many_are_each_closed_once() {
    on_both_hosts(|bed| {
        let main = bed.process();
        let (r, w) = pipe(&main, 0);
        bed.lwps(main.pid(), 3, move |i, lwp| {
            for n in 0..6 {
                // All fight for descriptor 9, two of them by closing it.
                match (i + n) % 3 {
                    0 => assert_eq!(lwp.dup2(w, 9), Ok(9)),
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
        assert_eq!(main.close(w), Ok(0));
        assert_eq!(main.read(r, &mut [0; 1], 1), Ok(0), "no writer is left");
    });
}

#[test]
fn a_call_keeps_the_file_that_another_closes_under_it() {
    on_both_hosts(|bed| {
        let main = bed.process();
        let (r, w) = pipe(&main, 0);
        let keeps = main.rfork(RforkFds::Copy).expect("a process");
        bed.lwps(main.pid(), 3, move |i, lwp| match i {
            0 => {
                // Sees the byte, or came after the descriptor had gone.
                let mut byte = [0; 1];
                let got = lwp.read(r, &mut byte, 1);
                assert!(matches!(got, Ok(1) | Err(Errno::EBADF)), "{got:?}");
            }
            1 => drop(lwp.close(r)),
            _ => assert_eq!(lwp.write(w, b"x", 1), Ok(1)),
        });
        drop(keeps);
        assert_eq!(main.write(w, b"x", 1), Err(Errno::EPIPE));
    });
}

#[test]
fn a_table_that_processes_share_lives_as_long_as_the_last_of_them() {
    on_both_hosts(|bed| {
        let parent = bed.process();
        let (r, w) = pipe(&parent, 0);
        let reader = parent.rfork(RforkFds::Copy).expect("a process");
        reader.close(w).expect("closed");
        let alive = Arc::new(AtomicU32::new(4));
        let children: Vec<Thread> = (0..3)
            .map(|i| {
                let share = i != 0 && bed.draw(2) == 0;
                let how = if share {
                    RforkFds::Share
                } else {
                    RforkFds::Copy
                };
                let (child, alive) = (parent.rfork(how).expect("a process"), alive.clone());
                bed.spawn(&format!("child{i}"), move || {
                    let own = child.dup(w).expect("a copy") as i32;
                    assert_eq!(child.write(own, b"x", 1), Ok(1));
                    if !share {
                        child.close(w).expect("closed");
                    }
                    alive.fetch_sub(1, Ordering::SeqCst);
                    // What it still has goes with it, or with the last that has its table.
                })
            })
            .collect();
        let last = alive.clone();
        let parent = bed.spawn("parent", move || {
            alive.fetch_sub(1, Ordering::SeqCst);
            drop(parent);
        });
        let mut got = 0;
        while reader.read(r, &mut [0; 1], 1) == Ok(1) {
            got += 1;
        }
        assert_eq!(last.load(Ordering::SeqCst), 0, "it ended too early");
        assert_eq!(got, 3);
        children.into_iter().for_each(Thread::join);
        parent.join();
    });
}

#[test]
fn a_fork_copies_a_table_as_it_is_at_one_moment() {
    on_both_hosts(|bed| {
        let main = bed.process();
        let (r, w) = pipe(&main, 0);
        let forks = main.rfork(RforkFds::Share).expect("a process");
        bed.lwps(main.pid(), 2, move |i, lwp| {
            if i == 0 {
                for _ in 0..5 {
                    // There is a 20 only while there is a 21.
                    lwp.dup2(w, 21).expect("made");
                    lwp.dup2(w, 20).expect("made");
                    lwp.close(20).expect("closed");
                    lwp.close(21).expect("closed");
                }
            } else {
                for _ in 0..5 {
                    let child = lwp.rfork(RforkFds::Copy).expect("a process");
                    if child.write(20, b"x", 1).is_ok() {
                        assert_eq!(child.write(21, b"x", 1), Ok(1));
                        assert_eq!(child.read(r, &mut [0; 2], 2), Ok(2));
                    }
                }
            }
        });
        drop(main);
        forks.close(w).expect("closed");
        assert_eq!(forks.read(r, &mut [0; 1], 1), Ok(0), "no copy is left");
    });
}

#[test]
fn a_pipe_keeps_order_and_small_writes_whole() {
    on_both_hosts(|bed| {
        let parent = bed.process();
        let (r, w) = pipe(&parent, 0);
        let writers: Vec<_> = (0..3u8)
            .map(|i| {
                let child = parent.rfork(RforkFds::Copy).expect("a process");
                bed.spawn(&format!("writer{i}"), move || {
                    assert_eq!(child.close(r), Ok(0));
                    for n in 0..6u8 {
                        let record = [i << 4 | n; 4000];
                        assert_eq!(child.write(w, &record, 4000), Ok(4000));
                    }
                })
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
        writers.into_iter().for_each(Thread::join);
    });
}

#[test]
fn a_pipe_with_many_readers_loses_and_doubles_nothing() {
    on_both_hosts(|bed| {
        let parent = bed.process();
        let (r, w) = pipe(&parent, 0);
        let sum = Arc::new(AtomicU64::new(0));
        let readers: Vec<_> = (0..3)
            .map(|i| {
                let child = parent.rfork(RforkFds::Copy).expect("a process");
                let sum = sum.clone();
                bed.spawn(&format!("reader{i}"), move || {
                    assert_eq!(child.close(w), Ok(0));
                    let mut buf = [0; 3000];
                    while let Ok(n @ 1..) = child.read(r, &mut buf, 3000) {
                        let some: u64 = buf[..n as usize].iter().map(|&b| u64::from(b)).sum();
                        sum.fetch_add(some, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        // More than the pipe holds.
        let data: Vec<u8> = (0..100_000u32).map(|i| i as u8).collect();
        assert_eq!(parent.write(w, &data, data.len()), Ok(100_000));
        drop(parent);
        readers.into_iter().for_each(Thread::join);
        let want: u64 = data.iter().map(|&b| u64::from(b)).sum();
        assert_eq!(sum.load(Ordering::SeqCst), want);
    });
}

#[test]
fn the_other_end_of_a_pipe_may_go_at_any_time() {
    on_both_hosts(|bed| {
        let main = bed.process();
        let (r, w) = pipe(&main, 0);
        let writer = main.rfork(RforkFds::Copy).expect("a process");
        main.close(w).expect("closed");
        let writes = bed.spawn("writer", move || {
            writer.close(r).expect("closed");
            let data = [1; 50_000];
            loop {
                match writer.write(w, &data, data.len()) {
                    Ok(n) => assert!(n > 0),
                    Err(error) => break assert_eq!(error, Errno::EPIPE),
                }
            }
        });
        for _ in 0..bed.draw(4) {
            let mut buf = [0; 30_000];
            assert!(main.read(r, &mut buf, 30_000).is_ok_and(|n| n > 0));
        }
        main.close(r).expect("closed");
        writes.join();
    });
}

/// Takes and adds counts, blocking; answers the sum.
fn count(lwp: &LwpHandle, fd: i32, times: usize) -> u64 {
    (0..times)
        .map(|_| {
            let mut count = [0; 8];
            assert_eq!(lwp.read(fd, &mut count, 8), Ok(8));
            u64::from_le_bytes(count)
        })
        .sum()
}

#[test]
fn a_semaphore_gives_as_much_as_it_got() {
    on_both_hosts(|bed| {
        let main = bed.process();
        let semaphore = main.eventfd2(0, 1).expect("an eventfd") as i32;
        bed.lwps(main.pid(), 4, move |i, lwp| {
            if i % 2 == 0 {
                assert_eq!(count(lwp, semaphore, 6), 6);
            } else {
                for n in [1u64, 2, 3] {
                    assert_eq!(lwp.write(semaphore, &n.to_le_bytes(), 8), Ok(8));
                }
            }
        });
        assert_eq!(main.fcntl(semaphore, abi::F_SETFL, &mut []), Ok(0));
    });
}

#[test]
fn a_full_eventfd_makes_writers_wait() {
    on_both_hosts(|bed| {
        let main = bed.process();
        let event = main.eventfd2(0, 0).expect("an eventfd") as i32;
        // As much as it holds: each write waits for the read of the one before.
        const ALL: u64 = u64::MAX - 1;
        bed.lwps(main.pid(), 3, move |i, lwp| {
            if i == 0 {
                for _ in 0..6 {
                    assert_eq!(count(lwp, event, 1), ALL);
                }
            } else {
                for _ in 0..3 {
                    assert_eq!(lwp.write(event, &ALL.to_le_bytes(), 8), Ok(8));
                }
            }
        });
    });
}

const PERIOD: u64 = 20_000;

fn every(lwp: &LwpHandle, fd: i32, nanos: u64) {
    let spec = Itimerspec {
        value_nsec: nanos as i64,
        interval_nsec: nanos as i64,
        ..Itimerspec::default()
    };
    lwp.timerfd_settime(fd, 0, &spec.to_bytes(), &mut [])
        .expect("set");
}

#[test]
fn a_timer_that_many_read_counts_each_expiration_once() {
    on_both_hosts(|bed| {
        let main = bed.process();
        let fd = main.timerfd_create(1, 0).expect("a timer") as i32;
        let start = bed.host().now(Clock::Monotonic);
        every(&main, fd, PERIOD);
        let sum = Arc::new(AtomicU64::new(0));
        let counted = sum.clone();
        bed.lwps(main.pid(), 3, move |_, lwp| {
            for _ in 0..3 {
                counted.fetch_add(count(lwp, fd, 1), Ordering::SeqCst);
            }
        });
        let passed = bed.host().now(Clock::Monotonic) - start;
        let counted = sum.load(Ordering::SeqCst);
        assert!((9..=passed / PERIOD).contains(&counted), "{counted}");
    });
}

#[test]
fn a_timer_set_anew_wakes_those_who_wait_for_it() {
    on_both_hosts(|bed| {
        let main = bed.process();
        let fd = main.timerfd_create(1, 0).expect("a timer") as i32;
        let epoll = main.epoll_create1(0).expect("an instance") as i32;
        let event = abi::EpollEvent { events: 1, data: 0 };
        main.epoll_ctl(epoll, abi::EPOLL_CTL_ADD, fd, &event.to_bytes())
            .expect("added");
        bed.lwps(main.pid(), 4, move |i, lwp| match i {
            0 => {
                // Stopped, far away, and at last soon; the order is the scheduler's.
                every(lwp, fd, 0);
                every(lwp, fd, 900_000_000);
                every(lwp, fd, PERIOD);
            }
            1 => drop(count(lwp, fd, 1)),
            2 => assert_eq!(lwp.epoll_wait(epoll, &mut [0; 12], 1, -1), Ok(1)),
            _ => {
                let entry = abi::Pollfd {
                    fd,
                    events: 1,
                    revents: 0,
                };
                assert_eq!(lwp.poll(&mut entry.to_bytes(), 1, -1), Ok(1));
            }
        });
    });
}

#[test]
fn many_read_what_does_not_block_without_waiting() {
    on_both_hosts(|bed| {
        let main = bed.process();
        let (r, w) = pipe(&main, O_NONBLOCK);
        let got = Arc::new(AtomicU32::new(0));
        let counted = got.clone();
        bed.lwps(main.pid(), 3, move |i, lwp| {
            for _ in 0..4 {
                if i == 0 {
                    assert_eq!(lwp.write(w, b"xy", 2), Ok(2));
                    continue;
                }
                match lwp.read(r, &mut [0; 1], 1) {
                    Ok(n) => drop(counted.fetch_add(n as u32, Ordering::SeqCst)),
                    Err(error) => assert_eq!(error, Errno::EAGAIN),
                }
            }
        });
        let left = main.read(r, &mut [0; 16], 16).unwrap_or(0) as u32;
        assert_eq!(got.load(Ordering::SeqCst) + left, 8);
    });
}

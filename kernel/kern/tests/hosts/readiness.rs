//! poll, select and epoll: nobody sleeps through an event.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use abi::{
    EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, EpollEvent, Errno, O_NONBLOCK, Pollfd, Syscalls,
};
use kern::LwpHandle;
use testing::on_both_hosts;

use super::pipe;

const IN: u32 = 1;
const ONESHOT: u32 = 1 << 30;
const EDGE: u32 = 1 << 31;

fn ctl(lwp: &LwpHandle, epoll: i32, op: i32, fd: i32, events: u32) -> Result<i64, Errno> {
    let event = EpollEvent {
        events,
        data: fd as u64,
    };
    lwp.epoll_ctl(epoll, op, fd, &event.to_bytes())
}

fn instance(lwp: &LwpHandle, fd: i32, events: u32) -> i32 {
    let epoll = lwp.epoll_create1(0).expect("an instance") as i32;
    ctl(lwp, epoll, EPOLL_CTL_ADD, fd, events).expect("added");
    epoll
}

fn wait(lwp: &LwpHandle, epoll: i32) {
    assert_eq!(lwp.epoll_wait(epoll, &mut [0; 12], 1, -1), Ok(1));
}

fn poll(lwp: &LwpHandle, fd: i32) {
    let mut entry = Pollfd {
        fd,
        events: 1,
        revents: 0,
    }
    .to_bytes();
    assert_eq!(lwp.poll(&mut entry, 1, -1), Ok(1));
    assert_eq!(Pollfd::from_bytes(&entry).revents & 1, 1);
}

fn select(lwp: &LwpHandle, fd: i32) {
    let mut reads = (1u64 << fd).to_le_bytes();
    // Without a timeout: for ever.
    assert_eq!(
        lwp.select(fd + 1, &mut reads, &mut [], &mut [], &mut []),
        Ok(1)
    );
    assert_eq!(u64::from_le_bytes(reads), 1 << fd);
}

#[test]
fn no_readiness_is_lost_whoever_waits_and_however() {
    on_both_hosts(|bed| {
        let main = bed.process();
        let (r, w) = pipe(&main, O_NONBLOCK);
        let level = instance(&main, r, IN);
        let nested = instance(&main, level, IN);
        let got = Arc::new(AtomicU32::new(0));
        let counter = got.clone();
        bed.lwps(main.pid(), 6, move |i, lwp| {
            let mut buf = [0; 1];
            for _ in 0..3 {
                if i == 0 {
                    lwp.write(w, b"xxxxx", 5).expect("written");
                    continue;
                }
                // Each takes a byte, after waiting in its own way.
                while lwp.read(r, &mut buf, 1) == Err(Errno::EAGAIN) {
                    match i {
                        1 => poll(lwp, r),
                        2 => select(lwp, r),
                        3 => wait(lwp, level),
                        4 => wait(lwp, nested),
                        _ => poll(lwp, level),
                    }
                }
                counter.fetch_add(1, Ordering::SeqCst);
            }
        });
        assert_eq!(got.load(Ordering::SeqCst), 15);
    });
}

#[test]
fn what_is_ready_is_ready_for_everybody() {
    on_both_hosts(|bed| {
        let main = bed.process();
        let event = main.eventfd2(0, 0).expect("an eventfd") as i32;
        let level = instance(&main, event, IN);
        let nested = instance(&main, level, IN);
        bed.lwps(main.pid(), 7, move |i, lwp| match i {
            0 => assert_eq!(lwp.write(event, &1u64.to_le_bytes(), 8), Ok(8)),
            // Nobody reads, so it stays ready and all of these end.
            1 | 2 => wait(lwp, level),
            3 => poll(lwp, level),
            4 => select(lwp, level),
            5 => poll(lwp, nested),
            _ => wait(lwp, nested),
        });
    });
}

#[test]
fn an_edge_is_told_to_somebody_each_time() {
    on_both_hosts(|bed| {
        let main = bed.process();
        let (r, w) = pipe(&main, O_NONBLOCK);
        let epoll = instance(&main, r, IN | EDGE);
        bed.lwps(main.pid(), 2, move |i, lwp| {
            let mut left = 12;
            while i == 0 && left > 0 {
                assert_eq!(lwp.write(w, b"x", 1), Ok(1));
                left -= 1;
            }
            // An event that is missed is never told again, so this would wait for ever.
            while left > 0 {
                wait(lwp, epoll);
                while let Ok(n) = lwp.read(r, &mut [0; 5], 5) {
                    left -= n;
                }
            }
        });
        assert_eq!(main.epoll_wait(epoll, &mut [0; 12], 1, 0), Ok(0));
    });
}

#[test]
fn a_oneshot_event_has_one_owner_at_a_time() {
    on_both_hosts(|bed| {
        let main = bed.process();
        let (r, w) = pipe(&main, O_NONBLOCK);
        let epoll = instance(&main, r, IN | ONESHOT);
        let owned = Arc::new(AtomicBool::new(false));
        bed.lwps(main.pid(), 4, move |i, lwp| {
            if i == 0 {
                for _ in 0..9 {
                    assert_eq!(lwp.write(w, b"x", 1), Ok(1));
                }
                return;
            }
            for _ in 0..3 {
                wait(lwp, epoll);
                assert!(!owned.swap(true, Ordering::SeqCst), "two have it");
                assert_eq!(lwp.read(r, &mut [0; 1], 1), Ok(1));
                assert!(owned.swap(false, Ordering::SeqCst));
                ctl(lwp, epoll, EPOLL_CTL_MOD, r, IN | ONESHOT).expect("armed");
            }
        });
        assert_eq!(main.read(r, &mut [0; 1], 1), Err(Errno::EAGAIN));
    });
}

#[test]
fn an_exclusive_event_wakes_enough() {
    on_both_hosts(|bed| {
        let main = bed.process();
        let semaphore = main.eventfd2(0, O_NONBLOCK | 1).expect("an eventfd") as i32;
        let mut instances = [0; 3];
        for epoll in &mut instances {
            *epoll = instance(&main, semaphore, IN | 1 << 28);
        }
        bed.lwps(main.pid(), 4, move |i, lwp| {
            // One of those that wait is told of each, and then takes one if nobody has: none stays.
            for _ in 0..9 {
                if i == 3 {
                    assert_eq!(lwp.write(semaphore, &1u64.to_le_bytes(), 8), Ok(8));
                }
            }
            for _ in 0..3 {
                if i != 3 {
                    while lwp.read(semaphore, &mut [0; 8], 8) == Err(Errno::EAGAIN) {
                        wait(lwp, instances[i]);
                    }
                }
            }
        });
    });
}

#[test]
fn items_come_and_go_while_others_wait() {
    on_both_hosts(|bed| {
        let main = bed.process();
        let (r, w) = pipe(&main, O_NONBLOCK);
        let epoll = main.epoll_create1(0).expect("an instance") as i32;
        bed.lwps(main.pid(), 3, move |i, lwp| match i {
            0 => wait(lwp, epoll),
            1 => {
                for _ in 0..3 {
                    ctl(lwp, epoll, EPOLL_CTL_ADD, r, IN).expect("added");
                    ctl(lwp, epoll, EPOLL_CTL_MOD, r, 0).expect("resting");
                    ctl(lwp, epoll, EPOLL_CTL_DEL, r, 0).expect("taken out");
                    // One that goes with its last descriptor.
                    let (end, other) = pipe(lwp, 0);
                    ctl(lwp, epoll, EPOLL_CTL_ADD, end, IN).expect("added");
                    lwp.close(end).expect("closed");
                    lwp.close(other).expect("closed");
                }
                ctl(lwp, epoll, EPOLL_CTL_ADD, r, IN).expect("added");
            }
            _ => assert_eq!(lwp.write(w, b"x", 1), Ok(1)),
        });
        let mut event = [0; 12];
        assert_eq!(main.epoll_wait(epoll, &mut event, 1, 0), Ok(1));
        assert_eq!(EpollEvent::from_bytes(&event).data, r as u64);
    });
}

#[test]
fn a_wait_with_a_timeout_ends_by_one_or_the_other() {
    on_both_hosts(|bed| {
        let main = bed.process();
        let (r, w) = pipe(&main, O_NONBLOCK);
        let epoll = instance(&main, r, IN);
        bed.lwps(main.pid(), 4, move |i, lwp| {
            let entry = Pollfd {
                fd: r,
                events: 1,
                revents: 0,
            };
            match i {
                0 => assert_eq!(lwp.write(w, b"x", 1), Ok(1)),
                1 => assert!(matches!(lwp.poll(&mut entry.to_bytes(), 1, 1), Ok(0 | 1))),
                2 => assert!(matches!(
                    lwp.epoll_wait(epoll, &mut [0; 12], 1, 1),
                    Ok(0 | 1)
                )),
                _ => {
                    let short = abi::Timespec {
                        tv_sec: 0,
                        tv_nsec: 1000,
                    };
                    let mut span = short.to_bytes();
                    let n = lwp.ppoll(&mut entry.to_bytes(), 1, &mut span, 0, 8);
                    assert!(matches!(n, Ok(0 | 1)), "{n:?}");
                }
            }
        });
        poll(&main, epoll);
    });
}

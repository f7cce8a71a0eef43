//! Rings from clients that mean no good, and rings that come and go.

mod support;

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use abi::ring::{
    ANSWER, ASKED, AT_MAGIC, DONE, IN, MAGIC, MAX_POST, POST_ADDR, POSTED, QUEUE, QUEUED, RAN,
    RECALLED, REPLY_HEAD, REQUEST, REQUEST_HEAD, RequestHead, SERVER_ASLEEP, SIZE, WANT, WINDOW,
    post_size,
};
use abi::sysproxy::{Class, Kind, MAX_SEGMENTS, SegmentHead};
use abi::{EPOLL_CTL_ADD, EPOLL_CTL_DEL, EpollEvent, Errno, O_CREAT, O_RDWR, Pollfd, Syscalls, nr};
use rumpclient::Client;
use rustix::fs::SealFlags;
use support::ring::{Ring, attach, attached, call, hand_over, memfd, post};
use support::{RawClient, eventually, procs, served};
use sysproxy::Options;

#[test]
fn what_is_no_ring_is_refused() {
    let (_kernel, server) = served(Options::default());
    let (mut client, shake) = RawClient::guest(&server);
    let (pipe, _) = rustix::pipe::pipe().unwrap();
    let unmarked = memfd(SIZE, SealFlags::SHRINK);
    for fd in [
        memfd(SIZE, SealFlags::empty()),
        memfd(SIZE, SealFlags::GROW),
        memfd(SIZE - 1, SealFlags::SHRINK),
        memfd(SIZE + 4096, SealFlags::SHRINK),
        memfd(0, SealFlags::SHRINK),
        pipe,
        unmarked,
    ] {
        assert_eq!(attach(&mut client, fd.as_fd()).error, Errno::EINVAL.0);
    }
    assert_eq!(
        client.syscall(nr::getpid, &[0; 6], &[]).1,
        i64::from(shake.pid)
    );
}

#[test]
fn a_ring_that_was_not_offered_is_refused() {
    let (_kernel, server) = served(Options::default());
    let (mut client, _) = RawClient::guest(&server);
    let fd = memfd(SIZE, SealFlags::SHRINK);
    Ring::map(&fd).write(AT_MAGIC, &MAGIC.to_le_bytes());
    let refused = hand_over(&mut client, fd.as_fd());
    assert_eq!(refused.error, Errno::EINVAL.0);
    assert_eq!(attach(&mut client, fd.as_fd()).error, 0);
}

#[test]
fn segments_that_reach_out_of_the_window_are_refused() {
    let (_kernel, server) = served(Options::default());
    let (mut client, shake) = RawClient::guest(&server);
    let (ring, _) = attached(&mut client);
    let bad = Errno::EINVAL.0;
    let many = MAX_SEGMENTS as u32 + 1;
    for (count, len) in [
        (many, 4096),
        (u32::MAX, 0),
        (1, 0),
        (1, 15),
        (0, WINDOW as u32 + 1),
        (1, u32::MAX),
    ] {
        let reply = ring.submit(&call(nr::getpid, [0; 6], count, len));
        assert_eq!((reply.kind, reply.error), (DONE, bad), "{count} {len}");
    }
    for len in [17, WINDOW as u32, u32::MAX] {
        ring.write(IN, &SegmentHead { addr: 1, len }.encode());
        let reply = ring.submit(&call(nr::getpid, [0; 6], 1, 32));
        assert_eq!((reply.kind, reply.error), (DONE, bad), "{len}");
    }
    let reply = ring.submit(&call(nr::getpid, [0; 6], 0, 0));
    assert_eq!((reply.kind, reply.retval), (DONE, i64::from(shake.pid)));
}

#[test]
fn answers_of_another_length_are_faults() {
    let (_kernel, server) = served(Options::default());
    let (mut client, _) = RawClient::guest(&server);
    let args = [0x1000, (O_CREAT | O_RDWR) as u64, 0o644, 0, 0, 0];
    let (_, fd, _) = client.syscall(nr::open, &args, &[(0x1000, b"/ring\0")]);
    let (ring, _) = attached(&mut client);
    let write = call(nr::write, [fd as u64, 0x5000, 100, 0, 0, 0], 0, 0);
    for (nr, count, len) in [
        (ANSWER, 0, 99),
        (ANSWER, 0, 101),
        (ANSWER, 0, u32::MAX),
        (ANSWER, 14, 100),
        (nr::getpid, 0, 100),
    ] {
        let reply = ring.submit(&write);
        assert_eq!((reply.kind, reply.addr, reply.want), (WANT, 0x5000, 100));
        let answer = RequestHead {
            nr,
            count,
            len,
            ..RequestHead::default()
        };
        let reply = ring.submit(&answer);
        assert_eq!(
            (reply.kind, reply.error),
            (DONE, Errno::EFAULT.0),
            "{nr} {count} {len}"
        );
    }
    ring.submit(&write);
    ring.write(IN + ASKED, &[7; 100]);
    let reply = ring.submit(&RequestHead {
        nr: ANSWER,
        len: 100,
        ..RequestHead::default()
    });
    assert_eq!((reply.kind, reply.retval), (DONE, 100));
}

#[test]
fn memory_that_changes_all_the_time_harms_nobody() {
    let (kernel, server) = served(Options::default());
    let good = Client::connect(server.url(), "good").unwrap();
    let stop = AtomicBool::new(false);
    let (mut client, _) = RawClient::guest(&server);
    let (ring, _) = attached(&mut client);
    thread::scope(|scope| {
        let (ring, stop) = (&ring, &stop);
        scope.spawn(move || {
            let mut seed = 7u64;
            while !stop.load(Ordering::SeqCst) {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                let at = [REQUEST_HEAD, IN, REPLY_HEAD, REQUEST, POSTED, QUEUE][seed as usize % 6];
                ring.write(at + (seed >> 8) as usize % 72, &[(seed >> 32) as u8]);
                let futex = rustix::thread::futex::Flags::empty();
                let _ = rustix::thread::futex::wake(ring.word(REQUEST), futex, 1);
            }
        });
        for _ in 0..2000 {
            assert_eq!(good.getpid(), Ok(i64::from(good.pid())));
        }
        stop.store(true, Ordering::SeqCst);
    });
    drop(client);
    eventually("the bad one is gone", || procs(&kernel) == 2);
}

#[test]
fn what_is_posted_runs_before_the_next_call_of_any_thread() {
    let (_kernel, server) = served(Options::default());
    let (mut client, _) = RawClient::guest(&server);
    let (_, epfd, _) = client.syscall(nr::epoll_create1, &[0; 6], &[]);
    let (_, event, _) = client.syscall(nr::eventfd2, &[1, 0, 0, 0, 0, 0], &[]);
    let (ring, _) = attached(&mut client);
    let data = EpollEvent { events: 1, data: 7 }.to_bytes();
    let (epfd, event) = (epfd as u64, event as u64);
    let change = |op: i32| {
        let args = [epfd, op as u64, event, POST_ADDR, 0, 0];
        post(
            &ring,
            &call(nr::epoll_ctl, args, 0, data.len() as u32),
            &data,
        )
    };
    let look = call(nr::epoll_wait, [epfd, 0x9000, 8, 0, 0, 0], 0, 0);
    // Round the queue and over its end.
    for _ in 0..2 * QUEUED / post_size(data.len()).unwrap() {
        change(EPOLL_CTL_ADD);
        assert_eq!(ring.submit(&look).retval, 1);
        let end = change(EPOLL_CTL_DEL);
        assert_eq!(ring.submit(&look).retval, 0);
        assert_eq!(ring.word(RAN).load(Ordering::SeqCst), end);
    }
}

#[test]
fn who_is_nudged_while_falling_asleep_does_not_miss_the_next_request() {
    let (_kernel, server) = served(Options::default());
    let (mut client, shake) = RawClient::guest(&server);
    let (ring, _) = attached(&mut client);
    let getpid = call(nr::getpid, [0; 6], 0, 0);
    for _ in 0..5000 {
        // As soon as it says that it sleeps, which is before it does.
        let asleep = || ring.word(SERVER_ASLEEP).load(Ordering::SeqCst) != 0;
        while !asleep() {
            std::hint::spin_loop();
        }
        ring.nudge();
        assert_eq!(ring.submit(&getpid).retval, i64::from(shake.pid));
    }
}

#[test]
fn only_what_may_be_posted_runs() {
    let (_kernel, server) = served(Options::default());
    let (mut client, _) = RawClient::guest(&server);
    let (_, fd, _) = client.syscall(nr::eventfd2, &[0; 6], &[]);
    let (ring, _) = attached(&mut client);
    let one = 1u64.to_ne_bytes();
    let fd = fd as u64;
    post(
        &ring,
        &call(nr::write, [fd, POST_ADDR, 8, 0, 0, 0], 0, 8),
        &one,
    );
    post(
        &ring,
        &call(nr::close_range, [fd, fd, 0, 0, 0, 0], 0, 0),
        &[],
    );
    // A number that is none, and addresses that are not the call's own.
    post(&ring, &call(u32::MAX, [0; 6], 0, 0), &[]);
    for addr in [0, POST_ADDR - 1, POST_ADDR + 1, u64::MAX] {
        post(&ring, &call(nr::sendto, [fd, addr, 8, 0, 0, 0], 0, 8), &one);
    }
    let poll = Pollfd {
        fd: fd as i32,
        events: 1 | 4,
        revents: 0,
    };
    ring.write(
        IN,
        &SegmentHead {
            addr: 0x5000,
            len: 8,
        }
        .encode(),
    );
    ring.write(IN + SegmentHead::SIZE, &poll.to_bytes());
    // It is there, and nothing to read: only room to write.
    let reply = ring.submit(&call(nr::poll, [0x5000, 1, 0, 0, 0, 0], 1, 24));
    assert_eq!((reply.kind, reply.retval), (DONE, 1));
    let reply = ring.submit(&call(
        nr::fcntl,
        [fd, 4, abi::O_NONBLOCK as u64, 0, 0, 0],
        0,
        0,
    ));
    assert_eq!(reply.error, 0);
    let reply = ring.submit(&call(nr::read, [fd, 0x5000, 8, 0, 0, 0], 0, 0));
    assert_eq!((reply.kind, reply.error), (DONE, Errno::EAGAIN.0));
}

#[test]
fn a_queue_that_makes_no_sense_ends_the_ring() {
    let (kernel, server) = served(Options::default());
    let (mut client, shake) = RawClient::guest(&server);
    let sizes = [
        1u32,
        8,
        RequestHead::SIZE as u32 - 8,
        QUEUED as u32 + 8,
        RECALLED / 2 - 8,
    ];
    for size in sizes {
        let (ring, _) = attached(&mut client);
        ring.word(POSTED).store(size, Ordering::SeqCst);
        let word = ring.word(REQUEST);
        word.fetch_add(1, Ordering::SeqCst);
        let _ = rustix::thread::futex::wake(word, rustix::thread::futex::Flags::empty(), 1);
        eventually("the end of the ring", || {
            ring.word(AT_MAGIC).load(Ordering::SeqCst) == 0
        });
    }
    // A call whose data reach out of what was posted.
    for len in [1, MAX_POST as u32, u32::MAX] {
        let (ring, _) = attached(&mut client);
        post(&ring, &call(nr::sendto, [0; 6], 0, len), &[]);
        let word = ring.word(REQUEST);
        word.fetch_add(1, Ordering::SeqCst);
        let _ = rustix::thread::futex::wake(word, rustix::thread::futex::Flags::empty(), 1);
        eventually("the end of the ring", || {
            ring.word(AT_MAGIC).load(Ordering::SeqCst) == 0
        });
    }
    assert_eq!(
        client.syscall(nr::getpid, &[0; 6], &[]).1,
        i64::from(shake.pid)
    );
    drop(client);
    eventually("all gone", || procs(&kernel) == 1);
}

#[test]
fn rings_are_given_back() {
    let options = Options {
        max_rings: 4,
        ..Options::default()
    };
    let (kernel, server) = served(options);
    let (mut raw, _) = RawClient::guest(&server);
    for _ in 0..50 {
        let fd = memfd(SIZE, SealFlags::SHRINK);
        Ring::map(&fd).write(AT_MAGIC, &MAGIC.to_le_bytes());
        // The thread of the one before may still be on its way out.
        let mut ring = attach(&mut raw, fd.as_fd());
        while ring.error == Errno::EAGAIN.0 {
            ring = attach(&mut raw, fd.as_fd());
        }
        assert_eq!(ring.error, 0);
        raw.send(Class::Request, Kind::RingDetach, ring.ring, 0, &[]);
    }
    let client = Client::connect(server.url(), "threads").unwrap();
    thread::scope(|scope| {
        for _ in 0..3 {
            let client = &client;
            scope.spawn(move || {
                for _ in 0..20 {
                    // Each thread has a ring, or not when there are too many, and leaves it at its end.
                    thread::scope(|scope| {
                        for _ in 0..4 {
                            scope.spawn(|| {
                                for _ in 0..10 {
                                    assert_eq!(client.getpid(), Ok(i64::from(client.pid())));
                                }
                            });
                        }
                    });
                }
            });
        }
    });
    drop((raw, client));
    eventually("all gone", || procs(&kernel) == 1);
}

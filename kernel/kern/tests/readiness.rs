//! poll, select and epoll through system calls.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // tests run on the host

mod common;

use abi::{
    EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, EpollEvent, Errno, O_NONBLOCK, Pollfd, Syscalls,
};
use common::{boot, pipe, process};
use kern::LwpHandle;

const IN: u32 = 1;
const OUT: u32 = 4;
const HUP: u32 = 0x10;
const ET: u32 = 1 << 31;
const ONESHOT: u32 = 1 << 30;

fn ctl(p: &LwpHandle, ep: i32, op: i32, fd: i32, events: u32) -> Result<i64, Errno> {
    let event = EpollEvent {
        events,
        data: fd as u64,
    };
    p.epoll_ctl(ep, op, fd, &event.to_bytes())
}

/// The descriptors that are ready now, with their events.
fn ready(p: &LwpHandle, ep: i32) -> Vec<(u64, u32)> {
    let mut buf = [0; 12 * 16];
    let n = p.epoll_wait(ep, &mut buf, 16, 0).expect("waits");
    buf.as_chunks().0[..n as usize]
        .iter()
        .map(EpollEvent::from_bytes)
        .map(|event| (event.data, event.events))
        .collect()
}

#[test]
fn poll_tells_what_is_ready_and_what_is_no_descriptor() {
    let k = boot();
    let p = process(&k);
    let (r, w) = pipe(&p, 0).expect("a pipe");
    let poll = |timeout| {
        let mut fds = Vec::new();
        for (fd, events) in [(r, 1), (w, 4), (77, 1), (-1, 1)] {
            let entry = Pollfd {
                fd,
                events,
                revents: 0,
            };
            fds.extend(entry.to_bytes());
        }
        let n = p.poll(&mut fds, 4, timeout).expect("polls");
        let revents: Vec<i16> = fds
            .as_chunks()
            .0
            .iter()
            .map(|raw| Pollfd::from_bytes(raw).revents)
            .collect();
        (n, revents)
    };
    assert_eq!(poll(-1), (2, vec![0, 4, 0x20, 0]));
    p.write(w, b"x", 1).expect("written");
    assert_eq!(poll(0), (3, vec![1, 4, 0x20, 0]));
    p.close(w).expect("closed");
    assert_eq!(poll(0).1, [0x11, 0x20, 0x20, 0]);
}

#[test]
fn a_poll_wakes_when_the_other_end_writes() {
    let k = boot();
    let p = process(&k);
    let (r, w) = pipe(&p, 0).expect("a pipe");
    let other = k.newlwp(p.pid()).expect("an lwp");
    let poller = std::thread::spawn(move || {
        let entry = Pollfd {
            fd: r,
            events: 1,
            revents: 0,
        };
        other.poll(&mut entry.to_bytes(), 1, -1)
    });
    p.write(w, b"x", 1).expect("written");
    assert_eq!(poller.join().expect("ended"), Ok(1));
    let entry = Pollfd {
        fd: w,
        events: 1,
        revents: 0,
    };
    assert_eq!(p.poll(&mut entry.to_bytes(), 1, 1), Ok(0), "times out");
}

#[test]
fn select_answers_in_its_sets() {
    let k = boot();
    let p = process(&k);
    let (r, w) = pipe(&p, 0).expect("a pipe");
    let both = (1u64 << r | 1 << w).to_le_bytes();
    let (mut reads, mut writes) = (both, both);
    let mut timeout = [0; 16];
    let n = p.select(8, &mut reads, &mut writes, &mut [], &mut timeout);
    assert_eq!(n, Ok(1));
    assert_eq!((u64::from_le_bytes(reads), writes[0]), (0, 1 << w));
    let mut reads = (1u64 << 60).to_le_bytes();
    assert_eq!(
        p.select(64, &mut reads, &mut [], &mut [], &mut timeout),
        Err(Errno::EBADF)
    );
}

#[test]
fn level_edge_and_oneshot() {
    let k = boot();
    let p = process(&k);
    let (r, w) = pipe(&p, O_NONBLOCK).expect("a pipe");
    let fd = r as u64;
    let ep = p.epoll_create1(0).expect("an instance") as i32;
    assert_eq!(ctl(&p, ep, EPOLL_CTL_ADD, r, IN), Ok(0));
    assert_eq!(ctl(&p, ep, EPOLL_CTL_ADD, r, IN), Err(Errno::EEXIST));
    assert_eq!(ctl(&p, ep, EPOLL_CTL_DEL, w, 0), Err(Errno::ENOENT));
    assert_eq!(ready(&p, ep), []);
    p.write(w, b"x", 1).expect("written");
    assert_eq!(ready(&p, ep), [(fd, IN)]);
    assert_eq!(ready(&p, ep), [(fd, IN)], "still there");
    assert_eq!(ctl(&p, ep, EPOLL_CTL_MOD, r, IN | ET), Ok(0));
    assert_eq!(ready(&p, ep), [(fd, IN)], "a change of the mask tells anew");
    assert_eq!(ready(&p, ep), [], "told once");
    p.write(w, b"y", 1).expect("written");
    assert_eq!(ready(&p, ep), [(fd, IN)]);
    assert_eq!(ctl(&p, ep, EPOLL_CTL_MOD, r, IN | ONESHOT), Ok(0));
    assert_eq!(ready(&p, ep), [(fd, IN)]);
    p.write(w, b"z", 1).expect("written");
    assert_eq!(ready(&p, ep), [], "rests");
    assert_eq!(ctl(&p, ep, EPOLL_CTL_MOD, r, IN), Ok(0));
    assert_eq!(ready(&p, ep), [(fd, IN)]);
    p.read(r, &mut [0; 9], 9).expect("read");
    assert_eq!(ready(&p, ep), []);
    p.close(w).expect("closed");
    assert_eq!(ready(&p, ep), [(fd, HUP)]);
    assert_eq!(ctl(&p, ep, EPOLL_CTL_DEL, r, 0), Ok(0));
    assert_eq!(ready(&p, ep), []);
}

#[test]
fn a_closed_file_leaves_its_instances() {
    let k = boot();
    let p = process(&k);
    let (r, w) = pipe(&p, 0).expect("a pipe");
    let ep = p.epoll_create1(0).expect("an instance") as i32;
    assert_eq!(ctl(&p, ep, EPOLL_CTL_ADD, w, OUT), Ok(0));
    assert_eq!(ready(&p, ep).len(), 1);
    let copy = p.dup(w).expect("a copy") as i32;
    p.close(w).expect("closed");
    assert_eq!(ready(&p, ep).len(), 1, "the copy holds it");
    p.close(copy).expect("closed");
    assert_eq!(ready(&p, ep), []);
    p.close(r).expect("closed");
}

#[test]
fn instances_nest_but_not_in_a_circle() {
    let k = boot();
    let p = process(&k);
    let make = || p.epoll_create1(0).expect("an instance") as i32;
    let (a, b, c) = (make(), make(), make());
    assert_eq!(ctl(&p, a, EPOLL_CTL_ADD, a, IN), Err(Errno::EINVAL));
    assert_eq!(ctl(&p, a, EPOLL_CTL_ADD, b, IN), Ok(0));
    assert_eq!(ctl(&p, b, EPOLL_CTL_ADD, c, IN), Ok(0));
    assert_eq!(ctl(&p, c, EPOLL_CTL_ADD, a, IN), Err(Errno::ELOOP));
    let (r, w) = pipe(&p, 0).expect("a pipe");
    assert_eq!(ctl(&p, c, EPOLL_CTL_ADD, r, IN), Ok(0));
    assert_eq!(ready(&p, a), []);
    p.write(w, b"x", 1).expect("written");
    assert_eq!(ready(&p, a), [(b as u64, IN)]);
    p.read(r, &mut [0; 1], 1).expect("read");
    assert_eq!(ready(&p, a), []);
}

#[test]
fn an_exclusive_event_wakes_one_of_many() {
    let k = boot();
    let p = process(&k);
    let fd = p.eventfd2(0, 1).expect("an eventfd") as i32;
    let ep = p.epoll_create1(0).expect("an instance") as i32;
    assert_eq!(ctl(&p, ep, EPOLL_CTL_ADD, fd, IN | 1 << 28), Ok(0));
    assert_eq!(
        ctl(&p, ep, EPOLL_CTL_MOD, fd, IN),
        Err(Errno::EINVAL),
        "EPOLLEXCLUSIVE cannot be modified"
    );
    let waiters: Vec<_> = (0..4)
        .map(|_| {
            let lwp = k.newlwp(p.pid()).expect("an lwp");
            std::thread::spawn(move || {
                lwp.epoll_wait(ep, &mut [0; 12], 1, -1).expect("waits");
                lwp.read(fd, &mut [0; 8], 8)
            })
        })
        .collect();
    for _ in 0..4 {
        p.write(fd, &1u64.to_le_bytes(), 8).expect("written");
    }
    for waiter in waiters {
        assert_eq!(waiter.join().expect("ended"), Ok(8));
    }
}

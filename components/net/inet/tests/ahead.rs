//! What callers are told ahead of their calls, and calls of callers who have gone on.

mod common;

use std::cell::RefCell;

use abi::{EPOLL_CTL_ADD, EpollEvent, Errno, Pollfd, Syscalls, UserAddr, nr};
use common::*;
use kern::{Ahead, LwpHandle, UserMemory};
use sync::Cpu;

const SOL_SOCKET: i32 = 1;
const SOL_TCP: i32 = 6;
const SO_RCVLOWAT: i32 = 18;
const SO_LINGER: i32 = 13;
const TCP_NOTSENT_LOWAT: i32 = 25;
const MSG_OOB: i32 = 1;
const MSG_TRUNC: u64 = 0x20;
const MSG_DONTWAIT: u64 = 0x40;
const EPOLLIN: u32 = 1;
const EPOLLOUT: u32 = 4;
/// Bytes that the caller takes of what is unread.
const MOST: usize = 100;

/// Socket, instance, room, what is unread.
type Told = (i32, Option<i32>, usize, Vec<u8>);

/// A caller that writes down what it is told, or that has gone on with what it sends.
#[derive(Default)]
struct Caller {
    told: RefCell<Vec<Told>>,
    /// Whether the end comes, and whether a close does not wait.
    ends: RefCell<Vec<(bool, bool)>>,
    sends: Option<Vec<u8>>,
}

impl UserMemory for Caller {
    fn copyin(&self, _: &Cpu<'_>, from: UserAddr, to: &mut [u8]) -> Result<(), Errno> {
        let sends = self.sends.as_ref().ok_or(Errno::EFAULT)?;
        to.copy_from_slice(&sends[from.0 as usize - 1..][..to.len()]);
        Ok(())
    }

    fn copyout(&self, _: &Cpu<'_>, _: &[u8], _: UserAddr) -> Result<(), Errno> {
        Ok(())
    }

    fn takes_ahead(&self) -> Option<usize> {
        Some(MOST)
    }

    fn tell_ahead(&self, fd: i32, epfd: Option<i32>, ahead: &Ahead) {
        let told = (fd, epfd, ahead.room, ahead.unread.clone());
        self.told.borrow_mut().push(told);
        self.ends.borrow_mut().push((ahead.end, ahead.closes));
    }

    fn has_gone_on(&self) -> bool {
        self.sends.is_some()
    }
}

/// Ends a connection at once.
fn reset(p: &LwpHandle, fd: i32) {
    let linger = [1i32.to_ne_bytes(), 0i32.to_ne_bytes()].concat();
    p.setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, 8)
        .expect("set");
    p.close(fd).expect("closed");
}

fn watch(p: &LwpHandle, fd: i32) -> i32 {
    let epfd = p.epoll_create1(0).expect("an instance") as i32;
    let event = EpollEvent {
        events: EPOLLIN | EPOLLOUT,
        data: 0,
    };
    p.epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &event.to_bytes())
        .expect("added");
    epfd
}

/// A wait of that instance, by a caller that is told.
fn wait(p: &LwpHandle, epfd: i32) -> Caller {
    let caller = Caller::default();
    let args = [epfd as u64, 4096, 8, 0, 0, 0];
    p.enter(&caller, |cx| cx.syscall(nr::epoll_wait, &args))
        .expect("events");
    caller
}

/// What it tells.
fn told(p: &LwpHandle, epfd: i32) -> Vec<Told> {
    wait(p, epfd).told.into_inner()
}

/// A call of somebody who has gone on.
fn posted(p: &LwpHandle, number: u32, args: [u64; 6], data: &[u8]) -> Result<i64, Errno> {
    let caller = Caller {
        sends: Some(data.to_vec()),
        ..Caller::default()
    };
    p.enter(&caller, |cx| cx.syscall(number, &args))
}

fn send(p: &LwpHandle, fd: i32, data: &[u8]) -> Result<i64, Errno> {
    posted(
        p,
        nr::sendto,
        [fd as u64, 1, data.len() as u64, 0, 0, 0],
        data,
    )
}

#[test]
fn one_holder_is_told_what_calls_would_give() {
    let (_kernel, p) = process();
    let (a, b) = pair(&p);
    let epfd = watch(&p, a);
    let [(fd, of, room, unread)] = told(&p, epfd).try_into().expect("one");
    assert_eq!((fd, of, unread.as_slice()), (a, Some(epfd), &b""[..]));
    assert!(room > 4096, "{room}");
    write(&p, b, b"hello").expect("written");
    assert_eq!(told(&p, epfd)[0].3, b"hello");
    // It was only looked at.
    assert_eq!(read(&p, a, 100), Ok(b"hello".to_vec()));
    // The first of what is too much.
    write(&p, b, &[[1; MOST], [2; MOST]].concat()).expect("written");
    assert_eq!(told(&p, epfd)[0].3, [1; MOST]);
    assert_eq!(read(&p, a, MOST), Ok(vec![1; MOST]));
    assert_eq!(told(&p, epfd)[0].3, [2; MOST]);
    // What waits unsent for longer than it may is not taken at once.
    set(&p, a, SOL_TCP, TCP_NOTSENT_LOWAT, 7).expect("set");
    assert_eq!(told(&p, epfd)[0].2, 7);
}

#[test]
fn a_poll_tells_of_what_it_finds_ready() {
    let (_kernel, p) = process();
    let (a, b) = pair(&p);
    let (c, _d) = pair(&p);
    write(&p, b, b"hello").expect("written");
    let entries = [(a, EPOLLIN), (c, EPOLLIN), (c, EPOLLOUT)].map(|(fd, events)| Pollfd {
        fd,
        events: events as i16,
        revents: 0,
    });
    let caller = Caller {
        sends: Some(entries.iter().flat_map(Pollfd::to_bytes).collect()),
        ..Caller::default()
    };
    let ready = p.enter(&caller, |cx| cx.syscall(nr::poll, &[1, 3, 0, 0, 0, 0]));
    assert_eq!(ready, Ok(2));
    let told = caller.told.into_inner();
    let told: Vec<_> = told
        .iter()
        .map(|(fd, of, _, data)| (*fd, *of, &**data))
        .collect();
    assert_eq!(told, [(a, None, &b"hello"[..]), (c, None, b"")]);
    // Another descriptor for it, and it is not alone.
    p.dup(a).expect("another");
    let caller = Caller {
        sends: Some(entries[0].to_bytes().to_vec()),
        ..Caller::default()
    };
    let ready = p.enter(&caller, |cx| cx.syscall(nr::poll, &[1, 1, 0, 0, 0, 0]));
    assert_eq!((ready, caller.told.into_inner()), (Ok(1), Vec::new()));
}

#[test]
fn the_end_is_told_and_whether_a_close_waits() {
    let (_kernel, p) = process();
    let (a, b) = pair(&p);
    let epfd = watch(&p, a);
    let ends = || wait(&p, epfd).ends.into_inner();
    write(&p, b, &[1; MOST + 1]).expect("written");
    p.shutdown(b, 1).expect("shut down");
    assert_eq!(ends(), [(false, true)], "there is more than is told");
    assert_eq!(read(&p, a, 1), Ok(vec![1]));
    assert_eq!(ends(), [(true, true)]);
    assert_eq!(read(&p, a, MOST), Ok(vec![1; MOST]));
    assert_eq!(ends(), [(true, true)]);
    assert_eq!(read(&p, a, MOST), Ok(Vec::new()));
    for (on, seconds, closes) in [(1i32, 5i32, false), (1, 0, true), (0, 5, true)] {
        let linger = [on.to_ne_bytes(), seconds.to_ne_bytes()].concat();
        p.setsockopt(a, SOL_SOCKET, SO_LINGER, &linger, 8)
            .expect("set");
        assert_eq!(ends(), [(true, closes)], "{on} {seconds}");
    }
}

#[test]
fn nobody_is_told_of_what_others_have_too_or_what_is_odd() {
    let (_kernel, p) = process();
    let (a, b) = pair(&p);
    let epfd = watch(&p, a);
    write(&p, b, b"x").expect("written");
    let other = p.dup(a).expect("a duplicate") as i32;
    assert_eq!(told(&p, epfd), []);
    p.close(other).expect("closed");
    let child = p.rfork(kern::RforkFds::Copy).expect("a child");
    assert_eq!(told(&p, epfd), []);
    drop(child);
    assert_eq!(told(&p, epfd).len(), 1);
    let child = p.rfork(kern::RforkFds::Share).expect("a child");
    assert_eq!(told(&p, epfd), []);
    drop(child);
    set(&p, a, SOL_SOCKET, SO_RCVLOWAT, 2).expect("set");
    assert_eq!(told(&p, epfd), []);
    set(&p, a, SOL_SOCKET, SO_RCVLOWAT, 1).expect("set");
    p.sendto(b, b"ab", 2, MSG_OOB, &[], 0).expect("sent");
    assert_eq!(told(&p, epfd), []);
    let (a, b) = pair(&p);
    let epfd = watch(&p, a);
    reset(&p, b);
    assert_eq!(told(&p, epfd), [], "errors are told by calls");
    // The number is another socket's.
    let (a, b) = pair(&p);
    let epfd = watch(&p, a);
    let kept = p.dup(a).expect("a duplicate") as i32;
    p.dup2(b, a).expect("replaced");
    p.close(b).expect("closed");
    assert_eq!(told(&p, epfd), []);
    p.close(kept).expect("closed");
}

#[test]
fn who_has_gone_on_sends_everything_and_leaves_errors_to_the_next_call() {
    let (_kernel, p) = process();
    let (a, b) = pair(&p);
    assert_eq!(send(&p, a, b"hello"), Ok(5));
    assert_eq!(read(&p, b, 100), Ok(b"hello".to_vec()));
    write(&p, b, b"answer").expect("written");
    let skip = [a as u64, 0, 4, MSG_TRUNC | MSG_DONTWAIT, 0, 0];
    assert_eq!(posted(&p, nr::recvfrom, skip, b""), Ok(4));
    assert_eq!(read(&p, a, 100), Ok(b"er".to_vec()));
    // A reset is told by the next call that is waited for, whatever is posted first.
    let reset = [1i32.to_ne_bytes(), 0i32.to_ne_bytes()].concat();
    p.setsockopt(b, SOL_SOCKET, SO_LINGER, &reset, 8)
        .expect("set");
    p.close(b).expect("closed");
    assert_eq!(send(&p, a, b"lost"), Err(Errno::ECONNRESET));
    assert_eq!(posted(&p, nr::recvfrom, skip, b""), Err(Errno::ECONNRESET));
    assert_eq!(read(&p, a, 100), Err(Errno::ECONNRESET));
    assert_eq!(write(&p, a, b"x"), Err(Errno::EPIPE));
    assert_eq!(send(&p, a, b"lost"), Err(Errno::EPIPE));
}

//! TCP sockets beside their streams: listening, binding, opening with data, memory that faults, and how much there is.

mod common;

use abi::{Errno, Kevent, Syscalls, Timespec, nr};
use common::*;
use kern::LwpHandle;
use testing::Memory;

const SOL_SOCKET: i32 = 1;
const SOL_TCP: i32 = 6;
const REUSEADDR: i32 = 2;
const TCP_DEFER_ACCEPT: i32 = 9;
const TCP_FASTOPEN: i32 = 23;
const TCP_FASTOPEN_CONNECT: i32 = 30;
const POLLIN: i16 = 1;
const POLLOUT: i16 = 4;

fn connected(p: &LwpHandle, to: &str) -> i32 {
    let fd = socket(p, INET, STREAM, 0);
    connect(p, fd, to).expect("connected");
    fd
}

/// A socket that does not wait, listens with some options, and its name.
fn listener(p: &LwpHandle, backlog: i32, options: &[(i32, i32, i32)]) -> (i32, String) {
    let fd = socket(p, INET, STREAM | NONBLOCK, 0);
    for &(level, option, value) in options {
        set(p, fd, level, option, value).expect("an option");
    }
    bind(p, fd, "127.0.0.1:0").expect("bound");
    p.listen(fd, backlog).expect("listens");
    (fd, name(p, fd))
}

#[test]
fn deferred_accept_waits_for_data() {
    let (_kernel, p) = process();
    let (l, to) = listener(&p, 5, &[(SOL_TCP, TCP_DEFER_ACCEPT, 3)]);
    assert_eq!(get(&p, l, SOL_TCP, TCP_DEFER_ACCEPT), Ok(3));
    let a = connected(&p, &to);
    assert_eq!(accept(&p, l), Err(Errno::EAGAIN));
    assert_eq!(write(&p, a, b"now"), Ok(3));
    let b = accept(&p, l).expect("accepted");
    assert_eq!(read(&p, b, 10), Ok(b"now".to_vec()));
    // It may be set and unset while it listens.
    set(&p, l, SOL_TCP, TCP_DEFER_ACCEPT, 0).expect("unset");
    connected(&p, &to);
    accept(&p, l).expect("accepted without data");
}

#[test]
fn full_accept_queue_takes_no_more_handshakes() {
    let (_kernel, p) = process();
    let (l, to) = listener(&p, 1, &[]);
    let waiting: Vec<i32> = (0..2).map(|_| connected(&p, &to)).collect();
    let late = socket(&p, INET, STREAM | NONBLOCK, 0);
    assert_eq!(connect(&p, late, &to), Err(Errno::EINPROGRESS));
    assert_eq!(poll(&p, late, POLLOUT), 0, "its SYN was dropped");
    for fd in waiting {
        let b = accept(&p, l).expect("accepted");
        assert_eq!(peer(&p, b), Ok(name(&p, fd)));
    }
    assert_eq!(accept(&p, l), Err(Errno::EAGAIN));
}

#[test]
fn time_wait_keeps_a_port_from_those_who_do_not_share_addresses() {
    let (_kernel, p) = process();
    for (before, after, answer) in [
        (0, 0, Err(Errno::EADDRINUSE)),
        (0, 1, Err(Errno::EADDRINUSE)),
        (1, 0, Err(Errno::EADDRINUSE)),
        (1, 1, Ok(0)),
    ] {
        let (l, to) = listener(&p, 5, &[(SOL_SOCKET, REUSEADDR, before)]);
        let a = connected(&p, &to);
        let b = accept(&p, l).expect("accepted");
        for fd in [b, a, l] {
            p.close(fd).expect("closed");
        }
        let again = socket(&p, INET, STREAM, 0);
        set(&p, again, SOL_SOCKET, REUSEADDR, after).expect("SO_REUSEADDR");
        assert_eq!(bind(&p, again, &to), answer, "{before} {after}");
        let elsewhere = to.replace("127.0.0.1", "127.0.0.2");
        let other = socket(&p, INET, STREAM, 0);
        assert_eq!(bind(&p, other, &elsewhere), Ok(0), "another address");
    }
}

#[test]
fn connect_is_put_off_until_data_go_with_the_syn() {
    let (_kernel, p) = process();
    let (l, to) = listener(&p, 5, &[(SOL_TCP, TCP_FASTOPEN, 5)]);
    let client = || {
        let fd = socket(&p, INET, STREAM, 0);
        set(&p, fd, SOL_TCP, TCP_FASTOPEN_CONNECT, 1).expect("TCP_FASTOPEN_CONNECT");
        connect(&p, fd, &to).expect("connected");
        fd
    };
    // The first asks for a cookie.
    client();
    accept(&p, l).expect("accepted");
    let a = client();
    assert_eq!(accept(&p, l), Err(Errno::EAGAIN), "nothing has left yet");
    assert_eq!(poll(&p, a, POLLIN | POLLOUT), POLLOUT);
    assert_eq!(connect(&p, a, &to), Err(Errno::EISCONN));
    assert_eq!(write(&p, a, b"early"), Ok(5));
    let b = accept(&p, l).expect("accepted");
    assert_eq!(read(&p, b, 10), Ok(b"early".to_vec()));
    assert_eq!(write(&p, b, b"answer"), Ok(6));
    assert_eq!(read(&p, a, 10), Ok(b"answer".to_vec()));
}

#[test]
fn what_a_reader_s_memory_does_not_take_is_still_to_be_read() {
    let (_kernel, p) = process();
    let (l, to) = listener(&p, 5, &[]);
    let a = connected(&p, &to);
    let b = accept(&p, l).expect("accepted");
    write(&p, a, b"0123456789").expect("written");
    let memory = Memory::new(64);
    let read_into = |first: u64, second: u64| {
        let at = memory.put_words(0, &[first, 4, second, 6]);
        let args = [b as u64, at, 2, 0, 0, 0];
        p.syscall(&memory, nr::readv, &args)
    };
    let nowhere = 8;
    assert_eq!(read_into(nowhere, nowhere), Err(Errno::EFAULT));
    assert_eq!(read_into(Memory::at(32), nowhere), Ok(4));
    assert_eq!(memory.get(32, 4), b"0123");
    assert_eq!(read(&p, b, 10), Ok(b"456789".to_vec()));
}

#[test]
fn kevent_says_how_much_there_is() {
    const READ: u32 = 0;
    const WRITE: u32 = 1;
    const ADD: u32 = 1;
    let (_kernel, p) = process();
    let kq = p.kqueue().expect("a kqueue") as i32;
    let data = |fd: i32, filter: u32| {
        let new = Kevent {
            ident: fd as u64,
            filter,
            flags: ADD,
            ..Kevent::default()
        };
        let delete = Kevent { flags: 2, ..new };
        let mut raw = [0; Kevent::SIZE];
        let now = Timespec::default().to_bytes();
        let n = p.kevent(kq, &new.to_bytes(), 1, &mut raw, 1, &now);
        p.kevent(kq, &delete.to_bytes(), 1, &mut [], 0, &now)
            .expect("deleted");
        (n == Ok(1)).then(|| Kevent::from_bytes(&raw).data)
    };
    let (l, to) = listener(&p, 5, &[]);
    assert_eq!(data(l, READ), None);
    let a = connected(&p, &to);
    connected(&p, &to);
    assert_eq!(data(l, READ), Some(2), "connections to accept");
    let b = accept(&p, l).expect("accepted");
    write(&p, a, b"hello").expect("written");
    assert_eq!(data(b, READ), Some(5), "bytes to read");
    assert!(
        data(b, WRITE).is_some_and(|room| room >= 16 << 10),
        "room to write"
    );
    let (u, to) = bound(&p, INET, DGRAM, "127.0.0.1:0");
    sendto(&p, u, b"one", &to).expect("sent");
    sendto(&p, u, b"four", &to).expect("sent");
    assert_eq!(data(u, READ), Some(7), "bytes of datagrams");
}

//! TCP sockets of a kernel over its loopback interface.

#![allow(clippy::disallowed_methods)] // the test's own threads

mod common;

use abi::{Errno, Syscalls};
use common::*;
use hypercall::Host;
use kern::LwpHandle;
use testing::program;

const MSG_OOB: i32 = 1;
const MSG_PEEK: i32 = 2;
const MSG_TRUNC: i32 = 0x20;
const MSG_DONTWAIT: i32 = 0x40;
const MSG_WAITALL: i32 = 0x100;
const SOL_SOCKET: i32 = 1;
const SOL_TCP: i32 = 6;
const SO_ERROR: i32 = 4;
const POLLIN: i16 = 1;
const POLLPRI: i16 = 2;
const POLLOUT: i16 = 4;
const POLLERR: i16 = 8;
const POLLHUP: i16 = 16;
const POLLRDHUP: i16 = 0x2000;

#[test]
fn a_connection_carries_bytes_both_ways_and_ends_in_order() {
    let (_kernel, p) = process();
    for (family, any) in [(INET, "127.0.0.1:0"), (INET6, "[::1]:0")] {
        let (l, to) = listener(&p, family, any, 5);
        assert_eq!(poll(&p, l, POLLIN), 0);
        let a = socket(&p, family, STREAM, 0);
        connect(&p, a, &to).expect("connected");
        assert_eq!(connect(&p, a, &to), Err(Errno::EISCONN));
        assert_eq!(poll(&p, l, POLLIN), POLLIN);
        let b = accept(&p, l).expect("accepted");
        assert_eq!(peer(&p, b), Ok(name(&p, a)));
        assert_eq!((name(&p, b), peer(&p, a)), (to.clone(), Ok(to)));
        assert_eq!(poll(&p, a, POLLIN | POLLOUT), POLLOUT);
        assert_eq!(write(&p, a, b"hello "), Ok(6));
        assert_eq!(write(&p, a, b"world"), Ok(5));
        assert_eq!(poll(&p, b, POLLIN), POLLIN);
        assert_eq!(recv(&p, b, 11, MSG_WAITALL), Ok(b"hello world".to_vec()));
        assert_eq!(write(&p, b, b"back"), Ok(4));
        p.shutdown(b, 1).expect("shut down");
        assert_eq!(write(&p, b, b"x"), Err(Errno::EPIPE));
        assert_eq!(read(&p, a, 2), Ok(b"ba".to_vec()));
        assert_eq!(poll(&p, a, POLLIN | POLLRDHUP), POLLIN | POLLRDHUP);
        assert_eq!(read(&p, a, 100), Ok(b"ck".to_vec()));
        assert_eq!(read(&p, a, 100), Ok(vec![]));
        assert_eq!(write(&p, a, b"half open"), Ok(9));
        assert_eq!(read(&p, b, 100), Ok(b"half open".to_vec()));
        p.close(a).expect("closed");
        assert_eq!(read(&p, b, 100), Ok(vec![]));
        assert_eq!(poll(&p, b, POLLIN) & POLLHUP, POLLHUP);
        p.close(b).expect("closed");
        p.close(l).expect("closed");
    }
}

#[test]
fn what_comes_from_further_away_than_it_may_is_not_taken_in() {
    // IP_MINTTL and IPV6_MINHOPCOUNT (RFC 5082), and what the packets have.
    let (_kernel, p) = process();
    for (family, any, [level, least, hops]) in [
        (INET, "127.0.0.1:0", [0, 21, 2]),
        (INET6, "[::1]:0", [41, 73, 16]),
    ] {
        let (l, to) = listener(&p, family, any, 5);
        set(&p, l, level, least, 255).expect("set");
        assert_eq!(get(&p, l, level, least), Ok(255));
        // Nobody answers one with fewer hops left.
        let far = socket(&p, family, STREAM | NONBLOCK, 0);
        assert_eq!(connect(&p, far, &to), Err(Errno::EINPROGRESS));
        assert_eq!(poll(&p, far, POLLOUT | POLLIN), 0);
        assert_eq!(poll(&p, l, POLLIN), 0);
        let near = socket(&p, family, STREAM, 0);
        set(&p, near, level, hops, 255).expect("set");
        assert_eq!(connect(&p, near, &to), Ok(0));
        let b = accept(&p, l).expect("accepted");
        assert_eq!(write(&p, near, b"near"), Ok(4));
        assert_eq!(read(&p, b, 100), Ok(b"near".to_vec()));
        // It holds for the connection too.
        set(&p, near, level, hops, 254).expect("set");
        assert_eq!(write(&p, near, b"far"), Ok(3));
        assert_eq!(poll(&p, b, POLLIN), 0);
        set(&p, b, level, least, 254).expect("set");
        assert_eq!(read(&p, b, 100), Ok(b"far".to_vec()));
        for fd in [l, far, near, b] {
            p.close(fd).expect("closed");
        }
    }
}

#[test]
fn nobody_there_refuses_and_the_socket_may_try_again() {
    let (_kernel, p) = process();
    let (l, to) = listener(&p, INET, "127.0.0.1:0", 5);
    p.close(l).expect("closed");
    let a = socket(&p, INET, STREAM, 0);
    assert_eq!(connect(&p, a, &to), Err(Errno::ECONNREFUSED));
    let (_l, _) = listener(&p, INET, &to, 5);
    assert_eq!(connect(&p, a, &to), Ok(0));
    let b = socket(&p, INET, STREAM | NONBLOCK, 0);
    assert_eq!(connect(&p, b, "127.0.0.1:1"), Err(Errno::EINPROGRESS));
    assert_eq!(poll(&p, b, POLLOUT) & POLLERR, POLLERR);
    assert_eq!(get(&p, b, SOL_SOCKET, SO_ERROR), Ok(Errno::ECONNREFUSED.0));
    assert_eq!(
        read(&p, socket(&p, INET, STREAM, 0), 1),
        Err(Errno::ENOTCONN)
    );
    assert_eq!(
        write(&p, socket(&p, INET, STREAM, 0), b"x"),
        Err(Errno::EPIPE)
    );
    assert_eq!(
        connect(&p, socket(&p, INET, STREAM, 0), "192.0.2.1:1"),
        Err(Errno::ENETUNREACH)
    );
}

#[test]
fn connecting_goes_on_for_who_does_not_wait() {
    let (_kernel, p) = process();
    let (l, to) = listener(&p, INET, "127.0.0.1:0", 5);
    let a = socket(&p, INET, STREAM | NONBLOCK, 0);
    assert_eq!(connect(&p, a, &to), Err(Errno::EINPROGRESS));
    assert_eq!(poll(&p, a, POLLOUT), POLLOUT);
    assert_eq!(get(&p, a, SOL_SOCKET, SO_ERROR), Ok(0));
    assert_eq!(connect(&p, a, &to), Ok(0), "told once");
    assert_eq!(connect(&p, a, &to), Err(Errno::EISCONN));
    assert_eq!(read(&p, a, 1), Err(Errno::EAGAIN));
    accept(&p, l).expect("accepted");
}

#[test]
fn flags_of_receiving_do_what_they_say() {
    let (_kernel, p) = process();
    let (a, b) = pair(&p);
    write(&p, a, b"0123456789").expect("sent");
    assert_eq!(recv(&p, b, 4, MSG_PEEK), Ok(b"0123".to_vec()));
    assert_eq!(
        recv(&p, b, 2, MSG_TRUNC).map(|d| d.len()),
        Ok(2),
        "thrown away"
    );
    assert_eq!(recv(&p, b, 100, 0), Ok(b"23456789".to_vec()));
    assert_eq!(recv(&p, b, 100, MSG_DONTWAIT), Err(Errno::EAGAIN));
    assert_eq!(
        recv(&p, b, 100, MSG_DONTWAIT | MSG_PEEK),
        Err(Errno::EAGAIN)
    );
    send(&p, a, b"ab!", MSG_OOB).expect("urgent");
    assert_eq!(poll(&p, b, POLLPRI), POLLPRI);
    assert_eq!(recv(&p, b, 10, 0), Ok(b"ab".to_vec()), "up to the mark");
    assert_eq!(recv(&p, b, 10, MSG_OOB), Ok(b"!".to_vec()));
    assert_eq!(recv(&p, b, 10, MSG_OOB), Err(Errno::EINVAL));
}

#[test]
fn unread_data_at_close_resets_the_peer() {
    let (_kernel, p) = process();
    let (a, b) = pair(&p);
    write(&p, a, b"unread").expect("sent");
    p.close(b).expect("closed");
    assert_eq!(read(&p, a, 1), Err(Errno::ECONNRESET));
    assert_eq!(read(&p, a, 1), Ok(vec![]));
    assert_eq!(write(&p, a, b"x"), Err(Errno::EPIPE));
    let (a, b) = pair(&p);
    let linger = [1i32.to_ne_bytes(), 0i32.to_ne_bytes()].concat();
    p.setsockopt(b, SOL_SOCKET, 13, &linger, 8)
        .expect("SO_LINGER");
    p.close(b).expect("closed");
    assert_eq!(get(&p, a, SOL_SOCKET, SO_ERROR), Ok(Errno::ECONNRESET.0));
}

#[test]
fn a_full_buffer_makes_a_writer_wait_or_turn_back() {
    let (_kernel, p) = process();
    let (a, b) = pair(&p);
    let chunk = vec![7; 1 << 16];
    let mut sent = 0;
    loop {
        match send(&p, a, &chunk, MSG_DONTWAIT) {
            Ok(n) => sent += n as usize,
            Err(error) => {
                assert_eq!(error, Errno::EAGAIN);
                break;
            }
        }
    }
    assert!((100_000..16 << 20).contains(&sent), "{sent}");
    assert_eq!(poll(&p, a, POLLOUT), 0);
    let mut got = 0;
    while got < sent {
        let data = read(&p, b, 1 << 20).expect("read");
        assert!(data.iter().all(|&x| x == 7));
        got += data.len();
    }
    assert_eq!(poll(&p, a, POLLOUT), POLLOUT);
}

#[test]
fn options_are_kept_inherited_and_told() {
    let (_kernel, p) = process();
    let (l, to) = listener(&p, INET, "127.0.0.1:0", 5);
    for (name, value) in [(1, 1), (4, 30), (5, 3), (6, 4), (18, 5000), (25, 65536)] {
        set(&p, l, SOL_TCP, name, value).expect("set");
    }
    set(&p, l, SOL_SOCKET, 9, 1).expect("SO_KEEPALIVE");
    let a = socket(&p, INET, STREAM, 0);
    set(&p, a, SOL_TCP, 7, 3).expect("TCP_SYNCNT");
    connect(&p, a, &to).expect("connected");
    let b = accept(&p, l).expect("accepted");
    for (name, value) in [(1, 1), (4, 30), (5, 3), (6, 4), (18, 5000), (25, 65536)] {
        assert_eq!(get(&p, b, SOL_TCP, name), Ok(value), "{name}");
    }
    assert_eq!(get(&p, b, SOL_SOCKET, 9), Ok(1));
    assert_eq!(get(&p, a, SOL_TCP, 7), Ok(3));
    assert_eq!(get(&p, l, SOL_SOCKET, 30), Ok(1), "SO_ACCEPTCONN");
    p.setsockopt(a, SOL_TCP, 13, b"reno", 4)
        .expect("TCP_CONGESTION");
    let (mut name, mut len) = ([0; 16], 16u32.to_ne_bytes());
    p.getsockopt(a, SOL_TCP, 13, &mut name, &mut len)
        .expect("a name");
    assert_eq!(&name[..5], b"reno\0");
    assert_eq!(p.setsockopt(a, SOL_TCP, 13, b"none", 4), Err(Errno::ENOENT));
    let (mut info, mut len) = ([0; 300], 300u32.to_ne_bytes());
    p.getsockopt(a, SOL_TCP, 11, &mut info, &mut len)
        .expect("TCP_INFO");
    assert_eq!((info[0], u32::from_ne_bytes(len)), (1, 232));
    let mss = u32::from_ne_bytes(info[16..20].try_into().expect("4 bytes"));
    assert_eq!(mss, 65_535 - 40 - 12);
    assert_eq!(set(&p, a, SOL_TCP, 99, 1), Err(Errno::ENOPROTOOPT));
    write(&p, a, b"12345").expect("sent");
    let mut count = [0; 4];
    p.ioctl(b, 0x541b, &mut count).expect("SIOCINQ");
    assert_eq!(i32::from_ne_bytes(count), 5);
}

#[test]
fn more_to_come_waits_for_it() {
    let (_kernel, p) = process();
    let (a, b) = pair(&p);
    send(&p, a, b"held ", 0x8000).expect("MSG_MORE");
    assert_eq!(recv(&p, b, 100, MSG_DONTWAIT), Err(Errno::EAGAIN));
    send(&p, a, b"back", 0).expect("sent");
    assert_eq!(recv(&p, b, 100, MSG_DONTWAIT), Ok(b"held back".to_vec()));
}

#[test]
fn a_full_backlog_keeps_the_others_waiting() {
    let (_kernel, p) = process();
    let (l, to) = listener(&p, INET, "127.0.0.1:0", 1);
    let fds: Vec<i32> = (0..4)
        .map(|_| {
            let fd = socket(&p, INET, STREAM | NONBLOCK, 0);
            assert_eq!(connect(&p, fd, &to), Err(Errno::EINPROGRESS));
            fd
        })
        .collect();
    let connected = fds.iter().filter(|&&fd| poll(&p, fd, POLLOUT) != 0).count();
    assert_eq!(connected, 2, "one more than the backlog, as on Linux");
    accept(&p, l).expect("accepted");
    accept(&p, l).expect("accepted");
    // The third asks again after a second.
    let third = accept(&p, l).expect("accepted");
    assert_eq!(peer(&p, third), Ok(name(&p, fds[2])));
    p.close(l).expect("closed");
}

#[test]
fn ports_are_held_as_long_as_needed() {
    let (_kernel, p) = process();
    let (l, to) = listener(&p, INET, "127.0.0.1:0", 5);
    let other = socket(&p, INET, STREAM, 0);
    assert_eq!(bind(&p, other, &to), Err(Errno::EADDRINUSE));
    set(&p, other, SOL_SOCKET, 2, 1).expect("SO_REUSEADDR");
    assert_eq!(
        bind(&p, other, &to),
        Err(Errno::EADDRINUSE),
        "somebody listens"
    );
    p.close(l).expect("closed");
    assert_eq!(bind(&p, other, &to), Ok(0));
    assert_eq!(p.accept4(other, &mut [], &mut [], 0), Err(Errno::EINVAL));
    let v6 = socket(&p, INET6, STREAM, 0);
    let port = to.rsplit(':').next().expect("a port");
    assert_eq!(
        bind(&p, v6, &format!("[::]:{port}")),
        Err(Errno::EADDRINUSE)
    );
}

/// Writes all of some bytes with a pattern, in pieces of many lengths.
fn pump(p: &LwpHandle, fd: i32, len: usize) {
    let data: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
    let mut at = 0;
    while at < len {
        let n = (1 + at * 7 % 50_000).min(len - at);
        at += write(p, fd, &data[at..at + n]).expect("written") as usize;
    }
}

fn drain(p: &LwpHandle, fd: i32) -> usize {
    let mut at = 0;
    loop {
        let data = read(p, fd, 30_000).expect("read");
        if data.is_empty() {
            return at;
        }
        for byte in data {
            assert_eq!(byte, (at % 251) as u8, "at {at}");
            at += 1;
        }
    }
}

#[test]
fn two_threads_move_megabytes() {
    let (kernel, p) = process();
    let (l, to) = listener(&p, INET, "127.0.0.1:0", 5);
    const LEN: usize = 8 << 20;
    std::thread::scope(|s| {
        s.spawn(|| {
            let p = kernel.rfork(kern::RforkFds::Clear).expect("a process");
            let fd = socket(&p, INET, STREAM, 0);
            connect(&p, fd, &to).expect("connected");
            pump(&p, fd, LEN);
            p.close(fd).expect("closed");
        });
        let fd = accept(&p, l).expect("accepted");
        assert_eq!(drain(&p, fd), LEN);
    });
}

#[test]
fn under_every_seed_clients_and_a_server_talk() {
    simulated(0..40, |host, kernel| {
        let server = program(host, kernel, |p| {
            let (l, _) = listener(p, INET6, "[::]:80", 2);
            for _ in 0..3 {
                let fd = accept(p, l).expect("accepted");
                let data = drain(p, fd);
                write(p, fd, &(data as u32).to_ne_bytes()).expect("answered");
                p.close(fd).expect("closed");
            }
            p.close(l).expect("closed");
        });
        let clients: Vec<_> = [1usize, 70_000, 300_000]
            .into_iter()
            .map(|len| {
                program(host, kernel, move |p| {
                    let fd = loop {
                        let fd = socket(p, INET, STREAM, 0);
                        match connect(p, fd, "127.0.0.1:80") {
                            Ok(_) => break fd,
                            Err(error) => assert_eq!(error, Errno::ECONNREFUSED),
                        }
                        p.close(fd).expect("closed");
                        p.sched_yield().expect("yields");
                    };
                    pump(p, fd, len);
                    p.shutdown(fd, 1).expect("shut down");
                    assert_eq!(
                        recv(p, fd, 4, MSG_WAITALL),
                        Ok((len as u32).to_ne_bytes().to_vec())
                    );
                    assert_eq!(read(p, fd, 1), Ok(vec![]));
                    p.close(fd).expect("closed");
                })
            })
            .collect();
        clients.into_iter().for_each(|c| c.join());
        server.join();
    });
}

#[test]
fn under_every_seed_a_sleeper_learns_that_its_socket_ends() {
    simulated(0..40, |host, kernel| {
        let (kernel, host) = (kernel.clone(), host.clone());
        let p = kernel.rfork(kern::RforkFds::Clear).expect("a process");
        let (a, b) = pair(&p);
        let pid = p.pid();
        let sleeper = {
            let kernel = kernel.clone();
            let run = move || {
                let p = kernel.newlwp(pid).expect("an lwp");
                assert_eq!(read(&p, a, 1), Ok(vec![]));
            };
            host.spawn("sleeper", Box::new(run)).expect("a thread")
        };
        let other = {
            let kernel = kernel.clone();
            let run = move || {
                let p = kernel.newlwp(pid).expect("an lwp");
                p.shutdown(b, 1).expect("shut down");
            };
            host.spawn("other", Box::new(run)).expect("a thread")
        };
        sleeper.join();
        other.join();
    });
}

const EPOLLIN: u32 = 1;
const EPOLLOUT: u32 = 4;
const EPOLLRDHUP: u32 = 0x2000;
const EPOLLET: u32 = 1 << 31;

fn epoll_add(p: &LwpHandle, ep: i32, fd: i32, events: u32) {
    let mut event = events.to_ne_bytes().to_vec();
    event.extend_from_slice(&(fd as u64).to_ne_bytes());
    p.epoll_ctl(ep, 1, fd, &event).expect("added");
}

/// The events of one descriptor that are ready now.
fn epoll_now(p: &LwpHandle, ep: i32) -> Option<u32> {
    let mut event = [0; 12];
    match p.epoll_wait(ep, &mut event, 1, 0).expect("waited") {
        0 => None,
        _ => Some(u32::from_ne_bytes(event[..4].try_into().expect("4 bytes"))),
    }
}

#[test]
fn an_edge_is_told_once_and_again_with_the_next_bytes() {
    let (_kernel, p) = process();
    let (a, b) = pair(&p);
    let ep = p.epoll_create1(0).expect("an instance") as i32;
    epoll_add(&p, ep, b, EPOLLIN | EPOLLRDHUP | EPOLLET);
    assert_eq!(epoll_now(&p, ep), None);
    write(&p, a, b"one").expect("sent");
    assert_eq!(epoll_now(&p, ep), Some(EPOLLIN));
    assert_eq!(epoll_now(&p, ep), None, "it has been told");
    write(&p, a, b"two").expect("sent");
    assert_eq!(epoll_now(&p, ep), Some(EPOLLIN), "though nothing was read");
    assert_eq!(read(&p, b, 100), Ok(b"onetwo".to_vec()));
    p.shutdown(a, 1).expect("shut down");
    assert_eq!(epoll_now(&p, ep), Some(EPOLLIN | EPOLLRDHUP));
    let level = p.epoll_create1(0).expect("an instance") as i32;
    epoll_add(&p, level, a, EPOLLOUT);
    let (l, to) = listener(&p, INET, "127.0.0.1:0", 5);
    epoll_add(&p, level, l, EPOLLIN);
    p.close(a).expect("closed");
    assert_eq!(epoll_now(&p, level), None);
    let c = socket(&p, INET, STREAM, 0);
    connect(&p, c, &to).expect("connected");
    assert_eq!(epoll_now(&p, level), Some(EPOLLIN));
    assert_eq!(epoll_now(&p, level), Some(EPOLLIN), "as long as it is so");
}

#[test]
fn under_every_seed_many_connect_and_several_accept() {
    simulated(0..60, |host, kernel| {
        let p = kernel.rfork(kern::RforkFds::Clear).expect("a process");
        let (l, to) = listener(&p, INET, "127.0.0.1:0", 3);
        let pid = p.pid();
        let accepting: Vec<_> = (0..2)
            .map(|_| {
                let kernel = kernel.clone();
                let run = move || {
                    let p = kernel.newlwp(pid).expect("an lwp");
                    for _ in 0..4 {
                        let fd = accept(&p, l).expect("accepted");
                        let asked = recv(&p, fd, 2, MSG_WAITALL).expect("asked");
                        assert_eq!(send(&p, fd, &asked, 0), Ok(2));
                        // The client closes first.
                        assert_eq!(read(&p, fd, 1), Ok(vec![]));
                        p.close(fd).expect("closed");
                    }
                };
                host.spawn("accepts", Box::new(run)).expect("a thread")
            })
            .collect();
        let clients: Vec<_> = (0..8u8)
            .map(|me| {
                let to = to.clone();
                program(host, kernel, move |p| {
                    let fd = socket(p, INET, STREAM, 0);
                    connect(p, fd, &to).expect("connected");
                    send(p, fd, &[me, 7], 0).expect("sent");
                    assert_eq!(recv(p, fd, 2, MSG_WAITALL), Ok(vec![me, 7]));
                    p.close(fd).expect("closed");
                })
            })
            .collect();
        clients.into_iter().chain(accepting).for_each(|t| t.join());
        p.close(l).expect("closed");
    });
}

#[test]
fn under_every_seed_who_waits_for_a_listener_that_ends_is_told() {
    simulated(0..40, |host, kernel| {
        let p = kernel.rfork(kern::RforkFds::Clear).expect("a process");
        let (l, to) = listener(&p, INET, "127.0.0.1:0", 3);
        let pid = p.pid();
        let waiting = {
            let kernel = kernel.clone();
            let run = move || {
                let p = kernel.newlwp(pid).expect("an lwp");
                while accept(&p, l).is_ok() {}
            };
            host.spawn("waits", Box::new(run)).expect("a thread")
        };
        let client = program(host, kernel, move |p| {
            let fd = socket(p, INET, STREAM, 0);
            match connect(p, fd, &to) {
                // Accepted, or reset when the listener went.
                Ok(_) => drop(read(p, fd, 1)),
                Err(error) => assert!(
                    [Errno::ECONNREFUSED, Errno::ECONNRESET].contains(&error),
                    "{error}"
                ),
            }
        });
        p.shutdown(l, 0).expect("shut down");
        waiting.join();
        // Connections that nobody reads end with their process.
        drop(p);
        client.join();
    });
}

#[test]
fn under_every_seed_both_ends_write_and_read_at_once() {
    simulated(0..30, |host, kernel| {
        let p = kernel.rfork(kern::RforkFds::Clear).expect("a process");
        let (a, b) = pair(&p);
        let pid = p.pid();
        const LEN: usize = 200_000;
        let threads: Vec<_> = [(a, true), (a, false), (b, true), (b, false)]
            .into_iter()
            .map(|(fd, writes)| {
                let kernel = kernel.clone();
                let run = move || {
                    let p = kernel.newlwp(pid).expect("an lwp");
                    if writes {
                        pump(&p, fd, LEN);
                        p.shutdown(fd, 1).expect("shut down");
                    } else {
                        assert_eq!(drain(&p, fd), LEN);
                    }
                };
                host.spawn("end", Box::new(run)).expect("a thread")
            })
            .collect();
        threads.into_iter().for_each(|t| t.join());
    });
}

#[test]
fn nothing_of_a_stack_outlives_its_kernel() {
    let (kernel, p) = process();
    let (a, b) = pair(&p);
    write(&p, a, b"unread").expect("sent");
    p.shutdown(b, 1).expect("shut down");
    let (_l, _) = listener(&p, INET6, "[::]:0", 5);
    let weak = kernel.implicit(&kern::KernelMemory, |cx| {
        std::sync::Arc::downgrade(&inet::Inet::of(cx).expect("a stack"))
    });
    kernel.shutdown(true).expect("halts");
    drop(p);
    drop(kernel);
    assert!(weak.upgrade().is_none());
}

//! Waits for events that nobody sleeps for, and threads that serve each other's rings.

mod support;

use std::thread;

use abi::ring::{ANSWER, ASKED, DONE, IN, OUT, POST_ADDR, ReplyHead, RequestHead, WANT};
use abi::sysproxy::{Class, Kind, SegmentHead};
use abi::{EPOLL_CTL_ADD, EPOLL_CTL_DEL, EpollEvent, Errno, Pollfd, nr};
use support::ring::{Ring, attached, call, post};
use support::{RawClient, eventually, procs, served};
use sysproxy::Options;

/// Where a ring's client has its events.
const EVENTS: u64 = 0x9000;

fn wait(epfd: u64, millis: i64) -> RequestHead {
    call(nr::epoll_wait, [epfd, EVENTS, 8, millis as u64, 0, 0], 0, 0)
}

/// An epoll instance, and event counters in it.
fn watched<const N: usize>(client: &mut RawClient) -> (u64, [u64; N]) {
    let (_, epfd, _) = client.syscall(nr::epoll_create1, &[0; 6], &[]);
    let events = [0; N].map(|_| {
        let (_, fd, _) = client.syscall(nr::eventfd2, &[0; 6], &[]);
        let event = EpollEvent {
            events: 1,
            data: fd as u64,
        };
        let args = [epfd as u64, EPOLL_CTL_ADD as u64, fd as u64, 0x1000, 0, 0];
        let (error, ..) = client.syscall(nr::epoll_ctl, &args, &[(0x1000, &event.to_bytes())]);
        assert_eq!(error, 0);
        fd as u64
    });
    (epfd as u64, events)
}

/// A poll of event counters, whose entries come with it.
fn poll(ring: &Ring, events: &[u64], millis: i64) -> RequestHead {
    let entries = events.iter().map(|&fd| Pollfd {
        fd: fd as i32,
        events: 1,
        // Of the call before.
        revents: 4,
    });
    let data: Vec<u8> = entries.flat_map(|entry| entry.to_bytes()).collect();
    let segment = SegmentHead {
        addr: EVENTS,
        len: data.len() as u32,
    };
    ring.write(IN, &segment.encode());
    ring.write(IN + SegmentHead::SIZE, &data);
    let len = SegmentHead::SIZE + data.len();
    let args = [EVENTS, events.len() as u64, millis as u64, 0, 0, 0];
    call(nr::poll, args, 1, len as u32)
}

/// What a poll has written of the entries: what is ready of each.
fn found(ring: &Ring, reply: &ReplyHead) -> Vec<i16> {
    assert_eq!(reply.count, 1);
    let at = OUT + SegmentHead::SIZE;
    let data = ring.read(at, reply.len as usize - SegmentHead::SIZE);
    let (entries, _) = data.as_chunks();
    entries
        .iter()
        .map(|entry| Pollfd::from_bytes(entry).revents)
        .collect()
}

fn add(client: &mut RawClient, event: u64) {
    let args = [event, 0x1000, 8, 0, 0, 0];
    let (_, wrote, _) = client.syscall(nr::write, &args, &[(0x1000, &1u64.to_ne_bytes())]);
    assert_eq!(wrote, 8);
}

fn outcome(reply: &ReplyHead) -> (u32, i32, i64) {
    (reply.kind, reply.error, reply.retval)
}

/// Posts the entry of an event counter into an instance, or its leaving.
fn post_change(ring: &Ring, epfd: u64, op: i32, event: u64) {
    let data = EpollEvent { events: 1, data: 7 }.to_bytes();
    let args = [epfd, op as u64, event, POST_ADDR, 0, 0];
    let head = call(nr::epoll_ctl, args, 0, data.len() as u32);
    post(ring, &head, &data);
}

#[test]
fn a_parked_wait_ends_with_an_event_or_its_time() {
    let (_kernel, server) = served(Options::default());
    let (mut client, _) = RawClient::guest(&server);
    let (epfd, [event]) = watched(&mut client);
    let (ring, _) = attached(&mut client);
    for _ in 0..20 {
        let before = ring.ask(&wait(epfd, -1));
        add(&mut client, event);
        assert_eq!(outcome(&ring.reply(before)), (DONE, 0, 1));
        client.syscall(nr::read, &[event, 0x1000, 8, 0, 0, 0], &[]);
        assert_eq!(outcome(&ring.submit(&wait(epfd, 5))), (DONE, 0, 0));
        assert_eq!(outcome(&ring.submit(&wait(epfd, 0))), (DONE, 0, 0));
    }
}

#[test]
fn a_parked_poll_ends_with_an_event_or_its_time_and_says_what_is_ready() {
    let (_kernel, server) = served(Options::default());
    let (mut client, _) = RawClient::guest(&server);
    let (_, events) = watched::<2>(&mut client);
    let (ring, _) = attached(&mut client);
    for i in 0..20 {
        let before = ring.ask(&poll(&ring, &events, -1));
        add(&mut client, events[i % 2]);
        let reply = ring.reply(before);
        assert_eq!(outcome(&reply), (DONE, 0, 1));
        let ready = [i16::from(i % 2 == 0), i16::from(i % 2 == 1)];
        assert_eq!(found(&ring, &reply), ready);
        client.syscall(nr::read, &[events[i % 2], 0x1000, 8, 0, 0, 0], &[]);
        for millis in [5, 0] {
            let reply = ring.submit(&poll(&ring, &events, millis));
            assert_eq!(outcome(&reply), (DONE, 0, 0));
            assert_eq!(found(&ring, &reply), [0, 0]);
        }
    }
}

#[test]
fn an_event_ends_all_polls_and_one_of_the_waits_for_an_instance() {
    let (_kernel, server) = served(Options::default());
    let (mut client, _) = RawClient::guest(&server);
    let (epfd, [event]) = watched(&mut client);
    let rings: Vec<Ring> = (0..4).map(|_| attached(&mut client).0).collect();
    for _ in 0..50 {
        let ask = |(i, ring): (usize, &Ring)| match i {
            0 => ring.ask(&wait(epfd, -1)),
            _ => ring.ask(&poll(ring, &[event], -1)),
        };
        let before: Vec<u32> = rings.iter().enumerate().map(ask).collect();
        add(&mut client, event);
        for (ring, before) in rings.iter().zip(before) {
            assert_eq!(outcome(&ring.reply(before)), (DONE, 0, 1));
        }
        client.syscall(nr::read, &[event, 0x1000, 8, 0, 0, 0], &[]);
    }
}

#[test]
fn who_waits_for_something_else_by_now_takes_no_event() {
    let (_kernel, server) = served(Options::default());
    let (mut client, _) = RawClient::guest(&server);
    let (shared, [event]) = watched(&mut client);
    let (others, [other]) = watched(&mut client);
    let (first, _) = attached(&mut client);
    let (second, _) = attached(&mut client);
    let take = |client: &mut RawClient, event| {
        client.syscall(nr::read, &[event, 0x1000, 8, 0, 0, 0], &[]);
    };
    for i in 0..20 {
        let before = first.ask(&wait(shared, -1));
        add(&mut client, event);
        assert_eq!(outcome(&first.reply(before)), (DONE, 0, 1));
        take(&mut client, event);
        let elsewhere = match i % 2 {
            0 => first.ask(&wait(others, -1)),
            _ => first.ask(&poll(&first, &[other], -1)),
        };
        let before = second.ask(&wait(shared, -1));
        add(&mut client, event);
        assert_eq!(outcome(&second.reply(before)), (DONE, 0, 1));
        take(&mut client, event);
        assert!(!first.has_reply(elsewhere));
        add(&mut client, other);
        assert_eq!(outcome(&first.reply(elsewhere)), (DONE, 0, 1));
        take(&mut client, other);
    }
}

#[test]
fn an_interrupt_ends_the_wait_that_it_is_for_and_no_other() {
    let (_kernel, server) = served(Options::default());
    let (mut client, _) = RawClient::guest(&server);
    let (epfd, [event]) = watched(&mut client);
    let (ring, number) = attached(&mut client);
    for i in 0..20 {
        let before = ring.ask(&wait(epfd, -1));
        let interrupt = |client: &mut RawClient, nth| {
            client.send(Class::Request, Kind::RingInterrupt, number, nth, &[]);
        };
        interrupt(&mut client, 2 * i + 1);
        let eintr = Errno::EINTR.0;
        assert_eq!(outcome(&ring.reply(before)), (DONE, eintr, 0));
        // Late, it is for nobody.
        let before = ring.ask(&wait(epfd, -1));
        interrupt(&mut client, 2 * i + 1);
        add(&mut client, event);
        assert_eq!(outcome(&ring.reply(before)), (DONE, 0, 1));
        client.syscall(nr::read, &[event, 0x1000, 8, 0, 0, 0], &[]);
    }
}

#[test]
fn each_event_ends_one_wait_of_those_for_one_instance() {
    let (_kernel, server) = served(Options::default());
    let (mut client, _) = RawClient::guest(&server);
    let (epfd, events) = watched::<4>(&mut client);
    let rings: Vec<Ring> = (0..4).map(|_| attached(&mut client).0).collect();
    for _ in 0..50 {
        let before: Vec<u32> = rings.iter().map(|r| r.ask(&wait(epfd, -1))).collect();
        for event in events {
            add(&mut client, event);
        }
        for (ring, before) in rings.iter().zip(before) {
            let (kind, error, found) = outcome(&ring.reply(before));
            assert_eq!((kind, error), (DONE, 0));
            assert!((1..=4).contains(&found), "{found}");
        }
        for event in events {
            client.syscall(nr::read, &[event, 0x1000, 8, 0, 0, 0], &[]);
        }
    }
}

#[test]
fn who_causes_an_event_serves_the_other_ring_and_its_next_calls() {
    let (_kernel, server) = served(Options::default());
    let (mut client, shake) = RawClient::guest(&server);
    let (theirs, []) = watched(&mut client);
    let (mine, []) = watched(&mut client);
    let (_, event, _) = client.syscall(nr::eventfd2, &[1, 0, 0, 0, 0, 0], &[]);
    let (a, _) = attached(&mut client);
    let (b, _) = attached(&mut client);
    for round in 0..500 {
        let before = a.ask(&wait(theirs, -1));
        post_change(&b, theirs, EPOLL_CTL_ADD, event as u64);
        assert_eq!(outcome(&b.submit(&wait(mine, 0))), (DONE, 0, 0));
        assert_eq!(outcome(&a.reply(before)), (DONE, 0, 1));
        // The next one comes at once, a little later, or is none that the other one may serve.
        (0..round % 50).for_each(|_| thread::yield_now());
        let next = match round % 3 {
            0 => wait(theirs, 0),
            1 => wait(theirs, -1),
            _ => call(nr::getpid, [0; 6], 0, 0),
        };
        let answer = if round % 3 == 2 { shake.pid.into() } else { 1 };
        assert_eq!(outcome(&a.submit(&next)), (DONE, 0, answer));
        post_change(&b, theirs, EPOLL_CTL_DEL, event as u64);
        assert_eq!(outcome(&b.submit(&wait(mine, 0))), (DONE, 0, 0));
    }
}

#[test]
fn who_has_to_ask_its_own_client_keeps_nobody_waiting() {
    let (_kernel, server) = served(Options::default());
    let (mut client, _) = RawClient::guest(&server);
    let (theirs, []) = watched(&mut client);
    let (mine, []) = watched(&mut client);
    let (_, event, _) = client.syscall(nr::eventfd2, &[1, 0, 0, 0, 0, 0], &[]);
    let (a, _) = attached(&mut client);
    let (b, _) = attached(&mut client);
    for _ in 0..20 {
        let before = a.ask(&wait(theirs, -1));
        post_change(&b, theirs, EPOLL_CTL_ADD, event as u64);
        // The time did not come along.
        let timed = call(nr::epoll_pwait2, [mine, EVENTS, 8, 0x7000, 0, 0], 0, 0);
        let asked = b.submit(&timed);
        assert_eq!((asked.kind, asked.addr, asked.want), (WANT, 0x7000, 16));
        assert_eq!(outcome(&a.reply(before)), (DONE, 0, 1));
        b.write(IN + ASKED, &[0; 16]);
        let answer = RequestHead {
            nr: ANSWER,
            len: 16,
            ..RequestHead::default()
        };
        assert_eq!(outcome(&b.submit(&answer)), (DONE, 0, 0));
        post_change(&b, theirs, EPOLL_CTL_DEL, event as u64);
        assert_eq!(outcome(&b.submit(&wait(mine, 0))), (DONE, 0, 0));
    }
}

const AF_UNIX: u64 = 1;
const SOCK_STREAM: u64 = 1;

/// A connection between two clients.
fn connected(one: &mut RawClient, other: &mut RawClient, name: u8) -> (u64, u64) {
    let name: &[u8] = &[AF_UNIX as u8, 0, 0, name];
    let socket = [AF_UNIX, SOCK_STREAM, 0, 0, 0, 0];
    let ask = |client: &mut RawClient, nr, args: [u64; 6]| {
        let (error, answer, _) = client.syscall(nr, &args, &[(0x1000, name)]);
        assert_eq!(error, 0);
        answer as u64
    };
    let listener = ask(one, nr::socket, socket);
    ask(
        one,
        nr::bind,
        [listener, 0x1000, name.len() as u64, 0, 0, 0],
    );
    ask(one, nr::listen, [listener, 8, 0, 0, 0, 0]);
    let there = ask(other, nr::socket, socket);
    ask(
        other,
        nr::connect,
        [there, 0x1000, name.len() as u64, 0, 0, 0],
    );
    let here = ask(one, nr::accept, [listener, 0, 0, 0, 0, 0]);
    (here, there)
}

#[test]
fn what_would_block_is_left_to_the_rings_own_thread() {
    const DONTWAIT: u64 = 0x40;
    let (_kernel, server) = served(Options::default());
    let (mut client, _) = RawClient::guest(&server);
    let (mut other, shake) = RawClient::guest(&server);
    let (here, there) = connected(&mut client, &mut other, b'e');
    let (from, to) = connected(&mut client, &mut other, b'd');
    let (theirs, []) = watched(&mut client);
    let (mine, []) = watched(&mut other);
    let (a, _) = attached(&mut client);
    let (b, _) = attached(&mut other);
    post_change(&a, theirs, EPOLL_CTL_ADD, here);
    // Fills the buffer.
    let block = [7u8; 4096];
    let mut sent = 0;
    let fill = [from, 0x1000, 4096, DONTWAIT, 0, 0];
    while let (0, n, _) = client.syscall(nr::sendto, &fill, &[(0x1000, &block)]) {
        sent += n as usize;
    }
    let before = a.ask(&wait(theirs, -1));
    let hello = call(nr::sendto, [there, POST_ADDR, 5, 0, 0, 0], 0, 5);
    post(&b, &hello, b"hello");
    assert_eq!(outcome(&b.submit(&wait(mine, 0))), (DONE, 0, 0));
    assert_eq!(outcome(&a.reply(before)), (DONE, 0, 1));
    // There is no room: the wait behind it has to wait for that, and nobody else.
    for i in 0..3 {
        let head = call(nr::sendto, [from, POST_ADDR, 4096, 0, 0, 0], 0, 4096);
        post(&a, &head, &[i; 4096]);
    }
    let before = a.ask(&wait(theirs, 0));
    let getpid = call(nr::getpid, [0; 6], 0, 0);
    for _ in 0..100 {
        assert_eq!(outcome(&b.submit(&wait(mine, 0))), (DONE, 0, 0));
        assert_eq!(outcome(&b.submit(&getpid)), (DONE, 0, shake.pid.into()));
    }
    assert!(!a.has_reply(before));
    let mut got: Vec<u8> = Vec::new();
    while got.len() < sent + 3 * 4096 {
        let (error, _, data) = other.syscall(nr::read, &[to, 0x1000, 65536, 0, 0, 0], &[]);
        assert_eq!(error, 0);
        got.extend_from_slice(&data[0].1);
    }
    assert_eq!(outcome(&a.reply(before)), (DONE, 0, 1));
    let (old, new) = got.split_at(sent);
    assert!(old.iter().all(|&b| b == 7));
    let expected: Vec<u8> = (0..3).flat_map(|i| [i; 4096]).collect();
    assert!(
        new == expected,
        "what was posted arrives once and in its order"
    );
}

#[test]
fn a_client_that_goes_with_a_parked_wait_leaves_nothing() {
    let (kernel, server) = served(Options::default());
    for _ in 0..20 {
        let (mut client, _) = RawClient::guest(&server);
        let (epfd, []) = watched(&mut client);
        let (ring, number) = attached(&mut client);
        ring.ask(&wait(epfd, -1));
        let (other, _) = attached(&mut client);
        other.ask(&wait(epfd, -1));
        client.send(Class::Request, Kind::RingDetach, number, 0, &[]);
    }
    eventually("all gone", || procs(&kernel) == 1);
}

#[test]
fn waits_and_events_of_many_threads_are_never_missed() {
    const ROUNDS: u64 = 2000;
    let (_kernel, server) = served(Options::default());
    let (mut client, _) = RawClient::guest(&server);
    // A circle of threads, each of which waits for its own event and causes the next one's.
    let members: Vec<(u64, u64, Ring)> = (0..4)
        .map(|_| {
            let (epfd, [event]) = watched(&mut client);
            (epfd, event, attached(&mut client).0)
        })
        .collect();
    let nexts: Vec<u64> = (0..4).map(|i| members[(i + 1) % 4].1).collect();
    add(&mut client, members[0].1);
    thread::scope(|scope| {
        for ((epfd, event, ring), next) in members.iter().zip(&nexts) {
            scope.spawn(move || {
                for _ in 0..ROUNDS {
                    assert_eq!(outcome(&ring.submit(&wait(*epfd, -1))), (DONE, 0, 1));
                    let read = call(nr::read, [*event, 0x5000, 8, 0, 0, 0], 0, 0);
                    assert_eq!(outcome(&ring.submit(&read)), (DONE, 0, 8));
                    let one = SegmentHead {
                        addr: 0x5000,
                        len: 8,
                    };
                    ring.write(IN, &one.encode());
                    ring.write(IN + SegmentHead::SIZE, &1u64.to_ne_bytes());
                    let write = call(nr::write, [*next, 0x5000, 8, 0, 0, 0], 1, 24);
                    assert_eq!(outcome(&ring.submit(&write)), (DONE, 0, 8));
                }
            });
        }
    });
}

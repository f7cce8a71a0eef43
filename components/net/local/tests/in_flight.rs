//! Sockets in the inboxes of sockets: what somebody can still receive stays, all else goes.

mod common;

use abi::{Errno, Syscalls};
use common::*;
use kern::{Cred, LwpHandle, RforkFds};

const RLIMIT_NOFILE: i32 = 7;

/// Sockets with their peers: the second of each pair is what the first puts messages into.
fn pairs<const N: usize>(p: &LwpHandle) -> [[i32; 2]; N] {
    [(); N].map(|()| socketpair(p, STREAM))
}

/// Puts each pair's second socket into the inbox of the next pair's, the last one's into the first one's.
fn ring(p: &LwpHandle, pairs: &[[i32; 2]]) {
    for (i, [_, socket]) in pairs.iter().enumerate() {
        let [next, _] = pairs[(i + 1) % pairs.len()];
        assert_eq!(give(p, next, &[*socket], None), Ok(1));
    }
}

#[test]
fn a_socket_in_its_own_inbox_goes_with_its_last_descriptor() {
    let (kernel, p) = process();
    for kind in [STREAM, DGRAM, SEQPACKET] {
        let [a, b] = socketpair(&p, kind);
        let there = file(&p, b);
        assert_eq!(give(&p, a, &[b], None), Ok(1));
        assert!(!is_gone(&there));
        close(&p, b);
        assert!(is_gone(&there));
        let error = [Errno::EPIPE, Errno::ECONNREFUSED][usize::from(kind == DGRAM)];
        assert_eq!(write(&p, a, b"x"), Err(error), "its peer is told");
        close(&p, a);
    }
    assert_eq!(sockets(&kernel), 0);
}

#[test]
fn a_socket_may_be_sent_over_itself() {
    let (kernel, p) = process();
    let [a, b] = socketpair(&p, STREAM);
    assert_eq!(give(&p, a, &[a], None), Ok(1));
    close(&p, a);
    let again = take(&p, b, 0).expect("received")[0];
    assert_eq!(write(&p, again, b"x"), Ok(1));
    close(&p, again);
    close(&p, b);
    assert_eq!(sockets(&kernel), 0);
}

#[test]
fn two_and_three_sockets_in_a_ring_go_with_the_last_descriptor() {
    let (kernel, p) = process();
    for order in [[0, 1, 2], [2, 0, 1], [1, 0, 2]] {
        let (two, three) = (pairs::<2>(&p), pairs::<3>(&p));
        for ring_of in [&two[..], &three[..]] {
            ring(&p, ring_of);
            let files: Vec<Gone> = ring_of.iter().map(|[_, fd]| file(&p, *fd)).collect();
            for at in order.into_iter().filter(|&at| at < ring_of.len()) {
                assert!(!files.iter().any(is_gone));
                close(&p, ring_of[at][1]);
            }
            assert!(files.iter().all(is_gone));
            ring_of.iter().for_each(|[fd, _]| close(&p, *fd));
        }
        assert_eq!(sockets(&kernel), 0);
    }
}

#[test]
fn a_ring_stays_as_long_as_one_descriptor_is_there() {
    let (kernel, p) = process();
    let all = pairs::<3>(&p);
    ring(&p, &all);
    let child = p.rfork(RforkFds::Copy).expect("a process");
    let files = all.map(|[_, fd]| file(&p, fd));
    all.iter().flatten().for_each(|fd| close(&p, *fd));
    close(&child, all[0][1]);
    close(&child, all[2][1]);
    assert!(!files.iter().any(is_gone), "the child has the second");

    // The inbox of the second holds the first, and that the third.
    let seen = take(&child, all[1][1], MSG_PEEK).expect("a look")[0];
    assert!(files[0].ptr_eq(&file(&child, seen)));
    close(&child, seen);
    let first = take(&child, all[1][1], 0).expect("received")[0];
    assert!(files[0].ptr_eq(&file(&child, first)));
    assert_eq!(take(&child, all[1][1], 0), Err(Errno::EAGAIN));
    let third = take(&child, first, 0).expect("received")[0];
    let second = take(&child, third, 0).expect("received")[0];
    assert!(files[1].ptr_eq(&file(&child, second)));
    drop(child);
    assert!(files.iter().all(is_gone));
    assert_eq!(sockets(&kernel), 0);
}

#[test]
fn what_a_look_brings_keeps_a_ring() {
    let (kernel, p) = process();
    let [a, b] = socketpair(&p, DGRAM);
    assert_eq!(give(&p, a, &[b], None), Ok(1));
    let seen = take(&p, b, MSG_PEEK).expect("a look")[0];
    close(&p, b);
    assert_eq!(take(&p, seen, MSG_PEEK).map(|fds| fds.len()), Ok(1));
    close(&p, a);
    assert_eq!(sockets(&kernel), 1, "two descriptors are left");
    drop(p);
    assert_eq!(sockets(&kernel), 0);
}

#[test]
fn a_ring_in_the_inbox_of_a_socket_that_can_be_reached_stays() {
    let (kernel, p) = process();
    let [[into, from], [a, ring]] = pairs::<2>(&p);
    assert_eq!(give(&p, a, &[ring], None), Ok(1));
    assert_eq!(give(&p, into, &[ring], None), Ok(1));
    let there = file(&p, ring);
    close(&p, ring);
    close(&p, a);
    close(&p, into);
    assert!(!is_gone(&there));
    let arrived = take(&p, from, 0).expect("received")[0];
    let again = take(&p, arrived, 0).expect("what lay in it is there")[0];
    assert_eq!(give(&p, again, &[], None), Err(Errno::EPIPE), "no peer");
    close(&p, arrived);
    assert!(!is_gone(&there));
    close(&p, again);
    assert!(is_gone(&there));

    // The same, but nobody receives it: it goes with the socket in whose inbox it lies.
    let [[into, from], [a, ring]] = [[0; 2]; 2].map(|_| socketpair(&p, STREAM));
    assert_eq!(give(&p, a, &[ring], None), Ok(1));
    assert_eq!(give(&p, into, &[ring], None), Ok(1));
    let there = file(&p, ring);
    close(&p, ring);
    close(&p, from);
    assert!(is_gone(&there));
    drop(p);
    assert_eq!(sockets(&kernel), 0);
}

/// A listener, and a connection to it that is not accepted yet.
fn listener(p: &LwpHandle, n: usize) -> [i32; 2] {
    let listener = named(p, STREAM, n);
    p.listen(listener, 4).expect("listens");
    let client = p.socket(UNIX, STREAM, 0).expect("a socket") as i32;
    p.connect(client, &name(n), name(n).len())
        .expect("connected");
    [listener, client]
}

#[test]
fn a_listener_goes_that_lies_in_a_connection_it_has_not_accepted() {
    let (kernel, p) = process();
    let [listener, client] = listener(&p, 0);
    let there = file(&p, listener);
    assert_eq!(give(&p, client, &[listener, listener], None), Ok(1));
    close(&p, listener);
    assert!(is_gone(&there));
    assert_eq!(write(&p, client, b"x"), Err(Errno::EPIPE));
    close(&p, client);
    assert_eq!(sockets(&kernel), 0);

    // Two of them, and each lies in a connection of the other.
    let [one, two] = [1, 2].map(|n| self::listener(&p, n));
    let files = [one, two].map(|[fd, _]| file(&p, fd));
    assert_eq!(give(&p, one[1], &[two[0]], None), Ok(1));
    assert_eq!(give(&p, two[1], &[one[0]], None), Ok(1));
    close(&p, one[0]);
    assert!(!files.iter().any(is_gone));
    close(&p, two[0]);
    assert!(files.iter().all(is_gone));
    assert_eq!(
        p.connect(one[1], &name(1), name(1).len()),
        Err(Errno::ECONNREFUSED)
    );
    drop(p);
    assert_eq!(sockets(&kernel), 0);
}

#[test]
fn a_listener_that_can_be_received_has_its_connections() {
    let (kernel, p) = process();
    let [[into, from]] = pairs::<1>(&p);
    let [listener, client] = listener(&p, 0);
    let there = file(&p, listener);
    assert_eq!(give(&p, client, &[listener], None), Ok(1));
    assert_eq!(give(&p, into, &[listener], None), Ok(1));
    close(&p, listener);
    let listener = take(&p, from, 0).expect("received")[0];
    assert!(there.ptr_eq(&file(&p, listener)));
    let served = p.accept(listener, &mut [], &mut []).expect("accepted") as i32;
    close(&p, listener);
    assert!(!is_gone(&there), "the connection has it");
    let listener = take(&p, served, 0).expect("received")[0];
    assert!(there.ptr_eq(&file(&p, listener)));
    assert_eq!(give(&p, client, &[served, listener], None), Ok(1));
    close(&p, listener);
    close(&p, served);
    assert!(is_gone(&there), "both lay in the connection");
    close(&p, client);
    drop(p);
    assert_eq!(sockets(&kernel), 0);
}

#[test]
fn what_else_lies_in_a_ring_is_closed_and_what_is_open_elsewhere_is_not_touched() {
    let (kernel, p) = process();
    let mut pipe = [0; 8];
    p.pipe2(&mut pipe, NONBLOCK).expect("a pipe");
    let [reader, writer] =
        [0, 4].map(|at| i32::from_ne_bytes(pipe[at..at + 4].try_into().expect("4 bytes")));
    let [[a, ring], [into, open]] = pairs::<2>(&p);
    write(&p, into, b"x").expect("sent");
    assert_eq!(give(&p, a, &[writer, ring, open], None), Ok(1));
    close(&p, writer);
    assert_eq!(p.read(reader, &mut [0], 1), Err(Errno::EAGAIN));
    close(&p, ring);
    assert_eq!(p.read(reader, &mut [0], 1), Ok(0), "the end");
    assert_eq!(take(&p, open, 0), Ok(vec![]), "a byte");
    drop(p);
    assert_eq!(sockets(&kernel), 0);
}

/// Sockets of which each lies in the inbox of the one before; answers the first one.
fn chain(p: &LwpHandle, deep: usize) -> i32 {
    let mut inner = None;
    for _ in 0..deep {
        let [into, socket] = socketpair(p, DGRAM);
        if let Some(inner) = inner.replace(socket) {
            assert_eq!(give(p, into, &[inner], None), Ok(1));
            close(p, inner);
        }
        close(p, into);
    }
    inner.expect("some")
}

#[test]
fn ten_thousand_sockets_in_each_other_go_with_the_first() {
    let (kernel, p) = process();
    let first = chain(&p, 10_000);
    assert_eq!(sockets(&kernel), 10_000);
    close(&p, first);
    assert_eq!(sockets(&kernel), 0);

    // As part of a ring.
    let [a, ring] = socketpair(&p, DGRAM);
    let first = chain(&p, 10_000);
    assert_eq!(give(&p, a, &[ring, first], None), Ok(1));
    close(&p, first);
    assert_eq!(sockets(&kernel), 10_002);
    close(&p, ring);
    assert_eq!(sockets(&kernel), 1);
}

#[test]
fn a_ring_of_ten_thousand_sockets_goes_with_the_last_descriptor() {
    let (kernel, p) = process();
    let [a, last] = socketpair(&p, DGRAM);
    let mut outer = last;
    for _ in 0..10_000 {
        let [into, socket] = socketpair(&p, DGRAM);
        assert_eq!(give(&p, into, &[outer], None), Ok(1));
        if outer != last {
            close(&p, outer);
        }
        close(&p, into);
        outer = socket;
    }
    assert_eq!(give(&p, a, &[outer], None), Ok(1));
    close(&p, outer);
    assert_eq!(sockets(&kernel), 10_002);
    close(&p, last);
    assert_eq!(sockets(&kernel), 1);
}

#[test]
fn a_kernel_that_halts_lets_go_of_what_is_in_flight() {
    let (kernel, p) = process();
    // Descriptors of the first process, which never ends.
    let first = kernel.newlwp(1).expect("an lwp");
    let outer = chain(&first, 10_000);
    let all = pairs::<2>(&first);
    ring(&first, &all);
    let files = [all[0][1], outer].map(|fd| file(&first, fd));
    kernel.shutdown(true).expect("halts");
    drop((first, p, kernel));
    assert!(files.iter().all(is_gone));
}

#[test]
fn a_kernel_that_is_dropped_as_it_is_drops_sockets_however_deep_they_lie() {
    let (kernel, p) = process();
    // Descriptors of the first process, which never ends.
    let first = kernel.newlwp(1).expect("an lwp");
    let mut outer = chain(&first, 1);
    let files = [outer, chain(&first, 1000)].map(|fd| file(&first, fd));
    for n in 0..1000 {
        let [listener, client] = listener(&first, n);
        assert_eq!(give(&first, client, &[outer, outer], None), Ok(1));
        close(&first, outer);
        close(&first, client);
        outer = listener;
    }
    let little = std::thread::Builder::new().stack_size(128 << 10);
    let dropping = little.spawn(move || drop((first, p, kernel)));
    dropping.expect("a thread").join().expect("dropped");
    assert!(files.iter().all(is_gone));
}

#[test]
fn a_user_has_so_many_descriptors_in_flight() {
    let (kernel, root) = process();
    let user = |uid| {
        let p = kernel
            .spawn("user", Cred::user(uid, uid, &[]))
            .expect("a process");
        let limit = [100u64, 100].map(u64::to_ne_bytes).concat();
        p.setrlimit(RLIMIT_NOFILE, &limit).expect("fewer");
        p
    };
    let p = user(1000);
    let [a, b] = socketpair(&p, DGRAM);
    let [own, ring] = socketpair(&p, DGRAM);
    let send = || give(&p, a, &[own; 50], None);
    assert_eq!([send(), send(), send()], [Ok(1); 3]);
    assert_eq!(send(), Err(Errno::ETOOMANYREFS));
    assert_eq!(give(&p, own, &[a], None), Err(Errno::ETOOMANYREFS));
    assert_eq!(give(&p, a, &[], None), Ok(1), "a message without any");
    let other = user(1001);
    let [c, _d] = socketpair(&other, DGRAM);
    assert_eq!(give(&other, c, &[c; 50], None), Ok(1), "another user");
    let [e, _f] = socketpair(&root, DGRAM);
    for _ in 0..10 {
        assert_eq!(give(&root, e, &[e; 250], None), Ok(1), "the superuser");
    }

    // They are in flight no more when they are received, closed with the socket, found to be out of reach, or were not sent.
    take(&p, b, 0)
        .expect("received")
        .iter()
        .for_each(|fd| close(&p, *fd));
    assert_eq!([send(), send()], [Ok(1), Err(Errno::ETOOMANYREFS)]);
    close(&p, b);
    for _ in 0..3 {
        assert_eq!(send(), Err(Errno::ECONNREFUSED));
    }
    let [a, _b] = socketpair(&p, DGRAM);
    assert_eq!(give(&p, own, &[ring; 150], None), Ok(1));
    assert_eq!(give(&p, a, &[a], None), Err(Errno::ETOOMANYREFS));
    close(&p, ring);
    assert_eq!(give(&p, a, &[a; 150], None), Ok(1));
}

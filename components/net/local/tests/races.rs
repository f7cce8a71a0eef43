//! Sends, receives and closes at the same time: whoever gets a socket gets it with what lies in its inbox, and what nobody gets goes.

mod common;

use std::sync::Arc;

use abi::{Errno, Syscalls};
use common::*;
use kern::{LwpHandle, RforkFds};
use testing::Testbed;

/// Two threads of a process do what they do with its descriptors. What the first one of them does is checked by itself; after that, and
/// when all descriptors are closed, there are no sockets.
fn race(
    prepare: impl Fn(&LwpHandle) -> Vec<i32> + Send + Sync + 'static,
    one: impl Fn(&Testbed, &LwpHandle, &[i32]) + Send + Sync + 'static,
    two: impl Fn(&LwpHandle, &[i32]) + Send + Sync + 'static,
) {
    let both = Arc::new((one, two));
    setup().run(move |bed| {
        let p = bed.process();
        let fds = prepare(&p);
        let (chance, both) = (bed.clone(), both.clone());
        bed.lwps(p.pid(), 2, move |i, p| {
            chance.pause();
            match i {
                0 => both.0(&chance, p, &fds),
                _ => both.1(p, &fds),
            }
        });
        drop(p);
        assert_eq!(sockets(bed.kernel()), 0);
    });
}

/// How often something can be received in a test; the last time may be while the descriptor is closed.
const TIMES: usize = 8;
/// So many sockets are in a ring.
const LONG: usize = 4;

/// Sockets of which each lies in the inbox of the one before, the first one in the last one's; the second in the first one's several times.
/// Only the first has a descriptor.
fn ring(p: &LwpHandle, kind: i32) -> i32 {
    let pairs = [[0; 2]; LONG].map(|_| socketpair(p, kind));
    for (i, [into, _]) in pairs.iter().enumerate() {
        let [_, next] = pairs[(i + 1) % LONG];
        let times = if i == 0 { TIMES } else { 1 };
        (0..times).for_each(|_| assert_eq!(give(p, *into, &[next], None), Ok(1)));
    }
    let [_, first] = pairs[0];
    let others = pairs.iter().flatten().filter(|fd| **fd != first);
    others.for_each(|fd| close(p, *fd));
    first
}

/// Receives from the first of a ring, which is closed meanwhile, and looks whether the others are there.
fn take_second(bed: &Testbed, p: &LwpHandle, first: i32, flags: i32) {
    for _ in 0..TIMES {
        let mut fds = take(p, first, flags).unwrap_or_default();
        if fds.is_empty() {
            return;
        }
        bed.pause();
        for _ in 1..LONG {
            let inner = fds[fds.len() - 1];
            let next = take(p, inner, MSG_PEEK).expect("a look");
            assert_eq!(next.len(), 1, "the next is in its inbox");
            fds.extend(next);
        }
        fds.iter().for_each(|fd| close(p, *fd));
    }
}

#[test]
fn who_receives_a_socket_of_a_ring_that_is_closed_gets_all_of_it_or_nothing() {
    race(
        |p| vec![ring(p, SEQPACKET)],
        |bed, p, fds| take_second(bed, p, fds[0], 0),
        |p, fds| close(p, fds[0]),
    );
}

#[test]
fn who_looks_into_a_ring_that_is_closed_gets_all_of_it_or_nothing() {
    race(
        |p| vec![ring(p, SEQPACKET)],
        |bed, p, fds| take_second(bed, p, fds[0], MSG_PEEK),
        |p, fds| close(p, fds[0]),
    );
}

#[test]
fn who_accepts_from_a_listener_that_is_closed_gets_a_connection_with_all_in_it_or_none() {
    race(
        |p| {
            let listener = named(p, STREAM | NONBLOCK, 0);
            p.listen(listener, TIMES as i32).expect("listens");
            for _ in 0..TIMES {
                let client = p.socket(UNIX, STREAM, 0).expect("a socket") as i32;
                p.connect(client, &name(0), name(0).len())
                    .expect("connected");
                assert_eq!(give(p, client, &[listener], None), Ok(1));
            }
            vec![listener]
        },
        |bed, p, fds| {
            for _ in 0..TIMES / 2 {
                let Ok(one) = p.accept(fds[0], &mut [], &mut []) else {
                    return;
                };
                bed.pause();
                let listener = take(p, one as i32, 0).expect("what was sent")[0];
                let two = p.accept(listener, &mut [], &mut []);
                let again = take(p, two.expect("the next one") as i32, 0);
                close(p, again.expect("what was sent")[0]);
                close(p, listener);
            }
        },
        |p, fds| close(p, fds[0]),
    );
}

#[test]
fn a_socket_that_is_closed_on_its_way_into_a_ring_goes_with_it() {
    race(
        |p| {
            // The second has the first in its inbox and lies nowhere yet.
            let [[a, first], [b, second]] = [[0; 2]; 2].map(|_| socketpair(p, DGRAM));
            assert_eq!(give(p, b, &[first], None), Ok(1));
            close(p, first);
            vec![a, second]
        },
        |_, p, fds| {
            let sent = give(p, fds[0], &[fds[1]], None);
            let gone = [Errno::EBADF, Errno::ECONNREFUSED];
            assert!(sent.is_ok_and(|n| n == 1) || sent.is_err_and(|e| gone.contains(&e)));
            close(p, fds[0]);
        },
        |p, fds| close(p, fds[1]),
    );
}

#[test]
fn two_that_close_the_last_descriptors_of_a_ring_leave_nothing() {
    race(
        |p| {
            let first = ring(p, SEQPACKET);
            let second = take(p, first, MSG_PEEK).expect("a look")[0];
            vec![first, second]
        },
        |_, p, fds| close(p, fds[0]),
        |p, fds| close(p, fds[1]),
    );
}

#[test]
fn a_ring_that_is_closed_while_the_process_forks_stays_with_the_child_or_goes() {
    race(
        |p| vec![ring(p, SEQPACKET)],
        |bed, p, fds| {
            let child = p.rfork(RforkFds::Copy).expect("a process");
            take_second(bed, &child, fds[0], MSG_PEEK);
        },
        |p, fds| close(p, fds[0]),
    );
}

#[test]
fn two_rings_that_are_joined_while_they_are_closed_go() {
    race(
        |p| vec![ring(p, DGRAM), ring(p, DGRAM)],
        |_, p, fds| {
            // It gets a name and no peer, because nobody has that.
            p.connect(fds[0], &[0; 16], 16).expect("disconnected");
            p.bind(fds[0], &name(1), name(1).len()).expect("bound");
            let by = p.socket(UNIX, DGRAM, 0).expect("a socket") as i32;
            let sent = give(p, by, &[fds[1]], Some(1));
            assert!(sent.is_ok_and(|n| n == 1) || sent == Err(Errno::EBADF));
            close(p, by);
            close(p, fds[0]);
        },
        |p, fds| close(p, fds[1]),
    );
}

#[test]
fn whatever_is_sent_received_and_closed_nothing_is_left() {
    setup().run(|bed| {
        let p = bed.process();
        let listener = named(&p, STREAM | NONBLOCK, 0);
        p.listen(listener, 2).expect("listens");
        let _ = [[0; 2]; 2].map(|_| socketpair(&p, DGRAM | NONBLOCK));
        let chance = bed.clone();
        bed.lwps(p.pid(), 3, move |_, p| {
            // Some descriptor of the process, or none.
            let any = || chance.draw(16) as i32;
            for _ in 0..15 {
                match chance.draw(9) {
                    0 => {
                        socketpair(p, STREAM | NONBLOCK);
                    }
                    1 => {
                        let client = p.socket(UNIX, STREAM | NONBLOCK, 0).expect("a socket");
                        let _ = p.connect(client as i32, &name(0), name(0).len());
                    }
                    2 => {
                        let _ = p.accept(any(), &mut [], &mut []);
                    }
                    3..5 => {
                        let _ = give(p, any(), &[any(), any()], None);
                    }
                    5 | 6 => {
                        let _ = take(p, any(), [0, MSG_PEEK][chance.draw(2) as usize]);
                    }
                    _ => {
                        let _ = p.close(any());
                    }
                }
            }
        });
        p.close_range(0, u32::MAX, 0).expect("all closed");
        assert_eq!(sockets(bed.kernel()), 0);
    });
}

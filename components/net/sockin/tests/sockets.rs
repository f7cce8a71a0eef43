//! Sockets of a kernel whose network is its host's: on a Linux process with the sockets of that, and on the simulated host with its
//! loopback, where every switch is drawn from a seed.

use std::sync::Arc;

use abi::{Errno, O_NONBLOCK, Syscalls};
use hypercall::sim::{SimConfig, SimHost};
use inet::INET as OWN;
use kern::Kernel;
use net::consts::*;
use sockin::SOCKIN;
use testing::sockets::*;
use testing::{Setup, Testbed, Thread};

const TCP: i32 = 6;
const POLLIN: i16 = 1;
const POLLOUT: i16 = 4;
const POLLHUP: i16 = 0x10;
const POLLRDHUP: i16 = 0x2000;

fn setup() -> Setup {
    Setup::new().components(&[&net::NET, &SOCKIN]).seeds(300)
}

/// Some port of the loopback.
fn any(family: i32) -> &'static str {
    if family == INET {
        "127.0.0.1:0"
    } else {
        "[::1]:0"
    }
}

#[test]
fn many_connect_and_several_accept() {
    setup().run(|bed| {
        let main = bed.process();
        let family = if bed.seed() % 2 == 0 { INET } else { INET6 };
        let (l, to) = listener(&main, family, any(family), 2);
        let clients: Vec<Thread> = (0..4u8)
            .map(|i| {
                let (on, to) = (bed.clone(), to.clone());
                bed.spawn(&format!("client{i}"), move || {
                    let p = on.process();
                    let fd = socket(&p, family, STREAM, 0);
                    connect(&p, fd, &to).expect("connected");
                    assert_eq!(send(&p, fd, &[i; 3000], 0), Ok(3000));
                    p.shutdown(fd, 1).expect("shut down");
                    let back = recv(&p, fd, 3000, MSG_WAITALL).expect("received");
                    assert_eq!(back, vec![i; 3000]);
                    assert_eq!(recv(&p, fd, 1, 0), Ok(vec![]), "the end");
                })
            })
            .collect();
        bed.lwps(main.pid(), 2, move |_, p| {
            for _ in 0..2 {
                let fd = accept(p, l).expect("accepted");
                let mut all = Vec::new();
                loop {
                    match recv(p, fd, 1000, 0).expect("received") {
                        more if more.is_empty() => break,
                        more => all.extend(more),
                    }
                }
                assert_eq!(send(p, fd, &all, 0), Ok(3000));
                p.close(fd).expect("closed");
            }
        });
        clients.into_iter().for_each(Thread::join);
    });
}

#[test]
fn a_sender_waits_for_room_and_nothing_is_lost() {
    const TOTAL: usize = 6 << 20;
    setup().seeds(40).run(|bed| {
        let main = bed.process();
        let (a, b) = pair(&main);
        let byte = |at: usize| (at / 7 + at / 65_536) as u8;
        bed.lwps(main.pid(), 2, move |side, p| {
            if side == 0 {
                let data: Vec<u8> = (0..TOTAL).map(byte).collect();
                assert_eq!(send(p, a, &data, 0), Ok(TOTAL as i64));
                p.shutdown(a, 1).expect("shut down");
                return;
            }
            let mut at = 0;
            loop {
                let got = recv(p, b, 300_000, 0).expect("received");
                assert!(got.iter().enumerate().all(|(i, x)| *x == byte(at + i)));
                at += got.len();
                if got.is_empty() {
                    break assert_eq!(at, TOTAL);
                }
            }
        });
    });
}

#[test]
fn a_connection_is_made_while_the_caller_does_something_else() {
    setup().run(|bed| {
        let p = bed.process();
        let (l, to) = listener(&p, INET, any(INET), 2);
        let fd = socket(&p, INET, STREAM | O_NONBLOCK, 0);
        match connect(&p, fd, &to) {
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error, Errno::EINPROGRESS);
                assert_eq!(poll_for(&p, fd, POLLOUT, -1), POLLOUT);
                assert_eq!(get(&p, fd, SOL_SOCKET, SO_ERROR), Ok(0));
            }
        }
        assert_eq!(poll_for(&p, l, POLLIN, -1), POLLIN);
        let b = accept(&p, l).expect("accepted");
        assert_eq!(peer(&p, b), Ok(name(&p, fd)));
        assert_eq!(recv(&p, fd, 1, 0), Err(Errno::EAGAIN), "it does not wait");
        assert_eq!(poll_for(&p, l, POLLIN, 0), 0);
    });
}

#[test]
fn who_is_not_there_refuses() {
    setup().run(|bed| {
        let p = bed.process();
        let (gone, to) = bound(&p, INET, STREAM, any(INET));
        p.close(gone).expect("closed");
        let fd = socket(&p, INET, STREAM, 0);
        assert_eq!(connect(&p, fd, &to), Err(Errno::ECONNREFUSED));
        let fd = socket(&p, INET, STREAM | O_NONBLOCK, 0);
        match connect(&p, fd, &to) {
            Err(Errno::EINPROGRESS) => {
                assert_ne!(poll_for(&p, fd, POLLOUT, -1) & POLLHUP, 0);
                let error = get(&p, fd, SOL_SOCKET, SO_ERROR);
                assert_eq!(error, Ok(Errno::ECONNREFUSED.0));
            }
            other => assert_eq!(other, Err(Errno::ECONNREFUSED)),
        }
        assert_eq!(get(&p, fd, SOL_SOCKET, SO_ERROR), Ok(0), "told once");
    });
}

#[test]
fn datagrams_stay_whole_and_say_who_sent_them() {
    setup().run(|bed| {
        let p = bed.process();
        for family in [INET, INET6] {
            let (a, a_name) = bound(&p, family, DGRAM, any(family));
            let (b, b_name) = bound(&p, family, DGRAM, any(family));
            assert_eq!(sendto(&p, a, b"first", &b_name), Ok(5));
            assert_eq!(sendto(&p, a, &[7; 9000], &b_name), Ok(9000));
            assert_eq!(recv(&p, b, 100, MSG_PEEK), Ok(b"first".to_vec()));
            let first = (b"first".to_vec(), a_name.clone());
            assert_eq!(recvfrom(&p, b, 0), Ok(first));
            let mut buf = [0; 100];
            let whole = p.recvfrom(b, &mut buf, 100, MSG_TRUNC, &mut [], &mut []);
            assert_eq!((whole, buf), (Ok(9000), [7; 100]));
            assert_eq!(recv(&p, b, 1, MSG_DONTWAIT), Err(Errno::EAGAIN));
            connect(&p, b, &a_name).expect("connected");
            assert_eq!(send(&p, b, b"", 0), Ok(0));
            assert_eq!(recv(&p, a, 1, 0), Ok(vec![]), "an empty one");
            p.connect(b, &[0; 16], 16).expect("connected to nobody");
            assert_eq!(send(&p, b, b"x", 0), Err(Errno::EDESTADDRREQ));
            let long = vec![0; 70_000];
            assert_eq!(sendto(&p, a, &long, &b_name), Err(Errno::EMSGSIZE));
        }
    });
}

#[test]
fn ends_are_told_by_poll_and_by_what_calls_answer() {
    setup().run(|bed| {
        let p = bed.process();
        let (a, b) = pair(&p);
        assert_eq!(poll_for(&p, b, POLLIN | POLLOUT | POLLRDHUP, 0), POLLOUT);
        send(&p, a, b"last words", 0).expect("sent");
        p.shutdown(a, 1).expect("shut down");
        let all = POLLIN | POLLOUT | POLLRDHUP;
        while poll_for(&p, b, POLLRDHUP, -1) != POLLRDHUP {}
        assert_eq!(poll_for(&p, b, all, 0), all);
        let mut count = [0; 4];
        p.ioctl(b, SIOCINQ as i32, &mut count).expect("SIOCINQ");
        assert_eq!(i32::from_ne_bytes(count), 10);
        assert_eq!(recv(&p, b, 4, MSG_PEEK | MSG_WAITALL), Ok(b"last".to_vec()));
        assert_eq!(recv(&p, b, 100, MSG_WAITALL), Ok(b"last words".to_vec()));
        assert_eq!(recv(&p, b, 100, 0), Ok(vec![]));
        assert_eq!(send(&p, a, b"x", 0), Err(Errno::EPIPE));
        send(&p, b, b"half closed", 0).expect("sent");
        assert_eq!(recv(&p, a, 11, MSG_WAITALL), Ok(b"half closed".to_vec()));
        p.shutdown(b, 1).expect("shut down");
        while poll_for(&p, b, 0, -1) != POLLHUP {}
        let alone = socket(&p, INET, STREAM, 0);
        assert_eq!(recv(&p, alone, 1, 0), Err(Errno::ENOTCONN));
        assert_eq!(p.shutdown(alone, 2), Err(Errno::ENOTCONN));
    });
}

#[test]
fn an_edge_is_told_once_and_again_with_the_next_bytes() {
    const EPOLLET: u32 = 1 << 31;
    setup().run(|bed| {
        let p = bed.process();
        let (a, b) = pair(&p);
        let ep = p.epoll_create1(0).expect("an instance") as i32;
        let event = [&(1 | EPOLLET).to_ne_bytes()[..], &7u64.to_ne_bytes()].concat();
        p.epoll_ctl(ep, 1, b, &event).expect("added");
        let edge = |timeout| {
            let mut event = [0; 12];
            p.epoll_wait(ep, &mut event, 1, timeout).expect("waited") == 1 && event[4] == 7
        };
        for text in [b"one", b"two"] {
            send(&p, a, text, 0).expect("sent");
            assert!(edge(-1), "though nothing was read");
        }
        assert_eq!(recv(&p, b, 6, MSG_WAITALL), Ok(b"onetwo".to_vec()));
        let writer = {
            let (kernel, pid) = (bed.kernel().clone(), p.pid());
            bed.spawn("writer", move || {
                let p = kernel.newlwp(pid).expect("an lwp");
                send(&p, a, b"x", 0).expect("sent");
            })
        };
        // An edge too many may be told, none too few.
        while recv(&p, b, 1, MSG_DONTWAIT) == Err(Errno::EAGAIN) {
            assert!(edge(-1));
        }
        writer.join();
    });
}

#[test]
fn waits_end_by_their_timeouts() {
    setup().run(|bed| {
        let p = bed.process();
        let (a, b) = pair(&p);
        let time = [0u64.to_ne_bytes(), 2000u64.to_ne_bytes()].concat();
        p.setsockopt(b, SOL_SOCKET, SO_RCVTIMEO, &time, 16)
            .expect("set");
        assert_eq!(recv(&p, b, 1, 0), Err(Errno::EAGAIN));
        send(&p, a, b"abc", 0).expect("sent");
        // What there is when the time is up is answered.
        assert_eq!(recv(&p, b, 4, MSG_WAITALL), Ok(b"abc".to_vec()));
        set(&p, b, SOL_SOCKET, SO_RCVLOWAT, 3).expect("set");
        send(&p, a, b"de", 0).expect("sent");
        assert_eq!(recv(&p, b, 10, 0), Ok(b"de".to_vec()));
        let (l, _) = listener(&p, INET, any(INET), 2);
        p.setsockopt(l, SOL_SOCKET, SO_RCVTIMEO, &time, 16)
            .expect("set");
        assert_eq!(accept(&p, l), Err(Errno::EAGAIN));
    });
}

#[test]
fn a_process_that_ends_leaves_its_waits() {
    setup().run(|bed| {
        let dying = bed.process();
        let (l, _) = listener(&dying, INET, any(INET), 2);
        let (a, _b) = pair(&dying);
        let (c, _d) = pair(&dying);
        bed.lwps_of_dying(dying, 3, move |i, p| {
            let ended = match i {
                0 => accept(p, l).map(i64::from),
                1 => recv(p, a, 1, 0).map(|_| 0),
                _ => loop {
                    let sent = send(p, c, &[0; 100_000], 0);
                    if sent.is_err() {
                        break sent;
                    }
                },
            };
            assert_eq!(ended, Err(Errno::EINTR), "waiter {i}");
        });
    });
}

#[test]
fn a_call_that_waits_ends_when_its_descriptor_is_closed() {
    setup().run(|bed| {
        let p = bed.process();
        let (a, b) = pair(&p);
        let reader = {
            let (kernel, pid) = (bed.kernel().clone(), p.pid());
            bed.spawn("reader", move || {
                let p = kernel.newlwp(pid).expect("an lwp");
                assert_eq!(recv(&p, b, 1, 0), Err(Errno::EBADF));
            })
        };
        bed.pause();
        p.close(b).expect("closed");
        assert_eq!(recv(&p, a, 1, 0), Ok(vec![]), "the end");
        reader.join();
    });
}

#[test]
fn options_that_are_known_go_through_and_no_others() {
    setup().seeds(1).run(|bed| {
        let p = bed.process();
        let fd = socket(&p, INET, STREAM, 0);
        for (level, name, value) in [
            (SOL_SOCKET, SO_REUSEADDR, 1),
            (SOL_SOCKET, SO_KEEPALIVE, 1),
            (TCP, 1, 1),
            (TCP, 4, 77),
            (0, 1, 16),
        ] {
            set(&p, fd, level, name, value).expect("set");
            assert_eq!(get(&p, fd, level, name), Ok(value), "{level} {name}");
        }
        assert_eq!(get(&p, fd, SOL_SOCKET, SO_TYPE), Ok(STREAM));
        assert_eq!(get(&p, fd, SOL_SOCKET, SO_DOMAIN), Ok(INET));
        for (level, name) in [
            (SOL_SOCKET, SO_ATTACH_FILTER),
            (SOL_SOCKET, SO_BINDTODEVICE),
            (SOL_SOCKET, SO_MARK),
            (TCP, 35),
            (41, 1000),
            (270, 1),
        ] {
            let long = [0; 64];
            let refused = p.setsockopt(fd, level, name, &long, 64);
            assert_eq!(refused, Err(Errno::ENOPROTOOPT), "{level} {name}");
        }
        let short = p.setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &[1], 1);
        assert_eq!(short, Err(Errno::EINVAL));
        let (l, _) = listener(&p, INET, any(INET), 2);
        assert_eq!(get(&p, l, SOL_SOCKET, SO_ACCEPTCONN), Ok(1));
    });
}

#[test]
fn low_ports_are_the_superusers_whoever_the_host_is() {
    setup().seeds(1).run(|bed| {
        let p = bed.process();
        p.setuid(1000).expect("somebody else");
        for kind in [STREAM, DGRAM] {
            let fd = socket(&p, INET, kind, 0);
            assert_eq!(bind(&p, fd, "127.0.0.1:80"), Err(Errno::EACCES));
        }
        assert_eq!(p.socket(INET, SOCK_RAW, 1), Err(Errno::EPERM));
    });
}

#[test]
fn what_there_is_not_is_refused() {
    setup().seeds(1).run(|bed| {
        let p = bed.process();
        for (kind, protocol, error) in [
            (SOCK_RAW, 1, Errno::ESOCKTNOSUPPORT),
            (SOCK_SEQPACKET, 0, Errno::ESOCKTNOSUPPORT),
            (STREAM, 17, Errno::EPROTONOSUPPORT),
            (DGRAM, 6, Errno::EPROTONOSUPPORT),
        ] {
            assert_eq!(p.socket(INET, kind, protocol), Err(error));
        }
        assert_eq!(p.socket(17, SOCK_RAW, 0), Err(Errno::EAFNOSUPPORT));
        let fd = socket(&p, INET, STREAM, 0);
        let v6 = sockaddr("[::1]:0");
        assert_eq!(p.bind(fd, &v6, v6.len()), Err(Errno::EAFNOSUPPORT));
        assert_eq!(p.bind(fd, &v6, 3), Err(Errno::EAFNOSUPPORT));
        assert_eq!(p.bind(fd, &sockaddr(any(INET)), 10), Err(Errno::EINVAL));
    });
}

#[test]
fn a_kernel_has_inet_or_sockin() {
    for order in [[&SOCKIN, &OWN], [&OWN, &SOCKIN]] {
        let run = SimHost::run(SimConfig::new(1), move |host| {
            let builder = Kernel::builder(host.clone()).component(&net::NET);
            let both = order.iter().fold(builder, |b, c| b.component(c));
            both.boot().err()
        });
        assert_eq!(run.result.expect("no panic"), Some(Errno::EEXIST));
        let console = String::from_utf8_lossy(&run.console).into_owned();
        assert!(console.contains("inet or sockin"), "{console}");
    }
}

/// Without threads nobody could wake a call that waits; those that do not wait are done.
#[test]
fn a_kernel_without_threads_does_not_wait() {
    let setup = setup().param("RUMP_THREADS", "0").seeds(1);
    setup.run(|bed: &Arc<Testbed>| {
        let p = bed.process();
        let (a, a_name) = bound(&p, INET, DGRAM, any(INET));
        assert_eq!(recv(&p, a, 1, 0), Err(Errno::EOPNOTSUPP));
        sendto(&p, a, b"to myself", &a_name).expect("sent");
        assert_eq!(recv(&p, a, 100, 0), Ok(b"to myself".to_vec()));
    });
}

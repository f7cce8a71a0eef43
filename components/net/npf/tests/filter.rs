//! What rules do to programs of several kernels. Time is the simulated host's.

mod common;

use abi::{Errno, Syscalls};
use common::*;

#[test]
fn answers_pass_and_strangers_do_not() {
    worlds(8, 1500, |w| {
        w.r.load("pass forward on eth0 via eth1 proto { tcp, udp }\nblock forward");
        for (family, server, here) in [
            (INET, "10.0.2.2:7", "10.0.1.2:9"),
            (INET6, "[fd02::2]:7", "[fd01::2]:9"),
        ] {
            let (fd, _) = bound(&w.s.p, family, DGRAM, server);
            let (mine, me) = bound(&w.a.p, family, DGRAM, here);
            // A stranger's datagram is lost, an answer is not.
            sendto(&w.s.p, socket(&w.s.p, family, DGRAM, 0), b"unasked", here).expect("sent");
            sendto(&w.a.p, mine, b"ask", server).expect("sent");
            let (data, from) = recvfrom(&w.s.p, fd, 0).expect("received");
            assert_eq!((&data[..], from), (&b"ask"[..], me.clone()));
            sendto(&w.s.p, fd, b"answer", &me).expect("sent");
            assert_eq!(recvfrom(&w.a.p, mine, 0).expect("received").0, b"answer");
            let (fd, served) = connection(&w.a.p, &w.s.p, family, server, server);
            transfer((&w.a.p, fd), (&w.s.p, served), 30_000);
            transfer((&w.s.p, served), (&w.a.p, fd), 30_000);
            w.a.p.close(fd).expect("closed");
            assert_eq!(read(&w.s.p, served, 1), Ok(vec![]));
            w.s.p.close(served).expect("closed");
        }
        assert_eq!(w.r.counted("block forward"), 2);
        let states = w.r.states();
        assert_eq!(states.len(), 4, "{states:?}");
        assert!(
            states[0].contains(" closed ") && states[2].contains(" established "),
            "{states:?}"
        );
    });
}

#[test]
fn who_is_rejected_is_told() {
    worlds(8, 1500, |w| {
        w.r.load(
            "reject forward to port 1 proto { tcp, udp }\n\
             reject forward to port 2 proto { tcp, udp } with prohibited\n\
             block forward proto icmp",
        );
        for (family, to, prohibited) in [
            (INET, "10.0.2.2", Errno::EHOSTUNREACH),
            (INET6, "[fd02::2]", Errno::EACCES),
        ] {
            for (port, errno) in [(1, Errno::ECONNREFUSED), (2, prohibited)] {
                let to = format!("{to}:{port}");
                let fd = socket(&w.a.p, family, STREAM, 0);
                assert_eq!(connect(&w.a.p, fd, &to), Err(errno), "TCP {to}");
                let fd = socket(&w.a.p, family, DGRAM, 0);
                connect(&w.a.p, fd, &to).expect("connected");
                write(&w.a.p, fd, b"anybody?").expect("sent");
                assert_eq!(read(&w.a.p, fd, 1), Err(errno), "UDP {to}");
            }
        }
        assert!(w.r.states().is_empty());
    });
}

#[test]
fn a_hosts_own_rules_are_for_its_programs() {
    worlds(8, 1500, |w| {
        w.a.load(
            "reject out proto tcp to 10.0.2.2 port 1\n\
             block out proto udp to port 2\n\
             reject in proto { tcp, udp } to port 3\n\
             block in",
        );
        let fd = socket(&w.a.p, INET, STREAM, 0);
        assert_eq!(connect(&w.a.p, fd, "10.0.2.2:1"), Err(Errno::ECONNREFUSED));
        let fd = socket(&w.a.p, INET, DGRAM, 0);
        assert_eq!(sendto(&w.a.p, fd, b"x", "10.0.2.2:2"), Err(Errno::EPERM));
        let fd = socket(&w.s.p, INET, STREAM, 0);
        assert_eq!(connect(&w.s.p, fd, "10.0.1.2:3"), Err(Errno::ECONNREFUSED));
        let fd = socket(&w.s.p, INET6, DGRAM, 0);
        connect(&w.s.p, fd, "[fd01::2]:3").expect("connected");
        write(&w.s.p, fd, b"x").expect("sent");
        assert_eq!(read(&w.s.p, fd, 1), Err(Errno::ECONNREFUSED));
        // Its own connections work, by states that no rule was needed for.
        for server in ["10.0.2.2:80", "[fd02::2]:80"] {
            let family = if server.starts_with('[') { INET6 } else { INET };
            let (fd, served) = connection(&w.a.p, &w.s.p, family, server, server);
            transfer((&w.s.p, served), (&w.a.p, fd), 10_000);
        }
        // What stays in the kernel is not looked at.
        let (fd, served) = connection(&w.a.p, &w.a.p, INET, "10.0.1.2:80", "10.0.1.2:80");
        transfer((&w.a.p, served), (&w.a.p, fd), 10);
        // Nobody is at a port of the router: its own reset passes by the state of what it answers.
        w.r.load("pass in proto tcp\nblock");
        let fd = socket(&w.a.p, INET, STREAM, 0);
        assert_eq!(connect(&w.a.p, fd, "10.0.1.1:5"), Err(Errno::ECONNREFUSED));
    });
}

#[test]
fn new_rules_keep_connections_and_bad_ones_keep_the_old() {
    worlds(4, 1500, |w| {
        w.r.load("pass forward proto tcp to port 80\nblock forward");
        let (fd, served) = connection(&w.a.p, &w.s.p, INET, "10.0.2.2:80", "10.0.2.2:80");
        w.r.load("block forward");
        transfer((&w.a.p, fd), (&w.s.p, served), 10_000);
        let refused = run(&w.r.kernel, |cx| {
            npf::Npf::of(cx).expect("a filter").load(cx, "pass\nblok")
        });
        let refused = refused.expect_err("no such word").to_string();
        assert!(refused.starts_with("2:1: \"blok\""), "{refused}");
        assert!(
            w.r.rules().contains("\nblock forward # 0 packets"),
            "{}",
            w.r.rules()
        );
        w.r.load("");
        assert_eq!((w.r.rules(), w.r.states().len()), (String::new(), 0));
        let (fd, served) = connection(&w.b.p, &w.s.p, INET, "10.0.2.2:81", "10.0.2.2:81");
        transfer((&w.b.p, fd), (&w.s.p, served), 10);
    });
}

/// NetBSD's npf and Linux keep connections that new rules would not let begin, and let the superuser drop them.
#[test]
fn what_is_flushed_is_asked_of_the_rules_again() {
    worlds(4, 1500, |w| {
        w.r.load("rdr on eth0 proto tcp to 10.0.1.1 port 8080 -> 10.0.2.2 port 80\npass forward");
        let open = |to: &str, at: &str| connection(&w.a.p, &w.s.p, INET, to, at);
        let first = open("10.0.1.1:8080", "10.0.2.2:80");
        let second = open("10.0.2.2:81", "10.0.2.2:81");
        w.r.load("table old { 10.0.2.2 }\nblock forward proto tcp to <old> port 80\npass forward");
        transfer((&w.a.p, first.0), (&w.s.p, first.1), 1000);
        let flush = |command: &str| {
            run(&w.r.kernel, |cx| {
                npf::Npf::of(cx).expect("a filter").flush(cx, command)
            })
        };
        assert_eq!(flush("flush inet6"), Ok(0));
        assert_eq!(flush("flush proto udp"), Ok(0));
        assert_eq!(flush("flush from ! { (eth0), 10.0.1.2 }"), Ok(0));
        // What it was redirected to, as the rule has it.
        assert_eq!(flush("flush proto tcp to 10.0.1.1"), Ok(0));
        assert_eq!(w.r.states().len(), 2);
        assert_eq!(flush("flush proto tcp to <old> port 80"), Ok(1));
        let states = w.r.states();
        assert_eq!(states.len(), 1, "{states:?}");
        assert!(states[0].contains(" 10.0.2.2:81 "), "{states:?}");
        transfer((&w.a.p, second.0), (&w.s.p, second.1), 1000);
        // What the other end sends is of no connection that the rules let begin.
        w.r.load("block forward proto tcp from 10.0.2.2 port 80\npass forward");
        write(&w.s.p, first.1, b"lost").expect("taken");
        transfer((&w.s.p, second.1), (&w.a.p, second.0), 1000);
        assert!(w.r.counted("block forward proto tcp from 10.0.2.2 port 80") > 0);
        assert_eq!(flush("flush"), Ok(1));
        assert!(w.r.states().is_empty());
        for (command, at) in [
            ("flush on eth0", "1:7: \"on\""),
            ("flush to port 80", "1:7: ports are of"),
            ("flush proto icmp icmp-type 8", "1:18: connections"),
            ("flush to <new>", "1:11: there is no table"),
            ("flush\nflush", "2:1: one flush"),
            ("flush -> 1.1.1.1", "1:7: "),
            ("empty", "1:1: \"empty\": want flush"),
            ("", "1:1: the line ends; want flush"),
        ] {
            let refused = flush(command).expect_err(command).to_string();
            assert!(refused.starts_with(at), "{refused}");
        }
    });
}

#[test]
fn a_flood_does_not_lock_out_what_is_established() {
    worlds(2, 1500, |w| {
        w.r.load("set states 64\npass forward");
        let (fd, served) = connection(&w.a.p, &w.s.p, INET, "10.0.2.2:80", "10.0.2.2:80");
        transfer((&w.a.p, fd), (&w.s.p, served), 1000);
        // Nobody is there, and nobody answers: the second router has no way to them.
        w.q.load("block in\nblock forward to 10.9.0.0/16");
        let flood = socket(&w.b.p, INET, DGRAM, 0);
        for n in 0..2000 {
            sendto(
                &w.b.p,
                flood,
                b"x",
                &format!("10.9.{}.{}:{}", n / 256, n % 256, 1000 + n),
            )
            .expect("sent");
        }
        // A new connection finds its place, and the old one has kept its.
        let (new, new_served) = connection(&w.a.p, &w.s.p, INET, "10.0.2.2:81", "10.0.2.2:81");
        transfer((&w.a.p, new), (&w.s.p, new_served), 1000);
        transfer((&w.s.p, served), (&w.a.p, fd), 1000);
        let states = w.r.states();
        assert!(states.len() <= 64, "{}", states.len());
        let count = |what: &str| states.iter().filter(|state| state.contains(what)).count();
        assert_eq!(count("established"), 2, "{states:?}");
        assert!(count("opening") > 30, "{states:?}");
    });
}

#[test]
fn a_table_of_established_connections_takes_no_more() {
    worlds(2, 1500, |w| {
        w.r.load("set states 3\npass forward");
        let open = |port: u16| {
            let name = format!("10.0.2.2:{port}");
            connection(&w.a.p, &w.s.p, INET, &name, &name)
        };
        let ends: Vec<_> = (80..83).map(open).collect();
        // What follows on the same way comes behind it.
        let fd = socket(&w.a.p, INET, DGRAM, 0);
        sendto(&w.a.p, fd, b"x", "10.0.2.2:9").expect("sent");
        for (fd, served) in ends {
            transfer((&w.a.p, fd), (&w.s.p, served), 1000);
        }
        assert!(
            w.r.rules().contains("0 invalid, 1 for want of room"),
            "{}",
            w.r.rules()
        );
    });
}

#[test]
fn packets_that_are_logged_are_in_the_messages() {
    worlds(1, 1500, |w| {
        w.r.load("block log forward proto udp to port 9\npass");
        let fd = socket(&w.a.p, INET, DGRAM, 0);
        bind(&w.a.p, fd, "10.0.1.2:5").expect("bound");
        for _ in 0..50 {
            sendto(&w.a.p, fd, b"x", "10.0.2.2:9").expect("sent");
        }
        let (fd, served) = connection(&w.a.p, &w.s.p, INET, "10.0.2.2:80", "10.0.2.2:80");
        transfer((&w.a.p, fd), (&w.s.p, served), 10);
        let messages = String::from_utf8_lossy(&w.r.kernel.messages()).into_owned();
        let line = "npf: forward eth0 udp 10.0.1.2:5 > 10.0.2.2:9 29 bytes: block forward log proto udp to port 9";
        assert!(messages.contains(line), "{messages}");
        assert!(messages.matches("npf:").count() <= 20, "{messages}");
    });
}

#[test]
fn the_device_is_the_superusers_and_takes_all_or_nothing() {
    worlds(1, 1500, |w| {
        let p = &w.a.p;
        let fd = p
            .openat(abi::AT_FDCWD, c"/dev/npf", abi::O_RDWR, 0)
            .expect("opened") as i32;
        assert_eq!(read(p, fd, 1000), Ok(vec![]));
        let text = b"pass out\nblock in log\n";
        assert_eq!(write(p, fd, text), Ok(text.len() as i64));
        assert_eq!(write(p, fd, b"pass\n  blck in"), Err(Errno::EINVAL));
        let mut why = [0; 100];
        let n = p.pread64(fd, &mut why, 100, 0).expect("read") as usize;
        let why = String::from_utf8_lossy(&why[..n]);
        assert!(
            why.starts_with("2:3: \"blck\": a line begins with"),
            "{why}"
        );
        let again = p
            .openat(abi::AT_FDCWD, c"/dev/npf", abi::O_RDONLY, 0)
            .expect("opened") as i32;
        let rules = String::from_utf8(read(p, again, 1000).expect("read")).expect("text");
        assert!(
            rules.contains("\npass out # 0 packets 0 bytes\nblock in log # 0"),
            "{rules}"
        );
        // What is read can be written.
        assert_eq!(write(p, fd, rules.as_bytes()), Ok(rules.len() as i64));
        let states = p
            .openat(abi::AT_FDCWD, c"/dev/npfstates", abi::O_RDWR, 0)
            .expect("opened") as i32;
        let (one, _) = bound(p, INET, DGRAM, "10.0.1.2:5");
        sendto(p, one, b"x", "10.0.2.2:6").expect("sent");
        let line = String::from_utf8(read(p, states, 1000).expect("read")).expect("text");
        let begin = "udp 10.0.1.2:5 10.0.2.2:6 10.0.1.2:5 10.0.2.2:6 ";
        assert!(line.starts_with(begin), "{line}");
        assert_eq!(write(p, states, b"empty"), Err(Errno::EINVAL));
        assert_eq!(write(p, states, b"flush"), Ok(5));
        assert_eq!(p.pread64(states, &mut [0; 10], 10, 0), Ok(0));
        p.setresuid(1000, 1000, 1000).expect("another user");
        for name in [c"/dev/npf", c"/dev/npfstates"] {
            assert_eq!(
                p.openat(abi::AT_FDCWD, name, abi::O_RDONLY, 0),
                Err(Errno::EACCES)
            );
        }
    });
}

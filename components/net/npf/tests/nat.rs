//! Translation between kernels: everything that connections do goes on to work, and nobody outside sees an address of inside.

mod common;

use abi::{Errno, Syscalls};
use common::*;

const MASQUERADE: &str = "nat on eth1 from { 10.0.1.0/24, 10.0.3.0/24, fd01::/64, fd03::/64 } -> (eth1)\n\
                          pass forward on eth0 via eth1\npass forward on eth2 via eth1\nblock forward\nblock in on eth1";

const FORWARD: &str = "rdr on eth1 proto tcp to (eth1) port 8080 -> 10.0.1.2 port 80\n\
                       pass forward proto tcp to 10.0.1.2 port 80\n";

#[test]
fn two_hosts_share_an_address_also_from_the_same_port() {
    worlds(8, 1500, |w| {
        w.r.load(MASQUERADE);
        let sides = [
            (
                INET,
                ["10.0.1.2:5000", "10.0.3.2:5000"],
                "10.0.2.2:7",
                "10.0.9.1:",
            ),
            (
                INET6,
                ["[fd01::2]:5000", "[fd03::2]:5000"],
                "[fd02::2]:7",
                "[fd09::1]:",
            ),
        ];
        for (family, [at_a, at_b], server, outside) in sides {
            let (echo, _) = bound(&w.s.p, family, DGRAM, server);
            let (one, _) = bound(&w.a.p, family, DGRAM, at_a);
            let (two, _) = bound(&w.b.p, family, DGRAM, at_b);
            let mut seen = Vec::new();
            for (node, fd) in [(&w.a, one), (&w.b, two), (&w.a, one)] {
                sendto(&node.p, fd, b"who am I?", server).expect("sent");
                let (_, from) = recvfrom(&w.s.p, echo, 0).expect("received");
                assert!(from.starts_with(outside), "{from}");
                sendto(&w.s.p, echo, from.as_bytes(), &from).expect("sent");
                let (data, answered) = recvfrom(&node.p, fd, 0).expect("received");
                assert_eq!((&data[..], &answered[..]), (from.as_bytes(), server));
                seen.push(from);
            }
            assert_eq!(
                seen[0],
                format!("{outside}5000"),
                "a port that is free is kept"
            );
            assert_ne!(seen[0], seen[1]);
            assert_eq!(seen[0], seen[2]);

            let (mut ends, mut peers) = (Vec::new(), Vec::new());
            let l = socket(&w.s.p, family, STREAM, 0);
            bind(&w.s.p, l, server).expect("bound");
            w.s.p.listen(l, 5).expect("listens");
            for (node, at) in [(&w.a, at_a), (&w.b, at_b)] {
                let fd = socket(&node.p, family, STREAM, 0);
                bind(&node.p, fd, at).expect("bound");
                connect(&node.p, fd, server).expect("connected");
                let served = w.s.p.accept4(l, &mut [], &mut [], 0).expect("accepted") as i32;
                let from = peer(&w.s.p, served).expect("a peer");
                assert!(from.starts_with(outside), "{from}");
                peers.push(from);
                ends.push((node, fd, served));
            }
            assert_ne!(peers[0], peers[1]);
            for (node, fd, served) in ends {
                transfer((&node.p, fd), (&w.s.p, served), 30_000);
                transfer((&w.s.p, served), (&node.p, fd), 30_000);
                node.p.close(fd).expect("closed");
                assert_eq!(read(&w.s.p, served, 1), Ok(vec![]));
            }
        }
        // Strangers get nowhere.
        let stranger = socket(&w.s.p, INET, DGRAM, 0);
        sendto(&w.s.p, stranger, b"x", "10.0.1.2:5000").expect("sent");
        sendto(&w.s.p, stranger, b"x", "10.0.9.1:5000").expect("sent");
        let (fd, served) = connection(&w.a.p, &w.s.p, INET, "10.0.2.2:81", "10.0.2.2:81");
        transfer((&w.a.p, fd), (&w.s.p, served), 10);
        assert_eq!(
            (
                w.r.counted("block forward"),
                w.r.counted("block in on eth1")
            ),
            (1, 1)
        );
    });
}

#[test]
fn echoes_are_told_apart_by_their_identifiers() {
    worlds(4, 1500, |w| {
        w.r.load(MASQUERADE);
        for (family, protocol, request, server) in
            [(INET, 1, 8, "10.0.2.2:0"), (INET6, 58, 128, "[fd02::2]:0")]
        {
            let open = |node: &Node, at: &str| {
                let fd = socket(&node.p, family, DGRAM, protocol);
                bind(&node.p, fd, at).expect("bound");
                fd
            };
            let any = if family == INET {
                "0.0.0.0:77"
            } else {
                "[::]:77"
            };
            let (one, two) = (open(&w.a, any), open(&w.b, any));
            for (node, fd, text) in [(&w.a, one, b"one"), (&w.b, two, b"two")] {
                let ask = [&[request, 0, 0, 0, 0, 0, 0, 1][..], text].concat();
                sendto(&node.p, fd, &ask, server).expect("sent");
                let (answer, _) = recvfrom(&node.p, fd, 0).expect("received");
                assert_eq!(
                    (&answer[4..6], &answer[8..]),
                    (&77u16.to_be_bytes()[..], &text[..])
                );
                node.p.close(fd).expect("closed");
            }
        }
    });
}

#[test]
fn a_port_leads_to_a_host_behind() {
    worlds(8, 1500, |w| {
        w.r.load(
            "rdr on eth1 proto { tcp, udp } to (eth1) port 8080 -> 10.0.1.2 port 80\n\
             rdr on eth1 inet6 proto { tcp, udp } to port 8080 -> fd01::2 port 80\n\
             # Those inside come by the address of outside, too, and must be answered through here.\n\
             rdr on eth2 proto tcp to 10.0.9.1 port 8080 -> 10.0.1.2 port 80\n\
             nat on eth0 from 10.0.3.0/24 to 10.0.1.2 -> (eth0)\n\
             pass forward proto { tcp, udp } to { 10.0.1.2, fd01::2 } port 80\nblock forward",
        );
        let sides = [
            (INET, "10.0.9.1:8080", "10.0.1.2:80", "10.0.2.2:"),
            (INET6, "[fd09::1]:8080", "[fd01::2]:80", "[fd02::2]:"),
        ];
        for (family, outside, inside, client) in sides {
            let (fd, served) = connection(&w.s.p, &w.a.p, family, outside, inside);
            assert!(peer(&w.a.p, served).expect("a peer").starts_with(client));
            assert_eq!(peer(&w.s.p, fd).expect("a peer"), outside);
            transfer((&w.s.p, fd), (&w.a.p, served), 30_000);
            transfer((&w.a.p, served), (&w.s.p, fd), 30_000);
            let (echo, _) = bound(&w.a.p, family, DGRAM, inside);
            let fd = socket(&w.s.p, family, DGRAM, 0);
            connect(&w.s.p, fd, outside).expect("connected");
            write(&w.s.p, fd, b"ask").expect("sent");
            let (_, from) = recvfrom(&w.a.p, echo, 0).expect("received");
            sendto(&w.a.p, echo, b"answer", &from).expect("sent");
            assert_eq!(read(&w.s.p, fd, 100), Ok(b"answer".to_vec()));
            // When nobody is there any more, the error comes from where it was asked.
            w.a.p.close(echo).expect("closed");
            write(&w.s.p, fd, b"ask").expect("sent");
            assert_eq!(read(&w.s.p, fd, 1), Err(Errno::ECONNREFUSED));
        }
        let (fd, served) = connection(&w.b.p, &w.a.p, INET, "10.0.9.1:8080", "10.0.1.2:80");
        assert!(
            peer(&w.a.p, served)
                .expect("a peer")
                .starts_with("10.0.1.1:")
        );
        transfer((&w.b.p, fd), (&w.a.p, served), 30_000);
    });
}

#[test]
fn who_is_redirected_and_rejected_is_told_by_whom_it_asked() {
    worlds(4, 1500, |w| {
        w.r.load(
            "rdr on eth1 proto { tcp, udp } to (eth1) port 8080 -> 10.0.1.2 port 80\nreject forward on eth1",
        );
        let fd = socket(&w.s.p, INET, STREAM, 0);
        assert_eq!(
            connect(&w.s.p, fd, "10.0.9.1:8080"),
            Err(Errno::ECONNREFUSED)
        );
        let fd = socket(&w.s.p, INET, DGRAM, 0);
        connect(&w.s.p, fd, "10.0.9.1:8080").expect("connected");
        write(&w.s.p, fd, b"x").expect("sent");
        assert_eq!(read(&w.s.p, fd, 1), Err(Errno::ECONNREFUSED));
    });
}

#[test]
fn errors_come_back_to_who_caused_them() {
    worlds(8, 1280, |w| {
        w.r.load(MASQUERADE);
        let (server, _) = bound(&w.s.p, INET, DGRAM, "10.0.2.2:7");
        // The path's MTU, told by the router outside.
        let fd = socket(&w.a.p, INET, DGRAM, 0);
        set(&w.a.p, fd, 0, 10, 2).expect("IP_PMTUDISC_DO");
        connect(&w.a.p, fd, "10.0.2.2:7").expect("connected");
        write(&w.a.p, fd, &[0; 1400]).expect("sent into the void");
        assert_eq!(read(&w.a.p, fd, 1), Err(Errno::EMSGSIZE));
        assert_eq!(get(&w.a.p, fd, 0, 14), Ok(1280), "IP_MTU");
        write(&w.a.p, fd, &[0; 1252]).expect("sent");
        assert_eq!(recvfrom(&w.s.p, server, 0).expect("received").0.len(), 1252);
        // Nobody is at the port; nobody has hops left: what comes back says what was sent, and who says so.
        for (family, to, hops) in [
            (INET, "10.0.2.2:9", [(0, 2, 1), (0, 11, 1)]),
            (INET6, "[fd02::2]:9", [(41, 16, 1), (41, 25, 1)]),
        ] {
            let fd = socket(&w.b.p, family, DGRAM, 0);
            connect(&w.b.p, fd, to).expect("connected");
            write(&w.b.p, fd, b"x").expect("sent");
            assert_eq!(read(&w.b.p, fd, 1), Err(Errno::ECONNREFUSED), "{to}");
            let fd = socket(&w.b.p, family, DGRAM, 0);
            for (ttl, routers) in [
                (1, ["10.0.3.1:0", "[fd03::1]:0"]),
                (2, ["10.0.9.2:0", "[fd09::2]:0"]),
            ] {
                let (level, option, _) = hops[0];
                set(&w.b.p, fd, level, option, ttl).expect("a time to live");
                let (level, option, on) = hops[1];
                set(&w.b.p, fd, level, option, on).expect("errors wait");
                sendto(&w.b.p, fd, b"far", to).expect("sent");
                assert_eq!(
                    recvfrom(&w.b.p, fd, 0),
                    Err(Errno::EHOSTUNREACH),
                    "as a pending error"
                );
                let (data, control, _, about) =
                    recvmsg(&w.b.p, fd, MSG_ERRQUEUE).expect("an error");
                assert_eq!((&data[..], &about[..]), (&b"far"[..], to));
                let router = shown(&control[0].2[16..]);
                assert!(routers.contains(&router.as_str()), "{router}");
            }
        }
    });
}

#[test]
fn connections_get_through_a_narrow_path_and_long_datagrams_in_parts() {
    worlds(8, 1280, |w| {
        w.r.load(&format!("{FORWARD}{MASQUERADE}"));
        for (family, server) in [(INET, "10.0.2.2:80"), (INET6, "[fd02::2]:80")] {
            let (fd, served) = connection(&w.a.p, &w.s.p, family, server, server);
            transfer((&w.a.p, fd), (&w.s.p, served), 60_000);
            transfer((&w.s.p, served), (&w.a.p, fd), 60_000);
            let data: Vec<u8> = (0..20_000u32).map(|i| (i * 7) as u8).collect();
            let (echo, _) = bound(&w.s.p, family, DGRAM, server);
            let fd = socket(&w.b.p, family, DGRAM, 0);
            if family == INET {
                set(&w.b.p, fd, 0, 10, 0).expect("IP_PMTUDISC_DONT");
            } else {
                // The first is lost, and tells how long parts may be: who sends waits for that.
                set(&w.b.p, fd, 41, 25, 1).expect("IPV6_RECVERR");
                sendto(&w.b.p, fd, &data, server).expect("sent");
                assert_eq!(recvfrom(&w.b.p, fd, 0), Err(Errno::EMSGSIZE));
            }
            sendto(&w.b.p, fd, &data, server).expect("sent");
            let (got, from) = recvfrom(&w.s.p, echo, 0).expect("received");
            assert!(
                got == data && !from.contains("10.0.3.2") && !from.contains("fd03"),
                "{from}"
            );
            sendto(&w.s.p, echo, &data, &from).expect("sent");
            while let Err(error) = recvfrom(&w.b.p, fd, 0) {
                assert_eq!(error, Errno::EMSGSIZE, "said twice");
            }
        }
        // And from outside, whose segments are too long for nobody.
        let (fd, served) = connection(&w.s.p, &w.a.p, INET, "10.0.9.1:8080", "10.0.1.2:80");
        transfer((&w.s.p, fd), (&w.a.p, served), 60_000);
        transfer((&w.a.p, served), (&w.s.p, fd), 60_000);
    });
}

#[test]
fn connections_both_ways_end_in_order_under_many_seeds() {
    worlds(64, 1500, |w| {
        w.r.load(&format!("{FORWARD}{MASQUERADE}"));
        let (out, out_served) = connection(&w.b.p, &w.s.p, INET, "10.0.2.2:80", "10.0.2.2:80");
        let (inn, inn_served) = connection(&w.s.p, &w.a.p, INET, "10.0.9.1:8080", "10.0.1.2:80");
        transfer((&w.b.p, out), (&w.s.p, out_served), 50_000);
        transfer((&w.s.p, inn), (&w.a.p, inn_served), 50_000);
        for (near, fd, far, other) in [(&w.b, out, &w.s, out_served), (&w.s, inn, &w.a, inn_served)]
        {
            near.p.shutdown(fd, 1).expect("shut down");
            assert_eq!(read(&far.p, other, 1), Ok(vec![]));
            transfer((&far.p, other), (&near.p, fd), 1000);
            far.p.close(other).expect("closed");
            assert_eq!(read(&near.p, fd, 1), Ok(vec![]));
        }
        let rules = w.r.rules();
        assert!(rules.contains(" 0 invalid, 0 for want"), "{rules}");
        let states = w.r.states();
        assert!(
            states.len() == 2
                && states
                    .iter()
                    .all(|s| s.contains(" closed ") || s.contains(" closing ")),
            "{states:?}"
        );
    });
}

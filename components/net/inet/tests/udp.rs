//! UDP, ping and raw sockets of a kernel over its loopback interface.

mod common;

use abi::{Errno, Syscalls};
use common::*;
use testing::program;

const MSG_PEEK: i32 = 2;
const MSG_TRUNC: i32 = 0x20;
const MSG_DONTWAIT: i32 = 0x40;
const MSG_ERRQUEUE: i32 = 0x2000;
const SOL_SOCKET: i32 = 1;
const REUSEADDR: i32 = 2;
const REUSEPORT: i32 = 15;
const SO_ERROR: i32 = 4;

#[test]
fn datagrams_go_both_ways_over_both_families() {
    let (_kernel, p) = process();
    for (family, any) in [(INET, "127.0.0.1:0"), (INET6, "[::1]:0")] {
        let (a, a_name) = bound(&p, family, DGRAM, any);
        let (b, b_name) = bound(&p, family, DGRAM, any);
        assert_eq!(sendto(&p, a, b"there", &b_name), Ok(5));
        assert_eq!(recvfrom(&p, b, 0), Ok((b"there".to_vec(), a_name.clone())));
        connect(&p, b, &a_name).expect("connected");
        assert_eq!(peer(&p, b), Ok(a_name));
        assert_eq!(write(&p, b, b"back"), Ok(4));
        assert_eq!(write(&p, b, b""), Ok(0), "an empty datagram is one too");
        assert_eq!(recvfrom(&p, a, 0), Ok((b"back".to_vec(), b_name.clone())));
        assert_eq!(recvfrom(&p, a, 0), Ok((vec![], b_name)));
        assert_eq!(recvfrom(&p, a, MSG_DONTWAIT), Err(Errno::EAGAIN));
    }
}

#[test]
fn the_longest_datagram_passes_and_a_longer_one_does_not() {
    let (_kernel, p) = process();
    let (a, name) = bound(&p, INET, DGRAM, "127.0.0.1:0");
    let data: Vec<u8> = (0..65_507u32).map(|i| i as u8).collect();
    assert_eq!(sendto(&p, a, &data, &name), Ok(65_507));
    assert_eq!(recvfrom(&p, a, 0).expect("received").0, data);
    assert_eq!(sendto(&p, a, &[0; 65_508], &name), Err(Errno::EMSGSIZE));
}

#[test]
fn a_look_leaves_the_datagram_and_truncation_is_told() {
    let (_kernel, p) = process();
    let (a, name) = bound(&p, INET, DGRAM, "127.0.0.1:0");
    sendto(&p, a, b"0123456789", &name).expect("sent");
    let mut four = [0; 4];
    let recv = |buf: &mut [u8], flags| p.recvfrom(a, buf, buf.len(), flags, &mut [], &mut [0; 4]);
    assert_eq!(recv(&mut four, MSG_PEEK), Ok(4));
    assert_eq!(recv(&mut four, MSG_PEEK | MSG_TRUNC), Ok(10));
    assert_eq!(&four, b"0123");
    assert_eq!(recv(&mut four, 0), Ok(4), "the rest is gone");
    assert_eq!(recv(&mut four, MSG_DONTWAIT), Err(Errno::EAGAIN));
}

#[test]
fn a_connected_socket_hears_its_peer_only_and_is_told_that_nobody_is_there() {
    let (_kernel, p) = process();
    let (a, a_name) = bound(&p, INET, DGRAM, "127.0.0.1:0");
    let (b, b_name) = bound(&p, INET, DGRAM, "127.0.0.1:0");
    let (c, _) = bound(&p, INET, DGRAM, "127.0.0.1:0");
    connect(&p, a, &b_name).expect("connected");
    sendto(&p, c, b"stranger", &a_name).expect("sent");
    sendto(&p, b, b"friend", &a_name).expect("sent");
    assert_eq!(recvfrom(&p, a, 0).expect("received").0, b"friend");
    p.close(b).expect("closed");
    write(&p, a, b"into nothing").expect("sent");
    assert_eq!(poll(&p, a, 1) & 8, 8, "POLLERR");
    assert_eq!(get(&p, a, SOL_SOCKET, SO_ERROR), Ok(Errno::ECONNREFUSED.0));
    write(&p, a, b"again").expect("sent");
    assert_eq!(recvfrom(&p, a, 0), Err(Errno::ECONNREFUSED));
    // AF_UNSPEC takes the connection back.
    p.connect(a, &[0; 16], 16).expect("disconnected");
    assert_eq!(peer(&p, a), Err(Errno::ENOTCONN));
    sendto(&p, c, b"now", &a_name).expect("sent");
    assert_eq!(recvfrom(&p, a, 0).expect("received").0, b"now");
}

#[test]
fn errors_wait_with_what_they_are_about() {
    let (_kernel, p) = process();
    let (a, _) = bound(&p, INET, DGRAM, "127.0.0.1:0");
    set(&p, a, 0, 11, 1).expect("IP_RECVERR");
    sendto(&p, a, b"payload", "127.0.0.1:9").expect("sent");
    let (data, control, flags, to) = recvmsg(&p, a, MSG_ERRQUEUE).expect("an error");
    assert_eq!((data, to.as_str()), (b"payload".to_vec(), "127.0.0.1:9"));
    assert_eq!(flags & MSG_ERRQUEUE, MSG_ERRQUEUE);
    let (level, kind, bytes) = &control[0];
    assert_eq!((*level, *kind), (0, 11));
    assert_eq!(bytes[..4], Errno::ECONNREFUSED.0.to_ne_bytes());
    assert_eq!(bytes[4..7], [2, 3, 3], "from ICMP, port unreachable");
    assert_eq!(shown(&bytes[16..]), "127.0.0.1:0");
    assert_eq!(recvmsg(&p, a, MSG_ERRQUEUE).map(|_| ()), Err(Errno::EAGAIN));
}

#[test]
fn a_socket_of_both_families_hears_ipv4_unless_it_shall_not() {
    let (_kernel, p) = process();
    let (both, name) = bound(&p, INET6, DGRAM, "[::]:0");
    let port = name.rsplit(':').next().expect("a port").to_owned();
    let (v4, v4_name) = bound(&p, INET, DGRAM, "127.0.0.1:0");
    sendto(&p, v4, b"four", &format!("127.0.0.1:{port}")).expect("sent");
    let (data, from) = recvfrom(&p, both, 0).expect("received");
    assert_eq!(data, b"four");
    let v4_port = v4_name.rsplit(':').next().expect("a port");
    assert_eq!(from, format!("[::ffff:127.0.0.1]:{v4_port}"));
    sendto(&p, both, b"back", &from).expect("sent");
    assert_eq!(
        recvfrom(&p, v4, 0),
        Ok((b"back".to_vec(), format!("127.0.0.1:{port}")))
    );
    let only = socket(&p, INET6, DGRAM, 0);
    set(&p, only, 41, 26, 1).expect("IPV6_V6ONLY");
    bind(&p, only, "[::]:0").expect("bound");
    assert_eq!(
        sendto(&p, only, b"x", "[::ffff:127.0.0.1]:9"),
        Err(Errno::ENETUNREACH)
    );
    assert_eq!(set(&p, only, 41, 26, 0), Err(Errno::EINVAL), "too late");
}

#[test]
fn two_are_bound_to_one_port_when_both_agree() {
    let (_kernel, p) = process();
    let (_, name) = bound(&p, INET, DGRAM, "0.0.0.0:0");
    let port = name.rsplit(':').next().expect("a port");
    let other = socket(&p, INET, DGRAM, 0);
    assert_eq!(
        bind(&p, other, &format!("127.0.0.1:{port}")),
        Err(Errno::EADDRINUSE)
    );
    let v6 = socket(&p, INET6, DGRAM, 0);
    assert_eq!(
        bind(&p, v6, &format!("[::]:{port}")),
        Err(Errno::EADDRINUSE)
    );
    assert_eq!(bind(&p, v6, &format!("[::1]:{port}")), Ok(0));
    assert_eq!(bind(&p, v6, "[::1]:0"), Err(Errno::EINVAL), "it is bound");
    assert_eq!(bind(&p, other, "10.9.8.7:0"), Err(Errno::EADDRNOTAVAIL));
    let shared: Vec<i32> = (0..8)
        .map(|_| {
            let fd = socket(&p, INET, DGRAM, 0);
            set(&p, fd, SOL_SOCKET, REUSEPORT, 1).expect("set");
            bind(&p, fd, "127.0.0.1:7777").expect("shared");
            fd
        })
        .collect();
    for _ in 0..64 {
        let (from, _) = bound(&p, INET, DGRAM, "127.0.0.1:0");
        sendto(&p, from, b"x", "127.0.0.1:7777").expect("sent");
        sendto(&p, from, b"x", "127.0.0.1:7777").expect("sent");
    }
    let counts: Vec<usize> = shared
        .iter()
        .map(|&fd| std::iter::from_fn(|| recvfrom(&p, fd, MSG_DONTWAIT).ok()).count())
        .collect();
    assert_eq!(counts.iter().sum::<usize>(), 128);
    assert!(
        counts.iter().all(|n| n % 2 == 0),
        "a peer stays with one: {counts:?}"
    );
    assert!(
        counts.iter().filter(|n| **n > 0).count() > 2,
        "the load is spread: {counts:?}"
    );
    for _ in 0..2 {
        let fd = socket(&p, INET, DGRAM, 0);
        set(&p, fd, SOL_SOCKET, REUSEADDR, 1).expect("set");
        bind(&p, fd, "127.0.0.1:8888").expect("shared");
    }
}

#[test]
fn what_a_message_says_about_itself_comes_along() {
    let (_kernel, p) = process();
    let (a, name) = bound(&p, INET, DGRAM, "0.0.0.0:0");
    let port = name.rsplit(':').next().expect("a port");
    for (option, value) in [(8, 1), (12, 1), (13, 1)] {
        set(&p, a, 0, option, value).expect("wanted");
    }
    set(&p, a, 0, 2, 9).expect("IP_TTL");
    set(&p, a, 0, 1, 0x28).expect("IP_TOS");
    sendto(&p, a, b"x", &format!("127.0.0.1:{port}")).expect("sent");
    let (_, control, ..) = recvmsg(&p, a, 0).expect("received");
    let find = |kind| {
        control
            .iter()
            .find(|c| (c.0, c.1) == (0, kind))
            .map(|c| c.2.clone())
    };
    assert_eq!(find(2), Some(9i32.to_ne_bytes().to_vec()), "TTL");
    assert_eq!(find(1), Some(vec![0x28]), "TOS");
    let info = find(8).expect("pktinfo");
    assert_eq!(info[..4], 1u32.to_ne_bytes(), "lo");
    assert_eq!(info[8..], [127, 0, 0, 1]);
    let (b, name) = bound(&p, INET6, DGRAM, "[::1]:0");
    for option in [49, 51, 66] {
        set(&p, b, 41, option, 1).expect("wanted");
    }
    set(&p, b, 41, 67, 0x28).expect("IPV6_TCLASS");
    sendto(&p, b, b"x", &name).expect("sent");
    let (_, control, ..) = recvmsg(&p, b, 0).expect("received");
    let find = |kind| {
        control
            .iter()
            .find(|c| (c.0, c.1) == (41, kind))
            .map(|c| c.2.clone())
    };
    assert_eq!(find(52), Some(64i32.to_ne_bytes().to_vec()), "hop limit");
    assert_eq!(
        find(67),
        Some(0x28i32.to_ne_bytes().to_vec()),
        "traffic class"
    );
    assert_eq!(find(50).expect("pktinfo")[15], 1);
}

#[test]
fn more_to_come_makes_one_datagram() {
    let (_kernel, p) = process();
    let (a, name) = bound(&p, INET, DGRAM, "127.0.0.1:0");
    let addr = sockaddr(&name);
    p.sendto(a, b"one ", 4, 0x8000, &addr, addr.len())
        .expect("held back");
    assert_eq!(recvfrom(&p, a, MSG_DONTWAIT), Err(Errno::EAGAIN));
    sendto(&p, a, b"datagram", &name).expect("sent");
    assert_eq!(recvfrom(&p, a, 0).expect("received").0, b"one datagram");
}

#[test]
fn a_group_is_heard_by_who_joins_it() {
    let (_kernel, p) = process();
    let (a, name) = bound(&p, INET, DGRAM, "0.0.0.0:0");
    let port = name.rsplit(':').next().expect("a port");
    let join = [&[224, 1, 2, 3][..], &[127, 0, 0, 1]].concat();
    let to = format!("224.1.2.3:{port}");
    let sender = socket(&p, INET, DGRAM, 0);
    p.setsockopt(sender, 0, 32, &[127, 0, 0, 1], 4)
        .expect("IP_MULTICAST_IF");
    sendto(&p, sender, b"early", &to).expect("sent");
    assert_eq!(recvfrom(&p, a, MSG_DONTWAIT), Err(Errno::EAGAIN));
    p.setsockopt(a, 0, 35, &join, 8).expect("joined");
    assert_eq!(p.setsockopt(a, 0, 35, &join, 8), Err(Errno::EADDRINUSE));
    sendto(&p, sender, b"now", &to).expect("sent");
    assert_eq!(recvfrom(&p, a, MSG_DONTWAIT).expect("received").0, b"now");
    p.setsockopt(a, 0, 36, &join, 8).expect("left");
    sendto(&p, sender, b"late", &to).expect("sent");
    assert_eq!(recvfrom(&p, a, MSG_DONTWAIT), Err(Errno::EAGAIN));
}

#[test]
fn an_echo_is_answered_on_ping_sockets_and_raw_ones() {
    let (_kernel, p) = process();
    for (family, protocol, request, reply, to) in [
        (INET, 1, 8, 0, "127.0.0.1:0"),
        (INET6, 58, 128, 129, "[::1]:0"),
    ] {
        let ping = socket(&p, family, DGRAM, protocol);
        let message = [&[request, 0, 0, 0, 0, 0, 0, 1][..], &[7; 40]].concat();
        sendto(&p, ping, &message, to).expect("sent");
        let (data, from) = recvfrom(&p, ping, 0).expect("answered");
        assert_eq!(
            (data[0], &data[6..8], &data[8..]),
            (reply, &[0, 1][..], &[7; 40][..])
        );
        assert_eq!(from, to);
        assert_eq!(
            sendto(&p, ping, &[5; 8], to),
            Err(Errno::EINVAL),
            "echoes only"
        );
        let raw = socket(&p, family, RAW, protocol);
        sendto(&p, ping, &message, to).expect("sent");
        let kinds: Vec<u8> = std::iter::from_fn(|| recvfrom(&p, raw, MSG_DONTWAIT).ok())
            .map(|(data, _)| {
                if family == INET {
                    data[usize::from(data[0] & 15) * 4]
                } else {
                    data[0]
                }
            })
            .collect();
        assert_eq!(kinds, [request, reply], "a raw socket sees both");
    }
}

#[test]
fn a_raw_socket_sends_headers_of_its_own() {
    let (_kernel, p) = process();
    let (a, name) = bound(&p, INET, DGRAM, "127.0.0.1:0");
    let port: u16 = name
        .rsplit(':')
        .next()
        .expect("a port")
        .parse()
        .expect("a number");
    let raw = socket(&p, INET, RAW, 255);
    let mut packet = vec![
        0x45, 0, 0, 0, 0, 0, 0, 0, 5, 17, 0, 0, 127, 0, 0, 9, 127, 0, 0, 1,
    ];
    packet.extend_from_slice(&[0, 99]);
    packet.extend_from_slice(&port.to_be_bytes());
    packet.extend_from_slice(&[0, 10, 0, 0, b'h', b'i']);
    sendto(&p, raw, &packet, "127.0.0.1:0").expect("sent");
    assert_eq!(
        recvfrom(&p, a, MSG_DONTWAIT),
        Ok((b"hi".to_vec(), "127.0.0.9:99".into()))
    );
}

#[test]
fn a_raw_socket_sends_ipv6_headers_as_they_are() {
    const SOL_IPV6: i32 = 41;
    const IPV6_HDRINCL: i32 = 36;
    let (_kernel, p) = process();
    let (a, name) = bound(&p, INET6, DGRAM, "[::1]:0");
    let port: u16 = name
        .rsplit(':')
        .next()
        .expect("a port")
        .parse()
        .expect("a number");
    let mut udp = [
        &[0, 99],
        &port.to_be_bytes()[..],
        &[0, 10, 0, 0, b'h', b'i'],
    ]
    .concat();
    // Both addresses are ::1, whose words add up to 1; then length and number.
    let words = udp
        .chunks(2)
        .map(|w| u32::from(w[0]) << 8 | u32::from(w[1]));
    let sum = words.sum::<u32>() + 1 + 1 + 10 + 17;
    udp[6..8].copy_from_slice(&(!((sum >> 16) + (sum & 0xffff)) as u16).to_be_bytes());
    let mut packet = vec![0x60, 0, 0, 0, 0, 10, 17, 5];
    for _ in 0..2 {
        packet.extend_from_slice(&std::net::Ipv6Addr::LOCALHOST.octets());
    }
    packet.extend_from_slice(&udp);
    let raw = socket(&p, INET6, RAW, 255);
    let to = "[::1]:0";
    assert_eq!(get(&p, raw, SOL_IPV6, IPV6_HDRINCL), Ok(1));
    sendto(&p, raw, &packet, to).expect("sent");
    let got = recvfrom(&p, a, MSG_DONTWAIT);
    assert_eq!(got, Ok((b"hi".to_vec(), "[::1]:99".into())));
    assert_eq!(sendto(&p, raw, &packet[..39], to), Err(Errno::EINVAL));
    assert_eq!(sendto(&p, raw, &[0x60; 65_537], to), Err(Errno::EMSGSIZE));
    let icmp = socket(&p, INET6, RAW, 58);
    assert_eq!(get(&p, icmp, SOL_IPV6, IPV6_HDRINCL), Ok(0));
    let refused = Err(Errno::ENOPROTOOPT);
    assert_eq!(set(&p, a, SOL_IPV6, IPV6_HDRINCL, 1), refused);
    assert_eq!(set(&p, socket(&p, INET, DGRAM, 0), 0, 3, 1), refused);
}

#[test]
fn a_full_buffer_drops_and_unknown_ways_are_told() {
    let (_kernel, p) = process();
    let (a, name) = bound(&p, INET, DGRAM, "127.0.0.1:0");
    set(&p, a, SOL_SOCKET, 8, 4096).expect("SO_RCVBUF");
    for _ in 0..100 {
        sendto(&p, a, &[0; 500], &name).expect("sent");
    }
    let waiting = std::iter::from_fn(|| recvfrom(&p, a, MSG_DONTWAIT).ok()).count();
    assert!((5..20).contains(&waiting), "{waiting}");
    assert_eq!(sendto(&p, a, b"x", "192.0.2.1:9"), Err(Errno::ENETUNREACH));
    assert_eq!(sendto(&p, a, b"x", "127.0.0.1:0"), Err(Errno::EINVAL));
    assert_eq!(p.socket(INET, 5, 0), Err(Errno::ESOCKTNOSUPPORT));
    assert_eq!(p.socket(INET, DGRAM, 6), Err(Errno::EPROTONOSUPPORT));
}

#[test]
fn under_every_seed_questions_are_answered_and_sleepers_end() {
    simulated(0..60, |host, kernel| {
        let server = program(host, kernel, |p| {
            let (fd, _) = bound(p, INET6, DGRAM, "[::]:5353");
            for _ in 0..20 {
                let (data, from) = recvfrom(p, fd, 0).expect("asked");
                sendto(p, fd, &data, &from).expect("answered");
            }
        });
        let clients: Vec<_> = (0..2u8)
            .map(|me| {
                program(host, kernel, move |p| {
                    let fd = socket(p, INET, DGRAM, 0);
                    connect(p, fd, "127.0.0.1:5353").expect("connected");
                    for turn in 0..10u8 {
                        // Until the server is there, nobody is.
                        loop {
                            let sent = write(p, fd, &[me, turn]);
                            let heard = sent.and_then(|_| read(p, fd, 10));
                            match heard {
                                Ok(data) => {
                                    assert_eq!(data, [me, turn]);
                                    break;
                                }
                                Err(Errno::ECONNREFUSED) => {
                                    p.sched_yield().expect("yields");
                                }
                                Err(error) => panic!("{error}"),
                            }
                        }
                    }
                })
            })
            .collect();
        clients.into_iter().for_each(|c| c.join());
        server.join();
    });
}

/// `SOL_UDP`, `UDP_SEGMENT`, `UDP_GRO`.
const UDP: i32 = 17;
const SEGMENT: i32 = 103;
const GRO: i32 = 104;

#[test]
fn datagrams_of_one_call_travel_as_one_packet_and_arrive_one_by_one() {
    let (kernel, p) = process();
    for (family, any) in [(INET, "127.0.0.1:0"), (INET6, "[::1]:0")] {
        let (a, to) = bound(&p, family, DGRAM, any);
        let sender = socket(&p, family, DGRAM, 0);
        let data: Vec<u8> = (0..2500u32).map(|n| n as u8).collect();
        let parts = || -> Vec<Vec<u8>> {
            std::iter::from_fn(|| recvfrom(&p, a, MSG_DONTWAIT).ok())
                .map(|(data, _)| data)
                .collect()
        };
        let before = sent_packets(&kernel, "lo");
        set(&p, sender, UDP, SEGMENT, 1000).expect("UDP_SEGMENT");
        assert_eq!(get(&p, sender, UDP, SEGMENT), Ok(1000));
        assert_eq!(sendto(&p, sender, &data, &to), Ok(2500));
        assert_eq!(parts(), data.chunks(1000).collect::<Vec<_>>());
        assert_eq!(sent_packets(&kernel, "lo"), before + 1);
        let said = (UDP, SEGMENT, &600u16.to_ne_bytes()[..]);
        assert_eq!(sendmsg(&p, sender, &data, &to, said), Ok(2500));
        assert_eq!(parts(), data.chunks(600).collect::<Vec<_>>());
        // Who wants them together is told where to cut.
        set(&p, a, UDP, GRO, 1).expect("UDP_GRO");
        assert_eq!(sendmsg(&p, sender, &data, &to, said), Ok(2500));
        let (got, control, _, _) = recvmsg(&p, a, 0).expect("received");
        assert_eq!(got, data);
        assert_eq!(control, [(UDP, GRO, 600i32.to_ne_bytes().to_vec())]);
        // What fits into one datagram is one.
        set(&p, sender, UDP, SEGMENT, 2500).expect("UDP_SEGMENT");
        assert_eq!(sendto(&p, sender, &data, &to), Ok(2500));
        let (got, control, _, _) = recvmsg(&p, a, 0).expect("received");
        assert_eq!((got, control), (data, vec![]));
        set(&p, sender, UDP, SEGMENT, 1).expect("UDP_SEGMENT");
        assert_eq!(sendto(&p, sender, &[1; 128], &to), Ok(128));
        assert_eq!(sendto(&p, sender, &[1; 129], &to), Err(Errno::EINVAL));
        assert_eq!(set(&p, sender, UDP, SEGMENT, 65_536), Err(Errno::EINVAL));
    }
}

#[test]
fn who_wants_datagrams_together_gets_those_of_one_size_at_once() {
    let (_kernel, p) = process();
    let (a, to) = bound(&p, INET, DGRAM, "127.0.0.1:0");
    set(&p, a, UDP, GRO, 1).expect("UDP_GRO");
    let (one, two) = (socket(&p, INET, DGRAM, 0), socket(&p, INET, DGRAM, 0));
    for (sender, len) in [
        (one, 1000),
        (one, 1000),
        (one, 400),
        (one, 1000),
        (two, 1000),
        (two, 0),
        (two, 2000),
        (two, 2000),
        (two, 2000),
    ] {
        sendto(&p, sender, &vec![7; len], &to).expect("sent");
    }
    // The last has no room any more in what a call asks for.
    for (len, size) in [
        (2400, 1000),
        (1000, 0),
        (1000, 0),
        (0, 0),
        (4000, 2000),
        (2000, 0),
    ] {
        let (got, control, flags, _) = recvmsg(&p, a, MSG_DONTWAIT).expect("received");
        let size = (size != 0).then(|| (UDP, GRO, i32::to_ne_bytes(size).to_vec()));
        assert_eq!((got.len(), flags), (len, 0));
        assert_eq!(control, Vec::from_iter(size));
    }
    sendto(&p, one, &[1; 10], &to).expect("sent");
    sendto(&p, one, &[1; 10], &to).expect("sent");
    assert_eq!(
        recvfrom(&p, a, 0).expect("received").0,
        [1; 10],
        "no control data, no train"
    );
}

#[test]
fn options_of_all_sockets_are_kept_told_and_do_what_they_say() {
    const SO_RCVBUF: i32 = 8;
    const SO_BINDTODEVICE: i32 = 25;
    const SO_TIMESTAMP: i32 = 29;
    const SO_TIMESTAMPNS: i32 = 35;
    const SO_RXQ_OVFL: i32 = 40;
    const SO_COOKIE: i32 = 57;
    const SO_ZEROCOPY: i32 = 60;
    const SO_BINDTOIFINDEX: i32 = 62;
    const SO_RCVTIMEO_NEW: i32 = 66;
    const MSG_ZEROCOPY: i32 = 0x400_0000;
    let (_kernel, p) = process();
    let (a, to) = bound(&p, INET, DGRAM, "127.0.0.1:0");
    let sender = socket(&p, INET, DGRAM, 0);
    set(&p, a, 1, SO_TIMESTAMPNS, 1).expect("set");
    assert_eq!(get(&p, a, 1, SO_TIMESTAMPNS), Ok(1));
    assert_eq!(get(&p, a, 1, SO_TIMESTAMP), Ok(0));
    sendto(&p, sender, b"when", &to).expect("sent");
    let (_, control, _, _) = recvmsg(&p, a, 0).expect("received");
    assert_eq!(
        (control[0].0, control[0].1, control[0].2.len()),
        (1, SO_TIMESTAMPNS, 16)
    );
    set(&p, a, 1, SO_TIMESTAMP, 0).expect("set");
    assert_eq!(get(&p, a, 1, SO_TIMESTAMPNS), Ok(0));

    // Datagrams that found no room are counted, and told with those that did.
    set(&p, a, 1, SO_RXQ_OVFL, 1).expect("set");
    set(&p, a, 1, SO_RCVBUF, 0).expect("the least");
    for _ in 0..10 {
        sendto(&p, sender, &[0; 2000], &to).expect("sent");
    }
    let (_, control, _, _) = recvmsg(&p, a, 0).expect("received");
    assert_eq!(control, [(1, SO_RXQ_OVFL, 8u32.to_ne_bytes().to_vec())]);

    let cookie = |fd| {
        let (mut value, mut len) = ([0; 8], 8u32.to_ne_bytes());
        p.getsockopt(fd, 1, SO_COOKIE, &mut value, &mut len)
            .expect("a cookie");
        u64::from_ne_bytes(value)
    };
    assert_ne!(cookie(a), cookie(sender));
    assert_eq!(cookie(a), cookie(a));
    set(&p, sender, 1, SO_BINDTOIFINDEX, 1).expect("lo");
    let mut name = [0; 16];
    p.getsockopt(
        sender,
        1,
        SO_BINDTODEVICE,
        &mut name,
        &mut 16u32.to_ne_bytes(),
    )
    .expect("its name");
    assert_eq!(&name[..2], b"lo");
    assert_eq!(get(&p, sender, 1, SO_BINDTOIFINDEX), Ok(1));
    assert_eq!(set(&p, sender, 1, SO_BINDTOIFINDEX, 77), Err(Errno::ENODEV));
    let wait = [0i64.to_ne_bytes(), 1000i64.to_ne_bytes()].concat();
    p.setsockopt(a, 1, SO_RCVTIMEO_NEW, &wait, 16).expect("set");
    while recvfrom(&p, a, MSG_DONTWAIT).is_ok() {}
    assert_eq!(recvfrom(&p, a, 0), Err(Errno::EAGAIN), "not for ever");

    // Nobody is told that copies are saved, and who asks for it all the same has them made, as on Linux.
    assert_eq!(set(&p, sender, 1, SO_ZEROCOPY, 1), Err(Errno::EOPNOTSUPP));
    let addr = sockaddr(&to);
    assert_eq!(
        p.sendto(sender, b"copied", 6, MSG_ZEROCOPY, &addr, addr.len()),
        Ok(6)
    );
    assert_eq!(recvfrom(&p, a, 0).expect("received").0, b"copied");

    let (six, to) = bound(&p, INET6, DGRAM, "[::1]:0");
    set(&p, six, 41, 74, 1).expect("IPV6_RECVORIGDSTADDR");
    let sender = socket(&p, INET6, DGRAM, 0);
    sendto(&p, sender, b"x", &to).expect("sent");
    let (_, control, _, _) = recvmsg(&p, six, 0).expect("received");
    assert_eq!((control[0].0, control[0].1), (41, 74));
    assert_eq!(shown(&control[0].2), to);
}

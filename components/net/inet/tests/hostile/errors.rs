//! Errors: those that are believed, and those that are answered.

use std::net::Ipv4Addr;

use abi::Syscalls;

use crate::common::*;
use crate::frames::*;
use crate::link::{Link, attacked};
use crate::memory_use::most_more;

/// What a socket that is connected to an address believes of the path.
fn path_mtu(link: &Link, to: &str) -> i32 {
    let fd = socket(&link.us, INET, DGRAM, 0);
    connect(&link.us, fd, to).expect("connected");
    let mtu = get(&link.us, fd, 0, 14).expect("IP_MTU");
    link.us.close(fd).expect("closed");
    mtu
}

#[test]
fn errors_about_packets_that_nobody_sent_change_no_path() {
    attacked(|link| {
        let to = Ipv4Addr::new(192, 0, 2, 1);
        let too_big = |mtu: u16, protocol: u8, port: u16| {
            let transport = udp(port, 80, &[0; 8], ours4(), to);
            let inner = ip4(ours4(), to, protocol, 64, &transport).to_vec()[14..].to_vec();
            let [a, b] = mtu.to_be_bytes();
            let error = [&[3u8, 4, 0, 0, 0, 0, a, b][..], &inner].concat();
            ip4(from4(1), ours4(), 1, 64, &with_sum(error))
        };
        for protocol in [1, 6, 17, 132] {
            link.inject([too_big(600, protocol, 4000)]);
        }
        assert_eq!(path_mtu(link, "192.0.2.1:80"), 1500);
        // One that somebody may have sent; nothing is believed to be shorter than what Linux believes.
        let (fd, _) = bound(&link.us, INET, DGRAM, "10.0.0.1:4000");
        connect(&link.us, fd, "192.0.2.1:80").expect("connected");
        link.inject([too_big(600, 17, 4000)]);
        assert_eq!(path_mtu(link, "192.0.2.1:80"), 600);
        link.inject([
            too_big(68, 17, 4000),
            too_big(0, 17, 4000),
            too_big(1, 17, 4000),
        ]);
        assert_eq!(path_mtu(link, "192.0.2.1:80"), 552);
    });
}

#[test]
fn paths_that_are_told_of_are_remembered_up_to_a_bound() {
    attacked(|link| {
        bound(&link.us, INET, DGRAM, "10.0.0.1:53");
        let most = most_more(|| {
            link.inject((0..5000).map(|n| {
                let to = from4(n);
                let transport = udp(53, 1024, &[0; 8], ours4(), to);
                let inner = ip4(ours4(), to, 17, 64, &transport).to_vec()[14..].to_vec();
                let error = [&[3u8, 4, 0, 0, 0, 0, 4, 0][..], &inner].concat();
                ip4(from4(n), ours4(), 1, 64, &with_sum(error))
            }));
        });
        // Two tables while one becomes the other.
        assert!(most < 2 * 1024 * 128, "{most}");
    });
}

#[test]
fn closed_ports_answer_no_faster_than_they_may() {
    attacked(|link| {
        let before = link.sent();
        let most = most_more(|| {
            link.inject((0..3000).map(|n| match n % 2 {
                0 => ip4(
                    from4(n),
                    ours4(),
                    17,
                    64,
                    &udp(9, 9999, &[], from4(n), ours4()),
                ),
                _ => ip6(
                    from6(n),
                    ours6(),
                    17,
                    64,
                    &udp(9, 9999, &[], from6(n), ours6()),
                ),
            }));
        });
        // 1000 a second, of which a twentieth waits; the flood takes less than a second.
        let sent = link.sent() - before;
        assert!((1..1100).contains(&sent), "{sent}");
        assert!(most < 1 << 20, "{most}");
    });
}

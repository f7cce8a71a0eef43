//! Fragments, and headers that a packet brings along.

use std::net::Ipv4Addr;

use abi::Errno;
use net::Packet;

use crate::common::*;
use crate::frames::*;
use crate::link::attacked;
use crate::memory_use::most_more;

#[test]
fn fragments_that_never_fit_take_at_most_so_much_and_others_pass() {
    attacked(|link| {
        // Firsts only, middles only, tiny ones, ones that overlap (teardrop), and of IPv6.
        let kinds: [fn(u32) -> Packet; 5] = [
            |n| fragment4(from4(n), n as u16, 0, true, &[7; 8]),
            |n| fragment4(from4(n), n as u16, 1480, true, &[7; 1480]),
            |n| {
                fragment4(
                    from4(1),
                    (n / 100) as u16,
                    (n % 100) as u16 * 16,
                    true,
                    &[7; 8],
                )
            },
            |n| {
                fragment4(
                    from4(n / 2),
                    (n / 2) as u16,
                    (n % 2) as u16 * 24,
                    n % 2 == 0,
                    &[7; 32],
                )
            },
            |n| fragment6(from6(n), n, 0, true, &[7; 8]),
        ];
        for (which, kind) in kinds.into_iter().enumerate() {
            let most = most_more(|| {
                for turn in 0..100 {
                    link.inject((0..150).map(|n| kind(turn * 150 + n)));
                }
            });
            assert!(most < 5 << 20, "kind {which}: {most}");
        }
        let (server, _) = bound(&link.us, INET, DGRAM, "10.0.0.1:9");
        let client = socket(&link.them, INET, DGRAM, 0);
        sendto(&link.them, client, &[5; 6000], "10.0.0.1:9").expect("sent");
        assert_eq!(
            recvfrom(&link.us, server, 0).expect("put together").0.len(),
            6000
        );
    });
}

#[test]
fn fragments_beyond_the_longest_packet_are_dropped() {
    attacked(|link| {
        let (server, _) = bound(&link.us, INET, DGRAM | NONBLOCK, "10.0.0.1:9");
        let ports = [0, 9, 0, 9];
        for last in [65_504u16, 65_512, 65_528] {
            let mut first = ports.to_vec();
            first.extend(65_535u16.to_be_bytes());
            first.extend([0; 1474]);
            link.inject([
                fragment4(from4(1), last, 0, true, &first),
                fragment4(from4(1), last, last, false, &[1; 40]),
            ]);
        }
        assert_eq!(recvfrom(&link.us, server, 0).err(), Some(Errno::EAGAIN));
        link.wait(60);
        let kept = most_more(|| link.inject([fragment4(from4(1), 1, 0, true, &[0; 8])]));
        assert!(kept < 8192, "{kept}");
    });
}

#[test]
fn datagrams_of_tiny_fragments_are_charged_with_what_they_take() {
    attacked(|link| {
        bound(&link.us, INET, DGRAM, "10.0.0.1:9");
        let most = most_more(|| {
            for id in 0..200u16 {
                let mut datagram = udp(7, 9, &[0; 4088], from4(1), ours4());
                datagram[6..8].fill(0);
                link.inject((0..512).map(|n| {
                    let at = n * 8;
                    let part = &datagram[at..at + 8];
                    fragment4(from4(1), id, at as u16, n < 511, part)
                }));
            }
        });
        assert!(most < 212_992 * 5 / 4 + (256 << 10), "{most}");
    });
}

#[test]
fn a_fragment_of_fragments_goes_no_deeper_than_other_headers() {
    attacked(|link| {
        let (server, _) = bound(&link.us, INET6, DGRAM | NONBLOCK, "[::]:9");
        let datagram = udp(9, 9, b"deep", from6(1), ours6());
        for (depth, arrives) in [(1, true), (7, true), (8, false), (100, false)] {
            // Whole packets that say they are fragments, RFC 6946, one in the other.
            let mut payload = Vec::new();
            for at in 0..depth {
                let next = if at + 1 == depth { 17 } else { 44 };
                payload.extend([next, 0, 0, 0, 0, 0, 0, at]);
            }
            payload.extend(&datagram);
            link.inject([ip6(from6(1), ours6(), 44, 64, &payload)]);
            assert_eq!(recvfrom(&link.us, server, 0).is_ok(), arrives, "{depth}");
        }
    });
}

#[test]
fn a_chain_of_extension_headers_is_followed_so_far() {
    attacked(|link| {
        let (server, _) = bound(&link.us, INET6, DGRAM | NONBLOCK, "[::]:9");
        for (count, arrives) in [(1, true), (7, true), (9, false), (180, false)] {
            let mut payload = Vec::new();
            for at in 0..count {
                payload.extend([if at + 1 == count { 17 } else { 60 }, 0, 1, 4, 0, 0, 0, 0]);
            }
            payload.extend(udp(9, 9, b"far", from6(1), ours6()));
            link.inject([ip6(from6(1), ours6(), 60, 64, &payload)]);
            assert_eq!(recvfrom(&link.us, server, 0).is_ok(), arrives, "{count}");
        }
    });
}

#[test]
fn routes_that_a_packet_brings_along_are_not_taken() {
    attacked(|link| {
        link.sysctl("net.inet.ip.forwarding", 1);
        link.sysctl("net.inet6.ip6.forwarding", 1);
        let (v4, _) = bound(&link.us, INET, DGRAM | NONBLOCK, "10.0.0.1:9");
        let (v6, _) = bound(&link.us, INET6, DGRAM | NONBLOCK, "[fd00::1]:9");
        let before = link.sent();
        // Loose and strict source routes through us and to us.
        for option in [131, 137] {
            for to in [ours4(), Ipv4Addr::new(10, 0, 0, 2)] {
                let payload = udp(9, 9, b"routed", from4(1), to);
                let route = [option, 7, 4, 10, 0, 0, 2, 0];
                link.inject([ip4_with(&route, from4(1), to, 17, 64, &payload)]);
            }
        }
        assert_eq!(link.sent(), before, "nothing is answered or passed on");
        assert_eq!(recvfrom(&link.us, v4, 0).err(), Some(Errno::EAGAIN));
        // A routing header of type 0 with a segment left.
        let mut payload = vec![17, 2, 0, 1, 0, 0, 0, 0];
        payload.extend(near6(2).octets());
        payload.extend(udp(9, 9, b"routed", from6(1), near6(2)));
        link.inject([ip6(from6(1), ours6(), 43, 64, &payload)]);
        assert_eq!(recvfrom(&link.us, v6, 0).err(), Some(Errno::EAGAIN));
        assert!(link.sent() <= before + 1, "an error at most");
    });
}

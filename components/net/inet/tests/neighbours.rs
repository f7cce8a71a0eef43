//! Neighbours on a link: ARP and neighbour discovery between two kernels, of which one plays the router. Time is the simulated host's.

mod common;

use std::sync::Arc;

use abi::Errno;
use common::*;
use inet::{IfAddr, Inet, NeighbourState};
use kern::{Kernel, LwpHandle};

/// Host `a` (10.0.0.2, fd00::2) and `r` (10.0.0.1, fd00::1) on a cable.
fn linked(body: fn(&LwpHandle, &LwpHandle, [&Arc<Kernel>; 2])) {
    for seed in 0..4 {
        kernels(seed, move |_, [a, r]| {
            let (a_end, r_end) = veth::cable();
            plug(a, a_end, "eth0", 1500, 1, &["10.0.0.2/24", "fd00::2/64"]);
            plug(r, r_end, "eth0", 1500, 2, &["10.0.0.1/24", "fd00::1/64"]);
            body(&process_of(a), &process_of(r), [a, r]);
        });
    }
}

/// What a kernel knows of a neighbour.
fn known(kernel: &Arc<Kernel>, addr: &str) -> Option<(NeighbourState, Option<[u8; 6]>)> {
    run(kernel, |cx| {
        let all = Inet::of(cx).expect("a stack").neighbours(cx.cpu());
        let found = all.iter().find(|n| n.addr == ip(addr));
        found.map(|n| (n.state, n.mac))
    })
}

/// The addresses of a kernel's Ethernet interface, with whether somebody else has them.
fn addresses(kernel: &Arc<Kernel>) -> Vec<Arc<IfAddr>> {
    run(kernel, |cx| {
        let all = Inet::of(cx).expect("a stack").addresses();
        all.iter().filter(|a| a.interface == 2).cloned().collect()
    })
}

/// Waits, on a socket to which nobody sends, for so many milliseconds.
fn wait(p: &LwpHandle, ms: u32) {
    use abi::Syscalls;
    let fd = socket(p, INET, DGRAM, 0);
    let mut raw = [0; 8];
    raw[..4].copy_from_slice(&fd.to_ne_bytes());
    raw[4..6].copy_from_slice(&1i16.to_ne_bytes());
    assert_eq!(p.poll(&mut raw, 1, ms as i32), Ok(0));
    p.close(fd).expect("closed");
}

#[test]
fn rfc826_and_rfc4861_who_is_asked_for_answers_and_is_remembered() {
    linked(|a, r, [ka, kr]| {
        for (family, any, to) in [
            (INET, "0.0.0.0:9", "10.0.0.1:7"),
            (INET6, "[::]:10", "[fd00::1]:7"),
        ] {
            let (server, _) = bound(r, family, DGRAM, to);
            let (client, _) = bound(a, family, DGRAM, any);
            let (of, mine) = match family {
                INET => ("10.0.0.1", "10.0.0.2"),
                _ => ("fd00::1", "fd00::2"),
            };
            assert_eq!(known(ka, of).map(|k| k.1), None, "{of}");
            sendto(a, client, b"hello", to).expect("sent");
            recvfrom(r, server, 0).expect("received");
            let reached = Some((NeighbourState::Reachable, Some([2, 0, 0, 0, 0, 2])));
            assert_eq!(known(ka, of), reached);
            // Who was asked knows who asks.
            assert_eq!(known(kr, mine).and_then(|k| k.1), Some([2, 0, 0, 0, 0, 1]));
            wait(a, 120_000);
            assert_eq!(known(ka, of).map(|k| k.0), Some(NeighbourState::Stale));
            // It is used meanwhile, and asked whether it is still there.
            sendto(a, client, b"again", to).expect("sent");
            recvfrom(r, server, 0).expect("received");
            wait(a, 10_000);
            assert_eq!(known(ka, of).map(|k| k.0), Some(NeighbourState::Reachable));
            let nobody = if family == INET {
                "10.0.0.9:7"
            } else {
                "[fd00::9]:7"
            };
            let stream = socket(a, family, STREAM, 0);
            assert_eq!(connect(a, stream, nobody), Err(Errno::EHOSTUNREACH));
        }
    });
}

#[test]
fn rfc4862_an_address_that_somebody_has_is_not_used() {
    linked(|a, _, [ka, _]| {
        run(ka, |cx| {
            let inet = Inet::of(cx).expect("a stack");
            for taken in ["fd00::1", "fd00::77"] {
                let addr = IfAddr::new(2, ip(taken), 64);
                inet.add_address(cx.cpu(), addr).expect("added");
            }
        });
        let state = |addr: &str| {
            let all = addresses(ka);
            let found = all.iter().find(|x| x.addr == ip(addr)).expect("there");
            (found.tentative, found.duplicate)
        };
        assert_eq!(state("fd00::77"), (true, false));
        wait(a, 5000);
        assert_eq!(state("fd00::77"), (false, false));
        assert_eq!(state("fd00::1"), (false, true));
        let fd = socket(a, INET6, DGRAM, 0);
        assert_eq!(bind(a, fd, "[fd00::1]:9"), Err(Errno::EADDRNOTAVAIL));
        bind(a, fd, "[fd00::77]:9").expect("bound");
    });
}

fn mtu(kernel: &Arc<Kernel>, mtu: u32) {
    run(kernel, |cx| {
        let inet = Inet::of(cx).expect("a stack");
        let interface = inet.interfaces().by_name(cx.cpu(), "eth0");
        interface.expect("there").set_mtu(cx, mtu).expect("set");
    });
}

/// A router's advertisement: its own lifetime, and a prefix with its lifetime, in seconds.
fn advertisement(router: u16, prefix: u32) -> Vec<u8> {
    let mut out = vec![134, 0, 0, 0, 64, 0];
    out.extend(router.to_be_bytes());
    out.extend([0; 8]);
    // On the link, and for addresses.
    out.extend([3, 4, 64, 0xc0]);
    out.extend([prefix.to_be_bytes(), prefix.to_be_bytes(), [0; 4]].concat());
    out.extend([0xfd, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0]);
    // An MTU.
    out.extend([5, 1, 0, 0, 0, 0, 5, 120]);
    out
}

#[test]
fn rfc4861_and_rfc4862_a_routers_advertisement_brings_addresses_and_a_route_until_they_end() {
    linked(|a, r, [ka, kr]| {
        // The router's link-local address is ready by now.
        wait(r, 5000);
        let own = addresses(kr);
        assert!(own.iter().any(|x| x.scope() == 253 && !x.tentative));
        let fd = socket(r, INET6, RAW, 58);
        set(r, fd, 41, 18, 255).expect("IPV6_MULTICAST_HOPS");
        set(r, fd, 41, 17, 2).expect("IPV6_MULTICAST_IF");
        let made = || {
            let all = addresses(ka);
            all.iter().any(|x| x.addr == ip("fd00:0:0:5:0:ff:fe00:1"))
        };
        let routed = || {
            run(ka, |cx| {
                let inet = Inet::of(cx).expect("a stack");
                inet.routes()
                    .iter()
                    .any(|x| x.dst.len == 0 && x.dst.addr.is_ipv6())
            })
        };
        let say = |message: Vec<u8>| {
            sendto(r, fd, &message, "[ff02::1]:0").expect("sent");
            wait(a, 3000);
        };
        set(r, fd, 41, 18, 254).expect("IPV6_MULTICAST_HOPS");
        say(advertisement(1800, 3600));
        assert!(!made() && !routed(), "it comes from further than the link");
        set(r, fd, 41, 18, 255).expect("IPV6_MULTICAST_HOPS");
        say(advertisement(1800, 7300)[..20].to_vec());
        assert!(!made(), "an option is cut off");
        // What came in parts is not believed, RFC 6980: padding makes it longer than what fits.
        let padded = || {
            let mut long = advertisement(1800, 7300);
            for _ in 0..8 {
                long.extend([200, 20]);
                long.extend([0; 158]);
            }
            long
        };
        mtu(kr, 1280);
        say(padded());
        assert!(!made() && !routed(), "it came in parts");
        mtu(kr, 1500);
        say(padded());
        assert!(made() && routed());
        // Two hours at least are left to what is there, whatever who advertises says (RFC 4862 5.5.3).
        say(advertisement(0, 1));
        assert!(made() && !routed(), "a router that is none any more");
        wait(a, 7_210_000);
        assert!(!made());
    });
}

//! Three kernels in a row, joined by Ethernet cables: what goes through the one in the middle. Time is the simulated host's.

mod common;

use std::net::Ipv4Addr;
use std::sync::Arc;

use abi::{Errno, Syscalls};
use common::*;
use hypercall::sim::{SimConfig, SimHost};
use inet::{IfThere, Inet, Prefix, Route, netconfig};
use kern::{Curlwp, Kernel, LwpHandle, RforkFds};
use testing::{Memory, program};

const MSG_ERRQUEUE: i32 = 0x2000;
const MSG_DONTWAIT: i32 = 0x40;

/// Hosts `a` (10.0.1.2, fd01::2) and `b` (10.0.2.2, fd02::2) with a router between; the far cable has an MTU of its own.
fn row(seed: u64, far_mtu: u32, body: fn(&LwpHandle, &LwpHandle, [&Arc<Kernel>; 3])) {
    kernels(seed, move |_, [a, r, b]| {
        let (a_end, ra_end) = veth::cable();
        let (rb_end, b_end) = veth::cable();
        plug(a, a_end, "eth0", 1500, 1, &["10.0.1.2/24", "fd01::2/64"]);
        plug(r, ra_end, "eth0", 1500, 2, &["10.0.1.1/24", "fd01::1/64"]);
        plug(
            r,
            rb_end,
            "eth1",
            far_mtu,
            3,
            &["10.0.2.1/24", "fd02::1/64"],
        );
        plug(b, b_end, "eth0", far_mtu, 4, &["10.0.2.2/24", "fd02::2/64"]);
        for via in ["10.0.1.1", "fd01::1"] {
            default_route(a, via);
        }
        for via in ["10.0.2.1", "fd02::1"] {
            default_route(b, via);
        }
        run(r, |cx| {
            for name in ["net.inet.ip.forwarding", "net.inet6.ip6.forwarding"] {
                cx.kernel()
                    .sysctl()
                    .write(cx, name, &1i64.to_le_bytes())
                    .expect("set");
            }
        });
        body(&process_of(a), &process_of(b), [a, r, b]);
    });
}

/// As [`row`], under some seeds.
fn rows(far_mtu: u32, body: fn(&LwpHandle, &LwpHandle, [&Arc<Kernel>; 3])) {
    (0..8).for_each(|seed| row(seed, far_mtu, body));
}

#[test]
fn packets_pass_a_router_with_one_hop_less() {
    rows(1500, |a, b, _| {
        for (family, to, hops) in [
            (INET, "10.0.2.2:7", (0, 12, 2)),
            (INET6, "[fd02::2]:7", (41, 51, 52)),
        ] {
            let (server, _) = bound(b, family, DGRAM, to);
            let (level, want, kind) = hops;
            set(b, server, level, want, 1).expect("wanted");
            let client = socket(a, family, DGRAM, 0);
            connect(a, client, to).expect("connected");
            write(a, client, b"through").expect("sent");
            let (data, control, _, from) = recvmsg(b, server, 0).expect("received");
            assert_eq!((data, from), (b"through".to_vec(), name(a, client)));
            assert_eq!(control[0], (level, kind, 63i32.to_ne_bytes().to_vec()));
        }
    });
}

#[test]
fn a_packet_without_hops_left_is_told_of() {
    rows(1500, |a, _, _| {
        for (family, to, options) in [
            (INET, "10.0.2.2:7", [(0, 2, 1), (0, 11, 1)]),
            (INET6, "[fd02::2]:7", [(41, 16, 1), (41, 25, 1)]),
        ] {
            let fd = socket(a, family, DGRAM, 0);
            for (level, option, value) in options {
                set(a, fd, level, option, value).expect("set");
            }
            sendto(a, fd, b"far", to).expect("sent");
            assert_eq!(
                recvfrom(a, fd, 0),
                Err(Errno::EHOSTUNREACH),
                "as a pending error"
            );
            let (data, control, ..) = recvmsg(a, fd, MSG_ERRQUEUE).expect("an error");
            assert_eq!(data, b"far");
            let router = shown(&control[0].2[16..]);
            assert!(
                ["10.0.1.1:0", "[fd01::1]:0"].contains(&router.as_str()),
                "{router}"
            );
        }
    });
}

#[test]
fn long_datagrams_are_cut_and_put_together_again() {
    rows(1280, |a, b, _| {
        let data: Vec<u8> = (0..20_000u32).map(|i| (i * 7) as u8).collect();
        for (family, to) in [(INET, "10.0.2.2:7"), (INET6, "[fd02::2]:7")] {
            let (server, _) = bound(b, family, DGRAM, to);
            let client = socket(a, family, DGRAM, 0);
            // Of IPv4 the router cuts again; of IPv6 it tells how long packets may be, and the first is lost.
            if family == INET {
                set(a, client, 0, 10, 0).expect("IP_PMTUDISC_DONT");
            } else {
                sendto(a, client, &data, to).expect("sent");
                let hop = std::time::Duration::from_millis(50).as_nanos() as u64;
                let mut pause = [0; 16];
                pause[8..].copy_from_slice(&hop.to_le_bytes());
                a.nanosleep(&pause, &mut []).expect("slept");
            }
            sendto(a, client, &data, to).expect("sent");
            assert_eq!(recvfrom(b, server, 0).expect("received").0, data);
        }
    });
}

const ERRQUEUE: i32 = 0x2000;

#[test]
fn the_mtu_of_a_path_is_found_out() {
    rows(1280, |a, b, _| {
        let (server, _) = bound(b, INET, DGRAM, "10.0.2.2:7");
        let client = socket(a, INET, DGRAM, 0);
        set(a, client, 0, 10, 2).expect("IP_PMTUDISC_DO");
        connect(a, client, "10.0.2.2:7").expect("connected");
        assert_eq!(get(a, client, 0, 14), Ok(1500), "IP_MTU");
        write(a, client, &[0; 1400]).expect("sent into the void");
        assert_eq!(
            read(a, client, 1),
            Err(Errno::EMSGSIZE),
            "told by the router"
        );
        assert_eq!(get(a, client, 0, 14), Ok(1280));
        assert_eq!(write(a, client, &[0; 1400]), Err(Errno::EMSGSIZE));
        assert_eq!(recvmsg(a, client, ERRQUEUE), Err(Errno::EAGAIN));
        set(a, client, 0, 11, 1).expect("IP_RECVERR");
        assert_eq!(write(a, client, &[0; 1400]), Err(Errno::EMSGSIZE));
        let (data, control, _, to) = recvmsg(a, client, ERRQUEUE).expect("an error");
        assert_eq!((data, to.as_str()), (vec![], "10.0.2.2:7"));
        let mut reported = Errno::EMSGSIZE.0.to_ne_bytes().to_vec();
        reported.extend([1, 0, 0, 0]);
        reported.extend(1280u32.to_ne_bytes());
        reported.extend([0; 4 + 16]);
        assert_eq!(control, [(0, 11, reported)], "ours, and from nobody else");
        write(a, client, &[0; 1252]).expect("sent");
        assert_eq!(recvfrom(b, server, 0).expect("received").0.len(), 1252);
    });
}

#[test]
fn a_connection_finds_its_way_through_a_narrow_path() {
    rows(1280, |a, b, _| {
        for (family, to) in [(INET, "10.0.2.2:80"), (INET6, "[fd02::2]:80")] {
            let l = socket(b, family, STREAM, 0);
            bind(b, l, to).expect("bound");
            b.listen(l, 5).expect("listens");
            let fd = socket(a, family, STREAM, 0);
            connect(a, fd, to).expect("connected");
            let served = b.accept4(l, &mut [], &mut [], 0).expect("accepted") as i32;
            let data: Vec<u8> = (0..40_000u32).map(|i| (i * 3) as u8).collect();
            assert_eq!(write(a, fd, &data), Ok(40_000));
            let mut got = Vec::new();
            while got.len() < data.len() {
                got.extend(read(b, served, 100_000).expect("read"));
            }
            assert_eq!(got, data);
            a.close(fd).expect("closed");
            assert_eq!(read(b, served, 1), Ok(vec![]));
            b.close(served).expect("closed");
            b.close(l).expect("closed");
        }
    });
}

#[test]
fn who_is_not_there_and_who_does_not_forward_are_told() {
    rows(1500, |a, _, [_, router, _]| {
        let fd = socket(a, INET, STREAM, 0);
        assert_eq!(
            connect(a, fd, "10.0.1.77:1"),
            Err(Errno::EHOSTUNREACH),
            "nobody answers on the link"
        );
        assert_eq!(connect(a, fd, "10.0.2.2:1"), Err(Errno::ECONNREFUSED));
        assert_eq!(
            connect(a, fd, "10.9.9.9:1"),
            Err(Errno::ENETUNREACH),
            "the router knows no way"
        );
        run(router, |cx| {
            let inet = Inet::of(cx).expect("a stack");
            let prefix = Prefix::new(ip("10.9.0.0"), 16).expect("a prefix");
            let route = Route {
                kind: inet::RouteKind::Prohibit,
                ..Route::on_link(prefix, 0)
            };
            inet.add_route(cx.cpu(), route, IfThere::Fail)
                .expect("added");
        });
        assert_eq!(
            connect(a, fd, "10.9.9.9:1"),
            Err(Errno::EHOSTUNREACH),
            "forbidden"
        );
    });
}

#[test]
fn groups_and_broadcasts_reach_the_link() {
    rows(1500, |a, _, [_, router, _]| {
        let r = router.rfork(RforkFds::Clear).expect("a process");
        let igmp = socket(&r, INET, RAW, 2);
        let (fd, _) = bound(&r, INET, DGRAM, "0.0.0.0:99");
        let (there, _) = bound(a, INET, DGRAM, "0.0.0.0:98");
        let join = [&[224, 5, 6, 7][..], &[10, 0, 1, 2]].concat();
        a.setsockopt(there, 0, 35, &join, 8).expect("joined");
        // The router hears 224.5.6.7's report only when it is a member too.
        let _ = igmp;
        let mine = [&[224, 5, 6, 7][..], &[10, 0, 1, 1]].concat();
        r.setsockopt(fd, 0, 35, &mine, 8).expect("joined");
        r.setsockopt(fd, 0, 32, &[10, 0, 1, 1], 4)
            .expect("IP_MULTICAST_IF");
        sendto(&r, fd, b"to the group", "224.5.6.7:98").expect("sent");
        assert_eq!(
            recvfrom(a, there, 0),
            Ok((b"to the group".to_vec(), "10.0.1.1:99".into()))
        );
        assert_eq!(sendto(&r, fd, b"all", "10.0.1.255:98"), Err(Errno::EACCES));
        set(&r, fd, 1, 6, 1).expect("SO_BROADCAST");
        sendto(&r, fd, b"all", "10.0.1.255:98").expect("sent");
        assert_eq!(recvfrom(a, there, 0).expect("received").0, b"all");
        sendto(&r, fd, b"everybody", "255.255.255.255:98").expect("sent");
        assert_eq!(recvfrom(a, there, 0).expect("received").0, b"everybody");
    });
}

/// `struct ifreq` of an interface and an address.
fn ifreq(name: &str, addr: &str) -> Vec<u8> {
    let mut out = name.as_bytes().to_vec();
    out.resize(16, 0);
    out.extend_from_slice(&sockaddr(addr));
    out.resize(40, 0);
    out
}

#[test]
fn addresses_and_routes_are_set_by_ioctl() {
    const SIOCADDRT: u32 = 0x890b;
    const SIOCDELRT: u32 = 0x890c;
    const SIOCGIFCONF: u32 = 0x8912;
    const SIOCGIFADDR: u32 = 0x8915;
    const SIOCSIFADDR: u32 = 0x8916;
    const SIOCGIFNETMASK: u32 = 0x891b;
    const SIOCSIFNETMASK: u32 = 0x891c;
    rows(1500, |a, _, [kernel, ..]| {
        let fd = socket(a, INET, DGRAM, 0);
        let ioctl = |cmd: u32, arg: &mut [u8]| a.ioctl(fd, cmd as i32, arg);
        let mut request = ifreq("eth0", "0.0.0.0:0");
        ioctl(SIOCGIFADDR, &mut request).expect("an address");
        assert_eq!(shown(&request[16..]), "10.0.1.2:0");
        ioctl(SIOCSIFADDR, &mut ifreq("eth0", "10.7.0.1:0")).expect("set");
        ioctl(SIOCSIFNETMASK, &mut ifreq("eth0", "255.255.0.0:0")).expect("set");
        ioctl(SIOCGIFNETMASK, &mut request).expect("a mask");
        assert_eq!(shown(&request[16..]), "255.255.0.0:0");
        assert_eq!(
            ioctl(SIOCSIFNETMASK, &mut ifreq("eth0", "255.0.255.0:0")),
            Err(Errno::EINVAL)
        );
        assert_eq!(
            ioctl(SIOCGIFADDR, &mut ifreq("eth9", "0.0.0.0:0")),
            Err(Errno::ENODEV)
        );
        let memory = Memory::new(512);
        memory.put(0, &400i32.to_ne_bytes());
        memory.put(8, &Memory::at(64).to_ne_bytes());
        a.syscall(
            &memory,
            abi::nr::ioctl,
            &[fd as u64, SIOCGIFCONF.into(), Memory::at(0), 0, 0, 0],
        )
        .expect("a list");
        assert_eq!(memory.get(0, 4), 80i32.to_ne_bytes());
        assert_eq!(memory.get(64, 3), b"lo\0");
        assert_eq!(shown(&memory.get(64 + 40 + 16, 16)), "10.7.0.1:0");
        // struct rtentry: destination, gateway, mask, flags.
        let mut entry = vec![0; 120];
        entry[8..24].copy_from_slice(&sockaddr("10.8.0.0:0"));
        entry[24..40].copy_from_slice(&sockaddr("10.7.0.9:0"));
        entry[40..56].copy_from_slice(&sockaddr("255.255.0.0:0"));
        entry[56] = 3;
        ioctl(SIOCADDRT, &mut entry).expect("a route");
        assert_eq!(ioctl(SIOCADDRT, &mut entry), Err(Errno::EEXIST));
        let found = run(kernel, |cx| {
            Inet::of(cx)
                .expect("a stack")
                .find_route(&ip("10.8.1.1"), 0)
        });
        assert_eq!(found.and_then(|r| r.gateway), Some(ip("10.7.0.9")));
        ioctl(SIOCDELRT, &mut entry).expect("gone");
        assert_eq!(ioctl(SIOCDELRT, &mut entry), Err(Errno::ESRCH));
    });
}

/// Answers one client as a DHCP server would: 10.0.1.50 for an hour.
/// Answers to `to`.
fn serve_lease(p: &LwpHandle, to: &str) {
    let fd = socket(p, INET, DGRAM, 0);
    set(p, fd, 1, 6, 1).expect("SO_BROADCAST");
    bind(p, fd, "0.0.0.0:67").expect("bound");
    for kind in [2, 5] {
        let (asked, _) = recvfrom(p, fd, 0).expect("asked");
        let mut answer = asked[..240].to_vec();
        answer[0] = 2;
        answer[16..20].copy_from_slice(&[10, 0, 1, 50]);
        answer.extend_from_slice(&[53, 1, kind, 1, 4, 255, 255, 255, 0, 3, 4, 10, 0, 1, 1]);
        answer.extend_from_slice(&[
            6, 4, 9, 9, 9, 9, 51, 4, 0, 0, 14, 16, 54, 4, 10, 0, 1, 1, 255,
        ]);
        p.setsockopt(fd, 1, 25, b"eth0", 4)
            .expect("SO_BINDTODEVICE");
        sendto(p, fd, &answer, to).expect("answered");
    }
}

#[test]
fn an_address_is_asked_for_and_kept() {
    for seed in 0..8 {
        let sim = SimHost::run(SimConfig::new(seed), move |host| {
            let [client, server] = [(); 2].map(|()| boot_on(host.clone()));
            let (near, far) = veth::cable();
            plug(&client, near, "eth0", 1500, 1, &[]);
            plug(&server, far, "eth0", 1500, 2, &["10.0.1.1/24"]);
            // Servers answer to all, or to the address that they offer, which nobody has yet.
            let to = ["255.255.255.255:68", "10.0.1.50:68"][seed as usize % 2];
            run(&server, |cx| {
                let inet = Inet::of(cx).expect("a stack");
                let (eth0, client) = (lease_interface(cx), [2, 0, 0, 0, 0, 1]);
                inet.set_neighbour(cx.cpu(), eth0, ip("10.0.1.50"), client, true)
                    .expect("set");
            });
            let serving = program(host, &server, move |p| serve_lease(p, to));
            let lease = run(&client, |cx| netconfig::dhcp_ipv4(cx, "eth0")).expect("a lease");
            assert_eq!(lease.address, Ipv4Addr::new(10, 0, 1, 50));
            serving.join();
            run(&client, |cx| {
                let inet = Inet::of(cx).expect("a stack");
                let route = inet.find_route(&ip("8.8.8.8"), 0).expect("a way");
                assert_eq!(route.gateway, Some(ip("10.0.1.1")));
                assert_eq!(inet.name_servers(cx.cpu()), [ip("9.9.9.9")]);
                assert!(inet.keeps_lease(cx.cpu(), lease_interface(cx)));
            });
            let p = client.rfork(RforkFds::Clear).expect("a process");
            let fd = socket(&p, INET, DGRAM, 0);
            connect(&p, fd, "10.0.1.1:9").expect("connected");
            assert!(name(&p, fd).starts_with("10.0.1.50:"));
            drop(p);
            for kernel in [client, server] {
                kernel.shutdown(true).expect("halts");
            }
        });
        if let Err(failure) = &sim.result {
            panic!(
                "seed {seed}: {failure:?}\n{}",
                String::from_utf8_lossy(&sim.console)
            );
        }
    }
}

fn lease_interface(cx: &Curlwp<'_>) -> u32 {
    let inet = Inet::of(cx).expect("a stack");
    inet.interfaces()
        .by_name(cx.cpu(), "eth0")
        .expect("there")
        .index()
}

#[test]
fn nobody_to_ask_is_told_in_time() {
    let sim = SimHost::run(SimConfig::new(1), |host| {
        let kernel = boot_on(host.clone());
        plug(&kernel, veth::cable().0, "eth0", 1500, 1, &[]);
        let lease = run(&kernel, |cx| netconfig::dhcp_ipv4(cx, "eth0"));
        assert_eq!(lease.map(|_| ()), Err(Errno::ETIMEDOUT));
        assert_eq!(
            run(&kernel, |cx| netconfig::ipv4_ifaddr(
                cx,
                "eth0",
                "10.0.0.1",
                "255.0.255.0"
            )),
            Err(Errno::EINVAL)
        );
        run(&kernel, |cx| {
            netconfig::ipv4_ifaddr(cx, "eth0", "10.0.0.1", "255.255.255.0")
        })
        .expect("set");
        run(&kernel, |cx| netconfig::ipv4_gw(cx, "10.0.0.9")).expect("set");
        assert_eq!(
            run(&kernel, |cx| netconfig::ipv4_gw(cx, "11.0.0.9")),
            Err(Errno::ENETUNREACH),
            "a router behind a router"
        );
        let p = kernel.rfork(RforkFds::Clear).expect("a process");
        let fd = socket(&p, INET, DGRAM, 0);
        assert_eq!(recvfrom(&p, fd, MSG_DONTWAIT), Err(Errno::EAGAIN));
        drop(p);
        kernel.shutdown(true).expect("halts");
    });
    assert!(sim.result.is_ok(), "{:?}", sim.result);
}

#[test]
fn trains_of_datagrams_pass_a_router_and_are_cut_where_they_must() {
    const PMTUDISC_DONT: i32 = 0;
    for seed in 0..4 {
        row(seed, 1000, |a, b, [ka, kr, _]| {
            for (family, to, router) in [
                (INET, "10.0.2.2:7", "10.0.1.1:7"),
                (INET6, "[fd02::2]:7", "[fd01::1]:7"),
            ] {
                let (server, _) = bound(b, family, DGRAM, to);
                let client = socket(a, family, DGRAM, 0);
                set(a, client, 17, 103, 900).expect("UDP_SEGMENT");
                sendto(a, client, &[0; 3], to).expect("the neighbours know each other");
                recvfrom(b, server, 0).expect("received");
                let before = [sent_packets(ka, "eth0"), sent_packets(kr, "eth1")];
                sendto(a, client, &[7; 4000], to).expect("sent");
                for len in [900, 900, 900, 900, 400] {
                    assert_eq!(recvfrom(b, server, 0).expect("received").0, vec![7; len]);
                }
                let after = [sent_packets(ka, "eth0"), sent_packets(kr, "eth1")];
                assert_eq!(after, before.map(|n| n + 1), "one packet all the way");
                set(a, client, 17, 103, 1480).expect("UDP_SEGMENT");
                assert_eq!(sendto(a, client, &[7; 4000], router), Err(Errno::EMSGSIZE));
                if family == INET {
                    // Too long for the far link: each datagram in fragments.
                    set(a, client, 0, 10, PMTUDISC_DONT).expect("IP_MTU_DISCOVER");
                    set(a, client, 17, 103, 1400).expect("UDP_SEGMENT");
                    sendto(a, client, &[8; 2000], to).expect("sent");
                    for len in [1400, 600] {
                        assert_eq!(recvfrom(b, server, 0).expect("received").0, vec![8; len]);
                    }
                }
                b.close(server).expect("closed");
            }
        });
    }
}

#[test]
fn a_connection_goes_through_a_path_that_is_narrower_by_a_little() {
    // Segments that were joined on the near link are too long for the far one by less than TCP's header.
    rows(1500, |a, b, [_, router, _]| {
        run(router, |cx| {
            let inet = Inet::of(cx).expect("a stack");
            let far = inet.interfaces().by_name(cx.cpu(), "eth1");
            far.expect("there").set_mtu(cx, 1490).expect("set");
        });
        let (l, _) = bound(b, INET, STREAM, "10.0.2.2:80");
        b.listen(l, 1).expect("listens");
        let fd = socket(a, INET, STREAM, 0);
        connect(a, fd, "10.0.2.2:80").expect("connected");
        let served = b.accept4(l, &mut [], &mut [], 0).expect("accepted") as i32;
        let data = vec![5; 60_000];
        assert_eq!(write(a, fd, &data), Ok(60_000));
        let mut got = 0;
        while got < data.len() {
            got += read(b, served, 65_536).expect("read").len();
        }
        assert_eq!(get(a, fd, 0, 14), Ok(1490), "IP_MTU");
    });
}

//! Who else is on the link: neighbours, routers.

use std::net::{IpAddr, Ipv4Addr};

use abi::Syscalls;
use inet::{IfThere, Inet, NeighbourState, Prefix, Route};

use crate::common::*;
use crate::frames::*;
use crate::link::attacked;
use crate::memory_use::most_more;

#[test]
fn a_flood_of_neighbours_fills_their_places_and_no_more() {
    attacked(|link| {
        let most = most_more(|| {
            for turn in 0..100 {
                link.inject((0..100).map(|n| {
                    let n = turn * 100 + n;
                    match n % 2 {
                        0 => arp(1, strange(n), near4(n), [10, 0, 0, 1]),
                        _ => solicitation(strange(n), near6(n), ours6()),
                    }
                }));
            }
        });
        assert!(most < 1 << 20, "{most}");
        let count = link.stack(|cx, inet| inet.neighbours(cx.cpu()).len());
        assert!(count <= 1024, "{count}");
        link.greet();
    });
}

#[test]
fn an_answer_that_nobody_asked_for_makes_no_neighbour_and_what_is_for_good_stays() {
    attacked(|link| {
        let (bank, mac) = (ip("10.0.0.77"), [2, 7, 7, 7, 7, 7]);
        let known = |addr: IpAddr| {
            link.stack(|cx, inet| {
                let all = inet.neighbours(cx.cpu());
                all.into_iter()
                    .find(|n| n.addr == addr)
                    .map(|n| (n.mac, n.state))
            })
        };
        link.stack(|cx, inet| {
            inet.set_neighbour(cx.cpu(), link.eth0.index(), bank, mac, true)
                .expect("set");
        });
        for operation in [1, 2] {
            link.inject([
                arp(operation, strange(1), [10, 0, 0, 77], [10, 0, 0, 1]),
                arp(operation, strange(1), [10, 0, 0, 78], [10, 0, 0, 9]),
                arp(operation, strange(1), [10, 0, 0, 1], [10, 0, 0, 1]),
            ]);
        }
        link.inject([advertisement(strange(1), near6(5), ours6())]);
        assert_eq!(known(bank), Some((Some(mac), NeighbourState::Permanent)));
        for stranger in ["10.0.0.78", "10.0.0.1"] {
            assert_eq!(known(ip(stranger)), None, "{stranger}");
        }
        assert_eq!(known(near6(5).into()), None);
    });
}

#[test]
fn packets_that_wait_for_neighbours_who_do_not_answer_are_bounded() {
    attacked(|link| {
        link.sysctl("net.inet.ip.forwarding", 1);
        let most = most_more(|| {
            for turn in 0..400u32 {
                link.inject((0..30).map(|_| {
                    let to = Ipv4Addr::from(0x0a00_1000 + turn);
                    ip4(from4(1), to, 17, 64, &udp(1, 1, &[0; 1400], from4(1), to))
                }));
            }
        });
        assert!(most < 6 << 20, "{most}");
        // Who answers is sent to all the same.
        link.greet();
        link.wait(10);
        assert!(most_more(|| link.greet()) < 256 << 10);
    });
}

#[test]
fn routers_prefixes_and_name_servers_are_taken_up_to_their_bounds() {
    attacked(|link| {
        let before = link.stack(|_, inet| (inet.routes().len(), inet.addresses().len()));
        let forged = |n: u32, hops: u8| router_advertisement(strange(n), hops, n, 1800);
        link.inject((0..50).map(|n| forged(n, 64)));
        let after = link.stack(|_, inet| (inet.routes().len(), inet.addresses().len()));
        assert_eq!(after, before, "from behind a router");
        let most = most_more(|| link.inject((0..2000).map(|n| forged(n, 255))));
        let (routes, addresses, servers) = link.stack(|cx, inet| {
            let servers = inet.name_servers(cx.cpu()).len();
            (inet.routes().len(), inet.addresses().len(), servers)
        });
        // 64 prefixes, 16 routers, and what each address brings along.
        assert!(routes <= before.0 + 64 + 16 + 3 * 16, "{routes}");
        assert!(addresses <= before.1 + 16, "{addresses}");
        assert!(servers <= 8, "{servers}");
        assert!(most < 2 << 20, "{most}");
        link.greet();
    });
}

#[test]
fn redirects_are_ignored() {
    attacked(|link| {
        let routes = |inet: &Inet| {
            inet.routes()
                .iter()
                .map(|r| format!("{r:?}"))
                .collect::<Vec<_>>()
        };
        let before = link.stack(|_, inet| routes(inet));
        let gateway = [10, 0, 0, 66];
        let to = Ipv4Addr::new(192, 0, 2, 1);
        let inner = ip4(ours4(), to, 17, 64, &udp(1, 1, &[], ours4(), to)).to_vec()[14..].to_vec();
        let redirect = [&[5u8, 1, 0, 0][..], &gateway, &inner].concat();
        link.inject([ip4(
            Ipv4Addr::new(10, 0, 0, 2),
            ours4(),
            1,
            64,
            &with_sum(redirect),
        )]);
        let mut redirect = vec![137, 0, 0, 0, 0, 0, 0, 0];
        redirect.extend(near6(66).octets());
        redirect.extend(from6(1).octets());
        link.inject([icmp6(near6(2), ours6(), 255, redirect)]);
        assert_eq!(link.stack(|_, inet| routes(inet)), before);
    });
}

#[test]
fn groups_are_reported_as_often_as_there_are_groups() {
    attacked(|link| {
        let fd = socket(&link.us, INET, DGRAM, 0);
        for n in 0..4 {
            let request = [239, 1, 1, n, 10, 0, 0, 1];
            link.us.setsockopt(fd, 0, 35, &request, 8).expect("joined");
        }
        link.wait(30);
        let before = link.sent();
        let most = most_more(|| {
            link.inject((0..2000).map(|n| {
                let query = with_sum(vec![0x11, 10, 0, 0, 0, 0, 0, 0]);
                ip4(near4(n).into(), Ipv4Addr::new(224, 0, 0, 1), 2, 1, &query)
            }));
        });
        link.wait(30);
        let sent = link.sent() - before;
        assert!(sent < 100, "{sent}");
        assert!(most < 128 << 10, "{most}");
    });
}

#[test]
fn a_packet_between_two_routers_ends() {
    attacked(|link| {
        link.sysctl("net.inet.ip.forwarding", 1);
        run(&link.friend, |cx| {
            let all = Prefix::new(ip("0.0.0.0"), 0).expect("a prefix");
            let back = Route::via(all, ip("10.0.0.1"), 0);
            let inet = Inet::of(cx).expect("a stack");
            inet.add_route(cx.cpu(), back, IfThere::Fail)
                .expect("added");
            cx.kernel()
                .sysctl()
                .write(cx, "net.inet.ip.forwarding", &1i64.to_le_bytes())
                .expect("set");
        });
        let before = link.sent();
        let to = Ipv4Addr::new(192, 0, 2, 1);
        link.inject([ip4(
            from4(1),
            to,
            17,
            255,
            &udp(1, 1, b"round", from4(1), to),
        )]);
        link.wait(5);
        let sent = link.sent() - before;
        assert!((100..=260).contains(&sent), "{sent}");
    });
}

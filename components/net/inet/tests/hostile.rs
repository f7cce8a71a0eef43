//! Whoever is on a link may send what he likes and as much as he likes: what it makes a kernel keep has bounds, each a number of bytes
//! here, and those who behave go on being served. Memory is counted by the allocator; time is the simulated host's.

mod common;
mod frames;
mod memory_use;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use abi::{Errno, Syscalls};
use common::*;
use frames::*;
use hypercall::sim::{SimConfig, SimHost};
use inet::{IfAddr, IfThere, Inet, NeighbourState, Prefix, Route};
use kern::{Curlwp, Kernel, KernelMemory, LwpHandle, RforkFds};
use memory_use::most_more;
use net::{Ifnet, Packet};

/// A kernel that is attacked, on a cable with a neighbour that behaves.
struct Link {
    kernel: Arc<Kernel>,
    friend: Arc<Kernel>,
    /// A program on the attacked kernel.
    us: LwpHandle,
    /// One on the other.
    them: LwpHandle,
    eth0: Arc<Ifnet>,
}

fn run<R>(kernel: &Arc<Kernel>, f: impl FnOnce(&Curlwp<'_>) -> R) -> R {
    kernel.implicit(&KernelMemory, f)
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn plug(kernel: &Arc<Kernel>, end: veth::End, last: u8) -> Arc<Ifnet> {
    run(kernel, |cx| {
        let with = veth::Plug {
            name: "eth0".into(),
            address: [2, 0, 0, 0, 0, last],
            mtu: 1500,
        };
        let interface = veth::plug(cx, end, with).expect("plugged");
        interface.set_up(cx, true).expect("up");
        let inet = Inet::of(cx).expect("a stack");
        for (addr, len) in [
            (format!("10.0.0.{last}"), 16),
            (format!("fd00::{last}"), 64),
        ] {
            let mut addr = IfAddr::new(interface.index(), ip(&addr), len);
            addr.nodad = true;
            inet.add_address(cx.cpu(), addr).expect("added");
        }
        interface
    })
}

/// Runs a test between `10.0.0.1` and `fd00::1`, which is attacked, and `10.0.0.2` and `fd00::2`, where everything else is behind.
fn attacked(body: fn(&Link)) {
    let sim = SimHost::run(SimConfig::new(7), move |host| {
        let [kernel, friend] = [(); 2].map(|()| boot_on(host.clone()));
        let (a, b) = veth::cable();
        let eth0 = plug(&kernel, a, 1);
        plug(&friend, b, 2);
        run(&kernel, |cx| {
            let inet = Inet::of(cx).expect("a stack");
            for via in ["10.0.0.2", "fd00::2"] {
                let all = match ip(via) {
                    IpAddr::V4(_) => ip("0.0.0.0"),
                    IpAddr::V6(_) => ip("::"),
                };
                let all = Prefix::new(all, 0).expect("a prefix");
                inet.add_route(cx.cpu(), Route::via(all, ip(via), 0), IfThere::Fail)
                    .expect("added");
            }
        });
        let link = Link {
            us: kernel.rfork(RforkFds::Clear).expect("a process"),
            them: friend.rfork(RforkFds::Clear).expect("a process"),
            kernel,
            friend,
            eth0,
        };
        // They know each other before it begins.
        link.greet();
        body(&link);
        let Link {
            kernel,
            friend,
            us,
            them,
            ..
        } = link;
        drop((us, them));
        for kernel in [kernel, friend] {
            kernel.shutdown(true).expect("halts");
        }
    });
    if let Err(failure) = &sim.result {
        panic!("{failure:?}\n{}", String::from_utf8_lossy(&sim.console));
    }
}

impl Link {
    /// Frames as they come in from the cable, from anybody.
    fn inject(&self, frames: impl IntoIterator<Item = Packet>) {
        run(&self.kernel, |cx| {
            for frame in frames {
                self.eth0.input(cx.cpu(), frame);
                cx.cpu().run_pending();
            }
        });
    }

    fn stack<R>(&self, f: impl FnOnce(&Curlwp<'_>, &Inet) -> R) -> R {
        run(&self.kernel, |cx| f(cx, &Inet::of(cx).expect("a stack")))
    }

    fn sysctl(&self, name: &str, value: i64) {
        run(&self.kernel, |cx| {
            cx.kernel()
                .sysctl()
                .write(cx, name, &value.to_le_bytes())
                .expect("set");
        });
    }

    /// Lets time pass.
    fn wait(&self, seconds: u64) {
        let memory = Memory::new(16);
        memory.put(0, &seconds.to_ne_bytes());
        let time = Memory::at(0).0;
        self.us
            .syscall(&memory, abi::nr::nanosleep, &[time, 0, 0, 0, 0, 0])
            .expect("slept");
    }

    /// A datagram there and back in each family.
    fn greet(&self) {
        for (family, at) in [(INET, "10.0.0.1:7"), (INET6, "[fd00::1]:7")] {
            let (server, _) = bound(&self.us, family, DGRAM, at);
            let client = socket(&self.them, family, DGRAM, 0);
            connect(&self.them, client, at).expect("connected");
            write(&self.them, client, b"hello").expect("sent");
            let (data, from) = recvfrom(&self.us, server, 0).expect("received");
            sendto(&self.us, server, &data, &from).expect("answered");
            assert_eq!(read(&self.them, client, 100), Ok(b"hello".to_vec()));
            self.us.close(server).expect("closed");
            self.them.close(client).expect("closed");
        }
    }

    /// Packets that the attacked kernel has sent.
    fn sent(&self) -> u64 {
        self.eth0
            .stats
            .tx_packets
            .load(std::sync::atomic::Ordering::Relaxed)
    }
}

#[test]
fn a_flood_of_syns_takes_bounded_memory_and_a_client_gets_in() {
    attacked(|link| {
        const LISTENERS: u16 = 4;
        for port in 0..LISTENERS {
            let (fd, _) = bound(&link.us, INET6, STREAM, &format!("[::]:{}", 80 + port));
            link.us.listen(fd, 128).expect("listens");
        }
        let most = most_more(|| {
            for turn in 0..100u32 {
                link.inject((0..100).map(|n| {
                    let n = turn * 100 + n;
                    let port = 80 + (n % 5) as u16;
                    match n % 2 {
                        0 => tcp4(from4(n), 1024 + (n / 7) as u16, port, SYN, n, 0, &[]),
                        _ => tcp6(from6(n), 1024 + (n / 7) as u16, port, SYN, n, 0, &[]),
                    }
                }));
            }
        });
        // Twice its backlog of handshakes for each listener, at half a kilobyte.
        assert!(most < usize::from(LISTENERS) * 256 * 512, "{most}");
        for to in ["10.0.0.1:80", "[fd00::1]:81"] {
            let family = if to.starts_with('[') { INET6 } else { INET };
            let client = socket(&link.them, family, STREAM, 0);
            connect(&link.them, client, to).expect("gets in");
        }
    });
}

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

#[test]
fn messages_that_nobody_reads_take_no_more_than_their_buffers() {
    attacked(|link| {
        for (family, to) in [(INET, "10.0.0.1:9"), (INET6, "[fd00::1]:9")] {
            bound(&link.us, family, DGRAM, to);
        }
        socket(&link.us, INET, RAW, 17);
        let buffers = 3 * 212_992;
        for len in [0, 1, 100, 1400] {
            let most = most_more(|| {
                for turn in 0..20 {
                    link.inject((0..100).map(|n| match (turn + n) % 2 {
                        0 => ip4(
                            from4(n),
                            ours4(),
                            17,
                            64,
                            &udp(7, 9, &vec![0; len], from4(n), ours4()),
                        ),
                        _ => ip6(
                            from6(n),
                            ours6(),
                            17,
                            64,
                            &udp(7, 9, &vec![0; len], from6(n), ours6()),
                        ),
                    }));
                }
            });
            assert!(most < buffers * 5 / 4, "{len}: {most}");
        }
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
fn a_full_accept_queue_takes_no_more_connections() {
    attacked(|link| {
        let (fd, _) = bound(&link.us, INET, STREAM, "10.0.0.1:80");
        link.us.listen(fd, 8).expect("listens");
        let mut clients = Vec::new();
        for _ in 0..100 {
            let client = socket(&link.them, INET, STREAM | NONBLOCK, 0);
            let _ = connect(&link.them, client, "10.0.0.1:80");
            clients.push(client);
        }
        link.wait(2);
        let connections = link.stack(|_, inet| inet.tcp_connections());
        assert!(connections <= 9, "{connections}");
        // Who was there first is let in when there is room, and so are others in their turn.
        for _ in 0..20 {
            link.us.accept4(fd, &mut [], &mut [], 0).expect("accepted");
        }
    });
}

/// So many connections from the other kernel to ours: descriptors there, and here.
fn connections(link: &Link, count: usize) -> Vec<(i32, i32)> {
    let (listener, to) = bound(&link.us, INET, STREAM, "10.0.0.1:80");
    link.us.listen(listener, count as i32).expect("listens");
    let connect_one = |_| {
        let client = socket(&link.them, INET, STREAM, 0);
        connect(&link.them, client, &to).expect("connected");
        let server = link
            .us
            .accept4(listener, &mut [], &mut [], NONBLOCK)
            .expect("accepted");
        (client, server as i32)
    };
    (0..count).map(connect_one).collect()
}

/// Sends as much as there is room for.
fn send_now(p: &LwpHandle, fd: i32, data: &[u8]) -> Result<i64, Errno> {
    p.sendto(fd, data, data.len(), 0x40, &[], 0)
}

#[test]
fn what_all_connections_keep_together_has_a_bound_and_everything_arrives() {
    attacked(|link| {
        const LIMIT: usize = 1 << 20;
        link.sysctl("net.inet.tcp.memory", LIMIT as i64);
        let pairs = connections(link, 40);
        let data = vec![7; 64 << 10];
        let mut sent = vec![0; pairs.len()];
        let fill = |sent: &mut [usize]| {
            for (n, (client, _)) in pairs.iter().enumerate() {
                while sent[n] < 200_000
                    && let Ok(more) = send_now(&link.them, *client, &data)
                {
                    sent[n] += more as usize;
                }
            }
            link.wait(1);
        };
        for _ in 0..10 {
            fill(&mut sent);
        }
        let waiting: usize = run(&link.kernel, |cx| {
            let sockets = Inet::of(cx).expect("a stack").sockets(cx);
            sockets.iter().map(|socket| socket.receive_queue).sum()
        });
        // What each may have whatever others have, and a segment that was let in last.
        assert!(
            waiting < LIMIT + pairs.len() * ((16 << 10) + 65_536),
            "{waiting}"
        );
        assert!(
            sent.iter().sum::<usize>() > 2 * LIMIT,
            "the senders had more"
        );
        let mut received = vec![0; pairs.len()];
        for _ in 0..400 {
            fill(&mut sent);
            for (n, (_, server)) in pairs.iter().enumerate() {
                while let Ok(data) = read(&link.us, *server, 65_536)
                    && !data.is_empty()
                {
                    received[n] += data.len();
                }
            }
            if received.iter().all(|n| *n >= 200_000) {
                return;
            }
        }
        panic!("{received:?} of {sent:?}");
    });
}

#[test]
fn connections_without_sockets_are_so_many_and_others_are_reset() {
    attacked(|link| {
        run(&link.friend, |cx| {
            cx.kernel()
                .sysctl()
                .write(cx, "net.ipv4.tcp_max_orphans", &5i64.to_le_bytes())
                .expect("set");
        });
        let pairs = connections(link, 30);
        for (client, _) in &pairs {
            // More than fits, so that the window is shut and the connection cannot end.
            while send_now(&link.them, *client, &[0; 16_384]).is_ok() {}
            link.wait(1);
            while send_now(&link.them, *client, &[0; 16_384]).is_ok() {}
        }
        for (client, _) in &pairs {
            link.them.close(*client).expect("closed");
        }
        link.wait(1);
        let left = run(&link.friend, |cx| {
            Inet::of(cx).expect("a stack").tcp_connections()
        });
        assert_eq!(left, 5);
    });
}

#[test]
fn a_process_has_so_many_sockets() {
    attacked(|link| {
        let most = most_more(|| {
            let mut count = 0;
            while link.us.socket(INET, STREAM, 0).is_ok() {
                count += 1;
                assert!(count <= 1024, "as many as RLIMIT_NOFILE says");
            }
            assert_eq!(link.us.socket(INET, DGRAM, 0), Err(Errno::EMFILE));
        });
        assert!(most < 1024 * 2048, "{most}");
    });
}

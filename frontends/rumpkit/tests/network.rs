//! Kernels on one link: addresses, routes and neighbours by netlink, echoes and datagrams over Ethernet, IPv4 and IPv6.

use std::sync::Arc;

use abi::{Errno, Syscalls};
use rumpkit::hypercall::Host;
use rumpkit::hypercall::sim::{SimConfig, SimHost};
use rumpkit::veth::{Plug, cable, plug};
use rumpkit::{InterfaceChange, Kernel, PosixHost, Process};

const ICMP: i32 = 1;
const ICMPV6: i32 = 58;
const INET: i32 = 2;
const INET6: i32 = 10;
const DGRAM: i32 = 2;

/// Two kernels with a cable between their interfaces `eth0`, which are up.
fn neighbours(host: &Arc<dyn Host>) -> [Arc<Kernel>; 2] {
    let (a, b) = cable();
    let mut end = Some((a, 1));
    let mut next = Some((b, 2));
    std::array::from_fn(|_| {
        let (end, number) = end.take().or_else(|| next.take()).expect("two ends");
        let kernel = rumpkit::builder_on(host.clone()).boot().expect("boots");
        let config = Plug {
            name: "eth0".into(),
            address: [2, 0, 0, 0, 0, number],
            mtu: 1500,
        };
        kernel
            .implicit(&rumpkit::kern::KernelMemory, |cx| {
                plug(cx, end, config).map(drop)
            })
            .expect("plugged in");
        up(&Process::new(&kernel).expect("a process"), &["lo", "eth0"]);
        kernel
    })
}

fn up<S: rumpkit::Invoke>(process: &Process<S>, names: &[&str]) {
    for name in names {
        let index = process.interface(name).expect(name).index;
        let change = InterfaceChange {
            up: Some(true),
            ..InterfaceChange::default()
        };
        process.change_interface(index, &change).expect("up");
    }
}

fn sockaddr(ip: &str, port: u16) -> Vec<u8> {
    let port = port.to_be_bytes();
    match ip.parse().expect(ip) {
        std::net::IpAddr::V4(ip) => [&[2, 0], &port[..], &ip.octets(), &[0; 8]].concat(),
        std::net::IpAddr::V6(ip) => [&[10, 0], &port[..], &[0; 4], &ip.octets(), &[0; 4]].concat(),
    }
}

/// Sends an echo request and waits for the answer, for a second of the kernel's time.
fn ping<S: rumpkit::Invoke>(process: &Process<S>, to: &str) -> Result<Vec<u8>, Errno> {
    let v6 = to.contains(':');
    let sys = process.sys();
    let (family, protocol, kind) = if v6 {
        (INET6, ICMPV6, 128)
    } else {
        (INET, ICMP, 8)
    };
    let fd = sys.socket(family, DGRAM, protocol)? as i32;
    let ten_seconds = [10u64.to_le_bytes(), [0; 8]].concat();
    sys.setsockopt(fd, 1, 20, &ten_seconds, 16)?;
    let message = [&[kind, 0, 0, 0, 0, 0, 0, 7], &b"echo!"[..]].concat();
    let to = sockaddr(to, 0);
    sys.sendto(fd, &message, message.len(), 0, &to, to.len())?;
    let mut answer = vec![0; 100];
    let n = sys.recvfrom(fd, &mut answer, 100, 0, &mut [], &mut []);
    let _ = sys.close(fd);
    answer.truncate(n? as usize);
    Ok(answer)
}

fn on_posix() -> Arc<dyn Host> {
    PosixHost::new()
}

#[test]
fn neighbours_find_and_answer_each_other() {
    let [a, b] = neighbours(&on_posix());
    let [pa, pb] = [&a, &b].map(|k| Process::new(k).expect("a process"));
    for (process, last) in [(&pa, 1), (&pb, 2)] {
        let index = process.interface("eth0").expect("eth0").index;
        process
            .add_address(index, format!("10.0.0.{last}").parse().expect("ip"), 24)
            .expect("an address");
        process
            .add_address(index, format!("fd00::{last}").parse().expect("ip"), 64)
            .expect("an address");
    }
    let answer = ping(&pa, "10.0.0.2").expect("an answer");
    assert_eq!((answer[0], &answer[8..]), (0, &b"echo!"[..]));
    let known = pa.neighbours(false).expect("neighbours");
    assert_eq!(known.len(), 1);
    assert_eq!(known[0].mac.as_deref(), Some(&[2, 0, 0, 0, 0, 2][..]));
    assert_eq!(known[0].state, "reachable");
    assert_eq!(ping(&pb, "10.0.0.1").map(|a| a[0]), Ok(0));
    assert_eq!(ping(&pa, "10.1.0.1"), Err(Errno::ENETUNREACH));
}

#[test]
fn addresses_of_ipv6_are_used_at_once_and_probed_meanwhile() {
    let run = SimHost::run(SimConfig::new(7), |host| {
        let host: Arc<dyn Host> = host.clone();
        let [a, b] = neighbours(&host);
        let [pa, pb] = [&a, &b].map(|k| Process::new(k).expect("a process"));
        for (process, last) in [(&pa, 1), (&pb, 2)] {
            let index = process.interface("eth0").expect("eth0").index;
            process
                .add_address(index, format!("fd00::{last}").parse().expect("ip"), 64)
                .expect("an address");
        }
        let tentative = |p: &Process<_>| {
            p.addresses()
                .expect("addresses")
                .iter()
                .filter(|a| a.tentative)
                .count()
        };
        assert_eq!(tentative(&pa), 2, "fe80:: and fd00::");
        assert_eq!(ping(&pa, "fd00::2").map(|a| a[0]), Ok(129), "both are");
        wait(&pa, 5);
        assert_eq!(tentative(&pa), 0);
        assert_eq!(ping(&pa, "fd00::2").map(|a| a[0]), Ok(129));
        assert_eq!(ping(&pa, "fd00::9"), Err(Errno::EAGAIN), "nobody has it");
        let state = pa
            .neighbours(true)
            .expect("neighbours")
            .into_iter()
            .find(|n| n.address.to_string() == "fd00::9");
        assert_eq!(state.map(|n| n.state).as_deref(), Some("failed"));
        // Whoever comes second finds that the address is taken, and leaves it.
        let index = pb.interface("eth0").expect("eth0").index;
        pb.add_address(index, "fd00::1".parse().expect("ip"), 64)
            .expect("an address");
        wait(&pb, 5);
        let taken: Vec<_> = pb
            .addresses()
            .expect("addresses")
            .into_iter()
            .filter(|a| a.tentative)
            .collect();
        assert_eq!(taken.len(), 1);
        assert_eq!(
            taken[0].address,
            "fd00::1".parse::<std::net::IpAddr>().expect("ip")
        );
        assert_eq!(
            ping(&pb, "fd00::1").map(|a| a[0]),
            Ok(129),
            "of the one who had it first"
        );
        for kernel in [a, b] {
            kernel.shutdown(true).expect("down");
        }
    });
    assert!(run.result.is_ok(), "{:?}", run.result.err());
}

fn wait<S: rumpkit::Invoke>(process: &Process<S>, seconds: u64) {
    let time = [seconds.to_le_bytes(), [0; 8]].concat();
    let time: [u8; 16] = time.try_into().expect("a timespec");
    process.sys().nanosleep(&time, &mut []).expect("slept");
}

#[test]
fn routes_and_addresses_come_go_and_are_listed() {
    let [a, _b] = neighbours(&on_posix());
    let p = Process::new(&a).expect("a process");
    let ip = |text: &str| -> std::net::IpAddr { text.parse().expect(text) };
    let index = p.interface("eth0").expect("eth0").index;
    assert_eq!(
        p.add_route(None, Some(ip("10.0.0.254")), 0)
            .map_err(|e| e.raw_os_error()),
        Err(Some(101))
    );
    p.add_address(index, ip("10.0.0.1"), 24)
        .expect("an address");
    let again = p.add_address(index, ip("10.0.0.1"), 24);
    assert_eq!(again.map_err(|e| e.raw_os_error()), Err(Some(17)));
    p.add_route(None, Some(ip("10.0.0.254")), 0)
        .expect("a default route");
    let behind = p.add_route(Some((ip("172.16.0.0"), 12)), Some(ip("8.8.8.8")), 0);
    assert_eq!(
        behind.map_err(|e| e.raw_os_error()),
        Err(Some(101)),
        "a router behind a router"
    );
    p.add_route(Some((ip("192.168.7.0"), 24)), Some(ip("10.0.0.7")), index)
        .expect("a route");
    let main: Vec<_> = p
        .routes()
        .expect("routes")
        .into_iter()
        .filter(|r| !r.v6 && r.table == 254)
        .collect();
    assert_eq!(main.len(), 3, "{main:?}");
    assert!(
        main.iter()
            .any(|r| r.destination.is_none() && r.gateway == Some(ip("10.0.0.254")))
    );
    assert!(
        main.iter().any(
            |r| r.destination == Some((ip("10.0.0.0"), 24)) && r.source == Some(ip("10.0.0.1"))
        )
    );
    p.remove_route(Some((ip("192.168.7.0"), 24)), None, 0)
        .expect("removed");
    let gone = p.remove_route(Some((ip("192.168.7.0"), 24)), None, 0);
    assert_eq!(gone.map_err(|e| e.raw_os_error()), Err(Some(3)));
    p.set_neighbour(index, ip("10.0.0.7"), &[2, 0, 0, 0, 0, 7])
        .expect("set");
    assert_eq!(
        p.neighbours(false).expect("neighbours")[0].state,
        "permanent"
    );
    p.remove_neighbour(index, ip("10.0.0.7"))
        .expect("forgotten");
    assert!(p.neighbours(false).expect("neighbours").is_empty());
    p.remove_address(index, ip("10.0.0.1"), 24)
        .expect("removed");
    let left: Vec<_> = p
        .routes()
        .expect("routes")
        .into_iter()
        .filter(|r| !r.v6 && r.table == 254)
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn changes_are_told_to_those_who_listen() {
    let [a, _b] = neighbours(&on_posix());
    let p = Process::new(&a).expect("a process");
    let sys = p.sys();
    let fd = sys.socket(16, 3 | 0o4000, 0).expect("a netlink socket") as i32;
    // RTMGRP_LINK and RTMGRP_IPV4_IFADDR.
    let addr = [&[16, 0, 0, 0, 0, 0, 0, 0], &0x11u32.to_le_bytes()[..]].concat();
    sys.bind(fd, &addr, addr.len()).expect("bound");
    let mut buf = vec![0; 8192];
    assert_eq!(
        sys.recvfrom(fd, &mut buf, 8192, 0, &mut [], &mut []),
        Err(Errno::EAGAIN)
    );
    let index = p.interface("eth0").expect("eth0").index;
    p.add_address(index, "10.0.0.1".parse().expect("ip"), 24)
        .expect("an address");
    sys.recvfrom(fd, &mut buf, 8192, 0, &mut [], &mut [])
        .expect("news");
    assert_eq!(buf[4], 20, "RTM_NEWADDR");
    let down = InterfaceChange {
        up: Some(false),
        ..InterfaceChange::default()
    };
    p.change_interface(index, &down).expect("down");
    sys.recvfrom(fd, &mut buf, 8192, 0, &mut [], &mut [])
        .expect("news");
    assert_eq!(buf[4], 16, "RTM_NEWLINK");
    p.sys().setuid(1000).expect("another user");
    assert_eq!(
        p.change_interface(index, &down)
            .map_err(|e| e.raw_os_error()),
        Err(Some(1))
    );
}

#[test]
fn interfaces_are_made_and_taken_away_by_name() {
    let [a, _b] = neighbours(&on_posix());
    let p = Process::new(&a).expect("a process");
    p.create_interface("veth", "peer=far0").expect("a pair");
    let names: Vec<_> = p
        .interfaces()
        .expect("interfaces")
        .into_iter()
        .map(|i| i.name)
        .collect();
    assert_eq!(names, ["lo", "eth0", "veth0", "far0"]);
    p.destroy_interface("veth0").expect("gone");
    assert_eq!(
        p.create_interface("wifi0", "")
            .map_err(|e| e.raw_os_error()),
        Err(Some(95))
    );
    assert!(String::from_utf8_lossy(&a.messages()).contains("wifi: no such kind of interface"));
    assert_eq!(
        p.destroy_interface("lo").map_err(|e| e.raw_os_error()),
        Err(Some(95))
    );
}

#[test]
fn sockets_are_listed_with_both_ends() {
    let [a, _b] = neighbours(&on_posix());
    let p = Process::new(&a).expect("a process");
    let sys = p.sys();
    let fd = sys.socket(INET, DGRAM, 0).expect("a socket") as i32;
    let to = sockaddr("127.0.0.1", 53);
    sys.connect(fd, &to, to.len()).expect("connected");
    let listener = sys.socket(INET6, 1, 0).expect("a socket") as i32;
    let at = sockaddr("::1", 80);
    sys.bind(listener, &at, at.len()).expect("bound");
    sys.listen(listener, 7).expect("listens");
    let all = p.sockets().expect("sockets");
    let text: Vec<_> = all
        .iter()
        .map(|s| {
            format!(
                "{} {} {}",
                s.protocol,
                s.remote.map_or("-".into(), |r| r.to_string()),
                s.state
            )
        })
        .collect();
    assert_eq!(text, ["tcp6 - listen", "udp 127.0.0.1:53 established"]);
    assert_eq!(all[0].local.to_string(), "[::1]:80");
    assert_eq!(all[0].send_queue, 7);
}

/// What sock_diag answers to a request for all sockets of a family: the messages without their headers.
fn sock_diag(p: &Process, request: &[u8]) -> Vec<Vec<u8>> {
    let sys = p.sys();
    let fd = sys.socket(16, 3, 4).expect("a netlink socket") as i32;
    let len = 16 + request.len() as u32;
    let head = [len.to_le_bytes(), [20, 0, 1, 3], [7, 0, 0, 0], [0; 4]].concat();
    let whole = [head, request.to_vec()].concat();
    sys.sendto(fd, &whole, whole.len(), 0, &[], 0)
        .expect("asked");
    let mut out = Vec::new();
    loop {
        let mut buf = vec![0; 16384];
        let n = sys
            .recvfrom(fd, &mut buf, 16384, 0, &mut [], &mut [])
            .expect("an answer");
        let mut rest = &buf[..n as usize];
        while let Some(len) = rest.first_chunk().map(|l| u32::from_le_bytes(*l) as usize) {
            match rest[4] {
                20 => out.push(rest[16..len].to_vec()),
                3 => {
                    sys.close(fd).expect("closed");
                    return out;
                }
                _ => panic!("{rest:?}"),
            }
            rest = rest.get(len.next_multiple_of(4)..).unwrap_or(&[]);
        }
    }
}

#[test]
fn local_packet_and_netlink_sockets_are_listed() {
    let [a, _b] = neighbours(&on_posix());
    let p = Process::new(&a).expect("a process");
    let sys = p.sys();
    // States, number, what to show: name, peer and queues.
    let mut request = vec![
        1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0x15, 0, 0, 0,
    ];
    request.resize(24, 0);
    let local = |what: &str| {
        let all = sock_diag(&p, &request);
        // Type, state, number, attributes.
        let each = all.iter().map(|m| (m[1], m[2], m[4], m[16..].to_vec()));
        let each: Vec<_> = each.collect();
        assert!(all.iter().all(|m| m[0] == 1), "{what}");
        each
    };
    assert_eq!(local("none yet"), []);
    let server = sys.socket(1, 1, 0).expect("a socket") as i32;
    let name = b"\x01\0\0inbox";
    sys.bind(server, name, name.len()).expect("bound");
    sys.listen(server, 5).expect("listens");
    let client = sys.socket(1, 1, 0).expect("a socket") as i32;
    sys.connect(client, name, name.len()).expect("connected");
    sys.write(client, b"four", 4).expect("sent");
    let named = [&[10, 0, 0, 0][..], b"\0inbox", &[0, 0]].concat();
    let peer = |n| vec![8, 0, 2, 0, n, 0, 0, 0];
    let queues = |r, s| vec![12, 0, 4, 0, r, 0, 0, 0, s, 0, 0, 0];
    assert_eq!(
        local("three"),
        [
            (1, 10, 1, [named.clone(), queues(1, 5)].concat()),
            (1, 1, 2, [peer(3), queues(0, 4)].concat()),
            (1, 1, 3, [named, peer(2), queues(4, 0)].concat()),
        ]
    );
    for fd in [client, server] {
        sys.close(fd).expect("closed");
    }
    assert_eq!(local("none any more"), []);

    let fd = sys.socket(17, 3, 0x0300).expect("a packet socket") as i32;
    let all = sock_diag(
        &p,
        &[17, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    );
    assert_eq!(all.len(), 1);
    assert_eq!(all[0][..4], [17, 3, 3, 0], "ETH_P_ALL");
    sys.close(fd).expect("closed");
    let all = sock_diag(
        &p,
        &[
            16, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ],
    );
    assert_eq!(all.len(), 1, "the one that asks");
    assert_eq!(all[0][..4], [16, 3, 4, 7]);
}

//! Two kernels on a cable, of which one plays the router: what it is told of the other's groups, and what reaches sockets. Time is the
//! simulated host's.

mod common;

use std::sync::Arc;

use abi::{Errno, Syscalls};
use common::*;
use kern::{Kernel, LwpHandle};

const MSG_DONTWAIT: i32 = 0x40;

const IP_MULTICAST_IF: i32 = 32;
const IP_ADD_MEMBERSHIP: i32 = 35;
const IP_DROP_MEMBERSHIP: i32 = 36;
const IP_UNBLOCK_SOURCE: i32 = 37;
const IP_BLOCK_SOURCE: i32 = 38;
const IP_ADD_SOURCE_MEMBERSHIP: i32 = 39;
const IP_DROP_SOURCE_MEMBERSHIP: i32 = 40;
const IP_MSFILTER: i32 = 41;
const MCAST_JOIN_GROUP: i32 = 42;
const MCAST_BLOCK_SOURCE: i32 = 43;
const MCAST_UNBLOCK_SOURCE: i32 = 44;
const MCAST_LEAVE_GROUP: i32 = 45;
const MCAST_JOIN_SOURCE_GROUP: i32 = 46;
const MCAST_LEAVE_SOURCE_GROUP: i32 = 47;
const MCAST_MSFILTER: i32 = 48;
const IP_MULTICAST_ALL: i32 = 49;

/// Types of group records.
const IS_INCLUDE: u8 = 1;
const IS_EXCLUDE: u8 = 2;
const TO_EXCLUDE: u8 = 4;
const ALLOW: u8 = 5;
const BLOCK: u8 = 6;

/// Host `a` (10.0.0.2, fe80::2) and router `r` (10.0.0.1, and 10.0.0.11 to send from; fe80::1).
fn linked(body: fn(&LwpHandle, &LwpHandle, [&Arc<Kernel>; 2])) {
    for seed in 0..4 {
        kernels(seed, move |_, [a, r]| {
            let (a_end, r_end) = veth::cable();
            plug(a, a_end, "eth0", 1500, 1, &["10.0.0.2/24", "fe80::2/64"]);
            let both = ["10.0.0.1/24", "10.0.0.11/24", "fe80::1/64"];
            plug(r, r_end, "eth0", 1500, 2, &both);
            body(&process_of(a), &process_of(r), [a, r]);
        });
    }
}

fn octets(addrs: &[&str]) -> Vec<u8> {
    addrs
        .iter()
        .flat_map(|a| match ip(a) {
            std::net::IpAddr::V4(a) => a.octets().to_vec(),
            std::net::IpAddr::V6(a) => a.octets().to_vec(),
        })
        .collect()
}

fn option(p: &LwpHandle, fd: i32, level: i32, name: i32, value: &[u8]) -> Result<i64, Errno> {
    p.setsockopt(fd, level, name, value, value.len())
}

/// An option of IPv4 by its addresses.
fn option4(p: &LwpHandle, fd: i32, name: i32, addrs: &[&str]) -> Result<i64, Errno> {
    option(p, fd, 0, name, &octets(addrs))
}

/// An option of both families: an interface's index and addresses.
fn option_both(
    p: &LwpHandle,
    fd: i32,
    level: i32,
    name: i32,
    addrs: &[&str],
) -> Result<i64, Errno> {
    option(p, fd, level, name, &group_req(2, addrs))
}

fn group_req(interface: u32, addrs: &[&str]) -> Vec<u8> {
    let mut out = u64::from(interface).to_ne_bytes().to_vec();
    for addr in addrs {
        let text = if addr.contains(':') {
            format!("[{addr}]:0")
        } else {
            format!("{addr}:0")
        };
        let end = out.len() + 128;
        out.extend(sockaddr(&text));
        out.resize(end, 0);
    }
    out
}

/// The router's ear for reports of IGMPv3.
fn router4(r: &LwpHandle) -> i32 {
    let fd = socket(r, INET, RAW, 2);
    option4(r, fd, IP_ADD_MEMBERSHIP, &["224.0.0.22", "10.0.0.1"]).expect("joined");
    fd
}

/// The next IGMP message of the host, without IP's header.
fn igmp(r: &LwpHandle, fd: i32) -> Vec<u8> {
    loop {
        let (packet, from) = recvfrom(r, fd, 0).expect("received");
        if from == "10.0.0.2:0" {
            assert_eq!(packet[8], 1, "hops");
            assert_eq!(packet[20..24], [148, 4, 0, 0], "the router alert");
            return packet[24..].to_vec();
        }
    }
}

/// The records of a report: type, group, sources.
fn records(report: &[u8], len: usize) -> Vec<(u8, Vec<u8>, Vec<Vec<u8>>)> {
    let mut rest = &report[8..];
    let mut out = Vec::new();
    for _ in 0..u16::from_be_bytes([report[6], report[7]]) {
        let sources = usize::from(u16::from_be_bytes([rest[2], rest[3]]));
        let list = rest[4 + len..][..sources * len].chunks(len);
        out.push((
            rest[0],
            rest[4..][..len].to_vec(),
            list.map(<[u8]>::to_vec).collect(),
        ));
        rest = &rest[4 + len + sources * len..];
    }
    assert!(rest.is_empty());
    out
}

fn record(kind: u8, group: &str, sources: &[&str]) -> (u8, Vec<u8>, Vec<Vec<u8>>) {
    (
        kind,
        octets(&[group]),
        sources.iter().map(|s| octets(&[s])).collect(),
    )
}

/// An IGMP message with its checksum.
fn summed(mut message: Vec<u8>) -> Vec<u8> {
    let words = message
        .chunks(2)
        .map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])));
    let sum: u32 = words.sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

#[test]
fn rfc3376_routers_are_told_of_sources_and_asked_for_them() {
    linked(|a, r, _| {
        let ear = router4(r);
        let (fd, _) = bound(a, INET, DGRAM, "0.0.0.0:98");
        let sources = ["232.1.1.1", "10.0.0.2", "10.0.0.1"];
        option4(a, fd, IP_ADD_SOURCE_MEMBERSHIP, &sources).expect("joined");
        for _ in 0..2 {
            let told = igmp(r, ear);
            assert_eq!(told[0], 0x22);
            assert_eq!(
                records(&told, 4),
                [record(ALLOW, "232.1.1.1", &["10.0.0.1"])]
            );
        }
        // Another socket that wants all but one changes what the interface wants.
        let (other, _) = bound(a, INET, DGRAM, "0.0.0.0:97");
        option4(a, other, IP_ADD_MEMBERSHIP, &["232.1.1.1", "10.0.0.2"]).expect("joined");
        for _ in 0..2 {
            let all = record(TO_EXCLUDE, "232.1.1.1", &[]);
            assert_eq!(records(&igmp(r, ear), 4), [all]);
        }
        let blocked = ["232.1.1.1", "10.0.0.2", "10.0.0.9"];
        option4(a, other, IP_BLOCK_SOURCE, &blocked).expect("blocked");
        for _ in 0..2 {
            let block = record(BLOCK, "232.1.1.1", &["10.0.0.9"]);
            assert_eq!(records(&igmp(r, ear), 4), [block]);
        }
        let mut query = vec![0x11, 10, 0, 0, 0, 0, 0, 0, 2, 125, 0, 0];
        let all = [record(IS_EXCLUDE, "232.1.1.1", &["10.0.0.9"])];
        sendto(r, ear, &summed(query.clone()), "224.0.0.1:0").expect("asked");
        assert_eq!(records(&igmp(r, ear), 4), all);
        query[4..8].copy_from_slice(&[232, 1, 1, 1]);
        query[11] = 2;
        query.extend(octets(&["10.0.0.9", "10.0.0.7"]));
        sendto(r, ear, &summed(query), "232.1.1.1:0").expect("asked");
        let one = record(IS_INCLUDE, "232.1.1.1", &["10.0.0.7"]);
        assert_eq!(records(&igmp(r, ear), 4), [one]);
        a.close(other).expect("closed");
        let told = records(&igmp(r, ear), 4);
        assert_eq!(told, [record(3, "232.1.1.1", &["10.0.0.1"])], "TO_INCLUDE");
    });
}

#[test]
fn rfc2236_a_router_of_the_older_version_is_answered_in_its_words() {
    linked(|a, r, _| {
        let ear = router4(r);
        for group in ["224.5.6.7", "224.0.0.2"] {
            option4(r, ear, IP_ADD_MEMBERSHIP, &[group, "10.0.0.1"]).expect("joined");
        }
        sendto(
            r,
            ear,
            &summed(vec![0x11, 10, 0, 0, 0, 0, 0, 0]),
            "224.0.0.1:0",
        )
        .expect("asked");
        let (fd, _) = bound(a, INET, DGRAM, "0.0.0.0:98");
        // Whoever hears the query first: the socket that asks, then the router's own.
        option4(a, fd, IP_ADD_MEMBERSHIP, &["224.5.6.7", "10.0.0.2"]).expect("joined");
        loop {
            let told = igmp(r, ear);
            if told[0] == 0x16 {
                assert_eq!(told[4..8], [224, 5, 6, 7]);
                break;
            }
        }
        option4(a, fd, IP_DROP_MEMBERSHIP, &["224.5.6.7", "10.0.0.2"]).expect("left");
        loop {
            let told = igmp(r, ear);
            if told[0] == 0x17 {
                assert_eq!(told[4..8], [224, 5, 6, 7]);
                break;
            }
        }
    });
}

#[test]
fn rfc3810_routers_of_ipv6_are_told_and_asked() {
    linked(|a, r, _| {
        let ear = socket(r, INET6, RAW, 58);
        let routers = [&octets(&["ff02::16"])[..], &2u32.to_ne_bytes()].concat();
        option(r, ear, 41, 20, &routers).expect("joined");
        set(r, ear, 41, 17, 2).expect("IPV6_MULTICAST_IF");
        set(r, ear, 41, 19, 0).expect("IPV6_MULTICAST_LOOP");
        let (fd, _) = bound(a, INET6, DGRAM, "[::]:98");
        let group = ["ff15::1:2", "fe80::1"];
        option_both(a, fd, 41, MCAST_JOIN_SOURCE_GROUP, &group).expect("joined");
        let report = || loop {
            let (message, from) = recvfrom(r, ear, 0).expect("received");
            if message[0] == 143 && from.starts_with("[fe80::") {
                let told = records(&message, 16);
                let of_group = told.into_iter().find(|t| t.1 == octets(&["ff15::1:2"]));
                if let Some(told) = of_group {
                    return told;
                }
            }
        };
        for _ in 0..2 {
            assert_eq!(report(), record(ALLOW, "ff15::1:2", &["fe80::1"]));
        }
        let mut query = vec![130, 0, 0, 0, 3, 0xe8, 0, 0];
        query.extend([0; 16]);
        query.extend([2, 125, 0, 0]);
        sendto(r, ear, &query, "[ff02::1]:0").expect("asked");
        assert_eq!(report(), record(IS_INCLUDE, "ff15::1:2", &["fe80::1"]));
        // A router of the first version.
        let heard = [&octets(&["ff15::1:2"])[..], &2u32.to_ne_bytes()].concat();
        option(r, ear, 41, 20, &heard).expect("joined");
        query.truncate(24);
        sendto(r, ear, &query, "[ff02::1]:0").expect("asked");
        loop {
            let (message, from) = recvfrom(r, ear, 0).expect("received");
            let of_group = message.get(8..24) == Some(&octets(&["ff15::1:2"])[..]);
            if message[0] == 131 && of_group && from.starts_with("[fe80::") {
                break;
            }
        }
    });
}

#[test]
fn rfc3678_sockets_hear_the_sources_they_want() {
    linked(|a, r, _| {
        let group = "232.1.1.1";
        let speak = |from: &str, text: &str| {
            let (fd, _) = bound(r, INET, DGRAM, &format!("{from}:0"));
            option4(r, fd, IP_MULTICAST_IF, &["10.0.0.1"]).expect("set");
            sendto(r, fd, text.as_bytes(), "232.1.1.1:98").expect("sent");
            sendto(r, fd, b"mark", "10.0.0.2:98").expect("sent");
            r.close(fd).expect("closed");
        };
        let (fd, _) = bound(a, INET, DGRAM, "0.0.0.0:98");
        set(a, fd, 0, IP_MULTICAST_ALL, 0).expect("set");
        // Every round ends with a datagram to the socket itself, so nothing has to be waited for in vain.
        let heard = || {
            let mut out = Vec::new();
            for from in ["10.0.0.1", "10.0.0.11"] {
                speak(from, from);
                loop {
                    let data = recvfrom(a, fd, 0).expect("received").0;
                    if data == b"mark" {
                        break;
                    }
                    out.push(String::from_utf8(data).expect("text"));
                }
            }
            out
        };
        let (one, two) = ("10.0.0.1", "10.0.0.11");
        let with = |source: &'static str| [group, "10.0.0.2", source];
        assert_eq!(heard(), [""; 0], "no member");
        option4(a, fd, IP_ADD_SOURCE_MEMBERSHIP, &with(one)).expect("joined");
        assert_eq!(heard(), [one]);
        option4(a, fd, IP_ADD_SOURCE_MEMBERSHIP, &with(two)).expect("joined");
        assert_eq!(heard(), [one, two]);
        option4(a, fd, IP_DROP_SOURCE_MEMBERSHIP, &with(one)).expect("left");
        assert_eq!(heard(), [two]);
        option4(a, fd, IP_DROP_SOURCE_MEMBERSHIP, &with(two)).expect("left");
        assert_eq!(heard(), [""; 0]);
        option4(a, fd, IP_ADD_MEMBERSHIP, &[group, "10.0.0.2"]).expect("joined");
        assert_eq!(heard(), [one, two]);
        option4(a, fd, IP_BLOCK_SOURCE, &with(one)).expect("blocked");
        assert_eq!(heard(), [two]);
        option4(a, fd, IP_UNBLOCK_SOURCE, &with(one)).expect("unblocked");
        assert_eq!(heard(), [one, two]);
        option4(a, fd, IP_DROP_MEMBERSHIP, &[group, "10.0.0.2"]).expect("left");
        assert_eq!(heard(), [""; 0]);
        // The same in the words of both families.
        let both = |name, source| option_both(a, fd, 0, name, &[group, source]);
        both(MCAST_JOIN_SOURCE_GROUP, one).expect("joined");
        assert_eq!(heard(), [one]);
        both(MCAST_LEAVE_SOURCE_GROUP, one).expect("left");
        option_both(a, fd, 0, MCAST_JOIN_GROUP, &[group]).expect("joined");
        both(MCAST_BLOCK_SOURCE, two).expect("blocked");
        assert_eq!(heard(), [one]);
        both(MCAST_UNBLOCK_SOURCE, two).expect("unblocked");
        assert_eq!(heard(), [one, two]);
        option_both(a, fd, 0, MCAST_LEAVE_GROUP, &[group]).expect("left");
        // Who has joined nothing hears what the kernel is a member of, unless it shall not.
        let (other, _) = bound(a, INET, DGRAM, "0.0.0.0:97");
        option4(a, other, IP_ADD_MEMBERSHIP, &[group, "10.0.0.2"]).expect("joined");
        assert_eq!(heard(), [""; 0]);
        set(a, fd, 0, IP_MULTICAST_ALL, 1).expect("set");
        assert_eq!(heard(), [one, two]);
    });
}

#[test]
fn rfc3678_whole_filters_are_set_and_read() {
    linked(|a, _, _| {
        let (fd, _) = bound(a, INET, DGRAM, "0.0.0.0:98");
        let head = octets(&["232.1.1.1", "10.0.0.2"]);
        let filter = |mode: u32, sources: &[&str]| {
            let count = sources.len() as u32;
            let numbers = [mode.to_ne_bytes(), count.to_ne_bytes()].concat();
            [head.clone(), numbers, octets(sources)].concat()
        };
        let read = |room: u32| {
            let mut value = filter(0, &[]);
            value[12..16].copy_from_slice(&room.to_ne_bytes());
            value.resize(64, 0);
            let mut len = 64u32.to_ne_bytes();
            a.getsockopt(fd, 0, IP_MSFILTER, &mut value, &mut len)?;
            value.truncate(u32::from_ne_bytes(len) as usize);
            Ok(value)
        };
        let set = |value: &[u8]| option(a, fd, 0, IP_MSFILTER, value);
        assert_eq!(
            set(&filter(1, &["10.0.0.1"])),
            Err(Errno::EINVAL),
            "not joined"
        );
        assert_eq!(read(8), Err(Errno::EADDRNOTAVAIL));
        option4(a, fd, IP_ADD_MEMBERSHIP, &["232.1.1.1", "10.0.0.2"]).expect("joined");
        assert_eq!(read(8), Ok(filter(0, &[])));
        let two = filter(1, &["10.0.0.1", "10.0.0.3"]);
        set(&two).expect("set");
        assert_eq!(read(8), Ok(two.clone()));
        assert_eq!(read(1), Ok(two[..20].to_vec()), "the count is of all");
        let source = |name, source| option4(a, fd, name, &["232.1.1.1", "10.0.0.2", source]);
        assert_eq!(
            source(IP_BLOCK_SOURCE, "10.0.0.5"),
            Err(Errno::EINVAL),
            "the other mode"
        );
        let there = source(IP_ADD_SOURCE_MEMBERSHIP, "10.0.0.1");
        assert_eq!(there, Err(Errno::EADDRNOTAVAIL));
        let gone = source(IP_DROP_SOURCE_MEMBERSHIP, "10.0.0.9");
        assert_eq!(gone, Err(Errno::EADDRNOTAVAIL));
        let many: Vec<String> = (0..11).map(|n| format!("10.0.1.{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(set(&filter(1, &many)), Err(Errno::ENOBUFS));
        set(&filter(1, &many[1..])).expect("set");
        let more = source(IP_ADD_SOURCE_MEMBERSHIP, "10.0.2.1");
        assert_eq!(more, Err(Errno::ENOBUFS));
        assert_eq!(set(&filter(2, &[])), Err(Errno::EINVAL));
        assert_eq!(set(&filter(1, &["10.0.0.1"])[..19]), Err(Errno::EINVAL));
        set(&filter(1, &[])).expect("left");
        let left = option4(a, fd, IP_DROP_MEMBERSHIP, &["232.1.1.1", "10.0.0.2"]);
        assert_eq!(left, Err(Errno::EADDRNOTAVAIL));

        let (fd, _) = bound(a, INET6, DGRAM, "[::]:97");
        option_both(a, fd, 41, MCAST_JOIN_GROUP, &["ff15::1"]).expect("joined");
        let mut filter = group_req(2, &["ff15::1"]);
        filter.extend([0u32.to_ne_bytes(), 1u32.to_ne_bytes()].concat());
        filter.extend(&group_req(2, &["fd00::7"])[8..]);
        option(a, fd, 41, MCAST_MSFILTER, &filter).expect("set");
        let mut value = filter.clone();
        value[144..].fill(1);
        let mut len = (value.len() as u32).to_ne_bytes();
        a.getsockopt(fd, 41, MCAST_MSFILTER, &mut value, &mut len)
            .expect("read");
        assert_eq!(value, filter);
        let foreign = option_both(a, fd, 41, MCAST_BLOCK_SOURCE, &["ff15::1", "10.0.0.1"]);
        assert_eq!(foreign, Err(Errno::EADDRNOTAVAIL));
        let unicast = option_both(a, fd, 41, MCAST_JOIN_GROUP, &["fd00::1"]);
        assert_eq!(unicast, Err(Errno::EINVAL));
    });
}

#[test]
fn groups_of_a_socket_are_bounded_and_end_with_it() {
    linked(|a, r, [kernel, _]| {
        let count = || {
            run(kernel, |cx| {
                inet::Inet::of(cx).expect("a stack").groups(cx.cpu()).len()
            })
        };
        let before = count();
        let fd = socket(a, INET, DGRAM, 0);
        for n in 0..20 {
            let group = format!("224.1.1.{n}");
            option4(a, fd, IP_ADD_MEMBERSHIP, &[&group, "10.0.0.2"]).expect("joined");
        }
        let more = option4(a, fd, IP_ADD_MEMBERSHIP, &["224.1.2.1", "10.0.0.2"]);
        assert_eq!(more, Err(Errno::ENOBUFS));
        assert_eq!(count(), before + 20);
        a.close(fd).expect("closed");
        assert_eq!(count(), before);
        let stream = socket(r, INET, STREAM, 0);
        let join = option4(r, stream, IP_ADD_MEMBERSHIP, &["224.1.2.1", "10.0.0.1"]);
        assert_eq!(join, Err(Errno::EPROTO));
        let (fd, _) = bound(a, INET, DGRAM, "0.0.0.0:98");
        assert_eq!(recvfrom(a, fd, MSG_DONTWAIT), Err(Errno::EAGAIN));
    });
}

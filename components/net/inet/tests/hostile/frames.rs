//! Frames that an attacker makes. Transport checksums count as looked at: that is not what is attacked.
#![allow(unreachable_pub)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use net::{Checksum, Packet};

/// The attacked interface.
const OURS: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const SYN: u8 = 2;

pub fn ours4() -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, 1)
}

pub fn ours6() -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1)
}

/// Somebody far away.
pub fn from4(n: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x6440_0001 + n)
}

pub fn from6(n: u32) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, (n >> 16) as u16, n as u16)
}

/// Somebody on the link.
pub fn near4(n: u32) -> [u8; 4] {
    (0x0a00_2000 + n).to_be_bytes()
}

pub fn near6(n: u32) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0x99, n as u16)
}

pub fn strange(n: u32) -> [u8; 6] {
    let [a, b, c, d] = n.to_be_bytes();
    [2, 9, a, b, c, d]
}

fn sum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes
        .chunks(2)
        .map(|w| u32::from(w[0]) << 8 | u32::from(*w.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

/// A message whose checksum is in its third and fourth byte.
pub fn with_sum(mut message: Vec<u8>) -> Vec<u8> {
    message[2..4].fill(0);
    let sum = sum(&message);
    message[2..4].copy_from_slice(&sum);
    message
}

fn ether(from: [u8; 6], kind: u16, payload: &[u8]) -> Packet {
    let group = match kind {
        0x800 if payload[16] >= 224 => [1, 0, 0x5e, payload[17] & 0x7f, payload[18], payload[19]],
        0x806 => [0xff; 6],
        _ => OURS,
    };
    let frame = [&group[..], &from, &kind.to_be_bytes(), payload].concat();
    let mut packet = Packet::new(frame.into());
    packet.checksum = Checksum::Valid;
    packet
}

fn header4(
    options: &[u8],
    src: Ipv4Addr,
    dst: Ipv4Addr,
    protocol: u8,
    ttl: u8,
    len: usize,
) -> Vec<u8> {
    let head = 20 + options.len();
    let mut out = vec![0x40 | (head / 4) as u8, 0];
    out.extend(((head + len) as u16).to_be_bytes());
    out.extend([0, 0, 0, 0, ttl, protocol, 0, 0]);
    out.extend(src.octets());
    out.extend(dst.octets());
    out.extend(options);
    out
}

fn finish4(mut header: Vec<u8>, payload: &[u8]) -> Packet {
    let sum = sum(&header);
    header[10..12].copy_from_slice(&sum);
    header.extend(payload);
    ether(strange(0), 0x800, &header)
}

pub fn ip4(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, ttl: u8, payload: &[u8]) -> Packet {
    ip4_with(&[], src, dst, protocol, ttl, payload)
}

pub fn ip4_with(
    options: &[u8],
    src: Ipv4Addr,
    dst: Ipv4Addr,
    protocol: u8,
    ttl: u8,
    payload: &[u8],
) -> Packet {
    finish4(
        header4(options, src, dst, protocol, ttl, payload.len()),
        payload,
    )
}

/// A fragment of a UDP datagram; the offset in bytes.
pub fn fragment4(src: Ipv4Addr, id: u16, offset: u16, more: bool, data: &[u8]) -> Packet {
    let mut header = header4(&[], src, ours4(), 17, 64, data.len());
    header[4..6].copy_from_slice(&id.to_be_bytes());
    let field = (offset / 8) | (u16::from(more) << 13);
    header[6..8].copy_from_slice(&field.to_be_bytes());
    finish4(header, data)
}

pub fn ip6(src: Ipv6Addr, dst: Ipv6Addr, next: u8, hops: u8, payload: &[u8]) -> Packet {
    let mut out = vec![0x60, 0, 0, 0];
    out.extend((payload.len() as u16).to_be_bytes());
    out.extend([next, hops]);
    out.extend(src.octets());
    out.extend(dst.octets());
    out.extend(payload);
    ether(strange(0), 0x86dd, &out)
}

pub fn fragment6(src: Ipv6Addr, id: u32, offset: u16, more: bool, data: &[u8]) -> Packet {
    let mut payload = vec![17, 0];
    payload.extend((offset | u16::from(more)).to_be_bytes());
    payload.extend(id.to_be_bytes());
    payload.extend(data);
    ip6(src, ours6(), 44, 64, &payload)
}

pub fn icmp6(src: Ipv6Addr, dst: Ipv6Addr, hops: u8, message: Vec<u8>) -> Packet {
    ip6(src, dst, 58, hops, &message)
}

/// A datagram; over IPv6 its checksum must not be zero, though it is not looked at.
pub fn udp(src: u16, dst: u16, data: &[u8], _: impl Into<IpAddr>, _: impl Into<IpAddr>) -> Vec<u8> {
    let mut out = Vec::new();
    for number in [src, dst, 8 + data.len() as u16, 0xffff] {
        out.extend(number.to_be_bytes());
    }
    out.extend(data);
    out
}

fn tcp(src: u16, dst: u16, flags: u8, seq: u32, ack: u32, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend(src.to_be_bytes());
    out.extend(dst.to_be_bytes());
    out.extend(seq.to_be_bytes());
    out.extend(ack.to_be_bytes());
    out.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    out.extend(data);
    out
}

pub fn tcp4(
    from: Ipv4Addr,
    src: u16,
    dst: u16,
    flags: u8,
    seq: u32,
    ack: u32,
    data: &[u8],
) -> Packet {
    ip4(from, ours4(), 6, 64, &tcp(src, dst, flags, seq, ack, data))
}

pub fn tcp6(
    from: Ipv6Addr,
    src: u16,
    dst: u16,
    flags: u8,
    seq: u32,
    ack: u32,
    data: &[u8],
) -> Packet {
    ip6(from, ours6(), 6, 64, &tcp(src, dst, flags, seq, ack, data))
}

/// A request (1) or an answer (2).
pub fn arp(operation: u8, from: [u8; 6], sender: [u8; 4], target: [u8; 4]) -> Packet {
    let mut out = vec![0, 1, 8, 0, 6, 4, 0, operation];
    out.extend(from);
    out.extend(sender);
    out.extend(OURS);
    out.extend(target);
    ether(from, 0x806, &out)
}

fn neighbour(kind: u8, flags: u8, from: [u8; 6], target: Ipv6Addr, option: u8) -> Vec<u8> {
    let mut out = vec![kind, 0, 0, 0, flags, 0, 0, 0];
    out.extend(target.octets());
    out.extend([option, 1]);
    out.extend(from);
    out
}

pub fn solicitation(from: [u8; 6], src: Ipv6Addr, target: Ipv6Addr) -> Packet {
    icmp6(src, target, 255, neighbour(135, 0, from, target, 1))
}

/// An answer that claims to be asked for and to replace what is known.
pub fn advertisement(from: [u8; 6], src: Ipv6Addr, to: Ipv6Addr) -> Packet {
    icmp6(src, to, 255, neighbour(136, 0x60, from, src, 2))
}

/// A router with two prefixes and two name servers of its own.
pub fn router_advertisement(from: [u8; 6], hops: u8, n: u32, lifetime: u16) -> Packet {
    let src = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, (n >> 16) as u16, n as u16 + 1);
    let mut out = vec![134, 0, 0, 0, 64, 0];
    out.extend(lifetime.to_be_bytes());
    out.extend([0; 8]);
    out.extend([1, 1]);
    out.extend(from);
    for half in 0..2 {
        out.extend([3, 4, 64, 0xc0]);
        out.extend(7200u32.to_be_bytes());
        out.extend(3600u32.to_be_bytes());
        out.extend([0; 4]);
        out.extend(Ipv6Addr::new(0x2001, 0xdb8, half, n as u16, 0, 0, 0, 0).octets());
    }
    out.extend([25, 5, 0, 0]);
    out.extend(600u32.to_be_bytes());
    for half in 0..2 {
        out.extend(Ipv6Addr::new(0x2001, 0xdb8, half, n as u16, 0, 0, 0, 53).octets());
    }
    icmp6(src, ours6(), hops, out)
}

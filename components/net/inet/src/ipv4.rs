//! IPv4 on the way in, RFC 791 and RFC 1122: what is for us goes up, the rest is forwarded or dropped.

use core::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use net::{Ifnet, Packet};
use smallvec::SmallVec;
use sync::Cpu;

use crate::filter::Hook;
use crate::frag::{Fragment, FragmentKey};
use crate::icmp::Problem;
use crate::route::RouteKind;
use crate::stack::{IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_IGMP, IPPROTO_TCP, IPPROTO_UDP};
use crate::{Inet, checksum};

/// What the IP layer knows of a packet that came in, for the layers above.
#[derive(Clone)]
pub(crate) struct Header {
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    pub(crate) protocol: u8,
    /// Time to live or hop limit.
    pub(crate) ttl: u8,
    /// Type of service or traffic class.
    pub(crate) tos: u8,
    /// The header with its options or extension headers.
    pub(crate) raw: SmallVec<[u8; 64]>,
    /// The interface that it came in by.
    pub(crate) interface: u32,
    /// Local, broadcast or multicast.
    pub(crate) kind: RouteKind,
    /// The link's address was a group's.
    pub(crate) link_multicast: bool,
    /// It came with an IPv6 fragment header.
    pub(crate) fragmented: bool,
}

impl Header {
    /// Whether an ICMP error may answer it, RFC 1122 3.2.2.
    pub(crate) fn may_be_answered(&self) -> bool {
        self.kind == RouteKind::Local
            && !self.link_multicast
            && !self.src.is_unspecified()
            && !self.src.is_multicast()
    }

    /// Makes a fragment's IPv4 header that of the whole packet, which carries so many bytes.
    pub(crate) fn becomes_whole(&mut self, payload: usize) {
        let total = (payload + self.raw.len()).min(0xffff) as u16;
        self.raw[2..4].copy_from_slice(&total.to_be_bytes());
        self.raw[6..8].fill(0);
        self.raw[10..12].fill(0);
        let sum = checksum::of(&self.raw);
        self.raw[10..12].copy_from_slice(&sum);
    }
}

fn ip(bytes: &[u8]) -> Ipv4Addr {
    match bytes {
        &[a, b, c, d, ..] => Ipv4Addr::new(a, b, c, d),
        _ => Ipv4Addr::UNSPECIFIED,
    }
}

impl Inet {
    /// A packet that begins with an IPv4 header.
    pub(crate) fn input4(&self, cpu: &Cpu<'_>, interface: &Arc<Ifnet>, mut packet: Packet) {
        let Some(len) = packet.front(1).map(|first| usize::from(first[0] & 0xf) * 4) else {
            return;
        };
        let Some(head) = packet.front(len.max(20)) else {
            return;
        };
        let total = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let is_part = u16::from_be_bytes([head[6], head[7]]) & 0x3fff != 0;
        let mut sum = checksum::Sum::default();
        sum.add(head);
        if head[0] >> 4 != 4 || len < 20 || total < len || !sum.is_valid() {
            return;
        }
        if packet.len() < total {
            return;
        }
        packet.truncate(total);
        let link_multicast = packet.link_multicast;
        let mut longest_part = None;
        if is_part && self.filters.want_whole() {
            match self.whole4(cpu, interface, packet) {
                Some((whole, longest)) => (packet, longest_part) = (whole, Some(longest)),
                None => return,
            }
        }
        if !self.passes(
            cpu,
            Hook::Prerouting,
            false,
            Some(interface),
            None,
            &mut packet,
        ) {
            return;
        }
        let Some(len) = packet.front(1).map(|first| usize::from(first[0] & 0xf) * 4) else {
            return;
        };
        let Some(head) = packet.front(len.max(20)) else {
            return;
        };
        let (src, dst) = (ip(&head[12..]), ip(&head[16..]));
        let martian = routed_by_source(&head[20..])
            || src.is_multicast()
            || src.is_broadcast()
            || !interface.is_loopback() && (src.is_loopback() || dst.is_loopback());
        if martian {
            return;
        }
        let dst_ip = IpAddr::V4(dst);
        let route = match dst {
            _ if dst.is_multicast() || dst.is_broadcast() => None,
            _ => self.find_route(&dst_ip, 0),
        };
        let kind = match (&route, dst) {
            (_, dst) if dst.is_broadcast() => RouteKind::Broadcast,
            (_, dst) if dst.is_multicast() => {
                if !self.is_member(interface.index(), &dst_ip, &src.into()) {
                    return;
                }
                RouteKind::Multicast
            }
            (Some(route), _)
                if route.kind == RouteKind::Broadcast && route.oif == interface.index() =>
            {
                RouteKind::Broadcast
            }
            (Some(route), _) if route.kind == RouteKind::Local => RouteKind::Local,
            _ if head[9] == IPPROTO_UDP && !link_multicast && self.asks_for_address(interface) => {
                RouteKind::Local
            }
            _ => return self.forward4(cpu, interface, packet, longest_part),
        };
        let mut header = Header {
            src: src.into(),
            dst: dst_ip,
            protocol: head[9],
            ttl: head[8],
            tos: head[1],
            raw: SmallVec::from_slice(head),
            interface: interface.index(),
            kind,
            link_multicast,
            fragmented: false,
        };
        let fragment = u16::from_be_bytes([head[6], head[7]]);
        if fragment & 0x3fff != 0 {
            let id = u32::from(u16::from_be_bytes([head[4], head[5]]));
            packet.advance(len);
            let part = Fragment {
                key: FragmentKey::new(&header, id),
                offset: usize::from(fragment & 0x1fff) * 8,
                more: fragment & 0x2000 != 0,
                data: packet,
            };
            match self.reassemble(cpu, &mut header, part) {
                Some((whole, _)) => packet = whole,
                None => return,
            }
            header.becomes_whole(packet.len());
            if !self.filters.is_empty() {
                // Filters see whole packets with their header.
                let Some(front) = packet.push(header.raw.len()) else {
                    return;
                };
                front.copy_from_slice(&header.raw);
                if !self.passes(cpu, Hook::Input, false, Some(interface), None, &mut packet) {
                    return;
                }
                packet.advance(header.raw.len());
            }
        } else {
            if !self.passes(cpu, Hook::Input, false, Some(interface), None, &mut packet) {
                return;
            }
            packet.advance(len);
        }
        self.deliver(cpu, &header, packet);
    }

    /// Hands a packet without its IP header to who it is for.
    pub(crate) fn deliver(&self, cpu: &Cpu<'_>, header: &Header, mut packet: Packet) {
        let seen = self.raw_input(cpu, header, &packet);
        match header.protocol {
            IPPROTO_ICMP if header.src.is_ipv4() => self.icmp_input(cpu, header, packet),
            IPPROTO_ICMPV6 if header.src.is_ipv6() => self.icmpv6_input(cpu, header, packet),
            IPPROTO_IGMP if header.src.is_ipv4() => self.igmp_input(cpu, header, packet),
            IPPROTO_TCP => self.tcp_input(cpu, header, packet),
            IPPROTO_UDP => self.udp_input(cpu, header, packet),
            _ if seen => {}
            _ => self.icmp_error(cpu, header, &mut packet, Problem::Protocol),
        }
    }

    /// A packet for somebody else. One that was put together is cut again as it was: `longest_part` is the length of its longest part.
    fn forward4(
        &self,
        cpu: &Cpu<'_>,
        interface: &Arc<Ifnet>,
        mut packet: Packet,
        longest_part: Option<u32>,
    ) {
        if self.config.forwarding4() == 0 || packet.link_multicast {
            return;
        }
        let Some(header) = header4(&mut packet, interface) else {
            return;
        };
        let problem = |inet: &Inet, packet: &mut Packet, problem| {
            packet.advance(header.raw.len());
            inet.icmp_error(cpu, &header, packet, problem);
        };
        if header.ttl <= 1 {
            return problem(self, &mut packet, Problem::TimeExceeded);
        }
        let mut hop = match self.route(&header.dst, 0) {
            Ok(hop) if hop.kind == RouteKind::Unicast => hop,
            Ok(_) => return,
            Err(abi::Errno::EACCES) => return problem(self, &mut packet, Problem::Prohibited),
            Err(abi::Errno::EHOSTUNREACH) => return problem(self, &mut packet, Problem::Host),
            Err(abi::Errno::EINVAL) => return,
            Err(_) => return problem(self, &mut packet, Problem::Net),
        };
        if !self.passes(
            cpu,
            Hook::Forward,
            false,
            Some(interface),
            Some(&hop.interface),
            &mut packet,
        ) {
            return;
        }
        hop.mtu = hop.mtu.min(longest_part.unwrap_or(u32::MAX));
        let dont_fragment = header.raw[6] & 0x40 != 0;
        if dont_fragment && !crate::output::fits(&mut packet, &hop) {
            return problem(self, &mut packet, Problem::TooBig(hop.mtu));
        }
        if let Some(head) = packet.front_mut(header.raw.len()) {
            head[8] -= 1;
            head[10..12].fill(0);
            let sum = checksum::of(head);
            head[10..12].copy_from_slice(&sum);
        }
        let unsent = (packet.clone(), header.raw.len());
        if self.emit(cpu, &hop, false, Some(interface), packet) == Err(abi::Errno::EHOSTUNREACH) {
            let (mut packet, len) = unsent;
            packet.advance(len);
            self.icmp_error(cpu, &header, &mut packet, Problem::Host);
        }
    }
}

/// Whether options say which way a packet is to take, which nobody but the way's routers should (RFC 7126 4.3 and 4.4), or are none.
fn routed_by_source(mut options: &[u8]) -> bool {
    while let [kind, rest @ ..] = options {
        match (*kind, rest) {
            (0, _) => return false,
            (1, _) => options = rest,
            (131 | 137, _) => return true,
            (_, [len, ..]) if *len >= 2 && usize::from(*len) <= options.len() => {
                options = &options[usize::from(*len)..];
            }
            _ => return true,
        }
    }
    false
}

/// The header of a packet, with which its sender may be answered.
pub(crate) fn header4(packet: &mut Packet, interface: &Ifnet) -> Option<Header> {
    let link_multicast = packet.link_multicast;
    let len = usize::from(packet.front(1)?[0] & 0xf) * 4;
    let head = packet.front(len.max(20))?;
    Some(Header {
        src: ip(&head[12..]).into(),
        dst: ip(&head[16..]).into(),
        protocol: head[9],
        ttl: head[8],
        tos: head[1],
        raw: SmallVec::from_slice(head),
        interface: interface.index(),
        kind: RouteKind::Local,
        link_multicast,
        fragmented: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_that_the_source_chose_and_options_that_are_none_are_seen() {
        for good in [
            &[][..],
            &[1, 1, 0, 131],
            &[148, 4, 0, 0],
            &[68, 4, 5, 0, 1, 1, 1, 1],
        ] {
            assert!(!routed_by_source(good), "{good:?}");
        }
        for bad in [
            &[131, 3, 4, 0][..],
            &[1, 137, 7, 4],
            &[148, 0],
            &[7, 1],
            &[7, 9, 0, 0],
            &[7],
        ] {
            assert!(routed_by_source(bad), "{bad:?}");
        }
    }
}

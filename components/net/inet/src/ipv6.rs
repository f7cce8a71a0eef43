//! IPv6 on the way in, RFC 8200: extension headers, delivery, forwarding.

use core::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use abi::Errno;
use net::{Ifnet, Packet};
use smallvec::SmallVec;
use sync::Cpu;

use crate::Inet;
use crate::filter::Hook;
use crate::frag::{Fragment, FragmentKey};
use crate::icmp::Problem;
use crate::ipv4::Header;
use crate::route::RouteKind;

pub(crate) const HOP_BY_HOP: u8 = 0;
pub(crate) const ROUTING: u8 = 43;
pub(crate) const FRAGMENT: u8 = 44;
pub(crate) const NO_NEXT: u8 = 59;
pub(crate) const DESTINATION: u8 = 60;
/// The most extension headers, and bytes of them, that are looked at.
const EXTENSIONS: usize = 8;
const EXTENSION_BYTES: usize = 512;

fn ip(bytes: &[u8]) -> Ipv6Addr {
    let octets: Option<[u8; 16]> = bytes.get(..16).and_then(|b| b.try_into().ok());
    octets.unwrap_or_default().into()
}

impl Inet {
    /// A packet that begins with an IPv6 header.
    pub(crate) fn input6(&self, cpu: &Cpu<'_>, interface: &Arc<Ifnet>, mut packet: Packet) {
        let Some(head) = packet.front(40) else {
            return;
        };
        let total = 40 + usize::from(u16::from_be_bytes([head[4], head[5]]));
        if head[0] >> 4 != 6 || packet.len() < total {
            return;
        }
        packet.truncate(total);
        let mut longest_part = None;
        if self.filters.want_whole() {
            match self.whole6(cpu, interface, packet) {
                Some((whole, longest)) => (packet, longest_part) = (whole, longest),
                None => return,
            }
        }
        if !self.passes(
            cpu,
            Hook::Prerouting,
            true,
            Some(interface),
            None,
            &mut packet,
        ) {
            return;
        }
        let Some(mut header) = header6(&mut packet, interface) else {
            return;
        };
        let (IpAddr::V6(src), IpAddr::V6(dst)) = (header.src, header.dst) else {
            return;
        };
        let martian = src.is_multicast()
            || dst.is_unspecified()
            || !interface.is_loopback() && (src.is_loopback() || dst.is_loopback());
        if martian {
            return;
        }
        header.kind = if dst.is_multicast() {
            if !self.is_member(interface.index(), &header.dst, &header.src) {
                return;
            }
            RouteKind::Multicast
        } else if self.is_mine6(interface, &header.dst) {
            RouteKind::Local
        } else {
            return self.forward6(cpu, interface, header, packet, longest_part);
        };
        if !self.passes(cpu, Hook::Input, true, Some(interface), None, &mut packet) {
            return;
        }
        packet.advance(40);
        self.extensions(cpu, header, packet);
    }

    /// Whether a packet to an address is for us: a link-local address belongs to its link.
    fn is_mine6(&self, interface: &Ifnet, dst: &IpAddr) -> bool {
        if crate::addr::is_link_local(dst) {
            return self.addresses().iter().any(|a| {
                a.addr == *dst
                    && a.usable()
                    && (a.interface == interface.index() || interface.is_loopback())
            });
        }
        self.is_local(dst)
    }

    /// Goes through the extension headers, and hands up what is behind them.
    fn extensions(&self, cpu: &Cpu<'_>, mut header: Header, mut packet: Packet) {
        // Where in the header the type of the next header stands, for what complains about it.
        let mut next_at = 6;
        for turn in 0..EXTENSIONS {
            let next = header.protocol;
            let len = match next {
                HOP_BY_HOP if turn > 0 => {
                    return self.icmp_error(
                        cpu,
                        &header,
                        &mut packet,
                        Problem::UnknownNext(next_at),
                    );
                }
                HOP_BY_HOP | ROUTING | DESTINATION => match packet.front(2) {
                    Some(front) => usize::from(front[1]) * 8 + 8,
                    None => return,
                },
                FRAGMENT => 8,
                NO_NEXT => return,
                _ => return self.deliver(cpu, &header, packet),
            };
            if header.raw.len() + len > EXTENSION_BYTES {
                return;
            }
            let Some(bytes) = packet.front(len) else {
                return;
            };
            let bytes: SmallVec<[u8; 64]> = SmallVec::from_slice(bytes);
            let at = header.raw.len() as u32;
            match next {
                HOP_BY_HOP | DESTINATION => {
                    if let Some((offset, answer)) = unknown_option(&bytes) {
                        if answer.tells(header.kind) {
                            let problem = Problem::UnknownOption(at + offset as u32);
                            self.icmp_error_even_for_groups(cpu, &header, &mut packet, problem);
                        }
                        return;
                    }
                }
                // No type is implemented; with segments left the packet is for somebody who does (RFC 5095, RFC 8200 4.4).
                ROUTING if bytes[3] != 0 => {
                    return self.icmp_error(cpu, &header, &mut packet, Problem::Header(at + 2));
                }
                FRAGMENT => {
                    header.fragmented = true;
                    header.protocol = bytes[0];
                    packet.advance(len);
                    let field = u16::from_be_bytes([bytes[2], bytes[3]]);
                    if field & 0xfff9 == 0 {
                        // A fragment that is all of it, RFC 6946.
                        next_at = at;
                        header.raw.extend_from_slice(&bytes);
                        continue;
                    }
                    let id = u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
                    let part = Fragment {
                        key: FragmentKey::new(&header, id),
                        offset: usize::from(field & 0xfff8),
                        more: field & 1 != 0,
                        data: packet,
                    };
                    match self.reassemble(cpu, &mut header, part) {
                        Some((whole, _)) => packet = whole,
                        None => return,
                    }
                    continue;
                }
                _ => {}
            }
            header.protocol = bytes[0];
            next_at = at;
            header.raw.extend_from_slice(&bytes);
            packet.advance(len);
        }
    }

    /// A packet for somebody else. One that was put together is cut again as it was: `longest_part` is the length of its longest part.
    fn forward6(
        &self,
        cpu: &Cpu<'_>,
        interface: &Arc<Ifnet>,
        mut header: Header,
        mut packet: Packet,
        longest_part: Option<u32>,
    ) {
        if self.config.forwarding6() == 0
            || packet.link_multicast
            || crate::addr::is_link_local(&header.src)
            || crate::addr::is_link_local(&header.dst)
        {
            return;
        }
        header.kind = RouteKind::Local;
        let problem = |inet: &Inet, packet: &mut Packet, problem| {
            packet.advance(40);
            inet.icmp_error(cpu, &header, packet, problem);
        };
        if header.ttl <= 1 {
            return problem(self, &mut packet, Problem::TimeExceeded);
        }
        let mut hop = match self.route(&header.dst, 0) {
            Ok(hop) if hop.kind == RouteKind::Unicast => hop,
            Ok(_) | Err(Errno::EINVAL) => return,
            Err(Errno::EACCES) => return problem(self, &mut packet, Problem::Prohibited),
            Err(Errno::EHOSTUNREACH) => return problem(self, &mut packet, Problem::Host),
            Err(_) => return problem(self, &mut packet, Problem::Net),
        };
        if !self.passes(
            cpu,
            Hook::Forward,
            true,
            Some(interface),
            Some(&hop.interface),
            &mut packet,
        ) {
            return;
        }
        match longest_part {
            Some(longest) if longest <= hop.mtu => hop.mtu = longest,
            None if crate::output::fits(&mut packet, &hop) => {}
            _ => return problem(self, &mut packet, Problem::TooBig(hop.mtu)),
        }
        if let Some(head) = packet.front_mut(40) {
            head[7] -= 1;
        }
        let _ = self.emit(cpu, &hop, true, Some(interface), packet);
    }
}

/// The header of a packet, with which its sender may be answered.
pub(crate) fn header6(packet: &mut Packet, interface: &Ifnet) -> Option<Header> {
    let link_multicast = packet.link_multicast;
    let head = packet.front(40)?;
    Some(Header {
        src: ip(&head[8..]).into(),
        dst: ip(&head[24..]).into(),
        protocol: head[6],
        ttl: head[7],
        tos: head[0] << 4 | head[1] >> 4,
        raw: SmallVec::from_slice(head),
        interface: interface.index(),
        kind: RouteKind::Local,
        link_multicast,
        fragmented: false,
    })
}

/// What an option that nobody knows asks for, by its two highest bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Unknown {
    Discard,
    Tell,
    TellUnlessGroup,
}

impl Unknown {
    fn tells(self, kind: RouteKind) -> bool {
        match self {
            Unknown::Discard => false,
            Unknown::Tell => true,
            Unknown::TellUnlessGroup => kind != RouteKind::Multicast,
        }
    }
}

/// The first option in a header that forbids to go on, and where it is.
fn unknown_option(header: &[u8]) -> Option<(usize, Unknown)> {
    let mut at = 2;
    while let Some(&kind) = header.get(at) {
        // Padding, and the router alert, which is not for us.
        let known = matches!(kind, 0 | 1 | 5);
        if !known {
            match kind >> 6 {
                0 => {}
                1 => return Some((at, Unknown::Discard)),
                2 => return Some((at, Unknown::Tell)),
                _ => return Some((at, Unknown::TellUnlessGroup)),
            }
        }
        at += match kind {
            0 => 1,
            _ => usize::from(*header.get(at + 1)?) + 2,
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_say_what_becomes_of_packets_with_them() {
        assert_eq!(unknown_option(&[58, 0, 5, 2, 0, 0, 1, 0]), None);
        assert_eq!(unknown_option(&[58, 0, 0, 0x3e, 1, 0, 0, 0]), None, "skip");
        assert_eq!(
            unknown_option(&[58, 0, 0, 0x7e, 1, 0, 0, 0]),
            Some((3, Unknown::Discard))
        );
        assert_eq!(
            unknown_option(&[58, 0, 0xbe, 0, 0, 0, 0, 0]),
            Some((2, Unknown::Tell))
        );
        assert_eq!(
            unknown_option(&[58, 0, 0xfe, 255]),
            Some((2, Unknown::TellUnlessGroup))
        );
        assert_eq!(unknown_option(&[58, 0, 1]), None, "cut off");
    }
}

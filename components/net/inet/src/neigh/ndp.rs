//! Neighbour discovery, RFC 4861: which link-layer address an IPv6 address has. Routers' advertisements go on to `autoconf`.

use core::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use net::{EtherAddr, Ifnet, LinkType, Packet};
use sync::Cpu;

use super::News;
use crate::group::solicited_node;
use crate::ipv4::Header;
use crate::output::Outbound;
use crate::route::{Hop, RouteKind};
use crate::stack::IPPROTO_ICMPV6;
use crate::{Inet, checksum, leaf};

pub(super) const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;

/// In an advertisement: the sender is a router, it answers a question, it replaces what is known.
const ROUTER: u8 = 0x80;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;

pub(super) const SOURCE_LINK: u8 = 1;
const TARGET_LINK: u8 = 2;
/// Every message has come from the link itself: no router lets it pass with this.
const HOP_LIMIT: u8 = 255;
/// Bytes of a solicitation or an advertisement without options.
const LEN: usize = 24;
/// Longer ones fit into no frame.
const LONGEST: usize = 9216;

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
pub(super) const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

/// Options, each of type and value.
pub(super) type Options<'a> = Vec<(u8, &'a [u8])>;

/// Takes options apart; `None` for one of no length, which makes the whole message none (RFC 4861 4.6).
pub(super) fn options(mut bytes: &[u8]) -> Option<Options<'_>> {
    let mut all = Vec::new();
    while let [kind, units, ..] = bytes {
        let len = usize::from(*units) * 8;
        if len == 0 {
            return None;
        }
        all.push((*kind, bytes.get(2..len)?));
        bytes = &bytes[len..];
    }
    bytes.is_empty().then_some(all)
}

/// The Ethernet address in an option.
pub(super) fn link_address(options: &[(u8, &[u8])], kind: u8) -> Option<EtherAddr> {
    let (_, value) = options.iter().find(|(k, _)| *k == kind)?;
    let mac: EtherAddr = value.first_chunk().copied()?;
    (mac[0] & 1 == 0).then_some(mac)
}

/// The address that a message is about, and its options.
fn parse(message: &[u8]) -> Option<(Ipv6Addr, Options<'_>)> {
    let octets: [u8; 16] = message.get(8..LEN)?.try_into().ok()?;
    Some((octets.into(), options(&message[LEN..])?))
}

impl Inet {
    /// A message of neighbour discovery, with its ICMPv6 header, whose checksum is right.
    pub(crate) fn ndp_input(&self, cpu: &Cpu<'_>, header: &Header, packet: Packet) {
        let Some(interface) = self.interfaces.by_index(header.interface) else {
            return;
        };
        if header.ttl != HOP_LIMIT
            || header.fragmented
            || packet.len() > LONGEST
            || interface.link() != LinkType::Ethernet
        {
            return;
        }
        let message = packet.to_vec();
        let (IpAddr::V6(from), IpAddr::V6(to)) = (header.src, header.dst) else {
            return;
        };
        // What is malformed is dropped; there is nobody to tell.
        let _ = match message[..] {
            [NEIGHBOUR_SOLICITATION, 0, ..] => self.solicited(cpu, &interface, from, to, &message),
            [NEIGHBOUR_ADVERTISEMENT, 0, ..] => self.advertised(cpu, &interface, to, &message),
            [ROUTER_ADVERTISEMENT, 0, ..] => {
                self.router_advertised(cpu, &interface, from, &message)
            }
            _ => None,
        };
    }

    /// Somebody asks for an address.
    fn solicited(
        &self,
        cpu: &Cpu<'_>,
        interface: &Arc<Ifnet>,
        from: Ipv6Addr,
        to: Ipv6Addr,
        message: &[u8],
    ) -> Option<()> {
        let (target, options) = parse(message)?;
        let source = link_address(&options, SOURCE_LINK);
        let probe = from.is_unspecified();
        // RFC 4861 7.1.1: a probe goes to the address's own group and names no link-layer address.
        if target.is_multicast() || probe && (source.is_some() || to != solicited_node(&target)) {
            return None;
        }
        let addresses = self.addresses();
        let mine = addresses
            .iter()
            .find(|a| a.addr == IpAddr::V6(target) && a.interface == interface.index())?;
        if mine.tentative && probe {
            // Somebody else is about to take the address too.
            self.address_is_taken(cpu, interface, target);
            return None;
        }
        if !mine.usable() {
            return None;
        }
        if let Some(mac) = source {
            let news = News {
                mac: Some(mac),
                solicited: false,
                overrides: true,
                router: None,
                creates: true,
            };
            self.heard_of(cpu, interface, from.into(), &news);
        }
        let (to, flags) = if probe {
            (ALL_NODES, 0)
        } else {
            (from, SOLICITED)
        };
        // RFC 4429 3.3: who may have the address before us is not overridden.
        let flags = flags | if mine.tentative { 0 } else { OVERRIDE };
        self.advertise(cpu, interface, target, to, flags);
        Some(())
    }

    /// Somebody says where an address is.
    fn advertised(
        &self,
        cpu: &Cpu<'_>,
        interface: &Arc<Ifnet>,
        to: Ipv6Addr,
        message: &[u8],
    ) -> Option<()> {
        let (target, options) = parse(message)?;
        let flags = message[4];
        if target.is_multicast() || to.is_multicast() && flags & SOLICITED != 0 {
            return None;
        }
        let wanted = self.addresses().iter().any(|a| {
            a.addr == IpAddr::V6(target) && a.interface == interface.index() && a.tentative
        });
        if wanted {
            self.address_is_taken(cpu, interface, target);
            return Some(());
        }
        let news = News {
            mac: link_address(&options, TARGET_LINK),
            solicited: flags & SOLICITED != 0,
            overrides: flags & OVERRIDE != 0,
            router: Some(flags & ROUTER != 0),
            creates: false,
        };
        self.heard_of(cpu, interface, target.into(), &news);
        Some(())
    }

    /// Asks who has an address: its group, or (`direct`) the one who had it last.
    pub(super) fn neighbour_solicitation(
        &self,
        cpu: &Cpu<'_>,
        interface: &Arc<Ifnet>,
        target: Ipv6Addr,
        direct: bool,
    ) {
        let to = if direct {
            target
        } else {
            solicited_node(&target)
        };
        let Some(IpAddr::V6(src)) = self.source(interface, &target.into(), &target.into()) else {
            return;
        };
        let mut message = vec![NEIGHBOUR_SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
        message.extend(target.octets());
        // Of an optimistic source too (against RFC 4429 3.2, as Linux): many answer nobody whose address they do not learn.
        self.with_link_address(cpu, interface, SOURCE_LINK, &mut message);
        self.send_ndp(cpu, interface, src, to, message);
    }

    /// Asks whether anybody has an address that we would like to have (RFC 4862 5.4.2).
    pub(super) fn probe_address(&self, cpu: &Cpu<'_>, interface: &Arc<Ifnet>, target: Ipv6Addr) {
        let mut message = vec![NEIGHBOUR_SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
        message.extend(target.octets());
        self.send_ndp(
            cpu,
            interface,
            Ipv6Addr::UNSPECIFIED,
            solicited_node(&target),
            message,
        );
    }

    /// Says that an address is here.
    fn advertise(
        &self,
        cpu: &Cpu<'_>,
        interface: &Arc<Ifnet>,
        target: Ipv6Addr,
        to: Ipv6Addr,
        mut flags: u8,
    ) {
        if self.config.forwarding6() != 0 {
            flags |= ROUTER;
        }
        let mut message = vec![NEIGHBOUR_ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0];
        message.extend(target.octets());
        self.with_link_address(cpu, interface, TARGET_LINK, &mut message);
        self.send_ndp(cpu, interface, target, to, message);
    }

    pub(super) fn with_link_address(
        &self,
        cpu: &Cpu<'_>,
        interface: &Ifnet,
        kind: u8,
        message: &mut Vec<u8>,
    ) {
        message.extend([kind, 1]);
        message.extend(interface.address(&leaf(cpu)));
    }

    /// Completes a message and sends it.
    pub(super) fn send_ndp(
        &self,
        cpu: &Cpu<'_>,
        interface: &Arc<Ifnet>,
        src: Ipv6Addr,
        dst: Ipv6Addr,
        mut message: Vec<u8>,
    ) {
        let mut sum = checksum::Sum::pseudo(src.into(), dst.into(), IPPROTO_ICMPV6, message.len());
        sum.add(&message);
        message[2..4].copy_from_slice(&sum.checksum());
        let hop = Hop {
            interface: interface.clone(),
            next: dst.into(),
            src: src.into(),
            mtu: interface.mtu(),
            kind: match dst.is_multicast() {
                true => RouteKind::Multicast,
                false => RouteKind::Unicast,
            },
        };
        let out = Outbound {
            protocol: IPPROTO_ICMPV6,
            ttl: HOP_LIMIT,
            // Our own questions are not for us.
            no_loop: true,
            ..Outbound::default()
        };
        let packet = Packet::new(message.into());
        // A link that is full loses it; whoever asks asks again.
        let _ = self.send(cpu, &hop, src.into(), dst.into(), &out, packet);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_taken_apart_and_one_without_length_spoils_all() {
        let bytes = [1, 1, 2, 0, 0, 0, 0, 7, 5, 1, 0, 0, 0, 0, 5, 220];
        let all = options(&bytes).expect("good");
        assert_eq!(link_address(&all, SOURCE_LINK), Some([2, 0, 0, 0, 0, 7]));
        assert_eq!(link_address(&all, TARGET_LINK), None);
        assert_eq!(options(&[1, 0, 0, 0, 0, 0, 0, 0]), None);
        assert_eq!(
            options(&[1, 2, 0, 0, 0, 0, 0, 0]),
            None,
            "longer than there is"
        );
        assert_eq!(options(&[1]), None);
        assert_eq!(options(&[]), Some(vec![]));
    }
}

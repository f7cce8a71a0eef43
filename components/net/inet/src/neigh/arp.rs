//! ARP, RFC 826 with RFC 5227: which Ethernet address an IPv4 address has.

use core::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use net::consts::ETHERTYPE_ARP;
use net::{EtherAddr, Ifnet, LinkType, Packet};
use sync::Cpu;

use super::News;
use crate::link::BROADCAST;
use crate::{Inet, leaf};

/// Bytes of a message for Ethernet and IPv4.
const LEN: usize = 28;
const REQUEST: u16 = 1;
const REPLY: u16 = 2;

/// A message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Arp {
    operation: u16,
    sender_mac: EtherAddr,
    sender: Ipv4Addr,
    target_mac: EtherAddr,
    target: Ipv4Addr,
}

impl Arp {
    fn parse(bytes: &[u8]) -> Option<Arp> {
        let bytes: &[u8; LEN] = bytes.first_chunk()?;
        // Ethernet, IPv4, and the lengths of their addresses.
        if bytes[..6] != [0, 1, 8, 0, 6, 4] {
            return None;
        }
        let ip = |at: usize| Ipv4Addr::new(bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]);
        Some(Arp {
            operation: u16::from_be_bytes([bytes[6], bytes[7]]),
            sender_mac: bytes[8..14].try_into().ok()?,
            sender: ip(14),
            target_mac: bytes[18..24].try_into().ok()?,
            target: ip(24),
        })
    }

    fn to_bytes(self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        bytes[..6].copy_from_slice(&[0, 1, 8, 0, 6, 4]);
        bytes[6..8].copy_from_slice(&self.operation.to_be_bytes());
        bytes[8..14].copy_from_slice(&self.sender_mac);
        bytes[14..18].copy_from_slice(&self.sender.octets());
        bytes[18..24].copy_from_slice(&self.target_mac);
        bytes[24..].copy_from_slice(&self.target.octets());
        bytes
    }
}

impl Inet {
    fn send_arp(&self, cpu: &Cpu<'_>, interface: &Arc<Ifnet>, to: EtherAddr, message: Arp) {
        let packet = Packet::new(message.to_bytes().to_vec().into());
        // A link that is full loses it; whoever asks asks again.
        let _ = self.ether_output(cpu, interface, to, ETHERTYPE_ARP, packet);
    }

    /// Asks who has an address.
    pub(super) fn arp_request(
        &self,
        cpu: &Cpu<'_>,
        interface: &Arc<Ifnet>,
        target: Ipv4Addr,
        to: Option<EtherAddr>,
    ) {
        let ip = IpAddr::V4(target);
        let Some(IpAddr::V4(sender)) = self.source(interface, &ip, &ip) else {
            return;
        };
        let message = Arp {
            operation: REQUEST,
            sender_mac: interface.address(&leaf(cpu)),
            sender,
            target_mac: EtherAddr::default(),
            target,
        };
        self.send_arp(cpu, interface, to.unwrap_or(BROADCAST), message);
    }

    /// Tells everybody on the link that an address is here now (RFC 5227 2.3).
    pub(super) fn arp_announce(&self, cpu: &Cpu<'_>, interface: &Arc<Ifnet>, addr: Ipv4Addr) {
        if interface.link() != LinkType::Ethernet || !interface.is_up() {
            return;
        }
        let message = Arp {
            operation: REQUEST,
            sender_mac: interface.address(&leaf(cpu)),
            sender: addr,
            target_mac: EtherAddr::default(),
            target: addr,
        };
        self.send_arp(cpu, interface, BROADCAST, message);
    }

    /// A message came in.
    pub(crate) fn arp_input(
        &self,
        cpu: &Cpu<'_>,
        interface: &Arc<Ifnet>,
        from: &EtherAddr,
        mut packet: Packet,
    ) {
        let Some(message) = packet.front(LEN).and_then(Arp::parse) else {
            return;
        };
        let mine = |addr: Ipv4Addr| {
            let addr = IpAddr::V4(addr);
            self.addresses()
                .iter()
                .any(|a| a.addr == addr && a.interface == interface.index())
        };
        let group = message.sender_mac[0] & 1 != 0 || from[0] & 1 != 0;
        if group || message.sender.is_multicast() || message.sender.is_broadcast() {
            return;
        }
        if mine(message.sender) {
            // Somebody else uses our address: we say once more that we have it (RFC 5227 2.4).
            if message.sender_mac != interface.address(&leaf(cpu)) && self.may_send_icmp(cpu) {
                self.arp_announce(cpu, interface, message.sender);
            }
            return;
        }
        let asks_us = message.operation == REQUEST && mine(message.target);
        if !message.sender.is_unspecified() {
            let news = News {
                mac: Some(message.sender_mac),
                solicited: message.operation == REPLY && mine(message.target),
                overrides: true,
                router: None,
                creates: asks_us,
            };
            self.heard_of(cpu, interface, message.sender.into(), &news);
        }
        if asks_us {
            let reply = Arp {
                operation: REPLY,
                sender_mac: interface.address(&leaf(cpu)),
                sender: message.target,
                target_mac: message.sender_mac,
                target: message.sender,
            };
            self.send_arp(cpu, interface, message.sender_mac, reply);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_comes_back_as_it_was_written_and_others_are_none() {
        let message = Arp {
            operation: REPLY,
            sender_mac: [2, 0, 0, 0, 0, 1],
            sender: Ipv4Addr::new(10, 0, 0, 1),
            target_mac: [2, 0, 0, 0, 0, 2],
            target: Ipv4Addr::new(10, 0, 0, 2),
        };
        let mut bytes = message.to_bytes();
        assert_eq!(Arp::parse(&bytes), Some(message));
        assert_eq!(Arp::parse(&bytes[..27]), None);
        bytes[3] = 6;
        assert_eq!(Arp::parse(&bytes), None, "not IPv4");
    }
}

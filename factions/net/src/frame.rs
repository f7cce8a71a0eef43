//! Where a packet's headers are.

use crate::consts::{ETHERTYPE_IP, ETHERTYPE_IPV6, ETHERTYPE_VLAN};
use crate::{InternetSum, LinkType, Packet};

/// IP protocol numbers, <https://www.iana.org/assignments/protocol-numbers>.
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;

/// Bytes of an Ethernet header without a tag.
pub const ETHER_HEADER: usize = 14;

/// Which IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    V4,
    V6,
}

/// Where the headers of an IP packet that is no fragment are, in bytes from the frame's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) version: Version,
    /// Where the IP header is.
    pub(crate) ip: usize,
    /// What it carries, after the extension headers.
    pub(crate) protocol: u8,
    /// Where that is.
    pub(crate) transport: usize,
    /// Where the IP packet ends by its own account; the frame may be longer, by the link's padding.
    pub(crate) end: usize,
}

impl Layout {
    /// Finds the headers; `None` when there is no IP packet, or a fragment, or one that says it is longer than the frame, or whose
    /// headers go further than a head does.
    pub(crate) fn of(link: LinkType, packet: &mut Packet) -> Option<Layout> {
        let ip = match link {
            LinkType::Ip => 0,
            LinkType::Ethernet | LinkType::Loopback => ether_payload(packet)?,
        };
        let layout = match packet.front(ip + 1)?[ip] >> 4 {
            4 => layout_v4(packet, ip)?,
            6 => layout_v6(packet, ip)?,
            _ => return None,
        };
        (layout.transport <= layout.end && layout.end <= packet.len()).then_some(layout)
    }

    /// Where the two addresses are.
    pub(crate) fn addresses(&self) -> std::ops::Range<usize> {
        match self.version {
            Version::V4 => self.ip + 12..self.ip + 20,
            Version::V6 => self.ip + 8..self.ip + 40,
        }
    }

    /// Where the transport's checksum is, from its header on.
    pub(crate) fn checksum_offset(&self) -> Option<usize> {
        match self.protocol {
            TCP => Some(16),
            UDP => Some(6),
            _ => None,
        }
    }

    /// The sum of the pseudo header of a transport of this length. `headers` starts where the frame does.
    pub(crate) fn pseudo(&self, headers: &[u8], len: usize) -> InternetSum {
        InternetSum::pseudo(&headers[self.addresses()], self.protocol, len as u32)
    }

    /// How long the headers are, the transport's included, in bytes from the frame's start.
    pub(crate) fn headers(&self, packet: &mut Packet) -> Option<usize> {
        let end = match self.protocol {
            TCP => {
                let offset = packet.front(self.transport + 13)?[self.transport + 12];
                let len = usize::from(offset >> 4) * 4;
                (len >= 20).then_some(self.transport + len)?
            }
            UDP => self.transport + 8,
            _ => return None,
        };
        (end <= self.end && packet.front(end).is_some()).then_some(end)
    }
}

fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Where what an Ethernet frame carries begins, after up to two tags, if it is IP.
fn ether_payload(packet: &mut Packet) -> Option<usize> {
    let mut at = ETHER_HEADER;
    for _ in 0..3 {
        match be16(packet.front(at)?, at - 2) {
            ETHERTYPE_IP | ETHERTYPE_IPV6 => return Some(at),
            ETHERTYPE_VLAN => at += 4,
            _ => return None,
        }
    }
    None
}

fn layout_v4(packet: &mut Packet, ip: usize) -> Option<Layout> {
    let header = &packet.front(ip + 20)?[ip..];
    let len = usize::from(header[0] & 15) * 4;
    // More fragments, or an offset.
    if len < 20 || be16(header, 6) & 0x3fff != 0 {
        return None;
    }
    Some(Layout {
        version: Version::V4,
        ip,
        protocol: header[9],
        transport: ip + len,
        end: ip + usize::from(be16(header, 2)),
    })
}

fn layout_v6(packet: &mut Packet, ip: usize) -> Option<Layout> {
    let header = &packet.front(ip + 40)?[ip..];
    let end = ip + 40 + usize::from(be16(header, 4));
    let mut protocol = header[6];
    let mut transport = ip + 40;
    // Hop-by-hop options, routing, destination options: 8 bytes and as many more as they say.
    while matches!(protocol, 0 | 43 | 60) {
        let header = &packet.front(transport + 2)?[transport..];
        protocol = header[0];
        transport += 8 + usize::from(header[1]) * 8;
    }
    Some(Layout {
        version: Version::V6,
        ip,
        protocol,
        transport,
        end,
    })
}

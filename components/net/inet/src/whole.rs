//! Fragments put together before filters see them, whoever they are for: a filter that tells connections apart needs the ports, which
//! only the first part has.

use std::sync::Arc;

use net::{Ifnet, Packet};
use smallvec::SmallVec;
use sync::Cpu;

use crate::Inet;
use crate::frag::{Fragment, FragmentKey};
use crate::ipv4::{Header, header4};
use crate::ipv6::{DESTINATION, FRAGMENT, HOP_BY_HOP, ROUTING, header6};

/// How far into a packet its fragment header is looked for, in bytes.
const MOST: usize = 160;

impl Inet {
    /// Takes a part of an IPv4 packet; answers the packet once it is whole, and how long the longest part was.
    pub(crate) fn whole4(
        &self,
        cpu: &Cpu<'_>,
        interface: &Arc<Ifnet>,
        mut packet: Packet,
    ) -> Option<(Packet, u32)> {
        let mut header = header4(&mut packet, interface)?;
        let raw = &header.raw;
        let id = u32::from(u16::from_be_bytes([raw[4], raw[5]]));
        let field = u16::from_be_bytes([raw[6], raw[7]]);
        packet.advance(raw.len());
        let part = Fragment {
            key: FragmentKey::new(&header, id),
            offset: usize::from(field & 0x1fff) * 8,
            more: field & 0x2000 != 0,
            data: packet,
        };
        let (mut whole, longest) = self.reassemble(cpu, &mut header, part)?;
        header.becomes_whole(whole.len());
        with_header(&mut whole, &header)?;
        Some((whole, (longest + header.raw.len()) as u32))
    }

    /// The same for IPv6, whose packets are looked through for a fragment header first. What has none is answered as it is.
    pub(crate) fn whole6(
        &self,
        cpu: &Cpu<'_>,
        interface: &Arc<Ifnet>,
        mut packet: Packet,
    ) -> Option<(Packet, Option<u32>)> {
        let Some((at, next_at)) = fragment_header(&mut packet) else {
            return Some((packet, None));
        };
        let mut header = header6(&mut packet, interface)?;
        let bytes = packet.front(at + 8)?;
        header.raw = SmallVec::from_slice(&bytes[..at]);
        // What follows the fragment header follows what stood before it.
        header.raw[next_at] = bytes[at];
        let field = u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]);
        let id = u32::from_be_bytes([bytes[at + 4], bytes[at + 5], bytes[at + 6], bytes[at + 7]]);
        packet.advance(at + 8);
        let part = Fragment {
            key: FragmentKey::new(&header, id),
            offset: usize::from(field & 0xfff8),
            more: field & 1 != 0,
            data: packet,
        };
        let (mut whole, longest) = self.reassemble(cpu, &mut header, part)?;
        let payload = u16::try_from(whole.len() + header.raw.len() - 40).ok()?;
        header.raw[4..6].copy_from_slice(&payload.to_be_bytes());
        with_header(&mut whole, &header)?;
        Some((whole, Some((longest + header.raw.len() + 8) as u32)))
    }
}

fn with_header(packet: &mut Packet, header: &Header) -> Option<()> {
    let front = packet.push(header.raw.len())?;
    front.copy_from_slice(&header.raw);
    Some(())
}

/// Where the fragment header of a part is, and where the type that leads to it stands. `None` for what is no part, or is all of the
/// packet (RFC 6946).
fn fragment_header(packet: &mut Packet) -> Option<(usize, usize)> {
    let mut next = packet.front(40)?[6];
    let (mut at, mut next_at) = (40, 6);
    while matches!(next, HOP_BY_HOP | ROUTING | DESTINATION) {
        let mut start = [0; 2];
        packet.read(at, &mut start)?;
        next = start[0];
        next_at = at;
        at += usize::from(start[1]) * 8 + 8;
        if at + 8 > MOST {
            return None;
        }
    }
    let mut header = [0; 8];
    packet.read(at, &mut header)?;
    let field = u16::from_be_bytes([header[2], header[3]]);
    (next == FRAGMENT && field & 0xfff9 != 0).then_some((at, next_at))
}

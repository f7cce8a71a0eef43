//! What an interface does for the stack, done in software where the interface does not: checksums, and cutting what is too long.

use abi::Errno;
use bytes::Bytes;
use smallvec::SmallVec;

use crate::frame::{Layout, TCP, UDP, Version};
use crate::{Checksum, Cut, InternetSum, LinkType, Packet};

/// TCP's flags, in the byte they are in.
const FIN_PSH: u8 = 0x09;
const CWR: u8 = 0x80;

/// Makes a checksum that is [`Partial`](Checksum::Partial) a whole one, and does nothing to others. `EINVAL` when the packet is not as
/// long as it says.
pub fn complete_checksum(packet: &mut Packet) -> Result<(), Errno> {
    let Checksum::Partial { start, offset } = packet.checksum else {
        return Ok(());
    };
    let (start, field) = (usize::from(start), usize::from(start) + usize::from(offset));
    let sum = sum_from(packet, start);
    // A UDP checksum of 0 would say that there is none; all ones are the same number.
    let checksum = match sum.checksum() {
        0 => 0xffff,
        checksum => checksum,
    };
    let front = packet.front_mut(field + 2).ok_or(Errno::EINVAL)?;
    front[field..].copy_from_slice(&checksum.to_be_bytes());
    packet.checksum = Checksum::Valid;
    Ok(())
}

/// Whether the checksum of the TCP or UDP packet in a frame is right. True for what has none: other protocols, fragments, UDP over
/// IPv4 that goes without; and for what need not be looked at.
pub fn checksum_holds(link: LinkType, packet: &mut Packet) -> bool {
    if packet.checksum != Checksum::None {
        return true;
    }
    let Some(layout) = Layout::of(link, packet) else {
        return true;
    };
    let Some(offset) = layout.checksum_offset() else {
        return true;
    };
    let field = layout.transport + offset;
    let Some(headers) = packet.front(field + 2) else {
        return false;
    };
    if layout.protocol == UDP && layout.version == Version::V4 && headers[field..] == [0, 0] {
        return true;
    }
    let pseudo = layout.pseudo(headers, layout.end - layout.transport);
    let sum = sum_range(packet, layout.transport, layout.end, pseudo);
    sum.checksum() == 0
}

/// The sum of everything from a byte on.
fn sum_from(packet: &Packet, start: usize) -> InternetSum {
    sum_range(packet, start, packet.len(), InternetSum::default())
}

fn sum_range(
    packet: &Packet,
    mut start: usize,
    mut end: usize,
    mut sum: InternetSum,
) -> InternetSum {
    for piece in packet.pieces() {
        let (from, to) = (start.min(piece.len()), end.min(piece.len()));
        sum.add(&piece[from..to.max(from)]);
        start -= from;
        end -= to;
    }
    sum
}

/// Cuts a packet as its [`Gso`](crate::Gso) says into packets that have none, in order; each has a checksum that is
/// [`Partial`](Checksum::Partial). The payload is not copied. `EINVAL` when its headers are not those that it says.
pub fn segment(link: LinkType, mut packet: Packet) -> Result<Segments, Errno> {
    let gso = packet.gso.ok_or(Errno::EINVAL)?;
    let layout = Layout::of(link, &mut packet).ok_or(Errno::EINVAL)?;
    let fits = match gso.cut {
        Cut::Tcp4 => (layout.version, layout.protocol) == (Version::V4, TCP),
        Cut::Tcp6 => (layout.version, layout.protocol) == (Version::V6, TCP),
        Cut::Udp => layout.protocol == UDP,
    };
    let len = layout.headers(&mut packet).ok_or(Errno::EINVAL)?;
    if !fits || gso.size == 0 {
        return Err(Errno::EINVAL);
    }
    packet.truncate(layout.end);
    let headers = packet.front(len).ok_or(Errno::EINVAL)?;
    let headers = SmallVec::from_slice(headers);
    let mut like = packet.clone();
    packet.advance(len);
    like.advance(usize::MAX);
    like.gso = None;
    like.checksum = Checksum::None;
    Ok(Segments {
        layout,
        headers,
        like,
        left: packet.len(),
        payload: packet.into_payload(),
        size: gso.size.into(),
        done: 0,
        first: true,
    })
}

/// How long the longest packet is, from the frame's start on, that [`segment`] makes of this one; of one that is not to be cut, its length.
pub fn segment_len(link: LinkType, packet: &mut Packet) -> usize {
    let Some(gso) = packet.gso else {
        return packet.len();
    };
    let layout = Layout::of(link, packet);
    match layout.and_then(|layout| layout.headers(packet)) {
        Some(headers) => packet.len().min(headers + usize::from(gso.size)),
        None => packet.len(),
    }
}

/// What [`segment`] cuts a packet into.
pub struct Segments {
    layout: Layout,
    headers: SmallVec<[u8; 128]>,
    /// What every segment has of the packet, without bytes.
    like: Packet,
    payload: SmallVec<[Bytes; 2]>,
    /// Bytes of payload still to come.
    left: usize,
    size: usize,
    /// Segments that went before.
    done: u32,
    first: bool,
}

impl Iterator for Segments {
    type Item = Packet;

    fn next(&mut self) -> Option<Packet> {
        if self.left == 0 && !self.first {
            return None;
        }
        let mut segment = self.like.clone();
        let size = self.size.min(self.left);
        self.take_payload(&mut segment, size);
        let transport_len = self.headers.len() - self.layout.transport + size;
        let head = segment.push(self.headers.len())?;
        head.copy_from_slice(&self.headers);
        self.fix_ip(head, transport_len);
        self.fix_transport(head, transport_len);
        segment.checksum = Checksum::Partial {
            start: self.layout.transport as u16,
            offset: self.layout.checksum_offset()? as u16,
        };
        self.first = false;
        self.done += 1;
        Some(segment)
    }
}

impl Segments {
    fn take_payload(&mut self, segment: &mut Packet, mut size: usize) {
        self.left -= size;
        while size > 0
            && let Some(piece) = self.payload.first_mut()
        {
            let taken = piece.split_to(size.min(piece.len()));
            if piece.is_empty() {
                self.payload.remove(0);
            }
            size -= taken.len();
            segment.append(taken);
        }
    }

    fn fix_ip(&self, head: &mut [u8], transport_len: usize) {
        let Layout { ip, transport, .. } = self.layout;
        let header = &mut head[ip..transport];
        match self.layout.version {
            Version::V4 => {
                let total = (header.len() + transport_len) as u16;
                header[2..4].copy_from_slice(&total.to_be_bytes());
                let id = u16::from_be_bytes([header[4], header[5]]).wrapping_add(self.done as u16);
                header[4..6].copy_from_slice(&id.to_be_bytes());
                header[10..12].fill(0);
                let checksum = InternetSum::default().with(header).checksum();
                header[10..12].copy_from_slice(&checksum.to_be_bytes());
            }
            Version::V6 => {
                let payload = (header.len() - 40 + transport_len) as u16;
                header[4..6].copy_from_slice(&payload.to_be_bytes());
            }
        }
    }

    fn fix_transport(&self, head: &mut [u8], transport_len: usize) {
        let pseudo = self.layout.pseudo(head, transport_len).folded();
        let header = &mut head[self.layout.transport..];
        if self.layout.protocol == TCP {
            let sequence = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
            let sequence = sequence.wrapping_add(self.done.wrapping_mul(self.size as u32));
            header[4..8].copy_from_slice(&sequence.to_be_bytes());
            if self.left != 0 {
                header[13] &= !FIN_PSH;
            }
            if !self.first {
                header[13] &= !CWR;
            }
            header[16..18].copy_from_slice(&pseudo.to_be_bytes());
        } else {
            header[4..6].copy_from_slice(&(transport_len as u16).to_be_bytes());
            header[6..8].copy_from_slice(&pseudo.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Gso, coalesce};
    use proptest::prelude::*;

    /// A frame of TCP or UDP with a partial checksum.
    fn frame(cut: Cut, v6: bool, tags: usize, data: &[u8], size: u16) -> Packet {
        let tcp = cut != Cut::Udp;
        let transport = if tcp { 32 } else { 8 };
        let ip = if v6 { 40 } else { 20 };
        let mut bytes = vec![2; 12];
        for _ in 0..tags {
            bytes.extend([0x81, 0, 0, 7]);
        }
        bytes.extend(if v6 { [0x86, 0xdd] } else { [8, 0] });
        let at = bytes.len();
        let mut header = vec![0; ip + transport];
        let protocol = if tcp { TCP } else { UDP };
        let len = (transport + data.len()) as u16;
        if v6 {
            header[0] = 0x60;
            header[4..6].copy_from_slice(&len.to_be_bytes());
            header[6..8].copy_from_slice(&[protocol, 64]);
            header[8..40].fill(9);
        } else {
            header[0] = 0x45;
            header[2..4].copy_from_slice(&(len + 20).to_be_bytes());
            header[6..10].copy_from_slice(&[0x40, 0, 64, protocol]);
            header[12..20].fill(9);
            let sum = InternetSum::default().with(&header[..20]).checksum();
            header[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        let addresses = if v6 { 8..40 } else { 12..20 };
        let pseudo = InternetSum::pseudo(&header[addresses], protocol, u32::from(len)).folded();
        let body = &mut header[ip..];
        body[..4].copy_from_slice(&[0, 80, 1, 2]);
        let offset = if tcp {
            body[4..8].copy_from_slice(&0xffff_fff0u32.to_be_bytes());
            body[12..14].copy_from_slice(&[0x80, 0x18]);
            body[16..18].copy_from_slice(&pseudo.to_be_bytes());
            16
        } else {
            body[4..6].copy_from_slice(&len.to_be_bytes());
            body[6..8].copy_from_slice(&pseudo.to_be_bytes());
            6
        };
        bytes.extend(&header);
        let mut packet = Packet::new(bytes.into());
        for piece in data.chunks(1000) {
            packet.append(Bytes::copy_from_slice(piece));
        }
        packet.checksum = Checksum::Partial {
            start: (at + ip) as u16,
            offset,
        };
        packet.gso = Some(Gso { size, cut });
        packet
    }

    fn kinds() -> impl Strategy<Value = (Cut, bool)> {
        prop_oneof![
            Just((Cut::Tcp4, false)),
            Just((Cut::Tcp6, true)),
            Just((Cut::Udp, false)),
            Just((Cut::Udp, true)),
        ]
    }

    proptest! {
        #[test]
        fn segments_are_good_packets_and_coalesce_to_what_was_cut(
            (cut, v6) in kinds(),
            tags in 0usize..3,
            size in 1u16..3000,
            data in proptest::collection::vec(any::<u8>(), 0..20_000),
        ) {
            let whole = frame(cut, v6, tags, &data, size);
            let headers = whole.len() - data.len();
            let longest = segment_len(LinkType::Ethernet, &mut whole.clone());
            prop_assert_eq!(longest, headers + data.len().min(size.into()));
            let mut got = Vec::new();
            let mut segments = Vec::new();
            for mut segment in segment(LinkType::Ethernet, whole.clone()).expect("cuts") {
                prop_assert!(segment.len() <= longest);
                complete_checksum(&mut segment).expect("whole");
                let mut fresh = Packet::new(segment.to_vec().into());
                prop_assert!(checksum_holds(LinkType::Ethernet, &mut fresh));
                got.extend_from_slice(&fresh.to_vec()[headers..]);
                segments.push(fresh);
            }
            prop_assert_eq!(&got, &data);
            prop_assert_eq!(segments.len(), data.len().div_ceil(size.into()).max(1));
            if cut != Cut::Udp && segments.len() > 1 {
                coalesce(LinkType::Ethernet, &mut segments);
                prop_assert_eq!(segments.len(), 1);
                prop_assert_eq!(segments[0].to_vec(), whole.to_vec());
                prop_assert_eq!((segments[0].gso, segments[0].checksum), (whole.gso, whole.checksum));
            }
        }

        #[test]
        fn hostile_frames_are_refused_or_taken_but_never_followed_out_of_bounds(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
            version in 0usize..3,
            start in any::<u16>(),
            offset in any::<u16>(),
            size in any::<u16>(),
        ) {
            if bytes.len() > 34 {
                let (ether, first) = [([8, 0], 0x45), ([0x86, 0xdd], 0x60), ([8, 0], 0x4f)][version];
                bytes[12..14].copy_from_slice(&ether);
                bytes[14] = first;
            }
            let mut packet = Packet::new(bytes.into());
            let _ = checksum_holds(LinkType::Ethernet, &mut packet);
            coalesce(LinkType::Ethernet, &mut vec![packet.clone(), packet.clone()]);
            packet.checksum = Checksum::Partial { start, offset };
            for cut in [Cut::Tcp4, Cut::Tcp6, Cut::Udp] {
                packet.gso = Some(Gso { size, cut });
                if let Ok(segments) = segment(LinkType::Ethernet, packet.clone()) {
                    segments.for_each(drop);
                }
            }
            let _ = complete_checksum(&mut packet);
        }
    }

    #[test]
    fn a_damaged_packet_is_found_out() {
        let mut packet = frame(Cut::Tcp4, false, 0, b"data", 1000);
        complete_checksum(&mut packet).expect("whole");
        let mut bytes = packet.to_vec();
        *bytes.last_mut().expect("data") ^= 1;
        assert!(!checksum_holds(
            LinkType::Ethernet,
            &mut Packet::new(bytes.into())
        ));
    }

    #[test]
    fn segments_out_of_order_or_of_others_stay_apart() {
        let whole = frame(Cut::Tcp6, true, 0, &[5; 4000], 1000);
        let mut parts: Vec<Packet> = segment(LinkType::Ethernet, whole).expect("cuts").collect();
        parts.swap(1, 2);
        let before: Vec<_> = parts.iter().map(Packet::to_vec).collect();
        coalesce(LinkType::Ethernet, &mut parts);
        assert_eq!(parts.len(), 4);
        let after: Vec<_> = parts.iter().map(Packet::to_vec).collect();
        assert_eq!(before, after);
    }
}

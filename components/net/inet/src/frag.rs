//! Fragments: packets cut to fit, and put together again (RFC 791, RFC 8200 4.5), with bounds on what strangers can make us
//! keep.

use core::net::IpAddr;
use std::collections::BTreeMap;

use abi::Errno;
use bytes::Bytes;
use hypercall::Nanos;
use net::Packet;
use smallvec::SmallVec;
use sync::{Cpu, Mutex};

use crate::icmp::Problem;
use crate::ipv4::Header;
use crate::ipv6::{FRAGMENT, HOP_BY_HOP};
use crate::{Inet, checksum, leaf};

/// How long the parts of a packet are waited for.
const PATIENCE: Nanos = 30 * 1_000_000_000;
/// The most bytes that wait in all, with what each part and each packet costs besides.
const MOST_BYTES: usize = 4 << 20;
/// What a part costs besides its bytes, and a packet of which parts are here: their places in the maps, the first part's header.
const OVERHEAD: usize = 128;
const PACKET_OVERHEAD: usize = 1536;
/// A packet of parts that are shorter on average is copied into one piece: a piece takes memory besides its bytes.
const SHORT: usize = 1024;
/// The most parts of one packet.
const MOST_PARTS: usize = 512;

/// Which packet a part belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FragmentKey {
    src: IpAddr,
    dst: IpAddr,
    id: u32,
    /// IPv4 tells packets apart by it, IPv6 does not.
    protocol: u8,
    interface: u32,
}

impl FragmentKey {
    pub(crate) fn new(header: &Header, id: u32) -> FragmentKey {
        let link = crate::addr::is_link_local(&header.src) || header.dst.is_multicast();
        FragmentKey {
            src: header.src,
            dst: header.dst,
            id,
            protocol: if header.src.is_ipv4() {
                header.protocol
            } else {
                0
            },
            interface: if link { header.interface } else { 0 },
        }
    }
}

/// A part.
pub(crate) struct Fragment {
    pub(crate) key: FragmentKey,
    /// Where it belongs, in bytes.
    pub(crate) offset: usize,
    /// It is not the last.
    pub(crate) more: bool,
    /// Its bytes, without headers.
    pub(crate) data: Packet,
}

/// A packet of which parts are here. No two parts overlap.
struct Partial {
    parts: BTreeMap<usize, Bytes>,
    /// How long it is, once the last part is here.
    total: Option<usize>,
    /// The first part's header.
    header: Option<Header>,
    until: Nanos,
    /// When it began, among all.
    number: u64,
    cost: usize,
}

impl Partial {
    fn is_whole(&self) -> bool {
        let Some(total) = self.total else {
            return false;
        };
        let mut end = 0;
        self.parts.iter().all(|(&offset, part)| {
            let follows = offset == end;
            end = offset + part.len();
            follows
        }) && end == total
    }

    /// Adds a part. False when it contradicts what is here: then the packet is not to be trusted (RFC 5722).
    fn add(&mut self, offset: usize, more: bool, data: Bytes) -> bool {
        let end = offset + data.len();
        if self
            .parts
            .get(&offset)
            .is_some_and(|p| p.len() == data.len())
        {
            return true;
        }
        let before = self.parts.range(..=offset).next_back();
        if before.is_some_and(|(&o, p)| o + p.len() > offset) {
            return false;
        }
        if self
            .parts
            .range(offset..)
            .next()
            .is_some_and(|(&o, _)| o < end)
        {
            return false;
        }
        match (more, self.total) {
            (false, Some(total)) if total != end => return false,
            (true, Some(total)) if end > total => return false,
            (false, None) => {
                let last = self.parts.iter().next_back();
                if last.is_some_and(|(&o, p)| o + p.len() > end) {
                    return false;
                }
                self.total = Some(end);
            }
            _ => {}
        }
        self.cost += data.len() + OVERHEAD;
        self.parts.insert(offset, data);
        self.parts.len() <= MOST_PARTS
    }
}

/// The packets that are not whole. The map is a leaf.
#[derive(Default)]
pub(crate) struct Reassembly {
    partial: Mutex<Waiting>,
}

impl Reassembly {
    /// Forgets all parts.
    #[cfg(any(test, feature = "fuzz"))]
    pub(crate) fn forget(&self, cpu: &Cpu<'_>) {
        *self.partial.lock(&leaf(cpu)) = Waiting::default();
    }
}

#[derive(Default)]
struct Waiting {
    packets: BTreeMap<FragmentKey, Partial>,
    /// In the order in which they began, which is that in which their time is over.
    order: BTreeMap<u64, FragmentKey>,
    begun: u64,
    cost: usize,
}

impl Waiting {
    /// The packet of this key, a new one if there is none.
    fn begin(&mut self, key: FragmentKey, until: Nanos) -> &mut Partial {
        let (order, begun, cost) = (&mut self.order, &mut self.begun, &mut self.cost);
        self.packets.entry(key).or_insert_with(|| {
            *begun += 1;
            order.insert(*begun, key);
            *cost += PACKET_OVERHEAD;
            Partial {
                parts: BTreeMap::new(),
                total: None,
                header: None,
                until,
                number: *begun,
                cost: PACKET_OVERHEAD,
            }
        })
    }

    fn remove(&mut self, key: &FragmentKey) -> Option<Partial> {
        let gone = self.packets.remove(key)?;
        self.order.remove(&gone.number);
        self.cost -= gone.cost;
        Some(gone)
    }

    /// Makes room by forgetting those that have waited longest.
    fn make_room(&mut self, need: usize) {
        while self.cost + need > MOST_BYTES
            && let Some((_, &key)) = self.order.first_key_value()
        {
            self.remove(&key);
        }
    }

    /// Takes out those whose time is over.
    fn take_late(&mut self, now: Nanos) -> Vec<Partial> {
        let mut late = Vec::new();
        while let Some((_, &key)) = self.order.first_key_value()
            && self.packets.get(&key).is_none_or(|p| p.until <= now)
        {
            late.extend(self.remove(&key));
        }
        late
    }
}

impl Inet {
    /// Takes a part; answers the packet's payload when that was the last one, with the first part's header in `header`, and how many
    /// bytes of it the longest part had.
    pub(crate) fn reassemble(
        &self,
        cpu: &Cpu<'_>,
        header: &mut Header,
        part: Fragment,
    ) -> Option<(Packet, usize)> {
        let Fragment {
            key,
            offset,
            more,
            mut data,
        } = part;
        let len = data.len();
        // IPv6 does not count its first header.
        let longest = if header.src.is_ipv6() { 40 } else { 0 } + 65_535;
        if len == 0 || more && len % 8 != 0 || offset + len + header.raw.len() > longest {
            if header.src.is_ipv6() && len > 0 {
                let at = if more && len % 8 != 0 {
                    4
                } else {
                    header.raw.len() as u32 + 2
                };
                self.icmp_error(cpu, header, &mut data, Problem::Header(at));
            }
            return None;
        }
        // Copied, so that a small part does not keep a big buffer.
        let bytes = Bytes::from(data.to_vec());
        let until = self.now() + PATIENCE;
        let whole = {
            let leaf = leaf(cpu);
            let mut waiting = self.reassembly.partial.lock(&leaf);
            waiting.make_room(len + OVERHEAD + PACKET_OVERHEAD);
            let waiting = &mut *waiting;
            let partial = waiting.begin(key, until);
            let before = partial.cost;
            let good = partial.add(offset, more, bytes);
            if offset == 0 && partial.header.is_none() {
                partial.header = Some(header.clone());
            }
            let (more_cost, is_whole) = (partial.cost - before, partial.is_whole());
            waiting.cost += more_cost;
            if !good {
                waiting.remove(&key);
                return None;
            }
            if is_whole { waiting.remove(&key) } else { None }
        };
        let Some(whole) = whole else {
            self.want_slow_timer(cpu);
            return None;
        };
        *header = whole.header?;
        let longest = whole.parts.values().map(Bytes::len).max().unwrap_or(0);
        let mut packet = Packet::default();
        match whole.total {
            Some(total) if total < whole.parts.len() * SHORT => {
                let parts: Vec<Bytes> = whole.parts.into_values().collect();
                packet.append(parts.concat().into());
            }
            _ => whole
                .parts
                .into_values()
                .for_each(|part| packet.append(part)),
        }
        packet.received_on = header.interface;
        packet.link_multicast = header.link_multicast;
        Some((packet, longest))
    }

    /// Forgets packets whose parts did not come, and says so to who sent them. Answers whether others wait still.
    pub(crate) fn age_fragments(&self, cpu: &Cpu<'_>) -> bool {
        let now = self.now();
        let (late, others) = {
            let leaf = leaf(cpu);
            let mut waiting = self.reassembly.partial.lock(&leaf);
            (waiting.take_late(now), !waiting.packets.is_empty())
        };
        for partial in late {
            // Only who has the first part knows whom to answer.
            if let (Some(header), Some(first)) = (partial.header, partial.parts.get(&0)) {
                let mut packet = Packet::new(first.clone());
                self.icmp_error(cpu, &header, &mut packet, Problem::Reassembly);
            }
        }
        others
    }
}

/// Cuts a packet with its IP header so that each piece fits. `EMSGSIZE` when it must not be.
pub(crate) fn cut(mut packet: Packet, v6: bool, mtu: usize, id: u32) -> Result<Vec<Packet>, Errno> {
    if packet.gso.is_some() {
        return Err(Errno::EMSGSIZE);
    }
    net::complete_checksum(&mut packet)?;
    let first = packet
        .front(if v6 { 40 } else { 20 })
        .ok_or(Errno::EINVAL)?;
    if !v6 && first[6] & 0x40 != 0 {
        return Err(Errno::EMSGSIZE);
    }
    let mut len = if v6 {
        40
    } else {
        usize::from(first[0] & 0xf) * 4
    };
    // The checksum of a packet that lies about where it is may have gone into the header.
    if len < 20 {
        return Err(Errno::EINVAL);
    }
    if v6 && first[6] == HOP_BY_HOP {
        len += usize::from(packet.front(42).ok_or(Errno::EINVAL)?[41]) * 8 + 8;
    }
    let header: SmallVec<[u8; 64]> = SmallVec::from_slice(packet.front(len).ok_or(Errno::EINVAL)?);
    packet.advance(len);
    let extra = if v6 { 8 } else { 0 };
    let room = mtu.saturating_sub(len + extra) & !7;
    if room == 0 {
        return Err(Errno::EMSGSIZE);
    }
    // A fragment of a router may be cut again.
    let (base, more_after) = match v6 {
        true => (0, false),
        false => {
            let field = u16::from_be_bytes([header[6], header[7]]);
            (usize::from(field & 0x1fff) * 8, field & 0x2000 != 0)
        }
    };
    let mut out = Vec::new();
    let mut offset = 0;
    let mut rest = packet.into_payload();
    while !rest.is_empty() {
        let mut piece = Packet::default();
        let mut left = room;
        while left > 0 && !rest.is_empty() {
            let n = rest[0].len().min(left);
            piece.append(rest[0].split_to(n));
            left -= n;
            if rest[0].is_empty() {
                rest.remove(0);
            }
        }
        let more = !rest.is_empty() || more_after;
        let payload = piece.len();
        if v6 {
            fragment6(&mut piece, &header, offset, more, id)?;
        } else {
            fragment4(&mut piece, &header, base + offset, more)?;
        }
        offset += payload;
        out.push(piece);
    }
    Ok(out)
}

fn fragment4(piece: &mut Packet, header: &[u8], offset: usize, more: bool) -> Result<(), Errno> {
    let total = (piece.len() + header.len()) as u16;
    let field = (offset / 8) as u16 | if more { 0x2000 } else { 0 };
    let head = piece.push(header.len()).ok_or(Errno::ENOBUFS)?;
    head.copy_from_slice(header);
    head[2..4].copy_from_slice(&total.to_be_bytes());
    head[6..8].copy_from_slice(&field.to_be_bytes());
    head[10..12].fill(0);
    if offset > 0 {
        not_copied(&mut head[20..]);
    }
    let sum = checksum::of(head);
    head[10..12].copy_from_slice(&sum);
    Ok(())
}

/// Options that only the first fragment has become no-operations in the others.
fn not_copied(options: &mut [u8]) {
    let mut at = 0;
    while let Some(&kind) = options.get(at) {
        let len = match kind {
            0 => return,
            1 => 1,
            _ => usize::from(options.get(at + 1).copied().unwrap_or(0)).max(2),
        };
        if kind & 0x80 == 0 {
            let end = (at + len).min(options.len());
            options[at..end].fill(1);
        }
        at += len;
    }
}

fn fragment6(
    piece: &mut Packet,
    header: &[u8],
    offset: usize,
    more: bool,
    id: u32,
) -> Result<(), Errno> {
    // The type of the header that follows the last one that every fragment has.
    let next_at = if header.len() > 40 { 40 } else { 6 };
    let fragment = piece.push(8).ok_or(Errno::ENOBUFS)?;
    fragment[0] = header[next_at];
    let field = offset as u16 | u16::from(more);
    fragment[2..4].copy_from_slice(&field.to_be_bytes());
    fragment[4..8].copy_from_slice(&id.to_be_bytes());
    let payload = (piece.len() + header.len() - 40) as u16;
    let head = piece.push(header.len()).ok_or(Errno::ENOBUFS)?;
    head.copy_from_slice(header);
    head[next_at] = FRAGMENT;
    head[4..6].copy_from_slice(&payload.to_be_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn partial() -> Partial {
        Partial {
            parts: BTreeMap::new(),
            total: None,
            header: None,
            until: 0,
            number: 0,
            cost: 0,
        }
    }

    fn part(len: usize) -> Bytes {
        vec![7; len].into()
    }

    #[test]
    fn overlapping_parts_are_not_to_be_trusted() {
        let mut p = partial();
        assert!(p.add(0, true, part(16)));
        assert!(p.add(0, true, part(16)), "the same again");
        assert!(!p.add(8, true, part(16)));
        assert!(p.add(32, false, part(5)));
        assert!(!p.add(40, true, part(8)), "behind the end");
        assert!(!p.add(24, true, part(16)));
        assert!(!p.is_whole());
        assert!(p.add(16, true, part(16)));
        assert!(p.is_whole());
    }

    #[test]
    fn a_checksum_that_goes_into_the_header_spoils_the_packet_and_nothing_else() {
        for n in 0..64 {
            let mut packet = Packet::new(vec![n; 3001].into());
            packet.push(20).expect("room")[0] = 0x45;
            for (start, offset) in [(0, 0), (0, 5), (19, 2)] {
                packet.checksum = net::Checksum::Partial { start, offset };
                let _ = cut(packet.clone(), false, 1500, 7);
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_cut_fits_and_makes_the_packet_again(payload in proptest::collection::vec(any::<u8>(), 1..6000), mtu in 68usize..1600, v6 in any::<bool>()) {
            let mtu = if v6 { mtu.max(1280) } else { mtu };
            let mut packet = Packet::new(payload.clone().into());
            if v6 {
                let len = payload.len() as u16;
                let header = packet.push(40).unwrap();
                header[0] = 0x60;
                header[4..6].copy_from_slice(&len.to_be_bytes());
                header[6] = 17;
            } else {
                let header = packet.push(20).unwrap();
                header[0] = 0x45;
                header[9] = 17;
            }
            let mut p = partial();
            for mut piece in cut(packet, v6, mtu, 77).unwrap() {
                prop_assert!(piece.len() <= mtu);
                let (field, len) = if v6 {
                    let head = piece.front(48).unwrap();
                    prop_assert_eq!(head[40], 17);
                    let field = u16::from_be_bytes([head[42], head[43]]);
                    ((usize::from(field & 0xfff8), field & 1 != 0), 48)
                } else {
                    let head = piece.front(20).unwrap();
                    let mut sum = checksum::Sum::default();
                    sum.add(head);
                    prop_assert!(sum.is_valid());
                    let field = u16::from_be_bytes([head[6], head[7]]);
                    ((usize::from(field & 0x1fff) * 8, field & 0x2000 != 0), 20)
                };
                piece.advance(len);
                prop_assert!(p.add(field.0, field.1, piece.to_vec().into()));
            }
            prop_assert!(p.is_whole());
            prop_assert_eq!(p.parts.into_values().flatten().collect::<Vec<u8>>(), payload);
        }
    }
}

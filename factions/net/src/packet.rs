//! Packets: a small head that headers are pushed into, and a payload by reference.

use std::any::Any;
use std::sync::Arc;

use bytes::Bytes;
pub use hypercall::WireCut as Cut;
use smallvec::SmallVec;

/// Room for headers, in bytes: Ethernet with a tag (18), IPv6 with extensions, and TCP with all of its options.
const HEAD: usize = 192;

/// What a packet's transport checksum is worth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksum {
    /// Nothing is known: on the way in it must be checked, on the way out it is there.
    #[default]
    None,
    /// It was checked, or never left this machine's memory.
    Valid,
    /// Only the pseudo header is summed up in its field; who sends the packet to a real wire completes it: the sum from
    /// `start` on goes to `start + offset`. On the way in it counts as valid.
    Partial {
        /// Bytes before what is summed, from the packet's first byte on. Grows and shrinks with the headers in front.
        start: u16,
        /// Where the field is, from `start` on.
        offset: u16,
    },
}

/// A packet that stands for several segments, to be cut by whoever meets the wire (segmentation offload).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gso {
    /// Payload bytes of each segment but the last.
    pub size: u16,
    /// How it is cut.
    pub cut: Cut,
}

/// A packet on its way up or down: first the head, then the payload's pieces.
///
/// On the way down each layer pushes its header into the head. On the way up each looks at its header with
/// [`front`](Packet::front) and takes it off with [`advance`](Packet::advance); the payload is never copied.
#[derive(Clone)]
pub struct Packet {
    head: [u8; HEAD],
    start: u8,
    payload: SmallVec<[Bytes; 2]>,
    payload_len: usize,
    /// Of the transport checksum.
    pub checksum: Checksum,
    /// Whether it is to be cut.
    pub gso: Option<Gso>,
    /// The index of the interface that it came in by; 0 for none.
    pub received_on: u32,
    /// It was sent to a link-layer broadcast or multicast address.
    pub link_multicast: bool,
    /// When it came in, nanoseconds since the epoch; 0 when nobody asked.
    pub timestamp: u64,
    /// What a filter of the network layer has found out about it, for itself at the points that are still to come.
    pub note: Option<(Arc<dyn Any + Send + Sync>, u32)>,
}

impl Default for Packet {
    fn default() -> Packet {
        Packet {
            head: [0; HEAD],
            start: HEAD as u8,
            payload: SmallVec::new(),
            payload_len: 0,
            checksum: Checksum::None,
            gso: None,
            received_on: 0,
            link_multicast: false,
            timestamp: 0,
            note: None,
        }
    }
}

impl Packet {
    /// A packet of these bytes, with no header yet.
    pub fn new(payload: Bytes) -> Packet {
        let mut packet = Packet::default();
        packet.append(payload);
        packet
    }

    /// How long it is, headers and payload.
    #[expect(
        clippy::len_without_is_empty,
        reason = "a packet that is empty is of no interest"
    )]
    pub fn len(&self) -> usize {
        self.head().len() + self.payload_len
    }

    /// Appends a piece of payload.
    pub fn append(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.payload_len += piece.len();
            self.payload.push(piece);
        }
    }

    /// Puts a header of `len` bytes, zeroed, in front, to be filled in. `None` when the head is full, which only a stack
    /// of more encapsulations than there is room for can bring about.
    pub fn push(&mut self, len: usize) -> Option<&mut [u8]> {
        let end = usize::from(self.start);
        let start = end.checked_sub(len)?;
        self.start = start as u8;
        if let Checksum::Partial { start, .. } = &mut self.checksum {
            *start += len as u16;
        }
        let header = &mut self.head[start..end];
        header.fill(0);
        Some(header)
    }

    /// The first `len` bytes in one piece; `None` when there are not that many, or more than a head holds.
    pub fn front(&mut self, len: usize) -> Option<&[u8]> {
        let head_len = self.head().len();
        if head_len >= len {
            return Some(&self.head[usize::from(self.start)..][..len]);
        }
        if head_len == 0 && self.payload.first().is_some_and(|piece| piece.len() >= len) {
            return Some(&self.payload[0][..len]);
        }
        self.gather(len)
    }

    /// As [`front`](Self::front), to be written to: what is not in the head is copied there.
    pub fn front_mut(&mut self, len: usize) -> Option<&mut [u8]> {
        if self.head().len() < len {
            self.gather(len)?;
        }
        Some(&mut self.head[usize::from(self.start)..][..len])
    }

    /// Makes the head at least `len` long with bytes of the payload.
    #[cold]
    fn gather(&mut self, len: usize) -> Option<&[u8]> {
        let have = self.head().len();
        if len > HEAD || len > self.len() {
            return None;
        }
        let start = HEAD - len;
        self.head.copy_within(usize::from(self.start).., start);
        // What stood behind the head's old end is overwritten: the head always ends at HEAD.
        let mut at = start + have;
        while at < HEAD {
            let piece = self.payload.first_mut()?;
            let n = piece.len().min(HEAD - at);
            self.head[at..at + n].copy_from_slice(&piece.split_to(n));
            self.payload_len -= n;
            at += n;
            if piece.is_empty() {
                self.payload.remove(0);
            }
        }
        self.start = start as u8;
        Some(&self.head[start..])
    }

    /// Takes `len` bytes off the front, or all there are.
    pub fn advance(&mut self, mut len: usize) {
        if let Checksum::Partial { start, .. } = &mut self.checksum {
            *start = start.saturating_sub(len as u16);
        }
        let from_head = len.min(self.head().len());
        self.start += from_head as u8;
        len -= from_head;
        while len > 0 && !self.payload.is_empty() {
            let n = self.payload[0].len().min(len);
            let _ = self.payload[0].split_to(n);
            self.payload_len -= n;
            len -= n;
            if self.payload[0].is_empty() {
                self.payload.remove(0);
            }
        }
    }

    /// Cuts it to `len` bytes, padding of the link for example. Does nothing when it is shorter.
    pub fn truncate(&mut self, len: usize) {
        let keep = len.saturating_sub(self.head().len());
        if len < self.head().len() {
            // The head ends at HEAD: what stays moves there.
            let start = usize::from(self.start);
            self.head.copy_within(start..start + len, HEAD - len);
            self.start = (HEAD - len) as u8;
        }
        let mut left = keep;
        self.payload.retain(|piece| {
            piece.truncate(left);
            left -= piece.len();
            !piece.is_empty()
        });
        self.payload_len = self.payload_len.min(keep);
    }

    /// The headers that were pushed.
    pub fn head(&self) -> &[u8] {
        &self.head[usize::from(self.start)..]
    }

    /// The payload's pieces, none empty.
    pub fn payload(&self) -> &[Bytes] {
        &self.payload
    }

    /// Copies bytes from an offset on. `None` when the packet ends before.
    pub fn read(&self, offset: usize, to: &mut [u8]) -> Option<()> {
        let mut skip = offset;
        let mut done = 0;
        for piece in self.pieces() {
            let here = skip.min(piece.len());
            skip -= here;
            let n = (piece.len() - here).min(to.len() - done);
            to[done..done + n].copy_from_slice(&piece[here..here + n]);
            done += n;
        }
        (done == to.len()).then_some(())
    }

    /// All bytes, piece by piece.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        std::iter::once(self.head())
            .filter(|head| !head.is_empty())
            .chain(self.payload.iter().map(|piece| &piece[..]))
    }

    /// What is left as pieces by reference; a head that is left is copied.
    pub fn into_payload(mut self) -> SmallVec<[Bytes; 2]> {
        if !self.head().is_empty() {
            let head = Bytes::copy_from_slice(self.head());
            self.payload.insert(0, head);
        }
        self.payload
    }

    /// All bytes in one new piece.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut all = Vec::with_capacity(self.len());
        self.pieces().for_each(|piece| all.extend_from_slice(piece));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Op {
        Push(u8),
        Append(Vec<u8>),
        Front(u8),
        FrontMut(u8),
        Advance(u16),
        Truncate(u16),
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        let op = prop_oneof![
            (0u8..40).prop_map(Op::Push),
            proptest::collection::vec(any::<u8>(), 0..60).prop_map(Op::Append),
            (0u8..100).prop_map(Op::Front),
            (0u8..100).prop_map(Op::FrontMut),
            (0u16..50).prop_map(Op::Advance),
            (0u16..300).prop_map(Op::Truncate),
        ];
        proptest::collection::vec(op, 1..40)
    }

    proptest! {
        #[test]
        fn a_packet_is_what_a_vector_of_its_bytes_is(ops in ops()) {
            let mut packet = Packet::default();
            let mut model: Vec<u8> = Vec::new();
            for op in ops {
                match op {
                    Op::Push(n) => {
                        if let Some(header) = packet.push(n.into()) {
                            header.fill(n);
                            model.splice(0..0, std::iter::repeat_n(n, n.into()));
                        }
                    }
                    Op::Append(bytes) => {
                        model.extend_from_slice(&bytes);
                        packet.append(bytes.into());
                    }
                    Op::Front(n) => {
                        let front = packet.front(n.into()).map(<[u8]>::to_vec);
                        prop_assert_eq!(front, model.get(..n.into()).map(<[u8]>::to_vec));
                    }
                    Op::FrontMut(n) => {
                        if let Some(front) = packet.front_mut(n.into()) {
                            front.fill(n);
                            model[..n.into()].fill(n);
                        }
                    }
                    Op::Advance(n) => {
                        packet.advance(n.into());
                        model.drain(..model.len().min(n.into()));
                    }
                    Op::Truncate(n) => {
                        packet.truncate(n.into());
                        model.truncate(n.into());
                    }
                }
                prop_assert_eq!(packet.len(), model.len());
                prop_assert_eq!(packet.to_vec(), model.clone());
                let mut part = [0; 5];
                let there = packet.read(17, &mut part).is_some();
                prop_assert_eq!(there.then_some(&part[..]), model.get(17..22));
            }
        }
    }

    #[test]
    fn a_partial_checksum_stays_where_it_is_while_headers_come_and_go() {
        let mut packet = Packet::new(Bytes::from_static(&[7; 30]));
        packet.checksum = Checksum::Partial {
            start: 0,
            offset: 6,
        };
        packet.push(20);
        packet.push(14);
        assert_eq!(
            packet.checksum,
            Checksum::Partial {
                start: 34,
                offset: 6
            }
        );
        packet.advance(14);
        assert_eq!(
            packet.checksum,
            Checksum::Partial {
                start: 20,
                offset: 6
            }
        );
    }
}

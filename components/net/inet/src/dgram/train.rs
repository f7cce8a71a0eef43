//! Trains: datagrams of one size (the last may be shorter) that travel as one packet, udp(7): `UDP_SEGMENT` makes them, and they are taken
//! apart where they arrive, unless the socket wants them together (`UDP_GRO`).

use bytes::Bytes;
use smallvec::SmallVec;

use super::queue::Message;

/// The most datagrams of a train, Linux's `UDP_MAX_SEGMENTS`.
pub(super) const MOST: usize = 128;

impl Message {
    /// The datagrams of a train, or the one that it is.
    pub(super) fn taken_apart(mut self) -> impl Iterator<Item = Message> {
        let size = match self.segment {
            0 => self.len,
            size => size.into(),
        };
        let mut first = true;
        std::iter::from_fn(move || {
            if self.len == 0 && !first {
                return None;
            }
            first = false;
            let len = size.min(self.len);
            self.len -= len;
            Some(Message {
                data: take(&mut self.data, len),
                len,
                segment: 0,
                from: self.from,
                about: self.about.clone(),
            })
        })
    }

    /// Whether a message can be behind this one in a train of at most `room` bytes.
    pub(super) fn is_continued_by(&self, next: &Message, room: usize) -> bool {
        let size = self.size();
        let count = self.len.div_ceil(size.max(1)) + next.len.div_ceil(size.max(1));
        size > 0
            && self.len.is_multiple_of(size)
            && next.len > 0
            && (next.size() == size || next.len < size)
            && count <= MOST
            && self.len + next.len <= room
            && self.from == next.from
            && self.about == next.about
    }

    /// Puts a message behind this one that [continues](Self::is_continued_by) it.
    pub(super) fn append(&mut self, next: Message) {
        self.segment = self.size() as u16;
        self.len += next.len;
        self.data.extend(next.data);
    }

    /// Bytes of each of its datagrams but the last.
    fn size(&self) -> usize {
        match self.segment {
            0 => self.len,
            size => size.into(),
        }
    }
}

/// Takes bytes off the front.
fn take(pieces: &mut SmallVec<[Bytes; 2]>, mut len: usize) -> SmallVec<[Bytes; 2]> {
    let mut out = SmallVec::new();
    while len > 0
        && let Some(piece) = pieces.first_mut()
    {
        let taken = piece.split_to(len.min(piece.len()));
        len -= taken.len();
        if piece.is_empty() {
            pieces.remove(0);
        }
        out.push(taken);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Endpoint;
    use crate::options::About;
    use proptest::prelude::*;

    fn message(data: Vec<u8>, segment: u16) -> Message {
        let from = Endpoint::new([10, 0, 0, 1].into(), 7);
        Message {
            len: data.len(),
            data: data.chunks(700).map(Bytes::copy_from_slice).collect(),
            segment,
            from,
            about: About {
                dst: from.addr,
                dst_port: 0,
                interface: 0,
                ttl: 0,
                tos: 0,
                timestamp: 0,
            },
        }
    }

    proptest! {
        #[test]
        fn trains_carry_each_datagram_as_it_was(
            sent in proptest::collection::vec((0usize..4, any::<u8>()), 1..40),
            room in 0usize..20_000,
        ) {
            let sent: Vec<Vec<u8>> = sent.into_iter().map(|(n, byte)| vec![byte; n * 500]).collect();
            let mut trains: Vec<Message> = Vec::new();
            for data in &sent {
                let next = message(data.clone(), 0);
                match trains.last_mut() {
                    Some(last) if last.is_continued_by(&next, room) => last.append(next),
                    _ => trains.push(next),
                }
            }
            let mut got = Vec::new();
            for train in trains {
                let len: usize = train.data.iter().map(Bytes::len).sum();
                prop_assert_eq!(len, train.len);
                prop_assert!(train.segment == 0 || train.len <= room);
                got.extend(train.taken_apart().map(|m| m.data.concat()));
            }
            prop_assert_eq!(got, sent);
        }
    }
}

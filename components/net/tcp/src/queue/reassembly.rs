//! Data that came too early, and what to say of it: the SACK blocks (RFC 2018), with the duplicate first (RFC 2883).

use std::collections::BTreeMap;

use bytes::{Buf, Bytes};
use smallvec::SmallVec;

use super::{PIECE, RecvQueue};

/// A node: data without a gap. It may be of several pieces, all of one segment.
#[derive(Debug)]
struct Node {
    end: u64,
    pieces: SmallVec<[Bytes; 1]>,
}

/// What became of a segment.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Inserted {
    /// It brought something new that was kept.
    pub(crate) kept: bool,
    /// A part of it was here already: for the DSACK.
    pub(crate) duplicate: Option<(u64, u64)>,
}

#[derive(Debug, Default)]
pub(crate) struct Reassembly {
    nodes: BTreeMap<u64, Node>,
    charged: usize,
    /// Ranges without a gap, the one that changed last first.
    ranges: SmallVec<[(u64, u64); 4]>,
}

impl Reassembly {
    pub(crate) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// What its memory is taken to be.
    pub(crate) fn charged(&self) -> usize {
        self.charged
    }

    /// The newest ranges, for SACK blocks.
    pub(crate) fn ranges(&self) -> &[(u64, u64)] {
        &self.ranges
    }

    /// Keeps `pieces`, whose first byte is at `start`, unless they would take it over `limit` bytes of memory.
    pub(crate) fn insert(
        &mut self,
        start: u64,
        pieces: impl Iterator<Item = Bytes>,
        limit: usize,
    ) -> Inserted {
        let mut at = start;
        let mut result = Inserted::default();
        for mut piece in pieces {
            let end = at + piece.len() as u64;
            // What precedes us may reach into the piece; what follows may lie in it.
            while at < end {
                let before = self
                    .nodes
                    .range(..=at)
                    .next_back()
                    .map_or(0, |(_, n)| n.end);
                if before > at {
                    let overlap = before.min(end) - at;
                    note(&mut result.duplicate, at, at + overlap);
                    piece.advance(overlap as usize);
                    at += overlap;
                    continue;
                }
                let next = self.nodes.range(at..).next().map_or(u64::MAX, |(&s, _)| s);
                let part = piece.split_to((next.min(end) - at) as usize);
                if self.charged + part.len() + PIECE > limit {
                    self.extend_ranges(start, at);
                    return result;
                }
                let len = part.len() as u64;
                self.put(at, part, start);
                result.kept = true;
                at += len;
            }
        }
        self.extend_ranges(start, at);
        result
    }

    /// Adds a piece that overlaps nothing; to the node before it if that is of the same segment.
    fn put(&mut self, at: u64, piece: Bytes, segment: u64) {
        self.charged += piece.len() + PIECE;
        let end = at + piece.len() as u64;
        if let Some((&start, node)) = self.nodes.range_mut(..at).next_back()
            && node.end == at
            && start >= segment
        {
            node.pieces.push(piece);
            node.end = end;
            return;
        }
        let pieces = SmallVec::from_buf([piece]);
        self.nodes.insert(at, Node { end, pieces });
    }

    /// Notes that `start..end` is here: joined with the ranges that it touches, and first.
    fn extend_ranges(&mut self, mut start: u64, mut end: u64) {
        if start == end {
            return;
        }
        self.ranges.retain(|range| {
            let apart = range.1 < start || end < range.0;
            if !apart {
                start = start.min(range.0);
                end = end.max(range.1);
            }
            apart
        });
        self.ranges.truncate(3);
        self.ranges.insert(0, (start, end));
    }

    /// Moves what now is in order to `queue`; says up to where.
    pub(crate) fn take(&mut self, mut next: u64, queue: &mut RecvQueue) -> u64 {
        while let Some(entry) = self.nodes.first_entry() {
            if *entry.key() > next {
                break;
            }
            let (start, node) = entry.remove_entry();
            let mut at = start;
            for mut piece in node.pieces {
                self.charged -= piece.len() + PIECE;
                let end = at + piece.len() as u64;
                if end > next {
                    piece.advance(next.saturating_sub(at) as usize);
                    queue.push(piece);
                    next = end;
                }
                at = end;
            }
        }
        self.ranges.retain(|range| range.1 > next);
        next
    }
}

/// Widens the duplicate to `start..end` if it continues it; otherwise the first one found stays.
fn note(duplicate: &mut Option<(u64, u64)>, start: u64, end: u64) {
    match duplicate {
        Some(d) if d.1 == start => d.1 = end,
        Some(_) => {}
        None => *duplicate = Some((start, end)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn byte(position: u64) -> u8 {
        (position * 7 + position / 256) as u8
    }

    fn piece(start: u64, end: u64) -> Bytes {
        (start..end).map(byte).collect()
    }

    #[test]
    fn newest_range_is_reported_first() {
        let mut r = Reassembly::default();
        for start in [100, 300, 500, 700, 900] {
            r.insert(start, std::iter::once(piece(start, start + 50)), 1 << 20);
        }
        assert_eq!(r.ranges()[0], (900, 950));
        assert_eq!(r.ranges().len(), 4);
        r.insert(350, std::iter::once(piece(350, 500)), 1 << 20);
        assert_eq!(r.ranges()[0], (300, 550));
    }

    #[test]
    fn repeated_data_is_reported_as_duplicate() {
        let mut r = Reassembly::default();
        r.insert(100, std::iter::once(piece(100, 200)), 1 << 20);
        let again = r.insert(150, std::iter::once(piece(150, 250)), 1 << 20);
        assert_eq!((again.kept, again.duplicate), (true, Some((150, 200))));
    }

    #[test]
    fn out_of_order_tiny_segments_stay_within_the_limit() {
        let mut r = Reassembly::default();
        for i in 0..100_000 {
            r.insert(
                10 + i * 2,
                std::iter::once(piece(i * 2, i * 2 + 1)),
                64 << 10,
            );
        }
        assert!(r.charged() <= 64 << 10 && r.nodes.len() <= 256);
    }

    proptest! {
        #[test]
        fn gives_every_byte_once_and_in_order(segments in proptest::collection::vec((0u64..300, 1u64..60), 1..100)) {
            let mut r = Reassembly::default();
            let mut have = vec![false; 400];
            let mut queue = RecvQueue::new();
            for (start, len) in segments {
                let mid = start + len / 2;
                let pieces = [piece(start, mid), piece(mid, start + len)];
                let kept = r.insert(start, pieces.into_iter().filter(|p| !p.is_empty()), 1 << 20).kept;
                let new = have[start as usize..(start + len) as usize].iter().any(|h| !h);
                prop_assert_eq!(kept, new);
                have[start as usize..(start + len) as usize].fill(true);
                for range in r.ranges() {
                    prop_assert!(have[range.0 as usize..range.1 as usize].iter().all(|h| *h));
                }
            }
            let first = have.iter().position(|h| *h).unwrap_or(0);
            let next = r.take(first as u64, &mut queue);
            let end = have[first..].iter().position(|h| !h).map_or(400, |i| first + i);
            prop_assert_eq!(next, end as u64);
            let mut at = first as u64;
            while let Some(piece) = queue.pop(usize::MAX) {
                for b in piece {
                    prop_assert_eq!(b, byte(at));
                    at += 1;
                }
            }
            prop_assert_eq!(at, end as u64);
        }
    }
}

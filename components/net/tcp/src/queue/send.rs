//! The send queue: what the user has written and the peer has not acknowledged.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

use super::PIECE;
use crate::lazy::{Lazy, blank};
use crate::wire::Payload;

/// A segment of more pieces than this is copied into one, once.
const MAX_PIECES: usize = 17;

/// Data at its position.
#[derive(Debug)]
struct Piece {
    at: u64,
    data: Bytes,
}

impl Piece {
    fn end(&self) -> u64 {
        self.at + self.data.len() as u64
    }

    /// The part of it between two positions, which may lie outside.
    fn part(&self, from: u64, to: u64) -> Bytes {
        if from <= self.at && to >= self.end() {
            return self.data.clone();
        }
        let left = from.saturating_sub(self.at).min(self.data.len() as u64);
        let right = to.saturating_sub(self.at).min(self.data.len() as u64);
        self.data.slice(left as usize..right.max(left) as usize)
    }
}

/// Pieces without a gap.
type Pieces = VecDeque<Piece>;

blank!(Pieces = VecDeque::new());

#[derive(Debug)]
pub(crate) struct SendQueue {
    pieces: Lazy<Pieces>,
    end: u64,
}

impl SendQueue {
    pub(crate) fn new(start: u64) -> SendQueue {
        SendQueue {
            pieces: Lazy::new(),
            end: start,
        }
    }

    /// Whether there is memory that [`SendQueue::rest`] would give back.
    pub(crate) fn may_rest(&self) -> bool {
        self.len() == 0 && !self.pieces.is_clear()
    }

    /// Gives back what an empty queue needs not.
    pub(crate) fn rest(&mut self) {
        if self.len() == 0 {
            self.pieces.clear();
        }
    }

    /// The position behind the last byte.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Bytes in the queue.
    pub(crate) fn len(&self) -> usize {
        let start = self.pieces.front().map_or(self.end, |piece| piece.at);
        (self.end - start) as usize
    }

    /// What the queue's memory is taken to be.
    pub(crate) fn charged(&self) -> usize {
        self.len() + self.pieces.len() * PIECE
    }

    pub(crate) fn push(&mut self, data: Bytes) {
        if !data.is_empty() {
            let at = self.end;
            self.end += data.len() as u64;
            self.pieces.push_back(Piece { at, data });
        }
    }

    /// Forgets what is before `to`.
    pub(crate) fn acknowledge(&mut self, to: u64) {
        if self.pieces.is_clear() {
            return;
        }
        while self.pieces.front().is_some_and(|piece| piece.end() <= to) {
            self.pieces.pop_front();
        }
        if let Some(piece) = self.pieces.front_mut()
            && piece.at < to
        {
            piece.data.advance((to - piece.at) as usize);
            piece.at = to;
        }
        if self.pieces.is_empty() && self.pieces.capacity() > 64 {
            self.pieces.clear();
        }
    }

    /// The bytes from `from` to `to`, by reference.
    pub(crate) fn slice(&mut self, from: u64, to: u64) -> Payload {
        let (first, end) = self.find(from, to);
        if end - first > MAX_PIECES {
            self.gather(from, to);
            return self.slice(from, to);
        }
        self.pieces
            .range(first..end)
            .map(|piece| piece.part(from, to))
            .collect()
    }

    /// The indices of the pieces that have `from..to`: the first, and the one behind the last.
    fn find(&self, from: u64, to: u64) -> (usize, usize) {
        let first = self.pieces.partition_point(|piece| piece.end() <= from);
        let behind = self.pieces.range(first..).take_while(|piece| piece.at < to);
        (first, first + behind.take(MAX_PIECES + 1).count())
    }

    /// Makes one piece of what lies between `from` and `to`; pieces that reach over an edge are cut there.
    fn gather(&mut self, from: u64, to: u64) {
        let first = self.pieces.partition_point(|piece| piece.end() <= from);
        let end = self.pieces.partition_point(|piece| piece.at < to);
        let mut whole = BytesMut::with_capacity((to - from) as usize);
        let mut edges = [Bytes::new(), Bytes::new()];
        for piece in self.pieces.drain(first..end) {
            whole.extend_from_slice(&piece.part(from, to));
            if piece.at < from {
                edges[0] = piece.part(0, from);
            }
            if piece.end() > to {
                edges[1] = piece.part(to, u64::MAX);
            }
        }
        let [head, tail] = edges;
        let at = from - head.len() as u64;
        for (at, data) in [(to, tail), (from, whole.freeze()), (at, head)] {
            if !data.is_empty() {
                self.pieces.insert(first, Piece { at, data });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn flat(payload: &Payload) -> Vec<u8> {
        payload.iter().flat_map(|p| p.iter().copied()).collect()
    }

    #[test]
    fn slices_refer_to_what_was_pushed() {
        let mut queue = SendQueue::new(10);
        let data = Bytes::from(vec![7; 100]);
        queue.push(data.clone());
        let slice = queue.slice(20, 50);
        assert_eq!(slice[0].as_ptr(), data[10..].as_ptr());
    }

    #[test]
    fn many_tiny_pieces_leave_as_one() {
        let mut queue = SendQueue::new(0);
        (0..1000u32).for_each(|i| queue.push(Bytes::from(vec![i as u8])));
        let slice = queue.slice(3, 903);
        assert!(slice.len() <= MAX_PIECES);
        assert_eq!(
            flat(&slice),
            (3..903u32).map(|i| i as u8).collect::<Vec<_>>()
        );
        assert!(queue.pieces.len() < 110);
    }

    proptest! {
        #[test]
        fn behaves_like_a_vector(ops in proptest::collection::vec((0u8..3, 1usize..40, 0usize..400, 0usize..400), 1..200)) {
            let mut queue = SendQueue::new(5);
            let (mut model, mut start) = (Vec::<u8>::new(), 0usize);
            for (op, len, a, b) in ops {
                match op {
                    0 => {
                        let data: Vec<u8> = (0..len).map(|i| (model.len() + i) as u8).collect();
                        model.extend(&data);
                        queue.push(data.into());
                    }
                    1 => {
                        start += a % (model.len() - start + 1);
                        queue.acknowledge(5 + start as u64);
                    }
                    _ => {
                        let from = start + a % (model.len() - start + 1);
                        let to = from + b % (model.len() - from + 1);
                        let slice = queue.slice(5 + from as u64, 5 + to as u64);
                        prop_assert_eq!(flat(&slice), &model[from..to]);
                    }
                }
                prop_assert_eq!(queue.len(), model.len() - start);
            }
        }
    }
}

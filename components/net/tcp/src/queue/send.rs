//! The send queue: what the user has written and the peer has not acknowledged.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

use super::PIECE;
use crate::wire::Payload;

/// A segment of more pieces than this is copied into one, once.
const MAX_PIECES: usize = 17;

/// Pieces of data with their place in the sequence space.
#[derive(Debug, Default)]
pub(crate) struct SendQueue {
    pieces: VecDeque<Bytes>,
    start: u64,
    end: u64,
    /// A piece and the position of its first byte: where the last slice ended, so that sending on needs no search.
    hint: (usize, u64),
}

impl SendQueue {
    pub(crate) fn new(start: u64) -> SendQueue {
        SendQueue {
            pieces: VecDeque::new(),
            start,
            end: start,
            hint: (0, start),
        }
    }

    /// The position behind the last byte.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Bytes in the queue.
    pub(crate) fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    /// What the queue's memory is taken to be.
    pub(crate) fn charged(&self) -> usize {
        self.len() + self.pieces.len() * PIECE
    }

    pub(crate) fn push(&mut self, data: Bytes) {
        if !data.is_empty() {
            self.end += data.len() as u64;
            self.pieces.push_back(data);
        }
    }

    /// Forgets what is before `to`.
    pub(crate) fn acknowledge(&mut self, to: u64) {
        let to = to.min(self.end);
        while self.start < to {
            let Some(piece) = self.pieces.front_mut() else {
                break;
            };
            let drop = (to - self.start).min(piece.len() as u64);
            self.start += drop;
            if drop == piece.len() as u64 {
                self.pieces.pop_front();
                self.hint.0 = self.hint.0.wrapping_sub(1);
            } else {
                piece.advance(drop as usize);
            }
        }
        if self.hint.1 <= self.start {
            self.hint = (0, self.start);
        }
        if self.pieces.is_empty() && self.pieces.capacity() > 64 {
            self.pieces = VecDeque::new();
        }
    }

    /// The bytes from `from` to `to`, by reference.
    pub(crate) fn slice(&mut self, from: u64, to: u64) -> Payload {
        let (mut i, mut at) = self.find(from);
        let mut payload = Payload::new();
        while at < to
            && let Some(piece) = self.pieces.get(i)
        {
            let end = at + piece.len() as u64;
            if payload.len() == MAX_PIECES {
                self.gather(from, to);
                return self.slice(from, to);
            }
            let left = from.saturating_sub(at) as usize;
            let right = (to.min(end) - at) as usize;
            payload.push(if left == 0 && right == piece.len() {
                piece.clone()
            } else {
                piece.slice(left..right)
            });
            self.hint = (i, at);
            i += 1;
            at = end;
        }
        payload
    }

    /// The index and position of the piece that has `position`.
    fn find(&self, position: u64) -> (usize, u64) {
        let (mut i, mut at) = if self.hint.1 <= position {
            self.hint
        } else {
            (0, self.start)
        };
        while let Some(piece) = self.pieces.get(i) {
            let end = at + piece.len() as u64;
            if position < end {
                break;
            }
            i += 1;
            at = end;
        }
        (i, at)
    }

    /// Makes one piece of what lies between `from` and `to`; pieces that reach over an edge are cut there.
    fn gather(&mut self, from: u64, to: u64) {
        let mut whole = BytesMut::with_capacity((to - from) as usize);
        let (first, mut at) = self.find(from);
        let mut i = first;
        let mut head = None;
        let mut tail = None;
        while at < to
            && let Some(piece) = self.pieces.get(i)
        {
            let end = at + piece.len() as u64;
            let left = from.saturating_sub(at) as usize;
            let right = (to.min(end) - at) as usize;
            if left > 0 {
                head = Some(piece.slice(..left));
            }
            if right < piece.len() {
                tail = Some(piece.slice(right..));
            }
            whole.extend_from_slice(&piece[left..right]);
            i += 1;
            at = end;
        }
        self.pieces.drain(first..i);
        for piece in [tail, Some(whole.freeze()), head].into_iter().flatten() {
            self.pieces.insert(first, piece);
        }
        self.hint = (0, self.start);
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

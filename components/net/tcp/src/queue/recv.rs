//! The receive queue: what has arrived in order and the user has not read.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

use super::PIECE;
use crate::lazy::{Lazy, blank};

/// Pieces in order.
type Pieces = VecDeque<Bytes>;

blank!(Pieces = VecDeque::new());

#[derive(Debug)]
pub(crate) struct RecvQueue {
    pieces: Lazy<Pieces>,
    len: usize,
}

impl RecvQueue {
    pub(crate) const fn new() -> RecvQueue {
        RecvQueue {
            pieces: Lazy::new(),
            len: 0,
        }
    }

    /// Whether there is memory that [`RecvQueue::rest`] would give back.
    pub(crate) fn may_rest(&self) -> bool {
        self.len == 0 && !self.pieces.is_clear()
    }

    /// Gives back what an empty queue needs not.
    pub(crate) fn rest(&mut self) {
        if self.len == 0 {
            self.pieces.clear();
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// What the queue's memory is taken to be.
    pub(crate) fn charged(&self) -> usize {
        self.len + self.pieces.len() * PIECE
    }

    pub(crate) fn push(&mut self, data: Bytes) {
        if !data.is_empty() {
            self.len += data.len();
            self.pieces.push_back(data);
        }
    }

    pub(crate) fn push_front(&mut self, data: Bytes) {
        if !data.is_empty() {
            self.len += data.len();
            self.pieces.push_front(data);
        }
    }

    /// The first piece or the first `max` bytes of it.
    pub(crate) fn pop(&mut self, max: usize) -> Option<Bytes> {
        if self.len == 0 {
            return None;
        }
        let front = self.pieces.front_mut()?;
        let data = if front.len() > max {
            front.split_to(max)
        } else {
            self.pieces.pop_front()?
        };
        self.len -= data.len();
        if self.pieces.is_empty() && self.pieces.capacity() > 64 {
            self.pieces.clear();
        }
        Some(data)
    }

    /// The pieces in order, for a look without taking.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = &Bytes> {
        self.pieces.iter()
    }

    /// Takes one byte out, `offset` bytes from the front.
    pub(crate) fn remove(&mut self, mut offset: usize) -> Option<u8> {
        let mut i = 0;
        while self.pieces.get(i)?.len() <= offset {
            offset -= self.pieces[i].len();
            i += 1;
        }
        let mut tail = self.pieces[i].split_off(offset);
        let byte = tail.get_u8();
        self.len -= 1;
        if !tail.is_empty() {
            self.pieces.insert(i + 1, tail);
        }
        if self.pieces[i].is_empty() {
            self.pieces.remove(i);
        }
        Some(byte)
    }

    /// Copies runs of small pieces together, so that a peer that sends bytes one by one does not make us hold a node and a packet
    /// for each. Every byte is copied at most once in each doubling of the queue: the caller asks when the charge is twice a limit.
    pub(crate) fn collapse(&mut self) {
        const CHUNK: usize = 16 << 10;
        let mut packed = VecDeque::new();
        let mut run = BytesMut::new();
        for piece in self.pieces.drain(..) {
            if piece.len() >= CHUNK / 4 {
                if !run.is_empty() {
                    packed.push_back(run.split().freeze());
                }
                packed.push_back(piece);
                continue;
            }
            if run.is_empty() {
                run.reserve(CHUNK);
            }
            run.extend_from_slice(&piece);
            if run.len() >= CHUNK * 3 / 4 {
                packed.push_back(run.split().freeze());
            }
        }
        if !run.is_empty() {
            // The last run may be short: it is not to hold a whole chunk.
            packed.push_back(Bytes::copy_from_slice(&run));
        }
        *self.pieces = packed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collapse_keeps_the_bytes_and_drops_the_nodes() {
        let mut queue = RecvQueue::new();
        let bytes: Vec<u8> = (0..50_000u32).map(|i| i as u8).collect();
        bytes[..20_000]
            .iter()
            .for_each(|&b| queue.push(vec![b].into()));
        queue.push(bytes[20_000..].to_vec().into());
        queue.collapse();
        assert!(queue.charged() < 52_000);
        let mut out = Vec::new();
        while let Some(piece) = queue.pop(777) {
            out.extend_from_slice(&piece);
        }
        assert_eq!((out, queue.len()), (bytes, 0));
    }
}

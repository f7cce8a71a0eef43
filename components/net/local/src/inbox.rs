//! What waits to be received.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use kern::OpenFile;
use net::Addr;
use smallvec::SmallVec;

use crate::end::End;
use crate::flight::Rights;

/// A piece of what was sent: part of a stream, or a whole message.
pub(crate) struct Piece {
    pub(crate) data: Bytes,
    /// Who sent it, where that is not the peer anyway.
    pub(crate) from: Option<Addr>,
    /// Descriptors that go along; those of a stream with the first of its bytes.
    pub(crate) rights: Option<Box<Rights>>,
    /// Who the sender was, for receivers that want to know (`SO_PASSCRED`).
    pub(crate) sender: net::Credentials,
}

/// A queue of pieces with a count of their bytes.
#[derive(Default)]
pub(crate) struct Inbox {
    queue: VecDeque<Piece>,
    bytes: usize,
    /// The peer sends no more.
    pub(crate) ended: bool,
    /// This side receives no more.
    pub(crate) refuses: bool,
}

/// What a message takes besides its bytes, so that there cannot be endlessly many.
pub(crate) const OVERHEAD: usize = 256;

fn weight(piece: &Piece) -> usize {
    piece.data.len() + OVERHEAD
}

impl Inbox {
    /// Room for more, when at most `limit` bytes may wait.
    pub(crate) fn room(&self, limit: usize) -> usize {
        limit.saturating_sub(self.bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Bytes that a receive could get, or the length of the first message.
    pub(crate) fn readable(&self, messages: bool) -> usize {
        let mut lengths = self.queue.iter().map(|piece| piece.data.len());
        if messages {
            lengths.next().unwrap_or(0)
        } else {
            lengths.sum()
        }
    }

    pub(crate) fn push(&mut self, piece: Piece) {
        self.bytes += weight(&piece);
        self.queue.push_back(piece);
    }

    /// Takes the first message.
    pub(crate) fn pop(&mut self) -> Option<Piece> {
        let piece = self.queue.pop_front()?;
        self.bytes -= weight(&piece);
        Some(piece)
    }

    pub(crate) fn first(&self) -> Option<&Piece> {
        self.queue.front()
    }

    /// Takes up to `want` bytes of a stream, with the descriptors of the first piece; does not go beyond a piece that
    /// has descriptors of its own.
    pub(crate) fn take(&mut self, want: usize) -> Stretch {
        let mut out = Stretch::default();
        let mut left = want;
        while let Some(piece) = self.queue.front_mut() {
            if out.started && (left == 0 || piece.rights.is_some()) {
                break;
            }
            if !out.started {
                out.rights = piece.rights.take();
            }
            out.started = true;
            out.sender = Some(piece.sender);
            let n = left.min(piece.data.len());
            out.data.push(piece.data.split_to(n));
            left -= n;
            self.bytes -= n;
            if piece.data.is_empty() {
                self.queue.pop_front();
                self.bytes -= OVERHEAD;
            }
        }
        out
    }

    /// The same bytes without taking them, and without descriptors.
    pub(crate) fn peek(&self, want: usize) -> Stretch {
        let mut out = Stretch::default();
        let mut left = want;
        for piece in &self.queue {
            if out.started && (left == 0 || piece.rights.is_some()) {
                break;
            }
            out.started = true;
            out.sender = Some(piece.sender);
            let n = left.min(piece.data.len());
            out.data.push(piece.data.slice(..n));
            left -= n;
        }
        out
    }

    /// The sockets of this domain that lie in it.
    pub(crate) fn sockets(&self) -> impl Iterator<Item = (&End, &Arc<OpenFile>)> {
        let rights = self.queue.iter().filter_map(|piece| piece.rights.as_ref());
        rights.flat_map(|rights| rights.sockets())
    }

    /// Takes everything, to be given back.
    pub(crate) fn drain(&mut self) -> VecDeque<Piece> {
        self.bytes = 0;
        std::mem::take(&mut self.queue)
    }
}

/// Bytes taken from a stream.
#[derive(Default)]
pub(crate) struct Stretch {
    started: bool,
    pub(crate) data: SmallVec<[Bytes; 4]>,
    pub(crate) rights: Option<Box<Rights>>,
    pub(crate) sender: Option<net::Credentials>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(data: &'static [u8]) -> Piece {
        Piece {
            data: Bytes::from_static(data),
            from: None,
            rights: None,
            sender: net::Credentials {
                pid: 1,
                uid: 0,
                gid: 0,
            },
        }
    }

    fn text(stretch: &Stretch) -> Vec<u8> {
        stretch.data.concat()
    }

    #[test]
    fn a_stream_is_taken_across_pieces() {
        let mut inbox = Inbox::default();
        inbox.push(piece(b"hello "));
        inbox.push(piece(b"world"));
        assert_eq!(text(&inbox.peek(8)), b"hello wo");
        assert_eq!(text(&inbox.take(8)), b"hello wo");
        assert_eq!(inbox.readable(false), 3);
        assert_eq!(text(&inbox.take(100)), b"rld");
        assert!(inbox.is_empty());
        assert_eq!(inbox.room(1000), 1000);
    }

    #[test]
    fn bytes_with_descriptors_begin_a_new_stretch() {
        let mut inbox = Inbox::default();
        inbox.push(piece(b"a"));
        let mut with = piece(b"b");
        with.rights = Some(Box::default());
        inbox.push(with);
        assert_eq!(text(&inbox.take(10)), b"a");
        let stretch = inbox.take(10);
        assert_eq!(text(&stretch), b"b");
        assert!(stretch.rights.is_some());
    }
}

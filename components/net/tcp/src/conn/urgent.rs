//! Urgent data (RFC 9293 section 3.8.5), with the pointer as everybody reads it: to the byte behind the urgent one (RFC 6093).

use bytes::Bytes;

use super::{Connection, Error};
use crate::seq::unwrap;
use crate::wire::{Flags, Segment};

/// Where the urgent byte is among what is received.
#[derive(Clone, Copy, Debug)]
pub(super) struct Urgent {
    /// Its position, until the user has read past it.
    mark: Option<u64>,
    /// It has been taken out of the stream.
    taken: bool,
    /// It, until the user has read it.
    byte: Option<u8>,
}

impl Urgent {
    pub(super) const NONE: Urgent = Urgent {
        mark: None,
        taken: false,
        byte: None,
    };
}

impl Connection {
    /// Sends one byte or more of which the last is urgent (MSG_OOB), as [`Connection::send`].
    pub fn send_urgent(&mut self, data: &mut Bytes) -> Result<usize, Error> {
        let whole = data.len();
        let len = self.send(data)?;
        if len == whole && len > 0 {
            self.flight.urgent = self.tx.queue.end();
        }
        Ok(len)
    }

    /// The urgent byte (MSG_OOB): once. `Absent` if there is none, or it stays in the stream.
    pub fn recv_urgent(&mut self) -> Result<u8, Error> {
        let byte = self.rare.urgent.byte.ok_or(Error::Absent)?;
        self.rare.urgent.byte = None;
        Ok(byte)
    }

    /// Whether the next byte is the urgent one, or was where it was taken out (sockatmark(3)).
    pub fn at_mark(&self) -> bool {
        match (self.rare.urgent.mark, self.behind_mark()) {
            (Some(_), Some(behind)) => self.rx.queue.len() as u64 == behind,
            (Some(mark), None) => mark == self.data_nxt() && self.rx.queue.len() == 0,
            _ => false,
        }
    }

    /// Whether an urgent byte can be read.
    pub(super) fn urgent_readable(&self) -> bool {
        self.rare.urgent.byte.is_some() || self.at_mark()
    }

    /// Bytes that can be read before the mark, or all if there is none ahead.
    pub(super) fn before_mark(&self) -> usize {
        let len = self.rx.queue.len();
        match self.behind_mark() {
            Some(behind) if behind < len as u64 => len - behind as usize,
            _ => len,
        }
    }

    /// Bytes in the queue from the mark on; `None` if it has not arrived.
    fn behind_mark(&self) -> Option<u64> {
        let mark = self
            .rare
            .urgent
            .mark
            .filter(|&mark| mark < self.data_nxt())?;
        Some(self.data_nxt() - mark - u64::from(self.rare.urgent.taken))
    }

    /// The position behind the last byte in the queue.
    fn data_nxt(&self) -> u64 {
        self.rx.nxt - u64::from(self.rx.fin < self.rx.nxt)
    }

    /// The user has read: perhaps past the mark.
    pub(super) fn pass_mark(&mut self) {
        if self
            .behind_mark()
            .is_some_and(|behind| (self.rx.queue.len() as u64) < behind)
        {
            self.rare.urgent = Urgent {
                byte: self.rare.urgent.byte,
                ..Urgent::NONE
            };
        }
    }

    /// A segment may announce an urgent byte that has not arrived.
    pub(super) fn take_urgent(&mut self, segment: &Segment) {
        if !segment.flags.has(Flags::URG) || !self.state.can_receive() || segment.urgent == 0 {
            return;
        }
        let at = unwrap(self.rx.nxt, segment.seq) + u64::from(segment.urgent) - 1;
        if at >= self.rx.nxt && self.rare.urgent.mark.is_none_or(|old| at > old) {
            self.rare.urgent = Urgent {
                mark: Some(at),
                ..Urgent::NONE
            };
        }
    }

    /// Takes the urgent byte out of the stream if it has arrived and does not stay there.
    pub(super) fn pick_urgent(&mut self) {
        if self.settings.oob_inline || self.rare.urgent.taken {
            return;
        }
        if let Some(behind) = self.behind_mark()
            && let Some(offset) = self.rx.queue.len().checked_sub(behind as usize)
        {
            self.rare.urgent.byte = self.rx.queue.remove(offset);
            self.rare.urgent.taken = true;
        }
    }
}

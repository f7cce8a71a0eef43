//! TIME-WAIT in a few words instead of a connection (RFC 9293 section 3.6.1), and when a new connection may take its place
//! (RFC 6191).

use crate::conn::TIME_WAIT;
use crate::rtt::MS;
use crate::seq::before;
use crate::wire::{Flags, Options, Segment, Timestamps};

/// What is left of a connection that both sides have finished.
#[derive(Clone, Copy, Debug)]
pub struct TimeWait {
    pub(crate) snd_nxt: u32,
    pub(crate) rcv_nxt: u32,
    pub(crate) window: u16,
    pub(crate) local_port: u16,
    pub(crate) remote_port: u16,
    pub(crate) ts_recent: Option<u32>,
    pub(crate) ts_offset: u32,
    pub(crate) deadline: u64,
}

/// What to do with a segment that came for a connection in TIME-WAIT.
#[derive(Clone, Debug)]
pub enum TimeWaitReply {
    /// Nothing.
    Drop,
    /// Send this.
    Reply(Segment),
    /// Forget the entry: it was reset.
    Forget,
    /// It is a SYN that begins a new connection: forget the entry and give the segment to the listener. An initial sequence number
    /// above this keeps the two connections apart.
    Reuse {
        /// The least initial sequence number.
        above: u32,
    },
}

impl TimeWait {
    /// When it may be forgotten, in ns.
    pub fn deadline(&self) -> u64 {
        self.deadline
    }

    /// A segment has come for it.
    pub fn on_segment(&mut self, now: u64, segment: &Segment) -> TimeWaitReply {
        let ts = segment.options.timestamps;
        if segment.flags.has(Flags::RST) {
            // RFC 1337: only an exact one, and even that need not end it; but a port is wanted back.
            return match segment.seq == self.rcv_nxt {
                true => TimeWaitReply::Forget,
                false => TimeWaitReply::Drop,
            };
        }
        if segment.flags.has(Flags::SYN)
            && !segment.flags.has(Flags::ACK)
            && self.may_be_reused(segment.seq, ts)
        {
            let above = self.snd_nxt.wrapping_add(65536);
            return TimeWaitReply::Reuse { above };
        }
        let stale = match (self.ts_recent, ts) {
            (Some(recent), Some(ts)) => before(ts.value, recent),
            _ => false,
        };
        let outside = segment.seq != self.rcv_nxt || segment.seq_len() > 0;
        if segment.flags.has(Flags::FIN) && !stale {
            self.deadline = now + TIME_WAIT;
        }
        match stale || outside {
            true => TimeWaitReply::Reply(self.acknowledgement(now)),
            false => TimeWaitReply::Drop,
        }
    }

    /// RFC 6191: by a timestamp that is newer, or a sequence number that is.
    fn may_be_reused(&self, seq: u32, ts: Option<Timestamps>) -> bool {
        match (self.ts_recent, ts) {
            (Some(recent), Some(ts)) if ts.value != recent => before(recent, ts.value),
            _ => before(self.rcv_nxt, seq),
        }
    }

    fn acknowledgement(&self, now: u64) -> Segment {
        Segment {
            src_port: self.local_port,
            dst_port: self.remote_port,
            seq: self.snd_nxt,
            ack: self.rcv_nxt,
            flags: Flags::ACK,
            window: self.window,
            options: Options {
                timestamps: self.ts_recent.map(|echo| Timestamps {
                    value: ((now / MS) as u32).wrapping_add(self.ts_offset),
                    echo,
                }),
                ..Options::default()
            },
            ..Segment::default()
        }
    }
}

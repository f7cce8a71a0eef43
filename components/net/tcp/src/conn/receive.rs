//! The receiving half: what is in order, what came early, the window, and when to acknowledge.

use super::{Agreed, Settings};
use crate::lazy::{Lazy, blank};
use crate::queue::{Reassembly, RecvQueue};
use crate::rtt::MS;
use crate::seq::origin;
use crate::wire::SackBlocks;

/// Longest and shortest delay of an acknowledgement.
const DELACK_MAX: u64 = 40 * MS;
const DELACK_MIN: u64 = 4 * MS;
/// How many segments at a connection's start are acknowledged at once: the peer's slow start waits for them.
const QUICK_SEGMENTS: u8 = 16;

/// What is received.
#[derive(Debug)]
pub(super) struct Receive {
    /// The peer's initial sequence number.
    irs: u32,
    /// The position that is expected next.
    pub(super) nxt: u64,
    /// The right edge of the window that the peer knows; it never moves left.
    pub(super) adv: u64,
    pub(super) queue: RecvQueue,
    flow: Lazy<Flow>,
    /// Our window scale.
    pub(super) scale: u8,
    /// The position of the peer's FIN, or [`NO_FIN`].
    pub(super) fin: u64,
    /// What recv_buffer has grown to.
    pub(super) buffer: u32,
    /// The last acknowledgement that was sent.
    pub(super) acked: u64,
    /// An acknowledgement is owed.
    pub(super) ack: AckDue,
    quick: u8,
    /// The user answers what it reads: acknowledgements go with the answers.
    pub(super) pingpong: bool,
    /// What the peer's full segments carry, as far as seen.
    pub(super) mss: u32,
    pub(super) ts_recent: u32,
    pub(super) ts_recent_at: u64,
}

/// No FIN of the peer's is known.
pub(super) const NO_FIN: u64 = u64::MAX;

/// What is known of data on their way to us: an idle connection has none.
#[derive(Debug)]
struct Flow {
    early: Option<Box<Reassembly>>,
    /// What has arrived twice; empty if nothing has.
    dsack: (u64, u64),
    /// Auto-tuning: bytes read since the time, and how many were read in the round before (zero: half of the buffer).
    tune_at: u64,
    tune_copied: u32,
    tune_space: u32,
    /// The round trip as seen from here, and the position whose arrival ends one that began at a time.
    rtt: u64,
    rtt_mark: u64,
    rtt_mark_at: u64,
}

blank!(
    Flow = Flow {
        early: None,
        dsack: (0, 0),
        tune_at: 0,
        tune_copied: 0,
        tune_space: 0,
        rtt: 0,
        rtt_mark: 0,
        rtt_mark_at: 0,
    }
);

/// When an acknowledgement is to leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum AckDue {
    #[default]
    No,
    /// With the next data, or when its timer fires.
    Delayed,
    Now,
}

impl Receive {
    pub(super) fn new(settings: &Settings) -> Receive {
        let buffer = settings.recv_buffer.size;
        Receive {
            irs: 0,
            nxt: 0,
            adv: 0,
            queue: RecvQueue::new(),
            flow: Lazy::new(),
            scale: 0,
            fin: NO_FIN,
            buffer,
            acked: 0,
            ack: AckDue::No,
            quick: QUICK_SEGMENTS,
            pingpong: false,
            mss: 536,
            ts_recent: 0,
            ts_recent_at: 0,
        }
    }

    /// The position of the peer's SYN.
    pub(super) fn irs(&self) -> u64 {
        origin(self.irs)
    }

    /// The peer's SYN is here.
    pub(super) fn start(&mut self, irs: u32) {
        self.irs = irs;
        self.nxt = self.irs() + 1;
        self.acked = self.nxt;
        self.adv = self.nxt + u64::from(self.buffer.min(0xffff));
    }

    /// Nothing more will come.
    pub(super) fn stop(&mut self) {
        self.flow.clear();
        self.ack = AckDue::No;
    }

    /// Keeps data whose first byte is at `start`, which is inside the window; says whether any of it was new.
    pub(super) fn take(&mut self, start: u64, pieces: impl Iterator<Item = bytes::Bytes>) {
        if start > self.nxt {
            let limit = self.memory_limit().saturating_sub(self.queue.charged());
            let flow = &mut *self.flow;
            let early = flow.early.get_or_insert_default();
            let inserted = early.insert(start, pieces, limit);
            flow.dsack = inserted.duplicate.unwrap_or(flow.dsack);
            return;
        }
        let mut at = start;
        for mut piece in pieces {
            let end = at + piece.len() as u64;
            if end > self.nxt {
                bytes::Buf::advance(&mut piece, (self.nxt - at) as usize);
                self.queue.push(piece);
                self.nxt = end;
            }
            at = end;
        }
        if let Some(early) = &mut self.flow.early {
            let next = early.take(self.nxt, &mut self.queue);
            self.nxt = next;
            if early.is_empty() {
                self.flow.early = None;
            }
        }
        if self.queue.charged() > self.memory_limit() {
            self.queue.collapse();
        }
    }

    /// What both queues may be charged together: twice the window, so that full segments never meet it.
    fn memory_limit(&self) -> usize {
        2 * self.buffer as usize + 4096
    }

    /// What both queues are charged now.
    pub(super) fn memory(&self) -> usize {
        self.queue.charged() + self.flow.early.as_ref().map_or(0, |early| early.charged())
    }

    /// Whether there is a gap before what has arrived.
    pub(super) fn has_gap(&self) -> bool {
        self.flow.early.is_some()
    }

    /// Notes that `start..end` arrived twice, for the next acknowledgement.
    pub(super) fn duplicate(&mut self, start: u64, end: u64) {
        self.flow.dsack = (start, end);
    }

    /// Room for new data, in bytes.
    pub(super) fn space(&self) -> u64 {
        u64::from(self.buffer).saturating_sub(self.queue.len() as u64)
    }

    /// The window field for a segment that leaves now; moves the right edge. `mss` is what the peer is taken to send.
    pub(super) fn window(&mut self) -> u16 {
        let current = self.adv.saturating_sub(self.nxt);
        let space = self.space();
        let least = u64::from(self.mss.min(self.buffer / 2)).max(1);
        let wire = if space >= current + least {
            (space >> self.scale).min(0xffff)
        } else {
            // Silly window avoidance (RFC 9293 section 3.8.6.2.2). Rounded up: the edge does not move left.
            current.div_ceil(1 << self.scale).min(0xffff)
        };
        self.adv = self.adv.max(self.nxt + (wire << self.scale));
        wire as u16
    }

    /// Whether the window has grown so much since the peer was told that it should know.
    pub(super) fn window_moved(&self) -> bool {
        let current = self.adv.saturating_sub(self.nxt);
        let space = self.space().min(0xffff << self.scale);
        let least = u64::from(self.buffer / 2)
            .min(2 * u64::from(self.mss))
            .max(1);
        space >= current + least && space >= 2 * current
    }

    /// Room that SACK blocks take in a header that leaves now.
    pub(super) fn sack_len(&self, agreed: Agreed) -> u32 {
        let blocks = self
            .flow
            .early
            .as_ref()
            .map_or(0, |early| early.ranges().len() as u32)
            + u32::from(self.flow.dsack.1 > 0);
        match blocks.min(if agreed.timestamps { 3 } else { 4 }) {
            n if n > 0 && agreed.sack => 4 + 8 * n,
            _ => 0,
        }
    }

    /// The blocks for a segment that leaves now; the duplicate is told once.
    pub(super) fn sack_blocks(&mut self) -> SackBlocks {
        let mut blocks = SackBlocks::default();
        let (start, end) = self.flow.dsack;
        if end > 0 {
            blocks.push(start as u32, end as u32);
            self.flow.dsack = (0, 0);
        }
        if let Some(early) = &self.flow.early {
            for (start, end) in early.ranges() {
                blocks.push(*start as u32, *end as u32);
            }
        }
        blocks
    }

    /// A segment with `len` bytes of new data in order, cut from packets of `packet` bytes, is to be acknowledged.
    pub(super) fn owe_ack(&mut self, packet: u32) {
        if packet >= self.mss {
            self.mss = packet.min(0xffff);
        }
        let quick = self.quick > 0 && !self.pingpong;
        if quick || self.nxt - self.acked > u64::from(self.mss) {
            self.quick = self.quick.saturating_sub(1);
            self.ack = AckDue::Now;
        } else if self.ack == AckDue::No {
            self.ack = AckDue::Delayed;
        }
    }

    /// How long an acknowledgement may wait, in ns.
    pub(super) fn ack_delay(&self, srtt: u64) -> u64 {
        // The user's answer comes soon or not at all. Without one, a peer with a small window waits for this.
        match self.pingpong || srtt == 0 {
            true => DELACK_MAX,
            false => (srtt / 4).clamp(DELACK_MIN, DELACK_MAX),
        }
    }

    /// Acknowledges the next segments at once, as at the start of a connection.
    pub(super) fn be_quick(&mut self) {
        self.quick = QUICK_SEGMENTS;
        self.pingpong = false;
    }

    /// The round trip as seen from here, in ns; zero before it is known.
    pub(super) fn rtt(&self) -> u64 {
        self.flow.rtt
    }

    /// Whether nothing is on its way to us that we know of, and nothing is to be told.
    pub(super) fn is_quiet(&self) -> bool {
        self.ack == AckDue::No && self.flow.early.is_none() && self.flow.dsack.1 == 0
    }

    /// Whether there is something that [`Receive::rest`] would give back.
    pub(super) fn may_rest(&self) -> bool {
        !self.flow.is_clear() || self.queue.may_rest()
    }

    /// Gives back what is of use only while data come in.
    pub(super) fn rest(&mut self) {
        self.flow.clear();
        self.queue.rest();
    }

    /// Measures the round trip by the time a window takes, for peers that send no timestamps (dynamic right-sizing).
    pub(super) fn measure(&mut self, now: u64) {
        let flow = &mut *self.flow;
        if flow.rtt_mark_at != 0 && self.nxt >= flow.rtt_mark {
            let rtt = now - flow.rtt_mark_at;
            flow.rtt = if flow.rtt == 0 {
                rtt
            } else {
                flow.rtt.min(rtt).max(flow.rtt / 8 * 7)
            };
            flow.rtt_mark_at = 0;
        }
        if flow.rtt_mark_at == 0 {
            flow.rtt_mark = self.adv.max(self.nxt + 1);
            flow.rtt_mark_at = now.max(1);
        }
    }

    /// The user has read `len` bytes: if it reads a window's worth each round trip, the window is what limits the peer, and grows.
    pub(super) fn tune(&mut self, now: u64, len: usize, srtt: u64, max: u32) {
        let flow = &mut *self.flow;
        flow.tune_copied = flow.tune_copied.saturating_add(len as u32);
        let rtt = match (flow.rtt, srtt) {
            (0, srtt) => srtt,
            (rtt, 0) => rtt,
            (rtt, srtt) => rtt.min(srtt),
        };
        if rtt == 0 || now - flow.tune_at < rtt {
            return;
        }
        let space = match flow.tune_space {
            0 => self.buffer / 2,
            space => space,
        };
        if flow.tune_copied > space && self.buffer < max {
            // Twice what came in a round trip, and as much again while it grows (slow start doubles).
            let grown = flow.tune_copied - space;
            let want =
                (u64::from(flow.tune_copied) + u64::from(grown)) * 2 + 16 * u64::from(self.mss);
            self.buffer = self.buffer.max(want.min(u64::from(max)) as u32);
            flow.tune_space = flow.tune_copied;
        }
        flow.tune_copied = 0;
        flow.tune_at = now;
    }
}

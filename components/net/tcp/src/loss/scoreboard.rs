//! The scoreboard: what has been sent and not yet acknowledged, and what became of each part (RFC 2018, 6675).
//!
//! A record is what left in one segment, up to 64 KiB; it is split where a SACK block's edge lies in it. Records lie seamless in
//! order of sequence, so finding one is a binary search. A second list has the transmissions in order of time, for RACK: the front
//! of it is always the oldest, and what is looked at and outdated is dropped. So an acknowledgement costs what it newly covers.

use std::collections::VecDeque;

/// The peer has it.
const SACKED: u8 = 1;
/// Taken to be lost, and not sent again since.
const LOST: u8 = 2;
/// Sent again, and that may be on the way.
const RETRANS: u8 = 4;
/// Was sent again at some time: its round trip is ambiguous.
const EVER: u8 = 8;

/// A part of the sequence space that left at one time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record {
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// When it was last sent, in ns.
    pub(crate) sent_at: u64,
    /// Where the run of SACKed records that starts here is known to end: repeated blocks are skipped.
    run_end: u64,
    mss: u32,
    flags: u8,
}

impl Record {
    fn len(&self) -> u64 {
        self.end - self.start
    }

    fn is(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    pub(crate) fn sacked(&self) -> bool {
        self.is(SACKED)
    }

    /// Whether it was ever sent again.
    pub(crate) fn retransmitted(&self) -> bool {
        self.is(EVER)
    }
}

/// A transmission, in the list by time.
#[derive(Clone, Copy, Debug)]
struct Sent {
    at: u64,
    start: u64,
    end: u64,
}

/// A number of bytes on the way: a window is at most 1 GiB.
type Bytes = u32;

#[derive(Debug)]
pub(crate) struct Scoreboard {
    records: VecDeque<Record>,
    by_time: VecDeque<Sent>,
    /// Bytes with each mark.
    sacked: Bytes,
    lost: Bytes,
    retrans: Bytes,
    /// Nothing before it is lost and unsent.
    lost_from: u64,
    /// Bytes that have left the network by the duplicate acknowledgements of a peer without SACK.
    gone: Bytes,
}

impl Scoreboard {
    pub(crate) const fn new() -> Scoreboard {
        Scoreboard {
            records: VecDeque::new(),
            by_time: VecDeque::new(),
            sacked: 0,
            lost: 0,
            retrans: 0,
            lost_from: 0,
            gone: 0,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Bytes that are thought to be on the way (RFC 6675's pipe).
    pub(crate) fn pipe(&self) -> u64 {
        let all = match (self.records.front(), self.records.back()) {
            (Some(first), Some(last)) => last.end - first.start,
            _ => 0,
        };
        // What was lost and sent again is marked lost no more, so it counts once.
        all.saturating_sub(u64::from(self.sacked) + u64::from(self.lost) + u64::from(self.gone))
    }

    /// A peer without SACK says by duplicates that so many bytes have arrived.
    pub(crate) fn set_gone(&mut self, bytes: u64) {
        self.gone = bytes as Bytes;
    }

    pub(crate) fn gone(&self) -> u64 {
        u64::from(self.gone)
    }

    /// Where the last packet of the last record starts, and its end.
    pub(crate) fn tail(&self) -> Option<(u64, u64)> {
        let last = self.records.back()?;
        let mss = u64::from(last.mss);
        Some((last.start + (last.len() - 1) / mss * mss, last.end))
    }

    pub(crate) fn sacked(&self) -> u64 {
        u64::from(self.sacked)
    }

    pub(crate) fn lost(&self) -> u64 {
        u64::from(self.lost)
    }

    pub(crate) fn retrans(&self) -> u64 {
        u64::from(self.retrans)
    }

    pub(crate) fn first(&self) -> Option<&Record> {
        self.records.front()
    }

    /// New data left.
    pub(crate) fn sent(&mut self, start: u64, end: u64, at: u64, mss: u32) {
        self.records.push_back(Record {
            start,
            end,
            sent_at: at,
            run_end: 0,
            mss: mss.max(1),
            flags: 0,
        });
        self.by_time.push_back(Sent { at, start, end });
    }

    /// `start..end` was sent again, in packets of `mss` bytes.
    pub(crate) fn resent(&mut self, start: u64, end: u64, at: u64, mss: u32) {
        let mut i = self.find(start);
        while let Some(record) = self.records.get(i).copied()
            && record.start < end
        {
            if record.start < start {
                self.split(i, start);
                i += 1;
                continue;
            }
            if record.end > end {
                self.split(i, end);
            }
            let record = &mut self.records[i];
            let len = record.len();
            if record.is(LOST) {
                record.flags &= !LOST;
                self.lost -= len as Bytes;
            }
            if !record.is(RETRANS) {
                self.retrans += len as Bytes;
            }
            record.flags |= RETRANS | EVER;
            record.sent_at = at;
            record.mss = mss.max(1);
            i += 1;
        }
        self.by_time.push_back(Sent { at, start, end });
    }

    /// Forgets what is before `una`; `each` sees every record or part of one that the peer had not SACKed.
    pub(crate) fn acknowledge(&mut self, una: u64, mut each: impl FnMut(&Record)) {
        while let Some(record) = self.records.front_mut()
            && record.start < una
        {
            let part = Record {
                end: una.min(record.end),
                ..*record
            };
            let len = part.len();
            if part.is(SACKED) {
                self.sacked -= len as Bytes;
            } else {
                each(&part);
            }
            if part.is(LOST) {
                self.lost -= len as Bytes;
            }
            if part.is(RETRANS) {
                self.retrans -= len as Bytes;
            }
            if part.end == record.end {
                self.records.pop_front();
            } else {
                record.start = part.end;
            }
        }
        while self.by_time.front().is_some_and(|sent| sent.end <= una) {
            self.by_time.pop_front();
        }
        if self.records.is_empty() {
            self.by_time.clear();
            if self.records.capacity() > 16 {
                self.records = VecDeque::new();
            }
            if self.by_time.capacity() > 16 {
                self.by_time = VecDeque::new();
            }
        }
    }

    /// Marks `left..right` as received; `each` sees every record that is new. Only whole segments count, so a peer cannot split
    /// records below what was sent.
    pub(crate) fn sack(&mut self, left: u64, right: u64, mut each: impl FnMut(&Record)) {
        let first = self.find(left);
        let mut i = first;
        let mut run_end = 0;
        while let Some(record) = self.records.get(i).copied()
            && record.start < right
        {
            if record.is(SACKED) {
                run_end = record.end.max(record.run_end);
                i = match record.run_end > record.end {
                    true => self.find(record.run_end),
                    false => i + 1,
                };
                continue;
            }
            let mss = u64::from(record.mss);
            let start = record.start + left.saturating_sub(record.start).next_multiple_of(mss);
            let end = match right >= record.end {
                true => record.end,
                false => record.start + (right - record.start) / mss * mss,
            };
            if start >= end {
                i += 1;
                continue;
            }
            if start > record.start {
                self.split(i, start);
                i += 1;
            }
            if end < record.end {
                self.split(i, end);
            }
            self.mark_sacked(i);
            each(&self.records[i]);
            run_end = end;
            i += 1;
        }
        if let Some(record) = self.records.get_mut(first)
            && record.is(SACKED)
        {
            record.run_end = record.run_end.max(run_end);
        }
    }

    fn mark_sacked(&mut self, i: usize) {
        let record = &mut self.records[i];
        let len = record.len();
        if record.is(LOST) {
            self.lost -= len as Bytes;
        }
        if record.is(RETRANS) {
            self.retrans -= len as Bytes;
        }
        self.sacked += len as Bytes;
        record.flags = record.flags & !(LOST | RETRANS) | SACKED;
    }

    /// Looks at transmissions, the oldest first: `judge` says of the time it was sent and its end whether it is lost (`Ok`), or how
    /// long until it would be (`Err`, ns), which ends the look. Answers that time and whether anything new was lost.
    pub(crate) fn detect(
        &mut self,
        mut judge: impl FnMut(u64, u64) -> Result<(), Option<u64>>,
    ) -> (Option<u64>, bool) {
        let mut any = false;
        while let Some(sent) = self.by_time.front().copied() {
            let mut i = self.find(sent.start);
            let mut wait = None;
            while let Some(record) = self.records.get(i)
                && record.start < sent.end
            {
                if record.sent_at == sent.at && !record.is(SACKED | LOST) {
                    match judge(record.sent_at, record.end) {
                        Ok(()) => {
                            self.mark_lost(i);
                            any = true;
                        }
                        Err(time) => {
                            wait = Some(time);
                            break;
                        }
                    }
                }
                i += 1;
            }
            match wait {
                Some(time) => return (time, any),
                None => self.by_time.pop_front(),
            };
        }
        (None, any)
    }

    fn mark_lost(&mut self, i: usize) {
        let record = &mut self.records[i];
        if record.is(SACKED | LOST) {
            return;
        }
        let len = record.len();
        if record.is(RETRANS) {
            record.flags &= !RETRANS;
            self.retrans -= len as Bytes;
        }
        record.flags |= LOST;
        self.lost += len as Bytes;
        self.lost_from = self.lost_from.min(record.start);
    }

    /// Marks the first segment's worth that is neither SACKed nor lost: for peers without SACK (RFC 6582).
    pub(crate) fn mark_first_lost(&mut self) {
        if let Some(record) = self.records.front().copied() {
            let end = record.start + u64::from(record.mss);
            if end < record.end {
                self.split(0, end);
            }
            self.mark_lost(0);
        }
    }

    /// After a timeout: everything is lost that `is_old` says so of by its time of sending, and the first in any case.
    pub(crate) fn mark_timed_out(&mut self, is_old: impl Fn(u64) -> bool) {
        for i in 0..self.records.len() {
            if i == 0 || is_old(self.records[i].sent_at) {
                self.mark_lost(i);
            }
        }
    }

    /// Marks what left in packets of more than `mss` bytes; says whether there was any.
    pub(crate) fn mark_larger_lost(&mut self, mss: u32) -> bool {
        let before = self.lost;
        for i in 0..self.records.len() {
            let record = &self.records[i];
            if record.len().min(u64::from(record.mss)) > u64::from(mss) {
                self.mark_lost(i);
            }
        }
        self.lost > before
    }

    /// The losses were none: what is marked and not sent again is on the way after all (RFC 4015, 5682).
    pub(crate) fn forgive(&mut self) {
        self.records.iter_mut().for_each(|r| r.flags &= !LOST);
        self.lost = 0;
        // They may still get lost: the list by time has to have them.
        self.by_time = self
            .records
            .iter()
            .map(|r| (r.sent_at, r.start, r.end))
            .map(|(at, start, end)| Sent { at, start, end })
            .collect();
        self.by_time.make_contiguous().sort_by_key(|sent| sent.at);
    }

    /// The peer has dropped what it had SACKed (RFC 2018 section 8).
    pub(crate) fn renege(&mut self) {
        for record in &mut self.records {
            record.flags &= !SACKED;
            record.run_end = 0;
        }
        self.sacked = 0;
    }

    /// The first range that is lost and may be sent again; at most `max` bytes.
    pub(crate) fn next_lost(&mut self, max: u64) -> Option<(u64, u64)> {
        if self.lost == 0 {
            return None;
        }
        let mut i = self.find(self.lost_from);
        while !self.records.get(i)?.is(LOST) {
            i += 1;
        }
        let start = self.records[i].start;
        self.lost_from = start;
        let mut end = start;
        while let Some(record) = self.records.get(i)
            && record.is(LOST)
            && end - start < max
        {
            end = record.end;
            i += 1;
        }
        Some((start, end.min(start + max)))
    }

    /// The index of the record that has `position`.
    fn find(&self, position: u64) -> usize {
        if self.records.front().is_some_and(|r| r.end > position) {
            return 0;
        }
        self.records
            .partition_point(|record| record.end <= position)
    }

    fn split(&mut self, i: usize, at: u64) {
        let record = &mut self.records[i];
        let mut tail = *record;
        tail.start = at;
        tail.run_end = 0;
        record.end = at;
        self.records.insert(i + 1, tail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn board(segments: u64) -> Scoreboard {
        let mut board = Scoreboard::new();
        (0..segments).for_each(|i| board.sent(i * 1000, i * 1000 + 1000, i, 1000));
        board
    }

    #[test]
    fn rfc6675_pipe_counts_neither_sacked_nor_lost() {
        let mut b = board(10);
        b.sack(5000, 8000, |_| {});
        assert_eq!(b.pipe(), 7000);
        b.mark_first_lost();
        assert_eq!(b.pipe(), 6000);
        let (start, end) = b.next_lost(u64::MAX).expect("a loss");
        assert_eq!((start, end), (0, 1000));
        b.resent(start, end, 20, 1000);
        assert_eq!((b.pipe(), b.next_lost(u64::MAX)), (7000, None));
        b.acknowledge(8000, |_| {});
        assert_eq!(b.pipe(), 2000);
    }

    #[test]
    fn large_segment_is_split_at_packet_borders_only() {
        let mut b = Scoreboard::new();
        b.sent(0, 10_000, 0, 1000);
        b.sack(1500, 4999, |_| {});
        assert_eq!(b.sacked(), 2000);
        assert_eq!(b.records.len(), 3);
        for i in 0..1000 {
            b.sack(5000 + i, 5001 + i, |_| {});
        }
        assert_eq!(b.records.len(), 3);
    }

    #[test]
    fn repeated_blocks_cost_no_walk() {
        let mut b = board(10_000);
        let mut seen = 0;
        for i in 1..10_000u64 {
            b.sack(1000, i * 1000 + 1000, |_| seen += 1);
        }
        assert_eq!(seen, 9_999);
        assert_eq!(b.records[1].run_end, 10_000_000);
    }

    proptest! {
        #[test]
        fn counters_agree_with_the_records(ops in proptest::collection::vec((0u8..6, 0u64..40, 1u64..20), 1..200)) {
            let mut b = Scoreboard::new();
            let (mut una, mut nxt, mut now) = (0u64, 0u64, 0u64);
            for (op, a, n) in ops {
                now += 1;
                match op {
                    0 | 1 => {
                        b.sent(nxt, nxt + n * 700, now, 1000);
                        nxt += n * 700;
                    }
                    2 => {
                        una = (una + a * 333).min(nxt);
                        b.acknowledge(una, |_| {});
                    }
                    3 => b.sack(una + a * 500, (una + a * 500 + n * 900).min(nxt), |_| {}),
                    4 => {
                        b.detect(|at, _| if at + n < now { Ok(()) } else { Err(None) });
                    }
                    _ => {
                        if let Some((start, end)) = b.next_lost(n * 500) {
                            prop_assert!(start >= una && end > start && end <= nxt);
                            b.resent(start, end, now, 1000);
                        }
                    }
                }
                let sum = |flag| b.records.iter().filter(|r| r.is(flag)).map(Record::len).sum::<u64>();
                prop_assert_eq!(b.sacked(), sum(SACKED));
                prop_assert_eq!(b.lost(), sum(LOST));
                prop_assert_eq!(b.retrans(), sum(RETRANS));
                let mut at = una;
                for record in &b.records {
                    prop_assert_eq!(record.start, at);
                    prop_assert!(record.end > record.start);
                    at = record.end;
                }
                prop_assert_eq!(at, nxt);
            }
        }
    }
}

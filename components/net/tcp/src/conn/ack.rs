//! What an acknowledgement does: it frees what has arrived, tells of losses and of the peer's window, and clocks out new data.

use super::{Connection, Flight, Probe};
use crate::congestion::{Ack, Window};
use crate::loss::{Phase, Record};
use crate::rtt::MS;
use crate::seq::{before, unwrap};
use crate::wire::{Flags, Segment};

/// Duplicate acknowledgements, or segments SACKed, that say a loss (RFC 5681, RFC 8985 section 6.2).
const DUP_THRESH: u64 = 3;

/// What one acknowledgement delivered.
#[derive(Default)]
struct Delivered {
    /// Bytes that the peer has and was not known to have.
    bytes: u64,
    /// A round trip in ns that is not ambiguous: of what was sent last.
    rtt: Option<u64>,
    /// Something never sent again was among it.
    original: bool,
    /// Something sent again was among it.
    resent: bool,
}

impl Delivered {
    fn add(&mut self, record: &Record, now: u64) {
        self.bytes += record.end - record.start;
        if record.retransmitted() {
            self.resent = true;
        } else {
            self.original = true;
            self.rtt = Some(now.saturating_sub(record.sent_at));
        }
    }
}

impl Connection {
    /// The acknowledgement of `segment`, which is for position `ack`, at most what was sent.
    pub(super) fn process_ack(&mut self, now: u64, segment: &Segment, ack: u64) {
        let una = self.tx.una;
        let (flight, wnd) = (self.flight.board.pipe(), self.tx.wnd);
        if ack >= una {
            self.take_window(segment, ack);
        }
        let mut delivered = Delivered::default();
        let echo = segment
            .options
            .timestamps
            .filter(|_| self.agreed.timestamps)
            .map(|ts| ts.echo);
        self.take_cumulative(now, ack, echo, &mut delivered);
        let dsack = self.take_sack(now, segment, ack, echo, &mut delivered);
        self.sample_rtt(now, ack > una, echo, &delivered);
        let is_dup = ack == una
            && segment.seq_len() == 0
            && self.tx.wnd == wnd
            && !self.flight.board.is_empty();
        let before_lost = self.flight.board.lost();
        self.end_tail_probe(now, ack, dsack, is_dup);
        if self.agreed.sack {
            self.detect(now);
        } else {
            self.count_duplicate(ack, una, is_dup, &mut delivered);
        }
        self.step(now, flight, ack > una, &delivered, echo);
        self.react_to_ecn(now, segment);
        self.grow(now, flight, ack > una, &delivered);
        if self.flight.board.is_empty() {
            self.flight.timers.stop_retransmit();
            self.flight.timers.retries = 0;
        } else if ack > una || delivered.bytes > 0 || self.flight.board.lost() > before_lost {
            if ack > una {
                self.flight.timers.retries = 0;
                self.flight.timers.progress = now;
            }
            self.arm_retransmit(now);
        }
    }

    /// The window of the newest segment holds (RFC 9293 section 3.10.7.4).
    fn take_window(&mut self, segment: &Segment, ack: u64) {
        let (seq, acked) = (segment.seq, ack as u32);
        let wire = u32::from(segment.window);
        let scaled = if segment.flags.has(Flags::SYN) {
            wire
        } else {
            wire << self.tx.scale
        };
        let tx = &self.tx;
        let newer = before(tx.wl1, seq)
            || tx.wl1 == seq && (before(tx.wl2, acked) || tx.wl2 == acked && scaled > tx.wnd);
        if newer || ack > tx.una {
            (self.tx.wl1, self.tx.wl2) = (seq, acked);
            self.tx.wnd = scaled;
            self.tx.max_wnd = self.tx.max_wnd.max(scaled);
            if scaled > 0 {
                self.flight.timers.stop_persist();
            }
        }
    }

    /// The window as a handshake's segment gives it, in bytes.
    pub(super) fn set_window(&mut self, seq: u32, ack: u32, window: u32) {
        (self.tx.wl1, self.tx.wl2) = (seq, ack);
        self.tx.wnd = window;
        self.tx.max_wnd = self.tx.max_wnd.max(window);
    }

    fn take_cumulative(
        &mut self,
        now: u64,
        ack: u64,
        echo: Option<u32>,
        delivered: &mut Delivered,
    ) {
        if ack <= self.tx.una {
            return;
        }
        let min = self.rtt.min();
        let clock = ClockOf(self.tx.ts_offset);
        let Flight { board, rack, .. } = &mut *self.flight;
        board.acknowledge(ack, |record| {
            delivered.add(record, now);
            rack.delivered(record, now, min, clock.ambiguous(record, echo));
        });

        self.tx.una = ack;
        self.tx.queue.acknowledge(ack);
    }

    /// Takes the SACK blocks; answers whether the first told of a duplicate (RFC 2883 section 4).
    fn take_sack(
        &mut self,
        now: u64,
        segment: &Segment,
        ack: u64,
        echo: Option<u32>,
        delivered: &mut Delivered,
    ) -> bool {
        let blocks = segment.options.sack.as_slice();
        if !self.agreed.sack || blocks.is_empty() {
            return false;
        }
        let min = self.rtt.min();
        let clock = ClockOf(self.tx.ts_offset);
        let place =
            |&(left, right): &(u32, u32)| (unwrap(self.tx.una, left), unwrap(self.tx.una, right));
        let first = place(&blocks[0]);
        let dsack = first.0 < first.1
            && (first.1 <= ack
                || blocks
                    .get(1)
                    .map(place)
                    .is_some_and(|b| b.0 <= first.0 && first.1 <= b.1));
        if dsack
            && first.0 + u64::from(self.tx.max_wnd.max(1 << 16)) >= self.tx.una
            && first.0 > self.tx.iss()
        {
            if self.flight.recovery.tlp != Some((first.1, true)) {
                self.flight.rack.dsack(self.tx.una, self.tx.nxt);
            }
            self.flight.recovery.arrived_twice(first.1 - first.0);
        }
        for (left, right) in blocks.iter().skip(usize::from(dsack)).map(place) {
            // Nothing else than what is on the way can be SACKed; anything else is a mistake or a lie.
            if left < right && left >= self.tx.una && right <= self.tx.nxt {
                let Flight { board, rack, .. } = &mut *self.flight;
                board.sack(left, right, |record| {
                    delivered.add(record, now);
                    rack.delivered(record, now, min, clock.ambiguous(record, echo));
                });
            }
        }
        dsack
    }

    /// RFC 6298 section 3 (Karn) and RFC 7323 section 4: a retransmission's time counts only by its timestamp.
    fn sample_rtt(&mut self, now: u64, advanced: bool, echo: Option<u32>, delivered: &Delivered) {
        let by_stamp = || {
            let age = self.ts_now(now).wrapping_sub(echo?);
            (advanced && age < 1 << 24).then(|| u64::from(age).max(1) * MS)
        };
        // What was sent again may have held up what was not: then its time tells nothing.
        let rtt = delivered.rtt.filter(|_| !delivered.resent);
        if let Some(rtt) = rtt.or_else(by_stamp) {
            self.rtt.sample(now, rtt);
            self.rtt.backoff = 0;
        }
    }

    /// RACK's look at what is on the way; arms its timer for what will be due.
    pub(super) fn detect(&mut self, now: u64) -> bool {
        let eager = matches!(self.flight.recovery.phase, Phase::Recovery | Phase::Loss)
            || self.flight.board.sacked() >= DUP_THRESH * u64::from(self.current_mss());
        let window = self
            .flight
            .rack
            .window(self.rtt.min(), self.rtt.srtt, eager);
        let Flight { board, rack, .. } = &mut *self.flight;
        let (wait, lost) = board.detect(|sent_at, end| rack.judge(sent_at, end, window, now));
        self.flight
            .timers
            .reorder_in(wait.map(|wait| now + wait.max(1)));
        lost
    }

    /// A peer without SACK: three duplicates say that the first segment is lost (RFC 5681), an advance in recovery that the next is
    /// (RFC 6582). Each duplicate is a segment that has left the network, so that new data may follow it (RFC 3042).
    fn count_duplicate(&mut self, ack: u64, una: u64, is_dup: bool, delivered: &mut Delivered) {
        let mss = u64::from(self.current_mss());
        let gone = self.flight.board.gone();
        if is_dup {
            self.flight.recovery.dupacks += 1;
            let pipe = self.flight.board.pipe();
            self.flight.board.set_gone(gone + mss.min(pipe));
            if self.flight.recovery.phase != Phase::Open {
                delivered.bytes += mss;
            }
            if u64::from(self.flight.recovery.dupacks) == DUP_THRESH
                && self.flight.recovery.phase != Phase::Loss
            {
                self.flight.board.mark_first_lost();
            }
        } else if ack > una {
            // All but the segment that was missing had been counted.
            let counted = gone.min((ack - una).saturating_sub(mss));
            self.flight.board.set_gone(gone - counted);
            if self.flight.recovery.phase == Phase::Recovery && ack < self.flight.recovery.point {
                delivered.bytes -= counted.min(delivered.bytes);
                self.flight.board.mark_first_lost();
            } else {
                self.flight.board.set_gone(0);
                self.flight.recovery.dupacks = 0;
            }
        }
    }

    /// The tail-loss probe is over when more than it is acknowledged, or it is told as a duplicate; in the first case, if it was a
    /// retransmission, it repaired a loss, which is congestion (RFC 8985 section 7.4).
    fn end_tail_probe(&mut self, now: u64, ack: u64, dsack: bool, is_dup: bool) {
        let Some((end, retransmission)) = self.flight.recovery.tlp else {
            return;
        };
        if ack < end || retransmission && ack == end && !dsack && !is_dup {
            return;
        }
        self.flight.recovery.tlp = None;
        if retransmission && ack > end && !dsack && self.flight.recovery.phase == Phase::Open {
            self.reduce(now);
        }
    }

    /// A reduction of the window without anything to send again.
    fn reduce(&mut self, now: u64) {
        let ssthresh = self
            .congestion
            .get(self.settings.congestion)
            .on_congestion(&self.window, now);
        let Window {
            cwnd,
            ssthresh: old,
            ..
        } = self.window;
        let flight = self.flight.board.pipe();
        self.flight
            .recovery
            .begin(Phase::Reduced, self.tx.nxt, flight, cwnd, old);
        self.window.ssthresh = ssthresh;
    }

    /// From one phase to the next.
    fn step(
        &mut self,
        now: u64,
        flight: u64,
        advanced: bool,
        delivered: &Delivered,
        echo: Option<u32>,
    ) {
        let phase = self.flight.recovery.phase;
        if matches!(phase, Phase::Recovery | Phase::Loss) {
            self.try_undo(advanced, delivered, echo);
        }
        if self.flight.recovery.phase == Phase::Loss {
            self.step_frto(advanced, delivered);
        }
        if self.flight.recovery.phase != Phase::Open && self.tx.una >= self.flight.recovery.point {
            self.finish_recovery();
        }
        if self.flight.board.lost() > 0
            && matches!(self.flight.recovery.phase, Phase::Open | Phase::Reduced)
        {
            self.enter_recovery(now, flight);
        }
    }

    pub(super) fn enter_recovery(&mut self, now: u64, flight: u64) {
        let cwnd = self.window.cwnd;
        let (was, prior) = (
            self.flight.recovery.phase,
            (
                self.flight.recovery.prior_cwnd,
                self.flight.recovery.prior_ssthresh,
            ),
        );
        let ssthresh = match was {
            // The window has fallen already for this round trip.
            Phase::Reduced => self.window.ssthresh,
            _ => self
                .congestion
                .get(self.settings.congestion)
                .on_congestion(&self.window, now),
        };
        self.flight.recovery.begin(
            Phase::Recovery,
            self.tx.nxt,
            flight,
            cwnd,
            self.window.ssthresh,
        );
        if was == Phase::Reduced {
            (
                self.flight.recovery.prior_cwnd,
                self.flight.recovery.prior_ssthresh,
            ) = prior;
        }
        self.window.ssthresh = ssthresh;
        self.flight.recovery.tlp = None;
        self.rare.recoveries = self.rare.recoveries.wrapping_add(1);
    }

    fn finish_recovery(&mut self) {
        if matches!(self.flight.recovery.phase, Phase::Recovery | Phase::Loss) {
            self.flight.rack.recovered();
        }
        if self.flight.recovery.phase != Phase::Loss {
            self.window.cwnd = self.window.ssthresh.max(2 * self.window.mss);
        }
        self.flight.recovery.phase = Phase::Open;
        self.flight.recovery.settle();
        self.flight.recovery.dupacks = 0;
        self.flight.recovery.frto = false;
    }

    /// Nothing was lost: an original's timestamp is echoed after it was sent again (RFC 3522, 4015), or all that was sent again
    /// arrived twice (RFC 3708 by DSACK).
    fn try_undo(&mut self, advanced: bool, delivered: &Delivered, echo: Option<u32>) {
        let Some(stamp) = self.flight.recovery.stamp else {
            return;
        };
        let by_stamp = advanced && delivered.resent && echo.is_some_and(|echo| before(echo, stamp));
        let by_dsack = self.flight.recovery.was_needless();
        if by_stamp || by_dsack {
            self.undo();
        }
    }

    /// F-RTO (RFC 5682 section 2.1): when after a timeout something arrives that was never sent again, the timeout was spurious.
    fn step_frto(&mut self, advanced: bool, delivered: &Delivered) {
        if self.flight.recovery.frto && advanced && delivered.original && !delivered.resent {
            self.undo();
        } else if self.flight.recovery.frto && !advanced {
            self.flight.recovery.frto = false;
        }
    }

    fn undo(&mut self) {
        self.window.cwnd = self.window.cwnd.max(self.flight.recovery.prior_cwnd);
        self.window.ssthresh = self
            .window
            .ssthresh
            .max(self.flight.recovery.prior_ssthresh);
        self.congestion.get(self.settings.congestion).on_undo();
        self.rare.undone = self.rare.undone.wrapping_add(1);
        self.flight.board.forgive();
        self.flight.board.set_gone(0);
        self.flight.recovery.phase = Phase::Open;
        self.flight.recovery.settle();
        self.flight.recovery.stamp = None;
        self.flight.recovery.frto = false;
        self.rtt.backoff = 0;
    }

    /// RFC 3168 section 6.1.2: an echo of a mark is as a loss, once a round trip.
    fn react_to_ecn(&mut self, now: u64, segment: &Segment) {
        if !self.agreed.ecn || !segment.flags.has(Flags::ECE) || segment.flags.has(Flags::SYN) {
            return;
        }
        self.rare.delivered_ce = self.rare.delivered_ce.wrapping_add(1);
        if self.tx.una < self.flight.recovery.ecn_until || self.flight.recovery.phase != Phase::Open
        {
            return;
        }
        self.reduce(now);
        self.flight.recovery.ecn_until = self.tx.nxt;
        self.tx.cwr = true;
    }

    /// The congestion window after this acknowledgement.
    fn grow(&mut self, now: u64, flight: u64, advanced: bool, delivered: &Delivered) {
        if delivered.bytes == 0 && self.flight.recovery.phase == Phase::Open {
            return;
        }
        match self.flight.recovery.phase {
            Phase::Open | Phase::Loss => {
                let limited = self.tx.limited
                    || self.window.in_slow_start() && 2 * flight >= self.window.cwnd;
                let ack = Ack {
                    now,
                    acked: delivered.bytes,
                    una: self.tx.una,
                    nxt: self.tx.nxt,
                    rtt: delivered.rtt.filter(|_| !delivered.resent),
                    srtt: self.rtt.srtt,
                    limited,
                };
                self.congestion
                    .get(self.settings.congestion)
                    .on_ack(&mut self.window, &ack);
            }
            Phase::Recovery | Phase::Reduced => {
                let pipe = self.flight.board.pipe();
                let mss = self.window.mss;
                let ssthresh = self.window.ssthresh;
                self.window.cwnd = self
                    .flight
                    .recovery
                    .prr(delivered.bytes, pipe, ssthresh, mss);
                if advanced && !self.agreed.sack {
                    // RFC 6582 section 3.2: the next hole is filled at once.
                    self.window.cwnd = self.window.cwnd.max(pipe + mss);
                }
            }
        }
        self.tune_send_buffer();
    }

    /// Twice what may be on the way, so that there is always something to send (send-buffer auto-tuning).
    pub(super) fn tune_send_buffer(&mut self) {
        let max = self.settings.send_buffer.max;
        if self.tx.buffer < max {
            let want = (2 * self.window.cwnd).min(u64::from(max)) as u32;
            self.tx.buffer = self.tx.buffer.max(want);
        }
    }

    /// The effective largest segment has changed.
    pub(super) fn set_effective_mss(&mut self, mss: u32) {
        self.tx.mss = mss;
        self.window.mss = u64::from(self.current_mss());
    }

    /// Sends again what is on the way and larger than segments may be now. It is lost, but not to congestion.
    pub(super) fn resend_too_large(&mut self, now: u64) {
        let mss = self.current_mss();
        if !self.flight.board.mark_larger_lost(mss) {
            return;
        }
        if self.flight.recovery.phase == Phase::Open {
            let Window { cwnd, ssthresh, .. } = self.window;
            let flight = self.flight.board.pipe() + self.flight.board.lost();
            self.flight
                .recovery
                .begin(Phase::Recovery, self.tx.nxt, flight, cwnd, ssthresh);
            self.flight.recovery.settle();
            self.window.ssthresh = cwnd;
        }
        self.arm_retransmit(now);
    }

    /// Which probe to send for the tail: new data if there is any and the window has room, else the last segment again.
    pub(super) fn plan_tail_probe(&mut self) {
        self.tx.probe = Some(Probe::Tail);
    }
}

/// Tells by timestamps whether a delivery may be of an earlier transmission.
struct ClockOf(u32);

impl ClockOf {
    fn ambiguous(&self, record: &Record, echo: Option<u32>) -> bool {
        let sent = ((record.sent_at / MS) as u32).wrapping_add(self.0);
        echo.is_some_and(|echo| before(echo, sent))
    }
}

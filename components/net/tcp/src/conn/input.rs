//! What a segment does (RFC 9293 section 3.10.7, with RFC 5961's and RFC 7323's checks).

use super::receive::{AckDue, NO_FIN};
use super::timer::Timers;
use super::{Challenge, Connection, Error, State};
use crate::rtt::{MS, SEC};
use crate::seq::{before, unwrap};
use crate::wire::{Ecn, Flags, Options, Segment, Timestamps};

/// A timestamp older than this says nothing any more (RFC 7323 section 5.5).
const PAWS_IDLE: u64 = 24 * 24 * 3600 * SEC;
/// Challenge acknowledgements a connection sends in a second at most.
const CHALLENGES: u8 = 10;

impl Connection {
    /// A segment has arrived for this connection. `now` in ns. Whatever it says, it does no harm.
    pub fn on_segment(&mut self, now: u64, mut segment: Segment) {
        let now = self.at(now);
        let packets = segment.packets() as u32;
        self.stats.segs_in = self.stats.segs_in.wrapping_add(packets);
        match self.state {
            State::Closed => {}
            State::SynSent => self.in_syn_sent(now, &mut segment),
            _ => self.in_window(now, &mut segment),
        }
    }

    /// Our clock for timestamps: milliseconds.
    pub(super) fn ts_now(&self, now: u64) -> u32 {
        ((now / MS) as u32).wrapping_add(self.tx.ts_offset)
    }

    /// What the peer's SYN says is from now on so.
    pub(super) fn take_handshake(&mut self, irs: u32, options: &Options, ecn: bool) {
        let offer = &self.settings.offer;
        self.agreed.sack = offer.sack && options.sack_permitted;
        self.agreed.timestamps = offer.timestamps && options.timestamps.is_some();
        self.agreed.window_scaling = offer.window_scaling && options.window_scale.is_some();
        self.agreed.ecn = ecn;
        self.rx.start(irs);
        if self.agreed.window_scaling {
            self.tx.scale = options.window_scale.unwrap_or(0).min(14);
            self.rx.scale = self.settings.window_scale();
        }
        if let (true, Some(ts)) = (self.agreed.timestamps, options.timestamps) {
            self.rx.ts_recent = ts.value;
        }
        // RFC 9293, MUST-15: without the option, 536.
        let peer = u32::from(options.mss.unwrap_or(536));
        self.set_effective_mss(u32::from(self.settings.mss()).min(peer));
        self.rx.mss = self.current_mss();
        let room = (4 * self.rx.mss).min(self.settings.recv_buffer.max);
        self.rx.buffer = self.rx.buffer.max(room);
    }

    fn in_syn_sent(&mut self, now: u64, segment: &mut Segment) {
        let flags = segment.flags;
        let ack = unwrap(self.tx.una, segment.ack);
        let ack_good = flags.has(Flags::ACK) && ack > self.tx.iss() && ack <= self.tx.nxt;
        if flags.has(Flags::ACK) && !ack_good {
            // The owner answers what belongs to no connection: this does not.
            if !flags.has(Flags::RST) {
                self.answer_with_reset(segment);
            }
            return;
        }
        if flags.has(Flags::RST) {
            if ack_good {
                self.end(Some(Error::Refused));
            }
            return;
        }
        if !flags.has(Flags::SYN) {
            return;
        }
        if let (true, true, Some(ts)) = (
            ack_good,
            self.settings.offer.timestamps,
            segment.options.timestamps,
        ) {
            // An echo of a time that we have not sent in this handshake (RFC 7323 section 3.2 by PAWS in reverse).
            if before(self.ts_now(now), ts.echo) {
                return;
            }
        }
        let ecn = self.settings.offer.ecn
            && flags.has(Flags::ECE)
            && !(flags.has(Flags::CWR) && ack_good);
        self.take_handshake(segment.seq, &segment.options, ecn);
        self.rx.ts_recent_at = now;
        // The window of a SYN is not scaled.
        self.set_window(segment.seq, segment.ack, u32::from(segment.window));
        if ack_good {
            let retransmitted = self.flight.board.first().is_some_and(|r| r.retransmitted());
            self.process_ack(now, segment, ack);
            self.state = State::Established;
            self.establish(now, retransmitted);
            self.rx.ack = AckDue::Now;
            self.fast_open_answer(now, &segment.options);
            if segment.payload_len() > 0 || flags.has(Flags::FIN) {
                self.take_text(now, segment);
            }
        } else {
            // Simultaneous open: our SYN goes again, now with an acknowledgement.
            self.state = State::SynReceived;
            self.flight.board = crate::loss::Scoreboard::new();
            self.tx.nxt = self.tx.iss();
        }
    }

    /// The peer's SYN-ACK: perhaps it brings a cookie, perhaps it did not take the data that went with the SYN.
    fn fast_open_answer(&mut self, now: u64, options: &Options) {
        let cookie = options.fast_open.filter(|cookie| !cookie.is_request());
        self.set_cookie(cookie);
        if !self.flight.board.is_empty() {
            self.flight.board.mark_timed_out(|_| true);
            self.arm_retransmit(now);
        }
    }

    fn answer_with_reset(&mut self, segment: &Segment) {
        if let Some(reset) = segment.reset() {
            self.flight.stray_reset = Some(Box::new(reset));
        }
    }

    /// The handshake is done.
    pub(super) fn establish(&mut self, now: u64, syn_retransmitted: bool) {
        self.connected = true;
        self.rtt.backoff = 0;
        self.alive.last_heard = now;
        self.flight.timers.retries = 0;
        self.window.ssthresh = u64::MAX;
        self.window.cwnd = super::initial_window(self.current_mss());
        if syn_retransmitted && self.rtt.srtt == 0 {
            // RFC 6928 section 2: a lost SYN is a sign of congestion. With timestamps we would know that it was not lost.
            self.window.cwnd = self.window.mss;
            self.rtt.syn_lost = true;
        }
        self.tune_send_buffer();
        self.flight.recovery = crate::loss::Recovery::new();
        self.arm_keepalive(now);
    }

    fn in_window(&mut self, now: u64, segment: &mut Segment) {
        let flags = segment.flags;
        let start = unwrap(self.rx.nxt, segment.seq);
        let end = start + segment.seq_len();
        let ts = segment
            .options
            .timestamps
            .filter(|_| self.agreed.timestamps);
        if !self.passes_paws(now, ts, flags) {
            if !flags.has(Flags::RST) {
                self.out_of_window(now, start, end, segment);
            }
            return;
        }
        if end < self.rx.acked || start > self.rx.adv {
            if !flags.has(Flags::RST) {
                self.out_of_window(now, start, end, segment);
            }
            return;
        }
        if flags.has(Flags::RST) {
            // RFC 5961 section 3: only the exact number resets.
            if start == self.rx.nxt {
                self.on_reset();
            } else {
                self.challenge(now);
            }
            return;
        }
        if flags.has(Flags::SYN) {
            // RFC 5961 section 4. In SYN-RECEIVED a repeated SYN is the peer's retransmission, or a simultaneous open's SYN-ACK.
            let repeated = self.state == State::SynReceived && start == self.rx.irs();
            if !repeated {
                self.challenge(now);
                return;
            }
            if !flags.has(Flags::ACK) {
                self.flight.board.mark_first_lost();
                if self.tx.nxt == self.tx.iss() && segment.payload_len() > 0 {
                    // Fast open: its cookie was good, so its data count.
                    self.take_text(now, segment);
                }
                return;
            }
        }
        if !flags.has(Flags::ACK) {
            return;
        }
        let ack = unwrap(self.tx.una, segment.ack);
        // RFC 5961 section 5: neither what we have not sent nor what is older than any window.
        if ack > self.tx.nxt || ack + u64::from(self.tx.max_wnd.max(1)) < self.tx.una {
            if self.state == State::SynReceived {
                self.answer_with_reset(segment);
            } else {
                self.challenge(now);
            }
            return;
        }
        if let Some(ts) = ts
            && start <= self.rx.acked
            && !before(ts.value, self.rx.ts_recent)
        {
            (self.rx.ts_recent, self.rx.ts_recent_at) = (ts.value, now);
        }
        self.alive.last_heard = now;
        self.alive.probes = 0;
        if self.state == State::SynReceived {
            if ack <= self.tx.iss() {
                return;
            }
            self.state = if self.tx.fin {
                State::FinWait1
            } else {
                State::Established
            };
            let retransmitted = self.flight.board.first().is_some_and(|r| r.retransmitted());
            self.process_ack(now, segment, ack);
            self.establish(now, retransmitted);
        } else {
            self.process_ack(now, segment, ack);
        }
        self.after_ack(now);
        if self.state == State::Closed {
            return;
        }
        self.take_ecn(segment);
        self.take_urgent(segment);
        if segment.payload_len() > 0 || flags.has(Flags::FIN) {
            self.take_text(now, segment);
        }
    }

    /// RFC 7323 section 5.3: a segment from before one that has been seen is an old duplicate.
    fn passes_paws(&self, now: u64, ts: Option<Timestamps>, flags: Flags) -> bool {
        if !self.agreed.timestamps || flags.has(Flags::RST) {
            return true;
        }
        match ts {
            Some(ts) => {
                !before(ts.value, self.rx.ts_recent) || now - self.rx.ts_recent_at > PAWS_IDLE
            }
            // Section 3.2: one without the option is dropped; but a SYN is judged below.
            None => flags.has(Flags::SYN),
        }
    }

    /// A segment outside the window: it is answered, and told as a duplicate if it was one. Such without data may be somebody's
    /// guess or an answer to such an answer, so they are answered at a limited rate.
    fn out_of_window(&mut self, now: u64, start: u64, end: u64, segment: &Segment) {
        if end > start && start < self.rx.nxt {
            if self.agreed.sack {
                self.rx.duplicate(start, end.min(self.rx.nxt));
            }
            self.rare.dsack_dups = self.rare.dsack_dups.wrapping_add(1);
            self.rx.be_quick();
        }
        if segment.payload_len() > 0 || segment.flags.has(Flags::FIN) {
            self.rx.ack = AckDue::Now;
        } else {
            self.challenge(now);
        }
    }

    /// Sends an acknowledgement that tells a peer where we are, unless too many have been.
    fn challenge(&mut self, now: u64) {
        let second = (now / SEC) as u32;
        if self.challenge.second != second {
            self.challenge = Challenge { second, count: 0 };
        }
        if self.challenge.count < CHALLENGES {
            self.challenge.count += 1;
            self.rx.ack = AckDue::Now;
        }
    }

    fn on_reset(&mut self) {
        let error = match self.state {
            // Passive or simultaneous: nobody was told of it yet.
            State::SynReceived => Error::Refused,
            State::TimeWait | State::LastAck | State::Closing => return self.end(None),
            State::CloseWait => Error::Closed,
            _ => Error::Reset,
        };
        self.end(Some(error));
    }

    /// State changes that an acknowledgement of our FIN makes.
    fn after_ack(&mut self, now: u64) {
        if !self.fin_acked() {
            return;
        }
        match self.state {
            State::FinWait1 => {
                self.state = State::FinWait2;
                self.arm_fin_wait(now);
            }
            State::Closing => self.enter_time_wait(now),
            State::LastAck => self.end(None),
            _ => {}
        }
    }

    fn enter_time_wait(&mut self, now: u64) {
        self.state = State::TimeWait;
        self.flight.timers = Timers::new();
        self.alive.stop_keepalive();
        self.arm_time_wait(now);
    }

    fn take_ecn(&mut self, segment: &Segment) {
        if !self.agreed.ecn {
            return;
        }
        if segment.flags.has(Flags::CWR) {
            self.tx.echo_ce = false;
        }
        if segment.ecn == Ecn::Ce {
            self.tx.echo_ce = true;
            self.rx.ack = AckDue::Now;
        }
    }

    /// Data and FIN.
    fn take_text(&mut self, now: u64, segment: &mut Segment) {
        let syn = u64::from(segment.flags.has(Flags::SYN));
        let start = unwrap(self.rx.nxt, segment.seq) + syn;
        let len = segment.payload_len() as u64;
        let end = start + len;
        let has_fin = segment.flags.has(Flags::FIN);
        if !self.state.can_receive() {
            // The peer has finished already: what comes is a repetition, and its FIN is acknowledged again.
            if self.state == State::TimeWait {
                self.arm_time_wait(now);
            }
            self.rx.ack = AckDue::Now;
            return;
        }
        if self.orphan && end > self.rx.nxt && len > 0 {
            // Data for nobody (RFC 9293 section 3.6.1).
            self.abort();
            return;
        }
        let edge = self.rx.fin.min(self.rx.adv);
        let old_nxt = self.rx.nxt;
        if len > 0 {
            let packets = segment.packets() as u32;
            self.stats.data_segs_in = self.stats.data_segs_in.wrapping_add(packets);
            self.stats.last_data_recv = now;
            if start < self.rx.nxt && self.agreed.sack {
                self.rx.duplicate(start, end.min(self.rx.nxt));
                self.rare.dsack_dups = self.rare.dsack_dups.wrapping_add(1);
            }
            if end > self.rx.nxt && start < edge {
                let fits = (edge - start.min(edge)).min(len) as usize;
                let gso = segment.gso_size;
                let had_gap = self.rx.has_gap();
                self.rx
                    .take(start, clip(std::mem::take(&mut segment.payload), fits));
                if self.rx.nxt > old_nxt {
                    self.rx.measure(now);

                    let packet = if gso > 0 { gso } else { len as u32 };
                    self.rx.owe_ack(packet);
                    self.pick_urgent();
                }
                if had_gap || self.rx.has_gap() {
                    self.rx.ack = AckDue::Now;
                }
            } else {
                self.rx.ack = AckDue::Now;
            }
            self.arm_delack(now);
        }
        if has_fin && end <= self.rx.adv && self.rx.fin == NO_FIN && end >= self.rx.nxt {
            self.rx.fin = end;
        }
        if self.rx.fin == self.rx.nxt {
            self.rx.nxt += 1;
            self.rx.adv = self.rx.adv.max(self.rx.nxt);
            self.rx.ack = AckDue::Now;
            self.on_fin(now);
        } else if has_fin {
            self.rx.ack = AckDue::Now;
        }
    }

    fn on_fin(&mut self, now: u64) {
        match self.state {
            State::Established | State::SynReceived => self.state = State::CloseWait,
            State::FinWait1 => self.state = State::Closing,
            State::FinWait2 => self.enter_time_wait(now),
            _ => {}
        }
    }
}

/// The first `len` bytes of `pieces`.
fn clip(pieces: crate::wire::Payload, mut len: usize) -> impl Iterator<Item = bytes::Bytes> {
    pieces.into_iter().filter_map(move |mut piece| {
        piece.truncate(len);
        len -= piece.len();
        (!piece.is_empty()).then_some(piece)
    })
}

//! What is sent, and when: what was lost first, then what is new, then probes, then a bare acknowledgement.

use super::receive::AckDue;
use super::{Agreed, Connection, Probe, State};
use crate::loss::Phase;
use crate::rtt::MS;
use crate::wire::{Ecn, Flags, Options, Payload, Segment, Timestamps};

impl Connection {
    /// The next segment to send, with at most `gso_max` bytes of payload (a full segment in any case); `None` when there is nothing to
    /// do until the next event. Its checksum is the sender's.
    pub fn poll_transmit(&mut self, now: u64, gso_max: u32) -> Option<Segment> {
        let now = self.at(now);
        if self.flight.stray_reset.is_some() {
            return self.flight.stray_reset.take().map(|reset| *reset);
        }
        let Some(segment) = self.next_segment(now, u64::from(gso_max)) else {
            self.rest_if_new();
            return None;
        };
        let packets = segment.packets() as u32;
        self.stats.segs_out = self.stats.segs_out.wrapping_add(packets);
        if segment.payload_len() > 0 {
            self.stats.data_segs_out = self.stats.data_segs_out.wrapping_add(packets);
        }
        Some(segment)
    }

    fn next_segment(&mut self, now: u64, gso_max: u64) -> Option<Segment> {
        if self.reset_due {
            self.reset_due = false;
            return Some(self.reset(now));
        }
        match self.state {
            State::Closed => return None,
            State::SynSent | State::SynReceived => return self.handshake(now),
            State::TimeWait => {}
            _ => {
                let mss = self.current_mss();
                let max = (gso_max / u64::from(mss)).max(1) * u64::from(mss);
                if let Some((start, end)) = self.retransmission(max, mss) {
                    return Some(self.send_range(now, start, end, mss));
                }
                if let Some((start, end)) = self.new_data(now, max, mss) {
                    return Some(self.send_range(now, start, end, mss));
                }
                if let Some(segment) = self.probe(now, mss) {
                    return Some(segment);
                }
            }
        }
        (self.rx.ack == AckDue::Now)
            .then(|| self.segment(now, self.tx.nxt, Flags::ACK, Payload::new()))
    }

    /// SYN and SYN-ACK, first or again.
    fn handshake(&mut self, now: u64) -> Option<Segment> {
        let again = self
            .flight
            .board
            .next_lost(1)
            .is_some_and(|(lost, _)| lost == self.tx.iss());
        if self.tx.nxt > self.tx.iss() && !again {
            return None;
        }
        let passive = self.state == State::SynReceived;
        let start = self.tx.iss();
        // Data go with the SYN only by a good cookie, and not again when it was lost: perhaps they were why.
        let cookie = self
            .rare
            .fast_open
            .filter(|c| !c.is_request() && !passive && !again);
        let room = u64::from(self.tx.mss.saturating_sub(60)).min(self.tx.queue.len() as u64);
        let data = if cookie.is_some() { room } else { 0 };
        let payload = self.tx.queue.slice(start + 1, start + 1 + data);
        let flags = match (passive, self.settings.offer.ecn, self.agreed.ecn) {
            (false, true, _) if self.flight.timers.retries < 2 => {
                Flags::SYN | Flags::ECE | Flags::CWR
            }
            (true, _, true) => Flags::SYN | Flags::ACK | Flags::ECE,
            (true, ..) => Flags::SYN | Flags::ACK,
            _ => Flags::SYN,
        };
        if again {
            self.flight.board.resent(start, start + 1, now, 1);
            self.rare.retransmits = self.rare.retransmits.wrapping_add(1);
            let stamp = self.ts_now(now);
            self.flight.recovery.stamp.get_or_insert(stamp);
        } else {
            self.tx.nxt = start + 1 + data;
            self.flight.board.sent(start, start + 1, now, 1);
            if data > 0 {
                self.flight
                    .board
                    .sent(start + 1, self.tx.nxt, now, self.tx.mss);
            }
        }
        self.arm_after_send(now);
        let mut segment = self.segment(now, start, flags, payload);
        segment.options = self.syn_options(now, passive);
        if !again {
            segment.options.fast_open = self.rare.fast_open;
        }
        Some(segment)
    }

    fn syn_options(&self, now: u64, passive: bool) -> Options {
        let offer = self.settings.offer;
        let say = match passive {
            true => self.agreed,
            false => Agreed {
                sack: offer.sack,
                timestamps: offer.timestamps,
                window_scaling: offer.window_scaling,
                ecn: offer.ecn,
            },
        };
        Options {
            mss: Some(self.settings.mss()),
            window_scale: say.window_scaling.then(|| self.settings.window_scale()),
            sack_permitted: say.sack,
            timestamps: say.timestamps.then(|| self.timestamps(now)),

            ..Options::default()
        }
    }

    fn timestamps(&self, now: u64) -> Timestamps {
        Timestamps {
            value: self.ts_now(now),
            echo: self.rx.ts_recent,
        }
    }

    /// The next lost range, as far as the congestion window lets it go.
    fn retransmission(&mut self, max: u64, mss: u32) -> Option<(u64, u64)> {
        if self.flight.board.lost() == 0 {
            return None;
        }
        let room = self.window.cwnd.saturating_sub(self.flight.board.pipe());
        if room < u64::from(mss) && self.flight.board.pipe() > 0 {
            return None;
        }
        let whole = (room / u64::from(mss)).max(1) * u64::from(mss);
        self.flight.board.next_lost(whole.min(max))
    }

    /// The next range of new data that may leave (Nagle, RFC 9293 section 3.7.4; silly windows, section 3.8.6.2.1).
    fn new_data(&mut self, now: u64, max: u64, mss: u32) -> Option<(u64, u64)> {
        let start = self.tx.nxt;
        let end = self.tx_end();
        if start >= end {
            self.tx.limited = false;
            return None;
        }
        self.restart_after_idle(now);
        let mss = u64::from(mss);
        let window = (self.tx.una + u64::from(self.tx.wnd)).saturating_sub(start);
        let pipe = self.flight.board.pipe();
        let quota = self.window.cwnd.saturating_sub(pipe);
        let wanted = end - start;
        self.tx.limited = quota < wanted.min(mss);
        if self.tx.limited && pipe > 0 {
            return None;
        }
        let quota = if pipe == 0 { quota.max(mss) } else { quota };
        let len = wanted.min(max).min(window).min(quota);
        if len == wanted && self.may_end_small(now, len, mss) {
            return Some((start, end));
        }
        if len >= mss {
            if len < wanted.min(max) && self.more_will_fit(now, len) {
                self.tx.limited = true;
                return None;
            }
            return Some((start, start + len / mss * mss));
        }
        if window < wanted.min(mss) {
            // The window is the limit: half of the largest one seen is worth a segment.
            if len > 0 && 2 * len >= u64::from(self.tx.max_wnd) {
                return Some((start, start + len));
            }
            self.arm_persist(now);
        }
        None
    }

    /// Whether to let a segment become larger: acknowledgements that are soon to come make room, and one large segment costs as much
    /// as one small. Not when nobody waits for the next acknowledgement soon, and never above a third of the window.
    fn more_will_fit(&self, now: u64, len: u64) -> bool {
        let third = self.window.cwnd.min(u64::from(self.tx.wnd)) / 3;
        let oldest = self.flight.board.first().map_or(now, |first| first.sent_at);
        self.flight.recovery.phase == Phase::Open
            && len < third
            && now < self.tx.last_at + MS
            && now >= oldest + self.rtt.srtt / 2
            && !self.flight.board.is_empty()
    }

    /// Whether all that is left may go although its last segment is not full.
    fn may_end_small(&mut self, now: u64, len: u64, mss: u64) -> bool {
        let tail = len % mss;
        if tail == 0 || self.tx.fin {
            return true;
        }
        if self.settings.cork && !self.flight.timers.uncorked {
            self.arm_cork(now);
            return false;
        }
        // Minshall: one small segment may be out, not two.
        self.settings.nodelay || self.flight.timers.uncorked || self.flight.small_end <= self.tx.una
    }

    /// After a silence longer than a timeout the window says nothing any more (RFC 5681 section 4.1).
    fn restart_after_idle(&mut self, now: u64) {
        let idle = now.saturating_sub(self.tx.last_at);
        if !self.flight.board.is_empty()
            || idle <= self.rtt.base()
            || self.flight.recovery.phase != Phase::Open
        {
            return;
        }
        let initial = super::initial_window(self.window.mss as u32);
        let window = &mut self.window;
        window.ssthresh = window.ssthresh.max(window.cwnd / 4 * 3);
        for _ in 0..(idle / self.rtt.base().max(1)).min(16) {
            if window.cwnd > initial {
                window.cwnd = (window.cwnd / 2).max(initial);
            }
        }
        self.congestion
            .get(self.settings.congestion)
            .on_idle(now, idle);
        self.tx.last_at = now;
    }

    /// Sends `start..end`, new or again.
    fn send_range(&mut self, now: u64, start: u64, end: u64, mss: u32) -> Segment {
        let again = start < self.tx.nxt;
        let data_end = end.min(self.tx.queue.end());
        let payload = self.tx.queue.slice(start, data_end);
        let len = data_end.saturating_sub(start);
        let mut flags = Flags::ACK;
        if end > self.tx.queue.end() {
            flags |= Flags::FIN;
        }
        if data_end == self.tx.queue.end() && len > 0 {
            flags |= Flags::PSH;
        }
        if again {
            self.flight.board.resent(start, end, now, mss);
            self.rare.retransmits = self
                .rare
                .retransmits
                .wrapping_add(len.div_ceil(u64::from(mss)).max(1) as u32);
            self.rare.bytes_retrans += len;
            let stamp = self.ts_now(now);
            self.flight.recovery.stamp.get_or_insert(stamp);
            self.flight.recovery.sent_again(end - start);
            if start > self.tx.una {
                // More than the first segment: F-RTO has nothing to tell apart any more.
                self.flight.recovery.frto = false;
            }
        } else {
            self.flight.board.sent(start, end, now, mss);
            self.tx.nxt = end;
            if !len.is_multiple_of(u64::from(mss)) {
                self.flight.small_end = end;
            }
            self.flight.timers.stop_cork();
        }
        self.flight.recovery.sent(end - start);

        self.tx.last_at = now;
        self.arm_after_send(now);
        if self.rx.ack == AckDue::Delayed {
            self.rx.pingpong = true;
        }
        let mut segment = self.segment(now, start, flags, payload);
        if len > u64::from(mss) {
            segment.gso_size = mss;
        }
        if self.agreed.ecn && !again {
            segment.ecn = Ecn::Ect0;
            if self.tx.cwr {
                segment.flags |= Flags::CWR;
                self.tx.cwr = false;
            }
        }
        segment
    }

    fn probe(&mut self, now: u64, mss: u32) -> Option<Segment> {
        match self.tx.probe.take()? {
            Probe::Tail => self.tail_probe(now, mss),
            // Outside the peer's window, so that it has to answer.
            Probe::Window | Probe::KeepAlive => Some(self.segment(
                now,
                self.tx.una.saturating_sub(1),
                Flags::ACK,
                Payload::new(),
            )),
        }
    }

    /// RFC 8985 section 7.3: new data if the window has room for some, whatever the congestion window says; else the last segment.
    fn tail_probe(&mut self, now: u64, mss: u32) -> Option<Segment> {
        let tail = self.flight.board.tail()?;
        let right = (self.tx.una + u64::from(self.tx.wnd)).min(self.tx_end());
        let fresh = right.saturating_sub(self.tx.nxt).min(u64::from(mss));
        let (start, end) = match fresh {
            0 => tail,
            len => (self.tx.nxt, self.tx.nxt + len),
        };
        self.flight.recovery.tlp = Some((end, fresh == 0));
        let segment = self.send_range(now, start, end, mss);
        self.arm_retransmit(now);
        Some(segment)
    }

    /// A reset for the peer.
    fn reset(&mut self, now: u64) -> Segment {
        let nxt = self.tx.nxt;
        self.segment(now, nxt, Flags::RST | Flags::ACK, Payload::new())
    }

    /// A segment with what every segment has: numbers, window, acknowledgement, options.
    fn segment(&mut self, now: u64, start: u64, flags: Flags, payload: Payload) -> Segment {
        let mut segment = Segment {
            src_port: self.local_port,
            dst_port: self.remote_port,
            seq: start as u32,
            flags,
            payload,
            ..Segment::default()
        };
        let urgent = self.flight.urgent;
        if urgent > start && urgent - start <= 0xffff {
            segment.flags |= Flags::URG;
            segment.urgent = (urgent - start) as u16;
        }
        if self.agreed.timestamps {
            segment.options.timestamps = Some(self.timestamps(now));
        }
        if flags.has(Flags::ACK) {
            segment.ack = self.rx.nxt as u32;
            if !flags.has(Flags::SYN | Flags::RST) {
                if self.agreed.sack {
                    segment.options.sack = self.rx.sack_blocks();
                }
                if self.tx.echo_ce {
                    segment.flags |= Flags::ECE;
                }
                segment.window = self.rx.window();
            }
            self.rx.acked = self.rx.nxt;
            self.rx.ack = AckDue::No;
            self.flight.timers.stop_delack();
        }
        if flags.has(Flags::SYN) {
            segment.window = self.settings.recv_buffer.size.min(0xffff) as u16;
        }
        segment
    }
}

//! What time does: retransmission, probes, delayed acknowledgements, keep-alive, and the end.
//!
//! A connection has a deadline for each and tells its owner the nearest. Deadlines are only ever set, so an idle connection costs
//! nothing but its place in the owner's timer wheel.

use super::receive::AckDue;
use super::{Connection, Error, KeepAlive, Probe, State};
use crate::loss::Phase;
use crate::rtt::{MS, RTO_MAX, SEC};

const NEVER: u64 = u64::MAX;
/// The worst that a peer delays an acknowledgement (RFC 8985 section 7.2).
const PEER_DELACK: u64 = 200 * MS;
/// How long a corked segment waits (tcp(7)).
const CORK_TIME: u64 = 200 * MS;
/// How often a closed connection tries (tcp_orphan_retries).
const ORPHAN_RETRIES: u8 = 8;
/// Twice the life of a segment, as everybody takes it (RFC 9293 says four minutes).
pub(crate) const TIME_WAIT: u64 = 60 * SEC;

/// Deadlines in ns, and what goes with them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timers {
    retransmit: u64,
    tail: u64,
    reorder: u64,
    persist: u64,
    delack: u64,
    cork: u64,
    /// The end of FIN-WAIT-2 (of an orphan) or TIME-WAIT.
    linger: u64,
    /// When the peer last took something, or there was nothing to take.
    pub(super) progress: u64,
    /// Timeouts in a row.
    pub(super) retries: u8,
    persist_backoff: u8,
    /// The cork has been held long enough.
    pub(super) uncorked: bool,
}

impl Timers {
    pub(super) const fn new() -> Timers {
        Timers {
            retransmit: NEVER,
            tail: NEVER,
            reorder: NEVER,
            persist: NEVER,
            delack: NEVER,
            cork: NEVER,
            linger: NEVER,
            progress: 0,
            retries: 0,
            persist_backoff: 0,
            uncorked: false,
        }
    }

    pub(super) fn next(&self) -> u64 {
        self.retransmit
            .min(self.tail)
            .min(self.reorder)
            .min(self.persist)
            .min(self.delack)
            .min(self.cork)
            .min(self.linger)
    }

    pub(super) fn are_stopped(&self) -> bool {
        self.next() == NEVER
    }

    pub(super) fn stop_retransmit(&mut self) {
        (self.retransmit, self.tail, self.reorder) = (NEVER, NEVER, NEVER);
    }

    pub(super) fn stop_persist(&mut self) {
        self.persist = NEVER;
        self.persist_backoff = 0;
    }

    pub(super) fn stop_cork(&mut self) {
        self.cork = NEVER;
        self.uncorked = false;
    }

    pub(super) fn stop_delack(&mut self) {
        self.delack = NEVER;
    }

    pub(super) fn reorder_in(&mut self, deadline: Option<u64>) {
        self.reorder = deadline.unwrap_or(NEVER);
    }
}

/// Whether the peer is there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Alive {
    keepalive: u64,
    /// When anything was last heard of the peer.
    pub(super) last_heard: u64,
    /// Probes (of windows, or keep-alive) without an answer.
    pub(super) probes: u8,
}

impl Alive {
    pub(super) fn new(now: u64) -> Alive {
        Alive {
            keepalive: NEVER,
            last_heard: now,
            probes: 0,
        }
    }

    pub(super) fn stop_keepalive(&mut self) {
        self.keepalive = NEVER;
    }
}

/// Whether the timer was due; stops it if so.
fn fire(timer: &mut u64, now: u64) -> bool {
    let due = *timer <= now;
    if due {
        *timer = NEVER;
    }
    due
}

impl Connection {
    /// When [`Connection::on_timer`] is to be called, in ns; `None` if time changes nothing.
    pub fn next_deadline(&self) -> Option<u64> {
        let rest = self.rest_at().unwrap_or(NEVER);
        let next = self.next_timer().min(rest);
        (next != NEVER).then_some(next)
    }

    fn next_timer(&self) -> u64 {
        self.flight.timers.next().min(self.alive.keepalive)
    }

    /// Time has passed. It may be called too early, and then does nothing.
    pub fn on_timer(&mut self, now: u64) {
        let now = self.at(now);
        if self.rest_at().is_some_and(|at| at <= now) {
            self.rest();
        }
        if self.alive.keepalive <= now && self.state != State::Closed {
            self.on_keepalive(now);
        }
        if self.flight.timers.next() > now {
            return;
        }
        if fire(&mut self.flight.timers.linger, now) {
            return self.end(None);
        }
        if fire(&mut self.flight.timers.delack, now) && self.rx.ack == AckDue::Delayed {
            // The user did not answer in time: not a ping-pong.
            self.rx.pingpong = false;
            self.rx.ack = AckDue::Now;
        }
        if fire(&mut self.flight.timers.cork, now) {
            self.flight.timers.uncorked = true;
        }
        if fire(&mut self.flight.timers.reorder, now) {
            self.on_reorder(now);
        }
        if fire(&mut self.flight.timers.tail, now) && !self.flight.board.is_empty() {
            self.plan_tail_probe();
        }
        if fire(&mut self.flight.timers.retransmit, now) && !self.flight.board.is_empty() {
            self.on_timeout(now);
        }
        if self.state != State::Closed && fire(&mut self.flight.timers.persist, now) {
            self.on_persist(now);
        }
    }

    fn on_reorder(&mut self, now: u64) {
        let flight = self.flight.board.pipe();
        if self.detect(now) && matches!(self.flight.recovery.phase, Phase::Open | Phase::Reduced) {
            self.enter_recovery(now, flight);
            let (pipe, mss) = (self.flight.board.pipe(), self.window.mss);
            self.window.cwnd = self.flight.recovery.prr(0, pipe, self.window.ssthresh, mss);
        }
    }

    /// RFC 6298 section 5, with RFC 8985 section 6.3 for what is lost by it.
    fn on_timeout(&mut self, now: u64) {
        let syn = matches!(self.state, State::SynSent | State::SynReceived);
        let limit = match syn {
            true => self.settings.syn_retries,
            false => self.data_retries(),
        };
        // A peer that shut its window over what is on the way, and answers, is alive.
        let shut = self.tx.wnd == 0 && self.alive.last_heard > self.tx.last_at && !self.orphan;
        if self.flight.timers.retries >= limit && !shut || self.user_timeout_over(now) {
            return self.give_up();
        }
        self.flight.timers.retries = self.flight.timers.retries.saturating_add(1);
        self.rare.timeouts = self.rare.timeouts.wrapping_add(1);
        if self
            .flight
            .board
            .first()
            .is_some_and(|first| first.sacked())
        {
            self.flight.board.renege();
        }
        let first_of_row = self.flight.timers.retries == 1;
        if self.flight.recovery.phase != Phase::Loss || self.tx.una >= self.flight.recovery.point {
            let (cwnd, old) = (self.window.cwnd, self.window.ssthresh);
            let ssthresh = self
                .congestion
                .get(self.settings.congestion)
                .on_timeout(&self.window, now);
            let pipe = self.flight.board.pipe();
            self.flight
                .recovery
                .begin(Phase::Loss, self.tx.nxt, pipe, cwnd, old);
            self.window.ssthresh = ssthresh;
        }
        self.flight.recovery.point = self.tx.nxt;
        self.flight.recovery.tlp = None;
        self.flight.recovery.dupacks = 0;
        self.flight.board.set_gone(0);
        self.flight.recovery.frto = first_of_row;
        let age = self.flight.rack.rtt.max(1)
            + self
                .flight
                .rack
                .window(self.rtt.min(), self.rtt.srtt, false);
        let sack = self.agreed.sack;
        self.flight
            .board
            .mark_timed_out(|sent_at| !sack || sent_at + age <= now);
        self.window.cwnd = self.flight.board.pipe() + self.window.mss;
        self.tx.probe = None;
        self.rtt.backoff = self.rtt.backoff.saturating_add(1);
        self.consider_black_hole();
        self.flight.timers.retransmit = now + self.rto(now);
    }

    /// Several timeouts in a row with segments larger than any path must carry: perhaps a router drops them and says nothing
    /// (RFC 4821 section 7.7, RFC 2923).
    fn consider_black_hole(&mut self) {
        const SAFE: u32 = 1024;
        if self.flight.timers.retries == 3 && self.state.is_synchronized() && self.tx.mss > SAFE {
            self.set_effective_mss(SAFE);
        } else if self.flight.timers.retries == 5
            && self.state.is_synchronized()
            && self.tx.mss > 536
        {
            self.set_effective_mss(536);
        }
    }

    /// The timeout, cut where the user's own comes first.
    fn rto(&self, now: u64) -> u64 {
        let rto = self.rtt.rto();
        match self.settings.user_timeout {
            0 => rto,
            user => rto.min(
                (self.flight.timers.progress + user)
                    .saturating_sub(now)
                    .max(MS),
            ),
        }
    }

    fn user_timeout_over(&self, now: u64) -> bool {
        let user = self.settings.user_timeout;
        user > 0 && now - self.flight.timers.progress >= user
    }

    /// How often data are sent again; less often when nobody waits for it.
    fn data_retries(&self) -> u8 {
        match self.orphan {
            true => self.settings.retries.min(ORPHAN_RETRIES),
            false => self.settings.retries,
        }
    }

    fn give_up(&mut self) {
        let error = self.flight.soft_error.unwrap_or(Error::TimedOut);
        self.end(Some(error));
    }

    /// The peer took something, or something left: the timeout begins anew, and before it the probe of the tail (RFC 8985
    /// section 7.2).
    pub(super) fn arm_retransmit(&mut self, now: u64) {
        if self.flight.board.is_empty() {
            return self.flight.timers.stop_retransmit();
        }
        self.flight.timers.retransmit = now + self.rto(now);
        self.arm_tail(now);
    }

    /// New data left: the timeout runs on if it does, the tail's probe begins anew.
    pub(super) fn arm_after_send(&mut self, now: u64) {
        if self.flight.timers.retransmit == NEVER {
            self.flight.timers.progress = now;
            self.flight.timers.retransmit = now + self.rto(now);
        }
        self.arm_tail(now);
    }

    fn arm_tail(&mut self, now: u64) {
        let fit = self.agreed.sack
            && self.flight.recovery.phase == Phase::Open
            && self.flight.recovery.tlp.is_none()
            && self.flight.board.sacked() == 0
            && self.rtt.srtt > 0
            && self.state.is_synchronized();
        self.flight.timers.tail = NEVER;
        if fit {
            let single = self.flight.board.pipe() <= u64::from(self.current_mss());
            let wait = 2 * self.rtt.srtt + if single { PEER_DELACK } else { 2 * MS };
            self.flight.timers.tail = (now + wait).min(self.flight.timers.retransmit);
        }
    }

    pub(super) fn arm_delack(&mut self, now: u64) {
        if self.rx.ack == AckDue::Delayed && self.flight.timers.delack == NEVER {
            self.flight.timers.delack = now + self.rx.ack_delay(self.rtt.srtt);
        }
    }

    /// Data wait for a window, and nothing on the way would bring news of one (RFC 9293 section 3.8.6.1).
    pub(super) fn arm_persist(&mut self, now: u64) {
        if self.flight.timers.persist == NEVER && self.flight.board.is_empty() {
            let wait = self
                .rtt
                .base()
                .saturating_mul(1 << self.flight.timers.persist_backoff.min(16));
            if self.flight.timers.persist_backoff == 0 {
                self.flight.timers.progress = now;
            }
            self.flight.timers.persist = now + wait.min(RTO_MAX);
        }
    }

    fn on_persist(&mut self, now: u64) {
        if !self.flight.board.is_empty() || self.tx.nxt >= self.tx_end() {
            return self.flight.timers.stop_persist();
        }
        // A peer that answers may keep its window shut as long as somebody here waits; one that does not is gone.
        let stuck = self.orphan && self.flight.timers.persist_backoff >= ORPHAN_RETRIES;
        if self.alive.probes >= self.data_retries() || stuck || self.user_timeout_over(now) {
            self.reset_due = stuck;
            return self.give_up();
        }
        self.alive.probes = self.alive.probes.saturating_add(1);
        self.flight.timers.persist_backoff = self.flight.timers.persist_backoff.saturating_add(1);
        self.tx.probe = Some(Probe::Window);
        self.arm_persist(now);
    }

    /// Corked data wait; not for ever.
    pub(super) fn arm_cork(&mut self, now: u64) {
        if self.flight.timers.cork == NEVER && !self.flight.timers.uncorked {
            self.flight.timers.cork = now + CORK_TIME;
        }
    }

    pub(super) fn arm_keepalive(&mut self, now: u64) {
        let keepalive = self.settings.keepalive;
        self.alive.keepalive =
            match keepalive.on && self.state.is_synchronized() && self.state != State::TimeWait {
                true => now + keepalive.idle,
                false => NEVER,
            };
    }

    fn on_keepalive(&mut self, now: u64) {
        let KeepAlive {
            idle,
            interval,
            count,
            ..
        } = self.settings.keepalive;
        let silent = now.saturating_sub(self.alive.last_heard);
        // What waits for an acknowledgement or a window probes by itself.
        if silent < idle || !self.flight.board.is_empty() || self.tx.nxt < self.tx_end() {
            self.alive.keepalive = now + idle.saturating_sub(silent).max(interval).max(MS);
            return;
        }
        let over = match self.settings.user_timeout {
            0 => self.alive.probes >= count,
            user => silent >= user && self.alive.probes > 0,
        };
        if over {
            self.reset_due = self.state.is_synchronized();
            return self.give_up();
        }
        self.alive.probes = self.alive.probes.saturating_add(1);
        self.tx.probe = Some(Probe::KeepAlive);
        self.alive.keepalive = now + interval.max(MS);
    }

    /// An orphan does not wait for ever for the peer's FIN.
    pub(super) fn arm_fin_wait(&mut self, now: u64) {
        if self.orphan && self.state == State::FinWait2 {
            self.flight.timers.linger = now + self.settings.fin_timeout;
        }
    }

    pub(super) fn arm_time_wait(&mut self, now: u64) {
        self.flight.timers.linger = now + TIME_WAIT;
    }
}

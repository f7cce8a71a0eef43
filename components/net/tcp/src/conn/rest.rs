//! Rest: what an idle connection gives back.
//!
//! Most of a connection's memory is about what is on the way, in either direction. Once nothing is, it says nothing that will be
//! asked again soon: a connection that has carried no data yet gives it back at once, any other after a silence, so that questions and
//! answers in turn find it still there. What stays is what the next segment is judged by, the round-trip time, the congestion
//! window, and what the congestion control remembers of losses.

use super::{Connection, State};
use crate::rtt::SEC;

/// The silence, in ns.
const SILENCE: u64 = SEC;

impl Connection {
    /// When there will be something to give back.
    pub(super) fn rest_at(&self) -> Option<u64> {
        let at = self.alive.last_heard.max(self.tx.last_at);
        (self.may_rest() && self.is_quiet()).then(|| at + SILENCE)
    }

    /// Gives back what is of use only while something is on the way.
    pub(super) fn rest(&mut self) {
        self.flight.clear();
        self.congestion.rest();
        self.tx.queue.rest();
        self.rx.rest();
    }

    /// After a handshake there is nothing to remember.
    pub(super) fn rest_if_new(&mut self) {
        let new = self.tx.nxt == self.tx.iss() + 1 && self.rx.nxt == self.rx.irs() + 1;
        if new && self.is_quiet() {
            self.rest();
        }
    }

    fn may_rest(&self) -> bool {
        !self.flight.is_clear()
            || self.congestion.may_rest()
            || self.tx.queue.may_rest()
            || self.rx.may_rest()
    }

    /// Whether nothing is on the way, waits to leave or is owed.
    fn is_quiet(&self) -> bool {
        self.state.is_synchronized()
            && self.state != State::TimeWait
            && self.flight.board.is_empty()
            && self.flight.timers.are_stopped()
            && self.flight.stray_reset.is_none()
            && self.tx.nxt == self.tx_end()
            && self.tx.probe.is_none()
            && self.rx.is_quiet()
    }
}

//! Recovery: what follows a loss, and how much may be sent meanwhile (proportional rate reduction, RFC 6937).

/// What congestion control is in the middle of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nothing is wrong.
    Open,
    /// The window falls because of an ECN mark.
    Reduced,
    /// Fast recovery.
    Recovery,
    /// After a retransmission timeout.
    Loss,
}

#[derive(Clone, Debug)]
pub(crate) struct Recovery {
    pub(crate) phase: Phase,
    /// It is over when this position is acknowledged.
    pub(crate) point: u64,
    /// The window before, to come back to if nothing was lost.
    pub(crate) prior_cwnd: u64,
    pub(crate) prior_ssthresh: u64,
    /// Bytes sent again and not yet known to have arrived twice; `None` when an undo is not possible any more.
    undo: Option<u32>,
    /// The timestamp of the first retransmission.
    pub(crate) stamp: Option<u32>,
    prr_delivered: u32,
    prr_out: u32,
    flight: u32,
    /// Duplicate acknowledgements of a peer without SACK.
    pub(crate) dupacks: u32,
    /// A timeout's first retransmission is out and nothing else has been sent again (F-RTO, RFC 5682).
    pub(crate) frto: bool,
    /// The end of a tail-loss probe that is out, and whether it was a retransmission.
    pub(crate) tlp: Option<(u64, bool)>,
    /// Whether the window fell because of a mark up to this position.
    pub(crate) ecn_until: u64,
}

impl Recovery {
    pub(crate) const fn new() -> Recovery {
        Recovery {
            phase: Phase::Open,
            point: 0,
            prior_cwnd: 0,
            prior_ssthresh: 0,
            undo: None,
            stamp: None,
            prr_delivered: 0,
            prr_out: 0,
            flight: 0,
            dupacks: 0,
            frto: false,
            tlp: None,
            ecn_until: 0,
        }
    }

    /// Starts a reduction with `flight` bytes on the way.
    pub(crate) fn begin(
        &mut self,
        phase: Phase,
        point: u64,
        flight: u64,
        cwnd: u64,
        ssthresh: u64,
    ) {
        self.phase = phase;
        self.point = point;
        self.flight = narrow(flight).max(1);
        (self.prr_delivered, self.prr_out) = (0, 0);
        (self.prior_cwnd, self.prior_ssthresh) = (cwnd, ssthresh);
        self.undo = Some(0);
        self.stamp = None;
    }

    /// The window after `delivered` bytes arrived: the reduction spread over a round trip, and slow start up to the threshold when
    /// more was lost than that.
    pub(crate) fn prr(&mut self, delivered: u64, pipe: u64, ssthresh: u64, mss: u64) -> u64 {
        self.prr_delivered = self.prr_delivered.saturating_add(narrow(delivered));
        let (arrived, out) = (u64::from(self.prr_delivered), u64::from(self.prr_out));
        let room = if pipe > ssthresh {
            let due = u128::from(arrived) * u128::from(ssthresh);
            (due.div_ceil(u128::from(self.flight)) as u64).saturating_sub(out)
        } else {
            let limit = arrived.saturating_sub(out).max(delivered) + mss;
            (ssthresh - pipe).min(limit)
        };
        // The first retransmission goes in any case.
        let least = if out == 0 { mss } else { 0 };
        pipe + room.max(least)
    }

    /// So many bytes were sent again.
    pub(crate) fn sent_again(&mut self, bytes: u64) {
        if let Some(undo) = &mut self.undo {
            *undo = undo.saturating_add(narrow(bytes));
        }
    }

    /// The peer says that it got so many bytes twice.
    pub(crate) fn arrived_twice(&mut self, bytes: u64) {
        if let Some(undo) = &mut self.undo {
            *undo = undo.saturating_sub(narrow(bytes));
        }
    }

    /// Whether all that was sent again arrived twice.
    pub(crate) fn was_needless(&self) -> bool {
        self.undo == Some(0)
    }

    /// There is nothing (more) to undo.
    pub(crate) fn settle(&mut self) {
        self.undo = None;
    }

    /// Something was sent.
    pub(crate) fn sent(&mut self, bytes: u64) {
        if self.phase != Phase::Open {
            self.prr_out = self.prr_out.saturating_add(narrow(bytes));
        }
    }
}

/// What is on the way fits: a window is at most 1 GiB.
fn narrow(bytes: u64) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc6937_sends_the_reduced_share_of_what_arrives() {
        let mut r = Recovery::new();
        r.begin(Phase::Recovery, 0, 20_000, 20_000, u64::MAX);
        let mut pipe = 19_000;
        let mut sent = 0;
        for _ in 0..10 {
            pipe -= 1000;
            let room = r.prr(1000, pipe, 10_000, 1000) - pipe;
            r.sent(room);
            sent += room;
            pipe += room;
        }
        assert_eq!(sent, 5_000);
    }

    #[test]
    fn rfc6937_heavy_loss_comes_back_by_slow_start() {
        let mut r = Recovery::new();
        r.begin(Phase::Recovery, 0, 20_000, 20_000, u64::MAX);
        let cwnd = r.prr(1000, 2_000, 10_000, 1000);
        assert_eq!(cwnd, 4_000);
    }
}

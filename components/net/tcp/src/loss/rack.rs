//! RACK (RFC 8985): a segment is lost when one that was sent later has arrived and it has had its time, whatever the numbers.

use super::Record;

#[derive(Clone, Debug)]
pub(crate) struct Rack {
    /// When the most recently sent of the delivered was sent, and its end.
    pub(crate) xmit_at: u64,
    end: u64,
    /// Its round trip, in ns.
    pub(crate) rtt: u64,
    /// The highest position delivered.
    fack: u64,
    /// Something was delivered out of order.
    pub(crate) reordering: bool,
    /// The reordering window, in quarters of a round trip, and for how many recoveries it stays.
    mult: u8,
    persist: u8,
    /// DSACKs count once a round trip, which ends here.
    dsack_round: u64,
}

impl Rack {
    pub(crate) const fn new() -> Rack {
        Rack {
            xmit_at: 0,
            end: 0,
            rtt: 0,
            fack: 0,
            reordering: false,
            mult: 0,
            persist: 0,
            dsack_round: 0,
        }
    }

    /// A record was delivered (section 6.2, steps 2 and 3). `ambiguous`: it may be an earlier transmission's arrival.
    pub(crate) fn delivered(&mut self, record: &Record, now: u64, min_rtt: u64, ambiguous: bool) {
        if record.end > self.fack {
            self.fack = record.end;
        } else if !record.retransmitted() {
            self.reordering = true;
        }
        let rtt = now.saturating_sub(record.sent_at);
        if record.retransmitted() && (ambiguous || rtt < min_rtt) {
            return;
        }
        if (record.sent_at, record.end) > (self.xmit_at, self.end) {
            (self.xmit_at, self.end) = (record.sent_at, record.end);
        }
        self.rtt = rtt;
    }

    /// The peer got something twice: reordering is longer than was thought (section 6.2, step 4).
    pub(crate) fn dsack(&mut self, una: u64, nxt: u64) {
        if una >= self.dsack_round {
            self.dsack_round = nxt;
            self.mult = self.mult.saturating_add(1);
            self.persist = 16;
        }
    }

    /// A recovery is over.
    pub(crate) fn recovered(&mut self) {
        self.persist = self.persist.saturating_sub(1);
        if self.persist == 0 {
            self.mult = 0;
        }
    }

    /// The reordering window in ns. `eager`: in recovery, or three segments' worth is SACKed.
    ///
    /// The first quarter is one of the least round trip, as in the RFC. Those that DSACKs add are of the smoothed one: where packets
    /// overtake others the least is that of the fastest, and says nothing of how late the others come.
    pub(crate) fn window(&self, min_rtt: u64, srtt: u64, eager: bool) -> u64 {
        if !self.reordering && eager {
            return 0;
        }
        let more = u64::from(self.mult.saturating_sub(1)).saturating_mul(srtt);
        (min_rtt.saturating_add(more) / 4).min(srtt)
    }

    /// Whether something sent at `sent_at` that ends at `end` is lost, or else in how many ns it would be; `None` if nothing sent
    /// later has arrived yet (section 6.2, step 5).
    pub(crate) fn judge(
        &self,
        sent_at: u64,
        end: u64,
        window: u64,
        now: u64,
    ) -> Result<(), Option<u64>> {
        if (sent_at, end) >= (self.xmit_at, self.end) {
            return Err(None);
        }
        let due = sent_at + self.rtt + window;
        if due <= now {
            Ok(())
        } else {
            Err(Some(due - now))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtt::MS;

    #[test]
    fn rfc8985_the_window_grows_once_a_round_trip_with_dsacks_and_not_beyond_it() {
        let mut rack = Rack::new();
        rack.reordering = true;
        let window = |rack: &Rack| rack.window(80 * MS, 100 * MS, true) / MS;
        assert_eq!(window(&rack), 20);
        rack.dsack(0, 10);
        rack.dsack(9, 20);
        assert_eq!(window(&rack), 20);
        for round in 1..10 {
            rack.dsack(10 * round, 10 * round + 10);
        }
        assert_eq!(window(&rack), 100);
        for _ in 0..16 {
            rack.recovered();
        }
        assert_eq!(window(&rack), 20);
    }

    #[test]
    fn the_window_grows_where_the_fastest_packets_take_no_time() {
        let mut rack = Rack::new();
        rack.reordering = true;
        let windows = (0..5).map(|round| {
            rack.dsack(10 * round, 10 * round + 10);
            rack.window(0, 100 * MS, true) / MS
        });
        assert_eq!(windows.collect::<Vec<_>>(), [0, 25, 50, 75, 100]);
    }
}

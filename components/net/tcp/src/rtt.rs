//! Round-trip times and the retransmission timeout (RFC 6298, with the constants of today's hosts; RFC 8961).

/// A millisecond, in nanoseconds.
pub(crate) const MS: u64 = 1_000_000;
/// A second, in nanoseconds.
pub(crate) const SEC: u64 = 1000 * MS;

/// Least that the variance adds to the timeout: it covers a peer's delayed acknowledgement.
pub(crate) const RTO_MIN: u64 = 200 * MS;
/// The timeout before there is a sample (RFC 6298 section 2.1).
pub(crate) const RTO_INITIAL: u64 = SEC;
/// The most (RFC 6298 section 2.5 allows a maximum of at least 60 s).
pub(crate) const RTO_MAX: u64 = 120 * SEC;
/// How long a minimum is believed, in seconds.
const MIN_WINDOW: u32 = 10;

#[derive(Clone, Debug, Default)]
pub(crate) struct Rtt {
    /// Smoothed, in ns; zero before the first sample.
    pub(crate) srtt: u64,
    pub(crate) var: u64,
    /// Least of this window and of the one before, and the second in which this one began.
    min: u64,
    min_before: u64,
    min_since: u32,
    /// Timeouts in a row.
    pub(crate) backoff: u8,
    /// The SYN was lost, and there is no sample (RFC 6298 section 5.7).
    pub(crate) syn_lost: bool,
}

impl Rtt {
    pub(crate) fn sample(&mut self, now: u64, rtt: u64) {
        let rtt = rtt.max(1);
        let second = (now / SEC) as u32;
        if self.srtt == 0 {
            self.srtt = rtt;
            self.var = rtt / 2;
            (self.min, self.min_before, self.min_since) = (rtt, rtt, second);
        } else {
            self.var = (3 * self.var + self.srtt.abs_diff(rtt)) / 4;
            self.srtt = ((7 * self.srtt + rtt) / 8).max(1);
            if second.wrapping_sub(self.min_since) > MIN_WINDOW {
                (self.min_before, self.min, self.min_since) = (self.min, rtt, second);
            }
            self.min = self.min.min(rtt);
        }
    }

    /// The least round-trip time of late, in ns; zero before the first sample.
    pub(crate) fn min(&self) -> u64 {
        self.min.min(self.min_before)
    }

    /// The timeout with its backing off.
    pub(crate) fn rto(&self) -> u64 {
        let base = self.base();
        base.saturating_mul(1 << self.backoff.min(16)).min(RTO_MAX)
    }

    /// The timeout without.
    pub(crate) fn base(&self) -> u64 {
        if self.srtt == 0 {
            return if self.syn_lost {
                3 * RTO_INITIAL
            } else {
                RTO_INITIAL
            };
        }
        (self.srtt + (4 * self.var).max(RTO_MIN)).min(RTO_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc6298_first_sample_sets_srtt_and_half_the_variance() {
        let mut rtt = Rtt::default();
        assert_eq!(rtt.rto(), SEC);
        rtt.sample(0, 100 * MS);
        assert_eq!(
            (rtt.srtt, rtt.var, rtt.rto()),
            (100 * MS, 50 * MS, 300 * MS)
        );
        rtt.sample(0, 200 * MS);
        assert_eq!(rtt.srtt, 112_500_000);
        assert_eq!(rtt.var, 62_500_000);
    }

    #[test]
    fn rfc6298_timeout_doubles_up_to_its_maximum() {
        let mut rtt = Rtt {
            backoff: 3,
            ..Rtt::default()
        };
        assert_eq!(rtt.rto(), 8 * SEC);
        rtt.backoff = 200;
        assert_eq!(rtt.rto(), RTO_MAX);
    }

    #[test]
    fn minimum_is_forgotten_after_two_windows() {
        let mut rtt = Rtt::default();
        rtt.sample(0, MS);
        rtt.sample(5 * SEC, 9 * MS);
        assert_eq!(rtt.min(), MS);
        rtt.sample(11 * SEC, 9 * MS);
        assert_eq!(rtt.min(), MS);
        rtt.sample(22 * SEC, 9 * MS);
        assert_eq!(rtt.min(), 9 * MS);
    }
}

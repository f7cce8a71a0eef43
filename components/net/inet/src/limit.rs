//! How often something may be sent: a bucket that time fills.

use hypercall::Nanos;
use sync::{Cpu, Mutex};

use crate::{Inet, leaf};

const SECOND: Nanos = 1_000_000_000;

/// A token bucket.
#[derive(Default)]
struct Bucket {
    /// Tokens, in parts of a second of time.
    filled: Nanos,
    last: Nanos,
}

impl Bucket {
    /// Takes a token if there is one; there are `rate` a second, and at most a twentieth of them wait.
    fn take(&mut self, now: Nanos, rate: u64) -> bool {
        if rate == 0 {
            return true;
        }
        let cost = SECOND / rate;
        let most = (SECOND / 20).max(cost);
        self.filled = (self.filled + now.saturating_sub(self.last)).min(most);
        self.last = now;
        if self.filled < cost {
            return false;
        }
        self.filled -= cost;
        true
    }
}

/// The limits of a stack. The bucket is a leaf.
#[derive(Default)]
pub(crate) struct Limits {
    icmp: Mutex<Bucket>,
}

impl Inet {
    /// Whether an ICMP error may be sent now (RFC 1812 4.3.2.8, RFC 4443 2.4).
    pub(crate) fn may_send_icmp(&self, cpu: &Cpu<'_>) -> bool {
        let (now, rate) = (self.now(), self.config.icmp_rate() as u64);
        self.limits.icmp.lock(&leaf(cpu)).take(now, rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let mut bucket = Bucket::default();
        let now = 100 * SECOND;
        let burst = (0..1000).filter(|_| bucket.take(now, 1000)).count();
        assert_eq!(burst, 50);
        let later = (0..1000)
            .filter(|_| bucket.take(now + SECOND / 100, 1000))
            .count();
        assert_eq!(later, 10);
        assert!(bucket.take(now, 0), "no limit");
    }
}

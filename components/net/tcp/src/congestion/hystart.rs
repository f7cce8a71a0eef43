//! HyStart++ (RFC 9406): slow start ends when delays grow, before losses say so.

use super::{Ack, Window};
use crate::rtt::MS;

const MIN_RTT_THRESH: u64 = 4 * MS;
const MAX_RTT_THRESH: u64 = 16 * MS;
const RTT_DIVISOR: u64 = 8;
const SAMPLES: u8 = 8;
const CSS_GROWTH_DIVISOR: u64 = 4;
const CSS_ROUNDS: u8 = 5;

/// Times in ns; zero is none.
#[derive(Debug, Default)]
pub(crate) struct HyStart {
    /// The round ends when this position is acknowledged.
    round_end: u64,
    last_min: u64,
    current_min: u64,
    samples: u8,
    /// Rounds in conservative slow start, and the delay that began it.
    css_rounds: u8,
    css_baseline: u64,
}

impl HyStart {
    /// Slow start with one acknowledgement; answers the bytes left over when it ends.
    pub(crate) fn on_ack(&mut self, window: &mut Window, ack: &Ack) -> u64 {
        if let Some(rtt) = ack.rtt {
            let least = if self.current_min == 0 {
                rtt
            } else {
                self.current_min.min(rtt)
            };
            self.current_min = least.max(1);
            self.samples = self.samples.saturating_add(1);
        }
        let left = match self.css_baseline {
            0 => window.slow_start(ack.acked),
            _ => window.slow_start(ack.acked / CSS_GROWTH_DIVISOR),
        };
        if self.samples >= SAMPLES {
            self.judge();
        }
        if ack.una >= self.round_end {
            self.next_round(window, ack.nxt);
        }
        left
    }

    fn judge(&mut self) {
        let current = self.current_min;
        if self.css_baseline > 0 {
            if current < self.css_baseline {
                self.css_baseline = 0;
            }
        } else if self.last_min > 0 {
            let thresh = (self.last_min / RTT_DIVISOR).clamp(MIN_RTT_THRESH, MAX_RTT_THRESH);
            if current >= self.last_min + thresh {
                (self.css_baseline, self.css_rounds) = (current, 0);
            }
        }
    }

    fn next_round(&mut self, window: &mut Window, nxt: u64) {
        self.round_end = nxt;
        let min = std::mem::take(&mut self.current_min);
        if min > 0 {
            self.last_min = min;
        }
        self.samples = 0;
        if self.css_baseline > 0 {
            self.css_rounds += 1;
            if self.css_rounds > CSS_ROUNDS {
                window.ssthresh = window.cwnd;
            }
        }
    }

    pub(crate) fn reset(&mut self) {
        *self = HyStart::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Slow start over `rounds` rounds of ten acknowledgements with the round-trip times given.
    fn run(rtts: &[u64]) -> Window {
        let mut w = Window {
            cwnd: 10_000,
            ssthresh: u64::MAX,
            mss: 1000,
        };
        let mut hystart = HyStart::default();
        let mut una = 0;
        for rtt in rtts {
            for _ in 0..10 {
                una += 1000;
                let ack = Ack {
                    now: 0,
                    acked: 1000,
                    una,
                    nxt: una + 10_000,
                    rtt: Some(rtt * MS),
                    srtt: 0,
                    limited: true,
                };
                hystart.on_ack(&mut w, &ack);
            }
        }
        w
    }

    #[test]
    fn rfc9406_growing_delay_ends_slow_start_after_five_conservative_rounds() {
        assert_eq!(run(&[20; 12]).ssthresh, u64::MAX);
        let w = run(&[20, 20, 30, 30, 30, 30, 30, 30, 30, 30]);
        assert_eq!(w.ssthresh, w.cwnd.min(w.ssthresh));
        assert!(w.cwnd < 10_000 + 100_000);
    }

    #[test]
    fn rfc9406_slow_start_goes_on_when_the_delay_was_a_jitter() {
        assert_eq!(
            run(&[20, 20, 30, 20, 20, 20, 20, 20, 20, 20]).ssthresh,
            u64::MAX
        );
    }
}

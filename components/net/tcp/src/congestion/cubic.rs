//! CUBIC (RFC 9438) with HyStart++.

use super::hystart::HyStart;
use super::{Ack, CongestionControl, Window};
use crate::rtt::SEC;

/// The cubic function's constant, in segments per cubic second (section 5).
const C: f64 = 0.4;
/// Multiplicative decrease (section 4.6).
const BETA: f64 = 0.7;
/// Additive increase of the Reno-friendly region: 3 (1 - BETA) / (1 + BETA) (section 4.3).
const ALPHA: f64 = 3.0 * (1.0 - BETA) / (1.0 + BETA);

/// CUBIC's state. Windows in it are in segments, as in the RFC.
#[derive(Debug, Default)]
pub struct Cubic {
    hystart: HyStart,
    w_max: f64,
    /// The start of congestion avoidance, its window, and when the function is to be back at `w_max`.
    epoch: Option<Epoch>,
    /// Growth below a byte.
    fraction: f64,
    /// `w_max` before the last congestion event, for an undo.
    before: f64,
}

#[derive(Clone, Copy, Debug)]
struct Epoch {
    start: u64,
    k: f64,
    w_est: f64,
}

impl Cubic {
    fn avoid(&mut self, window: &mut Window, acked: u64, ack: &Ack) {
        let mss = window.mss.max(1) as f64;
        let cwnd = window.cwnd as f64 / mss;
        let epoch = self.epoch.get_or_insert_with(|| {
            // Also after a slow start that HyStart++ ended: then there is no maximum to come back to.
            if self.w_max < cwnd {
                self.w_max = cwnd;
            }
            Epoch {
                start: ack.now,
                k: ((self.w_max - cwnd) / C).cbrt(),
                w_est: cwnd,
            }
        });
        let acked = acked as f64 / mss;
        let alpha = if epoch.w_est < self.w_max { ALPHA } else { 1.0 };
        epoch.w_est += alpha * acked / cwnd;
        let t = ack.now.saturating_sub(epoch.start) as f64 / SEC as f64;
        let w = |t: f64| C * (t - epoch.k).powi(3) + self.w_max;
        let grow = if w(t) < epoch.w_est {
            (epoch.w_est - cwnd).max(0.0)
        } else {
            let target = w(t + ack.srtt as f64 / SEC as f64).clamp(cwnd, 1.5 * cwnd);
            (target - cwnd) / cwnd * acked
        };
        self.fraction += grow.min(acked) * mss;
        window.cwnd += self.fraction as u64;
        self.fraction = self.fraction.fract();
    }
}

impl CongestionControl for Cubic {
    fn name(&self) -> &'static str {
        "cubic"
    }

    fn on_ack(&mut self, window: &mut Window, ack: &Ack) {
        if !ack.limited {
            return;
        }
        let left = if window.in_slow_start() {
            self.hystart.on_ack(window, ack)
        } else {
            ack.acked
        };
        if left > 0 && !window.in_slow_start() {
            self.avoid(window, left, ack);
        }
    }

    fn on_congestion(&mut self, window: &Window, _: u64) -> u64 {
        let cwnd = window.cwnd as f64 / window.mss.max(1) as f64;
        self.before = self.w_max;
        // Fast convergence (section 4.7): whoever has not reached the old maximum makes room.
        self.w_max = if cwnd < self.w_max {
            cwnd * (1.0 + BETA) / 2.0
        } else {
            cwnd
        };
        self.epoch = None;
        self.fraction = 0.0;
        ((window.cwnd as f64 * BETA) as u64).max(2 * window.mss)
    }

    fn on_timeout(&mut self, window: &Window, now: u64) -> u64 {
        self.hystart.reset();
        self.on_congestion(window, now)
    }

    fn on_undo(&mut self) {
        self.w_max = self.before;
        self.epoch = None;
    }

    fn may_be_forgotten(&self) -> bool {
        // The maximum to come back to is worth a memory.
        self.w_max == 0.0
    }

    fn on_idle(&mut self, now: u64, idle: u64) {
        // The time that nothing was sent does not count (section 5.8).
        if let Some(epoch) = &mut self.epoch {
            epoch.start = (epoch.start + idle).min(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtt::MS;

    fn avoid(cubic: &mut Cubic, w: &mut Window, seconds: f64, rtt: u64, from: u64) -> u64 {
        let end = from + (seconds * SEC as f64) as u64;
        let mut now = from;
        while now < end {
            now += rtt;
            let mut left = w.cwnd;
            while left > 0 {
                let acked = left.min(w.mss);
                left -= acked;
                let ack = Ack {
                    now,
                    acked,
                    una: 0,
                    nxt: 0,
                    rtt: None,
                    srtt: rtt,
                    limited: true,
                };
                cubic.on_ack(w, &ack);
            }
        }
        now
    }

    #[test]
    fn rfc9438_window_returns_to_its_maximum_after_k_seconds() {
        let mut cubic = Cubic::default();
        let mut w = Window {
            cwnd: 1_000_000,
            ssthresh: 500_000,
            mss: 1000,
        };
        w.ssthresh = cubic.on_congestion(&w, 0);
        assert_eq!(w.ssthresh, 700_000);
        w.cwnd = w.ssthresh;
        let k = (1000.0f64 * 0.3 / C).cbrt();
        let now = avoid(&mut cubic, &mut w, k, 100 * MS, 0);
        assert!((970_000..=1_010_000).contains(&w.cwnd), "{}", w.cwnd);
        let plateau = w.cwnd;
        avoid(&mut cubic, &mut w, k, 100 * MS, now);
        assert!(
            w.cwnd > plateau + 200_000,
            "convex behind the maximum: {}",
            w.cwnd
        );
    }

    #[test]
    fn rfc9438_short_round_trips_grow_as_reno_does() {
        let mut cubic = Cubic::default();
        let mut w = Window {
            cwnd: 20_000,
            ssthresh: 0,
            mss: 1000,
        };
        w.ssthresh = cubic.on_congestion(&w, 0);
        w.cwnd = w.ssthresh;
        // K is 2.5 s; in half a second of 1 ms rounds the cubic function hardly moves, Reno's does.
        avoid(&mut cubic, &mut w, 0.5, MS, 0);
        assert!(w.cwnd > 100_000, "{}", w.cwnd);
    }

    #[test]
    fn rfc9438_fast_convergence_lowers_the_maximum() {
        let mut cubic = Cubic::default();
        let mut w = Window {
            cwnd: 100_000,
            ssthresh: 0,
            mss: 1000,
        };
        cubic.on_congestion(&w, 0);
        w.cwnd = 80_000;
        cubic.on_congestion(&w, 0);
        assert!((cubic.w_max - 68.0).abs() < 0.01);
    }

    #[test]
    fn idle_time_does_not_count_even_if_the_epoch_is_younger() {
        let mut cubic = Cubic::default();
        let mut w = Window {
            cwnd: 20_000,
            ssthresh: 0,
            mss: 1000,
        };
        let now = avoid(&mut cubic, &mut w, 0.1, 10 * MS, 10 * SEC);
        cubic.on_idle(now + SEC, 100 * SEC);
        avoid(&mut cubic, &mut w, 0.1, 10 * MS, now + SEC);
        assert!(w.cwnd < 40_000, "{}", w.cwnd);
    }
}

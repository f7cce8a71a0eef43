//! Reno's window (RFC 5681).

use super::{Ack, CongestionControl, Window};

/// Additive increase by a segment each round trip, multiplicative decrease by half.
#[derive(Debug)]
pub struct Reno;

impl CongestionControl for Reno {
    fn name(&self) -> &'static str {
        "reno"
    }

    fn on_ack(&mut self, window: &mut Window, ack: &Ack) {
        if !ack.limited {
            return;
        }
        let left = window.slow_start(ack.acked);
        if left > 0 && !window.in_slow_start() {
            window.cwnd += (window.mss * left / window.cwnd.max(1)).max(1);
        }
    }

    fn on_congestion(&mut self, window: &Window, _: u64) -> u64 {
        (window.cwnd / 2).max(2 * window.mss)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::congestion::by_name;

    fn ack(acked: u64) -> Ack {
        Ack {
            now: 0,
            acked,
            una: 0,
            nxt: 0,
            rtt: None,
            srtt: 0,
            limited: true,
        }
    }

    #[test]
    fn rfc5681_slow_start_doubles_and_avoidance_adds_a_segment() {
        let mut w = Window {
            cwnd: 10_000,
            ssthresh: 20_000,
            mss: 1000,
        };
        (0..10).for_each(|_| Reno.on_ack(&mut w, &ack(1000)));
        assert_eq!(w.cwnd, 20_000);
        (0..20).for_each(|_| Reno.on_ack(&mut w, &ack(1000)));
        assert!((20_900..=21_000).contains(&w.cwnd));
        assert_eq!(Reno.on_congestion(&w, 0), w.cwnd / 2);
    }

    #[test]
    fn window_does_not_grow_when_it_is_not_the_limit() {
        for name in crate::congestion::ALGORITHMS {
            let mut w = Window {
                cwnd: 10_000,
                ssthresh: u64::MAX,
                mss: 1000,
            };
            let mut cc = by_name(name).expect("a listed name");
            cc.on_ack(
                &mut w,
                &Ack {
                    limited: false,
                    ..ack(1000)
                },
            );
            assert_eq!(w.cwnd, 10_000, "{name}");
        }
    }
}

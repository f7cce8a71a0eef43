//! Measuring: ours and the host's turn by turn so that both see the same machine; medians of rounds, or the least of many short
//! ones where a busy machine would hide the difference.

use std::time::{Duration, Instant};

/// So many times as many rounds are made, and so much shorter, where the least counts.
const SHORTER: u64 = 20;

/// How much is measured.
pub(crate) struct Effort {
    /// A short run that only shows that everything can be measured.
    pub(crate) smoke: bool,
    rounds: usize,
    round: Duration,
}

impl Effort {
    pub(crate) fn new(smoke: bool) -> Effort {
        Effort {
            smoke,
            rounds: if smoke { 3 } else { 9 },
            round: Duration::from_millis(if smoke { 1 } else { 20 }),
        }
    }

    /// One of two, by how much is measured.
    pub(crate) fn pick<T>(&self, full: T, smoke: T) -> T {
        if self.smoke { smoke } else { full }
    }

    /// Nanoseconds of one call of each, as medians over rounds.
    pub(crate) fn compare(&self, mut ours: impl FnMut(), mut host: impl FnMut()) -> (f64, f64) {
        let (n, m) = (self.calibrate(&mut ours), self.calibrate(&mut host));
        let rounds = (0..self.rounds).map(|_| (time(n, &mut ours), time(m, &mut host)));
        let (a, b): (Vec<f64>, Vec<f64>) = rounds.unzip();
        (median(a), median(b))
    }

    /// Nanoseconds of one call of each when nobody disturbs: the least of many short rounds.
    pub(crate) fn least(&self, mut ours: impl FnMut(), mut host: impl FnMut()) -> (f64, f64) {
        let (n, m) = (self.calibrate(&mut ours), self.calibrate(&mut host));
        let shorter = |n: u64| (n / SHORTER).max(1);
        let [ours, host] = self.least_of([&mut || time(shorter(n), &mut ours), &mut || {
            time(shorter(m), &mut host)
        }]);
        (ours, host)
    }

    /// Nanoseconds of one call when nobody disturbs: the least of many short rounds.
    pub(crate) fn least_one(&self, mut op: impl FnMut()) -> f64 {
        let n = (self.calibrate(&mut op) / SHORTER).max(1);
        self.least_of([&mut || time(n, &mut op)])[0]
    }

    /// The least of what each function measures itself in many short rounds, turn by turn.
    pub(crate) fn least_of<const N: usize>(
        &self,
        mut measured: [&mut dyn FnMut() -> f64; N],
    ) -> [f64; N] {
        let mut least = [f64::INFINITY; N];
        for _ in 0..self.rounds as u64 * SHORTER {
            for (least, measure) in least.iter_mut().zip(&mut measured) {
                *least = least.min(measure());
            }
        }
        least
    }

    /// Nanoseconds of one call, as median over rounds.
    pub(crate) fn one(&self, mut op: impl FnMut()) -> f64 {
        let n = self.calibrate(&mut op);
        median((0..self.rounds).map(|_| time(n, &mut op)).collect())
    }

    /// Medians of what two functions measure themselves, turn by turn.
    pub(crate) fn samples<E>(
        &self,
        mut ours: impl FnMut() -> Result<f64, E>,
        mut host: impl FnMut() -> Result<f64, E>,
    ) -> Result<(f64, f64), E> {
        let (mut a, mut b) = (Vec::new(), Vec::new());
        for _ in 0..self.rounds {
            a.push(ours()?);
            b.push(host()?);
        }
        Ok((median(a), median(b)))
    }

    /// How many calls make a round; warms up on the way.
    fn calibrate(&self, op: &mut impl FnMut()) -> u64 {
        let mut n = 1;
        loop {
            let began = Instant::now();
            (0..n).for_each(|_| op());
            let took = began.elapsed();
            if took >= self.round / 4 {
                let scale = self.round.as_secs_f64() / took.as_secs_f64();
                return ((n as f64 * scale) as u64).max(1);
            }
            n *= 2;
        }
    }
}

fn time(n: u64, op: &mut impl FnMut()) -> f64 {
    let began = Instant::now();
    (0..n).for_each(|_| op());
    began.elapsed().as_nanos() as f64 / n as f64
}

/// The middle value; of none, not a number.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(vec![9.0, 1.0, 3.0]), 3.0);
        assert!(median(Vec::new()).is_nan());
    }
}

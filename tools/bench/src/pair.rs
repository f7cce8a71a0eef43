//! Two threads on two processors that do things at the same time, round after round.

use std::hint;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use crate::place::{self, Pinned};

/// What the second thread can do, chosen by number.
type Jobs<'a> = &'a [&'a (dyn Fn() + Sync)];

/// The second thread's side of the bargain.
pub(crate) struct Pair {
    /// The round times [`ROUND`] and the job; the last one of all is [`END`].
    go: Line,
    done: Line,
}

const ROUND: u64 = 256;
const END: u64 = u64::MAX;

/// A word alone on its cache lines.
#[repr(align(128))]
#[derive(Default)]
struct Line(AtomicU64);

/// Runs `measure` on one processor with a second thread ready on another one; `None` where there is only one.
pub(crate) fn on_two_cpus<R>(
    jobs: Jobs<'_>,
    measure: impl FnOnce(&Pair) -> R,
) -> io::Result<Option<R>> {
    let [first, second, ..] = place::cpus()[..] else {
        return Ok(None);
    };
    let pair = Pair {
        go: Line::default(),
        done: Line::default(),
    };
    let _pinned = Pinned::to(first)?;
    thread::scope(|scope| {
        let helper = scope.spawn(|| pair.help(second, jobs));
        let result = measure(&pair);
        pair.go.0.store(END, Ordering::Release);
        match helper.join() {
            Ok(helped) => helped.map(|()| Some(result)),
            Err(_) => Err(io::Error::other("the second thread panicked")),
        }
    })
}

impl Pair {
    /// Seconds until both threads have done their part: this one `mine`, the other one its job of that number.
    pub(crate) fn time(&self, job: u64, mine: impl FnOnce()) -> f64 {
        let round = self.done.0.load(Ordering::Relaxed) / ROUND + 1;
        let go = round * ROUND + job;
        let began = Instant::now();
        self.go.0.store(go, Ordering::Release);
        mine();
        self.done.wait(|done| done == go);
        began.elapsed().as_secs_f64()
    }

    fn help(&self, cpu: usize, jobs: Jobs<'_>) -> io::Result<()> {
        let pinned = Pinned::to(cpu);
        let mut seen = 0;
        loop {
            let go = self.go.wait(|go| go != seen);
            if go == END {
                return pinned.map(drop);
            }
            if let Some(job) = jobs.get((go % ROUND) as usize) {
                job();
            }
            seen = go;
            self.done.0.store(go, Ordering::Release);
        }
    }
}

impl Line {
    /// Spins until the word is as wanted: a sleep would have to be ended across processors, which takes longer than a round.
    fn wait(&self, wanted: impl Fn(u64) -> bool) -> u64 {
        loop {
            for _ in 0..10_000 {
                let word = self.0.load(Ordering::Acquire);
                if wanted(word) {
                    return word;
                }
                hint::spin_loop();
            }
            thread::yield_now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_thread_does_what_it_is_told_each_round() {
        let counts = [AtomicU64::new(0), AtomicU64::new(0)];
        let add = |i: usize| {
            counts[i].fetch_add(1, Ordering::Relaxed);
        };
        let (first, second) = (|| add(0), || add(1));
        let ran = on_two_cpus(&[&first, &second], |pair| {
            for round in 0..20 {
                pair.time(round % 2, || ());
            }
        });
        let expected = if ran.unwrap().is_some() { 10 } else { 0 };
        assert_eq!(
            counts.each_ref().map(|c| c.load(Ordering::Relaxed)),
            [expected; 2]
        );
    }
}

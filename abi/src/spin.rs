//! How long who waits looks before it sleeps: for both sides of a ring, and for threads of a kernel.

/// How long to look for what is waited for before sleeping: longer while that is rewarded, down to nothing while it is not.
///
/// There are two ways of it. Where two processors are free for the two sides one *spins*. Where they are not, one lets others have
/// the processor between two looks (sched_yield(2)): they are likely to be who brings it about, and nobody has to be woken,
/// which takes longer than all the rest where the processors are a virtual machine's.
#[derive(Clone, Copy, Debug)]
pub struct Spin {
    /// The most turns, and those of a try when looking has stopped.
    most: [u32; 2],
    budget: u32,
    lost: u32,
    /// Sleeps between two tries.
    every: u32,
}

impl Spin {
    /// The most turns of one spin, each a `pause`: some 50 to 100 microseconds.
    pub const MAX: u32 = 2000;
    /// The most turns in which others may have the processor: when nobody wants it, longer than it takes to wake somebody.
    pub const MAX_YIELDS: u32 = 200;
    /// Who gets the processor back only after so long, in nanoseconds, shares it with somebody who does not wait: sleeping, he
    /// would have been woken earlier.
    pub const TOO_LONG: u64 = 500_000;
    /// Sleeps between two tries that are made when looking has stopped.
    const EVERY: u32 = 8;
    /// The same at most, after such tries took too long.
    const SELDOM: u32 = 4096;

    /// Starts with some hope; for spinning.
    pub const fn new() -> Spin {
        Spin::of([Spin::MAX, Spin::MAX / 10])
    }

    /// The same for looking between others' turns. A try is long enough for who has to be woken to bring it about: two who sleep
    /// for each other come out of that by it.
    pub const fn yielding() -> Spin {
        Spin::of([Spin::MAX_YIELDS, Spin::MAX_YIELDS])
    }

    const fn of(most: [u32; 2]) -> Spin {
        Spin {
            most,
            budget: most[0],
            lost: 0,
            every: Spin::EVERY,
        }
    }

    /// How many turns to look this time.
    pub const fn turns(&self) -> u32 {
        if self.budget == 0 && self.lost.is_multiple_of(self.every) {
            self.most[1]
        } else {
            self.budget
        }
    }

    /// The wait ended while looking.
    pub fn won(&mut self) {
        *self = Spin::of(self.most);
    }

    /// The wait ended in sleep.
    pub fn lost(&mut self) {
        self.lost = self.lost.wrapping_add(1);
        self.budget = if self.budget > self.most[0] / 8 {
            self.budget / 2
        } else {
            0
        };
    }

    /// The processor was with others for [`TOO_LONG`](Self::TOO_LONG).
    pub fn lost_the_processor(&mut self) {
        self.budget = 0;
        self.lost = 1;
        self.every = (2 * self.every).min(Spin::SELDOM);
    }
}

impl Default for Spin {
    fn default() -> Self {
        Spin::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spinning_stops_when_it_is_not_rewarded_and_comes_back() {
        let mut spin = Spin::new();
        for _ in 0..5 {
            spin.lost();
        }
        let tries = (0..80)
            .filter(|_| {
                spin.lost();
                spin.turns() != 0
            })
            .count();
        assert_eq!(tries, 10);
        spin.won();
        assert_eq!(spin.turns(), Spin::MAX);
    }

    #[test]
    fn who_loses_the_processor_tries_again_ever_more_seldom() {
        let mut spin = Spin::yielding();
        let mut sleeps = 0;
        for _ in 0..20 {
            spin.lost_the_processor();
            sleeps = 0;
            while spin.turns() == 0 {
                spin.lost();
                sleeps += 1;
            }
        }
        assert_eq!(sleeps, Spin::SELDOM - 1);
        spin.won();
        assert_eq!(spin.turns(), Spin::MAX_YIELDS);
    }
}

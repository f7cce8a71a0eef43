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

    /// Looks, and lets others have the processor in between by `give_way`, for as long as that was worth it the last times; whether
    /// `look` has seen it. `now` is a time in nanoseconds, more or less.
    pub fn linger<E>(
        &mut self,
        mut look: impl FnMut() -> Result<Seen, E>,
        now: impl Fn() -> u64,
        give_way: impl Fn(),
    ) -> Result<bool, E> {
        if look()? == Seen::It {
            return Ok(true);
        }
        let mut turns = self.turns();
        while turns != 0 {
            let before = now();
            give_way();
            let late = now().wrapping_sub(before) > Spin::TOO_LONG;
            let seen = look()?;
            if late {
                // It would have been seen earlier by who sleeps.
                self.lost_the_processor();
                return Ok(seen == Seen::It);
            }
            if seen == Seen::Nothing {
                turns -= 1;
                continue;
            }
            self.won();
            if seen == Seen::It {
                return Ok(true);
            }
            turns = self.turns();
        }
        self.lost();
        Ok(false)
    }

    /// The processor was with others for [`TOO_LONG`](Self::TOO_LONG).
    fn lost_the_processor(&mut self) {
        self.budget = 0;
        self.lost = 1;
        self.every = (2 * self.every).min(Spin::SELDOM);
    }
}

/// What one look of [`Spin::linger`] has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Nothing.
    Nothing,
    /// Something else, for which it was good to be awake.
    Else,
    /// What is waited for.
    It,
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

    #[test]
    fn lingering_is_rewarded_by_what_is_seen_in_a_turn_and_in_time() {
        use core::cell::Cell;
        let (turns, time) = (Cell::new(0u32), Cell::new(0u64));
        // What is seen at the given look, where each turn takes so long.
        let linger = |spin: &mut Spin, at: u32, long: u64| {
            turns.set(0);
            let look = || match turns.get() == at {
                true => Ok::<_, ()>(Seen::It),
                false => Ok(Seen::Nothing),
            };
            let give_way = || {
                turns.set(turns.get() + 1);
                time.set(time.get() + long);
            };
            spin.linger(look, || time.get(), give_way)
        };
        let mut spin = Spin::yielding();
        assert_eq!(linger(&mut spin, u32::MAX, 300), Ok(false));
        assert_eq!(turns.get(), Spin::MAX_YIELDS);
        assert_eq!(spin.turns(), Spin::MAX_YIELDS / 2);
        // There already: that says nothing of turns.
        assert_eq!(linger(&mut spin, 0, 300), Ok(true));
        assert_eq!(spin.turns(), Spin::MAX_YIELDS / 2);
        assert_eq!(linger(&mut spin, 5, 300), Ok(true));
        assert_eq!(spin.turns(), Spin::MAX_YIELDS);
        // There, but too late.
        assert_eq!(linger(&mut spin, 1, Spin::TOO_LONG + 1), Ok(true));
        assert_eq!(spin.turns(), 0);
    }
}

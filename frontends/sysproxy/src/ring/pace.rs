//! How longer data is put into a ring: through the caches, or past them.
//!
//! Where the two processors share a cache, an ordinary copy is best. Where they do not, it has each line fetched from
//! the client's cache only to be overwritten, and fetched back by the client, which costs more than the way through
//! memory. Which of the two it is shows in the time that a copy takes, and may change while we run, for a virtual
//! machine's processors move about; so a copy is timed now and then.

use std::cell::Cell;
use std::time::Instant;

use super::map::Map;

/// Shorter data always goes through the caches, in bytes.
const LONG: usize = 2048;
/// One in so many copies is timed.
const EVERY: u32 = 32;
/// An ordinary copy that takes longer is one between caches, in nanoseconds for 1024 bytes.
const FAR: u128 = 100;

/// Decides for one ring.
#[derive(Default)]
pub(super) struct Pace {
    far: Cell<bool>,
    turn: Cell<u32>,
}

impl Pace {
    /// Writes to the ring.
    pub(super) fn write(&self, map: &Map, at: usize, data: &[u8]) {
        if data.len() < LONG {
            return map.write(at, data);
        }
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        if turn.is_multiple_of(EVERY) {
            let began = Instant::now();
            map.write(at, data);
            let far = began.elapsed().as_nanos() * 1024 > FAR * data.len() as u128;
            self.far.set(far);
        } else if self.far.get() {
            map.write_past(at, data);
        } else {
            map.write(at, data);
        }
    }
}

//! Which address is behind which port: the filtering database, IEEE 802.1D section 7.9.

use std::collections::BTreeMap;

use hypercall::Nanos;
use net::EtherAddr;

/// Between two looks through the whole table for what is too old.
const SWEEP: Nanos = 1_000_000_000;

/// How much is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// How long an address is remembered that was not seen again, in nanoseconds.
    pub(crate) age: Nanos,
    /// How many addresses there may be.
    pub(crate) max: usize,
}

impl Default for Limits {
    /// 802.1D's 300 seconds.
    fn default() -> Limits {
        Limits {
            age: 300 * 1_000_000_000,
            max: 4096,
        }
    }
}

#[derive(Clone, Copy)]
struct Entry {
    port: u32,
    seen: Nanos,
}

/// The table. An ordered map: nobody outside chooses how long a look-up takes.
pub(crate) struct Table {
    limits: Limits,
    entries: BTreeMap<EtherAddr, Entry>,
    swept: Nanos,
}

impl Table {
    pub(crate) fn new(limits: Limits) -> Table {
        Table {
            limits,
            entries: BTreeMap::new(),
            swept: 0,
        }
    }

    /// An address was seen at a port. It is not remembered when the table is full of younger ones.
    pub(crate) fn learn(&mut self, address: EtherAddr, port: u32, now: Nanos) {
        let entry = Entry { port, seen: now };
        if let Some(known) = self.entries.get_mut(&address) {
            *known = entry;
            return;
        }
        if self.entries.len() >= self.limits.max {
            self.sweep(now);
        }
        if self.entries.len() < self.limits.max {
            self.entries.insert(address, entry);
        }
    }

    /// The port behind which an address is.
    pub(crate) fn port_of(&self, address: &EtherAddr, now: Nanos) -> Option<u32> {
        let entry = self.entries.get(address)?;
        self.is_young(entry, now).then_some(entry.port)
    }

    /// Forgets everything behind a port.
    pub(crate) fn forget(&mut self, port: u32) {
        self.entries.retain(|_, entry| entry.port != port);
    }

    fn is_young(&self, entry: &Entry, now: Nanos) -> bool {
        now.saturating_sub(entry.seen) < self.limits.age
    }

    /// Forgets what is too old; not often, because it takes the time of the whole table.
    fn sweep(&mut self, now: Nanos) {
        if now.saturating_sub(self.swept) < SWEEP {
            return;
        }
        self.swept = now;
        let age = self.limits.age;
        self.entries
            .retain(|_, entry| now.saturating_sub(entry.seen) < age);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Nanos = 1_000_000_000;

    fn address(n: u16) -> EtherAddr {
        let [a, b] = n.to_be_bytes();
        [2, 0, 0, 0, a, b]
    }

    #[test]
    fn what_moves_is_found_where_it_was_seen_last_and_what_is_old_is_forgotten() {
        let mut table = Table::new(Limits::default());
        table.learn(address(1), 1, S);
        assert_eq!(table.port_of(&address(1), 2 * S), Some(1));
        table.learn(address(1), 2, 100 * S);
        assert_eq!(table.port_of(&address(1), 399 * S), Some(2));
        assert_eq!(table.port_of(&address(1), 400 * S), None);
        table.learn(address(1), 3, 500 * S);
        table.forget(3);
        assert_eq!(table.port_of(&address(1), 500 * S), None);
    }

    #[test]
    fn a_flood_of_addresses_fills_no_more_than_the_table_and_the_old_make_room() {
        let limits = Limits {
            max: 100,
            ..Limits::default()
        };
        let mut table = Table::new(limits);
        for n in 0..1000 {
            table.learn(address(n), 1, 10 * S);
        }
        assert_eq!(table.entries.len(), 100);
        assert_eq!(table.port_of(&address(7), 11 * S), Some(1));
        assert_eq!(table.port_of(&address(700), 11 * S), None);
        table.learn(address(700), 2, 400 * S);
        assert_eq!(table.entries.len(), 1);
        assert_eq!(table.port_of(&address(700), 400 * S), Some(2));
    }
}

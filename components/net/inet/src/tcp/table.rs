//! The table of connections: a hash in shards, so that processors that work on different connections do not meet.
//!
//! What is in it knows its own name, so an entry is no more than a pointer.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use hashbrown::HashTable;
use hashbrown::hash_table;
use hypercall::Nanos;
use sync::{Cpu, Mutex};
use tcp::{TimeWait, Tuple};

use super::conn::Conn;
use crate::leaf;
use crate::ports::Binding;

const SHARDS: usize = 64;
/// Counters of local ports: several ports share one.
const COUNTERS: usize = 4096;
/// The most connections in TIME-WAIT; beyond, one is forgotten at once.
const MOST_WAITING: usize = 65_536;

/// What is known under a tuple.
pub(super) enum Found {
    Conn(Arc<Conn>),
    TimeWait,
}

enum Entry {
    Conn(Arc<Conn>),
    TimeWait(Box<Waiting>),
}

/// What is left of a connection.
struct Waiting {
    tuple: Tuple,
    wait: TimeWait,
    shares_port: bool,
}

impl Entry {
    fn tuple(&self) -> &Tuple {
        match self {
            Entry::Conn(conn) => &conn.tuple,
            Entry::TimeWait(left) => &left.tuple,
        }
    }

    fn shares_port(&self) -> bool {
        match self {
            Entry::Conn(conn) => conn.shares_port(),
            Entry::TimeWait(left) => left.shares_port,
        }
    }

    fn found(&self) -> Found {
        match self {
            Entry::Conn(conn) => Found::Conn(conn.clone()),
            Entry::TimeWait(_) => Found::TimeWait,
        }
    }
}

type Shard = Mutex<HashTable<Entry>>;

/// The connections. The shards and `waiting` are leaves, of which one is held at a time; a listener's lock is taken before.
pub(super) struct Table {
    hasher: RandomState,
    shards: Box<[Shard]>,
    /// How many entries have a local port, so that a port that none has costs no search.
    locals: OnceLock<Box<[AtomicU32]>>,
    /// Those in TIME-WAIT in the order in which they end: all wait equally long.
    waiting: Mutex<VecDeque<(Nanos, Tuple)>>,
}

impl Default for Table {
    fn default() -> Table {
        Table {
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            locals: OnceLock::new(),
            waiting: Mutex::default(),
        }
    }
}

impl Table {
    /// A name's hash, and the shard that it is in.
    fn place(&self, tuple: &Tuple) -> (u64, &Shard) {
        let hash = self.hasher.hash_one(tuple);
        // Bits that the table in the shard makes no use of.
        (hash, &self.shards[hash as usize >> 40 & (SHARDS - 1)])
    }

    fn entry<'a>(
        &self,
        shard: &'a mut HashTable<Entry>,
        hash: u64,
        tuple: &Tuple,
    ) -> hash_table::Entry<'a, Entry> {
        shard.entry(
            hash,
            |entry| entry.tuple() == tuple,
            |entry| self.hasher.hash_one(entry.tuple()),
        )
    }

    fn local(&self, port: u16) -> &AtomicU32 {
        let new = || (0..COUNTERS).map(|_| AtomicU32::new(0)).collect();
        &self.locals.get_or_init(new)[usize::from(port) % COUNTERS]
    }

    fn count_out(&self, tuple: &Tuple) {
        self.local(tuple.local.port())
            .fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn find(&self, cpu: &Cpu<'_>, tuple: &Tuple) -> Option<Found> {
        let (hash, shard) = self.place(tuple);
        let leaf = leaf(cpu);
        let shard = shard.lock(&leaf);
        let entry = shard.find(hash, |entry| entry.tuple() == tuple);
        entry.map(Entry::found)
    }

    /// Enters a connection unless there is one already. One in TIME-WAIT makes place when `reuse`.
    pub(super) fn enter(&self, cpu: &Cpu<'_>, conn: &Arc<Conn>, reuse: bool) -> bool {
        let (hash, shard) = self.place(&conn.tuple);
        let leaf = leaf(cpu);
        let mut shard = shard.lock(&leaf);
        match self.entry(&mut shard, hash, &conn.tuple) {
            hash_table::Entry::Vacant(place) => {
                place.insert(Entry::Conn(conn.clone()));
                let local = self.local(conn.tuple.local.port());
                local.fetch_add(1, Ordering::Relaxed);
                true
            }
            hash_table::Entry::Occupied(mut place) => match place.get() {
                Entry::TimeWait(_) if reuse => {
                    *place.get_mut() = Entry::Conn(conn.clone());
                    true
                }
                _ => false,
            },
        }
    }

    /// Whether a connection, in TIME-WAIT or not, keeps others from a port as Linux has it: unless both it and they have
    /// `SO_REUSEADDR`.
    pub(super) fn holds(&self, cpu: &Cpu<'_>, binding: &Binding) -> bool {
        if self.local(binding.port).load(Ordering::Relaxed) == 0 {
            return false;
        }
        let leaf = leaf(cpu);
        let holds = |entry: &Entry| {
            let local = entry.tuple().local;
            local.port() == binding.port
                && binding.hears(&local.ip())
                && !(binding.reuseaddr && entry.shares_port())
        };
        self.shards
            .iter()
            .any(|shard| shard.lock(&leaf).iter().any(holds))
    }

    /// Takes a connection out, and leaves in its place what TIME-WAIT needs.
    pub(super) fn leave(&self, cpu: &Cpu<'_>, conn: &Conn, wait: Option<TimeWait>) -> bool {
        let (hash, shard) = self.place(&conn.tuple);
        let leaf = leaf(cpu);
        let deadline = wait.as_ref().map(TimeWait::deadline);
        let full = self.waiting.lock(&leaf).len() >= MOST_WAITING;
        // Dropped without the lock: it may be the last reference.
        let _left = {
            let mut shard = shard.lock(&leaf);
            let here =
                |entry: &Entry| matches!(entry, Entry::Conn(there) if std::ptr::eq(&**there, conn));
            let Ok(mut place) = shard.find_entry(hash, here) else {
                return false;
            };
            match wait {
                Some(wait) if !full => std::mem::replace(
                    place.get_mut(),
                    Entry::TimeWait(Box::new(Waiting {
                        tuple: conn.tuple,
                        wait,
                        shares_port: conn.shares_port(),
                    })),
                ),
                _ => {
                    self.count_out(&conn.tuple);
                    place.remove().0
                }
            }
        };
        match deadline {
            Some(at) if !full => {
                self.waiting.lock(&leaf).push_back((at, conn.tuple));
                true
            }
            _ => false,
        }
    }

    pub(super) fn with_time_wait<R>(
        &self,
        cpu: &Cpu<'_>,
        tuple: &Tuple,
        f: impl FnOnce(&mut TimeWait) -> R,
    ) -> Option<R> {
        let (hash, shard) = self.place(tuple);
        let leaf = leaf(cpu);
        let mut shard = shard.lock(&leaf);
        match shard.find_mut(hash, |entry| entry.tuple() == tuple) {
            Some(Entry::TimeWait(left)) => Some(f(&mut left.wait)),
            _ => None,
        }
    }

    pub(super) fn forget_time_wait(&self, cpu: &Cpu<'_>, tuple: &Tuple) {
        let (hash, shard) = self.place(tuple);
        let leaf = leaf(cpu);
        let mut shard = shard.lock(&leaf);
        let waits = |entry: &Entry| matches!(entry, Entry::TimeWait(left) if left.tuple == *tuple);
        if let Ok(place) = shard.find_entry(hash, waits) {
            place.remove();
            self.count_out(tuple);
        }
    }

    /// Forgets those whose time is over; answers whether others wait.
    pub(super) fn age(&self, cpu: &Cpu<'_>, now: Nanos) -> bool {
        let leaf = leaf(cpu);
        loop {
            let tuple = {
                let mut waiting = self.waiting.lock(&leaf);
                match waiting.front() {
                    Some((at, _)) if *at <= now => waiting.pop_front().map(|(_, tuple)| tuple),
                    Some(_) => return true,
                    None => return false,
                }
            };
            let Some(tuple) = tuple else {
                return false;
            };
            // A FIN that came again has prolonged it.
            let deadline = self.with_time_wait(cpu, &tuple, |wait| wait.deadline());
            match deadline {
                Some(at) if at > now => self.waiting.lock(&leaf).push_back((at, tuple)),
                Some(_) => self.forget_time_wait(cpu, &tuple),
                None => {}
            }
        }
    }

    /// All connections.
    pub(super) fn all(&self, cpu: &Cpu<'_>) -> Vec<(Tuple, Found)> {
        let mut out = Vec::new();
        for shard in &self.shards {
            let leaf = leaf(cpu);
            let shard = shard.lock(&leaf);
            out.extend(shard.iter().map(|e| (*e.tuple(), e.found())));
        }
        out.sort_by_key(|(tuple, _)| *tuple);
        out
    }
}

//! The table of connections: a hash in shards, so that processors that work on different connections do not meet.
//!
//! What is in it knows its own name, so an entry is no more than a pointer.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use hashbrown::HashTable;
use hashbrown::hash_table;
use hypercall::Nanos;
use sync::{Cpu, Mutex};
use tcp::{TimeWait, Tuple};

use super::conn::Conn;
use crate::leaf;

const SHARDS: usize = 64;
/// The most connections in TIME-WAIT; beyond, one is forgotten at once.
const MOST_WAITING: usize = 65_536;

/// What is known under a tuple.
pub(super) enum Found {
    Conn(Arc<Conn>),
    TimeWait,
}

enum Entry {
    Conn(Arc<Conn>),
    TimeWait(Box<(Tuple, TimeWait)>),
}

impl Entry {
    fn tuple(&self) -> &Tuple {
        match self {
            Entry::Conn(conn) => &conn.tuple,
            Entry::TimeWait(wait) => &wait.0,
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
    /// Those in TIME-WAIT in the order in which they end: all wait equally long.
    waiting: Mutex<VecDeque<(Nanos, Tuple)>>,
}

impl Default for Table {
    fn default() -> Table {
        Table {
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
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
                    Entry::TimeWait(Box::new((conn.tuple, wait))),
                ),
                _ => place.remove().0,
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
            Some(Entry::TimeWait(wait)) => Some(f(&mut wait.1)),
            _ => None,
        }
    }

    pub(super) fn forget_time_wait(&self, cpu: &Cpu<'_>, tuple: &Tuple) {
        let (hash, shard) = self.place(tuple);
        let leaf = leaf(cpu);
        let mut shard = shard.lock(&leaf);
        let waits = |entry: &Entry| matches!(entry, Entry::TimeWait(wait) if wait.0 == *tuple);
        if let Ok(place) = shard.find_entry(hash, waits) {
            place.remove();
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

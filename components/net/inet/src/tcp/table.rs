//! The table of connections: a hash in shards, so that processors that work on different connections do not meet.

use std::collections::VecDeque;
use std::collections::hash_map::{self, HashMap};
use std::sync::Arc;

use hypercall::Nanos;
use sync::{Cpu, Mutex};
use tcp::{TimeWait, Tuple};

use super::conn::Conn;
use crate::leaf;

const SHARDS: usize = 64;
/// The most connections in TIME-WAIT; beyond, one is forgotten at once.
const MOST_WAITING: usize = 65_536;

/// What is known under a tuple.
#[derive(Clone)]
pub(super) enum Entry {
    Conn(Arc<Conn>),
    TimeWait(Box<TimeWait>),
}

/// The connections. The shards and `waiting` are leaves, of which one is held at a time; a listener's lock is taken before.
pub(super) struct Table {
    shards: Box<[Mutex<HashMap<Tuple, Entry>>]>,
    /// Those in TIME-WAIT in the order in which they end: all wait equally long.
    waiting: Mutex<VecDeque<(Nanos, Tuple)>>,
}

impl Default for Table {
    fn default() -> Table {
        Table {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            waiting: Mutex::default(),
        }
    }
}

impl Table {
    fn shard(&self, tuple: &Tuple) -> &Mutex<HashMap<Tuple, Entry>> {
        let ports = u32::from(tuple.local.port()) << 16 | u32::from(tuple.remote.port());
        &self.shards[ports.wrapping_mul(0x9e37_79b1) as usize >> 20 & (SHARDS - 1)]
    }

    pub(super) fn find(&self, cpu: &Cpu<'_>, tuple: &Tuple) -> Option<Entry> {
        self.shard(tuple).lock(&leaf(cpu)).get(tuple).cloned()
    }

    /// Enters a connection unless there is one already. One in TIME-WAIT makes place when `reuse`.
    pub(super) fn enter(&self, cpu: &Cpu<'_>, conn: &Arc<Conn>, reuse: bool) -> bool {
        let leaf = leaf(cpu);
        let mut shard = self.shard(&conn.tuple).lock(&leaf);
        match shard.entry(conn.tuple) {
            hash_map::Entry::Vacant(place) => {
                place.insert(Entry::Conn(conn.clone()));
                true
            }
            hash_map::Entry::Occupied(mut place) => match place.get() {
                Entry::TimeWait(_) if reuse => {
                    place.insert(Entry::Conn(conn.clone()));
                    true
                }
                _ => false,
            },
        }
    }

    /// Takes a connection out, and leaves in its place what TIME-WAIT needs.
    pub(super) fn leave(&self, cpu: &Cpu<'_>, conn: &Conn, wait: Option<TimeWait>) -> bool {
        let leaf = leaf(cpu);
        let deadline = wait.as_ref().map(TimeWait::deadline);
        let full = self.waiting.lock(&leaf).len() >= MOST_WAITING;
        {
            let mut shard = self.shard(&conn.tuple).lock(&leaf);
            let hash_map::Entry::Occupied(mut place) = shard.entry(conn.tuple) else {
                return false;
            };
            if !matches!(place.get(), Entry::Conn(there) if std::ptr::eq(&**there, conn)) {
                return false;
            }
            match wait {
                Some(wait) if !full => drop(place.insert(Entry::TimeWait(Box::new(wait)))),
                _ => drop(place.remove()),
            }
        }
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
        match self.shard(tuple).lock(&leaf(cpu)).get_mut(tuple) {
            Some(Entry::TimeWait(wait)) => Some(f(wait)),
            _ => None,
        }
    }

    pub(super) fn forget_time_wait(&self, cpu: &Cpu<'_>, tuple: &Tuple) {
        let leaf = leaf(cpu);
        let mut shard = self.shard(tuple).lock(&leaf);
        if let hash_map::Entry::Occupied(place) = shard.entry(*tuple)
            && matches!(place.get(), Entry::TimeWait(_))
        {
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
    pub(super) fn all(&self, cpu: &Cpu<'_>) -> Vec<(Tuple, Entry)> {
        let mut out = Vec::new();
        for shard in &self.shards {
            out.extend(shard.lock(&leaf(cpu)).iter().map(|(t, e)| (*t, e.clone())));
        }
        out.sort_by_key(|(tuple, _)| *tuple);
        out
    }
}

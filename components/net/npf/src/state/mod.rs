//! The connections that are known: a hash table of a bounded number of them.
//!
//! A connection is found by two keys: that of its first packet as it came, and that of the answers as they come. They are each other's
//! reverse unless it is translated; then the difference is the translation, and there is nothing else to remember. Two connections with
//! a key in common cannot be in the table, so no two can be translated to the same.
//!
//! Nothing runs for what is idle: what is too old is found when somebody looks, in its bucket, or when room is needed. When the table is
//! full, a newcomer takes the place of the least established of those that are looked at, and of none that is established.
//!
//! **Locks.** Each bucket is a leaf, of which one is held at a time; a connection's tracking is a leaf that is held over nothing.

#[cfg(test)]
mod tests;

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};

use hypercall::{Host, Nanos};
use sync::{Mutex, Parker};

use crate::rules::Counter;
use crate::track::{Fit, Kind, Phase, Tcp, Way};
use crate::wire::{Key, Seen, Side, What};

/// How many buckets are looked into for somebody who can go.
const SEARCH: usize = 16;
/// How often that is tried: others may take the same one's place at the same time.
const TRIES: usize = 4;
/// How many connections have a bucket when the table is full, two keys each.
const LOAD: usize = 2;

/// A connection.
pub(crate) struct State {
    /// As the first packet came, and as answers come.
    pub(crate) keys: [Key; 2],
    /// The rule's that let it in.
    pub(crate) counter: Arc<Counter>,
    /// Packets and bytes each way.
    pub(crate) traffic: [Counter; 2],
    /// When it is forgotten, on the monotonic clock.
    expires: AtomicU64,
    /// A [`Phase`].
    phase: AtomicU8,
    /// It has been taken out of a table, perhaps while it was put in.
    gone: AtomicBool,
    kind: Kind,
    /// Of TCP. A leaf.
    tcp: Mutex<Option<Tcp>>,
}

impl State {
    /// A connection that begins with a packet.
    pub(crate) fn new(keys: [Key; 2], first: &What, counter: Arc<Counter>, now: Nanos) -> State {
        let (kind, tcp) = match first {
            What::Tcp(segment) => (Kind::Tcp, Some(Tcp::new(segment))),
            What::Echo(_) => (Kind::Echo, None),
            _ => (Kind::Other, None),
        };
        State {
            keys,
            counter,
            traffic: Default::default(),
            expires: AtomicU64::new(now.saturating_add(Phase::Opening.patience(kind))),
            phase: AtomicU8::new(Phase::Opening as u8),
            gone: AtomicBool::new(false),
            kind,
            tcp: Mutex::new(tcp),
        }
    }

    /// Another packet of it.
    pub(crate) fn packet(&self, parker: &dyn Parker, way: Way, seen: &Seen, now: Nanos) -> Fit {
        let phase = match &seen.what {
            What::Tcp(segment) => {
                let mut tcp = self.tcp.lock(parker);
                let Some(tcp) = tcp.as_mut() else {
                    return Fit::No;
                };
                match tcp.packet(way, segment) {
                    Fit::Yes => tcp.phase,
                    other => return other,
                }
            }
            _ if way == Way::Back => Phase::Established,
            _ => self.phase(),
        };
        self.phase.store(phase as u8, Ordering::Relaxed);
        let expires = now.saturating_add(phase.patience(self.kind));
        self.expires.store(expires, Ordering::Relaxed);
        self.count(way, seen.len);
        Fit::Yes
    }

    pub(crate) fn count(&self, way: Way, len: usize) {
        self.counter.count(len);
        self.traffic[way.index()].count(len);
    }

    pub(crate) fn phase(&self) -> Phase {
        let phase = usize::from(self.phase.load(Ordering::Relaxed));
        Phase::ALL.get(phase).copied().unwrap_or(Phase::Closed)
    }

    /// When it is forgotten.
    pub(crate) fn expires(&self) -> Nanos {
        self.expires.load(Ordering::Relaxed)
    }

    /// Its first packet as the rules saw it: with its new destination, and not yet with its new source.
    pub(crate) fn as_rules_saw_it(&self) -> Key {
        let [first, answer] = &self.keys;
        Key {
            dst: answer.src,
            dport: answer.sport,
            ..*first
        }
    }

    /// What an end of a packet becomes on its way through.
    pub(crate) fn target(&self, way: Way, side: Side) -> (std::net::IpAddr, u16) {
        let other = match side {
            Side::Src => Side::Dst,
            Side::Dst => Side::Src,
        };
        self.keys[way.other().index()].end(other)
    }

    /// Whether an end's address changes on the way through.
    pub(crate) fn translates(&self, way: Way, side: Side) -> bool {
        self.target(way, side).0 != self.keys[way.index()].end(side).0
    }
}

/// An entry of a bucket.
struct Slot {
    key: Key,
    way: Way,
    state: Arc<State>,
}

type Bucket = Mutex<Vec<Slot>>;

/// Why a connection is not in the table.
pub(crate) enum NoRoom {
    /// Its first packet is one of a connection that is there, which goes this way.
    Known(Arc<State>, Way),
    /// The answers to another one would be taken for its.
    Taken,
    /// The table is full of what is better established.
    Full,
}

/// The table.
pub(crate) struct States {
    buckets: Box<[Bucket]>,
    secret: [u64; 2],
    count: AtomicUsize,
    limit: usize,
    /// The bucket where somebody who can go is looked for next.
    hand: AtomicUsize,
}

impl States {
    pub(crate) fn new(host: &dyn Host, limit: usize) -> States {
        let mut bytes = [0; 16];
        host.random(&mut bytes);
        let buckets = (limit / LOAD).max(SEARCH);
        let word = |half: &[u8]| half.try_into().map(u64::from_ne_bytes).unwrap_or_default();
        States {
            buckets: (0..buckets).map(|_| Mutex::default()).collect(),
            secret: [word(&bytes[..8]), word(&bytes[8..])],
            count: AtomicUsize::new(0),
            limit,
            hand: AtomicUsize::new(0),
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// The most that there may be.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// Strangers choose the keys, but do not know the secret.
    fn bucket(&self, key: &Key) -> &Bucket {
        #[expect(
            deprecated,
            reason = "SipHash with a key of the kernel's own; std's other hashers take theirs from the host"
        )]
        let mut hasher = std::hash::SipHasher::new_with_keys(self.secret[0], self.secret[1]);
        key.hash(&mut hasher);
        &self.buckets[hasher.finish() as usize % self.buckets.len()]
    }

    /// The connection that a packet is of, and which way the packet goes.
    pub(crate) fn find(
        &self,
        parker: &dyn Parker,
        key: &Key,
        now: Nanos,
    ) -> Option<(Arc<State>, Way)> {
        let found = {
            let bucket = self.bucket(key).lock(parker);
            let slot = bucket.iter().find(|slot| slot.key == *key)?;
            (slot.state.clone(), slot.way)
        };
        if found.0.expires() <= now {
            self.remove(parker, &found.0);
            return None;
        }
        Some(found)
    }

    /// Puts a connection in.
    pub(crate) fn insert(
        &self,
        parker: &dyn Parker,
        state: &Arc<State>,
        now: Nanos,
    ) -> Result<(), NoRoom> {
        if self.count.fetch_add(1, Ordering::Relaxed) >= self.limit
            && !(0..TRIES).any(|_| self.make_room(parker, now))
        {
            self.forget(Way::Forward);
            return Err(NoRoom::Full);
        }
        let result = self.put_both(parker, state, now);
        if result.is_err() {
            self.forget(Way::Forward);
        }
        result
    }

    fn put_both(&self, parker: &dyn Parker, state: &Arc<State>, now: Nanos) -> Result<(), NoRoom> {
        // The answers' key first: it is the one that a translation has to find free.
        if self.put(parker, state, Way::Back, now).is_err() {
            return Err(match self.find(parker, &state.keys[0], now) {
                Some((known, way)) => NoRoom::Known(known, way),
                None => NoRoom::Taken,
            });
        }
        self.put(parker, state, Way::Forward, now)
            .map_err(|(other, way)| {
                self.take(parker, state, Way::Back);
                NoRoom::Known(other, way)
            })?;
        if state.gone.load(Ordering::SeqCst) {
            // Who took it out may have come between the two keys.
            self.remove(parker, state);
        }
        Ok(())
    }

    fn put(
        &self,
        parker: &dyn Parker,
        state: &Arc<State>,
        way: Way,
        now: Nanos,
    ) -> Result<(), (Arc<State>, Way)> {
        let key = state.keys[way.index()];
        // What is too old in the bucket goes; its other key is in another bucket, which is looked into afterwards.
        let mut old = Vec::new();
        let result = {
            let mut bucket = self.bucket(&key).lock(parker);
            bucket.retain(|slot| {
                let stays = slot.state.expires() > now;
                if !stays {
                    old.push((slot.state.clone(), slot.way));
                }
                stays
            });
            match bucket.iter().find(|slot| slot.key == key) {
                Some(slot) => Err((slot.state.clone(), slot.way)),
                None => {
                    bucket.push(Slot {
                        key,
                        way,
                        state: state.clone(),
                    });
                    Ok(())
                }
            }
        };
        for (state, way) in old {
            self.forget(way);
            self.take(parker, &state, way.other());
        }
        result
    }

    /// Takes a connection out; false when somebody else was first.
    pub(crate) fn remove(&self, parker: &dyn Parker, state: &Arc<State>) -> bool {
        state.gone.store(true, Ordering::SeqCst);
        let gone = self.take(parker, state, Way::Forward);
        self.take(parker, state, Way::Back);
        gone
    }

    fn take(&self, parker: &dyn Parker, state: &Arc<State>, way: Way) -> bool {
        let gone = {
            let mut bucket = self.bucket(&state.keys[way.index()]).lock(parker);
            let at = bucket
                .iter()
                .position(|slot| Arc::ptr_eq(&slot.state, state) && slot.way == way);
            at.map(|at| bucket.swap_remove(at))
        };
        if gone.is_some() {
            self.forget(way);
        }
        gone.is_some()
    }

    /// One key of a connection is gone. It counts as long as its first one is there.
    fn forget(&self, way: Way) {
        if way == Way::Forward {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Has somebody go; false when nobody could.
    fn make_room(&self, parker: &dyn Parker, now: Nanos) -> bool {
        let hand = self.hand.fetch_add(SEARCH, Ordering::Relaxed);
        let mut least: Option<Arc<State>> = None;
        let rank = |state: &State| match state.expires() <= now {
            true => (Phase::Closed, 0),
            false => (state.phase(), state.expires()),
        };
        for at in hand..hand + SEARCH {
            let bucket = self.buckets[at % self.buckets.len()].lock(parker);
            let first = bucket
                .iter()
                .map(|slot| &slot.state)
                .min_by_key(|state| rank(state));
            if let Some(state) = first
                && least.as_ref().is_none_or(|least| rank(state) < rank(least))
            {
                least = Some(state.clone());
            }
        }
        match least {
            Some(least) if rank(&least).0 < Phase::Established => self.remove(parker, &least),
            _ => false,
        }
    }

    /// All connections.
    pub(crate) fn list(&self, parker: &dyn Parker, now: Nanos) -> Vec<Arc<State>> {
        let mut all = Vec::new();
        for bucket in &self.buckets {
            let bucket = bucket.lock(parker);
            let forward = bucket.iter().filter(|slot| slot.way == Way::Forward);
            all.extend(forward.map(|slot| slot.state.clone()));
        }
        all.retain(|state| state.expires() > now);
        all
    }

    /// Forgets all connections; how many there were.
    pub(crate) fn clear(&self, parker: &dyn Parker) -> usize {
        let mut gone = 0;
        for bucket in &self.buckets {
            let slots = {
                let mut bucket = bucket.lock(parker);
                let states = bucket.iter().map(|slot| &slot.state);
                states.for_each(|state| state.gone.store(true, Ordering::SeqCst));
                std::mem::take(&mut *bucket)
            };
            for slot in slots {
                self.forget(slot.way);
                let other = self.take(parker, &slot.state, slot.way.other());
                gone += usize::from(other || slot.way == Way::Forward);
            }
        }
        gone
    }
}

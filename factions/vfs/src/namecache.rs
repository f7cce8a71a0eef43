//! The name cache: what names in directories stand for, names that stand for nothing included. It also keeps the files
//! used last in memory, so that their pages outlive the last close.
//!
//! The table is a fixed number of small sets, each with a lock of its own; a set that is full drops what was not used
//! for longest. So a hit costs one short lock that hardly anybody shares, and nothing depends on how much is cached.

use std::sync::{Arc, Weak};

use kern::Curlwp;
use sync::Mutex;

use crate::vnode::Name;
use crate::{Mount, NameHash, Vnode};

/// Entries in a set.
const WAYS: usize = 8;
/// Entries in the table unless `RUMP_NVNODES` says otherwise.
pub(crate) const DEFAULT_ENTRIES: usize = 4096;

/// What the cache knows of a name.
pub(crate) enum Cached {
    /// Nothing.
    Unknown,
    /// There is no such name.
    Missing,
    /// It stands for this vnode.
    Found(Arc<Vnode>),
}

struct Entry {
    hash: u32,
    used: u32,
    /// The directory. Not counted as in use, but its address stays taken, so that no other directory can have it.
    dir: Weak<Vnode>,
    name: Name,
    vp: Option<Arc<Vnode>>,
}

#[derive(Default)]
struct Set {
    clock: u32,
    entries: Vec<Entry>,
}

/// The cache of a kernel. The locks of the sets are leaves, and no vnode is let go under one.
pub(crate) struct NameCache {
    hash: NameHash,
    sets: Box<[Mutex<Set>]>,
}

impl NameCache {
    /// A cache of about so many entries.
    pub(crate) fn new(entries: usize, hash: NameHash) -> NameCache {
        let count = (entries / WAYS).clamp(1, 1 << 24).next_power_of_two();
        NameCache {
            hash,
            sets: (0..count).map(|_| Mutex::default()).collect(),
        }
    }

    fn hash_of(&self, dir: &Arc<Vnode>, name: &[u8]) -> u64 {
        // By its number, not its address: on a simulated host a run is to be the same twice.
        self.hash.of(dir.ino ^ dir.dev.rotate_left(32), name)
    }

    fn set(&self, hash: u64) -> &Mutex<Set> {
        &self.sets[(hash >> 32) as usize & (self.sets.len() - 1)]
    }

    /// What is known of a name.
    pub(crate) fn get(&self, cx: &Curlwp<'_>, dir: &Arc<Vnode>, name: &[u8]) -> Cached {
        let hash = self.hash_of(dir, name);
        let mut set = self.set(hash).lock(cx.cpu());
        let Some(at) = set.find(hash as u32, dir, name) else {
            return Cached::Unknown;
        };
        set.clock = set.clock.wrapping_add(1);
        let now = set.clock;
        let entry = &mut set.entries[at];
        entry.used = now;
        match &entry.vp {
            Some(vp) => Cached::Found(vp.clone()),
            None => Cached::Missing,
        }
    }

    /// Notes what a name stands for; the caller holds the directory's lock, so that it is true.
    pub(crate) fn put(
        &self,
        cx: &Curlwp<'_>,
        dir: &Arc<Vnode>,
        name: &[u8],
        vp: Option<&Arc<Vnode>>,
    ) {
        let hash = self.hash_of(dir, name);
        let mut set = self.set(hash).lock(cx.cpu());
        set.clock = set.clock.wrapping_add(1);
        let now = set.clock;
        let dropped = match set.find(hash as u32, dir, name) {
            Some(at) => {
                let entry = &mut set.entries[at];
                entry.used = now;
                std::mem::replace(&mut entry.vp, vp.cloned())
            }
            None => set.insert(Entry {
                hash: hash as u32,
                used: now,
                dir: Arc::downgrade(dir),
                name: Name::from_slice(name),
                vp: vp.cloned(),
            }),
        };
        drop(set);
        drop(dropped);
    }

    /// Forgets everything of a mount, so that none of its vnodes is kept.
    pub(crate) fn purge(&self, cx: &Curlwp<'_>, mount: &Mount) {
        let of_mount = |entry: &mut Entry| {
            entry
                .dir
                .upgrade()
                .is_none_or(|dir| std::ptr::eq(dir.mount_weak().as_ptr(), mount))
        };
        for set in &self.sets {
            let mut set = set.lock(cx.cpu());
            let dropped: Vec<Entry> = set.entries.extract_if(.., of_mount).collect();
            drop(set);
            drop(dropped);
        }
    }
}

impl Set {
    fn find(&self, hash: u32, dir: &Arc<Vnode>, name: &[u8]) -> Option<usize> {
        self.entries.iter().position(|e| {
            e.hash == hash
                && std::ptr::eq(e.dir.as_ptr(), Arc::as_ptr(dir))
                && e.name.as_slice() == name
        })
    }

    /// Adds an entry, in the place of the one longest unused when the set is full; answers what that one kept.
    fn insert(&mut self, entry: Entry) -> Option<Arc<Vnode>> {
        if self.entries.len() < WAYS {
            self.entries.push(entry);
            return None;
        }
        let clock = self.clock;
        let oldest = self
            .entries
            .iter_mut()
            .max_by_key(|e| clock.wrapping_sub(e.used))?;
        std::mem::replace(oldest, entry).vp
    }
}

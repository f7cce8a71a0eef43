//! What happens to files, for those who watch them: kqueue's vnode filter and inotify(7).
//!
//! A file that can be watched has a [`ChangeHead`] ([`crate::File::changes`]); who changes it tells the head, and that its watchers.
//! Readiness is another matter, see [`crate::poll`].

use std::ops::BitOr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use sync::{Mutex, Parker};

/// A set of things that happen to a file. The lower bits are inotify(7)'s `IN_*`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change(pub u32);

#[allow(missing_docs)] // the names are inotify(7)'s
impl Change {
    pub const ACCESS: Change = Change(0x1);
    pub const MODIFY: Change = Change(0x2);
    pub const ATTRIB: Change = Change(0x4);
    pub const CLOSE_WRITE: Change = Change(0x8);
    pub const CLOSE_NOWRITE: Change = Change(0x10);
    pub const OPEN: Change = Change(0x20);
    pub const MOVED_FROM: Change = Change(0x40);
    pub const MOVED_TO: Change = Change(0x80);
    pub const CREATE: Change = Change(0x100);
    pub const DELETE: Change = Change(0x200);
    pub const DELETE_SELF: Change = Change(0x400);
    pub const MOVE_SELF: Change = Change(0x800);
    /// What it happened to is a directory.
    pub const ISDIR: Change = Change(0x4000_0000);
}

impl Change {
    /// The file has grown.
    pub const EXTEND: Change = Change(0x1_0000);
    /// The number of its names has changed.
    pub const LINK: Change = Change(0x2_0000);
    /// Its last name is gone, though somebody may have it open.
    pub const UNLINKED: Change = Change(0x4_0000);
    /// Something happened to the names in a directory.
    pub const NAMES: Change = Change(0x40 | 0x80 | 0x100 | 0x200);

    /// Whether any bit is set in both.
    pub fn intersects(self, other: Change) -> bool {
        self.0 & other.0 != 0
    }
}

impl BitOr for Change {
    type Output = Change;
    fn bitor(self, other: Change) -> Change {
        Change(self.0 | other.0)
    }
}

/// Something that happened.
#[derive(Clone, Copy, Debug)]
pub struct FileChange<'a> {
    /// What.
    pub what: Change,
    /// To the file of this name in the directory that is told; `None` for the file itself.
    pub name: Option<&'a [u8]>,
    /// Pairs the two names of a rename; 0 for anything else.
    pub cookie: u32,
}

/// Somebody who watches a file.
pub trait ChangeWatcher: Send + Sync {
    /// Told with locks of the file and with the list of its watchers held: it may only take leaf locks of its own and
    /// wake somebody.
    fn changed(&self, parker: &dyn Parker, change: &FileChange<'_>);
}

/// The watchers of one file. Costs one load when nobody watches.
///
/// The list's mutex comes after a file's own locks, and is held while watchers are told.
#[derive(Default)]
pub struct ChangeHead {
    count: AtomicUsize,
    watchers: Mutex<Vec<Weak<dyn ChangeWatcher>>>,
}

impl ChangeHead {
    /// Whether anybody watches.
    #[inline]
    pub fn is_watched(&self) -> bool {
        self.count.load(Ordering::SeqCst) != 0
    }

    /// Adds a watcher, which stays until it is dropped.
    pub fn watch(&self, parker: &dyn Parker, watcher: &Arc<dyn ChangeWatcher>) {
        let mut watchers = self.watchers.lock(parker);
        watchers.retain(|w| w.strong_count() != 0);
        watchers.push(Arc::downgrade(watcher));
        self.count.store(watchers.len(), Ordering::SeqCst);
    }

    /// Forgets watchers that have been dropped.
    pub fn sweep(&self, parker: &dyn Parker) {
        let mut watchers = self.watchers.lock(parker);
        watchers.retain(|w| w.strong_count() != 0);
        self.count.store(watchers.len(), Ordering::SeqCst);
    }

    /// Tells every watcher.
    pub fn tell(&self, parker: &dyn Parker, change: &FileChange<'_>) {
        if !self.is_watched() {
            return;
        }
        for watcher in self.watchers.lock(parker).iter().filter_map(Weak::upgrade) {
            watcher.changed(parker, change);
        }
    }
}

//! What happens to a process, for those who watch it (kqueue).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use sync::{Mutex, Parker};

use crate::Pid;

/// Something that happened to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcEvent {
    /// It was sent a signal.
    Signal(u32),
    /// It has made a child.
    Fork(Pid),
    /// It goes on as another program.
    Exec,
    /// It is gone.
    Exit,
}

/// Somebody who watches a process.
pub trait ProcWatcher: Send + Sync {
    /// Told with the list of watchers locked: it may only take leaf locks of its own and wake somebody.
    fn tell(&self, parker: &dyn Parker, event: ProcEvent);
}

/// Those who watch a process. Costs one load when nobody does.
///
/// The list's mutex is a leaf, held while watchers are told.
#[derive(Default)]
pub struct ProcNotes {
    count: AtomicUsize,
    watchers: Mutex<Vec<Weak<dyn ProcWatcher>>>,
}

impl ProcNotes {
    /// Adds a watcher, which stays until it is dropped.
    pub fn watch(&self, parker: &dyn Parker, watcher: &Arc<dyn ProcWatcher>) {
        let mut watchers = self.watchers.lock(parker);
        watchers.retain(|w| w.strong_count() != 0);
        watchers.push(Arc::downgrade(watcher));
        self.count.store(watchers.len(), Ordering::SeqCst);
    }

    /// Tells everybody.
    pub(crate) fn tell(&self, parker: &dyn Parker, event: ProcEvent) {
        if self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        for watcher in self.watchers.lock(parker).iter().filter_map(Weak::upgrade) {
            watcher.tell(parker, event);
        }
    }
}

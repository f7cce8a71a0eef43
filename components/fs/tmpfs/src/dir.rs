//! A directory.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};

use abi::Errno;
use hypercall::Host;
use sync::{Mutex, OffCpu, Parker, RwLock};
use vfs::{DirEntry, DirSink, NameHash, Vnode, VnodeKind};

use crate::node::Node;

/// The names of a directory, and the directory above it.
///
/// Both locks are leaves. The vfs has the directory's own lock around every operation, so they are never waited for.
pub(crate) struct Dir {
    names: RwLock<Names>,
    parent: Mutex<Weak<Vnode>>,
    host: Arc<dyn Host>,
}

/// Names by hash, to find one, and by the order in which they were made, to list them.
struct Names {
    by_name: HashMap<Arc<[u8]>, Entry, NameHash>,
    by_cookie: BTreeMap<u64, Listed>,
    next_cookie: u64,
}

struct Entry {
    vp: Arc<Vnode>,
    cookie: u64,
}

/// What reading the directory says of a name.
struct Listed {
    name: Arc<[u8]>,
    ino: u64,
    kind: VnodeKind,
}

/// Where reading goes on after `.` and after `..`; names come after that.
const AFTER_DOT: u64 = 1;
const AFTER_DOTDOT: u64 = 2;

impl Dir {
    pub(crate) fn new(host: &Arc<dyn Host>, hash: NameHash, parent: Weak<Vnode>) -> Dir {
        let names = Names {
            by_name: HashMap::with_hasher(hash),
            by_cookie: BTreeMap::new(),
            next_cookie: AFTER_DOTDOT,
        };
        Dir {
            names: RwLock::new(names),
            parent: Mutex::new(parent),
            host: host.clone(),
        }
    }

    /// The directory above; `None` for the root.
    pub(crate) fn parent(&self, parker: &dyn Parker) -> Option<Arc<Vnode>> {
        self.parent.lock(parker).upgrade()
    }

    pub(crate) fn set_parent(&self, parker: &dyn Parker, parent: &Arc<Vnode>) {
        *self.parent.lock(parker) = Arc::downgrade(parent);
    }

    pub(crate) fn get(&self, parker: &dyn Parker, name: &[u8]) -> Option<Arc<Vnode>> {
        let names = self.names.read(parker);
        names.by_name.get(name).map(|entry| entry.vp.clone())
    }

    pub(crate) fn is_empty(&self, parker: &dyn Parker) -> bool {
        self.names.read(parker).by_name.is_empty()
    }

    /// Adds a name. `EEXIST` when it is there.
    pub(crate) fn insert(
        &self,
        parker: &dyn Parker,
        name: &[u8],
        vp: &Arc<Vnode>,
    ) -> Result<(), Errno> {
        let mut names = self.names.write(parker);
        if names.by_name.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        let name: Arc<[u8]> = name.into();
        let cookie = names.next_cookie;
        names.next_cookie += 1;
        let listed = Listed {
            name: name.clone(),
            ino: vp.ino,
            kind: vp.kind,
        };
        names.by_cookie.insert(cookie, listed);
        let vp = vp.clone();
        names.by_name.insert(name, Entry { vp, cookie });
        Ok(())
    }

    /// Takes a name away; answers what it stood for.
    pub(crate) fn remove(&self, parker: &dyn Parker, name: &[u8]) -> Option<Arc<Vnode>> {
        let mut names = self.names.write(parker);
        let entry = names.by_name.remove(name)?;
        names.by_cookie.remove(&entry.cookie);
        if names.by_name.is_empty() {
            names.by_name.shrink_to_fit();
        }
        Some(entry.vp)
    }

    /// Lets a name stand for something else; answers what it stood for.
    pub(crate) fn replace(
        &self,
        parker: &dyn Parker,
        name: &[u8],
        vp: &Arc<Vnode>,
    ) -> Option<Arc<Vnode>> {
        let mut names = self.names.write(parker);
        let entry = names.by_name.get_mut(name)?;
        let old = std::mem::replace(&mut entry.vp, vp.clone());
        let cookie = entry.cookie;
        if let Some(listed) = names.by_cookie.get_mut(&cookie) {
            (listed.ino, listed.kind) = (vp.ino, vp.kind);
        }
        Some(old)
    }

    /// Hands the names from `cookie` on to the sink.
    pub(crate) fn list(
        &self,
        parker: &dyn Parker,
        dir: &Vnode,
        cookie: u64,
        sink: &mut DirSink<'_>,
    ) {
        let mut hand = |name: &[u8], ino, kind, next| {
            sink(DirEntry {
                ino,
                kind: Some(kind),
                next,
                name,
            })
        };
        let directory = VnodeKind::Directory;
        if cookie < AFTER_DOT && !hand(b".", dir.ino, directory, AFTER_DOT) {
            return;
        }
        let above = self.parent(parker).map_or(dir.ino, |parent| parent.ino);
        if cookie < AFTER_DOTDOT && !hand(b"..", above, directory, AFTER_DOTDOT) {
            return;
        }
        let names = self.names.read(parker);
        for (&at, entry) in names.by_cookie.range(cookie..) {
            if !hand(&entry.name, entry.ino, entry.kind, at + 1) {
                return;
            }
        }
    }

    fn take_all(&self) -> Vec<Arc<Vnode>> {
        let parker = OffCpu(&*self.host);
        let mut names = self.names.write(&parker);
        names.by_cookie.clear();
        names.by_name.drain().map(|(_, entry)| entry.vp).collect()
    }
}

impl Drop for Dir {
    /// Lets everything below go one by one: a tree may be deeper than a stack.
    fn drop(&mut self) {
        let mut below = self.take_all();
        while let Some(vp) = below.pop() {
            if let Some(vnode) = Arc::into_inner(vp)
                && let Some(dir) = vnode.node::<Node>().and_then(Node::as_dir)
            {
                below.append(&mut dir.take_all());
            }
        }
    }
}

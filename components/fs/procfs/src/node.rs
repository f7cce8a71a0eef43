//! Files and directories.

use std::any::Any;
use std::sync::Arc;

use abi::Errno;
use kern::{Curlwp, File};
use vfs::{Attr, DirEntry, DirSink, Mount, SetAttr, Vnode, VnodeKind, VnodeOps};

use crate::file::Text;
use crate::tree::{self, Entry};

/// Cookies of `.` and `..`; those of names are larger.
const DOT: u64 = 1;
const DOTDOT: u64 = 2;
const NAMES: u64 = 1 << 32;

/// A vnode's own: its path from the root on, and what is there.
struct Node {
    path: String,
    entry: Entry,
}

/// The number of a path: always the same, and for different paths different ones but for the oddest chance.
fn number(path: &str) -> u64 {
    let hash = path.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    hash >> 2 | NAMES
}

/// The root directory.
pub(crate) fn root(cx: &Curlwp<'_>, mount: &Arc<Mount>) -> Arc<Vnode> {
    make(cx, mount, String::new(), Entry::Directory)
}

fn make(cx: &Curlwp<'_>, mount: &Arc<Mount>, path: String, entry: Entry) -> Arc<Vnode> {
    let (kind, perm, nlink) = match &entry {
        Entry::Directory => (VnodeKind::Directory, 0o555, 2),
        Entry::Variable(_, true) => (VnodeKind::Regular, 0o644, 1),
        Entry::Variable(..) | Entry::Report(_) => (VnodeKind::Regular, 0o444, 1),
    };
    let now = Vnode::timestamp(cx);
    let attr = Attr {
        perm,
        nlink,
        atime: now,
        mtime: now,
        ctime: now,
        ..Attr::default()
    };
    let ino = number(&path);
    let node = Box::new(Node { path, entry });
    Vnode::new(&Arc::downgrade(mount), ino, kind, 0, attr, node)
}

impl Node {
    /// The vnode of a path.
    fn vnode(
        &self,
        cx: &Curlwp<'_>,
        dir: &Arc<Vnode>,
        path: String,
        entry: Entry,
    ) -> Result<Arc<Vnode>, Errno> {
        let mount = dir.mount().ok_or(Errno::ENODEV)?;
        match &*path {
            "" => mount.root().cloned(),
            _ => mount.vget(cx, number(&path), || {
                Ok(make(cx, &mount, path.clone(), entry))
            }),
        }
    }

    fn parent(&self) -> &str {
        self.path.rsplit_once('/').map_or("", |(parent, _)| parent)
    }
}

impl VnodeOps for Node {
    fn lookup(
        &self,
        cx: &Curlwp<'_>,
        dir: &Arc<Vnode>,
        name: &[u8],
    ) -> Result<Option<Arc<Vnode>>, Errno> {
        if self.entry != Entry::Directory {
            return Err(Errno::ENOTDIR);
        }
        if name == b".." {
            let parent = self.parent().to_owned();
            return self.vnode(cx, dir, parent, Entry::Directory).map(Some);
        }
        let Ok(name) = std::str::from_utf8(name) else {
            return Ok(None);
        };
        match tree::list(cx, &self.path).remove(name) {
            Some(entry) => self
                .vnode(cx, dir, tree::join(&self.path, name), entry)
                .map(Some),
            None => Ok(None),
        }
    }

    fn readdir(
        &self,
        cx: &Curlwp<'_>,
        dir: &Arc<Vnode>,
        cookie: u64,
        sink: &mut DirSink<'_>,
    ) -> Result<(), Errno> {
        let directory = |ino, next, name| DirEntry {
            ino,
            kind: Some(VnodeKind::Directory),
            next,
            name,
        };
        if cookie < DOT && !sink(directory(dir.ino, DOT, b".")) {
            return Ok(());
        }
        if cookie < DOTDOT && !sink(directory(number(self.parent()), DOTDOT, b"..")) {
            return Ok(());
        }
        // In the order of their numbers, which stay whatever comes and goes.
        let mut names: Vec<(u64, String, Entry)> = tree::list(cx, &self.path)
            .into_iter()
            .map(|(name, entry)| (number(&tree::join(&self.path, &name)), name, entry))
            .collect();
        names.sort_unstable_by_key(|(ino, ..)| *ino);
        for (ino, name, entry) in names.iter().filter(|(ino, ..)| *ino > cookie) {
            let kind = match entry {
                Entry::Directory => VnodeKind::Directory,
                Entry::Report(_) | Entry::Variable(..) => VnodeKind::Regular,
            };
            let taken = sink(DirEntry {
                ino: *ino,
                kind: Some(kind),
                next: *ino,
                name: name.as_bytes(),
            });
            if !taken {
                break;
            }
        }
        Ok(())
    }

    /// A size that is set is nothing (programs open with `O_TRUNC` to write); the rest stays as it is.
    fn setattr(&self, _: &Curlwp<'_>, _: &Arc<Vnode>, set: &SetAttr) -> Result<(), Errno> {
        match set.size {
            Some(_) => Ok(()),
            None => Err(Errno::EPERM),
        }
    }

    fn open(
        &self,
        cx: &Curlwp<'_>,
        _: &Arc<Vnode>,
        _: i32,
    ) -> Result<Option<Arc<dyn File>>, Errno> {
        match &self.entry {
            Entry::Directory => Ok(None),
            entry => Ok(Some(Arc::new(Text::open(cx, entry)?))),
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

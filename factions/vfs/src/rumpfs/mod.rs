//! rumpfs: the root file system, an ordinary small file system in memory. Its files' data stays in the page cache.

mod dev;

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use abi::Errno;
use hypercall::Host;
use kern::{Curlwp, PathBytes};
use sync::{Mutex, OffCpu, RwLock};

use crate::{
    Attr, DirEntry, DirSink, FsStat, FsType, Mount, MountArgs, MountOps, NameHash, NewNode, Rename,
    SetAttr, Vnode, VnodeKind, VnodeOps,
};

pub(crate) use dev::populate;

/// The type, for the list of those that can be mounted.
pub(crate) static RUMPFS: FsType = FsType {
    name: "rumpfs",
    aliases: &[],
    mount,
};

/// RUMPFS_MAGIC has never been given out; this is ramfs's, which it is most like.
const MAGIC: u64 = 0x8584_58f6;

/// A mounted rumpfs.
struct Rumpfs {
    next_ino: AtomicU64,
    hash: NameHash,
}

/// Makes one.
pub(crate) fn mount(cx: &Curlwp<'_>, args: &MountArgs<'_>) -> Result<Arc<Mount>, Errno> {
    make(cx, args, false)
}

/// The same with its names going through the name cache, as a driver's whose directories are on a disk.
#[cfg(test)]
pub(crate) static CACHED: FsType = FsType {
    name: "cachedfs",
    aliases: &[],
    mount: |cx, args| make(cx, args, true),
};

fn make(cx: &Curlwp<'_>, args: &MountArgs<'_>, namecache: bool) -> Result<Arc<Mount>, Errno> {
    let fs = Rumpfs {
        next_ino: AtomicU64::new(1),
        hash: NameHash::new(&**cx.kernel().host()),
    };
    Mount::new(args, "rumpfs", namecache, Box::new(fs), |mount| {
        let new = NewNode {
            kind: VnodeKind::Directory,
            perm: 0o755,
            uid: 0,
            gid: 0,
            rdev: 0,
            target: &[],
        };
        let root = node(cx, mount, &new)?;
        root.update(cx, |attr| attr.nlink = 2);
        Ok(root)
    })
}

impl MountOps for Rumpfs {
    fn statfs(&self, _: &Curlwp<'_>, _: &Mount) -> Result<FsStat, Errno> {
        Ok(FsStat {
            magic: MAGIC,
            bsize: 4096,
            namelen: 255,
            ..FsStat::default()
        })
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

type Xattrs = BTreeMap<Box<[u8]>, Box<[u8]>>;

/// What a vnode of this file system is: only directories and links have something of their own.
struct Node {
    target: PathBytes,
    /// The names of a directory. A leaf; nothing is dropped under it.
    names: RwLock<Names>,
    /// Extended attributes by name. A leaf.
    xattrs: Mutex<Xattrs>,
    host: Arc<dyn Host>,
}

impl Node {
    fn take_all(&self) -> Vec<Arc<Vnode>> {
        let off = OffCpu(&*self.host);
        let mut names = self.names.write(&off);
        names.by_cookie.clear();
        names.by_name.drain().map(|(_, (_, vp))| vp).collect()
    }
}

impl Drop for Node {
    /// Lets everything below go one by one: a tree may be deeper than a stack.
    fn drop(&mut self) {
        let mut below = self.take_all();
        while let Some(vp) = below.pop() {
            if let Some(vnode) = Arc::into_inner(vp)
                && let Some(node) = vnode.node::<Node>()
            {
                below.append(&mut node.take_all());
            }
        }
    }
}

/// The names of a directory: by name, and in the order in which they were made, which is the order of readdir.
struct Names {
    by_name: HashMap<Arc<[u8]>, (u64, Arc<Vnode>), NameHash>,
    by_cookie: BTreeMap<u64, (Arc<[u8]>, Arc<Vnode>)>,
    last: u64,
}

/// Cookies of `.` and `..`; names come after them.
const DOT: u64 = 1;
const DOTDOT: u64 = 2;

impl Names {
    fn insert(&mut self, name: &[u8], vp: &Arc<Vnode>) {
        let name: Arc<[u8]> = name.into();
        self.last += 1;
        let cookie = self.last + DOTDOT;
        self.by_name.insert(name.clone(), (cookie, vp.clone()));
        self.by_cookie.insert(cookie, (name, vp.clone()));
    }

    fn remove(&mut self, name: &[u8]) -> Option<Arc<Vnode>> {
        let (cookie, vp) = self.by_name.remove(name)?;
        self.by_cookie.remove(&cookie);
        Some(vp)
    }

    /// Lets a name stand for something else, in its place in the order.
    fn replace(&mut self, name: &[u8], vp: &Arc<Vnode>) -> Option<Arc<Vnode>> {
        let (cookie, entry) = self.by_name.get_mut(name)?;
        if let Some((_, entry)) = self.by_cookie.get_mut(cookie) {
            *entry = vp.clone();
        }
        Some(std::mem::replace(entry, vp.clone()))
    }
}

fn node(cx: &Curlwp<'_>, mount: &Arc<Mount>, new: &NewNode<'_>) -> Result<Arc<Vnode>, Errno> {
    let fs = mount.state::<Rumpfs>().ok_or(Errno::EIO)?;
    let ino = fs.next_ino.fetch_add(1, Ordering::Relaxed);
    let now = Vnode::timestamp(cx);
    let attr = Attr {
        perm: new.perm,
        nlink: 1 + u32::from(new.kind == VnodeKind::Directory),
        uid: new.uid,
        gid: new.gid,
        size: new.target.len() as u64,
        blocks: 0,
        atime: now,
        mtime: now,
        ctime: now,
        btime: now,
    };
    let names = Names {
        by_name: HashMap::with_hasher(fs.hash),
        by_cookie: BTreeMap::new(),
        last: 0,
    };
    let node = Node {
        target: new.target.into(),
        names: RwLock::new(names),
        xattrs: Mutex::default(),
        host: cx.kernel().host().clone(),
    };
    let (kind, rdev) = (new.kind, new.rdev);
    Ok(Vnode::new(
        &Arc::downgrade(mount),
        ino,
        kind,
        rdev,
        attr,
        Box::new(node),
    ))
}

fn of(vp: &Vnode) -> Result<&Node, Errno> {
    vp.node::<Node>().ok_or(Errno::EIO)
}

/// A directory's contents have changed, and the number of directories in it by so much.
fn changed(cx: &Curlwp<'_>, dir: &Vnode, dirs: i32) {
    let now = Vnode::timestamp(cx);
    dir.update(cx, |attr| {
        attr.nlink = attr.nlink.saturating_add_signed(dirs);
        (attr.mtime, attr.ctime) = (now, now);
    });
}

impl VnodeOps for Node {
    fn resident(&self) -> bool {
        true
    }

    fn lookup(
        &self,
        cx: &Curlwp<'_>,
        _: &Arc<Vnode>,
        name: &[u8],
    ) -> Result<Option<Arc<Vnode>>, Errno> {
        Ok(self
            .names
            .read(cx.cpu())
            .by_name
            .get(name)
            .map(|(_, vp)| vp.clone()))
    }

    fn create(
        &self,
        cx: &Curlwp<'_>,
        dir: &Arc<Vnode>,
        name: &[u8],
        new: &NewNode<'_>,
    ) -> Result<Arc<Vnode>, Errno> {
        let mount = dir.mount().ok_or(Errno::ENODEV)?;
        let vp = node(cx, &mount, new)?;
        self.names.write(cx.cpu()).insert(name, &vp);
        changed(cx, dir, i32::from(vp.is_dir()));
        Ok(vp)
    }

    fn link(
        &self,
        cx: &Curlwp<'_>,
        dir: &Arc<Vnode>,
        name: &[u8],
        vp: &Arc<Vnode>,
    ) -> Result<(), Errno> {
        self.names.write(cx.cpu()).insert(name, vp);
        let now = Vnode::timestamp(cx);
        vp.update(cx, |attr| {
            attr.nlink += 1;
            attr.ctime = now;
        });
        changed(cx, dir, 0);
        Ok(())
    }

    fn remove(
        &self,
        cx: &Curlwp<'_>,
        dir: &Arc<Vnode>,
        name: &[u8],
        vp: &Arc<Vnode>,
    ) -> Result<(), Errno> {
        let _name = self.names.write(cx.cpu()).remove(name);
        vp.unlinked(cx);
        changed(cx, dir, 0);
        Ok(())
    }

    fn rmdir(
        &self,
        cx: &Curlwp<'_>,
        dir: &Arc<Vnode>,
        name: &[u8],
        vp: &Arc<Vnode>,
    ) -> Result<(), Errno> {
        if !of(vp)?.names.read(cx.cpu()).by_name.is_empty() {
            return Err(Errno::ENOTEMPTY);
        }
        let _name = self.names.write(cx.cpu()).remove(name);
        vp.unlinked(cx);
        changed(cx, dir, -1);
        Ok(())
    }

    fn rename(&self, cx: &Curlwp<'_>, r: &Rename<'_>) -> Result<(), Errno> {
        let (from_dir, to_dir) = (of(r.from_dir)?, of(r.to_dir)?);
        let (from_is, to_is) = (
            i32::from(r.from.is_dir()),
            i32::from(r.to.is_some_and(|vp| vp.is_dir())),
        );
        if let (true, Some(to)) = (r.exchange, r.to) {
            let _a = from_dir.names.write(cx.cpu()).replace(r.from_name, to);
            let _b = to_dir.names.write(cx.cpu()).replace(r.to_name, r.from);
            changed(cx, r.from_dir, to_is - from_is);
            changed(cx, r.to_dir, from_is - to_is);
        } else {
            let _from = from_dir.names.write(cx.cpu()).remove(r.from_name);
            let _to = to_dir.names.write(cx.cpu()).remove(r.to_name);
            to_dir.names.write(cx.cpu()).insert(r.to_name, r.from);
            if let Some(to) = r.to {
                to.unlinked(cx);
            }
            changed(cx, r.from_dir, -from_is);
            changed(cx, r.to_dir, from_is - to_is);
        }
        let now = Vnode::timestamp(cx);
        r.from.update(cx, |attr| attr.ctime = now);
        Ok(())
    }

    fn readdir(
        &self,
        cx: &Curlwp<'_>,
        dir: &Arc<Vnode>,
        cookie: u64,
        sink: &mut DirSink<'_>,
    ) -> Result<(), Errno> {
        let above = crate::namei::above(cx, dir).map_or(dir.ino, |vp| vp.ino);
        let dots = [(DOT, dir.ino, b".".as_slice()), (DOTDOT, above, b"..")];
        for (next, ino, name) in dots.into_iter().filter(|dot| dot.0 > cookie) {
            if !sink(DirEntry {
                ino,
                kind: Some(VnodeKind::Directory),
                next,
                name,
            }) {
                return Ok(());
            }
        }
        let names = self.names.read(cx.cpu());
        for (&next, (name, vp)) in names.by_cookie.range(cookie.max(DOTDOT) + 1..) {
            if !sink(DirEntry {
                ino: vp.ino,
                kind: Some(vp.kind),
                next,
                name,
            }) {
                break;
            }
        }
        Ok(())
    }

    fn readlink(&self, _: &Curlwp<'_>, _: &Arc<Vnode>) -> Result<PathBytes, Errno> {
        Ok(self.target.clone())
    }

    fn setattr(&self, _: &Curlwp<'_>, _: &Arc<Vnode>, _: &SetAttr) -> Result<(), Errno> {
        Ok(())
    }

    fn getxattr(&self, cx: &Curlwp<'_>, _: &Arc<Vnode>, name: &[u8]) -> Result<Vec<u8>, Errno> {
        self.xattrs
            .lock(cx.cpu())
            .get(name)
            .map(|v| v.to_vec())
            .ok_or(Errno::ENODATA)
    }

    fn setxattr(
        &self,
        cx: &Curlwp<'_>,
        _: &Arc<Vnode>,
        name: &[u8],
        value: &[u8],
        create: bool,
        replace: bool,
    ) -> Result<(), Errno> {
        let mut xattrs = self.xattrs.lock(cx.cpu());
        match xattrs.contains_key(name) {
            true if create => return Err(Errno::EEXIST),
            false if replace => return Err(Errno::ENODATA),
            _ => {}
        }
        xattrs.insert(name.into(), value.into());
        Ok(())
    }

    fn listxattr(&self, cx: &Curlwp<'_>, _: &Arc<Vnode>) -> Result<Vec<u8>, Errno> {
        let mut out = Vec::new();
        for name in self.xattrs.lock(cx.cpu()).keys() {
            out.extend_from_slice(name);
            out.push(0);
        }
        Ok(out)
    }

    fn removexattr(&self, cx: &Curlwp<'_>, _: &Arc<Vnode>, name: &[u8]) -> Result<(), Errno> {
        self.xattrs
            .lock(cx.cpu())
            .remove(name)
            .map(drop)
            .ok_or(Errno::ENODATA)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

//! The operations on a file of tmpfs.

use std::any::Any;
use std::sync::{Arc, Weak};

use abi::Errno;
use kern::{Curlwp, PathBytes};
use vfs::pages::PAGE_SIZE;
use vfs::{Attr, DirSink, NewNode, Rename, SetAttr, Vnode, VnodeKind, VnodeOps};

use crate::dir::Dir;
use crate::fs::TmpFs;
use crate::xattr::Xattrs;

/// What a name adds to the size of its directory, as Linux has it.
const NAME_COST: u64 = 20;
/// 512-byte units of a page.
const PAGE_BLOCKS: u64 = PAGE_SIZE as u64 / 512;

/// A file of tmpfs: what its vnode does not say.
pub(crate) struct Node {
    fs: Arc<TmpFs>,
    body: Body,
    xattrs: Xattrs,
}

enum Body {
    Dir(Dir),
    Link(Box<[u8]>),
    Other,
}

impl Node {
    pub(crate) fn root(fs: &Arc<TmpFs>) -> Node {
        Node {
            fs: fs.clone(),
            body: Body::Dir(Dir::new(&fs.host, fs.hash, Weak::new())),
            xattrs: Xattrs::default(),
        }
    }

    fn new(fs: &Arc<TmpFs>, parent: &Arc<Vnode>, new: &NewNode<'_>) -> Node {
        let body = match new.kind {
            VnodeKind::Directory => Body::Dir(Dir::new(&fs.host, fs.hash, Arc::downgrade(parent))),
            VnodeKind::Symlink => Body::Link(new.target.into()),
            _ => Body::Other,
        };
        Node {
            fs: fs.clone(),
            body,
            xattrs: Xattrs::default(),
        }
    }

    pub(crate) fn as_dir(&self) -> Option<&Dir> {
        match &self.body {
            Body::Dir(dir) => Some(dir),
            _ => None,
        }
    }

    fn dir(&self) -> Result<&Dir, Errno> {
        self.as_dir().ok_or(Errno::ENOTDIR)
    }
}

/// The directory that a vnode of tmpfs is.
fn dir_of(vp: &Vnode) -> Result<&Dir, Errno> {
    vp.node::<Node>().ok_or(Errno::EXDEV)?.dir()
}

/// Notes in a directory's attributes that names came or went, `subdirs` of them directories.
fn names_changed(cx: &Curlwp<'_>, dir: &Vnode, names: i64, subdirs: i32) {
    let now = Vnode::timestamp(cx);
    dir.update(cx, |attr| {
        attr.size = attr.size.saturating_add_signed(names * NAME_COST as i64);
        attr.nlink = attr.nlink.saturating_add_signed(subdirs);
        (attr.mtime, attr.ctime) = (now, now);
    });
}

fn subdir(vp: &Vnode) -> i32 {
    i32::from(vp.is_dir())
}

impl VnodeOps for Node {
    fn lookup(
        &self,
        cx: &Curlwp<'_>,
        dir: &Arc<Vnode>,
        name: &[u8],
    ) -> Result<Option<Arc<Vnode>>, Errno> {
        let names = self.dir()?;
        if name == b".." {
            return Ok(Some(names.parent(cx.cpu()).unwrap_or_else(|| dir.clone())));
        }
        Ok(names.get(cx.cpu(), name))
    }

    fn create(
        &self,
        cx: &Curlwp<'_>,
        dir: &Arc<Vnode>,
        name: &[u8],
        new: &NewNode<'_>,
    ) -> Result<Arc<Vnode>, Errno> {
        let names = self.dir()?;
        let ino = self.fs.take_inode()?;
        let now = Vnode::timestamp(cx);
        let attr = Attr {
            perm: new.perm,
            nlink: if new.kind == VnodeKind::Directory {
                2
            } else {
                1
            },
            uid: new.uid,
            gid: new.gid,
            size: new.target.len() as u64,
            blocks: 0,
            atime: now,
            mtime: now,
            ctime: now,
            btime: now,
        };
        let node = Box::new(Node::new(&self.fs, dir, new));
        let vp = Vnode::new(dir.mount_weak(), ino, new.kind, new.rdev, attr, node);
        names
            .insert(cx.cpu(), name, &vp)
            .inspect_err(|_| self.fs.give_inode())?;
        names_changed(cx, dir, 1, subdir(&vp));
        Ok(vp)
    }

    fn link(
        &self,
        cx: &Curlwp<'_>,
        dir: &Arc<Vnode>,
        name: &[u8],
        vp: &Arc<Vnode>,
    ) -> Result<(), Errno> {
        if vp.attr(cx).nlink == u32::MAX {
            return Err(Errno::EMLINK);
        }
        self.dir()?.insert(cx.cpu(), name, vp)?;
        names_changed(cx, dir, 1, 0);
        let now = Vnode::timestamp(cx);
        vp.update(cx, |attr| {
            attr.nlink += 1;
            attr.ctime = now;
        });
        Ok(())
    }

    fn remove(
        &self,
        cx: &Curlwp<'_>,
        dir: &Arc<Vnode>,
        name: &[u8],
        vp: &Arc<Vnode>,
    ) -> Result<(), Errno> {
        self.dir()?.remove(cx.cpu(), name).ok_or(Errno::ENOENT)?;
        names_changed(cx, dir, -1, 0);
        vp.unlinked(cx);
        Ok(())
    }

    fn rmdir(
        &self,
        cx: &Curlwp<'_>,
        dir: &Arc<Vnode>,
        name: &[u8],
        vp: &Arc<Vnode>,
    ) -> Result<(), Errno> {
        if !dir_of(vp)?.is_empty(cx.cpu()) {
            return Err(Errno::ENOTEMPTY);
        }
        self.dir()?.remove(cx.cpu(), name).ok_or(Errno::ENOENT)?;
        names_changed(cx, dir, -1, -1);
        vp.unlinked(cx);
        Ok(())
    }

    fn rename(&self, cx: &Curlwp<'_>, r: &Rename<'_>) -> Result<(), Errno> {
        let (from_dir, to_dir) = (dir_of(r.from_dir)?, dir_of(r.to_dir)?);
        match r.to {
            Some(to) if Arc::ptr_eq(to, r.from) => return Ok(()),
            Some(to) if r.exchange => {
                from_dir.replace(cx.cpu(), r.from_name, to);
                to_dir.replace(cx.cpu(), r.to_name, r.from);
                let moved = subdir(to) - subdir(r.from);
                names_changed(cx, r.from_dir, 0, moved);
                names_changed(cx, r.to_dir, 0, -moved);
                moved_to(cx, to, r.from_dir);
            }
            None if r.exchange => return Err(Errno::ENOENT),
            Some(to) => {
                if to.is_dir() && !dir_of(to)?.is_empty(cx.cpu()) {
                    return Err(Errno::ENOTEMPTY);
                }
                from_dir.remove(cx.cpu(), r.from_name);
                to_dir.replace(cx.cpu(), r.to_name, r.from);
                names_changed(cx, r.from_dir, -1, -subdir(r.from));
                names_changed(cx, r.to_dir, 0, subdir(r.from) - subdir(to));
                to.unlinked(cx);
            }
            None => {
                to_dir.insert(cx.cpu(), r.to_name, r.from)?;
                from_dir.remove(cx.cpu(), r.from_name);
                names_changed(cx, r.from_dir, -1, -subdir(r.from));
                names_changed(cx, r.to_dir, 1, subdir(r.from));
            }
        }
        moved_to(cx, r.from, r.to_dir);
        Ok(())
    }

    fn readdir(
        &self,
        cx: &Curlwp<'_>,
        dir: &Arc<Vnode>,
        cookie: u64,
        sink: &mut DirSink<'_>,
    ) -> Result<(), Errno> {
        self.dir()?.list(cx.cpu(), dir, cookie, sink);
        Ok(())
    }

    fn readlink(&self, _: &Curlwp<'_>, _: &Arc<Vnode>) -> Result<PathBytes, Errno> {
        match &self.body {
            Body::Link(target) => Ok(PathBytes::from_slice(target)),
            _ => Err(Errno::EINVAL),
        }
    }

    fn setattr(&self, _: &Curlwp<'_>, _: &Arc<Vnode>, _: &SetAttr) -> Result<(), Errno> {
        Ok(())
    }

    fn resident(&self) -> bool {
        true
    }

    fn reserve(
        &self,
        cx: &Curlwp<'_>,
        vp: &Arc<Vnode>,
        _offset: u64,
        len: u64,
    ) -> Result<(), Errno> {
        let pages = len.div_ceil(PAGE_SIZE as u64);
        self.fs.take_pages(pages)?;
        vp.update(cx, |attr| attr.blocks += pages * PAGE_BLOCKS);
        Ok(())
    }

    fn unreserve(&self, cx: &Curlwp<'_>, vp: &Arc<Vnode>, pages: u64) {
        self.fs.give_pages(pages);
        vp.update(cx, |attr| {
            attr.blocks = attr.blocks.saturating_sub(pages * PAGE_BLOCKS);
        });
    }

    fn inactive(&self, _: &Curlwp<'_>, _: &Arc<Vnode>) -> Result<(), Errno> {
        self.fs.give_inode();
        Ok(())
    }

    fn getxattr(&self, cx: &Curlwp<'_>, vp: &Arc<Vnode>, name: &[u8]) -> Result<Vec<u8>, Errno> {
        self.xattrs.get(cx, vp, name)
    }

    fn setxattr(
        &self,
        cx: &Curlwp<'_>,
        vp: &Arc<Vnode>,
        name: &[u8],
        value: &[u8],
        create: bool,
        replace: bool,
    ) -> Result<(), Errno> {
        self.xattrs.set(cx, vp, name, value, create, replace)?;
        changed(cx, vp);
        Ok(())
    }

    fn listxattr(&self, cx: &Curlwp<'_>, _: &Arc<Vnode>) -> Result<Vec<u8>, Errno> {
        Ok(self.xattrs.list(cx))
    }

    fn removexattr(&self, cx: &Curlwp<'_>, vp: &Arc<Vnode>, name: &[u8]) -> Result<(), Errno> {
        self.xattrs.remove(cx, vp, name)?;
        changed(cx, vp);
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Notes that a file has come to another directory.
fn moved_to(cx: &Curlwp<'_>, vp: &Arc<Vnode>, dir: &Arc<Vnode>) {
    if let Ok(moved) = dir_of(vp) {
        moved.set_parent(cx.cpu(), dir);
    }
    changed(cx, vp);
}

fn changed(cx: &Curlwp<'_>, vp: &Vnode) {
    let now = Vnode::timestamp(cx);
    vp.update(cx, |attr| attr.ctime = now);
}

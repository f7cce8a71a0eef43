//! The operations on a file.

mod attr;
mod vnode;

use std::any::Any;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use abi::Errno;
use hypercall::Nanos;
use kern::{Curlwp, PathBytes};
use rsext4::{
    DeviceNumber, Ext4Error, FileName, FilePermissions, InodeInfo, InodeNumber, MutationContext,
    RenameOptions, SpecialInodeKind, XattrSetMode,
};
use sync::Mutex;
use vfs::{DirSink, NewNode, Rename, SetAttr, Vnode, VnodeKind, VnodeOps};

use crate::data::{Data, Stored};
use crate::dir;
use crate::fs::Fs;
use crate::inner::Inner;
use crate::inode::{Attributes, Times};
use crate::names::Names;
use crate::xattr;
use attr::{metadata, store_owner};
pub(crate) use vnode::{kind_of, load, root};
use vnode::{new_vnode, number};

/// What the driver keeps of a file in memory.
///
/// `data` and `names` are leaves; `data` is taken inside the mount-wide lock too.
pub(crate) struct Node {
    pub(crate) fs: Arc<Fs>,
    pub(crate) ino: InodeNumber,
    pub(crate) regular: bool,
    pub(crate) uses_extents: bool,
    pub(crate) data: Mutex<Data>,
    /// Blocks set aside for dirty pages.
    pub(crate) reserved: AtomicU64,
    /// Of a directory that was made on this mount: the names that it may have.
    names: Mutex<Option<Names>>,
    /// Where a symbolic link points, once it was asked.
    target: OnceLock<PathBytes>,
}

fn file_name(name: &[u8]) -> Result<FileName<'_>, Errno> {
    FileName::new(name).map_err(|_| {
        if name.len() > 255 {
            Errno::ENAMETOOLONG
        } else {
            Errno::EINVAL
        }
    })
}

fn permissions(perm: u32) -> Result<FilePermissions, Errno> {
    FilePermissions::new((perm & 0o7777) as u16).map_err(|_| Errno::EINVAL)
}

impl Node {
    /// Notes in a directory's vnode what an operation has changed; without an inode, nothing but the times.
    fn changed(cx: &Curlwp<'_>, dir: &Vnode, info: Option<&InodeInfo>, now: Nanos) {
        dir.update(cx, |attr| {
            if let Some(info) = info {
                attr.nlink = u32::from(info.links);
                attr.size = info.size;
                attr.blocks = info.blocks;
            }
            attr.mtime = now;
            attr.ctime = now;
        });
    }

    /// Says that a directory is about to get a name.
    fn learn_name(&self, cx: &Curlwp<'_>, name: FileName<'_>) {
        let mut names = self.names.lock(cx.cpu());
        if names
            .as_mut()
            .is_some_and(|names| !names.learn(name.as_bytes()))
        {
            *names = None;
        }
    }

    /// Takes a name away, of a directory or of something else.
    fn unname(
        &self,
        cx: &Curlwp<'_>,
        dir: &Arc<Vnode>,
        name: &[u8],
        vp: &Arc<Vnode>,
    ) -> Result<(), Errno> {
        let name = file_name(name)?;
        let now = Vnode::timestamp(cx);
        let (info, links) = self.fs.change(cx, now, |inner| {
            let outcome = if vp.is_dir() {
                inner.ext4()?.remove_empty_directory(self.ino, name)?
            } else {
                inner.ext4()?.unlink(self.ino, name)?
            };
            if outcome.remaining_links == 0 {
                inner.orphans.insert(outcome.inode);
            }
            inner.touch(outcome.inode);
            inner.touch(self.ino);
            // A name less changes nothing of a directory but its times; a directory less, its links.
            let info = vp
                .is_dir()
                .then(|| inner.ext4()?.inode(self.ino))
                .transpose()?;
            Ok((info, outcome.remaining_links))
        })?;
        Self::changed(cx, dir, info.as_ref(), now);
        vp.update(cx, |attr| {
            attr.nlink = u32::from(links);
            attr.ctime = now;
        });
        Ok(())
    }
}

/// Makes the inode that `new` describes.
fn make(
    inner: &mut Inner,
    parent: InodeNumber,
    name: FileName<'_>,
    new: &NewNode<'_>,
    perm: FilePermissions,
    device: DeviceNumber,
) -> Result<InodeInfo, Ext4Error> {
    let context = MutationContext::new(new.uid, new.gid, 0, 0);
    let ext4 = inner.ext4()?;
    let special = match new.kind {
        VnodeKind::Regular => return ext4.create_regular_file(context, parent, name, perm),
        VnodeKind::Directory => return ext4.create_directory(context, parent, name, perm),
        VnodeKind::Symlink => return ext4.create_symlink(context, parent, name, new.target),
        VnodeKind::Block => SpecialInodeKind::BlockDevice(device),
        VnodeKind::Character => SpecialInodeKind::CharacterDevice(device),
        VnodeKind::Fifo => SpecialInodeKind::Fifo,
        VnodeKind::Socket => SpecialInodeKind::Socket,
    };
    ext4.create_special_inode(context, parent, name, perm, special)
}

impl VnodeOps for Node {
    fn lookup(
        &self,
        cx: &Curlwp<'_>,
        dir: &Arc<Vnode>,
        name: &[u8],
    ) -> Result<Option<Arc<Vnode>>, Errno> {
        if let Some(names) = &*self.names.lock(cx.cpu())
            && !names.may_have(name)
        {
            return Ok(None);
        }
        let name = file_name(name)?;
        match self.fs.look(cx, |inner| inner.lookup(self.ino, name))? {
            Some(ino) => self.vget(cx, dir, ino).map(Some),
            None => Ok(None),
        }
    }

    fn create(
        &self,
        cx: &Curlwp<'_>,
        dir: &Arc<Vnode>,
        name: &[u8],
        new: &NewNode<'_>,
    ) -> Result<Arc<Vnode>, Errno> {
        let name = file_name(name)?;
        let perm = permissions(new.perm)?;
        let device = DeviceNumber::new(vfs::major(new.rdev), vfs::minor(new.rdev))
            .map_err(|_| Errno::EINVAL)?;
        if new.kind == VnodeKind::Symlink && new.target.len() as u64 >= self.fs.block_size() {
            return Err(Errno::ENAMETOOLONG);
        }
        self.learn_name(cx, name);
        let now = Vnode::timestamp(cx);
        let times = Times {
            atime: now,
            mtime: now,
            ctime: now,
            btime: now,
        };
        let attributes = Attributes {
            perm: new.perm,
            uid: new.uid,
            gid: new.gid,
            times,
        };
        let size = dir.attr(cx).size;
        let (info, of_dir) = self.fs.change(cx, now, |inner| {
            if new.kind == VnodeKind::Regular
                && let Some(info) = inner.create(self.ino, name, &attributes)?
            {
                return Ok((info, None));
            }
            let info = inner.naming(&self.fs.sb, self.ino, |inner| {
                make(inner, self.ino, name, new, perm, device)
            })?;
            inner.touch(info.number);
            inner.touch(self.ino);
            // The directory grows seldom, and asking for it takes as long as looking a name up.
            let grown =
                new.kind == VnodeKind::Directory || inner.stored_size(self.ino) != Some(size);
            let of_dir = grown.then(|| inner.ext4()?.inode(self.ino)).transpose()?;
            Ok((info, of_dir))
        })?;
        Self::changed(cx, dir, of_dir.as_ref(), now);
        let mount = dir.mount().ok_or(Errno::ENODEV)?;
        mount.vget(cx, u64::from(info.number.raw()), || {
            new_vnode(&self.fs, dir.mount_weak(), &info, times, true)
        })
    }

    fn link(
        &self,
        cx: &Curlwp<'_>,
        dir: &Arc<Vnode>,
        name: &[u8],
        vp: &Arc<Vnode>,
    ) -> Result<(), Errno> {
        let name = file_name(name)?;
        self.learn_name(cx, name);
        let target = number(vp)?;
        let now = Vnode::timestamp(cx);
        let (links, of_dir) = self.fs.change(cx, now, |inner| {
            let info = inner.naming(&self.fs.sb, self.ino, |inner| {
                inner.ext4()?.hard_link(target, self.ino, name)
            })?;
            inner.touch(target);
            inner.touch(self.ino);
            Ok((info.links, inner.ext4()?.inode(self.ino)?))
        })?;
        Self::changed(cx, dir, Some(&of_dir), now);
        vp.update(cx, |attr| {
            attr.nlink = u32::from(links);
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
        self.unname(cx, dir, name, vp)
    }

    fn rmdir(
        &self,
        cx: &Curlwp<'_>,
        dir: &Arc<Vnode>,
        name: &[u8],
        vp: &Arc<Vnode>,
    ) -> Result<(), Errno> {
        self.unname(cx, dir, name, vp)
    }

    fn rename(&self, cx: &Curlwp<'_>, rename: &Rename<'_>) -> Result<(), Errno> {
        let (from_name, to_name) = (file_name(rename.from_name)?, file_name(rename.to_name)?);
        let (from_dir, to_dir) = (number(rename.from_dir)?, number(rename.to_dir)?);
        let from = number(rename.from)?;
        let to = rename.to.map(|to| number(to)).transpose()?;
        if let Some(to_dir) = rename.to_dir.node::<Node>() {
            to_dir.learn_name(cx, to_name);
        }
        let options = if rename.exchange {
            RenameOptions::EXCHANGE
        } else {
            RenameOptions::REPLACE
        };
        let now = Vnode::timestamp(cx);
        let (of_from, of_to, left) = self.fs.change(cx, now, |inner| {
            let rename = |inner: &mut Inner| {
                inner.naming(&self.fs.sb, to_dir, |inner| {
                    let ext4 = inner.ext4()?;
                    ext4.rename(from_dir, from_name, to_dir, to_name, options)
                })
            };
            let outcome = if from_dir == to_dir && to.is_none() {
                inner.renaming(to_dir, to_name, rename)?
            } else {
                rename(inner)?
            };
            let left = outcome.replaced.map(|gone| gone.remaining_links);
            if let Some(gone) = outcome.replaced.filter(|gone| gone.remaining_links == 0) {
                inner.orphans.insert(gone.inode);
            }
            for ino in [Some(from_dir), Some(to_dir), Some(from), to]
                .into_iter()
                .flatten()
            {
                inner.touch(ino);
            }
            Ok((
                inner.ext4()?.inode(from_dir)?,
                inner.ext4()?.inode(to_dir)?,
                left,
            ))
        })?;
        Self::changed(cx, rename.from_dir, Some(&of_from), now);
        Self::changed(cx, rename.to_dir, Some(&of_to), now);
        rename.from.update(cx, |attr| attr.ctime = now);
        if let Some(to) = rename.to {
            to.update(cx, |attr| {
                attr.ctime = now;
                attr.nlink = left.map_or(attr.nlink, u32::from);
            });
        }
        Ok(())
    }

    fn readdir(
        &self,
        cx: &Curlwp<'_>,
        _dir: &Arc<Vnode>,
        cookie: u64,
        sink: &mut DirSink<'_>,
    ) -> Result<(), Errno> {
        dir::read(cx, &self.fs, self.ino, cookie, sink)
    }

    fn readlink(&self, cx: &Curlwp<'_>, vp: &Arc<Vnode>) -> Result<PathBytes, Errno> {
        if let Some(target) = self.target.get() {
            return Ok(target.clone());
        }
        let attr = vp.attr(cx);
        if attr.size > self.fs.block_size() {
            return Err(Errno::EUCLEAN);
        }
        let target = self.fs.look(cx, |inner| {
            let mut target = vec![0; attr.size as usize];
            let n = inner.ext4()?.read_inode(self.ino, 0, &mut target)?;
            inner.touch(self.ino);
            target.truncate(n);
            Ok(target)
        })?;
        if target.is_empty() || target.contains(&0) {
            return Err(Errno::EUCLEAN);
        }
        let target = PathBytes::from_vec(target);
        let _ = self.target.set(target.clone());
        Ok(target)
    }

    fn setattr(&self, cx: &Curlwp<'_>, vp: &Arc<Vnode>, set: &SetAttr) -> Result<(), Errno> {
        let attr = vp.attr(cx);
        let mut after = attr;
        set.apply(&mut after);
        if let Some(size) = set.size {
            self.truncate(cx, vp, after.mtime, size)?;
        }
        self.fs.change(cx, after.ctime, |inner| {
            if !self.store_quickly(inner, &after, None)? {
                inner.touch(self.ino);
                store_owner(inner, self.ino, &attr, &after)?;
                inner
                    .ext4()?
                    .update_inode_metadata(self.ino, metadata(&after)?)?;
            }
            self.data.lock(&self.fs.off()).stored = Stored::of(&after);
            Ok(())
        })
    }

    fn read_pages(
        &self,
        cx: &Curlwp<'_>,
        vp: &Arc<Vnode>,
        offset: u64,
        pages: &mut [&mut [u8]],
    ) -> Result<(), Errno> {
        Node::read_pages(self, cx, vp, offset, pages)
    }

    fn write_pages(
        &self,
        cx: &Curlwp<'_>,
        vp: &Arc<Vnode>,
        offset: u64,
        pages: &[&[u8]],
        size: u64,
    ) -> Result<(), Errno> {
        Node::write_pages(self, cx, vp, offset, pages, size)?;
        self.unreserve(pages.len() as u64);
        Ok(())
    }

    fn reserve(
        &self,
        cx: &Curlwp<'_>,
        _vp: &Arc<Vnode>,
        offset: u64,
        len: u64,
    ) -> Result<(), Errno> {
        Node::reserve(self, cx, offset, len)
    }

    fn unreserve(&self, _cx: &Curlwp<'_>, _vp: &Arc<Vnode>, pages: u64) {
        Node::unreserve(self, pages);
    }

    fn pending_blocks(&self) -> u64 {
        self.reserved.load(Ordering::Relaxed) * (self.fs.block_size() / 512)
    }

    fn punch(&self, cx: &Curlwp<'_>, vp: &Arc<Vnode>, offset: u64, len: u64) -> Result<(), Errno> {
        Node::punch(self, cx, vp, offset, len)
    }

    fn allocate(
        &self,
        cx: &Curlwp<'_>,
        vp: &Arc<Vnode>,
        offset: u64,
        len: u64,
    ) -> Result<(), Errno> {
        Node::allocate(self, cx, vp, offset, len)
    }

    fn write_attr(&self, cx: &Curlwp<'_>, vp: &Arc<Vnode>) -> Result<(), Errno> {
        let attr = vp.attr(cx);
        let stored = Stored::of(&attr);
        if self
            .data
            .lock(cx.cpu())
            .has(&stored, attr.size, self.regular)
        {
            return Ok(());
        }
        self.fs.change(cx, attr.ctime, |inner| {
            let size = Some(attr.size).filter(|_| self.regular);
            if !self.store_quickly(inner, &attr, size)? {
                inner.touch(self.ino);
                self.store_size(inner, attr.size)?;
                inner
                    .ext4()?
                    .update_inode_metadata(self.ino, metadata(&attr)?)?;
            }
            self.data.lock(&self.fs.off()).stored = stored;
            Ok(())
        })
    }

    fn fsync(&self, cx: &Curlwp<'_>, _vp: &Arc<Vnode>, _data_only: bool) -> Result<(), Errno> {
        self.fs.commit(cx)
    }

    fn inactive(&self, cx: &Curlwp<'_>, vp: &Arc<Vnode>) -> Result<(), Errno> {
        self.fs.unreserve(self.reserved.swap(0, Ordering::AcqRel));
        // The number may be used again from the moment that the inode is free.
        if let Some(mount) = vp.mount() {
            mount.forget(cx, vp.ino);
        }
        self.reap(cx, Vnode::timestamp(cx))
    }

    fn getxattr(&self, cx: &Curlwp<'_>, _vp: &Arc<Vnode>, name: &[u8]) -> Result<Vec<u8>, Errno> {
        let (namespace, name) = xattr::split(name)?;
        self.fs
            .look(cx, |inner| {
                inner.ext4()?.get_xattr(self.ino, namespace, name)
            })
            .map_err(xattr::error)
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
        let (namespace, name) = xattr::split(name)?;
        let mode = match (create, replace) {
            (true, _) => XattrSetMode::Create,
            (_, true) => XattrSetMode::Replace,
            _ => XattrSetMode::Upsert,
        };
        self.change_xattrs(cx, vp, |inner| {
            inner
                .ext4()?
                .set_xattr(self.ino, namespace, name, value, mode)
        })
    }

    fn listxattr(&self, cx: &Curlwp<'_>, _vp: &Arc<Vnode>) -> Result<Vec<u8>, Errno> {
        let names = self
            .fs
            .look(cx, |inner| inner.ext4()?.list_xattrs(self.ino))?;
        Ok(xattr::join(&names))
    }

    fn removexattr(&self, cx: &Curlwp<'_>, vp: &Arc<Vnode>, name: &[u8]) -> Result<(), Errno> {
        let (namespace, name) = xattr::split(name)?;
        self.change_xattrs(cx, vp, |inner| {
            inner.ext4()?.remove_xattr(self.ino, namespace, name)
        })
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Node {
    fn change_xattrs(
        &self,
        cx: &Curlwp<'_>,
        vp: &Vnode,
        f: impl FnOnce(&mut Inner) -> Result<(), Ext4Error>,
    ) -> Result<(), Errno> {
        let now = Vnode::timestamp(cx);
        let blocks = self
            .fs
            .change(cx, now, |inner| {
                inner.touch(self.ino);
                f(inner)?;
                Ok(inner.ext4()?.inode(self.ino)?.blocks)
            })
            .map_err(xattr::error)?;
        vp.update(cx, |attr| {
            attr.ctime = now;
            attr.blocks = blocks;
        });
        Ok(())
    }
}

//! The vnode of an inode.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock, Weak};

use abi::Errno;
use kern::Curlwp;
use rsext4::{DirectoryEntryType, Ext4Error, InodeFlags, InodeInfo, InodeNumber};
use sync::Mutex;
use vfs::{Attr, Mount, Vnode, VnodeKind};

use super::Node;
use crate::data::Data;
use crate::fs::Fs;
use crate::inode::Times;
use crate::names::Names;

/// The kind of a vnode for a kind of inode.
pub(crate) fn kind_of(kind: DirectoryEntryType) -> Option<VnodeKind> {
    Some(match kind {
        DirectoryEntryType::Unknown => return None,
        DirectoryEntryType::RegularFile => VnodeKind::Regular,
        DirectoryEntryType::Directory => VnodeKind::Directory,
        DirectoryEntryType::CharacterDevice => VnodeKind::Character,
        DirectoryEntryType::BlockDevice => VnodeKind::Block,
        DirectoryEntryType::Fifo => VnodeKind::Fifo,
        DirectoryEntryType::Socket => VnodeKind::Socket,
        DirectoryEntryType::Symlink => VnodeKind::Symlink,
    })
}

/// The number of a vnode's inode.
pub(super) fn number(vp: &Vnode) -> Result<InodeNumber, Errno> {
    u32::try_from(vp.ino)
        .ok()
        .and_then(|ino| InodeNumber::new(ino).ok())
        .ok_or(Errno::ESTALE)
}

/// The vnode of an inode. An inode that no file can have, or of a kind that there is not, is damage.
pub(super) fn new_vnode(
    fs: &Arc<Fs>,
    mount: &Weak<Mount>,
    info: &InodeInfo,
    times: Times,
    fresh: bool,
) -> Result<Arc<Vnode>, Errno> {
    let kind = kind_of(info.file_type()).ok_or(Errno::EUCLEAN)?;
    // A directory has no holes. One that says it is longer would have us look for its blocks for hours.
    if kind == VnodeKind::Directory && info.size > fs.sb.bytes() {
        return Err(Errno::EUCLEAN);
    }
    let rdev = info
        .device_number
        .map_or(0, |d| vfs::makedev(d.major(), d.minor()));
    let attr = Attr {
        perm: u32::from(info.mode) & 0o7777,
        nlink: u32::from(info.links),
        uid: info.uid,
        gid: info.gid,
        size: info.size.min(i64::MAX as u64),
        blocks: info.blocks,
        atime: times.atime,
        mtime: times.mtime,
        ctime: times.ctime,
        btime: times.btime,
    };
    let node = Node {
        fs: fs.clone(),
        ino: info.number,
        regular: kind == VnodeKind::Regular,
        uses_extents: info.flags.contains(InodeFlags::EXTENTS),
        data: Mutex::new(Data::new(&attr, fresh)),
        reserved: AtomicU64::new(0),
        names: Mutex::new((fresh && kind == VnodeKind::Directory).then(Names::default)),
        target: OnceLock::new(),
    };
    Ok(Vnode::new(
        mount,
        u64::from(info.number.raw()),
        kind,
        rdev,
        attr,
        Box::new(node),
    ))
}

/// The vnode of the root directory.
pub(crate) fn root(cx: &Curlwp<'_>, fs: &Arc<Fs>, mount: &Arc<Mount>) -> Result<Arc<Vnode>, Errno> {
    let (info, times) = fs.look(cx, |inner| {
        let root = inner.ext4()?.root_inode();
        inner.inode(root)
    })?;
    mount.vget(cx, u64::from(info.number.raw()), || {
        new_vnode(fs, &Arc::downgrade(mount), &info, times, false)
    })
}

/// A new vnode of an inode that a file handle names. `ESTALE` when the inode is no file's.
pub(crate) fn load(
    cx: &Curlwp<'_>,
    fs: &Arc<Fs>,
    mount: &Weak<Mount>,
    ino: u64,
) -> Result<Arc<Vnode>, Errno> {
    let ino = u32::try_from(ino).map_err(|_| Errno::ESTALE)?;
    let ino = InodeNumber::new(ino).map_err(|_| Errno::ESTALE)?;
    let sb = &fs.sb;
    if (ino.raw() < sb.first_ino && ino.raw() != 2) || ino.raw() > sb.inodes {
        return Err(Errno::ESTALE);
    }
    let (info, times) = fs.look(cx, |inner| inner.inode(ino))?;
    if info.links == 0 {
        return Err(Errno::ESTALE);
    }
    new_vnode(fs, mount, &info, times, false)
}

impl Node {
    /// The vnode of an inode that a directory names.
    pub(super) fn vget(
        &self,
        cx: &Curlwp<'_>,
        dir: &Vnode,
        ino: InodeNumber,
    ) -> Result<Arc<Vnode>, Errno> {
        let mount = dir.mount().ok_or(Errno::ENODEV)?;
        let sb = &self.fs.sb;
        if (ino.raw() < sb.first_ino && ino.raw() != 2) || ino.raw() > sb.inodes {
            return Err(Errno::EUCLEAN);
        }
        mount.vget(cx, u64::from(ino.raw()), || {
            let (info, times) = self.fs.look(cx, |inner| {
                let (info, times) = inner.inode(ino)?;
                if info.links == 0 && !inner.orphans.contains(&ino) {
                    return Err(
                        Ext4Error::corrupted().with_operation("directory:names_a_free_inode")
                    );
                }
                Ok((info, times))
            })?;
            new_vnode(&self.fs, dir.mount_weak(), &info, times, false)
        })
    }
}

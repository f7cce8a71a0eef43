//! Mounts and file-system types.

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock, Weak};

use abi::Errno;
use kern::Curlwp;
use sync::Mutex;

use crate::{Vnode, VnodeKind};

/// A type of file system that can be mounted. Drivers register one: [`crate::Vfs::register`].
pub struct FsType {
    /// Its name, as mount(2) takes it.
    pub name: &'static str,
    /// Other names for it.
    pub aliases: &'static [&'static str],
    /// Makes a mount of it: reads what it needs of the device, and answers the file system with its root.
    pub mount: fn(&Curlwp<'_>, &MountArgs<'_>) -> Result<Arc<Mount>, Errno>,
}

/// What mount(2) was given.
pub struct MountArgs<'a> {
    /// The source as given.
    pub source: &'a [u8],
    /// What the source names, where it names something in the kernel's tree (an etfs block node).
    pub device: Option<&'a Arc<Vnode>>,
    /// `MS_*` flags, as the mount will have them.
    pub flags: u64,
    /// The option string, as `size=16m,mode=755`.
    pub data: &'a [u8],
    /// Number for `st_dev`, unique in the kernel.
    pub dev: u64,
}

impl MountArgs<'_> {
    /// Whether the mount is to be read-only (`MS_RDONLY`).
    pub fn read_only(&self) -> bool {
        self.flags & 1 != 0
    }
}

/// What statfs(2) says of a mount. Counts are in blocks of `bsize` bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // the names are statfs(2)'s
pub struct FsStat {
    pub magic: u64,
    pub bsize: u32,
    pub blocks: u64,
    pub bfree: u64,
    pub bavail: u64,
    pub files: u64,
    pub ffree: u64,
    pub namelen: u32,
}

/// What a driver does for a whole mount.
#[allow(unused_variables)]
pub trait MountOps: Send + Sync + Any {
    /// Space and inodes.
    fn statfs(&self, cx: &Curlwp<'_>, mount: &Mount) -> Result<FsStat, Errno>;

    /// Makes everything stored so far durable; the vfs has written all pages and attributes before.
    fn sync(&self, cx: &Curlwp<'_>, mount: &Mount) -> Result<(), Errno> {
        Ok(())
    }

    /// Ends the mount: everything is synced, no vnode is in use. The image is left clean.
    fn unmount(&self, cx: &Curlwp<'_>, mount: &Mount) -> Result<(), Errno> {
        Ok(())
    }

    /// Changes between read-only and read-write (`MS_REMOUNT`).
    fn remount(&self, cx: &Curlwp<'_>, mount: &Mount, flags: u64) -> Result<(), Errno> {
        Ok(())
    }

    /// Itself, for the driver that knows what it is.
    fn as_any(&self) -> &dyn Any;
}

/// A mounted file system.
///
/// Locks: `nodes` comes after a vnode's locks and before a driver's own.
pub struct Mount {
    /// Number for `st_dev`.
    pub dev: u64,
    /// Preferred size of a transfer.
    pub blksize: u32,
    /// The type's name.
    pub fstype: &'static str,
    /// Names of this mount go through the name cache. A file system that keeps its directories in memory does without.
    pub namecache: bool,
    ops: Box<dyn MountOps>,
    root: OnceLock<Arc<Vnode>>,
    /// The vnodes of numbered files.
    nodes: Mutex<HashMap<u64, Weak<Vnode>>>,
}

impl Mount {
    /// A mount whose root is made by `root` from the mount (not yet usable) itself.
    pub fn new(
        args: &MountArgs<'_>,
        fstype: &'static str,
        namecache: bool,
        ops: Box<dyn MountOps>,
        root: impl FnOnce(&Arc<Mount>) -> Result<Arc<Vnode>, Errno>,
    ) -> Result<Arc<Mount>, Errno> {
        let mount = Arc::new(Mount {
            dev: args.dev,
            blksize: 4096,
            fstype,
            namecache,
            ops,
            root: OnceLock::new(),
            nodes: Mutex::default(),
        });
        let root = root(&mount)?;
        if root.kind != VnodeKind::Directory {
            return Err(Errno::ENOTDIR);
        }
        let _ = mount.root.set(root);
        Ok(mount)
    }

    /// The driver's operations.
    pub fn ops(&self) -> &dyn MountOps {
        &*self.ops
    }

    /// The driver's own state, when it is of this type.
    pub fn state<T: 'static>(&self) -> Option<&T> {
        self.ops.as_any().downcast_ref()
    }

    /// The root directory; there is one from the moment the mount is usable.
    pub fn root(&self) -> Result<&Arc<Vnode>, Errno> {
        self.root.get().ok_or(Errno::ENODEV)
    }

    /// The vnode of a file number: the one in memory, else one that `make` makes. `make` may block; two that race for
    /// one number get the same vnode.
    pub fn vget(
        &self,
        cx: &Curlwp<'_>,
        ino: u64,
        make: impl FnOnce() -> Result<Arc<Vnode>, Errno>,
    ) -> Result<Arc<Vnode>, Errno> {
        if let Some(vp) = self.nodes.lock(cx.cpu()).get(&ino).and_then(Weak::upgrade) {
            return Ok(vp);
        }
        let new = make()?;
        let mut nodes = self.nodes.lock(cx.cpu());
        if let Some(vp) = nodes.get(&ino).and_then(Weak::upgrade) {
            return Ok(vp);
        }
        nodes.insert(ino, Arc::downgrade(&new));
        Ok(new)
    }

    /// Forgets the vnode of a file number, because the file is freed and its number may be used again.
    pub fn forget(&self, cx: &Curlwp<'_>, ino: u64) {
        self.nodes.lock(cx.cpu()).remove(&ino);
    }
}

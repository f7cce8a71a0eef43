//! Mounts and file-system types.

use std::any::Any;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use abi::Errno;
use arc_swap::ArcSwapOption;
use kern::Curlwp;
use sync::Mutex;

use crate::{Vnode, VnodeKind};

/// The mount(2) flags that stay with a mount and that statfs(2) shows.
///
/// Times of last access: unless `MS_NOATIME` (or for directories `MS_NODIRATIME`) is set, reading sets them as `MS_RELATIME`
/// says, when the file was changed since or the time is a day old; `MS_STRICTATIME` is taken as that too. `MS_NOEXEC` is
/// kept and has no effect, because a kernel that is a library executes nothing.
const KEPT_FLAGS: u64 = abi::MS_RDONLY
    | abi::MS_NOSUID
    | abi::MS_NODEV
    | abi::MS_NOEXEC
    | abi::MS_SYNCHRONOUS
    | abi::MS_NOATIME
    | abi::MS_NODIRATIME
    | abi::MS_RELATIME;

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
    /// The vnode that the source names, where it names something in the kernel's tree (an etfs block node).
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

    /// The vnode of a file number that a handle has, when it is not in memory. A file system whose vnodes are all of its files
    /// need not find one.
    fn vget(&self, cx: &Curlwp<'_>, mount: &Arc<Mount>, ino: u64) -> Result<Arc<Vnode>, Errno> {
        Err(Errno::ESTALE)
    }

    /// Changes between read-only and read-write, and takes new options (`MS_REMOUNT`).
    fn remount(
        &self,
        cx: &Curlwp<'_>,
        mount: &Mount,
        flags: u64,
        data: &[u8],
    ) -> Result<(), Errno> {
        Ok(())
    }

    /// Itself, for the driver that knows what it is.
    fn as_any(&self) -> &dyn Any;
}

/// Parts of a mount's table of vnodes.
const NODE_SHARDS: usize = 16;

/// A mounted file system.
///
/// Locks: `renames` comes before every vnode's locks, `nodes` after them and before a driver's own.
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
    /// What was mounted, as given.
    pub source: Box<[u8]>,
    /// The block device that it is on.
    device: Option<Arc<Vnode>>,
    /// `MS_*` flags; remounting changes them.
    flags: AtomicU64,
    /// Open files, working directories and calls under way that keep it from being unmounted; [`CLOSED`] once it is.
    busy: AtomicU32,
    /// Those of them that may write: they keep it from being made read-only; [`CLOSED`] while that is done.
    writers: AtomicU32,
    /// It is out of the tree with uses left.
    detached: AtomicBool,
    /// The directory that it covers; `None` for the root, and when it is out of the tree.
    pub(crate) covered: ArcSwapOption<Vnode>,
    /// Serialises renames between directories, so that none moves a directory into itself.
    pub(crate) renames: Mutex<()>,
    /// The vnodes of numbered files, by the low bits of the number, so that those who look for different ones seldom meet.
    nodes: [Mutex<Nodes>; NODE_SHARDS],
}

/// In a count of uses: no more may come.
const CLOSED: u32 = 1 << 31;

/// Where a mount is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MountState {
    /// In the tree.
    Live,
    /// Out of the tree (`MNT_DETACH`), with uses left.
    Detached,
    /// Being unmounted, or unmounted: no new uses.
    Dead,
}

/// Vnodes by file number, and at how many to look for dead ones.
#[derive(Default)]
struct Nodes {
    by_number: HashMap<u64, Weak<Vnode>>,
    sweep_at: usize,
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
            source: args.source.into(),
            device: args.device.cloned(),
            flags: AtomicU64::new(args.flags & KEPT_FLAGS),
            busy: AtomicU32::new(0),
            writers: AtomicU32::new(0),
            detached: AtomicBool::new(false),
            covered: ArcSwapOption::empty(),
            renames: Mutex::default(),
            nodes: Default::default(),
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
        if let Some(vp) = self.shard(ino).lock(cx.cpu()).get(ino) {
            return Ok(vp);
        }
        let new = make()?;
        let mut nodes = self.shard(ino).lock(cx.cpu());
        if let Some(vp) = nodes.get(ino) {
            return Ok(vp);
        }
        nodes.insert(ino, &new);
        Ok(new)
    }

    fn shard(&self, ino: u64) -> &Mutex<Nodes> {
        &self.nodes[ino as usize % NODE_SHARDS]
    }

    /// Forgets the vnode of a file number, because the file is freed and its number may be used again.
    pub fn forget(&self, cx: &Curlwp<'_>, ino: u64) {
        self.shard(ino).lock(cx.cpu()).by_number.remove(&ino);
    }

    /// `MS_*` flags as they are now.
    #[inline]
    pub fn flags(&self) -> u64 {
        self.flags.load(Ordering::Relaxed)
    }

    /// Whether nothing may be changed in it.
    #[inline]
    pub fn read_only(&self) -> bool {
        self.flags() & abi::MS_RDONLY != 0
    }

    /// Makes it read-only or otherwise flagged. A driver uses it when it finds that it must not write.
    pub fn set_flags(&self, flags: u64) {
        self.flags.store(flags & KEPT_FLAGS, Ordering::Relaxed);
    }

    /// The block device that it is on, if it is on one of this kernel's.
    pub fn device(&self) -> Option<&Arc<Vnode>> {
        self.device.as_ref()
    }

    /// How many uses keep it from being unmounted.
    pub fn busy(&self) -> u32 {
        self.busy.load(Ordering::SeqCst) & !CLOSED
    }

    /// Lets no more uses come if there are none: the mount is dead. False when there are some.
    pub(crate) fn close_unused(&self) -> bool {
        self.busy
            .compare_exchange(0, CLOSED, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }

    /// Lets no more uses come, whatever uses there are.
    pub(crate) fn close(&self) {
        self.busy.fetch_or(CLOSED, Ordering::SeqCst);
    }

    /// Lets no more writers come if there are none. False when there are some.
    pub(crate) fn close_to_writers(&self) -> bool {
        self.writers
            .compare_exchange(0, CLOSED, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }

    /// Lets writers come again, as far as the flags do.
    pub(crate) fn open_to_writers(&self) {
        self.writers.fetch_and(!CLOSED, Ordering::SeqCst);
    }

    #[inline]
    pub(crate) fn life(&self) -> MountState {
        if self.busy.load(Ordering::SeqCst) & CLOSED != 0 {
            MountState::Dead
        } else if self.detached.load(Ordering::SeqCst) {
            MountState::Detached
        } else {
            MountState::Live
        }
    }

    pub(crate) fn set_detached(&self) {
        self.detached.store(true, Ordering::SeqCst);
    }

    /// The directory that it covers; `None` for the root, and when it is out of the tree.
    pub(crate) fn covered(&self) -> Option<Arc<Vnode>> {
        self.covered.load_full()
    }
}

impl Nodes {
    fn get(&self, ino: u64) -> Option<Arc<Vnode>> {
        self.by_number.get(&ino).and_then(Weak::upgrade)
    }

    /// Adds a vnode. Now and then those that have died are swept out, so that a walk over a whole image leaves nothing.
    fn insert(&mut self, ino: u64, vp: &Arc<Vnode>) {
        if self.by_number.len() >= self.sweep_at.max(256) {
            self.by_number.retain(|_, vp| vp.strong_count() != 0);
            self.sweep_at = self.by_number.len() * 2;
        }
        self.by_number.insert(ino, Arc::downgrade(vp));
    }
}

/// Keeps a mount from being unmounted, and one that writes also from being made read-only.
pub(crate) struct MountHold {
    mount: Arc<Mount>,
    held: AtomicBool,
    writes: bool,
}

impl MountHold {
    /// For a use that changes nothing. `ENODEV` when the mount is unmounted already.
    pub(crate) fn new(mount: Arc<Mount>) -> Result<MountHold, Errno> {
        let before = mount.busy.fetch_add(1, Ordering::SeqCst);
        let hold = MountHold {
            mount,
            held: AtomicBool::new(true),
            writes: false,
        };
        match before & CLOSED {
            0 => Ok(hold),
            _ => Err(Errno::ENODEV),
        }
    }

    /// For a use that changes something. `EROFS` when nothing may be.
    pub(crate) fn writing(mount: Arc<Mount>) -> Result<MountHold, Errno> {
        let mut hold = MountHold::new(mount)?;
        let before = hold.mount.writers.fetch_add(1, Ordering::SeqCst);
        hold.writes = true;
        if before & CLOSED != 0 || hold.mount.read_only() {
            return Err(Errno::EROFS);
        }
        Ok(hold)
    }

    pub(crate) fn mount(&self) -> &Arc<Mount> {
        &self.mount
    }

    /// Lets the mount go, now rather than when the value is dropped.
    pub(crate) fn release(&self) {
        if self.held.swap(false, Ordering::AcqRel) {
            if self.writes {
                self.mount.writers.fetch_sub(1, Ordering::SeqCst);
            }
            self.mount.busy.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl Drop for MountHold {
    fn drop(&mut self) {
        self.release();
    }
}

//! The vnode: a file, of whatever file system.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use abi::Stat;
use arc_swap::ArcSwapOption;
use hypercall::Nanos;
use kern::Curlwp;
use sync::{Mutex, RwLock};

use crate::{Attr, BlockDev, Mount, VnodeKind, VnodeOps};

/// A file in memory: what it is, its attributes, and the driver's operations for it. There is one vnode for a file as
/// long as anybody refers to it.
///
/// Locks, in this order: `dir` (names of a directory, an ancestor's before a descendant's), `io` (the data: shared to
/// read, exclusive to write, cut or append), a driver's own, and `attr`, a leaf.
pub struct Vnode {
    mount: Weak<Mount>,
    /// Inode number, unique in its mount.
    pub ino: u64,
    /// Its kind.
    pub kind: VnodeKind,
    /// What a device node stands for.
    pub rdev: u64,
    ops: Box<dyn VnodeOps>,
    attr: Mutex<Attr>,
    /// Attributes have changed that the driver has not stored.
    attr_dirty: AtomicBool,
    /// Guards the names of a directory.
    pub(crate) dir: RwLock<()>,
    /// Guards the data.
    pub(crate) io: RwLock<()>,
    /// What is mounted on this directory.
    pub(crate) mounted: ArcSwapOption<Mount>,
    /// Open files; with no name and no opener left the file is freed.
    pub(crate) opens: AtomicU32,
    /// Set by who frees the file, once.
    pub(crate) dead: AtomicBool,
    /// The block device behind a block node.
    pub(crate) block: OnceLock<Arc<BlockDev>>,
}

impl Vnode {
    /// A vnode of a mount, with a driver's operations. Drivers that number their files keep one vnode for each number
    /// by [`Mount::vget`](crate::Mount::vget).
    pub fn new(
        mount: &Weak<Mount>,
        ino: u64,
        kind: VnodeKind,
        rdev: u64,
        attr: Attr,
        ops: Box<dyn VnodeOps>,
    ) -> Arc<Vnode> {
        Arc::new(Vnode {
            mount: mount.clone(),
            ino,
            kind,
            rdev,
            ops,
            attr: Mutex::new(attr),
            attr_dirty: AtomicBool::new(false),
            dir: RwLock::default(),
            io: RwLock::default(),
            mounted: ArcSwapOption::empty(),
            opens: AtomicU32::new(0),
            dead: AtomicBool::new(false),
            block: OnceLock::new(),
        })
    }

    /// The mount it belongs to; `None` when that is unmounted already.
    pub fn mount(&self) -> Option<Arc<Mount>> {
        self.mount.upgrade()
    }

    /// The mount it belongs to, not counted.
    pub fn mount_weak(&self) -> &Weak<Mount> {
        &self.mount
    }

    /// The driver's operations.
    #[inline]
    pub fn ops(&self) -> &dyn VnodeOps {
        &*self.ops
    }

    /// The driver's own node, when it is of this type.
    #[inline]
    pub fn node<T: 'static>(&self) -> Option<&T> {
        self.ops.as_any().downcast_ref()
    }

    /// Whether it is a directory.
    #[inline]
    pub fn is_dir(&self) -> bool {
        self.kind == VnodeKind::Directory
    }

    /// Its attributes now.
    #[inline]
    pub fn attr(&self, cx: &Curlwp<'_>) -> Attr {
        *self.attr.lock(cx.cpu())
    }

    /// Changes its attributes in memory; the driver knows of the change or is about to.
    #[inline]
    pub fn update<R>(&self, cx: &Curlwp<'_>, f: impl FnOnce(&mut Attr) -> R) -> R {
        f(&mut self.attr.lock(cx.cpu()))
    }

    /// Changes its attributes in memory and leaves it to write-back to tell the driver (`write_attr`).
    pub fn update_later<R>(&self, cx: &Curlwp<'_>, f: impl FnOnce(&mut Attr) -> R) -> R {
        let result = self.update(cx, f);
        self.attr_dirty.store(true, Ordering::Release);
        result
    }

    /// Whether the driver has attributes to store; answers true once for each change.
    pub fn take_attr_dirty(&self) -> bool {
        self.attr_dirty.swap(false, Ordering::AcqRel)
    }

    /// A time stamp for a change that happens now.
    pub fn timestamp(cx: &Curlwp<'_>) -> Nanos {
        cx.now(hypercall::Clock::Realtime)
    }

    /// How many open files there are.
    pub fn opens(&self) -> u32 {
        self.opens.load(Ordering::Acquire)
    }

    /// The block device behind a block node: what a driver's mount reads and writes.
    pub fn block_device(&self) -> Option<&Arc<BlockDev>> {
        self.block.get()
    }

    /// stat(2).
    pub fn stat(&self, cx: &Curlwp<'_>) -> Stat {
        let (dev, blksize) = self.mount().map_or((0, 4096), |m| (m.dev, m.blksize));
        self.attr(cx)
            .stat(self.kind, dev, self.ino, self.rdev, blksize)
    }
}

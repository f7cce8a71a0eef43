//! The vnode: a file, of whatever file system.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use smallvec::SmallVec;

use abi::{Errno, Stat};
use arc_swap::ArcSwapOption;
use hypercall::Nanos;
use kern::Curlwp;
use kern::pipe::Pipe;
use kern::watch::{Change, ChangeHead};
use sync::{Mutex, RwLock};

use crate::lock::FileLocks;
use crate::pages::Pages;
use crate::{Attr, BlockDev, Mount, VnodeKind, VnodeOps};

/// A file name; the usual ones take no allocation.
pub(crate) type Name = SmallVec<[u8; 32]>;

/// Set in [`Vnode::opens`] by who frees the file: from then on nobody opens it.
const FREED: u32 = 1 << 31;

/// Where a directory hangs: the directory above it, and its name there.
#[derive(Clone)]
pub(crate) struct Parent {
    pub(crate) dir: ParentDir,
    pub(crate) name: Name,
}

/// A reference upwards. In a file system whose directories are in memory they hold what is in them, so a counted
/// reference would be a circle; elsewhere a directory in use keeps the ones above it.
#[derive(Clone)]
pub(crate) enum ParentDir {
    Held(Arc<Vnode>),
    Known(Weak<Vnode>),
}

/// A file in memory: what it is, its attributes, and the driver's operations for it. There is one vnode for a file as
/// long as anybody refers to it.
///
/// Locks, in this order: `dir` (names of a directory, an ancestor's before a descendant's), `io` (the data: shared to
/// read, exclusive to write, cut or append), a driver's own, and `attr` and `parent`, leaves.
pub struct Vnode {
    mount: Weak<Mount>,
    /// The mount's, so that stat(2) need not ask it.
    pub(crate) dev: u64,
    blksize: u32,
    in_memory: bool,
    /// Inode number, unique in its mount.
    pub ino: u64,
    /// Its kind.
    pub kind: VnodeKind,
    /// What a device node stands for.
    pub rdev: u64,
    ops: Box<dyn VnodeOps>,
    attr: Mutex<Attr>,
    /// Guards the names of a directory; of anything else its number of names.
    pub(crate) dir: RwLock<()>,
    /// The data in the cache, and its `io` lock.
    pub(crate) pages: Pages,
    /// What is mounted on this directory, and whether anything is.
    mounted: ArcSwapOption<Mount>,
    is_mount_point: AtomicBool,
    /// Open files; with no name and no opener left the file is freed.
    opens: AtomicU32,
    /// A directory that has been removed: nothing is found or made in it any more. Changes under `dir`.
    removed: AtomicBool,
    /// Where a directory hangs; `None` in the root of a mount. Of anything else the place in a watched directory, if it was
    /// found there.
    parent: Mutex<Option<Parent>>,
    has_parent: AtomicBool,
    /// Those who watch it, if anybody ever did.
    pub(crate) changes: OnceLock<Box<ChangeHead>>,
    /// It was found in a directory that is watched.
    pub(crate) in_watched_dir: AtomicBool,
    /// Locks on the file, if there ever were any.
    locks: OnceLock<Box<FileLocks>>,
    /// The bytes in a named pipe, as long as anybody has it open. A leaf.
    fifo: Mutex<Weak<Pipe>>,
    /// The block device behind a block node.
    pub(crate) block: OnceLock<Arc<BlockDev>>,
    /// What a process has bound to a socket node.
    pub(crate) socket: OnceLock<Box<Weak<kern::hooks::SocketPoint>>>,
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
        let (dev, blksize, in_memory) = mount
            .upgrade()
            .map_or((0, 4096, true), |m| (m.dev, m.blksize, !m.namecache));
        let pages = Pages::new(kind, &*ops);
        Arc::new(Vnode {
            mount: mount.clone(),
            dev,
            blksize,
            in_memory,
            ino,
            kind,
            rdev,
            ops,
            attr: Mutex::new(attr),
            dir: RwLock::default(),
            pages,
            mounted: ArcSwapOption::empty(),
            is_mount_point: AtomicBool::new(false),
            opens: AtomicU32::new(0),
            removed: AtomicBool::new(false),
            parent: Mutex::new(None),
            has_parent: AtomicBool::new(false),
            changes: OnceLock::new(),
            in_watched_dir: AtomicBool::new(false),
            locks: OnceLock::new(),
            fifo: Mutex::default(),
            block: OnceLock::new(),
            socket: OnceLock::new(),
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

    /// Notes in memory that a name of it is gone; a removed directory has no `.` left either.
    pub fn unlinked(&self, cx: &Curlwp<'_>) {
        let now = Vnode::timestamp(cx);
        self.update(cx, |attr| {
            attr.nlink = if self.is_dir() {
                0
            } else {
                attr.nlink.saturating_sub(1)
            };
            attr.ctime = now;
        });
    }

    /// Changes its attributes in memory and leaves it to write-back to tell the driver (`write_attr`).
    #[inline]
    pub fn update_later<R>(self: &Arc<Self>, cx: &Curlwp<'_>, f: impl FnOnce(&mut Attr) -> R) -> R {
        let result = self.update(cx, f);
        self.pages.attr_changed(cx, self);
        result
    }

    /// A time stamp for a change that happens now.
    pub fn timestamp(cx: &Curlwp<'_>) -> Nanos {
        cx.now(hypercall::Clock::Realtime)
    }

    /// How many open files there are.
    pub fn opens(&self) -> u32 {
        self.opens.load(Ordering::Acquire) & !FREED
    }

    /// Whether the file is freed: it has neither a name nor an opener.
    pub(crate) fn is_freed(&self) -> bool {
        self.opens.load(Ordering::Acquire) & FREED != 0
    }

    /// Counts one more open file. `ENOENT` when the file is freed already.
    pub(crate) fn opened(&self) -> Result<(), Errno> {
        let more = |n: u32| (n & FREED == 0).then_some(n + 1);
        self.opens
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, more)
            .map(drop)
            .map_err(|_| Errno::ENOENT)
    }

    /// Counts one more open file of a removed directory, which who stands in it may open still: its names are gone, and
    /// the driver is not asked for them, so it matters not whether it is freed already.
    pub(crate) fn opened_removed(&self) {
        self.opens.fetch_add(1, Ordering::AcqRel);
    }

    /// Counts one open file less.
    pub(crate) fn closed(self: &Arc<Self>, cx: &Curlwp<'_>) {
        self.opens.fetch_sub(1, Ordering::AcqRel);
        self.free_if_unused(cx);
    }

    /// Asks the driver something about a file that was found by a name, which may be gone meanwhile: until `f` is done the
    /// file is not freed. `ENOENT` when it is freed already.
    pub(crate) fn with_use<R>(
        self: &Arc<Self>,
        cx: &Curlwp<'_>,
        f: impl FnOnce() -> Result<R, Errno>,
    ) -> Result<R, Errno> {
        self.opened()?;
        let result = f();
        self.closed(cx);
        result
    }

    /// Frees the file when it has neither a name nor an opener; called after either may have gone. Nobody who could be told
    /// of an error waits for this; it is in the message buffer.
    pub(crate) fn free_if_unused(self: &Arc<Self>, cx: &Curlwp<'_>) {
        if self.attr.lock(cx.cpu()).nlink != 0 {
            return;
        }
        let ours = self
            .opens
            .compare_exchange(0, FREED, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok();
        if !ours {
            return;
        }
        self.changed(cx, Change::DELETE_SELF);
        crate::pages::discard(cx, self);
        if let Err(error) = self.ops().inactive(cx, self) {
            let fstype = self.mount().map_or("", |mount| mount.fstype);
            cx.log(format_args!("{fstype}: freeing file {}: {error}", self.ino));
        }
    }

    /// Whether this directory has been removed.
    #[inline]
    pub(crate) fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Acquire)
    }

    /// Says that this directory has been removed; by who holds its `dir` lock exclusively.
    pub(crate) fn set_removed(&self) {
        self.removed.store(true, Ordering::Release);
    }

    /// Notes where this directory hangs, if that is not known.
    #[inline]
    pub(crate) fn learn_parent(&self, cx: &Curlwp<'_>, dir: &Arc<Vnode>, name: &[u8]) {
        if self.is_dir() && !self.has_parent.load(Ordering::Acquire) {
            self.set_parent(cx, dir, name);
        }
    }

    /// Notes where this directory hangs now.
    pub(crate) fn set_parent(&self, cx: &Curlwp<'_>, dir: &Arc<Vnode>, name: &[u8]) {
        let new = Parent {
            dir: if self.in_memory {
                ParentDir::Known(Arc::downgrade(dir))
            } else {
                ParentDir::Held(dir.clone())
            },
            name: Name::from_slice(name),
        };
        let _old = self.parent.lock(cx.cpu()).replace(new);
        self.has_parent.store(true, Ordering::Release);
    }

    /// The directory that this one hangs in. `None` for the root of a mount, and for what is no directory.
    pub(crate) fn parent(&self, cx: &Curlwp<'_>) -> Option<Arc<Vnode>> {
        match &self.parent.lock(cx.cpu()).as_ref()?.dir {
            ParentDir::Held(dir) => Some(dir.clone()),
            ParentDir::Known(dir) => dir.upgrade(),
        }
    }

    /// The directory that this one hangs in, and its name there.
    pub(crate) fn place(&self, cx: &Curlwp<'_>) -> Option<(Arc<Vnode>, Name)> {
        let parent = self.parent.lock(cx.cpu()).clone()?;
        let dir = match parent.dir {
            ParentDir::Held(dir) => dir,
            ParentDir::Known(dir) => dir.upgrade()?,
        };
        Some((dir, parent.name))
    }

    /// Whether something is mounted on this directory.
    #[inline]
    pub(crate) fn is_mount_point(&self) -> bool {
        self.is_mount_point.load(Ordering::Acquire)
    }

    /// What is mounted on this directory.
    pub(crate) fn mounted(&self) -> Option<Arc<Mount>> {
        self.mounted.load_full()
    }

    /// Mounts on this directory, or takes away what was mounted.
    pub(crate) fn set_mounted(&self, mount: Option<Arc<Mount>>) {
        let is = mount.is_some();
        self.mounted.store(mount);
        self.is_mount_point.store(is, Ordering::Release);
    }

    /// The pipe that a fifo is.
    pub(crate) fn pipe(&self, cx: &Curlwp<'_>) -> Arc<Pipe> {
        let mut fifo = self.fifo.lock(cx.cpu());
        fifo.upgrade().unwrap_or_else(|| {
            let pipe = Pipe::new(cx);
            *fifo = Arc::downgrade(&pipe);
            pipe
        })
    }

    /// The locks on the file.
    pub(crate) fn locks(&self) -> &FileLocks {
        self.locks.get_or_init(Box::default)
    }

    /// The locks on the file, if there ever were any.
    #[inline]
    pub(crate) fn locks_if_any(&self) -> Option<&FileLocks> {
        self.locks.get().map(|locks| &**locks)
    }

    /// Whether this is the root of its mount.
    pub(crate) fn is_mount_root(&self) -> bool {
        self.is_dir() && !self.has_parent.load(Ordering::Acquire)
    }

    /// The block device behind a block node: what a driver's mount reads and writes.
    pub fn block_device(&self) -> Option<&Arc<BlockDev>> {
        self.block.get()
    }

    /// stat(2).
    #[inline]
    pub fn stat(&self, cx: &Curlwp<'_>) -> Stat {
        let pending = match self.kind {
            VnodeKind::Regular => self.ops().pending_blocks(),
            _ => 0,
        };
        let mut attr = self.attr(cx);
        attr.blocks = attr.blocks.saturating_add(pending);
        attr.stat(self.kind, self.dev, self.ino, self.rdev, self.blksize)
    }

    /// Whether its file system keeps directories in memory, so that names need no cache.
    #[inline]
    pub(crate) fn in_memory(&self) -> bool {
        self.in_memory
    }
}

impl Drop for Vnode {
    /// Lets the directories above go one by one: the chain may be longer than a stack is deep.
    fn drop(&mut self) {
        let mut above = self.parent.get_mut().take();
        while let Some(Parent {
            dir: ParentDir::Held(dir),
            ..
        }) = above
        {
            above = Arc::into_inner(dir).and_then(|mut vnode| vnode.parent.get_mut().take());
        }
    }
}

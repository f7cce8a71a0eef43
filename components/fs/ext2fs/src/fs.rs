//! A mounted file system: the one lock around rsext4, and what happens when something goes wrong inside.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use abi::{Errno, MS_RDONLY};
use hypercall::{Host, Nanos};
use kern::{Curlwp, Kernel};
use rsext4::{Ext4Error, Ext4ErrorKind, Ext4Result, InodeNumber};
use sync::{Mutex, OffCpu};
use vfs::{BlockDev, Mount, Vnode};

use crate::inner::Inner;
use crate::store::Store;
use crate::superblock::Super;

/// How much a mount still does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Health {
    /// All of it.
    Good = 0,
    /// The image is damaged: nothing more is changed; what was changed before is still made durable.
    Damaged = 1,
    /// The device failed on the way, or rsext4 broke down: nothing more is written.
    Dead = 2,
}

/// A mounted file system.
///
/// Locks: `inner`, the mount-wide one, comes after the vfs's and a node's own; `store` is taken inside it. An operation
/// holds `inner` without a virtual CPU.
pub(crate) struct Fs {
    pub(crate) dev: Arc<BlockDev>,
    pub(crate) sb: Super,
    pub(crate) writable: bool,
    store: Arc<Mutex<Store>>,
    inner: Mutex<Inner>,
    clock: Arc<AtomicU64>,
    host: Arc<dyn Host>,
    kernel: Weak<Kernel>,
    name: String,
    mount: OnceLock<Weak<Mount>>,
    health: AtomicU32,
    /// Free blocks as of the last operation, and those of them that dirty pages will take.
    free: AtomicU64,
    reserved: AtomicU64,
}

/// Why an operation did not do what it should.
pub(crate) enum Broken {
    Ext4(Ext4Error),
    /// The device, on the way to make changes durable.
    Commit(Errno),
    Panic,
}

/// The errno of an error of rsext4.
fn errno(error: Ext4Error) -> Errno {
    match error.kind() {
        Ext4ErrorKind::Io | Ext4ErrorKind::JournalAborted => Errno::EIO,
        Ext4ErrorKind::Corrupted
        | Ext4ErrorKind::ChecksumMismatch
        | Ext4ErrorKind::BadSuperblock => Errno::EUCLEAN,
        Ext4ErrorKind::UnsupportedFeature
        | Ext4ErrorKind::UnsupportedCapability
        | Ext4ErrorKind::Unsupported => Errno::EOPNOTSUPP,
        Ext4ErrorKind::ReadOnly => Errno::EROFS,
        Ext4ErrorKind::NoSpace => Errno::ENOSPC,
        Ext4ErrorKind::NoMemory => Errno::ENOMEM,
        Ext4ErrorKind::TooManyLinks => Errno::EMLINK,
        Ext4ErrorKind::PermissionDenied => Errno::EPERM,
        Ext4ErrorKind::NotFound => Errno::ENOENT,
        Ext4ErrorKind::AlreadyExists => Errno::EEXIST,
        Ext4ErrorKind::NotDirectory => Errno::ENOTDIR,
        Ext4ErrorKind::IsDirectory => Errno::EISDIR,
        Ext4ErrorKind::NotEmpty => Errno::ENOTEMPTY,
        Ext4ErrorKind::Busy => Errno::EBUSY,
        Ext4ErrorKind::FileTooLarge => Errno::EFBIG,
        Ext4ErrorKind::Overflow => Errno::EOVERFLOW,
        Ext4ErrorKind::InvalidMagic | Ext4ErrorKind::InvalidInput => Errno::EINVAL,
        _ => Errno::EIO,
    }
}

/// Runs code of rsext4, which should not panic but might on an image that nobody thought of.
fn contain<R>(f: impl FnOnce() -> Result<R, Broken>) -> Result<R, Broken> {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or(Err(Broken::Panic))
}

impl Fs {
    /// Opens the file system in a store. May block; called without a virtual CPU.
    pub(crate) fn open(
        cx: &Curlwp<'_>,
        dev: Arc<BlockDev>,
        store: Store,
        writable: bool,
        name: String,
        now: Nanos,
    ) -> Result<Fs, Errno> {
        let host = cx.kernel().host().clone();
        let kernel = Arc::downgrade(cx.kernel());
        let sb = store.sb.clone();
        let journaled = store.journaled();
        let store = Arc::new(Mutex::new(store));
        let clock = Arc::new(AtomicU64::new(now));
        let opened = contain(|| {
            let mut inner = Inner::open(store.clone(), host.clone(), clock.clone(), writable)
                .map_err(Broken::Ext4)?;
            if writable {
                if journaled {
                    store
                        .lock(&OffCpu(&*host))
                        .flag_recovery(true)
                        .map_err(Broken::Commit)?;
                }
                inner.commit(now)?;
                inner
                    .store(Store::keep_mount_count)
                    .map_err(Broken::Commit)?;
            }
            let free = inner.space().map_err(Broken::Ext4)?.blocks;
            Ok((inner, free))
        });
        let (inner, free) = opened.map_err(|broken| {
            cx.kernel().log(format_args!(
                "ext2fs: {name}: {broken}; mount refused. Way out: e2fsck"
            ));
            broken.errno()
        })?;
        Ok(Fs {
            dev,
            sb,
            writable,
            inner: Mutex::new(inner),
            store,
            clock,
            host,
            kernel,
            name,
            mount: OnceLock::new(),
            health: AtomicU32::new(Health::Good as u32),
            free: AtomicU64::new(free),
            reserved: AtomicU64::new(0),
        })
    }

    /// How to wait without a virtual CPU, as operations do.
    pub(crate) fn off(&self) -> OffCpu<'_> {
        OffCpu(&*self.host)
    }

    /// Says which mount this is.
    pub(crate) fn attach(&self, mount: &Arc<Mount>) {
        let _ = self.mount.set(Arc::downgrade(mount));
    }

    fn health(&self) -> Health {
        match self.health.load(Ordering::Acquire) {
            0 => Health::Good,
            1 => Health::Damaged,
            _ => Health::Dead,
        }
    }

    /// Something is wrong with the file system: from now on it is read-only, or not used at all.
    fn degrade(&self, health: Health, why: &dyn fmt::Display) {
        if self.health.fetch_max(health as u32, Ordering::AcqRel) >= health as u32 {
            return;
        }
        let what = match health {
            Health::Good => return,
            Health::Damaged => "is read-only from now on",
            Health::Dead => "is out of use; what was not synced is lost",
        };
        if let Some(kernel) = self.kernel.upgrade() {
            kernel.log(format_args!(
                "ext2fs: {}: {why}; the mount {what}. Way out: unmount, e2fsck",
                self.name
            ));
        }
        if let Some(mount) = self.mount.get().and_then(Weak::upgrade) {
            mount.set_flags(mount.flags() | MS_RDONLY);
        }
    }

    /// An operation that changes nothing.
    pub(crate) fn look<R>(
        &self,
        cx: &Curlwp<'_>,
        f: impl FnOnce(&mut Inner) -> Ext4Result<R>,
    ) -> Result<R, Errno> {
        if self.health() == Health::Dead {
            return Err(Errno::EUCLEAN);
        }
        let mut inner = self.inner.lock(cx.cpu());
        let result = cx.unscheduled(|| contain(|| self.operate(&mut inner, f)));
        drop(inner);
        self.judge(result)
    }

    /// An operation that changes the file system, at a time that goes into its inodes.
    pub(crate) fn change<R>(
        &self,
        cx: &Curlwp<'_>,
        now: Nanos,
        f: impl FnOnce(&mut Inner) -> Ext4Result<R>,
    ) -> Result<R, Errno> {
        match self.health() {
            Health::Good if self.writable => {}
            Health::Dead => return Err(Errno::EUCLEAN),
            _ => return Err(Errno::EROFS),
        }
        let mut inner = self.inner.lock(cx.cpu());
        let result = cx.unscheduled(|| {
            contain(|| {
                self.clock.store(now, Ordering::Relaxed);
                let result = self.operate(&mut inner, f)?;
                let free = inner.space().map_err(Broken::Ext4)?.blocks;
                self.free.store(free, Ordering::Relaxed);
                if inner.store(|store| store.is_full()) {
                    inner.commit(now)?;
                }
                Ok(result)
            })
        });
        drop(inner);
        self.judge(result)
    }

    fn operate<R>(
        &self,
        inner: &mut Inner,
        f: impl FnOnce(&mut Inner) -> Ext4Result<R>,
    ) -> Result<R, Broken> {
        inner.store(Store::begin_operation);
        f(inner).map_err(Broken::Ext4)
    }

    fn judge<R>(&self, result: Result<R, Broken>) -> Result<R, Errno> {
        result.map_err(|broken| {
            match &broken {
                Broken::Ext4(error) if error.is_corruption() => {
                    self.degrade(Health::Damaged, &broken);
                    self.store.lock(&OffCpu(&*self.host)).flag_errors();
                }
                Broken::Ext4(error) if error.kind() == Ext4ErrorKind::JournalAborted => {
                    self.degrade(Health::Dead, &broken);
                }
                Broken::Ext4(_) => {}
                Broken::Commit(_) | Broken::Panic => self.degrade(Health::Dead, &broken),
            }
            broken.errno()
        })
    }

    /// Makes everything done so far durable.
    pub(crate) fn commit(&self, cx: &Curlwp<'_>) -> Result<(), Errno> {
        if self.health() == Health::Dead {
            return Err(Errno::EIO);
        }
        if !self.writable {
            return Ok(());
        }
        let now = Vnode::timestamp(cx);
        let mut inner = self.inner.lock(cx.cpu());
        let result = cx.unscheduled(|| contain(|| inner.commit(now)));
        drop(inner);
        self.judge(result)
    }

    /// Commits inside of an operation, for one that must not overwrite what a crash would bring back.
    pub(crate) fn commit_within(&self, inner: &mut Inner) -> Ext4Result<()> {
        inner.settle()?;
        let now = self.clock.load(Ordering::Relaxed);
        inner
            .store(|store| store.commit(now))
            .map_err(|_| Ext4Error::journal_aborted().with_operation("commit"))
    }

    /// Ends the mount: frees what has no name, and leaves the image clean.
    pub(crate) fn close(&self, cx: &Curlwp<'_>) -> Result<(), Errno> {
        if !self.writable {
            return Ok(());
        }
        if self.health() == Health::Dead {
            return Err(Errno::EIO);
        }
        let now = Vnode::timestamp(cx);
        let clean = self.health() == Health::Good;
        let mut inner = self.inner.lock(cx.cpu());
        let result = cx.unscheduled(|| {
            contain(|| {
                self.clock.store(now, Ordering::Relaxed);
                // rsext4 refuses to unmount while files without a name wait to be freed.
                let orphans: Vec<InodeNumber> = inner.orphans.drain().collect();
                if clean && !inner.is_remounted() {
                    let ext4 = inner.ext4().map_err(Broken::Ext4)?;
                    for ino in orphans {
                        ext4.reap_unlinked_inode(ino).map_err(Broken::Ext4)?;
                    }
                    ext4.unmount().map_err(Broken::Ext4)?;
                } else {
                    inner.settle().map_err(Broken::Ext4)?;
                }
                inner
                    .store(|store| store.close(now))
                    .map_err(Broken::Commit)
            })
        });
        drop(inner);
        self.judge(result)
    }

    /// Turns a writable mount read-only, or back. What is on the disk while it is read-only is clean.
    pub(crate) fn remount(&self, cx: &Curlwp<'_>, read_only: bool) -> Result<(), Errno> {
        if !self.writable || self.health() != Health::Good {
            return if read_only { Ok(()) } else { Err(Errno::EROFS) };
        }
        let now = Vnode::timestamp(cx);
        let mut inner = self.inner.lock(cx.cpu());
        let result = cx.unscheduled(|| {
            contain(|| {
                self.clock.store(now, Ordering::Relaxed);
                inner.remount(read_only).map_err(Broken::Ext4)?;
                inner
                    .store(|store| {
                        store.commit(now)?;
                        if read_only {
                            store.rest()
                        } else {
                            store.wake()
                        }
                    })
                    .map_err(Broken::Commit)
            })
        });
        drop(inner);
        self.judge(result)
    }

    // Space.

    /// Bytes in a block.
    pub(crate) fn block_size(&self) -> u64 {
        u64::from(self.sb.block_size)
    }

    /// Sets blocks aside for dirty pages. `ENOSPC` when there are not enough; the superuser may take the last.
    pub(crate) fn reserve(&self, cx: &Curlwp<'_>, blocks: u64) -> Result<(), Errno> {
        let held_back = if cx.cred().is_superuser() {
            0
        } else {
            self.sb.reserved_blocks
        };
        let free = self.free.load(Ordering::Relaxed).saturating_sub(held_back);
        let fits = |reserved: u64| {
            let more = reserved + blocks;
            // Blocks that map the others come on top.
            (more + more / 64 + 4 <= free).then_some(more)
        };
        self.reserved
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, fits)
            .map(drop)
            .map_err(|_| Errno::ENOSPC)
    }

    /// Gives back what was set aside.
    pub(crate) fn unreserve(&self, blocks: u64) {
        let less = |reserved: u64| Some(reserved.saturating_sub(blocks));
        let _ = self
            .reserved
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
    }

    /// Free blocks that no dirty page will take.
    pub(crate) fn free(&self) -> u64 {
        let free = self.free.load(Ordering::Relaxed);
        free.saturating_sub(self.reserved.load(Ordering::Relaxed))
    }
}

impl Broken {
    fn errno(&self) -> Errno {
        match self {
            Broken::Ext4(error) => errno(*error),
            // The host's disk, where the image is a file with holes.
            Broken::Commit(Errno::ENOSPC) => Errno::ENOSPC,
            Broken::Commit(_) => Errno::EIO,
            Broken::Panic => Errno::EUCLEAN,
        }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Broken::Ext4(error) => write!(f, "{error}"),
            Broken::Commit(error) => write!(f, "changes could not be written: {error}"),
            Broken::Panic => f.write_str("the driver broke down over it"),
        }
    }
}

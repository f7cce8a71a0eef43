//! What a mount counts: pages and files, against its limits.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use abi::Errno;
use hypercall::Host;
use kern::Curlwp;
use vfs::pages::PAGE_SIZE;
use vfs::{FsStat, Mount, MountOps, NameHash};

use crate::options::Options;

/// The magic number of tmpfs in statfs(2).
const MAGIC: u64 = 0x0102_1994;
const NAME_MAX: u32 = 255;

/// A count with a limit, 0 for none.
struct Quota {
    used: AtomicU64,
    limit: AtomicU64,
}

impl Quota {
    fn new(limit: u64) -> Quota {
        Quota {
            used: AtomicU64::new(0),
            limit: AtomicU64::new(limit),
        }
    }

    fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    fn take(&self, count: u64) -> Result<(), Errno> {
        let used = self.used.fetch_add(count, Ordering::Relaxed) + count;
        if self.limit() != 0 && used > self.limit() {
            self.give(count);
            return Err(Errno::ENOSPC);
        }
        Ok(())
    }

    fn give(&self, count: u64) {
        self.used.fetch_sub(count, Ordering::Relaxed);
    }

    /// Whether a limit can be set now: there is not more than that already.
    fn allows(&self, limit: Option<u64>) -> bool {
        limit.is_none_or(|limit| limit == 0 || limit >= self.used())
    }

    fn set(&self, limit: Option<u64>) {
        if let Some(limit) = limit {
            self.limit.store(limit, Ordering::Relaxed);
        }
    }

    /// All and free ones, for statfs(2); 0 where there is no limit.
    fn stat(&self) -> (u64, u64) {
        (self.limit(), self.limit().saturating_sub(self.used()))
    }
}

/// A mounted tmpfs. No lock.
pub(crate) struct TmpFs {
    pages: Quota,
    inodes: Quota,
    next_ino: AtomicU64,
    pub(crate) host: Arc<dyn Host>,
    pub(crate) hash: NameHash,
}

impl TmpFs {
    pub(crate) fn new(cx: &Curlwp<'_>, options: &Options) -> TmpFs {
        let half = cx.kernel().memory_limit() / 2 / PAGE_SIZE as u64;
        TmpFs {
            pages: Quota::new(options.pages.unwrap_or(half)),
            inodes: Quota::new(options.inodes.unwrap_or(half)),
            next_ino: AtomicU64::new(1),
            host: cx.kernel().host().clone(),
            hash: NameHash::new(&**cx.kernel().host()),
        }
    }

    /// Counts one more file and gives it a number. Numbers are not used again.
    pub(crate) fn take_inode(&self) -> Result<u64, Errno> {
        self.inodes.take(1)?;
        Ok(self.next_ino.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn give_inode(&self) {
        self.inodes.give(1);
    }

    /// Counts pages of data. `ENOSPC` when there is no room for all of them.
    pub(crate) fn take_pages(&self, count: u64) -> Result<(), Errno> {
        self.pages.take(count)
    }

    pub(crate) fn give_pages(&self, count: u64) {
        self.pages.give(count);
    }
}

/// The mount's own reference to it; the files have the others.
pub(crate) struct Mounted(pub(crate) Arc<TmpFs>);

impl MountOps for Mounted {
    fn statfs(&self, _: &Curlwp<'_>, _: &Mount) -> Result<FsStat, Errno> {
        let (blocks, bfree) = self.0.pages.stat();
        let (files, ffree) = self.0.inodes.stat();
        Ok(FsStat {
            magic: MAGIC,
            bsize: PAGE_SIZE as u32,
            blocks,
            bfree,
            bavail: bfree,
            files,
            ffree,
            namelen: NAME_MAX,
        })
    }

    /// Takes new limits. `EINVAL` when there is more than that already.
    fn remount(&self, _: &Curlwp<'_>, _: &Mount, _: u64, data: &[u8]) -> Result<(), Errno> {
        let options = Options::parse(data)?;
        if !self.0.pages.allows(options.pages) || !self.0.inodes.allows(options.inodes) {
            return Err(Errno::EINVAL);
        }
        self.0.pages.set(options.pages);
        self.0.inodes.set(options.inodes);
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

//! What the faction keeps for the whole kernel.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use abi::Errno;
use hypercall::Host;
use kern::{Curlwp, FactionId};
use sync::{Mutex, OffCpu};

use crate::blkfail::BlkFail;
use crate::blockdev::sector_from_host;
use crate::devsw::{Device, Devsw};
use crate::etfs::Etfs;
use crate::lock::Waits;
use crate::mounts::Mounts;
use crate::namecache::{self, NameCache};
use crate::pages::PageCache;
use crate::{FsType, MountArgs, NameHash, Vnode, cwd, mounts, rumpfs, syscalls};

/// The faction's state. The lock of `types` is a leaf.
pub struct Vfs {
    types: Mutex<Vec<&'static FsType>>,
    next_dev: AtomicU64,
    next_cookie: AtomicU32,
    root: Arc<Vnode>,
    pub(crate) mounts: Mounts,
    pub(crate) names: NameCache,
    pub(crate) devsw: Devsw,
    pub(crate) etfs: Etfs,
    pub(crate) blkfail: Option<Arc<BlkFail>>,
    /// Bytes of a sector of block devices.
    pub(crate) sector: u32,
    pub(crate) waits: Waits,
    page_cache: Arc<PageCache>,
    host: Arc<dyn Host>,
}

impl Vfs {
    /// The state of this kernel's faction; `EOPNOTSUPP` where there is no vfs faction.
    #[inline]
    pub fn of<'a>(cx: &'a Curlwp<'_>) -> Result<&'a Vfs, Errno> {
        cx.kernel()
            .faction(FactionId::Vfs)
            .and_then(|state| state.downcast_ref())
            .ok_or(Errno::EOPNOTSUPP)
    }

    /// The page cache of this kernel.
    pub fn page_cache(&self) -> &Arc<PageCache> {
        &self.page_cache
    }

    /// Makes a type of file system mountable. `EEXIST` when there is one of that name.
    pub fn register(&self, cx: &Curlwp<'_>, fstype: &'static FsType) -> Result<(), Errno> {
        let mut types = self.types.lock(cx.cpu());
        if types.iter().any(|t| t.name == fstype.name) {
            return Err(Errno::EEXIST);
        }
        types.push(fstype);
        Ok(())
    }

    /// The type of a name. `ENODEV` when there is none.
    pub fn fstype(&self, cx: &Curlwp<'_>, name: &[u8]) -> Result<&'static FsType, Errno> {
        let is = |t: &&&FsType| {
            t.name.as_bytes() == name || t.aliases.iter().any(|a| a.as_bytes() == name)
        };
        self.types
            .lock(cx.cpu())
            .iter()
            .find(is)
            .copied()
            .ok_or(Errno::ENODEV)
    }

    /// The names of all types that can be mounted.
    pub fn type_names(&self, cx: &Curlwp<'_>) -> Vec<&'static str> {
        self.types.lock(cx.cpu()).iter().map(|t| t.name).collect()
    }

    /// The names of all types, as a message lists them.
    pub(crate) fn fstypes(&self, cx: &Curlwp<'_>) -> String {
        self.type_names(cx).join(", ")
    }

    /// Adds a driver of device nodes.
    pub fn add_device(&self, cx: &Curlwp<'_>, device: Device) {
        self.devsw.add(cx, device);
    }

    /// The root of the root file system.
    #[inline]
    pub fn root(&self) -> &Arc<Vnode> {
        &self.root
    }

    /// A number for a new mount's `st_dev`, never given out before.
    pub(crate) fn new_dev(&self) -> u64 {
        self.next_dev.fetch_add(1, Ordering::Relaxed)
    }

    /// A number that pairs the two names of a rename for those who watch; never 0.
    pub(crate) fn rename_cookie(&self) -> u32 {
        self.next_cookie.fetch_add(1, Ordering::Relaxed) % u32::MAX + 1
    }

    /// Makes the state for a kernel that boots, with rumpfs as root.
    pub(crate) fn attach(cx: &Curlwp<'_>) -> Result<(), Errno> {
        let kernel = cx.kernel();
        let entries = match kernel.host().param("RUMP_NVNODES") {
            None => namecache::DEFAULT_ENTRIES,
            Some(text) => text.parse().ok().filter(|&n| n > 0).ok_or_else(|| {
                let line = format!(
                    "rump: RUMP_NVNODES={text}: want how many files to keep in memory, as 4096\n"
                );
                kernel.host().console_write(line.as_bytes());
                Errno::EINVAL
            })?,
        };
        let args = MountArgs {
            source: b"rumpfs",
            device: None,
            flags: 0,
            data: b"",
            dev: 1,
        };
        let mount = rumpfs::mount(cx, &args)?;
        let vfs = Vfs {
            types: Mutex::new(vec![&rumpfs::RUMPFS]),
            next_dev: AtomicU64::new(2),
            next_cookie: AtomicU32::new(0),
            root: mount.root()?.clone(),
            mounts: Mounts::new(mount),
            names: NameCache::new(entries, NameHash::new(&**kernel.host())),
            devsw: Devsw::default(),
            etfs: Etfs::default(),
            blkfail: BlkFail::from_host(&**kernel.host())?,
            sector: sector_from_host(&**kernel.host())?,
            waits: Waits::default(),
            page_cache: Arc::default(),
            host: kernel.host().clone(),
        };
        kernel.set_faction(FactionId::Vfs, Arc::new(vfs));
        rumpfs::populate(cx, Vfs::of(cx)?)?;
        kernel.add_proc_hooks(cx, cwd::HOOKS);
        kernel.set_socket_names(&crate::socknames::VfsSocketNames);
        kernel.at_shutdown(cx, "unmounting file systems", mounts::unmount_all);
        syscalls::establish(cx)
    }
}

impl Drop for Vfs {
    fn drop(&mut self) {
        self.page_cache.let_go(&OffCpu(&*self.host));
    }
}

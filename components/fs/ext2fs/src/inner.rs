//! What the mount-wide lock guards: rsext4 and the store, and which of the two has the newest.
//!
//! rsext4 keeps caches above the store. After an operation of its own they may be newer ([`Inner::settle`] writes them
//! down); after one that was done without it ([`crate::quick`]) they are stale, and [`Inner::ext4`] opens it anew. That
//! takes as long as two or three operations, so nothing is done without rsext4 before enough came for which it would pay.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use abi::Errno;
use hypercall::{Host, Nanos};
use rsext4::{
    Clock, Ext4, Ext4Error, Ext4Result, Ext4Timestamp, FileName, InodeFlags, InodeInfo,
    InodeNumber, MountOptions, MountServices, MountedServices, NoopObserver,
};
use sync::{Mutex, OffCpu};

use crate::extents;
use crate::fs::Broken;
use crate::inode::{Attributes, Inode, Times};
use crate::layout::Extent;
use crate::quick::{self, Quick};
use crate::store::{Shim, Store, device_error};

pub(crate) type Driver = Ext4<Shim, MountedServices<(), NoopObserver>>;

/// Operations that could have been done without rsext4 before the first one is.
const WARM_UP: u32 = 8;

/// rsext4's clock: what [`Fs::run`] was told.
struct OurClock(Arc<AtomicU64>);

impl Clock for OurClock {
    fn now(&self) -> Ext4Result<Ext4Timestamp> {
        Ok(timestamp(self.0.load(Ordering::Relaxed)))
    }
}

/// A point in time as rsext4 takes it.
pub(crate) fn timestamp(time: Nanos) -> Ext4Timestamp {
    Ext4Timestamp::new((time / 1_000_000_000) as i64, (time % 1_000_000_000) as u32)
}

/// What is free.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Space {
    pub blocks: u64,
    pub inodes: u32,
}

/// See the module.
pub(crate) struct Inner {
    driver: Driver,
    store: Arc<Mutex<Store>>,
    host: Arc<dyn Host>,
    clock: Arc<AtomicU64>,
    /// Inodes that rsext4 may have newer in its cache than the store has.
    dirty: HashSet<u32>,
    /// Files without a name that have not been freed.
    pub(crate) orphans: HashSet<InodeNumber>,
    remounted: bool,
    /// Operations can be done without rsext4 at all: the file system has extents, and is written.
    able: bool,
    /// How many came that could have been.
    warm: u32,
    /// The store is newer than rsext4.
    stale: bool,
}

impl Inner {
    pub(crate) fn open(
        store: Arc<Mutex<Store>>,
        host: Arc<dyn Host>,
        clock: Arc<AtomicU64>,
        writable: bool,
    ) -> Ext4Result<Inner> {
        let driver = open_driver(&store, &host, &clock, writable)?;
        let able = writable && !store.lock(&OffCpu(&*host)).sb.block_mapped;
        Ok(Inner {
            driver,
            store,
            host,
            clock,
            dirty: HashSet::new(),
            orphans: HashSet::new(),
            remounted: false,
            able,
            warm: 0,
            stale: false,
        })
    }

    /// rsext4, up to date.
    pub(crate) fn ext4(&mut self) -> Ext4Result<&mut Driver> {
        if self.stale {
            self.try_store(Store::seal)?;
            self.driver = open_driver(&self.store, &self.host, &self.clock, true)?;
            self.stale = false;
            self.warm = 0;
        }
        Ok(&mut self.driver)
    }

    /// Whether an operation of those that can be done without rsext4 is to be.
    fn is_quick(&mut self) -> Ext4Result<bool> {
        if self.stale {
            return Ok(true);
        }
        // rsext4 frees all files without a name when it is opened.
        if !self.able || self.remounted || !self.orphans.is_empty() {
            return Ok(false);
        }
        if self.warm < WARM_UP {
            self.warm += 1;
            return Ok(false);
        }
        self.settle()?;
        self.stale = true;
        Ok(true)
    }

    /// Tries an operation without rsext4. `None` when that has to do it.
    pub(crate) fn try_quick<R>(
        &mut self,
        f: impl FnOnce(&mut Store) -> Result<Quick<R>, Errno>,
    ) -> Ext4Result<Option<R>> {
        if !self.is_quick()? {
            return Ok(None);
        }
        match self.try_store(f)? {
            Quick::Done(result) => Ok(Some(result)),
            Quick::Full => {
                // Of the next ones most will find room.
                self.ext4()?;
                self.warm = WARM_UP;
                Ok(None)
            }
            Quick::Other => Ok(None),
        }
    }

    /// Says that an operation of rsext4 has changed an inode.
    pub(crate) fn touch(&mut self, ino: InodeNumber) {
        self.dirty.insert(ino.raw());
    }

    /// An inode, with its times in full.
    pub(crate) fn inode(&mut self, ino: InodeNumber) -> Ext4Result<(InodeInfo, Times)> {
        if self.stale {
            let inode = self.try_store(|store| quick::inode(store, ino.raw()))?;
            if let Some(inode) = inode {
                return Ok((info(&inode)?, inode.times()));
            }
        }
        if self.dirty.contains(&ino.raw()) {
            self.settle()?;
        }
        let info = self.ext4()?.inode(ino)?;
        let inode = self.try_store(|store| store.raw_inode(ino.raw()))?;
        Ok((info, inode.times()))
    }

    /// Looks a name up in a directory.
    pub(crate) fn lookup(
        &mut self,
        dir: InodeNumber,
        name: FileName<'_>,
    ) -> Ext4Result<Option<InodeNumber>> {
        if self.stale {
            let found = self.try_store(|store| quick::lookup(store, dir.raw(), name.as_bytes()))?;
            if let Quick::Done(found) = found {
                return found.map(InodeNumber::new).transpose();
            }
        }
        let found = self.ext4()?.lookup_child(dir, name)?;
        Ok(found.map(|info| info.number))
    }

    /// The runs of blocks of a file that has extents, if rsext4 need not be asked for them.
    pub(crate) fn extents(&mut self, ino: InodeNumber) -> Ext4Result<Option<Vec<Extent>>> {
        if !self.stale {
            return Ok(None);
        }
        let extents = self.store(|store| {
            let inode = store.inode(ino.raw())?;
            extents::all(store, &inode)
        });
        // What is wrong with them is rsext4's to say.
        Ok(extents.ok())
    }

    /// Makes a regular file, if that can be done without rsext4.
    pub(crate) fn create(
        &mut self,
        dir: InodeNumber,
        name: FileName<'_>,
        attributes: &Attributes,
    ) -> Ext4Result<Option<InodeInfo>> {
        let made =
            self.try_quick(|store| quick::create(store, dir.raw(), name.as_bytes(), attributes))?;
        made.map(|inode| info(&inode)).transpose()
    }

    /// The size of a directory as an operation that has added a name has stored it.
    pub(crate) fn stored_size(&mut self, ino: InodeNumber) -> Option<u64> {
        let inode = self.store(|store| store.raw_inode(ino.raw())).ok()?;
        Some(inode.size())
    }

    /// What is free.
    pub(crate) fn space(&mut self) -> Ext4Result<Space> {
        if self.stale {
            return self.try_store(|store| {
                Ok(Space {
                    blocks: store.count_free()?,
                    inodes: store.count_free_inodes()?,
                })
            });
        }
        let stat = self.driver.statfs();
        Ok(Space {
            blocks: stat.free_blocks,
            inodes: stat.free_inodes,
        })
    }

    /// Turns rsext4 read-only, or back.
    pub(crate) fn remount(&mut self, read_only: bool) -> Ext4Result<()> {
        let ext4 = self.ext4()?;
        let mut options = ext4.options();
        options.readonly = read_only;
        ext4.remount(options)?;
        self.remounted = read_only;
        Ok(())
    }

    /// Whether it was turned read-only.
    pub(crate) fn is_remounted(&self) -> bool {
        self.remounted
    }

    /// Brings the store up to date.
    pub(crate) fn settle(&mut self) -> Ext4Result<()> {
        if self.stale {
            return self.try_store(Store::seal);
        }
        if !self.driver.options().readonly {
            self.driver.sync()?;
        }
        self.dirty.clear();
        Ok(())
    }

    /// Uses the store.
    pub(crate) fn store<R>(&self, f: impl FnOnce(&mut Store) -> R) -> R {
        f(&mut self.store.lock(&OffCpu(&*self.host)))
    }

    /// As [`store`](Self::store), for what may go wrong there.
    pub(crate) fn try_store<R>(
        &self,
        f: impl FnOnce(&mut Store) -> Result<R, Errno>,
    ) -> Ext4Result<R> {
        self.store(f).map_err(device_error)
    }

    /// Makes everything durable.
    pub(crate) fn commit(&mut self, now: Nanos) -> Result<(), Broken> {
        self.settle().map_err(Broken::Ext4)?;
        self.store(|store| store.commit(now))
            .map_err(Broken::Commit)
    }
}

fn open_driver(
    store: &Arc<Mutex<Store>>,
    host: &Arc<dyn Host>,
    clock: &Arc<AtomicU64>,
    writable: bool,
) -> Ext4Result<Driver> {
    let off = OffCpu(&**host);
    let size = store.lock(&off).sb.bytes();
    let shim = Shim {
        store: store.clone(),
        host: host.clone(),
        size,
        writable,
    };
    let options = MountOptions {
        readonly: !writable,
        replay_journal: false,
        block_validity: true,
    };
    let services = MountServices::new(OurClock(clock.clone()), (), NoopObserver);
    Ext4::mount(shim, services, options)
}

/// What rsext4 would say of an inode.
fn info(inode: &Inode) -> Ext4Result<InodeInfo> {
    let times = inode.times();
    let seconds = |time: Nanos| (time / 1_000_000_000) as u32;
    Ok(InodeInfo {
        number: InodeNumber::new(inode.number).map_err(|_| Ext4Error::corrupted())?,
        mode: inode.mode(),
        uid: inode.uid(),
        gid: inode.gid(),
        links: inode.links(),
        size: inode.size(),
        blocks: inode.blocks(),
        atime: seconds(times.atime),
        ctime: seconds(times.ctime),
        mtime: seconds(times.mtime),
        btime: seconds(times.btime),
        change_attribute: 0,
        project_id: 0,
        flags: InodeFlags::from_bits_truncate(inode.flags()),
        device_number: None,
    })
}

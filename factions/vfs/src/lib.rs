//! The vfs faction: files. Vnodes and mounts, looking names up, the name and page caches, the root file system
//! (rumpfs) with the host's files in it (etfs), file locks, and the system calls on files.
//!
//! It may use kern and what is below it, and knows no driver: a file system implements [`VnodeOps`] and [`MountOps`]
//! and registers an [`FsType`]. Start reading at [`Vnode`], then [`VnodeOps`].
//!
//! # The caches
//! - The **page cache** ([`pages`]) has the data of regular files, in pages of 4 KiB that belong to their vnode. A read that
//!   finds its pages takes one lock, the file's, shared. A reader that goes on in order has the next pages read in the
//!   background, up to 1 MiB at a time. Writes go to the cache and to the driver later: after 5 s, when 32 MiB (or an
//!   eighth of the limit) are dirty, or when asked by fsync(2), `O_SYNC`, `O_DIRECT`, sync(2) or an unmount. A quarter of
//!   the limit dirty, a writer has to wait for it.
//! - The **buffer cache** is the same for block nodes: their pages come from the [`BlockDev`] behind them. A file system
//!   mounted from a block node reads and writes its [`BlockDev`] itself, not by way of this cache.
//! - A file system that is **resident** ([`VnodeOps::resident`]: tmpfs, rumpfs) has its data in the page cache only.
//! - The **name cache** has names of directories that are not in memory anyway, those that do not exist included.
//!
//! The page cache takes at most `RUMP_MEMLIMIT` bytes, by default half of the host's memory. At the limit clean pages go
//! that were not used for longest; if there are none the oldest dirty ones are written first; if everything is resident
//! or cannot be written, a write answers `ENOSPC` or `ENOMEM`.
//!
//! Data that could not be written back stays in the cache and is tried again; every open file is told of the error once,
//! by its next fsync(2). Only an unmount gives such data up, and says so.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::disallowed_methods, clippy::disallowed_types))]

mod access;
mod attr;
mod blkfail;
mod blockdev;
mod cdev;
mod cwd;
mod devsw;
mod etfs;
mod file;
mod handle;
mod inotify;
mod lock;
mod mount;
mod mounts;
mod namecache;
mod namehash;
mod namei;
mod names;
mod ops;
pub mod pages;
mod rumpfs;
mod socknames;
mod syscalls;
#[cfg(test)]
mod tests;
#[allow(clippy::module_inception)]
mod vfs;
mod vnode;
mod watch;

pub use attr::{Attr, SetAttr, VnodeKind};
pub use blockdev::BlockDev;
pub use cdev::{CharDevice, add_char_device, make_device_node};
pub use devsw::{Device, DeviceOpen, major, makedev, minor};
pub use etfs::{EtfsBuilder, EtfsNode, EtfsType};
pub use mount::{FsStat, FsType, Mount, MountArgs, MountOps};
pub use namehash::{NameHash, NameHasher};
pub use ops::{DirEntry, DirSink, NewNode, Rename, VnodeOps};
pub use vfs::Vfs;
pub use vnode::Vnode;

use kern::{Component, Stage};

/// The faction itself, for the list of components.
pub static VFS: Component = Component {
    name: "vfs",
    stage: Stage::FactionVfs,
    requires: &[],
    init: Vfs::attach,
};

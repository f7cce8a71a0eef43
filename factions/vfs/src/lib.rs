//! The vfs faction: files. Vnodes and mounts, looking names up, the name and page caches, the root file system
//! (rumpfs) with the host's files in it (etfs), file locks, and the system calls on files.
//!
//! It may use kern and what is below it, and knows no driver: a file system implements [`VnodeOps`] and [`MountOps`]
//! and registers an [`FsType`]. Start reading at [`Vnode`], then [`VnodeOps`].
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::disallowed_methods, clippy::disallowed_types))]

mod access;
mod attr;
mod blockdev;
mod cwd;
mod devsw;
mod etfs;
mod file;
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

pub use attr::{Attr, SetAttr, VnodeKind};
pub use blockdev::BlockDev;
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

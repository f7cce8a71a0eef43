//! etfs: host files that appear in the kernel's root under keys of their own.
//!
//! A key is an absolute path; leading slashes collapse, the rest is compared with the rest of a path verbatim, so that
//! `/key//x` is not `/key/x`. Keys need no directories above them and no readdir shows them. A regular file and a
//! character device go to the host directly; a block device goes through the buffer cache, so that nobody else should
//! touch the host's file meanwhile. Below a directory's key are the host's files, with `DirSubdirs` all the way down.

mod dir;
mod file;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use abi::Errno;
use hypercall::{FileKind, OpenMode};
use kern::{Curlwp, Stage};
use sync::RwLock;

use crate::devsw::makedev;
use crate::namehash;
use crate::{Attr, BlockDev, Vfs, Vnode, VnodeKind, VnodeOps, pages};
use dir::HostDir;
use file::{HostBlock, HostFile, Window};

/// Major number of etfs devices, as in the reference.
const MAJOR: u32 = 197;

/// How a host file appears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EtfsType {
    /// A regular file.
    Regular,
    /// A block device.
    Block,
    /// A character device: the same bytes, not cached.
    Character,
    /// The files of one directory.
    Dir,
    /// A directory with everything below it.
    DirSubdirs,
}

/// A host file that is to appear under a key.
#[derive(Clone, Debug)]
pub struct EtfsNode {
    /// Where: an absolute path.
    pub key: Vec<u8>,
    /// The host's path.
    pub host_path: Vec<u8>,
    /// How.
    pub kind: EtfsType,
    /// First byte of the window that is seen.
    pub begin: u64,
    /// Bytes of the window; `None` for up to the end of the host's file.
    pub size: Option<u64>,
    /// Whether the host's file must not be written.
    pub read_only: bool,
}

impl EtfsNode {
    /// A whole host file.
    pub fn new(key: impl Into<Vec<u8>>, host_path: impl Into<Vec<u8>>, kind: EtfsType) -> EtfsNode {
        EtfsNode {
            key: key.into(),
            host_path: host_path.into(),
            kind,
            begin: 0,
            size: None,
            read_only: false,
        }
    }

    /// Key and path for a message.
    fn names(&self) -> (Cow<'_, str>, Cow<'_, str>) {
        (
            String::from_utf8_lossy(&self.key),
            String::from_utf8_lossy(&self.host_path),
        )
    }
}

/// Registering host files before the kernel boots.
pub trait EtfsBuilder {
    /// Makes a host file appear as soon as there is a root. One that cannot be registered makes boot fail, with the
    /// reason on the console.
    #[must_use]
    fn etfs(self, node: EtfsNode) -> Self;
}

impl EtfsBuilder for kern::Builder {
    fn etfs(self, node: EtfsNode) -> Self {
        self.step(Stage::FactionVfs, move |cx| {
            Vfs::of(cx)?.etfs_register(cx, &node).inspect_err(|error| {
                let (key, path) = node.names();
                let line = format!("rump: etfs: {key} for the host's {path}: {error}\n");
                cx.kernel().host().console_write(line.as_bytes());
            })
        })
    }
}

/// The registered keys.
///
/// The lock comes after those of a vnode's directory and before a driver's own; it is not held over a call of the host.
#[derive(Default)]
pub(crate) struct Etfs {
    /// A bit for each first component that keys have, so that other paths need not ask.
    firsts: AtomicU64,
    keys: RwLock<BTreeMap<Box<[u8]>, Arc<Vnode>>>,
    next_ino: AtomicU64,
}

/// Inode numbers of etfs nodes are those of rumpfs from here on.
const FIRST_INO: u64 = 1 << 40;

/// The bit of a first component.
#[inline]
fn first_bit(component: &[u8]) -> u64 {
    let word = namehash::short(component) ^ component.len() as u64;
    1 << (word.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58)
}

impl Etfs {
    /// Whether a path that begins so may be a key.
    #[inline]
    pub(crate) fn may_have(&self, first: &[u8]) -> bool {
        self.firsts.load(Ordering::Acquire) & first_bit(first) != 0
    }

    /// The node that the rest of a path names, and how much of it was the key. The whole rest is a key, or a directory's
    /// key goes up to one of its slashes.
    #[cold]
    pub(crate) fn find(
        &self,
        cx: &Curlwp<'_>,
        rest: &[u8],
    ) -> Result<Option<(Arc<Vnode>, usize)>, Errno> {
        let found = {
            let keys = self.keys.read(cx.cpu());
            let directory = || {
                let slashes = (0..rest.len()).rev().filter(|&at| rest[at] == b'/');
                slashes
                    .filter_map(|at| {
                        keys.get(&rest[..at])
                            .filter(|vp| vp.is_dir())
                            .map(|vp| (vp.clone(), at))
                    })
                    .next()
            };
            keys.get(rest)
                .map(|vp| (vp.clone(), rest.len()))
                .or_else(directory)
        };
        if let Some((vp, _)) = &found
            && let Some(file) = vp.node::<HostFile>()
        {
            file.refresh(cx, vp)?;
        }
        Ok(found)
    }

    fn new_ino(&self) -> u64 {
        FIRST_INO + self.next_ino.fetch_add(1, Ordering::Relaxed)
    }
}

/// A key as it is kept: `EINVAL` unless it is absolute, leading slashes gone.
fn canonical(key: &[u8]) -> Result<&[u8], Errno> {
    let slashes = key.iter().position(|&b| b != b'/').unwrap_or(key.len());
    if slashes == 0 || slashes == key.len() {
        return Err(Errno::EINVAL);
    }
    Ok(&key[slashes..])
}

impl Vfs {
    /// Makes a host file appear. `EINVAL` for a key that is not absolute or a window outside the file, `EEXIST` for a key
    /// that there is, `ENOTDIR` and `EISDIR` when the type does not fit the host's file; and what the host answers.
    pub fn etfs_register(&self, cx: &Curlwp<'_>, node: &EtfsNode) -> Result<(), Errno> {
        let key = canonical(&node.key)?;
        if self.etfs.keys.read(cx.cpu()).contains_key(key) {
            return Err(Errno::EEXIST);
        }
        let vp = self.etfs_vnode(cx, node).inspect_err(|error| {
            let (key, path) = node.names();
            cx.log(format_args!("etfs: {key} for the host's {path}: {error}"));
        })?;
        vp.learn_parent(cx, self.root(), key);
        let mut keys = self.etfs.keys.write(cx.cpu());
        if keys.contains_key(key) {
            return Err(Errno::EEXIST);
        }
        let first = key.split(|&b| b == b'/').next().unwrap_or(key);
        self.etfs
            .firsts
            .fetch_or(first_bit(first), Ordering::Release);
        keys.insert(key.into(), vp);
        Ok(())
    }

    /// Takes a key away. `ENOENT` when there is none, `EBUSY` while it is open or mounted.
    pub fn etfs_remove(&self, cx: &Curlwp<'_>, key: &[u8]) -> Result<(), Errno> {
        let key = canonical(key)?;
        let mut keys = self.etfs.keys.write(cx.cpu());
        let vp = keys.get(key).ok_or(Errno::ENOENT)?;
        // What is found in a directory holds that; pages in the buffer cache hold nothing off.
        let mounted = self.mounts.uses(cx, vp);
        let inside = vp.is_dir() && Arc::strong_count(vp) > 1;
        if vp.opens() != 0 || mounted || inside {
            return Err(Errno::EBUSY);
        }
        let vp = keys.remove(key);
        drop(keys);
        // Nobody has it open and nobody finds it any more: what the buffer cache has of it goes to the host now.
        match vp {
            Some(vp) if vp.block_device().is_some() => {
                let mark = pages::error_mark(&vp);
                let synced = match vp.block_device().is_some_and(|device| device.writable()) {
                    true => pages::fsync(cx, &vp, true, &mark),
                    false => Ok(()),
                };
                pages::discard(cx, &vp);
                synced
            }
            _ => Ok(()),
        }
    }

    fn etfs_vnode(&self, cx: &Curlwp<'_>, node: &EtfsNode) -> Result<Arc<Vnode>, Errno> {
        let host = cx.kernel().host();
        let info = cx.unscheduled(|| host.file_info(&node.host_path))?;
        let wants_dir = matches!(node.kind, EtfsType::Dir | EtfsType::DirSubdirs);
        match info.kind {
            FileKind::Directory if !wants_dir => return Err(Errno::EISDIR),
            FileKind::Directory => return Ok(self.host_dir(cx, node, info.mode)),
            _ if wants_dir => return Err(Errno::ENOTDIR),
            FileKind::Regular | FileKind::Block | FileKind::Character => {}
            FileKind::Other => return Err(Errno::EINVAL),
        }
        let size = match node.size {
            Some(size) => size,
            None => info.size.checked_sub(node.begin).ok_or(Errno::EINVAL)?,
        };
        node.begin
            .checked_add(size)
            .filter(|&end| end <= i64::MAX as u64)
            .ok_or(Errno::EINVAL)?;
        let ino = self.etfs.new_ino();
        let kept = if node.read_only { 0o555 } else { 0o777 };
        let window = Window {
            path: node.host_path.as_slice().into(),
            begin: node.begin,
            size: node.size,
            read_only: node.read_only,
        };
        let vnode = |kind, perm, rdev, ops| {
            self.etfs_make(cx, ino, kind, perm & kept, rdev, size, info.mtime, ops)
        };
        let rdev = makedev(MAJOR, (ino - FIRST_INO) as u32);
        Ok(match node.kind {
            EtfsType::Block => {
                let mode = OpenMode {
                    write: !node.read_only,
                    ..OpenMode::default()
                };
                // Two kernels that write one image destroy it.
                let file = cx.unscheduled(|| {
                    let file = host.open(&node.host_path, mode)?;
                    file.claim(node.begin, Some(size), !node.read_only)?;
                    Ok::<_, Errno>(file)
                })?;
                let vp = vnode(VnodeKind::Block, 0o660, rdev, Box::new(HostBlock));
                let device = BlockDev::new(file, node.begin, size, !node.read_only)
                    .with_sector(self.sector)
                    .with_faults(self.blkfail.clone());
                let _ = vp.block.set(Arc::new(device));
                vp
            }
            EtfsType::Character => {
                let window = Window {
                    size: Some(size),
                    ..window
                };
                vnode(
                    VnodeKind::Character,
                    0o660,
                    rdev,
                    Box::new(HostFile::new(window, None)),
                )
            }
            _ => vnode(
                VnodeKind::Regular,
                info.mode & 0o777,
                0,
                Box::new(HostFile::new(window, None)),
            ),
        })
    }

    fn host_dir(&self, cx: &Curlwp<'_>, node: &EtfsNode, mode: u32) -> Arc<Vnode> {
        let subdirs = node.kind == EtfsType::DirSubdirs;
        let ops = HostDir::new(&node.host_path, subdirs, node.read_only, None);
        let ino = self.etfs.new_ino();
        self.etfs_make(
            cx,
            ino,
            VnodeKind::Directory,
            mode & 0o777,
            0,
            0,
            0,
            Box::new(ops),
        )
    }

    #[allow(clippy::too_many_arguments)] // the fields of one vnode
    fn etfs_make(
        &self,
        cx: &Curlwp<'_>,
        ino: u64,
        kind: VnodeKind,
        perm: u32,
        rdev: u64,
        size: u64,
        mtime: u64,
        ops: Box<dyn VnodeOps>,
    ) -> Arc<Vnode> {
        let now = Vnode::timestamp(cx);
        let mtime = if mtime == 0 { now } else { mtime };
        let attr = Attr {
            perm,
            nlink: 1 + u32::from(kind == VnodeKind::Directory),
            size,
            blocks: size.div_ceil(512),
            atime: mtime,
            mtime,
            ctime: mtime,
            ..Attr::default()
        };
        Vnode::new(self.root().mount_weak(), ino, kind, rdev, attr, ops)
    }
}

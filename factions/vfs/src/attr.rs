//! What a vnode is, and its attributes.

use std::sync::Arc;

use abi::{Errno, Stat};
use hypercall::Nanos;
use kern::Curlwp;
use kern::watch::Change;

use crate::Vnode;

/// The kind of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the names say it
pub enum VnodeKind {
    Regular,
    Directory,
    Symlink,
    Block,
    Character,
    Fifo,
    Socket,
}

impl VnodeKind {
    /// The `S_IFMT` bits of a mode, inode(7).
    pub const fn mode_bits(self) -> u32 {
        match self {
            VnodeKind::Fifo => 0o010000,
            VnodeKind::Character => 0o020000,
            VnodeKind::Directory => 0o040000,
            VnodeKind::Block => 0o060000,
            VnodeKind::Regular => 0o100000,
            VnodeKind::Symlink => 0o120000,
            VnodeKind::Socket => 0o140000,
        }
    }

    /// The kind that the `S_IFMT` bits of a mode name.
    pub const fn from_mode(mode: u32) -> Option<VnodeKind> {
        Some(match mode & 0o170000 {
            0o010000 => VnodeKind::Fifo,
            0o020000 => VnodeKind::Character,
            0o040000 => VnodeKind::Directory,
            0o060000 => VnodeKind::Block,
            0o100000 => VnodeKind::Regular,
            0o120000 => VnodeKind::Symlink,
            0o140000 => VnodeKind::Socket,
            _ => return None,
        })
    }

    /// The `DT_*` value of a directory entry, readdir(3).
    pub const fn dirent_type(self) -> u8 {
        (self.mode_bits() >> 12) as u8
    }
}

/// The attributes of a vnode that can change. Kind, inode number and device are fixed and stand in the vnode.
/// Times are nanoseconds since the epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // the names are stat(2)'s
pub struct Attr {
    /// Permission bits with set-id and sticky, no kind.
    pub perm: u32,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    /// Bytes.
    pub size: u64,
    /// 512-byte units.
    pub blocks: u64,
    pub atime: Nanos,
    pub mtime: Nanos,
    pub ctime: Nanos,
    /// When the file was made; 0 where the file system does not say.
    pub btime: Nanos,
}

/// A change of attributes; `None` stays as it is. The vfs has checked permissions and fills in `ctime`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // as in Attr
pub struct SetAttr {
    pub perm: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime: Option<Nanos>,
    pub mtime: Option<Nanos>,
    pub ctime: Option<Nanos>,
}

impl SetAttr {
    /// Makes the change in `attr` (the block count is the file system's to set).
    pub fn apply(&self, attr: &mut Attr) {
        let SetAttr {
            perm,
            uid,
            gid,
            size,
            atime,
            mtime,
            ctime,
        } = *self;
        attr.perm = perm.unwrap_or(attr.perm);
        attr.uid = uid.unwrap_or(attr.uid);
        attr.gid = gid.unwrap_or(attr.gid);
        attr.size = size.unwrap_or(attr.size);
        attr.atime = atime.unwrap_or(attr.atime);
        attr.mtime = mtime.unwrap_or(attr.mtime);
        attr.ctime = ctime.unwrap_or(attr.ctime);
    }
}

/// Seconds and nanoseconds of a point in time since the epoch.
fn split(time: Nanos) -> (i64, i64) {
    ((time / 1_000_000_000) as i64, (time % 1_000_000_000) as i64)
}

impl Attr {
    /// The `struct stat` of a vnode with these attributes.
    pub fn stat(&self, kind: VnodeKind, dev: u64, ino: u64, rdev: u64, blksize: u32) -> Stat {
        let (st_atime, st_atime_nsec) = split(self.atime);
        let (st_mtime, st_mtime_nsec) = split(self.mtime);
        let (st_ctime, st_ctime_nsec) = split(self.ctime);
        Stat {
            st_dev: dev,
            st_ino: ino,
            st_nlink: u64::from(self.nlink),
            st_mode: kind.mode_bits() | self.perm,
            st_uid: self.uid,
            st_gid: self.gid,
            st_rdev: rdev,
            st_size: self.size as i64,
            st_blksize: i64::from(blksize),
            st_blocks: self.blocks as i64,
            st_atime,
            st_atime_nsec,
            st_mtime,
            st_mtime_nsec,
            st_ctime,
            st_ctime_nsec,
            ..Stat::default()
        }
    }
}

/// Makes a change of attributes, in the file system and in the vnode. Not for sizes, which the page cache must know of.
pub(crate) fn store(cx: &Curlwp<'_>, vp: &Arc<Vnode>, set: &SetAttr) -> Result<(), Errno> {
    debug_assert!(vp.opens() != 0, "it could be freed meanwhile");
    vp.ops().setattr(cx, vp, set)?;
    vp.update(cx, |attr| set.apply(attr));
    vp.changed(cx, Change::ATTRIB);
    Ok(())
}

//! The operations of a file system on one of its files: what a driver implements.

use std::any::Any;
use std::sync::Arc;

use abi::Errno;
use kern::{Curlwp, File, PathBytes};

use crate::{SetAttr, Vnode, VnodeKind};

/// What a new file is to be. The vfs has applied the umask and chosen the owner.
#[derive(Clone, Copy, Debug)]
pub struct NewNode<'a> {
    /// Its kind.
    pub kind: VnodeKind,
    /// Permission bits.
    pub perm: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number, for device nodes.
    pub rdev: u64,
    /// Where it points, for a symbolic link.
    pub target: &'a [u8],
}

/// One name of a directory.
#[derive(Clone, Copy, Debug)]
pub struct DirEntry<'a> {
    /// Inode number.
    pub ino: u64,
    /// Its kind, where the directory says it.
    pub kind: Option<VnodeKind>,
    /// Where reading goes on after this entry: not 0, and good as long as the directory is open, however it changes.
    pub next: u64,
    /// The name.
    pub name: &'a [u8],
}

/// Takes directory entries; answers whether it wants more. The entry for which it answers false was not taken.
pub type DirSink<'a> = dyn FnMut(DirEntry<'_>) -> bool + 'a;

/// A rename: both names with what they stand for now.
pub struct Rename<'a> {
    /// The directory it leaves.
    pub from_dir: &'a Arc<Vnode>,
    /// Its name there.
    pub from_name: &'a [u8],
    /// What is renamed.
    pub from: &'a Arc<Vnode>,
    /// The directory it goes to, perhaps the same.
    pub to_dir: &'a Arc<Vnode>,
    /// Its name there.
    pub to_name: &'a [u8],
    /// What has that name now; it goes, or changes places.
    pub to: Option<&'a Arc<Vnode>>,
    /// `RENAME_EXCHANGE`: the two change places.
    pub exchange: bool,
}

/// What a driver does for one file. Every method is given the vnode that it belongs to.
///
/// Locks held by the vfs: the directory's lock is held exclusively around `create`, `link`, `remove`, `rmdir` and
/// `rename` (both directories'), and shared around `lookup` and `readdir`; the file's I/O lock is held exclusively around
/// `setattr` that changes the size. Page operations are called with the pages held and no other lock. A driver's own
/// locks come after all of these.
///
/// The vnode's [`Attr`](crate::Attr) is the truth while the vnode lives: a driver fills it when it makes the vnode, changes
/// link counts, sizes and times of directories in its operations, and stores it when it is told to (`setattr`, `fsync`,
/// `write_attr`).
///
/// A method that waits for the host or does long work gives the virtual CPU up: [`sync::Cpu::unscheduled`].
#[allow(unused_variables)]
pub trait VnodeOps: Send + Sync + Any {
    /// The vnode of a name in this directory, `..` included; `None` when there is no such name.
    fn lookup(
        &self,
        cx: &Curlwp<'_>,
        dir: &Arc<Vnode>,
        name: &[u8],
    ) -> Result<Option<Arc<Vnode>>, Errno> {
        Err(Errno::ENOTDIR)
    }

    /// Makes a file (or directory, or link, or device node) under a name that does not exist.
    fn create(
        &self,
        cx: &Curlwp<'_>,
        dir: &Arc<Vnode>,
        name: &[u8],
        new: &NewNode<'_>,
    ) -> Result<Arc<Vnode>, Errno> {
        Err(Errno::EROFS)
    }

    /// Gives a file, no directory, of this file system one more name, which does not exist yet.
    fn link(
        &self,
        cx: &Curlwp<'_>,
        dir: &Arc<Vnode>,
        name: &[u8],
        vp: &Arc<Vnode>,
    ) -> Result<(), Errno> {
        Err(Errno::EROFS)
    }

    /// Takes a name of a file, no directory, away. Its data stays until [`inactive`](Self::inactive).
    fn remove(
        &self,
        cx: &Curlwp<'_>,
        dir: &Arc<Vnode>,
        name: &[u8],
        vp: &Arc<Vnode>,
    ) -> Result<(), Errno> {
        Err(Errno::EROFS)
    }

    /// Removes a directory. `ENOTEMPTY` when there is more in it than `.` and `..`.
    fn rmdir(
        &self,
        cx: &Curlwp<'_>,
        dir: &Arc<Vnode>,
        name: &[u8],
        vp: &Arc<Vnode>,
    ) -> Result<(), Errno> {
        Err(Errno::EROFS)
    }

    /// Renames within the file system. The vfs has checked kinds, permissions and that no directory goes into itself.
    fn rename(&self, cx: &Curlwp<'_>, rename: &Rename<'_>) -> Result<(), Errno> {
        Err(Errno::EROFS)
    }

    /// Hands entries from `cookie` on (0 is the start; `.` and `..` are among them) to the sink until it wants no more.
    fn readdir(
        &self,
        cx: &Curlwp<'_>,
        dir: &Arc<Vnode>,
        cookie: u64,
        sink: &mut DirSink<'_>,
    ) -> Result<(), Errno> {
        Err(Errno::ENOTDIR)
    }

    /// Where a symbolic link points.
    fn readlink(&self, cx: &Curlwp<'_>, vp: &Arc<Vnode>) -> Result<PathBytes, Errno> {
        Err(Errno::EINVAL)
    }

    /// Makes a change of attributes in the file system; the vfs makes it in the vnode after success. A smaller size
    /// frees what is beyond it, and bytes beyond it read as zero if the file grows again.
    fn setattr(&self, cx: &Curlwp<'_>, vp: &Arc<Vnode>, set: &SetAttr) -> Result<(), Errno> {
        Err(Errno::EROFS)
    }

    /// Fills buffers with the file's bytes from `offset` (a multiple of the page size) on: whole pages, which lie one
    /// behind the other in the file. What is beyond the end of the file or in a hole is zero.
    fn read_pages(
        &self,
        cx: &Curlwp<'_>,
        vp: &Arc<Vnode>,
        offset: u64,
        pages: &mut [&mut [u8]],
    ) -> Result<(), Errno> {
        Err(Errno::EINVAL)
    }

    /// Stores pages of the file from `offset` on; bytes beyond `size`, the file's present size, are not part of the
    /// file. Space was reserved before.
    fn write_pages(
        &self,
        cx: &Curlwp<'_>,
        vp: &Arc<Vnode>,
        offset: u64,
        pages: &[&[u8]],
        size: u64,
    ) -> Result<(), Errno> {
        Err(Errno::EROFS)
    }

    /// Makes sure that pages about to be dirty will find space when they are written, so that `ENOSPC` is told by
    /// write(2). Called once for each page that becomes dirty; `offset` is a multiple of the page size, and `len` ends
    /// inside the last page at most where the file will end. The file's `io` lock is held.
    fn reserve(
        &self,
        cx: &Curlwp<'_>,
        vp: &Arc<Vnode>,
        offset: u64,
        len: u64,
    ) -> Result<(), Errno> {
        Ok(())
    }

    /// Pages that were dirty, and so reserved, are gone before they were written (cut, punched, discarded): what
    /// [`reserve`](Self::reserve) set aside for them is free again. Of a resident file every page is such a page.
    fn unreserve(&self, cx: &Curlwp<'_>, vp: &Arc<Vnode>, pages: u64) {}

    /// What is set aside and not yet part of the file's blocks, in units of 512 bytes: `st_blocks` counts it, because
    /// programs (tar among them) take a file without blocks for one without data. Asked on each stat(2) of a regular
    /// file: without a lock.
    fn pending_blocks(&self) -> u64 {
        0
    }

    /// Frees the space of a range inside the file, whose bytes read as zero from then on. Not asked of a resident file.
    fn punch(&self, cx: &Curlwp<'_>, vp: &Arc<Vnode>, offset: u64, len: u64) -> Result<(), Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Finds space for a range, which may be beyond the end of the file. Not asked of a resident file.
    fn allocate(
        &self,
        cx: &Curlwp<'_>,
        vp: &Arc<Vnode>,
        offset: u64,
        len: u64,
    ) -> Result<(), Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Whether the file's data is nowhere but in the page cache: its pages are never written back nor evicted, and a
    /// page that is not there is a hole. The driver counts what they take by [`reserve`](Self::reserve) and
    /// [`unreserve`](Self::unreserve). Asked once, when the vnode is made.
    fn resident(&self) -> bool {
        false
    }

    /// Stores the vnode's attributes (size and times that writing changed) in the file system, not yet on the disk.
    fn write_attr(&self, cx: &Curlwp<'_>, vp: &Arc<Vnode>) -> Result<(), Errno> {
        Ok(())
    }

    /// Makes everything that was stored of this file durable; the vfs has written its pages and attributes before.
    fn fsync(&self, cx: &Curlwp<'_>, vp: &Arc<Vnode>, data_only: bool) -> Result<(), Errno> {
        Ok(())
    }

    /// The file has no name and no opener left: frees its space and its inode.
    fn inactive(&self, cx: &Curlwp<'_>, vp: &Arc<Vnode>) -> Result<(), Errno> {
        Ok(())
    }

    /// What a descriptor for this file is, when it is none of the vfs's own (a device). `None`: the vfs's.
    fn open(
        &self,
        cx: &Curlwp<'_>,
        vp: &Arc<Vnode>,
        flags: i32,
    ) -> Result<Option<Arc<dyn File>>, Errno> {
        Ok(None)
    }

    /// The value of an extended attribute, xattr(7).
    fn getxattr(&self, cx: &Curlwp<'_>, vp: &Arc<Vnode>, name: &[u8]) -> Result<Vec<u8>, Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Sets an extended attribute. `create` and `replace` are `XATTR_CREATE` and `XATTR_REPLACE`.
    fn setxattr(
        &self,
        cx: &Curlwp<'_>,
        vp: &Arc<Vnode>,
        name: &[u8],
        value: &[u8],
        create: bool,
        replace: bool,
    ) -> Result<(), Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    /// The names of the extended attributes, each ended by a NUL.
    fn listxattr(&self, cx: &Curlwp<'_>, vp: &Arc<Vnode>) -> Result<Vec<u8>, Errno> {
        Ok(Vec::new())
    }

    /// Takes an extended attribute away.
    fn removexattr(&self, cx: &Curlwp<'_>, vp: &Arc<Vnode>, name: &[u8]) -> Result<(), Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Itself, for the driver that knows what it is.
    fn as_any(&self) -> &dyn Any;
}

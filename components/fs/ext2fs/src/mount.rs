//! Mounting: from the device to the root directory, and back to a clean image.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use abi::{Errno, MS_RDONLY};
use kern::Curlwp;
use vfs::{BlockDev, FsStat, Mount, MountArgs, MountOps, Vnode};

use crate::fs::Fs;
use crate::inner::Inner;
use crate::journal::Journal;
use crate::layout::{Layout, file_blocks};
use crate::node;
use crate::store::Store;
use crate::superblock::{self, Super};

/// The magic number that statfs(2) tells.
const EXT4_SUPER_MAGIC: u64 = 0xef53;

/// The driver's part of a mount.
pub(crate) struct Mounted(Arc<Fs>);

/// Reads the options. `EINVAL` for an unknown one.
fn wants_read_only(data: &[u8], flags: u64) -> Result<bool, Errno> {
    let text = std::str::from_utf8(data).map_err(|_| Errno::EINVAL)?;
    let mut read_only = flags & MS_RDONLY != 0;
    for option in text
        .trim_end_matches('\0')
        .split(',')
        .filter(|o| !o.is_empty())
    {
        match option {
            "ro" => read_only = true,
            "rw" => {}
            _ => return Err(Errno::EINVAL),
        }
    }
    Ok(read_only)
}

pub(crate) fn mount(cx: &Curlwp<'_>, args: &MountArgs<'_>) -> Result<Arc<Mount>, Errno> {
    let device = args.device.ok_or(Errno::ENOTBLK)?;
    let dev = device.block_device().ok_or(Errno::ENOTBLK)?;
    mount_device(cx, args, dev.clone())
}

/// Mounts what is on a device.
pub(crate) fn mount_device(
    cx: &Curlwp<'_>,
    args: &MountArgs<'_>,
    dev: Arc<BlockDev>,
) -> Result<Arc<Mount>, Errno> {
    let read_only = wants_read_only(args.data, args.flags)?;
    let name = String::from_utf8_lossy(args.source).into_owned();
    let now = Vnode::timestamp(cx);
    let opened = cx.unscheduled(|| open(cx, dev, read_only, &name, now))?;
    let fs = Arc::new(opened);
    let ops = Box::new(Mounted(fs.clone()));
    let mount = Mount::new(args, "ext4", true, ops, |mount| node::root(cx, &fs, mount))?;
    if !fs.writable {
        mount.set_flags(mount.flags() | MS_RDONLY);
    }
    fs.attach(&mount);
    Ok(mount)
}

/// Everything up to the opened file system. May block; called without a virtual CPU.
fn open(
    cx: &Curlwp<'_>,
    dev: Arc<BlockDev>,
    read_only: bool,
    name: &str,
    now: u64,
) -> Result<Fs, Errno> {
    let log = |what: &dyn fmt::Display| cx.kernel().log(format_args!("ext2fs: {name}: {what}"));
    let mut raw = [0; superblock::SIZE];
    if dev.size() < superblock::OFFSET + superblock::SIZE as u64 {
        log(&"too small for a file system; mount refused");
        return Err(Errno::EINVAL);
    }
    dev.read_at(&mut raw, superblock::OFFSET)?;
    let sb = Super::parse(&raw, dev.size()).map_err(|refusal| {
        log(&refusal);
        Errno::EINVAL
    })?;
    let mut writable = !read_only;
    if writable && !dev.writable() {
        return Err(Errno::EACCES);
    }
    if let Some(features) = sb.read_only.as_ref().filter(|_| writable) {
        log(&format_args!(
            "cannot be written because of: {features}; mounted read-only"
        ));
        writable = false;
    }
    if sb.external_journal && (writable || sb.needs_recovery) {
        if sb.needs_recovery {
            log(
                &"its journal is on another device and has to be replayed; mount refused. Way out: e2fsck",
            );
            return Err(Errno::EINVAL);
        }
        log(&"its journal is on another device; mounted read-only");
        writable = false;
    }

    let (sb, layout, journal) = lay_out(&dev, sb).inspect_err(|error| {
        log(&format_args!(
            "metadata is damaged ({error}); mount refused. Way out: e2fsck"
        ));
    })?;
    let mut store = Store::new(dev.clone(), sb, layout, writable);
    if let Some(journal) = journal {
        if journal.needs_replay() {
            log(&if writable {
                "replaying the journal"
            } else {
                "reading through the journal, which stays as it is"
            });
        }
        store.open_journal(journal).map_err(|error| {
            log(&format_args!(
                "the journal cannot be replayed ({error}); mount refused. Way out: e2fsck"
            ));
            if error == Errno::EOPNOTSUPP {
                Errno::EINVAL
            } else {
                error
            }
        })?;
        store.reread_superblock().map_err(|refusal| {
            log(&refusal);
            Errno::EUCLEAN
        })?;
    } else if writable && store.sb.unclean {
        log(&"was not unmounted in order; running e2fsck is recommended");
    }
    Fs::open(cx, dev, store, writable, name.to_owned(), now)
}

/// The layout, and the journal where there is one.
fn lay_out(dev: &BlockDev, sb: Super) -> Result<(Super, Layout, Option<Journal>), Errno> {
    let size = sb.block_size as usize;
    let read = &mut |block: u64| {
        let mut data = vec![0; size].into_boxed_slice();
        dev.read_at(&mut data, block.checked_mul(size as u64).ok_or(Errno::EIO)?)?;
        Ok(data)
    };
    let mut layout = Layout::read(&sb, read)?;
    let Some(ino) = sb.journal_ino else {
        return Ok((sb, layout, None));
    };
    let (block, at) = layout.inode(&sb, ino).ok_or(Errno::EUCLEAN)?;
    let inode = read(block)?;
    let inode = inode
        .get(at..at + usize::from(sb.inode_size))
        .ok_or(Errno::EUCLEAN)?;
    let bytes =
        u64::from(superblock::le32(inode, 4)) | u64::from(superblock::le32(inode, 0x6c)) << 32;
    let blocks = bytes / u64::from(sb.block_size);
    if blocks > sb.blocks {
        return Err(Errno::EUCLEAN);
    }
    let extents = file_blocks(&sb, inode, blocks, read)?;
    if !extents
        .iter()
        .all(|e| layout.allows(&sb, e.physical, e.len))
    {
        return Err(Errno::EUCLEAN);
    }
    layout.protect(&extents);
    let journal = Journal::open(extents, sb.block_size, read)?;
    Ok((sb, layout, Some(journal)))
}

impl MountOps for Mounted {
    fn statfs(&self, cx: &Curlwp<'_>, _mount: &Mount) -> Result<FsStat, Errno> {
        let fs = &self.0;
        let space = fs.look(cx, Inner::space)?;
        let free = if fs.writable { fs.free() } else { space.blocks };
        Ok(FsStat {
            magic: EXT4_SUPER_MAGIC,
            bsize: fs.sb.block_size,
            blocks: fs.sb.blocks,
            bfree: free,
            bavail: free.saturating_sub(fs.sb.reserved_blocks),
            files: u64::from(fs.sb.inodes),
            ffree: u64::from(space.inodes),
            namelen: 255,
        })
    }

    fn sync(&self, cx: &Curlwp<'_>, _mount: &Mount) -> Result<(), Errno> {
        self.0.commit(cx)
    }

    fn vget(&self, cx: &Curlwp<'_>, mount: &Arc<Mount>, ino: u64) -> Result<Arc<Vnode>, Errno> {
        crate::node::load(cx, &self.0, &Arc::downgrade(mount), ino)
    }

    fn unmount(&self, cx: &Curlwp<'_>, _mount: &Mount) -> Result<(), Errno> {
        self.0.close(cx)
    }

    fn remount(
        &self,
        cx: &Curlwp<'_>,
        mount: &Mount,
        flags: u64,
        data: &[u8],
    ) -> Result<(), Errno> {
        let read_only = wants_read_only(data, flags)?;
        if read_only == mount.read_only() {
            return Ok(());
        }
        self.0.remount(cx, read_only)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

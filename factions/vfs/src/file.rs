//! A vnode as descriptors see it.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use abi::{
    Errno, O_ACCMODE, O_DIRECT, O_DSYNC, O_NOATIME, O_PATH, O_RDONLY, O_SYNC, Stat, SysResult,
    UserAddr,
};
use hypercall::BackingFile;
use kern::poll::{Events, Watcher};
use kern::watch::{Change, ChangeHead};
use kern::{Curlwp, File, OpenFile, RecordLock, Uio};

use crate::mount::{MountHold, MountState};
use crate::pages::ErrorMark;
use crate::{Attr, Mount, Vnode, VnodeKind, access, lock, pages};

/// The largest offset a file can have.
pub(crate) const MAX_SIZE: u64 = i64::MAX as u64;
/// How old a time of last access gets before reading changes it although nothing was written: a day, as Linux has it.
const ATIME_STALE: u64 = 24 * 60 * 60 * 1_000_000_000;

/// An open vnode.
pub(crate) struct VnodeFile {
    vp: Arc<Vnode>,
    hold: MountHold,
    /// What serves reads and writes where the file system's pages do not: a device, a fifo, a host's file.
    device: Option<Arc<dyn File>>,
    /// Opened with `O_PATH`: stands for a place in the tree and counts as no opener.
    path_only: bool,
    /// Which errors of write-back this open file has been told of.
    errors: ErrorMark,
    /// The last descriptor is gone: nobody would give back a lock that is taken now.
    closed: AtomicBool,
    /// Whether it has been looked whether the time of last access is a day old.
    atime_seen: AtomicBool,
}

impl VnodeFile {
    /// Opens a vnode: permissions are checked, the driver is asked what serves it. `ENOENT` when it is freed already.
    pub(crate) fn open(
        cx: &Curlwp<'_>,
        vp: Arc<Vnode>,
        flags: i32,
    ) -> Result<Arc<VnodeFile>, Errno> {
        let mount = vp.mount().ok_or(Errno::ENODEV)?;
        let path_only = flags & O_PATH != 0;
        // Only regular files are written through their mount: a device is somewhere else.
        let writes = vp.kind == VnodeKind::Regular && flags & O_ACCMODE != O_RDONLY && !path_only;
        let hold = match writes {
            true => MountHold::writing(mount)?,
            false => MountHold::new(mount)?,
        };
        let mut device = None;
        if !path_only {
            match vp.is_removed() {
                true => vp.opened_removed(),
                false => vp.opened()?,
            }
            device = crate::devsw::serve(cx, &vp, hold.mount(), flags).inspect_err(|_| {
                vp.closed(cx);
            })?;
            vp.changed(cx, Change::OPEN);
        }
        Ok(Arc::new(VnodeFile {
            hold,
            device,
            path_only,
            errors: pages::error_mark(&vp),
            closed: AtomicBool::new(false),
            atime_seen: AtomicBool::new(false),
            vp,
        }))
    }

    /// The vnode.
    #[inline]
    pub(crate) fn vnode(&self) -> &Arc<Vnode> {
        &self.vp
    }

    /// The mount that it was opened in.
    pub(crate) fn mount(&self) -> &Arc<Mount> {
        self.hold.mount()
    }

    /// Whether it was opened with `O_PATH`.
    pub(crate) fn is_path_only(&self) -> bool {
        self.path_only
    }

    /// Sets the time of last access as relatime does: when the file was changed since, or it is a day old. Whether it is a
    /// day old is looked at once for each open file, not at each read.
    #[inline]
    pub(crate) fn accessed(&self, cx: &Curlwp<'_>, of: &OpenFile) {
        let attr = self.vp.attr(cx);
        let changed = attr.atime <= attr.mtime || attr.atime <= attr.ctime;
        if changed || !self.atime_seen.load(Ordering::Relaxed) {
            self.set_atime(cx, of, &attr, changed);
        }
    }

    #[cold]
    fn set_atime(&self, cx: &Curlwp<'_>, of: &OpenFile, attr: &Attr, changed: bool) {
        self.atime_seen.store(true, Ordering::Relaxed);
        let flags = self.mount().flags();
        let dir = self.vp.is_dir() && flags & abi::MS_NODIRATIME != 0;
        if flags & (abi::MS_NOATIME | abi::MS_RDONLY) != 0 || dir || of.flags() & O_NOATIME != 0 {
            return;
        }
        let now = Vnode::timestamp(cx);
        if changed || now.saturating_sub(attr.atime) > ATIME_STALE {
            self.vp.update_later(cx, |attr| attr.atime = now);
        }
    }

    /// flock(2): shared or exclusive, or `None` to give it back.
    pub(crate) fn flock(
        &self,
        cx: &Curlwp<'_>,
        of: &OpenFile,
        write: Option<bool>,
        wait: bool,
    ) -> Result<(), Errno> {
        lock::flock(cx, &self.vp, of, write, wait, || {
            self.closed.load(Ordering::SeqCst)
        })
    }

    /// Writes the file back and makes it durable; tells an error of an earlier write-back that nobody told this open file.
    pub(crate) fn fsync(&self, cx: &Curlwp<'_>, data_only: bool) -> Result<(), Errno> {
        pages::fsync(cx, &self.vp, data_only, &self.errors)
    }

    fn write_data(&self, cx: &Curlwp<'_>, of: &OpenFile, uio: &mut Uio<'_>) -> Result<(), Errno> {
        // A driver may have found its disk broken since the file was opened. The open file itself keeps a mount that is
        // in the tree from going; one that is detached goes with the last close, which does not wait for us.
        if self.mount().read_only() {
            return Err(Errno::EROFS);
        }
        let detached = self.mount().life() != MountState::Live;
        let _writing = detached
            .then(|| MountHold::writing(self.mount().clone()))
            .transpose()?;
        if uio.resid() == 0 {
            return Ok(());
        }
        access::clear_set_id(cx, &self.vp)?;
        pages::write(cx, &self.vp, uio, of.appends())?;
        let flags = of.flags();
        if flags & O_DSYNC != 0 || self.mount().flags() & abi::MS_SYNCHRONOUS != 0 {
            self.fsync(cx, flags & O_SYNC != O_SYNC)?;
        } else if flags & O_DIRECT != 0 {
            pages::flush(cx, &self.vp)?;
        }
        Ok(())
    }
}

impl File for VnodeFile {
    fn read(&self, cx: &Curlwp<'_>, of: &OpenFile, uio: &mut Uio<'_>) -> Result<(), Errno> {
        if let Some(device) = &self.device {
            return device.read(cx, of, uio);
        }
        match self.vp.kind {
            VnodeKind::Regular | VnodeKind::Block => {
                pages::read(cx, &self.vp, uio)?;
                self.accessed(cx, of);
                self.vp.changed(cx, Change::ACCESS);
                Ok(())
            }
            VnodeKind::Directory => Err(Errno::EISDIR),
            _ => Err(Errno::EINVAL),
        }
    }

    fn write(&self, cx: &Curlwp<'_>, of: &OpenFile, uio: &mut Uio<'_>) -> Result<(), Errno> {
        if let Some(device) = &self.device {
            return device.write(cx, of, uio);
        }
        match self.vp.kind {
            VnodeKind::Regular => self.write_data(cx, of, uio),
            VnodeKind::Block => self.write_block(cx, of, uio),
            VnodeKind::Directory => Err(Errno::EISDIR),
            _ => Err(Errno::EINVAL),
        }
    }

    fn seekable(&self) -> bool {
        match &self.device {
            Some(device) => device.seekable(),
            None => true,
        }
    }

    fn seek(&self, cx: &Curlwp<'_>, offset: i64, whence: i32) -> Result<u64, Errno> {
        if let Some(device) = &self.device {
            return device.seek(cx, offset, whence);
        }
        let size = self.vp.attr(cx).size;
        match whence {
            abi::SEEK_END => size
                .checked_add_signed(offset)
                .filter(|&n| n <= MAX_SIZE)
                .ok_or(Errno::EINVAL),
            abi::SEEK_DATA | abi::SEEK_HOLE => {
                let from = u64::try_from(offset).map_err(|_| Errno::ENXIO)?;
                match whence {
                    abi::SEEK_DATA => pages::next_data(cx, &self.vp, from),
                    _ => pages::next_hole(cx, &self.vp, from),
                }
            }
            _ => Err(Errno::EINVAL),
        }
    }

    fn poll(&self, cx: &Curlwp<'_>, events: Events, watcher: Option<&Arc<dyn Watcher>>) -> Events {
        match &self.device {
            Some(device) => device.poll(cx, events, watcher),
            // A file is always ready, poll(2).
            None => events & (Events::IN | Events::OUT | Events::RDNORM | Events::WRNORM),
        }
    }

    fn available(&self, cx: &Curlwp<'_>, of: &OpenFile, events: Events) -> i64 {
        if let Some(device) = &self.device {
            return device.available(cx, of, events);
        }
        if events.intersects(Events::OUT) {
            return 0;
        }
        let (size, offset) = (self.vp.attr(cx).size, *of.lock_offset(cx));
        (size as i64).saturating_sub(offset as i64)
    }

    fn map(
        &self,
        cx: &Curlwp<'_>,
        of: &OpenFile,
        offset: u64,
        len: u64,
    ) -> Result<Arc<dyn BackingFile>, Errno> {
        if self.device.is_some() || self.vp.kind != VnodeKind::Regular {
            return Err(Errno::ENODEV);
        }
        if len == 0 || !offset.is_multiple_of(pages::PAGE_SIZE as u64) {
            return Err(Errno::EINVAL);
        }
        pages::map(cx, &self.vp, offset, len, of.writable())
    }

    fn map_again(&self, cx: &Curlwp<'_>, _: &OpenFile) {
        pages::map_again(cx, &self.vp);
    }

    fn unmap(&self, cx: &Curlwp<'_>, _: &OpenFile) {
        pages::unmap(cx, &self.vp);
    }

    fn sync(&self, cx: &Curlwp<'_>) -> Result<(), Errno> {
        self.fsync(cx, true)
    }

    fn changes(&self) -> Option<&ChangeHead> {
        Some(self.vp.changes())
    }

    fn ioctl(&self, cx: &Curlwp<'_>, of: &OpenFile, cmd: u32, arg: UserAddr) -> SysResult {
        match &self.device {
            Some(device) => device.ioctl(cx, of, cmd, arg),
            None => crate::devsw::file_ioctl(cx, self, of, cmd, arg),
        }
    }

    #[inline]
    fn stat(&self, cx: &Curlwp<'_>) -> Result<Stat, Errno> {
        Ok(self.vp.stat(cx))
    }

    fn lock(
        &self,
        cx: &Curlwp<'_>,
        of: &OpenFile,
        lock: RecordLock,
        wait: bool,
    ) -> Result<(), Errno> {
        lock::set(cx, &self.vp, of, lock, wait, || {
            self.closed.load(Ordering::SeqCst)
        })
    }

    fn conflicting_lock(
        &self,
        cx: &Curlwp<'_>,
        of: &OpenFile,
        lock: RecordLock,
    ) -> Result<Option<RecordLock>, Errno> {
        Ok(lock::conflicting(cx, &self.vp, of, lock))
    }

    #[inline]
    fn descriptor_closed(&self, cx: &Curlwp<'_>) {
        if self.vp.locks_if_any().is_some() && !self.path_only {
            lock::release_process(cx, &self.vp, cx.proc().pid);
        }
    }

    fn close(&self, cx: &Curlwp<'_>, of: &OpenFile) {
        self.closed.store(true, Ordering::SeqCst);
        lock::release_open(cx, &self.vp, of);
        if let Some(device) = &self.device {
            device.close(cx, of);
        }
        if !self.path_only {
            let writes = of.flags() & O_ACCMODE != O_RDONLY;
            self.vp.changed(
                cx,
                if writes {
                    Change::CLOSE_WRITE
                } else {
                    Change::CLOSE_NOWRITE
                },
            );
            self.vp.closed(cx);
        }
        if self.mount().life() == MountState::Detached {
            self.hold.release();
            crate::mounts::finish_detached(cx, self.mount());
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl VnodeFile {
    /// A block device does not grow.
    fn write_block(&self, cx: &Curlwp<'_>, of: &OpenFile, uio: &mut Uio<'_>) -> Result<(), Errno> {
        pages::write(cx, &self.vp, uio, false)?;
        if of.flags() & O_DSYNC != 0 {
            self.fsync(cx, true)?;
        }
        Ok(())
    }
}

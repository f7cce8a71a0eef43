//! A host's file, read and written where it is.

use std::any::Any;
use std::sync::Arc;

use abi::{Errno, O_ACCMODE, O_DSYNC, O_RDONLY, O_TRUNC, Stat};
use hypercall::{BackingFile, OpenMode};
use kern::poll::{Events, Watcher};
use kern::{Curlwp, File, OpenFile, Uio};

use crate::{SetAttr, Vnode, VnodeKind, VnodeOps};

/// The part of a host file that is seen.
#[derive(Clone)]
pub(super) struct Window {
    pub(super) path: Box<[u8]>,
    pub(super) begin: u64,
    /// `None`: to the end of the file, wherever that is; writing extends it.
    pub(super) size: Option<u64>,
    pub(super) read_only: bool,
}

impl Window {
    /// How many of `len` bytes at `offset` are inside, and where they are in the host's file.
    fn place(&self, offset: u64, len: usize) -> (u64, usize) {
        let room = self
            .size
            .map_or(u64::MAX, |size| size.saturating_sub(offset));
        (
            self.begin.saturating_add(offset),
            room.min(len as u64) as usize,
        )
    }
}

/// The node of a regular file or a character device.
pub(super) struct HostFile {
    window: Window,
    /// The directory in which it was found, which lives as long.
    _dir: Option<Arc<Vnode>>,
}

impl HostFile {
    pub(super) fn new(window: Window, dir: Option<Arc<Vnode>>) -> HostFile {
        HostFile { window, _dir: dir }
    }

    /// Looks at the host's file again: its size may have changed, or it is gone.
    pub(super) fn refresh(&self, cx: &Curlwp<'_>, vp: &Vnode) -> Result<(), Errno> {
        if self.window.size.is_some() {
            return Ok(());
        }
        let info = cx.unscheduled(|| cx.kernel().host().file_info(&self.window.path))?;
        vp.update(cx, |attr| {
            attr.size = info.size.saturating_sub(self.window.begin);
            attr.blocks = attr.size.div_ceil(512);
            attr.mtime = attr.mtime.max(info.mtime);
        });
        Ok(())
    }
}

impl VnodeOps for HostFile {
    fn open(
        &self,
        cx: &Curlwp<'_>,
        vp: &Arc<Vnode>,
        flags: i32,
    ) -> Result<Option<Arc<dyn File>>, Errno> {
        let write = flags & O_ACCMODE != O_RDONLY || flags & O_TRUNC != 0;
        if write && self.window.read_only {
            return Err(Errno::EROFS);
        }
        let mode = OpenMode {
            write,
            ..OpenMode::default()
        };
        let file = cx.unscheduled(|| cx.kernel().host().open(&self.window.path, mode))?;
        Ok(Some(Arc::new(OpenHostFile {
            vp: vp.clone(),
            file,
            window: self.window.clone(),
        })))
    }

    fn setattr(&self, cx: &Curlwp<'_>, vp: &Arc<Vnode>, set: &SetAttr) -> Result<(), Errno> {
        let Some(size) = set.size else {
            // Modes, owners and times are the kernel's own view; the host's file keeps its own.
            return Ok(());
        };
        if vp.kind != VnodeKind::Regular || self.window.size.is_some() {
            return Err(Errno::EINVAL);
        }
        if self.window.read_only {
            return Err(Errno::EROFS);
        }
        let end = self.window.begin.checked_add(size).ok_or(Errno::EFBIG)?;
        let mode = OpenMode {
            write: true,
            ..OpenMode::default()
        };
        cx.unscheduled(|| {
            cx.kernel()
                .host()
                .open(&self.window.path, mode)?
                .set_size(end)
        })
    }

    fn fsync(&self, cx: &Curlwp<'_>, _: &Arc<Vnode>, _data_only: bool) -> Result<(), Errno> {
        let host = cx.kernel().host();
        cx.unscheduled(|| host.open(&self.window.path, OpenMode::default())?.sync())
    }

    fn resident(&self) -> bool {
        // Nothing of it is ever written back.
        true
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The node of a block device. The buffer cache moves its data.
pub(super) struct HostBlock;

impl VnodeOps for HostBlock {
    fn setattr(&self, _: &Curlwp<'_>, _: &Arc<Vnode>, set: &SetAttr) -> Result<(), Errno> {
        if set.size.is_some() {
            Err(Errno::EINVAL)
        } else {
            Ok(())
        }
    }

    fn open(
        &self,
        _: &Curlwp<'_>,
        vp: &Arc<Vnode>,
        flags: i32,
    ) -> Result<Option<Arc<dyn File>>, Errno> {
        let writable = vp.block_device().is_some_and(|device| device.writable());
        if flags & O_ACCMODE != O_RDONLY && !writable {
            return Err(Errno::EROFS);
        }
        Ok(None)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A host file that is open.
struct OpenHostFile {
    vp: Arc<Vnode>,
    file: Arc<dyn BackingFile>,
    window: Window,
}

/// Bytes moved at once.
const CHUNK: usize = 128 * 1024;

impl File for OpenHostFile {
    fn read(&self, cx: &Curlwp<'_>, _: &OpenFile, uio: &mut Uio<'_>) -> Result<(), Errno> {
        let mut buf = vec![0; CHUNK.min(uio.resid())];
        while uio.resid() > 0 {
            let (at, len) = self.window.place(uio.offset(), buf.len().min(uio.resid()));
            let n = cx.unscheduled(|| self.file.read_at(&mut buf[..len], at))?;
            if n == 0 {
                break;
            }
            uio.put(cx, &buf[..n])?;
        }
        Ok(())
    }

    fn write(&self, cx: &Curlwp<'_>, of: &OpenFile, uio: &mut Uio<'_>) -> Result<(), Errno> {
        if of.appends() {
            uio.set_offset(self.size(cx)?);
        }
        let mut buf = vec![0; CHUNK.min(uio.resid())];
        while uio.resid() > 0 {
            let (at, len) = self.window.place(uio.offset(), buf.len().min(uio.resid()));
            if len == 0 {
                return Err(Errno::ENOSPC);
            }
            let n = uio.get(cx, &mut buf[..len])?;
            cx.unscheduled(|| self.file.write_at(&buf[..n], at))
                .inspect_err(|_| uio.give_back(n))?;
        }
        let (end, now) = (uio.offset(), Vnode::timestamp(cx));
        self.vp.update(cx, |attr| {
            attr.size = attr.size.max(end);
            (attr.mtime, attr.ctime) = (now, now);
        });
        if of.flags() & O_DSYNC != 0 {
            cx.unscheduled(|| self.file.sync())?;
        }
        Ok(())
    }

    fn seekable(&self) -> bool {
        true
    }

    fn seek(&self, cx: &Curlwp<'_>, offset: i64, whence: i32) -> Result<u64, Errno> {
        if whence != abi::SEEK_END {
            return Err(Errno::EINVAL);
        }
        let end = self.size(cx)?.checked_add_signed(offset);
        end.filter(|&n| n <= i64::MAX as u64).ok_or(Errno::EINVAL)
    }

    fn poll(&self, _: &Curlwp<'_>, events: Events, _: Option<&Arc<dyn Watcher>>) -> Events {
        events & (Events::IN | Events::OUT | Events::RDNORM | Events::WRNORM)
    }

    fn stat(&self, cx: &Curlwp<'_>) -> Result<Stat, Errno> {
        let size = self.size(cx)?;
        self.vp.update(cx, |attr| attr.size = size);
        Ok(self.vp.stat(cx))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl OpenHostFile {
    fn size(&self, cx: &Curlwp<'_>) -> Result<u64, Errno> {
        match self.window.size {
            Some(size) => Ok(size),
            None => Ok(cx
                .unscheduled(|| self.file.size())?
                .saturating_sub(self.window.begin)),
        }
    }
}

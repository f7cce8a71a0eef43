//! Files as descriptors see them: the operations, and the open file with its offset and flags.

use std::any::Any;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use abi::{Errno, O_ACCMODE, O_APPEND, O_NONBLOCK, O_RDONLY, O_WRONLY, Stat, SysResult, UserAddr};
use hypercall::BackingFile;
use sync::Mutex;

use crate::poll::{Events, Watcher};
use crate::watch::ChangeHead;
use crate::{Curlwp, Pid, Uio, epoll};

/// What a descriptor stands for: a vnode, a pipe, a socket, an epoll instance. The operations of NetBSD's
/// `fileops`. All may block unless the file is non-blocking; none is called with a lock held.
pub trait File: Send + Sync + Any {
    /// Reads at the uio's offset (ignored where there is none). Nothing moved means end of file.
    fn read(&self, cx: &Curlwp<'_>, of: &OpenFile, uio: &mut Uio<'_>) -> Result<(), Errno>;

    /// Writes at the uio's offset, or at the end when the file is open for appending.
    fn write(&self, cx: &Curlwp<'_>, of: &OpenFile, uio: &mut Uio<'_>) -> Result<(), Errno>;

    /// Whether the file has offsets. Without them lseek and pread answer `ESPIPE`.
    fn seekable(&self) -> bool {
        false
    }

    /// Whether waiting for readiness makes sense; what is always ready cannot be added to an epoll instance.
    fn pollable(&self) -> bool {
        !self.seekable()
    }

    /// The new offset for lseek(2) with `SEEK_END`, `SEEK_DATA` or `SEEK_HOLE`.
    fn seek(&self, _cx: &Curlwp<'_>, _offset: i64, _whence: i32) -> Result<u64, Errno> {
        Err(Errno::ESPIPE)
    }

    /// Which of the events are true now. With a watcher, it is told when that may have changed: see [`crate::poll`].
    fn poll(&self, cx: &Curlwp<'_>, events: Events, watcher: Option<&Arc<dyn Watcher>>) -> Events;

    /// How much can be moved now: bytes to read or, with [`Events::OUT`] among the events, room to write; what kevent(2)
    /// says of a file that is ready. Negative when a file ends before its offset.
    fn available(&self, _cx: &Curlwp<'_>, _of: &OpenFile, _events: Events) -> i64 {
        0
    }

    /// What calls on a stream would give now: all that is unread, if that is at most `most` bytes, and the room to write. It
    /// holds until somebody else uses the file. `None` for files of which that cannot be said, and in states where a call may
    /// answer something else.
    fn ahead(&self, _cx: &Curlwp<'_>, _most: usize) -> Option<Ahead> {
        None
    }

    /// Those who watch what happens to it; `None` for files to which nothing happens but what is read and written.
    fn changes(&self) -> Option<&ChangeHead> {
        None
    }

    /// Whether a fork hands its descriptors on.
    fn inherited(&self) -> bool {
        true
    }

    /// ioctl(2).
    fn ioctl(&self, _cx: &Curlwp<'_>, _of: &OpenFile, _cmd: u32, _arg: UserAddr) -> SysResult {
        Err(Errno::ENOTTY)
    }

    /// Memory of the host that a program may map to share `len` bytes of the file from `offset` on, which are in it at the
    /// file's offsets, mmap(2) with `MAP_SHARED`. `ENODEV` when there is none. Each one is given back by
    /// [`unmap`](Self::unmap).
    fn map(
        &self,
        _cx: &Curlwp<'_>,
        _of: &OpenFile,
        _offset: u64,
        _len: u64,
    ) -> Result<Arc<dyn BackingFile>, Errno> {
        Err(Errno::ENODEV)
    }

    /// A child of fork has mapped what its parent has.
    fn map_again(&self, _cx: &Curlwp<'_>, _of: &OpenFile) {}

    /// A program has unmapped what it had by [`map`](Self::map).
    fn unmap(&self, _cx: &Curlwp<'_>, _of: &OpenFile) {}

    /// Makes durable what was written to it and through mappings of it, msync(2).
    fn sync(&self, _cx: &Curlwp<'_>) -> Result<(), Errno> {
        Ok(())
    }

    /// fstat(2).
    fn stat(&self, cx: &Curlwp<'_>) -> Result<Stat, Errno>;

    /// Takes or gives back a record lock, fcntl(2) with `F_SETLK` or, with `wait`, `F_SETLKW`. `EAGAIN` when another
    /// owner's lock is in the way and `wait` is false, `EDEADLK` when waiting would never end, `EINTR`.
    fn lock(
        &self,
        _cx: &Curlwp<'_>,
        _of: &OpenFile,
        _lock: RecordLock,
        _wait: bool,
    ) -> Result<(), Errno> {
        Err(Errno::EINVAL)
    }

    /// The first lock of another owner that `lock` would have to wait for, fcntl(2) with `F_GETLK`.
    fn conflicting_lock(
        &self,
        _cx: &Curlwp<'_>,
        _of: &OpenFile,
        _lock: RecordLock,
    ) -> Result<Option<RecordLock>, Errno> {
        Err(Errno::EINVAL)
    }

    /// A descriptor for it was closed in the current process, perhaps not the last one (POSIX locks go here).
    fn descriptor_closed(&self, _cx: &Curlwp<'_>) {}

    /// A descriptor for this open file is gone, and others are left, in processes or in flight.
    fn still_held(&self, _cx: &Curlwp<'_>, _of: &Arc<OpenFile>) {}

    /// The last descriptor for this open file is gone.
    fn close(&self, _cx: &Curlwp<'_>, _of: &OpenFile) {}

    /// Itself, for the faction that knows what it is.
    fn as_any(&self) -> &dyn Any;
}

/// What calls on a stream would give, [`File::ahead`].
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Ahead {
    /// Bytes that a write takes at once.
    pub room: usize,
    /// Bytes that have arrived: the first of them when they are too many.
    pub unread: Vec<u8>,
    /// They were.
    pub more: bool,
    /// Nothing comes behind them: a read of what is behind gives the end.
    pub end: bool,
    /// close(2) does not wait.
    pub closes: bool,
}

/// What a record lock does to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    /// Shared: keeps writers' locks out.
    Read,
    /// Exclusive.
    Write,
    /// No lock: gives the range back.
    Unlock,
}

/// Whose a record lock is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockOwner {
    /// A process (`F_SETLK`): gone when the process closes any descriptor of the file.
    Process(Pid),
    /// The open file through which it was taken (`F_OFD_SETLK`): gone with that.
    OpenFile,
}

/// A record lock: a range of a file, with both ends in it, and its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordLock {
    /// Shared, exclusive, or none.
    pub kind: LockKind,
    /// First byte.
    pub start: u64,
    /// Last byte; `i64::MAX` for "to the end, however far it grows".
    pub end: u64,
    /// Whose it is.
    pub owner: LockOwner,
}

/// An open file: a [`File`] with offset and status flags. Descriptors made by dup, fork and descriptor passing
/// share one.
///
/// `offset` is held for the whole of a read or write that uses it, as POSIX asks; it is locked before anything
/// inside the file.
pub struct OpenFile {
    file: Arc<dyn File>,
    flags: AtomicI32,
    /// Descriptors (and descriptors in flight) that name this open file.
    pub(crate) refs: AtomicU32,
    offset: Mutex<u64>,
    /// The epoll instances that watch it, if any ever did.
    epolls: OnceLock<Box<Mutex<Vec<Weak<epoll::Item>>>>>,
}

impl OpenFile {
    /// Opens with the status and access flags of open(2).
    pub fn new(file: Arc<dyn File>, flags: i32) -> Arc<OpenFile> {
        Arc::new(OpenFile {
            file,
            flags: AtomicI32::new(flags),
            refs: AtomicU32::new(0),
            offset: Mutex::new(0),
            epolls: OnceLock::new(),
        })
    }

    /// What is open.
    #[inline]
    pub fn file(&self) -> &Arc<dyn File> {
        &self.file
    }

    /// What is open, as the type that a faction knows.
    #[inline]
    pub fn downcast<T: 'static>(&self) -> Option<&T> {
        self.file.as_any().downcast_ref()
    }

    /// Whether it has other descriptors than one, in this process or another.
    pub(crate) fn is_shared(&self) -> bool {
        self.refs.load(Ordering::SeqCst) != 1
    }

    /// How many descriptors name it, those in flight too. Only who has one makes more (see
    /// [`FdTable::hold`](crate::fd::FdTable::hold)): when all of them are where nobody gets at them, there are never others.
    pub fn holders(&self) -> usize {
        self.refs.load(Ordering::SeqCst) as usize
    }

    /// Access mode and status flags as F_GETFL gives them.
    #[inline]
    pub fn flags(&self) -> i32 {
        self.flags.load(Ordering::Relaxed)
    }

    /// Replaces the status flags in `mask`.
    pub fn set_flags(&self, mask: i32, value: i32) {
        let _ = self
            .flags
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |f| {
                Some((f & !mask) | (value & mask))
            });
    }

    /// Whether it was opened for reading.
    #[inline]
    pub fn readable(&self) -> bool {
        self.flags() & (O_ACCMODE | abi::O_PATH) != O_WRONLY && self.flags() & abi::O_PATH == 0
    }

    /// Whether it was opened for writing.
    #[inline]
    pub fn writable(&self) -> bool {
        self.flags() & O_ACCMODE != O_RDONLY && self.flags() & abi::O_PATH == 0
    }

    /// The offset, held while the guard lives.
    #[inline]
    pub fn lock_offset<'a>(&'a self, cx: &'a Curlwp<'_>) -> sync::MutexGuard<'a, u64> {
        self.offset.lock(cx.cpu())
    }

    /// read(2): at the offset, which moves on.
    pub fn read(&self, cx: &Curlwp<'_>, uio: &mut Uio<'_>) -> SysResult {
        if !self.readable() {
            return Err(Errno::EBADF);
        }
        self.transfer(cx, uio, |uio| self.file.read(cx, self, uio))
    }

    /// write(2): at the offset, which moves on.
    pub fn write(&self, cx: &Curlwp<'_>, uio: &mut Uio<'_>) -> SysResult {
        if !self.writable() {
            return Err(Errno::EBADF);
        }
        self.transfer(cx, uio, |uio| self.file.write(cx, self, uio))
    }

    /// pread(2): at the uio's own offset.
    pub fn pread(&self, cx: &Curlwp<'_>, uio: &mut Uio<'_>) -> SysResult {
        if !self.readable() {
            return Err(Errno::EBADF);
        }
        if !self.file.seekable() {
            return Err(Errno::ESPIPE);
        }
        count(uio, |uio| self.file.read(cx, self, uio))
    }

    /// pwrite(2): at the uio's own offset; at the end when open for appending, as Linux does.
    pub fn pwrite(&self, cx: &Curlwp<'_>, uio: &mut Uio<'_>) -> SysResult {
        if !self.writable() {
            return Err(Errno::EBADF);
        }
        if !self.file.seekable() {
            return Err(Errno::ESPIPE);
        }
        count(uio, |uio| self.file.write(cx, self, uio))
    }

    /// Remembers an epoll entry that is to go when the last descriptor does.
    pub(crate) fn join_epoll(&self, cx: &Curlwp<'_>, item: &Arc<epoll::Item>) {
        let mut items = self.epolls.get_or_init(Box::default).lock(cx.cpu());
        items.retain(|item| item.strong_count() != 0);
        items.push(Arc::downgrade(item));
    }

    /// Takes the file out of every epoll instance that watches it.
    pub(crate) fn leave_epolls(&self, cx: &Curlwp<'_>) {
        let Some(items) = self.epolls.get() else {
            return;
        };
        let items = std::mem::take(&mut *items.lock(cx.cpu()));
        for item in items.iter().filter_map(Weak::upgrade) {
            item.detach(cx);
        }
    }

    /// Whether operations answer `EAGAIN` instead of waiting.
    #[inline]
    pub fn nonblocking(&self) -> bool {
        self.flags() & O_NONBLOCK != 0
    }

    /// Whether writes go to the end.
    pub fn appends(&self) -> bool {
        self.flags() & O_APPEND != 0
    }

    fn transfer(
        &self,
        cx: &Curlwp<'_>,
        uio: &mut Uio<'_>,
        op: impl FnOnce(&mut Uio<'_>) -> Result<(), Errno>,
    ) -> SysResult {
        if !self.file.seekable() {
            return count(uio, op);
        }
        let mut offset = self.lock_offset(cx);
        uio.set_offset(*offset);
        let result = count(uio, op);
        if result.is_ok() {
            *offset = uio.offset();
        }
        result
    }
}

/// Runs a transfer and answers how many bytes it moved. An error counts only when nothing was moved before it.
fn count(uio: &mut Uio<'_>, op: impl FnOnce(&mut Uio<'_>) -> Result<(), Errno>) -> SysResult {
    match op(uio) {
        Err(error) if uio.moved() == 0 => Err(error),
        _ => Ok(uio.moved() as i64),
    }
}

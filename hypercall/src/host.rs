//! The trait between a kernel and its host.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use abi::Errno;

use crate::{Mapping, Sockets, Wire, WireSpec};

/// A point in time or a span, in nanoseconds; the clock's origin is the clock's own.
pub type Nanos = u64;

/// Which clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// Wall-clock time since the epoch; may be set.
    Realtime,
    /// Time since some start; never goes back.
    Monotonic,
}

/// Why a park ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WakeReason {
    /// Woken, or the word had changed already, or for no reason at all: look at the word again.
    Woken,
    /// The deadline passed.
    TimedOut,
}

/// What runs in a host thread.
pub type ThreadBody = Box<dyn FnOnce() + Send + 'static>;

/// A running host thread.
pub trait JoinHandle: Send {
    /// Waits until the thread has ended. Blocks without a virtual CPU. A thread that panicked counts as ended.
    fn join(self: Box<Self>);
}

/// How to open a backing file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct OpenMode {
    /// Open for writing too.
    pub write: bool,
    /// Create the file, with mode 0644, when it is missing.
    pub create: bool,
    /// Fail with `EEXIST` when it is there.
    pub exclusive: bool,
}

/// What kind of thing a host path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A block device.
    Block,
    /// A character device.
    Character,
    /// Anything else.
    Other,
}

/// What is known of a host path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileInfo {
    /// Its kind; symbolic links are followed.
    pub kind: FileKind,
    /// Size in bytes; of a block device too.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Time of last modification since the epoch.
    pub mtime: Nanos,
}

/// One name in a host directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// The name, no path.
    pub name: Vec<u8>,
    /// Its kind.
    pub kind: FileKind,
}

/// A block transfer and its buffer, which belongs to the host until completion.
#[derive(Debug)]
pub enum BlockOp {
    /// Fill the buffer from the file; past the end of the file the buffer is zeroed.
    Read(Box<[u8]>),
    /// Write the buffer to the file.
    Write(Box<[u8]>),
    /// Make everything written and completed before durable.
    Sync,
}

/// Called once when a request is done: with the operation (and so the buffer) back, and how it went. Runs on a
/// host thread **without** a virtual CPU, must be short and may not block: it wakes somebody.
pub type Completion = Box<dyn FnOnce(BlockOp, Result<(), Errno>) + Send>;

/// An asynchronous block request.
pub struct BlockRequest {
    /// What to do.
    pub op: BlockOp,
    /// Byte offset in the file; ignored by `Sync`.
    pub offset: u64,
    /// Called when done.
    pub done: Completion,
}

/// A host file that holds a disk image or is seen through etfs.
///
/// Methods other than [`submit`](BackingFile::submit) may block and are called without a virtual CPU.
pub trait BackingFile: Send + Sync {
    /// Reads at an offset, as much as there is up to the end of the file; 0 at the end.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize, Errno>;
    /// Writes all of the buffer at an offset, extending the file.
    fn write_at(&self, buf: &[u8], offset: u64) -> Result<(), Errno>;
    /// Fills buffers one after the other from an offset on; fewer bytes than they have only at the end of the file.
    fn read_vectored_at(&self, bufs: &mut [&mut [u8]], offset: u64) -> Result<usize, Errno> {
        let mut done = 0;
        for buf in bufs {
            let mut here = 0;
            while here < buf.len() {
                match self.read_at(&mut buf[here..], offset + done as u64)? {
                    0 => return Ok(done),
                    n => (here, done) = (here + n, done + n),
                }
            }
        }
        Ok(done)
    }
    /// Writes all of the buffers, one after the other, at an offset.
    fn write_vectored_at(&self, bufs: &[&[u8]], mut offset: u64) -> Result<(), Errno> {
        for buf in bufs {
            self.write_at(buf, offset)?;
            offset += buf.len() as u64;
        }
        Ok(())
    }
    /// Makes everything written so far durable. An error means that it may be lost.
    fn sync(&self) -> Result<(), Errno>;
    /// Present size in bytes.
    fn size(&self) -> Result<u64, Errno>;
    /// Cuts or extends (with zeroes) the file.
    fn set_size(&self, size: u64) -> Result<(), Errno>;
    /// Claims `size` bytes from `start` on (`None`: to the end, however far) for as long as the file is open: alone (`alone`), or
    /// together with others who do not write. `EBUSY` when another open file of this host has a claim that is in the way. Only
    /// claims are compared; nobody is kept from reading and writing. Files that nobody else can open need none.
    fn claim(&self, start: u64, size: Option<u64>, alone: bool) -> Result<(), Errno> {
        let _ = (start, size, alone);
        Ok(())
    }
    /// The file in memory, as long as it is now, to be shared with others who map it. `EOPNOTSUPP` where there is no such thing.
    fn map(&self) -> Result<Arc<dyn Mapping>, Errno> {
        Err(Errno::EOPNOTSUPP)
    }
    /// The first byte from `offset` on that may be something else than zero: the file may have holes before it. `None` when there are only
    /// holes.
    fn next_data(&self, offset: u64) -> Result<Option<u64>, Errno> {
        Ok((offset < self.size()?).then_some(offset))
    }
    /// Makes a range zero, if possible by freeing what holds it. The size stays.
    fn punch(&self, offset: u64, len: u64) -> Result<(), Errno> {
        const ZEROES: [u8; 4096] = [0; 4096];
        let mut at = offset;
        let end = offset.saturating_add(len).min(self.size()?);
        while at < end {
            let n = (end - at).min(ZEROES.len() as u64);
            self.write_at(&ZEROES[..n as usize], at)?;
            at += n;
        }
        Ok(())
    }
    /// Starts requests, in any order; each completes on its own through its `done`. Does not block.
    fn submit(&self, batch: Vec<BlockRequest>);
    /// The host descriptor behind the file where there is one, for passing to clients.
    fn host_fd(&self) -> Option<i32> {
        None
    }
}

/// Signals a kernel may raise on its own host process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal(pub i32);

/// What a kernel asks of its host.
///
/// Contract of every method unless it says otherwise: it does not block, may be called with or without a
/// virtual CPU, and from any thread. A method that **may block** is called without a virtual CPU; the kernel
/// drops its own before (`Curlwp::unscheduled`).
pub trait Host: Send + Sync + Any {
    /// Starts a host thread. The body takes a virtual CPU itself when it enters the kernel.
    /// `EAGAIN` when the host gives no more threads.
    fn spawn(&self, name: &str, body: ThreadBody) -> Result<Box<dyn JoinHandle>, Errno>;

    /// **May block.** Sleeps while `*word == expected`, until an unpark of the word or the deadline on the
    /// monotonic clock. May return early for no reason; the caller looks at its word again.
    fn park(&self, word: &AtomicU32, expected: u32, deadline: Option<Nanos>) -> WakeReason;

    /// Names what this thread is about to park for, its wait channel, for a host that reports on waits. Most do not.
    fn waits_for(&self, _wchan: &'static str) {}

    /// Wakes up to `count` threads that are parked on the word.
    fn unpark(&self, word: &AtomicU32, count: u32);

    /// Lets another thread run that wants to; for the spinning side of a short wait.
    fn relax(&self);

    /// Whether a thread that makes a system call should let others run first ([`relax`](Self::relax)): yes on a host that
    /// explores the orders in which things can happen.
    fn explores(&self) -> bool {
        false
    }

    /// A place in the code where another thread may come in between, on a host that explores orders. Locks are such places, in
    /// builds with debug assertions: elsewhere their fast paths make no hypercall.
    fn preempt(&self) {}

    /// The present time of a clock, at full resolution.
    fn now(&self, clock: Clock) -> Nanos;

    /// A small number that tends to be the same for the same thread and different for threads that run at the
    /// same time. Chooses a virtual CPU for a thread that had none; any answer is correct.
    fn thread_hint(&self) -> usize;

    /// Fills the buffer with unpredictable bytes.
    fn random(&self, buf: &mut [u8]);

    /// A parameter by name: an environment variable on a POSIX host, `RUMP_NCPU` for one.
    fn param(&self, name: &str) -> Option<String>;

    /// Processors the host would give us.
    fn ncpu(&self) -> usize;

    /// Bytes of memory that the host has. Caches take a share of it where nothing else is asked for.
    fn memory(&self) -> u64 {
        1 << 30
    }

    /// The name a new kernel takes for itself when no parameter gives one.
    fn hostname(&self) -> String;

    /// Writes to the console; best effort, never an error.
    fn console_write(&self, bytes: &[u8]);

    /// **May block.** Reads from the console; 0 at its end.
    fn console_read(&self, buf: &mut [u8]) -> Result<usize, Errno>;

    /// **May block.** What a host path names.
    fn file_info(&self, path: &[u8]) -> Result<FileInfo, Errno>;

    /// **May block.** Opens a regular file or a device as backing file.
    fn open(&self, path: &[u8], mode: OpenMode) -> Result<Arc<dyn BackingFile>, Errno>;

    /// **May block.** The names in a host directory, sorted, without `.` and `..`.
    fn read_dir(&self, path: &[u8]) -> Result<Vec<DirEntry>, Errno>;

    /// Anonymous memory that clients can map: a backing file without a name (a memfd on Linux), zero-filled. Its methods do not block.
    fn shared_memory(&self, name: &str, size: u64) -> Result<Arc<dyn BackingFile>, Errno>;

    /// **May block.** Connects to a network of the host. `EOPNOTSUPP` for what this host does not have at all, `ENODEV` or `ENOENT` for
    /// what is not there, `EPERM` or `EACCES` for what it does not let us have, `EBUSY` when somebody else has it.
    fn open_wire(&self, spec: &WireSpec) -> Result<Arc<dyn Wire>, Errno> {
        let _ = spec;
        Err(Errno::EOPNOTSUPP)
    }

    /// Sockets of the host's own, for one kernel. `EAFNOSUPPORT` where there are none.
    fn sockets(&self) -> Result<Arc<dyn Sockets>, Errno> {
        Err(Errno::EAFNOSUPPORT)
    }

    /// Raises a signal on the host process itself.
    fn raise(&self, signal: Signal);

    /// Ends the host process with a status, in order (buffers flushed).
    fn exit(&self, status: i32) -> !;

    /// Ends the host process at once because the kernel panicked, leaving a core where the host keeps them.
    fn abort(&self) -> !;
}

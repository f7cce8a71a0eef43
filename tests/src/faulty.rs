//! A host whose disks fail when they are told to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use abi::Errno;
use hypercall::{
    BackingFile, BlockOp, BlockRequest, Clock, DirEntry, FileInfo, Host, JoinHandle, Nanos,
    OpenMode, PosixHost, Signal, ThreadBody, WakeReason,
};

/// A Linux process as a host, with faults in its backing files.
pub struct FaultyHost {
    host: Arc<PosixHost>,
    faults: Arc<Faults>,
}

/// Which transfers fail with `EIO`.
#[derive(Default)]
pub struct Faults {
    reads: AtomicBool,
    writes: AtomicBool,
}

impl Faults {
    /// Reads fail from now on, or succeed again.
    pub fn reads(&self, fail: bool) {
        self.reads.store(fail, Ordering::SeqCst);
    }

    /// Writes and syncs fail from now on, or succeed again.
    pub fn writes(&self, fail: bool) {
        self.writes.store(fail, Ordering::SeqCst);
    }

    fn read(&self) -> Result<(), Errno> {
        check(&self.reads)
    }

    fn write(&self) -> Result<(), Errno> {
        check(&self.writes)
    }
}

fn check(fail: &AtomicBool) -> Result<(), Errno> {
    if fail.load(Ordering::SeqCst) {
        Err(Errno::EIO)
    } else {
        Ok(())
    }
}

impl FaultyHost {
    /// A host and the switch of its faults.
    pub fn new() -> (Arc<FaultyHost>, Arc<Faults>) {
        let faults = Arc::new(Faults::default());
        let host = FaultyHost {
            host: PosixHost::new(),
            faults: faults.clone(),
        };
        (Arc::new(host), faults)
    }
}

struct FaultyFile {
    file: Arc<dyn BackingFile>,
    faults: Arc<Faults>,
}

impl BackingFile for FaultyFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize, Errno> {
        self.faults.read()?;
        self.file.read_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<(), Errno> {
        self.faults.write()?;
        self.file.write_at(buf, offset)
    }

    fn sync(&self) -> Result<(), Errno> {
        self.faults.write()?;
        self.file.sync()
    }

    fn size(&self) -> Result<u64, Errno> {
        self.file.size()
    }

    fn set_size(&self, size: u64) -> Result<(), Errno> {
        self.faults.write()?;
        self.file.set_size(size)
    }

    fn claim(&self, start: u64, size: Option<u64>, alone: bool) -> Result<(), Errno> {
        self.file.claim(start, size, alone)
    }

    fn submit(&self, batch: Vec<BlockRequest>) {
        let mut good = Vec::new();
        for request in batch {
            let fault = match request.op {
                BlockOp::Read(_) => self.faults.read(),
                BlockOp::Write(_) | BlockOp::Sync => self.faults.write(),
            };
            match fault {
                Ok(()) => good.push(request),
                Err(errno) => (request.done)(request.op, Err(errno)),
            }
        }
        self.file.submit(good);
    }
}

impl Host for FaultyHost {
    fn spawn(&self, name: &str, body: ThreadBody) -> Result<Box<dyn JoinHandle>, Errno> {
        self.host.spawn(name, body)
    }

    fn park(&self, word: &AtomicU32, expected: u32, deadline: Option<Nanos>) -> WakeReason {
        self.host.park(word, expected, deadline)
    }

    fn unpark(&self, word: &AtomicU32, count: u32) {
        self.host.unpark(word, count);
    }

    fn relax(&self) {
        self.host.relax();
    }

    fn now(&self, clock: Clock) -> Nanos {
        self.host.now(clock)
    }

    fn thread_hint(&self) -> usize {
        self.host.thread_hint()
    }

    fn random(&self, buf: &mut [u8]) {
        self.host.random(buf);
    }

    fn param(&self, name: &str) -> Option<String> {
        self.host.param(name)
    }

    fn ncpu(&self) -> usize {
        self.host.ncpu()
    }

    fn hostname(&self) -> String {
        self.host.hostname()
    }

    fn console_write(&self, bytes: &[u8]) {
        self.host.console_write(bytes);
    }

    fn console_read(&self, buf: &mut [u8]) -> Result<usize, Errno> {
        self.host.console_read(buf)
    }

    fn file_info(&self, path: &[u8]) -> Result<FileInfo, Errno> {
        self.host.file_info(path)
    }

    fn open(&self, path: &[u8], mode: OpenMode) -> Result<Arc<dyn BackingFile>, Errno> {
        Ok(Arc::new(FaultyFile {
            file: self.host.open(path, mode)?,
            faults: self.faults.clone(),
        }))
    }

    fn read_dir(&self, path: &[u8]) -> Result<Vec<DirEntry>, Errno> {
        self.host.read_dir(path)
    }

    fn shared_memory(&self, name: &str, size: u64) -> Result<Arc<dyn BackingFile>, Errno> {
        self.host.shared_memory(name, size)
    }

    fn raise(&self, signal: Signal) {
        self.host.raise(signal);
    }

    fn exit(&self, status: i32) -> ! {
        self.host.exit(status)
    }

    fn abort(&self) -> ! {
        self.host.abort()
    }
}

//! A Linux process as a host, whose disks fail when they are told to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use abi::Errno;
use hypercall::{BackingFile, BlockOp, BlockRequest, FilteredHost, Host, PosixHost};

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

/// A Linux process as a host, with faults in its backing files.
pub struct FaultyHost;

impl FaultyHost {
    /// A host and the switch of its faults.
    #[allow(clippy::new_ret_no_self)] // what it is is nobody's business: a host
    pub fn new() -> (Arc<dyn Host>, Arc<Faults>) {
        let faults = Arc::new(Faults::default());
        let its = faults.clone();
        let host = FilteredHost::new(PosixHost::new(), move |file| {
            Arc::new(FaultyFile {
                file,
                faults: its.clone(),
            })
        });
        (host, faults)
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

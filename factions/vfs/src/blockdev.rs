//! A block device: a window of a backing file of the host.

use std::sync::Arc;

use abi::Errno;
use hypercall::BackingFile;

use crate::blkfail::BlkFail;

/// A window of a backing file, as large as the device. Access beyond it is an error, never another window's data.
///
/// Methods may block and are called without a virtual CPU ([`sync::Cpu::unscheduled`]).
pub struct BlockDev {
    file: Arc<dyn BackingFile>,
    start: u64,
    size: u64,
    writable: bool,
    faults: Option<Arc<BlkFail>>,
}

impl BlockDev {
    /// The window of `size` bytes from `start` on.
    pub fn new(file: Arc<dyn BackingFile>, start: u64, size: u64, writable: bool) -> BlockDev {
        BlockDev {
            file,
            start,
            size,
            writable,
            faults: None,
        }
    }

    /// The same device, with transfers that fail on purpose.
    pub(crate) fn with_faults(self, faults: Option<Arc<BlkFail>>) -> BlockDev {
        BlockDev { faults, ..self }
    }

    fn fault(&self) -> Result<(), Errno> {
        match &self.faults {
            Some(faults) => faults.transfer(),
            None => Ok(()),
        }
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Whether it can be written.
    pub fn writable(&self) -> bool {
        self.writable
    }

    /// Fills the buffer. `EIO` beyond the device; what the host's file lacks is zero.
    pub fn read_at(&self, mut buf: &mut [u8], offset: u64) -> Result<(), Errno> {
        let mut at = self.place(offset, buf.len(), Errno::EIO)?;
        self.fault()?;
        while !buf.is_empty() {
            let n = self.file.read_at(buf, at)?;
            if n == 0 {
                buf.fill(0);
                return Ok(());
            }
            buf = &mut buf[n..];
            at += n as u64;
        }
        Ok(())
    }

    /// Writes the buffer. `ENOSPC` beyond the device, `EROFS` when it is read-only.
    pub fn write_at(&self, buf: &[u8], offset: u64) -> Result<(), Errno> {
        if !self.writable {
            return Err(Errno::EROFS);
        }
        let at = self.place(offset, buf.len(), Errno::ENOSPC)?;
        self.fault()?;
        self.file.write_at(buf, at)
    }

    /// Fills buffers one after the other, as [`read_at`](Self::read_at) fills one.
    pub fn read_vectored_at(&self, bufs: &mut [&mut [u8]], offset: u64) -> Result<(), Errno> {
        let len = bufs.iter().map(|buf| buf.len()).sum();
        let at = self.place(offset, len, Errno::EIO)?;
        self.fault()?;
        // What the host's file lacks is zero.
        let mut there = self.file.read_vectored_at(bufs, at)?;
        for buf in bufs {
            let here = there.min(buf.len());
            buf[here..].fill(0);
            there -= here;
        }
        Ok(())
    }

    /// Writes buffers one after the other, as [`write_at`](Self::write_at) writes one.
    pub fn write_vectored_at(&self, bufs: &[&[u8]], offset: u64) -> Result<(), Errno> {
        if !self.writable {
            return Err(Errno::EROFS);
        }
        let len = bufs.iter().map(|buf| buf.len()).sum();
        let at = self.place(offset, len, Errno::ENOSPC)?;
        self.fault()?;
        self.file.write_vectored_at(bufs, at)
    }

    /// Makes everything written durable.
    pub fn sync(&self) -> Result<(), Errno> {
        self.file.sync()
    }

    fn place(&self, offset: u64, len: usize, beyond: Errno) -> Result<u64, Errno> {
        let end = offset.checked_add(len as u64).ok_or(beyond)?;
        if end > self.size {
            return Err(beyond);
        }
        self.start.checked_add(offset).ok_or(beyond)
    }
}

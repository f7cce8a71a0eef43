//! A block device: a window of a backing file of the host.

use std::sync::Arc;

use abi::Errno;
use hypercall::{BackingFile, Host};

use crate::blkfail::BlkFail;

/// A window of a backing file, as large as the device. Access beyond it is an error, never another window's data.
///
/// Methods may block and are called without a virtual CPU ([`sync::Cpu::unscheduled`]).
pub struct BlockDev {
    file: Arc<dyn BackingFile>,
    start: u64,
    size: u64,
    writable: bool,
    sector: u32,
    faults: Option<Arc<BlkFail>>,
}

/// Bytes of a sector where nobody says otherwise.
pub(crate) const SECTOR: u32 = 512;
/// The largest sector is a page of the cache.
const SHIFTS: std::ops::RangeInclusive<u32> = 9..=12;

/// The sector size that the host's parameter `RUMP_BLKSECTSHIFT` asks for, as a power of two. `EINVAL` for what makes no sense; it is named
/// on the console.
pub(crate) fn sector_from_host(host: &dyn Host) -> Result<u32, Errno> {
    let Some(text) = host.param("RUMP_BLKSECTSHIFT") else {
        return Ok(SECTOR);
    };
    let shift = text.parse().ok().filter(|shift| SHIFTS.contains(shift));
    shift.map(|shift: u32| 1 << shift).ok_or_else(|| {
        let line = format!(
            "rump: RUMP_BLKSECTSHIFT={text}: want the power of two that a sector is, from {} to {}\n",
            SHIFTS.start(),
            SHIFTS.end()
        );
        host.console_write(line.as_bytes());
        Errno::EINVAL
    })
}

impl BlockDev {
    /// The window of `size` bytes from `start` on.
    pub fn new(file: Arc<dyn BackingFile>, start: u64, size: u64, writable: bool) -> BlockDev {
        BlockDev {
            file,
            start,
            size,
            writable,
            sector: SECTOR,
            faults: None,
        }
    }

    /// The same device, with transfers that fail on purpose.
    pub(crate) fn with_faults(self, faults: Option<Arc<BlkFail>>) -> BlockDev {
        BlockDev { faults, ..self }
    }

    /// The same device, with sectors of so many bytes. What is no whole sector at its end is not there.
    pub(crate) fn with_sector(self, sector: u32) -> BlockDev {
        let size = match sector {
            SECTOR => self.size,
            larger => self.size - self.size % u64::from(larger),
        };
        BlockDev {
            sector,
            size,
            ..self
        }
    }

    /// Bytes of a sector, as `BLKSSZGET` tells them. Transfers need not keep to it.
    pub fn sector(&self) -> u32 {
        self.sector
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

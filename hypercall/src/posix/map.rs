//! Files mapped into memory, and waiting on words in them: mmap(2), and futex(2) that is not private to the process.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;

use abi::Errno;

use super::{errno_of, park};
use crate::mapping::{Mapping, Region};
use crate::{Nanos, WakeReason};

pub(super) struct Mapped(Region);

pub(super) fn map(file: &File) -> Result<Mapped, Errno> {
    let size = file.metadata().map_err(|e| errno_of(&e))?.len();
    let len = usize::try_from(size).map_err(|_| Errno::EFBIG)?;
    // SAFETY: a new mapping, where the host likes it.
    let start = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        )
    };
    if start == libc::MAP_FAILED {
        return Err(errno_of(&std::io::Error::last_os_error()));
    }
    let start = NonNull::new(start.cast()).ok_or(Errno::ENOMEM)?;
    // SAFETY: mapped for reading and writing, aligned to a page, and unmapped by `unmap` alone.
    Ok(Mapped(unsafe { Region::new(start, len, unmap) }))
}

fn unmap(start: NonNull<u8>, len: usize) {
    // SAFETY: mapped by `map` with this length, and nobody refers to it any more.
    unsafe { libc::munmap(start.as_ptr().cast(), len) };
}

impl Mapping for Mapped {
    fn region(&self) -> &Region {
        &self.0
    }

    fn wait(&self, offset: usize, expected: u32, deadline: Option<Nanos>) -> WakeReason {
        match self.0.word32(offset) {
            Some(word) => park::park_shared(word, expected, deadline),
            None => WakeReason::Woken,
        }
    }

    fn wake(&self, offset: usize, count: u32) {
        if let Some(word) = self.0.word32(offset) {
            park::unpark_shared(word, count);
        }
    }
}

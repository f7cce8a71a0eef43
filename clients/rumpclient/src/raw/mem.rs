//! The process's own memory, by addresses that a program has passed and that may be wrong.
//!
//! A wrong address must give `EFAULT`, and neither a handler for SIGSEGV nor a system call for each access is to be
//! had. So each thread keeps a table of pages that are known to be good, and asks the host only about others
//! (`MADV_POPULATE_*`, which answers for a whole range). What the table says holds until memory is unmapped or
//! protected; whoever sees that happen counts the epoch up ([`super::Client::memory_changed`]). A program that unmaps
//! a buffer in one thread while another thread is in a call with it may be killed for it, where Linux would answer
//! `EFAULT`.

use core::arch::asm;
use core::cell::Cell;
use core::sync::atomic::{AtomicU32, Ordering};

use abi::Errno;
use abi::sysproxy::covered;

use super::sys;

const PAGE: u64 = 4096;
/// Pages that a thread remembers.
const PAGES: usize = 256;
/// No user address is higher.
const TOP: u64 = 1 << 47;

const READABLE: u64 = 1;
const WRITABLE: u64 = 2;

/// Pages that are known to be good: number, and what may be done with it.
pub(super) struct Pages {
    known: [Cell<u64>; PAGES],
    epoch: Cell<u32>,
}

/// A stretch of memory that safe Rust lends for one call.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lent {
    pub(crate) addr: u64,
    pub(crate) len: usize,
    pub(crate) writable: bool,
}

/// Whether what was lent covers a range, perhaps in pieces that lie side by side.
fn lent_covers<'l>(lent: impl Iterator<Item = &'l Lent> + Clone, addr: u64, len: usize) -> bool {
    covered(addr, len, |addr| {
        lent.clone().map(|l| l.reach(addr)).max().unwrap_or(0)
    })
}

/// A thread's view of the process's memory.
#[derive(Clone, Copy)]
pub(super) struct Memory<'a> {
    pages: &'a Pages,
    epoch: &'a AtomicU32,
    lent: Option<&'a [Lent]>,
}

/// Whether the host knows the advice at all.
fn host_populates() -> bool {
    let here = 0u8;
    let page = (&raw const here) as u64 / PAGE * PAGE;
    sys::madvise(page, PAGE, sys::MADV_POPULATE_READ) != Err(Errno::EINVAL)
}

impl Lent {
    /// How many bytes from `addr` on lie inside.
    fn reach(&self, addr: u64) -> u64 {
        match addr.checked_sub(self.addr) {
            Some(skip) => (self.len as u64).saturating_sub(skip),
            None => 0,
        }
    }

    /// Bytes from `addr` to the end; `None` when it lies outside.
    fn rest(&self, addr: u64) -> Option<u64> {
        let skip = addr.checked_sub(self.addr)?;
        (self.len as u64).checked_sub(skip).filter(|&n| n != 0)
    }
}

impl<'a> Memory<'a> {
    /// All of the process's memory, or only what is lent.
    pub(super) fn new(
        pages: &'a Pages,
        epoch: &'a AtomicU32,
        lent: Option<&'a [Lent]>,
    ) -> Memory<'a> {
        Memory { pages, epoch, lent }
    }

    /// Whether the range can be read.
    #[inline]
    pub(super) fn readable(&self, addr: u64, len: usize) -> bool {
        match self.lent {
            None => self.check(addr, len, READABLE),
            Some(lent) => lent_covers(lent.iter(), addr, len),
        }
    }

    /// Whether the range can be written.
    #[inline]
    pub(super) fn writable(&self, addr: u64, len: usize) -> bool {
        match self.lent {
            None => self.check(addr, len, READABLE | WRITABLE),
            Some(lent) => lent_covers(lent.iter().filter(|l| l.writable), addr, len),
        }
    }

    #[inline]
    fn check(&self, addr: u64, len: usize, need: u64) -> bool {
        let Some(end) = addr.checked_add(len as u64).filter(|&end| end <= TOP) else {
            return len == 0;
        };
        if len == 0 {
            return true;
        }
        let epoch = self.epoch.load(Ordering::Acquire);
        if self.pages.epoch.get() != epoch {
            self.pages.known.iter().for_each(|page| page.set(0));
            self.pages.epoch.set(epoch);
        }
        let last = (end - 1) / PAGE;
        let mut page = addr / PAGE;
        while page <= last {
            let known = self.pages.known[page as usize % PAGES].get();
            if known >> 2 != page || known & need != need {
                return self.ask(page, last, need);
            }
            page += 1;
        }
        true
    }

    #[cold]
    fn ask(&self, first: u64, last: u64, need: u64) -> bool {
        if sys::is_confined() {
            return true;
        }
        let advice = if need & WRITABLE != 0 {
            sys::MADV_POPULATE_WRITE
        } else {
            sys::MADV_POPULATE_READ
        };
        let good = loop {
            match sys::madvise(first * PAGE, (last - first + 1) * PAGE, advice) {
                Ok(_) => break true,
                Err(Errno::EINTR | Errno::EAGAIN) => {}
                // No permission, memory of a device, or a host before 5.14, which can only be asked about reading.
                Err(Errno::EINVAL) => {
                    break (need & WRITABLE == 0 || !host_populates())
                        && (first..=last).all(|page| sys::can_read(page * PAGE));
                }
                Err(_) => break false,
            }
        };
        if good {
            for page in first..=last {
                self.pages.known[page as usize % PAGES].set(page << 2 | need);
            }
        }
        good
    }

    /// Reads memory. False when it is not there.
    pub(super) fn read(&self, addr: u64, to: &mut [u8]) -> bool {
        let good = self.readable(addr, to.len());
        if good {
            // SAFETY: the source was just found readable, the destination is a slice.
            unsafe { copy(addr as *const u8, to.as_mut_ptr(), to.len()) };
        }
        good
    }

    /// Writes memory. False when it is not there or not writable.
    pub(super) fn write(&self, addr: u64, from: &[u8]) -> bool {
        let good = self.writable(addr, from.len());
        if good {
            // SAFETY: the destination was just found writable, and is what a call of the program names as its buffer.
            unsafe { copy(from.as_ptr(), addr as *mut u8, from.len()) };
        }
        good
    }

    /// Bytes of the string at `addr` with its NUL, or of its first `max` bytes. `None` when it is not there.
    pub(super) fn string(&self, addr: u64, max: usize) -> Option<usize> {
        let mut len = 0;
        while len < max {
            let at = addr.checked_add(len as u64)?;
            let run = match self.lent {
                None => PAGE - at % PAGE,
                Some(lent) => lent.iter().find_map(|l| l.rest(at))?,
            };
            let run = usize::try_from(run).ok()?.min(max - len);
            if !self.readable(at, run) {
                return None;
            }
            for i in 0..run {
                // SAFETY: within what was just found readable.
                if unsafe { (at as *const u8).add(i).read_volatile() } == 0 {
                    return Some(len + i + 1);
                }
            }
            len += run;
        }
        Some(max)
    }
}

/// Copies bytes that others may be changing or that several processes share.
///
/// # Safety
/// Both ranges are mapped, the destination writable and its contents nobody's reference, and they do not overlap.
#[inline]
pub(super) unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: the caller's promise; the direction flag is clear, as everywhere in Rust.
    unsafe {
        asm!(
            "rep movsb",
            inout("rcx") len => _,
            inout("rsi") from => _,
            inout("rdi") to => _,
            options(nostack, preserves_flags),
        );
    }
}

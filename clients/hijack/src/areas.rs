//! Which kernel files the process has mapped shared, and where: so that the kernel is told when a mapping is gone, and msync(2) knows
//! whose file it is for.
//!
//! A table of fixed size without a lock, for a signal handler may come in anywhere. What finds no place is not followed: the kernel then
//! keeps the file until the process ends. A mapping with a hole in its middle counts as whole.

use core::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};

use abi::nr;

use crate::fds::kernel_call;

/// A mapping: first address, 0 for a free place; the address behind it; the kernel's host descriptor, which is its name.
struct Area {
    start: AtomicU64,
    end: AtomicU64,
    host_fd: AtomicI32,
}

const MOST: usize = 512;

static AREAS: [Area; MOST] = [const {
    Area {
        start: AtomicU64::new(0),
        end: AtomicU64::new(0),
        host_fd: AtomicI32::new(-1),
    }
}; MOST];

/// One more than the last place that was ever taken.
static HIGH: AtomicU32 = AtomicU32::new(0);

/// A place that is being filled: no mapping is there.
const TAKEN: u64 = 1;

fn areas() -> &'static [Area] {
    &AREAS[..(HIGH.load(Ordering::Acquire) as usize).min(MOST)]
}

/// Notes a new mapping.
pub(crate) fn add(start: u64, len: u64, host_fd: i32) {
    for (i, area) in AREAS.iter().enumerate() {
        let free = area
            .start
            .compare_exchange(0, TAKEN, Ordering::AcqRel, Ordering::Relaxed);
        if free.is_ok() {
            area.end.store(start + pages(len), Ordering::Relaxed);
            area.host_fd.store(host_fd, Ordering::Relaxed);
            area.start.store(start, Ordering::Release);
            HIGH.fetch_max(i as u32 + 1, Ordering::AcqRel);
            return;
        }
    }
}

/// A range of addresses is unmapped, or something else is mapped there.
pub(crate) fn remove(at: u64, len: u64) {
    let (from, to) = (at, at.saturating_add(pages(len)));
    for area in areas() {
        let start = area.start.load(Ordering::Acquire);
        let end = area.end.load(Ordering::Relaxed);
        if start <= TAKEN || to <= start || end <= from {
            continue;
        }
        if from <= start && end <= to {
            let host_fd = area.host_fd.load(Ordering::Relaxed);
            if area
                .start
                .compare_exchange(start, 0, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
            {
                kernel_call(nr::putmapping, &[host_fd as u64, 0, 0, 0, 0, 0]);
            }
        } else if from <= start {
            area.start.store(to, Ordering::Release);
        } else if end <= to {
            area.end.store(from, Ordering::Relaxed);
        }
    }
}

/// A mapping has been given another size, and perhaps another place.
pub(crate) fn moved(old: u64, new: u64, len: u64) {
    for area in areas() {
        if old > TAKEN && area.start.load(Ordering::Acquire) == old {
            area.end.store(new + pages(len), Ordering::Relaxed);
            area.start.store(new, Ordering::Release);
        }
    }
}

/// Makes durable what was written to kernel files through mappings in a range; 0 or -errno.
pub(crate) fn sync(at: u64, len: u64) -> i64 {
    let mut result = 0;
    for area in areas() {
        let start = area.start.load(Ordering::Acquire);
        let within = start > TAKEN
            && start < at.saturating_add(len)
            && at < area.end.load(Ordering::Relaxed);
        if within {
            let host_fd = area.host_fd.load(Ordering::Relaxed);
            let done = kernel_call(nr::syncmapping, &[host_fd as u64, 0, 0, 0, 0, 0]);
            result = if result == 0 { done } else { result };
        }
    }
    result
}

fn pages(len: u64) -> u64 {
    len.saturating_add(4095) & !4095
}

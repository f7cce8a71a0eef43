//! What all connections of a stack may keep together: bytes that wait to be read or to be acknowledged (Linux's `tcp_mem`), and
//! connections that no socket has any more (`tcp_max_orphans`).

use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};

/// What each connection may keep in each direction whatever the others have, in bytes.
const FAIR: usize = 16 << 10;
/// What is counted: so many bytes at a time, so that small messages do not meet in one word.
const STEP: usize = 4096;

/// What is taken.
#[derive(Default)]
pub(super) struct Budget {
    steps: AtomicUsize,
    orphans: AtomicUsize,
}

impl Budget {
    /// A connection keeps so many bytes now; `charged` are the steps that it was charged with.
    pub(super) fn charge(&self, charged: &AtomicU16, bytes: usize) {
        let now = u16::try_from(bytes / STEP).unwrap_or(u16::MAX);
        let before = charged.load(Ordering::Relaxed);
        if now != before {
            charged.store(now, Ordering::Relaxed);
            // Wraps when it falls.
            let change = usize::from(now).wrapping_sub(before.into());
            self.steps.fetch_add(change, Ordering::Relaxed);
        }
    }

    /// Whether a connection that keeps so much in one direction may keep more there.
    pub(super) fn allows(&self, limit: i64, own: usize) -> bool {
        own <= FAIR || (self.steps.load(Ordering::Relaxed) * STEP) as i64 <= limit
    }

    /// One more connection without a socket; false when there are too many.
    pub(super) fn adopt(&self, most: i64) -> bool {
        let before = self.orphans.fetch_add(1, Ordering::Relaxed);
        let fits = (before as i64) < most;
        if !fits {
            self.bury();
        }
        fits
    }

    /// One of them has ended.
    pub(super) fn bury(&self) {
        self.orphans.fetch_sub(1, Ordering::Relaxed);
    }
}

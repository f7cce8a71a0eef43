//! Errors of write-back, kept until each open file has been told.

use std::sync::atomic::{AtomicU64, Ordering};

use abi::Errno;

/// The error number; above it the mark that somebody has been told, above that how many errors there were.
const ERRNO: u64 = 0xfff;
const TOLD: u64 = ERRNO + 1;
const ONE: u64 = TOLD << 1;

/// The last error of writing a file back, as Linux's `errseq_t` keeps it.
#[derive(Default)]
pub(super) struct WriteError(AtomicU64);

/// What an open file knows of errors of writing its file back: each is told once to each open file. An error that
/// nobody had been told of when the file was opened is told to the newcomer too.
#[derive(Debug, Default)]
pub struct ErrorMark(AtomicU64);

impl WriteError {
    /// Keeps an error.
    pub(super) fn set(&self, error: Errno) {
        let errno = u64::from(error.0.unsigned_abs()) & ERRNO;
        let _ = self
            .0
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |old| {
                Some(((old & !(ERRNO | TOLD)).wrapping_add(ONE)) | errno)
            });
    }

    /// What a file that is opened now knows.
    pub(super) fn mark(&self) -> ErrorMark {
        let now = self.0.load(Ordering::SeqCst);
        ErrorMark(AtomicU64::new(if now & TOLD != 0 { now } else { 0 }))
    }

    /// The error that the open file has not been told of.
    pub(super) fn tell(&self, mark: &ErrorMark) -> Result<(), Errno> {
        let now = self.0.load(Ordering::SeqCst);
        if now == 0 || now | TOLD == mark.0.load(Ordering::SeqCst) {
            return Ok(());
        }
        let now = self.0.fetch_or(TOLD, Ordering::SeqCst) | TOLD;
        if mark.0.swap(now, Ordering::SeqCst) == now {
            return Ok(());
        }
        Err(Errno((now & ERRNO) as i32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_open_file_is_told_once() {
        let error = WriteError::default();
        let (a, b) = (error.mark(), error.mark());
        assert_eq!(error.tell(&a), Ok(()));
        error.set(Errno::EIO);
        let late = error.mark();
        assert_eq!(error.tell(&a), Err(Errno::EIO));
        assert_eq!(error.tell(&a), Ok(()));
        assert_eq!(error.tell(&b), Err(Errno::EIO));
        assert_eq!(error.tell(&late), Err(Errno::EIO));
        let later = error.mark();
        assert_eq!(error.tell(&later), Ok(()), "everybody knows of that one");
        error.set(Errno::ENOSPC);
        for mark in [&a, &b, &late, &later] {
            assert_eq!(error.tell(mark), Err(Errno::ENOSPC));
            assert_eq!(error.tell(mark), Ok(()));
        }
    }
}

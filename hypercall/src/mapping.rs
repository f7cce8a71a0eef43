//! Memory that is shared with others: a mapped file.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64};

use crate::{Nanos, WakeReason};

/// A file in memory, shared with everybody who maps it, in this process and in others. Whatever is in it may change at any time, and may
/// have been put there by an enemy: read it once, check it, then use it.
///
/// Nobody may make the file shorter while it is mapped: the host ends a process that touches what is gone.
pub trait Mapping: Send + Sync {
    /// Its bytes.
    fn region(&self) -> &Region;

    /// **May block.** Sleeps while the word at this offset is `expected`, until somebody [wakes](Self::wake) those who sleep on it, or the
    /// deadline on the monotonic clock. May return early for no reason.
    fn wait(&self, offset: usize, expected: u32, deadline: Option<Nanos>) -> WakeReason;

    /// Wakes up to `count` who sleep on the word at this offset, in whatever process. Does not block.
    fn wake(&self, offset: usize, count: u32);
}

/// Bytes that others may change, with accessors that check where they reach.
pub struct Region {
    start: NonNull<u8>,
    len: usize,
    /// Gives the memory back.
    release: fn(NonNull<u8>, usize),
}

// SAFETY: the memory is reached by atomics and by copies from and to raw pointers only, from any thread.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

/// Beyond a cache line, and what the words in it need.
const ALIGN: usize = 128;

impl Region {
    /// A region of memory that is mapped already.
    ///
    /// # Safety
    /// 1. `start` is aligned to 8 bytes and stays valid for reads and writes of `len` bytes until `release` is called with it, once.
    /// 2. No reference to the memory exists, but to atomics in it.
    pub(crate) unsafe fn new(
        start: NonNull<u8>,
        len: usize,
        release: fn(NonNull<u8>, usize),
    ) -> Region {
        Region {
            start,
            len,
            release,
        }
    }

    /// A region of this process's own, zeroed.
    pub(crate) fn zeroed(len: usize) -> Region {
        fn layout(len: usize) -> Layout {
            Layout::from_size_align(len.max(1), ALIGN).unwrap_or(Layout::new::<u8>())
        }
        let layout_here = layout(len);
        // SAFETY: the layout is not empty.
        let start = unsafe { alloc_zeroed(layout_here) };
        let start = NonNull::new(start).unwrap_or_else(|| handle_alloc_error(layout_here));
        let release = |start: NonNull<u8>, len| {
            // SAFETY: it was allocated with this layout.
            unsafe { dealloc(start.as_ptr(), layout(len)) };
        };
        // SAFETY: the memory is ours, aligned, and given back by the same layout.
        unsafe { Region::new(start, len.min(layout_here.size()), release) }
    }

    /// How many bytes.
    #[expect(clippy::len_without_is_empty, reason = "an empty file is not mapped")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Where an item at an offset is, if it is within and aligned.
    fn at<T>(&self, offset: usize) -> Option<NonNull<T>> {
        let end = offset.checked_add(size_of::<T>())?;
        if end > self.len || !offset.is_multiple_of(align_of::<T>()) {
            return None;
        }
        // SAFETY: the offset is within.
        Some(unsafe { self.start.add(offset) }.cast())
    }

    /// The word of 32 bits at an offset; `None` outside, or where no word can be.
    pub fn word32(&self, offset: usize) -> Option<&AtomicU32> {
        // SAFETY: within, aligned, valid as long as we are, and every value is one.
        self.at(offset).map(|word| unsafe { word.as_ref() })
    }

    /// The word of 64 bits at an offset; `None` outside, or where no word can be.
    pub fn word64(&self, offset: usize) -> Option<&AtomicU64> {
        // SAFETY: within, aligned, valid as long as we are, and every value is one.
        self.at(offset).map(|word| unsafe { word.as_ref() })
    }

    /// Appends `len` bytes from an offset on. What others change meanwhile may be seen in part. `None`, with nothing appended, when that is not
    /// all within.
    pub fn append_to(&self, into: &mut Vec<u8>, offset: usize, len: usize) -> Option<()> {
        if offset.checked_add(len)? > self.len {
            return None;
        }
        into.reserve(len);
        // SAFETY: the source is within the region, which no Rust reference covers; the vector has room for so many bytes, which are there
        // before they are counted in. That others write the source meanwhile makes the bytes any bytes, which all are allowed.
        unsafe {
            let to = into.as_mut_ptr().add(into.len());
            std::ptr::copy_nonoverlapping(self.start.as_ptr().add(offset), to, len);
            into.set_len(into.len() + len);
        }
        Some(())
    }

    /// Fills a buffer from an offset on; as [`append_to`](Self::append_to).
    pub fn read(&self, offset: usize, buf: &mut [u8]) -> Option<()> {
        if offset.checked_add(buf.len())? > self.len {
            return None;
        }
        // SAFETY: the source is within the region, which no Rust reference covers; the buffer is ours.
        unsafe {
            let from = self.start.as_ptr().add(offset);
            std::ptr::copy_nonoverlapping(from, buf.as_mut_ptr(), buf.len());
        }
        Some(())
    }

    /// Copies bytes to an offset. `None`, with nothing written, when that is not all within.
    pub fn write(&self, offset: usize, bytes: &[u8]) -> Option<()> {
        if offset.checked_add(bytes.len())? > self.len {
            return None;
        }
        // SAFETY: the target is within the region, which no Rust reference covers but to atomics, and those allow any bytes.
        unsafe {
            let to = self.start.as_ptr().add(offset);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
        }
        Some(())
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        (self.release)(self.start, self.len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn nothing_reaches_outside() {
        let region = Region::zeroed(100);
        assert!(region.word64(96).is_none() && region.word64(4).is_none());
        assert!(region.word32(96).is_some() && region.word32(100).is_none());
        assert!(region.word32(usize::MAX).is_none());
        region
            .word64(8)
            .expect("a word")
            .store(7, Ordering::Relaxed);
        assert_eq!(region.write(90, &[1; 10]), Some(()));
        assert_eq!(region.write(91, &[1; 10]), None);
        let mut bytes = vec![9];
        assert_eq!(region.append_to(&mut bytes, 8, 92), Some(()));
        assert_eq!((bytes.len(), &bytes[..2]), (93, &[9, 7][..]));
        assert_eq!(region.append_to(&mut bytes, usize::MAX, 1), None);
        assert_eq!(region.read(99, &mut [0; 2]), None);
    }
}

//! A growing array in anonymous memory of its own: what the hook uses where other code uses `Vec`, because it may run
//! inside the program's `malloc`.

use core::ops::{Deref, DerefMut};

use crate::sys;

/// A growing array of plain values, page by page, without the heap.
pub(crate) struct MapVec<T: Copy> {
    at: *mut T,
    len: usize,
    cap: usize,
}

impl<T: Copy> Default for MapVec<T> {
    fn default() -> Self {
        MapVec {
            at: core::ptr::NonNull::dangling().as_ptr(),
            len: 0,
            cap: 0,
        }
    }
}

impl<T: Copy> MapVec<T> {
    /// An array of `len` zero bytes' worth of values; `None` when memory is short.
    ///
    /// # Safety
    /// All-zero bytes are a valid `T`.
    pub(crate) unsafe fn zeroed(len: usize) -> Option<MapVec<T>> {
        let mut new = MapVec::default();
        new.reserve(len).ok()?;
        new.len = len;
        Some(new)
    }

    /// Appends; `Err` when memory is short.
    pub(crate) fn push(&mut self, value: T) -> Result<(), OutOfMemory> {
        if self.len == self.cap {
            self.reserve((self.cap * 2).max(4096 / size_of::<T>().max(1)).max(1))?;
        }
        // SAFETY: len < cap, and the mapping holds cap values.
        unsafe { self.at.add(self.len).write(value) };
        self.len += 1;
        Ok(())
    }

    fn reserve(&mut self, cap: usize) -> Result<(), OutOfMemory> {
        if cap <= self.cap {
            return Ok(());
        }
        let bytes = cap.checked_mul(size_of::<T>()).ok_or(OutOfMemory)?;
        let bytes = bytes.next_multiple_of(4096);
        let new = sys::map_anon(0, bytes, 0).ok_or(OutOfMemory)?.cast::<T>();
        // SAFETY: both are mappings of this array that hold len values, and they do not overlap.
        unsafe { core::ptr::copy_nonoverlapping(self.at, new, self.len) };
        self.release();
        self.at = new;
        self.cap = bytes / size_of::<T>().max(1);
        Ok(())
    }

    fn release(&mut self) {
        if self.cap != 0 {
            let bytes = (self.cap * size_of::<T>()).next_multiple_of(4096);
            // SAFETY: the mapping is this array's and nobody borrows from it while it is &mut.
            unsafe { sys::unmap(self.at.cast(), bytes) };
        }
    }
}

impl<T: Copy> Drop for MapVec<T> {
    fn drop(&mut self) {
        self.release();
    }
}

impl<T: Copy> Deref for MapVec<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        // SAFETY: the first len values are written, or zero bytes by `zeroed`.
        unsafe { core::slice::from_raw_parts(self.at, self.len) }
    }
}

impl<T: Copy> DerefMut for MapVec<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and &mut self is exclusive.
        unsafe { core::slice::from_raw_parts_mut(self.at, self.len) }
    }
}

/// The host had no memory left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OutOfMemory;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_over_many_pages_and_keeps_order() {
        let mut v = MapVec::<u64>::default();
        for i in 0..10_000 {
            v.push(i).unwrap();
        }
        assert!(v.iter().copied().eq(0..10_000));
    }
}

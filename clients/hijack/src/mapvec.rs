//! A growing array in anonymous memory of its own: what the hook uses where other code uses `Vec`, because it may run
//! inside the program's `malloc`.

use core::mem::MaybeUninit;
use core::ops::{Deref, DerefMut};

use crate::sys;

/// A growing array of plain values, page by page, without the heap. The first `FEW` take no memory of their own.
pub(crate) struct MapVec<T: Copy, const FEW: usize = 0> {
    few: [MaybeUninit<T>; FEW],
    /// Where they are when there are more.
    at: *mut T,
    len: usize,
    /// How many the mapping holds; 0 while there is none.
    cap: usize,
}

impl<T: Copy, const FEW: usize> Default for MapVec<T, FEW> {
    fn default() -> Self {
        MapVec {
            few: [MaybeUninit::uninit(); FEW],
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
}

impl<T: Copy, const FEW: usize> MapVec<T, FEW> {
    /// Appends; `Err` when memory is short.
    pub(crate) fn push(&mut self, value: T) -> Result<(), OutOfMemory> {
        if self.len == self.cap.max(FEW) {
            self.reserve((self.len * 2).max(4096 / size_of::<T>().max(1)).max(1))?;
        }
        // SAFETY: there is room for one more.
        unsafe { self.start_mut().add(self.len).write(value) };
        self.len += 1;
        Ok(())
    }

    fn start(&self) -> *const T {
        match self.cap {
            0 => self.few.as_ptr().cast(),
            _ => self.at,
        }
    }

    fn start_mut(&mut self) -> *mut T {
        match self.cap {
            0 => self.few.as_mut_ptr().cast(),
            _ => self.at,
        }
    }

    fn reserve(&mut self, cap: usize) -> Result<(), OutOfMemory> {
        if cap <= self.cap {
            return Ok(());
        }
        let bytes = cap.checked_mul(size_of::<T>()).ok_or(OutOfMemory)?;
        let bytes = bytes.next_multiple_of(4096);
        let new = sys::map_anon(0, bytes, 0).ok_or(OutOfMemory)?.cast::<T>();
        // SAFETY: both are memory of this array that holds len values, and they do not overlap.
        unsafe { core::ptr::copy_nonoverlapping(self.start(), new, self.len) };
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

impl<T: Copy, const FEW: usize> Drop for MapVec<T, FEW> {
    fn drop(&mut self) {
        self.release();
    }
}

impl<T: Copy, const FEW: usize> Deref for MapVec<T, FEW> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        // SAFETY: the first len values are written, or zero bytes by `zeroed`.
        unsafe { core::slice::from_raw_parts(self.start(), self.len) }
    }
}

impl<T: Copy, const FEW: usize> DerefMut for MapVec<T, FEW> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and &mut self is exclusive.
        unsafe { core::slice::from_raw_parts_mut(self.start_mut(), self.len) }
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

    #[test]
    fn a_few_lie_in_place_and_move_when_there_are_more() {
        let mut v = MapVec::<u64, 4>::default();
        for i in 0..4 {
            v.push(i).unwrap();
        }
        assert_eq!(v.cap, 0);
        v[3] = 30;
        for i in 4..1000 {
            v.push(i).unwrap();
        }
        assert_eq!(v[..5], [0, 1, 2, 30, 4]);
        assert_eq!((v.len(), v[999]), (1000, 999));
    }
}

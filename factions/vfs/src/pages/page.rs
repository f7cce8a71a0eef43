//! The page.

use std::ops::{Deref, DerefMut};

/// Bytes of a page.
pub const PAGE_SIZE: usize = 4096;
pub(super) const PAGE: u64 = PAGE_SIZE as u64;

/// The memory of one page. A page that is being written back is shared between the index and the write-back; who
/// changes it meanwhile gives the index a copy, so what is being written stays as it was.
#[derive(Clone)]
pub(super) struct Page([u8; PAGE_SIZE]);

impl Page {
    pub(super) fn zeroed() -> Page {
        Page([0; PAGE_SIZE])
    }
}

impl Deref for Page {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Page {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

/// What a hole reads as.
pub(super) static ZEROES: [u8; PAGE_SIZE] = [0; PAGE_SIZE];

/// The page that a byte is in.
#[inline]
pub(super) const fn page_of(offset: u64) -> u64 {
    offset / PAGE
}

/// How many pages a file of this size has.
#[inline]
pub(super) const fn pages_of(size: u64) -> u64 {
    size.div_ceil(PAGE)
}

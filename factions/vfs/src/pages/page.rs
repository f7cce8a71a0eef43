//! The page.

use std::ops::Deref;
use std::sync::Arc;

/// Bytes of a page.
pub const PAGE_SIZE: usize = 4096;
pub(super) const PAGE: u64 = PAGE_SIZE as u64;

/// A handle to the memory of one page. A page that is being written back is shared between the index and the write-back;
/// who changes it meanwhile gives the index a copy, so what is being written stays as it was.
#[derive(Clone)]
pub(super) struct Page(Arc<[u8; PAGE_SIZE]>);

impl Page {
    pub(super) fn zeroed() -> Page {
        // Collected in place: an array would come by way of the stack.
        let bytes: Arc<[u8]> = std::iter::repeat_n(0, PAGE_SIZE).collect();
        Page(
            bytes
                .try_into()
                .unwrap_or_else(|_| Arc::new([0; PAGE_SIZE])),
        )
    }

    /// A page of these bytes, which are so many.
    pub(super) fn of(bytes: &[u8; PAGE_SIZE]) -> Page {
        let mut page = Page::zeroed();
        page.bytes_mut().copy_from_slice(bytes);
        page
    }

    /// The bytes, to be changed: of a copy if the page is shared.
    #[inline]
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut Arc::make_mut(&mut self.0)[..]
    }

    /// Whether somebody else has the page too.
    pub(super) fn is_shared(&mut self) -> bool {
        Arc::get_mut(&mut self.0).is_none()
    }
}

impl Deref for Page {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        &*self.0
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

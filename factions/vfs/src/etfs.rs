//! etfs: host files that appear in the kernel's root under keys of their own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kern::Curlwp;

use crate::Vnode;

/// The registered keys.
#[derive(Default)]
pub(crate) struct Etfs {
    count: AtomicUsize,
}

impl Etfs {
    /// Whether there is any key.
    #[inline]
    pub(crate) fn is_used(&self) -> bool {
        self.count.load(Ordering::Relaxed) != 0
    }

    /// The node that the rest of a path names, and how much of it was the key.
    pub(crate) fn find(&self, _cx: &Curlwp<'_>, _rest: &[u8]) -> Option<(Arc<Vnode>, usize)> {
        None
    }
}

//! The page cache and the buffer cache: the data of regular files and block devices.
//!
//! Every byte that read(2) and write(2) move goes through pages of 4 KiB that each vnode keeps in an index of its own. A
//! cached read takes the vnode's `io` lock shared and nothing else. Missing pages come from the driver (from the
//! [`BlockDev`](crate::BlockDev) for a block node) in one call for as many as lie together; dirty pages go back in
//! large runs, in file order.
//!
//! # Locks
//! In this order:
//! 1. `writeback` of a vnode: held by who writes its pages back, cuts it or discards it. So a file is never cut under
//!    pages that are on their way to the driver, and its pages are written once and in order.
//! 2. `io` of the vnode: guards the pages, which of them are dirty, and the file's size. Shared to read, exclusive to
//!    write, cut, append, and to put pages in or take them out. It is held while copying to and from the caller's
//!    memory only where that cannot wait for the caller, and not while the driver reads or writes pages.
//! 3. `fills` of the vnode: which missing pages somebody is reading from the driver. A page has one filler; others wait
//!    on `filled`. A cut takes the pages it removes away from the fillers, whose data then is not used.
//! 4. the kernel-wide lists, leaves both: the clock's ring and the list of dirty files. The clock's hand only ever
//!    tries for an `io` lock.
//!
//! Between `io` and what a driver locks come no other locks of the vfs.
//!
//! # Write-back
//! Pages on their way to the driver are shared, not locked: a writer that changes one gets a copy (`page`). A page
//! that could not be written stays dirty and is tried again at the next occasion; the error is told once to each open
//! file that calls fsync(2) (`error`). Pages of a discarded file are never written.
//!
//! A file of which pages are cached, or dirty, is kept in memory: its vnode is in the clock's ring or in the list of
//! dirty files. Vnodes whose driver says [`resident`](crate::VnodeOps::resident) are in neither: their pages live and
//! die with them.
//!
//! # Windows
//! A part of a file that programs have mapped shared is in a `window` as long as they have, and not in the index.
//!
//! Start reading at `read`, `write`, then `writeback` and `memory`.

mod ahead;
mod backing;
mod cut;
mod data;
mod error;
mod memory;
mod page;
mod radix;
mod read;
mod syncer;
mod window;
mod write;
mod writeback;

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use kern::Curlwp;
use sync::{Condvar, Mutex, RwLock};

use crate::{Vnode, VnodeKind, VnodeOps};
use ahead::Ahead;
use data::FileData;
use error::WriteError;
use read::Fill;

pub use ahead::readahead;
pub use cut::{allocate, discard, evict, punch, truncate, zero};
pub use error::ErrorMark;
pub use memory::PageCache;
pub use page::PAGE_SIZE;
pub use read::{next_data, next_hole, read};
pub use window::{map, map_again, unmap};
pub use write::write;
pub use writeback::{drop_mount, error_mark, flush, flush_mount, fsync};

/// What a vnode has of the page cache.
///
/// The locks are explained in the module's documentation. `ring_slot` changes under the ring's lock and this file's
/// `io` held exclusively; `dirty_ticket` changes under the lock of the list of dirty files.
pub(crate) struct Pages {
    resident: bool,
    writeback: Mutex<()>,
    io: RwLock<FileData>,
    fills: Mutex<Vec<Fill>>,
    filled: Condvar,
    error: WriteError,
    ahead: Ahead,
    /// The kernel's cache, in whose accounts the pages are.
    cache: OnceLock<Arc<PageCache>>,
    /// Place in the clock's ring.
    ring_slot: AtomicUsize,
    /// Place in the list of dirty files; 0 for none.
    dirty_ticket: AtomicU64,
    /// Attributes have changed that the driver has not stored.
    attr_dirty: AtomicBool,
}

impl Pages {
    pub(crate) fn new(kind: VnodeKind, ops: &dyn VnodeOps) -> Pages {
        Pages {
            resident: kind != VnodeKind::Block && ops.resident(),
            writeback: Mutex::default(),
            io: RwLock::default(),
            fills: Mutex::default(),
            filled: Condvar::new("pagein"),
            error: WriteError::default(),
            ahead: Ahead::default(),
            cache: OnceLock::new(),
            ring_slot: AtomicUsize::new(memory::NOWHERE),
            dirty_ticket: AtomicU64::new(0),
            attr_dirty: AtomicBool::new(false),
        }
    }

    /// Says that attributes have changed that the driver is to be told of.
    pub(crate) fn attr_changed(&self, cx: &Curlwp<'_>, vp: &Arc<Vnode>) {
        if !self.resident {
            self.attr_dirty.store(true, Ordering::SeqCst);
            memory::list_dirty(cx, vp);
        }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        if let Some(cache) = self.cache.get() {
            let data = self.io.get_mut();
            if let Some(window) = &data.window {
                cache.uncharge(window.known(), true);
            }
            cache.gone(data.pages(), data.dirty(), self.resident);
        }
    }
}

/// Bytes of a file or a block device.
#[inline]
fn size(cx: &Curlwp<'_>, vp: &Vnode) -> u64 {
    if vp.kind == VnodeKind::Block {
        return vp.block_device().map_or(0, |device| device.size());
    }
    vp.attr(cx).size
}

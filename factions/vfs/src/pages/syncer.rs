//! When dirty pages are written without anybody asking: by age, and when there are many.

use std::sync::Arc;

use hypercall::{Clock, Nanos};
use kern::Curlwp;

use super::PageCache;
use super::memory::cache;
use super::page::PAGE;
use super::writeback::flush;
use crate::Vnode;

/// How long data may wait to be written.
const MAX_AGE: Nanos = 5_000_000_000;
/// Where writing in the background begins at the latest.
const BACKGROUND: u64 = (32 << 20) / PAGE;

impl PageCache {
    /// How many dirty pages have the syncer begin, and at how many a writer has to write some itself.
    fn dirty_limits(&self, cx: &Curlwp<'_>) -> (u64, u64) {
        let limit = self.limit(cx);
        ((limit / 8).min(BACKGROUND), (limit / 4).max(1))
    }

    /// Called before a write, with no lock: a writer that has made much dirty waits until some of it is written.
    #[inline]
    pub(super) fn throttle(&self, cx: &Curlwp<'_>) {
        let (background, hard) = self.dirty_limits(cx);
        let dirty = self.dirty_pages();
        if dirty > background || !cx.kernel().config().threads {
            self.write_some(cx, dirty, hard);
        }
    }

    #[cold]
    fn write_some(&self, cx: &Curlwp<'_>, dirty: u64, hard: u64) {
        let called = self.syncer.call(cx);
        if !called {
            write_old(cx, self);
        }
        if dirty > hard
            && let Some(file) = self.oldest_dirty(cx)
        {
            // Who made it dirty is told of an error; this writer only waits.
            let _ = flush(cx, &file);
        }
    }
}

/// What the syncer does: writes what is old, and the oldest when there is much.
pub(super) fn sync_work(cx: &Curlwp<'_>) -> Option<Nanos> {
    let cache = cache(cx).ok()?;
    let (background, _) = cache.dirty_limits(cx);
    let next = write_old(cx, cache);
    while cache.dirty_pages() > background / 2 {
        let Some(file) = cache.oldest_dirty(cx) else {
            break;
        };
        if !write(cx, &file) {
            break;
        }
    }
    next
}

/// Writes what has waited for too long; answers when that will be true of more.
fn write_old(cx: &Curlwp<'_>, cache: &PageCache) -> Option<Nanos> {
    loop {
        let since = cache.oldest_dirty_since(cx)?;
        let due = since + MAX_AGE;
        if due > cx.now(Clock::Monotonic) {
            return Some(due);
        }
        // One that cannot be written is the youngest afterwards, so this ends.
        write(cx, &cache.oldest_dirty(cx)?);
    }
}

fn write(cx: &Curlwp<'_>, file: &Arc<Vnode>) -> bool {
    let result = flush(cx, file);
    if let Err(error) = result {
        let fs = file.mount().map_or("a file system", |mount| mount.fstype);
        cx.log(format_args!(
            "{fs}: file {}: writing back: {error}; will be tried again",
            file.ino
        ));
    }
    result.is_ok()
}

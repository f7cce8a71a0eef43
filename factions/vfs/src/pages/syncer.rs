//! When dirty pages are written without anybody asking: by age, and when there are many.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use hypercall::{Clock, Nanos};
use kern::Curlwp;
use kern::callout::Callout;
use kern::workqueue::Workqueue;
use sync::Once;

use super::PageCache;
use super::memory::cache;
use super::page::PAGE;
use super::writeback::flush;
use crate::Vnode;

/// How long data may wait to be written.
pub(super) const MAX_AGE: Nanos = 5_000_000_000;
/// Where writing in the background begins at the latest.
const BACKGROUND: u64 = (32 << 20) / PAGE;

/// The thread that writes, which comes with the first time that it is called, and what calls it when something has
/// waited for too long.
#[derive(Default)]
pub(super) struct Syncer {
    parts: Once<(Workqueue, Callout)>,
    called: AtomicBool,
    /// When files that are mapped are looked through again; only the syncer's thread looks.
    mapped_due: AtomicU64,
}

impl Syncer {
    fn parts(&self, cx: &Curlwp<'_>) -> &(Workqueue, Callout) {
        self.parts.get_or_init(cx.cpu(), || {
            let call = |cx: &Curlwp<'_>| {
                if let Ok(cache) = cache(cx) {
                    cache.syncer.call(cx);
                }
            };
            (
                Workqueue::new(cx, "syncer"),
                Callout::new(cx.kernel(), call),
            )
        })
    }

    /// Has it look for work at a time of the monotonic clock.
    pub(super) fn wake_at(&self, cx: &Curlwp<'_>, time: Nanos) {
        self.parts(cx).1.schedule(cx.cpu(), time);
    }

    /// Has it look for work now.
    fn call(&self, cx: &Curlwp<'_>) {
        if !self.called.swap(true, Ordering::SeqCst) {
            self.parts(cx).0.enqueue(cx.cpu(), |cx| {
                if let Ok(cache) = cache(cx) {
                    cache.syncer.called.store(false, Ordering::SeqCst);
                    cache.sync_work(cx);
                }
            });
        }
    }
}

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
        if dirty > background {
            self.write_some(cx, dirty > hard);
        }
    }

    #[cold]
    fn write_some(&self, cx: &Curlwp<'_>, much: bool) {
        self.syncer.call(cx);
        if much && let Some(file) = self.oldest_dirty(cx) {
            // Who made it dirty is told of an error; this writer only waits.
            let _ = flush(cx, &file);
        }
    }

    /// Writes what programs have written to files that they have mapped; answers when it is to be done again.
    fn write_mapped(&self, cx: &Curlwp<'_>) -> Option<Nanos> {
        let files = self.mapped_files(cx);
        if files.is_empty() {
            return None;
        }
        let (now, due) = (
            cx.now(Clock::Monotonic),
            self.syncer.mapped_due.load(Ordering::Relaxed),
        );
        if now < due {
            return Some(due);
        }
        self.syncer
            .mapped_due
            .store(now + MAX_AGE, Ordering::Relaxed);
        for file in files {
            write(cx, &file);
        }
        Some(now + MAX_AGE)
    }

    /// What the syncer does: writes what is old, and the oldest when there is much.
    fn sync_work(&self, cx: &Curlwp<'_>) {
        let (background, _) = self.dirty_limits(cx);
        let next = write_old(cx, self);
        while self.dirty_pages() > background / 2
            && let Some(file) = self.oldest_dirty(cx)
            && write(cx, &file)
        {}
        let mapped = self.write_mapped(cx);
        if let Some(next) = [next, mapped].into_iter().flatten().min() {
            self.syncer.wake_at(cx, next);
        }
    }
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

//! Read-ahead: reading what will be asked for next.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use kern::Curlwp;
use kern::workqueue::Workqueue;
use sync::Once;

use super::memory::cache;
use super::page::{page_of, pages_of};
use super::read::{MAX_FILL, fill_all};
use super::size;
use crate::Vnode;

/// How many pages the first miss of a reader that seems to read on reads.
const FIRST_WINDOW: u64 = 8;
/// The most requests that wait.
const MAX_WAITING: u32 = 16;

/// How a file is being read. It is one state for all its readers: those that read it in order at different places at
/// once get less of it. Atomics without a lock: nothing depends on them but speed.
pub(super) struct Ahead {
    /// Where a reader that reads on in order will miss next.
    at: AtomicU64,
    /// How many pages to read there.
    window: AtomicU64,
    /// The page that has the next window read in the background when it is reached.
    mark: AtomicU64,
}

impl Default for Ahead {
    fn default() -> Self {
        Ahead {
            at: AtomicU64::new(0),
            window: AtomicU64::new(0),
            mark: AtomicU64::new(u64::MAX),
        }
    }
}

impl Ahead {
    /// A reader wants pages of which the first is missing. Answers what to read: more each time for who reads on in
    /// order.
    pub(super) fn missed(&self, want: Range<u64>) -> Range<u64> {
        let (at, window) = (
            self.at.load(Ordering::Relaxed),
            self.window.load(Ordering::Relaxed),
        );
        let most = want.start.saturating_add(MAX_FILL);
        if (at.saturating_sub(window)..at).contains(&want.start) {
            // The reader is faster than the background: it reads the window itself.
            return want.start..want.end.max(at).min(most);
        }
        let in_order = at == want.start;
        let window = match in_order {
            true => (window * 2).clamp(FIRST_WINDOW, MAX_FILL),
            false => 0,
        };
        let end = want.end.max(want.start.saturating_add(window)).min(most);
        let mark = match in_order {
            true => end - (end - want.start) / 2,
            false => u64::MAX,
        };
        self.window.store(window, Ordering::Relaxed);
        self.at.store(end, Ordering::Relaxed);
        self.mark.store(mark, Ordering::Relaxed);
        want.start..end
    }

    /// A reader has been given these pages. When it reaches the mark the next window is read in the background.
    #[inline]
    pub(super) fn reached(&self, cx: &Curlwp<'_>, vp: &Arc<Vnode>, pages: Range<u64>) {
        if pages.contains(&self.mark.load(Ordering::Relaxed)) {
            self.go_on(cx, vp);
        }
    }

    #[cold]
    fn go_on(&self, cx: &Curlwp<'_>, vp: &Arc<Vnode>) {
        let Ok(cache) = cache(cx) else { return };
        let start = self.at.load(Ordering::Relaxed);
        let window = self.window.load(Ordering::Relaxed) * 2;
        let window = window.clamp(FIRST_WINDOW, MAX_FILL).min(cache.most(cx));
        self.mark.store(u64::MAX, Ordering::Relaxed);
        if start >= pages_of(size(cx, vp)) || !cx.kernel().config().threads {
            return;
        }
        let end = start.saturating_add(window);
        self.window.store(window, Ordering::Relaxed);
        self.at.store(end, Ordering::Relaxed);
        self.mark.store(start, Ordering::Relaxed);
        cache.reader.request(cx, vp, start..end);
    }
}

/// The thread that reads in the background, which comes with the first request.
#[derive(Default)]
pub(super) struct Reader {
    queue: Once<Workqueue>,
    waiting: AtomicU32,
}

impl Reader {
    /// Reads pages when there is time for it. Drops the request when there are many.
    fn request(&self, cx: &Curlwp<'_>, vp: &Arc<Vnode>, pages: Range<u64>) {
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= MAX_WAITING {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let vp = vp.clone();
        let queue = self
            .queue
            .get_or_init(cx.cpu(), || Workqueue::new(cx, "readahead"));
        queue.enqueue(cx.cpu(), move |cx| {
            fill_all(cx, &vp, pages);
            if let Ok(cache) = cache(cx) {
                cache.reader.waiting.fetch_sub(1, Ordering::Relaxed);
            }
        });
    }

    /// Waits until all that was requested is read: a mount is going away.
    pub(super) fn finish(&self, cx: &Curlwp<'_>) {
        if let Some(queue) = self.queue.get() {
            queue.wait(cx);
        }
    }
}

/// Brings pages into the cache that will be read soon, readahead(2).
pub fn readahead(cx: &Curlwp<'_>, vp: &Arc<Vnode>, offset: u64, len: u64) {
    if let (false, Ok(cache)) = (vp.pages.resident, cache(cx)) {
        let pages = page_of(offset)..pages_of(offset.saturating_add(len).min(size(cx, vp)));
        cache.reader.request(cx, vp, pages);
    }
}

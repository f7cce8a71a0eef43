//! The memory of the cache: how much it may be, and what goes when it is short.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use abi::Errno;
use hypercall::{Clock, Nanos};
use kern::Curlwp;
use sync::Mutex;

use super::page::PAGE;
use super::writeback;
use crate::{Vfs, Vnode};

/// Not in the clock's ring.
pub(super) const NOWHERE: usize = usize::MAX;

/// The page cache of a kernel: its accounts, the files whose pages can go, and the files with something to write.
///
/// Both locks are leaves.
#[derive(Default)]
pub struct PageCache {
    /// Pages that there may be, from `RUMP_MEMLIMIT`.
    limit: OnceLock<u64>,
    used: AtomicU64,
    dirty: AtomicU64,
    ring: Mutex<Ring>,
    dirty_files: Mutex<DirtyFiles>,
}

/// The files with pages that may go when memory is short, and the clock's hand.
#[derive(Default)]
struct Ring {
    files: Vec<Arc<Vnode>>,
    hand: usize,
    /// The page of that file where the hand stands.
    at: u64,
}

/// The files with something to write, in the order in which they became dirty.
#[derive(Default)]
struct DirtyFiles {
    files: BTreeMap<u64, DirtyFile>,
    last_ticket: u64,
}

struct DirtyFile {
    file: Arc<Vnode>,
    since: Nanos,
}

/// The kernel's page cache.
pub(super) fn cache<'a>(cx: &'a Curlwp<'_>) -> Result<&'a Arc<PageCache>, Errno> {
    Ok(Vfs::of(cx)?.page_cache())
}

impl PageCache {
    /// Bytes of memory that pages take now.
    pub fn memory(&self) -> u64 {
        self.used.load(Ordering::Relaxed) * PAGE
    }

    /// Bytes of it that wait to be written back.
    pub fn dirty(&self) -> u64 {
        self.dirty.load(Ordering::Relaxed) * PAGE
    }

    fn limit(&self, cx: &Curlwp<'_>) -> u64 {
        *self.limit.get_or_init(|| {
            let bytes = cx.kernel().config().memlimit;
            bytes.map_or(u64::MAX, |bytes| (bytes / PAGE).max(1))
        })
    }

    /// How many pages may be asked for at once.
    pub(super) fn most(&self, cx: &Curlwp<'_>) -> u64 {
        (self.limit(cx) / 4).max(1)
    }

    /// Takes pages from what is left; false when there is not enough.
    pub(super) fn charge(&self, cx: &Curlwp<'_>, pages: u64) -> bool {
        let limit = self.limit(cx);
        let used = self.used.fetch_add(pages, Ordering::Relaxed) + pages;
        if used > limit {
            self.used.fetch_sub(pages, Ordering::Relaxed);
        }
        used <= limit
    }

    /// Gives pages back.
    pub(super) fn uncharge(&self, pages: u64) {
        self.used.fetch_sub(pages, Ordering::Relaxed);
    }

    /// Counts pages that became dirty.
    pub(super) fn dirtied(&self, pages: u64) {
        self.dirty.fetch_add(pages, Ordering::Relaxed);
    }

    /// Counts pages that are dirty no more.
    pub(super) fn cleaned(&self, pages: u64) {
        self.dirty.fetch_sub(pages, Ordering::Relaxed);
    }

    /// Takes pages that are gone, `dirty` of them dirty, out of the accounts. Dirty pages of a resident file are not
    /// counted as such: nobody will write them.
    pub(super) fn gone(&self, pages: u64, dirty: u64, resident: bool) {
        self.uncharge(pages);
        if !resident {
            self.cleaned(dirty);
        }
    }

    /// Makes room for pages: clean ones go that were not used for a round of the clock's hand; if there are none, the
    /// file that has been dirty for longest is written first. `ENOMEM` when everything is in use. Called with no lock.
    #[cold]
    pub(super) fn reclaim(&self, cx: &Curlwp<'_>, pages: u64) -> Result<(), Errno> {
        let batch = pages.max((self.limit(cx) / 32).min(1024));
        if self.sweep(cx, batch) >= pages {
            return Ok(());
        }
        let mut result = Ok(());
        while let Some(file) = self.oldest_dirty(cx) {
            result = writeback::flush(cx, &file);
            if self.sweep(cx, batch) >= pages {
                return Ok(());
            }
            if result.is_err() {
                break;
            }
        }
        result.and(Err(Errno::ENOMEM))
    }

    /// Moves the clock's hand until so many pages are free, at most three times round. Answers how many it freed.
    fn sweep(&self, cx: &Curlwp<'_>, want: u64) -> u64 {
        let mut freed = 0;
        let mut rounds = 0;
        let mut emptied = Vec::new();
        let mut ring = self.ring.lock(cx.cpu());
        while freed < want && rounds < 3 {
            if ring.hand >= ring.files.len() {
                ring.hand = 0;
                ring.at = 0;
                rounds += 1;
            }
            let Some(file) = ring.files.get(ring.hand).cloned() else {
                break;
            };
            let Some(mut data) = file.pages.io.try_write(cx.cpu()) else {
                ring.next_file();
                continue;
            };
            match data.sweep(ring.at) {
                Some((next, removed)) => {
                    ring.at = next;
                    freed += removed.pages;
                    self.uncharge(removed.pages);
                }
                None if data.pages() == 0 => {
                    ring.remove(&file);
                    ring.at = 0;
                    drop(data);
                    emptied.push(file);
                }
                None => ring.next_file(),
            }
        }
        drop(ring);
        freed
    }

    /// Puts a file into the clock's ring; by who holds its `io` exclusively and has put its first page in.
    pub(super) fn enlist(&self, cx: &Curlwp<'_>, file: &Arc<Vnode>) {
        let _ = file.pages.cache.get_or_init(|| match cache(cx) {
            Ok(cache) => cache.clone(),
            Err(_) => Arc::default(),
        });
        if file.pages.resident || file.pages.ring_slot.load(Ordering::Relaxed) != NOWHERE {
            return;
        }
        let mut ring = self.ring.lock(cx.cpu());
        file.pages
            .ring_slot
            .store(ring.files.len(), Ordering::Relaxed);
        ring.files.push(file.clone());
    }

    /// Takes a file out of the ring; by who holds its `io` exclusively.
    pub(super) fn delist(&self, cx: &Curlwp<'_>, file: &Arc<Vnode>) {
        if file.pages.ring_slot.load(Ordering::Relaxed) != NOWHERE {
            self.ring.lock(cx.cpu()).remove(file);
        }
    }

    /// Every file in the ring that `of` chooses.
    pub(super) fn files(&self, cx: &Curlwp<'_>, of: impl Fn(&Vnode) -> bool) -> Vec<Arc<Vnode>> {
        let ring = self.ring.lock(cx.cpu());
        ring.files.iter().filter(|f| of(f)).cloned().collect()
    }

    /// Every dirty file that `of` chooses, the one that has been so for longest first.
    pub(super) fn dirty_files(
        &self,
        cx: &Curlwp<'_>,
        of: impl Fn(&Vnode) -> bool,
    ) -> Vec<Arc<Vnode>> {
        let dirty = self.dirty_files.lock(cx.cpu());
        let files = dirty.files.values().map(|entry| &entry.file);
        files.filter(|f| of(f)).cloned().collect()
    }

    /// The files that became dirty before a point of the monotonic clock.
    pub(super) fn dirty_before(&self, cx: &Curlwp<'_>, time: Nanos) -> Vec<Arc<Vnode>> {
        let dirty = self.dirty_files.lock(cx.cpu());
        let old = dirty.files.values().take_while(|entry| entry.since < time);
        old.map(|entry| entry.file.clone()).collect()
    }

    fn oldest_dirty(&self, cx: &Curlwp<'_>) -> Option<Arc<Vnode>> {
        let dirty = self.dirty_files.lock(cx.cpu());
        dirty.files.values().next().map(|entry| entry.file.clone())
    }
}

impl Ring {
    fn next_file(&mut self) {
        self.hand += 1;
        self.at = 0;
    }

    fn remove(&mut self, file: &Vnode) {
        let slot = file.pages.ring_slot.swap(NOWHERE, Ordering::Relaxed);
        if slot >= self.files.len() {
            return;
        }
        let _ = self.files.swap_remove(slot);
        if let Some(moved) = self.files.get(slot) {
            moved.pages.ring_slot.store(slot, Ordering::Relaxed);
        }
    }
}

/// Puts a file that has something to write into the list of dirty files.
pub(super) fn list_dirty(cx: &Curlwp<'_>, file: &Arc<Vnode>) {
    if file.pages.dirty_ticket.load(Ordering::SeqCst) != 0 {
        return;
    }
    let Ok(cache) = cache(cx) else {
        return;
    };
    let since = cx.now(Clock::Monotonic);
    let mut dirty = cache.dirty_files.lock(cx.cpu());
    if file.pages.dirty_ticket.load(Ordering::SeqCst) != 0 {
        return;
    }
    dirty.last_ticket += 1;
    let ticket = dirty.last_ticket;
    file.pages.dirty_ticket.store(ticket, Ordering::SeqCst);
    let file = file.clone();
    dirty.files.insert(ticket, DirtyFile { file, since });
}

/// Takes a file out of the list of dirty files. What becomes dirty from now on puts it there again.
pub(super) fn unlist_dirty(cx: &Curlwp<'_>, file: &Arc<Vnode>) {
    if file.pages.dirty_ticket.load(Ordering::SeqCst) == 0 {
        return;
    }
    let Ok(cache) = cache(cx) else {
        return;
    };
    let mut dirty = cache.dirty_files.lock(cx.cpu());
    let ticket = file.pages.dirty_ticket.swap(0, Ordering::SeqCst);
    let _entry = dirty.files.remove(&ticket);
}

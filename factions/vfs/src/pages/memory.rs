//! The memory of the cache: how much it may be, and what goes when it is short.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use abi::Errno;
use hypercall::{Clock, Nanos};
use kern::Curlwp;
use sync::{Condvar, Mutex, Parker, Wake};

use super::ahead::Reader;
use super::page::PAGE;
use super::syncer::{MAX_AGE, Syncer};
use super::writeback;
use crate::{Vfs, Vnode};

/// Not in the clock's ring.
pub(super) const NOWHERE: usize = usize::MAX;
/// How long to wait for pages that others have in their hands.
const MAX_WAIT: Nanos = 10_000_000_000;

/// The page cache of a kernel: its accounts, the files whose pages can go, and the files with something to write.
///
/// All locks are leaves.
pub struct PageCache {
    /// Pages that there may be, from `RUMP_MEMLIMIT`.
    limit: OnceLock<u64>,
    pub(super) syncer: Syncer,
    pub(super) reader: Reader,
    used: AtomicU64,
    /// Those of them that stay: of files whose only place is the cache.
    resident: AtomicU64,
    dirty: AtomicU64,
    ring: Mutex<Ring>,
    dirty_files: Mutex<DirtyFiles>,
    /// The files that programs have mapped to write to, which they do without telling.
    mapped: Mutex<Vec<Arc<Vnode>>>,
    /// Who has pages on their way from or to a driver.
    busy: AtomicU32,
    /// Who waits for pages that come free; then `freed` counts the times that some did.
    waiting: AtomicU32,
    freed: Mutex<u64>,
    freed_cv: Condvar,
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

impl Default for PageCache {
    fn default() -> Self {
        PageCache {
            limit: OnceLock::new(),
            syncer: Syncer::default(),
            reader: Reader::default(),
            used: AtomicU64::new(0),
            resident: AtomicU64::new(0),
            dirty: AtomicU64::new(0),
            ring: Mutex::default(),
            dirty_files: Mutex::default(),
            mapped: Mutex::default(),
            busy: AtomicU32::new(0),
            waiting: AtomicU32::new(0),
            freed: Mutex::default(),
            freed_cv: Condvar::new("pagefree"),
        }
    }
}

impl PageCache {
    /// Lets every file go, written or not, because the kernel goes: its files and this cache hold each other.
    pub(crate) fn let_go(&self, parker: &dyn Parker) {
        let ring = std::mem::take(&mut *self.ring.lock(parker));
        let dirty = std::mem::take(&mut *self.dirty_files.lock(parker));
        let mapped = std::mem::take(&mut *self.mapped.lock(parker));
        drop((ring, dirty, mapped));
    }

    /// Bytes of memory that pages take now.
    pub fn memory(&self) -> u64 {
        self.used.load(Ordering::Relaxed) * PAGE
    }

    /// Bytes of it that wait to be written back.
    pub fn dirty(&self) -> u64 {
        self.dirty.load(Ordering::Relaxed) * PAGE
    }

    pub(super) fn dirty_pages(&self) -> u64 {
        self.dirty.load(Ordering::Relaxed)
    }

    pub(super) fn limit(&self, cx: &Curlwp<'_>) -> u64 {
        *self
            .limit
            .get_or_init(|| (cx.kernel().memory_limit() / PAGE).max(1))
    }

    /// How many pages may be asked for at once; so many are kept from files whose pages stay, so that others can be read and
    /// written however full those are.
    pub(super) fn most(&self, cx: &Curlwp<'_>) -> u64 {
        (self.limit(cx) / 8).max(1)
    }

    /// Takes pages for a file from what is left; false when there is not enough.
    pub(super) fn charge(&self, cx: &Curlwp<'_>, vp: &Vnode, pages: u64) -> bool {
        if vp.pages.resident && !self.charge_resident(cx, pages) {
            return false;
        }
        let enough = self.used.fetch_add(pages, Ordering::Relaxed) + pages <= self.limit(cx);
        if !enough {
            self.uncharge(pages, vp.pages.resident);
        }
        enough
    }

    /// Takes pages of a window that are there already, however many are left.
    pub(super) fn charge_always(&self, pages: u64) {
        self.used.fetch_add(pages, Ordering::Relaxed);
        self.pin(pages);
    }

    /// Pages that could go stay from now on: a program has them mapped.
    pub(super) fn pin(&self, pages: u64) {
        self.resident.fetch_add(pages, Ordering::Relaxed);
    }

    fn charge_resident(&self, cx: &Curlwp<'_>, pages: u64) -> bool {
        let most = self.most_resident(cx);
        let enough = self.resident.fetch_add(pages, Ordering::Relaxed) + pages <= most;
        if !enough {
            self.resident.fetch_sub(pages, Ordering::Relaxed);
        }
        enough
    }

    fn most_resident(&self, cx: &Curlwp<'_>) -> u64 {
        (self.limit(cx) - self.most(cx)).max(1)
    }

    /// Whether there can be one more page of a file whose pages stay.
    pub(super) fn has_room_for_resident(&self, cx: &Curlwp<'_>) -> bool {
        self.resident.load(Ordering::Relaxed) < self.most_resident(cx)
    }

    /// Gives pages of a file back, whose pages stay or not.
    pub(super) fn uncharge(&self, pages: u64, resident: bool) {
        self.used.fetch_sub(pages, Ordering::Relaxed);
        if resident {
            self.resident.fetch_sub(pages, Ordering::Relaxed);
        }
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
        self.uncharge(pages, resident);
        if !resident {
            self.cleaned(dirty);
        }
    }

    /// Makes room for pages: clean ones go that were not used for a round of the clock's hand; if there are none, the
    /// file that has been dirty for longest is written first. While others have pages in their hands it waits for those.
    /// `ENOMEM` when there are only pages that stay. Called with no lock.
    #[cold]
    pub(super) fn reclaim(&self, cx: &Curlwp<'_>, pages: u64) -> Result<(), Errno> {
        let deadline = cx.now(Clock::Monotonic) + MAX_WAIT;
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let result = loop {
            let seen = *self.freed.lock(cx.cpu());
            let result = self.make_room(cx, pages);
            if result != Err(Errno::ENOMEM) {
                break result;
            }
            let used = self.used.load(Ordering::SeqCst);
            if used + pages <= self.limit(cx) {
                // Others let go of theirs.
                break Ok(());
            }
            let others = used.saturating_sub(self.resident.load(Ordering::SeqCst));
            let go_on = if self.busy.load(Ordering::SeqCst) != 0 {
                self.wait_for_freed(cx, seen, deadline)
            } else {
                // Others were faster, to write what was dirty or to take what came free.
                cx.unscheduled(|| cx.kernel().host().relax());
                others != 0 && cx.now(Clock::Monotonic) < deadline
            };
            if !go_on {
                break result;
            }
        };
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        result
    }

    fn make_room(&self, cx: &Curlwp<'_>, pages: u64) -> Result<(), Errno> {
        let batch = pages.max((self.limit(cx) / 32).min(1024));
        if self.sweep(cx, batch) >= pages {
            return Ok(());
        }
        while let Some(file) = self.oldest_dirty(cx) {
            let result = writeback::flush(cx, &file);
            if self.sweep(cx, batch) >= pages {
                return Ok(());
            }
            result?;
        }
        Err(Errno::ENOMEM)
    }

    /// Waits until somebody has let go of pages since `seen`; false when none has by the deadline.
    fn wait_for_freed(&self, cx: &Curlwp<'_>, seen: u64, deadline: Nanos) -> bool {
        let mut freed = self.freed.lock(cx.cpu());
        while *freed == seen {
            let (again, wake) = self.freed_cv.wait_until(cx.cpu(), freed, deadline);
            freed = again;
            if wake == Wake::TimedOut {
                return *freed != seen;
            }
        }
        true
    }

    /// Holds pages that will come free by themselves: those on their way from or to a driver.
    pub(super) fn hold_busy<'a, 'k>(&'a self, cx: &'a Curlwp<'k>) -> Busy<'a, 'k> {
        self.busy.fetch_add(1, Ordering::SeqCst);
        Busy { cache: self, cx }
    }

    /// Moves the clock's hand until so many pages are free, at most three times round. Answers how many it freed.
    fn sweep(&self, cx: &Curlwp<'_>, want: u64) -> u64 {
        let mut freed = 0;
        let mut rounds = 0;
        let mut emptied = Vec::new();
        let mut locked = None;
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
                locked = Some(file);
                continue;
            };
            match data.sweep(ring.at) {
                Some((next, removed)) => {
                    ring.at = next;
                    freed += removed.pages;
                    self.uncharge(removed.pages, false);
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
        if let (0, Some(file)) = (freed, locked) {
            // It may be the one that has everything: it is worth waiting for who has it.
            freed = self.sweep_file(cx, &file, want);
        }
        freed
    }

    /// Frees so many pages of one file, those that were used last too.
    fn sweep_file(&self, cx: &Curlwp<'_>, file: &Arc<Vnode>, want: u64) -> u64 {
        let mut data = file.pages.io.write(cx.cpu());
        let mut freed = 0;
        for _ in 0..2 {
            let mut at = 0;
            while freed < want
                && let Some((next, removed)) = data.sweep(at)
            {
                at = next;
                freed += removed.pages;
                self.uncharge(removed.pages, false);
            }
        }
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
        let mut files: Vec<_> = files.filter(|f| of(f)).cloned().collect();
        drop(dirty);
        files.extend(self.mapped_files(cx).into_iter().filter(|f| of(f)));
        files
    }

    /// The files that programs have mapped to write to.
    pub(super) fn mapped_files(&self, cx: &Curlwp<'_>) -> Vec<Arc<Vnode>> {
        self.mapped.lock(cx.cpu()).clone()
    }

    /// Has the syncer look after a file that a program has mapped to write to.
    pub(super) fn list_mapped(&self, cx: &Curlwp<'_>, file: &Arc<Vnode>) {
        let mut mapped = self.mapped.lock(cx.cpu());
        if !mapped.iter().any(|other| Arc::ptr_eq(other, file)) {
            mapped.push(file.clone());
        }
        drop(mapped);
        self.syncer.wake_at(cx, cx.now(Clock::Monotonic) + MAX_AGE);
    }

    /// Ends that.
    pub(super) fn unlist_mapped(&self, cx: &Curlwp<'_>, file: &Arc<Vnode>) {
        let mut mapped = self.mapped.lock(cx.cpu());
        if let Some(at) = mapped.iter().position(|other| Arc::ptr_eq(other, file)) {
            let file = mapped.swap_remove(at);
            drop(mapped);
            drop(file);
        }
    }

    /// Since when the file has been dirty that has been so for longest.
    pub(super) fn oldest_dirty_since(&self, cx: &Curlwp<'_>) -> Option<Nanos> {
        let dirty = self.dirty_files.lock(cx.cpu());
        dirty.files.values().next().map(|entry| entry.since)
    }

    pub(super) fn oldest_dirty(&self, cx: &Curlwp<'_>) -> Option<Arc<Vnode>> {
        let dirty = self.dirty_files.lock(cx.cpu());
        dirty.files.values().next().map(|entry| entry.file.clone())
    }
}

/// Says that pages will come free by themselves.
pub(super) struct Busy<'a, 'k> {
    cache: &'a PageCache,
    cx: &'a Curlwp<'k>,
}

impl Drop for Busy<'_, '_> {
    fn drop(&mut self) {
        let cache = self.cache;
        cache.busy.fetch_sub(1, Ordering::SeqCst);
        if cache.waiting.load(Ordering::SeqCst) != 0 {
            *cache.freed.lock(self.cx.cpu()) += 1;
            cache.freed_cv.broadcast(self.cx.cpu());
        }
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
    let first = dirty.files.is_empty();
    dirty.last_ticket += 1;
    let ticket = dirty.last_ticket;
    file.pages.dirty_ticket.store(ticket, Ordering::SeqCst);
    let file = file.clone();
    dirty.files.insert(ticket, DirtyFile { file, since });
    drop(dirty);
    if first {
        cache.syncer.wake_at(cx, since + MAX_AGE);
    }
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

//! Windows: what programs have of a file in their own memory, mmap(2) with `MAP_SHARED`.
//!
//! A program maps memory of the host, and as long as one has it mapped, that memory is where this part of the file is: read(2)
//! and write(2) go there, and the index of pages has nothing of it. The memory has a place for each byte of the file, at the
//! file's offsets; what nobody touched takes none.
//!
//! A program writes without telling anybody. What it has changed is found when the file is written back, by comparing each page with
//! what is remembered of the page as the driver has it: a hash of 128 bits. A page that is not remembered is a hole there.
//!
//! Others may change this memory, or make it shorter, at any moment. So it is copied, never looked at in place, and what is
//! missing of it reads as zeros.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use abi::Errno;
use hypercall::BackingFile;
use kern::{Curlwp, Uio};
use twox_hash::XxHash3_128;

use super::memory::{cache, list_dirty};
use super::page::{PAGE, PAGE_SIZE, Page, ZEROES, page_of, pages_of};
use super::read::fill;
use super::writeback::flush;
use super::{backing, size};
use crate::Vnode;

/// The most pages that are moved, or written back, at a time.
const MAX_RUN: u64 = 256;

/// The part of a file that programs have mapped. Guarded by the file's `io` lock, as the index of its pages is.
pub(super) struct Window {
    memory: Arc<dyn BackingFile>,
    /// The pages that are here, whether they are holes or not: in order, with gaps between them.
    ranges: Vec<Range<u64>>,
    /// How many have it mapped.
    users: u32,
    /// Pages as the driver has them.
    stored: BTreeMap<u64, u128>,
    /// Pages for which the driver has promised space.
    reserved: BTreeSet<u64>,
}

/// What goes with pages that are taken out.
#[derive(Default)]
pub(super) struct Gone {
    /// How many were in the kernel's accounts.
    pub(super) pages: u64,
    /// How many of them had space promised.
    pub(super) reserved: u64,
}

fn hash(page: &[u8]) -> u128 {
    XxHash3_128::oneshot(page)
}

impl Window {
    fn new(memory: Arc<dyn BackingFile>) -> Window {
        Window {
            memory,
            ranges: Vec::new(),
            users: 0,
            stored: BTreeMap::new(),
            reserved: BTreeSet::new(),
        }
    }

    /// The range that has a page.
    fn range(&self, page: u64) -> Option<&Range<u64>> {
        let behind = self.ranges.partition_point(|range| range.start <= page);
        let range = self.ranges.get(behind.checked_sub(1)?)?;
        (page < range.end).then_some(range)
    }

    pub(super) fn contains(&self, page: u64) -> bool {
        self.range(page).is_some()
    }

    /// The first page from `from` on that is here.
    pub(super) fn next_present(&self, from: u64) -> Option<u64> {
        let at = self.ranges.partition_point(|range| range.end <= from);
        self.ranges.get(at).map(|range| range.start.max(from))
    }

    /// The first page from `from` on that is not.
    pub(super) fn next_absent(&self, from: u64) -> u64 {
        self.range(from).map_or(from, |range| range.end)
    }

    /// Has pages that it had not.
    fn add(&mut self, mut new: Range<u64>) {
        let first = self.ranges.partition_point(|range| range.end < new.start);
        let behind = self.ranges.partition_point(|range| range.start <= new.end);
        if let Some(touched) = self.ranges.get(first..behind).filter(|t| !t.is_empty()) {
            new.start = new.start.min(touched[0].start);
            new.end = new.end.max(touched[touched.len() - 1].end);
        }
        self.ranges.splice(first..behind, [new]);
    }

    /// Whether a page is in the kernel's accounts.
    pub(super) fn is_known(&self, page: u64) -> bool {
        self.stored.contains_key(&page) || self.reserved.contains(&page)
    }

    /// How many pages are.
    pub(super) fn known(&self) -> u64 {
        let only_reserved = self
            .reserved
            .iter()
            .filter(|page| !self.stored.contains_key(page));
        (self.stored.len() + only_reserved.count()) as u64
    }

    /// Fills a buffer from an offset of the file on.
    pub(super) fn read(&self, buf: &mut [u8], offset: u64) {
        let mut done = 0;
        while done < buf.len() {
            match self.memory.read_at(&mut buf[done..], offset + done as u64) {
                Ok(n) if n != 0 => done += n,
                _ => {
                    buf[done..].fill(0);
                    return;
                }
            }
        }
    }

    fn page(&self, page: u64) -> [u8; PAGE_SIZE] {
        let mut bytes = [0; PAGE_SIZE];
        self.read(&mut bytes, page * PAGE);
        bytes
    }

    /// Whether a page is not as the driver has it.
    fn is_changed(&self, page: u64, bytes: &[u8]) -> bool {
        match self.stored.get(&page) {
            Some(&stored) => stored != hash(bytes),
            None => bytes != ZEROES,
        }
    }

    /// The first page of `within` that is here and may hold something.
    fn next_touched(&self, within: Range<u64>) -> Option<u64> {
        let mut at = within.start;
        loop {
            at = self.next_present(at).filter(|&page| page < within.end)?;
            // A host that cannot tell makes it slower, not wrong.
            let data = self.memory.next_data(at * PAGE).unwrap_or(Some(at * PAGE));
            let touched = page_of(data?);
            if touched <= at {
                return Some(at);
            }
            at = touched;
        }
    }

    /// The first pages of `within` that are not as the driver has them and lie together, with what is in them now.
    fn next_changed(&self, within: Range<u64>) -> Option<(u64, Vec<Page>)> {
        let mut at = within.start;
        let mut run = Vec::new();
        while let Some(page) = self.next_touched(at..within.end) {
            let together = run.is_empty() || page == at;
            if !together || run.len() as u64 == MAX_RUN {
                break;
            }
            let bytes = self.page(page);
            if self.is_changed(page, &bytes) {
                run.push(Page::of(&bytes));
            } else if !run.is_empty() {
                break;
            }
            at = page + 1;
        }
        (!run.is_empty()).then(|| (at - run.len() as u64, run))
    }

    /// Takes a page in as the index had it.
    fn take(&mut self, page: u64, bytes: &[u8], resident: bool) -> Result<(), Errno> {
        if bytes != ZEROES {
            self.memory.write_at(bytes, page * PAGE)?;
        }
        match resident {
            true => drop(self.reserved.insert(page)),
            false => drop(self.stored.insert(page, hash(bytes))),
        }
        Ok(())
    }

    /// Makes part of a page zero.
    pub(super) fn zero(&self, page: u64, part: Range<u64>) {
        if self.contains(page) && !part.is_empty() {
            let zeroes = &ZEROES[part.start as usize..part.end as usize];
            // It cannot fail but for want of memory, and then the page is a hole.
            let _ = self.memory.write_at(zeroes, page * PAGE + part.start);
        }
    }

    /// Makes pages holes.
    pub(super) fn cut(&mut self, pages: Range<u64>) -> Gone {
        let mut gone = Gone::default();
        let mut at = pages.start;
        while let Some(page) = self.next_touched(at..pages.end) {
            let end = self.next_absent(page).min(pages.end);
            let _ = self.memory.punch(page * PAGE, (end - page) * PAGE);
            at = end;
        }
        gone.pages = self.known();
        self.stored.retain(|page, _| !pages.contains(page));
        self.reserved.retain(|page| {
            let stays = !pages.contains(page);
            gone.reserved += u64::from(!stays);
            stays
        });
        gone.pages -= self.known();
        gone
    }
}

/// Writes a part of one page that is here, which is in the kernel's accounts: what the uio has next. By who holds `io`
/// exclusively.
pub(super) fn write(
    cx: &Curlwp<'_>,
    vp: &Arc<Vnode>,
    window: &mut Window,
    uio: &mut Uio<'_>,
    len: usize,
) -> Result<(), Errno> {
    let offset = uio.offset();
    let page = page_of(offset);
    if !window.reserved.contains(&page) {
        backing::reserve(cx, vp, page * PAGE, PAGE)?;
        window.reserved.insert(page);
    }
    let mut bytes = [0; PAGE_SIZE];
    let before = uio.resid();
    let result = uio.get(cx, &mut bytes[..len]);
    let moved = before - uio.resid();
    window.memory.write_at(&bytes[..moved], offset)?;
    if !vp.pages.resident {
        list_dirty(cx, vp);
    }
    result.map(drop)
}

/// Gives a program the memory in which `len` bytes of the file from `offset` on are from now on, at the file's offsets.
/// Each one is to be given back by [`unmap`]. With `writes` it is looked for what the program has written now and then. `EOVERFLOW` behind the
/// largest offset.
pub fn map(
    cx: &Curlwp<'_>,
    vp: &Arc<Vnode>,
    offset: u64,
    len: u64,
    writes: bool,
) -> Result<Arc<dyn BackingFile>, Errno> {
    let end = offset
        .checked_add(len)
        .filter(|&end| end <= i64::MAX as u64)
        .ok_or(Errno::EOVERFLOW)?;
    let memory = {
        let mut data = vp.pages.io.write(cx.cpu());
        if data.window.is_none() {
            let memory = cx.kernel().host().shared_memory("file", 0)?;
            data.window = Some(Box::new(Window::new(memory)));
            cache(cx)?.enlist(cx, vp);
        }
        let Some(window) = data.window.as_mut() else {
            return Err(Errno::ENOMEM);
        };
        let whole = pages_of(end) * PAGE;
        if window.memory.size()? < whole {
            window.memory.set_size(whole)?;
        }
        window.users += 1;
        window.memory.clone()
    };
    if writes && !vp.pages.resident {
        cache(cx)?.list_mapped(cx, vp);
    }
    let taken = take_in(cx, vp, page_of(offset)..pages_of(end));
    if let Err(error) = taken {
        unmap(cx, vp);
        return Err(error);
    }
    Ok(memory)
}

/// Moves pages from the index to the window.
fn take_in(cx: &Curlwp<'_>, vp: &Arc<Vnode>, want: Range<u64>) -> Result<(), Errno> {
    let mut at = want.start;
    let cache = cache(cx)?;
    while at < want.end {
        if !vp.pages.resident && !cache.has_room_for_resident(cx) {
            return Err(Errno::ENOMEM);
        }
        let stop = {
            let mut data = vp.pages.io.write(cx.cpu());
            let size = pages_of(size(cx, vp));
            let before = data.pages();
            let stop = data.move_to_window(&mut at, want.end, size, vp.pages.resident);
            if !vp.pages.resident {
                cache.pin(before - data.pages());
            }
            stop?
        };
        match stop {
            Stop::Done => {}
            Stop::Missing => fill(cx, vp, at..want.end)?,
            Stop::Dirty => flush(cx, vp)?,
        }
    }
    Ok(())
}

/// Why moving pages to a window stopped.
enum Stop {
    /// It did what it does at a time.
    Done,
    /// The page is to be read first.
    Missing,
    /// The page is to be written first.
    Dirty,
}

impl super::data::FileData {
    /// Moves some of the pages from `at` on.
    fn move_to_window(
        &mut self,
        at: &mut u64,
        end: u64,
        size: u64,
        resident: bool,
    ) -> Result<Stop, Errno> {
        let Some(mut window) = self.window.take() else {
            return Err(Errno::ENODEV);
        };
        let first = window.next_absent(*at);
        let end = window.next_present(first).unwrap_or(end).min(end);
        let mut page = first;
        let mut failed = None;
        let stop = loop {
            if page >= end || page - first >= MAX_RUN {
                break Stop::Done;
            }
            if !self.contains(page) {
                if page >= size {
                    // Behind the end of the file there are holes only.
                    page = end;
                    break Stop::Done;
                }
                if !resident {
                    break Stop::Missing;
                }
            } else if !resident && self.is_dirty(page) {
                break Stop::Dirty;
            } else if let Some(memory) = self.page(page) {
                failed = window.take(page, memory, resident).err();
                if failed.is_some() {
                    break Stop::Done;
                }
                let _moved = self.remove(page..page + 1);
            }
            page += 1;
        };
        if page > first {
            window.add(first..page);
        }
        *at = page.max(first);
        self.window = Some(window);
        failed.map_or(Ok(stop), Err)
    }
}

/// Counts another who has mapped what somebody has mapped already: a child of fork.
pub fn map_again(cx: &Curlwp<'_>, vp: &Arc<Vnode>) {
    let mut data = vp.pages.io.write(cx.cpu());
    if let Some(window) = &mut data.window {
        window.users += 1;
    }
}

/// One who had mapped the file has it no more. With the last one the file's pages go back to where they come from; what cannot be written now
/// stays and is tried again.
pub fn unmap(cx: &Curlwp<'_>, vp: &Arc<Vnode>) {
    let last = {
        let mut data = vp.pages.io.write(cx.cpu());
        let Some(window) = &mut data.window else {
            return;
        };
        window.users = window.users.saturating_sub(1);
        window.users == 0
    };
    if last {
        if vp.pages.resident {
            close_resident(cx, vp);
        } else {
            // Who made it dirty was told of errors by msync and fsync, if they asked.
            let _ = flush(cx, vp);
        }
    }
}

/// Writes what has changed to the driver; by who holds `writeback`. When nobody has the file mapped any more, the window goes.
pub(super) fn write_back(cx: &Curlwp<'_>, vp: &Arc<Vnode>) -> Result<(), Errno> {
    if vp.pages.io.read(cx.cpu()).window.is_none() {
        return Ok(());
    }
    let cache = cache(cx)?;
    let mut result = Ok(());
    let mut changed = false;
    let mut at = 0;
    loop {
        let (run, size) = {
            let data = vp.pages.io.read(cx.cpu());
            let size = size(cx, vp);
            let window = data.window.as_ref();
            (
                window.and_then(|w| w.next_changed(at..pages_of(size))),
                size,
            )
        };
        let Some((first, pages)) = run else {
            break;
        };
        let run = first..first + pages.len() as u64;
        at = run.end;
        changed = true;
        let written = reserve(cx, vp, run.clone()).and_then(|()| {
            let memory: Vec<&[u8]> = pages.iter().map(|page| &page[..]).collect();
            backing::write_pages(cx, vp, run.start * PAGE, &memory, size)
        });
        if written.is_err() {
            result = result.and(written);
            continue;
        }
        let mut data = vp.pages.io.write(cx.cpu());
        if let Some(window) = &mut data.window {
            for (number, page) in run.zip(&pages) {
                if !window.is_known(number) {
                    cache.charge_always(1);
                }
                window.stored.insert(number, hash(page));
                window.reserved.remove(&number);
            }
        }
    }
    if changed {
        let now = Vnode::timestamp(cx);
        vp.update_later(cx, |attr| (attr.mtime, attr.ctime) = (now, now));
    }
    if result.is_ok() {
        settle(cx, vp);
        close(cx, vp);
    }
    result
}

/// Gives back what the driver has promised for pages that turned out to be as it has them.
fn settle(cx: &Curlwp<'_>, vp: &Arc<Vnode>) {
    let mut data = vp.pages.io.write(cx.cpu());
    let (Some(window), Ok(cache)) = (&mut data.window, cache(cx)) else {
        return;
    };
    let before = (window.known(), window.reserved.len());
    let reserved = std::mem::take(&mut window.reserved);
    window.reserved = reserved
        .into_iter()
        .filter(|&page| window.is_changed(page, &window.page(page)))
        .collect();
    cache.uncharge(before.0 - window.known(), true);
    backing::unreserve(cx, vp, (before.1 - window.reserved.len()) as u64);
}

/// Has the driver promise space for pages that will be written.
fn reserve(cx: &Curlwp<'_>, vp: &Arc<Vnode>, run: Range<u64>) -> Result<(), Errno> {
    let mut data = vp.pages.io.write(cx.cpu());
    let Some(window) = &mut data.window else {
        return Ok(());
    };
    for page in run {
        if !window.reserved.contains(&page) {
            backing::reserve(cx, vp, page * PAGE, PAGE)?;
            if !window.is_known(page) {
                cache(cx)?.charge_always(1);
            }
            window.reserved.insert(page);
        }
    }
    Ok(())
}

/// Ends the window of a file that nobody has mapped, if the driver has all of it: it can be read again.
fn close(cx: &Curlwp<'_>, vp: &Arc<Vnode>) {
    let Ok(cache) = cache(cx) else {
        return;
    };
    let mut data = vp.pages.io.write(cx.cpu());
    let end = pages_of(size(cx, vp));
    let unused = |window: &Window| window.users == 0 && window.next_changed(0..end).is_none();
    if !data.window.as_deref().is_some_and(unused) {
        return;
    }
    if let Some(mut window) = data.window.take() {
        let gone = window.cut(0..u64::MAX);
        cache.uncharge(gone.pages, true);
        backing::unreserve(cx, vp, gone.reserved);
    }
    cache.unlist_mapped(cx, vp);
    if data.pages() == 0 {
        cache.delist(cx, vp);
    }
}

/// The same of a file whose only place is the cache: its pages go back to the index. If there is no room for what was written into holes,
/// the window stays.
fn close_resident(cx: &Curlwp<'_>, vp: &Arc<Vnode>) {
    let Ok(cache) = cache(cx) else {
        return;
    };
    let mut data = vp.pages.io.write(cx.cpu());
    let end = pages_of(size(cx, vp));
    let Some(mut window) = data.window.take() else {
        return;
    };
    let mut at = 0;
    while window.users == 0
        && let Some(page) = window.next_touched(at..end)
    {
        at = page + 1;
        if !window.reserved.contains(&page) && window.page(page) != ZEROES {
            let room = cache.charge(cx, vp, 1);
            if !room || backing::reserve(cx, vp, page * PAGE, PAGE).is_err() {
                cache.uncharge(u64::from(room), room);
                data.window = Some(window);
                return;
            }
            window.reserved.insert(page);
        }
    }
    if window.users != 0 {
        data.window = Some(window);
        return;
    }
    for &page in &window.reserved {
        data.insert(page, Page::of(&window.page(page)), true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hypercall::{Host, PosixHost};

    #[test]
    fn ranges_are_joined_and_found() {
        let memory = PosixHost::new().shared_memory("w", 0).expect("memory");
        let mut window = Window::new(memory);
        let mut model = BTreeSet::new();
        for range in [4..6, 10..12, 6..7, 0..1, 7..10, 20..30, 1..4, 12..20] {
            model.extend(range.clone());
            window.add(range);
            for page in 0..32 {
                assert_eq!(window.contains(page), model.contains(&page));
                let present = model.range(page..).next().copied();
                assert_eq!(window.next_present(page), present);
                let absent = (page..).find(|p| !model.contains(p));
                assert_eq!(Some(window.next_absent(page)), absent);
            }
        }
        assert_eq!((window.ranges.len(), window.ranges[0].end), (1, 30));
    }
}

//! Cutting: truncation, holes, discarding.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use abi::Errno;
use kern::watch::Change;
use kern::{Curlwp, Uio};

use super::data::FileData;
use super::memory::{self, cache};
use super::page::{PAGE, Page, page_of, pages_of};
use super::read::forfeit;
use super::write::write;
use super::{backing, size};
use crate::{SetAttr, Vnode};

/// Gives the file a size, as truncate(2) does: in the driver, the cache and the attributes.
pub fn truncate(cx: &Curlwp<'_>, vp: &Arc<Vnode>, size: u64) -> Result<(), Errno> {
    if size > i64::MAX as u64 {
        return Err(Errno::EFBIG);
    }
    let _writeback = vp.pages.writeback.lock(cx.cpu());
    let mut data = vp.pages.io.write(cx.cpu());
    let now = Vnode::timestamp(cx);
    let set = SetAttr {
        size: Some(size),
        mtime: Some(now),
        ctime: Some(now),
        ..SetAttr::default()
    };
    vp.ops().setattr(cx, vp, &set)?;
    forfeit(cx, vp, page_of(size)..u64::MAX);
    remove(cx, vp, &mut data, pages_of(size)..u64::MAX);
    if let Some((page, _)) = data.page_mut(page_of(size)) {
        page[(size % PAGE) as usize..].fill(0);
    }
    if let Some(window) = &data.window {
        window.zero(page_of(size), size % PAGE..PAGE);
    }
    let grows = size > vp.attr(cx).size;
    vp.update(cx, |attr| set.apply(attr));
    vp.changed(
        cx,
        if grows {
            Change::MODIFY | Change::EXTEND
        } else {
            Change::MODIFY
        },
    );
    Ok(())
}

/// Makes a hole: whole pages are freed, parts of pages are zeroed. The size stays. `EOPNOTSUPP` where the driver cannot.
pub fn punch(cx: &Curlwp<'_>, vp: &Arc<Vnode>, offset: u64, len: u64) -> Result<(), Errno> {
    let _writeback = vp.pages.writeback.lock(cx.cpu());
    let mut data = vp.pages.io.write(cx.cpu());
    let end = offset.saturating_add(len).min(size(cx, vp));
    if offset >= end {
        return Ok(());
    }
    if !vp.pages.resident {
        vp.ops().punch(cx, vp, offset, end - offset)?;
    }
    let all = page_of(offset)..pages_of(end);
    let whole = pages_of(offset)..if end == size(cx, vp) {
        all.end
    } else {
        page_of(end)
    };
    forfeit(cx, vp, all.clone());
    if whole.start < whole.end {
        remove(cx, vp, &mut data, whole);
    }
    for page in [all.start, all.end - 1] {
        let from = offset.max(page * PAGE) - page * PAGE;
        let to = end.min((page + 1) * PAGE) - page * PAGE;
        if let Some((memory, _)) = data.page_mut(page) {
            memory[from as usize..to as usize].fill(0);
        } else if let Some(window) = data.window_of(page) {
            window.zero(page, from..to);
        }
    }
    let now = Vnode::timestamp(cx);
    vp.update_later(cx, |attr| (attr.mtime, attr.ctime) = (now, now));
    vp.changed(cx, Change::MODIFY);
    Ok(())
}

/// Zeroes a range, which stays allocated. The file grows to its end unless `keep_size`.
pub fn zero(
    cx: &Curlwp<'_>,
    vp: &Arc<Vnode>,
    offset: u64,
    len: u64,
    keep_size: bool,
) -> Result<(), Errno> {
    static ZEROES: [u8; 64 << 10] = [0; 64 << 10];
    let mut end = offset.checked_add(len).ok_or(Errno::EFBIG)?;
    if keep_size {
        end = end.min(size(cx, vp));
    }
    let mut at = offset;
    while at < end {
        let n = (end - at).min(ZEROES.len() as u64);
        write(cx, vp, &mut Uio::drain(&ZEROES[..n as usize], at), false)?;
        at += n;
    }
    Ok(())
}

/// Allocates space for a range, as fallocate(2) does in mode 0; the file grows to its end unless `keep_size`.
/// `EOPNOTSUPP` where the driver cannot.
pub fn allocate(
    cx: &Curlwp<'_>,
    vp: &Arc<Vnode>,
    offset: u64,
    len: u64,
    keep_size: bool,
) -> Result<(), Errno> {
    let end = offset
        .checked_add(len)
        .filter(|&end| end <= i64::MAX as u64)
        .ok_or(Errno::EFBIG)?;
    let _writeback = vp.pages.writeback.lock(cx.cpu());
    let mut data = vp.pages.io.write(cx.cpu());
    if vp.pages.resident {
        add_zeroed(cx, vp, &mut data, page_of(offset)..pages_of(end))?;
    } else {
        vp.ops().allocate(cx, vp, offset, len)?;
    }
    let now = Vnode::timestamp(cx);
    vp.update_later(cx, |attr| {
        if !keep_size {
            attr.size = attr.size.max(end);
        }
        attr.ctime = now;
    });
    vp.changed(cx, Change::MODIFY);
    Ok(())
}

/// Adds the missing pages of a range to a resident file: all, or none.
fn add_zeroed(
    cx: &Curlwp<'_>,
    vp: &Arc<Vnode>,
    data: &mut FileData,
    range: Range<u64>,
) -> Result<(), Errno> {
    let cache = cache(cx)?;
    let mut missing = Vec::new();
    let mut at = data.next_absent(range.start);
    while at < range.end {
        let end = data.next_present(at).unwrap_or(u64::MAX).min(range.end);
        missing.push(at..end);
        at = data.next_absent(end);
    }
    let count: u64 = missing.iter().map(|run| run.end - run.start).sum();
    backing::reserve(cx, vp, range.start * PAGE, count * PAGE)?;
    if !cache.charge(cx, vp, count) {
        backing::unreserve(cx, vp, count);
        return Err(Errno::ENOSPC);
    }
    for page in missing.into_iter().flatten() {
        data.insert(page, Page::zeroed(), true);
    }
    if count != 0 {
        cache.enlist(cx, vp);
    }
    Ok(())
}

/// Drops everything the cache has of the file, written or not: it has no name and no opener left. What is dirty is
/// never written, and the driver is not asked for pages any more when this returns.
pub fn discard(cx: &Curlwp<'_>, vp: &Arc<Vnode>) {
    drop_pages(cx, vp);
    let mut fills = vp.pages.fills.lock(cx.cpu());
    while !fills.is_empty() {
        fills = vp.pages.filled.wait(cx.cpu(), fills);
    }
}

fn drop_pages(cx: &Curlwp<'_>, vp: &Arc<Vnode>) {
    let _writeback = vp.pages.writeback.lock(cx.cpu());
    let mut data = vp.pages.io.write(cx.cpu());
    forfeit(cx, vp, 0..u64::MAX);
    remove(cx, vp, &mut data, 0..u64::MAX);
    data.window = None;
    vp.pages.attr_dirty.store(false, Ordering::SeqCst);
    memory::unlist_dirty(cx, vp);
    if let Some(cache) = vp.pages.cache.get() {
        cache.unlist_mapped(cx, vp);
    }
}

/// Drops the whole pages of a range that could be read again: those that are clean.
pub fn evict(cx: &Curlwp<'_>, vp: &Arc<Vnode>, offset: u64, len: u64) {
    let range = pages_of(offset)..page_of(offset.saturating_add(len));
    let mut data = vp.pages.io.write(cx.cpu());
    if let Some(cache) = vp.pages.cache.get().filter(|_| !vp.pages.resident) {
        let removed = data.evict(range);
        cache.gone(removed.pages, 0, false);
        if data.pages() == 0 {
            cache.delist(cx, vp);
        }
    }
}

/// Takes pages out of the index and the accounts.
fn remove(cx: &Curlwp<'_>, vp: &Arc<Vnode>, data: &mut FileData, range: Range<u64>) {
    if let Some(window) = &mut data.window {
        let gone = window.cut(range.clone());
        if let Some(cache) = vp.pages.cache.get() {
            cache.uncharge(gone.pages, true);
        }
        backing::unreserve(cx, vp, gone.reserved);
    }
    let removed = data.remove(range);
    if let Some(cache) = vp.pages.cache.get() {
        cache.gone(removed.pages, removed.dirty, vp.pages.resident);
        if data.pages() == 0 {
            cache.delist(cx, vp);
        }
    }
    backing::unreserve(cx, vp, removed.dirty);
}

//! Write-back: from the cache to the driver.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use abi::Errno;
use kern::Curlwp;

use super::memory::{cache, list_dirty, unlist_dirty};
use super::page::{PAGE, Page, pages_of};
use super::{ErrorMark, backing, cut, size, window};
use crate::{Mount, Vnode};

/// The most pages that one call of the driver writes.
const MAX_RUN: usize = 256;

/// fsync(2) and fdatasync(2): writes the file back and makes it durable. An error of an earlier write-back that this
/// open file has not been told of is told too.
pub fn fsync(
    cx: &Curlwp<'_>,
    vp: &Arc<Vnode>,
    data_only: bool,
    mark: &ErrorMark,
) -> Result<(), Errno> {
    let written = flush(cx, vp);
    let synced = written.and_then(|()| {
        backing::sync(cx, vp, data_only).inspect_err(|&error| vp.pages.error.set(error))
    });
    let told = vp.pages.error.tell(mark);
    synced.and(told)
}

/// What an open file knows of errors of writing the file back, when it is opened.
pub fn error_mark(vp: &Vnode) -> ErrorMark {
    vp.pages.error.mark()
}

/// Writes the file's dirty pages and attributes to the driver. What could not be written stays dirty; the first error
/// is answered, and kept for those who call fsync(2).
pub fn flush(cx: &Curlwp<'_>, vp: &Arc<Vnode>) -> Result<(), Errno> {
    if vp.pages.resident {
        return Ok(());
    }
    let _writeback = vp.pages.writeback.lock(cx.cpu());
    unlist_dirty(cx, vp);
    let result = {
        let _busy = cache(cx)?.hold_busy(cx);
        write_dirty(cx, vp)
            .and_then(|()| window::write_back(cx, vp))
            .and_then(|()| write_attr(cx, vp))
    };
    if let Err(error) = result {
        vp.pages.error.set(error);
        list_dirty(cx, vp);
    }
    result
}

/// Writes all pages that are dirty now; by who holds `writeback`.
fn write_dirty(cx: &Curlwp<'_>, vp: &Arc<Vnode>) -> Result<(), Errno> {
    let cache = cache(cx)?;
    let mut result = Ok(());
    let end = pages_of(size(cx, vp));
    let mut at = 0;
    while at < end {
        let (run, size) = {
            let mut data = vp.pages.io.write(cx.cpu());
            (data.take_dirty_run(at, MAX_RUN), size(cx, vp))
        };
        let Some((first, pages)) = run else {
            break;
        };
        at = first + pages.len() as u64;
        let memory: Vec<&[u8]> = pages.iter().map(|page| &page[..]).collect();
        match backing::write_pages(cx, vp, first * PAGE, &memory, size) {
            Ok(()) => cache.cleaned(pages.len() as u64),
            Err(error) => {
                keep_dirty(cx, vp, first, &pages);
                result = result.and(Err(error));
            }
        }
    }
    result
}

/// Makes pages dirty again that could not be written. Nobody cuts the file meanwhile, so they are still there.
fn keep_dirty(cx: &Curlwp<'_>, vp: &Arc<Vnode>, first: u64, pages: &[Page]) {
    let mut data = vp.pages.io.write(cx.cpu());
    let range: Range<u64> = first..first + pages.len() as u64;
    let count = range.end - range.start;
    let again = range.filter(|&page| data.set_dirty(page)).count() as u64;
    // The others were written meanwhile, and counted and reserved by who did it.
    if let Ok(cache) = cache(cx) {
        cache.cleaned(count - again);
    }
    backing::unreserve(cx, vp, count - again);
}

fn write_attr(cx: &Curlwp<'_>, vp: &Arc<Vnode>) -> Result<(), Errno> {
    if !vp.pages.attr_dirty.swap(false, Ordering::SeqCst) {
        return Ok(());
    }
    backing::write_attr(cx, vp).inspect_err(|_| vp.pages.attr_dirty.store(true, Ordering::SeqCst))
}

/// Writes all these files back; the first error is answered after all were tried.
fn flush_all(cx: &Curlwp<'_>, files: &[Arc<Vnode>]) -> Result<(), Errno> {
    let mut result = Ok(());
    for vp in files {
        result = result.and(flush(cx, vp));
    }
    result
}

/// Writes everything of a mount that is dirty to its driver, as sync(2) does; the driver's own `sync` comes after it.
/// The first error is answered after all files were tried.
pub fn flush_mount(cx: &Curlwp<'_>, mount: &Arc<Mount>) -> Result<(), Errno> {
    let of = Arc::downgrade(mount);
    let files = cache(cx)?.dirty_files(cx, |vp| vp.mount_weak().ptr_eq(&of));
    flush_all(cx, &files)
}

/// Drops everything the cache has of a mount that is going away, and with it the references to its vnodes. What is
/// still dirty, because it could not be written, is lost.
pub fn drop_mount(cx: &Curlwp<'_>, mount: &Arc<Mount>) {
    let of = Arc::downgrade(mount);
    let Ok(cache) = cache(cx) else {
        return;
    };
    cache.reader.finish(cx);
    let is_of = |vp: &Vnode| vp.mount_weak().ptr_eq(&of);
    for vp in cache.dirty_files(cx, is_of) {
        cut::discard(cx, &vp);
    }
    for vp in cache.files(cx, is_of) {
        cut::discard(cx, &vp);
    }
}

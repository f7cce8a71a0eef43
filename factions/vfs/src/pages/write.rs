//! Writing: into the cache.

use std::sync::Arc;

use abi::Errno;
use kern::watch::Change;
use kern::{Curlwp, Uio};

use super::data::FileData;
use super::memory::{cache, list_dirty};
use super::page::{PAGE, PAGE_SIZE, Page, page_of, pages_of};
use super::read::{STAGED, fill, forfeit};
use super::{PageCache, backing, size, window};
use crate::{Vnode, VnodeKind};

/// The largest size of a file.
const MAX_SIZE: u64 = i64::MAX as u64;
/// The most pages that are reserved by one call of the driver.
const MAX_RESERVE: u64 = 256;

/// Why copying stopped before the end.
enum Stop {
    /// There is no memory for one more page.
    NoMemory,
    /// Part of a page is overwritten that has to be read first.
    Missing(u64),
    Error(Errno),
}

impl From<Errno> for Stop {
    fn from(error: Errno) -> Stop {
        Stop::Error(error)
    }
}

/// write(2): moves bytes from the uio's memory to the file, at its offset or at the end of the file. The whole write is
/// one step for everybody who reads or writes the file, unless memory runs short in the middle or the caller's memory
/// takes time to reach.
pub fn write(
    cx: &Curlwp<'_>,
    vp: &Arc<Vnode>,
    uio: &mut Uio<'_>,
    append: bool,
) -> Result<(), Errno> {
    if uio.may_wait(cx) {
        write_staged(cx, vp, uio, append)
    } else {
        write_pages(cx, vp, uio, append)
    }
}

/// Writes for a caller whose memory takes time to reach, which must not keep others from the file.
#[cold]
fn write_staged(
    cx: &Curlwp<'_>,
    vp: &Arc<Vnode>,
    uio: &mut Uio<'_>,
    append: bool,
) -> Result<(), Errno> {
    let mut buf = vec![0; uio.resid().min(STAGED)];
    while uio.resid() != 0 {
        let offset = uio.offset();
        let len = uio.resid().min(buf.len());
        uio.get(cx, &mut buf[..len])?;
        let mut staged = Uio::drain(&buf[..len], offset);
        let result = write_pages(cx, vp, &mut staged, append);
        uio.give_back(len - staged.moved());
        result?;
        if staged.moved() != len {
            break;
        }
        uio.set_offset(staged.offset());
    }
    Ok(())
}

fn write_pages(
    cx: &Curlwp<'_>,
    vp: &Arc<Vnode>,
    uio: &mut Uio<'_>,
    append: bool,
) -> Result<(), Errno> {
    let cache = cache(cx)?;
    // Pages that are missing are read before the first byte is copied, so that the write is one step. When memory is so
    // short that they do not stay, they are read as the copy comes to them.
    let mut ahead = 2;
    while uio.resid() != 0 {
        if !vp.pages.resident {
            cache.throttle(cx);
        }
        let mut data = vp.pages.io.write(cx.cpu());
        let size = size(cx, vp);
        if append {
            uio.set_offset(size);
        }
        clip(vp, uio, size)?;
        if ahead != 0
            && let Some(page) = half_missing(vp, &data, uio, size)
        {
            ahead -= 1;
            drop(data);
            fill(cx, vp, page..page + 1)?;
            continue;
        }
        let before = uio.offset();
        let result = copy_in(cx, vp, cache, &mut data, uio, size);
        if uio.offset() > before {
            written(cx, vp, uio.offset());
        }
        drop(data);
        match result {
            Ok(()) => {}
            Err(Stop::Missing(page)) => fill(cx, vp, page..page + 1)?,
            Err(Stop::NoMemory) => make_room(cx, vp, cache)?,
            Err(Stop::Error(error)) => return Err(error),
        }
    }
    Ok(())
}

/// Finds room for one more page.
#[cold]
fn make_room(cx: &Curlwp<'_>, vp: &Vnode, cache: &PageCache) -> Result<(), Errno> {
    if vp.pages.resident && !cache.has_room_for_resident(cx) {
        return Err(Errno::ENOSPC);
    }
    cache.reclaim(cx, 1).map_err(|error| match error {
        Errno::ENOMEM if vp.pages.resident => Errno::ENOSPC,
        error => error,
    })
}

/// Cuts the transfer short at the largest size that the file can have.
fn clip(vp: &Vnode, uio: &mut Uio<'_>, size: u64) -> Result<(), Errno> {
    let (most, error) = match vp.kind {
        VnodeKind::Block => (size, Errno::ENOSPC),
        _ => (MAX_SIZE, Errno::EFBIG),
    };
    let room = most
        .checked_sub(uio.offset())
        .filter(|&n| n != 0)
        .ok_or(error)?;
    uio.truncate(usize::try_from(room).unwrap_or(usize::MAX));
    Ok(())
}

/// A missing page of which only a part will be overwritten, so that the rest has to be read first.
fn half_missing(vp: &Vnode, data: &FileData, uio: &Uio<'_>, size: u64) -> Option<u64> {
    if vp.pages.resident {
        return None;
    }
    let (start, end) = (uio.offset(), uio.offset() + uio.resid() as u64);
    [page_of(start), page_of(end - 1)]
        .into_iter()
        .find(|&page| leaves_some(page, start, end, size) && !data.contains(page))
}

/// Whether writing from `start` to `end` leaves bytes of the page as they are, in a file of `size` bytes.
fn leaves_some(page: u64, start: u64, end: u64, size: u64) -> bool {
    let first = page * PAGE;
    first < size && (start > first || end < size.min(first + PAGE))
}

/// Copies into pages, which become dirty. Pages that are missing are new ones.
fn copy_in(
    cx: &Curlwp<'_>,
    vp: &Arc<Vnode>,
    cache: &PageCache,
    data: &mut FileData,
    uio: &mut Uio<'_>,
    size: u64,
) -> Result<(), Stop> {
    let mut reserved = Reserved {
        cx,
        vp,
        end: size.max(uio.offset() + uio.resid() as u64),
        pages: 0..0,
    };
    while uio.resid() != 0 {
        let page = page_of(uio.offset());
        let at = (uio.offset() % PAGE) as usize;
        let len = (PAGE_SIZE - at).min(uio.resid());
        match data.page_mut(page) {
            Some((memory, true)) => {
                uio.get(cx, &mut memory[at..at + len])?;
            }
            Some((_, false)) => {
                reserved.reserve(data, page)?;
                let before = uio.resid();
                let result = match data.page_mut(page) {
                    Some((memory, _)) => uio.get(cx, &mut memory[at..at + len]),
                    None => Ok(0),
                };
                if uio.resid() != before && data.set_dirty(page) {
                    reserved.used(cache);
                }
                result?;
            }
            None => {
                if let Some(window) = data.window_of_mut(page) {
                    let new = !window.is_known(page);
                    if new && !vp.pages.resident && !cache.has_room_for_resident(cx) {
                        return Err(Stop::Error(Errno::ENOMEM));
                    }
                    if new && !cache.charge(cx, vp, 1) {
                        return Err(Stop::NoMemory);
                    }
                    if new && !vp.pages.resident {
                        cache.pin(1);
                    }
                    let result = window::write(cx, vp, window, uio, len);
                    if new && !window.is_known(page) {
                        cache.uncharge(1, true);
                    }
                    result?;
                    continue;
                }
                let end = uio.offset() + len as u64;
                if !vp.pages.resident && leaves_some(page, uio.offset(), end, size) {
                    return Err(Stop::Missing(page));
                }
                reserved.reserve(data, page)?;
                if !cache.charge(cx, vp, 1) {
                    return Err(Stop::NoMemory);
                }
                let mut memory = Page::zeroed();
                let before = uio.resid();
                let result = uio.get(cx, &mut memory.bytes_mut()[at..at + len]);
                let moved = before - uio.resid();
                if moved != len && (moved == 0 || !vp.pages.resident) {
                    // What the page holds behind the fault is not known.
                    uio.give_back(moved);
                    cache.uncharge(1, vp.pages.resident);
                    return Err(result.err().unwrap_or(Errno::EFAULT).into());
                }
                forfeit(cx, vp, page..page + 1);
                data.insert(page, memory, true);
                reserved.used(cache);
                if data.pages() == 1 {
                    cache.enlist(cx, vp);
                }
                result?;
            }
        }
    }
    Ok(())
}

/// Pages that the driver has promised space for and that are not dirty yet. What is left over is given back.
struct Reserved<'a, 'k> {
    cx: &'a Curlwp<'k>,
    vp: &'a Arc<Vnode>,
    /// Where the file will end.
    end: u64,
    pages: std::ops::Range<u64>,
}

impl Reserved<'_, '_> {
    /// Makes sure that a page is reserved, and with it those behind it that the write will dirty.
    fn reserve(&mut self, data: &FileData, page: u64) -> Result<(), Errno> {
        if self.pages.contains(&page) {
            return Ok(());
        }
        let most = pages_of(self.end).min(page + MAX_RESERVE);
        let other = |p: &u64| data.is_dirty(*p) || data.window_of(*p).is_some();
        let run = (page + 1..most).find(other).unwrap_or(most);
        let wanted = self.ask(page, run);
        let pages = match wanted {
            Ok(()) => page..run,
            Err(_) if run > page + 1 => self.ask(page, page + 1).map(|()| page..page + 1)?,
            Err(error) => return Err(error),
        };
        self.pages = pages;
        Ok(())
    }

    fn ask(&self, first: u64, end: u64) -> Result<(), Errno> {
        let start = first * PAGE;
        let len = (end * PAGE).min(self.end) - start;
        backing::reserve(self.cx, self.vp, start, len)
    }

    /// The first reserved page is dirty now.
    fn used(&mut self, cache: &PageCache) {
        self.pages.start += 1;
        if !self.vp.pages.resident {
            cache.dirtied(1);
            list_dirty(self.cx, self.vp);
        }
    }
}

impl Drop for Reserved<'_, '_> {
    fn drop(&mut self) {
        let left = self.pages.end.saturating_sub(self.pages.start);
        backing::unreserve(self.cx, self.vp, left);
    }
}

/// Notes size and times after bytes up to `end` were written; by who holds `io` exclusively.
fn written(cx: &Curlwp<'_>, vp: &Arc<Vnode>, end: u64) {
    let now = Vnode::timestamp(cx);
    let grows = vp.update_later(cx, |attr| {
        let grows = vp.kind == VnodeKind::Regular && end > attr.size;
        if grows {
            attr.size = end;
        }
        attr.mtime = now;
        attr.ctime = now;
        grows
    });
    vp.changed(
        cx,
        if grows {
            Change::MODIFY | Change::EXTEND
        } else {
            Change::MODIFY
        },
    );
}

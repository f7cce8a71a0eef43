//! Reading: from the cache, and into it.

use std::ops::Range;
use std::sync::Arc;

use abi::Errno;
use kern::{Curlwp, Uio};

use super::data::FileData;
use super::memory::cache;
use super::page::{PAGE, PAGE_SIZE, Page, ZEROES, page_of, pages_of};
use super::{backing, size};
use crate::Vnode;

/// The most pages that one call of the driver reads.
pub(super) const MAX_FILL: u64 = 256;
/// The most bytes that are staged for a caller whose memory takes time to reach.
pub(super) const STAGED: usize = 256 << 10;

/// Missing pages that somebody is reading. `pages` shrinks when some of them are cut or written meanwhile.
pub(super) struct Fill {
    pages: Range<u64>,
    id: u64,
}

/// read(2): moves the file's bytes at the uio's offset to its memory, up to the end of the file.
pub fn read(cx: &Curlwp<'_>, vp: &Arc<Vnode>, uio: &mut Uio<'_>) -> Result<(), Errno> {
    if uio.may_wait(cx) {
        read_staged(cx, vp, uio)
    } else {
        read_pages(cx, vp, uio)
    }
}

/// Reads for a caller whose memory takes time to reach, which must not keep others from the file.
#[cold]
fn read_staged(cx: &Curlwp<'_>, vp: &Arc<Vnode>, uio: &mut Uio<'_>) -> Result<(), Errno> {
    let mut buf = vec![0; uio.resid().min(STAGED)];
    while uio.resid() != 0 {
        let want = uio.resid().min(buf.len());
        let mut staged = Uio::fill(&mut buf[..want], uio.offset());
        read_pages(cx, vp, &mut staged)?;
        let got = want - staged.resid();
        if got == 0 {
            break;
        }
        uio.put(cx, &buf[..got])?;
    }
    Ok(())
}

fn read_pages(cx: &Curlwp<'_>, vp: &Arc<Vnode>, uio: &mut Uio<'_>) -> Result<(), Errno> {
    let start = uio.offset();
    loop {
        let missing = {
            let data = vp.pages.io.read(cx.cpu());
            copy_out(cx, vp, &data, uio)?
        };
        match missing {
            None => break,
            Some(page) => {
                let end = pages_of(uio.offset().saturating_add(uio.resid() as u64));
                fill(cx, vp, vp.pages.ahead.missed(page..end))?;
            }
        }
    }
    vp.pages
        .ahead
        .reached(cx, vp, page_of(start)..pages_of(uio.offset()));
    Ok(())
}

/// Copies until the transfer or the file ends, or to the first page that is missing, which it answers.
#[inline]
fn copy_out(
    cx: &Curlwp<'_>,
    vp: &Vnode,
    data: &FileData,
    uio: &mut Uio<'_>,
) -> Result<Option<u64>, Errno> {
    let size = size(cx, vp);
    while uio.resid() != 0 && uio.offset() < size {
        let page = page_of(uio.offset());
        let at = (uio.offset() % PAGE) as usize;
        let len = (PAGE_SIZE - at).min((size - uio.offset()).try_into().unwrap_or(PAGE_SIZE));
        match data.page(page) {
            Some(memory) => uio.put(cx, &memory[at..at + len])?,
            None => match missing(cx, vp, data, uio, len)? {
                true => return Ok(Some(page)),
                false => 0,
            },
        };
    }
    Ok(None)
}

/// Copies up to `len` bytes of a page that the index has not, if it is no page that has to be read first.
fn missing(
    cx: &Curlwp<'_>,
    vp: &Vnode,
    data: &FileData,
    uio: &mut Uio<'_>,
    len: usize,
) -> Result<bool, Errno> {
    if let Some(window) = data.window_of(page_of(uio.offset())) {
        let mut bytes = [0; PAGE_SIZE];
        let len = len.min(uio.resid());
        window.read(&mut bytes[..len], uio.offset());
        uio.put(cx, &bytes[..len])?;
    } else if vp.pages.resident {
        uio.put(cx, &ZEROES[..len])?;
    } else {
        return Ok(true);
    }
    Ok(false)
}

/// Reads the missing pages at the beginning of `want` into the cache, or waits until somebody else has. Look again
/// afterwards: a page may have gone again meanwhile.
pub(super) fn fill(cx: &Curlwp<'_>, vp: &Arc<Vnode>, want: Range<u64>) -> Result<(), Errno> {
    let Some(claim) = Claim::take(cx, vp, want)? else {
        return Ok(());
    };
    let count = claim.pages.end - claim.pages.start;
    match claim.fill(count) {
        // One bad block must not hide the good ones before it.
        Err(_) if count > 1 => claim.fill(1),
        result => result,
    }
}

/// Brings pages into the cache; a failure is no error, the read will tell.
pub(super) fn fill_all(cx: &Curlwp<'_>, vp: &Arc<Vnode>, pages: Range<u64>) {
    let mut at = pages.start;
    let end = pages.end.min(pages_of(size(cx, vp)));
    while at < end {
        let absent = vp.pages.io.read(cx.cpu()).next_absent(at);
        if absent >= end || fill(cx, vp, absent..end).is_err() {
            return;
        }
        at = absent + 1;
    }
}

/// Missing pages that nobody else reads while this lives.
struct Claim<'a, 'k> {
    cx: &'a Curlwp<'k>,
    vp: &'a Arc<Vnode>,
    pages: Range<u64>,
    id: u64,
}

impl<'a, 'k> Claim<'a, 'k> {
    /// Claims the missing pages from the beginning of `want` on. `None` when there is nothing to claim: the first is
    /// there, or somebody else had claimed it and is done.
    fn take(
        cx: &'a Curlwp<'k>,
        vp: &'a Arc<Vnode>,
        want: Range<u64>,
    ) -> Result<Option<Self>, Errno> {
        let first = want.start;
        let data = vp.pages.io.read(cx.cpu());
        let mut fills = vp.pages.fills.lock(cx.cpu());
        let mut end = want
            .end
            .min(pages_of(size(cx, vp)))
            .min(first.saturating_add(MAX_FILL.min(cache(cx)?.most(cx))));
        if vp.is_freed() {
            return Err(Errno::EIO);
        }
        if end <= first || data.contains(first) {
            return Ok(None);
        }
        end = data.next_present(first).map_or(end, |next| end.min(next));
        for fill in fills.iter() {
            if fill.pages.contains(&first) {
                drop(data);
                drop(vp.pages.filled.wait(cx.cpu(), fills));
                return Ok(None);
            }
            if fill.pages.start > first && !fill.pages.is_empty() {
                end = end.min(fill.pages.start);
            }
        }
        let id = fills.iter().map(|fill| fill.id + 1).max().unwrap_or(0);
        fills.push(Fill {
            pages: first..end,
            id,
        });
        Ok(Some(Claim {
            cx,
            vp,
            pages: first..end,
            id,
        }))
    }

    /// Reads the first `count` pages of the claim.
    fn fill(&self, count: u64) -> Result<(), Errno> {
        let cache = cache(self.cx)?;
        while !cache.charge(self.cx, self.vp, count) {
            cache.reclaim(self.cx, count)?;
        }
        let _busy = cache.hold_busy(self.cx);
        let mut pages: Vec<Page> = (0..count).map(|_| Page::zeroed()).collect();
        let read = {
            let mut memory: Vec<&mut [u8]> = pages.iter_mut().map(Page::bytes_mut).collect();
            backing::read_pages(self.cx, self.vp, self.pages.start * PAGE, &mut memory)
        };
        let used = match read {
            Ok(()) => self.insert(pages),
            Err(_) => 0,
        };
        cache.uncharge(count - used, self.vp.pages.resident);
        read
    }

    /// Puts the pages that are still wanted into the index; answers how many those are.
    fn insert(&self, pages: Vec<Page>) -> u64 {
        let (cx, vp) = (self.cx, self.vp);
        let mut data = vp.pages.io.write(cx.cpu());
        let wanted = {
            let fills = vp.pages.fills.lock(cx.cpu());
            fills
                .iter()
                .find(|fill| fill.id == self.id)
                .map_or(0..0, |fill| fill.pages.clone())
        };
        let size = size(cx, vp);
        let before = data.pages();
        for (number, mut page) in (self.pages.start..).zip(pages) {
            if !wanted.contains(&number) || data.contains(number) {
                continue;
            }
            if let Some(tail) = size.checked_sub(number * PAGE).filter(|&n| n < PAGE) {
                page.bytes_mut()[tail as usize..].fill(0);
            }
            data.insert(number, page, false);
        }
        let used = data.pages() - before;
        if used != 0
            && let Ok(cache) = cache(cx)
        {
            cache.enlist(cx, vp);
        }
        used
    }
}

impl Drop for Claim<'_, '_> {
    fn drop(&mut self) {
        let mut fills = self.vp.pages.fills.lock(self.cx.cpu());
        fills.retain(|fill| fill.id != self.id);
        drop(fills);
        self.vp.pages.filled.broadcast(self.cx.cpu());
    }
}

/// Takes pages that are being read away from their readers: what those bring is not used. By who holds the file's `io`
/// exclusively and is about to change these pages without having them.
pub(super) fn forfeit(cx: &Curlwp<'_>, vp: &Vnode, pages: Range<u64>) {
    for fill in vp.pages.fills.lock(cx.cpu()).iter_mut() {
        if fill.pages.start < pages.end && pages.start < fill.pages.end {
            fill.pages.end = fill.pages.start.max(pages.start);
        }
    }
}

/// `SEEK_DATA`: the first byte from `offset` on that is in no hole. `ENXIO` when there is none. Where the driver keeps
/// the holes to itself everything is data.
pub fn next_data(cx: &Curlwp<'_>, vp: &Arc<Vnode>, offset: u64) -> Result<u64, Errno> {
    let data = vp.pages.io.read(cx.cpu());
    let size = size(cx, vp);
    if offset >= size {
        return Err(Errno::ENXIO);
    }
    if !vp.pages.resident {
        return Ok(offset);
    }
    data.next_present(page_of(offset))
        .map(|page| offset.max(page * PAGE))
        .filter(|&at| at < size)
        .ok_or(Errno::ENXIO)
}

/// `SEEK_HOLE`: the first byte from `offset` on that is in a hole; there is one at the end of the file.
pub fn next_hole(cx: &Curlwp<'_>, vp: &Arc<Vnode>, offset: u64) -> Result<u64, Errno> {
    let data = vp.pages.io.read(cx.cpu());
    let size = size(cx, vp);
    if offset >= size {
        return Err(Errno::ENXIO);
    }
    if !vp.pages.resident {
        return Ok(size);
    }
    let hole = data.next_absent(page_of(offset)).saturating_mul(PAGE);
    Ok(offset.max(hole).min(size))
}

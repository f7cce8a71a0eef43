//! File data. For now the simplest store that keeps it: the pages of each file in a map.

use std::collections::BTreeMap;
use std::sync::Arc;

use abi::Errno;
use kern::{Curlwp, Uio};
use sync::Mutex;

use crate::{Mount, SetAttr, Vnode};

const PAGE: u64 = 4096;

struct Page {
    data: Box<[u8]>,
    dirty: bool,
}

/// The cached pages of a file.
#[derive(Default)]
pub struct Pages(Mutex<BTreeMap<u64, Page>>);

fn with_page<R>(
    cx: &Curlwp<'_>,
    vp: &Arc<Vnode>,
    page: u64,
    f: impl FnOnce(&mut Page) -> Result<R, Errno>,
) -> Result<R, Errno> {
    let mut pages = vp.pages.0.lock(cx.cpu());
    if let Some(page) = pages.get_mut(&page) {
        return f(page);
    }
    let mut data = vec![0; PAGE as usize].into_boxed_slice();
    if !vp.in_memory() {
        vp.ops().read_pages(cx, vp, page * PAGE, &mut [&mut data])?;
    }
    f(pages.entry(page).or_insert(Page { data, dirty: false }))
}

/// read(2) at the uio's offset.
pub fn read(cx: &Curlwp<'_>, vp: &Arc<Vnode>, uio: &mut Uio<'_>) -> Result<(), Errno> {
    let _io = vp.io.read(cx.cpu());
    let size = vp.attr(cx).size;
    while uio.resid() > 0 && uio.offset() < size {
        let at = (uio.offset() % PAGE) as usize;
        let len = (PAGE as usize - at).min((size - uio.offset()) as usize);
        with_page(cx, vp, uio.offset() / PAGE, |page| {
            uio.put(cx, &page.data[at..at + len])
        })?;
    }
    Ok(())
}

/// write(2) at the uio's offset, or at the end of the file.
pub fn write(
    cx: &Curlwp<'_>,
    vp: &Arc<Vnode>,
    uio: &mut Uio<'_>,
    append: bool,
) -> Result<(), Errno> {
    let _io = vp.io.write(cx.cpu());
    if append {
        uio.set_offset(vp.attr(cx).size);
    }
    vp.ops().reserve(cx, vp, uio.offset(), uio.resid() as u64)?;
    while uio.resid() > 0 {
        let at = (uio.offset() % PAGE) as usize;
        with_page(cx, vp, uio.offset() / PAGE, |page| {
            page.dirty = true;
            uio.get(cx, &mut page.data[at..])
        })?;
        let now = Vnode::timestamp(cx);
        vp.update_later(cx, |attr| {
            attr.size = attr.size.max(uio.offset());
            (attr.mtime, attr.ctime) = (now, now);
        });
    }
    Ok(())
}

/// Cuts or extends the file.
pub fn truncate(cx: &Curlwp<'_>, vp: &Arc<Vnode>, size: u64) -> Result<(), Errno> {
    let _io = vp.io.write(cx.cpu());
    let now = Vnode::timestamp(cx);
    let set = SetAttr {
        size: Some(size),
        mtime: Some(now),
        ctime: Some(now),
        ..SetAttr::default()
    };
    vp.ops().setattr(cx, vp, &set)?;
    let mut pages = vp.pages.0.lock(cx.cpu());
    pages.split_off(&size.div_ceil(PAGE));
    if let Some(page) = pages.get_mut(&(size / PAGE)) {
        page.data[(size % PAGE) as usize..].fill(0);
    }
    vp.update(cx, |attr| set.apply(attr));
    Ok(())
}

/// Hands everything that was written to the driver.
pub fn flush(cx: &Curlwp<'_>, vp: &Arc<Vnode>) -> Result<(), Errno> {
    if vp.in_memory() {
        return Ok(());
    }
    let size = vp.attr(cx).size;
    for (number, page) in vp
        .pages
        .0
        .lock(cx.cpu())
        .iter_mut()
        .filter(|(_, p)| p.dirty)
    {
        vp.ops()
            .write_pages(cx, vp, number * PAGE, &[&page.data], size)?;
        page.dirty = false;
    }
    if vp.take_attr_dirty() {
        vp.ops().write_attr(cx, vp)?;
    }
    Ok(())
}

/// Hands everything that was written in a mount to its driver.
pub fn flush_mount(_cx: &Curlwp<'_>, _mount: &Arc<Mount>) -> Result<(), Errno> {
    Ok(())
}

/// Forgets the pages of a file that is freed.
pub fn discard(cx: &Curlwp<'_>, vp: &Arc<Vnode>) {
    vp.pages.0.lock(cx.cpu()).clear();
}

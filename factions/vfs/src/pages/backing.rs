//! Where pages come from and go to: the driver, or the block device behind a block node.

use std::sync::Arc;

use abi::Errno;
use kern::Curlwp;

use crate::{BlockDev, Vnode, VnodeKind};

/// The device behind a block node.
fn device(vp: &Vnode) -> Result<Option<&Arc<BlockDev>>, Errno> {
    if vp.kind != VnodeKind::Block {
        return Ok(None);
    }
    vp.block_device().map(Some).ok_or(Errno::ENXIO)
}

/// Fills pages that lie one behind the other from `offset` on.
pub(super) fn read_pages(
    cx: &Curlwp<'_>,
    vp: &Arc<Vnode>,
    offset: u64,
    pages: &mut [&mut [u8]],
) -> Result<(), Errno> {
    let Some(device) = device(vp)? else {
        return vp.ops().read_pages(cx, vp, offset, pages);
    };
    cx.unscheduled(|| {
        let mut at = offset;
        for page in pages {
            let len = device.size().saturating_sub(at).min(page.len() as u64) as usize;
            device.read_at(&mut page[..len], at)?;
            at += page.len() as u64;
        }
        Ok(())
    })
}

/// Stores pages that lie one behind the other from `offset` on, of a file of `size` bytes.
pub(super) fn write_pages(
    cx: &Curlwp<'_>,
    vp: &Arc<Vnode>,
    offset: u64,
    pages: &[&[u8]],
    size: u64,
) -> Result<(), Errno> {
    let Some(device) = device(vp)? else {
        return vp.ops().write_pages(cx, vp, offset, pages, size);
    };
    cx.unscheduled(|| {
        let mut at = offset;
        for page in pages {
            let len = device.size().saturating_sub(at).min(page.len() as u64) as usize;
            device.write_at(&page[..len], at)?;
            at += page.len() as u64;
        }
        Ok(())
    })
}

/// Sees to it that pages about to be dirty will find space.
pub(super) fn reserve(
    cx: &Curlwp<'_>,
    vp: &Arc<Vnode>,
    offset: u64,
    len: u64,
) -> Result<(), Errno> {
    match device(vp)? {
        None => vp.ops().reserve(cx, vp, offset, len),
        Some(device) if !device.writable() => Err(Errno::EROFS),
        Some(_) => Ok(()),
    }
}

/// Gives back what was reserved for pages that are gone before they were written.
pub(super) fn unreserve(cx: &Curlwp<'_>, vp: &Arc<Vnode>, pages: u64) {
    if pages != 0 && vp.kind != VnodeKind::Block {
        vp.ops().unreserve(cx, vp, pages);
    }
}

/// Tells the driver attributes that have changed.
pub(super) fn write_attr(cx: &Curlwp<'_>, vp: &Arc<Vnode>) -> Result<(), Errno> {
    vp.ops().write_attr(cx, vp)
}

/// Makes what was written durable.
pub(super) fn sync(cx: &Curlwp<'_>, vp: &Arc<Vnode>, data_only: bool) -> Result<(), Errno> {
    match device(vp)? {
        None => vp.ops().fsync(cx, vp, data_only),
        Some(device) => cx.unscheduled(|| device.sync()),
    }
}

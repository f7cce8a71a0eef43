//! Space: files cut and grown, holes, blocks found in advance, and blocks set aside for dirty pages.

use std::sync::atomic::Ordering;

use abi::Errno;
use kern::Curlwp;
use rsext4::{Ext4Result, PreallocationOptions, RangeOperation};
use vfs::Vnode;

use super::transfer::{zero_bytes, zero_tail};
use crate::filemap::FileMap;
use crate::inner::Inner;
use crate::node::Node;

impl Node {
    /// Gives the file a size.
    pub(crate) fn truncate(
        &self,
        cx: &Curlwp<'_>,
        vp: &Vnode,
        now: u64,
        size: u64,
    ) -> Result<(), Errno> {
        let block_size = self.fs.block_size();
        let blocks = self.fs.change(cx, now, |inner| {
            let before = self.claimed_map(inner)?;
            inner.touch(self.ino);
            let off = self.fs.off();
            let mut data = self.data.lock(&off);
            let shrinks = size < data.size;
            inner.ext4()?.truncate_inode(self.ino, size)?;
            data.size = size;
            data.map = None;
            let map = self.load_map(inner)?;
            if shrinks {
                self.release(inner, &before, &map);
                zero_tail(&self.fs.dev, &map, size, block_size)?;
            } else {
                self.take_new(inner, &mut data, &before)?;
            }
            data.map = Some(map);
            data.written(now);
            Ok(inner.ext4()?.inode(self.ino)?.blocks)
        })?;
        vp.update(cx, |attr| attr.blocks = blocks);
        self.keep_setid(cx, vp)
    }

    /// Gives up the claim to what is in one map and not in the other.
    fn release(&self, inner: &mut Inner, before: &FileMap, after: &FileMap) {
        for e in before.extents() {
            for p in after.pieces(e.logical, e.end()) {
                if p.physical.is_none() {
                    let start = e.physical + (p.logical - e.logical);
                    inner.store(|store| store.disclaim(start..start + p.len));
                }
            }
        }
    }

    /// Frees the file: it has no name and no opener.
    pub(crate) fn reap(&self, cx: &Curlwp<'_>, now: u64) -> Result<(), Errno> {
        self.fs.change(cx, now, |inner| {
            let map = if self.regular {
                Some(self.claimed_map(inner)?)
            } else {
                None
            };
            inner.ext4()?.reap_unlinked_inode(self.ino)?;
            inner.orphans.remove(&self.ino);
            inner.touch(self.ino);
            if let Some(map) = map {
                self.release(inner, &map, &FileMap::default());
            }
            self.data.lock(&self.fs.off()).map = None;
            Ok(())
        })
    }

    /// Frees whole blocks of a range and zeroes the rest.
    pub(crate) fn punch(
        &self,
        cx: &Curlwp<'_>,
        vp: &Vnode,
        offset: u64,
        len: u64,
    ) -> Result<(), Errno> {
        let block_size = self.fs.block_size();
        let end = offset + len;
        let size = vp.attr(cx).size;
        let first = offset.div_ceil(block_size);
        let behind = if end >= size {
            end.div_ceil(block_size)
        } else {
            end / block_size
        };
        let blocks = self.fs.change(cx, Vnode::timestamp(cx), |inner| {
            let before = self.claimed_map(inner)?;
            inner.touch(self.ino);
            let off = self.fs.off();
            let mut data = self.data.lock(&off);
            if first < behind {
                let range =
                    ((behind - first) * block_size).min(size.saturating_sub(first * block_size));
                inner.ext4()?.operate_inode_range(
                    self.ino,
                    first * block_size,
                    range,
                    RangeOperation::PunchHole,
                )?;
            }
            let map = self.load_map(inner)?;
            self.release(inner, &before, &map);
            data.map = Some(map.clone());
            zero_bytes(&self.fs.dev, &map, offset..end, block_size)?;
            Ok(inner.ext4()?.inode(self.ino)?.blocks)
        })?;
        vp.update(cx, |attr| attr.blocks = blocks);
        Ok(())
    }

    /// Finds blocks for a range; they read as zero.
    pub(crate) fn allocate(
        &self,
        cx: &Curlwp<'_>,
        vp: &Vnode,
        offset: u64,
        len: u64,
    ) -> Result<(), Errno> {
        if !self.uses_extents {
            return Err(Errno::EOPNOTSUPP);
        }
        let blocks = self.fs.change(cx, Vnode::timestamp(cx), |inner| {
            let before = self.claimed_map(inner)?;
            inner.touch(self.ino);
            let result = inner.ext4()?.preallocate_inode(
                self.ino,
                offset,
                len,
                PreallocationOptions::KEEP_SIZE,
            );
            let off = self.fs.off();
            let mut data = self.data.lock(&off);
            self.take_new(inner, &mut data, &before)?;
            result?;
            Ok(inner.ext4()?.inode(self.ino)?.blocks)
        })?;
        vp.update(cx, |attr| attr.blocks = blocks);
        Ok(())
    }

    /// Stores the size, when the file has grown without data at its end.
    pub(crate) fn store_size(&self, inner: &mut Inner, size: u64) -> Ext4Result<()> {
        if !self.regular || self.data.lock(&self.fs.off()).size >= size {
            return Ok(());
        }
        let before = self.claimed_map(inner)?;
        let off = self.fs.off();
        let mut data = self.data.lock(&off);
        inner.ext4()?.truncate_inode(self.ino, size)?;
        data.size = size;
        self.take_new(inner, &mut data, &before).map(drop)
    }

    /// Sets blocks aside for a page that becomes dirty.
    pub(crate) fn reserve(&self, cx: &Curlwp<'_>, offset: u64, len: u64) -> Result<(), Errno> {
        let block_size = self.fs.block_size();
        let map = self.map(cx)?;
        let pieces = map.pieces(offset / block_size, (offset + len).div_ceil(block_size));
        let blocks = pieces
            .iter()
            .filter(|p| p.physical.is_none())
            .map(|p| p.len)
            .sum();
        if blocks != 0 {
            self.fs.reserve(cx, blocks)?;
            self.reserved.fetch_add(blocks, Ordering::AcqRel);
        }
        Ok(())
    }

    /// Gives back what was set aside for pages, or part of it.
    pub(crate) fn unreserve(&self, pages: u64) {
        let blocks = pages * (vfs::pages::PAGE_SIZE as u64 / self.fs.block_size());
        let less = |held: u64| Some(held.saturating_sub(blocks));
        if let Ok(held) = self
            .reserved
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, less)
        {
            self.fs.unreserve(held.min(blocks));
        }
    }
}

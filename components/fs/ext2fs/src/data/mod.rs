//! The data of regular files: between the page cache and the device, past rsext4.
//!
//! A write goes in three steps. Under the mount's lock rsext4 finds blocks, which are mapped but count as not written;
//! then the data goes to the device, without the lock; then, under the lock again, the blocks are said to be written.
//! So no commit, at whatever moment, makes blocks part of a file before their data is on its way, and the flush that is
//! part of every commit orders the two ("data=ordered"). In a file without extents (ext2, ext3) a mapped block is a
//! written one: there all three steps are taken under the lock, in which nobody commits.

mod space;
mod transfer;

use std::sync::Arc;

use abi::Errno;
use hypercall::Nanos;
use kern::Curlwp;
use rsext4::{
    Ext4Error, Ext4Result, FileExtentState, FileExtentTarget, PreallocationOptions, RangeOperation,
    ZeroRangeOptions,
};
use vfs::{Attr, Vnode};

use self::transfer::{Scatter, Write, zero_behind};
use crate::filemap::FileMap;
use crate::inner::Inner;
use crate::layout::Extent;
use crate::node::Node;
use crate::quick;

/// The most bytes that are written under the lock: a file of no more has its blocks found and said to be written in one
/// step.
const SMALL: u64 = 64 << 10;

/// What rsext4 is given for data that it is not to see. It is never written anywhere.
static NOTHING: [u8; 1 << 20] = [0; 1 << 20];

/// The data of a regular file, as far as the driver keeps anything about it.
#[derive(Default)]
pub(crate) struct Data {
    /// Its blocks, once they have been asked for.
    map: Option<Arc<FileMap>>,
    /// They have been claimed in the store.
    claimed: bool,
    /// The size in the inode.
    size: u64,
    /// Permissions and times in the inode.
    pub(crate) stored: Stored,
}

/// What of a vnode's attributes an inode has, of those that writing changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stored {
    perm: u32,
    atime: Nanos,
    mtime: Nanos,
    ctime: Nanos,
}

impl Stored {
    pub(crate) fn of(attr: &Attr) -> Stored {
        Stored {
            perm: attr.perm,
            atime: attr.atime,
            mtime: attr.mtime,
            ctime: attr.ctime,
        }
    }
}

impl Data {
    /// Of an inode with these attributes; a `fresh` one has no blocks yet.
    pub(crate) fn new(attr: &Attr, fresh: bool) -> Data {
        Data {
            map: fresh.then(Arc::default),
            claimed: fresh,
            size: attr.size,
            stored: Stored::of(attr),
        }
    }

    /// Whether the inode has all this already.
    pub(crate) fn has(&self, stored: &Stored, size: u64, regular: bool) -> bool {
        self.stored == *stored && (!regular || self.size >= size)
    }

    /// The inode has at least this size now.
    pub(crate) fn grow(&mut self, size: u64) {
        self.size = self.size.max(size);
    }

    /// The data has been changed, at this time.
    fn written(&mut self, now: Nanos) {
        (self.stored.mtime, self.stored.ctime) = (now, now);
    }
}

impl Node {
    /// The file's map, from memory where it is there.
    fn map(&self, cx: &Curlwp<'_>) -> Result<Arc<FileMap>, Errno> {
        if let Some(map) = &self.data.lock(cx.cpu()).map {
            return Ok(map.clone());
        }
        let map = self.fs.look(cx, |inner| self.load_map(inner))?;
        self.data.lock(cx.cpu()).map = Some(map.clone());
        Ok(map)
    }

    /// Reads the file's blocks, and checks that they may belong to a file.
    fn load_map(&self, inner: &mut Inner) -> Ext4Result<Arc<FileMap>> {
        let extents = match inner.extents(self.ino)? {
            Some(extents) => extents,
            None => self.ask_for_extents(inner)?,
        };
        let allowed = inner.store(|store| {
            let mut all = extents.iter();
            all.all(|e| store.layout.allows(&self.fs.sb, e.physical, e.len))
        });
        if !allowed {
            return Err(Ext4Error::corrupted().with_operation("file:extent"));
        }
        FileMap::new(extents)
            .map(Arc::new)
            .ok_or_else(|| Ext4Error::corrupted().with_operation("file:extent_order"))
    }

    /// Asks rsext4 for the file's blocks.
    fn ask_for_extents(&self, inner: &mut Inner) -> Ext4Result<Vec<Extent>> {
        let found = inner.ext4()?.inode_extents(
            self.ino,
            0,
            i64::MAX as u64,
            FileExtentTarget::Data,
            usize::MAX,
        )?;
        let size = self.fs.block_size();
        let mut extents = Vec::with_capacity(found.extents.len());
        for e in found.extents {
            let extent = Extent {
                logical: e.logical_start / size,
                physical: e.physical_start / size,
                len: e.length / size,
                written: e.state == FileExtentState::Initialized,
            };
            if e.state == FileExtentState::Inline {
                return Err(Ext4Error::corrupted().with_operation("file:extent"));
            }
            extents.push(extent);
        }
        Ok(extents)
    }

    /// The map, with all its blocks claimed as data.
    fn claimed_map(&self, inner: &mut Inner) -> Ext4Result<Arc<FileMap>> {
        let off = self.fs.off();
        let mut data = self.data.lock(&off);
        let map = match &data.map {
            Some(map) => map.clone(),
            None => self.load_map(inner)?,
        };
        if !data.claimed {
            claim(inner, map.extents());
            data.claimed = true;
        }
        data.map = Some(map.clone());
        Ok(map)
    }

    /// Fills pages from the device. See [`vfs::VnodeOps::read_pages`].
    pub(crate) fn read_pages(
        &self,
        cx: &Curlwp<'_>,
        vp: &Vnode,
        offset: u64,
        pages: &mut [&mut [u8]],
    ) -> Result<(), Errno> {
        let map = self.map(cx)?;
        let block_size = self.fs.block_size();
        let size = vp.attr(cx).size;
        let len: u64 = pages.iter().map(|p| p.len() as u64).sum();
        let end = size.min(offset + len);
        cx.unscheduled(|| {
            let mut out = Scatter::new(pages);
            for piece in map.pieces(
                offset / block_size,
                end.div_ceil(block_size).max(offset / block_size),
            ) {
                match piece.physical.filter(|_| piece.written) {
                    Some(block) => {
                        out.read(&self.fs.dev, block * block_size, piece.len * block_size)?
                    }
                    None => out.zero(piece.len * block_size),
                }
            }
            out.zero(len);
            Ok(())
        })?;
        zero_behind(offset, end, pages);
        Ok(())
    }

    /// Writes pages to the device. See [`vfs::VnodeOps::write_pages`].
    pub(crate) fn write_pages(
        &self,
        cx: &Curlwp<'_>,
        vp: &Vnode,
        offset: u64,
        pages: &[&[u8]],
        size: u64,
    ) -> Result<(), Errno> {
        let len: u64 = pages.iter().map(|p| p.len() as u64).sum();
        let end = size.min(offset + len);
        if offset >= end {
            return Ok(());
        }
        let write = Write {
            offset,
            end,
            size,
            pages,
        };
        let block_size = self.fs.block_size();
        let (first, behind) = (offset / block_size, end.div_ceil(block_size));
        let now = vp.attr(cx).mtime;

        let map = self.map(cx)?;
        let grows = size > self.data.lock(cx.cpu()).size;
        let in_place = !grows && map.is_written(first, behind) && self.data.lock(cx.cpu()).claimed;
        if in_place {
            return cx.unscheduled(|| write.put(&self.fs.dev, &map, block_size));
        }
        if !self.uses_extents || end - offset <= SMALL {
            let added = self
                .fs
                .change(cx, now, |inner| self.write_mapped(inner, &write, now))?;
            vp.update(cx, |attr| attr.blocks += added);
            return self.keep_setid(cx, vp);
        }
        let map = self
            .fs
            .change(cx, now, |inner| self.find_blocks(inner, &write))?;
        cx.unscheduled(|| write.put(&self.fs.dev, &map, block_size))?;
        if !map.is_written(first, behind) {
            let blocks = self.fs.change(cx, now, |inner| {
                let off = self.fs.off();
                let mut data = self.data.lock(&off);
                for piece in map.pieces(first, behind).iter().filter(|p| !p.written) {
                    self.say_written(
                        inner,
                        piece.logical * block_size,
                        (piece.logical + piece.len) * block_size,
                        size,
                    )?;
                }
                let mut map = FileMap::clone(&map);
                map.set_written(first, behind);
                data.map = Some(Arc::new(map));
                data.written(now);
                inner.touch(self.ino);
                Ok(inner.ext4()?.inode(self.ino)?.blocks)
            })?;
            vp.update(cx, |attr| attr.blocks = blocks);
        }
        self.keep_setid(cx, vp)
    }

    /// Step one: the size, and blocks for what has none.
    fn find_blocks(&self, inner: &mut Inner, write: &Write<'_>) -> Ext4Result<Arc<FileMap>> {
        let before = self.claimed_map(inner)?;
        let block_size = self.fs.block_size();
        let (first, behind) = (write.offset / block_size, write.end.div_ceil(block_size));
        inner.touch(self.ino);
        let off = self.fs.off();
        let mut data = self.data.lock(&off);
        let grows = write.size > data.size;
        if grows {
            inner.ext4()?.truncate_inode(self.ino, write.size)?;
            data.size = write.size;
        }
        let covered = before.covers(first, behind);
        if !covered {
            inner.ext4()?.preallocate_inode(
                self.ino,
                first * block_size,
                (behind - first) * block_size,
                PreallocationOptions::KEEP_SIZE,
            )?;
        }
        if covered && !grows {
            return Ok(before);
        }
        let taken = self.take_new(inner, &mut data, &before)?;
        if taken.in_use {
            self.fs.commit_within(inner)?;
        }
        Ok(taken.map)
    }

    /// Reads the map again after blocks may have been added, and claims new ones.
    fn take_new(&self, inner: &mut Inner, data: &mut Data, before: &FileMap) -> Ext4Result<Taken> {
        let map = self.load_map(inner)?;
        let (mut in_use, mut blocks) = (false, 0);
        for e in map.extents() {
            for p in before.pieces(e.logical, e.end()) {
                if p.physical.is_some() {
                    continue;
                }
                let start = e.physical + (p.logical - e.logical);
                blocks += p.len;
                in_use |= inner.store(|store| {
                    let in_use = store.in_use_before(start..start + p.len);
                    store.claim(start..start + p.len);
                    in_use.map_err(|_| Ext4Error::io())
                })?;
            }
        }
        data.map = Some(map.clone());
        Ok(Taken {
            map,
            in_use,
            blocks,
        })
    }

    /// Step three: blocks that were found are written now.
    fn say_written(&self, inner: &mut Inner, mut at: u64, end: u64, size: u64) -> Ext4Result<()> {
        let block_size = self.fs.block_size();
        // rsext4 goes block by block where a range ends inside of one.
        let whole = end.min(size) / block_size * block_size;
        for limit in [whole, end.min(size)] {
            while at < limit {
                let n = (limit - at).min(NOTHING.len() as u64);
                inner
                    .ext4()?
                    .write_inode(self.ino, at, &NOTHING[..n as usize])?;
                at += n;
            }
        }
        Ok(())
    }

    /// All three steps under the lock. Answers by how much the file has grown, in 512-byte units.
    fn write_mapped(&self, inner: &mut Inner, write: &Write<'_>, now: Nanos) -> Ext4Result<u64> {
        let before = self.claimed_map(inner)?;
        let block_size = self.fs.block_size();
        let (first, behind) = (write.offset / block_size, write.end.div_ceil(block_size));
        let off = self.fs.off();
        let mut data = self.data.lock(&off);
        if let Some(added) = self.write_quickly(inner, &mut data, &before, write, now)? {
            return Ok(added * block_size / 512);
        }
        inner.touch(self.ino);
        let mut map = before.clone();
        let mut added = 0;
        if !map.is_written(first, behind) {
            let result = self.say_written(inner, write.offset, write.end, write.size);
            // Whatever it has mapped is claimed also when it failed on the way.
            let taken = self.take_new(inner, &mut data, &before)?;
            result?;
            data.size = data.size.max(write.end);
            (map, added) = (taken.map, taken.blocks);
            if taken.in_use {
                self.commit_between(inner, write)?;
                map = self.load_map(inner)?;
                data.map = Some(map.clone());
            }
        }
        if write.size > data.size {
            inner.ext4()?.truncate_inode(self.ino, write.size)?;
            data.size = write.size;
            map = self.take_new(inner, &mut data, &map.clone())?.map;
        }
        data.written(now);
        write
            .put(&self.fs.dev, &map, block_size)
            .map_err(|_| Ext4Error::io())?;
        Ok(added * block_size / 512)
    }

    /// All three steps without rsext4, where all that is missing is one run of blocks. Answers how many; `None` where it
    /// is not so, and nothing has been done.
    fn write_quickly(
        &self,
        inner: &mut Inner,
        data: &mut Data,
        before: &FileMap,
        write: &Write<'_>,
        now: Nanos,
    ) -> Ext4Result<Option<u64>> {
        let block_size = self.fs.block_size();
        let (first, behind) = (write.offset / block_size, write.end.div_ceil(block_size));
        let pieces = before.pieces(first, behind);
        let mut holes = pieces.iter().filter(|p| !p.written);
        let (Some(hole), None) = (holes.next(), holes.next()) else {
            return Ok(None);
        };
        if !self.uses_extents || hole.physical.is_some() {
            return Ok(None);
        }
        let ino = self.ino.raw();
        let found = inner.try_quick(|store| quick::find_run(store, ino, hole.logical, hole.len))?;
        let Some(run) = found else {
            return Ok(None);
        };
        let map = before
            .with(run)
            .ok_or_else(|| Ext4Error::corrupted().with_operation("file:extent_order"))?;
        // The data goes first: blocks that could not be written stay free.
        write
            .put(&self.fs.dev, &map, block_size)
            .map_err(|_| Ext4Error::io())?;
        inner.try_store(|store| quick::add_run(store, ino, run, write.size, now))?;
        data.grow(write.size);
        data.written(now);
        data.map = Some(Arc::new(map));
        Ok(Some(run.len))
    }

    /// A commit between finding blocks and writing them. With extents the blocks do not count as written in it.
    fn commit_between(&self, inner: &mut Inner, write: &Write<'_>) -> Ext4Result<()> {
        if !self.uses_extents {
            return self.fs.commit_within(inner);
        }
        let block_size = self.fs.block_size();
        let start = write.offset / block_size * block_size;
        let len = write.end.next_multiple_of(block_size) - start;
        let zero = RangeOperation::Zero(ZeroRangeOptions::KEEP_SIZE);
        inner
            .ext4()?
            .operate_inode_range(self.ino, start, len, zero)?;
        self.fs.commit_within(inner)?;
        self.say_written(inner, write.offset, write.end, write.size)
    }
}

/// What [`Node::take_new`] has found.
struct Taken {
    map: Arc<FileMap>,
    /// A crash would bring something back that has one of the new blocks.
    in_use: bool,
    /// New blocks.
    blocks: u64,
}

/// Says that these blocks hold data.
fn claim(inner: &mut Inner, extents: &[Extent]) {
    inner.store(|store| {
        for e in extents {
            store.claim(e.physical..e.physical + e.len);
        }
    });
}

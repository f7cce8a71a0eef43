//! The buffer cache of metadata, below rsext4, and the transaction that runs.
//!
//! rsext4 is shown a file system without a journal, so that it writes metadata blocks in place, one by one, and takes
//! back what it has written when an operation fails. Here those writes are caught: they make up the running transaction,
//! which [`Store::commit`] puts into the log as a whole ([`crate::journal`]), between two operations. Without a journal
//! (ext2) a commit writes the blocks home.
//!
//! Data of regular files does not come through here: the driver moves it between the page cache and the device itself,
//! and says which blocks hold data ([`Store::claim`]). What rsext4 writes to those (it thinks that it moves the data) is
//! dropped.
//!
//! # Which image of a block is where
//! - `data`: the newest, as rsext4 sees it.
//! - in `running`: it differs from what is committed. If the block is in `logged` too, `frozen` is the image in the log.
//! - in `logged`: the log has it and its home has not; [`Store::checkpoint`] writes it home.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use abi::Errno;
use hypercall::{Host, Nanos};
use rsext4::{
    BlockIo, DeviceCapabilities, DeviceGeometry, Ext4Error, Ext4Result, SectorId, WriteFlags,
};
use smallvec::SmallVec;
use sync::{Mutex, OffCpu};
use vfs::BlockDev;

use crate::blockset::{BlockMap, BlockSet, Blocks};
use crate::journal::{Journal, Replay};
use crate::layout::{Layout, crc32c, tree_blocks};
use crate::superblock::{self, Refusal, Super, le16, le32};

/// Bytes of clean blocks that are kept.
const CLEAN_BYTES: usize = 16 << 20;
/// Bytes that the running transaction may have without a journal.
const RUNNING_BYTES: usize = 16 << 20;
/// Bytes that go to the device at once.
const CHUNK: usize = 1 << 20;

struct Buf {
    data: Box<[u8]>,
    /// The image that the log has, when `data` is newer.
    frozen: Option<Box<[u8]>>,
    /// Of a block bitmap that differs from what is committed: what is committed.
    before: Option<Box<[u8]>>,
    used: bool,
}

/// See the module.
pub(crate) struct Store {
    dev: Arc<BlockDev>,
    pub(crate) sb: Super,
    pub(crate) layout: Layout,
    blocks: BlockMap<Buf>,
    running: BTreeSet<u64>,
    logged: Blocks,
    revoked: BTreeSet<u64>,
    journal: Option<Journal>,
    /// The log of an image that is not written: where the newest images are.
    replay: Replay,
    /// Blocks that hold data of regular files.
    data: BlockSet,
    block_bitmaps: Blocks,
    inode_bitmaps: Blocks,
    writable: bool,
    errors: bool,
    /// Reads that the operation under way may still make.
    budget: u64,
}

impl Store {
    pub(crate) fn new(dev: Arc<BlockDev>, sb: Super, layout: Layout, writable: bool) -> Store {
        Store {
            block_bitmaps: layout.block_bitmaps().collect(),
            inode_bitmaps: layout.inode_bitmaps().collect(),
            dev,
            sb,
            layout,
            blocks: BlockMap::default(),
            running: BTreeSet::new(),
            logged: Blocks::default(),
            revoked: BTreeSet::new(),
            journal: None,
            replay: Replay::new(),
            data: BlockSet::default(),
            writable,
            errors: false,
            budget: u64::MAX,
        }
    }

    fn block_size(&self) -> usize {
        self.sb.block_size as usize
    }

    /// Takes the journal over. What is in the log goes home, or is read from the log where nothing may be written.
    pub(crate) fn open_journal(&mut self, mut journal: Journal) -> Result<(), Errno> {
        let (dev, size) = (self.dev.clone(), self.block_size());
        let read = &mut |block: u64| read_block(&dev, block, size);
        if journal.needs_replay() {
            let replay = journal.scan(read)?;
            if replay.keys().any(|&block| block >= self.sb.blocks) {
                return Err(Errno::EUCLEAN);
            }
            self.blocks.clear();
            self.replay = replay;
        }
        if self.writable {
            let mut homes: Vec<u64> = self.replay.keys().copied().collect();
            homes.sort_unstable();
            for home in homes {
                let image = self.load(home)?;
                self.dev.write_at(&image, home * size as u64)?;
            }
            self.dev.sync()?;
            self.replay.clear();
            journal.begin(&self.dev, self.sb.bit64)?;
            self.journal = Some(journal);
        }
        Ok(())
    }

    /// Parses the superblock again: replaying may have changed it.
    pub(crate) fn reread_superblock(&mut self) -> Result<(), Refusal> {
        let raw = self
            .raw_superblock()
            .map_err(|_| Refusal::Bad("unreadable"))?;
        let sb = Super::parse(&raw, self.dev.size())?;
        let same = (
            sb.block_size,
            sb.blocks,
            sb.groups,
            sb.inodes,
            sb.desc_size,
            sb.inode_size,
        ) == (
            self.sb.block_size,
            self.sb.blocks,
            self.sb.groups,
            self.sb.inodes,
            self.sb.desc_size,
            self.sb.inode_size,
        );
        if !same || sb.read_only != self.sb.read_only {
            return Err(Refusal::Bad("its geometry is another in the journal"));
        }
        self.sb = sb;
        Ok(())
    }

    /// Whether there is a journal that is written.
    pub(crate) fn journaled(&self) -> bool {
        self.journal.is_some()
    }

    /// Starts to count the reads of an operation. On an image gone wrong it might read in circles.
    pub(crate) fn begin_operation(&mut self) {
        self.budget = (1 << 20) + self.sb.blocks.saturating_mul(8);
    }

    // Reading.

    /// A block from the device.
    fn load(&self, block: u64) -> Result<Box<[u8]>, Errno> {
        let (place, escaped) = self.replay.get(&block).copied().unwrap_or((block, false));
        let mut image = read_block(&self.dev, place, self.block_size())?;
        if escaped {
            image[..4].copy_from_slice(&0xc03b_3998u32.to_be_bytes());
        }
        Ok(image)
    }

    fn get(&mut self, block: u64) -> Result<&mut Buf, Errno> {
        if !self.blocks.contains_key(&block) {
            let data = self.load(block)?;
            self.make_room();
            self.blocks.insert(block, Buf::new(data));
        }
        let buf = self.blocks.get_mut(&block).ok_or(Errno::EIO)?;
        buf.used = true;
        Ok(buf)
    }

    /// Lets clean blocks go that have not been used since the last time.
    fn make_room(&mut self) {
        let dirty = self.running.len() + self.logged.len();
        if self.blocks.len().saturating_sub(dirty) * self.block_size() < CLEAN_BYTES {
            return;
        }
        let (running, logged) = (&self.running, &self.logged);
        self.blocks.retain(|block, buf| {
            std::mem::take(&mut buf.used) || running.contains(block) || logged.contains(block)
        });
    }

    /// A raw inode as it is in the cache. `None` beyond the file system.
    pub(crate) fn raw_inode(&mut self, ino: u32) -> Result<Vec<u8>, Errno> {
        let (block, at) = self.layout.inode(&self.sb, ino).ok_or(Errno::EUCLEAN)?;
        let size = usize::from(self.sb.inode_size);
        let buf = self.get(block)?;
        Ok(buf.data.get(at..at + size).ok_or(Errno::EUCLEAN)?.to_vec())
    }

    /// Calls `f` with each block that a range of bytes touches: its number, the part of it, and the part of the range.
    fn pieces(&self, offset: u64, len: usize, mut f: impl FnMut(u64, Range<usize>, Range<usize>)) {
        let size = self.block_size() as u64;
        let mut done = 0;
        while done < len {
            let at = offset + done as u64;
            let within = (at % size) as usize;
            let n = (self.block_size() - within).min(len - done);
            f(at / size, within..within + n, done..done + n);
            done += n;
        }
    }

    fn read(&mut self, offset: u64, out: &mut [u8]) -> Result<(), Errno> {
        let mut pieces: SmallVec<[_; 1]> = SmallVec::new();
        self.pieces(offset, out.len(), |block, of, to| {
            pieces.push((block, of, to))
        });
        self.budget = self
            .budget
            .checked_sub(pieces.len() as u64)
            .ok_or(Errno::EUCLEAN)?;
        for (block, of, to) in pieces {
            if self.data.contains(block) {
                let at = block * self.block_size() as u64 + of.start as u64;
                self.dev.read_at(&mut out[to], at)?;
                continue;
            }
            let out = &mut out[to];
            out.copy_from_slice(&self.get(block)?.data[of]);
            if self.hides_indexes() && self.layout.inodes_at(&self.sb, block).is_some() {
                hide_indexes(out, usize::from(self.sb.inode_size));
            }
        }
        if self.sb.is_masked() {
            let sb = offset.max(superblock::OFFSET)
                ..(offset + out.len() as u64).min(superblock::OFFSET + 1024);
            if sb.start < sb.end {
                let mut raw = self.raw_superblock()?;
                self.sb.mask(&mut raw, self.writable);
                let from = &raw[(sb.start - superblock::OFFSET) as usize
                    ..(sb.end - superblock::OFFSET) as usize];
                out[(sb.start - offset) as usize..(sb.end - offset) as usize].copy_from_slice(from);
            }
        }
        Ok(())
    }

    /// Whether rsext4 sees indexed directories as plain ones, which they are too: it could not let them grow. Those it
    /// changes lose their index. Checksums would have to be made again, also those of the index.
    fn hides_indexes(&self) -> bool {
        self.sb.block_mapped && self.writable && self.sb.checksum_seed.is_none()
    }

    fn superblock_place(&self) -> (u64, usize) {
        let size = self.block_size() as u64;
        (
            superblock::OFFSET / size,
            (superblock::OFFSET % size) as usize,
        )
    }

    fn raw_superblock(&mut self) -> Result<[u8; superblock::SIZE], Errno> {
        let (block, at) = self.superblock_place();
        self.get(block)?.data[at..at + superblock::SIZE]
            .try_into()
            .map_err(|_| Errno::EIO)
    }

    // Writing.

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        if !self.writable {
            return Err(Errno::EROFS);
        }
        let mut pieces: SmallVec<[_; 1]> = SmallVec::new();
        self.pieces(offset, bytes.len(), |block, to, of| {
            pieces.push((block, to, of))
        });
        for (block, to, of) in pieces {
            // Looking for room in a plain directory rsext4 believes that it changes all of it.
            let same = |buf: &Buf| buf.data.get(to.clone()) == bytes.get(of.clone());
            let unchanged = self.sb.block_mapped && self.blocks.get(&block).is_some_and(same);
            if !unchanged && !self.data.contains(block) {
                self.change(block, |data| data[to].copy_from_slice(&bytes[of]))?;
            }
        }
        Ok(())
    }

    /// Changes a block in the running transaction.
    fn change(&mut self, block: u64, f: impl FnOnce(&mut [u8])) -> Result<(), Errno> {
        let fresh = self.running.insert(block);
        let freeze = fresh && self.logged.contains(&block);
        let is_block_bitmap = self.block_bitmaps.contains(&block);
        let is_inode_bitmap = self.inode_bitmaps.contains(&block);
        let inodes = self.sb.inodes_per_group as usize;
        let (sb_block, sb_at) = self.superblock_place();
        let (journaled, errors) = (self.journal.is_some(), self.errors);
        let sb = (block == sb_block).then(|| self.sb.clone());
        self.revoked.remove(&block);
        let buf = match self.get(block) {
            Ok(buf) => buf,
            Err(error) => {
                self.running.remove(&block);
                return Err(error);
            }
        };
        if freeze {
            buf.frozen = Some(buf.data.clone());
        }
        if fresh && is_block_bitmap {
            buf.before = Some(buf.data.clone());
        }
        f(&mut buf.data);
        if is_inode_bitmap {
            // Bits behind the last inode count as taken; rsext4 leaves them free when it makes a bitmap.
            if let Some(padding) = buf.data.get_mut(inodes.div_ceil(8)..) {
                padding.fill(0xff);
            }
        }
        if let Some(sb) = sb
            && let Ok(raw) = <&mut [u8; superblock::SIZE]>::try_from(
                &mut buf.data[sb_at..sb_at + superblock::SIZE],
            )
        {
            sb.unmask(raw);
            if journaled {
                superblock::show_journal(raw, true);
            }
            if errors {
                superblock::mark_errors(raw);
            }
        }
        if let Some(first_inode) = self.layout.inodes_at(&self.sb, block) {
            self.recount(block, first_inode)?;
        }
        Ok(())
    }

    /// Counts the blocks of directories again whose extent tree has index nodes: rsext4 forgets those when an indexed
    /// directory grows.
    fn recount(&mut self, block: u64, first_inode: u32) -> Result<(), Errno> {
        let size = usize::from(self.sb.inode_size);
        let tall = |inode: &[u8]| {
            inode[1] & 0xf0 == 0x40
                && le32(inode, 0x20) & 0x8_0000 != 0
                && le16(inode, 0x28 + 6) > 0
        };
        let data = &self.get(block)?.data;
        let found: Vec<(usize, Vec<u8>)> = data
            .chunks_exact(size)
            .enumerate()
            .filter(|(_, inode)| tall(inode))
            .map(|(i, inode)| (i, inode.to_vec()))
            .collect();
        for (i, mut inode) in found {
            let sb = self.sb.clone();
            let read = &mut |block| Ok(self.get(block)?.data.clone());
            let Ok(blocks) = tree_blocks(&sb, &inode[0x28..0x28 + 60], None, read) else {
                continue;
            };
            let attributes = le32(&inode, 0x68) != 0;
            let units = (blocks + u64::from(attributes)) * u64::from(sb.block_size / 512);
            let Ok(units) = u32::try_from(units) else {
                continue;
            };
            if le32(&inode, 0x1c) == units {
                continue;
            }
            inode[0x1c..0x20].copy_from_slice(&units.to_le_bytes());
            if let Some(seed) = sb.checksum_seed {
                seal_inode(&mut inode, seed, first_inode + i as u32);
            }
            let data = &mut self.get(block)?.data;
            data[i * size..(i + 1) * size].copy_from_slice(&inode);
        }
        Ok(())
    }

    /// From now on these blocks hold data of a regular file: nothing here may be written over it, and nothing in the
    /// log may be replayed over it.
    pub(crate) fn claim(&mut self, range: Range<u64>) {
        for block in range.clone() {
            if self.blocks.remove(&block).is_some() {
                self.running.remove(&block);
                if self.logged.remove(&block) {
                    self.revoked.insert(block);
                }
            }
        }
        self.data.insert(range);
    }

    /// These blocks have been freed.
    pub(crate) fn disclaim(&mut self, range: Range<u64>) {
        self.data.remove(range);
    }

    /// Whether one of these blocks is in use in the state that a crash would leave. If they have been allocated since,
    /// something else still has them, and they may be overwritten only after a commit.
    pub(crate) fn in_use_before(&mut self, range: Range<u64>) -> Result<bool, Errno> {
        for block in range {
            let (bitmap, bit) = self
                .layout
                .block_bit(&self.sb, block)
                .ok_or(Errno::EUCLEAN)?;
            let buf = self.get(bitmap)?;
            let bits = buf.before.as_ref().unwrap_or(&buf.data);
            if bits
                .get(bit / 8)
                .is_some_and(|byte| byte >> (bit % 8) & 1 != 0)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    // Commit and checkpoint.

    /// Whether the running transaction is so large that it should be committed.
    pub(crate) fn is_full(&self) -> bool {
        let limit = match &self.journal {
            Some(journal) => journal.capacity() / 4,
            None => RUNNING_BYTES / self.block_size(),
        };
        self.running.len() + self.revoked.len() >= limit
    }

    /// Makes everything written so far durable: data, and the running transaction as a whole.
    pub(crate) fn commit(&mut self, now: Nanos) -> Result<(), Errno> {
        if !self.writable || (self.running.is_empty() && self.revoked.is_empty()) {
            return self.dev.sync();
        }
        let Some(mut journal) = self.journal.take() else {
            return self.write_running();
        };
        let result = self.commit_to(&mut journal, now);
        self.journal = Some(journal);
        result
    }

    fn commit_to(&mut self, journal: &mut Journal, now: Nanos) -> Result<(), Errno> {
        let needed = journal.needed(self.running.len(), self.revoked.len());
        if !journal.has_room(needed) {
            self.checkpoint(journal)?;
        }
        if !journal.has_room(needed) {
            // An operation larger than the log: its blocks go home one after the other.
            return self.write_running();
        }
        let images: Vec<(u64, &[u8])> = self
            .running
            .iter()
            .filter_map(|block| Some((*block, &*self.blocks.get(block)?.data)))
            .collect();
        let revoked: Vec<u64> = self.revoked.iter().copied().collect();
        journal.commit(&self.dev, &images, &revoked, now)?;
        self.revoked.clear();
        for block in std::mem::take(&mut self.running) {
            if let Some(buf) = self.blocks.get_mut(&block) {
                (buf.frozen, buf.before) = (None, None);
            }
            self.logged.insert(block);
        }
        Ok(())
    }

    /// Writes home what is in the log, and empties it.
    fn checkpoint(&mut self, journal: &mut Journal) -> Result<(), Errno> {
        let mut homes: Vec<u64> = self.logged.iter().copied().collect();
        homes.sort_unstable();
        let size = self.block_size();
        let mut run = Run::new(&self.dev, size);
        for block in homes {
            if let Some(buf) = self.blocks.get(&block) {
                run.put(block, buf.frozen.as_ref().unwrap_or(&buf.data))?;
            }
        }
        run.finish()?;
        self.dev.sync()?;
        for block in self.logged.drain() {
            if let Some(buf) = self.blocks.get_mut(&block) {
                buf.frozen = None;
            }
        }
        journal.empty(&self.dev)
    }

    /// Writes the running transaction home.
    fn write_running(&mut self) -> Result<(), Errno> {
        let size = self.block_size();
        let mut run = Run::new(&self.dev, size);
        for block in &self.running {
            if let Some(buf) = self.blocks.get(block) {
                run.put(*block, &buf.data)?;
            }
        }
        run.finish()?;
        self.dev.sync()?;
        for block in std::mem::take(&mut self.running) {
            if let Some(buf) = self.blocks.get_mut(&block) {
                (buf.frozen, buf.before) = (None, None);
            }
        }
        self.revoked.clear();
        Ok(())
    }

    /// Brings everything home and says in the superblock that nothing has to be replayed.
    pub(crate) fn close(&mut self, now: Nanos) -> Result<(), Errno> {
        self.commit(now)?;
        let Some(mut journal) = self.journal.take() else {
            return Ok(());
        };
        let result = self
            .checkpoint(&mut journal)
            .and_then(|()| self.flag_recovery(false));
        if result.is_err() {
            self.journal = Some(journal);
        }
        result
    }

    /// Brings everything home for a mount that becomes read-only; the journal stays open.
    pub(crate) fn rest(&mut self) -> Result<(), Errno> {
        if let Some(mut journal) = self.journal.take() {
            let result = self
                .checkpoint(&mut journal)
                .and_then(|()| self.flag_recovery(false));
            self.journal = Some(journal);
            return result;
        }
        Ok(())
    }

    /// The mount is written again.
    pub(crate) fn wake(&mut self) -> Result<(), Errno> {
        if self.journal.is_some() {
            return self.flag_recovery(true);
        }
        Ok(())
    }

    /// Says in the superblock on the disk whether the journal has to be replayed.
    pub(crate) fn flag_recovery(&mut self, recover: bool) -> Result<(), Errno> {
        let (block, at) = self.superblock_place();
        let buf = self.get(block)?;
        if let Ok(raw) =
            <&mut [u8; superblock::SIZE]>::try_from(&mut buf.data[at..at + superblock::SIZE])
        {
            superblock::show_journal(raw, recover);
        }
        let image = buf.data.clone();
        self.dev.write_at(&image, block * image.len() as u64)?;
        self.dev.sync()
    }

    /// From now on the superblock says that e2fsck should look.
    pub(crate) fn flag_errors(&mut self) {
        self.errors = true;
        if self.writable {
            let (block, _) = self.superblock_place();
            // A change that changes nothing but the flag; if the block cannot be read there is nothing to mark.
            let _ = self.change(block, |_| {});
        }
    }
}

impl Buf {
    fn new(data: Box<[u8]>) -> Buf {
        Buf {
            data,
            frozen: None,
            before: None,
            used: true,
        }
    }
}

fn read_block(dev: &BlockDev, block: u64, size: usize) -> Result<Box<[u8]>, Errno> {
    let mut data = vec![0; size].into_boxed_slice();
    let at = block.checked_mul(size as u64).ok_or(Errno::EIO)?;
    dev.read_at(&mut data, at)?;
    Ok(data)
}

/// Takes the index flag off directories that are mapped by blocks, in a part of the inode table.
fn hide_indexes(inodes: &mut [u8], size: usize) {
    const EXTENTS: u32 = 0x8_0000;
    const INDEX: u32 = 0x1000;
    for inode in inodes.chunks_exact_mut(size) {
        let flags = le32(inode, 0x20);
        if inode[1] & 0xf0 == 0x40 && flags & (EXTENTS | INDEX) == INDEX {
            inode[0x20..0x24].copy_from_slice(&(flags & !INDEX).to_le_bytes());
        }
    }
}

/// Sets the checksum of a raw inode.
fn seal_inode(inode: &mut [u8], seed: u32, ino: u32) {
    let high = inode.len() > 128 && le16(inode, 0x80) >= 4;
    inode[0x7c..0x7e].fill(0);
    if high {
        inode[0x82..0x84].fill(0);
    }
    let seed = crc32c(seed, &[&ino.to_le_bytes(), &inode[0x64..0x68]]);
    let sum = crc32c(seed, &[inode]).to_le_bytes();
    inode[0x7c..0x7e].copy_from_slice(&sum[..2]);
    if high {
        inode[0x82..0x84].copy_from_slice(&sum[2..]);
    }
}

/// Puts blocks that lie side by side together, to write them at once.
struct Run<'a> {
    dev: &'a BlockDev,
    size: usize,
    first: u64,
    buf: Vec<u8>,
}

impl<'a> Run<'a> {
    fn new(dev: &'a BlockDev, size: usize) -> Run<'a> {
        Run {
            dev,
            size,
            first: 0,
            buf: Vec::new(),
        }
    }

    fn put(&mut self, block: u64, data: &[u8]) -> Result<(), Errno> {
        let next = self.first + (self.buf.len() / self.size) as u64;
        if block != next || self.buf.len() >= CHUNK {
            self.finish()?;
            self.first = block;
        }
        self.buf.extend_from_slice(data);
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Errno> {
        if !self.buf.is_empty() {
            self.dev
                .write_at(&self.buf, self.first * self.size as u64)?;
            self.buf.clear();
        }
        Ok(())
    }
}

/// The device that rsext4 sees. It is used without a virtual CPU and under the mount's lock only, so the store's lock is
/// never waited for.
pub(crate) struct Shim {
    pub(crate) store: Arc<Mutex<Store>>,
    pub(crate) host: Arc<dyn Host>,
    pub(crate) size: u64,
    pub(crate) writable: bool,
}

/// Bytes of a sector; every block size is a multiple.
const SECTOR: u32 = 1024;

fn device_error(error: Errno) -> Ext4Error {
    match error {
        Errno::ENOSPC => Ext4Error::no_space(),
        Errno::EROFS => Ext4Error::read_only(),
        Errno::EUCLEAN => Ext4Error::corrupted().with_operation("device"),
        _ => Ext4Error::io(),
    }
}

impl BlockIo for Shim {
    fn write(&mut self, buffer: &[u8], sector: SectorId, _count: u32) -> Ext4Result<()> {
        self.store
            .lock(&OffCpu(&*self.host))
            .write(sector.raw() * u64::from(SECTOR), buffer)
            .map_err(device_error)
    }

    fn read(&mut self, buffer: &mut [u8], sector: SectorId, _count: u32) -> Ext4Result<()> {
        self.store
            .lock(&OffCpu(&*self.host))
            .read(sector.raw() * u64::from(SECTOR), buffer)
            .map_err(device_error)
    }

    fn write_with_flags(
        &mut self,
        buffer: &[u8],
        sector: SectorId,
        count: u32,
        _: WriteFlags,
    ) -> Ext4Result<()> {
        self.write(buffer, sector, count)
    }

    fn geometry(&self) -> DeviceGeometry {
        DeviceGeometry::new(SECTOR, self.size / u64::from(SECTOR))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        DeviceCapabilities {
            read_only: !self.writable,
            flush: true,
            fua: true,
            ..DeviceCapabilities::default()
        }
    }

    /// What rsext4 has flushed is in the running transaction; [`Store::commit`] makes it durable.
    fn flush(&mut self) -> Ext4Result<()> {
        Ok(())
    }
}

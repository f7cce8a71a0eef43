//! The device that rsext4 sees: the store's blocks, with what rsext4 is not to know hidden, and what it does wrong put
//! right.

use std::ops::Range;
use std::sync::Arc;

use abi::Errno;
use hypercall::Host;
use rsext4::{
    BlockIo, DeviceCapabilities, DeviceGeometry, Ext4Error, Ext4Result, SectorId, WriteFlags,
};
use smallvec::SmallVec;
use sync::{Mutex, OffCpu};

use super::{Buf, Store};
use crate::inode::Inode;
use crate::layout::tree_blocks;
use crate::superblock::{self, le16, le32};

impl Store {
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

    /// Changes a block as rsext4 wants it, and puts right what it does wrong.
    pub(super) fn change(&mut self, block: u64, f: impl FnOnce(&mut [u8])) -> Result<(), Errno> {
        // Bits behind the last of a group count as taken; rsext4 leaves them free when it makes a bitmap.
        let bits = match () {
            () if self.inode_bitmaps.contains(&block) => Some(self.sb.inodes_per_group),
            () if self.block_bitmaps.contains(&block) => Some(self.sb.blocks_per_group),
            () => None,
        };
        let (sb_block, sb_at) = self.superblock_place();
        let (journaled, errors) = (self.journal.is_some(), self.errors);
        let mount_count = self.mount_count;
        let sb = (block == sb_block).then(|| self.sb.clone());
        let data = self.edit(block)?;
        f(data);
        if let Some(bits) = bits
            && let Some(padding) = data.get_mut((bits as usize).div_ceil(8)..)
        {
            padding.fill(0xff);
        }
        if let Some(sb) = sb
            && let Ok(raw) =
                <&mut [u8; superblock::SIZE]>::try_from(&mut data[sb_at..sb_at + superblock::SIZE])
        {
            sb.unmask(raw, mount_count);
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
            let mut inode = Inode {
                number: first_inode + i as u32,
                raw: SmallVec::from_vec(inode),
            };
            inode.seal(&sb);
            let data = &mut self.get(block)?.data;
            data[i * size..(i + 1) * size].copy_from_slice(&inode.raw);
        }
        Ok(())
    }
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

/// What rsext4 is told of an error of the device.
pub(crate) fn device_error(error: Errno) -> Ext4Error {
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

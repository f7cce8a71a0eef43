//! Block groups: which blocks and inodes are free.
//!
//! Counts are kept as blocks are changed. A checksum covers a whole bitmap or block of names, so it is made once for all
//! changes of a transaction, when that is committed or rsext4 is to see it ([`Store::seal`]).

use std::collections::BTreeSet;

use abi::Errno;

use super::Store;
use crate::blockset::BlockMap;
use crate::dirblock;
use crate::layout::crc32c;
use crate::superblock::{self, crc16, le16, le32, put16, put32};

/// Fields of a group descriptor: the low half, and where descriptors have 64 bytes the high one.
type Field = (usize, usize);
const FREE_BLOCKS: Field = (0x0c, 0x2c);
const FREE_INODES: Field = (0x0e, 0x2e);
const FLAGS: usize = 0x12;
const BLOCK_SUM: Field = (0x18, 0x38);
const INODE_SUM: Field = (0x1a, 0x3a);
const UNUSED_INODES: Field = (0x1c, 0x32);
const CHECKSUM: usize = 0x1e;

/// `bg_flags`: this bitmap is not there yet.
const INODE_UNINIT: u16 = 1;
const BLOCK_UNINIT: u16 = 2;

/// Fields of the superblock.
const SB_FREE_BLOCKS: Field = (0x0c, 0x158);
const SB_FREE_INODES: usize = 0x10;

/// What has been changed and has no new checksum yet.
#[derive(Default)]
pub(super) struct Unsealed {
    block_bitmaps: BTreeSet<u32>,
    inode_bitmaps: BTreeSet<u32>,
    /// Blocks of names, with what their checksums start with.
    names: BlockMap<u32>,
}

fn get(desc: &[u8], field: Field) -> u32 {
    let high = if desc.len() >= 64 {
        le16(desc, field.1)
    } else {
        0
    };
    u32::from(le16(desc, field.0)) | u32::from(high) << 16
}

fn put(desc: &mut [u8], field: Field, value: u32) {
    put16(desc, field.0, value as u16);
    if desc.len() >= 64 {
        put16(desc, field.1, (value >> 16) as u16);
    }
}

/// The two bitmaps of a group.
#[derive(Clone, Copy)]
enum Bitmap {
    Blocks,
    Inodes,
}

impl Bitmap {
    /// Where a descriptor has its checksum.
    fn sum(self) -> Field {
        match self {
            Bitmap::Blocks => BLOCK_SUM,
            Bitmap::Inodes => INODE_SUM,
        }
    }
}

/// The first run of `n` bits of `total` that are 0; `word` gives 64 of them.
fn free_run(word: impl Fn(usize) -> u64, from: usize, total: usize, n: usize) -> Option<usize> {
    let mut at = from;
    while at + n <= total {
        let taken = (word(at / 64) >> (at % 64)).trailing_ones() as usize;
        if taken > 0 {
            at += taken;
            continue;
        }
        let mut len = 0;
        while len < n {
            let bit = at + len;
            let left = 64 - bit % 64;
            let free = ((word(bit / 64) >> (bit % 64)).trailing_zeros() as usize).min(left);
            len += free;
            if free < left {
                break;
            }
        }
        if len >= n {
            return Some(at);
        }
        at += len;
    }
    None
}

fn word(bits: &[u8], i: usize) -> u64 {
    let bytes = bits.get(i * 8..i * 8 + 8);
    bytes
        .and_then(|b| b.try_into().ok())
        .map_or(!0, u64::from_le_bytes)
}

impl Store {
    fn descriptor(&mut self, group: u32) -> Result<&[u8], Errno> {
        let place = self.layout.descriptor(&self.sb, group);
        let (block, at) = place.ok_or(Errno::EUCLEAN)?;
        let size = usize::from(self.sb.desc_size);
        let desc = self.get(block)?.data.get(at..at + size);
        desc.ok_or(Errno::EUCLEAN)
    }

    fn edit_descriptor(&mut self, group: u32) -> Result<&mut [u8], Errno> {
        let place = self.layout.descriptor(&self.sb, group);
        let (block, at) = place.ok_or(Errno::EUCLEAN)?;
        let size = usize::from(self.sb.desc_size);
        let desc = self.edit(block)?.get_mut(at..at + size);
        desc.ok_or(Errno::EUCLEAN)
    }

    /// Groups in the order in which they are asked for something that should lie in `near`.
    fn groups_from(&self, near: u32) -> impl Iterator<Item = u32> + use<> {
        (near..self.sb.groups).chain(0..near.min(self.sb.groups))
    }

    fn bitmap_block(&self, group: u32, which: Bitmap) -> Result<u64, Errno> {
        let block = match which {
            Bitmap::Blocks => self.layout.block_bitmap(group),
            Bitmap::Inodes => self.layout.inode_bitmap(group),
        };
        block.ok_or(Errno::EUCLEAN)
    }

    /// How much of a bitmap its checksum covers.
    fn bitmap_bytes(&self, which: Bitmap) -> usize {
        let bits = match which {
            Bitmap::Blocks => self.sb.blocks_per_group,
            Bitmap::Inodes => self.sb.inodes_per_group,
        };
        bits as usize / 8
    }

    /// Loads a bitmap and looks at its checksum, when it has just been read.
    fn check_bitmap(&mut self, group: u32, which: Bitmap) -> Result<u64, Errno> {
        let desc = self.descriptor(group)?;
        let sum = get(desc, which.sum());
        let mask = if desc.len() >= 64 { !0 } else { 0xffff };
        let (seed, bytes) = (self.sb.checksum_seed, self.bitmap_bytes(which));
        let block = self.bitmap_block(group, which)?;
        self.checked_block(block, |bits| {
            let bits = bits.get(..bytes).unwrap_or_default();
            seed.is_none_or(|seed| crc32c(seed, &[bits]) & mask == sum)
        })?;
        Ok(block)
    }

    /// A free inode, in this group if it has one. `None` when there is none but perhaps in groups that have not been made
    /// ready yet.
    pub(crate) fn free_inode(&mut self, near: u32) -> Result<Option<u32>, Errno> {
        let per_group = self.sb.inodes_per_group;
        for group in self.groups_from(near) {
            let desc = self.descriptor(group)?;
            if get(desc, FREE_INODES) == 0 || le16(desc, FLAGS) & INODE_UNINIT != 0 {
                continue;
            }
            let from = if group == 0 { self.sb.first_ino - 1 } else { 0 };
            let block = self.check_bitmap(group, Bitmap::Inodes)?;
            let bits = self.block(block)?;
            let free = free_run(|i| word(bits, i), from as usize, per_group as usize, 1);
            if let Some(bit) = free {
                return Ok(Some(group * per_group + bit as u32 + 1));
            }
        }
        Ok(None)
    }

    /// Whether an inode is in use.
    pub(crate) fn inode_is_taken(&mut self, ino: u32) -> Result<bool, Errno> {
        let index = ino.checked_sub(1).filter(|_| ino <= self.sb.inodes);
        let index = index.ok_or(Errno::EUCLEAN)?;
        let (group, bit) = (
            index / self.sb.inodes_per_group,
            (index % self.sb.inodes_per_group) as usize,
        );
        if le16(self.descriptor(group)?, FLAGS) & INODE_UNINIT != 0 {
            return Ok(false);
        }
        let block = self.check_bitmap(group, Bitmap::Inodes)?;
        let byte = self.block(block)?.get(bit / 8);
        Ok(byte.is_some_and(|byte| byte >> (bit % 8) & 1 != 0))
    }

    /// Has everything in memory that taking an inode changes, so that it cannot fail any more.
    pub(crate) fn hold_inode(&mut self, ino: u32) -> Result<(), Errno> {
        self.edit_inode(ino)?;
        self.hold_group((ino - 1) / self.sb.inodes_per_group, Bitmap::Inodes)
    }

    /// As [`hold_inode`](Self::hold_inode), for blocks.
    pub(crate) fn hold_blocks(&mut self, first: u64) -> Result<(), Errno> {
        let at = first - u64::from(self.sb.first_data_block);
        let group = at / u64::from(self.sb.blocks_per_group);
        self.hold_group(group as u32, Bitmap::Blocks)
    }

    fn hold_group(&mut self, group: u32, which: Bitmap) -> Result<(), Errno> {
        let (bitmap, sb) = (self.bitmap_block(group, which)?, self.superblock_place().0);
        self.edit(bitmap)?;
        self.edit_descriptor(group)?;
        self.edit(sb).map(drop)
    }

    /// Takes a free inode.
    pub(crate) fn take_inode(&mut self, ino: u32) -> Result<(), Errno> {
        let per_group = self.sb.inodes_per_group;
        let (group, bit) = ((ino - 1) / per_group, (ino - 1) % per_group);
        let block = self.bitmap_block(group, Bitmap::Inodes)?;
        set_bits(self.edit(block)?, bit as usize, 1);
        let desc = self.edit_descriptor(group)?;
        put(desc, FREE_INODES, get(desc, FREE_INODES).saturating_sub(1));
        // Inodes from here to the end of the table have never been used.
        let unused = per_group - (bit + 1);
        put(desc, UNUSED_INODES, get(desc, UNUSED_INODES).min(unused));
        let (sb, at) = self.superblock_place();
        let sb = &mut self.edit(sb)?[at..];
        let free = le32(sb, SB_FREE_INODES).saturating_sub(1);
        put32(sb, SB_FREE_INODES, free);
        self.unsealed.inode_bitmaps.insert(group);
        Ok(())
    }

    /// A run of free blocks, in this group if it has one: free also in the state that a crash would leave. `None` when
    /// there is none but perhaps in groups that have not been made ready yet.
    pub(crate) fn free_blocks(&mut self, near: u32, n: usize) -> Result<Option<u64>, Errno> {
        let per_group = u64::from(self.sb.blocks_per_group);
        for group in self.groups_from(near) {
            let desc = self.descriptor(group)?;
            if (get(desc, FREE_BLOCKS) as usize) < n || le16(desc, FLAGS) & BLOCK_UNINIT != 0 {
                continue;
            }
            let first = u64::from(self.sb.first_data_block) + u64::from(group) * per_group;
            let total = per_group.min(self.sb.blocks - first) as usize;
            let block = self.check_bitmap(group, Bitmap::Blocks)?;
            let buf = self.get(block)?;
            let before = buf.before.as_deref().unwrap_or(&buf.data);
            let word = |i| word(&buf.data, i) | word(before, i);
            if let Some(bit) = free_run(word, 0, total, n) {
                let found = first + bit as u64;
                return if self.layout.allows(&self.sb, found, n as u64) {
                    Ok(Some(found))
                } else {
                    Err(Errno::EUCLEAN)
                };
            }
        }
        Ok(None)
    }

    /// Takes a run of free blocks, of one group.
    pub(crate) fn take_blocks(&mut self, first: u64, n: u32) -> Result<(), Errno> {
        let at = first - u64::from(self.sb.first_data_block);
        let per_group = u64::from(self.sb.blocks_per_group);
        let (group, bit) = ((at / per_group) as u32, (at % per_group) as usize);
        let block = self.bitmap_block(group, Bitmap::Blocks)?;
        set_bits(self.edit(block)?, bit, n as usize);
        let desc = self.edit_descriptor(group)?;
        put(desc, FREE_BLOCKS, get(desc, FREE_BLOCKS).saturating_sub(n));
        let free = self.count_free()?.saturating_sub(u64::from(n));
        let (sb, at) = self.superblock_place();
        let sb = &mut self.edit(sb)?[at..];
        put32(sb, SB_FREE_BLOCKS.0, free as u32);
        if free >> 32 != 0 {
            put32(sb, SB_FREE_BLOCKS.1, (free >> 32) as u32);
        }
        self.unsealed.block_bitmaps.insert(group);
        Ok(())
    }

    /// Free blocks of the file system, as the superblock counts them.
    pub(crate) fn count_free(&mut self) -> Result<u64, Errno> {
        let bit64 = self.sb.bit64;
        let (sb, at) = self.superblock_place();
        let sb = &self.get(sb)?.data[at..];
        let high = if bit64 { le32(sb, SB_FREE_BLOCKS.1) } else { 0 };
        Ok(u64::from(le32(sb, SB_FREE_BLOCKS.0)) | u64::from(high) << 32)
    }

    /// Free inodes of the file system.
    pub(crate) fn count_free_inodes(&mut self) -> Result<u32, Errno> {
        let (sb, at) = self.superblock_place();
        Ok(le32(&self.get(sb)?.data[at..], SB_FREE_INODES))
    }

    /// A block of names that is changed; `seed` is what its checksum starts with.
    pub(crate) fn edit_names(&mut self, block: u64, seed: Option<u32>) -> Result<&mut [u8], Errno> {
        if let Some(seed) = seed {
            self.unsealed.names.insert(block, seed);
        }
        self.edit(block)
    }

    /// Makes the checksums of what has been changed.
    pub(crate) fn seal(&mut self) -> Result<(), Errno> {
        let unsealed = std::mem::take(&mut self.unsealed);
        for (block, seed) in unsealed.names {
            dirblock::seal(self.edit(block)?, seed);
        }
        if unsealed.block_bitmaps.is_empty() && unsealed.inode_bitmaps.is_empty() {
            return Ok(());
        }
        let groups = unsealed.block_bitmaps.union(&unsealed.inode_bitmaps);
        for &group in groups {
            if unsealed.block_bitmaps.contains(&group) {
                self.seal_bitmap(group, Bitmap::Blocks)?;
            }
            if unsealed.inode_bitmaps.contains(&group) {
                self.seal_bitmap(group, Bitmap::Inodes)?;
            }
            self.seal_descriptor(group)?;
        }
        let (sb, at) = self.superblock_place();
        let sb = &mut self.edit(sb)?[at..at + superblock::SIZE];
        if let Ok(sb) = sb.try_into() {
            superblock::seal(sb);
        }
        Ok(())
    }

    fn seal_bitmap(&mut self, group: u32, which: Bitmap) -> Result<(), Errno> {
        let Some(seed) = self.sb.checksum_seed else {
            return Ok(());
        };
        let (block, bytes) = (self.bitmap_block(group, which)?, self.bitmap_bytes(which));
        let bits = &self.get(block)?.data;
        let sum = crc32c(seed, &[bits.get(..bytes).unwrap_or_default()]);
        put(self.edit_descriptor(group)?, which.sum(), sum);
        Ok(())
    }

    fn seal_descriptor(&mut self, group: u32) -> Result<(), Errno> {
        let (long, short) = (self.sb.checksum_seed, self.sb.group_seed);
        let number = group.to_le_bytes();
        let desc = self.edit_descriptor(group)?;
        let (head, rest) = (&desc[..CHECKSUM], &desc[CHECKSUM + 2..]);
        let sum = match (long, short) {
            (Some(seed), _) => crc32c(seed, &[&number, head, &[0; 2], rest]) as u16,
            (None, Some(seed)) => [&number, head, rest].into_iter().fold(seed, crc16),
            (None, None) => return Ok(()),
        };
        put16(desc, CHECKSUM, sum);
        Ok(())
    }
}

fn set_bits(bits: &mut [u8], first: usize, n: usize) {
    for bit in first..first + n {
        if let Some(byte) = bits.get_mut(bit / 8) {
            *byte |= 1 << (bit % 8);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bit by bit.
    fn slow(bits: &[u8], from: usize, total: usize, n: usize) -> Option<usize> {
        let free = |bit: usize| bits[bit / 8] >> (bit % 8) & 1 == 0;
        (from..total).find(|&at| at + n <= total && (at..at + n).all(free))
    }

    #[test]
    fn runs_are_found_where_a_look_at_every_bit_finds_them() {
        let mut state = 7u64;
        let mut random = || {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            state >> 33
        };
        for round in 0..2000 {
            let mut bits = [0u8; 64];
            for byte in &mut bits {
                *byte = match random() % 4 {
                    0 => 0,
                    1 => 0xff,
                    _ => random() as u8,
                };
            }
            let total = 1 + random() as usize % 512;
            let (from, n) = (random() as usize % total, 1 + random() as usize % 80);
            assert_eq!(
                free_run(|i| word(&bits, i), from, total, n),
                slow(&bits, from, total, n),
                "{round}"
            );
        }
    }
}

//! Where things are: bitmaps, inode tables, inodes, and the blocks of a file whose inode is read by hand (the journal's).

use abi::Errno;
use rsext4::checksum::ext4_metadata_csum32;

use crate::superblock::{Super, le16, le32};

/// One run of a file's blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// First block in the file.
    pub logical: u64,
    /// First block on the device.
    pub physical: u64,
    /// Blocks.
    pub len: u64,
    /// Has been written; else it reads as zero.
    pub written: bool,
}

impl Extent {
    /// Behind its last block in the file.
    pub(crate) fn end(&self) -> u64 {
        self.logical + self.len
    }
}

/// Reads a block of the device.
pub(crate) type ReadBlock<'a> = dyn FnMut(u64) -> Result<Box<[u8]>, Errno> + 'a;

/// What the group descriptors say; it does not change while the file system is mounted.
#[derive(Debug)]
pub(crate) struct Layout {
    /// For each group: its block bitmap, inode bitmap, and the first block of its inode table.
    groups: Vec<[u64; 3]>,
    /// Inode tables, sorted: first block and group.
    tables: Vec<(u64, u32)>,
    /// Block runs that no file may lie in, sorted: (first, behind the last).
    fixed: Vec<(u64, u64)>,
}

impl Layout {
    /// Reads the primary group descriptors. `EUCLEAN` where they point outside the file system.
    pub(crate) fn read(sb: &Super, read: &mut ReadBlock<'_>) -> Result<Layout, Errno> {
        let table = u64::from(sb.first_data_block) + 1;
        let per_block = sb.block_size / u32::from(sb.desc_size);
        let table_blocks = u64::from(sb.groups.div_ceil(per_block));
        let inode_blocks = (u64::from(sb.inodes_per_group) * u64::from(sb.inode_size))
            .div_ceil(u64::from(sb.block_size));
        let mut groups = Vec::with_capacity(sb.groups as usize);
        let mut fixed = vec![(u64::from(sb.first_data_block), table + table_blocks)];
        for i in 0..table_blocks {
            let block = read(table + i)?;
            let left = sb.groups as usize - groups.len();
            for desc in block
                .chunks_exact(usize::from(sb.desc_size))
                .take(left.min(per_block as usize))
            {
                let pointer = |low, high| {
                    let high = if sb.desc_size >= 64 {
                        u64::from(le32(desc, high))
                    } else {
                        0
                    };
                    u64::from(le32(desc, low)) | high << 32
                };
                let group = [pointer(0, 0x20), pointer(4, 0x24), pointer(8, 0x28)];
                for (first, len) in group.into_iter().zip([1, 1, inode_blocks]) {
                    if first <= u64::from(sb.first_data_block)
                        || first.checked_add(len).is_none_or(|end| end > sb.blocks)
                    {
                        return Err(Errno::EUCLEAN);
                    }
                    fixed.push((first, first + len));
                }
                groups.push(group);
            }
        }
        fixed.sort_unstable();
        let mut tables: Vec<(u64, u32)> =
            (0..).zip(&groups).map(|(i, group)| (group[2], i)).collect();
        tables.sort_unstable();
        Ok(Layout {
            groups,
            tables,
            fixed,
        })
    }

    /// Adds the journal's blocks to those that no file may lie in.
    pub(crate) fn protect(&mut self, extents: &[Extent]) {
        self.fixed
            .extend(extents.iter().map(|e| (e.physical, e.physical + e.len)));
        self.fixed.sort_unstable();
    }

    /// Whether a run of blocks lies inside the file system and clear of its fixed structures.
    pub(crate) fn allows(&self, sb: &Super, first: u64, len: u64) -> bool {
        let Some(end) = first.checked_add(len).filter(|&end| end <= sb.blocks) else {
            return false;
        };
        let next = self.fixed.partition_point(|&(start, _)| start < end);
        first > u64::from(sb.first_data_block)
            && self.fixed[..next]
                .iter()
                .rev()
                .take(2)
                .all(|&(_, e)| e <= first)
    }

    /// The block bitmap in which a block's bit is, and the bit.
    pub(crate) fn block_bit(&self, sb: &Super, block: u64) -> Option<(u64, usize)> {
        let at = block.checked_sub(u64::from(sb.first_data_block))?;
        let per_group = u64::from(sb.blocks_per_group);
        let group = self.groups.get(usize::try_from(at / per_group).ok()?)?;
        Some((group[0], (at % per_group) as usize))
    }

    /// Block bitmaps.
    pub(crate) fn block_bitmaps(&self) -> impl Iterator<Item = u64> {
        self.groups.iter().map(|g| g[0])
    }

    /// Inode bitmaps.
    pub(crate) fn inode_bitmaps(&self) -> impl Iterator<Item = u64> {
        self.groups.iter().map(|g| g[1])
    }

    /// The bitmap of a group's blocks.
    pub(crate) fn block_bitmap(&self, group: u32) -> Option<u64> {
        self.groups.get(group as usize).map(|g| g[0])
    }

    /// The bitmap of a group's inodes.
    pub(crate) fn inode_bitmap(&self, group: u32) -> Option<u64> {
        self.groups.get(group as usize).map(|g| g[1])
    }

    /// The block in which a group's descriptor is, and where in it.
    pub(crate) fn descriptor(&self, sb: &Super, group: u32) -> Option<(u64, usize)> {
        self.groups.get(group as usize)?;
        let per_block = sb.block_size / u32::from(sb.desc_size);
        let block = u64::from(sb.first_data_block) + 1 + u64::from(group / per_block);
        Some((
            block,
            (group % per_block) as usize * usize::from(sb.desc_size),
        ))
    }

    /// The number of the first inode in a block, when it is one of an inode table.
    pub(crate) fn inodes_at(&self, sb: &Super, block: u64) -> Option<u32> {
        let next = self.tables.partition_point(|&(first, _)| first <= block);
        let &(first, group) = self.tables.get(next.checked_sub(1)?)?;
        let per_block = u64::from(sb.block_size) / u64::from(sb.inode_size);
        let index = (block - first) * per_block;
        let in_group = u32::try_from(index)
            .ok()
            .filter(|&i| i < sb.inodes_per_group)?;
        group
            .checked_mul(sb.inodes_per_group)?
            .checked_add(in_group)?
            .checked_add(1)
    }

    /// The block in which an inode is, and where in it. `None` for a number beyond the file system.
    pub(crate) fn inode(&self, sb: &Super, ino: u32) -> Option<(u64, usize)> {
        let index = ino.checked_sub(1).filter(|_| ino <= sb.inodes)?;
        let group = self.groups.get((index / sb.inodes_per_group) as usize)?;
        let byte = u64::from(index % sb.inodes_per_group) * u64::from(sb.inode_size);
        let block_size = u64::from(sb.block_size);
        Some((group[2] + byte / block_size, (byte % block_size) as usize))
    }
}

/// The most runs a journal may consist of.
const MAX_EXTENTS: usize = 65536;

/// The blocks of the file that a raw inode describes, up to `blocks` of them, without gaps. `EUCLEAN` when they are not
/// that.
pub(crate) fn file_blocks(
    sb: &Super,
    raw: &[u8],
    blocks: u64,
    read: &mut ReadBlock<'_>,
) -> Result<Vec<Extent>, Errno> {
    let map = raw.get(0x28..0x28 + 60).ok_or(Errno::EUCLEAN)?;
    let mut walk = Walk {
        sb,
        read,
        blocks,
        out: Vec::new(),
        next: 0,
    };
    if le32(raw, 0x20) & 0x8_0000 != 0 {
        walk.extents(map, None)?;
    } else {
        for pointer in map.chunks_exact(4).take(12) {
            walk.indirect(le32(pointer, 0), 0)?;
        }
        for depth in 1..=3 {
            walk.indirect(le32(map, 44 + 4 * depth as usize), depth)?;
        }
    }
    if walk.next < blocks {
        return Err(Errno::EUCLEAN);
    }
    Ok(walk.out)
}

/// Blocks that an extent tree takes, its index nodes included. `EUCLEAN` for a tree that is none.
pub(crate) fn tree_blocks(
    sb: &Super,
    node: &[u8],
    above: Option<u16>,
    read: &mut ReadBlock<'_>,
) -> Result<u64, Errno> {
    let (entries, depth) = (usize::from(le16(node, 2)), le16(node, 6));
    let shallower = above.map_or(depth <= 5, |above| depth + 1 == above);
    if le16(node, 0) != 0xf30a || !shallower || 12 * (entries + 1) > node.len() {
        return Err(Errno::EUCLEAN);
    }
    let mut blocks = 0;
    for entry in node.chunks_exact(12).skip(1).take(entries) {
        if depth == 0 {
            let len = u64::from(le16(entry, 4));
            blocks += if len > 0x8000 { len - 0x8000 } else { len };
        } else {
            let child = u64::from(le32(entry, 4)) | u64::from(le16(entry, 8)) << 32;
            if child == 0 || child >= sb.blocks {
                return Err(Errno::EUCLEAN);
            }
            let child = read(child)?;
            blocks += 1 + tree_blocks(sb, &child, Some(depth), read)?;
        }
    }
    Ok(blocks)
}

struct Walk<'a, 'r> {
    sb: &'a Super,
    read: &'a mut ReadBlock<'r>,
    blocks: u64,
    out: Vec<Extent>,
    next: u64,
}

impl Walk<'_, '_> {
    fn add(&mut self, physical: u64, len: u64) -> Result<(), Errno> {
        let len = len.min(self.blocks - self.next);
        if physical == 0
            || physical
                .checked_add(len)
                .is_none_or(|end| end > self.sb.blocks)
        {
            return Err(Errno::EUCLEAN);
        }
        let runs = self.out.len();
        match self.out.last_mut() {
            Some(last) if last.physical + last.len == physical => last.len += len,
            _ if runs == MAX_EXTENTS => return Err(Errno::EUCLEAN),
            _ => self.out.push(Extent {
                logical: self.next,
                physical,
                len,
                written: true,
            }),
        }
        self.next += len;
        Ok(())
    }

    /// A node of an extent tree; `above` is the depth of the node above it.
    fn extents(&mut self, node: &[u8], above: Option<u16>) -> Result<(), Errno> {
        let (entries, depth) = (usize::from(le16(node, 2)), le16(node, 6));
        let shallower = above.map_or(depth <= 5, |above| depth + 1 == above);
        if le16(node, 0) != 0xf30a || !shallower || 12 * (entries + 1) > node.len() {
            return Err(Errno::EUCLEAN);
        }
        for entry in node.chunks_exact(12).skip(1).take(entries) {
            if self.next >= self.blocks {
                break;
            }
            if depth == 0 {
                let len = u64::from(le16(entry, 4));
                if u64::from(le32(entry, 0)) != self.next || len == 0 || len > 0x8000 {
                    return Err(Errno::EUCLEAN);
                }
                self.add(
                    u64::from(le32(entry, 8)) | u64::from(le16(entry, 6)) << 32,
                    len,
                )?;
            } else {
                let child = u64::from(le32(entry, 4)) | u64::from(le16(entry, 8)) << 32;
                if child == 0 || child >= self.sb.blocks {
                    return Err(Errno::EUCLEAN);
                }
                let child = (self.read)(child)?;
                self.extents(&child, Some(depth))?;
            }
        }
        Ok(())
    }

    fn indirect(&mut self, pointer: u32, depth: u32) -> Result<(), Errno> {
        if self.next >= self.blocks {
            return Ok(());
        }
        if depth == 0 {
            return self.add(u64::from(pointer), 1);
        }
        if pointer == 0 || u64::from(pointer) >= self.sb.blocks {
            return Err(Errno::EUCLEAN);
        }
        let block = (self.read)(u64::from(pointer))?;
        for pointer in block.chunks_exact(4) {
            self.indirect(le32(pointer, 0), depth - 1)?;
        }
        Ok(())
    }
}

/// CRC-32C as ext4 and jbd2 use it: started with `seed`, not inverted at the end.
pub(crate) fn crc32c(seed: u32, parts: &[&[u8]]) -> u32 {
    ext4_metadata_csum32(seed, parts)
}

//! Extent trees, as far as they are read and changed here: blocks are found in any, and added to those that are nothing
//! but a root, in the inode.
//!
//! Layout: `struct ext4_extent_header` and what follows it (Documentation/filesystems/ext4/ifork.rst of the kernel).

use abi::Errno;

use crate::inode::{EXTENTS, Inode};
use crate::layout::{Extent, crc32c};
use crate::store::Store;
use crate::superblock::{le16, le32, put16, put32};

const MAGIC: u16 = 0xf30a;
/// Bytes of a header, and of an entry.
const ENTRY: usize = 12;
/// The longest extent that is written; one of more blocks is `len - LONGEST` long and is not.
const LONGEST: u16 = 0x8000;
/// The most levels above the leaves.
const DEEPEST: u16 = 5;
/// The most runs of a file that are looked at.
const MAX_EXTENTS: usize = 1 << 16;

/// The entries of a node, with what `level` it is on. `EUCLEAN` for one that is none.
fn entries(node: &[u8], level: Option<u16>) -> Result<(u16, &[u8]), Errno> {
    let (count, depth) = (usize::from(le16(node, 2)), le16(node, 6));
    let fits = level.map_or(depth <= DEEPEST, |level| depth == level);
    let entries = node.get(ENTRY..ENTRY * (count + 1));
    match entries {
        Some(entries) if le16(node, 0) == MAGIC && fits => Ok((depth, entries)),
        _ => Err(Errno::EUCLEAN),
    }
}

fn leaf(entry: &[u8]) -> Extent {
    let len = le16(entry, 4);
    Extent {
        logical: u64::from(le32(entry, 0)),
        physical: u64::from(le32(entry, 8)) | u64::from(le16(entry, 6)) << 32,
        len: u64::from(if len > LONGEST { len - LONGEST } else { len }),
        written: len <= LONGEST,
    }
}

fn child(entry: &[u8]) -> u64 {
    u64::from(le32(entry, 4)) | u64::from(le16(entry, 8)) << 32
}

/// A node below the root.
fn node<'a>(store: &'a mut Store, inode: &Inode, block: u64) -> Result<&'a [u8], Errno> {
    let seed = inode.seed(&store.sb);
    store.checked_block(block, |node| {
        let Some(seed) = seed else {
            return true;
        };
        let tail = ENTRY * (usize::from(le16(node, 4)) + 1);
        let Some(covered) = node.get(..tail).filter(|_| tail + 4 <= node.len()) else {
            return false;
        };
        le32(node, tail) == crc32c(seed, &[covered])
    })
}

/// The block of the device that has a block of a file; `None` in a hole, and for one that is not written.
pub(crate) fn find(store: &mut Store, inode: &Inode, logical: u64) -> Result<Option<u64>, Errno> {
    if inode.flags() & EXTENTS == 0 {
        return Err(Errno::EUCLEAN);
    }
    let mut level = None;
    let mut at = inode.map();
    loop {
        let (depth, entries) = entries(at, level)?;
        let below = |entry: &[u8]| u64::from(le32(entry, 0)) <= logical;
        let Some(entry) = entries.chunks_exact(ENTRY).take_while(|e| below(e)).last() else {
            return Ok(None);
        };
        if depth == 0 {
            let extent = leaf(entry);
            let inside = logical < extent.end() && extent.written;
            return Ok(inside.then(|| extent.physical + (logical - extent.logical)));
        }
        level = Some(depth - 1);
        let next = child(entry);
        at = node(store, inode, next)?;
    }
}

/// All runs of a file.
pub(crate) fn all(store: &mut Store, inode: &Inode) -> Result<Vec<Extent>, Errno> {
    if inode.flags() & EXTENTS == 0 {
        return Err(Errno::EUCLEAN);
    }
    let mut extents = Vec::new();
    // Nodes that are still to be read, the next one last.
    let mut left: Vec<(u16, u64)> = Vec::new();
    let mut level = None;
    let mut at = inode.map();
    loop {
        let (depth, entries) = entries(at, level)?;
        let entries = entries.chunks_exact(ENTRY);
        if depth == 0 {
            extents.extend(entries.map(leaf));
        } else {
            left.extend(entries.rev().map(|entry| (depth - 1, child(entry))));
        }
        if extents.len() + left.len() > MAX_EXTENTS {
            return Err(Errno::EFBIG);
        }
        let Some((depth, block)) = left.pop() else {
            return Ok(extents);
        };
        level = Some(depth);
        at = node(store, inode, block)?;
    }
}

/// Adds a run that is written to a tree that is nothing but its root. `false`, and nothing is changed, when it is more or
/// has no room.
pub(crate) fn add(map: &mut [u8], run: Extent) -> bool {
    let Ok((0, list)) = entries(map, None) else {
        return false;
    };
    let (Ok(first), Ok(len)) = (u32::try_from(run.logical), u16::try_from(run.len)) else {
        return false;
    };
    let extents: Vec<Extent> = list.chunks_exact(ENTRY).map(leaf).collect();
    let next = extents.partition_point(|e| e.logical < run.logical);
    if let Some(last) = next.checked_sub(1).map(|i| extents[i]) {
        let joins = last.written
            && last.end() == run.logical
            && last.physical + last.len == run.physical
            && last.len + run.len <= u64::from(LONGEST);
        if joins {
            put16(map, ENTRY * next + 4, (last.len + run.len) as u16);
            return true;
        }
    }
    if extents.len() >= usize::from(le16(map, 4)) || ENTRY * (extents.len() + 2) > map.len() {
        return false;
    }
    let at = ENTRY * (next + 1);
    map.copy_within(at..ENTRY * (extents.len() + 1), at + ENTRY);
    put32(map, at, first);
    put16(map, at + 4, len);
    put16(map, at + 6, (run.physical >> 32) as u16);
    put32(map, at + 8, run.physical as u32);
    put16(map, 2, extents.len() as u16 + 1);
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inode::MAP_SIZE;

    fn root() -> Vec<u8> {
        let mut map = vec![0; MAP_SIZE];
        put16(&mut map, 0, MAGIC);
        put16(&mut map, 4, 4);
        map
    }

    fn run(logical: u64, physical: u64, len: u64) -> Extent {
        Extent {
            logical,
            physical,
            len,
            written: true,
        }
    }

    fn list(map: &[u8]) -> Vec<Extent> {
        let (_, entries) = entries(map, Some(0)).expect("a root");
        entries.chunks_exact(ENTRY).map(leaf).collect()
    }

    #[test]
    fn runs_are_kept_in_order_and_joined() {
        let mut map = root();
        assert!(add(&mut map, run(10, 100, 2)));
        assert!(add(&mut map, run(0, 5 << 32, 1)));
        assert!(add(&mut map, run(12, 102, 3)));
        assert!(add(&mut map, run(4, 7, 1)));
        let want = [run(0, 5 << 32, 1), run(4, 7, 1), run(10, 100, 5)];
        assert_eq!(list(&map), want);
    }

    #[test]
    fn a_full_root_stays_as_it_is() {
        let mut map = root();
        for i in 0..4 {
            assert!(add(&mut map, run(i * 2, 100 + i * 3, 1)));
        }
        let before = map.clone();
        assert!(!add(&mut map, run(20, 500, 1)));
        assert_eq!(map, before);
        assert!(add(&mut map, run(7, 110, 1)));
        assert_eq!(list(&map)[3], run(6, 109, 2));
    }

    #[test]
    fn what_is_no_root_is_not_changed() {
        let mut map = vec![0; MAP_SIZE];
        assert!(!add(&mut map, run(0, 1, 1)));
        let mut map = root();
        put16(&mut map, 6, 1);
        assert!(!add(&mut map, run(0, 1, 1)));
    }
}

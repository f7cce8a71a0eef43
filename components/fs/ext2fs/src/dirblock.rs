//! A block of a directory: names one behind the other, and a checksum at the end where there are checksums.
//!
//! Layout: Documentation/filesystems/ext4/directory.rst of the kernel.

use crate::layout::crc32c;
use crate::superblock::{le16, le32, put16, put32};

/// Bytes of an entry before its name.
const HEADER: usize = 8;
/// Bytes of the pseudo entry that keeps a block's checksum, and its type.
const TAIL: usize = 12;
const TAIL_TYPE: u8 = 0xde;
/// `file_type`: a regular file.
pub(crate) const REGULAR: u8 = 1;

/// Where there is room for a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    /// The entry whose room it is.
    at: usize,
    /// What that entry needs for itself.
    used: usize,
}

/// What a block has for a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// The name itself, with this inode.
    Name(u32),
    Room(Room),
    /// Neither.
    Nothing,
}

/// Bytes that an entry takes.
fn needs(name: usize) -> usize {
    (HEADER + name).next_multiple_of(4)
}

/// The part of a block that has names.
fn names(block: &[u8], sealed: bool) -> usize {
    block.len() - if sealed { TAIL } else { 0 }
}

/// Looks for a name, and for room for it. `None` for a block that is no block of names.
pub(crate) fn look(block: &[u8], sealed: bool, name: &[u8]) -> Option<Found> {
    let block = &block[..names(block, sealed)];
    let needed = needs(name.len());
    let mut found = Found::Nothing;
    let mut at = 0;
    while at < block.len() {
        let header = block.get(at..at + HEADER)?;
        let (ino, len) = (le32(header, 0), usize::from(le16(header, 4)));
        let name_len = usize::from(header[6]);
        let entry = block.get(at..at + len)?;
        if len % 4 != 0 || len < needs(name_len) {
            return None;
        }
        if ino != 0 && &entry[HEADER..HEADER + name_len] == name {
            return Some(Found::Name(ino));
        }
        let used = if ino == 0 { 0 } else { needs(name_len) };
        if found == Found::Nothing && len - used >= needed {
            found = Found::Room(Room { at, used });
        }
        at += len;
    }
    Some(found)
}

/// Puts a name where there is room for it.
pub(crate) fn insert(block: &mut [u8], room: Room, name: &[u8], ino: u32, kind: u8) {
    let len = le16(block, room.at + 4);
    if room.used > 0 {
        put16(block, room.at + 4, room.used as u16);
    }
    let at = room.at + room.used;
    put32(block, at, ino);
    put16(block, at + 4, len - room.used as u16);
    if let Some(rest) = block.get_mut(at + 6..at + HEADER + name.len()) {
        rest[0] = name.len() as u8;
        rest[1] = kind;
        rest[2..].copy_from_slice(name);
    }
}

/// Whether the checksum is right. `seed` is that of the directory's inode.
pub(crate) fn is_sealed(block: &[u8], seed: u32) -> bool {
    let (entries, tail) = block.split_at(names(block, true));
    le16(tail, 4) == TAIL as u16
        && tail[7] == TAIL_TYPE
        && le32(tail, 8) == crc32c(seed, &[entries])
}

/// Sets the checksum.
pub(crate) fn seal(block: &mut [u8], seed: u32) {
    let (entries, tail) = block.split_at_mut(names(block, true));
    put32(tail, 8, crc32c(seed, &[entries]));
}

/// A block with nothing but one unused entry.
pub(crate) fn empty(size: usize, seed: Option<u32>) -> Vec<u8> {
    let mut block = vec![0; size];
    let len = names(&block, seed.is_some());
    put16(&mut block, 4, len as u16);
    if let Some(seed) = seed {
        let tail = size - TAIL;
        put16(&mut block, tail + 4, TAIL as u16);
        block[tail + 7] = TAIL_TYPE;
        seal(&mut block, seed);
    }
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_in_until_the_block_is_full_and_are_found() {
        for seed in [None, Some(17)] {
            let mut block = empty(1024, seed);
            let mut inserted = 0u32;
            while let Some(Found::Room(room)) =
                look(&block, seed.is_some(), format!("name{inserted}").as_bytes())
            {
                insert(
                    &mut block,
                    room,
                    format!("name{inserted}").as_bytes(),
                    inserted + 11,
                    REGULAR,
                );
                inserted += 1;
            }
            assert!(inserted > 60, "{inserted}");
            for i in 0..inserted {
                let found = look(&block, seed.is_some(), format!("name{i}").as_bytes());
                assert_eq!(found, Some(Found::Name(i + 11)));
            }
            let other = look(&block, seed.is_some(), b"a name that is not there");
            assert_eq!(other, Some(Found::Nothing));
            if let Some(seed) = seed {
                assert!(!is_sealed(&block, seed));
                super::seal(&mut block, seed);
                assert!(is_sealed(&block, seed));
            }
        }
    }

    #[test]
    fn what_is_no_block_of_names_is_told() {
        let mut block = empty(1024, None);
        for len in [0, 4, 7, 10, 1028] {
            put16(&mut block, 4, len);
            assert_eq!(look(&block, false, b"a"), None, "{len}");
        }
        put16(&mut block, 4, 16);
        block[6] = 200;
        assert_eq!(look(&block, false, b"a"), None);
    }
}

//! Indexed directories: from a name to the blocks that may have it.
//!
//! Layout and hashes: Documentation/filesystems/ext4/directory.rst ("Hash Tree Directories") of the kernel. Whatever here
//! is not as it should be is answered with `None`: rsext4 looks again then and says what is wrong.

use abi::Errno;
use smallvec::SmallVec;

use crate::extents;
use crate::inode::Inode;
use crate::layout::crc32c;
use crate::store::Store;
use crate::superblock::{le16, le32};

/// Where the root's information is, and the entries of the root and of other nodes.
const INFO: usize = 0x18;
const ROOT_ENTRIES: usize = 0x20;
const NODE_ENTRIES: usize = 0x8;
/// Bytes of an entry: hash and block.
const ENTRY: usize = 8;

/// How names are hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hash {
    Legacy,
    HalfMd4,
    Tea,
}

/// The block of a directory that may have a name. `None` also where the names of one hash go on in another block.
pub(crate) fn leaf(store: &mut Store, dir: &Inode, name: &[u8]) -> Result<Option<u64>, Errno> {
    let root = index_block(store, dir, 0, ROOT_ENTRIES)?;
    let Some(root) = root else {
        return Ok(None);
    };
    let info = &root[INFO..ROOT_ENTRIES];
    let hash = match info[4] {
        0 => Hash::Legacy,
        1 => Hash::HalfMd4,
        2 => Hash::Tea,
        _ => return Ok(None),
    };
    let levels = info[6];
    if le32(info, 0) != 0 || info[5] != 8 || levels > 1 {
        return Ok(None);
    }
    let hash = hash_name(hash, &store.sb.hash_seed, store.sb.hash_unsigned, name);
    let Some((mut block, goes_on)) = select(&root[ROOT_ENTRIES..], hash) else {
        return Ok(None);
    };
    if goes_on {
        return Ok(None);
    }
    if levels == 1 {
        let Some(node) = index_block(store, dir, block, NODE_ENTRIES)? else {
            return Ok(None);
        };
        match select(&node[NODE_ENTRIES..], hash) {
            Some((next, false)) => block = next,
            _ => return Ok(None),
        }
    }
    Ok(Some(block))
}

/// A block of the index, up to its last entry.
fn index_block(
    store: &mut Store,
    dir: &Inode,
    logical: u64,
    entries_at: usize,
) -> Result<Option<SmallVec<[u8; 1024]>>, Errno> {
    let Some(block) = extents::find(store, dir, logical)? else {
        return Ok(None);
    };
    let seed = dir.seed(&store.sb);
    let end = |block: &[u8]| {
        let count = usize::from(le16(block, entries_at + 2));
        let limit = usize::from(le16(block, entries_at));
        let tail = entries_at + limit * ENTRY;
        let room = block.len() - if seed.is_some() { ENTRY } else { 0 };
        (count != 0 && count <= limit && tail <= room).then_some((entries_at + count * ENTRY, tail))
    };
    let node = store.checked_block(block, |node| match (seed, end(node)) {
        (_, None) => false,
        (None, _) => true,
        (Some(seed), Some((end, tail))) => {
            // The reserved half of the tail is covered, the checksum itself as if it were 0.
            let parts = [&node[..end], &node[tail..tail + 4], &[0; 4]];
            le32(node, tail + 4) == crc32c(seed, &parts)
        }
    })?;
    Ok(end(node).map(|(end, _)| SmallVec::from_slice(&node[..end])))
}

/// The entry for a hash: its block, and whether names of this hash may also be in the next entry's.
fn select(entries: &[u8], hash: u32) -> Option<(u64, bool)> {
    let count = entries.len() / ENTRY;
    let of = |i: usize| le32(entries, i * ENTRY);
    let (mut low, mut high) = (1, count);
    while low < high {
        let middle = (low + high) / 2;
        if of(middle) <= hash {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    let goes_on = low < count && of(low) & !1 == hash;
    let block = u64::from(le32(entries, (low - 1) * ENTRY + 4) & 0x0fff_ffff);
    (block != 0).then_some((block, goes_on))
}

/// The hash of a name, without its lowest bit.
fn hash_name(hash: Hash, seed: &[u32; 4], unsigned: bool, name: &[u8]) -> u32 {
    let byte = |b: u8| {
        if unsigned {
            u32::from(b)
        } else {
            b as i8 as u32
        }
    };
    let mut state = if *seed == [0; 4] {
        [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476]
    } else {
        *seed
    };
    let sum = match hash {
        Hash::Legacy => legacy(name, byte),
        Hash::HalfMd4 => {
            for i in (0..name.len()).step_by(32) {
                half_md4(&mut state, &words(&name[i..], byte));
            }
            state[1]
        }
        Hash::Tea => {
            for i in (0..name.len()).step_by(16) {
                tea(&mut state, &words(&name[i..], byte));
            }
            state[0]
        }
    };
    // The very last value means the end of a directory.
    match sum & !1 {
        0xffff_fffe => 0xffff_fffc,
        sum => sum,
    }
}

fn legacy(name: &[u8], byte: impl Fn(u8) -> u32) -> u32 {
    let (mut now, mut last) = (0x12a3_fe2du32, 0x37ab_e8f9u32);
    for &b in name {
        let next = last.wrapping_add(now ^ byte(b).wrapping_mul(7_152_373));
        last = now;
        now = if next & 0x8000_0000 != 0 {
            next.wrapping_sub(0x7fff_ffff)
        } else {
            next
        };
    }
    now << 1
}

/// The next bytes of a name as words, filled up with the length of what is left.
fn words<const N: usize>(rest: &[u8], byte: impl Fn(u8) -> u32) -> [u32; N] {
    let filler = (rest.len() as u32 & 0xff) * 0x0101_0101;
    let mut out = [filler; N];
    let used = &rest[..rest.len().min(N * 4)];
    for (word, bytes) in out.iter_mut().zip(used.chunks(4)) {
        *word = bytes
            .iter()
            .fold(filler, |word, &b| byte(b).wrapping_add(word << 8));
    }
    out
}

fn tea(state: &mut [u32; 4], key: &[u32; 4]) {
    let (mut a, mut b) = (state[0], state[1]);
    let mut sum = 0u32;
    let mix = |x: u32, sum: u32, low: u32, high: u32| {
        (x << 4).wrapping_add(low) ^ x.wrapping_add(sum) ^ (x >> 5).wrapping_add(high)
    };
    for _ in 0..16 {
        sum = sum.wrapping_add(0x9e37_79b9);
        a = a.wrapping_add(mix(b, sum, key[0], key[1]));
        b = b.wrapping_add(mix(a, sum, key[2], key[3]));
    }
    state[0] = state[0].wrapping_add(a);
    state[1] = state[1].wrapping_add(b);
}

/// MD4's three rounds (RFC 1320) with eight steps each.
fn half_md4(state: &mut [u32; 4], input: &[u32; 8]) {
    type Mix = fn(u32, u32, u32) -> u32;
    const ROUNDS: [(Mix, u32, [usize; 8], [u32; 4]); 3] = [
        (
            |x, y, z| (x & y) | (!x & z),
            0,
            [0, 1, 2, 3, 4, 5, 6, 7],
            [3, 7, 11, 19],
        ),
        (
            |x, y, z| (x & y) | (x & z) | (y & z),
            0x5a82_7999,
            [1, 3, 5, 7, 0, 2, 4, 6],
            [3, 5, 9, 13],
        ),
        (
            |x, y, z| x ^ y ^ z,
            0x6ed9_eba1,
            [3, 7, 2, 6, 1, 5, 0, 4],
            [3, 9, 11, 15],
        ),
    ];
    let [mut a, mut b, mut c, mut d] = *state;
    for (mix, constant, order, shifts) in ROUNDS {
        for (i, word) in order.into_iter().enumerate() {
            let sum = a
                .wrapping_add(mix(b, c, d))
                .wrapping_add(input[word])
                .wrapping_add(constant);
            (a, b, c, d) = (d, sum.rotate_left(shifts[i % 4]), b, c);
        }
    }
    for (word, add) in state.iter_mut().zip([a, b, c, d]) {
        *word = word.wrapping_add(add);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What debugfs(8)'s `dx_hash` says.
    #[test]
    fn hashes_are_those_of_e2fsprogs() {
        let seed = [0x0403_0201, 0x0807_0605, 0x0c0b_0a09, 0x100f_0e0d];
        let long = "a_name_that_is_longer_than_thirty_two_bytes_by_some";
        let known = [
            ("a", 0xe74b_53e2, 0x8d08_ec4c, 0xf535_28f0u32),
            ("name123", 0x6747_4ed4, 0xa70c_b558, 0x8983_78da),
            (long, 0xfca9_5166, 0x09c3_2ad0, 0x9cfe_f76c),
            ("caf\u{e9}", 0x96ca_5a2c, 0xeeef_3446, 0x3037_ce66),
        ];
        for (name, legacy, half_md4, tea) in known {
            let of = |hash| hash_name(hash, &seed, false, name.as_bytes());
            assert_eq!(of(Hash::Legacy), legacy, "{name}");
            assert_eq!(of(Hash::HalfMd4), half_md4, "{name}");
            assert_eq!(of(Hash::Tea), tea, "{name}");
        }
        assert_eq!(hash_name(Hash::HalfMd4, &[0; 4], true, b"abc"), 0xd196_a868);
    }

    #[test]
    fn entries_are_selected_by_hash() {
        let mut entries = Vec::new();
        for (hash, block) in [(0u32, 1u32), (10, 2), (20, 3), (21, 4)] {
            entries.extend(hash.to_le_bytes());
            entries.extend(block.to_le_bytes());
        }
        assert_eq!(select(&entries, 0), Some((1, false)));
        assert_eq!(select(&entries, 8), Some((1, false)));
        assert_eq!(select(&entries, 10), Some((2, false)));
        assert_eq!(select(&entries, 18), Some((2, false)));
        assert_eq!(select(&entries, 20), Some((3, true)));
        assert_eq!(select(&entries, 400), Some((4, false)));
    }
}

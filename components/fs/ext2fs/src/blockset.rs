//! Maps and sets of block numbers, those that come in runs too.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Range;

/// A map by block number.
pub(crate) type BlockMap<V> = HashMap<u64, V, BuildHasherDefault<BlockHasher>>;
/// A set of block numbers.
pub(crate) type Blocks = HashSet<u64, BuildHasherDefault<BlockHasher>>;

/// Spreads block numbers over a table. A file system has too few of them for anybody to make many collide.
#[derive(Debug, Default)]
pub(crate) struct BlockHasher(u64);

impl Hasher for BlockHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u64(&mut self, n: u64) {
        let wide = u128::from(self.0 ^ n) * 0x9e37_79b9_7f4a_7c15;
        self.0 = (wide >> 64) as u64 ^ wide as u64;
    }
}

/// Bits in pieces of 512 blocks; a piece without a bit takes no memory.
#[derive(Debug, Default)]
pub(crate) struct BlockSet {
    pieces: BlockMap<[u64; 8]>,
}

/// Calls `f` with each piece that a range touches, and the bits of each word of it that are in the range.
fn each_word(range: Range<u64>, mut f: impl FnMut(u64, usize, u64)) {
    let mut at = range.start;
    while at < range.end {
        let bit = at % 64;
        let n = (64 - bit).min(range.end - at);
        let mask = if n == 64 { !0 } else { ((1 << n) - 1) << bit };
        f(at / 512, (at / 64 % 8) as usize, mask);
        at += n;
    }
}

impl BlockSet {
    pub(crate) fn insert(&mut self, range: Range<u64>) {
        each_word(range, |piece, word, mask| {
            self.pieces.entry(piece).or_default()[word] |= mask;
        });
    }

    pub(crate) fn remove(&mut self, range: Range<u64>) {
        each_word(range, |piece, word, mask| {
            if let Some(words) = self.pieces.get_mut(&piece) {
                words[word] &= !mask;
                if words.iter().all(|w| *w == 0) {
                    self.pieces.remove(&piece);
                }
            }
        });
    }

    pub(crate) fn contains(&self, block: u64) -> bool {
        self.pieces
            .get(&(block / 512))
            .is_some_and(|words| words[(block / 64 % 8) as usize] >> (block % 64) & 1 != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_go_in_and_out() {
        let mut set = BlockSet::default();
        set.insert(10..1000);
        set.insert(5_000_000_000..5_000_000_001);
        set.remove(64..128);
        set.remove(700..701);
        for block in 0..2000 {
            let there = (10..1000).contains(&block) && !(64..128).contains(&block) && block != 700;
            assert_eq!(set.contains(block), there, "{block}");
        }
        assert!(set.contains(5_000_000_000));
        set.remove(0..6_000_000);
        set.remove(5_000_000_000..5_000_000_001);
        assert!(set.pieces.is_empty());
    }
}

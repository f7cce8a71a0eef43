//! Hashing names: fast for the short ones that files have.

use std::hash::{BuildHasher, Hasher};

use hypercall::Host;

const K: u64 = 0x9e37_79b9_7f4a_7c15;

/// A number made of up to eight bytes (more are left out), different for different ones of one length. Read in one or two
/// loads that overlap: gathering them in memory first would cost more than the rest of the hash.
#[inline]
pub(crate) fn short(bytes: &[u8]) -> u64 {
    if let Some(word) = bytes.first_chunk::<8>() {
        return u64::from_le_bytes(*word);
    }
    if let (Some(head), Some(tail)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        return u64::from(u32::from_le_bytes(*head)) << 32 | u64::from(u32::from_le_bytes(*tail));
    }
    match bytes {
        [] => 0,
        [a] => u64::from(*a),
        [a, .., b] => u64::from(*a) << 16 | u64::from(bytes[bytes.len() / 2]) << 8 | u64::from(*b),
    }
}

/// A hash for tables of names, different in each kernel, so that nobody outside can prepare names that collide.
#[derive(Clone, Copy, Debug)]
pub struct NameHash(u64);

impl NameHash {
    /// A hash of the host's choosing.
    pub fn new(host: &dyn Host) -> NameHash {
        let mut seed = [0; 8];
        host.random(&mut seed);
        NameHash(u64::from_le_bytes(seed))
    }

    /// The hash of a name in a place.
    #[inline]
    pub(crate) fn of(self, place: u64, name: &[u8]) -> u64 {
        let mut hasher = NameHasher(self.0 ^ place);
        hasher.write(name);
        hasher.0
    }
}

impl BuildHasher for NameHash {
    type Hasher = NameHasher;

    #[inline]
    fn build_hasher(&self) -> NameHasher {
        NameHasher(self.0)
    }
}

/// The hasher of [`NameHash`]: a multiplication for every eight bytes, whose halves are folded together (as wyhash has it).
#[derive(Clone, Copy, Debug)]
pub struct NameHasher(u64);

impl NameHasher {
    #[inline]
    fn mix(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word) * u128::from(K ^ word.rotate_left(32));
        self.0 = (product as u64) ^ (product >> 64) as u64;
    }
}

impl Hasher for NameHasher {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        // The length keeps names apart that end in zeroes.
        self.0 = self.0.wrapping_add((bytes.len() as u64).wrapping_mul(K));
        let mut chunks = bytes.chunks_exact(8);
        for chunk in &mut chunks {
            let mut word = [0; 8];
            word.copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
        self.mix(short(chunks.remainder()));
    }

    #[inline]
    fn write_usize(&mut self, _: usize) {
        // The length of a slice, which `write` counts itself.
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_that_differ_a_little_hash_apart() {
        let hash = NameHash(7);
        let mut seen = HashSet::new();
        let mut count = 0;
        for len in 0..20 {
            for at in 0..len.max(1) {
                for byte in 0..=255u8 {
                    let mut name = vec![b'a'; len];
                    if let Some(slot) = name.get_mut(at) {
                        *slot = byte;
                    }
                    if len == 0 && byte != 0 || byte == b'a' && at != 0 {
                        continue;
                    }
                    count += 1;
                    seen.insert(hash.of(0, &name));
                }
            }
        }
        assert_eq!(seen.len(), count);
    }
}

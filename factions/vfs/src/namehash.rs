//! Hashing names: fast for the short ones that files have.

use std::hash::{BuildHasher, Hasher};

use hypercall::Host;

const K: u64 = 0x9e37_79b9_7f4a_7c15;

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
        let mut chunks = bytes.chunks_exact(8);
        for chunk in &mut chunks {
            let mut word = [0; 8];
            word.copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
        let rest = chunks.remainder();
        let mut word = [0; 8];
        word[..rest.len()].copy_from_slice(rest);
        // The length keeps names apart that end in zeroes (and gives an empty name a hash).
        self.mix(u64::from_le_bytes(word) ^ (bytes.len() as u64) << 56);
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

//! Initial sequence numbers (RFC 6528), and the keyed hash that they and the cookies are made with.

use core::net::IpAddr;

use super::{End, Tuple};

/// A secret key of 128 bits: random, and not to be shown.
#[derive(Clone, Copy)]
pub struct Key(pub [u64; 2]);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)")
    }
}

/// Makes initial sequence numbers that nobody can guess who does not see the packets.
#[derive(Clone, Copy, Debug)]
pub struct Isn {
    key: Key,
}

impl Isn {
    /// With a random key.
    pub fn new(key: Key) -> Isn {
        Isn { key }
    }

    /// The number for a connection that is opened at `now` (ns): a clock that ticks every 64 ns, as the RFC's of 4 us but for faster
    /// links, and a place of its own for each pair of ends.
    pub fn generate(&self, now: u64, tuple: &Tuple) -> u32 {
        (hash_tuple(self.key, tuple, 0) as u32).wrapping_add((now >> 6) as u32)
    }

    /// The offset of the timestamp clock for a pair of ends (RFC 7323 section 5.4): the same for all their connections, so that a new
    /// one can follow an old one in TIME-WAIT.
    pub fn ts_offset(&self, tuple: &Tuple) -> u32 {
        hash_tuple(self.key, &tuple.without_ports(), 1) as u32
    }
}

/// The keyed hash of a tuple and a word.
pub(crate) fn hash_tuple(key: Key, tuple: &Tuple, word: u64) -> u64 {
    let mut hash = SipHash::new(key);
    for end in [tuple.local, tuple.remote] {
        let (high, low) = address(end);
        hash.word(high);
        hash.word(low);
    }
    hash.word(u64::from(tuple.local.port()) << 16 | u64::from(tuple.remote.port()));
    hash.word(word);
    hash.finish()
}

fn address(end: End) -> (u64, u64) {
    let bits = match end.ip() {
        IpAddr::V4(v4) => u128::from(v4.to_bits()) | 0xffff_0000_0000,
        IpAddr::V6(v6) => v6.to_bits(),
    };
    ((bits >> 64) as u64, bits as u64)
}

/// SipHash-2-4 (Aumasson and Bernstein, 2012) over words.
struct SipHash {
    v: [u64; 4],
    words: u64,
}

impl SipHash {
    fn new(Key([k0, k1]): Key) -> SipHash {
        SipHash {
            v: [
                k0 ^ 0x736f_6d65_7073_6575,
                k1 ^ 0x646f_7261_6e64_6f6d,
                k0 ^ 0x6c79_6765_6e65_7261,
                k1 ^ 0x7465_6462_7974_6573,
            ],
            words: 0,
        }
    }

    fn round(&mut self) {
        let [mut a, mut b, mut c, mut d] = self.v;
        a = a.wrapping_add(b);
        b = b.rotate_left(13) ^ a;
        a = a.rotate_left(32);
        c = c.wrapping_add(d);
        d = d.rotate_left(16) ^ c;
        a = a.wrapping_add(d);
        d = d.rotate_left(21) ^ a;
        c = c.wrapping_add(b);
        b = b.rotate_left(17) ^ c;
        c = c.rotate_left(32);
        self.v = [a, b, c, d];
    }

    fn word(&mut self, word: u64) {
        self.v[3] ^= word;
        self.round();
        self.round();
        self.v[0] ^= word;
        self.words += 1;
    }

    fn finish(mut self) -> u64 {
        // The last word has the length in bytes, modulo 256, on top.
        self.word((self.words * 8) << 56);
        self.v[2] ^= 0xff;
        (0..4).for_each(|_| self.round());
        self.v.into_iter().fold(0, |hash, v| hash ^ v)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn siphash_agrees_with_its_authors_vectors() {
        // Key 00..0f; messages 00..07 and 00..0f of the reference's table.
        let key = Key([0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908]);
        let mut one = SipHash::new(key);
        one.word(0x0706_0504_0302_0100);
        assert_eq!(one.finish(), 0x93f5_f579_9a93_2462);
        let mut two = SipHash::new(key);
        two.word(0x0706_0504_0302_0100);
        two.word(0x0f0e_0d0c_0b0a_0908);
        assert_eq!(two.finish(), 0x3f2a_cc7f_57c2_9bdb);
    }

    #[test]
    fn rfc6528_numbers_differ_between_ends_and_grow_with_time() {
        let isn = Isn::new(Key([1, 2]));
        let tuple = |port| Tuple {
            local: ([10, 0, 0, 1], port).into(),
            remote: ([10, 0, 0, 2], 80).into(),
        };
        assert_ne!(isn.generate(0, &tuple(1)), isn.generate(0, &tuple(2)));
        assert_eq!(
            isn.generate(6400, &tuple(1))
                .wrapping_sub(isn.generate(0, &tuple(1))),
            100
        );
        assert_eq!(isn.ts_offset(&tuple(1)), isn.ts_offset(&tuple(2)));
    }
}

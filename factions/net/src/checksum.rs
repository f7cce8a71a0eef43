//! The Internet checksum, RFC 1071.

/// A sum of bytes, as 16-bit words with end-around carry, over pieces of any lengths.
#[derive(Clone, Copy, Debug, Default)]
pub struct InternetSum {
    /// In the machine's own byte order, which the sum does not mind, RFC 1071 section 2(B).
    sum: u64,
    /// An odd number of bytes is summed up: the next one is the low half of a word.
    odd: bool,
}

impl InternetSum {
    /// Sums up more bytes.
    pub fn add(&mut self, bytes: &[u8]) {
        let piece = fold(sum_words(bytes));
        let piece = if self.odd { piece.swap_bytes() } else { piece };
        self.sum += u64::from(piece);
        self.odd ^= bytes.len() % 2 == 1;
    }

    /// The same with more bytes.
    #[must_use]
    pub fn with(mut self, bytes: &[u8]) -> InternetSum {
        self.add(bytes);
        self
    }

    /// The sum itself, in host order: what a packet whose checksum is [`Partial`](crate::Checksum::Partial) has in its field.
    pub fn folded(self) -> u16 {
        u16::from_be(fold(self.sum))
    }

    /// The checksum: the sum's complement, in host order. Over bytes that contain their own checksum it is 0.
    pub fn checksum(self) -> u16 {
        !self.folded()
    }

    /// The sum of the pseudo header that TCP, UDP and ICMPv6 are summed up with (RFC 9293 section 3.1, RFC 8200 section 8.1).
    /// The addresses are source and destination as they follow each other in the header, of either version; `len` is the
    /// transport's, header and payload.
    pub fn pseudo(addresses: &[u8], protocol: u8, len: u32) -> InternetSum {
        InternetSum::default()
            .with(addresses)
            .with(&len.to_be_bytes())
            .with(&[0, protocol])
    }
}

/// Sums up 32-bit words in the machine's byte order. The lanes are independent, so that they are added several at a time.
fn sum_words(bytes: &[u8]) -> u64 {
    const LANES: usize = 8;
    let mut lanes = [0u64; LANES];
    let (blocks, rest) = bytes.as_chunks::<{ 4 * LANES }>();
    for block in blocks {
        let (words, _) = block.as_chunks::<4>();
        for (lane, word) in lanes.iter_mut().zip(words) {
            *lane += u64::from(u32::from_ne_bytes(*word));
        }
    }
    let (words, rest) = rest.as_chunks::<2>();
    let mut sum: u64 = lanes.iter().sum();
    sum += words
        .iter()
        .map(|word| u64::from(u16::from_ne_bytes(*word)))
        .sum::<u64>();
    if let [last] = rest {
        sum += u64::from(u16::from_ne_bytes([*last, 0]));
    }
    sum
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Word by word, as the RFC defines it.
    fn slow(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| u32::from(low));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    #[test]
    fn the_example_of_rfc_1071() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(InternetSum::default().with(&bytes).folded(), 0xddf2);
    }

    #[test]
    fn the_sum_of_a_known_segment() {
        // A SYN between 192.168.0.1:1000 and 192.168.0.2:80, summed by hand.
        let syn: [u16; 10] = [1000, 80, 0, 1, 0, 0, 0x5002, 0xffff, 0, 0];
        let sum = InternetSum::pseudo(&[192, 168, 0, 1, 192, 168, 0, 2], 6, 20)
            .with(&syn.map(u16::to_be_bytes).concat());
        let pseudo = [0xc0a8, 1, 0xc0a8, 2, 6, 20];
        let by_hand: u32 = pseudo.into_iter().chain(syn.map(u32::from)).sum();
        assert_eq!(sum.folded(), ((by_hand & 0xffff) + (by_hand >> 16)) as u16);
    }

    proptest! {
        #[test]
        fn pieces_of_any_length_sum_up_to_what_the_whole_does(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..100), 0..10)
        ) {
            let mut sum = InternetSum::default();
            pieces.iter().for_each(|piece| sum.add(piece));
            prop_assert_eq!(sum.folded(), slow(&pieces.concat()));
        }
    }
}

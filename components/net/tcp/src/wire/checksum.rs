//! The Internet checksum (RFC 1071) with the pseudo-headers of IPv4 and IPv6 (RFC 9293 section 3.1, RFC 8200 section 8.1).

use core::net::IpAddr;

use bytes::Bytes;

/// TCP's protocol number.
const TCP: u16 = 6;

/// A sum under construction: pieces are added in order and may have odd lengths.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum {
    sum: u64,
    /// Whether an odd number of bytes has been added.
    odd: bool,
}

impl Sum {
    /// The sum of TCP's pseudo-header; `len` is header and payload, in bytes. Both addresses are of one family: of two, the bytes
    /// are summed as they are.
    pub fn pseudo(src: IpAddr, dst: IpAddr, len: usize) -> Sum {
        let mut sum = Sum::default();
        for addr in [src, dst] {
            match addr {
                IpAddr::V4(a) => sum.add(&a.octets()),
                IpAddr::V6(a) => sum.add(&a.octets()),
            }
        }
        sum.add(&(len as u32).to_be_bytes());
        sum.add(&TCP.to_be_bytes());
        sum
    }

    /// Adds bytes.
    pub fn add(&mut self, bytes: &[u8]) {
        let part = sum_native(bytes);
        let part = if self.odd { part.swap_bytes() } else { part };
        self.sum += u64::from(part);
        self.odd ^= !bytes.len().is_multiple_of(2);
    }

    /// The checksum for the header: the complement of the folded sum, as a big-endian number. Over a segment whose checksum field
    /// is filled in, it is zero if the segment is intact.
    pub fn finish(self) -> u16 {
        !u16::from_be(fold(self.sum))
    }
}

/// The checksum of a segment whose header (with a checksum of zero) is `header`.
pub fn tcp(src: IpAddr, dst: IpAddr, header: &[u8], payload: &[Bytes]) -> u16 {
    let len = header.len() + payload.iter().map(Bytes::len).sum::<usize>();
    let mut sum = Sum::pseudo(src, dst, len);
    sum.add(header);
    payload.iter().for_each(|piece| sum.add(piece));
    sum.finish()
}

/// The folded sum in the host's byte order: one's complement sums do not care (RFC 1071 section 2B), and it saves a swap a word.
fn sum_native(bytes: &[u8]) -> u16 {
    // Four lanes of 32 bits each in 64: what carries out of a lane stays in it, and the compiler makes vectors of it.
    let mut lanes = [0u64; 8];
    let mut blocks = bytes.chunks_exact(32);
    for block in &mut blocks {
        for (lane, word) in lanes.iter_mut().zip(block.chunks_exact(4)) {
            *lane += u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
        }
    }
    let mut sum: u64 = lanes.iter().map(|&lane| u64::from(fold(lane))).sum();
    let mut words = blocks.remainder().chunks_exact(2);
    for word in &mut words {
        sum += u64::from(u16::from_ne_bytes([word[0], word[1]]));
    }
    if let [last] = words.remainder() {
        sum += u64::from(u16::from_ne_bytes([*last, 0]));
    }
    fold(sum)
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

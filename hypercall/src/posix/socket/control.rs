//! Control data as the host's calls have it, cmsg(3): each piece a header of 16 bytes (length, level, type) and its data, at
//! multiples of 8.

use abi::Errno;

use crate::SocketControl;

const HEADER: usize = 16;
/// Room for what a message brings, in words of 8 bytes: addresses, a few numbers and times, an error with whom it came from.
const WORDS: usize = 64;
/// The most control data that is sent, in bytes.
const SEND_MAX: usize = 1024;

/// The control data of a message that is sent, aligned as it has to be. `ENOBUFS` when it is too much.
pub(super) fn encode(list: &[SocketControl]) -> Result<Vec<u64>, Errno> {
    let mut bytes = Vec::new();
    for (level, kind, data) in list {
        let len = HEADER + data.len();
        if bytes.len() + len > SEND_MAX {
            return Err(Errno::ENOBUFS);
        }
        bytes.extend_from_slice(&(len as u64).to_ne_bytes());
        bytes.extend_from_slice(&level.to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    }
    let (words, _) = bytes.as_chunks();
    Ok(words.iter().map(|word| u64::from_ne_bytes(*word)).collect())
}

/// Room for the control data of a message that is received.
pub(super) struct Room([u64; WORDS]);

impl Room {
    pub(super) fn new() -> Room {
        Room([0; WORDS])
    }

    pub(super) fn parts(&mut self) -> (*mut libc::c_void, usize) {
        (self.0.as_mut_ptr().cast(), size_of_val(&self.0))
    }

    /// What is in its first `len` bytes.
    pub(super) fn decode(&self, len: usize) -> Vec<SocketControl> {
        if len < HEADER {
            return Vec::new();
        }
        let bytes: Vec<u8> = self.0.iter().flat_map(|word| word.to_ne_bytes()).collect();
        decode(&bytes[..len.min(bytes.len())])
    }
}

fn decode(mut bytes: &[u8]) -> Vec<SocketControl> {
    let mut list = Vec::new();
    while let Some(header) = bytes.first_chunk::<HEADER>() {
        let word = |at: usize| {
            i32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        // Lengths that matter fit into the lower half.
        let len = word(0) as u32 as usize;
        let Some(data) = bytes.get(HEADER..len) else {
            break;
        };
        list.push((word(8), word(12), data.into()));
        bytes = bytes.get(len.next_multiple_of(8)..).unwrap_or(&[]);
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded() {
        let list: Vec<SocketControl> = vec![
            (0, 1, smallvec::smallvec![1, 2, 3]),
            (41, 50, smallvec::smallvec![7; 20]),
        ];
        let words = encode(&list).expect("not too much");
        let mut room = Room::new();
        room.0[..words.len()].copy_from_slice(&words);
        assert_eq!(room.decode(words.len() * 8), list);
        assert_eq!(room.decode(0), []);
        let much = vec![(0, 1, smallvec::smallvec![0; 600]); 2];
        assert_eq!(encode(&much), Err(Errno::ENOBUFS));
    }

    #[test]
    fn lengths_that_lie_end_the_list() {
        for len in [0u64, 3, 15, 17, u64::MAX] {
            let mut bytes = len.to_ne_bytes().to_vec();
            bytes.resize(16, 0);
            assert_eq!(decode(&bytes), []);
        }
    }
}

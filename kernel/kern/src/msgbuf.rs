//! The message buffer: the last lines that the kernel logged, as dmesg(8) shows them.

use std::collections::VecDeque;

/// Bytes kept, as the reference has it.
pub const SIZE: usize = 16 * 1024;

/// A ring of the newest [`SIZE`] bytes.
#[derive(Default)]
pub struct MsgBuf {
    bytes: VecDeque<u8>,
}

impl MsgBuf {
    /// Appends, dropping the oldest bytes when full.
    pub fn append(&mut self, text: &[u8]) {
        let text = &text[text.len().saturating_sub(SIZE)..];
        let excess = (self.bytes.len() + text.len()).saturating_sub(SIZE);
        self.bytes.drain(..excess);
        self.bytes.extend(text);
    }

    /// Everything kept, oldest first.
    pub fn contents(&self) -> Vec<u8> {
        self.bytes.iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_bytes_go_first() {
        let mut m = MsgBuf::default();
        m.append(&vec![b'a'; SIZE]);
        m.append(b"end");
        let all = m.contents();
        assert_eq!(all.len(), SIZE);
        assert!(all.ends_with(b"aend"));
    }
}

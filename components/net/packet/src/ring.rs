//! The receive ring, `PACKET_RX_RING` with `TPACKET_V2` (Linux's Documentation/networking/packet_mmap.rst): frames in memory that
//! the program maps, each with a word that says whose it is.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use abi::Errno;
use hypercall::{BackingFile, Host, Mapping};

use crate::queue::Captured;

/// Bytes of a `struct tpacket2_hdr`.
pub(crate) const HEADER: usize = 32;
/// Where the link-layer address begins, and where it ends.
const ADDRESS: usize = HEADER;
const ADDRESS_END: usize = ADDRESS + 20;
const ALIGN: usize = 16;
/// Room in front of the network header for any link's.
const LINK_ROOM: usize = 16;

const STATUS_KERNEL: u32 = 0;
pub(crate) const STATUS_USER: u32 = 1;
const STATUS_COPY: u32 = 2;
const STATUS_LOSING: u32 = 4;
/// The most memory of a ring, in bytes.
const MOST: u64 = 64 << 20;

/// A ring.
pub(crate) struct Ring {
    file: Arc<dyn BackingFile>,
    memory: Arc<dyn Mapping>,
    block_size: usize,
    frame_size: usize,
    frames: usize,
    /// Bytes that the program wants in front of each frame, `PACKET_RESERVE`.
    reserve: usize,
    next: usize,
    lost: bool,
}

impl Ring {
    /// A ring as a `struct tpacket_req` describes it: block size, blocks, frame size, frames. `EINVAL` when that cannot be.
    pub(crate) fn new(host: &dyn Host, request: &[u8], reserve: usize) -> Result<Ring, Errno> {
        let request: &[u8; 16] = request.first_chunk().ok_or(Errno::EINVAL)?;
        let word = |at: usize| {
            u32::from_le_bytes([
                request[at],
                request[at + 1],
                request[at + 2],
                request[at + 3],
            ]) as usize
        };
        let (block_size, blocks, frame_size, frames) = (word(0), word(4), word(8), word(12));
        let per_block = block_size.checked_div(frame_size).unwrap_or(0);
        let good = block_size.is_multiple_of(4096)
            && frame_size.is_multiple_of(ALIGN)
            && frame_size >= first_byte(reserve, 0)
            && per_block > 0
            && per_block.checked_mul(blocks) == Some(frames)
            && blocks > 0;
        if !good {
            return Err(Errno::EINVAL);
        }
        let size = block_size as u64 * blocks as u64;
        if size > MOST {
            return Err(Errno::ENOMEM);
        }
        let file = host.shared_memory("packet ring", size)?;
        let memory = file.map()?;
        Ok(Ring {
            file,
            memory,
            block_size,
            frame_size,
            frames,
            reserve,
            next: 0,
            lost: false,
        })
    }

    /// What the program maps.
    pub(crate) fn file(&self) -> &Arc<dyn BackingFile> {
        &self.file
    }

    fn place(&self, frame: usize) -> usize {
        let per_block = self.block_size / self.frame_size;
        frame / per_block * self.block_size + frame % per_block * self.frame_size
    }

    /// Writes a frame; false when the program has not given back the place that is next.
    pub(crate) fn push(&mut self, captured: &Captured, status: u32) -> bool {
        let at = self.place(self.next);
        let region = self.memory.region();
        let Some(word) = region.word32(at) else {
            return false;
        };
        if word.load(Ordering::Acquire) != STATUS_KERNEL {
            self.lost = true;
            return false;
        }
        // A datagram socket shows no link-layer header, but leaves the same room.
        let header = captured.shown_header();
        let network = first_byte(self.reserve, header);
        let mac = network - header;
        let room = self.frame_size - mac;
        let snap = captured.snap.min(room);
        let mut bytes = [0; ADDRESS_END];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(4, &(captured.len as u32).to_le_bytes());
        put(8, &(snap as u32).to_le_bytes());
        put(12, &(mac as u16).to_le_bytes());
        put(14, &(network as u16).to_le_bytes());
        put(16, &((captured.time / 1_000_000_000) as u32).to_le_bytes());
        put(20, &((captured.time % 1_000_000_000) as u32).to_le_bytes());
        put(ADDRESS, captured.from.to_addr().bytes());
        // Everything but the status, which comes last: then the frame is the program's.
        let mut done = region.write(at + 4, &bytes[4..]).is_some();
        let (mut to, mut left) = (at + mac, snap);
        for piece in captured.packet.pieces() {
            let piece = &piece[..piece.len().min(left)];
            done &= region.write(to, piece).is_some();
            to += piece.len();
            left -= piece.len();
        }
        let mut status = status | STATUS_USER;
        if snap < captured.len {
            status |= STATUS_COPY;
        }
        if std::mem::take(&mut self.lost) {
            status |= STATUS_LOSING;
        }
        word.store(status, Ordering::Release);
        self.next = (self.next + 1) % self.frames;
        done
    }

    /// Whether the frame that was written last is still the program's: there is something to read.
    pub(crate) fn readable(&self) -> bool {
        let last = (self.next + self.frames - 1) % self.frames;
        let word = self.memory.region().word32(self.place(last));
        word.is_some_and(|word| word.load(Ordering::Acquire) & STATUS_USER != 0)
    }
}

/// Where the network header of a frame begins that has `header` bytes in front of it.
fn first_byte(reserve: usize, header: usize) -> usize {
    (ADDRESS_END.next_multiple_of(ALIGN) + header.max(LINK_ROOM)).next_multiple_of(ALIGN) + reserve
}

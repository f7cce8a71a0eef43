//! Messages of a socket, many in one call: sendmmsg(2), recvmmsg(2).

use std::os::fd::{AsRawFd, OwnedFd};

use abi::Errno;
use bytes::Bytes;
use smallvec::SmallVec;

use super::{FRAME_MAX, last_errno, vnet};
use crate::{InFrame, Offload, OutFrame};

/// The most messages of one call.
pub(super) const BATCH: usize = 32;
/// Room in front of a frame, for the tag that the host has taken out of it (802.1Q).
const TAG: usize = 4;
/// Where a tag belongs: behind the two addresses.
const ADDRESSES: usize = 12;
/// From this length on a frame keeps the buffer that it was received into; shorter ones are copied out, so that a small frame that
/// is kept does not keep 64 KiB.
const KEEP: usize = 16 << 10;
/// Room for a `struct tpacket_auxdata` and its header, in words of 8 bytes.
const CONTROL: usize = 8;

/// The address of a peer, where each message has to say it.
pub(super) type To<'a> = Option<(&'a libc::sockaddr_un, libc::socklen_t)>;

/// Sends frames, each with a [`vnet`] header if that is wanted: how many went.
pub(super) fn send(fd: &OwnedFd, vnet: bool, to: To<'_>, frames: &[OutFrame<'_>]) -> usize {
    let mut sent = 0;
    for part in frames.chunks(BATCH) {
        let went = send_part(fd, vnet, to, part);
        sent += went;
        if went < part.len() {
            break;
        }
    }
    sent
}

fn send_part(fd: &OwnedFd, vnet: bool, to: To<'_>, frames: &[OutFrame<'_>]) -> usize {
    let headers: SmallVec<[_; BATCH]> = frames.iter().map(header).collect();
    let mut pieces: SmallVec<[libc::iovec; 2 * BATCH]> = SmallVec::new();
    let mut ends: SmallVec<[usize; BATCH]> = SmallVec::new();
    for (frame, header) in frames.iter().zip(&headers) {
        if vnet {
            pieces.push(iovec(header));
        }
        pieces.extend(frame.pieces.iter().map(|piece| iovec(piece)));
        ends.push(pieces.len());
    }
    let mut left = &mut pieces[..];
    let mut begin = 0;
    let mut messages: SmallVec<[libc::mmsghdr; BATCH]> = SmallVec::new();
    for end in ends {
        let (these, rest) = std::mem::take(&mut left).split_at_mut(end - begin);
        (left, begin) = (rest, end);
        // SAFETY: all zero is an empty message.
        let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
        if let Some((address, len)) = to {
            message.msg_hdr.msg_name = std::ptr::from_ref(address).cast_mut().cast();
            message.msg_hdr.msg_namelen = len;
        }
        message.msg_hdr.msg_iov = these.as_mut_ptr();
        message.msg_hdr.msg_iovlen = these.len() as _;
        messages.push(message);
    }
    loop {
        // SAFETY: addresses, headers and pieces live for the call, which only reads them; there are so many messages.
        let went = unsafe {
            libc::sendmmsg(
                fd.as_raw_fd(),
                messages.as_mut_ptr(),
                messages.len() as libc::c_uint,
                libc::MSG_NOSIGNAL,
            )
        };
        match usize::try_from(went) {
            Ok(went) => return went,
            Err(_) if last_errno() == Errno::EINTR => {}
            Err(_) => return 0,
        }
    }
}

/// The header of a frame that is sent.
pub(super) fn header(frame: &OutFrame<'_>) -> [u8; vnet::LEN] {
    let first = frame.pieces.first().copied().unwrap_or_default();
    vnet::encode(&frame.offload, first)
}

pub(super) fn iovec(bytes: &[u8]) -> libc::iovec {
    libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    }
}

/// Where a frame is received.
#[derive(Default)]
pub(super) struct Slot {
    header: [u8; vnet::LEN],
    /// [`TAG`] bytes, and the frame.
    bytes: Vec<u8>,
    control: [u64; CONTROL],
}

impl Slot {
    /// Room for header and frame, for a call that fills it.
    pub(super) fn room(&mut self) -> [libc::iovec; 2] {
        self.bytes.clear();
        self.bytes.reserve(TAG + FRAME_MAX);
        self.bytes.extend_from_slice(&[0; TAG]);
        let body = libc::iovec {
            iov_base: self.bytes.spare_capacity_mut().as_mut_ptr().cast(),
            iov_len: FRAME_MAX,
        };
        let front = libc::iovec {
            iov_base: self.header.as_mut_ptr().cast(),
            iov_len: self.header.len(),
        };
        [front, body]
    }

    /// The frame that a call has put there, of so many bytes with its header if it has one.
    ///
    /// # Safety
    /// 1. [`room`](Self::room) was called since the last frame, and the call was given what it answered, the header only with `vnet`.
    /// 2. The call has said that it wrote so many bytes.
    pub(super) unsafe fn frame(&mut self, vnet: bool, got: usize, control_len: usize) -> InFrame {
        let len = got.saturating_sub(if vnet { vnet::LEN } else { 0 });
        // SAFETY: the host has written so many bytes (2), of the room for FRAME_MAX (1).
        unsafe { self.bytes.set_len(TAG + len.min(FRAME_MAX)) };
        let mut offload = match vnet {
            true => vnet::decode(&self.header),
            false => Offload::default(),
        };
        let mut begin = TAG;
        if let Some(tag) = self.tag(control_len)
            && len >= ADDRESSES
        {
            self.bytes.copy_within(TAG..TAG + ADDRESSES, 0);
            self.bytes[ADDRESSES..ADDRESSES + TAG].copy_from_slice(&tag);
            begin = 0;
            if let Some((start, _)) = &mut offload.partial {
                *start = start.saturating_add(TAG as u16);
            }
        }
        InFrame {
            bytes: take(&mut self.bytes, begin),
            offload,
        }
    }

    /// The tag that the host has taken out of the frame, `struct tpacket_auxdata`, packet(7).
    fn tag(&self, control_len: usize) -> Option<[u8; TAG]> {
        /// Header of the control data, its level and type, and what follows.
        const HEADER: usize = 16;
        const STATUS: usize = HEADER;
        const TCI: usize = HEADER + 16;
        const TPID: usize = HEADER + 18;
        const LEN: usize = HEADER + 20;
        if control_len < LEN {
            return None;
        }
        let bytes: SmallVec<[u8; 8 * CONTROL]> =
            self.control.iter().flat_map(|w| w.to_ne_bytes()).collect();
        let word = |at: usize| {
            u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let half = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        let is_it = (word(8), word(12)) == (libc::SOL_PACKET as u32, libc::PACKET_AUXDATA as u32);
        let status = word(STATUS);
        if !is_it || status & libc::TP_STATUS_VLAN_VALID == 0 {
            return None;
        }
        let tpid = match status & libc::TP_STATUS_VLAN_TPID_VALID {
            0 => libc::ETH_P_8021Q as u16,
            _ => half(TPID),
        };
        let ([a, b], [c, d]) = (tpid.to_be_bytes(), half(TCI).to_be_bytes());
        Some([a, b, c, d])
    }
}

/// What was received from a byte on, and a buffer for what comes next.
fn take(buffer: &mut Vec<u8>, begin: usize) -> Bytes {
    if buffer.len() < KEEP {
        return Bytes::copy_from_slice(&buffer[begin..]);
    }
    Bytes::from(std::mem::take(buffer)).slice(begin..)
}

/// Receives up to `max` frames that are there; how many, 0 when none is.
pub(super) fn receive(
    fd: &OwnedFd,
    vnet: bool,
    slots: &mut Vec<Slot>,
    into: &mut Vec<InFrame>,
    max: usize,
) -> Result<usize, Errno> {
    let max = max.min(BATCH);
    if slots.len() < max {
        slots.resize_with(max, Slot::default);
    }
    let mut rooms: SmallVec<[[libc::iovec; 2]; BATCH]> =
        slots[..max].iter_mut().map(Slot::room).collect();
    let mut messages: SmallVec<[libc::mmsghdr; BATCH]> = SmallVec::new();
    for (slot, room) in slots.iter_mut().zip(&mut rooms) {
        // SAFETY: all zero is an empty message.
        let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
        let pieces = if vnet { &mut room[..] } else { &mut room[1..] };
        message.msg_hdr.msg_iov = pieces.as_mut_ptr();
        message.msg_hdr.msg_iovlen = pieces.len() as _;
        message.msg_hdr.msg_control = slot.control.as_mut_ptr().cast();
        message.msg_hdr.msg_controllen = size_of_val(&slot.control) as _;
        messages.push(message);
    }
    // SAFETY: every message has room of its own that is ours to write and lives for the call; there are so many.
    let got = unsafe {
        libc::recvmmsg(
            fd.as_raw_fd(),
            messages.as_mut_ptr(),
            messages.len() as libc::c_uint,
            libc::MSG_DONTWAIT,
            std::ptr::null_mut(),
        )
    };
    let got = usize::try_from(got).map_err(|_| last_errno())?;
    for (slot, message) in slots.iter_mut().zip(&messages[..got]) {
        let control = message.msg_hdr.msg_controllen;
        // SAFETY: the call was given the slot's room, and says how much it wrote there.
        let frame = unsafe { slot.frame(vnet, message.msg_len as usize, control) };
        if !frame.bytes.is_empty() {
            into.push(frame);
        }
    }
    Ok(got)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A slot with a frame, and what the host says of it.
    fn slot(frame: &[u8], status: u32, tci: u16, tpid: u16) -> Slot {
        let mut slot = Slot {
            bytes: [&[0; TAG], frame].concat(),
            ..Slot::default()
        };
        let mut bytes = Vec::new();
        bytes.extend(36u64.to_ne_bytes());
        bytes.extend((libc::SOL_PACKET as u32).to_ne_bytes());
        bytes.extend((libc::PACKET_AUXDATA as u32).to_ne_bytes());
        bytes.extend(status.to_ne_bytes());
        bytes.extend([0; 12]);
        bytes.extend(tci.to_ne_bytes());
        bytes.extend(tpid.to_ne_bytes());
        bytes.resize(8 * CONTROL, 0);
        for (word, bytes) in slot.control.iter_mut().zip(bytes.as_chunks().0) {
            *word = u64::from_ne_bytes(*bytes);
        }
        slot
    }

    #[test]
    fn a_tag_that_the_host_took_out_is_put_back() {
        let frame: Vec<u8> = (0..60).collect();
        let valid = libc::TP_STATUS_VLAN_VALID;
        // SAFETY: the frame is as long as said.
        let got = unsafe { slot(&frame, valid, 0x6005, 0).frame(false, 60, 36) };
        let want = [&frame[..12], &[0x81, 0, 0x60, 5], &frame[12..]].concat();
        assert_eq!(got.bytes, want);
        let both = valid | libc::TP_STATUS_VLAN_TPID_VALID;
        // SAFETY: the frame is as long as said.
        let got = unsafe { slot(&frame, both, 7, 0x88a8).frame(false, 60, 36) };
        assert_eq!(got.bytes[12..16], [0x88, 0xa8, 0, 7]);
    }

    #[test]
    fn frames_without_a_tag_stay_as_they_are() {
        let frame: Vec<u8> = (0..60).collect();
        for control in [36, 0, 20] {
            // SAFETY: the frame is as long as said.
            let got = unsafe { slot(&frame, 0, 5, 0).frame(false, 60, control) };
            assert_eq!(got.bytes, frame);
        }
        // SAFETY: the frame is as long as said.
        let short = unsafe { slot(&frame[..5], 0x10, 5, 0).frame(false, 5, 36) };
        assert_eq!(short.bytes, frame[..5]);
    }
}

//! A segment: the header as numbers, and the payload by reference.

use std::fmt;
use std::ops::{BitOr, BitOrAssign};

use bytes::{Buf, Bytes};
use smallvec::SmallVec;

use super::Options;

/// The header's length without options.
const HEADER: usize = 20;

/// The pieces of a payload, in order.
pub type Payload = SmallVec<[Bytes; 2]>;

/// The control bits (RFC 9293 section 3.1).
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Flags(u8);

impl Flags {
    /// No more data from the sender.
    pub const FIN: Flags = Flags(0x01);
    /// Synchronize sequence numbers.
    pub const SYN: Flags = Flags(0x02);
    /// Reset the connection.
    pub const RST: Flags = Flags(0x04);
    /// Push.
    pub const PSH: Flags = Flags(0x08);
    /// The acknowledgement field is significant.
    pub const ACK: Flags = Flags(0x10);
    /// The urgent pointer is significant.
    pub const URG: Flags = Flags(0x20);
    /// ECN echo (RFC 3168).
    pub const ECE: Flags = Flags(0x40);
    /// Congestion window reduced (RFC 3168).
    pub const CWR: Flags = Flags(0x80);

    /// The flags of a header's byte.
    pub const fn from_bits(bits: u8) -> Flags {
        Flags(bits)
    }

    /// As the header's byte.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Whether any of `other`'s flags is set.
    pub const fn has(self, other: Flags) -> bool {
        self.0 & other.0 != 0
    }

    /// Without `other`'s flags.
    #[must_use]
    pub const fn without(self, other: Flags) -> Flags {
        Flags(self.0 & !other.0)
    }
}

impl BitOr for Flags {
    type Output = Flags;

    fn bitor(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

impl BitOrAssign for Flags {
    fn bitor_assign(&mut self, other: Flags) {
        self.0 |= other.0;
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (bit, letter) in "FSRP.UEW".chars().enumerate() {
            if self.0 >> bit & 1 != 0 {
                write!(f, "{letter}")?;
            }
        }
        Ok(())
    }
}

/// The ECN field of the IP header that carried or shall carry a segment (RFC 3168 section 5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ecn {
    /// Not ECN-capable.
    #[default]
    NotEct,
    /// ECN-capable, codepoint 1.
    Ect1,
    /// ECN-capable, codepoint 0.
    Ect0,
    /// Congestion experienced.
    Ce,
}

impl Ecn {
    /// The two low bits of the traffic class.
    pub const fn bits(self) -> u8 {
        self as u8
    }

    /// From the traffic class.
    pub const fn from_bits(traffic_class: u8) -> Ecn {
        match traffic_class & 3 {
            0 => Ecn::NotEct,
            1 => Ecn::Ect1,
            2 => Ecn::Ect0,
            _ => Ecn::Ce,
        }
    }
}

/// Why bytes are no segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Fewer bytes than a header has, or than its data offset says.
    Short,
    /// A data offset below five words.
    DataOffset,
    /// An option that runs over the header's end or has no length.
    Option,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Malformed::Short => "segment shorter than its header",
            Malformed::DataOffset => "data offset inside the fixed header",
            Malformed::Option => "option over the header's end",
        })
    }
}

impl std::error::Error for Malformed {}

/// A segment, as it comes from or goes to the wire. It may be larger than what one packet carries: see `gso_size`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// Sequence number of the first byte, or of the SYN.
    pub seq: u32,
    /// Acknowledgement number, if the flag says so.
    pub ack: u32,
    /// Control bits.
    pub flags: Flags,
    /// Window, as in the header: not scaled.
    pub window: u16,
    /// Urgent pointer, if the flag says so.
    pub urgent: u16,
    /// Options.
    pub options: Options,
    /// The ECN field of its packet.
    pub ecn: Ecn,
    /// Above zero: the payload is to be cut into packets of so many bytes (or was put together from such).
    pub gso_size: u32,
    /// The data.
    pub payload: Payload,
}

impl Segment {
    /// Parses a header and takes what follows it as the payload, by reference. The checksum is the caller's.
    pub fn parse(mut packet: Bytes) -> Result<Segment, Malformed> {
        let (mut segment, len) = Segment::parse_header(&packet)?;
        packet.advance(len);
        if !packet.is_empty() {
            segment.payload.push(packet);
        }
        Ok(segment)
    }

    /// Parses the header at the start of `bytes`; says how long it is. The payload is left empty.
    pub fn parse_header(bytes: &[u8]) -> Result<(Segment, usize), Malformed> {
        let fixed: &[u8; HEADER] = bytes.first_chunk().ok_or(Malformed::Short)?;
        let short = |i: usize| u16::from_be_bytes([fixed[i], fixed[i + 1]]);
        let long =
            |i: usize| u32::from_be_bytes([fixed[i], fixed[i + 1], fixed[i + 2], fixed[i + 3]]);
        let len = usize::from(fixed[12] >> 4) * 4;
        if len < HEADER {
            return Err(Malformed::DataOffset);
        }
        let options = bytes.get(HEADER..len).ok_or(Malformed::Short)?;
        let segment = Segment {
            src_port: short(0),
            dst_port: short(2),
            seq: long(4),
            ack: long(8),
            flags: Flags(fixed[13]),
            window: short(14),
            urgent: short(18),
            options: Options::parse(options)?,
            ..Segment::default()
        };
        Ok((segment, len))
    }

    /// Length of the header that [`Segment::emit_header`] writes; 20 to 60.
    pub fn header_len(&self) -> usize {
        HEADER + self.options.encoded_len()
    }

    /// Writes the header with a checksum of zero to the start of `out`; says how long it is, or `None` if `out` is too short.
    pub fn emit_header(&self, out: &mut [u8]) -> Option<usize> {
        let len = self.header_len();
        let out = out.get_mut(..len)?;
        out[0..2].copy_from_slice(&self.src_port.to_be_bytes());
        out[2..4].copy_from_slice(&self.dst_port.to_be_bytes());
        out[4..8].copy_from_slice(&self.seq.to_be_bytes());
        out[8..12].copy_from_slice(&self.ack.to_be_bytes());
        out[12] = ((len / 4) as u8) << 4;
        out[13] = self.flags.0;
        out[14..16].copy_from_slice(&self.window.to_be_bytes());
        out[16..18].copy_from_slice(&[0, 0]);
        out[18..20].copy_from_slice(&self.urgent.to_be_bytes());
        self.options.emit(&mut out[HEADER..]);
        Some(len)
    }

    /// Bytes of payload.
    pub fn payload_len(&self) -> usize {
        self.payload.iter().map(Bytes::len).sum()
    }

    /// Length in sequence space: the payload, one for a SYN and one for a FIN.
    pub fn seq_len(&self) -> u64 {
        self.payload_len() as u64
            + u64::from(self.flags.has(Flags::SYN))
            + u64::from(self.flags.has(Flags::FIN))
    }

    /// How many packets it stands for.
    pub fn packets(&self) -> usize {
        match self.gso_size as usize {
            0 => 1,
            size => self.payload_len().div_ceil(size).max(1),
        }
    }

    /// Cuts it into packets of `gso_size` bytes, for a link that does not do so itself. FIN and PSH go with the last, CWR with the
    /// first.
    pub fn packetize(self) -> impl Iterator<Item = Segment> {
        let size = match self.gso_size as usize {
            0 => usize::MAX,
            size => size,
        };
        let mut rest = Some(self);
        let mut first = true;
        std::iter::from_fn(move || {
            let mut whole = rest.take()?;
            whole.gso_size = 0;
            let cwr = if first { Flags::default() } else { Flags::CWR };
            first = false;
            let mut packet = whole;
            packet.flags = packet.flags.without(cwr);
            if packet.payload_len() > size {
                let mut tail = packet.clone();
                tail.payload = split_off(&mut packet.payload, size);
                tail.seq = packet.seq.wrapping_add(size as u32);
                packet.flags = packet.flags.without(Flags::FIN | Flags::PSH);
                rest = Some(tail);
            }
            Some(packet)
        })
    }

    /// The reset that answers a segment for which there is no connection (RFC 9293 section 3.5.2), if it may be answered.
    pub fn reset(&self) -> Option<Segment> {
        if self.flags.has(Flags::RST) {
            return None;
        }
        let mut reset = Segment {
            src_port: self.dst_port,
            dst_port: self.src_port,
            flags: Flags::RST,
            ..Segment::default()
        };
        if self.flags.has(Flags::ACK) {
            reset.seq = self.ack;
        } else {
            reset.ack = self.seq.wrapping_add(self.seq_len() as u32);
            reset.flags |= Flags::ACK;
        }
        Some(reset)
    }
}

/// Takes what is behind the first `at` bytes out of `payload`.
fn split_off(payload: &mut Payload, mut at: usize) -> Payload {
    let mut tail = Payload::new();
    let mut keep = 0;
    for piece in payload.iter_mut() {
        if at >= piece.len() {
            at -= piece.len();
            keep += 1;
        } else if at > 0 {
            tail.push(piece.split_off(at));
            at = 0;
            keep += 1;
        } else {
            tail.push(std::mem::take(piece));
        }
    }
    payload.truncate(keep);
    tail
}

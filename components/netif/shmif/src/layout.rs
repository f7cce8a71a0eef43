//! What is where in a bus file. Numbers are in the machine's byte order: a bus does not leave its machine.
//!
//! ```text
//! 0                 header: magic, number of ports, bytes of a ring; which ports are up
//! PAGE              a page for each port: where its ring stands, whether it sleeps, its filter, how far it has read everybody else's ring
//! PAGE * (1+ports)  a ring for each port, in which only that port writes
//! ```
//!
//! A ring holds records, each at a multiple of [`ALIGN`] and none over the ring's end. Positions count bytes since the ring was made and
//! never go back; where a position is in the ring is its remainder by the ring's length, a power of two.

use hypercall::{Offload, WireCut};

/// `RUMPBUS` and the version.
pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"RUMPBUS\x01");
pub(crate) const PAGE: usize = 4096;

pub(crate) const AT_MAGIC: usize = 0;
pub(crate) const AT_PORTS: usize = 8;
pub(crate) const AT_RING: usize = 12;
/// A bit for each port that is up.
pub(crate) const AT_ACTIVE: usize = 128;

/// In a port's page: where its ring ends. Only its owner changes it.
pub(crate) const HEAD: usize = 0;
/// Where the oldest record begins that is still whole. Only its owner changes it.
pub(crate) const TAIL: usize = 128;
/// 1 while the owner sleeps; who writes something for it changes that to 0 and wakes it.
pub(crate) const WORD: usize = 256;
/// See [`Filter`].
pub(crate) const FILTER: usize = 384;
/// How far the owner has read the ring of each other port.
pub(crate) const CURSORS: usize = 1024;

/// The most ports that a bus can have: a bit each.
pub(crate) const PORTS_MAX: u32 = 64;
pub(crate) const RING_MIN: u32 = 256 << 10;
pub(crate) const RING_MAX: u32 = 64 << 20;

/// The longest frame, in bytes.
pub(crate) const FRAME_MAX: usize = 65_535 + 14 + 8;
pub(crate) const ALIGN: usize = 32;
/// Bytes of a record's header.
pub(crate) const HEADER: usize = 32;

/// How a bus file is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) ports: u32,
    pub(crate) ring: u32,
}

impl Default for Geometry {
    fn default() -> Geometry {
        Geometry {
            ports: PORTS_MAX,
            ring: 4 << 20,
        }
    }
}

impl Geometry {
    /// Whether there can be a bus like this.
    pub(crate) fn is_good(&self) -> bool {
        (2..=PORTS_MAX).contains(&self.ports)
            && (RING_MIN..=RING_MAX).contains(&self.ring)
            && self.ring.is_power_of_two()
    }

    /// Bytes of the file. What no port has written takes no room on the host.
    pub(crate) fn size(&self) -> usize {
        self.ring_at(self.ports)
    }

    pub(crate) fn port_at(&self, port: u32) -> usize {
        PAGE * (1 + port as usize)
    }

    pub(crate) fn ring_at(&self, port: u32) -> usize {
        self.port_at(self.ports) + self.ring as usize * port as usize
    }
}

/// Which frames a port wants: an Ethernet address in the low 48 bits, and flags above.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filter(pub(crate) u64);

impl Filter {
    const VALID: u64 = 1 << 63;
    const PROMISCUOUS: u64 = 1 << 62;

    pub(crate) fn new(address: [u8; 6], promiscuous: bool) -> Filter {
        let all = if promiscuous { Filter::PROMISCUOUS } else { 0 };
        Filter(Filter::VALID | all | as_number(&address))
    }

    pub(crate) fn is_promiscuous(self) -> bool {
        self.0 & Filter::PROMISCUOUS != 0
    }

    pub(crate) fn is_for(self, address: &[u8; 6]) -> bool {
        self.0 & Filter::VALID != 0 && self.0 & 0xffff_ffff_ffff == as_number(address)
    }

    /// Whether a frame to this address is wanted.
    pub(crate) fn takes(self, to: &[u8; 6]) -> bool {
        to[0] & 1 != 0 || self.is_promiscuous() || self.is_for(to)
    }
}

fn as_number(address: &[u8; 6]) -> u64 {
    address
        .iter()
        .fold(0, |number, &b| number << 8 | u64::from(b))
}

/// What stands before a frame in a ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Record {
    /// Bytes of the frame; [`Record::PAD`] where the rest of the ring is skipped.
    pub(crate) len: u32,
    /// Its own position.
    pub(crate) at: u64,
    /// What goes with it.
    pub(crate) offload: Offload,
}

const PARTIAL: u8 = 1;
const VALID: u8 = 2;

impl Record {
    pub(crate) const PAD: u32 = u32::MAX;

    pub(crate) fn encode(&self) -> [u8; HEADER] {
        let (offload, mut bytes) = (&self.offload, [0; HEADER]);
        let (start, offset) = offload.partial.unwrap_or_default();
        let (size, cut) = match offload.cut {
            None => (0, 0),
            Some((size, WireCut::Tcp4)) => (size, 1),
            Some((size, WireCut::Tcp6)) => (size, 2),
            Some((size, WireCut::Udp)) => (size, 3),
        };
        bytes[..4].copy_from_slice(&self.len.to_ne_bytes());
        bytes[4..6].copy_from_slice(&start.to_ne_bytes());
        bytes[6..8].copy_from_slice(&offset.to_ne_bytes());
        bytes[8..10].copy_from_slice(&size.to_ne_bytes());
        bytes[10] = cut;
        bytes[11] = if offload.partial.is_some() {
            PARTIAL
        } else {
            0
        };
        bytes[11] |= if offload.valid { VALID } else { 0 };
        bytes[16..24].copy_from_slice(&self.at.to_ne_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; HEADER]) -> Record {
        let get = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        let mut at = [0; 8];
        at.copy_from_slice(&bytes[16..24]);
        let cut = match bytes[10] {
            1 => Some(WireCut::Tcp4),
            2 => Some(WireCut::Tcp6),
            3 => Some(WireCut::Udp),
            _ => None,
        };
        Record {
            len: u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
            at: u64::from_ne_bytes(at),
            offload: Offload {
                partial: (bytes[11] & PARTIAL != 0).then(|| (get(4), get(6))),
                valid: bytes[11] & VALID != 0,
                cut: cut.map(|cut| (get(8), cut)),
            },
        }
    }
}

/// Bytes that a frame takes in a ring.
pub(crate) fn space(len: usize) -> usize {
    (HEADER + len).next_multiple_of(ALIGN)
}

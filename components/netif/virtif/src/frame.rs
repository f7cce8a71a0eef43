//! Between the stack's packets and the host's frames.

use hypercall::{InFrame, Offload, OutFrame, WireCut};
use net::{Checksum, Cut, Gso, Packet};

/// A packet as the host gets it.
pub(crate) fn to_host(packet: &Packet) -> OutFrame<'_> {
    let partial = match packet.checksum {
        Checksum::Partial { start, offset } => Some((start, offset)),
        Checksum::None | Checksum::Valid => None,
    };
    let cut = packet.gso.map(|gso| {
        let cut = match gso.cut {
            Cut::Tcp4 => WireCut::Tcp4,
            Cut::Tcp6 => WireCut::Tcp6,
            Cut::Udp => WireCut::Udp,
        };
        (gso.size, cut)
    });
    OutFrame {
        pieces: packet.pieces().collect(),
        offload: Offload {
            partial,
            valid: false,
            cut,
        },
    }
}

/// A frame of the host's as a packet; `None` when what it says of itself cannot be.
pub(crate) fn from_host(frame: InFrame) -> Option<Packet> {
    let len = frame.bytes.len();
    let mut packet = Packet::new(frame.bytes);
    packet.checksum = match frame.offload.partial {
        Some((start, offset)) => {
            if usize::from(start) + usize::from(offset) + 2 > len {
                return None;
            }
            Checksum::Partial { start, offset }
        }
        None if frame.offload.valid => Checksum::Valid,
        None => Checksum::None,
    };
    packet.gso = match frame.offload.cut {
        Some((0, _)) => return None,
        Some((size, cut)) => {
            let cut = match cut {
                WireCut::Tcp4 => Cut::Tcp4,
                WireCut::Tcp6 => Cut::Tcp6,
                WireCut::Udp => Cut::Udp,
            };
            Some(Gso { size, cut })
        }
        None => None,
    };
    Some(packet)
}

//! Between packets and records.

use hypercall::WireCut;
use net::{Checksum, Cut, Gso, Packet};

use crate::layout::Record;

/// What a record says of a packet; where and how long it is, is for the ring.
pub(crate) fn of_packet(packet: &Packet) -> Record {
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
    Record {
        partial,
        valid: packet.checksum == Checksum::Valid,
        cut,
        ..Record::default()
    }
}

/// A frame as a packet; `None` when what its record says of it cannot be.
pub(crate) fn to_packet(bytes: Vec<u8>, record: &Record) -> Option<Packet> {
    let len = bytes.len();
    let mut packet = Packet::new(bytes.into());
    packet.checksum = match record.partial {
        Some((start, offset)) if usize::from(start) + usize::from(offset) + 2 > len => return None,
        Some((start, offset)) => Checksum::Partial { start, offset },
        None if record.valid => Checksum::Valid,
        None => Checksum::None,
    };
    packet.gso = match record.cut {
        None => None,
        Some((0, _)) => return None,
        Some((size, cut)) => Some(Gso {
            size,
            cut: match cut {
                WireCut::Tcp4 => Cut::Tcp4,
                WireCut::Tcp6 => Cut::Tcp6,
                WireCut::Udp => Cut::Udp,
            },
        }),
    };
    Some(packet)
}

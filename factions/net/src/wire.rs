//! Packets as they go over a wire of the host's, or over one that says as much of a frame.

use bytes::Bytes;
use hypercall::Offload;

use crate::{Checksum, Gso, Packet};

impl Packet {
    /// What goes with the packet onto a wire.
    pub fn offload(&self) -> Offload {
        Offload {
            partial: match self.checksum {
                Checksum::Partial { start, offset } => Some((start, offset)),
                Checksum::None | Checksum::Valid => None,
            },
            valid: self.checksum == Checksum::Valid,
            cut: self.gso.map(|gso| (gso.size, gso.cut)),
        }
    }

    /// A frame that came from a wire; `None` when what is said of it cannot be: a checksum outside of it, parts without a byte.
    pub fn from_wire(bytes: Bytes, offload: &Offload) -> Option<Packet> {
        let len = bytes.len();
        let mut packet = Packet::new(bytes);
        packet.checksum = match offload.partial {
            Some((start, offset)) if usize::from(start) + usize::from(offset) + 2 > len => {
                return None;
            }
            Some((start, offset)) => Checksum::Partial { start, offset },
            None if offload.valid => Checksum::Valid,
            None => Checksum::None,
        };
        packet.gso = match offload.cut {
            Some((0, _)) => return None,
            cut => cut.map(|(size, cut)| Gso { size, cut }),
        };
        Some(packet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cut;

    #[test]
    fn what_goes_onto_a_wire_comes_from_it() {
        let partial = Checksum::Partial {
            start: 34,
            offset: 16,
        };
        let gso = Gso {
            size: 1448,
            cut: Cut::Tcp4,
        };
        for (checksum, gso) in [
            (partial, Some(gso)),
            (Checksum::Valid, None),
            (Checksum::None, None),
        ] {
            let mut packet = Packet::new(vec![0; 60].into());
            (packet.checksum, packet.gso) = (checksum, gso);
            let back = Packet::from_wire(vec![0; 60].into(), &packet.offload());
            let back = back.map(|back| (back.checksum, back.gso));
            assert_eq!(back, Some((checksum, gso)));
        }
    }

    #[test]
    fn what_is_said_of_a_frame_is_checked() {
        let frame = |partial, cut| {
            let offload = Offload {
                partial,
                valid: false,
                cut,
            };
            Packet::from_wire(vec![0; 60].into(), &offload)
        };
        assert!(frame(Some((34, 24)), None).is_some());
        assert!(frame(Some((34, 25)), None).is_none());
        assert!(frame(Some((u16::MAX, u16::MAX)), None).is_none());
        assert!(frame(None, Some((1000, Cut::Udp))).is_some());
        assert!(frame(None, Some((0, Cut::Udp))).is_none());
    }
}

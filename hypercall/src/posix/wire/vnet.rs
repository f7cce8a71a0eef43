//! The header that the host puts in front of frames: `struct virtio_net_hdr`, ten bytes (Virtual I/O Device 1.2, section 5.1.6).

use crate::{Offload, WireCut};

/// Its length.
pub(super) const LEN: usize = 10;

const NEEDS_CSUM: u8 = 1;
const DATA_VALID: u8 = 2;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
/// With TCP: the packet has CWR set, which only the first part may have (RFC 3168).
const GSO_ECN: u8 = 0x80;

/// TCP's CWR, in the byte of flags.
const CWR: u8 = 0x80;

/// The header of a frame that is sent. `first` are the first bytes of the frame.
pub(super) fn encode(offload: &Offload, first: &[u8]) -> [u8; LEN] {
    let mut header = [0; LEN];
    let mut put = |at: usize, value: u16| header[at..at + 2].copy_from_slice(&value.to_ne_bytes());
    let (start, offset) = offload.partial.unwrap_or_default();
    put(6, start);
    put(8, offset);
    if let Some((size, cut)) = offload.cut {
        put(4, size);
        let ecn = match first.get(usize::from(start) + 13) {
            Some(flags) if flags & CWR != 0 => GSO_ECN,
            _ => 0,
        };
        header[1] = match cut {
            WireCut::Tcp4 => GSO_TCPV4 | ecn,
            WireCut::Tcp6 => GSO_TCPV6 | ecn,
            WireCut::Udp => GSO_UDP_L4,
        };
    }
    if offload.partial.is_some() {
        header[0] = NEEDS_CSUM;
    }
    header
}

/// What a received header says.
pub(super) fn decode(header: &[u8; LEN]) -> Offload {
    let get = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
    let cut = match header[1] & !GSO_ECN {
        GSO_TCPV4 => Some(WireCut::Tcp4),
        GSO_TCPV6 => Some(WireCut::Tcp6),
        GSO_UDP_L4 => Some(WireCut::Udp),
        _ => None,
    };
    Offload {
        partial: (header[0] & NEEDS_CSUM != 0).then(|| (get(6), get(8))),
        valid: header[0] & DATA_VALID != 0,
        cut: cut.map(|cut| (get(4), cut)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded() {
        let offload = Offload {
            partial: Some((34, 16)),
            valid: false,
            cut: Some((1448, WireCut::Tcp4)),
        };
        assert_eq!(decode(&encode(&offload, &[0; 60])), offload);
        let none = Offload::default();
        assert_eq!(encode(&none, &[]), [0; LEN]);
        assert_eq!(decode(&[0; LEN]), none);
    }

    #[test]
    fn a_packet_with_cwr_says_so() {
        let offload = Offload {
            partial: Some((34, 16)),
            valid: false,
            cut: Some((1448, WireCut::Tcp6)),
        };
        let mut frame = [0; 60];
        frame[34 + 13] = CWR;
        assert_eq!(encode(&offload, &frame)[1], GSO_TCPV6 | GSO_ECN);
    }
}

//! The blocks of a pcapng file, draft-ietf-opsawg-pcapng. In the machine's byte order, which the file says.

use hypercall::Nanos;
use net::{Direction, LinkType, Packet};

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const STATISTICS: u32 = 5;
const PACKET: u32 = 6;
const BYTE_ORDER: u32 = 0x1a2b_3c4d;
/// Times are in units of 10 to the minus so many seconds.
const TIME_RESOLUTION: u8 = 9;

/// Link types, <https://www.tcpdump.org/linktypes.html>.
const LINKTYPE_ETHERNET: u16 = 1;
const LINKTYPE_RAW: u16 = 101;

/// Writes a block: its type, its length at both ends, and in between what `body` writes, in whole words.
fn block(out: &mut Vec<u8>, kind: u32, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend(kind.to_ne_bytes());
    out.extend([0; 4]);
    body(out);
    pad(out, start);
    let len = (out.len() - start + 4) as u32;
    out[start + 4..start + 8].copy_from_slice(&len.to_ne_bytes());
    out.extend(len.to_ne_bytes());
}

fn pad(out: &mut Vec<u8>, start: usize) {
    let len = (out.len() - start).next_multiple_of(4);
    out.resize(start + len, 0);
}

/// Writes an option.
fn option(out: &mut Vec<u8>, code: u16, value: &[u8]) {
    out.extend(code.to_ne_bytes());
    out.extend((value.len() as u16).to_ne_bytes());
    let start = out.len();
    out.extend_from_slice(value);
    pad(out, start);
}

const END_OF_OPTIONS: [u8; 4] = [0; 4];

fn time(out: &mut Vec<u8>, at: Nanos) {
    out.extend(((at >> 32) as u32).to_ne_bytes());
    out.extend((at as u32).to_ne_bytes());
}

/// The beginning of a file.
pub(crate) fn section(out: &mut Vec<u8>) {
    block(out, SECTION, |out| {
        out.extend(BYTE_ORDER.to_ne_bytes());
        out.extend(1u16.to_ne_bytes());
        out.extend(0u16.to_ne_bytes());
        // The section's length is not known.
        out.extend(u64::MAX.to_ne_bytes());
        option(out, 4, b"rumpkit");
        out.extend(END_OF_OPTIONS);
    });
}

/// An interface; they are numbered from 0 on.
pub(crate) fn interface(out: &mut Vec<u8>, name: &str, link: LinkType, snaplen: u32) {
    let link = match link {
        LinkType::Ethernet | LinkType::Loopback => LINKTYPE_ETHERNET,
        LinkType::Ip => LINKTYPE_RAW,
    };
    block(out, INTERFACE, |out| {
        out.extend(link.to_ne_bytes());
        out.extend(0u16.to_ne_bytes());
        out.extend(snaplen.to_ne_bytes());
        option(out, 2, name.as_bytes());
        option(out, 9, &[TIME_RESOLUTION]);
        out.extend(END_OF_OPTIONS);
    });
}

/// A packet of an interface.
pub(crate) fn packet(
    out: &mut Vec<u8>,
    interface: u32,
    at: Nanos,
    direction: Direction,
    packet: &Packet,
    snaplen: u32,
) {
    let len = packet.len();
    let mut left = len.min(snaplen as usize);
    block(out, PACKET, |out| {
        out.extend(interface.to_ne_bytes());
        time(out, at);
        out.extend((left as u32).to_ne_bytes());
        out.extend((len as u32).to_ne_bytes());
        let start = out.len();
        for piece in packet.pieces() {
            let here = piece.len().min(left);
            out.extend_from_slice(&piece[..here]);
            left -= here;
        }
        pad(out, start);
        let flags: u32 = match direction {
            Direction::In => 1,
            Direction::Out => 2,
        };
        option(out, 2, &flags.to_ne_bytes());
        out.extend(END_OF_OPTIONS);
    });
}

/// How many packets of an interface are missing.
pub(crate) fn statistics(out: &mut Vec<u8>, interface: u32, at: Nanos, dropped: u64) {
    block(out, STATISTICS, |out| {
        out.extend(interface.to_ne_bytes());
        time(out, at);
        option(out, 5, &dropped.to_ne_bytes());
        out.extend(END_OF_OPTIONS);
    });
}

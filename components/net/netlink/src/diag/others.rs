//! Sockets of the local domain, packet sockets and netlink sockets: `struct unix_diag_req`, `packet_diag_req`, `netlink_diag_req`. What
//! the three are, the net faction tells.

use abi::Errno;
use kern::Curlwp;
use net::consts::{AF_NETLINK, AF_PACKET, AF_UNIX, SOCK_RAW};
use net::{Net, SocketEntry};

use super::{SOCK_DIAG_BY_FAMILY, clamped};
use crate::groups::Members;
use crate::message::{NLM_F_MULTI, Request, u32_at};
use crate::socket::Answer;

/// Bytes of a `struct unix_diag_req`.
const UNIX_FIXED: usize = 24;
const UNIX_DIAG_NAME: u16 = 0;
const UNIX_DIAG_PEER: u16 = 2;
const UNIX_DIAG_RQLEN: u16 = 4;
/// Bits of what a request for local sockets wants to see.
const SHOW_NAME: u32 = 1;
const SHOW_PEER: u32 = 4;
const SHOW_RQLEN: u32 = 0x10;

const PACKET_DIAG_INFO: u16 = 0;
const PACKET_DIAG_MEMINFO: u16 = 6;
const NETLINK_DIAG_MEMINFO: u16 = 0;

/// The sockets of a family; `ENOENT` where the kernel has none of it.
fn entries(cx: &Curlwp<'_>, family: u16) -> Result<Vec<SocketEntry>, Errno> {
    let domain = Net::of(cx)?.domain(cx, family.into());
    Ok(domain.map_err(|_| Errno::ENOENT)?.sockets(cx))
}

/// The counts of a socket's memory, of which the bytes that wait are known.
fn memory(waiting: usize) -> [u8; 36] {
    let mut counts = [0; 36];
    counts[..4].copy_from_slice(&clamped(waiting));
    counts
}

/// Local sockets.
pub(super) fn unix(cx: &Curlwp<'_>, request: &Request<'_>, out: &mut Answer) -> Result<(), Errno> {
    let fixed = request.fixed::<UNIX_FIXED>()?;
    let word = |at| u32_at(&fixed, at).unwrap_or(0);
    let (states, number, show) = (word(4), word(8), word(12));
    let mut found = request.is_dump();
    for socket in entries(cx, AF_UNIX)? {
        let (wanted, flags) = match request.is_dump() {
            true => (states >> socket.state & 1 != 0, NLM_F_MULTI),
            false => (socket.number == number, 0),
        };
        if !wanted {
            continue;
        }
        found = true;
        let mut head = [0; 16];
        head[..3].copy_from_slice(&[AF_UNIX as u8, socket.kind.number() as u8, socket.state]);
        head[4..8].copy_from_slice(&socket.number.to_le_bytes());
        let writer = &mut out.writer;
        writer.message(SOCK_DIAG_BY_FAMILY, flags, &head);
        if show & SHOW_NAME != 0 && !socket.name.is_empty() {
            writer.attr(UNIX_DIAG_NAME, &socket.name);
        }
        if show & SHOW_PEER != 0 && socket.peer != 0 {
            writer.u32(UNIX_DIAG_PEER, socket.peer);
        }
        if show & SHOW_RQLEN != 0 {
            let queues = [clamped(socket.receive_queue), clamped(socket.send_queue)];
            writer.attr(UNIX_DIAG_RQLEN, &queues.concat());
        }
        writer.end();
        out.breathe();
    }
    match found {
        true => Ok(()),
        false => Err(Errno::ENOENT),
    }
}

/// Packet sockets.
pub(super) fn packet(
    cx: &Curlwp<'_>,
    request: &Request<'_>,
    out: &mut Answer,
) -> Result<(), Errno> {
    if !request.is_dump() {
        return Err(Errno::EOPNOTSUPP);
    }
    for socket in entries(cx, AF_PACKET)? {
        let mut head = [0; 16];
        head[..2].copy_from_slice(&[AF_PACKET as u8, socket.kind.number() as u8]);
        head[2..4].copy_from_slice(&socket.protocol.to_le_bytes());
        head[4..8].copy_from_slice(&socket.number.to_le_bytes());
        // The interface, and what the ring and time stamps are set to.
        let mut info = [0; 24];
        info[..4].copy_from_slice(&socket.interface.to_le_bytes());
        out.writer
            .message(SOCK_DIAG_BY_FAMILY, NLM_F_MULTI, &head)
            .attr(PACKET_DIAG_INFO, &info)
            .attr(PACKET_DIAG_MEMINFO, &memory(socket.receive_queue))
            .end();
        out.breathe();
    }
    Ok(())
}

/// Netlink sockets.
pub(super) fn netlink(
    cx: &Curlwp<'_>,
    members: &Members,
    request: &Request<'_>,
    out: &mut Answer,
) -> Result<(), Errno> {
    const ALL: u8 = 255;
    if !request.is_dump() {
        return Err(Errno::EOPNOTSUPP);
    }
    let [_, protocol] = request.fixed()?;
    for (number, socket) in (1u32..).zip(members.all(cx.cpu())) {
        let of = socket.family.protocol() as u8;
        if protocol != ALL && protocol != of {
            continue;
        }
        let mut head = [0; 28];
        head[..4].copy_from_slice(&[AF_NETLINK as u8, SOCK_RAW as u8, of, 7]);
        head[4..8].copy_from_slice(&socket.port().to_le_bytes());
        head[16..20].copy_from_slice(&number.to_le_bytes());
        out.writer
            .message(SOCK_DIAG_BY_FAMILY, NLM_F_MULTI, &head)
            .attr(NETLINK_DIAG_MEMINFO, &memory(socket.waiting(cx.cpu())))
            .end();
        out.breathe();
    }
    Ok(())
}

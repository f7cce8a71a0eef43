//! Sockets of IP, `struct inet_diag_req_v2`.

use core::net::IpAddr;

use abi::Errno;
use inet::{Endpoint, Inet, SocketInfo};
use kern::Curlwp;
use net::consts::{AF_INET, AF_INET6};

use super::{SOCK_DIAG_BY_FAMILY, clamped};
use crate::message::{NLM_F_MULTI, Request, Writer, u32_at};
use crate::socket::Answer;

/// Bytes of a `struct inet_diag_req_v2`.
const FIXED: usize = 56;
/// Bytes of a `struct inet_diag_msg`.
const MESSAGE: usize = 72;
const INET_DIAG_INFO: u16 = 2;
const INET_DIAG_SKMEMINFO: u16 = 7;

/// Answers one request.
pub(super) fn request(
    cx: &Curlwp<'_>,
    inet: &Inet,
    request: &Request<'_>,
    out: &mut Answer,
) -> Result<(), Errno> {
    let fixed = request.fixed::<FIXED>()?;
    let (family, protocol, extensions) = (u16::from(fixed[0]), fixed[1], fixed[2]);
    let states = u32_at(&fixed, 4).unwrap_or(0);
    let ports = [[fixed[8], fixed[9]], [fixed[10], fixed[11]]].map(u16::from_be_bytes);
    for socket in inet.sockets(cx) {
        let wanted = (u16::from(socket.v6) * (AF_INET6 - AF_INET) + AF_INET) == family
            && (socket.protocol == protocol || socket.raw && protocol == RAW)
            && states >> socket.state & 1 != 0;
        if !wanted {
            continue;
        }
        if !request.is_dump() {
            let remote = socket.remote.map_or(0, |r| r.port);
            if [socket.local.port, remote] == ports {
                describe(&mut out.writer, 0, &socket, extensions);
                return Ok(());
            }
            continue;
        }
        describe(&mut out.writer, NLM_F_MULTI, &socket, extensions);
        out.breathe();
    }
    if request.is_dump() {
        Ok(())
    } else {
        Err(Errno::ENOENT)
    }
}

/// `IPPROTO_RAW`, by which all raw sockets are asked for.
const RAW: u8 = 255;

/// Writes a message about a socket.
fn describe(writer: &mut Writer, flags: u16, socket: &SocketInfo, extensions: u8) {
    let mut fixed = [0; MESSAGE];
    let mut put = |at: usize, bytes: &[u8]| fixed[at..at + bytes.len()].copy_from_slice(bytes);
    let family = if socket.v6 { AF_INET6 } else { AF_INET };
    put(0, &[family as u8, socket.state]);
    put(4, &socket.local.port.to_be_bytes());
    put(8, &address(&socket.local, socket.v6));
    if let Some(remote) = &socket.remote {
        put(6, &remote.port.to_be_bytes());
        put(24, &address(remote, socket.v6));
    }
    put(40, &socket.interface.to_le_bytes());
    put(56, &clamped(socket.receive_queue));
    put(60, &clamped(socket.send_queue));
    writer.message(SOCK_DIAG_BY_FAMILY, flags, &fixed);
    if !socket.tcp_info.is_empty() && extensions >> (INET_DIAG_INFO - 1) & 1 != 0 {
        writer.attr(INET_DIAG_INFO, &socket.tcp_info);
    }
    if extensions >> (INET_DIAG_SKMEMINFO - 1) & 1 != 0 {
        // Of the nine counts the first, the third and the last are known.
        let mut memory = [0; 36];
        memory[..4].copy_from_slice(&clamped(socket.receive_queue));
        memory[8..12].copy_from_slice(&clamped(socket.send_queue));
        memory[32..].copy_from_slice(&clamped(socket.dropped as usize));
        writer.attr(INET_DIAG_SKMEMINFO, &memory);
    }
    writer.end();
}

/// An address in the sixteen bytes that there are for one.
fn address(end: &Endpoint, v6: bool) -> [u8; 16] {
    match end.addr {
        IpAddr::V6(ip) => ip.octets(),
        IpAddr::V4(ip) if v6 => ip.to_ipv6_mapped().octets(),
        IpAddr::V4(ip) => {
            let mut octets = [0; 16];
            octets[..4].copy_from_slice(&ip.octets());
            octets
        }
    }
}

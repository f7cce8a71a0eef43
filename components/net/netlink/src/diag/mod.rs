//! Sockets: `SOCK_DIAG_BY_FAMILY`, sock_diag(7), as ss(8) asks for them.

mod inet;
mod others;

use ::inet::Inet;
use abi::Errno;
use kern::Curlwp;
use net::consts::{AF_INET, AF_INET6, AF_NETLINK, AF_PACKET, AF_UNIX};

use crate::groups::Members;
use crate::message::Request;
use crate::socket::Answer;

const SOCK_DIAG_BY_FAMILY: u16 = 20;

/// Answers one request. `ENOENT` for a family that there is not, as Linux says it.
pub(crate) fn request(
    cx: &Curlwp<'_>,
    inet: &Inet,
    members: &Members,
    request: &Request<'_>,
    out: &mut Answer,
) -> Result<(), Errno> {
    if request.kind != SOCK_DIAG_BY_FAMILY {
        return Err(Errno::EINVAL);
    }
    let [family] = request.fixed()?;
    match u16::from(family) {
        AF_INET | AF_INET6 => inet::request(cx, inet, request, out),
        AF_UNIX => others::unix(cx, request, out),
        AF_PACKET => others::packet(cx, request, out),
        AF_NETLINK => others::netlink(cx, members, request, out),
        _ => Err(Errno::ENOENT),
    }
}

fn clamped(count: usize) -> [u8; 4] {
    u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes()
}

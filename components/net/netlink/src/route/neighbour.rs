//! Neighbours: `RTM_GETNEIGH` and so on, `struct ndmsg`.

use core::net::IpAddr;

use abi::Errno;
use inet::{Inet, Neighbour, NeighbourState};
use kern::Curlwp;
use net::EtherAddr;

use super::{RTM_NEWNEIGH, family_of, ip, octets, of_family};
use crate::message::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_MULTI, Request, Writer, u16_at, u32_at};
use crate::socket::Answer;

/// Bytes of a `struct ndmsg`.
const FIXED: usize = 12;

const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NTF_ROUTER: u8 = 0x80;
const NUD_PERMANENT: u16 = 0x80;
/// `RTN_UNICAST`.
const UNICAST: u8 = 1;

fn state_number(state: NeighbourState) -> u16 {
    match state {
        NeighbourState::Incomplete => 0x01,
        NeighbourState::Reachable => 0x02,
        NeighbourState::Stale => 0x04,
        NeighbourState::Delay => 0x08,
        NeighbourState::Probe => 0x10,
        NeighbourState::Failed => 0x20,
        NeighbourState::Permanent => NUD_PERMANENT,
    }
}

/// Writes a message about a neighbour.
pub(crate) fn describe(writer: &mut Writer, kind: u16, flags: u16, n: &Neighbour) {
    let mut fixed = [0; FIXED];
    fixed[0] = family_of(&n.addr);
    fixed[4..8].copy_from_slice(&n.interface.to_le_bytes());
    fixed[8..10].copy_from_slice(&state_number(n.state).to_le_bytes());
    fixed[10] = if n.router { NTF_ROUTER } else { 0 };
    fixed[11] = UNICAST;
    writer
        .message(kind, flags, &fixed)
        .attr(NDA_DST, &octets(&n.addr));
    if let Some(mac) = &n.mac {
        writer.attr(NDA_LLADDR, mac);
    }
    writer.end();
}

pub(super) fn get(
    cx: &Curlwp<'_>,
    inet: &Inet,
    request: &Request<'_>,
    out: &mut Answer,
) -> Result<(), Errno> {
    let fixed = request.fixed::<FIXED>().unwrap_or_default();
    if !request.is_dump() {
        return Err(Errno::EOPNOTSUPP);
    }
    let index = u32_at(&fixed, 4).unwrap_or(0);
    for neighbour in inet.neighbours(cx.cpu()) {
        if of_family(&neighbour.addr, fixed[0]) && (index == 0 || index == neighbour.interface) {
            describe(&mut out.writer, RTM_NEWNEIGH, NLM_F_MULTI, &neighbour);
            out.breathe();
        }
    }
    Ok(())
}

/// The interface and the address that a request is about, and the state that it names.
fn subject(request: &Request<'_>) -> Result<(u32, IpAddr, u16), Errno> {
    let fixed = request.fixed::<FIXED>()?;
    let bytes = request
        .attributes(FIXED)
        .get(NDA_DST)
        .ok_or(Errno::EINVAL)?;
    let index = u32_at(&fixed, 4).unwrap_or(0);
    Ok((index, ip(bytes, fixed[0])?, u16_at(&fixed, 8).unwrap_or(0)))
}

pub(super) fn add(cx: &Curlwp<'_>, inet: &Inet, request: &Request<'_>) -> Result<(), Errno> {
    let (index, address, state) = subject(request)?;
    let mac = request
        .attributes(FIXED)
        .get(NDA_LLADDR)
        .ok_or(Errno::EINVAL)?;
    let mac: EtherAddr = mac.try_into().map_err(|_| Errno::EINVAL)?;
    let known = inet.neighbours(cx.cpu());
    let there = known
        .iter()
        .any(|n| n.interface == index && n.addr == address);
    match there {
        true if request.flags & NLM_F_EXCL != 0 => return Err(Errno::EEXIST),
        false if request.flags & NLM_F_CREATE == 0 => return Err(Errno::ENOENT),
        _ => {}
    }
    let permanent = state & NUD_PERMANENT != 0;
    inet.set_neighbour(cx.cpu(), index, address, mac, permanent)
}

pub(super) fn delete(cx: &Curlwp<'_>, inet: &Inet, request: &Request<'_>) -> Result<(), Errno> {
    let (index, address, _) = subject(request)?;
    inet.delete_neighbour(cx.cpu(), index, &address)
}

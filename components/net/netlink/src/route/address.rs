//! Addresses: `RTM_GETADDR` and so on, `struct ifaddrmsg`.

use core::net::IpAddr;

use abi::Errno;
use hypercall::{Clock, Nanos};
use inet::{IfAddr, Inet};
use kern::Curlwp;
use sync::Cpu;

use super::{RTM_NEWADDR, family_of, ip, octets, of_family};
use crate::message::{NLM_F_EXCL, NLM_F_MULTI, NLM_F_REPLACE, Request, Writer, u32_at};
use crate::socket::Answer;

/// Bytes of a `struct ifaddrmsg`.
const FIXED: usize = 8;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_LABEL: u16 = 3;
const IFA_BROADCAST: u16 = 4;
const IFA_CACHEINFO: u16 = 6;
const IFA_FLAGS: u16 = 8;

const IFA_F_NODAD: u32 = 0x02;
const IFA_F_OPTIMISTIC: u32 = 0x04;
const IFA_F_DADFAILED: u32 = 0x08;
const IFA_F_DEPRECATED: u32 = 0x20;
const IFA_F_TENTATIVE: u32 = 0x40;
const IFA_F_PERMANENT: u32 = 0x80;

/// Seconds that stand for ever.
const FOREVER: u32 = u32::MAX;

fn seconds_left(until: Nanos, now: Nanos) -> u32 {
    match until {
        0 => FOREVER,
        _ => u32::try_from(until.saturating_sub(now) / 1_000_000_000).unwrap_or(FOREVER - 1),
    }
}

fn until(seconds: u32, now: Nanos) -> Nanos {
    match seconds {
        FOREVER => 0,
        _ => now
            .saturating_add(u64::from(seconds) * 1_000_000_000)
            .max(1),
    }
}

/// Writes a message about an address.
pub(crate) fn describe(
    writer: &mut Writer,
    cpu: &Cpu<'_>,
    inet: &Inet,
    kind: u16,
    flags: u16,
    a: &IfAddr,
) {
    let mut state = 0;
    for (is, flag) in [
        (a.tentative, IFA_F_TENTATIVE),
        (a.tentative && a.optimistic, IFA_F_OPTIMISTIC),
        (a.duplicate, IFA_F_DADFAILED),
        (a.deprecated, IFA_F_DEPRECATED),
        (a.valid_until == 0, IFA_F_PERMANENT),
    ] {
        state |= if is { flag } else { 0 };
    }
    let mut fixed = [
        family_of(&a.addr),
        a.prefix_len,
        state as u8,
        a.scope(),
        0,
        0,
        0,
        0,
    ];
    fixed[4..].copy_from_slice(&a.interface.to_le_bytes());
    writer
        .message(kind, flags, &fixed)
        .attr(IFA_ADDRESS, &octets(&a.peer.unwrap_or(a.addr)));
    if a.addr.is_ipv4() || a.peer.is_some() {
        writer.attr(IFA_LOCAL, &octets(&a.addr));
    }
    if let Some(broadcast) = a.broadcast {
        writer.attr(IFA_BROADCAST, &broadcast.octets());
    }
    if a.addr.is_ipv4()
        && let Some(interface) = inet.interfaces().by_index(a.interface)
    {
        writer.text(IFA_LABEL, &interface.name(cpu));
    }
    let now = cpu.cpus().host().now(Clock::Monotonic);
    let mut cache = [0; 16];
    cache[..4].copy_from_slice(&seconds_left(a.preferred_until, now).to_le_bytes());
    cache[4..8].copy_from_slice(&seconds_left(a.valid_until, now).to_le_bytes());
    writer
        .u32(IFA_FLAGS, state)
        .attr(IFA_CACHEINFO, &cache)
        .end();
}

pub(super) fn get(
    cx: &Curlwp<'_>,
    inet: &Inet,
    request: &Request<'_>,
    out: &mut Answer,
) -> Result<(), Errno> {
    let fixed = request.fixed::<FIXED>().unwrap_or_default();
    let index = u32_at(&fixed, 4).unwrap_or(0);
    if !request.is_dump() {
        return Err(Errno::EOPNOTSUPP);
    }
    for address in inet.addresses().iter() {
        if of_family(&address.addr, fixed[0]) && (index == 0 || index == address.interface) {
            describe(
                &mut out.writer,
                cx.cpu(),
                inet,
                RTM_NEWADDR,
                NLM_F_MULTI,
                address,
            );
            out.breathe();
        }
    }
    Ok(())
}

/// The interface and the address that a request is about, and its peer.
fn subject(request: &Request<'_>) -> Result<(u32, IpAddr, Option<IpAddr>, [u8; FIXED]), Errno> {
    let fixed = request.fixed::<FIXED>()?;
    let attributes = request.attributes(FIXED);
    let far = attributes
        .get(IFA_ADDRESS)
        .map(|b| ip(b, fixed[0]))
        .transpose()?;
    let near = attributes
        .get(IFA_LOCAL)
        .map(|b| ip(b, fixed[0]))
        .transpose()?;
    let address = near.or(far).ok_or(Errno::EINVAL)?;
    Ok((
        u32_at(&fixed, 4).unwrap_or(0),
        address,
        far.filter(|far| *far != address),
        fixed,
    ))
}

pub(super) fn add(cx: &Curlwp<'_>, inet: &Inet, request: &Request<'_>) -> Result<(), Errno> {
    let (interface, addr, peer, fixed) = subject(request)?;
    let most = if addr.is_ipv4() { 32 } else { 128 };
    if fixed[1] > most {
        return Err(Errno::EINVAL);
    }
    let attributes = request.attributes(FIXED);
    let mut address = IfAddr::new(interface, addr, fixed[1]);
    address.peer = peer;
    if addr.is_ipv4() {
        // As rtnetlink has it, an address has a broadcast address only when one is given.
        let given = attributes
            .get(IFA_BROADCAST)
            .and_then(|b| b.first_chunk::<4>());
        address.broadcast = given.map(|b| (*b).into());
    }
    let flags = attributes.u32(IFA_FLAGS).unwrap_or(fixed[2].into());
    address.nodad = flags & IFA_F_NODAD != 0;
    address.optimistic = flags & IFA_F_OPTIMISTIC != 0;
    if let Some(cache) = attributes.get(IFA_CACHEINFO) {
        let now = cx.now(Clock::Monotonic);
        address.preferred_until = until(u32_at(cache, 0).unwrap_or(FOREVER), now);
        address.valid_until = until(u32_at(cache, 4).unwrap_or(FOREVER), now);
    }
    match inet.add_address(cx.cpu(), address.clone()) {
        Err(Errno::EEXIST) if request.flags & (NLM_F_REPLACE | NLM_F_EXCL) == NLM_F_REPLACE => {
            inet.delete_address(cx.cpu(), interface, &addr)?;
            inet.add_address(cx.cpu(), address)
        }
        result => result,
    }
}

pub(super) fn delete(cx: &Curlwp<'_>, inet: &Inet, request: &Request<'_>) -> Result<(), Errno> {
    let (interface, address, ..) = subject(request)?;
    inet.delete_address(cx.cpu(), interface, &address)
}

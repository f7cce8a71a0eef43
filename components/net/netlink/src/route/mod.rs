//! Requests of the route family, rtnetlink(7).

mod address;
mod link;
mod neighbour;
#[expect(
    clippy::module_inception,
    reason = "rtnetlink's route requests are about routes, among others"
)]
mod route;
mod rule;

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use abi::Errno;
use inet::Inet;
use kern::Curlwp;
use net::consts::{AF_INET, AF_INET6};

pub(crate) use address::describe as describe_address;
pub(crate) use link::describe as describe_link;
pub(crate) use neighbour::describe as describe_neighbour;
pub(crate) use route::describe as describe_route;

use crate::message::Request;
use crate::socket::Answer;

pub(crate) const RTM_NEWLINK: u16 = 16;
pub(crate) const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
pub(crate) const RTM_NEWADDR: u16 = 20;
pub(crate) const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
pub(crate) const RTM_NEWROUTE: u16 = 24;
pub(crate) const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
pub(crate) const RTM_NEWNEIGH: u16 = 28;
pub(crate) const RTM_DELNEIGH: u16 = 29;
const RTM_GETNEIGH: u16 = 30;
const RTM_NEWRULE: u16 = 32;
const RTM_GETRULE: u16 = 34;

/// Answers one request.
pub(crate) fn request(
    cx: &Curlwp<'_>,
    inet: &Inet,
    request: &Request<'_>,
    out: &mut Answer,
) -> Result<(), Errno> {
    // Of the four types of a kind the third asks; the others change something.
    if request.kind % 4 != 2 && !cx.cred().is_superuser() {
        return Err(Errno::EPERM);
    }
    match request.kind {
        RTM_GETLINK => link::get(cx, inet, request, out),
        RTM_NEWLINK | RTM_SETLINK => link::set(cx, inet, request),
        RTM_DELLINK => link::delete(cx, inet, request),
        RTM_GETADDR => address::get(cx, inet, request, out),
        RTM_NEWADDR => address::add(cx, inet, request),
        RTM_DELADDR => address::delete(cx, inet, request),
        RTM_GETROUTE => route::get(cx, inet, request, out),
        RTM_NEWROUTE => route::add(cx, inet, request),
        RTM_DELROUTE => route::delete(cx, inet, request),
        RTM_GETNEIGH => neighbour::get(cx, inet, request, out),
        RTM_NEWNEIGH => neighbour::add(cx, inet, request),
        RTM_DELNEIGH => neighbour::delete(cx, inet, request),
        RTM_GETRULE => rule::get(request, out),
        _ => Err(Errno::EOPNOTSUPP),
    }
}

/// The family's number as messages have it.
fn family_of(ip: &IpAddr) -> u8 {
    match ip {
        IpAddr::V4(_) => AF_INET as u8,
        IpAddr::V6(_) => AF_INET6 as u8,
    }
}

/// Whether an address is of the family that was asked for; 0 is any.
fn of_family(ip: &IpAddr, family: u8) -> bool {
    family == 0 || family == family_of(ip)
}

/// An address from its bytes. `EINVAL` when it is none of the family.
fn ip(bytes: &[u8], family: u8) -> Result<IpAddr, Errno> {
    match u16::from(family) {
        AF_INET => bytes
            .first_chunk::<4>()
            .map(|b| IpAddr::V4(Ipv4Addr::from(*b)))
            .ok_or(Errno::EINVAL),
        AF_INET6 => bytes
            .first_chunk::<16>()
            .map(|b| IpAddr::V6(Ipv6Addr::from(*b)))
            .ok_or(Errno::EINVAL),
        _ => Err(Errno::EAFNOSUPPORT),
    }
}

/// An address as its bytes.
fn octets(ip: &IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// The address of no one in a family.
fn unspecified(family: u8) -> IpAddr {
    match u16::from(family) {
        AF_INET6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => Ipv4Addr::UNSPECIFIED.into(),
    }
}

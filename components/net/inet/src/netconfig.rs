//! Configuring a network by calls, as the classic `rump_pub_netconfig_*` have it: what librump and programs of the facade use where
//! no iproute2 is at hand.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use abi::Errno;
use kern::Curlwp;
use net::{IfError, Ifnet, Params};

use crate::dhcp::Lease;
use crate::route::{IfThere, Prefix, Route};
use crate::{IfAddr, Inet};

fn interface(cx: &Curlwp<'_>, inet: &Inet, name: &str) -> Result<Arc<Ifnet>, Errno> {
    inet.interfaces.by_name(cx.cpu(), name).ok_or(Errno::ENODEV)
}

/// Makes an interface by its name, `veth0` or `virt%d`, with the parameters that its kind takes (`key=value`, with commas between).
pub fn ifcreate(cx: &Curlwp<'_>, name: &str, params: &str) -> Result<String, IfError> {
    let inet = Inet::of(cx)?;
    let params = Params::parse(params)?;
    let made = inet.interfaces.create_named(cx, name, &params)?;
    Ok(made.name(cx.cpu()))
}

/// Brings an interface up. `ENODEV`, and what its driver says.
pub fn ifup(cx: &Curlwp<'_>, name: &str) -> Result<(), Errno> {
    let inet = Inet::of(cx)?;
    interface(cx, &inet, name)?.set_up(cx, true)
}

/// Brings an interface down.
pub fn ifdown(cx: &Curlwp<'_>, name: &str) -> Result<(), Errno> {
    let inet = Inet::of(cx)?;
    interface(cx, &inet, name)?.set_up(cx, false)
}

/// Takes an interface away.
pub fn ifdestroy(cx: &Curlwp<'_>, name: &str) -> Result<(), Errno> {
    let inet = Inet::of(cx)?;
    let interface = interface(cx, &inet, name)?;
    inet.interfaces.detach(cx, &interface)
}

/// Makes an interface of what its name stands for and what it is on: a bus's file for `shmif0`, a tap device for `virt0`. `EBUSY` when
/// there is one, `EOPNOTSUPP` for a kind that is on nothing.
pub fn ifsetlinkstr(cx: &Curlwp<'_>, name: &str, link: &str) -> Result<(), IfError> {
    let inet = Inet::of(cx)?;
    if inet.interfaces.by_name(cx.cpu(), name).is_some() {
        return Err(Errno::EBUSY.into());
    }
    let key = inet.interfaces.link_of(cx, name);
    let mut params = Params::default();
    params.set(key.ok_or(Errno::EOPNOTSUPP)?, link);
    inet.interfaces.create_named(cx, name, &params).map(drop)
}

/// Whether the interface of a name cannot be before [`ifsetlinkstr`] says what it is on, and the name is free.
pub fn wants_linkstr(cx: &Curlwp<'_>, name: &str) -> Result<bool, Errno> {
    let inet = Inet::of(cx)?;
    let free = inet.interfaces.by_name(cx.cpu(), name).is_none();
    Ok(free && inet.interfaces.link_of(cx, name).is_some())
}

/// Makes an interface a port of a bridge. `EBUSY` when it is one already, `EOPNOTSUPP` when the other has no ports.
pub fn bradd(cx: &Curlwp<'_>, bridge: &str, name: &str) -> Result<(), Errno> {
    let inet = Inet::of(cx)?;
    let port = interface(cx, &inet, name)?;
    interface(cx, &inet, bridge)?.driver().add_port(cx, &port)
}

/// Ends what [`bradd`] began. `ENOENT` when it is no port of the bridge.
pub fn brdel(cx: &Curlwp<'_>, bridge: &str, name: &str) -> Result<(), Errno> {
    let inet = Inet::of(cx)?;
    let port = interface(cx, &inet, name)?;
    let bridge = interface(cx, &inet, bridge)?;
    if port.master() != bridge.index() {
        return Err(Errno::ENOENT);
    }
    bridge.driver().remove_port(cx, &port)
}

/// Gives an interface an IPv4 address and a mask, `255.255.255.0`. `EINVAL` for what is no address or no mask.
pub fn ipv4_ifaddr(cx: &Curlwp<'_>, name: &str, addr: &str, mask: &str) -> Result<(), Errno> {
    let mask: Ipv4Addr = mask.parse().map_err(|_| Errno::EINVAL)?;
    let bits = u32::from(mask);
    if bits.leading_ones() + bits.trailing_zeros() < 32 {
        return Err(Errno::EINVAL);
    }
    ipv4_ifaddr_cidr(cx, name, addr, bits.leading_ones() as u8)
}

/// Gives an interface an IPv4 address and the length of its prefix.
pub fn ipv4_ifaddr_cidr(
    cx: &Curlwp<'_>,
    name: &str,
    addr: &str,
    prefix_len: u8,
) -> Result<(), Errno> {
    let addr: Ipv4Addr = addr.parse().map_err(|_| Errno::EINVAL)?;
    add(cx, name, addr.into(), prefix_len)
}

/// Gives an interface an IPv6 address and the length of its prefix.
pub fn ipv6_ifaddr(cx: &Curlwp<'_>, name: &str, addr: &str, prefix_len: u8) -> Result<(), Errno> {
    let addr: Ipv6Addr = addr.parse().map_err(|_| Errno::EINVAL)?;
    add(cx, name, addr.into(), prefix_len)
}

fn add(cx: &Curlwp<'_>, name: &str, addr: IpAddr, prefix_len: u8) -> Result<(), Errno> {
    let inet = Inet::of(cx)?;
    let index = interface(cx, &inet, name)?.index();
    inet.add_address(cx.cpu(), IfAddr::new(index, addr, prefix_len))
}

/// Sends what has no other way to this IPv4 router. `ENETUNREACH` when it is on no link.
pub fn ipv4_gw(cx: &Curlwp<'_>, gateway: &str) -> Result<(), Errno> {
    let gateway: Ipv4Addr = gateway.parse().map_err(|_| Errno::EINVAL)?;
    default_route(cx, gateway.into())
}

/// Sends what has no other way to this IPv6 router.
pub fn ipv6_gw(cx: &Curlwp<'_>, gateway: &str) -> Result<(), Errno> {
    let gateway: Ipv6Addr = gateway.parse().map_err(|_| Errno::EINVAL)?;
    default_route(cx, gateway.into())
}

fn default_route(cx: &Curlwp<'_>, gateway: IpAddr) -> Result<(), Errno> {
    let inet = Inet::of(cx)?;
    let all = Prefix::new(crate::addr::any(gateway.is_ipv6()), 0)?;
    inet.add_route(cx.cpu(), Route::via(all, gateway, 0), IfThere::Replace)
}

/// Asks for an IPv4 address and waits for it; it is kept from then on.
pub fn dhcp_ipv4(cx: &Curlwp<'_>, name: &str) -> Result<Lease, Errno> {
    let inet = Inet::of(cx)?;
    let interface = interface(cx, &inet, name)?;
    interface.set_up(cx, true)?;
    inet.dhcp(cx, interface.index())
}

/// Has an interface make its own IPv6 addresses, from what routers say: it does so whenever it is up and routers' advertisements are
/// accepted, which this switches on.
pub fn auto_ipv6(cx: &Curlwp<'_>, name: &str) -> Result<(), Errno> {
    let inet = Inet::of(cx)?;
    let interface = interface(cx, &inet, name)?;
    inet.config.accept_advertisements();
    if interface.is_up() {
        interface.set_up(cx, false)?;
    }
    interface.set_up(cx, true)
}

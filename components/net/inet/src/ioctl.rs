//! The `SIOC*` calls of ioctl(2) on addresses, routes and neighbours, netdevice(7), rtnetlink's elders. What concerns an interface
//! whatever its addresses is the net faction's.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use abi::{Errno, SysResult, UserAddr};
use kern::Curlwp;
use net::consts::{AF_INET, IFF_UP};
use net::{Addr, Ifnet, interface_of_request};

use crate::addr::Endpoint;
use crate::route::{IfThere, Prefix, Route, RouteKind};
use crate::{IfAddr, Inet, NeighbourState};

const SIOCADDRT: u32 = 0x890b;
const SIOCDELRT: u32 = 0x890c;
const SIOCGIFCONF: u32 = 0x8912;
const SIOCGIFADDR: u32 = 0x8915;
const SIOCSIFADDR: u32 = 0x8916;
const SIOCGIFDSTADDR: u32 = 0x8917;
const SIOCSIFDSTADDR: u32 = 0x8918;
const SIOCGIFBRDADDR: u32 = 0x8919;
const SIOCSIFBRDADDR: u32 = 0x891a;
const SIOCGIFNETMASK: u32 = 0x891b;
const SIOCSIFNETMASK: u32 = 0x891c;
const SIOCDIFADDR: u32 = 0x8936;
const SIOCDARP: u32 = 0x8953;
const SIOCGARP: u32 = 0x8954;
const SIOCSARP: u32 = 0x8955;

/// Bytes of `struct ifreq`, and of the name that it begins with.
const IFREQ: usize = 40;
const NAME: usize = 16;
/// Bytes of `struct rtentry`.
const RTENTRY: usize = 120;
/// Bytes of `struct in6_ifreq` and `struct in6_rtmsg`.
const IN6_IFREQ: usize = 24;
const IN6_RTMSG: usize = 80;
/// Bytes of `struct arpreq`.
const ARPREQ: usize = 68;

const RTF_GATEWAY: u16 = 2;
const RTF_HOST: u16 = 4;
const RTF_REJECT: u16 = 0x200;
const ATF_COM: i32 = 2;
const ATF_PERM: i32 = 4;

/// A `struct ifreq`, the interface that it names, and its first IPv4 address.
type Requested = ([u8; IFREQ], Arc<Ifnet>, Option<Arc<IfAddr>>);

impl Inet {
    /// An ioctl that is not of one protocol, on a socket of a family.
    pub(crate) fn ioctl(&self, cx: &Curlwp<'_>, v6: bool, cmd: u32, arg: UserAddr) -> SysResult {
        let reads = matches!(
            cmd,
            SIOCGIFCONF | SIOCGIFADDR | SIOCGIFDSTADDR | SIOCGIFBRDADDR | SIOCGIFNETMASK | SIOCGARP
        );
        if !reads && !cx.cred().is_superuser() {
            return Err(Errno::EPERM);
        }
        match cmd {
            SIOCGIFCONF => self.list_interfaces(cx, arg)?,
            SIOCADDRT | SIOCDELRT if v6 => self.change_route6(cx, cmd == SIOCADDRT, arg)?,
            SIOCADDRT | SIOCDELRT => self.change_route4(cx, cmd == SIOCADDRT, arg)?,
            SIOCSIFADDR | SIOCDIFADDR if v6 => self.change_address6(cx, cmd == SIOCSIFADDR, arg)?,
            SIOCGIFADDR | SIOCGIFDSTADDR | SIOCGIFBRDADDR | SIOCGIFNETMASK => {
                self.get_address(cx, cmd, arg)?
            }
            SIOCSIFADDR | SIOCSIFDSTADDR | SIOCSIFBRDADDR | SIOCSIFNETMASK | SIOCDIFADDR => {
                self.set_address(cx, cmd, arg)?;
            }
            SIOCGARP | SIOCSARP | SIOCDARP => self.change_arp(cx, cmd, arg)?,
            _ => return Err(Errno::ENOTTY),
        }
        Ok(0)
    }

    /// The IPv4 addresses with the names of their interfaces.
    fn list_interfaces(&self, cx: &Curlwp<'_>, arg: UserAddr) -> Result<(), Errno> {
        let mut head = [0; 16];
        cx.copyin(arg, &mut head)?;
        let room = i32::from_ne_bytes([head[0], head[1], head[2], head[3]]);
        let mut pointer = [0; 8];
        pointer.copy_from_slice(&head[8..]);
        let to = UserAddr(u64::from_ne_bytes(pointer));
        let mut out = Vec::new();
        for addr in self.addresses().iter().filter(|a| a.addr.is_ipv4()) {
            let Some(interface) = self.interfaces.by_index(addr.interface) else {
                continue;
            };
            let start = out.len();
            out.extend_from_slice(interface.name(cx.cpu()).as_bytes());
            out.resize(start + NAME, 0);
            out.extend_from_slice(Endpoint::new(addr.addr, 0).to_addr(false).bytes());
            out.resize(start + IFREQ, 0);
        }
        if !to.is_null() {
            let room = usize::try_from(room).map_err(|_| Errno::EINVAL)?;
            out.truncate(room / IFREQ * IFREQ);
            cx.copyout(&out, to)?;
        }
        cx.copyout(&(out.len() as i32).to_ne_bytes(), arg)
    }

    /// An interface and the IPv4 address of it that a request means.
    fn requested(&self, cx: &Curlwp<'_>, arg: UserAddr) -> Result<Requested, Errno> {
        let mut request = [0; IFREQ];
        cx.copyin(arg, &mut request)?;
        let interface = interface_of_request(cx, &self.interfaces, &request)?;
        let addr = self
            .addresses()
            .iter()
            .find(|a| a.addr.is_ipv4() && a.interface == interface.index())
            .cloned();
        Ok((request, interface, addr))
    }

    fn get_address(&self, cx: &Curlwp<'_>, cmd: u32, arg: UserAddr) -> Result<(), Errno> {
        let (mut request, _, addr) = self.requested(cx, arg)?;
        let addr = addr.ok_or(Errno::EADDRNOTAVAIL)?;
        let ip = match cmd {
            SIOCGIFADDR => addr.addr,
            SIOCGIFDSTADDR => addr.peer.unwrap_or(addr.addr),
            SIOCGIFBRDADDR => addr.broadcast.unwrap_or(Ipv4Addr::UNSPECIFIED).into(),
            _ => mask(addr.prefix_len).into(),
        };
        request[NAME..NAME + 16].copy_from_slice(Endpoint::new(ip, 0).to_addr(false).bytes());
        cx.copyout(&request, arg)
    }

    fn set_address(&self, cx: &Curlwp<'_>, cmd: u32, arg: UserAddr) -> Result<(), Errno> {
        let (request, interface, old) = self.requested(cx, arg)?;
        let IpAddr::V4(ip) = Endpoint::parse(&Addr::new(&request[NAME..NAME + 16]), false)?.addr
        else {
            return Err(Errno::EINVAL);
        };
        let index = interface.index();
        let new = match (cmd, &old) {
            (SIOCSIFADDR, _) if ip.is_unspecified() => None,
            (SIOCSIFADDR, _) => {
                let peer = old.as_ref().and_then(|a| a.peer);
                Some(IfAddr {
                    peer,
                    ..IfAddr::new(index, ip.into(), class_len(ip))
                })
            }
            (SIOCDIFADDR, _) => None,
            (_, None) => return Err(Errno::EADDRNOTAVAIL),
            (SIOCSIFDSTADDR, Some(old)) => Some(IfAddr {
                peer: (!ip.is_unspecified()).then_some(ip.into()),
                ..IfAddr::clone(old)
            }),
            (SIOCSIFBRDADDR, Some(old)) => Some(IfAddr {
                broadcast: Some(ip),
                ..IfAddr::clone(old)
            }),
            (_, Some(old)) => {
                let bits = u32::from(ip);
                if bits.leading_ones() + bits.trailing_zeros() < 32 {
                    return Err(Errno::EINVAL);
                }
                Some(IfAddr {
                    peer: old.peer,
                    ..IfAddr::new(index, old.addr, bits.leading_ones() as u8)
                })
            }
        };
        if let Some(old) = old {
            self.delete_address(cx.cpu(), index, &old.addr)?;
        }
        if let Some(new) = new {
            self.add_address(cx.cpu(), new)?;
            if cmd == SIOCSIFADDR && interface.flags() & IFF_UP == 0 {
                // As Linux does it: who gets an address comes up.
                interface.set_up(cx, true)?;
            }
        }
        Ok(())
    }

    /// `struct rtentry`.
    fn change_route4(&self, cx: &Curlwp<'_>, add: bool, arg: UserAddr) -> Result<(), Errno> {
        let mut raw = [0; RTENTRY];
        cx.copyin(arg, &mut raw)?;
        let ip = |at: usize| {
            let family = u16::from_ne_bytes([raw[at], raw[at + 1]]);
            let ip = Ipv4Addr::new(raw[at + 4], raw[at + 5], raw[at + 6], raw[at + 7]);
            (family == AF_INET).then_some(ip)
        };
        let dst = ip(8).ok_or(Errno::EAFNOSUPPORT)?;
        let gateway = ip(24).filter(|g| !g.is_unspecified());
        let flags = u16::from_ne_bytes([raw[56], raw[57]]);
        let metric = i16::from_ne_bytes([raw[80], raw[81]]).max(0) as u32;
        let mut device = [0; 8];
        device.copy_from_slice(&raw[88..96]);
        let mut mtu = [0; 8];
        mtu.copy_from_slice(&raw[96..104]);
        let len = match flags & RTF_HOST {
            0 => {
                let mask = u32::from(ip(40).unwrap_or(Ipv4Addr::UNSPECIFIED));
                if mask.leading_ones() + mask.trailing_zeros() < 32 {
                    return Err(Errno::EINVAL);
                }
                mask.leading_ones() as u8
            }
            _ => 32,
        };
        let prefix = Prefix::new(dst.into(), len)?;
        if prefix.addr != dst {
            return Err(Errno::EINVAL);
        }
        let oif = match u64::from_ne_bytes(device) {
            0 => 0,
            at => {
                let name = cx.copyin_str(UserAddr(at), 15)?;
                let name = std::str::from_utf8(&name).map_err(|_| Errno::ENODEV)?;
                self.interfaces
                    .by_name(cx.cpu(), name)
                    .ok_or(Errno::ENODEV)?
                    .index()
            }
        };
        let gateway = gateway
            .filter(|_| flags & RTF_GATEWAY != 0)
            .map(IpAddr::from);
        let mut route = match gateway {
            Some(gateway) => Route::via(prefix, gateway, oif),
            None => Route::on_link(prefix, oif),
        };
        route.metric = metric.saturating_sub(1);
        route.mtu = u64::from_ne_bytes(mtu).min(65_536) as u32;
        if flags & RTF_REJECT != 0 {
            route.kind = RouteKind::Unreachable;
        }
        self.change_route(cx, add, route)
    }

    /// `struct in6_rtmsg`.
    fn change_route6(&self, cx: &Curlwp<'_>, add: bool, arg: UserAddr) -> Result<(), Errno> {
        let mut raw = [0; IN6_RTMSG];
        cx.copyin(arg, &mut raw)?;
        let word = |at: usize| u32::from_ne_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]]);
        let len = u16::from_ne_bytes([raw[52], raw[53]]);
        let prefix = Prefix::new(
            ip6(&raw[..16])?.into(),
            u8::try_from(len).map_err(|_| Errno::EINVAL)?,
        )?;
        let (metric, flags, oif) = (word(56), word(72) as u16, word(76));
        let gateway = ip6(&raw[32..48])?;
        let mut route = match flags & RTF_GATEWAY {
            0 => Route::on_link(prefix, oif),
            _ => Route::via(prefix, gateway.into(), oif),
        };
        route.metric = metric;
        self.change_route(cx, add, route)
    }

    fn change_route(&self, cx: &Curlwp<'_>, add: bool, route: Route) -> Result<(), Errno> {
        if add {
            return self.add_route(cx.cpu(), route, IfThere::Fail);
        }
        self.delete_route(cx.cpu(), &route.dst, |r| {
            r.table == route.table
                && (route.oif == 0 || r.oif == route.oif)
                && (route.gateway.is_none() || r.gateway == route.gateway)
        })
    }

    /// `struct in6_ifreq`.
    fn change_address6(&self, cx: &Curlwp<'_>, add: bool, arg: UserAddr) -> Result<(), Errno> {
        let mut raw = [0; IN6_IFREQ];
        cx.copyin(arg, &mut raw)?;
        let ip = ip6(&raw[..16])?.into();
        let word = |at: usize| u32::from_ne_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]]);
        let len = u8::try_from(word(16)).map_err(|_| Errno::EINVAL)?;
        match add {
            true => self.add_address(cx.cpu(), IfAddr::new(word(20), ip, len)),
            false => self.delete_address(cx.cpu(), word(20), &ip),
        }
    }

    /// `struct arpreq`, arp(7).
    fn change_arp(&self, cx: &Curlwp<'_>, cmd: u32, arg: UserAddr) -> Result<(), Errno> {
        let mut raw = [0; ARPREQ];
        cx.copyin(arg, &mut raw)?;
        let ip = Endpoint::parse(&Addr::new(&raw[..16]), false)?.addr;
        let device = raw[52..].split(|b| *b == 0).next().unwrap_or(&[]);
        let interface = match std::str::from_utf8(device) {
            Ok("") => self.route(&ip, 0)?.interface,
            Ok(name) => self
                .interfaces
                .by_name(cx.cpu(), name)
                .ok_or(Errno::ENODEV)?,
            Err(_) => return Err(Errno::ENODEV),
        };
        let index = interface.index();
        match cmd {
            SIOCSARP => {
                let mut mac = [0; 6];
                mac.copy_from_slice(&raw[18..24]);
                let flags = i32::from_ne_bytes([raw[32], raw[33], raw[34], raw[35]]);
                self.set_neighbour(cx.cpu(), index, ip, mac, flags & ATF_PERM != 0)
            }
            SIOCDARP => self
                .delete_neighbour(cx.cpu(), index, &ip)
                .map_err(|_| Errno::ENXIO),
            _ => {
                let all = self.neighbours(cx.cpu());
                let known = all.iter().find(|n| n.interface == index && n.addr == ip);
                let known = known.ok_or(Errno::ENXIO)?;
                let mac = known.mac.ok_or(Errno::ENXIO)?;
                raw[16..18].copy_from_slice(&interface.link().hardware().to_ne_bytes());
                raw[18..24].copy_from_slice(&mac);
                let permanent = known.state == NeighbourState::Permanent;
                let flags = ATF_COM | if permanent { ATF_PERM } else { 0 };
                raw[32..36].copy_from_slice(&flags.to_ne_bytes());
                cx.copyout(&raw, arg)
            }
        }
    }
}

fn ip6(bytes: &[u8]) -> Result<Ipv6Addr, Errno> {
    let octets: [u8; 16] = bytes.try_into().map_err(|_| Errno::EINVAL)?;
    Ok(octets.into())
}

fn mask(len: u8) -> Ipv4Addr {
    u32::MAX
        .checked_shl(32 - u32::from(len.min(32)))
        .unwrap_or(0)
        .into()
}

/// The prefix that an address of the old classes has, which is what who sets an address without one gets.
fn class_len(ip: Ipv4Addr) -> u8 {
    match ip.octets()[0] {
        0..=127 => 8,
        128..=191 => 16,
        _ => 24,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_and_classes() {
        assert_eq!(mask(0), Ipv4Addr::UNSPECIFIED);
        assert_eq!(mask(20), Ipv4Addr::new(255, 255, 240, 0));
        assert_eq!(mask(32), Ipv4Addr::BROADCAST);
        assert_eq!(class_len(Ipv4Addr::new(172, 16, 0, 1)), 16);
    }
}

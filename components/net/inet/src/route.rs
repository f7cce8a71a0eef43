//! Routes: where packets to an address go.

use core::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use abi::Errno;
use arc_swap::ArcSwap;
use net::Ifnet;
use sync::{Cpu, Mutex};

use crate::trie::{Bits, Trie};
use crate::{Event, Inet, leaf};

/// An address and how many of its bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Prefix {
    /// The address; bits beyond `len` are zero.
    pub addr: IpAddr,
    /// Bits that count.
    pub len: u8,
}

impl Prefix {
    /// The first `len` bits of an address. `EINVAL` when it has fewer.
    pub fn new(addr: IpAddr, len: u8) -> Result<Prefix, Errno> {
        let width = width(&addr);
        if len > width {
            return Err(Errno::EINVAL);
        }
        let bits = Bits::new(bits(&addr), len).bits;
        let addr = match addr {
            IpAddr::V4(_) => IpAddr::V4(((bits >> 96) as u32).into()),
            IpAddr::V6(_) => IpAddr::V6(bits.into()),
        };
        Ok(Prefix { addr, len })
    }

    /// The one address.
    pub fn host(addr: IpAddr) -> Prefix {
        Prefix {
            addr,
            len: width(&addr),
        }
    }

    /// Whether an address is in it.
    pub fn contains(&self, addr: &IpAddr) -> bool {
        self.addr.is_ipv4() == addr.is_ipv4()
            && Bits::new(bits(addr), self.len).bits == bits(&self.addr)
    }

    fn bits(&self) -> Bits {
        Bits::new(bits(&self.addr), self.len)
    }
}

fn width(addr: &IpAddr) -> u8 {
    if addr.is_ipv4() { 32 } else { 128 }
}

/// An address's bits from the left.
fn bits(addr: &IpAddr) -> u128 {
    match addr {
        IpAddr::V4(ip) => u128::from(u32::from(*ip)) << 96,
        IpAddr::V6(ip) => u128::from(*ip),
    }
}

/// What becomes of packets that take a route, `RTN_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum RouteKind {
    Unicast,
    Local,
    Broadcast,
    Multicast,
    Blackhole,
    Unreachable,
    Prohibit,
}

/// The main table, `RT_TABLE_MAIN`.
pub const TABLE_MAIN: u32 = 254;
/// The table of this kernel's own addresses, `RT_TABLE_LOCAL`.
pub const TABLE_LOCAL: u32 = 255;
/// Made by the kernel, `RTPROT_KERNEL`.
pub const PROTO_KERNEL: u8 = 2;
/// Made at boot, by the calls of ioctl(2) too, `RTPROT_BOOT`.
pub const PROTO_BOOT: u8 = 3;
/// From a router's advertisement, `RTPROT_RA`.
pub const PROTO_RA: u8 = 9;
/// From DHCP, `RTPROT_DHCP`.
pub const PROTO_DHCP: u8 = 16;

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Which addresses it is for.
    pub dst: Prefix,
    /// What becomes of the packets.
    pub kind: RouteKind,
    /// The router; `None` when the addresses are on the link.
    pub gateway: Option<IpAddr>,
    /// The interface's index; 0 where none is needed.
    pub oif: u32,
    /// The source address of who has no other.
    pub prefsrc: Option<IpAddr>,
    /// Of several the lowest counts.
    pub metric: u32,
    /// `RT_TABLE_*`, for those who list routes.
    pub table: u32,
    /// `RT_SCOPE_*`.
    pub scope: u8,
    /// `RTPROT_*`: who made it.
    pub protocol: u8,
    /// The MTU of the path, in bytes; 0 for the interface's.
    pub mtu: u32,
}

impl Route {
    /// A route of the main table, on the link.
    pub fn on_link(dst: Prefix, oif: u32) -> Route {
        Route {
            dst,
            kind: RouteKind::Unicast,
            gateway: None,
            oif,
            prefsrc: None,
            metric: 0,
            table: TABLE_MAIN,
            scope: 253,
            protocol: PROTO_BOOT,
            mtu: 0,
        }
    }

    /// A route of the main table by a router.
    pub fn via(dst: Prefix, gateway: IpAddr, oif: u32) -> Route {
        Route {
            gateway: Some(gateway),
            scope: 0,
            ..Route::on_link(dst, oif)
        }
    }

    /// Whether another one takes its place.
    fn same_place(&self, other: &Route) -> bool {
        (self.dst, self.table, self.metric) == (other.dst, other.table, other.metric)
            && (self.dst.addr.is_ipv4() || (self.gateway, self.oif) == (other.gateway, other.oif))
    }
}

/// Where the next packet goes.
#[derive(Clone)]
pub(crate) struct Hop {
    /// The interface that it leaves by.
    pub(crate) interface: Arc<Ifnet>,
    /// Whose link-layer address it goes to.
    pub(crate) next: IpAddr,
    /// The source address of who has no other.
    pub(crate) src: IpAddr,
    /// In bytes, with the IP header.
    pub(crate) mtu: u32,
    /// Unicast, local, broadcast or multicast.
    pub(crate) kind: RouteKind,
}

type Table = Trie<Arc<[Arc<Route>]>>;

/// The routes of both families. `changing` is a leaf and is held while a table is swapped.
#[derive(Default)]
pub(crate) struct Fib {
    v4: ArcSwap<Table>,
    v6: ArcSwap<Table>,
    changing: Mutex<()>,
    generation: AtomicU64,
}

impl Fib {
    fn table(&self, addr: &IpAddr) -> &ArcSwap<Table> {
        if addr.is_ipv4() { &self.v4 } else { &self.v6 }
    }

    /// Changes with every route, address and path MTU: who has kept a [`Hop`] looks whether it still holds.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(crate) fn changed(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    fn change<R>(
        &self,
        cpu: &Cpu<'_>,
        dst: &Prefix,
        change: impl FnOnce(&mut Vec<Arc<Route>>) -> R,
    ) -> R {
        let leaf = leaf(cpu);
        let _guard = self.changing.lock(&leaf);
        let table = self.table(&dst.addr);
        let old = table.load();
        let mut routes = old.get(dst.bits()).map(|r| r.to_vec()).unwrap_or_default();
        let answer = change(&mut routes);
        routes.sort_by_key(|r| (r.table != TABLE_LOCAL, r.metric));
        let value = (!routes.is_empty()).then(|| routes.into());
        table.store(Arc::new(old.with(dst.bits(), value)));
        self.changed();
        answer
    }
}

/// What to do about a route that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfThere {
    /// `EEXIST`.
    Fail,
    /// It goes.
    Replace,
}

impl Inet {
    /// Adds a route. `EEXIST`, `ENODEV` for an interface that is not there, `ENETUNREACH` for a router that is on no link.
    pub fn add_route(
        &self,
        cpu: &Cpu<'_>,
        mut route: Route,
        if_there: IfThere,
    ) -> Result<(), Errno> {
        if let (Some(gateway), 0) = (route.gateway, route.oif) {
            let hop = self.route(&gateway, 0).map_err(|_| Errno::ENETUNREACH)?;
            if hop.next != gateway {
                // Another router would have to be asked where this one is.
                return Err(Errno::ENETUNREACH);
            }
            route.oif = hop.interface.index();
        }
        let needs_interface = matches!(
            route.kind,
            RouteKind::Unicast | RouteKind::Local | RouteKind::Broadcast | RouteKind::Multicast
        );
        if needs_interface && self.interfaces.by_index(route.oif).is_none() {
            return Err(Errno::ENODEV);
        }
        let route = Arc::new(route);
        self.fib.change(cpu, &route.dst, |routes| {
            let before = routes.iter().position(|r| r.same_place(&route));
            match (before, if_there) {
                (Some(_), IfThere::Fail) => return Err(Errno::EEXIST),
                (Some(at), IfThere::Replace) => drop(routes.remove(at)),
                (None, _) => {}
            }
            routes.push(route.clone());
            Ok(())
        })?;
        self.tell(cpu, &Event::RouteAdded(route));
        Ok(())
    }

    /// Takes routes to a prefix away that fit; at most one. `ESRCH` when there is none.
    pub fn delete_route(
        &self,
        cpu: &Cpu<'_>,
        dst: &Prefix,
        fits: impl Fn(&Route) -> bool,
    ) -> Result<(), Errno> {
        let gone = self.fib.change(cpu, dst, |routes| {
            let at = routes.iter().position(|r| fits(r))?;
            Some(routes.remove(at))
        });
        let gone = gone.ok_or(Errno::ESRCH)?;
        self.tell(cpu, &Event::RouteDeleted(gone));
        Ok(())
    }

    /// Takes away all routes that fit, of both families.
    pub(crate) fn flush_routes(&self, cpu: &Cpu<'_>, fits: impl Fn(&Route) -> bool) {
        for route in self.routes() {
            if fits(&route) {
                let _ = self.delete_route(cpu, &route.dst, |r| *r == *route);
            }
        }
    }

    /// All routes, of both families.
    pub fn routes(&self) -> Vec<Arc<Route>> {
        let (v4, v6) = (self.fib.v4.load(), self.fib.v6.load());
        let all = v4.values().into_iter().chain(v6.values());
        all.flat_map(|routes| routes.iter().cloned()).collect()
    }

    /// The route to an address by its longest prefix: by interface `oif`, if not 0. Interfaces that are down have none.
    pub fn find_route(&self, dst: &IpAddr, oif: u32) -> Option<Arc<Route>> {
        let table = self.fib.table(dst).load();
        table.longest(bits(dst), |routes| {
            let fits = |r: &&Arc<Route>| match r.kind {
                RouteKind::Local => true,
                RouteKind::Blackhole | RouteKind::Unreachable | RouteKind::Prohibit => true,
                _ => {
                    (oif == 0 || r.oif == oif)
                        && self.interfaces.by_index(r.oif).is_some_and(|i| i.is_up())
                }
            };
            routes.iter().find(fits).cloned()
        })
    }

    /// The source address that packets to an address have, by interface `oif` if not 0.
    pub fn source_for(&self, dst: &IpAddr, oif: u32) -> Option<IpAddr> {
        self.route(dst, oif).ok().map(|hop| hop.src)
    }

    /// Where a packet to an address goes, by interface `oif` if not 0. `ENETUNREACH` and what routes of other kinds say.
    pub(crate) fn route(&self, dst: &IpAddr, oif: u32) -> Result<Hop, Errno> {
        let kind = self.special(dst);
        let Some(route) = self.find_route(dst, oif) else {
            return self.without_route(dst, oif, kind);
        };
        let kind = match (route.kind, kind) {
            (RouteKind::Blackhole, _) => return Err(Errno::EINVAL),
            (RouteKind::Unreachable, _) => return Err(Errno::EHOSTUNREACH),
            (RouteKind::Prohibit, _) => return Err(Errno::EACCES),
            (RouteKind::Unicast, Some(kind)) => kind,
            (kind, _) => kind,
        };
        let interface = match kind {
            RouteKind::Local => self.loopback().ok_or(Errno::ENETUNREACH)?,
            _ => self
                .interfaces
                .by_index(route.oif)
                .ok_or(Errno::ENETUNREACH)?,
        };
        let next = match kind {
            RouteKind::Unicast => route.gateway.unwrap_or(*dst),
            _ => *dst,
        };
        let src = match route.prefsrc {
            Some(src) => src,
            None => self
                .source(&interface, &next, dst)
                .ok_or(Errno::EADDRNOTAVAIL)?,
        };
        let mut mtu = interface.mtu();
        if route.mtu != 0 {
            mtu = mtu.min(route.mtu);
        }
        if let Some(path) = self.path_mtu.get(dst) {
            mtu = mtu.min(path);
        }
        Ok(Hop {
            interface,
            next,
            src,
            mtu,
            kind,
        })
    }

    /// Groups and broadcasts need no route when it is said which interface is meant.
    fn without_route(&self, dst: &IpAddr, oif: u32, kind: Option<RouteKind>) -> Result<Hop, Errno> {
        let kind = match kind {
            Some(kind) => kind,
            None if oif != 0 && crate::addr::is_link_local(dst) => RouteKind::Unicast,
            None => return Err(Errno::ENETUNREACH),
        };
        let interface = match oif {
            0 => {
                let list = self.interfaces.list();
                let any = list.iter().find(|i| i.is_up() && !i.is_loopback());
                any.or(list.iter().find(|i| i.is_up())).cloned()
            }
            oif => self.interfaces.by_index(oif).filter(|i| i.is_up()),
        };
        let interface = interface.ok_or(Errno::ENETUNREACH)?;
        let src = self
            .source(&interface, dst, dst)
            .unwrap_or(crate::addr::any(dst.is_ipv6()));
        Ok(Hop {
            next: *dst,
            src,
            mtu: interface.mtu(),
            interface,
            kind,
        })
    }

    /// What an address is by itself.
    fn special(&self, dst: &IpAddr) -> Option<RouteKind> {
        match dst {
            IpAddr::V4(ip) if ip.is_broadcast() => Some(RouteKind::Broadcast),
            ip if ip.is_multicast() => Some(RouteKind::Multicast),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_has_no_bits_behind_its_length() {
        let prefix = Prefix::new("10.1.2.3".parse().unwrap(), 8).unwrap();
        assert_eq!(prefix.addr, "10.0.0.0".parse::<IpAddr>().unwrap());
        assert!(prefix.contains(&"10.255.0.1".parse().unwrap()));
        assert!(!prefix.contains(&"11.0.0.1".parse().unwrap()));
        assert!(!prefix.contains(&"::".parse().unwrap()));
        assert_eq!(
            Prefix::new("10.1.2.3".parse().unwrap(), 33),
            Err(Errno::EINVAL)
        );
        let all = Prefix::new("2001:db8::1".parse().unwrap(), 0).unwrap();
        assert!(all.contains(&"::1".parse().unwrap()));
    }
}

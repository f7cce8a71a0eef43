//! The addresses of interfaces, and the routes that come with them.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use abi::Errno;
use arc_swap::ArcSwap;
use hypercall::Nanos;
use net::Ifnet;
use sync::{Cpu, Mutex};

use crate::group::{Member, solicited_node};
use crate::route::{IfThere, PROTO_KERNEL, Prefix, Route, RouteKind, TABLE_LOCAL, TABLE_MAIN};
use crate::{Event, Inet, SourceFilter, leaf};

/// An address of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IfAddr {
    /// The interface's index.
    pub interface: u32,
    /// The address.
    pub addr: IpAddr,
    /// How many of its bits name the network on the link.
    pub prefix_len: u8,
    /// The other end of a point-to-point link.
    pub peer: Option<IpAddr>,
    /// The broadcast address, of IPv4.
    pub broadcast: Option<Ipv4Addr>,
    /// It is used at once, without asking whether anybody has it.
    pub nodad: bool,
    /// It is used while it is asked whether anybody has it (RFC 4429).
    pub optimistic: bool,
    /// It is not yet known that nobody else has it: unless it is optimistic nobody may use it (duplicate address detection).
    pub tentative: bool,
    /// Somebody else has it.
    pub duplicate: bool,
    /// New connections use another one if there is one.
    pub deprecated: bool,
    /// Until when new connections shall use it, on the monotonic clock; 0 for ever.
    pub preferred_until: Nanos,
    /// Until when it is there, on the monotonic clock; 0 for ever.
    pub valid_until: Nanos,
    /// Who made it, `RTPROT_*`; 0 for whoever configures.
    pub protocol: u8,
}

impl IfAddr {
    /// An address that stays, with the broadcast address that goes with its prefix.
    pub fn new(interface: u32, addr: IpAddr, prefix_len: u8) -> IfAddr {
        let broadcast = match addr {
            IpAddr::V4(ip) if prefix_len < 31 => {
                Some(Ipv4Addr::from(u32::from(ip) | u32::MAX >> prefix_len))
            }
            _ => None,
        };
        IfAddr {
            interface,
            addr,
            prefix_len,
            peer: None,
            broadcast,
            nodad: false,
            optimistic: false,
            tentative: false,
            duplicate: false,
            deprecated: false,
            preferred_until: 0,
            valid_until: 0,
            protocol: 0,
        }
    }

    /// `RT_SCOPE_*`: how far it reaches.
    pub fn scope(&self) -> u8 {
        match self.addr {
            ip if ip.is_loopback() => 254,
            IpAddr::V6(ip) if ip.is_unicast_link_local() => 253,
            IpAddr::V4(ip) if ip.is_link_local() => 253,
            _ => 0,
        }
    }

    pub(crate) fn usable(&self) -> bool {
        (!self.tentative || self.optimistic) && !self.duplicate
    }

    /// The routes that come with it.
    fn routes(&self, interface: &Ifnet) -> Vec<Route> {
        let local = |dst: Prefix, kind| Route {
            kind,
            table: TABLE_LOCAL,
            protocol: PROTO_KERNEL,
            scope: if kind == RouteKind::Local { 254 } else { 253 },
            prefsrc: Some(self.addr),
            ..Route::on_link(dst, self.interface)
        };
        let mut routes = vec![local(Prefix::host(self.addr), RouteKind::Local)];
        let full = Prefix::host(self.addr).len;
        let net = Prefix::new(self.peer.unwrap_or(self.addr), self.prefix_len);
        if let Ok(net) = net
            && (self.prefix_len < full || self.peer.is_some())
        {
            if interface.is_loopback() {
                routes.push(local(net, RouteKind::Local));
            } else {
                routes.push(Route {
                    protocol: PROTO_KERNEL,
                    prefsrc: self.addr.is_ipv4().then_some(self.addr),
                    metric: if self.addr.is_ipv4() { 0 } else { 256 },
                    table: TABLE_MAIN,
                    ..Route::on_link(net, self.interface)
                });
            }
        }
        if let Some(broadcast) = self.broadcast
            && !interface.is_loopback()
        {
            routes.push(local(Prefix::host(broadcast.into()), RouteKind::Broadcast));
        }
        routes
    }
}

/// All addresses; swapped whole. `changing` is a leaf.
#[derive(Default)]
pub(crate) struct Addrs {
    list: ArcSwap<Vec<Arc<IfAddr>>>,
    changing: Mutex<()>,
}

impl Addrs {
    fn change<R>(&self, cpu: &Cpu<'_>, change: impl FnOnce(&mut Vec<Arc<IfAddr>>) -> R) -> R {
        let leaf = leaf(cpu);
        let _guard = self.changing.lock(&leaf);
        let mut list = Vec::clone(&self.list.load());
        let answer = change(&mut list);
        self.list.store(Arc::new(list));
        answer
    }
}

impl Inet {
    /// The addresses of all interfaces, in the order in which they came.
    pub fn addresses(&self) -> Arc<Vec<Arc<IfAddr>>> {
        self.addrs.list.load_full()
    }

    /// Gives an interface an address, and adds the routes that go with it. `EEXIST` when it has it, `ENODEV`, `EINVAL`.
    pub fn add_address(&self, cpu: &Cpu<'_>, mut addr: IfAddr) -> Result<(), Errno> {
        let interface = self
            .interfaces
            .by_index(addr.interface)
            .ok_or(Errno::ENODEV)?;
        Prefix::new(addr.addr, addr.prefix_len)?;
        if addr.addr.is_multicast() || addr.addr.is_unspecified() {
            return Err(Errno::EINVAL);
        }
        addr.tentative = !addr.nodad && self.needs_probing(&interface, &addr.addr);
        let addr = Arc::new(addr);
        self.addrs.change(cpu, |list| {
            let same = |a: &Arc<IfAddr>| (a.interface, a.addr) == (addr.interface, addr.addr);
            if list.iter().any(same) {
                return Err(Errno::EEXIST);
            }
            list.push(addr.clone());
            Ok(())
        })?;
        self.add_address_routes(cpu, &addr, &interface);
        self.join_solicited(cpu, &addr, SourceFilter::ALL);
        self.introduce_address(cpu, &interface, &addr);
        if addr.valid_until != 0 || addr.preferred_until != 0 {
            self.want_slow_timer(cpu);
        }
        self.tell(cpu, &Event::AddressAdded(addr));
        Ok(())
    }

    /// Hears the group by which neighbours ask for an address (RFC 4291 2.8), or does not any more.
    fn join_solicited(&self, cpu: &Cpu<'_>, addr: &IfAddr, whom: SourceFilter) {
        if let IpAddr::V6(ip) = addr.addr {
            let group = solicited_node(&ip).into();
            self.want_group(cpu, addr.interface, group, Member::Address(ip), whom);
        }
    }

    fn add_address_routes(&self, cpu: &Cpu<'_>, addr: &IfAddr, interface: &Ifnet) {
        if addr.usable() {
            for route in addr.routes(interface) {
                // Another address of the same network may have brought the route already.
                let _ = self.add_route(cpu, route, IfThere::Fail);
            }
        }
    }

    fn delete_address_routes(&self, cpu: &Cpu<'_>, gone: &IfAddr, interface: &Ifnet) {
        for route in gone.routes(interface) {
            let _ = self.delete_route(cpu, &route.dst, |r| {
                r.protocol == PROTO_KERNEL && r.oif == route.oif && r.kind == route.kind
            });
        }
        let addresses = self.addresses();
        for other in addresses.iter().filter(|a| a.interface == gone.interface) {
            self.add_address_routes(cpu, other, interface);
        }
    }

    /// Takes an address away, with the routes that nobody else needs. `EADDRNOTAVAIL`.
    pub fn delete_address(
        &self,
        cpu: &Cpu<'_>,
        interface: u32,
        addr: &IpAddr,
    ) -> Result<(), Errno> {
        let gone = self.addrs.change(cpu, |list| {
            let at = list
                .iter()
                .position(|a| a.interface == interface && a.addr == *addr)?;
            Some(list.remove(at))
        });
        let gone = gone.ok_or(Errno::EADDRNOTAVAIL)?;
        self.join_solicited(cpu, &gone, SourceFilter::NOBODY);
        if let Some(ifnet) = self.interfaces.by_index(interface) {
            self.delete_address_routes(cpu, &gone, &ifnet);
        }
        self.flush_routes(cpu, |r| {
            r.prefsrc == Some(*addr) && r.protocol != PROTO_KERNEL
        });
        let last = |a: &Arc<IfAddr>| a.interface != interface || !a.addr.is_ipv4();
        if addr.is_ipv4() && self.addresses().iter().all(last) {
            // As on Linux, an interface without an address of IPv4 has no routes of it either.
            self.flush_routes(cpu, |r| r.oif == interface && r.dst.addr.is_ipv4());
        }
        self.tell(cpu, &Event::AddressDeleted(gone));
        Ok(())
    }

    /// Changes what is known of an address; answers whether it is there.
    pub(crate) fn change_address(
        &self,
        cpu: &Cpu<'_>,
        interface: u32,
        addr: &IpAddr,
        change: impl FnOnce(&mut IfAddr),
    ) -> bool {
        let changed = self.addrs.change(cpu, |list| {
            let at = list
                .iter()
                .position(|a| a.interface == interface && a.addr == *addr)?;
            let mut new = IfAddr::clone(&list[at]);
            change(&mut new);
            list[at] = Arc::new(new);
            Some(list[at].clone())
        });
        let Some(changed) = changed else {
            return false;
        };
        if let Some(ifnet) = self.interfaces.by_index(interface) {
            match changed.duplicate {
                true => self.delete_address_routes(cpu, &changed, &ifnet),
                false => self.add_address_routes(cpu, &changed, &ifnet),
            }
        }
        self.tell(cpu, &Event::AddressAdded(changed));
        true
    }

    /// Whether an address is this kernel's own.
    pub fn is_local(&self, addr: &IpAddr) -> bool {
        self.find_route(addr, 0)
            .is_some_and(|r| r.kind == RouteKind::Local)
    }

    /// The source address for packets from an interface to an address: RFC 6724 as far as it goes without policies.
    pub(crate) fn source(&self, interface: &Ifnet, next: &IpAddr, dst: &IpAddr) -> Option<IpAddr> {
        let list = self.addrs.list.load();
        let usable = |a: &&Arc<IfAddr>| a.usable() && a.addr.is_ipv4() == dst.is_ipv4();
        let mine = list
            .iter()
            .filter(usable)
            .filter(|a| a.interface == interface.index());
        let best = match dst {
            IpAddr::V4(_) => {
                let on_link = |a: &&Arc<IfAddr>| {
                    Prefix::new(a.addr, a.prefix_len).is_ok_and(|p| p.contains(next))
                };
                mine.clone().find(on_link).or(mine.clone().next())
            }
            IpAddr::V6(dst) => mine.clone().max_by_key(|a| rank(a, dst)),
        };
        // An interface without an address borrows one that reaches far enough.
        let borrowed = || list.iter().filter(usable).find(|a| a.scope() == 0);
        best.or_else(borrowed).map(|a| a.addr)
    }
}

/// How good a source address is for a destination.
fn rank(addr: &IfAddr, dst: &Ipv6Addr) -> (bool, bool, bool, u32) {
    let IpAddr::V6(ip) = addr.addr else {
        return Default::default();
    };
    let link = |ip: &Ipv6Addr| crate::addr::is_link_local(&IpAddr::V6(*ip));
    let common = (u128::from(ip) ^ u128::from(*dst)).leading_zeros();
    (
        ip == *dst,
        link(&ip) == link(dst),
        !addr.deprecated && !addr.tentative,
        common.min(addr.prefix_len.into()),
    )
}

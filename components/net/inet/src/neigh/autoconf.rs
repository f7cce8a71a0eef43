//! Stateless address autoconfiguration, RFC 4862: a link-local address for every link, and from routers' advertisements
//! (RFC 4861 6.3) addresses, the default route and the link's MTU.

use core::net::{IpAddr, Ipv6Addr};
use std::collections::HashMap;
use std::sync::Arc;

use hypercall::Nanos;
use net::{EtherAddr, Ifnet, LinkType};
use sync::{Cpu, Mutex};

use super::dad::Probes;
use super::ndp::{ALL_ROUTERS, ROUTER_SOLICITATION, SOURCE_LINK, link_address, options};
use super::{News, SECOND};
use crate::ifaddr::IfAddr;
use crate::route::{IfThere, PROTO_RA, Prefix, Route};
use crate::{Inet, leaf};

/// Routers are asked for so often, so far apart (`MAX_RTR_SOLICITATIONS`, `RTR_SOLICITATION_INTERVAL`).
const SOLICITATIONS: u8 = 3;
const SOLICITATION_INTERVAL: Nanos = 4 * SECOND;
/// Bytes of an advertisement without options.
const LEN: usize = 16;
const PREFIX: u8 = 3;
const MTU: u8 = 5;
const DNS_SERVERS: u8 = 25;
/// In a prefix: it is on the link; addresses may be made of it.
const ON_LINK: u8 = 0x80;
const AUTONOMOUS: u8 = 0x40;
/// A lifetime, in seconds, that has no end.
const FOREVER: u32 = u32::MAX;
/// An address's lifetime is not cut below this by an advertisement that anybody could have forged (RFC 4862 5.5.3).
const TWO_HOURS: Nanos = 7200 * SECOND;
/// The most that advertisements make on all links: addresses, routers, and name servers.
const MOST_ADDRESSES: usize = 16;
const MOST_ROUTERS: usize = 16;
const MOST_SERVERS: usize = 8;
const MOST_PREFIXES: usize = 64;
/// The metric of routes from advertisements, Linux's.
const METRIC: u32 = 1024;

/// What is under way on the links. `asking`, `servers`, `expiring` are leaves.
#[derive(Default)]
pub(crate) struct Autoconf {
    pub(super) probes: Probes,
    /// Interfaces whose routers are asked for: how often they were, and when it goes on.
    asking: Mutex<HashMap<u32, (u8, Nanos)>>,
    /// Name servers that were told.
    servers: Mutex<Vec<IpAddr>>,
    /// Default routers, and until when they are.
    expiring: Mutex<HashMap<(u32, IpAddr), Nanos>>,
}

/// An address of a network with the interface identifier of an Ethernet address, modified EUI-64 (RFC 4291, appendix A).
fn with_identifier(network: Ipv6Addr, mac: EtherAddr) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac;
    let low = u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
    (u128::from(network) >> 64 << 64 | u128::from(low)).into()
}

/// When a lifetime ends; 0 for never.
fn end(seconds: u32, now: Nanos) -> Nanos {
    match seconds {
        FOREVER => 0,
        seconds => now.saturating_add(u64::from(seconds) * SECOND).max(1),
    }
}

impl Inet {
    /// An interface has come up: its addresses are introduced to the link, and the link's routers are asked for.
    pub(crate) fn link_up(&self, cpu: &Cpu<'_>, interface: &Arc<Ifnet>) {
        if interface.link() != LinkType::Ethernet {
            return;
        }
        let index = interface.index();
        let mut link_local = false;
        for a in self.addresses().iter().filter(|a| a.interface == index) {
            link_local |= a.addr.is_ipv6() && crate::addr::is_link_local(&a.addr);
            let mut a = IfAddr::clone(a);
            if !a.nodad && self.needs_probing(interface, &a.addr) && !a.duplicate {
                a.tentative = true;
                self.change_address(cpu, index, &a.addr, |a| a.tentative = true);
            }
            self.introduce_address(cpu, interface, &a);
        }
        if !link_local {
            let network = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0);
            let addr = with_identifier(network, interface.address(&leaf(cpu)));
            let _ = self.add_address(cpu, IfAddr::new(index, addr.into(), 64));
        }
        if self.accepts_advertisements() {
            let next = self.now() + SECOND;
            self.autoconf
                .asking
                .lock(&leaf(cpu))
                .insert(index, (0, next));
            self.want_slow_timer(cpu);
        }
    }

    /// An interface has gone down, or away.
    pub(crate) fn link_down(&self, cpu: &Cpu<'_>, index: u32) {
        self.autoconf.asking.lock(&leaf(cpu)).remove(&index);
        self.forget_neighbours(cpu, index);
    }

    fn accepts_advertisements(&self) -> bool {
        self.config.accept_ra() != 0 && self.config.forwarding6() == 0
    }

    fn solicit_routers(&self, cpu: &Cpu<'_>, interface: &Arc<Ifnet>) {
        let addresses = self.addresses();
        let src = addresses.iter().find_map(|a| match a.addr {
            IpAddr::V6(ip) if a.interface == interface.index() && !a.tentative => {
                ip.is_unicast_link_local().then_some(ip)
            }
            _ => None,
        });
        let mut message = vec![ROUTER_SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
        if src.is_some() {
            self.with_link_address(cpu, interface, SOURCE_LINK, &mut message);
        }
        let src = src.unwrap_or(Ipv6Addr::UNSPECIFIED);
        self.send_ndp(cpu, interface, src, ALL_ROUTERS, message);
    }

    /// A router's advertisement.
    pub(super) fn router_advertised(
        &self,
        cpu: &Cpu<'_>,
        interface: &Arc<Ifnet>,
        from: Ipv6Addr,
        message: &[u8],
    ) -> Option<()> {
        let head: &[u8; LEN] = message.first_chunk()?;
        let options = options(&message[LEN..])?;
        if !from.is_unicast_link_local() || !self.accepts_advertisements() {
            return None;
        }
        let index = interface.index();
        self.autoconf.asking.lock(&leaf(cpu)).remove(&index);
        let news = News {
            mac: link_address(&options, SOURCE_LINK),
            solicited: false,
            overrides: true,
            router: Some(true),
            creates: true,
        };
        self.heard_of(cpu, interface, from.into(), &news);
        let mtu = options
            .iter()
            .find(|(kind, _)| *kind == MTU)
            .and_then(|(_, value)| value.get(2..)?.first_chunk().copied())
            .map(u32::from_be_bytes)
            .filter(|mtu| (1280..=interface.mtu()).contains(mtu));
        let lifetime = u16::from_be_bytes([head[6], head[7]]);
        self.default_router(cpu, index, from.into(), lifetime, mtu.unwrap_or(0));
        for (kind, value) in &options {
            match *kind {
                PREFIX => drop(self.prefix_advertised(cpu, interface, value)),
                DNS_SERVERS => self.servers_advertised(cpu, value),
                _ => {}
            }
        }
        Some(())
    }

    fn default_router(&self, cpu: &Cpu<'_>, index: u32, router: IpAddr, lifetime: u16, mtu: u32) {
        let key = (index, router);
        {
            let leaf = leaf(cpu);
            let mut expiring = self.autoconf.expiring.lock(&leaf);
            if lifetime != 0 {
                if expiring.len() >= MOST_ROUTERS && !expiring.contains_key(&key) {
                    return;
                }
                expiring.insert(key, self.now() + u64::from(lifetime) * SECOND);
            } else {
                expiring.remove(&key);
            }
        }
        if lifetime == 0 {
            return self.router_is_gone(cpu, key);
        }
        let Ok(everything) = Prefix::new(Ipv6Addr::UNSPECIFIED.into(), 0) else {
            return;
        };
        let route = Route {
            protocol: PROTO_RA,
            metric: METRIC,
            mtu,
            ..Route::via(everything, router, index)
        };
        if !self.routes().iter().any(|r| **r == route) {
            let _ = self.add_route(cpu, route, IfThere::Replace);
        }
        self.want_slow_timer(cpu);
    }

    fn router_is_gone(&self, cpu: &Cpu<'_>, (index, router): (u32, IpAddr)) {
        self.flush_routes(cpu, |r| {
            r.protocol == PROTO_RA && r.oif == index && r.gateway == Some(router)
        });
    }

    /// A prefix option, without type and length (RFC 4861 4.6.2).
    fn prefix_advertised(&self, cpu: &Cpu<'_>, interface: &Arc<Ifnet>, value: &[u8]) -> Option<()> {
        let value: &[u8; 30] = value.first_chunk()?;
        let seconds = |at: usize| {
            u32::from_be_bytes([value[at], value[at + 1], value[at + 2], value[at + 3]])
        };
        let (len, flags, valid, preferred) = (value[0], value[1], seconds(2), seconds(6));
        let octets: [u8; 16] = value[14..].try_into().ok()?;
        let network = Ipv6Addr::from(octets);
        if network.is_unicast_link_local() || network.is_multicast() || preferred > valid {
            return None;
        }
        if flags & ON_LINK != 0 && valid != 0 {
            let routes = self.routes();
            if routes.iter().filter(|r| r.protocol == PROTO_RA).count() < MOST_PREFIXES {
                let route = Route {
                    protocol: PROTO_RA,
                    metric: 256,
                    ..Route::on_link(Prefix::new(network.into(), len).ok()?, interface.index())
                };
                let _ = self.add_route(cpu, route, IfThere::Fail);
            }
        }
        if flags & AUTONOMOUS != 0 && len == 64 {
            self.autonomous_address(cpu, interface, network, valid, preferred);
        }
        Some(())
    }

    /// Makes the address of an advertised network, or gives it new lifetimes (RFC 4862 5.5.3).
    fn autonomous_address(
        &self,
        cpu: &Cpu<'_>,
        interface: &Arc<Ifnet>,
        network: Ipv6Addr,
        valid: u32,
        preferred: u32,
    ) {
        let (now, index) = (self.now(), interface.index());
        let addr = IpAddr::V6(with_identifier(network, interface.address(&leaf(cpu))));
        let addresses = self.addresses();
        let known = addresses
            .iter()
            .find(|a| a.interface == index && a.addr == addr);
        let (valid_until, preferred_until) = (end(valid, now), end(preferred, now));
        if let Some(known) = known {
            let least = now + TWO_HOURS;
            let short = valid_until != 0 && valid_until < least;
            let valid_until = match known.valid_until {
                old if short && (old == 0 || old > least) => least,
                old if short && old > valid_until => old,
                _ => valid_until,
            };
            self.change_address(cpu, index, &addr, |a| {
                a.valid_until = valid_until;
                a.preferred_until = preferred_until;
                a.deprecated = false;
            });
        } else if valid != 0
            && addresses.iter().filter(|a| a.protocol == PROTO_RA).count() < MOST_ADDRESSES
        {
            let new = IfAddr {
                valid_until,
                preferred_until,
                protocol: PROTO_RA,
                ..IfAddr::new(index, addr, 64)
            };
            let _ = self.add_address(cpu, new);
        }
        self.want_slow_timer(cpu);
    }

    /// Name servers, RFC 8106.
    fn servers_advertised(&self, cpu: &Cpu<'_>, value: &[u8]) {
        let leaf = leaf(cpu);
        let mut servers = self.autoconf.servers.lock(&leaf);
        for octets in value.get(6..).unwrap_or(&[]).as_chunks::<16>().0 {
            let server = IpAddr::from(*octets);
            if servers.len() < MOST_SERVERS && !servers.contains(&server) {
                servers.push(server);
            }
        }
    }

    /// Somebody has told of name servers.
    pub(crate) fn learn_name_servers(&self, cpu: &Cpu<'_>, told: impl Iterator<Item = IpAddr>) {
        let leaf = leaf(cpu);
        let mut servers = self.autoconf.servers.lock(&leaf);
        for server in told {
            if servers.len() < MOST_SERVERS && !servers.contains(&server) {
                servers.push(server);
            }
        }
    }

    /// Name servers that routers and DHCP servers have told of.
    pub fn name_servers(&self, cpu: &Cpu<'_>) -> Vec<IpAddr> {
        self.autoconf.servers.lock(&leaf(cpu)).clone()
    }

    /// Asks on, and ends what has come to its end. Answers whether there is more to wait for.
    pub(crate) fn age_autoconf(&self, cpu: &Cpu<'_>) -> bool {
        let now = self.now();
        let mut more = self.age_probes(cpu);
        let (mut ask, mut gone) = (Vec::new(), Vec::new());
        {
            let leaf = leaf(cpu);
            let mut asking = self.autoconf.asking.lock(&leaf);
            asking.retain(|&index, (asked, until)| {
                if now >= *until {
                    *asked += 1;
                    *until = now + SOLICITATION_INTERVAL;
                    ask.push(index);
                }
                *asked < SOLICITATIONS
            });
            more |= !asking.is_empty();
        }
        {
            let leaf = leaf(cpu);
            let mut expiring = self.autoconf.expiring.lock(&leaf);
            expiring.retain(|&key, until| {
                let over = now >= *until;
                if over {
                    gone.push(key);
                }
                !over
            });
            more |= !expiring.is_empty();
        }
        for index in ask {
            if let Some(interface) = self.interfaces.by_index(index) {
                self.solicit_routers(cpu, &interface);
            }
        }
        gone.into_iter()
            .for_each(|key| self.router_is_gone(cpu, key));
        more | self.age_addresses(cpu, now)
    }

    fn age_addresses(&self, cpu: &Cpu<'_>, now: Nanos) -> bool {
        let mut more = false;
        for a in self.addresses().iter() {
            if a.valid_until == 0 && a.preferred_until == 0 {
                continue;
            }
            if a.valid_until != 0 && now >= a.valid_until {
                let _ = self.delete_address(cpu, a.interface, &a.addr);
                continue;
            }
            more = true;
            if a.preferred_until != 0 && now >= a.preferred_until && !a.deprecated {
                self.change_address(cpu, a.interface, &a.addr, |a| a.deprecated = true);
            }
        }
        more
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_is_made_of_the_link_address() {
        let network = "fe80::".parse().unwrap();
        let addr = with_identifier(network, [0x02, 0x11, 0x22, 0x33, 0x44, 0x55]);
        assert_eq!(addr, "fe80::11:22ff:fe33:4455".parse::<Ipv6Addr>().unwrap());
    }

    #[test]
    fn a_lifetime_of_all_ones_has_no_end() {
        assert_eq!(end(FOREVER, 5), 0);
        assert_eq!(end(2, 5), 2 * SECOND + 5);
        assert_eq!(end(0, 0), 1);
    }
}

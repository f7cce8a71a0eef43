//! Rules in the form in which packets are compared with them. Immutable once made; a new text makes new ones.

use core::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::lang::{self, Action, Direction, Family, Host, Match, Rule, Ruleset, Source};
use crate::state::{State, States};
use crate::wire::{Key, Seen};

/// What rules ask of the stack: the addresses of its interfaces.
pub(crate) trait Addresses {
    /// Whether an interface has an address.
    fn has(&self, interface: u32, addr: &IpAddr) -> bool;
    /// The address of a family that an interface sends from.
    fn first(&self, interface: u32, v6: bool) -> Option<IpAddr>;
}

/// An interface that rules name. It may come, go and come again with another index.
pub(crate) struct Named {
    pub(crate) name: String,
    /// 0 when there is none of the name.
    pub(crate) index: AtomicU32,
}

impl Named {
    fn index(&self) -> u32 {
        self.index.load(Ordering::Relaxed)
    }

    fn is(&self, interface: u32) -> bool {
        interface != 0 && self.index() == interface
    }
}

/// What passed by a rule, and by the states that it made.
#[derive(Default)]
pub(crate) struct Counter {
    pub(crate) packets: AtomicU64,
    pub(crate) bytes: AtomicU64,
}

impl Counter {
    pub(crate) fn count(&self, bytes: usize) {
        self.packets.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// A text of rules and what has been made of it; and the connections, which are kept from one text to the next.
pub(crate) struct Loaded {
    pub(crate) text: Ruleset,
    pub(crate) states: Arc<States>,
    pub(crate) interfaces: Vec<Arc<Named>>,
    /// One for each rule of the text, in the same order, and so on.
    pub(crate) rules: Vec<Decision>,
    pub(crate) nat: Vec<Translation>,
    pub(crate) rdr: Vec<Translation>,
    /// Of what no rule fits.
    pub(crate) others: Arc<Counter>,
}

/// A rule that decides.
pub(crate) struct Decision {
    pub(crate) action: Action,
    pub(crate) log: bool,
    direction: Option<Direction>,
    on: Option<Arc<Named>>,
    via: Option<Arc<Named>>,
    pattern: Pattern,
    pub(crate) counter: Arc<Counter>,
}

/// A rule that translates.
pub(crate) struct Translation {
    on: Option<Arc<Named>>,
    pattern: Pattern,
    to: Target,
    pub(crate) counter: Arc<Counter>,
}

enum Target {
    /// An address, and a port where that changes.
    Address(IpAddr, Option<u16>),
    /// That of an interface.
    Interface(Arc<Named>),
}

/// Where a packet is, as rules see it.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) direction: Direction,
    /// The indices of its interfaces, 0 where there is none.
    pub(crate) input: u32,
    pub(crate) output: u32,
}

impl Loaded {
    /// Prepares a text.
    pub(crate) fn new(text: Ruleset, states: Arc<States>) -> Loaded {
        let mut maker = Maker::new(&text.tables);
        let rules = text.rules.iter().map(|rule| maker.rule(rule)).collect();
        let nat = text.nat.iter().map(|nat| Translation {
            on: maker.interface(nat.on.as_deref()),
            pattern: maker.pattern(&nat.matches),
            to: match &nat.to {
                Source::Address(addr) => Target::Address(*addr, None),
                Source::Interface(name) => Target::Interface(maker.named(name)),
            },
            counter: Arc::default(),
        });
        let nat = nat.collect();
        let rdr = text.rdr.iter().map(|rdr| Translation {
            on: maker.interface(rdr.on.as_deref()),
            pattern: maker.pattern(&rdr.matches),
            to: Target::Address(rdr.to, rdr.port),
            counter: Arc::default(),
        });
        let rdr = rdr.collect();
        Loaded {
            rules,
            nat,
            rdr,
            interfaces: maker.interfaces,
            text,
            states,
            others: Arc::default(),
        }
    }

    /// The first rule that fits.
    pub(crate) fn decide(
        &self,
        place: Place,
        seen: &Seen,
        own: &dyn Addresses,
    ) -> Option<(usize, &Decision)> {
        let fits = |(_, rule): &(usize, &Decision)| rule.fits(place, seen, own);
        self.rules.iter().enumerate().find(fits)
    }
}

impl Decision {
    fn fits(&self, place: Place, seen: &Seen, own: &dyn Addresses) -> bool {
        let near = match place.direction {
            Direction::Out => place.output,
            _ => place.input,
        };
        self.direction.is_none_or(|d| d == place.direction)
            && self.on.as_ref().is_none_or(|named| named.is(near))
            && self.via.as_ref().is_none_or(|named| named.is(place.output))
            && self.pattern.fits(seen, own)
    }
}

impl Translation {
    /// What an end becomes, if the translation is for the packet. `interface` is where it comes in (rdr) or leaves (nat).
    pub(crate) fn target(
        &self,
        interface: u32,
        seen: &Seen,
        own: &dyn Addresses,
    ) -> Option<(IpAddr, Option<u16>)> {
        if !self.on.as_ref().is_none_or(|named| named.is(interface)) {
            return None;
        }
        let (to, port) = match &self.to {
            Target::Address(to, port) => (*to, *port),
            Target::Interface(named) => (own.first(named.index(), seen.v6)?, None),
        };
        (to.is_ipv6() == seen.v6 && self.pattern.fits(seen, own)).then_some((to, port))
    }
}

/// Some of the connections: those that a [`Match`] means.
pub(crate) struct Which {
    pattern: Pattern,
    pub(crate) interfaces: Vec<Arc<Named>>,
}

impl Which {
    pub(crate) fn new(matches: &Match, tables: &[lang::Table]) -> Which {
        let mut maker = Maker::new(tables);
        Which {
            pattern: maker.pattern(matches),
            interfaces: maker.interfaces,
        }
    }

    /// Whether a connection is one of them.
    pub(crate) fn has(&self, state: &State, own: &dyn Addresses) -> bool {
        self.pattern.fits_ends(&state.as_rules_saw_it(), own)
    }
}

/// A [`Match`], prepared.
struct Pattern {
    family: Option<Family>,
    protocols: Vec<u8>,
    from: End,
    to: End,
    icmp_types: Vec<u8>,
}

impl Pattern {
    fn fits(&self, seen: &Seen, own: &dyn Addresses) -> bool {
        // Without it there is no link: it is meant only where it is named.
        let meant = match seen.is_link_housekeeping() {
            true => !self.icmp_types.is_empty(),
            false => true,
        };
        meant
            && (self.icmp_types.is_empty()
                || seen
                    .icmp_type()
                    .is_some_and(|t| self.icmp_types.contains(&t)))
            && self.fits_ends(&seen.key, own)
    }

    /// The same by protocol and ends alone.
    fn fits_ends(&self, key: &Key, own: &dyn Addresses) -> bool {
        let family = match key.src.is_ipv6() {
            true => Family::Inet6,
            false => Family::Inet,
        };
        self.family.is_none_or(|f| f == family)
            && (self.protocols.is_empty() || self.protocols.contains(&key.protocol))
            && self.from.fits(&key.src, key.sport, own)
            && self.to.fits(&key.dst, key.dport, own)
    }
}

/// An end of a connection.
struct End {
    any: bool,
    negated: bool,
    ranges: Ranges,
    interfaces: Vec<Arc<Named>>,
    tables: Vec<Arc<Ranges>>,
    ports: lang::Ports,
}

impl End {
    fn fits(&self, addr: &IpAddr, port: u16, own: &dyn Addresses) -> bool {
        let among = || {
            self.ranges.contains(addr)
                || self.tables.iter().any(|table| table.contains(addr))
                || self
                    .interfaces
                    .iter()
                    .any(|named| own.has(named.index(), addr))
        };
        let ports = &self.ports;
        let in_range = |&(first, last): &(u16, u16)| (first..=last).contains(&port);
        (self.any || among() != self.negated)
            && (ports.ranges.is_empty() || ports.ranges.iter().any(in_range) != ports.negated)
    }
}

/// Sets of addresses as ranges, sorted, none of which touches another.
#[derive(Default)]
struct Ranges {
    v4: Vec<(u128, u128)>,
    v6: Vec<(u128, u128)>,
}

impl Ranges {
    fn new<'a>(nets: impl Iterator<Item = &'a lang::Net>) -> Ranges {
        let mut ranges = Ranges::default();
        for net in nets {
            let (to, first, bits) = match net.addr {
                IpAddr::V4(ip) => (&mut ranges.v4, u32::from(ip).into(), 32),
                IpAddr::V6(ip) => (&mut ranges.v6, u128::from(ip), 128),
            };
            let size = u128::MAX
                .checked_shr(128 - bits + u32::from(net.len))
                .unwrap_or(0);
            to.push((first, first | size));
        }
        merge(&mut ranges.v4);
        merge(&mut ranges.v6);
        ranges
    }

    fn contains(&self, addr: &IpAddr) -> bool {
        let (ranges, addr) = match addr {
            IpAddr::V4(ip) => (&self.v4, u32::from(*ip).into()),
            IpAddr::V6(ip) => (&self.v6, u128::from(*ip)),
        };
        let after = ranges.partition_point(|(first, _)| *first <= addr);
        ranges[..after]
            .last()
            .is_some_and(|(_, last)| addr <= *last)
    }
}

fn merge(ranges: &mut Vec<(u128, u128)>) {
    ranges.sort_unstable();
    ranges.dedup_by(|next, before| {
        let overlap = next.0 <= before.1;
        if overlap {
            before.1 = before.1.max(next.1);
        }
        overlap
    });
}

/// Collects what rules name while they are made.
struct Maker {
    interfaces: Vec<Arc<Named>>,
    tables: Vec<(String, Arc<Ranges>)>,
}

impl Maker {
    fn new(tables: &[lang::Table]) -> Maker {
        let ranges = |table: &lang::Table| Arc::new(Ranges::new(table.nets.iter()));
        Maker {
            interfaces: Vec::new(),
            tables: tables
                .iter()
                .map(|table| (table.name.clone(), ranges(table)))
                .collect(),
        }
    }

    fn rule(&mut self, rule: &Rule) -> Decision {
        Decision {
            action: rule.action,
            log: rule.log,
            direction: rule.direction,
            on: self.interface(rule.on.as_deref()),
            via: self.interface(rule.via.as_deref()),
            pattern: self.pattern(&rule.matches),
            counter: Arc::default(),
        }
    }

    fn pattern(&mut self, matches: &Match) -> Pattern {
        Pattern {
            family: matches.family,
            protocols: matches.protocols.clone(),
            from: self.end(&matches.from),
            to: self.end(&matches.to),
            icmp_types: matches.icmp_types.clone(),
        }
    }

    fn end(&mut self, end: &lang::End) -> End {
        let list = &end.hosts.list;
        let nets = list.iter().filter_map(|host| match host {
            Host::Net(net) => Some(net),
            _ => None,
        });
        let ranges = Ranges::new(nets);
        let (mut interfaces, mut tables) = (Vec::new(), Vec::new());
        for host in list {
            match host {
                Host::Net(_) => {}
                Host::Interface(name) => interfaces.push(self.named(name)),
                Host::Table(name) => {
                    let found = self.tables.iter().find(|(n, _)| n == name);
                    tables.extend(found.map(|(_, ranges)| ranges.clone()));
                }
            }
        }
        End {
            any: list.is_empty(),
            negated: end.hosts.negated,
            ranges,
            interfaces,
            tables,
            ports: end.ports.clone(),
        }
    }

    fn interface(&mut self, name: Option<&str>) -> Option<Arc<Named>> {
        name.map(|name| self.named(name))
    }

    fn named(&mut self, name: &str) -> Arc<Named> {
        if let Some(known) = self.interfaces.iter().find(|named| named.name == name) {
            return known.clone();
        }
        let named = Arc::new(Named {
            name: name.into(),
            index: AtomicU32::new(0),
        });
        self.interfaces.push(named.clone());
        named
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ranges_contain_what_one_of_their_networks_does(
            nets in proptest::collection::vec((any::<u8>(), any::<bool>(), 0u8..=8), 0..12),
            asked in any::<u8>(),
            v6 in any::<bool>(),
        ) {
            // Networks that differ in their last byte only, so that they meet.
            let addr = |last: u8, v6: bool| -> IpAddr {
                match v6 {
                    true => IpAddr::from((0xfd00_u128 << 112 | u128::from(last)).to_be_bytes()),
                    false => IpAddr::from([10, 0, 0, last]),
                }
            };
            let nets: Vec<lang::Net> = nets
                .iter()
                .map(|&(last, v6, host)| lang::Net::new(addr(last, v6), if v6 { 128 } else { 32 } - host))
                .collect();
            let asked_addr = addr(asked, v6);
            let model = nets.iter().any(|net| {
                net.addr.is_ipv6() == v6 && lang::Net::new(asked_addr, net.len).addr == net.addr
            });
            prop_assert_eq!(Ranges::new(nets.iter()).contains(&asked_addr), model);
        }
    }
}

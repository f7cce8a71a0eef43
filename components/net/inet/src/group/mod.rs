//! Groups: who wants to hear which of those who send to them, on which interface; and telling the routers of a link, by IGMP
//! (RFC 3376) and MLD (RFC 3810). `source` has the filters, `request` what a socket asks for, `reporter` decides what is told
//! and when, `wire` has the messages, `report` sends and hears them.

mod report;
mod reporter;
pub(crate) mod request;
mod source;
mod wire;

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use kern::callout::Callout;
use sync::{Cpu, Mutex};

use crate::{Inet, leaf};
use reporter::{Joined, Reporter};
pub use source::SourceFilter;

/// Who wants to hear a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Member {
    /// A socket, by its number.
    Socket(u64),
    /// An address, whose solicited-node group it is.
    Address(Ipv6Addr),
}

type Members = BTreeMap<Member, SourceFilter>;

/// The groups of all interfaces. What all members together want is swapped whole; `members` and `reporters` are leaves.
#[derive(Default)]
pub(crate) struct Groups {
    joined: ArcSwap<BTreeMap<(u32, IpAddr), Arc<SourceFilter>>>,
    members: Mutex<BTreeMap<(u32, IpAddr), Members>>,
    /// By interface, and whether it is of IPv6.
    reporters: Mutex<BTreeMap<(u32, bool), Reporter>>,
    callout: OnceLock<Callout>,
}

impl Inet {
    /// Whether a packet from a source to a group is for this kernel on an interface.
    pub(crate) fn is_member(&self, interface: u32, group: &IpAddr, source: &IpAddr) -> bool {
        let always = match group {
            IpAddr::V4(ip) => *ip == Ipv4Addr::new(224, 0, 0, 1),
            IpAddr::V6(ip) => match ip.segments() {
                // All nodes, of the interface and of the link.
                [0xff01 | 0xff02, 0, 0, 0, 0, 0, 0, 1] => true,
                // All routers.
                [0xff01 | 0xff02, 0, 0, 0, 0, 0, 0, 2] => self.config.forwarding6() != 0,
                _ => false,
            },
        };
        let joined = || self.groups.joined.load().get(&(interface, *group)).cloned();
        always || joined().is_some_and(|filter| filter.accepts(source))
    }

    /// Sets whom a member wants to hear of a group on an interface; [nobody](SourceFilter::NOBODY) ends it.
    pub(crate) fn want_group(
        &self,
        cpu: &Cpu<'_>,
        interface: u32,
        group: IpAddr,
        member: Member,
        filter: SourceFilter,
    ) {
        let key = (interface, group);
        let changed = {
            let leaf = leaf(cpu);
            let mut all = self.groups.members.lock(&leaf);
            let members = all.entry(key).or_default();
            match filter.is_nobody() {
                true => drop(members.remove(&member)),
                false => drop(members.insert(member, filter)),
            }
            let new = SourceFilter::merged(members.values());
            if members.is_empty() {
                all.remove(&key);
            }
            self.set_joined(key, new)
        };
        if let Some((old, new)) = changed {
            self.group_changed(cpu, interface, group, &old, &new);
        }
    }

    /// Notes what all together want; answers what they wanted and want when that has changed.
    fn set_joined(
        &self,
        key: (u32, IpAddr),
        new: SourceFilter,
    ) -> Option<(SourceFilter, SourceFilter)> {
        let joined = self.groups.joined.load();
        let old = joined
            .get(&key)
            .map_or(SourceFilter::NOBODY, |f| (**f).clone());
        if old == new {
            return None;
        }
        let mut joined = BTreeMap::clone(&joined);
        match new.is_nobody() {
            true => drop(joined.remove(&key)),
            false => drop(joined.insert(key, Arc::new(new.clone()))),
        }
        self.groups.joined.store(Arc::new(joined));
        Some((old, new))
    }

    /// A socket wants nothing any more.
    pub(crate) fn leave_groups(&self, cpu: &Cpu<'_>, member: Member) {
        let its: Vec<(u32, IpAddr)> = {
            let leaf = leaf(cpu);
            let all = self.groups.members.lock(&leaf);
            let its = all.iter().filter(|(_, m)| m.contains_key(&member));
            its.map(|(&key, _)| key).collect()
        };
        for (interface, group) in its {
            self.want_group(cpu, interface, group, member, SourceFilter::NOBODY);
        }
    }

    /// The groups that somebody wants to hear: interface, group, and by how many.
    pub fn groups(&self, cpu: &Cpu<'_>) -> Vec<(u32, IpAddr, usize)> {
        let leaf = leaf(cpu);
        let all = self.groups.members.lock(&leaf);
        all.iter()
            .map(|(&(interface, group), members)| (interface, group, members.len()))
            .collect()
    }

    /// What is wanted on an interface, of a family.
    fn joined_on(&self, interface: u32, v6: bool) -> Joined {
        let joined = self.groups.joined.load();
        joined
            .iter()
            .filter(|((on, group), _)| *on == interface && group.is_ipv6() == v6)
            .map(|(&(_, group), filter)| (group, filter.clone()))
            .collect()
    }
}

/// The group that who has an address is asked by, RFC 4291 2.7.1.
pub(crate) fn solicited_node(ip: &Ipv6Addr) -> Ipv6Addr {
    let [.., a, b] = ip.segments();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | a & 0xff, b)
}

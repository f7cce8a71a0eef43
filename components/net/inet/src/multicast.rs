//! Groups: which are joined on which interface, and by how many sockets.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::collections::BTreeMap;
use std::sync::Arc;

use abi::Errno;
use arc_swap::ArcSwap;
use hypercall::Nanos;
use sync::{Cpu, Mutex};

use crate::membership::Membership;
use crate::{Inet, leaf};

/// The groups that sockets have joined: interface, group, how often. Swapped whole; `changing` and `reports` are leaves.
#[derive(Default)]
pub(crate) struct Groups {
    joined: ArcSwap<BTreeMap<(u32, IpAddr), u32>>,
    changing: Mutex<()>,
    /// Reports that are due.
    pub(crate) reports: Mutex<Vec<(Nanos, u32, IpAddr)>>,
}

impl Inet {
    /// Whether packets to a group are for this kernel on an interface.
    pub(crate) fn is_member(&self, interface: u32, group: &IpAddr) -> bool {
        let always = match group {
            IpAddr::V4(ip) => *ip == Ipv4Addr::new(224, 0, 0, 1),
            IpAddr::V6(ip) => match ip.segments() {
                // All nodes, of the interface and of the link.
                [0xff01 | 0xff02, 0, 0, 0, 0, 0, 0, 1] => true,
                // All routers.
                [0xff01 | 0xff02, 0, 0, 0, 0, 0, 0, 2] => self.config.forwarding6() != 0,
                [0xff02, 0, 0, 0, 0, 1, 0xff00..=0xffff, _] => {
                    self.is_solicited_node(interface, ip)
                }
                _ => false,
            },
        };
        always || self.groups.joined.load().contains_key(&(interface, *group))
    }

    fn is_solicited_node(&self, interface: u32, group: &Ipv6Addr) -> bool {
        self.addresses().iter().any(|a| match a.addr {
            IpAddr::V6(ip) => a.interface == interface && solicited_node(&ip) == *group,
            IpAddr::V4(_) => false,
        })
    }

    /// Joins a group on an interface.
    pub(crate) fn join_group(
        &self,
        cpu: &Cpu<'_>,
        interface: u32,
        group: IpAddr,
    ) -> Result<(), Errno> {
        if !group.is_multicast() {
            return Err(Errno::EINVAL);
        }
        let first = self.change_group(cpu, |joined| {
            let count = joined.entry((interface, group)).or_insert(0);
            *count += 1;
            *count == 1
        });
        if first {
            self.report_group(cpu, interface, group, Membership::Joined);
        }
        Ok(())
    }

    /// Ends what [`join_group`](Self::join_group) began.
    pub(crate) fn leave_group(&self, cpu: &Cpu<'_>, interface: u32, group: IpAddr) {
        let last = self.change_group(cpu, |joined| {
            let Some(count) = joined.get_mut(&(interface, group)) else {
                return false;
            };
            *count -= 1;
            let last = *count == 0;
            if last {
                joined.remove(&(interface, group));
            }
            last
        });
        if last {
            self.report_group(cpu, interface, group, Membership::Left);
        }
    }

    /// The groups that sockets have joined: interface, group, how often.
    pub fn groups(&self) -> Vec<(u32, IpAddr, u32)> {
        let joined = self.groups.joined.load();
        joined
            .iter()
            .map(|(&(interface, group), &count)| (interface, group, count))
            .collect()
    }

    fn change_group<R>(
        &self,
        cpu: &Cpu<'_>,
        change: impl FnOnce(&mut BTreeMap<(u32, IpAddr), u32>) -> R,
    ) -> R {
        let leaf = leaf(cpu);
        let _guard = self.groups.changing.lock(&leaf);
        let mut joined = BTreeMap::clone(&self.groups.joined.load());
        let answer = change(&mut joined);
        self.groups.joined.store(Arc::new(joined));
        answer
    }
}

/// The group that who has an address is asked by, RFC 4291 2.7.1.
pub(crate) fn solicited_node(ip: &Ipv6Addr) -> Ipv6Addr {
    let [.., a, b] = ip.segments();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | a & 0xff, b)
}

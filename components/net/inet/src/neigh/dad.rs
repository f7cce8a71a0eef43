//! Duplicate address detection, RFC 4862 5.4: an IPv6 address is used when nobody has answered for it.

use core::net::{IpAddr, Ipv6Addr};
use std::collections::HashMap;
use std::sync::Arc;

use hypercall::Nanos;
use net::{Ifnet, LinkType};
use sync::{Cpu, Mutex};

use super::RETRANSMIT;
use crate::ifaddr::IfAddr;
use crate::{Inet, leaf};

/// Addresses that are being asked for: how often they were, and when it goes on. A leaf.
#[derive(Default)]
pub(super) struct Probes(Mutex<HashMap<(u32, Ipv6Addr), (i64, Nanos)>>);

impl Inet {
    /// Whether a new address has to be asked for before it is used.
    pub(crate) fn needs_probing(&self, interface: &Ifnet, addr: &IpAddr) -> bool {
        addr.is_ipv6() && interface.link() == LinkType::Ethernet && self.config.dad_transmits() > 0
    }

    /// An address has come, or its interface has come up: asks for it, or tells the link of it.
    pub(crate) fn introduce_address(&self, cpu: &Cpu<'_>, interface: &Arc<Ifnet>, addr: &IfAddr) {
        if interface.link() != LinkType::Ethernet || !interface.is_up() || addr.duplicate {
            return;
        }
        match addr.addr {
            IpAddr::V4(ip) => self.arp_announce(cpu, interface, ip),
            IpAddr::V6(ip) if addr.tentative => {
                let now = self.now();
                let key = (addr.interface, ip);
                let probes = &self.autoconf.probes.0;
                probes.lock(&leaf(cpu)).insert(key, (1, now + RETRANSMIT));
                self.probe_address(cpu, interface, ip);
                self.want_slow_timer(cpu);
            }
            IpAddr::V6(_) => {}
        }
    }

    /// Somebody else has an address that we asked for.
    pub(super) fn address_is_taken(&self, cpu: &Cpu<'_>, interface: &Ifnet, addr: Ipv6Addr) {
        let key = (interface.index(), addr);
        self.autoconf.probes.0.lock(&leaf(cpu)).remove(&key);
        self.change_address(cpu, interface.index(), &addr.into(), |a| {
            a.tentative = false;
            a.duplicate = true;
        });
    }

    /// Goes on asking; what nobody answered for is ours. Answers whether there are any left.
    pub(super) fn age_probes(&self, cpu: &Cpu<'_>) -> bool {
        let now = self.now();
        let most = self.config.dad_transmits();
        let (mut again, mut ours) = (Vec::new(), Vec::new());
        let more = {
            let leaf = leaf(cpu);
            let mut probes = self.autoconf.probes.0.lock(&leaf);
            probes.retain(|&key, (asked, until)| {
                if now < *until {
                    return true;
                }
                if *asked >= most {
                    ours.push(key);
                    return false;
                }
                *asked += 1;
                *until = now + RETRANSMIT;
                again.push(key);
                true
            });
            !probes.is_empty()
        };
        for (index, addr) in again {
            if let Some(interface) = self.interfaces.by_index(index) {
                self.probe_address(cpu, &interface, addr);
            }
        }
        for (index, addr) in ours {
            self.change_address(cpu, index, &addr.into(), |a| a.tentative = false);
        }
        more
    }
}

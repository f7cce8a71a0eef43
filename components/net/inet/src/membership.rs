//! Telling routers which groups are wanted on a link: IGMPv2 (RFC 2236) and MLDv1 (RFC 2710), which routers of the later versions
//! understand.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hypercall::Nanos;
use net::Packet;
use smallvec::SmallVec;
use sync::Cpu;

use crate::icmp::{icmp_packet, pieces};
use crate::ipv4::Header;
use crate::ipv6::HOP_BY_HOP;
use crate::output::Outbound;
use crate::stack::{IPPROTO_ICMPV6, IPPROTO_IGMP};
use crate::{Inet, checksum, leaf};

const IGMP_QUERY: u8 = 0x11;
const IGMP_REPORT: u8 = 0x16;
const IGMP_LEAVE: u8 = 0x17;
const MLD_QUERY: u8 = 130;
const MLD_REPORT: u8 = 131;
const MLD_DONE: u8 = 132;
/// The most reports that are due.
const MOST: usize = 1024;

/// What there is to tell about a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Membership {
    Joined,
    Left,
}

/// Whether routers want to hear of a group at all: not of what never leaves the link anyway and everybody has.
fn is_told(group: &IpAddr) -> bool {
    match group {
        IpAddr::V4(ip) => *ip != Ipv4Addr::new(224, 0, 0, 1),
        IpAddr::V6(ip) => {
            ip.octets()[1] & 0xf > 1 && ip.segments() != [0xff02, 0, 0, 0, 0, 0, 0, 1]
        }
    }
}

impl Inet {
    /// Tells the routers of a link, at once and once more.
    pub(crate) fn report_group(
        &self,
        cpu: &Cpu<'_>,
        interface: u32,
        group: IpAddr,
        what: Membership,
    ) {
        self.send_report(cpu, interface, group, what);
        if what == Membership::Joined {
            self.report_later(cpu, interface, group, 1_000_000_000);
        }
    }

    fn report_later(&self, cpu: &Cpu<'_>, interface: u32, group: IpAddr, within: Nanos) {
        let at = self.now() + u64::from(self.random()) % within.max(1);
        {
            let leaf = leaf(cpu);
            let mut reports = self.groups.reports.lock(&leaf);
            let room = reports.len() < MOST;
            let due = reports
                .iter_mut()
                .find(|(_, i, g)| (*i, *g) == (interface, group));
            match due {
                Some(due) => due.0 = due.0.min(at),
                None if room => reports.push((at, interface, group)),
                None => {}
            }
        }
        self.want_slow_timer(cpu);
    }

    /// Sends the reports that are due; answers whether there are others.
    pub(crate) fn age_reports(&self, cpu: &Cpu<'_>) -> bool {
        let now = self.now();
        let (due, more) = {
            let leaf = leaf(cpu);
            let mut reports = self.groups.reports.lock(&leaf);
            let (due, later): (Vec<_>, Vec<_>) = reports.drain(..).partition(|r| r.0 <= now);
            *reports = later;
            (due, !reports.is_empty())
        };
        for (_, interface, group) in due {
            if self.is_member(interface, &group) {
                self.send_report(cpu, interface, group, Membership::Joined);
            }
        }
        more
    }

    fn send_report(&self, cpu: &Cpu<'_>, interface: u32, group: IpAddr, what: Membership) {
        let joined = what == Membership::Joined;
        let Some(ifnet) = self.interfaces.by_index(interface) else {
            return;
        };
        if ifnet.is_loopback() || !ifnet.is_up() || !is_told(&group) {
            return;
        }
        let (dst, packet, out): (IpAddr, _, _) = match group {
            IpAddr::V4(ip) => {
                let mut message = vec![if joined { IGMP_REPORT } else { IGMP_LEAVE }, 0, 0, 0];
                message.extend_from_slice(&ip.octets());
                let sum = checksum::of(&message);
                message[2..4].copy_from_slice(&sum);
                let out = Outbound {
                    protocol: IPPROTO_IGMP,
                    ttl: 1,
                    tos: 0xc0,
                    no_loop: true,
                    // The router alert, RFC 2113.
                    options: SmallVec::from_slice(&[148, 4, 0, 0]),
                    ..Outbound::default()
                };
                let routers = Ipv4Addr::new(224, 0, 0, 2);
                let dst = if joined { ip } else { routers };
                (dst.into(), Some(Packet::new(message.into())), out)
            }
            IpAddr::V6(ip) => {
                let out = Outbound {
                    protocol: IPPROTO_ICMPV6,
                    ttl: 1,
                    no_loop: true,
                    // The router alert for MLD, RFC 2711, and padding.
                    options: SmallVec::from_slice(&[IPPROTO_ICMPV6, 0, 5, 2, 0, 0, 1, 0]),
                    extension: HOP_BY_HOP,
                    ..Outbound::default()
                };
                let routers = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
                let dst = if joined { ip } else { routers };
                (dst.into(), None, out)
            }
        };
        let Ok(hop) = self.route(&dst, interface) else {
            return;
        };
        let src = hop.src;
        let packet = packet.unwrap_or_else(|| {
            let mut message = vec![
                if joined { MLD_REPORT } else { MLD_DONE },
                0,
                0,
                0,
                0,
                0,
                0,
                0,
            ];
            message.extend_from_slice(&crate::addr::map(group).octets());
            icmp_packet(message, src, dst)
        });
        let _ = self.send(cpu, &hop, src, dst, &out, packet);
    }

    /// An IGMP message, without the IP header.
    pub(crate) fn igmp_input(&self, cpu: &Cpu<'_>, header: &Header, mut packet: Packet) {
        if !pieces(checksum::Sum::default(), &packet).is_valid() {
            return;
        }
        let Some(front) = packet.front(8) else {
            return;
        };
        let group = Ipv4Addr::new(front[4], front[5], front[6], front[7]);
        match front[0] {
            // Tenths of a second; version 1 says none and means ten.
            IGMP_QUERY => {
                let within = match front[1] {
                    0 => 10,
                    tenths => u64::from(tenths),
                };
                self.answer_query(cpu, header.interface, group.into(), within * 100_000_000);
            }
            IGMP_REPORT => self.heard_report(cpu, header.interface, group.into()),
            _ => {}
        }
    }

    /// An MLD message. Its checksum is right.
    pub(crate) fn mld_input(&self, cpu: &Cpu<'_>, header: &Header, mut packet: Packet) {
        if header.ttl != 1 || !crate::addr::is_link_local(&header.src) {
            return;
        }
        let Some(front) = packet.front(24) else {
            return;
        };
        let within = u64::from(u16::from_be_bytes([front[4], front[5]])).max(1) * 1_000_000;
        let mut octets = [0; 16];
        octets.copy_from_slice(&front[8..24]);
        let group = IpAddr::from(octets);
        match front[0] {
            MLD_QUERY => self.answer_query(cpu, header.interface, group, within),
            MLD_REPORT => self.heard_report(cpu, header.interface, group),
            _ => {}
        }
    }

    /// A router asks for a group, or (unspecified) for all.
    fn answer_query(&self, cpu: &Cpu<'_>, interface: u32, group: IpAddr, within: Nanos) {
        for (on, joined, _) in self.groups() {
            let asked =
                group.is_unspecified() && group.is_ipv4() == joined.is_ipv4() || group == joined;
            if on == interface && asked && is_told(&joined) {
                self.report_later(cpu, interface, joined, within);
            }
        }
    }

    /// Somebody else has said it: once is enough for the router.
    fn heard_report(&self, cpu: &Cpu<'_>, interface: u32, group: IpAddr) {
        let leaf = leaf(cpu);
        let mut reports = self.groups.reports.lock(&leaf);
        reports.retain(|(_, i, g)| (*i, *g) != (interface, group));
    }
}

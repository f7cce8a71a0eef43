//! Sends to the routers of a link what the reporters say, and hears what they ask.

use core::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use kern::Curlwp;
use kern::callout::Callout;
use net::{Ifnet, Packet};
use smallvec::SmallVec;
use sync::Cpu;

use super::SourceFilter;
use super::reporter::Message;
use super::wire::{
    IGMP_QUERY, IGMP_REPORTS, MLD_QUERY, MLD_REPORT, Query, emit, igmp_query, mld_query,
};
use crate::addr::{any, is_link_local};
use crate::icmp::{icmp_packet, pieces};
use crate::ipv4::Header;
use crate::ipv6::HOP_BY_HOP;
use crate::output::Outbound;
use crate::route::{Hop, RouteKind};
use crate::stack::{IPPROTO_ICMPV6, IPPROTO_IGMP};
use crate::{Inet, checksum, leaf};

/// Bytes in front of a report: IP's header and the router alert.
const HEADERS: [usize; 2] = [24, 48];

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
    /// Prepares the callout that reports go by.
    pub(crate) fn start_groups(&self, cx: &Curlwp<'_>) {
        let weak = self.me.clone();
        let callout = Callout::new(cx.kernel(), move |cx| {
            if let Some(inet) = weak.upgrade() {
                inet.send_reports(cx.cpu());
            }
        });
        let _ = self.groups.callout.set(callout);
    }

    /// The interface, if there are routers on its link to be told.
    fn told_link(&self, interface: u32) -> Option<Arc<Ifnet>> {
        let ifnet = self.interfaces.by_index(interface)?;
        (!ifnet.is_loopback() && ifnet.is_up()).then_some(ifnet)
    }

    /// What is wanted of a group has changed.
    pub(super) fn group_changed(
        &self,
        cpu: &Cpu<'_>,
        interface: u32,
        group: IpAddr,
        old: &SourceFilter,
        new: &SourceFilter,
    ) {
        if !is_told(&group) || self.told_link(interface).is_none() {
            return;
        }
        let now = self.now();
        {
            let leaf = leaf(cpu);
            let mut reporters = self.groups.reporters.lock(&leaf);
            let reporter = reporters.entry((interface, group.is_ipv6())).or_default();
            reporter.changed(now, group, old, new);
        }
        self.send_reports(cpu);
    }

    /// An interface has come up: its link's routers know nothing yet.
    pub(crate) fn tell_groups(&self, cpu: &Cpu<'_>, interface: u32) {
        for v6 in [false, true] {
            for (group, filter) in self.joined_on(interface, v6) {
                self.group_changed(cpu, interface, group, &SourceFilter::NOBODY, &filter);
            }
        }
    }

    /// An interface has gone down: nobody is told of anything there.
    pub(crate) fn forget_reports(&self, cpu: &Cpu<'_>, interface: u32) {
        let leaf = leaf(cpu);
        let mut reporters = self.groups.reporters.lock(&leaf);
        reporters.retain(|(on, _), _| *on != interface);
    }

    /// Sends the reports that are due, and comes again when the next are.
    fn send_reports(&self, cpu: &Cpu<'_>) {
        let now = self.now();
        let mut out = Vec::new();
        let next = {
            let leaf = leaf(cpu);
            let mut reporters = self.groups.reporters.lock(&leaf);
            for (&(interface, v6), reporter) in reporters.iter_mut() {
                if reporter.due().is_some_and(|due| due <= now) {
                    let mut joined = self.joined_on(interface, v6);
                    joined.retain(|group, _| is_told(group));
                    let messages = reporter.turn(now, &mut |within| self.chance(within), &joined);
                    out.extend(messages.into_iter().map(|m| (interface, v6, m)));
                }
            }
            reporters.values().filter_map(|r| r.due()).min()
        };
        if let (Some(next), Some(callout)) = (next, self.groups.callout.get()) {
            callout.schedule(&leaf(cpu), next);
        }
        for (interface, v6, message) in out {
            if let Some(ifnet) = self.told_link(interface) {
                self.send_report(cpu, &ifnet, v6, &message);
            }
        }
    }

    /// A random time of less than this.
    fn chance(&self, within: u64) -> u64 {
        ((u128::from(self.random()) * u128::from(within)) >> 32) as u64
    }

    fn send_report(&self, cpu: &Cpu<'_>, ifnet: &Arc<Ifnet>, v6: bool, message: &Message) {
        let out = Outbound {
            protocol: if v6 { IPPROTO_ICMPV6 } else { IPPROTO_IGMP },
            ttl: 1,
            tos: if v6 { 0 } else { 0xc0 },
            no_loop: true,
            // The router alert: RFC 2113, RFC 2711 (and padding).
            options: match v6 {
                false => SmallVec::from_slice(&[148, 4, 0, 0]),
                true => SmallVec::from_slice(&[IPPROTO_ICMPV6, 0, 5, 2, 0, 0, 1, 0]),
            },
            extension: HOP_BY_HOP,
            ..Outbound::default()
        };
        let src = self.report_source(ifnet, v6);
        let room = (ifnet.mtu() as usize).saturating_sub(HEADERS[usize::from(v6)]);
        for (dst, bytes) in emit(v6, message, room) {
            let hop = Hop {
                interface: ifnet.clone(),
                next: dst,
                src,
                mtu: ifnet.mtu(),
                kind: RouteKind::Multicast,
            };
            let packet = match v6 {
                false => Packet::new(bytes.into()),
                true => icmp_packet(bytes, src, dst),
            };
            // What is lost is told again.
            let _ = self.send(cpu, &hop, src, dst, &out, packet);
        }
    }

    /// Where reports come from: of IPv6 a link-local address, and none at all as long as there is none (RFC 3590).
    fn report_source(&self, ifnet: &Ifnet, v6: bool) -> IpAddr {
        let addresses = self.addresses();
        let found = addresses.iter().find(|a| {
            a.interface == ifnet.index()
                && a.addr.is_ipv6() == v6
                && (!v6 || is_link_local(&a.addr) && !a.tentative && !a.duplicate)
        });
        found.map_or(any(v6), |a| a.addr)
    }

    /// An IGMP message, without the IP header.
    pub(crate) fn igmp_input(&self, cpu: &Cpu<'_>, header: &Header, packet: Packet) {
        if header.ttl != 1 || !pieces(checksum::Sum::default(), &packet).is_valid() {
            return;
        }
        let message = packet.to_vec();
        match message.first() {
            Some(&IGMP_QUERY) => self.query_input(cpu, header, igmp_query(&message)),
            Some(kind) if IGMP_REPORTS.contains(kind) => {
                if let Some(&[a, b, c, d]) = message.get(4..8) {
                    self.heard_report(cpu, header.interface, Ipv4Addr::new(a, b, c, d).into());
                }
            }
            _ => {}
        }
    }

    /// An MLD message. Its checksum is right.
    pub(crate) fn mld_input(&self, cpu: &Cpu<'_>, header: &Header, packet: Packet) {
        if header.ttl != 1 || !is_link_local(&header.src) {
            return;
        }
        let message = packet.to_vec();
        match message.first() {
            Some(&MLD_QUERY) => self.query_input(cpu, header, mld_query(&message)),
            Some(&MLD_REPORT) => {
                if let Some(group) = message.get(8..24).and_then(|g| g.first_chunk::<16>()) {
                    self.heard_report(cpu, header.interface, IpAddr::from(*group));
                }
            }
            _ => {}
        }
    }

    fn query_input(&self, cpu: &Cpu<'_>, header: &Header, query: Option<Query>) {
        let Some(query) = query else {
            return;
        };
        let (interface, v6) = (header.interface, header.src.is_ipv6());
        if self.told_link(interface).is_none() {
            return;
        }
        let mut joined = self.joined_on(interface, v6);
        joined.retain(|group, _| is_told(group));
        {
            let leaf = leaf(cpu);
            let mut reporters = self.groups.reporters.lock(&leaf);
            let reporter = reporters.entry((interface, v6)).or_default();
            let now = self.now();
            reporter.asked(now, &mut |within| self.chance(within), &query, &joined);
        }
        self.send_reports(cpu);
    }

    fn heard_report(&self, cpu: &Cpu<'_>, interface: u32, group: IpAddr) {
        let leaf = leaf(cpu);
        let mut reporters = self.groups.reporters.lock(&leaf);
        if let Some(reporter) = reporters.get_mut(&(interface, group.is_ipv6())) {
            reporter.heard(self.now(), &group);
        }
    }
}

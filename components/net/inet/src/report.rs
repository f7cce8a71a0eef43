//! What the stack tells of itself in the files of proc(5): sockets, routes, addresses, neighbours and groups, in the words that netstat,
//! ifconfig, route, arp and psutil read.

use core::net::IpAddr;
use std::fmt::Write;
use std::sync::Arc;

use kern::Curlwp;
use net::LinkType;

use crate::neigh::NeighbourState;
use crate::route::{PROTO_KERNEL, Route, RouteKind, TABLE_MAIN};
use crate::stack::{IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP};
use crate::{Endpoint, Inet, SocketInfo};

/// The state of sockets that listen.
const LISTENS: u8 = 10;

const RTF_UP: u32 = 1;
const RTF_GATEWAY: u32 = 2;
const RTF_HOST: u32 = 4;
const RTF_REJECT: u32 = 0x200;
const RTF_LOCAL: u32 = 0x8000_0000;

type Writer = fn(&Inet, &Curlwp<'_>) -> String;

/// Adds the reports.
pub(crate) fn attach(cx: &Curlwp<'_>, inet: &Arc<Inet>) {
    let all: [(&'static str, Writer); 17] = [
        ("net/tcp", |i, cx| {
            i.socket_report(cx, |s| s.protocol == IPPROTO_TCP && !s.v6)
        }),
        ("net/tcp6", |i, cx| {
            i.socket_report(cx, |s| s.protocol == IPPROTO_TCP && s.v6)
        }),
        ("net/udp", |i, cx| {
            i.socket_report(cx, |s| is_udp(s) && !s.v6)
        }),
        ("net/udp6", |i, cx| {
            i.socket_report(cx, |s| is_udp(s) && s.v6)
        }),
        ("net/icmp", |i, cx| {
            i.socket_report(cx, |s| is_ping(s) && !s.v6)
        }),
        ("net/icmp6", |i, cx| {
            i.socket_report(cx, |s| is_ping(s) && s.v6)
        }),
        ("net/raw", |i, cx| i.socket_report(cx, |s| s.raw && !s.v6)),
        ("net/raw6", |i, cx| i.socket_report(cx, |s| s.raw && s.v6)),
        ("net/sockstat", |i, cx| i.sockstat(cx)),
        ("net/snmp", |i, cx| i.snmp(cx)),
        ("net/route", Inet::route_report),
        ("net/ipv6_route", Inet::route6_report),
        ("net/if_inet6", Inet::address6_report),
        ("net/arp", Inet::arp_report),
        ("net/igmp", Inet::group_report),
        ("net/igmp6", Inet::group6_report),
        ("net/dev_mcast", Inet::link_group_report),
    ];
    for (name, write) in all {
        let weak = Arc::downgrade(inet);
        let report = move |cx: &Curlwp<'_>| weak.upgrade().map_or(String::new(), |i| write(&i, cx));
        cx.kernel().reports().add(cx, name, report);
    }
}

fn is_udp(socket: &SocketInfo) -> bool {
    socket.protocol == IPPROTO_UDP && !socket.raw
}

fn is_ping(socket: &SocketInfo) -> bool {
    matches!(socket.protocol, IPPROTO_ICMP | IPPROTO_ICMPV6) && !socket.raw
}

/// An address as the words of memory that it takes, each in the machine's order.
fn words(ip: &IpAddr) -> String {
    let octets = crate::addr::octets(ip);
    let (words, _) = octets.as_chunks::<4>();
    words
        .iter()
        .map(|w| format!("{:08X}", u32::from_ne_bytes(*w)))
        .collect()
}

/// An address as its bytes.
fn hex(ip: &IpAddr) -> String {
    crate::addr::octets(ip)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

fn end(end: &Endpoint, v6: bool) -> String {
    let ip = match v6 {
        true => crate::addr::map(end.addr).into(),
        false => end.addr,
    };
    format!("{}:{:04X}", words(&ip), end.port)
}

impl Inet {
    /// `net/tcp` and those like it.
    fn socket_report(&self, cx: &Curlwp<'_>, wanted: fn(&SocketInfo) -> bool) -> String {
        let mut out = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
            .to_owned();
        for (n, socket) in self.sockets(cx).iter().filter(|s| wanted(s)).enumerate() {
            let none = Endpoint::new(crate::addr::any(socket.v6), 0);
            let (local, remote) = (&socket.local, socket.remote.as_ref().unwrap_or(&none));
            let [local, remote] = [local, remote].map(|e| end(e, socket.v6));
            let (state, received) = (socket.state, socket.receive_queue);
            let sent = if state == LISTENS {
                0
            } else {
                socket.send_queue
            };
            let _ = writeln!(
                out,
                "{n:>4}: {local} {remote} {state:02X} {sent:08X}:{received:08X} 00:00000000 00000000     0        0 0 1 0 {}",
                socket.dropped
            );
        }
        out
    }

    fn sockstat(&self, cx: &Curlwp<'_>) -> String {
        let all = self.sockets(cx);
        let count = |wanted: fn(&SocketInfo) -> bool| all.iter().filter(|s| wanted(s)).count();
        let waiting = count(|s| s.protocol == IPPROTO_TCP && s.state == 6);
        format!(
            "sockets: used {}\n\
             TCP: inuse {tcp} orphan 0 tw {waiting} alloc {tcp} mem 0\n\
             UDP: inuse {} mem 0\n\
             UDPLITE: inuse 0\n\
             RAW: inuse {}\n\
             FRAG: inuse 0 memory 0\n",
            all.len() - waiting,
            count(is_udp),
            count(|s| s.raw),
            tcp = count(|s| s.protocol == IPPROTO_TCP) - waiting,
        )
    }

    /// Of the variables of RFC 1213 those that the stack knows.
    fn snmp(&self, cx: &Curlwp<'_>) -> String {
        let connected = |s: &&SocketInfo| s.protocol == IPPROTO_TCP && s.state == 1;
        format!(
            "Ip: Forwarding DefaultTTL\nIp: {} {}\nTcp: CurrEstab\nTcp: {}\n",
            if self.config.forwarding4() != 0 { 1 } else { 2 },
            self.config.ttl(),
            self.sockets(cx).iter().filter(connected).count(),
        )
    }

    /// The name of an interface; empty for one that has gone.
    fn interface_name(&self, cx: &Curlwp<'_>, index: u32) -> String {
        let interface = self.interfaces.by_index(index);
        interface.map_or(String::new(), |i| i.name(cx.cpu()))
    }

    fn route_report(&self, cx: &Curlwp<'_>) -> String {
        let mut out = format!(
            "{:<127}\n",
            "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT"
        );
        let any = crate::addr::any(false);
        let routes = self.routes();
        for route in routes
            .iter()
            .filter(|r| r.dst.addr.is_ipv4() && r.table == TABLE_MAIN)
        {
            let mask = u32::MAX
                .checked_shl(32 - u32::from(route.dst.len))
                .unwrap_or(0);
            let line = format!(
                "{}\t{}\t{}\t{:04X}\t0\t0\t{}\t{}\t{}\t0\t0",
                match route.oif {
                    0 => "*".to_owned(),
                    index => self.interface_name(cx, index),
                },
                words(&route.dst.addr),
                words(&route.gateway.unwrap_or(any)),
                flags(route, 32),
                route.metric,
                words(&IpAddr::from(mask.to_be_bytes())),
                route.mtu,
            );
            let _ = writeln!(out, "{line:<127}");
        }
        out
    }

    fn route6_report(&self, cx: &Curlwp<'_>) -> String {
        let mut out = String::new();
        let any = crate::addr::any(true);
        for route in self.routes().iter().filter(|r| r.dst.addr.is_ipv6()) {
            let local = if route.kind == RouteKind::Local {
                RTF_LOCAL
            } else {
                0
            };
            let _ = writeln!(
                out,
                "{} {:02x} {} 00 {} {:08x} {:08x} {:08x} {:08x} {:>8}",
                hex(&route.dst.addr),
                route.dst.len,
                hex(&any),
                hex(&route.gateway.unwrap_or(any)),
                route.metric,
                1,
                0,
                flags(route, 128) | local,
                self.interface_name(cx, route.oif),
            );
        }
        out
    }

    fn address6_report(&self, cx: &Curlwp<'_>) -> String {
        const PERMANENT: u8 = 0x80;
        const TENTATIVE: u8 = 0x40;
        const DEPRECATED: u8 = 0x20;
        const FAILED: u8 = 0x08;
        let mut out = String::new();
        for addr in self.addresses().iter().filter(|a| a.addr.is_ipv6()) {
            let scope = match addr.scope() {
                254 => 0x10,
                253 => 0x20,
                _ => 0,
            };
            let flags = [
                (addr.valid_until == 0, PERMANENT),
                (addr.tentative, TENTATIVE),
                (addr.deprecated, DEPRECATED),
                (addr.duplicate, FAILED),
            ];
            let flags = flags
                .iter()
                .filter(|(on, _)| *on)
                .fold(0, |all, (_, flag)| all | flag);
            let _ = writeln!(
                out,
                "{} {:02x} {:02x} {scope:02x} {flags:02x} {:>8}",
                hex(&addr.addr),
                addr.interface,
                addr.prefix_len,
                self.interface_name(cx, addr.interface),
            );
        }
        out
    }

    fn arp_report(&self, cx: &Curlwp<'_>) -> String {
        let mut out =
            "IP address       HW type     Flags       HW address            Mask     Device\n"
                .to_owned();
        for n in self
            .neighbours(cx.cpu())
            .iter()
            .filter(|n| n.addr.is_ipv4())
        {
            // ATF_COM, and ATF_PERM.
            let flags = match (n.mac, n.state) {
                (None, _) => 0,
                (_, NeighbourState::Permanent) => 6,
                _ => 2,
            };
            let mac = n
                .mac
                .unwrap_or_default()
                .map(|b| format!("{b:02x}"))
                .join(":");
            let name = self.interface_name(cx, n.interface);
            let ip = n.addr.to_string();
            let _ = writeln!(
                out,
                "{ip:<16} 0x1         0x{flags:<10x}{mac}     *        {name}"
            );
        }
        out
    }

    /// Interfaces with their groups of one family, and how many want them.
    fn groups_by_interface(&self, cx: &Curlwp<'_>, v6: bool) -> Vec<(u32, Vec<(IpAddr, usize)>)> {
        let everybody: IpAddr = match v6 {
            false => [224, 0, 0, 1].into(),
            true => [0xff02, 0, 0, 0, 0, 0, 0, 1].into(),
        };
        let groups = self.groups(cx.cpu());
        let list = self.interfaces.list();
        list.iter()
            .map(|interface| {
                let mine = groups
                    .iter()
                    .filter(|(on, ip, _)| *on == interface.index() && ip.is_ipv6() == v6);
                let mine = mine.map(|&(_, ip, count)| (ip, count));
                (
                    interface.index(),
                    std::iter::once((everybody, 1)).chain(mine).collect(),
                )
            })
            .collect()
    }

    fn group_report(&self, cx: &Curlwp<'_>) -> String {
        let mut out = "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n".to_owned();
        for (index, groups) in self.groups_by_interface(cx, false) {
            let name = self.interface_name(cx, index);
            let _ = writeln!(out, "{index}\t{name:<10}: {:>5}      V3", groups.len());
            for (group, users) in groups {
                let _ = writeln!(out, "\t\t\t\t{} {users:>5} 0:00000000\t\t0", words(&group));
            }
        }
        out
    }

    fn group6_report(&self, cx: &Curlwp<'_>) -> String {
        let mut out = String::new();
        for (index, groups) in self.groups_by_interface(cx, true) {
            let name = self.interface_name(cx, index);
            for (group, users) in groups {
                let group = hex(&group);
                let _ = writeln!(out, "{index:<4} {name:<15} {group} {users:>5} 0000000C 0");
            }
        }
        out
    }

    /// The link-layer addresses of groups.
    fn link_group_report(&self, cx: &Curlwp<'_>) -> String {
        let mut out = String::new();
        for v6 in [false, true] {
            for (index, groups) in self.groups_by_interface(cx, v6) {
                let interface = self.interfaces.by_index(index);
                if interface.is_none_or(|i| i.link() != LinkType::Ethernet) {
                    continue;
                }
                let name = self.interface_name(cx, index);
                for (group, users) in groups {
                    let mac = crate::link::group_address(&group).map(|b| format!("{b:02x}"));
                    let _ = writeln!(
                        out,
                        "{index:<4} {name:<15} {users:<5} 0     {}",
                        mac.concat()
                    );
                }
            }
        }
        out
    }
}

fn flags(route: &Route, host: u8) -> u32 {
    let refuses = !matches!(route.kind, RouteKind::Unicast | RouteKind::Local);
    let kernel = route.protocol == PROTO_KERNEL;
    [
        (true, RTF_UP),
        (route.gateway.is_some(), RTF_GATEWAY),
        (route.dst.len == host && !kernel, RTF_HOST),
        (refuses && route.table == TABLE_MAIN, RTF_REJECT),
    ]
    .iter()
    .filter(|(on, _)| *on)
    .fold(0, |all, (_, flag)| all | flag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_words_of_memory_or_bytes() {
        let v4: IpAddr = "127.0.0.1".parse().unwrap();
        let v6: IpAddr = "fe80::1:2".parse().unwrap();
        let word = u32::from_ne_bytes([127, 0, 0, 1]);
        assert_eq!(words(&v4), format!("{word:08X}"));
        assert_eq!(hex(&v6), "fe800000000000000000000000010002");
        let first = u32::from_ne_bytes([0xfe, 0x80, 0, 0]);
        assert!(words(&v6).starts_with(&format!("{first:08X}00000000")));
    }
}

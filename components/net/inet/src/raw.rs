//! Raw sockets, raw(7), and ping sockets, icmp(7), on the way in.

use core::net::IpAddr;
use std::sync::{Arc, Weak};

use net::{Packet, Seldom};
use sync::Cpu;

use crate::addr::Endpoint;
use crate::dgram::{Dgram, Flavour};
use crate::icmp::Trouble;
use crate::ipv4::Header;
use crate::stack::{IPPROTO_ICMP, IPPROTO_ICMPV6};
use crate::{Inet, leaf};

/// The raw sockets; swapped whole.
#[derive(Default)]
pub(crate) struct Table(Seldom<Vec<Weak<Dgram>>>);

impl Table {
    pub(crate) fn add(&self, socket: &Arc<Dgram>) {
        self.0.change(|list| list.push(Arc::downgrade(socket)));
    }

    pub(crate) fn remove(&self, socket: &Dgram) {
        self.0
            .change(|list| list.retain(|other| !Weak::ptr_eq(other, &socket.me)));
    }

    pub(crate) fn all(&self) -> Vec<Arc<Dgram>> {
        let list = self.0.load();
        let all = list.iter().flat_map(|list| list.iter());
        all.filter_map(Weak::upgrade).collect()
    }
}

/// Whether a raw socket hears packets of a protocol between two addresses.
fn hears(
    socket: &Dgram,
    cpu: &Cpu<'_>,
    protocol: u8,
    local: IpAddr,
    remote: IpAddr,
    interface: u32,
) -> bool {
    if socket.flavour != Flavour::Raw(protocol) || socket.v6 != local.is_ipv6() {
        return false;
    }
    let state = leaf(cpu);
    let state = socket.state.lock(&state);
    (state.local.is_unspecified() || state.local == local)
        && state.remote.is_none_or(|r| r.addr == remote)
        && (state.device == 0 || interface == 0 || state.device == interface)
}

impl Inet {
    /// Shows a packet to raw sockets; answers whether any heard it.
    pub(crate) fn raw_input(&self, cpu: &Cpu<'_>, header: &Header, packet: &Packet) -> bool {
        let list = self.raw.0.load();
        let Some(list) = &*list else {
            return false;
        };
        let mut heard = false;
        for socket in list.iter().filter_map(Weak::upgrade) {
            if !hears(
                &socket,
                cpu,
                header.protocol,
                header.dst,
                header.src,
                header.interface,
            ) {
                continue;
            }
            heard = true;
            let mut copy = packet.clone();
            let kind = copy.front(1).map_or(0, |front| front[0]);
            let icmp = if socket.v6 {
                IPPROTO_ICMPV6
            } else {
                IPPROTO_ICMP
            };
            if header.protocol == icmp && socket.filters(cpu, kind)
                || !socket.hears_group(cpu, header)
            {
                continue;
            }
            if !socket.v6 {
                match copy.push(header.raw.len()) {
                    Some(front) => front.copy_from_slice(&header.raw),
                    None => continue,
                }
            }
            let from = Endpoint {
                scope: self.link_of(&header.src, header.interface),
                ..Endpoint::new(header.src, 0)
            };
            socket.enqueue(cpu, copy, from, header, 0);
        }
        heard
    }

    /// Whether a raw socket may have sent a packet of a protocol.
    pub(crate) fn raw_hears(&self, cpu: &Cpu<'_>, protocol: u8, src: IpAddr, dst: IpAddr) -> bool {
        let mut sockets = self.raw.all().into_iter();
        sockets.any(|socket| hears(&socket, cpu, protocol, src, dst, 0))
    }

    /// An ICMP error about a packet of a protocol.
    pub(crate) fn raw_error(
        &self,
        cpu: &Cpu<'_>,
        protocol: u8,
        src: IpAddr,
        dst: IpAddr,
        trouble: &Trouble,
    ) {
        for socket in self.raw.all() {
            if hears(&socket, cpu, protocol, src, dst, 0) {
                socket.trouble(cpu, Endpoint::new(dst, 0), trouble);
            }
        }
    }

    /// An answer to an echo.
    pub(crate) fn ping_input(&self, cpu: &Cpu<'_>, header: &Header, packet: &Packet) {
        let mut packet = packet.clone();
        let Some(front) = packet.front(8) else {
            return;
        };
        let dst = Endpoint::new(header.dst, u16::from_be_bytes([front[4], front[5]]));
        let src = Endpoint {
            scope: self.link_of(&header.src, header.interface),
            ..Endpoint::new(header.src, 0)
        };
        if let Some(socket) = self.pings.find(cpu, &dst, &src, header.interface, |_| true) {
            socket.enqueue(cpu, packet, src, header, dst.port);
        }
    }

    /// An ICMP error about an echo.
    pub(crate) fn ping_error(&self, cpu: &Cpu<'_>, src: IpAddr, dst: IpAddr, trouble: &Trouble) {
        if let Some(socket) = self.ping_of(cpu, src, dst, trouble) {
            socket.trouble(cpu, Endpoint::new(dst, 0), trouble);
        }
    }

    /// The ping socket that sent the echo that an ICMP error is about.
    pub(crate) fn ping_of(
        &self,
        cpu: &Cpu<'_>,
        src: IpAddr,
        dst: IpAddr,
        trouble: &Trouble,
    ) -> Option<Arc<Dgram>> {
        let &[.., a, b] = trouble.returned.first_chunk::<6>()?;
        let local = Endpoint::new(src, u16::from_be_bytes([a, b]));
        self.pings
            .find(cpu, &local, &Endpoint::new(dst, 0), 0, |_| true)
    }
}

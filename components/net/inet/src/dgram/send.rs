//! Sending messages: where to, from where, and what stands in front.

use core::net::IpAddr;
use std::sync::atomic::Ordering::Relaxed;

use abi::Errno;
use bytes::Bytes;
use kern::Curlwp;
use net::consts::{MSG_DONTROUTE, MSG_MORE};
use net::{Checksum, Cut, Gso, Outgoing, Packet};

use super::{Dgram, Flavour, State, train};
use crate::addr::{Endpoint, is_link_local};
use crate::options::{IpOptions, PMTUDISC_DO, PMTUDISC_DONT, PMTUDISC_PROBE, Said};
use crate::output::Outbound;
use crate::route::{Hop, RouteKind};
use crate::stack::{IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_UDP};
use crate::{checksum, leaf};

/// The most bytes of a message: an IP packet's less the headers.
const MOST: usize = 65_535 - 28;

/// A message on its way, as far as it is known before its bytes are taken.
struct Plan {
    to: Endpoint,
    src: IpAddr,
    port: u16,
    hop: Hop,
    out: Outbound,
    options: IpOptions,
    checksum_at: Option<usize>,
    segment: u16,
}

impl Dgram {
    /// The interface that packets to an address have to leave by; 0 for any.
    pub(crate) fn device_for(&self, state: &State, to: &Endpoint) -> u32 {
        let options = &state.options;
        let group = match to.addr {
            ip if !ip.is_multicast() => options.interface,
            IpAddr::V4(_) => options.group_interface,
            IpAddr::V6(_) => options.group_interface6,
        };
        let scope = if is_link_local(&to.addr) { to.scope } else { 0 };
        [state.device, scope, group]
            .into_iter()
            .find(|i| *i != 0)
            .unwrap_or(0)
    }

    /// Whether a socket of its family, bound as it is, can reach an address.
    pub(crate) fn may_reach(&self, cx: &Curlwp<'_>, to: &Endpoint) -> Result<(), Errno> {
        let leaf = leaf(cx.cpu());
        let state = self.state.lock(&leaf);
        let bound_elsewhere =
            !state.local.is_unspecified() && state.local.is_ipv4() != to.addr.is_ipv4();
        match to.addr {
            IpAddr::V4(_) if self.v6 && (state.options.v6only || bound_elsewhere) => {
                Err(Errno::ENETUNREACH)
            }
            IpAddr::V6(_) if !self.v6 => Err(Errno::EAFNOSUPPORT),
            IpAddr::V6(_) if bound_elsewhere => Err(Errno::ENETUNREACH),
            _ => Ok(()),
        }
    }

    pub(crate) fn send_message(
        &self,
        cx: &Curlwp<'_>,
        message: &mut Outgoing<'_, '_>,
    ) -> Result<(), Errno> {
        self.common.take_error()?;
        if message.uio.resid() > 65_535 {
            return Err(Errno::EMSGSIZE);
        }
        let said = Said::of(message.control)?;
        let plan = self.plan(cx, message, &said)?;
        if self.flavour == Flavour::Udp && message.uio.resid() > MOST {
            return Err(Errno::EMSGSIZE);
        }
        let mut data = vec![0; message.uio.resid()];
        message.uio.get(cx, &mut data)?;
        let len = data.len();
        // A datagram goes as a whole or not at all.
        self.send_data(cx, plan, data, message.flags)
            .inspect_err(|_| message.uio.give_back(len))
    }

    fn send_data(
        &self,
        cx: &Curlwp<'_>,
        plan: Plan,
        mut data: Vec<u8>,
        flags: i32,
    ) -> Result<(), Errno> {
        if self.flavour == Flavour::Udp {
            let leaf = leaf(cx.cpu());
            let mut state = self.state.lock(&leaf);
            if let Some((to, mut held)) = state.corked.take() {
                if held.len() + data.len() > MOST {
                    state.corked = Some((to, held));
                    return Err(Errno::EMSGSIZE);
                }
                held.extend_from_slice(&data);
                data = held;
            }
            if flags & MSG_MORE != 0 || state.cork {
                state.corked = Some((plan.to, data));
                return Ok(());
            }
        }
        self.send_planned(cx, plan, data)
    }

    /// Sends what was held back.
    pub(crate) fn send_corked(
        &self,
        cx: &Curlwp<'_>,
        to: Endpoint,
        data: Vec<u8>,
    ) -> Result<(), Errno> {
        let plan = self.plan_to(cx, to, 0, &Said::default())?;
        self.send_planned(cx, plan, data)
    }

    /// Finds out where a message goes.
    fn plan(
        &self,
        cx: &Curlwp<'_>,
        message: &Outgoing<'_, '_>,
        said: &Said,
    ) -> Result<Plan, Errno> {
        let leaf = leaf(cx.cpu());
        let remote = {
            let state = self.state.lock(&leaf);
            if state.sends_no_more {
                return Err(Errno::EPIPE);
            }
            match &state.corked {
                Some((to, _)) => Some(*to),
                None => state.remote,
            }
        };
        let mut to = match message.to {
            Some(addr) => Endpoint::parse(addr, self.v6)?,
            None => remote.ok_or(Errno::EDESTADDRREQ)?,
        };
        if self.flavour == Flavour::Udp && to.port == 0 {
            return Err(Errno::EINVAL);
        }
        if to.addr.is_unspecified() {
            to.addr = match to.addr {
                IpAddr::V4(_) => core::net::Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(_) => core::net::Ipv6Addr::LOCALHOST.into(),
            };
        }
        if message.to.is_some() {
            self.may_reach(cx, &to)?;
        }
        self.plan_to(cx, to, message.flags, said)
    }

    fn plan_to(
        &self,
        cx: &Curlwp<'_>,
        to: Endpoint,
        flags: i32,
        said: &Said,
    ) -> Result<Plan, Errno> {
        self.autobind(cx)?;
        let leaf = leaf(cx.cpu());
        let generation = self.inet.fib.generation();
        let mut state = self.state.lock(&leaf);
        let device = match said.interface {
            0 => self.device_for(&state, &to),
            interface if state.device != 0 && state.device != interface => {
                return Err(Errno::EINVAL);
            }
            interface => interface,
        };
        let (local, port, options) = (state.local, state.port, state.options);
        let (checksum_at, segment) = (state.checksum_at, state.segment);
        let known = match &state.last {
            Some((then, dst, by, hop)) if (*then, *dst, *by) == (generation, to.addr, device) => {
                Some(hop.clone())
            }
            _ => None,
        };
        let hop = match known {
            Some(hop) => hop,
            None => {
                drop(state);
                let hop = self.inet.route(&to.addr, device)?;
                state = self.state.lock(&leaf);
                state.last = Some((generation, to.addr, device, hop.clone()));
                hop
            }
        };
        drop(state);
        if hop.kind == RouteKind::Broadcast && !self.common.broadcast.load(Relaxed) {
            return Err(Errno::EACCES);
        }
        if flags & MSG_DONTROUTE != 0 && hop.next != to.addr {
            return Err(Errno::ENETUNREACH);
        }
        if let Some(src) = said.src
            && !self.inet.is_local(&src)
            && !options.freebind
            && !options.transparent
        {
            return Err(Errno::EINVAL);
        }
        let bound = !local.is_unspecified()
            && !local.is_multicast()
            && local.is_ipv4() == to.addr.is_ipv4();
        let group_src = match to.addr {
            IpAddr::V4(ip) if ip.is_multicast() => options.group_addr.map(IpAddr::from),
            _ => None,
        };
        let src = said
            .src
            .or(bound.then_some(local))
            .or(group_src)
            .unwrap_or(hop.src);
        let out = self.outbound(&options, &hop, &to, said);
        Ok(Plan {
            to,
            src,
            port,
            hop,
            out,
            options,
            checksum_at,
            segment: said.segment.unwrap_or(segment),
        })
    }

    fn outbound(&self, options: &IpOptions, hop: &Hop, to: &Endpoint, said: &Said) -> Outbound {
        let group = hop.kind == RouteKind::Multicast;
        let (ttl, tos, no_loop) = match (to.addr, group) {
            (IpAddr::V4(_), true) => (options.group_ttl, options.tos, !options.group_loop),
            (IpAddr::V4(_), false) => (options.ttl, options.tos, false),
            (IpAddr::V6(_), true) => (options.group_hops, options.tclass, !options.group_loop6),
            (IpAddr::V6(_), false) => (options.hops, options.tclass, false),
        };
        let protocol = match self.flavour {
            Flavour::Udp => IPPROTO_UDP,
            Flavour::Ping if self.v6 => IPPROTO_ICMPV6,
            Flavour::Ping => IPPROTO_ICMP,
            Flavour::Raw(number) => number,
        };
        Outbound {
            protocol,
            ttl: said.ttl.unwrap_or(ttl),
            tos: said.tos.unwrap_or(tos),
            dont_fragment: matches!(options.pmtu, PMTUDISC_DO | PMTUDISC_PROBE),
            no_loop,
            ..Outbound::default()
        }
    }

    fn send_planned(
        &self,
        cx: &Curlwp<'_>,
        mut plan: Plan,
        mut data: Vec<u8>,
    ) -> Result<(), Errno> {
        match self.flavour {
            Flavour::Udp => self.send_udp(cx, &plan, data.into()),
            Flavour::Ping => {
                let echo = if self.v6 {
                    crate::icmpv6::ECHO
                } else {
                    crate::icmp::ECHO
                };
                if data.len() < 8 || data[0] != echo || data[1] != 0 {
                    return Err(Errno::EINVAL);
                }
                data[4..6].copy_from_slice(&plan.port.to_be_bytes());
                let packet = crate::icmp::icmp_packet(data, plan.src, plan.to.addr);
                self.emit(cx, &plan, packet)
            }
            Flavour::Raw(_) if plan.options.header_included == Some(true) => {
                self.send_with_header(cx, &plan, data)
            }
            Flavour::Raw(number) => {
                if let Some(at) = plan.checksum_at
                    && plan.to.addr.is_ipv6()
                {
                    let mut sum = checksum::Sum::pseudo(plan.src, plan.to.addr, number, data.len());
                    let field = data.get_mut(at..at + 2).ok_or(Errno::EINVAL)?;
                    field.fill(0);
                    sum.add(&data);
                    data[at..at + 2].copy_from_slice(&sum.checksum());
                }
                plan.out.protocol = number;
                self.emit(cx, &plan, Packet::new(data.into()))
            }
        }
    }

    fn send_udp(&self, cx: &Curlwp<'_>, plan: &Plan, data: Bytes) -> Result<(), Errno> {
        let size = usize::from(plan.segment);
        let train = size != 0 && data.len() > size;
        if train && data.len() > size * train::MOST {
            return Err(Errno::EINVAL);
        }
        let mut packet = Packet::new(data);
        packet.gso = train.then_some(Gso {
            size: plan.segment,
            cut: Cut::Udp,
        });
        let len = packet.len() + 8;
        let header = packet.push(8).ok_or(Errno::ENOBUFS)?;
        header[..2].copy_from_slice(&plan.port.to_be_bytes());
        header[2..4].copy_from_slice(&plan.to.port.to_be_bytes());
        header[4..6].copy_from_slice(&(len as u16).to_be_bytes());
        let sum = checksum::Sum::pseudo(plan.src, plan.to.addr, IPPROTO_UDP, len);
        header[6..8].copy_from_slice(&sum.partial());
        packet.checksum = Checksum::Partial {
            start: 0,
            offset: 6,
        };
        self.emit(cx, plan, packet)
    }

    /// Sends a packet that is too long for its path as the socket's option says.
    fn emit(&self, cx: &Curlwp<'_>, plan: &Plan, packet: Packet) -> Result<(), Errno> {
        let header = if plan.to.addr.is_ipv6() { 40 } else { 20 };
        let len = packet
            .gso
            .map_or(packet.len(), |gso| usize::from(gso.size) + 8);
        let long = len + header > plan.hop.mtu as usize;
        let mut out = plan.out.clone();
        let forbidden = match plan.to.addr {
            IpAddr::V4(_) => out.dont_fragment,
            IpAddr::V6(_) => out.dont_fragment || plan.options.dont_fragment6,
        };
        // Datagrams of a train are not cut once more.
        if long && (forbidden || plan.segment != 0) {
            return Err(self.too_long_for(cx, plan));
        }
        // A packet that fits now shall tell us when it does not.
        if !long && plan.options.pmtu != PMTUDISC_DONT {
            out.dont_fragment = true;
        }
        let sent = self
            .inet
            .send(cx.cpu(), &plan.hop, plan.src, plan.to.addr, &out, packet);
        let wants = &plan.options.wants;
        match sent {
            // A full queue is as a loss on the way, for who has not asked to be told.
            Err(Errno::ENOBUFS) if !wants.errors && !wants.errors6 => Ok(()),
            sent => sent,
        }
    }

    fn too_long_for(&self, cx: &Curlwp<'_>, plan: &Plan) -> Errno {
        let wants = match plan.to.addr {
            IpAddr::V4(_) => plan.options.wants.errors,
            IpAddr::V6(_) => plan.options.wants.errors6,
        };
        self.too_long(cx.cpu(), wants, plan.to, plan.hop.mtu)
    }

    /// Sends a packet whose header is the caller's: of IPv4 with what raw(7) fills in for `IP_HDRINCL`, of IPv6 as it is.
    fn send_with_header(
        &self,
        cx: &Curlwp<'_>,
        plan: &Plan,
        mut data: Vec<u8>,
    ) -> Result<(), Errno> {
        let v6 = plan.to.addr.is_ipv6();
        if data.len() < if v6 { 40 } else { 20 } {
            return Err(Errno::EINVAL);
        }
        if data.len() > plan.hop.mtu as usize {
            return Err(self.too_long_for(cx, plan));
        }
        if !v6 {
            self.complete_header(plan, &mut data)?;
        }
        let (hop, no_loop, packet) = (&plan.hop, plan.out.no_loop, Packet::new(data.into()));
        self.inet.send_whole(cx.cpu(), hop, v6, no_loop, packet)
    }

    /// Fills in what the caller leaves to the kernel of an IPv4 header; there are at least 20 bytes.
    fn complete_header(&self, plan: &Plan, data: &mut [u8]) -> Result<(), Errno> {
        let total = u16::try_from(data.len()).map_err(|_| Errno::EMSGSIZE)?;
        let len = usize::from(data[0] & 0xf) * 4;
        if len < 20 || data.len() < len {
            return Err(Errno::EINVAL);
        }
        data[2..4].copy_from_slice(&total.to_be_bytes());
        if data[4..6] == [0, 0] {
            data[4..6].copy_from_slice(&self.inet.next_ident().to_be_bytes());
        }
        if data[12..16] == [0; 4]
            && let IpAddr::V4(src) = plan.src
        {
            data[12..16].copy_from_slice(&src.octets());
        }
        data[10..12].fill(0);
        let sum = checksum::of(&data[..len]);
        data[10..12].copy_from_slice(&sum);
        Ok(())
    }
}

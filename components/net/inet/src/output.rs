//! The way down: IP headers, filters, fragments.

use core::net::IpAddr;

use abi::Errno;
use net::{LinkType, Packet};
use smallvec::SmallVec;
use sync::Cpu;

use crate::filter::Hook;
use crate::route::{Hop, RouteKind};
use crate::{Inet, checksum};

/// What the IP header of a packet shall say.
#[derive(Clone, Default)]
pub(crate) struct Outbound {
    /// The protocol above.
    pub(crate) protocol: u8,
    /// Time to live or hop limit; 0 for what the stack has as default.
    pub(crate) ttl: u8,
    /// Type of service or traffic class.
    pub(crate) tos: u8,
    /// Routers must not cut it, and we do not either.
    pub(crate) dont_fragment: bool,
    /// Groups' packets are not for this kernel itself.
    pub(crate) no_loop: bool,
    /// IPv4 options, padded; IPv6 extension headers, the first of type `extension`.
    pub(crate) options: SmallVec<[u8; 8]>,
    /// Type of the first IPv6 extension header, if there are any.
    pub(crate) extension: u8,
}

impl Inet {
    /// Sends a transport's packet. `EMSGSIZE` when it is too long and must not be cut, and what the link says.
    pub(crate) fn send(
        &self,
        cpu: &Cpu<'_>,
        hop: &Hop,
        src: IpAddr,
        dst: IpAddr,
        out: &Outbound,
        mut packet: Packet,
    ) -> Result<(), Errno> {
        let v6 = match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let len = 20 + out.options.len();
                let total = u16::try_from(packet.len() + len).map_err(|_| Errno::EMSGSIZE)?;
                let header = packet.push(len).ok_or(Errno::ENOBUFS)?;
                header[0] = 0x40 | (len / 4) as u8;
                header[1] = out.tos;
                header[2..4].copy_from_slice(&total.to_be_bytes());
                header[4..6].copy_from_slice(&self.next_ident().to_be_bytes());
                header[6] = if out.dont_fragment { 0x40 } else { 0 };
                header[8] = self.ttl(hop, out, false);
                header[9] = out.protocol;
                header[12..16].copy_from_slice(&src.octets());
                header[16..20].copy_from_slice(&dst.octets());
                header[20..].copy_from_slice(&out.options);
                let sum = checksum::of(header);
                header[10..12].copy_from_slice(&sum);
                false
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let payload = packet.len() + out.options.len();
                let payload = u16::try_from(payload).map_err(|_| Errno::EMSGSIZE)?;
                if !out.options.is_empty() {
                    let header = packet.push(out.options.len()).ok_or(Errno::ENOBUFS)?;
                    header.copy_from_slice(&out.options);
                }
                let header = packet.push(40).ok_or(Errno::ENOBUFS)?;
                header[0] = 0x60 | out.tos >> 4;
                header[1] = out.tos << 4;
                header[4..6].copy_from_slice(&payload.to_be_bytes());
                header[6] = if out.options.is_empty() {
                    out.protocol
                } else {
                    out.extension
                };
                header[7] = self.ttl(hop, out, true);
                header[8..24].copy_from_slice(&src.octets());
                header[24..40].copy_from_slice(&dst.octets());
                true
            }
            _ => return Err(Errno::EAFNOSUPPORT),
        };
        self.send_whole(cpu, hop, v6, out.no_loop, packet)
    }

    fn ttl(&self, hop: &Hop, out: &Outbound, v6: bool) -> u8 {
        match (out.ttl, hop.kind) {
            (0, RouteKind::Multicast) => 1,
            (0, _) if v6 => self.config.hop_limit() as u8,
            (0, _) => self.config.ttl() as u8,
            (ttl, _) => ttl,
        }
    }

    /// Sends a packet of this kernel that has its IP header.
    pub(crate) fn send_whole(
        &self,
        cpu: &Cpu<'_>,
        hop: &Hop,
        v6: bool,
        no_loop: bool,
        mut packet: Packet,
    ) -> Result<(), Errno> {
        if !self.filters.is_empty() {
            let before = addresses(&mut packet, v6);
            if !self.passes(
                cpu,
                Hook::Output,
                v6,
                None,
                Some(&hop.interface),
                &mut packet,
            ) {
                return Err(Errno::EPERM);
            }
            let after = addresses(&mut packet, v6);
            if let (Some((_, before)), Some((_, dst))) = (before, after)
                && dst != before
            {
                let hop = self.route(&dst, 0)?;
                return self.emit(cpu, &hop, v6, None, packet);
            }
        }
        if matches!(hop.kind, RouteKind::Multicast | RouteKind::Broadcast)
            && !no_loop
            && !hop.interface.is_loopback()
            && (hop.kind == RouteKind::Broadcast
                || addresses(&mut packet, v6).is_some_and(|(source, group)| {
                    self.is_member(hop.interface.index(), &group, &source)
                }))
        {
            self.loop_back(cpu, &hop.interface, packet.clone());
        }
        self.emit(cpu, hop, v6, None, packet)
    }

    /// Sends a packet, this kernel's or one that is forwarded: filters, fragments, the link.
    pub(crate) fn emit(
        &self,
        cpu: &Cpu<'_>,
        hop: &Hop,
        v6: bool,
        input: Option<&std::sync::Arc<net::Ifnet>>,
        mut packet: Packet,
    ) -> Result<(), Errno> {
        if !self.passes(
            cpu,
            Hook::Postrouting,
            v6,
            input,
            Some(&hop.interface),
            &mut packet,
        ) {
            return Err(Errno::EPERM);
        }
        if fits(&mut packet, hop) {
            return self.link_output(cpu, hop, v6, packet);
        }
        match packet.gso {
            None => self.emit_cut(cpu, hop, v6, packet),
            Some(_) => net::segment(LinkType::Ip, packet)?
                .try_for_each(|packet| self.emit_cut(cpu, hop, v6, packet)),
        }
    }

    /// Sends a packet in fragments.
    fn emit_cut(&self, cpu: &Cpu<'_>, hop: &Hop, v6: bool, packet: Packet) -> Result<(), Errno> {
        crate::frag::cut(packet, v6, hop.mtu as usize, self.random())?
            .into_iter()
            .try_for_each(|piece| self.link_output(cpu, hop, v6, piece))
    }
}

/// Whether a packet, or each of the segments that it stands for, is short enough.
pub(crate) fn fits(packet: &mut Packet, hop: &Hop) -> bool {
    net::segment_len(LinkType::Ip, packet) <= hop.mtu as usize
}

/// Where a packet comes from and goes, by its IP header.
fn addresses(packet: &mut Packet, v6: bool) -> Option<(IpAddr, IpAddr)> {
    if v6 {
        let (both, _) = packet.front(40)?[8..].as_chunks::<16>();
        Some((both[0].into(), both[1].into()))
    } else {
        let (both, _) = packet.front(20)?[12..].as_chunks::<4>();
        Some((both[0].into(), both[1].into()))
    }
}

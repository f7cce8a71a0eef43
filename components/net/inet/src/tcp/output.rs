//! Segments on their way out.

use core::net::IpAddr;
use std::collections::BTreeMap;

use abi::Errno;
use hypercall::Nanos;
use net::{Checksum, Cut, Gso, Packet};
use sync::{Cpu, Mutex};
use tcp::{Cookie, Segment, Tuple};

use super::conn::{Conn, Inner};
use crate::output::Outbound;
use crate::route::Hop;
use crate::stack::IPPROTO_TCP;
use crate::{Inet, checksum, leaf};

/// The most payload of one trip down: an IPv4 packet's length less the longest headers.
const TRIP: u32 = 65_535 - 80;
/// The most fast-open cookies that are kept.
const MOST_COOKIES: usize = 1024;

/// Cookies that peers have given us, RFC 7413 4.1.3. The map is a leaf.
#[derive(Default)]
pub(super) struct Cookies(Mutex<BTreeMap<IpAddr, Cookie>>);

impl Cookies {
    pub(super) fn get(&self, cpu: &Cpu<'_>, peer: &IpAddr) -> Option<Cookie> {
        self.0.lock(&leaf(cpu)).get(peer).copied()
    }

    pub(super) fn put(&self, cpu: &Cpu<'_>, peer: IpAddr, cookie: Cookie) {
        let leaf = leaf(cpu);
        let mut known = self.0.lock(&leaf);
        if known.len() < MOST_COOKIES || known.contains_key(&peer) {
            known.insert(peer, cookie);
        }
    }
}

/// The largest segment that a hop takes, without options.
pub(super) fn mss(hop: &Hop) -> u16 {
    let headers = if hop.next.is_ipv4() { 40 } else { 60 };
    let most = 65_535 - if hop.next.is_ipv4() { 40 } else { 20 };
    hop.mtu.saturating_sub(headers).clamp(88, most) as u16
}

impl Inner {
    /// Where packets go now.
    pub(super) fn hop(&mut self, inet: &Inet, tuple: &Tuple) -> Result<&Hop, Errno> {
        let generation = inet.fib.generation();
        let known = self.hop.as_ref().is_some_and(|hop| hop.0 == generation);
        if !known {
            let hop = inet.route(&tuple.remote.ip(), self.interface)?;
            self.hop = Some(Box::new((generation, hop)));
        }
        self.hop
            .as_ref()
            .map(|hop| &hop.1)
            .ok_or(Errno::ENETUNREACH)
    }
}

impl Conn {
    /// Sends what the engine wants sent.
    pub(super) fn transmit(&self, cpu: &Cpu<'_>, inet: &Inet, inner: &mut Inner, now: Nanos) {
        while let Some(segment) = inner.tcp.poll_transmit(now, TRIP) {
            let (ttl, tos) = (inner.ttl, inner.tos);
            // Without a way it is as if it were lost.
            if let Ok(hop) = inner.hop(inet, &self.tuple) {
                let _ = inet.tcp_send(cpu, hop, &self.tuple, ttl, tos, segment);
            }
        }
    }
}

impl Inet {
    /// Sends a segment.
    pub(super) fn tcp_send(
        &self,
        cpu: &Cpu<'_>,
        hop: &Hop,
        tuple: &Tuple,
        ttl: u8,
        tos: u8,
        mut segment: Segment,
    ) -> Result<(), Errno> {
        let mut packet = Packet::default();
        std::mem::take(&mut segment.payload)
            .into_iter()
            .for_each(|piece| packet.append(piece));
        let (payload, len) = (packet.len(), segment.header_len());
        let (src, dst) = (tuple.local.ip(), tuple.remote.ip());
        let header = packet.push(len).ok_or(Errno::ENOBUFS)?;
        segment.emit_header(header).ok_or(Errno::ENOBUFS)?;
        let sum = checksum::Sum::pseudo(src, dst, IPPROTO_TCP, payload + len);
        header[16..18].copy_from_slice(&sum.partial());
        packet.checksum = Checksum::Partial {
            start: 0,
            offset: 16,
        };
        if segment.gso_size > 0 && payload > segment.gso_size as usize {
            packet.gso = Some(Gso {
                size: segment.gso_size.min(0xffff) as u16,
                cut: if src.is_ipv4() { Cut::Tcp4 } else { Cut::Tcp6 },
            });
        }
        let out = Outbound {
            protocol: IPPROTO_TCP,
            ttl,
            tos: tos & !3 | segment.ecn.bits(),
            dont_fragment: true,
            ..Outbound::default()
        };
        self.send(cpu, hop, src, dst, &out, packet)
    }

    /// Sends a segment that no connection sends.
    pub(crate) fn tcp_reply(&self, cpu: &Cpu<'_>, tuple: &Tuple, interface: u32, segment: Segment) {
        let dst = tuple.remote.ip();
        if let Ok(hop) = self.route(&dst, self.link_of(&dst, interface)) {
            let _ = self.tcp_send(cpu, &hop, tuple, 0, 0, segment);
        }
    }
}

//! Packets as the filter sees them: which connection they are of, and how an end of them is rewritten.
//!
//! Checksums are adjusted by what changes (RFC 1624), so that a packet that was damaged stays damaged. One whose checksum is left to
//! whoever sends it ([`Checksum::Partial`]) has only its pseudo header summed up, and only that is adjusted.

use core::net::IpAddr;

use net::{Checksum, InternetSum, Packet};

use crate::lang::{ICMP, ICMP6, TCP, UDP};

/// How far into a packet headers are looked for, in bytes: what a packet's head holds beside a link-layer header.
const MOST: usize = 160;

/// Which connection a packet is of, and which way it goes: protocol, addresses and ports. An echo's identifier is the port of who asked;
/// protocols without ports have 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) protocol: u8,
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    pub(crate) sport: u16,
    pub(crate) dport: u16,
}

impl Key {
    /// That of the answers.
    pub(crate) fn reversed(&self) -> Key {
        Key {
            protocol: self.protocol,
            src: self.dst,
            dst: self.src,
            sport: self.dport,
            dport: self.sport,
        }
    }

    pub(crate) fn end(&self, side: Side) -> (IpAddr, u16) {
        match side {
            Side::Src => (self.src, self.sport),
            Side::Dst => (self.dst, self.dport),
        }
    }
}

/// An end of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Src,
    Dst,
}

impl Side {
    fn other(self) -> Side {
        match self {
            Side::Src => Side::Dst,
            Side::Dst => Side::Src,
        }
    }
}

/// What is in a packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) v6: bool,
    pub(crate) key: Key,
    /// How long it is, with its IP header.
    pub(crate) len: usize,
    /// Where the transport's header is.
    transport: usize,
    pub(crate) what: What,
}

/// What is behind the IP header.
#[derive(Clone, Copy, Debug)]
pub(crate) enum What {
    Tcp(Segment),
    Udp,
    /// A request or an answer.
    Echo(u8),
    /// An ICMP error about a packet, of which this came back.
    Error(u8, Inner),
    /// Another message of ICMP, of a type.
    Icmp(u8),
    /// Another protocol, or a part of a packet that is not its first.
    Other,
}

/// What TCP's tracking looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) flags: u8,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) window: u16,
    /// Bytes of data.
    pub(crate) len: u32,
    /// The window's scale, of a SYN that has the option.
    pub(crate) scale: Option<u8>,
}

/// The packet in an ICMP error.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inner {
    pub(crate) key: Key,
    ip: usize,
    transport: usize,
    /// It is an echo's request or answer.
    echo: Option<u8>,
}

impl Seen {
    /// A packet of which only this is asked.
    #[cfg(test)]
    pub(crate) fn only(key: Key, what: What) -> Seen {
        Seen {
            v6: key.src.is_ipv6(),
            key,
            len: 100,
            transport: 0,
            what,
        }
    }

    /// Looks at a packet that begins with its IP header. `None` for what is cut off or lies about its lengths.
    pub(crate) fn of(packet: &mut Packet) -> Option<Seen> {
        let len = packet.len();
        let ip = Ip::at(packet, 0)?;
        let mut seen = Seen {
            v6: ip.v6,
            key: ip.key(),
            len,
            transport: ip.transport,
            what: What::Other,
        };
        if ip.later_part {
            return Some(seen);
        }
        let at = ip.transport;
        match ip.protocol {
            TCP => {
                let header = part(packet, at, 20)?;
                let (sport, dport) = (be16(header, 0), be16(header, 2));
                let mut segment = Segment {
                    flags: header[13],
                    seq: be32(header, 4),
                    ack: be32(header, 8),
                    window: be16(header, 14),
                    len: 0,
                    scale: None,
                };
                let data = usize::from(header[12] >> 4) * 4;
                segment.len = len.checked_sub(at + data).filter(|_| data >= 20)? as u32;
                if segment.flags & SYN != 0 {
                    segment.scale = window_scale(&part(packet, at, data)?[20..]);
                }
                (seen.key.sport, seen.key.dport) = (sport, dport);
                seen.what = What::Tcp(segment);
            }
            UDP => {
                let header = part(packet, at, 8)?;
                (seen.key.sport, seen.key.dport) = (be16(header, 0), be16(header, 2));
                seen.what = What::Udp;
            }
            protocol @ (ICMP | ICMP6) if (protocol == ICMP6) == ip.v6 => {
                let header = part(packet, at, 4)?;
                let kind = header[0];
                seen.what = if let Some(request) = echo(ip.v6, kind) {
                    let id = be16(part(packet, at, 8)?, 4);
                    match request {
                        true => seen.key.sport = id,
                        false => seen.key.dport = id,
                    }
                    What::Echo(kind)
                } else if is_error(ip.v6, kind) {
                    match Inner::at(packet, at + 8, ip.v6) {
                        Some(inner) => What::Error(kind, inner),
                        None => What::Icmp(kind),
                    }
                } else {
                    What::Icmp(kind)
                };
            }
            _ => {}
        }
        Some(seen)
    }

    /// The type of an ICMP message.
    pub(crate) fn icmp_type(&self) -> Option<u8> {
        match self.what {
            What::Echo(kind) | What::Error(kind, _) | What::Icmp(kind) => Some(kind),
            _ => None,
        }
    }

    /// Neighbour discovery and group membership of IPv6, which a link does not work without.
    pub(crate) fn is_link_housekeeping(&self) -> bool {
        self.v6 && matches!(self.what, What::Icmp(130..=137 | 143))
    }

    /// Whether answers are to be expected, by which a state is worth having.
    pub(crate) fn may_begin(&self) -> bool {
        let group = self.key.dst.is_multicast()
            || matches!(self.key.dst, IpAddr::V4(ip) if ip.is_broadcast());
        let asks = match self.what {
            What::Tcp(segment) => segment.flags & RST == 0,
            What::Echo(kind) => echo(self.v6, kind) == Some(true),
            What::Error(..) | What::Icmp(_) => false,
            What::Udp | What::Other => true,
        };
        asks && !group && !self.key.src.is_unspecified()
    }

    /// Gives the packet another source or destination; an ICMP error's packet gets it as its other end. `None` when it is shorter than
    /// it was.
    pub(crate) fn rewrite(
        &mut self,
        packet: &mut Packet,
        side: Side,
        to: (IpAddr, u16),
    ) -> Option<()> {
        if self.key.end(side) == to {
            return Some(());
        }
        let partial = matches!(packet.checksum, Checksum::Partial { .. });
        let transport = self.transport;
        let (port_at, sum_at) = match self.what {
            What::Tcp(_) => (Some(transport + port_offset(side)), Some(transport + 16)),
            What::Udp => (Some(transport + port_offset(side)), Some(transport + 6)),
            What::Echo(kind) => (
                (echo(self.v6, kind) == Some(side == Side::Src)).then_some(transport + 4),
                Some(transport + 2),
            ),
            What::Error(..) | What::Icmp(_) => (None, Some(transport + 2)),
            What::Other => (None, None),
        };
        let end = sum_at
            .into_iter()
            .chain(port_at)
            .max()
            .map_or(transport, |at| at + 2);
        let bytes = packet.front_mut(end)?;
        let addr_change = write_addr(bytes, 0, self.v6, side, to.0);
        // ICMP of IPv4 alone has no pseudo header.
        let pseudo = self.v6 || matches!(self.what, What::Tcp(_) | What::Udp);
        let mut change = Change::default();
        if pseudo {
            change.add(addr_change);
        }
        if let Some(at) = port_at {
            let port = Change::of(&mut bytes[at..at + 2], &to.1.to_be_bytes());
            if !partial {
                change.add(port);
            }
        }
        if let Some(at) = sum_at {
            let udp = matches!(self.what, What::Udp);
            adjust(
                &mut bytes[at..at + 2],
                change,
                partial,
                udp && !self.v6,
                udp,
            );
        }
        match side {
            Side::Src => (self.key.src, self.key.sport) = to,
            Side::Dst => (self.key.dst, self.key.dport) = to,
        }
        Some(())
    }

    /// The same for an ICMP error: `outer` is the address that its header gets, `to` what its packet gets as its other end.
    pub(crate) fn rewrite_error(
        &mut self,
        packet: &mut Packet,
        side: Side,
        outer: IpAddr,
        to: (IpAddr, u16),
    ) -> Option<()> {
        let What::Error(_, inner) = self.what else {
            return Some(());
        };
        let partial = matches!(packet.checksum, Checksum::Partial { .. });
        let mut end = inner.transport + 8;
        let inner_sum = match (inner.key.protocol, inner.echo) {
            (TCP, _) => Some(inner.transport + 16),
            (UDP, _) => Some(inner.transport + 6),
            (_, Some(_)) => Some(inner.transport + 2),
            _ => None,
        };
        // Of TCP, who sends the error may have cut the checksum off.
        let inner_sum = inner_sum.filter(|at| at + 2 <= packet.len().min(MOST));
        end = end.max(inner_sum.map_or(0, |at| at + 2));
        let (v6, at) = (self.v6, self.transport);
        let bytes = packet.front_mut(end)?;
        let outer_change = write_addr(bytes, 0, v6, side, outer);
        let mut change = Change::default();
        if v6 {
            change.add(outer_change);
        }
        let body = sum(&bytes[at + 8..]);
        let other = side.other();
        let mut inside = Change::default();
        let inner_addr = write_addr(bytes, inner.ip, v6, other, to.0);
        if v6 || inner.echo.is_none() {
            inside.add(inner_addr);
        }
        let port_at = match (inner.key.protocol, inner.echo) {
            (TCP | UDP, _) => Some(inner.transport + port_offset(other)),
            (_, Some(kind)) => {
                (echo(v6, kind) == Some(other == Side::Src)).then_some(inner.transport + 4)
            }
            _ => None,
        };
        if let Some(at) = port_at {
            inside.add(Change::of(&mut bytes[at..at + 2], &to.1.to_be_bytes()));
        }
        if let Some(at) = inner_sum {
            let udp = inner.key.protocol == UDP;
            adjust(&mut bytes[at..at + 2], inside, false, udp, udp);
        }
        if !partial {
            change.add(Change {
                before: body,
                after: sum(&bytes[at + 8..]),
            });
        }
        adjust(&mut bytes[at + 2..at + 4], change, partial, false, false);
        match side {
            Side::Src => self.key.src = outer,
            Side::Dst => self.key.dst = outer,
        }
        Some(())
    }
}

impl Inner {
    /// The packet in an ICMP error, if enough of it came back.
    fn at(packet: &mut Packet, at: usize, v6: bool) -> Option<Inner> {
        let ip = Ip::at(packet, at).filter(|ip| ip.v6 == v6 && !ip.later_part)?;
        let header = part(packet, ip.transport, 8)?;
        let mut key = ip.key();
        let mut kind = None;
        match ip.protocol {
            TCP | UDP => (key.sport, key.dport) = (be16(header, 0), be16(header, 2)),
            protocol @ (ICMP | ICMP6) if (protocol == ICMP6) == v6 => {
                let id = be16(header, 4);
                match echo(v6, header[0])? {
                    true => key.sport = id,
                    false => key.dport = id,
                }
                kind = Some(header[0]);
            }
            _ => {}
        }
        Some(Inner {
            key,
            ip: at,
            transport: ip.transport,
            echo: kind,
        })
    }
}

/// An IP header, with IPv6's extension headers.
struct Ip {
    v6: bool,
    protocol: u8,
    src: IpAddr,
    dst: IpAddr,
    /// Where what it carries begins.
    transport: usize,
    /// A fragment that does not begin with the transport's header.
    later_part: bool,
}

impl Ip {
    fn at(packet: &mut Packet, at: usize) -> Option<Ip> {
        match part(packet, at, 1)?[0] >> 4 {
            4 => {
                let header = part(packet, at, 20)?;
                let ip = |at: usize| {
                    IpAddr::from([header[at], header[at + 1], header[at + 2], header[at + 3]])
                };
                let len = usize::from(header[0] & 15) * 4;
                (len >= 20 && at + len <= packet_len(header, at)).then_some(Ip {
                    v6: false,
                    protocol: header[9],
                    src: ip(12),
                    dst: ip(16),
                    transport: at + len,
                    later_part: be16(header, 6) & 0x1fff != 0,
                })
            }
            6 => {
                let header = part(packet, at, 40)?;
                let ip = |at: usize| {
                    let octets: Option<[u8; 16]> = header[at..at + 16].try_into().ok();
                    octets.map(IpAddr::from)
                };
                let mut found = Ip {
                    v6: true,
                    protocol: header[6],
                    src: ip(8)?,
                    dst: ip(24)?,
                    transport: at + 40,
                    later_part: false,
                };
                found.skip_extensions(packet)?;
                Some(found)
            }
            _ => None,
        }
    }

    fn skip_extensions(&mut self, packet: &mut Packet) -> Option<()> {
        const FRAGMENT: u8 = 44;
        while !self.later_part && matches!(self.protocol, 0 | 43 | FRAGMENT | 60) {
            let header = part(packet, self.transport, 8)?;
            let len = match self.protocol {
                FRAGMENT => 8,
                _ => usize::from(header[1]) * 8 + 8,
            };
            self.later_part = self.protocol == FRAGMENT && be16(header, 2) & 0xfff8 != 0;
            self.protocol = header[0];
            self.transport += len;
        }
        Some(())
    }

    fn key(&self) -> Key {
        Key {
            protocol: self.protocol,
            src: self.src,
            dst: self.dst,
            sport: 0,
            dport: 0,
        }
    }
}

/// Where an IPv4 packet ends by its own account.
fn packet_len(header: &[u8], at: usize) -> usize {
    at + usize::from(be16(header, 2))
}

/// Some bytes of a packet, if it has them and headers may be that far in.
fn part(packet: &mut Packet, at: usize, len: usize) -> Option<&[u8]> {
    if at + len > MOST {
        return None;
    }
    Some(&packet.front(at + len)?[at..])
}

/// TCP's flags.
pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const ACK: u8 = 16;

/// The window scale option, RFC 7323 2.2.
fn window_scale(mut options: &[u8]) -> Option<u8> {
    loop {
        match options {
            [3, 3, scale, ..] => return Some((*scale).min(14)),
            [1, rest @ ..] => options = rest,
            [kind, len, ..] if *kind > 1 => options = options.get(usize::from(*len).max(2)..)?,
            _ => return None,
        }
    }
}

/// Whether a type is an echo's request (true) or answer.
fn echo(v6: bool, kind: u8) -> Option<bool> {
    match (v6, kind) {
        (false, 8) | (true, 128) => Some(true),
        (false, 0) | (true, 129) => Some(false),
        _ => None,
    }
}

fn is_error(v6: bool, kind: u8) -> bool {
    match v6 {
        true => matches!(kind, 1..=4),
        false => matches!(kind, 3 | 11 | 12),
    }
}

fn port_offset(side: Side) -> usize {
    match side {
        Side::Src => 0,
        Side::Dst => 2,
    }
}

/// Writes an address into an IP header, which keeps its checksum; answers what changed.
fn write_addr(bytes: &mut [u8], ip: usize, v6: bool, side: Side, to: IpAddr) -> Change {
    match (to, v6) {
        (IpAddr::V4(to), false) => {
            let at = ip + if side == Side::Src { 12 } else { 16 };
            let change = Change::of(&mut bytes[at..at + 4], &to.octets());
            adjust(&mut bytes[ip + 10..ip + 12], change, false, false, false);
            change
        }
        (IpAddr::V6(to), true) => {
            let at = ip + if side == Side::Src { 8 } else { 24 };
            Change::of(&mut bytes[at..at + 16], &to.octets())
        }
        // Keys and packets are of one family.
        _ => Change::default(),
    }
}

/// What bytes summed up to and sum up to.
#[derive(Clone, Copy, Default)]
struct Change {
    before: u16,
    after: u16,
}

impl Change {
    /// Puts bytes in the place of others.
    fn of(place: &mut [u8], new: &[u8]) -> Change {
        let before = sum(place);
        place.copy_from_slice(new);
        Change {
            before,
            after: sum(new),
        }
    }

    fn add(&mut self, other: Change) {
        self.before = plus(self.before, other.before);
        self.after = plus(self.after, other.after);
    }
}

/// Brings a checksum up to date, RFC 1624 equation 3. One that is `partial` is a sum and no complement of one. Where it is `optional`, 0
/// says that there is none; `no_zero` writes 0 as all ones.
fn adjust(field: &mut [u8], change: Change, partial: bool, optional: bool, no_zero: bool) {
    let old = be16(field, 0);
    if change.before == change.after || optional && !partial && old == 0 {
        return;
    }
    let new = match partial {
        true => plus(plus(old, !change.before), change.after),
        false => match !plus(plus(!old, !change.before), change.after) {
            0 if no_zero => 0xffff,
            sum => sum,
        },
    };
    field.copy_from_slice(&new.to_be_bytes());
}

/// The sum of two in one's complement.
fn plus(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    sum + u16::from(carry)
}

fn sum(bytes: &[u8]) -> u16 {
    InternetSum::default().with(bytes).folded()
}

fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

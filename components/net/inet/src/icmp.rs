//! ICMP, RFC 792 and RFC 1122 3.2.2: echoes, and errors both ways; the sending of errors for IPv6 too.

use core::net::{IpAddr, Ipv4Addr};

use abi::Errno;
use bytes::Bytes;
use net::{Checksum, Packet};
use sync::Cpu;

use crate::addr::Endpoint;
use crate::ipv4::Header;
use crate::output::Outbound;
use crate::route::RouteKind;
use crate::stack::{IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP};
use crate::{Inet, checksum};

pub(crate) const ECHO_REPLY: u8 = 0;
pub(crate) const UNREACHABLE: u8 = 3;
pub(crate) const ECHO: u8 = 8;
pub(crate) const TIME_EXCEEDED: u8 = 11;
pub(crate) const PARAMETER: u8 = 12;

/// What is wrong with a packet, to be told to who sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    Net,
    Host,
    Prohibited,
    Protocol,
    Port,
    /// The next link takes so many bytes.
    TooBig(u32),
    TimeExceeded,
    Reassembly,
    /// In the header, at this byte.
    Header(u32),
    /// The type of the next header, at this byte.
    UnknownNext(u32),
    /// An option, at this byte.
    UnknownOption(u32),
}

impl Problem {
    /// Type, code and the word behind the checksum.
    fn v4(self) -> Option<(u8, u8, u32)> {
        Some(match self {
            Problem::Net => (UNREACHABLE, 0, 0),
            Problem::Host => (UNREACHABLE, 1, 0),
            Problem::Protocol => (UNREACHABLE, 2, 0),
            Problem::Port => (UNREACHABLE, 3, 0),
            Problem::TooBig(mtu) => (UNREACHABLE, 4, mtu.min(0xffff)),
            Problem::Prohibited => (UNREACHABLE, 13, 0),
            Problem::TimeExceeded => (TIME_EXCEEDED, 0, 0),
            Problem::Reassembly => (TIME_EXCEEDED, 1, 0),
            Problem::Header(at) => (PARAMETER, 0, at << 24),
            Problem::UnknownNext(_) | Problem::UnknownOption(_) => return None,
        })
    }

    /// RFC 4443.
    fn v6(self) -> (u8, u8, u32) {
        match self {
            Problem::Net => (1, 0, 0),
            Problem::Prohibited => (1, 1, 0),
            Problem::Host => (1, 3, 0),
            Problem::Port => (1, 4, 0),
            Problem::TooBig(mtu) => (2, 0, mtu),
            Problem::TimeExceeded => (3, 0, 0),
            Problem::Reassembly => (3, 1, 0),
            Problem::Header(at) => (4, 0, at),
            // A protocol that nobody takes is the type of a header that nobody knows.
            Problem::Protocol => (4, 1, 6),
            Problem::UnknownNext(at) => (4, 1, at),
            Problem::UnknownOption(at) => (4, 2, at),
        }
    }
}

/// What an ICMP error says about a socket's packet.
#[derive(Clone, Debug)]
pub(crate) struct Trouble {
    pub(crate) errno: Errno,
    /// It will not get better.
    pub(crate) hard: bool,
    /// Type and code, for those who ask for the whole of it.
    pub(crate) kind: (u8, u8),
    /// The word behind the checksum: the next MTU.
    pub(crate) info: u32,
    /// Who says so.
    pub(crate) offender: IpAddr,
    /// What of the packet came back, from the transport's header on.
    pub(crate) returned: Bytes,
}

impl Inet {
    /// Tells who sent a packet what is wrong with it, if that may be told. `packet` is what follows `header`.
    pub(crate) fn icmp_error(
        &self,
        cpu: &Cpu<'_>,
        header: &Header,
        packet: &mut Packet,
        problem: Problem,
    ) {
        if header.may_be_answered() {
            self.icmp_error_even_for_groups(cpu, header, packet, problem);
        }
    }

    /// The same for a packet to a group, which some errors of IPv6 may answer.
    pub(crate) fn icmp_error_even_for_groups(
        &self,
        cpu: &Cpu<'_>,
        header: &Header,
        packet: &mut Packet,
        problem: Problem,
    ) {
        let v6 = header.src.is_ipv6();
        if header.src.is_unspecified()
            || header.src.is_multicast()
            || answers_an_error(header, packet)
        {
            return;
        }
        if !self.may_send_icmp(cpu) {
            return;
        }
        let (kind, most) = match v6 {
            true => (Some(problem.v6()), 1280 - 48),
            false => (problem.v4(), 576 - 28),
        };
        let Some((kind, code, word)) = kind else {
            return;
        };
        let Ok(hop) = self.route(&header.src, self.link_of(&header.src, header.interface)) else {
            return;
        };
        let src = match self.is_local(&header.dst) {
            true => header.dst,
            false => hop.src,
        };
        let mut message = vec![kind, code, 0, 0];
        message.extend_from_slice(&word.to_be_bytes());
        message.extend_from_slice(&header.raw);
        for piece in packet.pieces() {
            let room = (most + 8usize).saturating_sub(message.len());
            message.extend_from_slice(&piece[..piece.len().min(room)]);
        }
        message.truncate(most + 8);
        let out = Outbound {
            protocol: if v6 { IPPROTO_ICMPV6 } else { IPPROTO_ICMP },
            tos: if v6 { 0 } else { 0xc0 },
            ..Outbound::default()
        };
        let _ = self.send(
            cpu,
            &hop,
            src,
            header.src,
            &out,
            icmp_packet(message, src, header.src),
        );
    }

    /// The interface that an address means something on; 0 for all.
    pub(crate) fn link_of(&self, addr: &IpAddr, interface: u32) -> u32 {
        if crate::addr::is_link_local(addr) {
            interface
        } else {
            0
        }
    }

    /// An ICMP message, without the IP header.
    pub(crate) fn icmp_input(&self, cpu: &Cpu<'_>, header: &Header, mut packet: Packet) {
        if !valid(&packet, checksum::Sum::default()) {
            return;
        }
        let Some(front) = packet.front(8) else {
            return;
        };
        let (kind, code) = (front[0], front[1]);
        let word = u32::from_be_bytes([front[4], front[5], front[6], front[7]]);
        match kind {
            ECHO => {
                let ignored =
                    header.kind != RouteKind::Local && self.config.ignore_broadcast_echo() != 0;
                if !ignored {
                    self.echo(cpu, header, packet, ECHO_REPLY);
                }
            }
            ECHO_REPLY => self.ping_input(cpu, header, &packet),
            UNREACHABLE | TIME_EXCEEDED | PARAMETER => {
                let mtu = match (kind, code) {
                    (UNREACHABLE, 4) => word & 0xffff,
                    _ => 0,
                };
                packet.advance(8);
                self.error4(cpu, header, packet, (kind, code), mtu);
            }
            _ => {}
        }
    }

    /// Answers an echo with the same bytes.
    pub(crate) fn echo(&self, cpu: &Cpu<'_>, header: &Header, mut packet: Packet, reply: u8) {
        let dst = header.src;
        let Ok(hop) = self.route(&dst, self.link_of(&dst, header.interface)) else {
            return;
        };
        let src = match header.kind {
            RouteKind::Local => header.dst,
            _ => hop.src,
        };
        let v6 = dst.is_ipv6();
        packet.received_on = 0;
        packet.link_multicast = false;
        packet.gso = None;
        let mut sum = match v6 {
            true => checksum::Sum::pseudo(src, dst, IPPROTO_ICMPV6, packet.len()),
            false => checksum::Sum::default(),
        };
        let Some(front) = packet.front_mut(8) else {
            return;
        };
        front[0] = reply;
        front[2..4].fill(0);
        packet.checksum = Checksum::Valid;
        sum = pieces(sum, &packet);
        if let Some(front) = packet.front_mut(8) {
            front[2..4].copy_from_slice(&sum.checksum());
        }
        let out = Outbound {
            protocol: if v6 { IPPROTO_ICMPV6 } else { IPPROTO_ICMP },
            tos: header.tos,
            ..Outbound::default()
        };
        let _ = self.send(cpu, &hop, src, dst, &out, packet);
    }

    /// An error about a packet of ours, which follows.
    fn error4(&self, cpu: &Cpu<'_>, header: &Header, mut packet: Packet, kind: (u8, u8), mtu: u32) {
        let Some(len) = packet.front(1).map(|f| usize::from(f[0] & 0xf) * 4) else {
            return;
        };
        let Some(inner) = packet.front(len.max(20)) else {
            return;
        };
        let ip = |at: usize| Ipv4Addr::new(inner[at], inner[at + 1], inner[at + 2], inner[at + 3]);
        let (src, dst, protocol) = (IpAddr::from(ip(12)), IpAddr::from(ip(16)), inner[9]);
        let total = u32::from(u16::from_be_bytes([inner[2], inner[3]]));
        if inner[0] >> 4 != 4 || len < 20 || u16::from_be_bytes([inner[6], inner[7]]) & 0x1fff != 0
        {
            return;
        }
        if !self.is_local(&src) {
            return;
        }
        packet.advance(len);
        let (errno, hard) = match kind {
            (UNREACHABLE, code) => match code {
                0 | 6 => (Errno::ENETUNREACH, false),
                2 => (Errno::ENOPROTOOPT, true),
                3 => (Errno::ECONNREFUSED, true),
                4 => (Errno::EMSGSIZE, false),
                5 => (Errno::EOPNOTSUPP, false),
                7 => (Errno::EHOSTDOWN, true),
                8 => (Errno::ENONET, true),
                9 | 11 => (Errno::ENETUNREACH, true),
                10 | 12..=15 => (Errno::EHOSTUNREACH, true),
                1 => (Errno::EHOSTUNREACH, false),
                _ => return,
            },
            (PARAMETER, _) => (Errno::EPROTO, true),
            _ => (Errno::EHOSTUNREACH, false),
        };
        // Routers of old say no MTU; what fits surely is less than what did not.
        let mtu = match mtu {
            0 if errno == Errno::EMSGSIZE => plateau(total),
            mtu => mtu,
        };
        let trouble = Trouble {
            errno,
            hard,
            kind,
            info: mtu,
            offender: header.src,
            returned: returned(packet),
        };
        self.transport_error(cpu, protocol, src, dst, header.interface, trouble);
    }

    /// Brings an error to the sockets that it concerns.
    pub(crate) fn transport_error(
        &self,
        cpu: &Cpu<'_>,
        protocol: u8,
        src: IpAddr,
        dst: IpAddr,
        interface: u32,
        mut trouble: Trouble,
    ) {
        let Some(&[a, b, c, d]) = trouble.returned.first_chunk::<4>() else {
            return;
        };
        let local = Endpoint::new(src, u16::from_be_bytes([a, b]));
        let remote = Endpoint::new(dst, u16::from_be_bytes([c, d]));
        if trouble.errno == Errno::EMSGSIZE {
            // Believed when somebody here may have sent the packet. TCP looks at the number in it, later.
            let ours = match protocol {
                IPPROTO_TCP => false,
                IPPROTO_UDP => self
                    .udp
                    .find(cpu, &local, &remote, interface, |_| true)
                    .is_some(),
                // Echoes are answered by no socket, and every path takes what the least of IPv6 is.
                IPPROTO_ICMPV6 => true,
                IPPROTO_ICMP => self.ping_of(cpu, src, dst, &trouble).is_some(),
                _ => false,
            };
            if ours || self.raw_hears(cpu, protocol, src, dst) {
                trouble.info = self.learn_path_mtu(cpu, dst, trouble.info);
            }
        }
        match protocol {
            IPPROTO_TCP => self.tcp_error(cpu, local, remote, &trouble),
            IPPROTO_UDP => self.udp_error(cpu, local, remote, interface, &trouble),
            IPPROTO_ICMP | IPPROTO_ICMPV6 => self.ping_error(cpu, src, dst, &trouble),
            _ => {}
        }
        self.raw_error(cpu, protocol, src, dst, &trouble);
    }
}

/// What is kept of a packet that came back: no more than an error has room for.
pub(crate) fn returned(mut packet: Packet) -> Bytes {
    packet.truncate(1280);
    packet.to_vec().into()
}

/// An ICMP error does not answer an error, and not what is no first fragment.
fn answers_an_error(header: &Header, packet: &mut Packet) -> bool {
    let kind = packet.front(1).map(|front| front[0]);
    match header.protocol {
        _ if header.src.is_ipv4()
            && u16::from_be_bytes([header.raw[6], header.raw[7]]) & 0x1fff != 0 =>
        {
            true
        }
        IPPROTO_ICMP if header.src.is_ipv4() => !matches!(kind, Some(0 | 8 | 13..=18)),
        IPPROTO_ICMPV6 if header.src.is_ipv6() => kind.is_none_or(|kind| kind < 128),
        _ => false,
    }
}

/// The next lower MTU that links usually have, RFC 1191 7.1.
fn plateau(total: u32) -> u32 {
    const PLATEAUS: [u32; 10] = [32_000, 17_914, 8166, 4352, 2002, 1492, 1006, 508, 296, 68];
    PLATEAUS.into_iter().find(|p| *p < total).unwrap_or(68)
}

pub(crate) fn pieces(mut sum: checksum::Sum, packet: &Packet) -> checksum::Sum {
    packet.pieces().for_each(|piece| sum.add(piece));
    sum
}

/// Whether a packet's bytes and what is summed up before them make a valid checksum.
pub(crate) fn valid(packet: &Packet, pseudo: checksum::Sum) -> bool {
    packet.checksum != Checksum::None || pieces(pseudo, packet).is_valid()
}

/// A packet of an ICMP message, with its checksum.
pub(crate) fn icmp_packet(mut message: Vec<u8>, src: IpAddr, dst: IpAddr) -> Packet {
    let mut sum = match src {
        IpAddr::V6(_) => checksum::Sum::pseudo(src, dst, IPPROTO_ICMPV6, message.len()),
        IpAddr::V4(_) => checksum::Sum::default(),
    };
    if message.len() >= 4 {
        message[2..4].fill(0);
        sum.add(&message);
        message[2..4].copy_from_slice(&sum.checksum());
    }
    Packet::new(message.into())
}

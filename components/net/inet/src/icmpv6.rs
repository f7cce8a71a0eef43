//! ICMPv6, RFC 4443: echoes and errors; neighbour discovery and group membership go on from here.

use core::net::{IpAddr, Ipv6Addr};

use abi::Errno;
use net::Packet;
use sync::Cpu;

use crate::icmp::{Trouble, returned, valid};
use crate::ipv4::Header;
use crate::ipv6::{DESTINATION, FRAGMENT, HOP_BY_HOP, ROUTING};
use crate::stack::IPPROTO_ICMPV6;
use crate::{Inet, checksum};

pub(crate) const ECHO: u8 = 128;
pub(crate) const ECHO_REPLY: u8 = 129;

impl Inet {
    /// An ICMPv6 message, without the IP header.
    pub(crate) fn icmpv6_input(&self, cpu: &Cpu<'_>, header: &Header, mut packet: Packet) {
        let pseudo = checksum::Sum::pseudo(header.src, header.dst, IPPROTO_ICMPV6, packet.len());
        if !valid(&packet, pseudo) {
            return;
        }
        let Some(front) = packet.front(8) else {
            return;
        };
        let (kind, code) = (front[0], front[1]);
        let word = u32::from_be_bytes([front[4], front[5], front[6], front[7]]);
        match kind {
            ECHO => self.echo(cpu, header, packet, ECHO_REPLY),
            ECHO_REPLY => self.ping_input(cpu, header, &packet),
            1..=4 => {
                packet.advance(8);
                self.error6(cpu, header, packet, (kind, code), word);
            }
            130..=132 | 143 => self.mld_input(cpu, header, packet),
            133..=137 => self.ndp_input(cpu, header, packet),
            _ => {}
        }
    }

    /// An error about a packet of ours, which follows.
    fn error6(
        &self,
        cpu: &Cpu<'_>,
        header: &Header,
        mut packet: Packet,
        kind: (u8, u8),
        word: u32,
    ) {
        let Some(inner) = packet.front(40) else {
            return;
        };
        let ip = |at: usize| -> IpAddr {
            let octets: Option<[u8; 16]> = inner.get(at..at + 16).and_then(|b| b.try_into().ok());
            Ipv6Addr::from(octets.unwrap_or_default()).into()
        };
        let (src, dst, mut protocol) = (ip(8), ip(24), inner[6]);
        if inner[0] >> 4 != 6 {
            return;
        }
        packet.advance(40);
        for _ in 0..8 {
            let len = match protocol {
                HOP_BY_HOP | ROUTING | DESTINATION => match packet.front(2) {
                    Some(front) => usize::from(front[1]) * 8 + 8,
                    None => return,
                },
                FRAGMENT => 8,
                _ => break,
            };
            let Some(front) = packet.front(4) else {
                return;
            };
            if protocol == FRAGMENT && u16::from_be_bytes([front[2], front[3]]) & 0xfff8 != 0 {
                return;
            }
            protocol = front[0];
            packet.advance(len);
        }
        let (errno, hard) = match kind {
            (1, 1 | 5 | 6) => (Errno::EACCES, true),
            (1, 4) => (Errno::ECONNREFUSED, true),
            (1, 0) => (Errno::ENETUNREACH, false),
            (2, _) => (Errno::EMSGSIZE, false),
            (4, _) => (Errno::EPROTO, true),
            _ => (Errno::EHOSTUNREACH, false),
        };
        let trouble = Trouble {
            errno,
            hard,
            kind,
            info: if kind.0 == 2 { word } else { 0 },
            offender: header.src,
            returned: returned(packet),
        };
        self.transport_error(cpu, protocol, src, dst, header.interface, trouble);
    }
}

//! UDP on the way in, RFC 768: which socket a datagram is for.

use net::Packet;
use sync::Cpu;

use crate::addr::Endpoint;
use crate::icmp::{Problem, Trouble, valid};
use crate::ipv4::Header;
use crate::route::RouteKind;
use crate::stack::IPPROTO_UDP;
use crate::{Inet, checksum};

impl Inet {
    /// A datagram, without the IP header.
    pub(crate) fn udp_input(&self, cpu: &Cpu<'_>, header: &Header, mut packet: Packet) {
        let Some(&[a, b, c, d, e, f, g, h]) = packet.front(8).and_then(|b| b.first_chunk::<8>())
        else {
            return;
        };
        let len = usize::from(u16::from_be_bytes([e, f]));
        if len < 8 || len > packet.len() {
            return;
        }
        packet.truncate(len);
        let has_sum = [g, h] != [0, 0];
        if has_sum {
            let pseudo = checksum::Sum::pseudo(header.src, header.dst, IPPROTO_UDP, len);
            if !valid(&packet, pseudo) {
                return;
            }
        } else if header.src.is_ipv6() {
            return;
        }
        let scope = self.link_of(&header.src, header.interface);
        let src = Endpoint {
            scope,
            ..Endpoint::new(header.src, u16::from_be_bytes([a, b]))
        };
        let dst = Endpoint::new(header.dst, u16::from_be_bytes([c, d]));
        if header.kind != RouteKind::Local {
            packet.advance(8);
            for socket in self.udp.find_all(cpu, &dst, &src, header.interface) {
                if socket.hears_group(cpu, header) {
                    socket.enqueue(cpu, packet.clone(), src, header, dst.port);
                }
            }
            return;
        }
        match self.udp.find(cpu, &dst, &src, header.interface, |_| true) {
            Some(socket) => {
                packet.advance(8);
                socket.enqueue(cpu, packet, src, header, dst.port);
            }
            None => self.icmp_error(cpu, header, &mut packet, Problem::Port),
        }
    }

    /// An ICMP error about a datagram that was sent from `local` to `remote`.
    pub(crate) fn udp_error(
        &self,
        cpu: &Cpu<'_>,
        local: Endpoint,
        remote: Endpoint,
        interface: u32,
        trouble: &Trouble,
    ) {
        if let Some(socket) = self.udp.find(cpu, &local, &remote, interface, |_| true) {
            socket.trouble(cpu, remote, trouble);
        }
    }
}

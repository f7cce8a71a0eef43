//! The border to the interfaces: frames in, frames out, and packets that come back to this kernel.

use core::net::IpAddr;
use std::collections::VecDeque;
use std::sync::{Arc, OnceLock, Weak};

use abi::Errno;
use kern::Curlwp;
use kern::softint::Softint;
use net::consts::{ETHERTYPE_ARP, ETHERTYPE_IP, ETHERTYPE_IPV6};
use net::{Checksum, EtherAddr, Ifnet, LinkType, NetworkLayer, Packet};
use sync::{Cpu, PerCpu};

use crate::Inet;
use crate::route::{Hop, RouteKind};

/// Bytes of an Ethernet header.
pub(crate) const ETHER: usize = 14;
pub(crate) const BROADCAST: EtherAddr = [0xff; 6];
/// The most packets that wait on one virtual CPU.
const QUEUE: usize = 1024;

/// Packets that go up again on the interface they went out by, groups' and broadcasts; per virtual CPU, with a software
/// interrupt, so that no output runs into input.
pub(crate) struct Netisr {
    queues: PerCpu<VecDeque<(Arc<Ifnet>, Packet)>>,
    softint: OnceLock<Softint>,
}

impl Netisr {
    pub(crate) fn new(cx: &Curlwp<'_>) -> Netisr {
        Netisr {
            queues: PerCpu::new(cx.kernel().cpus(), |_| VecDeque::new()),
            softint: OnceLock::new(),
        }
    }

    pub(crate) fn start(&self, cx: &Curlwp<'_>, inet: &Arc<Inet>) -> Result<(), Errno> {
        let weak = Arc::downgrade(inet);
        let softint = Softint::establish(cx, move |cpu| {
            let Some(inet) = weak.upgrade() else {
                return;
            };
            for (interface, packet) in inet.netisr.queues.with(cpu, std::mem::take) {
                inet.network_input(cpu, &interface, packet);
            }
        })?;
        let _ = self.softint.set(softint);
        Ok(())
    }
}

/// What the interfaces know of the stack, which knows them.
pub(crate) struct Uplink(pub(crate) Weak<Inet>);

impl NetworkLayer for Uplink {
    fn input(&self, cpu: &Cpu<'_>, interface: &Arc<Ifnet>, packet: Packet) {
        if let Some(inet) = self.0.upgrade() {
            inet.frame_input(cpu, interface, packet);
        }
    }
}

/// The link-layer address of a group, RFC 1112 6.4 and RFC 2464 7.
pub(crate) fn group_address(group: &IpAddr) -> EtherAddr {
    match group {
        IpAddr::V4(ip) => {
            let [_, b, c, d] = ip.octets();
            [0x01, 0x00, 0x5e, b & 0x7f, c, d]
        }
        IpAddr::V6(ip) => {
            let o = ip.octets();
            [0x33, 0x33, o[12], o[13], o[14], o[15]]
        }
    }
}

impl Inet {
    /// A frame with its link-layer header.
    fn frame_input(&self, cpu: &Cpu<'_>, interface: &Arc<Ifnet>, mut packet: Packet) {
        if interface.link() == LinkType::Ip {
            return self.network_input(cpu, interface, packet);
        }
        let Some(header) = packet.front(ETHER) else {
            return;
        };
        let (mut to, mut from): (EtherAddr, EtherAddr) = Default::default();
        to.copy_from_slice(&header[..6]);
        from.copy_from_slice(&header[6..12]);
        let ethertype = u16::from_be_bytes([header[12], header[13]]);
        if interface.link() == LinkType::Ethernet {
            packet.link_multicast = to[0] & 1 != 0;
            if !packet.link_multicast && to != interface.address(&crate::leaf(cpu)) {
                return;
            }
        }
        packet.advance(ETHER);
        match ethertype {
            ETHERTYPE_IP => self.input4(cpu, interface, packet),
            ETHERTYPE_IPV6 => self.input6(cpu, interface, packet),
            ETHERTYPE_ARP if interface.link() == LinkType::Ethernet => {
                self.arp_input(cpu, interface, &from, packet);
            }
            _ => {}
        }
    }
}

impl Inet {
    /// A packet that begins with its IP header.
    fn network_input(&self, cpu: &Cpu<'_>, interface: &Arc<Ifnet>, mut packet: Packet) {
        match packet.front(1).map(|first| first[0] >> 4) {
            Some(4) => self.input4(cpu, interface, packet),
            Some(6) => self.input6(cpu, interface, packet),
            _ => {}
        }
    }

    /// Has a packet that goes out come in again by the same interface.
    pub(crate) fn loop_back(&self, cpu: &Cpu<'_>, interface: &Arc<Ifnet>, mut packet: Packet) {
        if packet.checksum == Checksum::None {
            packet.checksum = Checksum::Valid;
        }
        packet.received_on = interface.index();
        self.netisr.queues.with(cpu, |queue| {
            if queue.len() < QUEUE {
                queue.push_back((interface.clone(), packet));
            }
        });
        if let Some(softint) = self.netisr.softint.get() {
            softint.schedule(cpu);
        }
    }

    /// Sends a packet that begins with its IP header to where it hops next.
    pub(crate) fn link_output(
        &self,
        cpu: &Cpu<'_>,
        hop: &Hop,
        v6: bool,
        mut packet: Packet,
    ) -> Result<(), Errno> {
        let ethertype = if v6 { ETHERTYPE_IPV6 } else { ETHERTYPE_IP };
        match hop.interface.link() {
            LinkType::Ip => hop.interface.output(cpu, packet),
            LinkType::Loopback => {
                let header = packet.push(ETHER).ok_or(Errno::ENOBUFS)?;
                header[12..].copy_from_slice(&ethertype.to_be_bytes());
                hop.interface.output(cpu, packet)
            }
            LinkType::Ethernet => {
                let to = match (hop.kind, hop.next) {
                    (RouteKind::Broadcast, _) => BROADCAST,
                    (RouteKind::Multicast, group) => group_address(&group),
                    _ => return self.resolve_and_send(cpu, hop, ethertype, packet),
                };
                self.ether_output(cpu, &hop.interface, to, ethertype, packet)
            }
        }
    }

    /// Sends a packet in an Ethernet frame.
    pub(crate) fn ether_output(
        &self,
        cpu: &Cpu<'_>,
        interface: &Arc<Ifnet>,
        to: EtherAddr,
        ethertype: u16,
        mut packet: Packet,
    ) -> Result<(), Errno> {
        let from = interface.address(&crate::leaf(cpu));
        let header = packet.push(ETHER).ok_or(Errno::ENOBUFS)?;
        header[..6].copy_from_slice(&to);
        header[6..12].copy_from_slice(&from);
        header[12..].copy_from_slice(&ethertype.to_be_bytes());
        interface.output(cpu, packet)
    }
}

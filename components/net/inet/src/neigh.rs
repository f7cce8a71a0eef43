//! Neighbours: the link-layer addresses of who is on the link.

use std::sync::Arc;

use abi::Errno;
use net::{EtherAddr, Ifnet, Packet};
use sync::Cpu;

use crate::Inet;
use crate::ipv4::Header;
use crate::route::Hop;

#[derive(Default)]
pub(crate) struct Neighbours {}

impl Inet {
    pub(crate) fn resolve_and_send(
        &self,
        cpu: &Cpu<'_>,
        hop: &Hop,
        ethertype: u16,
        packet: Packet,
    ) -> Result<(), Errno> {
        let _ = (cpu, hop, ethertype, packet);
        Err(Errno::EHOSTUNREACH)
    }

    pub(crate) fn age_neighbours(&self, cpu: &Cpu<'_>) -> bool {
        let _ = cpu;
        false
    }

    pub(crate) fn forget_neighbours(&self, cpu: &Cpu<'_>, interface: u32) {
        let _ = (cpu, interface);
    }

    pub(crate) fn arp_input(
        &self,
        cpu: &Cpu<'_>,
        interface: &Arc<Ifnet>,
        from: &EtherAddr,
        packet: Packet,
    ) {
        let _ = (cpu, interface, from, packet);
    }

    pub(crate) fn ndp_input(&self, cpu: &Cpu<'_>, header: &Header, packet: Packet) {
        let _ = (cpu, header, packet);
    }
}

//! `struct sockaddr_ll`.

use abi::Errno;
use net::consts::AF_PACKET;
use net::{Addr, EtherAddr};

/// Bytes of a `struct sockaddr_ll`.
const SIZE: usize = 20;
/// Bytes that must be there: up to the link-layer address.
const LEAST: usize = 12;

/// `PACKET_HOST` and so on: whose a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum PacketType {
    Host = 0,
    Broadcast = 1,
    Multicast = 2,
    OtherHost = 3,
    Outgoing = 4,
}

/// An address at the link: an interface, a protocol, and a link-layer address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LinkAddr {
    /// An Ethernet type; `ETH_P_ALL` for every one, 0 for none.
    pub(crate) protocol: u16,
    /// 0 for every interface.
    pub(crate) interface: u32,
    /// `ARPHRD_*`.
    pub(crate) hardware: u16,
    pub(crate) kind: PacketType,
    pub(crate) address: EtherAddr,
}

impl LinkAddr {
    /// From what a caller gave. `EINVAL` when it is too short or of another family.
    pub(crate) fn parse(addr: &Addr) -> Result<LinkAddr, Errno> {
        let bytes = addr.bytes();
        if bytes.len() < LEAST || addr.family() != AF_PACKET {
            return Err(Errno::EINVAL);
        }
        let mut address = EtherAddr::default();
        for (to, from) in address.iter_mut().zip(&bytes[LEAST..]) {
            *to = *from;
        }
        Ok(LinkAddr {
            protocol: u16::from_be_bytes([bytes[2], bytes[3]]),
            interface: u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
            hardware: 0,
            kind: PacketType::Host,
            address,
        })
    }

    /// As user memory has it.
    pub(crate) fn to_addr(self) -> Addr {
        let mut bytes = [0; SIZE];
        bytes[..2].copy_from_slice(&AF_PACKET.to_le_bytes());
        bytes[2..4].copy_from_slice(&self.protocol.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.interface.to_le_bytes());
        bytes[8..10].copy_from_slice(&self.hardware.to_le_bytes());
        bytes[10] = self.kind as u8;
        bytes[11] = 6;
        bytes[LEAST..LEAST + 6].copy_from_slice(&self.address);
        Addr::new(&bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_comes_back_as_it_was_written() {
        let addr = LinkAddr {
            protocol: 0x806,
            interface: 3,
            hardware: 0,
            kind: PacketType::Host,
            address: [1, 2, 3, 4, 5, 6],
        };
        assert_eq!(LinkAddr::parse(&addr.to_addr()), Ok(addr));
        assert_eq!(LinkAddr::parse(&Addr::new(&[17, 0, 0])), Err(Errno::EINVAL));
        assert_eq!(LinkAddr::parse(&Addr::new(&[2; 20])), Err(Errno::EINVAL));
    }
}

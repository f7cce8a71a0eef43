//! Addresses of sockets: `struct sockaddr_in` and `sockaddr_in6`, ip(7), ipv6(7).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use abi::Errno;
use net::Addr;
use net::consts::{AF_INET, AF_INET6};

/// An address, a port, and the interface that a link-local address belongs to (0 for none). An IPv4 address of an IPv6 socket
/// (`::ffff:a.b.c.d`) is an IPv4 address here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// The address; unspecified for any.
    pub addr: IpAddr,
    /// The port, in the machine's order; 0 for none.
    pub port: u16,
    /// The interface's index.
    pub scope: u32,
}

/// The address that stands for any of a family.
pub(crate) fn any(v6: bool) -> IpAddr {
    if v6 {
        IpAddr::V6(Ipv6Addr::UNSPECIFIED)
    } else {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED)
    }
}

impl Endpoint {
    /// An endpoint that is on no link of its own.
    pub fn new(addr: IpAddr, port: u16) -> Endpoint {
        Endpoint {
            addr,
            port,
            scope: 0,
        }
    }

    /// The address that a call on a socket of a family gave. `EINVAL` when it is too short, `EAFNOSUPPORT` for another family.
    pub(crate) fn parse(addr: &Addr, v6: bool) -> Result<Endpoint, Errno> {
        let bytes = addr.bytes();
        match addr.family() {
            AF_INET => {
                let data: &[u8; 6] = bytes
                    .get(2..8)
                    .and_then(|b| b.try_into().ok())
                    .ok_or(Errno::EINVAL)?;
                if bytes.len() < 16 {
                    return Err(Errno::EINVAL);
                }
                let ip = Ipv4Addr::new(data[2], data[3], data[4], data[5]);
                Ok(Endpoint::new(
                    ip.into(),
                    u16::from_be_bytes([data[0], data[1]]),
                ))
            }
            AF_INET6 if v6 => {
                let data: &[u8; 22] = bytes
                    .get(2..24)
                    .and_then(|b| b.try_into().ok())
                    .ok_or(Errno::EINVAL)?;
                let mut octets = [0; 16];
                octets.copy_from_slice(&data[6..]);
                let scope = match bytes.get(24..28) {
                    Some(&[a, b, c, d]) => u32::from_ne_bytes([a, b, c, d]),
                    _ => 0,
                };
                Ok(Endpoint {
                    addr: unmap(Ipv6Addr::from(octets)),
                    port: u16::from_be_bytes([data[0], data[1]]),
                    scope,
                })
            }
            _ if bytes.len() < 2 => Err(Errno::EINVAL),
            _ => Err(Errno::EAFNOSUPPORT),
        }
    }

    /// The address as a socket of a family shows it.
    pub(crate) fn to_addr(self, v6: bool) -> Addr {
        let mut out = [0; 28];
        out[2..4].copy_from_slice(&self.port.to_be_bytes());
        match (v6, self.addr) {
            (false, IpAddr::V4(ip)) => {
                out[..2].copy_from_slice(&AF_INET.to_ne_bytes());
                out[4..8].copy_from_slice(&ip.octets());
                Addr::new(&out[..16])
            }
            (_, ip) => {
                out[..2].copy_from_slice(&AF_INET6.to_ne_bytes());
                out[8..24].copy_from_slice(&map(ip).octets());
                out[24..28].copy_from_slice(&self.scope.to_ne_bytes());
                Addr::new(&out)
            }
        }
    }
}

/// The IPv4 address in `::ffff:a.b.c.d`, or the address itself.
pub(crate) fn unmap(ip: Ipv6Addr) -> IpAddr {
    match ip.to_ipv4_mapped() {
        Some(ip) => ip.into(),
        None => ip.into(),
    }
}

/// An address as IPv6 sockets see it; "any" stays any.
pub(crate) fn map(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V6(ip) => ip,
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv6Addr::UNSPECIFIED,
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
    }
}

/// Whether an address means something on its link only.
pub(crate) fn is_link_local(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(_) => false,
        IpAddr::V6(ip) => {
            ip.is_unicast_link_local() || ip.is_multicast() && ip.octets()[1] & 0xf <= 2
        }
    }
}

/// The bytes of an address.
pub(crate) fn octets(ip: &IpAddr) -> smallvec::SmallVec<[u8; 16]> {
    match ip {
        IpAddr::V4(ip) => smallvec::SmallVec::from_slice(&ip.octets()),
        IpAddr::V6(ip) => smallvec::SmallVec::from_slice(&ip.octets()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_go_there_and_back() {
        for (text, v6) in [
            ("10.1.2.3", false),
            ("10.1.2.3", true),
            ("fe80::1", true),
            ("::", true),
        ] {
            let endpoint = Endpoint {
                addr: text.parse().unwrap(),
                port: 0x1234,
                scope: if v6 && text.starts_with("fe80") { 3 } else { 0 },
            };
            assert_eq!(
                Endpoint::parse(&endpoint.to_addr(v6), v6),
                Ok(endpoint),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        assert_eq!(
            Endpoint::parse(&Addr::new(&[2, 0, 0, 80, 1, 2, 3, 4]), false),
            Err(Errno::EINVAL)
        );
        assert_eq!(
            Endpoint::parse(&Addr::new(&[1, 0, 0, 80]), false),
            Err(Errno::EAFNOSUPPORT)
        );
        let v6 = Endpoint::new("::1".parse().unwrap(), 1).to_addr(true);
        assert_eq!(Endpoint::parse(&v6, false), Err(Errno::EAFNOSUPPORT));
        assert_eq!(Endpoint::parse(&Addr::new(&[10]), true), Err(Errno::EINVAL));
    }
}

//! Addresses of sockets: `struct sockaddr_in` and `sockaddr_in6`, ip(7), ipv6(7).

use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use abi::Errno;
use hypercall::SocketFamily;
use net::Addr;
use net::consts::{AF_INET, AF_INET6};

/// Bytes of a `struct sockaddr_in`.
const LEN: usize = 16;
/// Bytes of a `struct sockaddr_in6`; its scope may be missing.
const LEN6: usize = 28;
const LEN6_SHORT: usize = 24;

/// The address that a call gave. `EINVAL` when it is too short, `EAFNOSUPPORT` for a family that the socket has nothing to do with.
pub(crate) fn parse(addr: &Addr, family: SocketFamily) -> Result<SocketAddr, Errno> {
    let bytes = addr.bytes();
    match (addr.family(), family) {
        (AF_INET, _) => {
            let bytes: &[u8; LEN] = bytes.first_chunk().ok_or(Errno::EINVAL)?;
            let ip = Ipv4Addr::new(bytes[4], bytes[5], bytes[6], bytes[7]);
            Ok(SocketAddrV4::new(ip, port(bytes)).into())
        }
        (AF_INET6, SocketFamily::Inet6) => {
            let short: &[u8; LEN6_SHORT] = bytes.first_chunk().ok_or(Errno::EINVAL)?;
            let mut ip = [0; 16];
            ip.copy_from_slice(&short[8..]);
            let flow = u32::from_ne_bytes([short[4], short[5], short[6], short[7]]);
            let scope = match bytes.get(LEN6_SHORT..LEN6) {
                Some(&[a, b, c, d]) => u32::from_ne_bytes([a, b, c, d]),
                _ => 0,
            };
            Ok(SocketAddrV6::new(Ipv6Addr::from(ip), port(short), flow, scope).into())
        }
        _ if bytes.len() < 2 => Err(Errno::EINVAL),
        _ => Err(Errno::EAFNOSUPPORT),
    }
}

fn port(bytes: &[u8]) -> u16 {
    u16::from_be_bytes([bytes[2], bytes[3]])
}

/// The address as calls show it.
pub(crate) fn shown(addr: SocketAddr) -> Addr {
    let mut out = [0; LEN6];
    out[2..4].copy_from_slice(&addr.port().to_be_bytes());
    match addr {
        SocketAddr::V4(addr) => {
            out[..2].copy_from_slice(&AF_INET.to_ne_bytes());
            out[4..8].copy_from_slice(&addr.ip().octets());
            Addr::new(&out[..LEN])
        }
        SocketAddr::V6(addr) => {
            out[..2].copy_from_slice(&AF_INET6.to_ne_bytes());
            out[4..8].copy_from_slice(&addr.flowinfo().to_ne_bytes());
            out[8..24].copy_from_slice(&addr.ip().octets());
            out[24..].copy_from_slice(&addr.scope_id().to_ne_bytes());
            Addr::new(&out)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_they_are_shown() {
        for text in ["10.1.2.3:80", "[fd00::1]:443", "[fe80::1%3]:53"] {
            let addr: SocketAddr = text.parse().expect(text);
            assert_eq!(parse(&shown(addr), SocketFamily::Inet6), Ok(addr));
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let inet = shown("10.1.2.3:80".parse().expect("an address"));
        let inet6 = shown("[::1]:80".parse().expect("an address"));
        let refused = |addr: &Addr| parse(addr, SocketFamily::Inet).err();
        for len in 2..LEN {
            let short = Addr::new(&inet.bytes()[..len]);
            assert_eq!(refused(&short), Some(Errno::EINVAL), "{len} bytes");
        }
        assert_eq!(refused(&Addr::new(&[2])), Some(Errno::EINVAL));
        assert_eq!(refused(&inet6), Some(Errno::EAFNOSUPPORT));
        assert_eq!(refused(&Addr::unnamed(1)), Some(Errno::EAFNOSUPPORT));
    }
}

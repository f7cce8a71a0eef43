//! Addresses as the host's calls have them.

use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// An address of either family, or room for one.
pub(super) struct RawAddr {
    room: libc::sockaddr_storage,
    len: libc::socklen_t,
}

impl RawAddr {
    /// Room for any address.
    pub(super) fn room() -> RawAddr {
        RawAddr {
            // SAFETY: all zero is an address of no family.
            room: unsafe { std::mem::zeroed() },
            len: size_of::<libc::sockaddr_storage>() as libc::socklen_t,
        }
    }

    /// The address that ends a connection.
    pub(super) fn nobody() -> RawAddr {
        RawAddr {
            len: size_of::<libc::sockaddr_in>() as libc::socklen_t,
            ..RawAddr::room()
        }
    }

    pub(super) fn new(addr: SocketAddr) -> RawAddr {
        let mut raw = RawAddr::room();
        match addr {
            SocketAddr::V4(addr) => raw.put(libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: addr.port().to_be(),
                sin_addr: libc::in_addr {
                    s_addr: u32::from_ne_bytes(addr.ip().octets()),
                },
                sin_zero: [0; 8],
            }),
            SocketAddr::V6(addr) => raw.put(libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: addr.port().to_be(),
                sin6_flowinfo: addr.flowinfo(),
                sin6_addr: libc::in6_addr {
                    s6_addr: addr.ip().octets(),
                },
                sin6_scope_id: addr.scope_id(),
            }),
        }
        raw
    }

    fn put<T: Copy>(&mut self, addr: T) {
        const { assert!(size_of::<T>() <= size_of::<libc::sockaddr_storage>()) };
        // SAFETY: there is room for any address, aligned for each.
        unsafe { (&raw mut self.room).cast::<T>().write(addr) };
        self.len = size_of::<T>() as libc::socklen_t;
    }

    /// For a call that reads it.
    pub(super) fn as_parts(&self) -> (*const libc::sockaddr, libc::socklen_t) {
        ((&raw const self.room).cast(), self.len)
    }

    /// For a call that fills it.
    pub(super) fn parts(&mut self) -> (*mut libc::sockaddr, &mut libc::socklen_t) {
        ((&raw mut self.room).cast(), &mut self.len)
    }

    /// What a call that was only given the length has made of it.
    pub(super) fn set_len(&mut self, len: libc::socklen_t) {
        self.len = len;
    }

    /// The address, if it is one of the two families.
    pub(super) fn get(&self) -> Option<SocketAddr> {
        let len = self.len as usize;
        match libc::c_int::from(self.room.ss_family) {
            libc::AF_INET if len >= size_of::<libc::sockaddr_in>() => {
                // SAFETY: the family says what it is; any bytes are one.
                let raw = unsafe { (&raw const self.room).cast::<libc::sockaddr_in>().read() };
                let ip = Ipv4Addr::from(raw.sin_addr.s_addr.to_ne_bytes());
                Some(SocketAddrV4::new(ip, u16::from_be(raw.sin_port)).into())
            }
            libc::AF_INET6 if len >= size_of::<libc::sockaddr_in6>() => {
                // SAFETY: the family says what it is; any bytes are one.
                let raw = unsafe { (&raw const self.room).cast::<libc::sockaddr_in6>().read() };
                let ip = Ipv6Addr::from(raw.sin6_addr.s6_addr);
                let port = u16::from_be(raw.sin6_port);
                Some(SocketAddrV6::new(ip, port, raw.sin6_flowinfo, raw.sin6_scope_id).into())
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_back_as_they_were() {
        for text in ["127.0.0.1:80", "[::1]:443", "[fe80::1%7]:1", "0.0.0.0:0"] {
            let addr: SocketAddr = text.parse().expect(text);
            assert_eq!(RawAddr::new(addr).get(), Some(addr));
        }
        assert_eq!(RawAddr::nobody().get(), None);
    }

    #[test]
    fn an_address_that_is_too_short_is_none() {
        let mut raw = RawAddr::new("127.0.0.1:80".parse().expect("an address"));
        raw.set_len(15);
        assert_eq!(raw.get(), None);
    }
}

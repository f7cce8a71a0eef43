//! Options that go through to the host: a list with the bytes that each has. What is not on it is not there.
//!
//! None has a pointer in it, needs a privilege of the host's, or says by which of the host's interfaces others are reached.

use abi::Errno;
use hypercall::HostSocket;
use net::OptValue;
use net::consts::*;

use crate::{IPPROTO_TCP, IPPROTO_UDP};

pub(crate) const IPPROTO_IP: i32 = 0;
pub(crate) const IPPROTO_IPV6: i32 = 41;

const SO_ERROR_LEN: usize = 4;

/// What may be done with an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Get,
    Set,
    Both,
}

use Access::{Both, Get, Set};

/// Level, name, what may be done, the fewest and the most bytes of the value.
type Known = (i32, i32, Access, usize, usize);

/// socket(7), ip(7), ipv6(7), tcp(7), udp(7).
const KNOWN: &[Known] = &[
    (SOL_SOCKET, SO_REUSEADDR, Both, 4, 4),
    (SOL_SOCKET, SO_REUSEPORT, Both, 4, 4),
    (SOL_SOCKET, SO_KEEPALIVE, Both, 4, 4),
    (SOL_SOCKET, SO_BROADCAST, Both, 4, 4),
    (SOL_SOCKET, SO_DONTROUTE, Both, 4, 4),
    (SOL_SOCKET, SO_OOBINLINE, Both, 4, 4),
    (SOL_SOCKET, SO_SNDBUF, Both, 4, 4),
    (SOL_SOCKET, SO_RCVBUF, Both, 4, 4),
    (SOL_SOCKET, SO_RCVLOWAT, Both, 4, 4),
    (SOL_SOCKET, SO_SNDLOWAT, Get, 4, 4),
    (SOL_SOCKET, SO_PRIORITY, Get, 4, 4),
    (SOL_SOCKET, SO_LINGER, Both, 8, 8),
    (SOL_SOCKET, SO_TIMESTAMP, Both, 4, 4),
    (SOL_SOCKET, SO_TIMESTAMPNS, Both, 4, 4),
    (SOL_SOCKET, SO_ERROR, Get, SO_ERROR_LEN, SO_ERROR_LEN),
    (SOL_SOCKET, SO_ACCEPTCONN, Get, 4, 4),
    (SOL_SOCKET, SO_INCOMING_CPU, Get, 4, 4),
    (IPPROTO_IP, 1, Both, 4, 4),  // IP_TOS
    (IPPROTO_IP, 2, Both, 4, 4),  // IP_TTL
    (IPPROTO_IP, 8, Both, 4, 4),  // IP_PKTINFO
    (IPPROTO_IP, 10, Both, 4, 4), // IP_MTU_DISCOVER
    (IPPROTO_IP, 11, Both, 4, 4), // IP_RECVERR
    (IPPROTO_IP, 12, Both, 4, 4), // IP_RECVTTL
    (IPPROTO_IP, 13, Both, 4, 4), // IP_RECVTOS
    (IPPROTO_IP, 14, Get, 4, 4),  // IP_MTU
    (IPPROTO_IP, 24, Both, 4, 4), // IP_BIND_ADDRESS_NO_PORT
    (IPPROTO_IP, 32, Set, 4, 12), // IP_MULTICAST_IF
    (IPPROTO_IP, 32, Get, 4, 4),
    (IPPROTO_IP, 33, Both, 1, 4),    // IP_MULTICAST_TTL
    (IPPROTO_IP, 34, Both, 1, 4),    // IP_MULTICAST_LOOP
    (IPPROTO_IP, 35, Set, 8, 12),    // IP_ADD_MEMBERSHIP
    (IPPROTO_IP, 36, Set, 8, 12),    // IP_DROP_MEMBERSHIP
    (IPPROTO_IP, 49, Both, 4, 4),    // IP_MULTICAST_ALL
    (IPPROTO_IPV6, 16, Both, 4, 4),  // IPV6_UNICAST_HOPS
    (IPPROTO_IPV6, 17, Both, 4, 4),  // IPV6_MULTICAST_IF
    (IPPROTO_IPV6, 18, Both, 4, 4),  // IPV6_MULTICAST_HOPS
    (IPPROTO_IPV6, 19, Both, 4, 4),  // IPV6_MULTICAST_LOOP
    (IPPROTO_IPV6, 20, Set, 20, 20), // IPV6_ADD_MEMBERSHIP
    (IPPROTO_IPV6, 21, Set, 20, 20), // IPV6_DROP_MEMBERSHIP
    (IPPROTO_IPV6, 23, Both, 4, 4),  // IPV6_MTU_DISCOVER
    (IPPROTO_IPV6, 24, Get, 4, 4),   // IPV6_MTU
    (IPPROTO_IPV6, 25, Both, 4, 4),  // IPV6_RECVERR
    (IPPROTO_IPV6, 26, Both, 4, 4),  // IPV6_V6ONLY
    (IPPROTO_IPV6, 49, Both, 4, 4),  // IPV6_RECVPKTINFO
    (IPPROTO_IPV6, 51, Both, 4, 4),  // IPV6_RECVHOPLIMIT
    (IPPROTO_IPV6, 66, Both, 4, 4),  // IPV6_RECVTCLASS
    (IPPROTO_IPV6, 67, Both, 4, 4),  // IPV6_TCLASS
    (IPPROTO_IPV6, 70, Both, 4, 4),  // IPV6_AUTOFLOWLABEL
    (IPPROTO_TCP, 1, Both, 4, 4),    // TCP_NODELAY
    (IPPROTO_TCP, 2, Both, 4, 4),    // TCP_MAXSEG
    (IPPROTO_TCP, 3, Both, 4, 4),    // TCP_CORK
    (IPPROTO_TCP, 4, Both, 4, 4),    // TCP_KEEPIDLE
    (IPPROTO_TCP, 5, Both, 4, 4),    // TCP_KEEPINTVL
    (IPPROTO_TCP, 6, Both, 4, 4),    // TCP_KEEPCNT
    (IPPROTO_TCP, 7, Both, 4, 4),    // TCP_SYNCNT
    (IPPROTO_TCP, 8, Both, 4, 4),    // TCP_LINGER2
    (IPPROTO_TCP, 9, Both, 4, 4),    // TCP_DEFER_ACCEPT
    (IPPROTO_TCP, 10, Both, 4, 4),   // TCP_WINDOW_CLAMP
    (IPPROTO_TCP, 11, Get, 1, 512),  // TCP_INFO
    (IPPROTO_TCP, 12, Both, 4, 4),   // TCP_QUICKACK
    (IPPROTO_TCP, 13, Both, 1, 16),  // TCP_CONGESTION
    (IPPROTO_TCP, 18, Both, 4, 4),   // TCP_USER_TIMEOUT
    (IPPROTO_TCP, 23, Both, 4, 4),   // TCP_FASTOPEN
    (IPPROTO_TCP, 25, Both, 4, 4),   // TCP_NOTSENT_LOWAT
    (IPPROTO_UDP, 103, Both, 4, 4),  // UDP_SEGMENT
    (IPPROTO_UDP, 104, Both, 4, 4),  // UDP_GRO
];

fn find(level: i32, name: i32, access: Access) -> Result<&'static Known, Errno> {
    let is_it = |known: &&Known| {
        (known.0, known.1) == (level, name) && (known.2 == access || known.2 == Both)
    };
    KNOWN.iter().find(is_it).ok_or(Errno::ENOPROTOOPT)
}

/// Whether an option of socket(7) is the kernel's to answer: what it waits by, and what the socket is.
pub(crate) fn is_of_the_kernel(name: i32) -> bool {
    let kernel = [
        SO_TYPE,
        SO_DOMAIN,
        SO_PROTOCOL,
        SO_RCVTIMEO,
        SO_SNDTIMEO,
        SO_DEBUG,
        SO_ZEROCOPY,
    ];
    kernel.contains(&name)
}

pub(crate) fn get(host: &dyn HostSocket, level: i32, name: i32) -> Result<OptValue, Errno> {
    let (_, _, _, _, most) = *find(level, name, Get)?;
    let mut value = OptValue::from_elem(0, most);
    let len = host.option(level, name, &mut value)?;
    value.truncate(len);
    Ok(value)
}

pub(crate) fn set(host: &dyn HostSocket, level: i32, name: i32, value: &[u8]) -> Result<(), Errno> {
    let (_, _, _, fewest, most) = *find(level, name, Set)?;
    if value.len() < fewest {
        return Err(Errno::EINVAL);
    }
    host.set_option(level, name, &value[..value.len().min(most)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_pointers_or_names_interfaces_is_not_known() {
        for name in [
            SO_ATTACH_FILTER,
            SO_BINDTODEVICE,
            SO_MARK,
            SO_SNDBUFFORCE,
            SO_LOCK_FILTER,
        ] {
            assert!(find(SOL_SOCKET, name, Set).is_err(), "{name}");
            assert!(!is_of_the_kernel(name), "{name}");
        }
        assert_eq!(find(SOL_SOCKET, SO_ERROR, Set), Err(Errno::ENOPROTOOPT));
    }

    #[test]
    fn values_have_bounds() {
        assert!(KNOWN.iter().all(|k| k.3 >= 1 && k.3 <= k.4 && k.4 <= 512));
    }
}

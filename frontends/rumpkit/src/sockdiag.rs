//! The sockets of a kernel, near or far, asked for over a netlink socket, sock_diag(7).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use abi::Invoke;

use crate::Process;

const NETLINK_SOCK_DIAG: i32 = 4;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// Request, and all of it.
const FLAGS: u16 = 0x301;
/// Bytes of a `struct nlmsghdr`, of the request behind it, and of an answer.
const HEADER: usize = 16;
const REQUEST: usize = 56;
const MESSAGE: usize = 72;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// Families and protocols with what they are called together.
const KINDS: [(u8, u8, &str); 6] = [
    (AF_INET, 6, "tcp"),
    (AF_INET6, 6, "tcp6"),
    (AF_INET, 17, "udp"),
    (AF_INET6, 17, "udp6"),
    (AF_INET, 255, "raw"),
    (AF_INET6, 255, "raw6"),
];
/// By their numbers, `TCP_ESTABLISHED` and so on.
const STATES: [&str; 13] = [
    "?",
    "established",
    "syn-sent",
    "syn-received",
    "fin-wait-1",
    "fin-wait-2",
    "time-wait",
    "closed",
    "close-wait",
    "last-ack",
    "listen",
    "closing",
    "syn-received",
];

/// A socket of a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketEntry {
    /// `tcp`, `udp`, `raw`, with a 6 behind it for those of IPv6.
    pub protocol: &'static str,
    /// `established`, `listen`, ...
    pub state: &'static str,
    /// Its own end.
    pub local: SocketAddr,
    /// The peer's.
    pub remote: Option<SocketAddr>,
    /// Bytes to be received; of one that listens, connections that wait.
    pub receive_queue: u32,
    /// Bytes that are not acknowledged; of one that listens, how many connections may wait.
    pub send_queue: u32,
}

impl<S: Invoke> Process<S> {
    /// The sockets of the internet domains.
    pub fn sockets(&self) -> io::Result<Vec<SocketEntry>> {
        let mut all = Vec::new();
        for (family, protocol, name) in KINDS {
            let mut request = vec![0; HEADER + REQUEST];
            request[..4].copy_from_slice(&((HEADER + REQUEST) as u32).to_le_bytes());
            request[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_le_bytes());
            request[6..8].copy_from_slice(&FLAGS.to_le_bytes());
            request[HEADER] = family;
            request[HEADER + 1] = protocol;
            request[HEADER + 4..HEADER + 8].fill(0xff);
            self.netlink(NETLINK_SOCK_DIAG, &request, &mut |message| {
                all.extend(message.get(HEADER..).and_then(|m| parse(m, name)));
                Ok(())
            })?;
        }
        Ok(all)
    }
}

/// A `struct inet_diag_msg`.
fn parse(message: &[u8], protocol: &'static str) -> Option<SocketEntry> {
    let m: &[u8; MESSAGE] = message.first_chunk()?;
    let word = |at: usize| u32::from_le_bytes([m[at], m[at + 1], m[at + 2], m[at + 3]]);
    let end = |port_at: usize, at: usize| -> Option<SocketAddr> {
        let port = u16::from_be_bytes([m[port_at], m[port_at + 1]]);
        let ip: IpAddr = match m[0] {
            AF_INET => Ipv4Addr::from(*m.get(at..)?.first_chunk::<4>()?).into(),
            _ => Ipv6Addr::from(*m.get(at..)?.first_chunk::<16>()?).into(),
        };
        Some(SocketAddr::new(ip, port))
    };
    let remote = end(6, 24).filter(|r| r.port() != 0 || !r.ip().is_unspecified());
    Some(SocketEntry {
        protocol,
        state: STATES.get(usize::from(m[1])).copied().unwrap_or("?"),
        local: end(4, 8)?,
        remote,
        receive_queue: word(56),
        send_queue: word(60),
    })
}

//! Names of servers: `unix://PATH`, `unix://@NAME` (abstract), `tcp://ADDRESS:PORT`.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The most bytes of a unix socket's path.
const MAX_PATH: usize = 107;

/// Where a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Url<'a> {
    /// A unix socket at a path.
    Unix(&'a [u8]),
    /// A unix socket in the abstract name space, which leaves no file behind.
    Abstract(&'a [u8]),
    /// A TCP port. The address is numeric; `localhost` and, for any address, `*` or `0` stand too.
    Tcp(SocketAddr),
}

/// Why a URL names no server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UrlError {
    /// It begins with neither `unix://` nor `tcp://`.
    Scheme,
    /// Nothing comes after the scheme.
    Empty,
    /// The path does not fit into a socket address.
    PathTooLong,
    /// The path contains a NUL.
    Nul,
    /// What stands before the port is not an address.
    Address,
    /// There is no port, or it is not a number from 1 to 65535.
    Port,
}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            UrlError::Scheme => "begins with neither unix:// nor tcp://; write unix:///PATH, unix://@NAME or tcp://ADDRESS:PORT",
            UrlError::Empty => "names nothing; write unix:///PATH, unix://@NAME or tcp://ADDRESS:PORT",
            UrlError::PathTooLong => "has a path of more than 107 bytes, the most a unix socket can have; use a shorter one",
            UrlError::Nul => "contains a NUL byte, which no socket path can have",
            UrlError::Address => "has no numeric address before the port; write an IPv4 address, [IPv6], localhost or *",
            UrlError::Port => "has no port from 1 to 65535 at its end; write tcp://ADDRESS:PORT",
        })
    }
}

impl core::error::Error for UrlError {}

impl<'a> Url<'a> {
    /// Reads a URL.
    pub fn parse(text: &'a [u8]) -> Result<Url<'a>, UrlError> {
        if let Some(name) = text.strip_prefix(b"unix://") {
            return unix(name);
        }
        let rest = text.strip_prefix(b"tcp://").ok_or(UrlError::Scheme)?;
        tcp(rest.strip_suffix(b"/").unwrap_or(rest)).map(Url::Tcp)
    }

    /// Whether both ends are on one machine, where memory can be shared.
    pub const fn is_local(&self) -> bool {
        !matches!(self, Url::Tcp(_))
    }
}

fn unix(name: &[u8]) -> Result<Url<'_>, UrlError> {
    if name.contains(&0) {
        return Err(UrlError::Nul);
    }
    let abstract_name = name.strip_prefix(b"@");
    match abstract_name.unwrap_or(name) {
        [] => Err(UrlError::Empty),
        rest if rest.len() > MAX_PATH => Err(UrlError::PathTooLong),
        rest if abstract_name.is_some() => Ok(Url::Abstract(rest)),
        rest => Ok(Url::Unix(rest)),
    }
}

fn tcp(text: &[u8]) -> Result<SocketAddr, UrlError> {
    if text.is_empty() {
        return Err(UrlError::Empty);
    }
    let text = core::str::from_utf8(text).map_err(|_| UrlError::Address)?;
    let (address, port) = text.rsplit_once(':').ok_or(UrlError::Port)?;
    let port = Some(port)
        .filter(|p| p.bytes().all(|b| b.is_ascii_digit()))
        .and_then(|p| p.parse::<u16>().ok())
        .filter(|&p| p != 0)
        .ok_or(UrlError::Port)?;
    let address = match address {
        "*" | "0" => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
        _ => match address.strip_prefix('[').and_then(|a| a.strip_suffix(']')) {
            Some(v6) => IpAddr::V6(v6.parse::<Ipv6Addr>().map_err(|_| UrlError::Address)?),
            None => IpAddr::V4(address.parse::<Ipv4Addr>().map_err(|_| UrlError::Address)?),
        },
    };
    Ok(SocketAddr::new(address, port))
}

//! The list of sockets, as netstat(8) and ss(8) show it.

use std::sync::atomic::Ordering::Relaxed;

use kern::Curlwp;

use crate::Inet;
use crate::addr::Endpoint;
use crate::dgram::Dgram;
use crate::dgram::Flavour;
use crate::stack::{IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_UDP};

/// A socket, or a connection that has none any more.
#[derive(Clone, Debug)]
pub struct SocketInfo {
    /// `IPPROTO_*`.
    pub protocol: u8,
    /// It is a raw socket.
    pub raw: bool,
    /// It is of the family of IPv6, whatever its addresses are.
    pub v6: bool,
    /// Its own end.
    pub local: Endpoint,
    /// The peer's.
    pub remote: Option<Endpoint>,
    /// As in `tcpi_state`: 1 established, 6 TIME-WAIT, 7 not connected, 10 listening, ...
    pub state: u8,
    /// Bytes that wait to be received; of a listening socket the connections that wait.
    pub receive_queue: usize,
    /// Bytes that are not acknowledged; of a listening socket the most connections that may wait.
    pub send_queue: usize,
    /// The interface that it is bound to; 0 for none.
    pub interface: u32,
    /// `struct tcp_info`, of a connection.
    pub tcp_info: Vec<u8>,
    /// Messages that found no room.
    pub dropped: u64,
}

impl Inet {
    /// All sockets and connections.
    pub fn sockets(&self, cx: &Curlwp<'_>) -> Vec<SocketInfo> {
        let cpu = cx.cpu();
        let messages = self
            .udp
            .all(cpu)
            .into_iter()
            .chain(self.pings.all(cpu))
            .chain(self.raw.all());
        let mut out: Vec<SocketInfo> = messages.map(|socket| dgram(cx, &socket)).collect();
        out.extend(self.tcp_sockets(cx));
        out
    }

    /// How many TCP connections there are, those in TIME-WAIT not among them.
    pub fn tcp_connections(&self) -> u64 {
        self.tcp.open.load(Relaxed)
    }
}

fn dgram(cx: &Curlwp<'_>, socket: &Dgram) -> SocketInfo {
    let (local, remote, interface) = socket.ends(cx.cpu());
    let (receive_queue, dropped) = socket.queued(cx.cpu());
    let protocol = match socket.flavour {
        Flavour::Udp => IPPROTO_UDP,
        Flavour::Ping if socket.v6 => IPPROTO_ICMPV6,
        Flavour::Ping => IPPROTO_ICMP,
        Flavour::Raw(number) => number,
    };
    SocketInfo {
        protocol,
        raw: matches!(socket.flavour, Flavour::Raw(_)),
        v6: socket.v6,
        local,
        remote,
        state: if remote.is_some() { 1 } else { 7 },
        receive_queue,
        send_queue: 0,
        interface,
        tcp_info: Vec::new(),
        dropped,
    }
}

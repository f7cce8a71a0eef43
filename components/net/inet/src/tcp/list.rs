//! The list of TCP sockets.

use kern::Curlwp;
use tcp::Tuple;

use super::options::info;
use super::table::Found;
use crate::Inet;
use crate::addr::Endpoint;
use crate::sockets::SocketInfo;
use crate::stack::IPPROTO_TCP;

const TIME_WAIT: u8 = 6;
const LISTEN: u8 = 10;

impl Inet {
    pub(crate) fn tcp_sockets(&self, cx: &Curlwp<'_>) -> Vec<SocketInfo> {
        let mut out = Vec::new();
        for socket in self.tcp.ports.all(cx.cpu()) {
            if let Some(listener) = socket.listener() {
                let (waiting, most) = listener.queue(cx.cpu());
                let (local, interface) = socket.end(cx.cpu());
                out.push(SocketInfo {
                    v6: socket.v6,
                    receive_queue: waiting,
                    send_queue: most,
                    interface,
                    ..blank(local, None, LISTEN)
                });
            }
        }
        for (tuple, entry) in self.tcp.table.all(cx.cpu()) {
            let (local, remote) = ends(&tuple);
            out.push(match entry {
                Found::TimeWait => blank(local, Some(remote), TIME_WAIT),
                Found::Conn(conn) => {
                    let own = conn.own(cx);
                    SocketInfo {
                        receive_queue: own.tcp.readiness().readable,
                        send_queue: own.tcp.unacknowledged(),
                        interface: own.interface,
                        tcp_info: info(&own.tcp.info(), self.now()).to_vec(),
                        ..blank(local, Some(remote), own.tcp.state().number())
                    }
                }
            });
        }
        out
    }
}

fn ends(tuple: &Tuple) -> (Endpoint, Endpoint) {
    let end = |end: tcp::End| Endpoint::new(end.ip(), end.port());
    (end(tuple.local), end(tuple.remote))
}

fn blank(local: Endpoint, remote: Option<Endpoint>, state: u8) -> SocketInfo {
    SocketInfo {
        protocol: IPPROTO_TCP,
        raw: false,
        v6: local.addr.is_ipv6(),
        local,
        remote,
        state,
        receive_queue: 0,
        send_queue: 0,
        interface: 0,
        tcp_info: Vec::new(),
        dropped: 0,
    }
}

//! TCP, tcp(7): the sockets' side of the engine in components/net/tcp.
//!
//! A [`conn::Conn`] is a connection with what stands around the engine: who owns it at the moment, where its packets go, who
//! waits for it. Input that finds it owned waits in its backlog. `table` finds connections, `listener` makes them,
//! `socket`, `connect` and `transfer` are what system calls do.

mod budget;
mod conn;
mod connect;
mod list;
mod listener;
mod options;
mod output;
mod profile;
mod socket;
mod table;
mod transfer;
mod wheel;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use abi::Errno;
use hypercall::Host;
use kern::Curlwp;
use net::Packet;
use sync::Cpu;
use tcp::{Isn, Key, Segment, TimeWaitReply, Tuple};

use crate::addr::Endpoint;
use crate::icmp::{Trouble, valid};
use crate::ipv4::Header;
use crate::ports::Ports;
use crate::route::RouteKind;
use crate::stack::IPPROTO_TCP;
use crate::{Inet, checksum};

use budget::Budget;
use conn::Work;
pub(crate) use socket::Tcp;
use table::{Found, Table};
use wheel::Wheel;

/// What the stack knows of TCP.
pub(crate) struct State {
    table: Table,
    pub(crate) ports: Ports<Tcp>,
    wheel: Wheel,
    profiles: profile::Profiles,
    key: Key,
    isn: Isn,
    cookies: output::Cookies,
    budget: Budget,
    /// Connections that there are, for those who count them.
    pub(crate) open: AtomicU64,
}

impl State {
    pub(crate) fn new(host: &dyn Host) -> State {
        let (mut a, mut b) = ([0; 8], [0; 8]);
        host.random(&mut a);
        host.random(&mut b);
        let key = Key([u64::from_ne_bytes(a), u64::from_ne_bytes(b)]);
        State {
            table: Table::default(),
            ports: Ports::new(host),
            wheel: Wheel::default(),
            profiles: profile::Profiles::default(),
            key,
            isn: Isn::new(key),
            cookies: output::Cookies::default(),
            budget: Budget::default(),
            open: AtomicU64::new(0),
        }
    }

    pub(crate) fn start(&self, cx: &Curlwp<'_>, inet: &Arc<Inet>) {
        self.wheel.start(cx, inet);
    }
}

impl Inet {
    /// A segment, without the IP header.
    pub(crate) fn tcp_input(&self, cpu: &Cpu<'_>, header: &Header, mut packet: Packet) {
        if header.kind != RouteKind::Local || header.src.is_unspecified() {
            return;
        }
        let pseudo = checksum::Sum::pseudo(header.src, header.dst, IPPROTO_TCP, packet.len());
        if !valid(&packet, pseudo) {
            return;
        }
        let Some(len) = packet
            .front(20)
            .map(|front| usize::from(front[12] >> 4) * 4)
        else {
            return;
        };
        let Some(Ok((mut segment, len))) = packet.front(len.max(20)).map(Segment::parse_header)
        else {
            return;
        };
        packet.advance(len);
        segment.ecn = tcp::Ecn::from_bits(header.tos);
        segment.gso_size = packet.gso.map_or(0, |gso| gso.size.into());
        segment.payload = packet.into_payload();
        let tuple = Tuple {
            local: (header.dst, segment.dst_port).into(),
            remote: (header.src, segment.src_port).into(),
        };
        match self.tcp.table.find(cpu, &tuple) {
            Some(Found::Conn(conn)) if header.ttl < conn.min_ttl.load(Ordering::Relaxed) => {}
            Some(Found::Conn(conn)) => conn.work(cpu, Work::Segment(segment)),
            Some(Found::TimeWait) => self.time_wait_input(cpu, header, tuple, segment),
            None => self.tcp_listen_input(cpu, header, tuple, segment),
        }
    }

    fn time_wait_input(&self, cpu: &Cpu<'_>, header: &Header, tuple: Tuple, segment: Segment) {
        let now = self.now();
        let reply = self
            .tcp
            .table
            .with_time_wait(cpu, &tuple, |wait| wait.on_segment(now, &segment));
        match reply {
            Some(TimeWaitReply::Reply(reply)) => {
                self.tcp_reply(cpu, &tuple, header.interface, reply)
            }
            Some(TimeWaitReply::Forget) => self.tcp.table.forget_time_wait(cpu, &tuple),
            Some(TimeWaitReply::Reuse { .. }) => {
                self.tcp.table.forget_time_wait(cpu, &tuple);
                self.tcp_listen_input(cpu, header, tuple, segment);
            }
            Some(TimeWaitReply::Drop) | None => {}
        }
    }

    /// A segment of no connection.
    fn tcp_listen_input(&self, cpu: &Cpu<'_>, header: &Header, tuple: Tuple, segment: Segment) {
        let dst = Endpoint::new(header.dst, segment.dst_port);
        let src = Endpoint::new(header.src, segment.src_port);
        let socket = self
            .tcp
            .ports
            .find(cpu, &dst, &src, header.interface, |b| b.listening);
        if let Some(listener) = socket.and_then(|s| s.listener()) {
            return listener.input(cpu, self, header, tuple, segment);
        }
        if let Some(reset) = segment.reset() {
            self.tcp_reply(cpu, &tuple, header.interface, reset);
        }
    }

    /// An ICMP error about a segment that was sent from `local` to `remote`.
    pub(crate) fn tcp_error(
        &self,
        cpu: &Cpu<'_>,
        local: Endpoint,
        remote: Endpoint,
        trouble: &Trouble,
    ) {
        let tuple = Tuple {
            local: (local.addr, local.port).into(),
            remote: (remote.addr, remote.port).into(),
        };
        let Some(&[a, b, c, d]) = trouble
            .returned
            .get(4..8)
            .and_then(|b| b.first_chunk::<4>())
        else {
            return;
        };
        let seq = u32::from_be_bytes([a, b, c, d]);
        if let Some(Found::Conn(conn)) = self.tcp.table.find(cpu, &tuple) {
            conn.work(
                cpu,
                Work::Trouble {
                    seq,
                    errno: trouble.errno,
                    mtu: trouble.info,
                },
            );
        }
    }

    /// Resets every connection.
    pub(crate) fn abort_connections(&self, cpu: &Cpu<'_>) {
        for (_, entry) in self.tcp.table.all(cpu) {
            if let Found::Conn(conn) = entry {
                conn.work(cpu, Work::Abort);
            }
        }
    }

    /// Forgets what is over; answers whether there is more.
    pub(crate) fn age_tcp(&self, cpu: &Cpu<'_>) -> bool {
        self.tcp.table.age(cpu, self.now())
    }
}

/// The errno of an engine's error.
fn errno(error: tcp::Error) -> Errno {
    match error {
        tcp::Error::Refused => Errno::ECONNREFUSED,
        tcp::Error::Reset => Errno::ECONNRESET,
        tcp::Error::TimedOut => Errno::ETIMEDOUT,
        tcp::Error::Closed => Errno::EPIPE,
        tcp::Error::Absent => Errno::EINVAL,
        tcp::Error::Unreachable(number) => Errno(number),
    }
}

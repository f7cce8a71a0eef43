//! Sockets of messages: UDP, raw and ping sockets. They differ in what stands in front of a message and in who hears it; the rest
//! is here.

use core::net::IpAddr;
use std::any::Any;
use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};

use abi::{Errno, SysResult, UserAddr};
use bytes::Bytes;
use hypercall::Clock;
use kern::Curlwp;
use kern::poll::Events;
use net::consts::{
    MSG_ERRQUEUE, MSG_OOB, MSG_PEEK, MSG_TRUNC, SIOCINQ, SIOCOUTQ, SO_BINDTODEVICE, SOL_SOCKET,
};
use net::{
    Addr, Common, Control, Incoming, OptValue, Outgoing, Packet, Protocol, Received, Shutdown,
    Wait, int_option,
};
use smallvec::SmallVec;
use sync::{Condvar, Cpu, Mutex};

use crate::addr::{Endpoint, any, is_link_local};
use crate::icmp::Trouble;
use crate::ipv4::Header;
use crate::options::{About, Ask, IP_RECVERR, IPV6_RECVERR, IpOptions, SOL_IP, SOL_IPV6};
use crate::ports::{Binding, Ports};
use crate::route::{Hop, RouteKind};
use crate::{Inet, leaf};

/// What a message costs in a buffer besides its bytes.
const OVERHEAD: usize = 256;
/// The most errors that wait.
const MOST_ERRORS: usize = 64;

/// What kind of socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flavour {
    Udp,
    /// ICMP echoes for everybody: the kernel chooses the identifier.
    Ping,
    /// A protocol as it is.
    Raw(u8),
}

/// A socket of messages.
///
/// `state` and `queue` are leaves, of which one is held at a time; `readable` goes with the queue.
pub(crate) struct Dgram {
    pub(crate) me: Weak<Dgram>,
    pub(crate) inet: Arc<Inet>,
    pub(crate) id: u64,
    pub(crate) v6: bool,
    pub(crate) flavour: Flavour,
    pub(crate) common: Arc<Common>,
    pub(crate) state: Mutex<State>,
    queue: Mutex<Queue>,
    readable: Condvar,
}

/// Names, options, and what was found out on the way.
pub(crate) struct State {
    pub(crate) local: IpAddr,
    /// Of UDP the port, of a ping socket the identifier; 0 when it is not bound.
    pub(crate) port: u16,
    /// By bind(2), not for want of a port.
    bound: bool,
    pub(crate) remote: Option<Endpoint>,
    /// `SO_BINDTODEVICE`.
    pub(crate) device: u32,
    pub(crate) options: IpOptions,
    /// Where the last packet went, and when (see [`crate::route::Fib::generation`]).
    pub(crate) last: Option<(u64, IpAddr, u32, Hop)>,
    pub(crate) sends_no_more: bool,
    closed: bool,
    groups: Vec<(u32, IpAddr)>,
    /// What `MSG_MORE` and `UDP_CORK` hold back.
    pub(crate) corked: Option<(Endpoint, Vec<u8>)>,
    pub(crate) cork: bool,
    /// ICMP types that a raw socket does not want to see.
    filter: [u32; 8],
    /// Where the checksum is that the kernel fills in, `IPV6_CHECKSUM`.
    pub(crate) checksum_at: Option<usize>,
    /// Bytes of each datagram, `UDP_SEGMENT`.
    pub(crate) segment: u16,
}

/// A message that waits.
struct Message {
    data: SmallVec<[Bytes; 2]>,
    len: usize,
    from: Endpoint,
    about: About,
}

/// An error that waits, recverr of ip(7).
struct Report {
    trouble: Trouble,
    to: Endpoint,
    v6: bool,
}

#[derive(Default)]
struct Queue {
    messages: VecDeque<Message>,
    bytes: usize,
    errors: VecDeque<Report>,
    ended: bool,
    /// Messages that found no room.
    dropped: u64,
}

impl Dgram {
    pub(crate) fn open(
        inet: &Arc<Inet>,
        v6: bool,
        flavour: Flavour,
        common: &Arc<Common>,
    ) -> Arc<Dgram> {
        Arc::new_cyclic(|me| Dgram {
            me: me.clone(),
            inet: inet.clone(),
            id: inet.next_socket.fetch_add(1, Relaxed),
            v6,
            flavour,
            common: common.clone(),
            state: Mutex::new(State {
                local: any(v6),
                port: 0,
                bound: false,
                remote: None,
                device: 0,
                options: IpOptions {
                    header_included: flavour == Flavour::Raw(255),
                    ..IpOptions::default()
                },
                last: None,
                sends_no_more: false,
                closed: false,
                groups: Vec::new(),
                corked: None,
                cork: false,
                filter: [0; 8],
                checksum_at: (flavour == Flavour::Raw(58) && v6).then_some(2),
                segment: 0,
            }),
            queue: Mutex::default(),
            readable: Condvar::new("dgram"),
        })
    }

    /// Both ends, and the interface that it is bound to.
    pub(crate) fn ends(&self, cpu: &Cpu<'_>) -> (Endpoint, Option<Endpoint>, u32) {
        let leaf = leaf(cpu);
        let state = self.state.lock(&leaf);
        let port = match self.flavour {
            Flavour::Raw(number) => number.into(),
            _ => state.port,
        };
        (Endpoint::new(state.local, port), state.remote, state.device)
    }

    /// Bytes that wait, and messages that found no room.
    pub(crate) fn queued(&self, cpu: &Cpu<'_>) -> (usize, u64) {
        let leaf = leaf(cpu);
        let queue = self.queue.lock(&leaf);
        (queue.bytes, queue.dropped)
    }

    /// The table that its port is in.
    fn ports(&self) -> Option<&Ports<Dgram>> {
        match self.flavour {
            Flavour::Udp => Some(&self.inet.udp),
            Flavour::Ping => Some(&self.inet.pings),
            Flavour::Raw(_) => None,
        }
    }

    fn binding(&self, cx: &Curlwp<'_>, state: &State) -> Binding {
        Binding {
            local: state.local,
            port: state.port,
            remote: state.remote,
            device: state.device,
            v6only: state.options.v6only,
            reuseaddr: self.common.reuseaddr.load(Relaxed),
            reuseport: self.common.reuseport.load(Relaxed),
            uid: cx.cred().euid,
            listening: false,
        }
    }

    /// Gives it a port when it has none yet.
    pub(crate) fn autobind(&self, cx: &Curlwp<'_>) -> Result<(), Errno> {
        let leaf = leaf(cx.cpu());
        let binding = {
            let state = self.state.lock(&leaf);
            if state.port != 0 {
                return Ok(());
            }
            self.binding(cx, &state)
        };
        let Some(ports) = self.ports() else {
            return Ok(());
        };
        let port = ports.bind(cx.cpu(), &self.inet, binding, self.id, &self.me)?;
        let mut state = self.state.lock(&leaf);
        if state.port != 0 || state.closed {
            // Somebody else was faster.
            drop(state);
            ports.release(cx.cpu(), port, self.id);
            return Ok(());
        }
        state.port = port;
        Ok(())
    }

    /// Tells the table what changed.
    fn rebind(&self, cx: &Curlwp<'_>) {
        let binding = self.binding(cx, &self.state.lock(&leaf(cx.cpu())));
        if let Some(ports) = self.ports()
            && binding.port != 0
        {
            let _ = ports.rebind(cx.cpu(), self.id, binding, false);
        }
    }

    /// Takes a message; false when there is no room. The packet has no headers but those that the socket shows.
    pub(crate) fn enqueue(
        &self,
        cpu: &Cpu<'_>,
        packet: Packet,
        from: Endpoint,
        header: &Header,
        dst_port: u16,
    ) -> bool {
        let timestamp = match (self.common.timestamp.load(Relaxed), packet.timestamp) {
            (false, _) => 0,
            (true, 0) => self.inet.host.now(Clock::Realtime),
            (true, time) => time,
        };
        let len = packet.len();
        let message = Message {
            data: packet.into_payload(),
            len,
            from,
            about: About {
                dst: header.dst,
                dst_port,
                interface: header.interface,
                ttl: header.ttl,
                tos: header.tos,
                timestamp,
            },
        };
        let leaf = leaf(cpu);
        {
            let mut queue = self.queue.lock(&leaf);
            if queue.ended || queue.bytes + len + OVERHEAD > self.common.rcvbuf.load(Relaxed) {
                queue.dropped += 1;
                return false;
            }
            queue.bytes += len + OVERHEAD;
            queue.messages.push_back(message);
        }
        self.readable.signal(&leaf);
        self.common.poll.notify(&leaf, Events::IN | Events::RDNORM);
        true
    }

    /// Whether a message to a group is for it.
    pub(crate) fn hears_group(&self, cpu: &Cpu<'_>, header: &Header) -> bool {
        if header.kind != RouteKind::Multicast {
            return true;
        }
        let leaf = leaf(cpu);
        let state = self.state.lock(&leaf);
        state.options.all_groups || state.groups.contains(&(header.interface, header.dst))
    }

    /// Whether a raw socket does not want an ICMP type.
    pub(crate) fn filters(&self, cpu: &Cpu<'_>, kind: u8) -> bool {
        let state = self.state.lock(&leaf(cpu)).filter;
        state[usize::from(kind / 32)] >> (kind % 32) & 1 != 0
    }

    /// An ICMP error about something that it sent.
    pub(crate) fn trouble(&self, cpu: &Cpu<'_>, to: Endpoint, trouble: &Trouble) {
        let leaf = leaf(cpu);
        let (connected, wants, pmtu) = {
            let mut state = self.state.lock(&leaf);
            state.last = None;
            let wants = match to.addr {
                IpAddr::V4(_) => state.options.wants.errors,
                IpAddr::V6(_) => state.options.wants.errors6,
            };
            (state.remote.is_some(), wants, state.options.pmtu)
        };
        let too_big = trouble.errno == Errno::EMSGSIZE;
        let counts = wants
            || connected && trouble.hard
            || connected && too_big && pmtu == crate::options::PMTUDISC_DO;
        if !counts {
            return;
        }
        self.common.set_error(&leaf, trouble.errno);
        {
            // Taken in any case: who has looked for an error and is about to sleep holds it.
            let mut queue = self.queue.lock(&leaf);
            if wants && queue.errors.len() < MOST_ERRORS {
                queue.errors.push_back(Report {
                    trouble: trouble.clone(),
                    to,
                    v6: to.addr.is_ipv6(),
                });
            }
        }
        self.readable.broadcast(&leaf);
    }

    fn is_bindable(&self, cx: &Curlwp<'_>, to: &Endpoint) -> Result<(), Errno> {
        let special = to.addr.is_unspecified() || to.addr.is_multicast();
        let free = {
            let leaf = leaf(cx.cpu());
            let state = self.state.lock(&leaf);
            state.options.freebind || state.options.transparent
        };
        let broadcast = || {
            self.inet
                .find_route(&to.addr, 0)
                .is_some_and(|r| matches!(r.kind, RouteKind::Local | RouteKind::Broadcast))
        };
        let limited = matches!(to.addr, IpAddr::V4(ip) if ip.is_broadcast());
        if special || free || limited || broadcast() {
            return Ok(());
        }
        Err(Errno::EADDRNOTAVAIL)
    }
}

impl Protocol for Dgram {
    fn bind(&self, cx: &Curlwp<'_>, addr: &Addr) -> Result<(), Errno> {
        let to = parse_bind(addr, self.v6)?;
        self.is_bindable(cx, &to)?;
        let privileged = i64::from(to.port) < self.inet.config.unprivileged_port();
        if self.flavour == Flavour::Udp && to.port != 0 && privileged && !cx.cred().is_superuser() {
            return Err(Errno::EACCES);
        }
        let leaf = leaf(cx.cpu());
        let (binding, ports) = {
            let mut state = self.state.lock(&leaf);
            if is_link_local(&to.addr) && to.addr.is_ipv6() {
                let device = if to.scope != 0 {
                    to.scope
                } else {
                    state.device
                };
                if device == 0 {
                    return Err(Errno::EINVAL);
                }
                if !to.addr.is_multicast() {
                    state.device = device;
                }
            }
            let Some(ports) = self.ports() else {
                state.local = to.addr;
                state.bound = true;
                return Ok(());
            };
            if state.bound || state.port != 0 {
                return Err(Errno::EINVAL);
            }
            let binding = Binding {
                local: to.addr,
                port: to.port,
                ..self.binding(cx, &state)
            };
            (binding, ports)
        };
        let port = ports.bind(cx.cpu(), &self.inet, binding, self.id, &self.me)?;
        let mut state = self.state.lock(&leaf);
        if state.port != 0 || state.closed {
            drop(state);
            ports.release(cx.cpu(), port, self.id);
            return Err(Errno::EINVAL);
        }
        state.local = to.addr;
        state.port = port;
        state.bound = true;
        Ok(())
    }

    fn connect(&self, cx: &Curlwp<'_>, addr: &Addr, _: Wait) -> Result<(), Errno> {
        let leaf = leaf(cx.cpu());
        if addr.family() == net::consts::AF_UNSPEC {
            let (port, bound) = {
                let mut state = self.state.lock(&leaf);
                state.remote = None;
                state.last = None;
                if !state.bound {
                    state.local = any(self.v6);
                }
                (state.port, state.bound)
            };
            if !bound && port != 0 {
                if let Some(ports) = self.ports() {
                    ports.release(cx.cpu(), port, self.id);
                }
                self.state.lock(&leaf).port = 0;
            } else {
                self.rebind(cx);
            }
            return Ok(());
        }
        let mut to = Endpoint::parse(addr, self.v6)?;
        if to.addr.is_unspecified() {
            // Any is this host.
            to.addr = match to.addr {
                IpAddr::V4(_) => core::net::Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(_) => core::net::Ipv6Addr::LOCALHOST.into(),
            };
        }
        if self.flavour != Flavour::Udp {
            to.port = 0;
        }
        self.may_reach(cx, &to)?;
        let (device, hops) = {
            let state = self.state.lock(&leaf);
            (self.device_for(&state, &to), state.local)
        };
        if is_link_local(&to.addr) && device == 0 {
            return Err(Errno::EINVAL);
        }
        let hop = self.inet.route(&to.addr, device)?;
        if hop.kind == RouteKind::Broadcast && !self.common.broadcast.load(Relaxed) {
            return Err(Errno::EACCES);
        }
        self.autobind(cx)?;
        {
            let mut state = self.state.lock(&leaf);
            if hops.is_unspecified() {
                state.local = hop.src;
            }
            state.remote = Some(to);
            state.last = None;
        }
        self.rebind(cx);
        Ok(())
    }

    fn send(&self, cx: &Curlwp<'_>, message: &mut Outgoing<'_, '_>) -> Result<(), Errno> {
        if message.flags & MSG_OOB != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        self.send_message(cx, message)
    }

    fn receive(&self, cx: &Curlwp<'_>, message: &mut Incoming<'_, '_>) -> Result<Received, Errno> {
        if message.flags & MSG_OOB != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        let peek = message.flags & MSG_PEEK != 0;
        let leaf = leaf(cx.cpu());
        let mut queue = self.queue.lock(&leaf);
        let taken = loop {
            self.common.take_error()?;
            if let Some(first) = queue.messages.front() {
                if peek {
                    break Message {
                        data: first.data.clone(),
                        len: first.len,
                        from: first.from,
                        about: first.about.clone(),
                    };
                }
                let len = first.len;
                if let Some(first) = queue.messages.pop_front() {
                    queue.bytes -= len + OVERHEAD;
                    break first;
                }
            }
            if queue.ended {
                return Ok(Received::default());
            }
            queue = message.wait.on(cx, &self.readable, queue)?;
        };
        drop(queue);
        let wants = self.state.lock(&leaf).options.wants;
        let mut received = Received {
            from: Some(taken.from.to_addr(self.v6)),
            control: Vec::new(),
            flags: 0,
            len: Some(taken.len),
        };
        if message.wants_control {
            received.control = taken
                .about
                .control(&self.inet, self.v6, &wants, &self.common);
        }
        if taken.len > message.uio.resid() {
            received.flags |= MSG_TRUNC;
        }
        for piece in &taken.data {
            message.uio.put(cx, piece)?;
        }
        Ok(received)
    }

    fn receive_error(
        &self,
        cx: &Curlwp<'_>,
        message: &mut Incoming<'_, '_>,
    ) -> Result<Received, Errno> {
        let leaf = leaf(cx.cpu());
        let report = self
            .queue
            .lock(&leaf)
            .errors
            .pop_front()
            .ok_or(Errno::EAGAIN)?;
        let trouble = report.trouble;
        // struct sock_extended_err and the address of who says so.
        let mut data = vec![0; 16];
        data[..4].copy_from_slice(&trouble.errno.0.to_ne_bytes());
        data[4] = if report.v6 { 3 } else { 2 };
        (data[5], data[6]) = trouble.kind;
        data[8..12].copy_from_slice(&trouble.info.to_ne_bytes());
        data.extend_from_slice(
            Endpoint::new(trouble.offender, 0)
                .to_addr(report.v6)
                .bytes(),
        );
        let (level, kind) = if report.v6 {
            (SOL_IPV6, IPV6_RECVERR)
        } else {
            (SOL_IP, IP_RECVERR)
        };
        let skip = match self.flavour {
            Flavour::Udp => 8,
            Flavour::Ping | Flavour::Raw(_) => 0,
        };
        let payload = trouble.returned.get(skip..).unwrap_or(&[]);
        let mut received = Received {
            from: Some(report.to.to_addr(self.v6)),
            control: vec![Control::Other(level, kind, data)],
            flags: MSG_ERRQUEUE,
            len: Some(payload.len()),
        };
        if payload.len() > message.uio.resid() {
            received.flags |= MSG_TRUNC;
        }
        message.uio.put(cx, payload)?;
        Ok(received)
    }

    fn shutdown(&self, cx: &Curlwp<'_>, how: Shutdown) -> Result<(), Errno> {
        let leaf = leaf(cx.cpu());
        {
            let mut state = self.state.lock(&leaf);
            if state.remote.is_none() {
                return Err(Errno::ENOTCONN);
            }
            state.sends_no_more |= how.writes();
        }
        if how.reads() {
            self.queue.lock(&leaf).ended = true;
        }
        self.readable.broadcast(&leaf);
        self.common.poll.notify(
            &leaf,
            Events::IN | Events::OUT | Events::HUP | Events::RDHUP,
        );
        Ok(())
    }

    fn name(&self, cx: &Curlwp<'_>) -> Result<Addr, Errno> {
        let leaf = leaf(cx.cpu());
        let state = self.state.lock(&leaf);
        let port = match self.flavour {
            Flavour::Raw(number) => number.into(),
            _ => state.port,
        };
        let scope = if is_link_local(&state.local) {
            state.device
        } else {
            0
        };
        let name = Endpoint {
            addr: state.local,
            port,
            scope,
        };
        Ok(name.to_addr(self.v6))
    }

    fn peer(&self, cx: &Curlwp<'_>) -> Result<Addr, Errno> {
        let remote = self.state.lock(&leaf(cx.cpu())).remote;
        Ok(remote.ok_or(Errno::ENOTCONN)?.to_addr(self.v6))
    }

    fn poll(&self, cx: &Curlwp<'_>) -> Events {
        let leaf = leaf(cx.cpu());
        let sends_no_more = self.state.lock(&leaf).sends_no_more;
        let queue = self.queue.lock(&leaf);
        let mut now = Events::OUT | Events::WRNORM;
        if !queue.messages.is_empty() || queue.ended {
            now = now | Events::IN | Events::RDNORM;
        }
        if !queue.errors.is_empty() {
            now = now | Events::ERR;
        }
        if queue.ended {
            now = now | Events::RDHUP;
            if sends_no_more {
                now = now | Events::HUP;
            }
        }
        now
    }

    fn getsockopt(&self, cx: &Curlwp<'_>, level: i32, name: i32) -> Result<OptValue, Errno> {
        let leaf = leaf(cx.cpu());
        let state = self.state.lock(&leaf);
        if let Some(value) = self.own_option(&state, level, name) {
            return value;
        }
        let (options, peer) = (state.options, state.remote.map(|r| r.addr));
        drop(state);
        match level {
            SOL_IP => options.get(&self.inet, level, name, peer),
            SOL_IPV6 if self.v6 => options.get(&self.inet, level, name, peer),
            SOL_SOCKET => Err(Errno::ENOPROTOOPT),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }

    fn setsockopt(
        &self,
        cx: &Curlwp<'_>,
        level: i32,
        name: i32,
        value: &[u8],
    ) -> Result<(), Errno> {
        let leaf = leaf(cx.cpu());
        if (level, name) == (SOL_SOCKET, SO_BINDTODEVICE) {
            let device = self.common.device.lock(&leaf).clone();
            let device = match device.is_empty() {
                true => 0,
                false => {
                    let interface = self.inet.interfaces.by_name(cx.cpu(), &device);
                    interface.ok_or(Errno::ENODEV)?.index()
                }
            };
            {
                let mut state = self.state.lock(&leaf);
                state.device = device;
                state.last = None;
            }
            self.rebind(cx);
            return Ok(());
        }
        if let Some(result) = self.set_own_option(cx, level, name, value) {
            return result;
        }
        if level != SOL_IP && !(level == SOL_IPV6 && self.v6) {
            return Err(if level == SOL_SOCKET {
                Errno::ENOPROTOOPT
            } else {
                Errno::EOPNOTSUPP
            });
        }
        let mut options = self.state.lock(&leaf).options;
        let v6only = options.v6only;
        let ask = options.set(cx, &self.inet, level, name, value)?;
        {
            let mut state = self.state.lock(&leaf);
            if options.v6only != v6only && state.port != 0 {
                return Err(Errno::EINVAL);
            }
            state.options = options;
            state.last = None;
        }
        match ask {
            Ask::Nothing => Ok(()),
            Ask::Join(interface, group) => self.join(cx, interface, group),
            Ask::Leave(interface, group) => self.leave(cx, interface, group),
        }
    }

    fn ioctl(&self, cx: &Curlwp<'_>, cmd: u32, arg: UserAddr) -> SysResult {
        let bytes = match cmd {
            SIOCINQ => {
                let leaf = leaf(cx.cpu());
                let queue = self.queue.lock(&leaf);
                queue.messages.front().map_or(0, |m| m.len)
            }
            SIOCOUTQ => 0,
            _ => return self.inet.ioctl(cx, self.v6, cmd, arg),
        };
        cx.copyout(&(bytes as i32).to_ne_bytes(), arg)?;
        Ok(0)
    }

    fn close(&self, cx: &Curlwp<'_>) {
        let leaf = leaf(cx.cpu());
        let (port, groups) = {
            let mut state = self.state.lock(&leaf);
            state.closed = true;
            state.sends_no_more = true;
            (
                std::mem::take(&mut state.port),
                std::mem::take(&mut state.groups),
            )
        };
        match self.ports() {
            Some(ports) if port != 0 => ports.release(cx.cpu(), port, self.id),
            Some(_) => {}
            None => self.inet.raw.remove(self),
        }
        for (interface, group) in groups {
            self.inet.leave_group(cx.cpu(), interface, group);
        }
        let waiting = {
            let mut queue = self.queue.lock(&leaf);
            queue.ended = true;
            queue.bytes = 0;
            std::mem::take(&mut queue.messages)
        };
        drop(waiting);
        self.readable.broadcast(&leaf);
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Dgram {
    fn join(&self, cx: &Curlwp<'_>, interface: u32, group: IpAddr) -> Result<(), Errno> {
        let leaf = leaf(cx.cpu());
        self.inet
            .interfaces
            .by_index(interface)
            .ok_or(Errno::ENODEV)?;
        if self.state.lock(&leaf).groups.contains(&(interface, group)) {
            return Err(Errno::EADDRINUSE);
        }
        self.inet.join_group(cx.cpu(), interface, group)?;
        self.state.lock(&leaf).groups.push((interface, group));
        Ok(())
    }

    fn leave(&self, cx: &Curlwp<'_>, interface: u32, group: IpAddr) -> Result<(), Errno> {
        {
            let leaf = leaf(cx.cpu());
            let mut state = self.state.lock(&leaf);
            let at = state.groups.iter().position(|g| *g == (interface, group));
            state.groups.remove(at.ok_or(Errno::EADDRNOTAVAIL)?);
        }
        self.inet.leave_group(cx.cpu(), interface, group);
        Ok(())
    }

    /// getsockopt(2) of what only some of these sockets have.
    fn own_option(&self, state: &State, level: i32, name: i32) -> Option<Result<OptValue, Errno>> {
        Some(Ok(match (self.flavour, level, name) {
            (Flavour::Udp, SOL_UDP, UDP_CORK) => crate::options::int(state.cork.into()),
            (Flavour::Udp, SOL_UDP, UDP_SEGMENT) => crate::options::int(state.segment.into()),
            (Flavour::Raw(1), SOL_RAW, ICMP_FILTER) => {
                OptValue::from_slice(&state.filter[0].to_ne_bytes())
            }
            (Flavour::Raw(58), SOL_ICMPV6, ICMP_FILTER) => {
                let mut value = OptValue::new();
                state
                    .filter
                    .iter()
                    .for_each(|w| value.extend_from_slice(&w.to_ne_bytes()));
                value
            }
            (Flavour::Raw(_), SOL_IPV6 | SOL_RAW, IPV6_CHECKSUM) if self.v6 => {
                crate::options::int(state.checksum_at.map_or(-1, |at| at as i32))
            }
            _ => return None,
        }))
    }

    fn set_own_option(
        &self,
        cx: &Curlwp<'_>,
        level: i32,
        name: i32,
        value: &[u8],
    ) -> Option<Result<(), Errno>> {
        let leaf = leaf(cx.cpu());
        let mut state = self.state.lock(&leaf);
        let result = match (self.flavour, level, name) {
            (Flavour::Udp, SOL_UDP, UDP_CORK) => int_option(value).map(|on| state.cork = on != 0),
            (Flavour::Udp, SOL_UDP, UDP_SEGMENT) => int_option(value)
                .and_then(|n| u16::try_from(n).map_err(|_| Errno::EINVAL))
                .map(|n| state.segment = n),
            (Flavour::Raw(1), SOL_RAW, ICMP_FILTER) => {
                int_option(value).map(|mask| state.filter[0] = mask as u32)
            }
            (Flavour::Raw(58), SOL_ICMPV6, ICMP_FILTER) => {
                for (word, bytes) in state.filter.iter_mut().zip(value.chunks_exact(4)) {
                    *word = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
                }
                Ok(())
            }
            (Flavour::Raw(_), SOL_IPV6 | SOL_RAW, IPV6_CHECKSUM) if self.v6 => {
                match int_option(value) {
                    Ok(at) if at >= 0 && at % 2 == 0 => {
                        state.checksum_at = Some(at as usize);
                        Ok(())
                    }
                    Ok(-1) => {
                        state.checksum_at = None;
                        Ok(())
                    }
                    _ => Err(Errno::EINVAL),
                }
            }
            _ => return None,
        };
        let flush = result.is_ok() && (level, name) == (SOL_UDP, UDP_CORK) && !state.cork;
        let corked = if flush { state.corked.take() } else { None };
        drop(state);
        match corked {
            Some((to, data)) => Some(result.and_then(|()| self.send_corked(cx, to, data))),
            None => Some(result),
        }
    }
}

const SOL_UDP: i32 = 17;
const UDP_CORK: i32 = 1;
const UDP_SEGMENT: i32 = 103;
const SOL_RAW: i32 = 255;
const SOL_ICMPV6: i32 = 58;
const ICMP_FILTER: i32 = 1;
const IPV6_CHECKSUM: i32 = 7;

/// The address that bind(2) gave: of an IPv4 socket "any" may come without a family.
pub(crate) fn parse_bind(addr: &Addr, v6: bool) -> Result<Endpoint, Errno> {
    if addr.bytes().len() < if v6 { 24 } else { 16 } {
        return Err(Errno::EINVAL);
    }
    if !v6 && addr.family() == net::consts::AF_UNSPEC {
        let mut bytes = addr.bytes().to_vec();
        bytes[..2].copy_from_slice(&net::consts::AF_INET.to_ne_bytes());
        let to = Endpoint::parse(&Addr::new(&bytes), false)?;
        return match to.addr.is_unspecified() {
            true => Ok(to),
            false => Err(Errno::EAFNOSUPPORT),
        };
    }
    if v6 && addr.family() != net::consts::AF_INET6 {
        return Err(Errno::EAFNOSUPPORT);
    }
    Endpoint::parse(addr, v6)
}

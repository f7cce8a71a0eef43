//! Sockets of messages: UDP, raw and ping sockets. They differ in what stands in front of a message and in who hears it; the rest
//! is here: `names` has their ends, `queue` what waits to be received, `send` the way out, `groups` what they have joined.

mod groups;
mod names;
mod options;
mod queue;
mod send;
mod train;

use core::net::IpAddr;
use std::any::Any;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use abi::{Errno, SysResult, UserAddr};
use kern::Curlwp;
use kern::poll::Events;
use net::consts::{MSG_OOB, SIOCINQ, SIOCOUTQ};
use net::{Addr, Common, Incoming, OptValue, Outgoing, Protocol, Received, Shutdown, Wait};
use sync::{Condvar, Cpu, Mutex};

use crate::addr::{Endpoint, any};
use crate::group::Member;
use crate::group::request::Question;
use crate::options::IpOptions;
use crate::route::Hop;
use crate::{Inet, leaf};

use groups::Membership;
pub(crate) use names::parse_bind;
use queue::Queue;

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
    /// It takes datagrams of one size together, `UDP_GRO`.
    together: AtomicBool,
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
    groups: Vec<Membership>,
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
                    header_included: match flavour {
                        Flavour::Raw(number) => Some(number == 255),
                        _ => None,
                    },
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
            together: AtomicBool::new(false),
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

    /// Whether a raw socket does not want an ICMP type.
    pub(crate) fn filters(&self, cpu: &Cpu<'_>, kind: u8) -> bool {
        let state = self.state.lock(&leaf(cpu)).filter;
        state[usize::from(kind / 32)] >> (kind % 32) & 1 != 0
    }
}

impl Protocol for Dgram {
    fn common(&self) -> &Arc<Common> {
        &self.common
    }

    fn bind(&self, cx: &Curlwp<'_>, addr: &Addr) -> Result<(), Errno> {
        self.bind_to(cx, addr)
    }

    fn connect(&self, cx: &Curlwp<'_>, addr: &Addr, _: Wait) -> Result<(), Errno> {
        self.connect_to(cx, addr)
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
        self.receive_message(cx, message)
    }

    fn receive_error(
        &self,
        cx: &Curlwp<'_>,
        message: &mut Incoming<'_, '_>,
    ) -> Result<Received, Errno> {
        self.receive_report(cx, message)
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
        Ok(self.own_name(cx))
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
        self.get_option(cx, level, name)
    }

    fn getsockopt_with(
        &self,
        cx: &Curlwp<'_>,
        level: i32,
        name: i32,
        input: &[u8],
    ) -> Result<OptValue, Errno> {
        match Question::of(&self.inet, level, name, input) {
            Some(question) => self.group_filter(cx, question?),
            None => self.get_option(cx, level, name),
        }
    }

    fn setsockopt(
        &self,
        cx: &Curlwp<'_>,
        level: i32,
        name: i32,
        value: &[u8],
    ) -> Result<(), Errno> {
        self.set_option(cx, level, name, value)
    }

    fn available(&self, cx: &Curlwp<'_>) -> i64 {
        let leaf = leaf(cx.cpu());
        let queue = self.queue.lock(&leaf);
        queue.messages.iter().map(|m| m.len as i64).sum()
    }

    fn room(&self, _: &Curlwp<'_>) -> i64 {
        self.common.sndbuf.load(Relaxed).into()
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
        if !groups.is_empty() {
            self.inet.leave_groups(cx.cpu(), Member::Socket(self.id));
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

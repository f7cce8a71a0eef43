//! A netlink socket.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use abi::{Errno, SysResult, UserAddr};
use inet::Inet;
use kern::Curlwp;
use kern::poll::Events;
use net::consts::{AF_NETLINK, MSG_PEEK, MSG_TRUNC, SIOCINQ};
use net::{
    Addr, Common, Control, Incoming, OptValue, Outgoing, Protocol, Received, Shutdown, Wait,
    int_option,
};
use sync::{Condvar, Cpu, Mutex};

use crate::groups::Members;
use crate::message::{NLM_F_ACK, NLM_F_REQUEST, NLMSG_MIN_TYPE, Request, Writer};
use crate::{diag, route};

const SOL_NETLINK: i32 = 270;
const NETLINK_ADD_MEMBERSHIP: i32 = 1;
const NETLINK_DROP_MEMBERSHIP: i32 = 2;
const NETLINK_PKTINFO: i32 = 3;
const NETLINK_BROADCAST_ERROR: i32 = 4;
const NETLINK_NO_ENOBUFS: i32 = 5;
const NETLINK_LIST_MEMBERSHIPS: i32 = 9;
const NETLINK_CAP_ACK: i32 = 10;
const NETLINK_EXT_ACK: i32 = 11;
const NETLINK_GET_STRICT_CHK: i32 = 12;

/// The most bytes of one send: nobody has that much to say.
const REQUEST_MAX: usize = 1 << 20;
/// An answer of many parts is cut into datagrams of about so many bytes, which the buffers that programs use hold.
pub(crate) const DATAGRAM: usize = 8 << 10;
/// Every datagram takes so much besides its bytes.
const OVERHEAD: usize = 128;
/// Groups above this are none.
const GROUP_MAX: u32 = 64;

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// Interfaces, addresses, routes, neighbours.
    Route,
    /// Sockets.
    SockDiag,
}

impl Family {
    pub(crate) fn from_protocol(protocol: i32) -> Option<Family> {
        match protocol {
            0 => Some(Family::Route),
            4 => Some(Family::SockDiag),
            _ => None,
        }
    }

    /// `NETLINK_*`.
    pub(crate) fn protocol(self) -> i32 {
        match self {
            Family::Route => 0,
            Family::SockDiag => 4,
        }
    }
}

/// One netlink socket. `queue` is a leaf; `readable` goes with it.
pub(crate) struct NetlinkSocket {
    me: Weak<NetlinkSocket>,
    pub(crate) family: Family,
    inet: Arc<Inet>,
    members: Arc<Members>,
    common: Arc<Common>,
    /// Its port number, its address; 0 until it is bound.
    port: AtomicU32,
    /// The groups that it joined, a bit each, group 1 the lowest.
    groups: AtomicU64,
    /// Some of what was sent to a group did not fit.
    overrun: AtomicBool,
    no_enobufs: AtomicBool,
    pktinfo: AtomicBool,
    queue: Mutex<Queue>,
    readable: Condvar,
}

/// Datagrams that wait, each with the group that it was sent to, 0 for an answer.
#[derive(Default)]
struct Queue {
    datagrams: VecDeque<(Vec<u8>, u32)>,
    bytes: usize,
}

impl Queue {
    fn push(&mut self, datagram: Vec<u8>, group: u32) {
        self.bytes += datagram.len() + OVERHEAD;
        self.datagrams.push_back((datagram, group));
    }

    fn pop(&mut self) -> Option<(Vec<u8>, u32)> {
        let (datagram, group) = self.datagrams.pop_front()?;
        self.bytes -= datagram.len() + OVERHEAD;
        Some((datagram, group))
    }
}

/// The kernel's address, or a socket's.
fn address(port: u32, groups: u32) -> Addr {
    let mut bytes = [0; 12];
    bytes[..2].copy_from_slice(&AF_NETLINK.to_le_bytes());
    bytes[4..8].copy_from_slice(&port.to_le_bytes());
    bytes[8..].copy_from_slice(&groups.to_le_bytes());
    Addr::new(&bytes)
}

/// Port and groups of an address. `EINVAL` when it is none.
fn parse(addr: &Addr) -> Result<(u32, u32), Errno> {
    let bytes: &[u8; 12] = addr.bytes().first_chunk().ok_or(Errno::EINVAL)?;
    if addr.family() != AF_NETLINK {
        return Err(Errno::EINVAL);
    }
    let word =
        |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    Ok((word(4), word(8)))
}

impl NetlinkSocket {
    pub(crate) fn new(
        family: Family,
        inet: &Arc<Inet>,
        members: &Arc<Members>,
        common: &Arc<Common>,
    ) -> Arc<NetlinkSocket> {
        Arc::new_cyclic(|me| NetlinkSocket {
            me: me.clone(),
            family,
            inet: inet.clone(),
            members: members.clone(),
            common: common.clone(),
            port: AtomicU32::new(0),
            groups: AtomicU64::new(0),
            overrun: AtomicBool::new(false),
            no_enobufs: AtomicBool::new(false),
            pktinfo: AtomicBool::new(false),
            queue: Mutex::default(),
            readable: Condvar::new("netlink"),
        })
    }

    pub(crate) fn port(&self) -> u32 {
        self.port.load(Relaxed)
    }

    /// Bytes that wait to be received.
    pub(crate) fn waiting(&self, cpu: &Cpu<'_>) -> usize {
        self.queue.lock(cpu).bytes
    }

    /// Whether it is in a group.
    pub(crate) fn joined(&self, group: u32) -> bool {
        self.groups.load(Relaxed) & bit(group) != 0
    }

    /// Gives it a port number unless it has one: the one asked for, or one that is free.
    fn bind_port(&self, cx: &Curlwp<'_>, asked: u32) -> Result<(), Errno> {
        match self.port() {
            0 => {}
            port if asked == 0 || asked == port => return Ok(()),
            _ => return Err(Errno::EINVAL),
        }
        let me = self.me.upgrade().ok_or(Errno::EBADF)?;
        let first = if asked == 0 {
            cx.proc().pid as u32
        } else {
            asked
        };
        let port = self.members.claim(cx.cpu(), &me, first, asked != 0)?;
        self.port.store(port, Relaxed);
        Ok(())
    }

    /// A message for a group that it joined, whoever changed something.
    pub(crate) fn announce(&self, cpu: &Cpu<'_>, datagram: &[u8], group: u32) {
        let limit = self.common.rcvbuf.load(Relaxed) as usize;
        {
            let mut queue = self.queue.lock(cpu);
            if queue.bytes + datagram.len() + OVERHEAD > limit {
                drop(queue);
                self.overrun.store(true, Relaxed);
            } else {
                queue.push(datagram.to_vec(), group);
            }
        }
        self.arrived(cpu);
    }

    fn arrived(&self, cpu: &Cpu<'_>) {
        self.readable.signal(cpu);
        self.common.poll.notify(cpu, Events::IN | Events::RDNORM);
    }

    fn is_full(&self, cpu: &Cpu<'_>) -> bool {
        self.queue.lock(cpu).bytes > self.common.rcvbuf.load(Relaxed) as usize
    }

    /// Answers every request in what was sent, as long as there is room for answers.
    fn requests(&self, cx: &Curlwp<'_>, mut bytes: &[u8]) {
        while let Some((request, rest)) = Request::split(bytes) {
            bytes = rest;
            if request.flags & NLM_F_REQUEST == 0 || request.kind < NLMSG_MIN_TYPE {
                continue;
            }
            // One answer more than there is room for, so that what fits alone is always answered.
            if self.is_full(cx.cpu()) {
                self.overrun.store(true, Relaxed);
                break;
            }
            self.answer(cx, &request);
        }
        self.arrived(cx.cpu());
    }

    fn answer(&self, cx: &Curlwp<'_>, request: &Request<'_>) {
        let mut out = Answer {
            writer: Writer::new(self.port(), request.sequence),
            datagrams: Vec::new(),
        };
        let result = match self.family {
            Family::Route => route::request(cx, &self.inet, request, &mut out),
            Family::SockDiag => diag::request(cx, &self.inet, &self.members, request, &mut out),
        };
        match result {
            Ok(()) if request.is_dump() => out.writer.done(),
            Ok(()) if request.flags & NLM_F_ACK != 0 => out.writer.result(request, Ok(())),
            Ok(()) => {}
            Err(error) => {
                // Half an answer is none.
                out = Answer {
                    writer: Writer::new(self.port(), request.sequence),
                    datagrams: Vec::new(),
                };
                out.writer.result(request, Err(error));
            }
        }
        out.cut();
        let mut queue = self.queue.lock(cx.cpu());
        for datagram in out.datagrams {
            queue.push(datagram, 0);
        }
    }

    fn membership(&self, value: &[u8], join: bool) -> Result<(), Errno> {
        let group = u32::try_from(int_option(value)?).map_err(|_| Errno::EINVAL)?;
        if group == 0 || group > GROUP_MAX {
            return Err(Errno::EINVAL);
        }
        match join {
            true => self.groups.fetch_or(bit(group), Relaxed),
            false => self.groups.fetch_and(!bit(group), Relaxed),
        };
        Ok(())
    }
}

fn bit(group: u32) -> u64 {
    1 << (group.saturating_sub(1) % GROUP_MAX)
}

/// An answer, cut into datagrams.
pub(crate) struct Answer {
    pub(crate) writer: Writer,
    datagrams: Vec<Vec<u8>>,
}

impl Answer {
    /// Called between messages: begins another datagram when this one is long enough.
    pub(crate) fn breathe(&mut self) {
        if self.writer.len() >= DATAGRAM / 2 {
            self.cut();
        }
    }

    fn cut(&mut self) {
        if self.writer.len() > 0 {
            self.datagrams.push(self.writer.take());
        }
    }
}

impl Protocol for NetlinkSocket {
    fn common(&self) -> &Arc<Common> {
        &self.common
    }

    fn bind(&self, cx: &Curlwp<'_>, addr: &Addr) -> Result<(), Errno> {
        let (port, groups) = parse(addr)?;
        self.bind_port(cx, port)?;
        self.groups.store(groups.into(), Relaxed);
        Ok(())
    }

    fn connect(&self, cx: &Curlwp<'_>, addr: &Addr, _: Wait) -> Result<(), Errno> {
        match parse(addr)? {
            (0, 0) => self.bind_port(cx, 0),
            _ => Err(Errno::EPERM),
        }
    }

    fn send(&self, cx: &Curlwp<'_>, message: &mut Outgoing<'_, '_>) -> Result<(), Errno> {
        if let Some(to) = message.to {
            // Sockets do not write to each other.
            if parse(to)?.0 != 0 {
                return Err(Errno::ECONNREFUSED);
            }
        }
        if message.uio.resid() > REQUEST_MAX {
            return Err(Errno::EMSGSIZE);
        }
        self.bind_port(cx, 0)?;
        // What was answered and not read is all that one can make the kernel keep.
        if self.is_full(cx.cpu()) {
            return Err(Errno::ENOBUFS);
        }
        let mut bytes = vec![0; message.uio.resid()];
        message.uio.get(cx, &mut bytes)?;
        self.requests(cx, &bytes);
        Ok(())
    }

    fn receive(&self, cx: &Curlwp<'_>, message: &mut Incoming<'_, '_>) -> Result<Received, Errno> {
        let mut queue = self.queue.lock(cx.cpu());
        let (datagram, group) = loop {
            if self.overrun.swap(false, Relaxed) && !self.no_enobufs.load(Relaxed) {
                return Err(Errno::ENOBUFS);
            }
            let next = match message.flags & MSG_PEEK != 0 {
                true => queue.datagrams.front().cloned(),
                false => queue.pop(),
            };
            if let Some(next) = next {
                break next;
            }
            queue = message.wait.on(cx, &self.readable, queue)?;
        };
        drop(queue);
        let mask = if group == 0 { 0 } else { bit(group) as u32 };
        let mut received = Received {
            from: Some(address(0, mask)),
            len: Some(datagram.len()),
            ..Received::default()
        };
        if datagram.len() > message.uio.resid() {
            received.flags |= MSG_TRUNC;
        }
        if self.pktinfo.load(Relaxed) && message.wants_control {
            let info = group.to_le_bytes().to_vec();
            received
                .control
                .push(Control::Other(SOL_NETLINK, NETLINK_PKTINFO, info));
        }
        message.uio.put(cx, &datagram)?;
        Ok(received)
    }

    fn shutdown(&self, _: &Curlwp<'_>, _: Shutdown) -> Result<(), Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    fn name(&self, _: &Curlwp<'_>) -> Result<Addr, Errno> {
        Ok(address(self.port(), self.groups.load(Relaxed) as u32))
    }

    fn peer(&self, _: &Curlwp<'_>) -> Result<Addr, Errno> {
        Ok(address(0, 0))
    }

    fn poll(&self, cx: &Curlwp<'_>) -> Events {
        let mut events = Events::OUT | Events::WRNORM;
        if !self.queue.lock(cx.cpu()).datagrams.is_empty() {
            events = events | Events::IN | Events::RDNORM;
        }
        if self.overrun.load(Relaxed) {
            events = events | Events::ERR;
        }
        events
    }

    fn getsockopt(&self, _: &Curlwp<'_>, level: i32, name: i32) -> Result<OptValue, Errno> {
        let int = |value: bool| OptValue::from_slice(&i32::from(value).to_le_bytes());
        match (level, name) {
            (SOL_NETLINK, NETLINK_PKTINFO) => Ok(int(self.pktinfo.load(Relaxed))),
            (SOL_NETLINK, NETLINK_NO_ENOBUFS) => Ok(int(self.no_enobufs.load(Relaxed))),
            (SOL_NETLINK, NETLINK_LIST_MEMBERSHIPS) => Ok(OptValue::from_slice(
                &self.groups.load(Relaxed).to_le_bytes(),
            )),
            _ => Err(Errno::ENOPROTOOPT),
        }
    }

    fn setsockopt(&self, _: &Curlwp<'_>, level: i32, name: i32, value: &[u8]) -> Result<(), Errno> {
        let set = |cell: &AtomicBool| -> Result<(), Errno> {
            cell.store(int_option(value)? != 0, Relaxed);
            Ok(())
        };
        match (level, name) {
            (SOL_NETLINK, NETLINK_ADD_MEMBERSHIP) => self.membership(value, true),
            (SOL_NETLINK, NETLINK_DROP_MEMBERSHIP) => self.membership(value, false),
            (SOL_NETLINK, NETLINK_PKTINFO) => set(&self.pktinfo),
            (SOL_NETLINK, NETLINK_NO_ENOBUFS) => set(&self.no_enobufs),
            // Requests are always checked, and errors carry the request; there is nothing to switch.
            (
                SOL_NETLINK,
                NETLINK_BROADCAST_ERROR
                | NETLINK_CAP_ACK
                | NETLINK_EXT_ACK
                | NETLINK_GET_STRICT_CHK,
            ) => int_option(value).map(drop),
            _ => Err(Errno::ENOPROTOOPT),
        }
    }

    fn ioctl(&self, cx: &Curlwp<'_>, cmd: u32, arg: UserAddr) -> SysResult {
        if cmd != SIOCINQ {
            return Err(Errno::ENOTTY);
        }
        let first = self
            .queue
            .lock(cx.cpu())
            .datagrams
            .front()
            .map_or(0, |(d, _)| d.len());
        cx.copyout(&(first as i32).to_le_bytes(), arg)?;
        Ok(0)
    }

    fn close(&self, cx: &Curlwp<'_>) {
        self.members.remove(cx.cpu(), self);
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

//! Sockets of the simulated host: a loopback of its own, where every address is here and a port belongs to one socket.
//!
//! What is left to the network elsewhere is left to chance here: how much of a stream is taken at a time, and whether a connection
//! is made at once. Of options it only keeps what was set; there is no urgent data, and no ICMP.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use abi::Errno;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{SimHost, lock};
use crate::{
    Host, HostSocket, Nanos, SocketData, SocketFamily, SocketKind, SocketMessage, SocketQueue,
    Sockets,
};

/// Bytes of a stream, or of datagrams, that wait to be received.
const ROOM: usize = 64 << 10;
/// The first port that is given out.
const FIRST_PORT: u16 = 32_768;
/// How long a connection takes, at most, and how long until one that found no room is tried again.
const DELAY: Nanos = 1_000_000;

const POLLIN: u32 = 1;
const POLLOUT: u32 = 4;
const POLLERR: u32 = 8;
const POLLHUP: u32 = 0x10;
const POLLRDHUP: u32 = 0x2000;
const MSG_OOB: i32 = 1;
const MSG_PEEK: i32 = 2;
const MSG_TRUNC: i32 = 0x20;
const MSG_ERRQUEUE: i32 = 0x2000;
const SOL_SOCKET: i32 = 1;
const SO_ERROR: i32 = 4;
const SO_ACCEPTCONN: i32 = 30;

type Id = u64;

/// All sockets of the host.
#[derive(Default)]
pub(super) struct Net {
    sockets: BTreeMap<Id, Socket>,
    last: Id,
    /// Whom to wake when the lock is free again.
    told: Vec<Arc<Told>>,
}

/// What the sockets of one kernel have to tell.
#[derive(Default)]
struct Told {
    queue: std::sync::Mutex<BTreeMap<u64, u32>>,
    /// Counts; the kernel's thread parks on it.
    changes: AtomicU32,
    woken: AtomicBool,
}

#[derive(Default)]
struct Socket {
    v6: bool,
    stream: bool,
    name: Option<SocketAddr>,
    state: State,
    inbox: VecDeque<u8>,
    datagrams: VecDeque<(Vec<u8>, SocketAddr)>,
    /// The peer sends no more.
    ended: bool,
    receives_no_more: bool,
    sends_no_more: bool,
    /// It was made by a listener, whose name it has.
    accepted: bool,
    /// connect(2) has answered that there is a connection.
    announced: bool,
    error: Option<Errno>,
    options: BTreeMap<(i32, i32), Vec<u8>>,
    watched: Option<(u64, Arc<Told>)>,
}

#[derive(Default)]
enum State {
    #[default]
    Idle,
    Listening {
        backlog: usize,
        queue: VecDeque<Id>,
    },
    Connecting,
    /// To whom; a stream's other end, which may be gone.
    Connected(SocketAddr, Option<Id>),
    /// A connection was refused.
    Refused,
}

/// The sockets of a kernel.
struct SimSockets {
    host: Weak<SimHost>,
    told: Arc<Told>,
}

struct SimSocket {
    host: Weak<SimHost>,
    told: Arc<Told>,
    id: Id,
}

pub(super) fn sockets(host: Weak<SimHost>) -> Arc<dyn Sockets> {
    Arc::new(SimSockets {
        host,
        told: Arc::default(),
    })
}

/// Does something to the sockets, and then wakes who is told of it.
fn with<R>(host: &SimHost, act: impl FnOnce(&mut Net) -> R) -> R {
    let (result, told) = {
        let mut net = lock(&host.net);
        (act(&mut net), std::mem::take(&mut net.told))
    };
    for told in told {
        told.changes.fetch_add(1, Ordering::SeqCst);
        host.unpark(&told.changes, u32::MAX);
    }
    result
}

impl Net {
    fn add(&mut self, socket: Socket) -> Id {
        self.last += 1;
        self.sockets.insert(self.last, socket);
        self.last
    }

    fn get(&mut self, id: Id) -> Result<&mut Socket, Errno> {
        self.sockets.get_mut(&id).ok_or(Errno::EBADF)
    }

    /// Has the kernel of a socket be told what may have become true.
    fn tell(&mut self, id: Id, events: u32) {
        let Some((number, told)) = self.sockets.get(&id).and_then(|s| s.watched.clone()) else {
            return;
        };
        *lock(&told.queue).entry(number).or_default() |= events;
        self.told.push(told);
    }

    /// Whose port it is.
    fn at(&self, stream: bool, v6: bool, port: u16) -> Option<Id> {
        let is_it = |s: &Socket| {
            let named = s.name.is_some_and(|name| name.port() == port);
            named && s.stream == stream && s.v6 == v6 && !s.accepted
        };
        self.sockets
            .iter()
            .find(|(_, s)| is_it(s))
            .map(|(id, _)| *id)
    }

    fn bind(&mut self, id: Id, addr: SocketAddr) -> Result<(), Errno> {
        let socket = self.get(id)?;
        let (stream, v6) = (socket.stream, socket.v6);
        if socket.name.is_some() || addr.is_ipv6() != v6 {
            return Err(Errno::EINVAL);
        }
        let port = match addr.port() {
            0 => (FIRST_PORT..)
                .find(|port| self.at(stream, v6, *port).is_none())
                .ok_or(Errno::EADDRINUSE)?,
            port if self.at(stream, v6, port).is_some() => return Err(Errno::EADDRINUSE),
            port => port,
        };
        self.get(id)?.name = Some(SocketAddr::new(addr.ip(), port));
        Ok(())
    }

    /// Gives a socket a name that has none.
    fn bind_somewhere(&mut self, id: Id) -> Result<SocketAddr, Errno> {
        let socket = self.get(id)?;
        if let Some(name) = socket.name {
            return Ok(name);
        }
        let here = loopback(socket.v6);
        self.bind(id, SocketAddr::new(here, 0))?;
        self.get(id)?.name.ok_or(Errno::EINVAL)
    }

    fn connect_datagrams(&mut self, id: Id, to: Option<SocketAddr>) -> Result<(), Errno> {
        let state = match to {
            Some(to) => {
                self.bind_somewhere(id)?;
                State::Connected(to, None)
            }
            None => State::Idle,
        };
        self.get(id)?.state = state;
        Ok(())
    }

    /// Makes a connection if there is room for one: whether it is decided.
    fn establish(&mut self, id: Id, to: SocketAddr) -> bool {
        let Ok(from) = self.bind_somewhere(id) else {
            return true;
        };
        let v6 = to.is_ipv6();
        let listener = self.at(true, v6, to.port()).and_then(|at| {
            let State::Listening { backlog, queue } = &self.sockets.get(&at)?.state else {
                return None;
            };
            Some((at, queue.len() > *backlog))
        });
        let Some((listener, full)) = listener else {
            if let Ok(socket) = self.get(id) {
                socket.state = State::Refused;
                socket.error = Some(Errno::ECONNREFUSED);
            }
            self.tell(id, POLLIN | POLLOUT | POLLERR | POLLHUP);
            return true;
        };
        if full {
            return false;
        }
        let new = self.add(Socket {
            v6,
            stream: true,
            name: Some(to),
            state: State::Connected(from, Some(id)),
            accepted: true,
            announced: true,
            ..Socket::default()
        });
        if let Ok(socket) = self.get(id) {
            socket.state = State::Connected(to, Some(new));
        }
        if let Ok(Socket {
            state: State::Listening { queue, .. },
            ..
        }) = self.get(listener)
        {
            queue.push_back(new);
        }
        self.tell(listener, POLLIN);
        self.tell(id, POLLOUT);
        true
    }

    fn peer_of(&self, id: Id) -> Option<Id> {
        match self.sockets.get(&id)?.state {
            State::Connected(_, peer) => peer,
            _ => None,
        }
    }

    fn send_stream(&mut self, host: &SimHost, id: Id, bytes: &[u8]) -> Result<usize, Errno> {
        let socket = self.get(id)?;
        if let Some(error) = socket.error.take() {
            return Err(error);
        }
        match socket.state {
            State::Connecting => return Err(Errno::EAGAIN),
            State::Connected(..) if !socket.sends_no_more => {}
            _ => return Err(Errno::EPIPE),
        }
        let peer = self.peer_of(id).ok_or(Errno::EPIPE)?;
        let other = self.get(peer).map_err(|_| Errno::EPIPE)?;
        if other.receives_no_more {
            return Ok(bytes.len());
        }
        let room = ROOM.saturating_sub(other.inbox.len()).min(bytes.len());
        if room == 0 && !bytes.is_empty() {
            return Err(Errno::EAGAIN);
        }
        // Now and then not all that would fit.
        let taken = match host.draw(4) {
            0 => room.min(1 + host.draw(room as u64) as usize),
            _ => room,
        };
        other.inbox.extend(&bytes[..taken]);
        self.tell(peer, POLLIN);
        Ok(taken)
    }

    fn send_datagram(
        &mut self,
        id: Id,
        bytes: &[u8],
        to: Option<SocketAddr>,
    ) -> Result<usize, Errno> {
        let socket = self.get(id)?;
        if let Some(error) = socket.error.take() {
            return Err(error);
        }
        let peer = match socket.state {
            State::Connected(peer, _) => Some(peer),
            _ => None,
        };
        let to = to.or(peer).ok_or(Errno::EDESTADDRREQ)?;
        let from = self.bind_somewhere(id)?;
        let Some(at) = self.at(false, to.is_ipv6(), to.port()) else {
            if peer.is_some() {
                self.get(id)?.error = Some(Errno::ECONNREFUSED);
                self.tell(id, POLLIN | POLLOUT | POLLERR);
            }
            return Ok(bytes.len());
        };
        let other = self.get(at)?;
        let waits: usize = other
            .datagrams
            .iter()
            .map(|(data, _)| data.len() + 64)
            .sum();
        let wanted = match other.state {
            State::Connected(only, _) => only.port() == from.port(),
            _ => true,
        };
        // What finds no room is lost.
        if wanted && waits < ROOM {
            other.datagrams.push_back((bytes.to_vec(), from));
            self.tell(at, POLLIN);
        }
        Ok(bytes.len())
    }

    fn receive_stream(
        &mut self,
        host: &SimHost,
        id: Id,
        into: &mut Vec<u8>,
        max: usize,
        flags: i32,
    ) -> Result<SocketMessage, Errno> {
        if flags & MSG_OOB != 0 {
            return Err(Errno::EINVAL);
        }
        let socket = self.get(id)?;
        if socket.inbox.is_empty() {
            if let Some(error) = socket.error.take() {
                return Err(error);
            }
            match socket.state {
                State::Connected(..) if socket.ended || socket.receives_no_more => {
                    return Ok(SocketMessage::default());
                }
                State::Connected(..) | State::Connecting => return Err(Errno::EAGAIN),
                _ => return Err(Errno::ENOTCONN),
            }
        }
        let there = socket.inbox.len().min(max);
        let was_full = socket.inbox.len() >= ROOM;
        let len = match host.draw(4) {
            0 => there.min(1 + host.draw(there as u64) as usize),
            _ => there,
        };
        match flags & MSG_PEEK {
            0 => into.extend(socket.inbox.drain(..len)),
            _ => into.extend(socket.inbox.iter().take(there)),
        }
        if flags & MSG_PEEK == 0
            && was_full
            && let Some(peer) = self.peer_of(id)
        {
            self.tell(peer, POLLOUT);
        }
        Ok(SocketMessage {
            len,
            ..SocketMessage::default()
        })
    }

    fn receive_datagram(
        &mut self,
        id: Id,
        into: &mut Vec<u8>,
        max: usize,
        flags: i32,
    ) -> Result<SocketMessage, Errno> {
        let socket = self.get(id)?;
        if flags & MSG_ERRQUEUE != 0 {
            return Err(Errno::EAGAIN);
        }
        if let Some(error) = socket.error.take() {
            return Err(error);
        }
        if socket.receives_no_more && socket.datagrams.is_empty() {
            return Ok(SocketMessage::default());
        }
        let (data, from) = match flags & MSG_PEEK {
            0 => socket.datagrams.pop_front(),
            _ => socket.datagrams.front().cloned(),
        }
        .ok_or(Errno::EAGAIN)?;
        let here = data.len().min(max);
        into.extend_from_slice(&data[..here]);
        let cut = here < data.len();
        Ok(SocketMessage {
            len: if flags & MSG_TRUNC != 0 {
                data.len()
            } else {
                here
            },
            from: Some(from),
            flags: if cut { MSG_TRUNC } else { 0 },
            ..SocketMessage::default()
        })
    }

    fn shutdown(&mut self, id: Id, how: i32) -> Result<(), Errno> {
        let socket = self.get(id)?;
        if !matches!(socket.state, State::Connected(..)) {
            return Err(Errno::ENOTCONN);
        }
        socket.receives_no_more |= how != 1;
        socket.sends_no_more |= how != 0;
        self.tell(id, POLLIN | POLLOUT | POLLRDHUP);
        if how != 0 {
            self.end_input(id);
        }
        Ok(())
    }

    /// The other end of a stream gets no more.
    fn end_input(&mut self, id: Id) {
        if let Some(peer) = self.peer_of(id)
            && let Ok(other) = self.get(peer)
        {
            other.ended = true;
            let both = if other.sends_no_more { POLLHUP } else { 0 };
            self.tell(peer, POLLIN | POLLRDHUP | both);
        }
    }

    fn close(&mut self, id: Id) {
        self.end_input(id);
        let peer = self.peer_of(id);
        let Some(gone) = self.sockets.remove(&id) else {
            return;
        };
        if let Some(peer) = peer
            && let Ok(other) = self.get(peer)
        {
            if let State::Connected(_, end) = &mut other.state {
                *end = None;
            }
            if !gone.inbox.is_empty() {
                other.error = Some(Errno::ECONNRESET);
            }
            // Nobody is left to send to.
            self.tell(peer, POLLIN | POLLOUT | POLLERR | POLLHUP | POLLRDHUP);
        }
        if let State::Listening { queue, .. } = gone.state {
            queue.into_iter().for_each(|waiting| self.close(waiting));
        }
    }

    fn ready(&mut self, id: Id) -> Result<u32, Errno> {
        let room = match self.peer_of(id).and_then(|peer| self.sockets.get(&peer)) {
            Some(peer) => peer.inbox.len() < ROOM,
            None => true,
        };
        let socket = self.get(id)?;
        let mut now = if socket.error.is_some() { POLLERR } else { 0 };
        match &socket.state {
            State::Listening { queue, .. } if queue.is_empty() => return Ok(now),
            State::Listening { .. } => return Ok(now | POLLIN),
            State::Connecting => return Ok(now),
            State::Idle | State::Refused if socket.stream => return Ok(now | POLLOUT | POLLHUP),
            _ => {}
        }
        let ended = socket.ended || socket.receives_no_more;
        if ended || !socket.inbox.is_empty() || !socket.datagrams.is_empty() {
            now |= POLLIN;
        }
        if ended {
            now |= POLLRDHUP;
            if socket.sends_no_more {
                now |= POLLHUP;
            }
        }
        Ok(if room { now | POLLOUT } else { now })
    }
}

fn loopback(v6: bool) -> IpAddr {
    match v6 {
        true => Ipv6Addr::LOCALHOST.into(),
        false => Ipv4Addr::LOCALHOST.into(),
    }
}

impl SimSocket {
    fn with<R>(
        &self,
        act: impl FnOnce(&SimHost, &mut Net) -> Result<R, Errno>,
    ) -> Result<R, Errno> {
        let host = self.host.upgrade().ok_or(Errno::ENETDOWN)?;
        with(&host, |net| act(&host, net))
    }
}

/// Tries until there is room for the connection, or nobody to wait for.
fn connect_later(host: &Arc<SimHost>, id: Id, to: SocketAddr) {
    let weak = Arc::downgrade(host);
    let delay = 1 + host.draw(DELAY);
    let attempt = move || {
        let Some(host) = weak.upgrade() else { return };
        let waits = |net: &mut Net| {
            net.get(id)
                .is_ok_and(|s| matches!(s.state, State::Connecting))
                && !net.establish(id, to)
        };
        if with(&host, waits) {
            connect_later(&host, id, to);
        }
    };
    lock(&host.sched).after(delay, Box::new(attempt));
}

impl HostSocket for SimSocket {
    fn bind(&self, addr: SocketAddr) -> Result<(), Errno> {
        self.with(|_, net| net.bind(self.id, addr))
    }

    fn connect(&self, to: Option<SocketAddr>) -> Result<(), Errno> {
        let host = self.host.upgrade().ok_or(Errno::ENETDOWN)?;
        let later = with(&host, |net| {
            let socket = net.get(self.id)?;
            if !socket.stream {
                return net.connect_datagrams(self.id, to).map(|()| None);
            }
            match socket.state {
                State::Idle => {}
                State::Connecting => return Err(Errno::EALREADY),
                // Asked for the first time since it was begun.
                State::Connected(..) if !std::mem::replace(&mut socket.announced, true) => {
                    return Ok(None);
                }
                State::Connected(..) => return Err(Errno::EISCONN),
                State::Refused => {
                    socket.state = State::Idle;
                    return Err(socket.error.take().unwrap_or(Errno::ECONNABORTED));
                }
                State::Listening { .. } => return Err(Errno::EISCONN),
            }
            let to = to.ok_or(Errno::EAFNOSUPPORT)?;
            socket.state = State::Connecting;
            if host.draw(2) == 0 && net.establish(self.id, to) {
                let socket = net.get(self.id)?;
                if let Some(error) = socket.error.take() {
                    socket.state = State::Idle;
                    return Err(error);
                }
                socket.announced = true;
                return Ok(None);
            }
            Ok(Some(to))
        })?;
        match later {
            None => Ok(()),
            Some(to) => {
                connect_later(&host, self.id, to);
                Err(Errno::EINPROGRESS)
            }
        }
    }

    fn listen(&self, backlog: usize) -> Result<(), Errno> {
        self.with(|_, net| {
            net.bind_somewhere(self.id)?;
            let socket = net.get(self.id)?;
            match (&mut socket.state, socket.stream) {
                (_, false) => return Err(Errno::EOPNOTSUPP),
                (State::Listening { backlog: old, .. }, _) => *old = backlog,
                (State::Idle, _) => {
                    socket.state = State::Listening {
                        backlog,
                        queue: VecDeque::new(),
                    }
                }
                _ => return Err(Errno::EINVAL),
            }
            Ok(())
        })
    }

    fn accept(&self) -> Result<(Box<dyn HostSocket>, SocketAddr), Errno> {
        let id = self.with(|_, net| match &mut net.get(self.id)?.state {
            State::Listening { queue, .. } => queue.pop_front().ok_or(Errno::EAGAIN),
            _ => Err(Errno::EINVAL),
        })?;
        let socket = SimSocket {
            host: self.host.clone(),
            told: self.told.clone(),
            id,
        };
        let peer = socket.peer().map_err(|_| Errno::ECONNABORTED)?;
        Ok((Box::new(socket), peer))
    }

    fn send(&self, data: SocketData<'_>) -> Result<usize, Errno> {
        self.with(|host, net| match net.get(self.id)?.stream {
            true => net.send_stream(host, self.id, data.bytes),
            false => net.send_datagram(self.id, data.bytes, data.to),
        })
    }

    fn receive(&self, into: &mut Vec<u8>, max: usize, flags: i32) -> Result<SocketMessage, Errno> {
        self.with(|host, net| match net.get(self.id)?.stream {
            true => net.receive_stream(host, self.id, into, max, flags),
            false => net.receive_datagram(self.id, into, max, flags),
        })
    }

    fn shutdown(&self, how: i32) -> Result<(), Errno> {
        self.with(|_, net| net.shutdown(self.id, how))
    }

    fn name(&self) -> Result<SocketAddr, Errno> {
        self.with(|_, net| {
            let socket = net.get(self.id)?;
            let nowhere = match socket.v6 {
                true => Ipv6Addr::UNSPECIFIED.into(),
                false => Ipv4Addr::UNSPECIFIED.into(),
            };
            Ok(socket.name.unwrap_or(SocketAddr::new(nowhere, 0)))
        })
    }

    fn peer(&self) -> Result<SocketAddr, Errno> {
        self.with(|_, net| match net.get(self.id)?.state {
            State::Connected(peer, _) => Ok(peer),
            _ => Err(Errno::ENOTCONN),
        })
    }

    fn option(&self, level: i32, name: i32, value: &mut [u8]) -> Result<usize, Errno> {
        self.with(|_, net| {
            let socket = net.get(self.id)?;
            let number = |n: i32| n.to_ne_bytes().to_vec();
            let kept = match (level, name) {
                (SOL_SOCKET, SO_ERROR) => number(socket.error.take().map_or(0, |e| e.0)),
                (SOL_SOCKET, SO_ACCEPTCONN) => {
                    number(matches!(socket.state, State::Listening { .. }).into())
                }
                key => socket
                    .options
                    .get(&key)
                    .cloned()
                    .unwrap_or_else(|| number(0)),
            };
            let len = kept.len().min(value.len());
            value[..len].copy_from_slice(&kept[..len]);
            Ok(len)
        })
    }

    fn set_option(&self, level: i32, name: i32, value: &[u8]) -> Result<(), Errno> {
        self.with(|_, net| {
            net.get(self.id)?
                .options
                .insert((level, name), value.to_vec());
            Ok(())
        })
    }

    fn queued(&self, queue: SocketQueue) -> Result<usize, Errno> {
        self.with(|_, net| {
            let socket = net.get(self.id)?;
            Ok(match queue {
                SocketQueue::In if socket.stream => socket.inbox.len(),
                SocketQueue::In => socket.datagrams.front().map_or(0, |(data, _)| data.len()),
                SocketQueue::Out => 0,
            })
        })
    }

    fn at_mark(&self) -> Result<bool, Errno> {
        Ok(false)
    }

    fn ready(&self) -> u32 {
        self.with(|_, net| net.ready(self.id)).unwrap_or(POLLERR)
    }

    fn watch(&self, number: u64) -> Result<(), Errno> {
        self.with(|_, net| {
            net.get(self.id)?.watched = Some((number, self.told.clone()));
            match net.ready(self.id)? {
                0 => {}
                now => net.tell(self.id, now),
            }
            Ok(())
        })
    }
}

impl Drop for SimSocket {
    fn drop(&mut self) {
        let _ = self.with(|_, net| {
            net.close(self.id);
            Ok(())
        });
    }
}

impl Sockets for SimSockets {
    fn open(&self, family: SocketFamily, kind: SocketKind) -> Result<Box<dyn HostSocket>, Errno> {
        if kind == SocketKind::Ping {
            return Err(Errno::EACCES);
        }
        let host = self.host.upgrade().ok_or(Errno::ENETDOWN)?;
        let socket = Socket {
            v6: family == SocketFamily::Inet6,
            stream: kind == SocketKind::Stream,
            ..Socket::default()
        };
        Ok(Box::new(SimSocket {
            host: self.host.clone(),
            told: self.told.clone(),
            id: with(&host, |net| net.add(socket)),
        }))
    }

    fn wait(&self, into: &mut Vec<(u64, u32)>) -> Result<(), Errno> {
        loop {
            let seen = self.told.changes.load(Ordering::SeqCst);
            into.extend(std::mem::take(&mut *lock(&self.told.queue)));
            if !into.is_empty() || self.told.woken.swap(false, Ordering::SeqCst) {
                return Ok(());
            }
            let host = self.host.upgrade().ok_or(Errno::ENETDOWN)?;
            host.waits_for("sockets");
            host.park(&self.told.changes, seen, None);
        }
    }

    fn wake(&self) {
        self.told.woken.store(true, Ordering::SeqCst);
        self.told.changes.fetch_add(1, Ordering::SeqCst);
        if let Some(host) = self.host.upgrade() {
            host.unpark(&self.told.changes, u32::MAX);
        }
    }
}

//! Sockets of the simulated host: a loopback of its own, where every address is here and a port belongs to one socket.
//!
//! What is left to the network elsewhere is left to chance here: how much of a stream is taken at a time, and whether a connection
//! is made at once. Of options it only keeps what was set; there is no urgent data, and no ICMP.

mod data;
mod handle;

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use abi::Errno;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{SimHost, lock};
use crate::{Host, Sockets};

/// Bytes of a stream, or of datagrams, that wait to be received.
const ROOM: usize = 64 << 10;

/// The first port that is given out.
const FIRST_PORT: u16 = 32_768;

const POLLIN: u32 = 1;
const POLLOUT: u32 = 4;
const POLLERR: u32 = 8;
const POLLHUP: u32 = 0x10;
const POLLRDHUP: u32 = 0x2000;

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

pub(super) fn sockets(host: Weak<SimHost>) -> Arc<dyn Sockets> {
    Arc::new(handle::SimSockets::new(host))
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

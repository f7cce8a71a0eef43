//! The sockets as a kernel has them.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use abi::Errno;
use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Id, Net, POLLERR, Socket, State, Told, with};
use crate::sim::{SimHost, lock};
use crate::{
    Host, HostSocket, Nanos, SocketData, SocketFamily, SocketKind, SocketMessage, SocketQueue,
    Sockets,
};

/// How long a connection takes, at most, and how long until one that found no room is tried again.
const DELAY: Nanos = 1_000_000;

const SOL_SOCKET: i32 = 1;
const SO_ERROR: i32 = 4;
const SO_ACCEPTCONN: i32 = 30;

/// The sockets of a kernel.
pub(super) struct SimSockets {
    host: Weak<SimHost>,
    told: Arc<Told>,
}

struct SimSocket {
    host: Weak<SimHost>,
    told: Arc<Told>,
    id: Id,
}

impl SimSockets {
    pub(super) fn new(host: Weak<SimHost>) -> SimSockets {
        SimSockets {
            host,
            told: Arc::default(),
        }
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

//! What is sent and received.

use core::net::SocketAddr;

use abi::Errno;

use super::{Id, Net, POLLERR, POLLIN, POLLOUT, ROOM, State};
use crate::SocketMessage;
use crate::sim::SimHost;

const MSG_OOB: i32 = 1;
const MSG_PEEK: i32 = 2;
const MSG_TRUNC: i32 = 0x20;
const MSG_ERRQUEUE: i32 = 0x2000;

impl Net {
    pub(super) fn send_stream(
        &mut self,
        host: &SimHost,
        id: Id,
        bytes: &[u8],
    ) -> Result<usize, Errno> {
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

    pub(super) fn send_datagram(
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

    pub(super) fn receive_stream(
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

    pub(super) fn receive_datagram(
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
}

//! Sending and receiving.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use abi::Errno;
use bytes::Bytes;
use kern::poll::Events;
use kern::{Curlwp, Uio};
use net::consts::{MSG_EOR, MSG_OOB, MSG_PEEK, MSG_TRUNC, MSG_WAITALL};
use net::{Control, Credentials, Incoming, Kind, Outgoing, Received, Socket};

use crate::end::{End, carries};
use crate::inbox::{OVERHEAD, Piece, Stretch};

/// The most bytes of a stream that are taken from a sender at a time.
const CHUNK: usize = 64 << 10;

/// Takes bytes from the sender's memory.
fn gather(cx: &Curlwp<'_>, uio: &mut Uio<'_>, most: usize) -> Result<Bytes, Errno> {
    let mut buf = vec![0; uio.resid().min(most)];
    uio.get(cx, &mut buf)?;
    Ok(buf.into())
}

impl End {
    /// Who sends: as the message says, or who the process is. Refuses descriptors of the sockets at either side, which
    /// would keep themselves alive in a queue that nobody can reach.
    fn prepare(
        &self,
        cx: &Curlwp<'_>,
        to: &End,
        message: &mut Outgoing<'_, '_>,
    ) -> Result<Credentials, Errno> {
        if message.flags & MSG_OOB != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        let own = |of: &kern::OpenFile| {
            let end = of
                .downcast::<Socket>()
                .and_then(|so| so.protocol().as_any().downcast_ref::<End>());
            end.is_some_and(|e| std::ptr::eq(e, self) || std::ptr::eq(e, to))
        };
        if carries(message.control, own) {
            return Err(Errno::ETOOMANYREFS);
        }
        // What is for other domains goes nowhere.
        message.control.retain(|c| !matches!(c, Control::Other(..)));
        let said = message
            .control
            .iter()
            .position(|c| matches!(c, Control::Credentials(_)));
        match said.map(|at| message.control.remove(at)) {
            Some(Control::Credentials(cred)) => Ok(cred),
            _ => Ok(Credentials::current(cx)),
        }
    }

    fn connected(&self, cx: &Curlwp<'_>) -> Result<Arc<End>, Errno> {
        let state = self.state.lock(cx.cpu());
        if state.sends_no_more {
            return Err(Errno::EPIPE);
        }
        let peer = state.peer.as_ref().ok_or(Errno::ENOTCONN)?;
        peer.upgrade().ok_or(if self.kind == Kind::Dgram {
            Errno::ECONNREFUSED
        } else {
            Errno::EPIPE
        })
    }

    pub(crate) fn send_stream(
        &self,
        cx: &Curlwp<'_>,
        message: &mut Outgoing<'_, '_>,
    ) -> Result<(), Errno> {
        if message.to.is_some() {
            let connected = self.state.lock(cx.cpu()).peer.is_some();
            return Err(if connected {
                Errno::EISCONN
            } else {
                Errno::EOPNOTSUPP
            });
        }
        let peer = self.connected(cx)?;
        let sender = self.prepare(cx, &peer, message)?;
        let limit = self.send_limit();
        while message.uio.resid() != 0 {
            let mut data = gather(cx, message.uio, CHUNK)?;
            while !data.is_empty() {
                let mut inbox = peer.inbox.lock(cx.cpu());
                let room = loop {
                    if inbox.refuses || inbox.ended {
                        drop(inbox);
                        message.uio.give_back(data.len());
                        return Err(Errno::EPIPE);
                    }
                    // A little room is no room: a woken sender has something to do.
                    let room = inbox.room(limit);
                    if room * 4 >= limit || room >= data.len() + OVERHEAD {
                        break room;
                    }
                    inbox = match message.wait.on(cx, &peer.writable, inbox) {
                        Ok(inbox) => inbox,
                        Err(error) => {
                            message.uio.give_back(data.len());
                            return Err(error);
                        }
                    };
                };
                inbox.push(Piece {
                    data: data.split_to(data.len().min(room.max(1))),
                    from: None,
                    control: std::mem::take(message.control),
                    sender,
                });
                drop(inbox);
                peer.arrived(cx);
            }
        }
        Ok(())
    }

    pub(crate) fn send_message(
        &self,
        cx: &Curlwp<'_>,
        message: &mut Outgoing<'_, '_>,
    ) -> Result<(), Errno> {
        let limit = self.send_limit();
        if message.uio.resid() + OVERHEAD > limit {
            return Err(Errno::EMSGSIZE);
        }
        let to = match (message.to, self.kind) {
            (Some(addr), Kind::Dgram) => self.dgram_target(cx, addr)?,
            _ => self.connected(cx)?,
        };
        let sender = self.prepare(cx, &to, message)?;
        let len = message.uio.resid();
        let data = gather(cx, message.uio, len)?;
        let from = (self.kind == Kind::Dgram).then(|| self.sender_name(cx));
        let mut inbox = to.inbox.lock(cx.cpu());
        loop {
            if inbox.refuses {
                message.uio.give_back(len);
                return Err(if self.kind == Kind::Dgram && message.to.is_some() {
                    Errno::ECONNREFUSED
                } else {
                    Errno::EPIPE
                });
            }
            if inbox.room(limit) >= len + OVERHEAD {
                break;
            }
            inbox = match message.wait.on(cx, &to.writable, inbox) {
                Ok(inbox) => inbox,
                Err(error) => {
                    message.uio.give_back(len);
                    return Err(error);
                }
            };
        }
        inbox.push(Piece {
            data,
            from,
            control: std::mem::take(message.control),
            sender,
        });
        drop(inbox);
        to.arrived(cx);
        Ok(())
    }

    /// Tells who waits here that something came.
    fn arrived(&self, cx: &Curlwp<'_>) {
        self.readable.signal(cx.cpu());
        self.common
            .poll
            .notify(cx.cpu(), Events::IN | Events::RDNORM);
    }

    /// Tells who sends to this end that there is room again.
    fn emptied(&self, cx: &Curlwp<'_>) {
        self.writable.broadcast(cx.cpu());
        if let Some(peer) = self.peer_end(cx) {
            peer.common
                .poll
                .notify(cx.cpu(), Events::OUT | Events::WRNORM);
        }
    }

    /// Whether anything can ever come: a connection, once made, is there until the socket is closed.
    fn may_receive(&self, cx: &Curlwp<'_>) -> Result<(), Errno> {
        if self.kind == Kind::Dgram || self.state.lock(cx.cpu()).peer.is_some() {
            return Ok(());
        }
        Err(if self.kind == Kind::Stream {
            Errno::EINVAL
        } else {
            Errno::ENOTCONN
        })
    }

    fn with_credentials(&self, control: &mut Vec<Control>, sender: Option<Credentials>) {
        if self.common.passcred.load(Relaxed)
            && let Some(sender) = sender
        {
            control.push(Control::Credentials(sender));
        }
    }

    pub(crate) fn receive_stream(
        &self,
        cx: &Curlwp<'_>,
        message: &mut Incoming<'_, '_>,
    ) -> Result<Received, Errno> {
        if message.flags & MSG_OOB != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        let peek = message.flags & MSG_PEEK != 0;
        self.may_receive(cx)?;
        let mut received = Received::default();
        while message.uio.resid() != 0 {
            let stretch = match self.next_stretch(cx, message, peek) {
                Ok(Some(stretch)) => stretch,
                Ok(None) => break,
                // What came before an error is what the call answers; the error waits for the next.
                Err(_) if received.len.is_some() => break,
                Err(error) => return Err(error),
            };
            received.len = Some(0);
            let stops = !stretch.control.is_empty();
            received.control.extend(stretch.control);
            self.with_credentials(&mut received.control, stretch.sender);
            for data in &stretch.data {
                if let Err(error) = message.uio.put(cx, data) {
                    received.control.into_iter().for_each(|c| c.release(cx));
                    return Err(error);
                }
            }
            if !peek {
                self.emptied(cx);
            }
            if peek || stops || message.flags & MSG_WAITALL == 0 {
                break;
            }
        }
        received.len = None;
        Ok(received)
    }

    /// Waits for bytes and takes them; `None` at the end of the stream.
    fn next_stretch(
        &self,
        cx: &Curlwp<'_>,
        message: &mut Incoming<'_, '_>,
        peek: bool,
    ) -> Result<Option<Stretch>, Errno> {
        let mut inbox = self.inbox.lock(cx.cpu());
        loop {
            if !inbox.is_empty() {
                let want = message.uio.resid();
                return Ok(Some(if peek {
                    inbox.peek(want)
                } else {
                    inbox.take(want)
                }));
            }
            self.common.take_error()?;
            if inbox.ended {
                return Ok(None);
            }
            inbox = message.wait.on(cx, &self.readable, inbox)?;
        }
    }

    pub(crate) fn receive_message(
        &self,
        cx: &Curlwp<'_>,
        message: &mut Incoming<'_, '_>,
    ) -> Result<Received, Errno> {
        self.may_receive(cx)?;
        let peek = message.flags & MSG_PEEK != 0;
        let mut inbox = self.inbox.lock(cx.cpu());
        let piece = loop {
            if peek && let Some(first) = inbox.first() {
                break Piece {
                    data: first.data.clone(),
                    from: first.from.clone(),
                    control: Vec::new(),
                    sender: first.sender,
                };
            }
            if let Some(piece) = inbox.pop() {
                break piece;
            }
            self.common.take_error()?;
            if inbox.ended {
                return Ok(Received::default());
            }
            inbox = message.wait.on(cx, &self.readable, inbox)?;
        };
        drop(inbox);
        if !peek {
            self.emptied(cx);
        }
        let mut received = Received {
            from: piece.from,
            control: piece.control,
            flags: if self.kind == Kind::Seqpacket {
                MSG_EOR
            } else {
                0
            },
            len: Some(piece.data.len()),
        };
        self.with_credentials(&mut received.control, Some(piece.sender));
        if piece.data.len() > message.uio.resid() {
            received.flags |= MSG_TRUNC;
        }
        if let Err(error) = message.uio.put(cx, &piece.data) {
            received.control.into_iter().for_each(|c| c.release(cx));
            return Err(error);
        }
        Ok(received)
    }
}

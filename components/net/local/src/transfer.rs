//! Sending and receiving.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use abi::Errno;
use bytes::Bytes;
use kern::poll::Events;
use kern::{Curlwp, Uio};
use net::consts::{MSG_EOR, MSG_OOB, MSG_PEEK, MSG_TRUNC, MSG_WAITALL};
use net::{Control, Credentials, Incoming, Kind, Outgoing, Received};

use crate::end::End;
use crate::flight::Along;
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
    /// Sends.
    pub(crate) fn transmit(
        &self,
        cx: &Curlwp<'_>,
        message: &mut Outgoing<'_, '_>,
    ) -> Result<(), Errno> {
        if message.flags & MSG_OOB != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        let mut along = Along::take(cx, &self.flight, message)?;
        let sent = if self.is_messages() {
            self.send_message(cx, message, &mut along)
        } else {
            self.send_stream(cx, message, &mut along)
        };
        along.give_back(cx, &self.flight);
        sent
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

    fn send_stream(
        &self,
        cx: &Curlwp<'_>,
        message: &mut Outgoing<'_, '_>,
        along: &mut Along,
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
        let limit = self.send_limit();
        while message.uio.resid() != 0 {
            let mut data = gather(cx, message.uio, CHUNK)?;
            while !data.is_empty() {
                let mut inbox = peer.lock_inbox_for(cx, along);
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
                    inbox = match inbox.wait(&mut message.wait, &peer.writable) {
                        Ok(inbox) => inbox,
                        Err(error) => {
                            message.uio.give_back(data.len());
                            return Err(error);
                        }
                    };
                };
                inbox.put(Piece {
                    data: data.split_to(data.len().min(room.max(1))),
                    from: None,
                    rights: along.rights.take(),
                    sender: along.sender,
                });
                peer.arrived(cx);
            }
        }
        Ok(())
    }

    fn send_message(
        &self,
        cx: &Curlwp<'_>,
        message: &mut Outgoing<'_, '_>,
        along: &mut Along,
    ) -> Result<(), Errno> {
        let limit = self.send_limit();
        if message.uio.resid() + OVERHEAD > limit {
            return Err(Errno::EMSGSIZE);
        }
        let to = match (message.to, self.kind) {
            (Some(addr), Kind::Dgram) => self.dgram_target(cx, addr)?,
            _ => self.connected(cx)?,
        };
        let len = message.uio.resid();
        let data = gather(cx, message.uio, len)?;
        let from = (self.kind == Kind::Dgram).then(|| self.sender_name(cx));
        let mut inbox = to.lock_inbox_for(cx, along);
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
            inbox = match inbox.wait(&mut message.wait, &to.writable) {
                Ok(inbox) => inbox,
                Err(error) => {
                    message.uio.give_back(len);
                    return Err(error);
                }
            };
        }
        inbox.put(Piece {
            data,
            from,
            rights: along.rights.take(),
            sender: along.sender,
        });
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
            let (stretch, control) = match self.next_stretch(cx, message, peek) {
                Ok(Some(next)) => next,
                Ok(None) => break,
                // What came before an error is what the call answers; the error waits for the next.
                Err(_) if received.len.is_some() => break,
                Err(error) => return Err(error),
            };
            received.len = Some(0);
            let stops = !control.is_empty();
            received.control.extend(control);
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
    ) -> Result<Option<(Stretch, Vec<Control>)>, Errno> {
        let mut inbox = self.lock_inbox(cx);
        loop {
            inbox = inbox.for_taking();
            if !inbox.is_empty() {
                let want = message.uio.resid();
                if peek {
                    return Ok(Some((inbox.peek(want), inbox.look())));
                }
                let mut stretch = inbox.take(want);
                let control = inbox.land(stretch.rights.take());
                return Ok(Some((stretch, control)));
            }
            self.common.take_error()?;
            if inbox.ended {
                return Ok(None);
            }
            inbox = inbox.wait(&mut message.wait, &self.readable)?;
        }
    }

    pub(crate) fn receive_message(
        &self,
        cx: &Curlwp<'_>,
        message: &mut Incoming<'_, '_>,
    ) -> Result<Received, Errno> {
        self.may_receive(cx)?;
        let peek = message.flags & MSG_PEEK != 0;
        let mut inbox = self.lock_inbox(cx);
        let (piece, control) = loop {
            inbox = inbox.for_taking();
            if peek && let Some(first) = inbox.first() {
                let seen = Piece {
                    data: first.data.clone(),
                    from: first.from.clone(),
                    rights: None,
                    sender: first.sender,
                };
                break (seen, inbox.look());
            }
            if let Some(mut piece) = inbox.pop() {
                let control = inbox.land(piece.rights.take());
                break (piece, control);
            }
            self.common.take_error()?;
            if inbox.ended {
                return Ok(Received::default());
            }
            inbox = inbox.wait(&mut message.wait, &self.readable)?;
        };
        drop(inbox);
        if !peek {
            self.emptied(cx);
        }
        let mut received = Received {
            from: piece.from,
            control,
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

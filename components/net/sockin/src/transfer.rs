//! Sending and receiving.

use std::sync::atomic::Ordering;

use abi::Errno;
use hypercall::{SocketData, SocketMessage};
use kern::Curlwp;
use kern::poll::Events;
use net::consts::{
    MSG_CTRUNC, MSG_DONTROUTE, MSG_EOR, MSG_ERRQUEUE, MSG_FASTOPEN, MSG_MORE, MSG_OOB, MSG_PEEK,
    MSG_TRUNC, MSG_WAITALL,
};
use net::{Incoming, Outgoing, Protocol, Received, Wait};

use crate::ready::Way;
use crate::socket::HostBacked;
use crate::{addr, control};

/// The most bytes of a stream that are moved at a time.
const CHUNK: usize = 128 << 10;
/// The longest datagram.
const DATAGRAM: usize = 65_535;
const MSG_CONFIRM: i32 = 0x800;

/// What the host is told of a sender's flags; the others are the kernel's, or nobody's.
const SEND: i32 = MSG_OOB | MSG_DONTROUTE | MSG_EOR | MSG_MORE | MSG_CONFIRM;
/// What a receiver is told of the host's.
const TOLD: i32 = MSG_OOB | MSG_EOR | MSG_TRUNC | MSG_CTRUNC | MSG_ERRQUEUE;

impl HostBacked {
    pub(crate) fn send_stream(
        &self,
        cx: &Curlwp<'_>,
        message: &mut Outgoing<'_, '_>,
    ) -> Result<(), Errno> {
        if message.flags & MSG_FASTOPEN != 0
            && let Some(to) = message.to
        {
            // The data go after the handshake.
            let wait = self.common.send_wait(message.wait.nonblock());
            self.connect(cx, to, wait)?;
        }
        let mut chunk = vec![0; message.uio.resid().min(CHUNK)];
        loop {
            let len = message.uio.resid().min(CHUNK);
            message.uio.get(cx, &mut chunk[..len])?;
            let mut flags = message.flags & SEND;
            if message.uio.resid() > 0 {
                // Urgent is the last byte of all.
                flags = (flags & !MSG_OOB) | MSG_MORE;
            }
            let mut done = 0;
            while done < len || len == 0 {
                let sent = self.until_done(cx, Way::Out, &mut message.wait, |host| {
                    host.send(SocketData {
                        bytes: &chunk[done..len],
                        to: None,
                        control: &[],
                        flags,
                    })
                });
                match sent {
                    Ok(0) => break,
                    Ok(n) => done += n,
                    Err(error) => {
                        message.uio.give_back(len - done);
                        return Err(error);
                    }
                }
            }
            if message.uio.resid() == 0 {
                return Ok(());
            }
        }
    }

    pub(crate) fn send_datagram(
        &self,
        cx: &Curlwp<'_>,
        message: &mut Outgoing<'_, '_>,
    ) -> Result<(), Errno> {
        let to = message.to.map(|to| addr::parse(to, self.family));
        let to = to.transpose()?;
        let control = control::sent(message.control)?;
        let len = message.uio.resid();
        if len > DATAGRAM {
            return Err(Errno::EMSGSIZE);
        }
        let mut bytes = vec![0; len];
        message.uio.get(cx, &mut bytes)?;
        let sent = self.until_done(cx, Way::Out, &mut message.wait, |host| {
            host.send(SocketData {
                bytes: &bytes,
                to,
                control: &control,
                flags: message.flags & SEND,
            })
        });
        sent.map(drop).inspect_err(|_| message.uio.give_back(len))
    }

    pub(crate) fn receive_datagram(
        &self,
        cx: &Curlwp<'_>,
        message: &mut Incoming<'_, '_>,
    ) -> Result<Received, Errno> {
        let max = message.uio.resid().min(DATAGRAM);
        let flags = (message.flags & (MSG_PEEK | MSG_OOB | MSG_ERRQUEUE)) | MSG_TRUNC;
        let mut bytes = Vec::new();
        let got = self.until_done(cx, Way::In, &mut message.wait, |host| {
            host.receive(&mut bytes, max, flags)
        })?;
        message.uio.put(cx, &bytes)?;
        Ok(received(got, message.wants_control))
    }

    pub(crate) fn receive_stream(
        &self,
        cx: &Curlwp<'_>,
        message: &mut Incoming<'_, '_>,
    ) -> Result<Received, Errno> {
        if message.flags & MSG_OOB != 0 {
            return self.receive_urgent(cx, message);
        }
        if message.flags & MSG_PEEK != 0 {
            return self.look(cx, message);
        }
        let want = self.wanted(message);
        let mut first = Received::default();
        let mut bytes = Vec::new();
        let mut copied = 0;
        while message.uio.resid() > 0 {
            let max = message.uio.resid().min(CHUNK);
            // For more than what is wanted nobody waits.
            let mut wait = match copied >= want {
                true => Wait::new(true, 0),
                false => std::mem::replace(&mut message.wait, Wait::new(true, 0)),
            };
            let got = self.until_done(cx, Way::In, &mut wait, |host| {
                host.receive(&mut bytes, max, 0)
            });
            if copied < want {
                message.wait = wait;
            }
            let got = match got {
                Ok(got) => got,
                Err(_) if copied > 0 => break,
                Err(error) => return Err(error),
            };
            let len = bytes.len();
            if message.flags & MSG_TRUNC == 0 {
                message.uio.put(cx, &bytes)?;
            } else {
                message.uio.truncate(message.uio.resid() - len);
            }
            bytes.clear();
            copied += len;
            if first.control.is_empty() {
                first = received(got, message.wants_control);
            }
            if len == 0 || copied >= want && len < max {
                break;
            }
        }
        Ok(Received {
            from: None,
            len: (message.flags & MSG_TRUNC != 0).then_some(copied),
            ..first
        })
    }

    /// How many bytes of a stream a receive waits for.
    fn wanted(&self, message: &Incoming<'_, '_>) -> usize {
        let room = message.uio.resid();
        match message.flags & MSG_WAITALL {
            0 => (self.common.rcvlowat.load(Ordering::Relaxed) as usize).min(room),
            _ => room,
        }
    }

    /// Receives without taking.
    fn look(&self, cx: &Curlwp<'_>, message: &mut Incoming<'_, '_>) -> Result<Received, Errno> {
        let max = message.uio.resid().min(CHUNK);
        let want = self.wanted(message).min(max);
        let hurry = message.wait.nonblock();
        let mut bytes = Vec::new();
        let got = self.until_done(cx, Way::In, &mut message.wait, |host| {
            bytes.clear();
            let got = host.receive(&mut bytes, max, MSG_PEEK)?;
            let last = Events::RDHUP | Events::HUP | Events::ERR;
            if bytes.len() < want && !hurry && !Events(host.ready()).intersects(last) {
                return Err(Errno::EAGAIN);
            }
            Ok(got)
        })?;
        message.uio.put(cx, &bytes)?;
        Ok(Received {
            from: None,
            len: None,
            ..received(got, message.wants_control)
        })
    }

    fn receive_urgent(
        &self,
        cx: &Curlwp<'_>,
        message: &mut Incoming<'_, '_>,
    ) -> Result<Received, Errno> {
        let mut bytes = Vec::new();
        let flags = message.flags & (MSG_OOB | MSG_PEEK);
        let got = self.host()?.receive(&mut bytes, 1, flags)?;
        message.uio.put(cx, &bytes)?;
        Ok(Received {
            from: None,
            len: None,
            ..received(got, message.wants_control)
        })
    }
}

/// What the caller is told.
fn received(message: SocketMessage, wants_control: bool) -> Received {
    Received {
        from: message.from.map(addr::shown),
        control: match wants_control {
            true => control::received(message.control),
            false => Vec::new(),
        },
        flags: message.flags & TOLD,
        len: Some(message.len),
    }
}

//! Sending and receiving on a connection.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use abi::Errno;
use bytes::{Buf, Bytes};
use kern::poll::Events;
use kern::{Ahead, Curlwp};
use net::consts::{MSG_MORE, MSG_OOB, MSG_PEEK, MSG_TRUNC, MSG_WAITALL};
use net::{Incoming, Outgoing, Received};
use smallvec::SmallVec;

use super::conn::Conn;
use super::{Tcp, errno};
use crate::Inet;

/// The most bytes that are taken from a sender at a time.
const CHUNK: usize = 64 << 10;
/// The most bytes that are taken out of a connection at a time.
const GULP: usize = 256 << 10;

impl Tcp {
    pub(super) fn send_stream(
        &self,
        cx: &Curlwp<'_>,
        inet: &Inet,
        conn: &Arc<Conn>,
        message: &mut Outgoing<'_, '_>,
    ) -> Result<(), Errno> {
        while message.uio.resid() > 0 {
            let mut own = conn.own(cx);
            self.common.take_error()?;
            let ready = own.tcp.readiness();
            if !own.tcp.state().can_send() {
                return Err(Errno::EPIPE);
            }
            let may_grow = inet
                .tcp
                .budget
                .allows(inet.config.tcp_memory(), own.tcp.memory().1);
            if !ready.connected || ready.writable == 0 || !may_grow {
                conn.sleep(cx, own, Events::OUT | Events::HUP, &mut message.wait)?;
                continue;
            }
            let n = message.uio.resid().min(ready.writable).min(CHUNK);
            let mut data = vec![0; n];
            if message.uio.may_wait(cx) {
                // The sender may be far away: nobody waits for it but us.
                drop(own);
                message.uio.get(cx, &mut data)?;
                own = conn.own(cx);
            } else {
                message.uio.get(cx, &mut data)?;
            }
            let mut data = Bytes::from(data);
            let last = message.uio.resid() == 0;
            let more = message.flags & MSG_MORE != 0;
            if more != own.more {
                let cork = more || own.tcp.settings().cork && !own.more;
                own.more = more && !own.tcp.settings().cork;
                own.configure(inet, |s| s.cork = cork);
            }
            let sent = match message.flags & MSG_OOB != 0 && last {
                true => own.tcp.send_urgent(&mut data),
                false => own.tcp.send(&mut data),
            };
            drop(own);
            if !data.is_empty() {
                message.uio.give_back(data.len());
            }
            sent.map_err(errno)?;
            if message.uio.resid() > 0 {
                // The receiver may begin while the rest is on its way.
                cx.cpu().run_pending();
            }
        }
        Ok(())
    }

    pub(super) fn receive_stream(
        &self,
        cx: &Curlwp<'_>,
        inet: &Arc<Inet>,
        conn: &Arc<Conn>,
        message: &mut Incoming<'_, '_>,
    ) -> Result<Received, Errno> {
        if message.flags & MSG_OOB != 0 {
            return self.receive_urgent(cx, conn, message);
        }
        if message.flags & MSG_PEEK != 0 {
            return self.look(cx, conn, message);
        }
        let lowat = self.common.rcvlowat.load(Ordering::Relaxed) as usize;
        let all = message.flags & MSG_WAITALL != 0;
        let mut copied = 0;
        while message.uio.resid() > 0 {
            let mut own = conn.own(cx);
            let now = inet.now();
            let mut pieces: SmallVec<[Bytes; 8]> = SmallVec::new();
            let mut room = message.uio.resid().min(GULP);
            while room > 0
                && let Some(piece) = own.tcp.recv(now, room)
            {
                room -= piece.len();
                pieces.push(piece);
            }
            if pieces.is_empty() {
                let want = match all {
                    true => usize::MAX,
                    false => lowat,
                };
                if copied >= want || copied > 0 && own.tcp.readiness().urgent {
                    break;
                }
                match self.nothing(&own.tcp.readiness(), conn) {
                    Some(Ok(())) => break,
                    Some(Err(_)) if copied > 0 => break,
                    Some(Err(error)) => return Err(error),
                    None => {}
                }
                match conn.sleep(
                    cx,
                    own,
                    Events::IN | Events::HUP | Events::PRI,
                    &mut message.wait,
                ) {
                    Ok(()) => continue,
                    Err(_) if copied > 0 => break,
                    Err(error) => return Err(error),
                }
            }
            // A window that opens is told before the copying.
            drop(own);
            let mut left = pieces.into_iter();
            while let Some(mut piece) = left.next() {
                if message.flags & MSG_TRUNC != 0 {
                    message.uio.truncate(message.uio.resid() - piece.len());
                    copied += piece.len();
                    continue;
                }
                let moved = message.uio.moved();
                let put = message.uio.put(cx, &piece);
                let taken = message.uio.moved() - moved;
                copied += taken;
                if let Err(error) = put {
                    // What found no place is still to be read.
                    piece.advance(taken);
                    let rest = std::iter::once(piece).chain(left);
                    conn.own(cx).tcp.give_back(rest);
                    return match copied {
                        0 => Err(error),
                        _ => Ok(Received::default()),
                    };
                }
            }
            if !all && copied >= lowat.min(copied + message.uio.resid()) {
                break;
            }
        }
        Ok(Received {
            len: (message.flags & MSG_TRUNC != 0).then_some(copied),
            ..Received::default()
        })
    }

    /// What a receive answers when there is nothing: the end, an error, or that it has to wait.
    fn nothing(&self, ready: &tcp::Readiness, conn: &Conn) -> Option<Result<(), Errno>> {
        if let Err(error) = self.common.take_error() {
            return Some(Err(error));
        }
        if ready.closed && !ready.connected {
            return Some(Err(Errno::ENOTCONN));
        }
        (ready.eof || conn.receives_no_more()).then_some(Ok(()))
    }

    fn look(
        &self,
        cx: &Curlwp<'_>,
        conn: &Arc<Conn>,
        message: &mut Incoming<'_, '_>,
    ) -> Result<Received, Errno> {
        let pieces = loop {
            let own = conn.own(cx);
            let want = match message.flags & MSG_WAITALL {
                0 => 1,
                _ => message.uio.resid(),
            };
            let ready = own.tcp.readiness();
            if ready.readable >= want
                || ready.readable > 0 && (ready.eof || ready.urgent || message.wait.nonblock())
            {
                break own.tcp.peek().collect::<Vec<_>>();
            }
            match self.nothing(&ready, conn) {
                Some(Ok(())) => return Ok(Received::default()),
                Some(Err(error)) => return Err(error),
                None => {}
            }
            conn.sleep(cx, own, Events::IN | Events::HUP, &mut message.wait)?;
        };
        for piece in pieces {
            message.uio.put(cx, &piece)?;
        }
        Ok(Received::default())
    }

    /// What calls would give, [`kern::File::ahead`].
    pub(super) fn ahead_of(cx: &Curlwp<'_>, conn: &Arc<Conn>, most: usize) -> Option<Ahead> {
        let own = conn.own(cx);
        let ready = own.tcp.readiness();
        let plain = ready.connected && !ready.closed && !ready.error && !ready.urgent;
        let whole = ready.readable == own.tcp.unread();
        if !plain || !whole || conn.receives_no_more() {
            return None;
        }
        let more = ready.readable > most;
        let mut unread = Vec::with_capacity(ready.readable.min(most));
        for piece in own.tcp.peek() {
            let room = most - unread.len();
            unread.extend_from_slice(&piece[..room.min(piece.len())]);
            if unread.len() == most {
                break;
            }
        }
        // What is written beyond TCP_NOTSENT_LOWAT may have to wait.
        let unsent = (own.tcp.settings().notsent_lowat as usize).saturating_sub(own.tcp.unsent());
        let room = ready.writable.min(unsent);
        Some(Ahead {
            room,
            unread,
            more,
            end: !more && ready.eof,
            closes: conn.common.linger.load(Ordering::Relaxed) <= 0,
        })
    }

    fn receive_urgent(
        &self,
        cx: &Curlwp<'_>,
        conn: &Arc<Conn>,
        message: &mut Incoming<'_, '_>,
    ) -> Result<Received, Errno> {
        let byte = {
            let mut own = conn.own(cx);
            if own.tcp.settings().oob_inline {
                return Err(Errno::EINVAL);
            }
            own.tcp.recv_urgent()
        };
        let byte = byte.map_err(errno)?;
        message.uio.put(cx, &[byte])?;
        Ok(Received {
            flags: MSG_OOB,
            ..Received::default()
        })
    }
}

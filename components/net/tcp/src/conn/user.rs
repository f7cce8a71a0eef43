//! What the user does: send, receive, shut down, set.

use std::sync::Arc;

use bytes::Bytes;

use super::receive::AckDue;
use super::{Connection, Error, Readiness, Settings, State};
use crate::listen::TimeWait;

impl Connection {
    /// The state.
    pub fn state(&self) -> State {
        self.state
    }

    /// Our port.
    pub fn local_port(&self) -> u16 {
        self.local_port
    }

    /// The peer's port.
    pub fn remote_port(&self) -> u16 {
        self.remote_port
    }

    /// The fast-open cookie that the peer gave us in this handshake, to be kept for the next (RFC 7413 section 4.1.3).
    pub fn fast_open_cookie(&self) -> Option<crate::wire::Cookie> {
        self.rare.fast_open.filter(|_| self.connected)
    }

    /// Takes as much of `data` as there is room for and leaves the rest in it; says how many bytes. Before the handshake is done, data
    /// wait. `Closed` after a shutdown or when the connection is over.
    pub fn send(&mut self, data: &mut Bytes) -> Result<usize, Error> {
        if self.tx.fin || !self.state.can_send() {
            return Err(self.error.unwrap_or(Error::Closed));
        }
        let len = data.len().min(self.room());
        self.tx.queue.push(data.split_to(len));
        Ok(len)
    }

    /// Room in the send buffer, in bytes.
    pub(super) fn room(&self) -> usize {
        (self.tx.buffer as usize).saturating_sub(self.tx.queue.charged())
    }

    /// What data take in memory that wait to be read, and that wait to be acknowledged, in bytes with overhead.
    pub fn memory(&self) -> (usize, usize) {
        (self.rx.memory(), self.tx.queue.charged())
    }

    /// Data that have arrived: at most `max` bytes, a piece at a time, by reference; `None` if there are none now (at the end of the
    /// stream for ever: see [`Readiness::eof`]). `now` in ns. A read stops before the urgent mark.
    pub fn recv(&mut self, now: u64, max: usize) -> Option<Bytes> {
        let now = self.at(now);
        let max = max.min(self.before_mark());
        if max == 0 {
            return None;
        }
        let data = self.rx.queue.pop(max)?;
        self.pass_mark();
        self.after_read(now, data.len());
        Some(data)
    }

    /// Takes back what [`Connection::recv`] gave last and found no reader, in its order.
    pub fn give_back(&mut self, pieces: impl DoubleEndedIterator<Item = Bytes>) {
        pieces
            .rev()
            .for_each(|piece| self.rx.queue.push_front(piece));
    }

    /// The pieces that [`Connection::recv`] would give, without taking them (MSG_PEEK).
    pub fn peek(&self) -> impl Iterator<Item = Bytes> {
        let mut left = self.before_mark();
        self.rx.queue.pieces().map_while(move |piece| {
            let len = piece.len().min(left);
            left -= len;
            (len > 0).then(|| piece.slice(..len))
        })
    }

    fn after_read(&mut self, now: u64, len: usize) {
        let max = self.settings.recv_buffer.max;
        self.rx.tune(now, len, self.rtt.srtt, max);
        if self.rx.window_moved() && self.state.can_receive() && self.state.is_synchronized() {
            self.rx.ack = AckDue::Now;
        }
    }

    /// What the user may do now.
    pub fn readiness(&self) -> Readiness {
        let closed = self.state == State::Closed;
        let unsent = (self.tx.queue.end() - self.tx.nxt.min(self.tx.queue.end())) as u32;
        let send = self.state.can_send() && !self.tx.fin && unsent < self.settings.notsent_lowat;
        Readiness {
            readable: self.before_mark(),
            eof: closed || !self.state.can_receive(),
            writable: if send { self.room() } else { 0 },
            connected: self.connected,
            closed,
            error: self.error.is_some(),
            urgent: self.urgent_readable(),
        }
    }

    /// Bytes that have arrived and have not been read, those behind an urgent mark too.
    pub fn unread(&self) -> usize {
        self.rx.queue.len()
    }

    /// Bytes that have not been acknowledged (SIOCOUTQ).
    pub fn unacknowledged(&self) -> usize {
        self.tx.queue.len()
    }

    /// Bytes that have not been sent (SIOCOUTQNSD).
    pub fn unsent(&self) -> usize {
        (self.tx.queue.end() - self.tx.nxt.min(self.tx.queue.end())) as usize
    }

    /// Why the connection ended, once (SO_ERROR).
    pub fn take_error(&mut self) -> Option<Error> {
        self.error.take()
    }

    /// No more data will be sent: a FIN follows what waits (SHUT_WR).
    pub fn shutdown(&mut self) {
        if self.tx.fin {
            return;
        }
        match self.state {
            State::Established => self.state = State::FinWait1,
            State::CloseWait => self.state = State::LastAck,
            State::SynReceived => {}
            State::SynSent => return self.end(None),
            _ => return,
        }
        self.tx.fin = true;
    }

    /// The user is gone: as a shutdown, but unread data, and data that still come, reset the connection (RFC 9293 section 3.6.1, RFC
    /// 2525 section 2.17). The owner keeps the connection until it is closed. `now` in ns.
    pub fn close(&mut self, now: u64) {
        let now = self.at(now);
        self.orphan = true;
        if self.rx.queue.len() > 0 && self.state != State::Closed {
            return self.abort();
        }
        self.shutdown();
        self.arm_fin_wait(now);
    }

    /// Ends the connection at once; a reset tells the peer.
    pub fn abort(&mut self) {
        self.reset_due = self.state.is_synchronized() && self.state != State::TimeWait
            || self.state == State::SynReceived;
        self.end(None);
    }

    /// ICMP says that the peer is out of reach; `why` is the caller's number for it (an errno). It ends a handshake; later it is only
    /// remembered, and told if the connection times out (RFC 5461). The caller has checked [`Connection::is_in_flight`].
    pub fn unreachable(&mut self, why: i32) {
        match self.state {
            State::SynSent | State::SynReceived => self.end(Some(Error::Unreachable(why))),
            State::Closed => {}
            _ => self.flight.soft_error = Some(Error::Unreachable(why)),
        }
    }

    /// Whether `seq`, from a segment that an ICMP message quotes, is on the way (RFC 5927 section 4): others are forged or old.
    pub fn is_in_flight(&self, seq: u32) -> bool {
        let position = crate::seq::unwrap(self.tx.una, seq);
        (self.tx.una..self.tx.nxt.max(self.tx.una + 1)).contains(&position)
    }

    /// The path carries `mss` bytes in a segment without options (an ICMP message said so, or the route changed). What is on the way
    /// and too large is sent again in smaller segments.
    pub fn set_mss(&mut self, now: u64, mss: u32) {
        let now = self.at(now);
        let mss = mss.clamp(super::MIN_SEGMENT, u32::from(u16::MAX));
        let smaller = mss < self.tx.mss;
        let limit = u32::from(self.settings.mss());
        self.set_effective_mss(mss.min(limit));
        if smaller && self.state.is_synchronized() {
            self.resend_too_large(now);
        }
    }

    /// What was set.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Changes settings, with their effect. `now` in ns.
    pub fn configure(&mut self, now: u64, change: impl FnOnce(&mut Settings)) {
        let mut settings = Settings::clone(&self.settings);
        change(&mut settings);
        self.set_settings(now, settings.into());
    }

    /// Takes over other settings, which may be shared with other connections. `now` in ns.
    pub fn set_settings(&mut self, now: u64, settings: Arc<Settings>) {
        let now = self.at(now);
        let before = std::mem::replace(&mut self.settings, settings);
        let after = self.settings.clone();
        if after.congestion != before.congestion {
            self.congestion.forget();
        }
        if after.recv_buffer != before.recv_buffer {
            self.rx.buffer = after.recv_buffer.size.max(256);
        }
        if after.send_buffer != before.send_buffer {
            self.tx.buffer = after.send_buffer.size.max(256);
        }
        if after.quickack && !before.quickack {
            self.rx.be_quick();
            if self.rx.ack == AckDue::Delayed {
                self.rx.ack = AckDue::Now;
            }
        }
        if self.unsent() > 0 && (before.cork && !after.cork || after.nodelay && !before.nodelay) {
            self.flight.timers.uncorked = true;
        }
        if after.mss() < before.mss() {
            let mss = u32::from(after.mss());
            self.set_effective_mss(self.tx.mss.min(mss));
        }
        if after.keepalive != before.keepalive {
            self.arm_keepalive(now);
        }
    }

    /// Whether the connection is idle and has given back what only others need: its owner may do the same.
    pub fn is_at_rest(&self) -> bool {
        self.flight.is_clear() && self.state.is_synchronized()
    }

    /// What is left to keep of a connection in TIME-WAIT, for an owner that wants the memory back.
    pub fn time_wait(&self) -> Option<TimeWait> {
        (self.state == State::TimeWait).then(|| TimeWait {
            snd_nxt: self.tx.nxt as u32,
            rcv_nxt: self.rx.nxt as u32,
            window: ((self.rx.adv - self.rx.nxt) >> self.rx.scale).min(0xffff) as u16,
            local_port: self.local_port,
            remote_port: self.remote_port,
            ts_recent: self.agreed.timestamps.then_some(self.rx.ts_recent),
            ts_offset: self.tx.ts_offset,
            deadline: self.next_deadline().unwrap_or(0),
        })
    }
}

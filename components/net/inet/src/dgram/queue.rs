//! What waits to be received: messages, and errors about what was sent.

use core::net::IpAddr;
use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;

use abi::Errno;
use bytes::Bytes;
use hypercall::Clock;
use kern::Curlwp;
use kern::poll::Events;
use net::consts::{MSG_ERRQUEUE, MSG_PEEK, MSG_TRUNC, SO_RXQ_OVFL, SOL_SOCKET};
use net::{Control, Incoming, Packet, Rare, Received};
use smallvec::SmallVec;
use sync::Cpu;

use super::{Dgram, Flavour};
use crate::addr::Endpoint;
use crate::icmp::Trouble;
use crate::ipv4::Header;
use crate::leaf;
use crate::options::{
    About, IP_RECVERR, IPV6_RECVERR, PMTUDISC_DO, SOL_IP, SOL_IPV6, SOL_UDP, UDP_GRO,
};

/// What a message costs in a buffer besides its bytes.
const OVERHEAD: usize = 256;
/// The most errors that wait.
const MOST_ERRORS: usize = 64;

/// A message that waits.
pub(super) struct Message {
    pub(super) data: SmallVec<[Bytes; 2]>,
    pub(super) len: usize,
    /// Bytes of each datagram when it is a train of them; else 0.
    pub(super) segment: u16,
    pub(super) from: Endpoint,
    pub(super) about: About,
}

/// An error that waits, recverr of ip(7).
pub(super) struct Report {
    trouble: Trouble,
    to: Endpoint,
    v6: bool,
    origin: Origin,
}

/// Who reports an error.
enum Origin {
    /// We: the message was not sent.
    Local,
    /// Somebody on the way.
    Icmp,
}

#[derive(Default)]
pub(super) struct Queue {
    pub(super) messages: VecDeque<Message>,
    pub(super) bytes: usize,
    pub(super) errors: VecDeque<Report>,
    pub(super) ended: bool,
    /// Messages that found no room.
    dropped: u64,
}

impl Queue {
    /// Whether there is room for one more.
    fn push(&mut self, message: Message, room: usize) -> bool {
        let bytes = self.bytes + message.len + OVERHEAD;
        let fits = !self.ended && bytes <= room;
        match fits {
            true => {
                self.bytes = bytes;
                self.messages.push_back(message);
            }
            false => self.dropped += 1,
        }
        fits
    }

    /// The next message, with those behind it that make a train with it, of at most `room` bytes.
    fn pop(&mut self, room: Option<usize>) -> Option<Message> {
        let mut first = self.messages.pop_front()?;
        self.bytes -= first.len + OVERHEAD;
        while let (Some(room), Some(next)) = (room, self.messages.front())
            && first.is_continued_by(next, room)
            && let Some(next) = self.messages.pop_front()
        {
            self.bytes -= next.len + OVERHEAD;
            first.append(next);
        }
        Some(first)
    }
}

impl Dgram {
    /// Bytes that wait, and messages that found no room.
    pub(crate) fn queued(&self, cpu: &Cpu<'_>) -> (usize, u64) {
        let leaf = leaf(cpu);
        let queue = self.queue.lock(&leaf);
        (queue.bytes, queue.dropped)
    }

    /// Takes a message, or a train of them, as far as there is room. The packet has no headers but those that the socket shows.
    pub(crate) fn enqueue(
        &self,
        cpu: &Cpu<'_>,
        packet: Packet,
        from: Endpoint,
        header: &Header,
        dst_port: u16,
    ) {
        let timestamp = match (self.common.timestamp.load(Relaxed), packet.timestamp) {
            (false, _) => 0,
            (true, 0) => self.inet.host.now(Clock::Realtime),
            (true, time) => time,
        };
        let len = packet.len();
        let message = Message {
            segment: packet.gso.map_or(0, |gso| gso.size),
            data: packet.into_payload(),
            len,
            from,
            about: About {
                dst: header.dst,
                dst_port,
                interface: header.interface,
                ttl: header.ttl,
                tos: header.tos,
                timestamp,
            },
        };
        let room = self.common.rcvbuf.load(Relaxed) as usize;
        let leaf = leaf(cpu);
        let several = message.segment != 0 && !self.together.load(Relaxed);
        let taken = {
            let mut queue = self.queue.lock(&leaf);
            match several {
                false => queue.push(message, room),
                true => message
                    .taken_apart()
                    .fold(false, |any, m| queue.push(m, room) | any),
            }
        };
        match taken {
            false => return,
            true if several => self.readable.broadcast(&leaf),
            true => self.readable.signal(&leaf),
        }
        self.common.poll.notify(&leaf, Events::IN | Events::RDNORM);
    }

    /// An ICMP error about something that it sent.
    pub(crate) fn trouble(&self, cpu: &Cpu<'_>, to: Endpoint, trouble: &Trouble) {
        let leaf = leaf(cpu);
        let (connected, wants, pmtu) = {
            let mut state = self.state.lock(&leaf);
            state.last = None;
            let wants = match to.addr {
                IpAddr::V4(_) => state.options.wants.errors,
                IpAddr::V6(_) => state.options.wants.errors6,
            };
            (state.remote.is_some(), wants, state.options.pmtu)
        };
        let too_big = trouble.errno == Errno::EMSGSIZE;
        let counts =
            wants || connected && trouble.hard || connected && too_big && pmtu == PMTUDISC_DO;
        if !counts {
            return;
        }
        self.common.set_error(&leaf, trouble.errno);
        {
            // Taken in any case: who has looked for an error and is about to sleep holds it.
            let mut queue = self.queue.lock(&leaf);
            if wants && queue.errors.len() < MOST_ERRORS {
                queue.errors.push_back(Report {
                    trouble: trouble.clone(),
                    to,
                    v6: to.addr.is_ipv6(),
                    origin: Origin::Icmp,
                });
            }
        }
        self.readable.broadcast(&leaf);
    }

    /// The error of a message that is too long for its path and must not be cut; it waits too, for who wants that.
    pub(super) fn too_long(&self, cpu: &Cpu<'_>, wants: bool, to: Endpoint, mtu: u32) -> Errno {
        let errno = Errno::EMSGSIZE;
        if wants {
            let leaf = leaf(cpu);
            let mut queue = self.queue.lock(&leaf);
            if queue.errors.len() < MOST_ERRORS {
                queue.errors.push_back(Report {
                    trouble: Trouble {
                        errno,
                        hard: false,
                        kind: (0, 0),
                        info: mtu,
                        offender: to.addr,
                        returned: Bytes::new(),
                    },
                    to,
                    v6: to.addr.is_ipv6(),
                    origin: Origin::Local,
                });
            }
        }
        errno
    }

    /// recvmsg(2).
    pub(super) fn receive_message(
        &self,
        cx: &Curlwp<'_>,
        message: &mut Incoming<'_, '_>,
    ) -> Result<Received, Errno> {
        let peek = message.flags & MSG_PEEK != 0;
        // Who cannot be told where one ends gets them one by one.
        let together = self.together.load(Relaxed) && message.wants_control;
        let together = together.then(|| message.uio.resid());
        let leaf = leaf(cx.cpu());
        let mut queue = self.queue.lock(&leaf);
        let taken = loop {
            self.common.take_error()?;
            if let Some(first) = queue.messages.front() {
                if peek {
                    break Message {
                        data: first.data.clone(),
                        len: first.len,
                        segment: first.segment,
                        from: first.from,
                        about: first.about.clone(),
                    };
                }
                if let Some(first) = queue.pop(together) {
                    break first;
                }
            }
            if queue.ended {
                return Ok(Received::default());
            }
            queue = message.wait.on(cx, &self.readable, queue)?;
        };
        let dropped = queue.dropped;
        drop(queue);
        let wants = self.state.lock(&leaf).options.wants;
        let mut received = Received {
            from: Some(taken.from.to_addr(self.v6)),
            control: Vec::new(),
            flags: 0,
            len: Some(taken.len),
        };
        if message.wants_control {
            received.control = taken
                .about
                .control(&self.inet, self.v6, &wants, &self.common);
            let told = |rare: &Rare| rare.tells_dropped.load(Relaxed);
            if dropped != 0 && self.common.rarely(told) {
                let dropped = (dropped as u32).to_ne_bytes().to_vec();
                let dropped = Control::Other(SOL_SOCKET, SO_RXQ_OVFL, dropped);
                received.control.push(dropped);
            }
            if taken.segment != 0 {
                let size = i32::from(taken.segment).to_ne_bytes().to_vec();
                received
                    .control
                    .push(Control::Other(SOL_UDP, UDP_GRO, size));
            }
        }
        if taken.len > message.uio.resid() {
            received.flags |= MSG_TRUNC;
        }
        for piece in &taken.data {
            message.uio.put(cx, piece)?;
        }
        Ok(received)
    }

    /// An error that waits, `MSG_ERRQUEUE`.
    pub(super) fn receive_report(
        &self,
        cx: &Curlwp<'_>,
        message: &mut Incoming<'_, '_>,
    ) -> Result<Received, Errno> {
        let leaf = leaf(cx.cpu());
        let report = self
            .queue
            .lock(&leaf)
            .errors
            .pop_front()
            .ok_or(Errno::EAGAIN)?;
        let trouble = report.trouble;
        // struct sock_extended_err and the address of who says so.
        let mut data = vec![0; 16];
        data[..4].copy_from_slice(&trouble.errno.0.to_ne_bytes());
        data[4] = match (&report.origin, report.v6) {
            (Origin::Local, _) => 1,
            (Origin::Icmp, false) => 2,
            (Origin::Icmp, true) => 3,
        };
        (data[5], data[6]) = trouble.kind;
        data[8..12].copy_from_slice(&trouble.info.to_ne_bytes());
        let offender = Endpoint::new(trouble.offender, 0).to_addr(report.v6);
        match report.origin {
            // Nobody else: an address of no family.
            Origin::Local => data.resize(data.len() + offender.bytes().len(), 0),
            Origin::Icmp => data.extend_from_slice(offender.bytes()),
        }
        let (level, kind) = if report.v6 {
            (SOL_IPV6, IPV6_RECVERR)
        } else {
            (SOL_IP, IP_RECVERR)
        };
        let skip = match self.flavour {
            Flavour::Udp => 8,
            Flavour::Ping | Flavour::Raw(_) => 0,
        };
        let payload = trouble.returned.get(skip..).unwrap_or(&[]);
        let mut received = Received {
            from: Some(report.to.to_addr(self.v6)),
            control: vec![Control::Other(level, kind, data)],
            flags: MSG_ERRQUEUE,
            len: Some(payload.len()),
        };
        if payload.len() > message.uio.resid() {
            received.flags |= MSG_TRUNC;
        }
        message.uio.put(cx, payload)?;
        Ok(received)
    }
}

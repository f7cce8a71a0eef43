//! A network of two hosts and a link, on a clock of numbers: what a seed gives is the same every time.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses a part of it"
)]

use std::collections::BTreeMap;
use std::net::IpAddr;

use bytes::Bytes;
use net::InternetSum;
use tcp::{
    Connection, Ecn, Isn, Key, Open, Segment, Settings, State, SynCache, SynLimits, SynReply, Tuple,
};

pub const MS: u64 = 1_000_000;
pub const SEC: u64 = 1000 * MS;

/// A generator of random numbers (xorshift64*).
#[derive(Clone)]
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Rng {
        Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 16) % n.max(1)
    }

    /// True `per_mille` times in a thousand.
    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }
}

/// What the link does to packets; chances in thousandths.
#[derive(Clone, Debug)]
pub struct Link {
    /// One way, in ns.
    pub delay: u64,
    /// Bytes a second; 0 is no limit.
    pub rate: u64,
    /// Bytes that wait for the rate before packets are dropped (or marked).
    pub queue: u64,
    /// Of packets of host 0 and of host 1.
    pub loss: [u64; 2],
    pub duplicate: u64,
    pub reorder: u64,
    pub corrupt: u64,
    /// Packets marked instead of dropped when the queue is half full.
    pub ecn: bool,
    /// Segments travel whole, as between two kernels with offload; otherwise in packets.
    pub offload: bool,
}

impl Default for Link {
    fn default() -> Link {
        Link {
            delay: 5 * MS,
            rate: 0,
            queue: 1 << 20,
            loss: [0; 2],
            duplicate: 0,
            reorder: 0,
            corrupt: 0,
            ecn: false,
            offload: false,
        }
    }
}

/// Says of a side's packet whether it is dropped.
pub type Filter = Box<dyn FnMut(usize, &Segment) -> bool>;

/// One side.
pub struct Host {
    pub connection: Option<Connection>,
    pub listener: Option<(SynCache, Settings)>,
    pub tuple: Tuple,
    /// When the link's sender is free again.
    busy: u64,
}

/// A packet on its way.
struct Packet {
    to: usize,
    bytes: Bytes,
    ecn: Ecn,
    gso: u32,
}

pub struct Sim {
    pub now: u64,
    pub hosts: [Host; 2],
    pub link: Link,
    pub rng: Rng,
    wire: BTreeMap<(u64, u64), Packet>,
    serial: u64,
    /// Every segment that was sent: when, by whom, and what.
    pub trace: Vec<(u64, usize, Segment)>,
    pub keep_trace: bool,
    /// Drops what it says so of: the sender, the number of its packet, and the packet.
    pub filter: Option<Filter>,
    pub gso_max: u32,
    pub packets: u64,
    /// When a user looks again.
    wake: u64,
}

impl Sim {
    /// A client that connects (host 0) and a server that listens (host 1).
    pub fn new(seed: u64, link: Link, client: Settings, server: Settings) -> Sim {
        let mut rng = Rng::new(seed);
        let ends = Tuple {
            local: ([10, 0, 0, 1], 40000).into(),
            remote: ([10, 0, 0, 2], 80).into(),
        };
        let back = Tuple {
            local: ends.remote,
            remote: ends.local,
        };
        let isn = Isn::new(Key([rng.next(), rng.next()]));
        let now = SEC;
        let open = Open {
            local_port: 40000,
            remote_port: 80,
            iss: isn.generate(now, &ends).wrapping_add(rng.next() as u32),
            ts_offset: isn.ts_offset(&ends),
            fast_open: None,
        };
        let cache = SynCache::new(Key([rng.next(), rng.next()]), SynLimits::default());
        let client = Host {
            connection: Some(Connection::connect(now, open, client)),
            listener: None,
            tuple: ends,
            busy: 0,
        };
        let server = Host {
            connection: None,
            listener: Some((cache, server)),
            tuple: back,
            busy: 0,
        };
        Sim {
            now,
            hosts: [client, server],
            link,
            rng,
            wire: BTreeMap::new(),
            serial: 0,
            trace: Vec::new(),
            keep_trace: false,
            filter: None,
            gso_max: 65535,
            packets: 0,
            wake: u64::MAX,
        }
    }

    /// The server connects too, from its port to the client's.
    pub fn connect_back(&mut self, settings: Settings) {
        let open = Open {
            local_port: 80,
            remote_port: 40000,
            iss: self.rng.next() as u32,
            ts_offset: 0,
            fast_open: None,
        };
        self.hosts[1].connection = Some(Connection::connect(self.now, open, settings));
        self.hosts[1].listener = None;
    }

    /// The connection of a side that has one.
    pub fn end(&mut self, side: usize) -> &mut Connection {
        self.hosts[side]
            .connection
            .as_mut()
            .expect("the side has a connection")
    }

    pub fn has(&self, side: usize) -> bool {
        self.hosts[side].connection.is_some()
    }

    /// Sends what both sides have to send.
    pub fn flush(&mut self) {
        for side in 0..2 {
            while let Some(segment) = self.poll(side) {
                self.send(side, segment);
            }
        }
    }

    fn poll(&mut self, side: usize) -> Option<Segment> {
        let now = self.now;
        let host = &mut self.hosts[side];
        if let Some((cache, _)) = &mut host.listener
            && let Some((_, segment)) = cache.poll_transmit(now)
        {
            return Some(segment);
        }
        host.connection.as_mut()?.poll_transmit(now, self.gso_max)
    }

    /// Puts a segment on the wire.
    pub fn send(&mut self, from: usize, segment: Segment) {
        if self.keep_trace {
            self.trace.push((self.now, from, segment.clone()));
        }
        if self.link.offload {
            self.transmit(from, segment);
        } else {
            segment
                .packetize()
                .for_each(|packet| self.transmit(from, packet));
        }
    }

    fn transmit(&mut self, from: usize, segment: Segment) {
        self.packets += 1;
        if self
            .filter
            .as_mut()
            .is_some_and(|drop| drop(from, &segment))
        {
            return;
        }
        if self.rng.chance(self.link.loss[from]) {
            return;
        }
        let mut ecn = segment.ecn;
        let size = segment.payload_len() as u64 + 60;
        let mut at = self.now;
        if self.link.rate > 0 {
            let host = &mut self.hosts[from];
            let start = host.busy.max(self.now);
            let waiting = (start - self.now) as u128 * u128::from(self.link.rate) / u128::from(SEC);
            if waiting > u128::from(self.link.queue) {
                return;
            }
            if self.link.ecn && waiting > u128::from(self.link.queue / 2) && ecn != Ecn::NotEct {
                ecn = Ecn::Ce;
            }
            host.busy = start + size * SEC / self.link.rate;
            at = host.busy;
        }
        at += self.link.delay;
        if self.rng.chance(self.link.reorder) {
            at += self.rng.below(2 * self.link.delay + MS);
        }
        let mut bytes = wire(self.hosts[from].tuple, &segment);
        if self.rng.chance(self.link.corrupt) {
            self.damage(&mut bytes);
        }
        let copies = 1 + u64::from(self.rng.chance(self.link.duplicate));
        for copy in 0..copies {
            self.serial += 1;
            let packet = Packet {
                to: 1 - from,
                bytes: bytes.clone().into(),
                ecn,
                gso: segment.gso_size,
            };
            self.wire
                .insert((at + copy * self.link.delay / 2, self.serial), packet);
        }
    }

    fn damage(&mut self, bytes: &mut Vec<u8>) {
        if self.rng.chance(300) {
            let len = self.rng.below(bytes.len() as u64) as usize;
            bytes.truncate(len);
        } else {
            // Within one byte, so that the checksum always sees it.
            let i = self.rng.below(bytes.len() as u64) as usize;
            bytes[i] ^= 1 + self.rng.below(255) as u8;
        }
    }

    /// Sends, goes on to the next event and lets it happen; false if there is none before `until`.
    pub fn step(&mut self, until: u64) -> bool {
        self.flush();
        let mut next = self
            .wire
            .first_key_value()
            .map_or(u64::MAX, |(&(at, _), _)| at);
        for host in &self.hosts {
            let timer = host.connection.as_ref().and_then(Connection::next_deadline);
            let cache = host
                .listener
                .as_ref()
                .and_then(|(cache, _)| cache.next_deadline());
            next = next
                .min(timer.unwrap_or(u64::MAX))
                .min(cache.unwrap_or(u64::MAX));
        }
        next = next.min(self.wake.max(self.now));
        if next > until {
            self.now = self.now.max(until.min(next));
            return false;
        }
        self.now = self.now.max(next);
        while let Some(entry) = self.wire.first_entry()
            && entry.key().0 <= self.now
        {
            let packet = entry.remove();
            self.arrive(packet);
        }
        for host in &mut self.hosts {
            if let Some(connection) = &mut host.connection {
                connection.on_timer(self.now);
            }
        }
        true
    }

    /// Lets the network run for a time, or until nothing will happen.
    pub fn run_for(&mut self, time: u64) {
        let until = self.now + time;
        self.wake = u64::MAX;
        while self.step(until) {}
    }

    fn arrive(&mut self, packet: Packet) {
        let host = &self.hosts[packet.to];
        let (src, dst) = (host.tuple.remote.ip(), host.tuple.local.ip());
        if pseudo(src, dst, packet.bytes.len())
            .with(&packet.bytes)
            .checksum()
            != 0
        {
            return;
        }
        let Ok(mut segment) = Segment::parse(packet.bytes) else {
            return;
        };
        segment.ecn = packet.ecn;
        segment.gso_size = packet.gso;
        self.deliver(packet.to, segment);
    }

    /// Gives a segment to a side, as its owner would.
    pub fn deliver(&mut self, to: usize, segment: Segment) {
        let now = self.now;
        let host = &mut self.hosts[to];
        if let Some(connection) = &mut host.connection {
            if connection.state() == State::Closed {
                // Its owner has forgotten it.
                if let Some(reset) = segment.reset() {
                    self.send(to, reset);
                }
                return;
            }
            return connection.on_segment(now, segment);
        }
        let reply = match &mut host.listener {
            Some((cache, settings)) => cache.on_segment(now, &host.tuple, &segment, settings),
            None => segment.reset().map_or(SynReply::Drop, SynReply::Reply),
        };
        match reply {
            SynReply::Drop => {}
            SynReply::Reply(reply) => self.send(to, reply),
            SynReply::Accept(accepted) => {
                let settings = host
                    .listener
                    .as_ref()
                    .map(|(_, s)| s.clone())
                    .unwrap_or_default();
                let mut connection = Connection::accept(now, &accepted, settings);
                connection.on_segment(now, segment);
                host.connection = Some(connection);
            }
        }
    }
}

/// The sum of the pseudo header.
fn pseudo(src: IpAddr, dst: IpAddr, len: usize) -> InternetSum {
    let octets = |addr: IpAddr| match addr {
        IpAddr::V4(addr) => addr.octets().to_vec(),
        IpAddr::V6(addr) => addr.octets().to_vec(),
    };
    InternetSum::pseudo(&[octets(src), octets(dst)].concat(), 6, len as u32)
}

/// The bytes of a segment with its checksum.
pub fn wire(tuple: Tuple, segment: &Segment) -> Vec<u8> {
    let mut bytes = vec![0; segment.header_len()];
    segment.emit_header(&mut bytes);
    segment
        .payload
        .iter()
        .for_each(|piece| bytes.extend_from_slice(piece));
    let sum = pseudo(tuple.local.ip(), tuple.remote.ip(), bytes.len()).with(&bytes);
    bytes[16..18].copy_from_slice(&sum.checksum().to_be_bytes());
    bytes
}

/// A byte of a stream, by its place.
pub fn stream_byte(seed: u64, position: u64) -> u8 {
    (position.wrapping_mul(31) ^ (position >> 8) ^ seed) as u8
}

/// What one direction of a transfer has done.
#[derive(Default, Debug, Clone)]
pub struct Flow {
    pub to_send: u64,
    pub sent: u64,
    pub received: u64,
    pub closed: bool,
    pub eof: bool,
    /// The most that is written at once.
    pub chunk: u64,
    /// How long the reader waits between two looks, in ns, and when the next is.
    pub pause: u64,
    pub next_read: u64,
    /// The bytes do not matter, only how many.
    pub unchecked: bool,
}

impl Sim {
    /// Writes what `flow` still has to send, from `side`; closes at its end.
    pub fn write(&mut self, side: usize, flow: &mut Flow) {
        let now = self.now;
        let _ = now;
        if !self.has(side) {
            return;
        }
        while flow.sent < flow.to_send {
            let len = flow.chunk.max(1).min(flow.to_send - flow.sent);
            let at = flow.sent;
            let mut data: Bytes = match flow.unchecked {
                true => Bytes::from_static(&[0; 65536]).slice(..len.min(65536) as usize),
                false => (at..at + len)
                    .map(|p| stream_byte(side as u64, p))
                    .collect(),
            };
            match self.end(side).send(&mut data) {
                Ok(taken) => flow.sent += taken as u64,
                Err(_) => return,
            }
            if !data.is_empty() {
                return;
            }
        }
        if !flow.closed && self.end(side).readiness().connected {
            flow.closed = true;
            self.end(side).shutdown();
        }
    }

    /// Reads at `side` what the other side sent; panics if it is not that.
    pub fn read(&mut self, side: usize, flow: &mut Flow) {
        if !self.has(side) {
            return;
        }
        let now = self.now;
        if now < flow.next_read {
            return;
        }
        flow.next_read = now + flow.pause;
        while let Some(data) = self.end(side).recv(now, usize::MAX) {
            if flow.unchecked {
                flow.received += data.len() as u64;
                continue;
            }
            for byte in &data {
                assert_eq!(
                    *byte,
                    stream_byte(1 - side as u64, flow.received),
                    "at {}",
                    flow.received
                );
                flow.received += 1;
            }
        }
        let ready = self.end(side).readiness();
        flow.eof |= ready.eof && ready.readable == 0;
    }

    /// Runs both directions to their ends or until `limit`.
    pub fn transfer(&mut self, flows: &mut [Flow; 2], limit: u64) {
        let until = self.now + limit;
        loop {
            let looks = flows
                .iter()
                .filter(|f| f.next_read > self.now && !f.eof)
                .map(|f| f.next_read);
            self.wake = looks.min().unwrap_or(u64::MAX);
            for (side, flow) in flows.iter_mut().enumerate() {
                self.write(side, flow);
                self.read(1 - side, flow);
            }
            if !self.step(until) {
                return;
            }
        }
    }
}

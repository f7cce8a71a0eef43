//! A connection and a peer that is played by hand, segment by segment.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses a part of it"
)]

use bytes::Bytes;
use tcp::{Connection, Flags, Open, Options, Segment, Settings, State, Timestamps};

pub const MS: u64 = 1_000_000;
pub const SEC: u64 = 1000 * MS;

/// Our initial sequence number and the peer's.
pub const ISS: u32 = 1000;
pub const IRS: u32 = 50_000;

pub struct Peer {
    pub now: u64,
    pub connection: Connection,
    /// What the peer sends and acknowledges next, relative to the initial numbers.
    pub seq: u32,
    pub ack: u32,
    pub window: u16,
    /// The peer's timestamp clock runs with `now` if it has one.
    pub stamps: bool,
    pub echo: u32,
    pub gso: u32,
}

/// What a plain peer offers: nothing but a segment size.
pub fn plain() -> Options {
    Options {
        mss: Some(1000),
        ..Options::default()
    }
}

/// A peer with selective acknowledgements.
pub fn sack() -> Options {
    Options {
        sack_permitted: true,
        ..plain()
    }
}

/// A peer with everything.
pub fn modern() -> Options {
    Options {
        timestamps: Some(Timestamps {
            value: 1000,
            echo: 0,
        }),
        window_scale: Some(7),
        ..sack()
    }
}

pub fn open() -> Open {
    Open {
        local_port: 40000,
        remote_port: 80,
        iss: ISS,
        ts_offset: 0,
        fast_open: None,
    }
}

impl Peer {
    /// A connection that has not sent its SYN.
    pub fn connecting(settings: Settings) -> Peer {
        let now = SEC;
        Peer {
            now,
            connection: Connection::connect(now, open(), settings),
            seq: 0,
            ack: 0,
            window: 60_000,
            stamps: false,
            echo: 0,
            gso: 65535,
        }
    }

    /// An established connection with a peer that offered `options`; the handshake took `rtt` ns.
    pub fn established(settings: Settings, options: Options, rtt: u64) -> Peer {
        let mut peer = Peer::connecting(settings);
        let syn = peer.one();
        assert!(syn.flags.has(Flags::SYN));
        peer.now += rtt;
        peer.stamps = options.timestamps.is_some();
        let mut syn_ack = peer.segment(Flags::SYN | Flags::ACK, 1);
        let echo = syn_ack.options.timestamps.map_or(0, |ts| ts.echo);
        syn_ack.options = options;
        if let Some(ts) = &mut syn_ack.options.timestamps {
            *ts = Timestamps {
                value: (peer.now / MS) as u32,
                echo,
            };
        }
        peer.connection.on_segment(peer.now, syn_ack);
        peer.seq = 1;
        peer.ack = 1;
        assert_eq!(peer.connection.state(), State::Established);
        let ack = peer.one();
        assert_eq!((ack.flags, ack.payload_len()), (Flags::ACK, 0));
        peer
    }

    /// Everything that the connection wants sent now.
    pub fn out(&mut self) -> Vec<Segment> {
        let mut out = Vec::new();
        while let Some(segment) = self.connection.poll_transmit(self.now, self.gso) {
            if let Some(ts) = segment.options.timestamps {
                self.echo = ts.value;
            }
            out.push(segment);
            assert!(out.len() < 10_000, "it never stops sending");
        }
        out
    }

    /// The one segment that the connection wants sent now.
    pub fn one(&mut self) -> Segment {
        let mut out = self.out();
        assert_eq!(out.len(), 1, "{out:?}");
        out.remove(0)
    }

    pub fn none(&mut self) {
        let out = self.out();
        assert!(out.is_empty(), "{out:?}");
    }

    /// A segment of the peer's that acknowledges `ack` (relative).
    pub fn segment(&self, flags: Flags, ack: u32) -> Segment {
        let timestamps = self.stamps.then_some(Timestamps {
            value: (self.now / MS) as u32,
            echo: self.echo,
        });
        Segment {
            src_port: 80,
            dst_port: 40000,
            seq: IRS.wrapping_add(self.seq),
            ack: ISS.wrapping_add(ack),
            flags,
            window: self.window,
            options: Options {
                timestamps,
                ..Options::default()
            },
            ..Segment::default()
        }
    }

    pub fn give(&mut self, segment: Segment) {
        self.connection.on_segment(self.now, segment);
    }

    /// The peer acknowledges up to `ack` (relative).
    pub fn acknowledge(&mut self, ack: u32) {
        self.ack = ack;
        let segment = self.segment(Flags::ACK, ack);
        self.give(segment);
    }

    /// The peer acknowledges `ack` and has the blocks too (all relative).
    pub fn sack(&mut self, ack: u32, blocks: &[(u32, u32)]) {
        let mut segment = self.segment(Flags::ACK, ack);
        for (left, right) in blocks {
            segment
                .options
                .sack
                .push(ISS.wrapping_add(*left), ISS.wrapping_add(*right));
        }
        self.give(segment);
    }

    /// The peer sends `len` bytes at `seq` (relative).
    pub fn data_at(&mut self, seq: u32, len: usize) {
        let mut segment = self.segment(Flags::ACK, self.ack);
        segment.seq = IRS.wrapping_add(seq);
        segment.payload.push(Bytes::from(vec![seq as u8; len]));
        self.give(segment);
    }

    /// The peer sends the next `len` bytes.
    pub fn data(&mut self, len: usize) {
        self.data_at(self.seq, len);
        self.seq += len as u32;
    }

    /// The peer finishes.
    pub fn fin(&mut self) {
        let segment = self.segment(Flags::FIN | Flags::ACK, self.ack);
        self.seq += 1;
        self.give(segment);
    }

    /// The user writes `len` bytes.
    pub fn write(&mut self, len: usize) -> usize {
        let sent = self.connection.send(&mut Bytes::from(vec![7; len]));
        sent.expect("the connection takes data")
    }

    /// Everything that there is to read.
    pub fn read(&mut self) -> usize {
        let mut len = 0;
        while let Some(data) = self.connection.recv(self.now, usize::MAX) {
            len += data.len();
        }
        len
    }

    /// Time passes.
    pub fn wait(&mut self, time: u64) {
        let until = self.now + time;
        self.now = until;
        self.connection.on_timer(until);
    }

    /// Time passes until the next deadline; says how long that was.
    pub fn wait_for_timer(&mut self) -> u64 {
        let deadline = self.connection.next_deadline().expect("a deadline");
        let time = deadline.saturating_sub(self.now);
        self.wait(time);
        time
    }
}

/// Where a segment starts and how long it is, relative to our initial number.
pub fn range(segment: &Segment) -> (u32, usize) {
    (segment.seq.wrapping_sub(ISS), segment.payload_len())
}

/// Acknowledgement of the peer's data, relative to its initial number.
pub fn acked(segment: &Segment) -> u32 {
    segment.ack.wrapping_sub(IRS)
}

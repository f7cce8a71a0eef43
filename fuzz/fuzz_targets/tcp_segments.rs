//! Arbitrary segments, times and user calls for a TCP connection in any state; and arbitrary bytes for the parser.
#![no_main]

use bytes::Bytes;
use tcp::{
    Connection, Ecn, Flags, Key, Open, Options, Segment, Settings, SynCache, SynLimits, SynReply,
    Timestamps, Tuple,
};

const ISS: u32 = u32::MAX - 3000;
const IRS: u32 = u32::MAX - 700;

/// Takes numbers from the input; zeros behind its end.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    fn short(&mut self) -> u16 {
        u16::from(self.byte()) << 8 | u16::from(self.byte())
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(segment) = Segment::parse(Bytes::copy_from_slice(bytes)) {
        let mut header = vec![0; segment.header_len()];
        segment.emit_header(&mut header).expect("it has the room");
        let (again, _) = Segment::parse_header(&header).expect("what was emitted parses");
        assert_eq!(again.options.timestamps, segment.options.timestamps);
        let _ = segment.reset();
        listen(&segment);
    }
    run(Input(bytes));
});

/// A listener with room for one, before and after it has given cookies.
fn listen(segment: &Segment) {
    let limits = SynLimits {
        entries: 1,
        fast_open: true,
        ..SynLimits::default()
    };
    let mut cache = SynCache::new(Key([1, 2]), limits);
    for port in 0..4 {
        let tuple = Tuple {
            local: ([10, 0, 0, 1], 80).into(),
            remote: ([10, 0, 0, 2], port / 2).into(),
        };
        let now = u64::from(port) * 1_000_000_000;
        if let SynReply::Accept(accepted) =
            cache.on_segment(now, &tuple, segment, &Settings::default())
        {
            let mut connection = Connection::accept(now, &accepted, Settings::default());
            connection.on_segment(now, segment.clone());
            connection.poll_transmit(now, 65535);
        }
        while cache.poll_transmit(now).is_some() {}
        assert!(cache.len() <= 1);
    }
}

fn run(mut input: Input<'_>) {
    let kind = input.byte();
    let mut settings = Settings::default();
    settings.nodelay = kind & 8 != 0;
    settings.cork = kind & 16 != 0;
    settings.keepalive.on = kind & 32 != 0;
    settings.offer.ecn = kind & 64 != 0;
    if kind & 128 != 0 {
        settings.congestion = "reno";
    }
    let options = match kind & 3 {
        0 => Options::default(),
        1 => Options {
            sack_permitted: true,
            mss: Some(600),
            ..Options::default()
        },
        _ => Options {
            sack_permitted: true,
            mss: Some(1460),
            window_scale: Some(9),
            timestamps: Some(Timestamps { value: 5, echo: 0 }),
            ..Options::default()
        },
    };
    let mut now = 1_000_000_000;
    let Some((mut connection, iss)) = make(kind & 4 != 0, now, &settings, options) else {
        return;
    };
    while !input.0.is_empty() {
        act(&mut input, &mut now, &mut connection, iss);
        let gso = if kind & 1 != 0 { 65535 } else { 0 };
        let mut sent = 0;
        while let Some(segment) = connection.poll_transmit(now, gso) {
            assert!(segment.payload_len() <= 65535 && segment.header_len() <= 60);
            sent += 1;
            assert!(sent < 10_000, "it never stops sending");
        }
        let info = connection.info();
        assert!(info.rcv_memory <= 2 * info.rcv_space as usize + 4096 + 65536);
        let _ = connection.readiness();
    }
}

/// A connection that was opened from here or from there, in the state that its first segments leave it in, and its initial number.
fn make(
    passive: bool,
    now: u64,
    settings: &Settings,
    options: Options,
) -> Option<(Connection, u32)> {
    if passive {
        let tuple = Tuple {
            local: ([10, 0, 0, 1], 80).into(),
            remote: ([10, 0, 0, 2], 4000).into(),
        };
        let mut cache = SynCache::new(
            Key([1, 2]),
            SynLimits {
                fast_open: true,
                ..SynLimits::default()
            },
        );
        let mut segment = Segment {
            seq: IRS,
            flags: Flags::SYN,
            window: 50_000,
            options,
            ..Segment::default()
        };
        let SynReply::Reply(syn_ack) = cache.on_segment(now, &tuple, &segment, settings) else {
            return None;
        };
        segment.flags = Flags::ACK;
        segment.seq = IRS.wrapping_add(1);
        segment.ack = syn_ack.seq.wrapping_add(1);
        let SynReply::Accept(accepted) = cache.on_segment(now, &tuple, &segment, settings) else {
            return None;
        };
        return Some((
            Connection::accept(now, &accepted, settings.clone()),
            syn_ack.seq,
        ));
    }
    let open = Open {
        local_port: 1,
        remote_port: 2,
        iss: ISS,
        ts_offset: 0,
        fast_open: None,
    };
    let mut connection = Connection::connect(now, open, settings.clone());
    connection.poll_transmit(now, 65535)?;
    let syn_ack = Segment {
        seq: IRS,
        ack: ISS.wrapping_add(1),
        flags: Flags::SYN | Flags::ACK | Flags::ECE,
        window: 50_000,
        options,
        ..Segment::default()
    };
    connection.on_segment(now, syn_ack);
    Some((connection, ISS))
}

fn act(input: &mut Input<'_>, now: &mut u64, connection: &mut Connection, iss: u32) {
    match input.byte() % 16 {
        0 => *now += u64::from(input.short()) * 1_000_000,
        1 => {
            if let Some(at) = connection.next_deadline() {
                *now = at.max(*now);
            }
            connection.on_timer(*now);
        }
        2 => {
            let _ = connection.send(&mut Bytes::from(vec![3; usize::from(input.short())]));
        }
        3 => {
            let max = usize::from(input.short());
            let peeked: usize = connection.peek().map(|piece| piece.len()).sum();
            let read = connection.recv(*now, max).map_or(0, |piece| piece.len());
            assert!(read <= max && read <= peeked);
        }
        4 => match input.byte() {
            0..64 => connection.shutdown(),
            64 => connection.abort(),
            65 => connection.close(*now),
            66..100 => connection.set_mss(*now, u32::from(input.short())),
            100..130 => connection.configure(*now, |s| s.cork = !s.cork),
            _ => drop(connection.send_urgent(&mut Bytes::from_static(b"!"))),
        },
        5 => drop(connection.recv_urgent()),
        _ => {
            let segment = segment(input, *now, connection, iss);
            if let Some(mut wait) = connection.time_wait() {
                wait.on_segment(*now, &segment);
            }
            connection.on_segment(*now, segment);
        }
    }
}

/// A segment near the windows: of the flags, most acknowledge.
fn segment(input: &mut Input<'_>, now: u64, connection: &Connection, iss: u32) -> Segment {
    let info = connection.info();
    let shape = input.byte();
    let seq = IRS.wrapping_add(1).wrapping_add(info.bytes_received as u32);
    let ack = iss.wrapping_add(1).wrapping_add(info.bytes_acked as u32);
    let mut segment = Segment {
        seq: seq.wrapping_add_signed(i32::from(input.short() as i16) / 4),
        ack: ack.wrapping_add(u32::from(input.short()) / 4),
        flags: if shape & 3 != 0 {
            Flags::ACK
        } else {
            Flags::from_bits(input.byte())
        },
        window: input.short(),
        urgent: u16::from(input.byte()),
        ecn: Ecn::from_bits(shape >> 6),
        ..Segment::default()
    };
    if info.timestamps && shape & 4 != 0 {
        segment.options.timestamps = Some(Timestamps {
            value: (now / 1_000_000) as u32,
            echo: (now / 1_000_000) as u32 - u32::from(input.byte()),
        });
    }
    for _ in 0..(shape >> 3) & 3 {
        let left = ack.wrapping_add(u32::from(input.short()) / 4);
        segment
            .options
            .sack
            .push(left, left.wrapping_add(u32::from(input.short()) / 8));
    }
    if shape & 32 != 0 {
        segment
            .payload
            .push(Bytes::from(vec![1; usize::from(input.short())]));
    }
    segment
}

//! How fast the engine alone is: two connections in one thread that hand each other their segments.
//!
//! `cargo run --release -p rumpkit-tcp --example engine`

#![allow(
    clippy::disallowed_types,
    reason = "a program of the host's, which measures"
)]

use std::time::Instant;

use bytes::Bytes;
use tcp::{
    Accepted, Connection, Key, Open, Segment, Settings, SynCache, SynLimits, SynReply, Tuple,
};

fn main() {
    for (name, mss, gso) in [
        ("64 KiB segments, MSS 65483", 65483, 65535),
        ("64 KiB segments, MSS 1460", 1460, 65535),
        ("MSS 8960", 8960, 8960),
        ("MSS 1460", 1460, 1460),
    ] {
        let settings = Settings {
            mss,
            nodelay: true,
            ..Settings::default()
        };
        bulk(name, &settings, gso);
    }
    ping_pong();
    connections();
}

/// A client and a server, connected.
fn pair(now: u64, port: u16, settings: &Settings) -> (Connection, Connection) {
    let tuple = Tuple {
        local: ([10, 0, 0, 2], 80).into(),
        remote: ([10, 0, 0, 1], port).into(),
    };
    let mut cache = SynCache::new(Key([1, 2]), SynLimits::default());
    let open = Open {
        local_port: port,
        remote_port: 80,
        iss: 1,
        ts_offset: 0,
        fast_open: None,
    };
    let mut client = Connection::connect(now, open, settings.clone());
    let syn = client.poll_transmit(now, 65535).expect("a SYN");
    let SynReply::Reply(syn_ack) = cache.on_segment(now, &tuple, &syn, settings) else {
        unreachable!("an empty cache answers a SYN")
    };
    client.on_segment(now, syn_ack);
    let ack = client.poll_transmit(now, 65535).expect("an ACK");
    let SynReply::Accept(accepted) = cache.on_segment(now, &tuple, &ack, settings) else {
        unreachable!("the cache accepts its own handshake")
    };
    let accepted: Accepted = *accepted;
    let mut server = Connection::accept(now, &accepted, settings.clone());
    server.on_segment(now, ack);
    (client, server)
}

/// One direction as fast as it goes; a trip is taken to last 20 us.
fn bulk(name: &str, settings: &Settings, gso: u32) {
    let mut now = 1_000_000_000;
    let (mut a, mut b) = pair(now, 1, settings);
    let data = Bytes::from(vec![7u8; 65536]);
    let (mut bytes, mut segments) = (0u64, 0u64);
    let start = Instant::now();
    let mut pending: Vec<Segment> = Vec::new();
    while start.elapsed().as_millis() < 1500 {
        for _ in 0..100 {
            now += 20_000;
            loop {
                let mut piece = data.clone();
                match a.send(&mut piece) {
                    Ok(taken) if taken == data.len() => {}
                    _ => break,
                }
            }
            while let Some(segment) = a.poll_transmit(now, gso) {
                segments += 1;
                b.on_segment(now, segment);
                while let Some(piece) = b.recv(now, usize::MAX) {
                    bytes += piece.len() as u64;
                }
                while let Some(ack) = b.poll_transmit(now, gso) {
                    pending.push(ack);
                }
            }
            now += 20_000;
            pending.drain(..).for_each(|ack| a.on_segment(now, ack));
            a.on_timer(now);
            b.on_timer(now);
        }
    }
    let time = start.elapsed().as_secs_f64();
    println!(
        "engine.bulk {name}: {:.2} GB/s, {:.2} M segments/s ({} bytes each)",
        bytes as f64 / time / 1e9,
        segments as f64 / time / 1e6,
        bytes / segments.max(1)
    );
}

/// One byte there, one byte back.
fn ping_pong() {
    let mut now = 1_000_000_000;
    let (mut a, mut b) = pair(
        now,
        1,
        &Settings {
            nodelay: true,
            ..Settings::default()
        },
    );
    let byte = Bytes::from_static(b"x");
    let start = Instant::now();
    const TRIPS: u32 = 1_000_000;
    for _ in 0..TRIPS {
        now += 10_000;
        for turn in 0..2 {
            let (from, to) = if turn == 0 {
                (&mut a, &mut b)
            } else {
                (&mut b, &mut a)
            };
            let sent = from.send(&mut byte.clone());
            assert_eq!(sent, Ok(1));
            while let Some(segment) = from.poll_transmit(now, 65535) {
                to.on_segment(now, segment);
            }
            assert!(to.recv(now, 1).is_some());
        }
        if a.next_deadline().is_some_and(|at| at <= now) {
            a.on_timer(now);
        }
    }
    let each = start.elapsed().as_nanos() / u128::from(TRIPS);
    println!("engine.ping_pong: {each} ns a round trip");
}

/// Handshake, a request, an answer, close.
fn connections() {
    let settings = Settings::default();
    let start = Instant::now();
    const COUNT: u32 = 200_000;
    for i in 0..COUNT {
        let now = 1_000_000_000 + u64::from(i) * 1000;
        let (mut a, mut b) = pair(now, i as u16, &settings);
        for turn in 0..4 {
            let (from, to) = if turn % 2 == 0 {
                (&mut a, &mut b)
            } else {
                (&mut b, &mut a)
            };
            let _ = from.send(&mut Bytes::from_static(b"GET /"));
            if turn >= 2 {
                from.shutdown();
            }
            while let Some(segment) = from.poll_transmit(now, 65535) {
                to.on_segment(now, segment);
            }
        }
    }
    let each = start.elapsed().as_nanos() / u128::from(COUNT);
    println!(
        "engine.connection: {each} ns from SYN to FIN, {} bytes a connection",
        size_of::<Connection>()
    );
}

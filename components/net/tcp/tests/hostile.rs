//! Segments that mean harm: blind attacks, old duplicates, and peers that want memory.

mod peer;
mod sim;

use bytes::Bytes;
use peer::*;
use tcp::{Buffer, Error, Flags, Malformed, Options, Segment, Settings, State, Timestamps};

#[test]
fn rfc5961_reset_in_the_window_is_challenged_and_only_the_exact_number_resets() {
    let mut p = Peer::established(Settings::default(), plain(), MS);
    let mut reset = p.segment(Flags::RST, 1);
    reset.seq = reset.seq.wrapping_add(100);
    p.give(reset.clone());
    assert_eq!(p.connection.state(), State::Established);
    assert_eq!(acked(&p.one()), 1);
    reset.seq = reset.seq.wrapping_add(1_000_000);
    p.give(reset);
    p.none();
    let exact = p.segment(Flags::RST, 1);
    p.give(exact);
    assert_eq!(
        (p.connection.state(), p.connection.take_error()),
        (State::Closed, Some(Error::Reset))
    );
    p.none();
}

#[test]
fn rfc5961_syn_in_a_connection_is_challenged() {
    let mut p = Peer::established(Settings::default(), plain(), MS);
    let mut syn = p.segment(Flags::SYN, 1);
    syn.seq = syn.seq.wrapping_add(100);
    p.give(syn);
    assert_eq!(
        (p.one().flags, p.connection.state()),
        (Flags::ACK, State::Established)
    );
}

#[test]
fn rfc5961_acknowledgement_out_of_range_is_challenged_and_its_data_dropped() {
    let mut p = Peer::established(Settings::default(), plain(), MS);
    for ack in [5000, 1u32.wrapping_sub(100_000)] {
        let mut segment = p.segment(Flags::ACK, ack);
        segment.payload.push(Bytes::from_static(b"evil"));
        p.give(segment);
        assert_eq!(acked(&p.one()), 1);
    }
    assert_eq!(p.read(), 0);
}

#[test]
fn rfc5961_challenges_are_limited() {
    let mut p = Peer::established(Settings::default(), plain(), MS);
    let mut answers = 0;
    for i in 0..1000 {
        let mut reset = p.segment(Flags::RST, 1);
        reset.seq = reset.seq.wrapping_add(1 + i);
        p.give(reset);
        answers += p.out().len();
    }
    assert_eq!(answers, 10);
}

#[test]
fn two_confused_ends_do_not_answer_each_other_for_ever() {
    let mut a = Peer::established(Settings::default(), plain(), MS);
    let mut wrong = a.segment(Flags::ACK, 1);
    wrong.seq = wrong.seq.wrapping_sub(77);
    let mut answers = 0;
    for _ in 0..100 {
        a.give(wrong.clone());
        answers += a.out().len();
    }
    assert!(answers <= 10);
}

#[test]
fn rfc7323_paws_drops_old_duplicates_but_not_resets() {
    let mut p = Peer::established(Settings::default(), modern(), MS);
    p.data(100);
    p.out();
    p.read();
    let mut old = p.segment(Flags::ACK, 1);
    old.options.timestamps = Some(Timestamps {
        value: (p.now / MS) as u32 - 500,
        echo: p.echo,
    });
    old.payload.push(Bytes::from_static(b"old"));
    p.give(old.clone());
    assert_eq!(acked(&p.one()), 101, "it is answered");
    assert_eq!(p.read(), 0);
    // After 24 days of silence a timestamp says nothing.
    p.now += 25 * 24 * 3600 * SEC;
    p.give(old.clone());
    assert_eq!(p.read(), 3);
    old.flags = Flags::RST;
    old.seq = old.seq.wrapping_add(3);
    p.give(old);
    assert_eq!(p.connection.state(), State::Closed);
}

#[test]
fn rfc7323_segment_without_the_agreed_timestamp_is_dropped() {
    let mut p = Peer::established(Settings::default(), modern(), MS);
    p.stamps = false;
    p.data(100);
    assert_eq!(p.read(), 0);
}

#[test]
fn rfc7323_timestamp_of_a_segment_ahead_is_not_taken() {
    let mut p = Peer::established(Settings::default(), modern(), MS);
    p.now += 100 * MS;
    p.data_at(5001, 100);
    let echo = |s: &Segment| s.options.timestamps.map(|ts| ts.echo);
    let ack = p.one();
    assert_eq!(echo(&ack), Some((SEC / MS + 1) as u32));
    p.data(100);
    let ack = p.out().pop().expect("an acknowledgement");
    assert_eq!(echo(&ack), Some((p.now / MS) as u32));
}

/// The most memory that received data may take: twice the buffer, and a segment.
fn bound(buffer: usize) -> usize {
    2 * buffer + 4096 + 65536
}

#[test]
fn tiny_segments_in_order_take_bounded_memory() {
    let buffer = 64 << 10;
    let settings = Settings {
        recv_buffer: Buffer::fixed(buffer as u32),
        ..Settings::default()
    };
    let mut p = Peer::established(settings, plain(), MS);
    for _ in 0..200_000 {
        p.data(1);
        p.out();
        assert!(p.connection.info().rcv_memory <= bound(buffer));
    }
    assert!(p.read() > buffer - 1000, "nothing in the window is refused");
}

#[test]
fn tiny_segments_out_of_order_take_bounded_memory_and_the_stream_goes_on() {
    let buffer = 64 << 10;
    let settings = Settings {
        recv_buffer: Buffer::fixed(buffer as u32),
        ..Settings::default()
    };
    let mut p = Peer::established(settings, sack(), MS);
    for i in 0..30_000 {
        p.data_at(3 + 2 * i, 1);
        p.out();
        assert!(p.connection.info().rcv_memory <= bound(buffer));
    }
    for _ in 0..65 {
        p.data(1000);
        p.out();
    }
    assert_eq!(p.read(), 65_000);
}

#[test]
fn overlapping_segments_give_each_byte_once() {
    let mut p = Peer::established(Settings::default(), sack(), MS);
    for (seq, len) in [(501, 500), (301, 400), (1, 400), (200, 2000), (1, 2199)] {
        p.data_at(seq, len);
        p.out();
    }
    assert_eq!(p.read(), 2199);
}

#[test]
fn orphan_behind_a_shut_window_ends() {
    let mut p = Peer::established(Settings::default(), plain(), 10 * MS);
    p.window = 0;
    p.acknowledge(1);
    p.write(5000);
    p.connection.close(p.now);
    p.none();
    let start = p.now;
    while p.connection.state() != State::Closed {
        p.wait_for_timer();
        if !p.out().is_empty() {
            // It answers every probe, and never opens.
            p.acknowledge(1);
            p.out();
        }
    }
    assert!(p.now - start < 600 * SEC);
}

#[test]
fn acknowledging_byte_by_byte_grows_the_window_no_faster() {
    let mut p = Peer::established(Settings::default(), plain(), 10 * MS);
    p.write(10_000);
    p.out();
    p.now += 10 * MS;
    for i in 0..1000 {
        p.acknowledge(2 + i);
    }
    assert!(p.connection.info().snd_cwnd <= 11);
}

#[test]
fn sack_blocks_at_every_second_byte_split_nothing() {
    let mut p = Peer::established(Settings::default(), sack(), 10 * MS);
    p.write(10_000);
    p.out();
    for i in 0..2000 {
        p.sack(1, &[(1 + 2 * i, 2 + 2 * i), (5001 + 2 * i, 5002 + 2 * i)]);
    }
    assert_eq!(p.connection.info().sacked, 0);
}

#[test]
fn header_that_lies_is_refused() {
    let good = Segment {
        flags: Flags::ACK,
        options: modern_options(),
        ..Segment::default()
    };
    let mut bytes = vec![0; good.header_len()];
    good.emit_header(&mut bytes);
    assert_eq!(Segment::parse(bytes.clone().into()).as_ref(), Ok(&good));
    for len in 0..bytes.len() {
        assert_eq!(
            Segment::parse_header(&bytes[..len]).err(),
            Some(Malformed::Short)
        );
    }
    bytes[12] = 0x40;
    assert_eq!(
        Segment::parse_header(&bytes).err(),
        Some(Malformed::DataOffset)
    );
    let mut short = vec![0; 24];
    short[12] = 0x60;
    for option in [[2, 0, 0, 0], [2, 1, 0, 0], [8, 10, 0, 0], [1, 1, 1, 2]] {
        short[20..].copy_from_slice(&option);
        assert_eq!(
            Segment::parse_header(&short).err(),
            Some(Malformed::Option),
            "{option:?}"
        );
    }
    // A known option of the wrong length is skipped, an unknown one too.
    short[20..].copy_from_slice(&[2, 3, 9, 0]);
    assert_eq!(
        Segment::parse_header(&short).map(|(s, _)| s.options),
        Ok(Options::default())
    );
    short[20..].copy_from_slice(&[77, 4, 9, 9]);
    assert!(Segment::parse_header(&short).is_ok());
}

fn modern_options() -> Options {
    let mut options = Options {
        timestamps: Some(Timestamps { value: 1, echo: 2 }),
        ..Options::default()
    };
    (0..3).for_each(|i| options.sack.push(i, i + 10));
    options
}

#[test]
fn random_segments_do_no_harm() {
    for seed in 0..2000 {
        let mut rng = sim::Rng::new(seed);
        let mut p = match seed % 3 {
            0 => Peer::connecting(Settings::default()),
            1 => Peer::established(Settings::default(), sack(), MS),
            _ => Peer::established(Settings::default(), modern(), MS),
        };
        for _ in 0..100 {
            match rng.below(8) {
                0 => {
                    let _ = p
                        .connection
                        .send(&mut Bytes::from(vec![1; rng.below(3000) as usize]));
                }
                1 => {
                    p.read();
                }
                2 => p.wait(rng.below(2000) * MS),
                3 if rng.chance(50) => p.connection.shutdown(),
                4 if rng.chance(30) => p.connection.set_mss(p.now, rng.below(3000) as u32),
                _ => {
                    let near = |rng: &mut sim::Rng| {
                        (rng.below(40_000) as u32).wrapping_sub(if rng.chance(300) {
                            20_000
                        } else {
                            0
                        })
                    };
                    let mut segment = p.segment(
                        Flags::from_bits(if rng.chance(700) {
                            0x10
                        } else {
                            rng.below(256) as u8
                        }),
                        0,
                    );
                    segment.ack = ISS.wrapping_add(near(&mut rng) % 12_000);
                    segment.seq = IRS.wrapping_add(near(&mut rng) % 3000);
                    segment.window = rng.below(65536) as u16;
                    segment.urgent = rng.below(65536) as u16;
                    for _ in 0..rng.below(4) {
                        let left = ISS.wrapping_add(near(&mut rng) % 12_000);
                        segment
                            .options
                            .sack
                            .push(left, left.wrapping_add(rng.below(5000) as u32));
                    }
                    if rng.chance(500) {
                        segment
                            .payload
                            .push(Bytes::from(vec![9; rng.below(2000) as usize]));
                    }
                    p.give(segment);
                }
            }
            p.out();
            let info = p.connection.info();
            assert!(info.rcv_memory < 4 << 20, "seed {seed}");
            let ready = p.connection.readiness();
            assert!(ready.readable <= 6 << 20);
        }
    }
}

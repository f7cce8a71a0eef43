//! Data flow: when segments and acknowledgements leave, windows, probes, urgent data, settings.

mod peer;

use bytes::Bytes;
use peer::*;
use tcp::{Buffer, Error, Flags, KeepAlive, Segment, Settings, State};

fn lens(segments: &[Segment]) -> Vec<usize> {
    segments.iter().map(Segment::payload_len).collect()
}

fn nodelay() -> Settings {
    Settings {
        nodelay: true,
        ..Settings::default()
    }
}

#[test]
fn one_segment_carries_up_to_the_offload_limit() {
    let mut p = Peer::established(Settings::default(), plain(), MS);
    let data = Bytes::from(vec![1; 10_000]);
    p.connection.send(&mut data.clone()).unwrap();
    let segment = p.one();
    assert_eq!((segment.payload_len(), segment.gso_size), (10_000, 1000));
    assert_eq!(p.connection.info().data_segs_out, 10);
    assert_eq!(segment.payload[0].as_ptr(), data.as_ptr(), "by reference");
    let packets: Vec<Segment> = segment.packetize().collect();
    assert_eq!(lens(&packets), [1000; 10]);
    assert_eq!(
        packets.iter().map(|s| range(s).0).collect::<Vec<_>>(),
        (0..10).map(|i| 1 + i * 1000).collect::<Vec<_>>()
    );
    assert!(
        packets[..9].iter().all(|s| !s.flags.has(Flags::PSH)) && packets[9].flags.has(Flags::PSH)
    );
}

#[test]
fn without_offload_segments_are_packets() {
    let mut p = Peer::established(nodelay(), plain(), MS);
    p.gso = 1000;
    p.write(3500);
    let out = p.out();
    assert_eq!(lens(&out), [1000, 1000, 1000, 500]);
    assert!(out.iter().all(|s| s.gso_size == 0));
}

#[test]
fn rfc9293_nagle_holds_a_second_small_segment_until_the_first_is_acknowledged() {
    let mut p = Peer::established(Settings::default(), plain(), MS);
    p.write(10);
    p.one();
    p.write(10);
    p.none();
    p.write(10);
    p.acknowledge(11);
    assert_eq!(range(&p.one()), (11, 20));
}

#[test]
fn minshall_lets_a_small_tail_follow_full_segments() {
    let mut p = Peer::established(Settings::default(), plain(), MS);
    p.write(2500);
    assert_eq!(lens(&p.out()), [2500]);
    p.write(1000);
    assert_eq!(lens(&p.out()), [1000]);
    p.write(10);
    p.none();
}

#[test]
fn nodelay_sends_small_segments_at_once() {
    let mut p = Peer::established(nodelay(), plain(), MS);
    for _ in 0..3 {
        p.write(10);
        assert_eq!(lens(&p.out()), [10]);
    }
}

#[test]
fn cork_holds_what_is_not_full_for_200_ms() {
    let settings = Settings {
        cork: true,
        ..nodelay()
    };
    let mut p = Peer::established(settings, plain(), MS);
    p.write(1500);
    assert_eq!(lens(&p.out()), [1000]);
    p.acknowledge(1001);
    p.none();
    assert_eq!(p.wait_for_timer(), 200 * MS);
    assert_eq!(lens(&p.out()), [500]);
    p.write(10);
    p.none();
    p.connection.configure(p.now, |s| s.cork = false);
    assert_eq!(lens(&p.out()), [10]);
}

#[test]
fn first_segments_are_acknowledged_at_once_and_later_every_second_or_after_a_delay() {
    let mut p = Peer::established(Settings::default(), plain(), MS);
    for _ in 0..16 {
        p.data(1000);
        p.one();
        p.read();
    }
    p.data(1000);
    p.none();
    p.data(1000);
    assert_eq!(acked(&p.one()), 18_001);
    p.read();
    p.data(1000);
    p.none();
    let delay = p.wait_for_timer();
    assert!(delay <= 500 * MS, "RFC 9293, MUST-40: {delay}");
    assert_eq!(acked(&p.one()), 19_001);
}

#[test]
fn acknowledgement_goes_with_the_answer() {
    let mut p = Peer::established(nodelay(), plain(), MS);
    for i in 1..=20 {
        p.data(10);
        // At first the connection cannot know that an answer will come.
        let bare = p.out().len();
        p.read();
        p.write(10);
        let answer = p.one();
        assert_eq!((answer.payload_len(), acked(&answer)), (10, 1 + 10 * i));
        p.acknowledge(1 + 10 * i);
        assert!(bare == 0 || i <= 17, "round {i}");
    }
}

#[test]
fn quickack_acknowledges_what_waits_at_once() {
    let mut p = Peer::established(Settings::default(), plain(), MS);
    for _ in 0..17 {
        p.data(1000);
        p.out();
        p.read();
    }
    p.connection.configure(p.now, |s| s.quickack = true);
    p.one();
}

#[test]
fn rfc7323_window_is_scaled() {
    let settings = Settings {
        recv_buffer: Buffer::fixed(1 << 20),
        ..Settings::default()
    };
    let mut p = Peer::established(settings, modern(), MS);
    p.data(10);
    let ack = p.one();
    let scale = p.connection.info().rcv_wscale;
    assert_eq!(scale, 5);
    let window = u32::from(ack.window) << scale;
    assert!(window > 1_000_000 && window <= 1 << 20, "{window}");
    // The peer's scale is 7.
    p.window = 100;
    p.acknowledge(1);
    assert_eq!(p.connection.info().snd_wnd, 12_800);
}

#[test]
fn receiver_window_never_moves_left_and_opens_by_a_segment_at_least() {
    let settings = Settings {
        recv_buffer: Buffer::fixed(8000),
        ..Settings::default()
    };
    let mut p = Peer::established(settings, plain(), MS);
    let mut edge = 0;
    for _ in 0..8 {
        p.data(1000);
        for ack in p.out() {
            let right = acked(&ack) + u32::from(ack.window);
            assert!(right >= edge);
            edge = right;
        }
    }
    assert_eq!(edge, 8001);
    assert_eq!(p.connection.recv(p.now, 500).map(|d| d.len()), Some(500));
    // Half a segment is no reason to speak (RFC 9293 section 3.8.6.2.2).
    p.none();
    p.read();
    let update = p.one();
    assert_eq!((acked(&update), update.window), (8001, 8000));
}

#[test]
fn data_beyond_the_window_are_cut_off() {
    let settings = Settings {
        recv_buffer: Buffer::fixed(5000),
        ..Settings::default()
    };
    let mut p = Peer::established(settings, plain(), MS);
    p.data(5500);
    assert_eq!(acked(&p.one()), 5001);
    assert_eq!(p.read(), 5000);
}

#[test]
fn rfc9293_shut_window_is_probed_with_backoff_and_an_opening_goes_on() {
    let mut p = Peer::established(Settings::default(), plain(), 10 * MS);
    p.window = 0;
    p.acknowledge(1);
    p.write(5000);
    p.none();
    let mut waits = Vec::new();
    for _ in 0..4 {
        waits.push(p.wait_for_timer());
        let probe = p.one();
        assert_eq!(range(&probe), (0, 0), "in front of the window");
        p.acknowledge(1);
        p.none();
    }
    assert!(waits.windows(2).all(|w| w[1] == 2 * w[0]), "{waits:?}");
    p.window = 60_000;
    p.acknowledge(1);
    assert_eq!(lens(&p.out()), [5000]);
}

#[test]
fn silent_peer_behind_a_shut_window_times_out() {
    let mut p = Peer::established(Settings::default(), plain(), 10 * MS);
    p.window = 0;
    p.acknowledge(1);
    p.write(5000);
    p.none();
    let mut probes = 0;
    while p.connection.state() != State::Closed {
        p.wait_for_timer();
        probes += p.out().len();
        assert!(probes < 20);
    }
    assert_eq!(p.connection.take_error(), Some(Error::TimedOut));
}

#[test]
fn rfc9293_sender_avoids_silly_windows() {
    let mut p = Peer::established(nodelay(), plain(), MS);
    p.window = 100;
    p.acknowledge(1);
    p.write(5000);
    p.none();
    p.window = 1000;
    p.acknowledge(1);
    assert_eq!(lens(&p.out()), [1000]);
}

#[test]
fn small_window_of_a_small_peer_is_used() {
    let mut p = Peer::connecting(nodelay());
    p.window = 400;
    p.one();
    let mut syn_ack = p.segment(Flags::SYN | Flags::ACK, 1);
    syn_ack.options = plain();
    p.give(syn_ack);
    p.seq = 1;
    p.out();
    p.write(5000);
    assert_eq!(lens(&p.out()), [400]);
}

#[test]
fn window_update_from_an_old_segment_is_ignored() {
    let mut p = Peer::established(Settings::default(), plain(), MS);
    let mut old = p.segment(Flags::ACK, 1);
    p.data(100);
    old.window = 1;
    p.give(old);
    assert_eq!(p.connection.info().snd_wnd, 60_000);
}

#[test]
fn keepalive_probes_and_gives_up() {
    let settings = Settings {
        keepalive: KeepAlive {
            on: true,
            idle: 10 * SEC,
            interval: 2 * SEC,
            count: 3,
        },
        ..Settings::default()
    };
    let mut p = Peer::established(settings, plain(), MS);
    assert_eq!(p.wait_for_timer(), 10 * SEC);
    assert_eq!(range(&p.one()), (0, 0));
    p.acknowledge(1);
    // The answer begins the silence anew: the timer finds that out when it fires.
    while p.out().is_empty() {
        p.wait_for_timer();
    }
    for _ in 0..2 {
        assert_eq!(p.wait_for_timer(), 2 * SEC);
        p.one();
    }
    p.wait_for_timer();
    assert!(p.one().flags.has(Flags::RST));
    assert_eq!(p.connection.take_error(), Some(Error::TimedOut));
}

#[test]
fn keepalive_is_answered() {
    let mut p = Peer::established(Settings::default(), plain(), MS);
    let mut probe = p.segment(Flags::ACK, 1);
    probe.seq = probe.seq.wrapping_sub(1);
    p.give(probe);
    assert_eq!(acked(&p.one()), 1);
}

#[test]
fn user_timeout_ends_the_connection_when_it_says() {
    let settings = Settings {
        user_timeout: 3 * SEC,
        ..Settings::default()
    };
    let mut p = Peer::established(settings, plain(), 10 * MS);
    p.write(100);
    let start = p.now;
    while p.connection.state() != State::Closed {
        p.out();
        p.wait_for_timer();
    }
    assert_eq!(p.now - start, 3 * SEC);
    assert_eq!(p.connection.take_error(), Some(Error::TimedOut));
}

#[test]
fn rfc6093_urgent_byte_is_taken_out_of_the_stream() {
    let mut p = Peer::established(Settings::default(), plain(), MS);
    let mut segment = p.segment(Flags::ACK | Flags::URG, 1);
    segment.urgent = 3;
    segment.payload.push(Bytes::from_static(b"abCde"));
    p.give(segment);
    p.seq += 5;
    assert!(p.connection.readiness().urgent);
    assert_eq!(
        p.connection.recv(p.now, 100).as_deref(),
        Some(&b"ab"[..]),
        "a read stops at the mark"
    );
    assert!(p.connection.at_mark());
    assert_eq!(p.connection.recv_urgent(), Ok(b'C'));
    assert_eq!(p.connection.recv_urgent(), Err(Error::Absent));
    assert_eq!(p.connection.recv(p.now, 100).as_deref(), Some(&b"de"[..]));
    assert!(!p.connection.at_mark());
    p.data(3);
    assert_eq!(p.read(), 3);
}

#[test]
fn rfc6093_urgent_byte_may_stay_in_the_stream() {
    let settings = Settings {
        oob_inline: true,
        ..Settings::default()
    };
    let mut p = Peer::established(settings, plain(), MS);
    let mut segment = p.segment(Flags::ACK | Flags::URG, 1);
    segment.urgent = 2;
    segment.payload.push(Bytes::from_static(b"aBc"));
    p.give(segment);
    assert_eq!(p.connection.recv(p.now, 100).as_deref(), Some(&b"a"[..]));
    assert!(p.connection.at_mark());
    assert_eq!(p.connection.recv(p.now, 100).as_deref(), Some(&b"Bc"[..]));
}

#[test]
fn urgent_data_point_behind_the_byte() {
    let mut p = Peer::established(nodelay(), plain(), MS);
    p.write(10);
    p.connection
        .send_urgent(&mut Bytes::from_static(b"!"))
        .unwrap();
    let segment = p.one();
    assert_eq!((segment.flags.has(Flags::URG), segment.urgent), (true, 11));
    p.acknowledge(12);
    p.write(1);
    assert!(!p.one().flags.has(Flags::URG));
}

#[test]
fn peek_takes_nothing() {
    let mut p = Peer::established(Settings::default(), plain(), MS);
    p.data(300);
    p.data(200);
    let peeked: usize = p.connection.peek().map(|d| d.len()).sum();
    assert_eq!((peeked, p.read()), (500, 500));
}

#[test]
fn send_takes_what_the_buffer_has_room_for() {
    let settings = Settings {
        send_buffer: Buffer::fixed(10_000),
        ..Settings::default()
    };
    let mut p = Peer::established(settings, plain(), MS);
    let mut data = Bytes::from(vec![0; 15_000]);
    assert_eq!(p.connection.send(&mut data), Ok(10_000));
    assert_eq!(data.len(), 5000);
    assert_eq!(p.connection.readiness().writable, 0);
    p.out();
    p.acknowledge(10_001);
    assert_eq!(p.connection.send(&mut data), Ok(5000));
}

#[test]
fn notsent_lowat_bounds_what_waits_unsent() {
    let settings = Settings {
        notsent_lowat: 1000,
        ..Settings::default()
    };
    let mut p = Peer::established(settings, plain(), MS);
    p.write(20_000);
    p.out();
    assert_eq!(p.connection.unsent(), 10_000);
    assert_eq!(p.connection.readiness().writable, 0);
    p.acknowledge(10_001);
    p.out();
    assert!(p.connection.readiness().writable > 0);
}

#[test]
fn maxseg_is_announced_and_kept() {
    let settings = Settings {
        max_segment: 700,
        ..nodelay()
    };
    let mut p = Peer::connecting(settings.clone());
    assert_eq!(p.one().options.mss, Some(700));
    let mut p = Peer::established(settings, plain(), MS);
    p.gso = 0;
    p.write(2000);
    assert_eq!(lens(&p.out()), [700, 700, 600]);
}

#[test]
fn smaller_path_mtu_sends_again_what_was_too_large() {
    let mut p = Peer::established(nodelay(), sack(), MS);
    p.gso = 0;
    p.write(2000);
    assert_eq!(lens(&p.out()), [1000, 1000]);
    p.connection.set_mss(p.now, 600);
    let again = p.out();
    assert_eq!(lens(&again), [600, 600, 600, 200]);
    assert_eq!(range(&again[0]).0, 1);
    p.acknowledge(2001);
    let info = p.connection.info();
    assert_eq!(
        (info.ca_state, info.recoveries),
        (0, 0),
        "it was no congestion"
    );
    assert!(info.snd_cwnd >= 16, "{}", info.snd_cwnd);
}

#[test]
fn smaller_path_mtu_leaves_alone_what_fits() {
    let mut p = Peer::established(nodelay(), sack(), MS);
    p.gso = 0;
    p.write(300);
    p.out();
    p.connection.set_mss(p.now, 600);
    p.none();
}

#[test]
fn peer_that_shuts_its_window_over_what_is_on_the_way_does_not_time_out() {
    let mut p = Peer::established(nodelay(), plain(), 10 * MS);
    p.write(1000);
    p.out();
    p.window = 0;
    for _ in 0..30 {
        p.acknowledge(1);
        p.wait_for_timer();
        p.out();
        p.now += MS;
    }
    assert_eq!(p.connection.state(), State::Established);
    p.window = 1000;
    p.acknowledge(1001);
    assert_eq!(p.connection.unacknowledged(), 0);
}

#[test]
fn rfc4821_black_hole_is_met_with_smaller_segments() {
    let options = tcp::Options {
        mss: Some(1400),
        ..sack()
    };
    let mut p = Peer::established(nodelay(), options, 10 * MS);
    p.gso = 0;
    p.write(1400);
    p.out();
    let mut sizes = Vec::new();
    for _ in 0..5 {
        p.wait_for_timer();
        sizes.extend(p.out().first().map(Segment::payload_len));
    }
    assert!(sizes.contains(&1400) && sizes.contains(&1024), "{sizes:?}");
}

#[test]
fn sequence_numbers_wrap() {
    let mut p = Peer::established(nodelay(), plain(), MS);
    // More than 2^32 bytes one way, in large steps.
    let mut position: u64 = 1;
    p.window = 60_000;
    for _ in 0..80_000 {
        let sent = p.write(60_000) as u64;
        let out: u64 = p.out().iter().map(|s| s.payload_len() as u64).sum();
        assert!(sent == 60_000 || out > 0);
        position += out;
        p.now += MS;
        p.acknowledge(position as u32);
    }
    assert!(position > 1 << 32);
    assert_eq!(p.connection.info().bytes_acked, position - 1);
}

#[test]
fn receive_buffer_grows_with_what_a_round_trip_brings() {
    let mut p = Peer::established(Settings::default(), modern(), 10 * MS);
    let start = p.connection.info().rcv_space;
    let mut per_round = 20;
    for _ in 0..12 {
        for _ in 0..per_round {
            p.data(1000);
            p.out();
            p.read();
        }
        let window = p.connection.info().rcv_wnd as usize / 1000;
        per_round = (per_round * 2).min(window);
        p.now += 10 * MS;
    }
    assert!(
        p.connection.info().rcv_space > 4 * start,
        "{}",
        p.connection.info().rcv_space
    );
}

#[test]
fn send_buffer_grows_with_the_congestion_window() {
    let mut p = Peer::established(Settings::default(), modern(), 10 * MS);
    p.window = u16::MAX;
    let mut position = 1u64;
    for _ in 0..8 {
        while p.write(65536) == 65536 {}
        position += p.out().iter().map(|s| s.payload_len() as u64).sum::<u64>();
        p.now += 10 * MS;
        p.acknowledge(position as u32);
    }
    assert!(
        p.connection.info().snd_cwnd > 1000,
        "{}",
        p.connection.info().snd_cwnd
    );
    let writable = p.connection.readiness().writable;
    assert!(writable > 1 << 20, "{writable}");
}

#[test]
fn rfc5681_window_is_restarted_after_idling() {
    let mut p = Peer::established(Settings::default(), modern(), 10 * MS);
    let mut position = 1;
    for _ in 0..4 {
        p.write(65_000);
        position += p.out().iter().map(Segment::payload_len).sum::<usize>();
        p.now += 10 * MS;
        p.acknowledge(position as u32);
    }
    let before = p.connection.info().snd_cwnd;
    p.wait(60 * SEC);
    p.write(60_000);
    p.out();
    assert!(
        before > 30 && p.connection.info().snd_cwnd <= 15,
        "{before} {}",
        p.connection.info().snd_cwnd
    );
}

#[test]
fn segments_grow_while_acknowledgements_are_soon_to_come() {
    let mut p = Peer::established(Settings::default(), sack(), MS);
    p.write(60_000);
    p.write(60_000);
    assert_eq!(lens(&p.out()), [10_000]);
    p.now += MS / 2;
    let mut sizes = Vec::new();
    for i in 1..=10 {
        p.now += MS / 20;
        p.acknowledge(1 + 1000 * i);
        sizes.extend(lens(&p.out()));
    }
    assert!(
        sizes.iter().all(|&len| len >= 3000) && sizes.iter().sum::<usize>() >= 15_000,
        "{sizes:?}"
    );
}

#[test]
fn clock_that_is_read_in_another_order_does_no_harm() {
    let mut p = Peer::established(nodelay(), sack(), MS);
    for i in 0..100 {
        p.now = 2 * SEC + (i * 37 % 50) * MS;
        p.data(100);
        p.write(100);
        p.out();
        p.read();
        p.acknowledge(1 + 100 * (i as u32 + 1));
        p.wait(0);
    }
    assert_eq!(p.connection.state(), State::Established);
    assert_eq!(p.connection.info().bytes_received, 10_000);
}

#[test]
fn cork_holds_the_next_piece_as_long_as_the_first() {
    let settings = Settings {
        cork: true,
        ..Settings::default()
    };
    let mut p = Peer::established(settings, plain(), MS);
    p.write(500);
    p.none();
    p.wait(100 * MS);
    p.write(500);
    assert_eq!(lens(&p.out()), [1000]);
    p.acknowledge(1001);
    p.wait(100 * MS);
    p.write(500);
    p.none();
    assert_eq!(p.wait_for_timer(), 200 * MS);
}

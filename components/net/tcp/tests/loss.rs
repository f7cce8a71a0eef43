//! Loss: how it is found, what is sent again, and what becomes of the window.

mod peer;

use peer::*;
use tcp::{Ecn, Flags, Offer, Options, Segment, Settings, Timestamps};

/// An established connection that has sent `segments` of 1000 bytes, each its own; the round trip is 100 ms.
fn sent(settings: Settings, options: Options, segments: usize) -> Peer {
    let mut p = Peer::established(settings, options, 100 * MS);
    p.gso = 0;
    p.write(segments * full(&p));
    assert_eq!(p.out().len(), segments);
    p
}

/// Payload of a full segment.
fn full(p: &Peer) -> usize {
    p.connection.info().snd_mss as usize
}

fn starts(segments: &[Segment]) -> Vec<u32> {
    segments.iter().map(|s| range(s).0).collect()
}

fn reno() -> Settings {
    Settings {
        congestion: "reno",
        ..Settings::default()
    }
}

#[test]
fn rfc5681_three_duplicates_send_the_first_segment_again() {
    let mut p = sent(reno(), plain(), 10);
    p.now += 100 * MS;
    p.acknowledge(1);
    p.acknowledge(1);
    p.none();
    p.acknowledge(1);
    assert_eq!(range(&p.one()), (1, 1000));
    let info = p.connection.info();
    assert_eq!((info.ca_state, info.snd_ssthresh), (3, 5));
}

#[test]
fn rfc3042_first_two_duplicates_let_new_segments_go() {
    let mut p = sent(reno(), plain(), 10);
    p.write(5000);
    p.none();
    p.acknowledge(1);
    assert_eq!(starts(&p.out()), [10_001]);
    p.acknowledge(1);
    assert_eq!(starts(&p.out()), [11_001]);
    assert_eq!(
        p.connection.info().snd_cwnd,
        10,
        "and the window is as it was"
    );
}

#[test]
fn rfc6582_partial_acknowledgement_sends_the_next_hole() {
    let mut p = sent(reno(), plain(), 10);
    (0..3).for_each(|_| p.acknowledge(1));
    p.one();
    p.now += 100 * MS;
    p.acknowledge(3001);
    assert_eq!(starts(&p.out())[0], 3001);
    p.now += 100 * MS;
    p.acknowledge(10_001);
    let info = p.connection.info();
    assert_eq!((info.ca_state, info.snd_cwnd), (0, 5));
}

#[test]
fn window_updates_are_no_duplicates() {
    let mut p = sent(reno(), plain(), 10);
    for i in 0..5 {
        p.window = 50_000 + i * 1000;
        p.acknowledge(1);
    }
    p.none();
}

#[test]
fn rfc2018_receiver_reports_what_it_has_newest_first() {
    let mut p = Peer::established(Settings::default(), sack(), MS);
    p.data_at(1001, 100);
    p.data_at(3001, 100);
    p.data_at(2001, 100);
    let ack = p.out().pop().expect("an acknowledgement");
    let blocks: Vec<(u32, u32)> = ack
        .options
        .sack
        .as_slice()
        .iter()
        .map(|(l, r)| (l - IRS, r - IRS))
        .collect();
    assert_eq!(
        (acked(&ack), blocks),
        (1, vec![(2001, 2101), (3001, 3101), (1001, 1101)])
    );
    p.data(1000);
    let ack = p.out().pop().expect("an acknowledgement");
    assert_eq!((acked(&ack), ack.options.sack.as_slice().len()), (1101, 2));
    assert_eq!(p.read(), 1100);
}

#[test]
fn rfc2883_receiver_reports_duplicates_first() {
    let mut p = Peer::established(Settings::default(), sack(), MS);
    p.data(1000);
    p.out();
    p.data_at(1, 1000);
    let ack = p.one();
    assert_eq!(ack.options.sack.as_slice(), [(IRS + 1, IRS + 1001)]);
    // Told once.
    p.data(10);
    assert!(p.one().options.sack.is_empty());
    p.data_at(5001, 100);
    p.out();
    p.data_at(5001, 100);
    let ack = p.one();
    assert_eq!(ack.options.sack.as_slice(), [(IRS + 5001, IRS + 5101); 2]);
}

#[test]
fn rfc6675_sacked_segments_tell_the_losses() {
    let mut p = sent(Settings::default(), sack(), 10);
    p.now += 100 * MS;
    p.sack(1, &[(2001, 3001)]);
    p.none();
    p.sack(1, &[(2001, 4001)]);
    p.sack(1, &[(2001, 5001)]);
    assert_eq!(starts(&p.out()), [1, 1001]);
    p.now += 100 * MS;
    p.sack(10_001, &[]);
    p.none();
    assert_eq!(p.connection.info().ca_state, 0);
}

#[test]
fn rfc8985_lost_retransmission_is_found_by_what_was_sent_after_it() {
    let mut p = sent(Settings::default(), sack(), 10);
    p.now += 100 * MS;
    p.write(10_000);
    p.sack(1, &[(1001, 5001)]);
    let first = p.out();
    assert_eq!(starts(&first)[0], 1);
    p.now += MS;
    p.sack(1, &[(1001, 10_001)]);
    let new = p.out();
    assert!(
        starts(&new).iter().all(|&s| s > 10_000) && !new.is_empty(),
        "{new:?}"
    );
    p.now += 101 * MS;
    let end = range(&new[0]).0 + 1000;
    p.sack(1, &[(1001, end)]);
    p.wait(30 * MS);
    assert!(starts(&p.out()).contains(&1), "no timeout was needed");
    assert_eq!(p.connection.info().timeouts, 0);
}

#[test]
fn rfc8985_reordering_within_a_quarter_round_trip_is_no_loss() {
    let mut p = sent(Settings::default(), sack(), 10);
    p.now += 100 * MS;
    // The first arrives late, but it arrives: from now on reordering is known.
    p.sack(1, &[(1001, 3001)]);
    p.sack(3001, &[]);
    assert!(p.connection.info().reordering);
    p.sack(3001, &[(4001, 7001)]);
    p.none();
    p.now += 20 * MS;
    p.sack(8001, &[]);
    p.none();
    assert_eq!(p.connection.info().recoveries, 0);
    // Longer than that it is one: the timer says so.
    p.sack(8001, &[(9001, 10_001)]);
    p.none();
    let wait = p.wait_for_timer();
    assert!(wait <= 25 * MS, "{wait}");
    assert_eq!(starts(&p.out()), [8001]);
}

#[test]
fn rfc8985_tail_loss_probe_finds_a_lost_tail_before_the_timeout() {
    let mut p = sent(Settings::default(), sack(), 3);
    let wait = p.wait_for_timer();
    assert!(wait < p.connection.info().rto, "{wait}");
    assert_eq!(starts(&p.out()), [2001], "the last segment again");
    p.now += 100 * MS;
    p.sack(1, &[(2001, 3001)]);
    p.wait(30 * MS);
    let again = p.out();
    assert_eq!(starts(&again), [1, 1001]);
    assert_eq!(p.connection.info().timeouts, 0);
}

#[test]
fn rfc8985_tail_loss_probe_prefers_new_data() {
    let mut p = sent(Settings::default(), sack(), 10);
    p.write(1000);
    p.none();
    p.wait_for_timer();
    assert_eq!(starts(&p.out()), [10_001]);
}

#[test]
fn rfc8985_probe_that_repaired_a_loss_is_congestion_and_one_that_did_not_is_none() {
    for dsack in [false, true] {
        let mut p = sent(Settings::default(), sack(), 4);
        p.wait_for_timer();
        assert_eq!(starts(&p.out()), [3001]);
        p.now += 100 * MS;
        if dsack {
            p.sack(4001, &[(3001, 4001)]);
        } else {
            p.acknowledge(4001);
        }
        p.write(1000);
        p.out();
        p.now += 100 * MS;
        p.acknowledge(5001);
        let info = p.connection.info();
        assert_eq!(info.snd_ssthresh < 100, !dsack, "{info:?}");
    }
}

#[test]
fn rfc6298_timeout_sends_one_segment_and_doubles() {
    let mut p = sent(Settings::default(), plain(), 10);
    let wait = p.wait_for_timer();
    assert_eq!(wait, 300 * MS, "srtt 100 ms, four variances of 50 ms each");
    assert_eq!(starts(&p.out()), [1]);
    assert_eq!(p.wait_for_timer(), 600 * MS);
    assert_eq!(starts(&p.out()), [1]);
    assert_eq!(p.connection.info().ca_state, 4);
    p.acknowledge(1001);
    // Slow start over the rest.
    assert_eq!(starts(&p.out()), [1001, 2001]);
}

#[test]
fn rfc6298_round_trip_of_a_retransmission_is_no_sample_without_timestamps() {
    let mut p = sent(Settings::default(), plain(), 1);
    let rtt = p.connection.info().rtt;
    p.wait_for_timer();
    p.out();
    p.now += MS;
    p.acknowledge(1001);
    assert_eq!(p.connection.info().rtt, rtt);
}

#[test]
fn rfc7323_round_trip_of_a_retransmission_is_a_sample_with_timestamps() {
    let mut p = sent(Settings::default(), modern(), 1);
    let len = full(&p) as u32;
    p.wait_for_timer();
    p.out();
    p.wait_for_timer();
    p.out();
    p.now += 10 * MS;
    let rtt = p.connection.info().rtt;
    p.acknowledge(1 + len);
    assert!(p.connection.info().rtt < rtt);
}

#[test]
fn rfc5682_spurious_timeout_is_found_without_timestamps_and_undone() {
    let mut p = sent(Settings::default(), plain(), 10);
    let cwnd = p.connection.info().snd_cwnd;
    p.wait_for_timer();
    assert_eq!(starts(&p.out()), [1]);
    assert_eq!(p.connection.info().snd_cwnd, 1);
    // The originals were only late: the first acknowledgement is for what was sent again, the next for what was not.
    p.acknowledge(1001);
    assert_eq!(p.connection.info().undone, 0);
    p.acknowledge(3001);
    let info = p.connection.info();
    assert_eq!((info.undone, info.ca_state), (1, 0));
    assert!(info.snd_cwnd >= cwnd);
}

#[test]
fn rfc3522_spurious_retransmission_is_found_by_timestamps_and_undone() {
    let mut p = Peer::established(Settings::default(), modern(), 100 * MS);
    p.gso = 0;
    let len = full(&p) as u32;
    p.write(10 * len as usize);
    p.out();
    let original = p.echo;
    let cwnd = p.connection.info().snd_cwnd;
    p.wait_for_timer();
    p.out();
    while p.connection.info().timeouts == 0 {
        p.wait_for_timer();
        p.out();
    }
    // The acknowledgement echoes the original's time.
    p.echo = original;
    p.acknowledge(1 + 2 * len);
    let info = p.connection.info();
    assert_eq!((info.undone, info.ca_state), (1, 0));
    assert!(info.snd_cwnd >= cwnd && info.snd_ssthresh >= cwnd);
}

#[test]
fn rfc3708_retransmissions_that_all_arrive_twice_are_undone() {
    let mut p = sent(Settings::default(), sack(), 10);
    p.now += 100 * MS;
    p.sack(1, &[(1001, 5001)]);
    assert_eq!(starts(&p.out()), [1]);
    p.now += 5 * MS;
    // The original arrives, and later its repetition, while others are still on the way.
    p.sack(5001, &[]);
    p.now += 95 * MS;
    p.sack(5001, &[(1, 1001)]);
    let info = p.connection.info();
    assert_eq!((info.undone, info.ca_state), (1, 0));
    assert_eq!(info.snd_ssthresh, u32::MAX);
}

#[test]
fn rfc2018_reneging_receiver_gets_everything_again() {
    let mut p = sent(Settings::default(), sack(), 4);
    p.now += 100 * MS;
    p.sack(1, &[(1001, 4001)]);
    p.out();
    p.now += 10 * MS;
    // Acknowledges up to what it had, and that not: it has dropped it.
    p.acknowledge(1001);
    p.out();
    let mut again = Vec::new();
    for _ in 0..20 {
        if p.connection.next_deadline().is_none() {
            break;
        }
        p.wait_for_timer();
        for segment in p.out() {
            let (start, len) = range(&segment);
            again.push(start);
            p.now += MS;
            p.acknowledge(start + len as u32);
            let _ = segment;
        }
    }
    assert!(
        [1001, 2001, 3001].iter().all(|s| again.contains(s)),
        "{again:?}"
    );
}

#[test]
fn sack_of_what_was_never_sent_is_ignored() {
    let mut p = sent(Settings::default(), sack(), 4);
    p.sack(1, &[(10_000, 20_000), (4001, 5001), (0, 1)]);
    p.sack(1, &[(3001, 2001)]);
    let info = p.connection.info();
    assert_eq!((info.sacked, info.lost), (0, 0));
}

#[test]
fn rfc6937_recovery_sends_in_proportion_to_what_arrives() {
    let mut p = sent(reno(), sack(), 10);
    p.write(20_000);
    p.now += 100 * MS;
    p.sack(1, &[(1001, 4001)]);
    let mut sent = p.out().len();
    for i in 4..10 {
        p.now += MS;
        p.sack(1, &[(1001, i * 1000 + 1001)]);
        let burst = p.out().len();
        assert!(burst <= 2, "no bursts: {burst}");
        sent += burst;
    }
    // Half of what was on the way when the loss was found.
    assert!((4..=6).contains(&sent), "{sent}");
}

#[test]
fn window_falls_once_for_the_losses_of_a_round_trip() {
    let mut p = sent(reno(), sack(), 10);
    p.now += 100 * MS;
    p.sack(1, &[(1001, 4001)]);
    p.out();
    let ssthresh = p.connection.info().snd_ssthresh;
    p.now += MS;
    p.sack(1, &[(5001, 10_001), (1001, 4001)]);
    p.out();
    let info = p.connection.info();
    assert_eq!((info.snd_ssthresh, info.recoveries), (ssthresh, 1));
}

fn ecn() -> Settings {
    let settings = Settings::default();
    Settings {
        offer: Offer {
            ecn: true,
            ..settings.offer
        },
        ..settings
    }
}

/// An established connection that speaks ECN.
fn with_ecn() -> Peer {
    let mut p = Peer::connecting(ecn());
    assert_eq!(p.one().flags, Flags::SYN | Flags::ECE | Flags::CWR);
    p.now += 100 * MS;
    let mut syn_ack = p.segment(Flags::SYN | Flags::ACK | Flags::ECE, 1);
    syn_ack.options = sack();
    p.give(syn_ack);
    (p.seq, p.ack) = (1, 1);
    p.one();
    assert!(p.connection.info().ecn);
    p
}

#[test]
fn rfc3168_marks_are_echoed_until_the_peer_has_slowed_down() {
    let mut p = with_ecn();
    let mut marked = p.segment(Flags::ACK, 1);
    marked.ecn = Ecn::Ce;
    marked.payload.push(vec![0; 100].into());
    p.seq += 100;
    p.give(marked);
    assert!(p.one().flags.has(Flags::ECE));
    p.data(100);
    assert!(p.one().flags.has(Flags::ECE));
    let mut slowed = p.segment(Flags::ACK | Flags::CWR, 1);
    slowed.payload.push(vec![0; 100].into());
    p.give(slowed);
    assert!(!p.one().flags.has(Flags::ECE));
}

#[test]
fn rfc3168_echo_lowers_the_window_once_a_round_trip() {
    let mut p = with_ecn();
    p.gso = 0;
    p.write(20_000);
    let first = p.out();
    assert!(first.iter().all(|s| s.ecn == Ecn::Ect0));
    for i in 1..=5 {
        p.now += 20 * MS;
        let echo = p.segment(Flags::ACK | Flags::ECE, 1 + i * 1000);
        p.give(echo);
    }
    let info = p.connection.info();
    assert_eq!((info.ca_state, info.snd_ssthresh), (2, 7));
    let next = p.out();
    assert_eq!(next.iter().filter(|s| s.flags.has(Flags::CWR)).count(), 1);
    assert_eq!(info.retrans, 0);
}

#[test]
fn rfc3168_retransmissions_and_bare_acknowledgements_are_not_marked_capable() {
    let mut p = with_ecn();
    p.write(1000);
    p.out();
    p.data(10);
    assert_eq!(p.one().ecn, Ecn::NotEct);
    while p.connection.info().timeouts == 0 {
        p.wait_for_timer();
        assert!(p.out().iter().all(|s| s.ecn == Ecn::NotEct));
    }
}

#[test]
fn old_timestamps_do_not_confuse_the_measure() {
    let mut p = sent(Settings::default(), modern(), 2);
    let len = full(&p) as u32;
    p.now += 100 * MS;
    let mut ack = p.segment(Flags::ACK, 1 + len);
    ack.options.timestamps = Some(Timestamps {
        value: (p.now / MS) as u32,
        echo: p.echo.wrapping_add(1 << 30),
    });
    p.give(ack);
    assert!(p.connection.info().rtt < SEC);
}

#[test]
fn rfc6298_what_waited_for_a_retransmission_is_no_sample() {
    let mut p = sent(Settings::default(), plain(), 3);
    let rtt = p.connection.info().rtt;
    for _ in 0..4 {
        p.wait_for_timer();
        p.out();
    }
    p.acknowledge(3001);
    assert_eq!(p.connection.info().rtt, rtt);
}

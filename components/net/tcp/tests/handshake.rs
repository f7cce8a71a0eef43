//! Opening and closing, by RFC 9293.

mod peer;

use peer::*;
use tcp::{Error, Flags, Options, Segment, Settings, State};

#[test]
fn rfc9293_active_open_offers_everything() {
    let mut p = Peer::connecting(Settings::default());
    let syn = p.one();
    assert_eq!(
        (syn.flags, syn.seq, syn.payload_len()),
        (Flags::SYN, ISS, 0)
    );
    let Options {
        mss,
        window_scale,
        sack_permitted,
        timestamps,
        ..
    } = syn.options;
    assert_eq!(
        (mss, window_scale, sack_permitted),
        (Some(1460), Some(7), true)
    );
    assert!(timestamps.is_some());
    assert!(syn.header_len() <= 60);
}

#[test]
fn rfc9293_syn_is_sent_again_with_backoff_until_it_times_out() {
    let mut p = Peer::connecting(Settings::default());
    let first = p.one();
    let mut waits = Vec::new();
    while p.connection.state() == State::SynSent {
        waits.push(p.wait_for_timer() / SEC);
        if let Some(again) = p.out().first() {
            assert_eq!(again.seq, first.seq);
        }
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64]);
    assert_eq!(p.connection.take_error(), Some(Error::TimedOut));
    assert_eq!(p.connection.next_deadline(), None);
}

#[test]
fn rfc9293_reset_refuses_an_open_only_if_it_acknowledges_the_syn() {
    let mut p = Peer::connecting(Settings::default());
    p.one();
    let unacceptable = p.segment(Flags::RST | Flags::ACK, 7);
    p.give(unacceptable);
    let without = p.segment(Flags::RST, 1);
    p.give(without);
    assert_eq!(p.connection.state(), State::SynSent);
    let good = p.segment(Flags::RST | Flags::ACK, 1);
    p.give(good);
    assert_eq!(
        (p.connection.state(), p.connection.take_error()),
        (State::Closed, Some(Error::Refused))
    );
}

#[test]
fn rfc9293_old_acknowledgement_in_syn_sent_is_answered_with_a_reset() {
    let mut p = Peer::connecting(Settings::default());
    p.one();
    let old = p.segment(Flags::SYN | Flags::ACK, 77);
    p.give(old);
    let reset = p.one();
    assert_eq!((reset.flags, reset.seq), (Flags::RST, ISS + 77));
    assert_eq!(p.connection.state(), State::SynSent);
}

#[test]
fn rfc9293_simultaneous_open_establishes() {
    let mut p = Peer::connecting(Settings::default());
    p.one();
    let mut syn = p.segment(Flags::SYN, 0);
    syn.options = sack();
    p.give(syn);
    assert_eq!(p.connection.state(), State::SynReceived);
    let syn_ack = p.one();
    assert_eq!(
        (syn_ack.flags, syn_ack.seq, acked(&syn_ack)),
        (Flags::SYN | Flags::ACK, ISS, 1)
    );
    let mut theirs = p.segment(Flags::SYN | Flags::ACK, 1);
    theirs.options = sack();
    p.give(theirs);
    assert_eq!(p.connection.state(), State::Established);
}

#[test]
fn rfc9293_missing_mss_option_means_536() {
    let mut p = Peer::established(Settings::default(), Options::default(), MS);
    p.gso = 0;
    p.write(3000);
    assert!(p.out().iter().all(|s| s.payload_len() <= 536));
}

#[test]
fn rfc9293_what_the_peer_did_not_offer_is_not_used() {
    let mut p = Peer::established(Settings::default(), plain(), MS);
    p.data_at(2001, 100);
    let ack = p.one();
    assert_eq!(ack.options, Options::default());
    let info = p.connection.info();
    assert!(!info.sack && !info.timestamps && !info.window_scaling && info.rcv_wscale == 0);
}

#[test]
fn rfc6928_initial_window_is_ten_segments() {
    let mut p = Peer::established(Settings::default(), plain(), MS);
    p.write(60_000);
    let sent: usize = p.out().iter().map(Segment::payload_len).sum();
    assert_eq!(sent, 10_000);
}

#[test]
fn rfc6928_lost_syn_means_a_window_of_one_segment() {
    let mut p = Peer::connecting(Settings::default());
    p.one();
    p.wait_for_timer();
    p.one();
    let mut syn_ack = p.segment(Flags::SYN | Flags::ACK, 1);
    syn_ack.options = plain();
    p.give(syn_ack);
    p.write(10_000);
    let sent: usize = p.out().iter().map(Segment::payload_len).sum();
    assert_eq!(sent, 1000);
    // RFC 6298 section 5.7.
    assert_eq!(p.connection.info().rto, 3 * SEC);
}

#[test]
fn rfc9293_half_closed_connection_still_receives() {
    let mut p = Peer::established(Settings::default(), plain(), MS);
    p.connection.shutdown();
    assert_eq!(p.one().flags, Flags::FIN | Flags::ACK);
    assert_eq!(p.connection.state(), State::FinWait1);
    p.acknowledge(2);
    assert_eq!(p.connection.state(), State::FinWait2);
    p.data(500);
    assert_eq!(p.read(), 500);
    p.out();
    p.fin();
    assert_eq!(p.connection.state(), State::TimeWait);
    assert_eq!(acked(&p.one()), 502);
    assert!(p.connection.readiness().eof);
    p.wait(60 * SEC);
    assert_eq!(
        (p.connection.state(), p.connection.take_error()),
        (State::Closed, None)
    );
}

#[test]
fn rfc9293_passive_close_goes_through_close_wait_and_last_ack() {
    let mut p = Peer::established(Settings::default(), plain(), MS);
    p.data(10);
    p.fin();
    assert_eq!(p.connection.state(), State::CloseWait);
    assert_eq!(acked(&p.one()), 12);
    assert_eq!(p.read(), 10);
    p.write(20);
    p.connection.shutdown();
    assert_eq!(p.connection.state(), State::LastAck);
    let last = p.one();
    assert_eq!(
        (last.flags, last.payload_len()),
        (Flags::FIN | Flags::ACK | Flags::PSH, 20)
    );
    p.acknowledge(22);
    assert_eq!(
        (p.connection.state(), p.connection.take_error()),
        (State::Closed, None)
    );
}

#[test]
fn rfc9293_simultaneous_close_goes_through_closing() {
    let mut p = Peer::established(Settings::default(), plain(), MS);
    p.connection.shutdown();
    p.one();
    p.fin();
    assert_eq!(p.connection.state(), State::Closing);
    p.acknowledge(2);
    assert_eq!(p.connection.state(), State::TimeWait);
}

#[test]
fn rfc9293_fin_that_acknowledges_ours_goes_straight_to_time_wait() {
    let mut p = Peer::established(Settings::default(), plain(), MS);
    p.connection.shutdown();
    p.one();
    p.ack = 2;
    p.fin();
    assert_eq!(p.connection.state(), State::TimeWait);
}

#[test]
fn rfc9293_repeated_fin_is_acknowledged_again_and_begins_time_wait_anew() {
    let mut p = Peer::established(Settings::default(), plain(), MS);
    p.connection.shutdown();
    p.one();
    p.ack = 2;
    p.fin();
    p.one();
    p.wait(40 * SEC);
    p.seq -= 1;
    p.fin();
    assert_eq!(acked(&p.one()), 2);
    p.wait(40 * SEC);
    assert_eq!(p.connection.state(), State::TimeWait);
}

#[test]
fn rfc9293_fin_is_sent_again_when_it_is_lost() {
    let mut p = Peer::established(Settings::default(), plain(), MS);
    p.write(100);
    p.connection.shutdown();
    let first = p.one();
    p.wait_for_timer();
    let again = p.one();
    assert_eq!((range(&again), again.flags), (range(&first), first.flags));
}

#[test]
fn rfc2525_close_with_unread_data_resets() {
    let mut p = Peer::established(Settings::default(), plain(), MS);
    p.data(10);
    p.out();
    p.connection.close(p.now);
    assert!(p.one().flags.has(Flags::RST));
    assert_eq!(p.connection.state(), State::Closed);
}

#[test]
fn rfc9293_data_for_a_closed_user_reset() {
    let mut p = Peer::established(Settings::default(), plain(), MS);
    p.connection.close(p.now);
    p.one();
    p.acknowledge(2);
    p.data(10);
    let reset = p.one();
    assert_eq!((reset.flags.has(Flags::RST), reset.seq), (true, ISS + 2));
}

#[test]
fn orphan_does_not_wait_for_ever_for_a_fin() {
    let mut p = Peer::established(Settings::default(), plain(), MS);
    p.connection.close(p.now);
    p.one();
    p.acknowledge(2);
    assert_eq!(p.connection.state(), State::FinWait2);
    p.wait(60 * SEC);
    assert_eq!(p.connection.state(), State::Closed);
}

#[test]
fn abort_resets_and_keeps_nothing() {
    let mut p = Peer::established(Settings::default(), plain(), MS);
    p.write(5000);
    p.connection.abort();
    let reset = p.one();
    assert_eq!(reset.flags, Flags::RST | Flags::ACK);
    assert_eq!(p.connection.unacknowledged(), 0);
    assert_eq!(p.connection.next_deadline(), None);
}

#[test]
fn send_after_shutdown_is_refused() {
    let mut p = Peer::established(Settings::default(), plain(), MS);
    p.connection.shutdown();
    assert_eq!(
        p.connection.send(&mut bytes::Bytes::from_static(b"x")),
        Err(Error::Closed)
    );
}

#[test]
fn rfc5461_unreachable_ends_a_handshake_and_only_colours_a_later_timeout() {
    let mut p = Peer::connecting(Settings::default());
    p.one();
    assert!(p.connection.is_in_flight(ISS) && !p.connection.is_in_flight(ISS + 1));
    p.connection.unreachable(113);
    assert_eq!(p.connection.take_error(), Some(Error::Unreachable(113)));

    let mut p = Peer::established(Settings::default(), plain(), MS);
    p.write(10);
    p.connection.unreachable(113);
    assert_eq!(p.connection.state(), State::Established);
    while p.connection.state() != State::Closed {
        p.out();
        p.wait_for_timer();
    }
    assert_eq!(p.connection.take_error(), Some(Error::Unreachable(113)));
}

#[test]
fn idle_connection_is_at_most_360_bytes_and_time_wait_100() {
    assert!(
        size_of::<tcp::Connection>() <= 360,
        "{}",
        size_of::<tcp::Connection>()
    );
    assert!(size_of::<tcp::TimeWait>() < 100);
    let p = Peer::established(Settings::default(), modern(), MS);
    assert_eq!(
        p.connection.next_deadline(),
        None,
        "an idle connection has no timer"
    );
}

#[test]
fn silent_connection_gives_back_its_memory_and_goes_on_where_it_was() {
    let mut p = Peer::established(Settings::default(), modern(), MS);
    assert!(p.connection.is_at_rest(), "it has carried nothing yet");
    p.write(20_000);
    while p.connection.unacknowledged() > 0 {
        let sent = p.out();
        let last = sent.last().expect("a segment");
        p.acknowledge(range(last).0 + range(last).1 as u32);
        p.wait(MS);
    }
    p.data(100);
    assert_eq!(p.read(), 100);
    p.out();
    let before = p.connection.info();
    assert!(!p.connection.is_at_rest());
    while p.connection.next_deadline().is_some() {
        p.wait_for_timer();
        p.none();
    }
    assert!(p.connection.is_at_rest());
    let after = p.connection.info();
    assert_eq!(
        (after.rtt, after.min_rtt, after.snd_cwnd, after.bytes_acked),
        (before.rtt, before.min_rtt, before.snd_cwnd, 20_000)
    );
    p.write(10);
    assert_eq!(range(&p.one()), (20_001, 10));
    p.data(5);
    assert_eq!(p.read(), 5);
}

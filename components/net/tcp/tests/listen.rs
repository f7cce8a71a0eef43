//! Listening, fast open, and TIME-WAIT.

mod peer;

use bytes::Bytes;
use peer::{MS, SEC, modern, plain};
use tcp::{
    Accepted, Connection, Cookie, Flags, Key, Offer, Open, Options, Segment, Settings, State,
    SynCache, SynLimits, SynReply, TimeWaitReply, Timestamps, Tuple,
};

fn tuple(port: u16) -> Tuple {
    Tuple {
        local: ([10, 0, 0, 2], 80).into(),
        remote: ([10, 0, 0, 1], port).into(),
    }
}

fn cache(entries: usize) -> SynCache {
    let limits = SynLimits {
        entries,
        ..SynLimits::default()
    };
    SynCache::new(Key([5, 6]), limits)
}

fn syn(port: u16, options: Options) -> Segment {
    Segment {
        src_port: port,
        dst_port: 80,
        seq: 7000,
        flags: Flags::SYN,
        window: 50_000,
        options,
        ..Segment::default()
    }
}

/// What the peer answers to `syn_ack`.
fn ack(syn: &Segment, syn_ack: &Segment) -> Segment {
    Segment {
        seq: syn.seq.wrapping_add(1),
        ack: syn_ack.seq.wrapping_add(1),
        flags: Flags::ACK,
        options: Options {
            timestamps: syn_ack.options.timestamps.map(|ts| Timestamps {
                value: ts.echo + 1,
                echo: ts.value,
            }),
            ..Options::default()
        },
        ..syn.clone()
    }
}

fn reply(reply: SynReply) -> Segment {
    match reply {
        SynReply::Reply(segment) => segment,
        other => panic!("{other:?}"),
    }
}

fn accepted(reply: SynReply) -> Accepted {
    match reply {
        SynReply::Accept(accepted) => *accepted,
        other => panic!("{other:?}"),
    }
}

/// The connection that a handshake with `cache` gives.
fn accept(cache: &mut SynCache, now: u64, port: u16, options: Options) -> Connection {
    let settings = Settings::default();
    let syn = syn(port, options);
    let syn_ack = reply(cache.on_segment(now, &tuple(port), &syn, &settings));
    assert_eq!(
        (syn_ack.flags, syn_ack.ack),
        (Flags::SYN | Flags::ACK, 7001)
    );
    let now = now + 10 * MS;
    let ack = ack(&syn, &syn_ack);
    let accepted = accepted(cache.on_segment(now, &tuple(port), &ack, &settings));
    let mut connection = Connection::accept(now, &accepted, settings);
    connection.on_segment(now, ack);
    assert_eq!(connection.state(), State::Established);
    connection
}

#[test]
fn rfc9293_passive_open_agrees_on_what_both_offer() {
    let mut cache = cache(10);
    let connection = accept(&mut cache, SEC, 1, modern());
    let info = connection.info();
    assert!(info.sack && info.timestamps && info.window_scaling);
    assert_eq!(
        (info.snd_mss, info.snd_wscale, info.rcv_wscale),
        (988, 7, 7)
    );
    assert_eq!(info.rtt, 10 * MS, "the handshake is a sample");
    let connection = accept(&mut cache, SEC, 2, plain());
    let info = connection.info();
    assert!(!info.sack && !info.timestamps && !info.window_scaling);
    assert!(cache.is_empty());
}

#[test]
fn data_with_the_last_acknowledgement_are_received() {
    let mut cache = cache(10);
    let settings = Settings::default();
    let syn = syn(1, plain());
    let syn_ack = reply(cache.on_segment(SEC, &tuple(1), &syn, &settings));
    let mut last = ack(&syn, &syn_ack);
    last.payload.push(Bytes::from_static(b"hello"));
    let accepted = accepted(cache.on_segment(SEC, &tuple(1), &last, &settings));
    let mut connection = Connection::accept(SEC, &accepted, settings);
    connection.on_segment(SEC, last);
    assert_eq!(connection.recv(SEC, 100).as_deref(), Some(&b"hello"[..]));
}

#[test]
fn repeated_syn_is_answered_again_and_a_lost_syn_ack_is_sent_again() {
    let mut cache = cache(10);
    let settings = Settings::default();
    let syn = syn(1, plain());
    let first = reply(cache.on_segment(SEC, &tuple(1), &syn, &settings));
    let second = reply(cache.on_segment(SEC + MS, &tuple(1), &syn, &settings));
    assert_eq!(first.seq, second.seq);
    let mut times = Vec::new();
    while let Some(at) = cache.next_deadline() {
        times.push((at - SEC) / SEC);
        if let Some((to, again)) = cache.poll_transmit(at) {
            assert_eq!((to, again.seq), (tuple(1), first.seq));
        }
        assert!(cache.poll_transmit(at).is_none());
    }
    assert_eq!(times, [1, 3, 7, 15, 31, 63]);
    assert!(cache.is_empty(), "forgotten after its retries");
}

#[test]
fn acknowledgement_of_nothing_is_reset_and_a_reset_forgets() {
    let mut cache = cache(10);
    let settings = Settings::default();
    let syn = syn(1, plain());
    let syn_ack = reply(cache.on_segment(SEC, &tuple(1), &syn, &settings));
    let mut wrong = ack(&syn, &syn_ack);
    wrong.ack = wrong.ack.wrapping_add(1);
    let reset = reply(cache.on_segment(SEC, &tuple(1), &wrong, &settings));
    assert_eq!((reset.flags, reset.seq), (Flags::RST, wrong.ack));
    let mut blind = wrong.clone();
    blind.flags = Flags::RST;
    blind.seq = 9999;
    assert!(matches!(
        cache.on_segment(SEC, &tuple(1), &blind, &settings),
        SynReply::Drop
    ));
    assert_eq!(cache.len(), 1);
    blind.seq = 7001;
    cache.on_segment(SEC, &tuple(1), &blind, &settings);
    assert!(cache.is_empty());
}

#[test]
fn rfc4987_flood_of_syns_takes_bounded_memory_and_lets_others_in() {
    let mut cache = cache(64);
    let settings = Settings::default();
    for port in 0..20_000 {
        let syn = syn(port, modern());
        let answer = reply(cache.on_segment(SEC, &tuple(port), &syn, &settings));
        assert!(answer.flags.has(Flags::SYN));
        assert!(cache.len() <= 64);
    }
    // Who is honest gets through by a cookie, with all options by the timestamp.
    let mut connection = accept(&mut cache, SEC, 50_000, modern());
    let info = connection.info();
    assert!(info.sack && info.timestamps && info.window_scaling);
    assert_eq!((info.snd_wscale, cache.len()), (7, 64));
    connection.send(&mut Bytes::from_static(b"x")).unwrap();
    assert!(connection.poll_transmit(SEC, 65535).is_some());
    // Without timestamps, with the segment size only.
    let info = accept(&mut cache, SEC, 50_001, plain()).info();
    assert_eq!(
        (info.sack, info.window_scaling, info.snd_mss),
        (false, false, 536)
    );
}

#[test]
fn guessed_cookies_are_reset() {
    let mut cache = cache(0);
    let settings = Settings::default();
    let first = syn(1, plain());
    let good = reply(cache.on_segment(SEC, &tuple(1), &first, &settings));
    for i in 1..10_000 {
        let mut guess = ack(&first, &good);
        guess.ack = guess.ack.wrapping_add(i * 77_777);
        assert!(
            reply(cache.on_segment(SEC, &tuple(1), &guess, &settings))
                .flags
                .has(Flags::RST)
        );
    }
    // And where none was given lately, none is looked at.
    let late = ack(&first, &good);
    let answer = cache.on_segment(500 * SEC, &tuple(1), &late, &settings);
    assert!(reply(answer).flags.has(Flags::RST));
}

#[test]
fn rfc3168_ecn_is_agreed_to_when_the_peer_asks() {
    let mut cache = cache(10);
    let settings = Settings::default();
    let mut asks = syn(1, plain());
    asks.flags |= Flags::ECE | Flags::CWR;
    let answer = reply(cache.on_segment(SEC, &tuple(1), &asks, &settings));
    assert_eq!(answer.flags, Flags::SYN | Flags::ACK | Flags::ECE);
    let never = Settings {
        offer: Offer {
            ecn_accept: false,
            ..settings.offer
        },
        ..settings
    };
    let answer = reply(cache.on_segment(SEC, &tuple(2), &asks, &never));
    assert_eq!(answer.flags, Flags::SYN | Flags::ACK);
}

#[test]
fn deferred_accept_waits_for_data_but_not_for_ever() {
    let limits = SynLimits {
        defer_accept: 2,
        ..SynLimits::default()
    };
    let settings = Settings::default();
    let first = syn(1, plain());
    let handshake = || {
        let mut cache = SynCache::new(Key([5, 6]), limits);
        let syn_ack = reply(cache.on_segment(SEC, &tuple(1), &first, &settings));
        let bare = ack(&first, &syn_ack);
        let answer = cache.on_segment(SEC, &tuple(1), &bare, &settings);
        assert!(matches!(answer, SynReply::Drop));
        (cache, bare)
    };
    let (mut cache, mut data) = handshake();
    data.payload.push(Bytes::from_static(b"GET"));
    let later = SEC + 900 * MS;
    let accepted_late = accepted(cache.on_segment(later, &tuple(1), &data, &settings));
    let mut connection = Connection::accept(later, &accepted_late, settings.clone());
    connection.on_segment(later, data);
    assert!(
        connection.info().rtt < MS,
        "the round trip is the handshake's"
    );

    // Who says nothing is asked again in the end, and accepted when it answers.
    let (mut cache, bare) = handshake();
    assert!(cache.poll_transmit(2 * SEC).is_none());
    assert!(cache.poll_transmit(4 * SEC).is_some());
    accepted(cache.on_segment(4 * SEC, &tuple(1), &bare, &settings));
}

fn fast() -> SynCache {
    let limits = SynLimits {
        fast_open: true,
        ..SynLimits::default()
    };
    SynCache::new(Key([5, 6]), limits)
}

/// A client that opens with `cookie` and has "GET" to send.
fn fast_client(cookie: Cookie) -> Connection {
    let open = Open {
        local_port: 1,
        remote_port: 80,
        iss: 7000,
        ts_offset: 0,
        fast_open: Some(cookie),
    };
    let mut client = Connection::connect(SEC, open, Settings::default());
    client.send(&mut Bytes::from_static(b"GET")).unwrap();
    client
}

/// Hands segments over until both are quiet.
fn exchange(now: u64, client: &mut Connection, server: &mut Connection) {
    for _ in 0..10 {
        while let Some(segment) = client.poll_transmit(now, 65535) {
            server.on_segment(now, segment);
        }
        while let Some(segment) = server.poll_transmit(now, 65535) {
            client.on_segment(now, segment);
        }
    }
}

#[test]
fn rfc7413_cookie_is_asked_for_and_then_lets_data_go_with_the_syn() {
    let mut cache = fast();
    let settings = Settings::default();
    let mut client = fast_client(Cookie::default());
    let syn = client.poll_transmit(SEC, 65535).unwrap();
    assert_eq!(syn.payload_len(), 0);
    let syn_ack = reply(cache.on_segment(SEC, &tuple(1), &syn, &settings));
    client.on_segment(SEC, syn_ack);
    let cookie = client.fast_open_cookie().expect("a cookie");

    let mut client = fast_client(cookie);
    let syn = client.poll_transmit(SEC, 65535).unwrap();
    assert_eq!(syn.payload_len(), 3);
    let accepted = accepted(fast().on_segment(SEC, &tuple(1), &syn, &settings));
    let mut server = Connection::accept(SEC, &accepted, settings);
    server.on_segment(SEC, syn);
    assert_eq!(
        server.recv(SEC, 100).as_deref(),
        Some(&b"GET"[..]),
        "before the handshake is done"
    );
    server.send(&mut Bytes::from_static(b"answer")).unwrap();
    exchange(SEC + MS, &mut client, &mut server);
    assert_eq!([client.state(), server.state()], [State::Established; 2]);
    assert_eq!(client.unacknowledged(), 0);
    assert_eq!(client.recv(SEC, 100).as_deref(), Some(&b"answer"[..]));
}

#[test]
fn rfc7413_wrong_cookie_falls_back_to_a_handshake() {
    let mut cache = fast();
    let settings = Settings::default();
    let mut client = fast_client(Cookie::new(&[1; 8]).unwrap());
    let syn = client.poll_transmit(SEC, 65535).unwrap();
    assert_eq!(syn.payload_len(), 3);
    let syn_ack = reply(cache.on_segment(SEC, &tuple(1), &syn, &settings));
    assert_eq!(syn_ack.ack, 7001, "the data are not taken");
    client.on_segment(SEC + MS, syn_ack);
    assert_eq!(client.state(), State::Established);
    let first = client.poll_transmit(SEC + MS, 65535).unwrap();
    let accepted = accepted(cache.on_segment(SEC + MS, &tuple(1), &first, &settings));
    let mut server = Connection::accept(SEC + MS, &accepted, settings);
    server.on_segment(SEC + MS, first);
    exchange(SEC + MS, &mut client, &mut server);
    assert_eq!(server.recv(SEC, 100).as_deref(), Some(&b"GET"[..]));
}

#[test]
fn rfc7413_lost_syn_is_sent_again_without_its_data() {
    let mut client = fast_client(Cookie::new(&[1; 8]).unwrap());
    client.poll_transmit(SEC, 65535).unwrap();
    let at = client.next_deadline().unwrap();
    client.on_timer(at);
    let again = client.poll_transmit(at, 65535).unwrap();
    assert_eq!((again.payload_len(), again.options.fast_open), (0, None));
    assert!(client.poll_transmit(at, 65535).is_none());
}

/// A connection's TIME-WAIT, and the last segment of its peer.
fn time_wait(options: Options) -> (tcp::TimeWait, Segment) {
    let mut p = peer::Peer::established(Settings::default(), options, MS);
    p.connection.shutdown();
    p.one();
    p.ack = 2;
    let fin = p.segment(Flags::FIN | Flags::ACK, 2);
    p.give(fin.clone());
    p.out();
    (p.connection.time_wait().expect("it is in TIME-WAIT"), fin)
}

#[test]
fn time_wait_acknowledges_a_repeated_fin_and_drops_acknowledgements() {
    let (mut wait, fin) = time_wait(plain());
    let TimeWaitReply::Reply(ack) = wait.on_segment(2 * SEC, &fin) else {
        panic!("a repeated FIN is answered")
    };
    assert_eq!((ack.ack, ack.flags), (fin.seq.wrapping_add(1), Flags::ACK));
    assert_eq!(wait.deadline(), 62 * SEC);
    let mut last = fin;
    last.flags = Flags::ACK;
    last.seq = last.seq.wrapping_add(1);
    assert!(matches!(
        wait.on_segment(2 * SEC, &last),
        TimeWaitReply::Drop
    ));
}

#[test]
fn rfc6191_newer_timestamp_or_sequence_number_begins_anew() {
    let (mut wait, fin) = time_wait(modern());
    let mut syn = Segment {
        flags: Flags::SYN,
        ..fin.clone()
    };
    // A smaller number, but a newer time.
    syn.seq = fin.seq.wrapping_sub(5000);
    let ts = fin.options.timestamps.expect("the peer has timestamps");
    syn.options.timestamps = Some(Timestamps {
        value: ts.value + 1,
        echo: 0,
    });
    assert!(matches!(
        wait.on_segment(SEC, &syn),
        TimeWaitReply::Reuse { .. }
    ));
    syn.options.timestamps = Some(Timestamps {
        value: ts.value - 1,
        echo: 0,
    });
    assert!(matches!(
        wait.on_segment(SEC, &syn),
        TimeWaitReply::Reply(_)
    ));

    let (mut wait, fin) = time_wait(plain());
    let mut syn = Segment {
        flags: Flags::SYN,
        ..fin
    };
    assert!(matches!(
        wait.on_segment(SEC, &syn),
        TimeWaitReply::Reply(_)
    ));
    syn.seq = syn.seq.wrapping_add(1000);
    assert!(matches!(
        wait.on_segment(SEC, &syn),
        TimeWaitReply::Reuse { .. }
    ));
}

#[test]
fn rfc1337_blind_reset_does_not_end_time_wait() {
    let (mut wait, fin) = time_wait(plain());
    let mut reset = Segment {
        flags: Flags::RST,
        ..fin
    };
    assert!(matches!(wait.on_segment(SEC, &reset), TimeWaitReply::Drop));
    reset.seq = reset.seq.wrapping_add(1);
    assert!(matches!(
        wait.on_segment(SEC, &reset),
        TimeWaitReply::Forget
    ));
}

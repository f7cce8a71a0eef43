//! Rewriting against checksums computed anew, and tracking against ends that talk over a bad link.

use core::net::IpAddr;

use bytes::Bytes;
use net::{Checksum, InternetSum, Packet};
use proptest::prelude::*;

use crate::track::{Fit, Phase, Tcp, Way};
use crate::wire::{ACK, FIN, RST, SYN, Seen, Segment, Side, What};

/// The sum of a transport with its pseudo header, where it has one: 0 when its checksum holds.
fn transport_sum(ip: &[u8]) -> u16 {
    let v6 = ip[0] >> 4 == 6;
    let (addrs, protocol, body) = match v6 {
        true => (&ip[8..40], ip[6], &ip[40..]),
        false => (&ip[12..20], ip[9], &ip[20..]),
    };
    let sum = match protocol {
        1 => InternetSum::default(),
        _ => InternetSum::pseudo(addrs, protocol, body.len() as u32),
    };
    sum.with(body).checksum()
}

/// Where a protocol's checksum is.
fn sum_at(protocol: u8) -> usize {
    match protocol {
        6 => 16,
        17 => 6,
        _ => 2,
    }
}

/// An IP packet with good checksums.
fn packet(src: IpAddr, dst: IpAddr, protocol: u8, mut body: Vec<u8>) -> Vec<u8> {
    let at = sum_at(protocol);
    body[at..at + 2].fill(0);
    let mut ip = match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let mut ip = vec![0x45, 0, 0, 0, 0, 7, 0x40, 0, 64, protocol, 0, 0];
            ip.extend(src.octets());
            ip.extend(dst.octets());
            ip[2..4].copy_from_slice(&((20 + body.len()) as u16).to_be_bytes());
            let sum = InternetSum::default().with(&ip).checksum();
            ip[10..12].copy_from_slice(&sum.to_be_bytes());
            ip
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let mut ip = vec![0x60, 0, 0, 0, 0, 0, protocol, 64];
            ip[4..6].copy_from_slice(&(body.len() as u16).to_be_bytes());
            ip.extend(src.octets());
            ip.extend(dst.octets());
            ip
        }
        _ => panic!("of one family"),
    };
    let head = ip.len();
    ip.extend(body);
    let sum = match transport_sum(&ip) {
        0 if protocol == 17 => 0xffff,
        sum => sum,
    };
    ip[head + at..head + at + 2].copy_from_slice(&sum.to_be_bytes());
    ip
}

/// A transport's header and data.
fn body(kind: u8, v6: bool, ports: (u16, u16), data: &[u8]) -> (u8, Vec<u8>) {
    let (protocol, mut header) = match kind {
        0 => (6, vec![0; 20]),
        1 => (17, vec![0; 8]),
        _ => (if v6 { 58 } else { 1 }, vec![0; 8]),
    };
    match protocol {
        6 | 17 => {
            header[..2].copy_from_slice(&ports.0.to_be_bytes());
            header[2..4].copy_from_slice(&ports.1.to_be_bytes());
        }
        _ => {
            header[0] = if v6 { 128 } else { 8 };
            header[4..6].copy_from_slice(&ports.0.to_be_bytes());
        }
    }
    match protocol {
        6 => header[12] = 0x50,
        17 => header[4..6].copy_from_slice(&((8 + data.len()) as u16).to_be_bytes()),
        _ => {}
    }
    header.extend(data);
    (protocol, header)
}

fn addrs() -> impl Strategy<Value = [IpAddr; 4]> {
    prop_oneof![
        any::<[u32; 4]>().prop_map(|a| a.map(|ip| IpAddr::V4(ip.into()))),
        any::<[u128; 4]>().prop_map(|a| a.map(|ip| IpAddr::V6(ip.into()))),
    ]
}

/// As it comes from a wire: in pieces.
fn received(bytes: &[u8], cut: usize) -> Packet {
    let cut = cut.min(bytes.len());
    let mut packet = Packet::new(Bytes::copy_from_slice(&bytes[..cut]));
    packet.append(Bytes::copy_from_slice(&bytes[cut..]));
    packet
}

fn header_sum(ip: &[u8]) -> u16 {
    match ip[0] >> 4 {
        4 => InternetSum::default().with(&ip[..20]).checksum(),
        _ => 0,
    }
}

proptest! {
    #[test]
    fn rewritten_packets_are_what_they_would_be_if_they_were_made_anew(
        [src, dst, to, _] in addrs(),
        kind in 0u8..3,
        ports in any::<(u16, u16)>(),
        new_port in any::<u16>(),
        data in proptest::collection::vec(any::<u8>(), 0..50),
        side in any::<bool>(),
        partial in any::<bool>(),
        cut in 0usize..70,
    ) {
        let v6 = src.is_ipv6();
        let (protocol, old) = body(kind, v6, ports, &data);
        let side = if side { Side::Src } else { Side::Dst };
        let new_ports = match side {
            Side::Src => (new_port, ports.1),
            Side::Dst => (ports.0, new_port),
        };
        let (src_new, dst_new) = match side {
            Side::Src => (to, dst),
            Side::Dst => (src, to),
        };
        let (_, new) = body(kind, v6, new_ports, &data);
        let want = packet(src_new, dst_new, protocol, new);
        let mut bytes = packet(src, dst, protocol, old);
        let partial = partial && kind < 2;
        let transport = if v6 { 40 } else { 20 };
        if partial {
            let range = if v6 { 8..40 } else { 12..20 };
            let len = bytes.len() - transport;
            let sum = InternetSum::pseudo(&bytes[range], protocol, len as u32).folded();
            let at = transport + sum_at(protocol);
            bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        }
        let mut packet = received(&bytes, cut);
        if partial {
            packet.checksum = Checksum::Partial { start: transport as u16, offset: sum_at(protocol) as u16 };
        }
        let mut seen = Seen::of(&mut packet).expect("whole");
        seen.rewrite(&mut packet, side, (to, if kind == 2 && side == Side::Dst { 0 } else { new_port })).expect("whole");
        net::complete_checksum(&mut packet).expect("whole");
        let got = packet.to_vec();
        prop_assert_eq!(header_sum(&got), 0);
        prop_assert_eq!(transport_sum(&got), 0);
        // All ones and zeros are the same number: which of them stands there may differ.
        let at = transport + sum_at(protocol);
        let without_sum = |bytes: &[u8]| [&bytes[..at], &bytes[at + 2..]].concat();
        prop_assert_eq!(without_sum(&got), without_sum(&want));
        prop_assert_eq!(seen.key, Seen::of(&mut packet).expect("whole").key);
    }

    #[test]
    fn packets_in_errors_are_rewritten_with_them(
        [router, end, peer, to] in addrs(),
        kind in 0u8..3,
        ports in any::<(u16, u16)>(),
        new_port in any::<u16>(),
        data in proptest::collection::vec(any::<u8>(), 0..20),
        side in any::<bool>(),
        cut in 0usize..100,
        keep in 8usize..60,
    ) {
        // An error for `end` about a packet that it sent to `peer`; or from `end` about one that it was sent.
        let v6 = router.is_ipv6();
        let side = if side { Side::Dst } else { Side::Src };
        let (protocol, inner) = body(kind, v6, ports, &data);
        let inner = match side {
            Side::Dst => packet(end, peer, protocol, inner),
            Side::Src => packet(peer, end, protocol, inner),
        };
        let head = if v6 { 40 } else { 20 };
        let kept = inner.len().min(head + keep);
        let whole = kept == inner.len();
        let mut message = vec![if v6 { 1 } else { 3 }, 1, 0, 0, 0, 0, 0, 0];
        message.extend(&inner[..kept]);
        let (src, dst) = match side {
            Side::Dst => (router, end),
            Side::Src => (end, router),
        };
        let bytes = packet(src, dst, if v6 { 58 } else { 1 }, message);
        let mut packet = received(&bytes, cut);
        let mut seen = Seen::of(&mut packet).expect("whole");
        prop_assert!(matches!(seen.what, What::Error(..)));
        seen.rewrite_error(&mut packet, side, to, (to, new_port)).expect("whole");
        let got = packet.to_vec();
        prop_assert_eq!((header_sum(&got), transport_sum(&got)), (0, 0));
        let inner = &got[head + 8..];
        prop_assert_eq!(header_sum(inner), 0);
        if whole {
            prop_assert_eq!(transport_sum(inner), 0);
        }
        let again = Seen::of(&mut packet).expect("whole");
        let What::Error(_, about) = again.what else { panic!("an error") };
        // An echo's identifier is its source's.
        let far_port = if kind == 2 { 0 } else { new_port };
        match side {
            Side::Dst => prop_assert_eq!((again.key.dst, about.key.src, about.key.sport), (to, to, new_port)),
            Side::Src => prop_assert_eq!((again.key.src, about.key.dst, about.key.dport), (to, to, far_port)),
        }
    }

    #[test]
    fn any_bytes_are_looked_at_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..120), cut in 0usize..120) {
        let mut packet = received(&bytes, cut);
        if let Some(mut seen) = Seen::of(&mut packet) {
            let other: IpAddr = if seen.v6 { [7; 16].into() } else { [7; 4].into() };
            let _ = seen.rewrite(&mut packet, Side::Src, (other, 7));
            let _ = seen.rewrite_error(&mut packet, Side::Dst, other, (other, 7));
            prop_assert_eq!(packet.len(), bytes.len());
        }
    }
}

/// An end of a connection in a few lines: it sends what the other's window allows, acknowledges what has come in order, and repeats
/// what was lost.
#[derive(Clone, Default)]
struct Model {
    isn: u32,
    /// From the ISN on: what is acknowledged, what was sent, how far it may go, and where its data end.
    acked: u32,
    sent: u32,
    may: u32,
    end: u32,
    peer_isn: Option<u32>,
    /// How much has come in order, from the other's ISN on.
    got: u32,
    fin_got: bool,
    window: u16,
    scale: Option<u8>,
    peer_scale: Option<u8>,
}

impl Model {
    fn segment(&self, from: u32, len: u32) -> Segment {
        let syn = from == 0;
        let fin = !syn && from + len == self.end && len > 0;
        let mut flags = if self.peer_isn.is_some() { ACK } else { 0 };
        flags |= if syn { SYN } else { 0 } | if fin { FIN } else { 0 };
        Segment {
            flags,
            seq: self.isn.wrapping_add(from),
            ack: self.peer_isn.map_or(0, |isn| isn.wrapping_add(self.got)),
            window: self.window,
            len: if syn { 0 } else { len - u32::from(fin) },
            scale: if syn { self.scale } else { None },
        }
    }

    /// The next segment to send, new or again.
    fn next(&mut self, again: bool, size: u32) -> Segment {
        if self.acked == 0 {
            self.sent = self.sent.max(1);
            return self.segment(0, 1);
        }
        let from = if again { self.acked } else { self.sent };
        let len = size.min(self.may.max(from).min(self.end) - from);
        self.sent = self.sent.max(from + len);
        self.segment(from, len)
    }

    fn hear(&mut self, segment: &Segment) {
        let syn = segment.flags & SYN != 0;
        if syn && self.peer_isn.is_none() {
            self.peer_isn = Some(segment.seq);
            self.got = 1;
            self.peer_scale = segment.scale;
        }
        let Some(peer) = self.peer_isn else { return };
        let start = segment.seq.wrapping_sub(peer);
        let fin = segment.flags & FIN != 0;
        let end = start.wrapping_add(segment.len + u32::from(syn) + u32::from(fin));
        if start <= self.got && end > self.got {
            self.got = end;
            self.fin_got |= fin;
        }
        if segment.flags & ACK != 0 {
            let ack = segment.ack.wrapping_sub(self.isn);
            if ack <= self.sent {
                self.acked = self.acked.max(ack);
                let both = self.scale.is_some() && self.peer_scale.is_some();
                let scale = if syn || !both {
                    0
                } else {
                    self.peer_scale.unwrap_or(0)
                };
                self.may = self.may.max(ack + (u32::from(segment.window) << scale));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn whatever_the_link_does_what_the_ends_send_fits_and_what_others_send_does_not(
        isns in any::<[u32; 2]>(),
        lengths in [1u32..20_000, 1u32..20_000],
        windows in [1000u16.., 1000u16..],
        scales in [proptest::option::of(0u8..9), proptest::option::of(0u8..9)],
        steps in proptest::collection::vec((any::<bool>(), 0u8..10, 1u32..3000, any::<u32>()), 50..400),
    ) {
        let end = |n: usize| Model {
            isn: isns[n],
            end: lengths[n] + 2,
            window: windows[n],
            scale: scales[n],
            ..Model::default()
        };
        let mut ends = [end(0), end(1)];
        let first = ends[0].next(false, 0);
        let mut tracked = Tcp::new(&first);
        // What is between the filter and each end: segments for it.
        let mut ways: [Vec<Segment>; 2] = [vec![], vec![first]];
        for (from_second, what, size, stray) in steps {
            let (me, other) = if from_second { (1, 0) } else { (0, 1) };
            let way = if from_second { Way::Back } else { Way::Forward };
            match what {
                // One arrives, in any order, and may arrive again.
                0..=4 => {
                    let waiting = &mut ways[me];
                    if !waiting.is_empty() {
                        let at = stray as usize % waiting.len();
                        let segment = if what == 0 { waiting[at] } else { waiting.remove(at) };
                        ends[me].hear(&segment);
                    }
                }
                5..=8 => {
                    if ends[me].peer_isn.is_none() && me == 1 {
                        continue;
                    }
                    let segment = ends[me].next(what == 5, size);
                    let before = tracked;
                    prop_assert_eq!(tracked.packet(way, &segment), Fit::Yes, "{:?} in {:?}", segment, before);
                    if size % 5 != 0 {
                        ways[other].push(segment);
                    }
                }
                // A stranger's, far from everything that is under way.
                _ => {
                    if tracked.phase >= Phase::Closing {
                        let far = ends[me].isn.wrapping_add(ends[me].sent).wrapping_add(1 << 28).wrapping_add(stray >> 3);
                        let segment = Segment { flags: if stray % 2 == 0 { RST } else { ACK }, seq: far, ack: ends[other].isn, window: 1, len: 1, scale: None };
                        let phase = tracked.phase;
                        prop_assert_eq!(tracked.packet(way, &segment), Fit::No, "{:?}", segment);
                        prop_assert_eq!(tracked.phase, phase);
                    }
                }
            }
        }
        let done = |end: &Model| end.end == end.acked;
        if ends.iter().all(done) && ends.iter().all(|end| end.fin_got) && ends[0].acked == ends[0].end {
            prop_assert!(tracked.phase <= Phase::Closing);
        }
    }
}

fn segment(flags: u8, seq: u32, ack: u32) -> Segment {
    Segment {
        flags,
        seq,
        ack,
        window: 1000,
        ..Segment::default()
    }
}

/// A connection whose ends have sent 101 and 501 numbers.
fn established() -> Tcp {
    let mut tcp = Tcp::new(&segment(SYN, 100, 0));
    assert_eq!(
        tcp.packet(Way::Back, &segment(SYN | ACK, 500, 101)),
        Fit::Yes
    );
    assert_eq!(tcp.phase, Phase::Answered);
    assert_eq!(tcp.packet(Way::Forward, &segment(ACK, 101, 501)), Fit::Yes);
    assert_eq!(tcp.phase, Phase::Established);
    tcp
}

#[test]
fn a_reset_ends_a_connection_only_with_the_number_that_is_waited_for() {
    let mut tcp = established();
    assert_eq!(tcp.packet(Way::Back, &segment(RST, 5000, 0)), Fit::No);
    assert_eq!(
        tcp.packet(Way::Back, &segment(RST, 700, 0)),
        Fit::Yes,
        "in the window: its end asks back"
    );
    assert_eq!(tcp.phase, Phase::Established);
    assert_eq!(tcp.packet(Way::Back, &segment(RST, 501, 0)), Fit::Yes);
    assert_eq!(tcp.phase, Phase::Closed);
    assert_eq!(tcp.packet(Way::Forward, &segment(SYN, 9000, 0)), Fit::Anew);
}

#[test]
fn a_reset_answers_a_syn_only_if_it_acknowledges_it() {
    let mut tcp = Tcp::new(&segment(SYN, 100, 0));
    assert_eq!(tcp.packet(Way::Back, &segment(RST | ACK, 0, 100)), Fit::No);
    assert_eq!(tcp.packet(Way::Back, &segment(RST, 0, 0)), Fit::No);
    assert_eq!(tcp.packet(Way::Back, &segment(RST | ACK, 0, 101)), Fit::Yes);
    assert_eq!(tcp.phase, Phase::Closed);
}

#[test]
fn an_answer_must_acknowledge_the_syn() {
    let mut tcp = Tcp::new(&segment(SYN, 100, 0));
    assert_eq!(tcp.packet(Way::Back, &segment(SYN | ACK, 500, 77)), Fit::No);
    assert_eq!(tcp.phase, Phase::Opening);
}

#[test]
fn who_has_started_again_gets_rid_of_its_old_connection() {
    let mut tcp = Tcp::new(&segment(SYN, 100, 0));
    // The other end still has the old one, and asks back.
    assert_eq!(
        tcp.packet(Way::Back, &segment(ACK, 70_000, 90_000)),
        Fit::Yes
    );
    assert_eq!(tcp.packet(Way::Forward, &segment(RST, 80_000, 0)), Fit::No);
    assert_eq!(tcp.packet(Way::Forward, &segment(RST, 90_000, 0)), Fit::Yes);
    assert_eq!(tcp.packet(Way::Forward, &segment(SYN, 100, 0)), Fit::Anew);
}

#[test]
fn both_ends_may_open_at_once() {
    let mut tcp = Tcp::new(&segment(SYN, 100, 0));
    assert_eq!(tcp.packet(Way::Back, &segment(SYN, 500, 0)), Fit::Yes);
    assert_eq!(
        tcp.packet(Way::Forward, &segment(SYN | ACK, 100, 501)),
        Fit::Yes
    );
    assert_eq!(
        tcp.packet(Way::Back, &segment(SYN | ACK, 500, 101)),
        Fit::Yes
    );
    assert_eq!(tcp.packet(Way::Forward, &segment(ACK, 101, 501)), Fit::Yes);
    assert_eq!(tcp.phase, Phase::Established);
}

#[test]
fn a_connection_is_picked_up_in_its_middle() {
    let mut tcp = Tcp::new(&segment(ACK, 100, 500));
    assert_eq!(
        tcp.packet(Way::Forward, &segment(ACK, 70_000, 500)),
        Fit::Yes
    );
    assert_eq!(tcp.phase, Phase::Opening, "nobody has answered");
    assert_eq!(tcp.packet(Way::Back, &segment(ACK, 500, 99_000)), Fit::Yes);
    assert_eq!(tcp.phase, Phase::Established);
    assert_eq!(
        tcp.packet(Way::Back, &segment(FIN | ACK, 500, 99_000)),
        Fit::Yes
    );
    assert_eq!(tcp.phase, Phase::Closing);
    assert_eq!(
        tcp.packet(Way::Forward, &segment(FIN | ACK, 99_000, 501)),
        Fit::Yes
    );
    assert_eq!(tcp.phase, Phase::Closed);
}

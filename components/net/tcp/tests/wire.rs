//! The wire format against itself and against the plainest way to compute it.

use bytes::Bytes;
use proptest::prelude::*;
use tcp::{Cookie, Flags, Options, SackBlocks, Segment, Timestamps};

fn options() -> impl Strategy<Value = Options> {
    let syn = (
        any::<u16>(),
        0u8..=14,
        any::<bool>(),
        prop::sample::select(vec![0usize, 4, 8, 16]),
    );
    let syn = syn.prop_map(|(mss, scale, sack_permitted, cookie)| Options {
        mss: Some(mss),
        window_scale: Some(scale),
        sack_permitted,
        fast_open: Cookie::new(&[9; 16][..cookie]),
        ..Options::default()
    });
    let stamps = prop::option::of((any::<u32>(), any::<u32>()));
    let stamped = (
        stamps,
        prop::collection::vec((any::<u32>(), any::<u32>()), 0..4),
    );
    let other = stamped.prop_map(|(timestamps, blocks)| {
        let mut sack = SackBlocks::default();
        blocks
            .iter()
            .for_each(|(left, right)| sack.push(*left, *right));
        Options {
            timestamps: timestamps.map(|(value, echo)| Timestamps { value, echo }),
            sack,
            ..Options::default()
        }
    });
    prop_oneof![syn, other]
}

prop_compose! {
    fn segment()(
        (src_port, dst_port, seq, ack) in any::<(u16, u16, u32, u32)>(),
        (flags, window, urgent) in any::<(u8, u16, u16)>(),
        options in options(),
        payload in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..5),
        gso_size in prop::sample::select(vec![0u32, 1, 100, 1460]),
    ) -> Segment {
        Segment {
            src_port,
            dst_port,
            seq,
            ack,
            flags: Flags::from_bits(flags),
            window,
            urgent,
            options,
            gso_size,
            payload: payload.into_iter().map(Bytes::from).collect(),
            ..Segment::default()
        }
    }
}

fn flat(segment: &Segment) -> Vec<u8> {
    segment
        .payload
        .iter()
        .flat_map(|piece| piece.to_vec())
        .collect()
}

proptest! {
    #[test]
    fn what_is_emitted_parses_to_the_same(segment in segment()) {
        let mut bytes = vec![0; segment.header_len()];
        prop_assert_eq!(segment.emit_header(&mut bytes), Some(bytes.len()));
        bytes.extend(flat(&segment));
        let parsed = Segment::parse(bytes.into()).expect("a segment");
        prop_assert_eq!(flat(&parsed), flat(&segment));
        prop_assert_eq!(Segment { payload: segment.payload.clone(), gso_size: segment.gso_size, ..parsed }, segment);
    }

    #[test]
    fn any_bytes_parse_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        if let Ok((segment, len)) = Segment::parse_header(&bytes) {
            prop_assert!((20..=60).contains(&len) && len <= bytes.len());
            let mut again = vec![0; segment.header_len()];
            prop_assert!(segment.emit_header(&mut again).is_some());
        }
    }

    #[test]
    fn packets_of_a_large_segment_are_its_parts(segment in segment()) {
        let whole = flat(&segment);
        let mut parts = Vec::new();
        let count = segment.packets();
        let packets: Vec<Segment> = segment.clone().packetize().collect();
        prop_assert_eq!(packets.len(), count);
        for (i, packet) in packets.iter().enumerate() {
            prop_assert_eq!(packet.seq, segment.seq.wrapping_add(parts.len() as u32));
            prop_assert_eq!(packet.flags.has(Flags::FIN), segment.flags.has(Flags::FIN) && i + 1 == count);
            prop_assert_eq!(packet.flags.has(Flags::CWR), segment.flags.has(Flags::CWR) && i == 0);
            parts.extend(flat(packet));
        }
        prop_assert_eq!(parts, whole);
    }
}

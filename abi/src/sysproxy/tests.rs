use super::*;

#[test]
fn a_header_survives_the_wire() {
    let header = Header::new(Class::Response, Kind::Copyin, 7, u64::MAX, MAX_BODY);
    assert_eq!(Header::decode(&header.encode()), Ok(header));
}

#[test]
fn lengths_are_not_believed() {
    let mut raw = Header::new(Class::Request, Kind::Syscall, 0, 1, 0).encode();
    for len in [0, 23, (HEADER + MAX_BODY + 1) as u64, u64::MAX] {
        raw[..8].copy_from_slice(&len.to_le_bytes());
        assert_eq!(Header::decode(&raw), Err(Malformed), "{len}");
    }
}

#[test]
fn urls_name_servers_or_say_why_not() {
    assert_eq!(Url::parse(b"unix:///tmp/x"), Ok(Url::Unix(b"/tmp/x")));
    assert_eq!(Url::parse(b"unix://@x"), Ok(Url::Abstract(b"x")));
    let tcp = |s| Ok(Url::Tcp(core::net::SocketAddr::V4(s)));
    let any = core::net::Ipv4Addr::UNSPECIFIED;
    assert_eq!(
        Url::parse(b"tcp://*:80/"),
        tcp(core::net::SocketAddrV4::new(any, 80))
    );
    assert!(Url::parse(b"tcp://[::1]:1").is_ok());
    for (bad, why) in [
        (&b"http://x"[..], UrlError::Scheme),
        (b"", UrlError::Scheme),
        (b"unix://", UrlError::Empty),
        (b"unix://@", UrlError::Empty),
        (b"unix://a\0b", UrlError::Nul),
        (b"tcp://", UrlError::Empty),
        (b"tcp://1.2.3.4", UrlError::Port),
        (b"tcp://1.2.3.4:0", UrlError::Port),
        (b"tcp://1.2.3.4:65536", UrlError::Port),
        (b"tcp://1.2.3.4:+1", UrlError::Port),
        (b"tcp://no:1", UrlError::Address),
        (b"tcp://\xff:1", UrlError::Address),
    ] {
        assert_eq!(Url::parse(bad), Err(why), "{bad:?}");
    }
    let long = [&b"unix://"[..], &[b'a'; 108]].concat();
    assert_eq!(Url::parse(&long), Err(UrlError::PathTooLong));
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    fn request(args: [u64; 6], hints: [i32; 2], segments: &[(u64, Vec<u8>)]) -> Vec<u8> {
        let count = segments.len() as u32;
        let mut body = SyscallRequest::encode_fixed(&args, hints, Company::Others, count).to_vec();
        append(&mut body, segments);
        body
    }

    fn append(body: &mut Vec<u8>, segments: &[(u64, Vec<u8>)]) {
        for (addr, data) in segments {
            let len = data.len() as u32;
            body.extend(SegmentHead { addr: *addr, len }.encode());
            body.extend(data);
            body.resize(body.len() + padded(data.len()) - data.len(), 0);
        }
    }

    fn owned(segments: Segments<'_>) -> Vec<(u64, Vec<u8>)> {
        segments.map(|(addr, data)| (addr, data.to_vec())).collect()
    }

    fn segments() -> impl Strategy<Value = Vec<(u64, Vec<u8>)>> {
        let one = (any::<u64>(), prop::collection::vec(any::<u8>(), 0..50));
        prop::collection::vec(one, 0..8)
    }

    proptest! {
        #[test]
        fn any_header_that_is_read_is_written_the_same(raw in any::<[u8; HEADER]>()) {
            if let Ok(header) = Header::decode(&raw) {
                prop_assert!(header.body <= MAX_BODY);
                prop_assert_eq!(header.encode(), raw);
            }
        }

        #[test]
        fn a_request_survives_the_wire(args: [u64; 6], hints: [i32; 2], segments in segments()) {
            let body = request(args, hints, &segments);
            let back = SyscallRequest::decode(&body).unwrap();
            prop_assert_eq!((back.args, back.hints), (args, hints));
            prop_assert_eq!(back.company, Company::Others);
            prop_assert_eq!(owned(back.segments), segments);
        }

        #[test]
        fn a_reply_survives_the_wire(error: i32, retval: i64, segments in segments()) {
            let mut body = SyscallReply::encode_fixed(error, retval, segments.len() as u32).to_vec();
            append(&mut body, &segments);
            let back = SyscallReply::decode(&body).unwrap();
            prop_assert_eq!((back.error, back.retval), (error, retval));
            prop_assert_eq!(owned(back.segments), segments);
        }

        #[test]
        fn no_bytes_are_too_strange_to_be_read(
            body in prop::collection::vec(any::<u8>(), 0..300),
            at in 0usize..80,
            word: u32,
        ) {
            let mut bodies = vec![body.clone()];
            // A good request with one word overwritten gets further.
            let mut near = request([1; 6], [-1, -1], &[(7, body.clone()), (9, body)]);
            if let Some(field) = near.get_mut(at * 4..at * 4 + 4) {
                field.copy_from_slice(&word.to_le_bytes());
            }
            bodies.push(near);
            for body in bodies {
                for decoded in [
                    SyscallRequest::decode(&body).map(|r| owned(r.segments)),
                    SyscallReply::decode(&body).map(|r| owned(r.segments)),
                ]
                .into_iter()
                .flatten()
                {
                    let total: usize = decoded.iter().map(|(_, data)| data.len()).sum();
                    prop_assert!(total <= body.len());
                }
                let _ = (CopyData::decode(&body), CopyData::decode_ask(&body), Cookie::decode(&body));
                let _ = (ForkBody::decode(&body), HandshakeReply::decode(&body), Watch::decode(&body));
                prop_assert!(GuestBody::decode(&body).comm.len() <= MAX_COMM);
                prop_assert!(ExecBody::decode(&body).comm.len() <= MAX_COMM);
                let _ = Url::parse(&body);
            }
        }

        #[test]
        fn every_cut_of_a_request_is_malformed(segments in segments(), cut in 1usize..400) {
            let body = request([0; 6], [-1, -1], &segments);
            if cut <= body.len() {
                prop_assert!(SyscallRequest::decode(&body[..body.len() - cut]).is_err());
            }
        }

        #[test]
        fn whatever_a_call_names_is_no_null_and_not_empty(nr in 0u32..512, args: [u64; 6], junk: u64) {
            let Some(desc) = desc(nr) else { return Ok(()) };
            let mut count = 0;
            let mut peek = |addr: u64, to: &mut [u8]| {
                to.fill((addr ^ junk) as u8);
                junk % 5 != 0
            };
            named(desc, &args, &mut peek, &mut |range| {
                count += 1;
                assert!(range.addr != 0 && range.len != 0);
                assert!(range.covers(range.addr, 1) && !range.covers(range.addr.wrapping_sub(1), 1));
                true
            });
            prop_assert!(count <= 6 + 1024 + 4 * 32);
        }
    }
}

/// What a call names in memory that is `bytes` at `base`.
fn named_of(number: u32, args: [u64; 6], base: u64, bytes: &[u8]) -> Vec<(u64, usize, Use)> {
    let mut peek = |addr: u64, to: &mut [u8]| {
        let at = addr.wrapping_sub(base) as usize;
        let found = bytes.get(at..at.wrapping_add(to.len()));
        found.map(|from| to.copy_from_slice(from)).is_some()
    };
    let mut all = Vec::new();
    named(desc(number).unwrap(), &args, &mut peek, &mut |range| {
        all.push((range.addr, range.len, range.how));
        true
    });
    all
}

#[test]
fn a_message_names_its_buffers_address_and_control_data() {
    const BASE: u64 = 0x10000;
    let words = |w: &[u64]| w.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<u8>>();
    // The header, and two buffers right behind it.
    let header = [0x700, 16, BASE + 64, 2, 0x900, 24, 0, 0];
    let mut memory = words(&header);
    memory.extend(words(&[0x1000, 5, 0x2000, 6]));
    let sent = named_of(crate::nr::sendmsg, [3, BASE, 0, 0, 0, 0], BASE, &memory);
    let parts = |how| {
        [
            (BASE + 64, 32, Use::In),
            (0x1000, 5, how),
            (0x2000, 6, how),
            (0x700, 16, how),
            (0x900, 24, how),
        ]
    };
    assert_eq!(sent[0], (BASE, 56, Use::InOut));
    assert_eq!(sent[1..], parts(Use::In));
    let received = named_of(crate::nr::recvmsg, [3, BASE, 0, 0, 0, 0], BASE, &memory);
    assert_eq!(received[1..], parts(Use::Out));
    let many = named_of(crate::nr::sendmmsg, [3, BASE, 1, 0, 0, 0], BASE, &memory);
    assert_eq!(many[0], (BASE, 64, Use::InOut));
    assert_eq!(many[1..], parts(Use::In));
}

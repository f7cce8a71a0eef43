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

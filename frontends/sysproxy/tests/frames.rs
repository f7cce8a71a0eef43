//! What a server does with frames that no good client sends. The numbered tests are defects of the reference, each shown not to be
//! ours.

mod support;

use std::io::Write;

use abi::nr;
use abi::sysproxy::{
    COPY_FIXED, Class, Company, CopyData, ErrorWord, ForkBody, HEADER, Handshake, HandshakeReply,
    Header, Kind, MAX_BODY, SyscallRequest,
};
use abi::table::MAX_NR;
use abi::{Errno, O_CREAT, O_RDWR};
use support::{RawClient, call_body, eventually, procs, reply, served};
use sysproxy::Options;

#[test]
fn defect_1_an_empty_or_unterminated_command_name_is_taken_as_it_is() {
    let (kernel, server) = served(Options::default());
    for body in [&b""[..], b"\0", &[b'x'; 4096], b"\xff\xfe"] {
        let mut client = RawClient::connect(&server);
        let (header, body) = client.ask(Kind::Handshake, Handshake::Guest as u32, body);
        assert_eq!(header.class, Class::Response);
        assert_eq!(HandshakeReply::decode(&body).unwrap().error, 0);
        let (header, _) = client.ask(Kind::Handshake, Handshake::Exec as u32, &[]);
        assert_eq!(header.class, Class::Response);
    }
    drop(server);
    assert_eq!(procs(&kernel), 1);
}

#[test]
fn defect_2_a_frame_that_announces_too_much_ends_the_connection() {
    let (kernel, server) = served(Options::default());
    for len in [0, 1, 23, (HEADER + MAX_BODY + 1) as u64, u64::MAX] {
        let (mut client, _) = RawClient::guest(&server);
        let mut raw = Header::new(Class::Request, Kind::Syscall, nr::getpid, 9, 0).encode();
        raw[..8].copy_from_slice(&len.to_le_bytes());
        client.stream.write_all(&raw).unwrap();
        assert!(client.is_hung_up(), "{len}");
    }
    eventually("clients gone", || procs(&kernel) == 1);
}

#[test]
fn a_promise_of_a_long_frame_holds_nobody_up() {
    let (_kernel, server) = served(Options::default());
    let (mut slow, _) = RawClient::guest(&server);
    let head = Header::new(Class::Request, Kind::Syscall, nr::getpid, 9, MAX_BODY).encode();
    slow.stream.write_all(&head).unwrap();
    let (mut other, shake) = RawClient::guest(&server);
    assert_eq!(
        other.syscall(nr::getpid, &[0; 6], &[]).1,
        i64::from(shake.pid)
    );
}

#[test]
fn defect_3_every_number_is_a_call_or_enosys() {
    let (_kernel, server) = served(Options::default());
    let (mut client, _) = RawClient::guest(&server);
    for number in [
        499,
        MAX_NR as u32 - 1,
        MAX_NR as u32,
        MAX_NR as u32 + 1,
        0x7fff_ffff,
        0x8000_0001,
        0xffff_ff00,
        u32::MAX,
    ] {
        let (error, ..) = client.syscall(number, &[0; 6], &[]);
        assert_eq!(error, Errno::ENOSYS.0, "{number:#x}");
    }
}

/// Makes a write whose data has to be asked for, and answers the question with `body`.
fn answer_copyin(class: Class, body: &[u8]) -> Option<(Header, Vec<u8>)> {
    let (_kernel, server) = served(Options::default());
    let (mut client, _) = RawClient::guest(&server);
    let args = [0x1000, (O_CREAT | O_RDWR) as u64, 0o644, 0, 0, 0];
    let (error, fd, _) = client.syscall(nr::open, &args, &[(0x1000, b"/f\0")]);
    assert_eq!(error, 0);
    let reqno = client.call(nr::write, &[fd as u64, 0x5000, 100, 0, 0, 0], &[]);
    let (header, ask) = client.receive().unwrap();
    assert_eq!((header.kind, header.reqno), (Kind::Copyin, reqno));
    let ask = CopyData::decode_ask(&ask).unwrap();
    assert_eq!((ask.addr, ask.len), (0x5000, 100));
    client.send(class, Kind::Copyin, ErrorWord::Fault as u32, reqno, body);
    client.receive()
}

#[test]
fn memory_that_did_not_come_along_is_asked_for() {
    let mut body = CopyData::encode_fixed(100, 0x5000).to_vec();
    body.extend([7; 100]);
    let (header, body) = answer_copyin(Class::Response, &body).unwrap();
    assert_eq!(header.kind, Kind::Syscall);
    assert_eq!(reply(&body), (0, 100, Vec::new()));
}

#[test]
fn memory_that_is_not_there_is_a_fault() {
    let (_, body) = answer_copyin(Class::Error, &[]).unwrap();
    assert_eq!(reply(&body).0, Errno::EFAULT.0);
}

#[test]
fn defect_4_an_answer_of_another_length_ends_the_connection() {
    for (len, data) in [(100, 99), (100, 101), (99, 99), (0, 0), (u64::MAX, 100)] {
        let mut body = CopyData::encode_fixed(len, 0x5000).to_vec();
        body.extend(vec![0; data]);
        assert!(
            answer_copyin(Class::Response, &body).is_none(),
            "{len} {data}"
        );
    }
    assert!(answer_copyin(Class::Response, &[0; COPY_FIXED - 1]).is_none());
    assert!(answer_copyin(Class::Response, &[]).is_none());
}

#[test]
fn an_answer_that_nobody_asked_for_is_dropped() {
    let (_kernel, server) = served(Options::default());
    let (mut client, shake) = RawClient::guest(&server);
    client.send(Class::Response, Kind::Copyin, 0, 77, &[0; 16]);
    client.send(Class::Request, Kind::Interrupt, 0, 77, &[]);
    client.send(Class::Request, Kind::RingInterrupt, 5, 77, &[]);
    client.send(Class::Request, Kind::RingDetach, 5, 77, &[]);
    assert_eq!(
        client.syscall(nr::getpid, &[0; 6], &[]).1,
        i64::from(shake.pid)
    );
}

#[test]
fn defect_8_forks_of_a_client_that_is_gone_are_freed() {
    let (kernel, server) = served(Options::default());
    let (mut client, _) = RawClient::guest(&server);
    let cookies: Vec<Vec<u8>> = (0..5)
        .map(|_| client.ask(Kind::Prefork, 0, &[]).1)
        .collect();
    assert_eq!(procs(&kernel), 7);
    drop(client);
    eventually("all gone", || procs(&kernel) == 1);
    let mut late = RawClient::connect(&server);
    let mut body = cookies[0].clone();
    body.extend([0; 4]);
    let (header, _) = late.ask(Kind::Handshake, Handshake::Fork as u32, &body);
    assert_eq!(header.class, Class::Error);
    assert_eq!(header.word, ErrorWord::InvalidPrefork as u32);
}

#[test]
fn the_number_of_announced_forks_is_bounded() {
    let (kernel, server) = served(Options::default());
    let (mut client, _) = RawClient::guest(&server);
    let refused = (0..300)
        .filter(|_| client.ask(Kind::Prefork, 0, &[]).0.class == Class::Error)
        .count();
    assert_eq!(refused, 44);
    drop(client);
    eventually("all gone", || procs(&kernel) == 1);
}

#[test]
fn the_first_frame_has_to_be_a_handshake() {
    let (kernel, server) = served(Options::default());
    for (kind, word) in [
        (Kind::Syscall, nr::getpid),
        (Kind::Prefork, 0),
        (Kind::RingAttach, 0),
        (Kind::Handshake, Handshake::Auth as u32),
        (Kind::Handshake, Handshake::Exec as u32),
        (Kind::Handshake, 99),
    ] {
        let mut client = RawClient::connect(&server);
        let (header, _) = client.ask(kind, word, &[]);
        assert_eq!(
            (header.class, header.word),
            (Class::Error, ErrorWord::Auth as u32)
        );
        assert!(client.is_hung_up());
    }
    assert_eq!(procs(&kernel), 1);
}

#[test]
fn cookies_of_nobody_are_refused() {
    let (kernel, server) = served(Options::default());
    let fork = ForkBody {
        cookie: abi::sysproxy::Cookie([1, 2, 3, 4]),
        cancel: false,
    };
    for (word, body) in [
        (Handshake::Fork, &fork.encode()[..]),
        (Handshake::Fork, &[]),
        (Handshake::Join, &[9; 16]),
        (Handshake::Join, &[9; 15]),
        (Handshake::Ready, &[9; 16]),
        (Handshake::Exec, b"prog\0aaaabbbbccccdddd"),
    ] {
        let mut client = RawClient::connect(&server);
        let (header, _) = client.ask(Kind::Handshake, word as u32, body);
        assert_eq!(header.class, Class::Error, "{word:?}");
        assert!(client.is_hung_up());
    }
    assert_eq!(procs(&kernel), 1);
}

#[test]
fn segments_that_do_not_fit_are_malformed() {
    let (_kernel, server) = served(Options::default());
    let (mut client, shake) = RawClient::guest(&server);
    let good = call_body(&[0; 6], &[(1, b"abc"), (2, b"")]);
    let mut many = SyscallRequest::encode_fixed(&[0; 6], [-1, -1], Company::Alone, 65).to_vec();
    many.extend(vec![0; 65 * 16]);
    let mut bodies = vec![Vec::new(), vec![0; 63], many];
    bodies.extend((64..good.len()).map(|n| good[..n].to_vec()));
    bodies.push([&good[..], &[0]].concat());
    for len in [4, 100, u32::MAX] {
        let mut body = good.clone();
        body[72..76].copy_from_slice(&len.to_le_bytes());
        if len == 4 {
            // Four bytes take as much room as three.
            continue;
        }
        bodies.push(body);
    }
    for body in bodies {
        let (header, _) = client.ask(Kind::Syscall, nr::getpid, &body);
        assert_eq!(header.class, Class::Error, "{body:?}");
        assert_eq!(header.word, ErrorWord::MalformedRequest as u32);
    }
    let (header, body) = client.ask(Kind::Syscall, nr::getpid, &good);
    assert_eq!(header.class, Class::Response);
    assert_eq!(reply(&body).1, i64::from(shake.pid));
}

#[test]
fn a_ring_without_a_descriptor_is_refused() {
    let (_kernel, server) = served(Options::default());
    let (mut client, _) = RawClient::guest(&server);
    let (_, body) = client.ask(Kind::RingAttach, 0, &[]);
    let ring = abi::sysproxy::RingReply::decode(&body).unwrap();
    assert_eq!(ring.error, Errno::EINVAL.0);
}

#[test]
fn the_same_number_twice_at_a_time_is_malformed() {
    let (_kernel, server) = served(Options::default());
    let (mut client, _) = RawClient::guest(&server);
    let (error, _, fds) = client.syscall(nr::pipe, &[0x1000, 0, 0, 0, 0, 0], &[]);
    assert_eq!((error, fds[0].0), (0, 0x1000));
    let read = u64::from(fds[0].1[0]);
    let reqno = client.call(nr::read, &[read, 0x2000, 10, 0, 0, 0], &[]);
    let body = call_body(&[0; 6], &[]);
    // The first one sleeps before the second is read, or not; its number is taken either way.
    client.send(Class::Request, Kind::Syscall, nr::getpid, reqno, &body);
    let (header, _) = client.receive().unwrap();
    assert_eq!(
        (header.class, header.word),
        (Class::Error, ErrorWord::MalformedRequest as u32)
    );
    client.send(Class::Request, Kind::Interrupt, 0, reqno, &[]);
    let (_, body) = client.receive().unwrap();
    assert_eq!(reply(&body).0, Errno::EINTR.0);
}

#[test]
fn a_client_that_hangs_up_at_any_byte_leaves_nothing() {
    let (kernel, server) = served(Options::default());
    let mut bytes = Vec::new();
    let mut add = |kind, word, reqno, body: &[u8]| {
        bytes.extend(Header::new(Class::Request, kind, word, reqno, body.len()).encode());
        bytes.extend(body);
    };
    add(Kind::Handshake, Handshake::Guest as u32, 1, b"cut");
    let args = [0x1000, (O_CREAT | O_RDWR) as u64, 0o644, 0, 0, 0];
    add(
        Kind::Syscall,
        nr::open,
        2,
        &call_body(&args, &[(0x1000, b"/cut\0")]),
    );
    add(
        Kind::Syscall,
        nr::pipe,
        3,
        &call_body(&[0x2000, 0, 0, 0, 0, 0], &[]),
    );
    // Whichever descriptors those were, this one may sleep, and this one asks for memory.
    add(
        Kind::Syscall,
        nr::read,
        4,
        &call_body(&[1, 0x3000, 1, 0, 0, 0], &[]),
    );
    add(
        Kind::Syscall,
        nr::write,
        5,
        &call_body(&[0, 0x3000, 1, 0, 0, 0], &[]),
    );
    add(Kind::Prefork, 0, 6, &[]);
    for len in 0..=bytes.len() {
        let mut client = RawClient::connect(&server);
        client.stream.write_all(&bytes[..len]).unwrap();
    }
    eventually("nothing left", || {
        procs(&kernel) == 1 && server.clients() == 0
    });
}

#[test]
fn nonsense_is_survived() {
    let mut seed = 88_172_645_463_325_252u64;
    let mut next = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    for _ in 0..300 {
        let mut bytes = Vec::new();
        let kinds = [0, 1, 2, 3, 4, 5, 6, 7, 8, 16, 17, 18, 19, 99];
        let guest = Header::new(Class::Request, Kind::Handshake, 0, 1, 0);
        bytes.extend(guest.encode());
        for _ in 0..next() % 8 {
            let body = (next() % 120) as usize;
            let mut raw = Header::new(Class::Request, Kind::Syscall, 0, next() % 4, body).encode();
            raw[16] = (next() % 3) as u8;
            raw[18] = kinds[next() as usize % kinds.len()];
            raw[20] = next() as u8;
            bytes.extend(raw);
            bytes.extend((0..body).map(|_| if next() % 3 == 0 { next() as u8 } else { 0 }));
        }
        sysproxy::fuzz_frames(&bytes);
    }
}

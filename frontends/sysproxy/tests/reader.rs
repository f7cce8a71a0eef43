//! Who reads a connection: the thread that runs its calls, for good when they come without a pause, and somebody else while
//! one of them sleeps.

mod support;

use std::cell::RefCell;

use abi::sysproxy::{Class, Company, ErrorWord, Kind, SyscallRequest};
use abi::{Errno, nr};
use support::{RawClient, call_body, eventually, procs, reply, served};
use sysproxy::{Options, Server};

/// A client that has made so many calls in a row that a reader stays with it.
fn regular(server: &Server) -> RawClient {
    let (mut client, shake) = RawClient::guest(server);
    for _ in 0..200 {
        let (error, pid, _) = client.syscall(nr::getpid, &[0; 6], &[]);
        assert_eq!((error, pid), (0, i64::from(shake.pid)));
    }
    client
}

fn pipe(client: &mut RawClient) -> [u64; 2] {
    let (error, _, written) = client.syscall(nr::pipe, &[0x1000, 0, 0, 0, 0, 0], &[]);
    assert_eq!(error, 0);
    let number = |at| i32::from_le_bytes(written[0].1[at..at + 4].try_into().unwrap()) as u64;
    [number(0), number(4)]
}

#[test]
fn requests_are_read_while_a_call_sleeps() {
    let (_kernel, server) = served(Options::default());
    let mut client = regular(&server);
    let [read, write] = pipe(&mut client);
    for round in 0..100u8 {
        let asleep = client.call(nr::read, &[read, 0x2000, 8, 0, 0, 0], &[]);
        let data = (0x3000, &[round; 8][..]);
        let waking = client.call(nr::write, &[write, 0x3000, 8, 0, 0, 0], &[data]);
        let mut answers = [client.receive().unwrap(), client.receive().unwrap()];
        answers.sort_by_key(|(header, _)| header.reqno);
        assert_eq!(answers.each_ref().map(|a| a.0.reqno), [asleep, waking]);
        assert_eq!(reply(&answers[0].1), (0, 8, vec![(0x2000, vec![round; 8])]));
        assert_eq!(reply(&answers[1].1), (0, 8, vec![]));
    }
}

#[test]
fn memory_is_asked_for_by_the_thread_that_runs_the_call() {
    let (_kernel, server) = served(Options::default());
    let mut client = regular(&server);
    let [_, write] = pipe(&mut client);
    let reqno = client.call(nr::write, &[write, 0x3000, 4, 0, 0, 0], &[]);
    let (ask, _) = client.receive().unwrap();
    assert_eq!(
        (ask.class, ask.kind, ask.reqno),
        (Class::Request, Kind::Copyin, reqno)
    );
    let mut body = abi::sysproxy::CopyData::encode_fixed(4, 0x3000).to_vec();
    body.extend(b"data");
    client.send(Class::Response, Kind::Copyin, 0, reqno, &body);
    let (header, body) = client.receive().unwrap();
    assert_eq!((header.reqno, reply(&body).1), (reqno, 4));
}

#[test]
fn a_client_that_dies_asleep_leaves_nothing() {
    let (kernel, server) = served(Options::default());
    let mut client = regular(&server);
    let [read, _write] = pipe(&mut client);
    client.call(nr::read, &[read, 0x2000, 8, 0, 0, 0], &[]);
    drop(client);
    eventually("the process is gone", || procs(&kernel) == 1);
    drop(regular(&server));
    eventually("and the next one", || procs(&kernel) == 1);
}

#[test]
fn regular_clients_leave_threads_for_others() {
    let options = Options {
        max_workers: 8,
        ..Options::default()
    };
    let (_kernel, server) = served(options);
    let regulars: Vec<_> = (0..6).map(|_| regular(&server)).collect();
    let (client, shake) = RawClient::guest(&server);
    let client = RefCell::new(client);
    let body = call_body(&[0; 6], &[]);
    // Refused until readers that are not to stay have found their clients idle.
    eventually("one more is served", || {
        let (header, body) = client.borrow_mut().ask(Kind::Syscall, nr::getpid, &body);
        header.class == Class::Response && reply(&body).1 == i64::from(shake.pid)
    });
    drop(regulars);
}

#[test]
fn a_request_says_whether_it_is_alone() {
    let (_kernel, server) = served(Options::default());
    let (mut client, shake) = RawClient::guest(&server);
    for company in [Company::Others, Company::Alone] {
        let body = SyscallRequest::encode_fixed(&[0; 6], [-1, -1], company, 0);
        let (_, body) = client.ask(Kind::Syscall, nr::getpid, &body);
        assert_eq!(reply(&body).1, i64::from(shake.pid));
    }
    let mut body = SyscallRequest::encode_fixed(&[0; 6], [-1, -1], Company::Alone, 0);
    body[60] = 2;
    let (header, _) = client.ask(Kind::Syscall, nr::getpid, &body);
    assert_eq!(header.class, Class::Error);
    let errno = ErrorWord::from_wire(header.word).map(ErrorWord::errno);
    assert_eq!(errno, Some(Errno::EINVAL));
}

//! Local sockets (AF_UNIX) on a kernel in this process.

use std::sync::Arc;

use abi::{Errno, Syscalls, nr};
use rumpkit::{Kernel, LwpHandle, RforkFds};
use testing::Memory;
use testing::sockets::*;

const UNIX: i32 = 1;
const SEQPACKET: i32 = 5;

fn process() -> (Arc<Kernel>, LwpHandle) {
    let kernel = rumpkit::builder().boot().expect("boots");
    let process = kernel.rfork(RforkFds::Clear).expect("a process");
    (kernel, process)
}

fn addr(name: &[u8]) -> Vec<u8> {
    [&1u16.to_le_bytes(), name].concat()
}

#[test]
fn a_stream_carries_bytes_both_ways_and_ends() {
    let (_kernel, p) = process();
    let [a, b] = socketpair(&p, STREAM);
    assert_eq!(write(&p, a, b"hello "), Ok(6));
    assert_eq!(write(&p, a, b"world"), Ok(5));
    assert_eq!(
        read(&p, b, 100).expect("read"),
        b"hello world",
        "no borders in a stream"
    );
    assert_eq!(write(&p, b, b"back"), Ok(4));
    assert_eq!(p.shutdown(b, 1), Ok(0));
    assert_eq!(write(&p, b, b"x"), Err(Errno::EPIPE));
    assert_eq!(read(&p, a, 2).expect("read"), b"ba");
    assert_eq!(read(&p, a, 100).expect("read"), b"ck");
    assert_eq!(read(&p, a, 100).expect("the end"), b"");
    assert_eq!(p.close(b), Ok(0));
    assert_eq!(write(&p, a, b"x"), Err(Errno::EPIPE));
}

#[test]
fn unread_data_at_close_resets_the_peer_once() {
    let (_kernel, p) = process();
    let [a, b] = socketpair(&p, STREAM);
    write(&p, a, b"unread").expect("sent");
    p.close(b).expect("closed");
    assert_eq!(read(&p, a, 1), Err(Errno::ECONNRESET));
    assert_eq!(read(&p, a, 1).expect("the end"), b"");
}

#[test]
fn a_listener_in_the_file_system_accepts_in_order() {
    let (_kernel, p) = process();
    let name = addr(b"/tmp/socket\0");
    let listener = p.socket(UNIX, STREAM, 0).expect("a socket") as i32;
    assert_eq!(p.listen(listener, 1), Err(Errno::EINVAL), "no name yet");
    p.bind(listener, &name, name.len()).expect("bound");
    let other = p.socket(UNIX, STREAM | NONBLOCK, 0).expect("a socket") as i32;
    assert_eq!(p.bind(other, &name, name.len()), Err(Errno::EADDRINUSE));
    assert_eq!(
        p.connect(other, &name, name.len()),
        Err(Errno::ECONNREFUSED),
        "nobody listens"
    );
    p.listen(listener, 0).expect("listens");
    p.connect(other, &name, name.len())
        .expect("connected before it is accepted");
    assert_eq!(p.connect(other, &name, name.len()), Err(Errno::EISCONN));
    let late = p.socket(UNIX, STREAM | NONBLOCK, 0).expect("a socket") as i32;
    assert_eq!(
        p.connect(late, &name, name.len()),
        Err(Errno::EAGAIN),
        "the queue is full"
    );
    write(&p, other, b"early").expect("sent before accept");
    let mut peer = [0; 16];
    let mut len = 16u32.to_le_bytes();
    let served = p
        .accept4(listener, &mut peer, &mut len, 0)
        .expect("accepted") as i32;
    assert_eq!(u32::from_le_bytes(len), 2, "the client has no name");
    assert_eq!(read(&p, served, 10).expect("read"), b"early");
    let mut own = [0; 32];
    let mut len = 32u32.to_le_bytes();
    p.getpeername(other, &mut own, &mut len).expect("a name");
    assert_eq!(own[..u32::from_le_bytes(len) as usize], name);
    p.unlink(c"/tmp/socket").expect("unlinked");
    assert_eq!(p.connect(late, &name, name.len()), Err(Errno::ENOENT));
    p.close(listener).expect("closed");
}

#[test]
fn messages_keep_their_borders_and_their_senders() {
    let (_kernel, p) = process();
    let [a, b] = socketpair(&p, SEQPACKET);
    write(&p, a, b"one").expect("sent");
    write(&p, a, b"three").expect("sent");
    assert_eq!(
        read(&p, b, 2).expect("read"),
        b"on",
        "the rest of a message is lost"
    );
    assert_eq!(read(&p, b, 100).expect("read"), b"three");

    let server = p.socket(UNIX, DGRAM, 0).expect("a socket") as i32;
    let name = addr(b"\0abstract");
    p.bind(server, &name, name.len()).expect("bound");
    let client = p.socket(UNIX, DGRAM, 0).expect("a socket") as i32;
    let auto = addr(b"");
    p.bind(client, &auto, auto.len())
        .expect("a name of the kernel's choice");
    p.sendto(client, b"ping", 4, 0, &name, name.len())
        .expect("sent");
    let mut buf = [0; 16];
    let mut from = [0; 32];
    let mut len = 32u32.to_le_bytes();
    assert_eq!(
        p.recvfrom(server, &mut buf, 16, 0, &mut from, &mut len),
        Ok(4)
    );
    let from = &from[..u32::from_le_bytes(len) as usize];
    assert_eq!((from.len(), from[2]), (8, 0), "five digits behind a NUL");
    p.sendto(server, b"pong", 4, 0, from, from.len())
        .expect("answered");
    assert_eq!(read(&p, client, 16).expect("read"), b"pong");
    p.close(server).expect("closed");
    assert_eq!(
        p.sendto(client, b"x", 1, 0, &name, name.len()),
        Err(Errno::ECONNREFUSED)
    );
}

#[test]
fn a_full_peer_makes_senders_wait_or_say_so() {
    let (kernel, p) = process();
    let [a, b] = socketpair(&p, STREAM | NONBLOCK);
    let mut sent = 0;
    loop {
        match write(&p, a, &[7; 10_000]) {
            Ok(n) => sent += n,
            Err(error) => break assert_eq!(error, Errno::EAGAIN),
        }
    }
    assert!((100_000..=220_000).contains(&sent), "{sent}");
    let child = p.rfork(RforkFds::Share).expect("a process");
    let reader = std::thread::spawn(move || {
        let mut got = 0;
        while got < sent + 300_000 {
            match child.read(b, &mut [0; 5000], 5000) {
                Ok(n) => got += n,
                Err(error) => {
                    assert_eq!(error, Errno::EAGAIN);
                    let watch = abi::Pollfd {
                        fd: b,
                        events: 1,
                        revents: 0,
                    };
                    child
                        .poll(&mut watch.to_bytes(), 1, -1)
                        .expect("something comes");
                }
            }
        }
    });
    p.fcntl(a, abi::F_SETFL, &mut []).expect("blocking again");
    assert_eq!(write(&p, a, &[8; 300_000]), Ok(300_000));
    reader.join().expect("all came");
    drop(kernel);
}

/// A message of a byte and a descriptor: msghdr at 0, iovec at 64, data at 80, control data at 96.
fn with_descriptor(fd: i32) -> Memory {
    let memory = Memory::new(256);
    let data = memory.put(80, b"d");
    let iovec = memory.put_words(64, &[data, 1]);
    let control = memory.put_words(96, &[20]);
    memory.put(104, &[1, 0, 0, 0, 1, 0, 0, 0]);
    memory.put(112, &fd.to_ne_bytes());
    memory.put_words(0, &[0, 0, iovec, 1, control, 20]);
    memory
}

#[test]
fn descriptors_and_credentials_travel_with_a_message() {
    let (_kernel, p) = process();
    let [a, b] = socketpair(&p, STREAM);
    let mut pipe = [0; 8];
    p.pipe2(&mut pipe, 0).expect("a pipe");
    let writer = i32::from_le_bytes(pipe[4..].try_into().expect("4 bytes"));
    let reader = i32::from_le_bytes(pipe[..4].try_into().expect("4 bytes"));
    p.setsockopt(b, 1, 16, &1i32.to_le_bytes(), 4)
        .expect("SO_PASSCRED");

    let memory = with_descriptor(writer);
    assert_eq!(
        p.syscall(&memory, nr::sendmsg, &[a as u64, Memory::at(0), 0, 0, 0, 0]),
        Ok(1)
    );
    p.close(writer).expect("closed here, alive on its way");

    memory.put_words(40, &[100]);
    assert_eq!(
        p.syscall(&memory, nr::recvmsg, &[b as u64, Memory::at(0), 0, 0, 0, 0]),
        Ok(1)
    );
    let word = |at: usize| i32::from_ne_bytes(memory.get(at, 4).try_into().expect("4 bytes"));
    assert_eq!((word(96), word(104), word(108)), (20, 1, 1), "SCM_RIGHTS");
    let arrived = word(112);
    assert_eq!(
        (word(120), word(132), word(136)),
        (28, 2, p.pid()),
        "SCM_CREDENTIALS"
    );
    assert_eq!(write(&p, arrived, b"through"), Ok(7));
    assert_eq!(read(&p, reader, 16).expect("read"), b"through");
    p.close(arrived).expect("closed");
    assert_eq!(read(&p, reader, 16).expect("the last writer is gone"), b"");
}

#[test]
fn a_descriptor_that_never_arrives_is_closed() {
    let (_kernel, p) = process();
    let [a, b] = socketpair(&p, STREAM);
    let mut pipe = [0; 8];
    p.pipe2(&mut pipe, 0).expect("a pipe");
    let [reader, writer] =
        [0, 4].map(|at| i32::from_le_bytes(pipe[at..at + 4].try_into().expect("4 bytes")));
    let memory = with_descriptor(writer);
    assert_eq!(
        p.syscall(&memory, nr::sendmsg, &[a as u64, Memory::at(0), 0, 0, 0, 0]),
        Ok(1)
    );
    p.close(writer).expect("closed");
    p.close(b).expect("closed, with the message in it");
    assert_eq!(read(&p, reader, 1).expect("the end"), b"");
}

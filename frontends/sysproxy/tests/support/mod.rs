//! A kernel and its server, and a client that sends whatever frames it likes.
#![allow(dead_code, unreachable_pub)] // each test file uses its part

pub mod ring;

use std::io::{Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use abi::Syscalls;
use abi::sysproxy::{
    Class, Company, HEADER, Handshake, HandshakeReply, Header, Kind, SegmentHead, SyscallReply,
    SyscallRequest, padded,
};
use hypercall::PosixHost;
use kern::{Kernel, KernelMemory};
use rumpclient::Client;
use sysproxy::{Options, Server};

pub fn kernel() -> Arc<Kernel> {
    Kernel::builder(PosixHost::new())
        .component(&vfs::VFS)
        .component(&net::NET)
        .component(&local::LOCAL)
        .boot()
        .unwrap()
}

/// A server on a socket without a file.
pub fn served(options: Options) -> (Arc<Kernel>, Server) {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let kernel = kernel();
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let url = format!("unix://@sysproxy-test-{}-{n}", std::process::id());
    let server = sysproxy::serve(&kernel, &url, options).unwrap();
    (kernel, server)
}

/// How many processes the kernel has.
pub fn procs(kernel: &Arc<Kernel>) -> usize {
    kernel.implicit(&KernelMemory, |cx| kernel.all_procs(cx).len())
}

/// Waits until something is so that other threads bring about.
pub fn eventually(what: &str, is: impl Fn() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < Duration::from_secs(30), "{what}");
        std::thread::yield_now();
    }
}

/// A client made of bytes.
pub struct RawClient {
    pub stream: UnixStream,
    next: u64,
}

impl RawClient {
    /// Connects and reads the banner.
    pub fn connect(server: &Server) -> RawClient {
        let name = server.url().strip_prefix("unix://@").unwrap();
        let addr = SocketAddr::from_abstract_name(name).unwrap();
        let mut stream = UnixStream::connect_addr(&addr).unwrap();
        let mut byte = [0];
        let mut line = Vec::new();
        while byte[0] != b'\n' {
            stream.read_exact(&mut byte).unwrap();
            line.push(byte[0]);
        }
        assert!(line.starts_with(b"RUMPSP-0.4-"), "{line:?}");
        RawClient { stream, next: 0 }
    }

    /// A guest.
    pub fn guest(server: &Server) -> (RawClient, HandshakeReply) {
        let mut client = RawClient::connect(server);
        let (header, body) = client.ask(Kind::Handshake, Handshake::Guest as u32, b"test");
        assert_eq!(header.class, Class::Response);
        (client, HandshakeReply::decode(&body).unwrap())
    }

    pub fn send(&mut self, class: Class, kind: Kind, word: u32, reqno: u64, body: &[u8]) {
        let mut frame = Header::new(class, kind, word, reqno, body.len())
            .encode()
            .to_vec();
        frame.extend(body);
        self.stream.write_all(&frame).unwrap();
    }

    /// Sends a request; its number.
    pub fn request(&mut self, kind: Kind, word: u32, body: &[u8]) -> u64 {
        self.next += 1;
        self.send(Class::Request, kind, word, self.next, body);
        self.next
    }

    /// The next frame; `None` when the server has hung up.
    pub fn receive(&mut self) -> Option<(Header, Vec<u8>)> {
        let mut raw = [0; HEADER];
        self.stream.read_exact(&mut raw).ok()?;
        let header = Header::decode(&raw).unwrap();
        let mut body = vec![0; header.body];
        self.stream.read_exact(&mut body).ok()?;
        Some((header, body))
    }

    pub fn ask(&mut self, kind: Kind, word: u32, body: &[u8]) -> (Header, Vec<u8>) {
        let reqno = self.request(kind, word, body);
        let (header, body) = self.receive().expect("an answer");
        assert_eq!(header.reqno, reqno);
        (header, body)
    }

    /// Starts a call.
    pub fn call(&mut self, nr: u32, args: &[u64; 6], segments: &[(u64, &[u8])]) -> u64 {
        self.request(Kind::Syscall, nr, &call_body(args, segments))
    }

    /// Makes a call; what it answered and wrote.
    pub fn syscall(
        &mut self,
        nr: u32,
        args: &[u64; 6],
        segments: &[(u64, &[u8])],
    ) -> (i32, i64, Vec<(u64, Vec<u8>)>) {
        let reqno = self.call(nr, args, segments);
        let (header, body) = self.receive().expect("an answer");
        assert_eq!((header.reqno, header.class), (reqno, Class::Response));
        reply(&body)
    }

    pub fn is_hung_up(&mut self) -> bool {
        self.receive().is_none()
    }
}

pub fn reply(body: &[u8]) -> (i32, i64, Vec<(u64, Vec<u8>)>) {
    let reply = SyscallReply::decode(body).unwrap();
    let segments = reply.segments.map(|(a, d)| (a, d.to_vec())).collect();
    (reply.error, reply.retval, segments)
}

pub fn call_body(args: &[u64; 6], segments: &[(u64, &[u8])]) -> Vec<u8> {
    let mut body =
        SyscallRequest::encode_fixed(args, [-1, -1], Company::Alone, segments.len() as u32)
            .to_vec();
    for (addr, data) in segments {
        let head = SegmentHead {
            addr: *addr,
            len: data.len() as u32,
        };
        body.extend(head.encode());
        body.extend(*data);
        body.resize(body.len() + padded(data.len()) - data.len(), 0);
    }
    body
}

/// A client on the socket alone, and one that has a ring already.
pub fn both(server: &Server) -> [Client; 2] {
    let socket = Client::connect(server.url(), "socket").unwrap();
    socket.use_rings(false);
    let ring = Client::connect(server.url(), "ring").unwrap();
    for _ in 0..10 {
        assert_eq!(ring.getpid(), Ok(i64::from(ring.pid())));
    }
    [socket, ring]
}

/// The ends of a pipe.
pub fn pipe(client: &Client) -> (i32, i32) {
    let mut fds = [0; 8];
    client.pipe2(&mut fds, 0).unwrap();
    let fd = |at: usize| i32::from_le_bytes(fds[at..at + 4].try_into().unwrap());
    (fd(0), fd(4))
}

//! Kernels with the local domain alone, and descriptors that travel.
#![allow(dead_code, unreachable_pub)]

use std::sync::{Arc, Weak};

use abi::{Errno, Syscalls, nr};
use hypercall::PosixHost;
use kern::{File, Kernel, KernelMemory, LwpHandle, RforkFds};
use net::Net;
#[allow(unused_imports)]
pub use testing::sockets::{DGRAM, NONBLOCK, STREAM, socketpair, write};
use testing::{Memory, Setup};

pub const UNIX: i32 = 1;
pub const SEQPACKET: i32 = 5;
pub const MSG_PEEK: i32 = 2;
pub const MSG_DONTWAIT: i32 = 0x40;

/// A file that may be gone.
pub type Gone = Weak<dyn File>;

pub fn setup() -> Setup {
    Setup::new().components(&[&net::NET, &local::LOCAL])
}

pub fn process() -> (Arc<Kernel>, LwpHandle) {
    let kernel = Kernel::builder(PosixHost::new())
        .component(&net::NET)
        .component(&local::LOCAL)
        .boot()
        .expect("boots");
    let process = kernel.rfork(RforkFds::Clear).expect("a process");
    (kernel, process)
}

/// The file behind a descriptor.
pub fn file(p: &LwpHandle, fd: i32) -> Gone {
    p.enter(&KernelMemory, |cx| {
        Arc::downgrade(cx.file(fd).expect("open").file())
    })
}

pub fn is_gone(file: &Gone) -> bool {
    file.strong_count() == 0
}

/// How many sockets of the domain a kernel has.
pub fn sockets(kernel: &Arc<Kernel>) -> usize {
    kernel.implicit(&KernelMemory, |cx| {
        let domain = Net::of(cx).expect("a network").domain(cx, UNIX);
        domain.expect("a domain").sockets(cx).len()
    })
}

/// An abstract name.
pub fn name(n: usize) -> Vec<u8> {
    [
        &1u16.to_ne_bytes()[..],
        b"\0socket",
        n.to_string().as_bytes(),
    ]
    .concat()
}

/// A socket with a name.
pub fn named(p: &LwpHandle, kind: i32, n: usize) -> i32 {
    let fd = p.socket(UNIX, kind, 0).expect("a socket") as i32;
    p.bind(fd, &name(n), name(n).len()).expect("bound");
    fd
}

/// A descriptor, closed.
pub fn close(p: &LwpHandle, fd: i32) {
    assert_eq!(p.close(fd), Ok(0));
}

/// Sends a byte with descriptors, to the peer or to whoever has a name.
pub fn give(p: &LwpHandle, by: i32, fds: &[i32], to: Option<usize>) -> Result<i64, Errno> {
    let memory = Memory::new(2048);
    let bytes: Vec<u8> = fds.iter().flat_map(|fd| fd.to_ne_bytes()).collect();
    let len = 16 + bytes.len() as u64;
    memory.put_words(64, &[Memory::at(80), 1]);
    memory.put_words(256, &[len]);
    memory.put(264, &[1i32.to_ne_bytes(), 1i32.to_ne_bytes()].concat());
    memory.put(272, &bytes);
    let to = to.map_or(Vec::new(), name);
    let at = match to.is_empty() {
        true => 0,
        false => memory.put(128, &to),
    };
    let iov = Memory::at(64);
    let head = memory.put_words(0, &[at, to.len() as u64, iov, 1, Memory::at(256), len]);
    let args = [by as u64, head, MSG_DONTWAIT as u64, 0, 0, 0];
    p.syscall(&memory, nr::sendmsg, &args)
}

/// Receives a byte and the descriptors that come with it.
pub fn take(p: &LwpHandle, from: i32, flags: i32) -> Result<Vec<i32>, Errno> {
    let memory = Memory::new(2048);
    memory.put_words(64, &[Memory::at(80), 1]);
    let head = memory.put_words(0, &[0, 0, Memory::at(64), 1, Memory::at(256), 1792]);
    let flags = flags | MSG_DONTWAIT;
    let args = [from as u64, head, flags as u64, 0, 0, 0];
    p.syscall(&memory, nr::recvmsg, &args)?;
    let word = |at: usize| u64::from_ne_bytes(memory.get(at, 8).try_into().expect("8 bytes"));
    if word(40) == 0 {
        return Ok(Vec::new());
    }
    let bytes = memory.get(272, word(256) as usize - 16);
    let fds = bytes
        .chunks(4)
        .map(|b| i32::from_ne_bytes(b.try_into().expect("4 bytes")));
    Ok(fds.collect())
}

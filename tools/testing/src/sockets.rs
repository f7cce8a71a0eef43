//! Calls on sockets, with addresses as text. What has to go well for a test to make sense panics otherwise.

use std::net::{IpAddr, SocketAddr};

use abi::{Errno, Syscalls, nr};
use kern::LwpHandle;

use crate::Memory;

/// `AF_INET`.
pub const INET: i32 = 2;
/// `AF_INET6`.
pub const INET6: i32 = 10;
/// `SOCK_STREAM`.
pub const STREAM: i32 = 1;
/// `SOCK_DGRAM`.
pub const DGRAM: i32 = 2;
/// `SOCK_RAW`.
pub const RAW: i32 = 3;
/// `SOCK_NONBLOCK`.
pub const NONBLOCK: i32 = 0o4000;

/// A `sockaddr_in` or `sockaddr_in6`, of `127.0.0.1:80` or `[::1]:80`.
pub fn sockaddr(text: &str) -> Vec<u8> {
    match text.parse().expect("an address") {
        SocketAddr::V4(a) => {
            let mut out = 2u16.to_ne_bytes().to_vec();
            out.extend_from_slice(&a.port().to_be_bytes());
            out.extend_from_slice(&a.ip().octets());
            out.resize(16, 0);
            out
        }
        SocketAddr::V6(a) => {
            let mut out = 10u16.to_ne_bytes().to_vec();
            out.extend_from_slice(&a.port().to_be_bytes());
            out.extend_from_slice(&[0; 4]);
            out.extend_from_slice(&a.ip().octets());
            out.extend_from_slice(&a.scope_id().to_ne_bytes());
            out
        }
    }
}

/// The text of one.
pub fn shown(addr: &[u8]) -> String {
    let port = u16::from_be_bytes([addr[2], addr[3]]);
    let ip: IpAddr = match u16::from_ne_bytes([addr[0], addr[1]]) {
        2 => IpAddr::from(<[u8; 4]>::try_from(&addr[4..8]).expect("4 bytes")),
        _ => IpAddr::from(<[u8; 16]>::try_from(&addr[8..24]).expect("16 bytes")),
    };
    SocketAddr::new(ip, port).to_string()
}

/// socket(2), which has to go well.
pub fn socket(p: &LwpHandle, family: i32, kind: i32, protocol: i32) -> i32 {
    p.socket(family, kind, protocol).expect("a socket") as i32
}

/// bind(2).
pub fn bind(p: &LwpHandle, fd: i32, to: &str) -> Result<i64, Errno> {
    let addr = sockaddr(to);
    p.bind(fd, &addr, addr.len())
}

/// connect(2).
pub fn connect(p: &LwpHandle, fd: i32, to: &str) -> Result<i64, Errno> {
    let addr = sockaddr(to);
    p.connect(fd, &addr, addr.len())
}

/// getsockname(2).
pub fn name(p: &LwpHandle, fd: i32) -> String {
    let (mut addr, mut len) = ([0; 28], 28u32.to_ne_bytes());
    p.getsockname(fd, &mut addr, &mut len).expect("a name");
    shown(&addr)
}

/// getpeername(2).
pub fn peer(p: &LwpHandle, fd: i32) -> Result<String, Errno> {
    let (mut addr, mut len) = ([0; 28], 28u32.to_ne_bytes());
    p.getpeername(fd, &mut addr, &mut len)?;
    Ok(shown(&addr))
}

/// A socket of a family bound to an address; answers its descriptor and its name.
pub fn bound(p: &LwpHandle, family: i32, kind: i32, to: &str) -> (i32, String) {
    let fd = socket(p, family, kind, 0);
    bind(p, fd, to).expect("bound");
    (fd, name(p, fd))
}

/// A listening socket, and its name.
pub fn listener(p: &LwpHandle, family: i32, to: &str, backlog: i32) -> (i32, String) {
    let fd = socket(p, family, STREAM, 0);
    set(p, fd, 1, 2, 1).expect("SO_REUSEADDR");
    bind(p, fd, to).expect("bound");
    p.listen(fd, backlog).expect("listens");
    (fd, name(p, fd))
}

/// accept(2).
pub fn accept(p: &LwpHandle, fd: i32) -> Result<i32, Errno> {
    p.accept(fd, &mut [], &mut []).map(|fd| fd as i32)
}

/// Both ends of a connection over the loopback.
pub fn pair(p: &LwpHandle) -> (i32, i32) {
    let (l, to) = listener(p, INET, "127.0.0.1:0", 5);
    let a = socket(p, INET, STREAM, 0);
    connect(p, a, &to).expect("connected");
    let b = accept(p, l).expect("accepted");
    p.close(l).expect("closed");
    (a, b)
}

/// socketpair(2) of the local domain.
pub fn socketpair(p: &LwpHandle, kind: i32) -> [i32; 2] {
    let mut pair = [0; 8];
    p.socketpair(1, kind, 0, &mut pair).expect("a pair");
    [0, 4].map(|at| i32::from_ne_bytes([pair[at], pair[at + 1], pair[at + 2], pair[at + 3]]))
}

/// recv(2) of at most so many bytes.
pub fn recv(p: &LwpHandle, fd: i32, most: usize, flags: i32) -> Result<Vec<u8>, Errno> {
    let mut buf = vec![0; most];
    let n = p.recvfrom(fd, &mut buf, most, flags, &mut [], &mut [])?;
    buf.truncate(n as usize);
    Ok(buf)
}

/// send(2).
pub fn send(p: &LwpHandle, fd: i32, data: &[u8], flags: i32) -> Result<i64, Errno> {
    p.sendto(fd, data, data.len(), flags, &[], 0)
}

/// read(2) of at most so many bytes.
pub fn read(p: &LwpHandle, fd: i32, most: usize) -> Result<Vec<u8>, Errno> {
    let mut buf = vec![0; most];
    let n = p.read(fd, &mut buf, most)?;
    buf.truncate(n as usize);
    Ok(buf)
}

/// write(2).
pub fn write(p: &LwpHandle, fd: i32, data: &[u8]) -> Result<i64, Errno> {
    p.write(fd, data, data.len())
}

/// sendto(2).
pub fn sendto(p: &LwpHandle, fd: i32, data: &[u8], to: &str) -> Result<i64, Errno> {
    let addr = sockaddr(to);
    p.sendto(fd, data, data.len(), 0, &addr, addr.len())
}

/// recvfrom(2): a datagram, and who sent it.
pub fn recvfrom(p: &LwpHandle, fd: i32, flags: i32) -> Result<(Vec<u8>, String), Errno> {
    let mut buf = vec![0; 70_000];
    let (mut addr, mut len) = ([0; 28], 28u32.to_ne_bytes());
    let room = buf.len();
    let n = p.recvfrom(fd, &mut buf, room, flags, &mut addr, &mut len)?;
    buf.truncate(n as usize);
    Ok((buf, shown(&addr)))
}

/// setsockopt(2) of a number.
pub fn set(p: &LwpHandle, fd: i32, level: i32, name: i32, value: i32) -> Result<i64, Errno> {
    p.setsockopt(fd, level, name, &value.to_ne_bytes(), 4)
}

/// getsockopt(2) of a number.
pub fn get(p: &LwpHandle, fd: i32, level: i32, name: i32) -> Result<i32, Errno> {
    let (mut value, mut len) = ([0; 4], 4u32.to_ne_bytes());
    p.getsockopt(fd, level, name, &mut value, &mut len)?;
    Ok(i32::from_ne_bytes(value))
}

/// Which events of a descriptor are true now.
pub fn poll(p: &LwpHandle, fd: i32, events: i16) -> i16 {
    poll_for(p, fd, events, 0)
}

/// Waits for events of a descriptor, `timeout` in milliseconds.
pub fn poll_for(p: &LwpHandle, fd: i32, events: i16, timeout: i32) -> i16 {
    let mut raw = [0; 8];
    raw[..4].copy_from_slice(&fd.to_ne_bytes());
    raw[4..6].copy_from_slice(&events.to_ne_bytes());
    p.poll(&mut raw, 1, timeout).expect("polled");
    i16::from_ne_bytes([raw[6], raw[7]])
}

/// Data, control data (level, type, bytes), flags, who sent it.
pub type Message = (Vec<u8>, Vec<(i32, i32, Vec<u8>)>, i32, String);

/// recvmsg(2): data, control data (level, type, bytes), flags, who sent it.
pub fn recvmsg(p: &LwpHandle, fd: i32, flags: i32) -> Result<Message, Errno> {
    let memory = Memory::new(8192);
    let [name, iovec, control, data] = [512, 64, 1024, 4096].map(Memory::at);
    memory.put_words(64, &[data, 4096]);
    let header = memory.put_words(0, &[name, 28, iovec, 1, control, 1024]);
    let args = [fd as u64, header, flags as u64, 0, 0, 0];
    let n = p.syscall(&memory, nr::recvmsg, &args)?;
    let number = |bytes: Vec<u8>| u64::from_ne_bytes(bytes.try_into().expect("8 bytes"));
    let control_len = number(memory.get(40, 8)) as usize;
    let control = memory.get(1024, control_len);
    let mut pieces = Vec::new();
    let mut at = 0;
    while at + 16 <= control.len() {
        let len = number(control[at..at + 8].to_vec()) as usize;
        let int = |at: usize| i32::from_ne_bytes(control[at..at + 4].try_into().expect("4 bytes"));
        pieces.push((
            int(at + 8),
            int(at + 12),
            control[at + 16..at + len].to_vec(),
        ));
        at += len.next_multiple_of(8);
    }
    let flags = i32::from_ne_bytes(memory.get(48, 4).try_into().expect("4 bytes"));
    Ok((
        memory.get(4096, n as usize),
        pieces,
        flags,
        shown(&memory.get(512, 28)),
    ))
}

/// sendmsg(2) of data with one piece of control data: level, type, bytes.
pub fn sendmsg(
    p: &LwpHandle,
    fd: i32,
    data: &[u8],
    to: &str,
    (level, kind, value): (i32, i32, &[u8]),
) -> Result<i64, Errno> {
    let memory = Memory::new(4096 + data.len());
    let addr = sockaddr(to);
    let name = memory.put(512, &addr);
    let control_len = 16 + value.len() as u64;
    let control = memory.put_words(1024, &[control_len]);
    memory.put(1032, &[level.to_ne_bytes(), kind.to_ne_bytes()].concat());
    memory.put(1040, value);
    let bytes = memory.put(4096, data);
    let iovec = memory.put_words(64, &[bytes, data.len() as u64]);
    let words = [name, addr.len() as u64, iovec, 1, control, control_len];
    let header = memory.put_words(0, &words);
    p.syscall(&memory, nr::sendmsg, &[fd as u64, header, 0, 0, 0, 0])
}

//! Kernels with the inet domains, and calls on their sockets.
#![allow(dead_code, unreachable_pub)]

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use abi::{Errno, Syscalls, nr};
use hypercall::sim::{SimConfig, SimHost};
use hypercall::{Host, PosixHost};
use inet::{IfAddr, Inet};
use kern::{Curlwp, Kernel, KernelMemory, LwpHandle, RforkFds};
use net::Ifnet;
pub use testing::Memory;

pub const INET: i32 = 2;
pub const INET6: i32 = 10;
pub const STREAM: i32 = 1;
pub const DGRAM: i32 = 2;
pub const RAW: i32 = 3;
pub const NONBLOCK: i32 = 0o4000;

pub fn boot_on(host: Arc<dyn Host>) -> Arc<Kernel> {
    Kernel::builder(host)
        .component(&net::NET)
        .component(&inet::INET)
        .component(&netloop::LOOP)
        .boot()
        .expect("boots")
}

pub fn process() -> (Arc<Kernel>, LwpHandle) {
    let kernel = boot_on(PosixHost::new());
    let process = kernel.rfork(RforkFds::Clear).expect("a process");
    (kernel, process)
}

pub fn run<R>(kernel: &Arc<Kernel>, f: impl FnOnce(&Curlwp<'_>) -> R) -> R {
    kernel.implicit(&KernelMemory, f)
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Puts an end of a cable into a kernel, with its addresses.
pub fn plug(
    kernel: &Arc<Kernel>,
    end: veth::End,
    name: &str,
    mtu: u32,
    last: u8,
    addrs: &[&str],
) -> Arc<Ifnet> {
    run(kernel, |cx| {
        let with = veth::Plug {
            name: name.into(),
            address: [2, 0, 0, 0, 0, last],
            mtu,
        };
        let interface = veth::plug(cx, end, with).expect("plugged");
        interface.set_up(cx, true).expect("up");
        let inet = Inet::of(cx).expect("a stack");
        for addr in addrs {
            let (addr, len) = addr.split_once('/').expect("with a prefix");
            let mut addr = IfAddr::new(interface.index(), ip(addr), len.parse().expect("a length"));
            addr.nodad = true;
            inet.add_address(cx.cpu(), addr).expect("added");
        }
        interface
    })
}

/// Runs on a simulated host under each seed.
pub fn simulated(seeds: std::ops::Range<u64>, body: fn(&Arc<SimHost>, &Arc<Kernel>)) {
    for seed in seeds {
        let run = SimHost::run(SimConfig::new(seed), move |host| {
            let kernel = boot_on(host.clone());
            body(host, &kernel);
            kernel.shutdown(true).expect("halts");
        });
        if let Err(failure) = &run.result {
            panic!(
                "seed {seed}: {failure:?}\n{}",
                String::from_utf8_lossy(&run.console)
            );
        }
        assert!(
            run.leftover.is_empty(),
            "seed {seed} leaves {:?}",
            run.leftover
        );
    }
}

/// Runs a body with a thread and a process of its own.
pub fn program(
    host: &Arc<SimHost>,
    kernel: &Arc<Kernel>,
    body: impl FnOnce(&LwpHandle) + Send + 'static,
) -> Box<dyn hypercall::JoinHandle> {
    let kernel = kernel.clone();
    let run = move || body(&kernel.rfork(RforkFds::Clear).expect("a process"));
    host.spawn("program", Box::new(run)).expect("a thread")
}

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

pub fn shown(addr: &[u8]) -> String {
    let port = u16::from_be_bytes([addr[2], addr[3]]);
    let ip: IpAddr = match u16::from_ne_bytes([addr[0], addr[1]]) {
        2 => IpAddr::from(<[u8; 4]>::try_from(&addr[4..8]).expect("4 bytes")),
        _ => IpAddr::from(<[u8; 16]>::try_from(&addr[8..24]).expect("16 bytes")),
    };
    SocketAddr::new(ip, port).to_string()
}

pub fn socket(p: &LwpHandle, family: i32, kind: i32, protocol: i32) -> i32 {
    p.socket(family, kind, protocol).expect("a socket") as i32
}

pub fn bind(p: &LwpHandle, fd: i32, to: &str) -> Result<i64, Errno> {
    let addr = sockaddr(to);
    p.bind(fd, &addr, addr.len())
}

pub fn connect(p: &LwpHandle, fd: i32, to: &str) -> Result<i64, Errno> {
    let addr = sockaddr(to);
    p.connect(fd, &addr, addr.len())
}

pub fn name(p: &LwpHandle, fd: i32) -> String {
    let (mut addr, mut len) = ([0; 28], 28u32.to_ne_bytes());
    p.getsockname(fd, &mut addr, &mut len).expect("a name");
    shown(&addr)
}

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

pub fn sendto(p: &LwpHandle, fd: i32, data: &[u8], to: &str) -> Result<i64, Errno> {
    let addr = sockaddr(to);
    p.sendto(fd, data, data.len(), 0, &addr, addr.len())
}

pub fn recvfrom(p: &LwpHandle, fd: i32, flags: i32) -> Result<(Vec<u8>, String), Errno> {
    let mut buf = vec![0; 70_000];
    let (mut addr, mut len) = ([0; 28], 28u32.to_ne_bytes());
    let room = buf.len();
    let n = p.recvfrom(fd, &mut buf, room, flags, &mut addr, &mut len)?;
    buf.truncate(n as usize);
    Ok((buf, shown(&addr)))
}

pub fn read(p: &LwpHandle, fd: i32, most: usize) -> Result<Vec<u8>, Errno> {
    let mut buf = vec![0; most];
    let n = p.read(fd, &mut buf, most)?;
    buf.truncate(n as usize);
    Ok(buf)
}

pub fn write(p: &LwpHandle, fd: i32, data: &[u8]) -> Result<i64, Errno> {
    p.write(fd, data, data.len())
}

pub fn set(p: &LwpHandle, fd: i32, level: i32, name: i32, value: i32) -> Result<i64, Errno> {
    p.setsockopt(fd, level, name, &value.to_ne_bytes(), 4)
}

pub fn get(p: &LwpHandle, fd: i32, level: i32, name: i32) -> Result<i32, Errno> {
    let (mut value, mut len) = ([0; 4], 4u32.to_ne_bytes());
    p.getsockopt(fd, level, name, &mut value, &mut len)?;
    Ok(i32::from_ne_bytes(value))
}

/// Which events of a descriptor are true now.
pub fn poll(p: &LwpHandle, fd: i32, events: i16) -> i16 {
    let mut raw = [0; 8];
    raw[..4].copy_from_slice(&fd.to_ne_bytes());
    raw[4..6].copy_from_slice(&events.to_ne_bytes());
    p.poll(&mut raw, 1, 0).expect("polled");
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

/// Packets that an interface has sent.
pub fn sent_packets(kernel: &Arc<Kernel>, name: &str) -> u64 {
    run(kernel, |cx| {
        let inet = Inet::of(cx).expect("a stack");
        let interface = inet.interfaces().by_name(cx.cpu(), name);
        let interface = interface.expect("an interface");
        interface
            .stats
            .tx_packets
            .load(std::sync::atomic::Ordering::Relaxed)
    })
}

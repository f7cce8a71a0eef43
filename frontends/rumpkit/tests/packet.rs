//! Packet sockets and the ioctls on interfaces, on a kernel whose one interface sends back what it gets.

use std::sync::{Arc, OnceLock};

use abi::{Errno, Syscalls, nr};
use rumpkit::kern::{Curlwp, Stage};
use rumpkit::net::{Config, Driver, Features, Ifnet, LinkType, Net, Packet};
use rumpkit::{Component, Kernel, LwpHandle, RforkFds};
use testing::Memory;

const PACKET: i32 = 17;
const DGRAM: i32 = 2;
const RAW: i32 = 3;
const NONBLOCK: i32 = 0o4000;
const ALL: i32 = 0x0300; // ETH_P_ALL in network byte order
const SOL_PACKET: i32 = 263;
/// The loopback interface is the first.
const ETH0: i32 = 2;
const MINE: [u8; 6] = [2, 0, 0, 0, 0, 1];
const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// Sends every frame back to who sent it.
#[derive(Default)]
struct Mirror(OnceLock<std::sync::Weak<Ifnet>>);

impl Driver for Mirror {
    fn transmit(&self, cpu: &sync::Cpu<'_>, mut packet: Packet) -> Result<(), Errno> {
        let header = packet.front_mut(12).ok_or(Errno::EINVAL)?;
        header.rotate_left(6);
        if let Some(interface) = self.0.get().and_then(|i| i.upgrade()) {
            interface.input(cpu, packet);
        }
        Ok(())
    }
}

fn attach(cx: &Curlwp<'_>) -> Result<(), Errno> {
    let mirror = Arc::new(Mirror::default());
    let config = Config {
        name: "eth%d".into(),
        link: LinkType::Ethernet,
        mtu: 1500,
        address: MINE,
        features: Features::default(),
        point_to_point: false,
    };
    let interface = Net::of(cx)?
        .interfaces()
        .attach(cx, config, mirror.clone())?;
    let _ = mirror.0.set(Arc::downgrade(&interface));
    interface.set_up(cx, true)
}

static MIRROR: Component = Component {
    name: "mirror",
    stage: Stage::NetIf,
    requires: &["net"],
    init: attach,
};

fn process() -> (Arc<Kernel>, LwpHandle) {
    let kernel = rumpkit::builder().component(&MIRROR).boot().expect("boots");
    let process = kernel.rfork(RforkFds::Clear).expect("a process");
    (kernel, process)
}

fn link_addr(protocol: u16, index: i32, address: [u8; 6]) -> Vec<u8> {
    let mut addr = vec![17, 0];
    addr.extend_from_slice(&protocol.to_be_bytes());
    addr.extend_from_slice(&index.to_le_bytes());
    addr.extend_from_slice(&[0, 0, 0, 6]);
    addr.extend_from_slice(&address);
    addr.extend_from_slice(&[0, 0]);
    addr
}

fn frame(protocol: u16, text: &[u8]) -> Vec<u8> {
    [&OTHER[..], &MINE, &protocol.to_be_bytes(), text].concat()
}

fn socket(p: &LwpHandle, kind: i32, protocol: i32) -> i32 {
    p.socket(PACKET, kind | NONBLOCK, protocol)
        .expect("a socket") as i32
}

/// The next frame, and the type of packet that its address tells.
fn receive(p: &LwpHandle, fd: i32) -> Result<(Vec<u8>, u8), Errno> {
    let (mut buf, mut from, mut len) = ([0; 2000], [0; 20], 20u32.to_le_bytes());
    let n = p.recvfrom(fd, &mut buf, 2000, 0, &mut from, &mut len)?;
    assert_eq!(u32::from_le_bytes(len), 20);
    Ok((buf[..n as usize].to_vec(), from[10]))
}

fn send(p: &LwpHandle, fd: i32, frame: &[u8], to: &[u8]) -> Result<i64, Errno> {
    p.sendto(fd, frame, frame.len(), 0, to, to.len())
}

#[test]
fn a_raw_socket_sees_both_ways_and_one_protocol_only_what_comes_in() {
    let (_kernel, p) = process();
    let all = socket(&p, RAW, ALL);
    let one = socket(&p, RAW, i32::from(0x88b5u16.to_be()));
    let other = socket(&p, RAW, i32::from(0x88b6u16.to_be()));
    let out = frame(0x88b5, b"hello");
    assert_eq!(
        send(&p, all, &out, &link_addr(0, ETH0, [0; 6])),
        Ok(out.len() as i64)
    );
    let back = [&MINE[..], &OTHER, &out[12..]].concat();
    assert_eq!(receive(&p, all), Ok((out, 4)), "outgoing");
    assert_eq!(receive(&p, all), Ok((back.clone(), 0)), "to us");
    assert_eq!(receive(&p, all), Err(Errno::EAGAIN));
    assert_eq!(receive(&p, one), Ok((back, 0)));
    assert_eq!(receive(&p, one), Err(Errno::EAGAIN));
    assert_eq!(receive(&p, other), Err(Errno::EAGAIN));
}

#[test]
fn a_datagram_socket_shows_and_takes_what_is_behind_the_header() {
    let (_kernel, p) = process();
    let fd = socket(&p, DGRAM, i32::from(0x88b5u16.to_be()));
    assert_eq!(
        send(&p, fd, b"hello", &link_addr(0x88b5, ETH0, OTHER)),
        Ok(5)
    );
    assert_eq!(receive(&p, fd), Ok((b"hello".to_vec(), 0)));
    assert_eq!(
        send(&p, fd, &[0; 1501], &link_addr(0x88b5, ETH0, OTHER)),
        Err(Errno::EMSGSIZE)
    );
    assert_eq!(
        send(&p, fd, b"x", &link_addr(0x88b5, 9, OTHER)),
        Err(Errno::ENXIO)
    );
}

#[test]
fn a_filter_chooses_and_cuts() {
    let (_kernel, p) = process();
    let fd = socket(&p, RAW, ALL);
    // ldb [14]; jeq 'b', 0, 1; ret 16; ret 0
    let program: [(u16, u8, u8, u32); 4] = [
        (0x30, 0, 0, 14),
        (0x15, 0, 1, b'b'.into()),
        (6, 0, 0, 16),
        (6, 0, 0, 0),
    ];
    let mut insns = Vec::new();
    for (code, jt, jf, k) in program {
        insns.extend_from_slice(&code.to_le_bytes());
        insns.extend_from_slice(&[jt, jf]);
        insns.extend_from_slice(&k.to_le_bytes());
    }
    // struct sock_fprog at 0, the program behind it.
    let memory = Memory::new(16 + insns.len());
    let at = memory.put(16, &insns);
    let program = memory.put_words(0, &[4, at]);
    let args = [fd as u64, 1, 26, program, 16, 0];
    assert_eq!(p.syscall(&memory, nr::setsockopt, &args), Ok(0));
    for text in [&b"aaaa"[..], b"bbbb"] {
        send(&p, fd, &frame(0x88b5, text), &link_addr(0, ETH0, [0; 6])).expect("sent");
    }
    let (got, kind) = receive(&p, fd).expect("the second");
    assert_eq!((got, kind), (frame(0x88b5, b"bb"), 4));
    assert_eq!(receive(&p, fd).map(|(_, kind)| kind), Ok(0));
    assert_eq!(receive(&p, fd), Err(Errno::EAGAIN));
}

#[test]
fn what_does_not_fit_is_counted() {
    let (_kernel, p) = process();
    let fd = socket(&p, RAW, ALL);
    p.setsockopt(fd, 1, 8, &1i32.to_le_bytes(), 4)
        .expect("the least buffer");
    for _ in 0..20 {
        send(
            &p,
            fd,
            &frame(0x88b5, &[1; 500]),
            &link_addr(0, ETH0, [0; 6]),
        )
        .expect("sent");
    }
    let mut kept = 0;
    while receive(&p, fd).is_ok() {
        kept += 1;
    }
    let (mut stats, mut len) = ([0; 8], 8u32.to_le_bytes());
    p.getsockopt(fd, SOL_PACKET, 6, &mut stats, &mut len)
        .expect("statistics");
    let word =
        |at: usize| u32::from_le_bytes([stats[at], stats[at + 1], stats[at + 2], stats[at + 3]]);
    assert_eq!((word(0), word(4)), (40, 40 - kept));
    assert!((1..40).contains(&kept), "{kept}");
}

#[test]
fn only_the_superuser_opens_one() {
    let (_kernel, p) = process();
    p.setuid(1000).expect("another user");
    assert_eq!(p.socket(PACKET, RAW, ALL), Err(Errno::EPERM));
}

fn ioctl(p: &LwpHandle, fd: i32, cmd: i32, name: &[u8], data: &[u8]) -> Result<[u8; 40], Errno> {
    let mut request = [0; 40];
    request[..name.len()].copy_from_slice(name);
    request[16..16 + data.len()].copy_from_slice(data);
    p.ioctl(fd, cmd, &mut request)?;
    Ok(request)
}

#[test]
fn interfaces_are_asked_and_set_by_name() {
    let (_kernel, p) = process();
    let fd = socket(&p, RAW, 0);
    let int = |r: [u8; 40]| i32::from_le_bytes([r[16], r[17], r[18], r[19]]);
    assert_eq!(
        ioctl(&p, fd, 0x8933, b"eth0", &[]).map(int),
        Ok(ETH0),
        "SIOCGIFINDEX"
    );
    assert_eq!(
        ioctl(&p, fd, 0x8933, b"eth7", &[]).map(int),
        Err(Errno::ENODEV)
    );
    assert_eq!(
        ioctl(&p, fd, 0x8910, b"", &[2]).map(|r| r[..5].to_vec()),
        Ok(b"eth0\0".to_vec())
    );
    assert_eq!(
        ioctl(&p, fd, 0x8913, b"eth0", &[]).map(int),
        Ok(0x1043),
        "up, running, broadcast, multicast"
    );
    assert_eq!(
        ioctl(&p, fd, 0x8927, b"eth0", &[]).map(|r| r[16..24].to_vec()),
        Ok([&[1, 0][..], &MINE].concat())
    );
    assert_eq!(
        ioctl(&p, fd, 0x8922, b"eth0", &1400i32.to_le_bytes()).map(drop),
        Ok(())
    );
    assert_eq!(ioctl(&p, fd, 0x8921, b"eth0", &[]).map(int), Ok(1400));
    assert_eq!(
        ioctl(&p, fd, 0x8922, b"eth0", &10i32.to_le_bytes()).map(drop),
        Err(Errno::EINVAL)
    );
    assert_eq!(ioctl(&p, fd, 0x8923, b"eth0", b"wan0").map(drop), Ok(()));
    assert_eq!(
        ioctl(&p, fd, 0x8914, b"wan0", &0u16.to_le_bytes()).map(drop),
        Ok(()),
        "down"
    );
    assert_eq!(
        send(&p, fd, &frame(1, b"x"), &link_addr(0, ETH0, [0; 6])),
        Err(Errno::ENETDOWN)
    );
    p.setuid(1000).expect("another user");
    assert_eq!(
        ioctl(&p, fd, 0x8914, b"wan0", &1u16.to_le_bytes()).map(drop),
        Err(Errno::EPERM)
    );
}

#[test]
fn promiscuous_mode_lasts_as_long_as_anybody_wants_it() {
    let (_kernel, p) = process();
    let promiscuous = |fd| ioctl(&p, fd, 0x8913, b"eth0", &[]).map(|r| r[17] & 1 != 0);
    let [a, b] = [socket(&p, RAW, ALL), socket(&p, RAW, ALL)];
    let mut request = [0; 16];
    request[0] = 2;
    request[4] = 1;
    for fd in [a, b] {
        p.setsockopt(fd, SOL_PACKET, 1, &request, 16)
            .expect("joined");
    }
    p.close(a).expect("closed");
    assert_eq!(promiscuous(b), Ok(true));
    p.setsockopt(b, SOL_PACKET, 2, &request, 16).expect("left");
    assert_eq!(promiscuous(b), Ok(false));
}

#[test]
fn frames_go_to_the_ring_that_a_program_maps() {
    let (kernel, p) = process();
    let fd = socket(&p, RAW, ALL);
    let version = 1i32.to_le_bytes();
    let (mut hdrlen, mut len) = (2i32.to_le_bytes(), 4u32.to_le_bytes());
    assert_eq!(
        p.getsockopt(fd, SOL_PACKET, 11, &mut hdrlen, &mut len),
        Err(Errno::EINVAL),
        "TPACKET_V3"
    );
    hdrlen = version;
    p.getsockopt(fd, SOL_PACKET, 11, &mut hdrlen, &mut len)
        .expect("TPACKET_V2");
    assert_eq!(i32::from_le_bytes(hdrlen), 32);
    p.setsockopt(fd, SOL_PACKET, 10, &version, 4)
        .expect("the version");
    let ring = |block: u32, blocks: u32, frame: u32, frames: u32| {
        let words = [block, blocks, frame, frames].map(u32::to_le_bytes);
        p.setsockopt(fd, SOL_PACKET, 5, words.as_flattened(), 16)
    };
    assert_eq!(ring(4096, 1, 2048, 3), Err(Errno::EINVAL));
    assert_eq!(
        ring(4096, 1, 16, 256),
        Err(Errno::EINVAL),
        "no room for a header"
    );
    ring(4096, 1, 2048, 2).expect("a ring");
    assert_eq!(ring(4096, 1, 2048, 2), Err(Errno::EBUSY));
    let host_fd = p.getmapping(fd, 3, 0, 4096).expect("memory to map");
    let memory = std::fs::File::options()
        .read(true)
        .write(true)
        .open(format!("/proc/self/fd/{host_fd}"))
        .expect("the memory");
    let mut bytes = [0; 4096];
    let mut look = || {
        std::os::unix::fs::FileExt::read_exact_at(&memory, &mut bytes, 0).expect("a page");
        bytes
    };
    // Each frame comes back, so two places are taken by one.
    let sent = frame(0x88b5, b"hello");
    for _ in 0..2 {
        send(&p, fd, &sent, &link_addr(0, ETH0, [0; 6])).expect("sent");
    }
    let seen = look();
    let word = |at: usize| u32::from_le_bytes([seen[at], seen[at + 1], seen[at + 2], seen[at + 3]]);
    assert_eq!(
        (word(0) & 1, word(4), word(8)),
        (1, 19, 19),
        "the program's, its length"
    );
    let mac = usize::from(u16::from_le_bytes([seen[12], seen[13]]));
    assert_eq!(seen[mac..mac + 19], sent);
    assert_eq!(seen[32 + 10], 4, "outgoing");
    assert_eq!(
        (word(2048) & 1, seen[2048 + 32 + 10]),
        (1, 0),
        "and what came back"
    );
    let (mut stats, mut len) = ([0; 8], 8u32.to_le_bytes());
    p.getsockopt(fd, SOL_PACKET, 6, &mut stats, &mut len)
        .expect("statistics");
    assert_eq!(stats, [4, 0, 0, 0, 2, 0, 0, 0], "two had no place");
    std::os::unix::fs::FileExt::write_all_at(&memory, &[0; 4], 0).expect("given back");
    send(&p, fd, &sent, &link_addr(0, ETH0, [0; 6])).expect("sent");
    let seen = look();
    assert_eq!(seen[0] & 5, 5, "one more, and that some were lost");
    drop(kernel);
}

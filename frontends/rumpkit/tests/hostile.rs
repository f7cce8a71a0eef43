//! Programs that ask for more than they get: what one can make the kernel keep for it has bounds.

use std::sync::Arc;

use abi::{Errno, Syscalls, nr};
use rumpkit::{Kernel, LwpHandle, RforkFds};
use testing::Memory;
use testing::sockets::*;

const DONTWAIT: i32 = 0x40;
/// What SO_RCVBUF and SO_SNDBUF start with.
const BUFFER: usize = 212_992;

fn process() -> (Arc<Kernel>, LwpHandle) {
    let kernel = rumpkit::builder().boot().expect("boots");
    let process = kernel.rfork(RforkFds::Clear).expect("a process");
    (kernel, process)
}

/// `RTM_GETLINK` of everything.
fn dump() -> [u8; 32] {
    let mut request = [0; 32];
    request[0] = 32;
    request[4..6].copy_from_slice(&18u16.to_le_bytes());
    request[6..8].copy_from_slice(&0x301u16.to_le_bytes());
    request
}

#[test]
fn answers_that_nobody_reads_are_as_many_as_fit_and_one() {
    let (_kernel, p) = process();
    let fd = p.socket(16, 3 | NONBLOCK, 0).expect("a socket") as i32;
    let receive = || {
        let mut buf = vec![0; 64 << 10];
        let len = buf.len();
        p.recvfrom(fd, &mut buf, len, DONTWAIT, &mut [], &mut [])
    };
    let flood = dump().repeat(20_000);
    p.sendto(fd, &flood, flood.len(), 0, &[], 0).expect("sent");
    assert_eq!(receive(), Err(Errno::ENOBUFS), "some of them are missing");
    let (mut bytes, mut answers) = (0, 0);
    while let Ok(n) = receive() {
        bytes += n as usize;
        answers += 1;
    }
    assert!(
        answers > 10 && bytes < BUFFER + 16_384,
        "{answers}, {bytes}"
    );
    p.sendto(fd, &dump(), 32, 0, &[], 0).expect("sent");
    assert!(receive().is_ok(), "it goes on");
}

#[test]
fn a_local_message_without_bytes_takes_room_too() {
    let (_kernel, p) = process();
    for kind in [2, 5] {
        let [a, _b] = socketpair(&p, kind | NONBLOCK);
        let mut count = 0;
        while p.write(a, b"", 0).is_ok() && p.sendto(a, b"", 0, DONTWAIT, &[], 0).is_ok() {
            count += 1;
            assert!(count <= BUFFER / 256);
        }
        assert!(count > 100, "{count}");
    }
}

fn control(level: i32, kind: i32, data: &[u8]) -> Vec<u8> {
    let mut out = (16 + data.len() as u64).to_le_bytes().to_vec();
    out.extend(level.to_le_bytes());
    out.extend(kind.to_le_bytes());
    out.extend(data);
    out.resize(out.len().next_multiple_of(8), 0);
    out
}

/// sendmsg(2) of a byte with control data.
fn send(p: &LwpHandle, fd: i32, control: &[u8]) -> Result<i64, Errno> {
    let memory = Memory::new(128 + control.len());
    let data = memory.put(64, &[7]);
    let iovec = memory.put_words(72, &[data, 1]);
    let at = memory.put(128, control);
    let header = memory.put_words(0, &[0, 0, iovec, 1, at, control.len() as u64]);
    let args = [fd as u64, header, DONTWAIT as u64, 0, 0, 0];
    p.syscall(&memory, nr::sendmsg, &args)
}

/// recvmsg(2): how much control data came.
fn receive(p: &LwpHandle, fd: i32) -> u64 {
    let memory = Memory::new(128 + 4096);
    let iovec = memory.put_words(72, &[Memory::at(64), 1]);
    let header = memory.put_words(0, &[0, 0, iovec, 1, Memory::at(128), 4096]);
    p.syscall(&memory, nr::recvmsg, &[fd as u64, header, 0, 0, 0, 0])
        .expect("received");
    u64::from_ne_bytes(memory.get(40, 8).try_into().expect("8 bytes"))
}

#[test]
fn control_data_of_other_domains_are_not_kept() {
    let (_kernel, p) = process();
    let [a, b] = socketpair(&p, 1 | NONBLOCK);
    assert_eq!(send(&p, a, &control(41, 50, &[9; 60_000])), Ok(1));
    assert_eq!(receive(&p, b), 0);
}

#[test]
fn so_many_descriptors_go_along_with_a_message_however_they_are_cut() {
    let (_kernel, p) = process();
    let [a, b] = socketpair(&p, 2 | NONBLOCK);
    let many = |count: usize| control(1, 1, &b.to_le_bytes().repeat(count));
    assert_eq!(send(&p, a, &many(254)), Err(Errno::EINVAL));
    assert_eq!(
        send(&p, a, &[many(200), many(54)].concat()),
        Err(Errno::EINVAL)
    );
    assert_eq!(send(&p, a, &[many(200), many(53)].concat()), Ok(1));
}

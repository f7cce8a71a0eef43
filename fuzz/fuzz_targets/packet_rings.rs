//! Packet sockets with rings, filters and memberships: requests that lie, and a program that writes into the ring whatever it likes.
#![no_main]

use rumpkit_fuzz::rumpkit::kern::Curlwp;
use rumpkit_fuzz::rumpkit::net::Socket;
use rumpkit_fuzz::{Input, Program, run};

libfuzzer_sys::fuzz_target!(|input: &[u8]| run(
    input,
    &[
        sockets,
        ring,
        scribble,
        scribble,
        frame,
        frame,
        Program::attach_filter,
        Program::set_option,
        Program::get_option,
        Program::receive_message,
        Program::names,
        Program::ioctl,
        Program::other_socket,
        Program::close,
    ]
));

const SETSOCKOPT: u32 = rumpkit_fuzz::rumpkit::abi::nr::setsockopt;

fn sockets(program: &mut Program, input: &mut Input) {
    // Everything, in network byte order.
    program.socket(17, [3, 2][input.below(2)], 0x0300);
}

/// Sizes that mostly fit together.
fn ring(program: &mut Program, input: &mut Input) {
    if program.fd() < 0 {
        sockets(program, input);
    }
    let reserve = program.memory.put(0, &input.number().to_le_bytes());
    if input.below(4) == 0 {
        let _ = program.call(SETSOCKOPT, [program.fd() as u64, 263, 12, reserve, 4, 0]);
    }
    let mut sizes = [4096 << input.below(4), 1 + input.below(8) as u32, 0, 0];
    sizes[2] = 128u32 << input.below(8);
    sizes[3] = sizes[0] / sizes[2] * sizes[1];
    if input.below(4) == 0 {
        sizes[input.below(4)] = input.number();
    }
    let bytes: Vec<u8> = sizes.iter().flat_map(|size| size.to_le_bytes()).collect();
    let at = program.memory.put(0, &bytes);
    let _ = program.call(SETSOCKOPT, [program.fd() as u64, 263, 5, at, 16, 0]);
}

/// Writes into the ring, as a program does that has mapped it.
fn scribble(program: &mut Program, input: &mut Input) {
    let (at, bytes) = (u64::from(input.word() % 65_536), input.piece());
    let fd = program.fd();
    program.enter(|cx: &Curlwp<'_>| {
        let file = cx.file(fd).ok()?;
        let memory = file.downcast::<Socket>()?.protocol().memory(cx)?;
        memory.write_at(&bytes, at).ok()
    });
}

/// A frame on the loopback interface.
fn frame(program: &mut Program, input: &mut Input) {
    let mut bytes = input.piece();
    bytes.resize(bytes.len() + input.below(256) * 8, 0);
    let data = program.memory.put(4096, &bytes);
    let mut address = vec![17, 0, 8, 0, 1, 0, 0, 0, 0, 0, 0, 6];
    address.resize(20, 0);
    let to = program.memory.put(0, &address);
    let number = rumpkit_fuzz::rumpkit::abi::nr::sendto;
    let args = [program.fd() as u64, data, bytes.len() as u64, 0x40, to, 20];
    let _ = program.call(number, args);
}

//! Requests to rtnetlink and sock_diag, one after the other: links of every kind made, changed and taken away, addresses, routes, neighbours.
#![no_main]

use rumpkit_fuzz::{Input, Program, run};

libfuzzer_sys::fuzz_target!(|input: &[u8]| run(
    input,
    &[
        request,
        request,
        request,
        link,
        Program::receive_message,
        sockets,
        Program::other_socket,
        Program::set_option,
        Program::wait,
    ]
));

fn sockets(program: &mut Program, input: &mut Input) {
    program.socket(16, 3, [0, 0, 4][input.below(3)]);
}

fn attribute(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    out.extend((value.len() as u16 + 4).to_le_bytes());
    out.extend(kind.to_le_bytes());
    out.extend(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

fn send(program: &mut Program, input: &mut Input, kind: u16, body: &[u8]) {
    if program.fd() < 0 || input.below(16) == 0 {
        sockets(program, input);
    }
    let len = match input.byte() {
        250.. => input.word(),
        _ => body.len() as u32 + 16,
    };
    let flags = [1u16, 5, 0x301, 0x401, 0x601, 0x101, 0x405][input.below(7)];
    let mut message = len.to_le_bytes().to_vec();
    message.extend(kind.to_le_bytes());
    message.extend(flags.to_le_bytes());
    message.extend([7, 0, 0, 0, 0, 0, 0, 0]);
    message.extend(body);
    let at = program.memory.put(4096, &message);
    let len = message.len() as u64;
    let number = rumpkit_fuzz::rumpkit::abi::nr::sendto;
    let _ = program.call(number, [program.fd() as u64, at, len, 0x40, 0, 0]);
}

/// A message of a family of requests, with attributes of any kind.
fn request(program: &mut Program, input: &mut Input) {
    let (kind, fixed) = match input.below(8) {
        0 => (16 + input.below(4) as u16, 16),
        1 => (20 + input.below(4) as u16, 8),
        2 | 3 => (24 + input.below(4) as u16, 12),
        4 => (28 + input.below(4) as u16, 12),
        5 => (32 + input.below(4) as u16, 12),
        6 => (20, 56),
        _ => (input.number() as u16, 16),
    };
    let mut body = vec![[0, 2, 10, 7][input.below(4)]];
    let given = input.below(2) * (fixed - 1);
    body.extend(input.bytes(given));
    body.resize(fixed, 0);
    if fixed != 12 && input.below(2) == 0 {
        // The index of an interface.
        body[4..8].copy_from_slice(&[input.byte() % 8, 0, 0, 0]);
    }
    for _ in 0..input.below(5) {
        let value = match input.below(5) {
            0 => vec![10, 0, 0, input.byte()],
            1 => vec![input.byte() % 8, 0, 0, 0],
            2 => [&[0xfd][..], &[0; 14], &[input.byte()]].concat(),
            3 => b"veth0\0".to_vec(),
            _ => input.piece(),
        };
        attribute(&mut body, input.below(64) as u16, &value);
    }
    send(program, input, kind, &body);
}

/// A new link, as ip(8) asks for one.
fn link(program: &mut Program, input: &mut Input) {
    let kinds = [
        &b"veth"[..],
        b"bridge",
        b"vlan",
        b"shmif",
        b"virt",
        b"lo",
        b"dummy",
    ];
    let kind = kinds[input.below(kinds.len())];
    let mut data = Vec::new();
    for _ in 0..input.below(3) {
        let value = input.piece();
        attribute(&mut data, 1 + input.below(4) as u16, &value);
    }
    let mut info = Vec::new();
    attribute(&mut info, 1, kind);
    attribute(&mut info, [2, 2, 2, 3][input.below(4)], &data);
    let mut body = vec![0; 16];
    body[8] = input.byte() & 1;
    body[12] = 1;
    if input.below(2) == 0 {
        attribute(&mut body, 3, &[b'a' + input.byte() % 8, 0]);
    }
    for kind in [5, 10] {
        if input.below(3) == 0 {
            attribute(&mut body, kind, &[input.byte() % 8, 0, 0, 0]);
        }
    }
    attribute(&mut body, 18, &info);
    send(program, input, 16, &body);
}

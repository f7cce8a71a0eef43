//! Classic BPF programs: what the host's kernel takes and refuses, and what it makes of a packet, is what ours does.
//!
//! The host's filters run on datagrams between two of its unix sockets.
#![no_main]

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;

use rumpkit_fuzz::Input;
use rumpkit_fuzz::rumpkit::net::Packet;
use rumpkit_fuzz::rumpkit::net::filter::{Filter, Insn, View};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let mut input = Input::new(input);
    let data = input.piece();
    let program = program(&mut input);
    let ours = Filter::new(&program);
    let (sender, receiver) = UnixDatagram::pair().expect("two sockets");
    let theirs = attach(&receiver, &program);
    assert_eq!(ours.is_ok(), theirs, "{program:?}");
    let Ok(filter) = ours else { return };
    let result = filter.run(&View {
        packet: &Packet::new(data.clone().into()),
        link_header: 0,
        protocol: 0,
        packet_type: 0,
        interface: 0,
    });
    if data.is_empty() || program.iter().any(knows_more_than_bytes) {
        return;
    }
    receiver.set_nonblocking(true).expect("set");
    let sent = sender.send(&data).is_ok();
    let mut room = [0; 512];
    let got = receiver.recv(&mut room).unwrap_or(0);
    let want = (result as usize).min(data.len());
    assert_eq!(got, want, "{program:?} on {data:?}, sent {sent}");
});

/// Instructions that mostly are some, and jumps that mostly land.
fn program(input: &mut Input) -> Vec<Insn> {
    const CODES: [u16; 48] = [
        0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x0c, 0x14, 0x15, 0x16, 0x1c, 0x1d, 0x20,
        0x24, 0x25, 0x28, 0x2c, 0x2d, 0x30, 0x34, 0x35, 0x3c, 0x3d, 0x40, 0x44, 0x45, 0x48, 0x4c,
        0x4d, 0x50, 0x54, 0x5c, 0x60, 0x61, 0x64, 0x6c, 0x74, 0x7c, 0x80, 0x81, 0x84, 0x87, 0x94,
        0x9c, 0xa4, 0xb1,
    ];
    let mut program = Vec::new();
    while !input.is_empty() && program.len() < 64 {
        let code = match input.byte() {
            250.. => input.word() as u16,
            at => CODES[usize::from(at) % CODES.len()],
        };
        let (jt, jf) = (input.byte() % 16, input.byte() % 16);
        let k = match code {
            0x02 | 0x03 | 0x60 | 0x61 => u32::from(input.byte()) % 17,
            _ => input.number(),
        };
        program.push(Insn { code, jt, jf, k });
    }
    if input.below(8) != 1 {
        program.push(Insn {
            code: 0x16,
            jt: 0,
            jf: 0,
            k: 0,
        });
    }
    program
}

/// Whether an instruction looks at what the two kernels do not share: what is in front of the bytes, and who brought them.
fn knows_more_than_bytes(insn: &Insn) -> bool {
    insn.code & 7 < 2 && (insn.k as i32) < 0 || matches!(insn.code, 0x40 | 0x48 | 0x50)
}

fn attach(socket: &UnixDatagram, program: &[Insn]) -> bool {
    let mut raw: Vec<libc::sock_filter> = program
        .iter()
        .map(|i| libc::sock_filter {
            code: i.code,
            jt: i.jt,
            jf: i.jf,
            k: i.k,
        })
        .collect();
    let program = libc::sock_fprog {
        len: raw.len() as u16,
        filter: raw.as_mut_ptr(),
    };
    // SAFETY: the program lives for the call.
    let status = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of_val(&program) as libc::socklen_t,
        )
    };
    status == 0
}

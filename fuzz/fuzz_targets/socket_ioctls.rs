//! ioctl(2) with any command and structure on sockets of every kind: interfaces, addresses, routes, queues.
#![no_main]

use rumpkit_fuzz::{Program, run};

libfuzzer_sys::fuzz_target!(|input: &[u8]| run(
    input,
    &[
        Program::ioctl,
        Program::ioctl,
        Program::ioctl,
        Program::any_socket,
        Program::names,
        Program::send_message,
        Program::other_socket,
        Program::close,
    ]
));

//! Messages with control data between sockets of the local domain and others: descriptors on their way, of sockets too that are on their
//! way themselves, credentials that lie, lengths that do.
#![no_main]

use rumpkit_fuzz::{Program, run};

libfuzzer_sys::fuzz_target!(|input: &[u8]| run(
    input,
    &[
        Program::local_sockets,
        Program::local_sockets,
        Program::send_message,
        Program::send_message,
        Program::receive_message,
        Program::names,
        Program::any_socket,
        Program::other_socket,
        Program::other_socket,
        Program::set_option,
        Program::close,
    ]
));

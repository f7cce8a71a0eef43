//! Any option with any bytes on sockets of every kind, and messages in between.
#![no_main]

use rumpkit_fuzz::{Program, run};

libfuzzer_sys::fuzz_target!(|input: &[u8]| run(
    input,
    &[
        Program::any_socket,
        Program::set_option,
        Program::set_option,
        Program::get_option,
        Program::attach_filter,
        Program::names,
        Program::send_message,
        Program::receive_message,
        Program::other_socket,
        Program::close,
        Program::wait,
    ]
));

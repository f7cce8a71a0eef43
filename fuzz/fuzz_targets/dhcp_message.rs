//! Arbitrary bytes as a DHCP server's message.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| inet::fuzz_message(bytes));

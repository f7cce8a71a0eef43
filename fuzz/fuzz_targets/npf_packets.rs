//! Arbitrary packets for a router that filters and translates.
//!
//! The input is a sequence of packets, each with two bytes of length and a byte of flags in front:
//! `RUSTC_BOOTSTRAP=1 cargo fuzz run npf_packets -- -max_len=4096 -max_total_time=300`
#![no_main]

libfuzzer_sys::fuzz_target!(|packets: &[u8]| npf::fuzz_packets(packets));

//! Arbitrary Ethernet frames for a stack that listens, forwards and is member of a group: ARP, IPv4, IPv6, ICMP, IGMP, MLD, NDP, UDP, TCP.
//!
//! The input is a sequence of frames, each with two bytes of length and a byte of flags in front:
//! `RUSTC_BOOTSTRAP=1 cargo fuzz run inet_frames -- -max_len=4096 -max_total_time=300`
#![no_main]

libfuzzer_sys::fuzz_target!(|frames: &[u8]| inet::fuzz_frames(frames));

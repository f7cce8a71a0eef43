//! Reads texts as the RUMPHIJACK variable.
//!
//! The grammar's file alone is taken in: the rest of the shim has memory functions of its own, which the sanitizer's would meet.
//! `RUSTC_BOOTSTRAP=1 cargo fuzz run rumphijack_grammar -- -max_len=256 -max_total_time=120`
#![no_main]

#[allow(dead_code)]
#[path = "../../clients/hijack/src/config.rs"]
mod config;

libfuzzer_sys::fuzz_target!(|spec: &[u8]| config::fuzz_grammar(spec));

//! Arbitrary texts of rules for the packet filter: `RUSTC_BOOTSTRAP=1 cargo fuzz run npf_rules -- -max_total_time=300`
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &[u8]| npf::fuzz_rules(text));

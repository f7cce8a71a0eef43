//! Arbitrary bytes from a client of remote system calls: framing, handshakes, calls with and without their memory.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    sysproxy::fuzz_frames(bytes);
    // Most inputs do no handshake of their own accord; these have done one.
    let guest = [24u64.to_le_bytes(), [1, 0, 0, 0, 0, 0, 0, 0], [0; 8]].concat();
    sysproxy::fuzz_frames(&[&guest, bytes].concat());
});

//! A bus file that another process writes whatever it likes into.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let path = format!("/dev/shm/rumpkit-fuzz-bus-{}", std::process::id());
    shmif::fuzz_bus(&path, input);
});

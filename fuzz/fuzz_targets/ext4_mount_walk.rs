//! Mounts images and walks over them.
//!
//! Seeds are small images: `fuzz/seeds.sh`. Then
//! `RUSTC_BOOTSTRAP=1 cargo fuzz run ext4_mount_walk -- -max_len=262144 -max_total_time=300`
#![no_main]

libfuzzer_sys::fuzz_target!(|image: &[u8]| ext2fs::fuzz_mount_and_walk(image));

//! Texts that describe networks: the lines of `--net` and `--mount`, parameters of interfaces, and labs' files.
#![no_main]

use std::path::Path;

use rumpkit_fuzz::rumpkit::net::Params;
use rumpkit_fuzz::rumpkit::{MountSpec, NetSpec};

#[allow(dead_code)]
#[path = "../../clients/rump/src/lab/file.rs"]
mod file;

libfuzzer_sys::fuzz_target!(|text: &str| {
    for line in text.lines() {
        let told = [
            line.parse::<NetSpec>().err().map(|e| e.to_string()),
            line.parse::<MountSpec>().err().map(|e| e.to_string()),
            Params::parse(line).err().map(|e| e.to_string()),
        ];
        assert!(told.iter().flatten().all(|why| !why.is_empty()));
    }
    if let Err(error) = file::Lab::parse(text, Path::new("fuzz.toml")) {
        assert!(error.to_string().contains("fuzz.toml"), "{error:#}");
    }
});

//! Boots a kernel, writes a file in its memory file system and reads it back.
//!
//! `cargo run -p rumpkit --example hello`

use std::io::{Read, Write};

use rumpkit::{MountSpec, Process};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let kernel = rumpkit::builder().boot()?;
    let process = Process::new(&kernel)?;
    process.mount(&MountSpec::tmpfs("/scratch:size=16m")?)?;

    process
        .create("/scratch/hello")?
        .write_all(b"hello from a kernel of our own\n")?;
    let mut text = String::new();
    process.open("/scratch/hello")?.read_to_string(&mut text)?;
    print!("{text}");

    drop(process);
    kernel.shutdown(true)?;
    Ok(())
}

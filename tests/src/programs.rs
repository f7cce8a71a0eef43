//! Programs of the host that tests run, and what they work on.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::finish;

/// A program, by its path, and the package that it is in.
pub type Packaged = (&'static str, &'static str);

/// Python 3, by what comes with all of its library; python3-minimal has the interpreter too.
pub const PYTHON: Packaged = ("/usr/bin/pydoc3", "python3");
/// curl.
pub const CURL: Packaged = ("/usr/bin/curl", "curl");

/// Whether the programs are there; says what is missing otherwise.
pub fn have(programs: &[Packaged]) -> bool {
    let missing: Vec<_> = programs
        .iter()
        .filter(|(program, _)| !Path::new(program).exists())
        .map(|&(_, package)| package)
        .collect();
    if !missing.is_empty() {
        println!("not tested: install {}", missing.join(" "));
    }
    missing.is_empty()
}

/// Writes `big` in a directory, a file that no program takes for text, of several windows and an odd length; answers what is in it.
pub fn big(dir: &Path) -> Vec<u8> {
    let mut word = 1u64;
    let bytes: Vec<u8> = std::iter::repeat_with(|| {
        word = word
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (word >> 56) as u8
    })
    .take(3_000_017)
    .collect();
    fs::write(dir.join("big"), &bytes).expect("written");
    bytes
}

/// What a program in Python says on the host, which is the yardstick; it stays in the directory.
pub fn python_on_the_host(dir: &Path, name: &str, text: &str) -> String {
    let program = dir.join(name);
    fs::write(&program, text).expect("written");
    finish(Command::new("/usr/bin/python3").arg(&program)).ok()
}

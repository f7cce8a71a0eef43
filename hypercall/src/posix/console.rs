//! The console: standard error out, standard input in.

use std::io::{Read, Write};

use abi::Errno;

pub(super) fn write(bytes: &[u8]) {
    // Best effort by contract: a closed console is no reason to stop a kernel.
    let _ = std::io::stderr().write_all(bytes);
}

pub(super) fn read(buf: &mut [u8]) -> Result<usize, Errno> {
    std::io::stdin()
        .read(buf)
        .map_err(|error| super::errno_of(&error))
}

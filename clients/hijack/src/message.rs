//! Messages for people, from a place where nothing can be allocated.

use core::fmt::{self, Write};

use crate::sys::host;

/// Text of limited length on the stack; what does not fit is cut off.
pub(crate) struct Line {
    bytes: [u8; 512],
    len: usize,
}

impl Line {
    /// Formats a line.
    pub(crate) fn new(text: fmt::Arguments<'_>) -> Line {
        let mut line = Line {
            bytes: [0; 512],
            len: 0,
        };
        let _ = line.write_fmt(text);
        line
    }

    /// Its bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for &b in text.as_bytes() {
            if self.len == self.bytes.len() {
                return Err(fmt::Error);
            }
            self.bytes[self.len] = b;
            self.len += 1;
        }
        Ok(())
    }
}

/// Bytes that need not be UTF-8, such as names.
pub(crate) struct Bytes<'a>(pub &'a [u8]);

impl fmt::Display for Bytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .utf8_chunks()
            .try_for_each(|chunk| f.write_str(chunk.valid()))
    }
}

/// Says something on the program's standard error, wherever that leads.
pub(crate) fn say(text: fmt::Arguments<'_>) {
    let line = Line::new(text);
    let (at, len) = (line.bytes().as_ptr() as u64, line.bytes().len() as u64);
    if crate::state::process().is_kernel(2) {
        crate::fds::kernel_call(abi::nr::write, &[2, at, len, 0, 0, 0]);
    } else {
        // SAFETY: writes bytes of ours.
        unsafe { host!(write, 2, at, len) };
    }
}

/// Says why the program cannot run and ends it with status 1.
pub(crate) fn die(text: fmt::Arguments<'_>) -> ! {
    say(text);
    loop {
        // SAFETY: ends the process.
        unsafe { host!(exit_group, 1) };
    }
}

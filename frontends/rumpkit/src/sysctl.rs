//! A kernel's variables, by name.

use std::ffi::CString;
use std::io;

use abi::{Invoke, Syscalls};

use crate::Process;
use crate::process::error;

/// The most bytes of a variable's value.
const LONGEST: u64 = 64 * 1024;

impl<S: Invoke> Process<S> {
    /// The value of a variable as text, such as that of `kern.hostname`. `ENOENT` when there is none of that name.
    pub fn sysctl(&self, name: &str) -> io::Result<String> {
        let name = CString::new(name)?;
        let mut value = vec![0; LONGEST as usize];
        let mut len = LONGEST.to_le_bytes();
        self.sys()
            .__sysctl(&name, &mut value, &mut len, &[], 0)
            .map_err(error)?;
        value.truncate(u64::from_le_bytes(len).min(LONGEST) as usize);
        while value.last() == Some(&0) {
            value.pop();
        }
        Ok(String::from_utf8_lossy(&value).into_owned())
    }

    /// Sets a variable. `EPERM` when it cannot be set, `EINVAL` for a value that makes no sense.
    pub fn set_sysctl(&self, name: &str, value: &str) -> io::Result<()> {
        let name = CString::new(name)?;
        let answer = self
            .sys()
            .__sysctl(&name, &mut [], &mut [], value.as_bytes(), value.len());
        answer.map(drop).map_err(error)
    }
}

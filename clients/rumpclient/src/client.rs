//! The client for Rust programs.

use abi::{Arg, Errno, Invoke, SysResult};

use crate::raw;

/// A process of a remote kernel, for one thread at a time; every call of the table is a method of it by [`abi::Syscalls`]. Dropping it
/// ends the process in the kernel.
pub struct Client {
    raw: raw::Client,
    thread: raw::ThreadState,
}

impl Client {
    /// Becomes a new process, named `comm`, of the server at `url`. Errors are those of [`raw::Client::connect`].
    pub fn connect(url: &str, comm: &str) -> Result<Client, Errno> {
        let client = Client {
            raw: raw::Client::new(),
            thread: raw::ThreadState::new(),
        };
        client
            .raw
            .connect(&client.thread, url.as_bytes(), comm.as_bytes(), 0)?;
        Ok(client)
    }
}

impl Invoke for Client {
    fn invoke(&self, nr: u32, args: &mut [Arg<'_>]) -> SysResult {
        let mut registers = [0; 6];
        for (register, arg) in registers.iter_mut().zip(args) {
            *register = match arg {
                Arg::Val(value) => *value,
                Arg::Str(text) => text.as_ptr().expose_provenance() as u64,
                Arg::In([]) | Arg::Out([]) => 0,
                Arg::In(buf) => buf.as_ptr().expose_provenance() as u64,
                Arg::Out(buf) => buf.as_mut_ptr().expose_provenance() as u64,
            };
        }
        match self.raw.call(&self.thread, nr, &registers) {
            answer if answer < 0 => Err(Errno(-answer as i32)),
            answer => Ok(answer),
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.raw.thread_exit(&self.thread);
    }
}

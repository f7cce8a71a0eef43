//! What is left when `rump run` is killed: programs whose kernel is gone, and its socket's directory. A small process of our own looks
//! after them, for who is killed with SIGKILL cannot, and a signal at the parent's death (`PR_SET_PDEATHSIG`) would reach its children only.
//!
//! The guard waits at one end of a pipe. A byte says that all went well; the end of file without one, that we were killed. Then it ends
//! every process that has our socket's URL in its environment: nobody else knows that URL.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

use crate::failure::Outcome;
use crate::marked;

/// The word by which this command starts itself as a guard.
pub(crate) const WORD: &str = "guard-of-a-run";

/// The guard of a run, seen from the run.
pub(crate) struct Guard(Child);

impl Guard {
    /// Starts the guard of the programs that are clients of the kernel at `url`.
    pub(crate) fn start(url: &str) -> Result<Guard> {
        let own = std::env::current_exe().context("where this executable is")?;
        let guard = Command::new(own)
            .args([WORD, url])
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .context("the guard of the run cannot be started")?;
        Ok(Guard(guard))
    }
}

impl Drop for Guard {
    /// All went well: it has nothing to do.
    fn drop(&mut self) {
        if let Some(mut pipe) = self.0.stdin.take() {
            let _ = pipe.write_all(b"\n");
        }
        let _ = self.0.wait();
    }
}

/// The guard itself.
pub(crate) fn watch(url: &str) -> Outcome {
    // The terminal's signals are not for it.
    rustix::process::setsid().context("setsid")?;
    let mut word = [0];
    if std::io::stdin().read(&mut word)? != 0 {
        return Ok(0);
    }
    marked::kill(&[url]);
    if let Some(socket) = url.strip_prefix("unix://").map(Path::new) {
        let _ = fs::remove_file(socket);
        let _ = socket.parent().map(fs::remove_dir);
    }
    Ok(0)
}

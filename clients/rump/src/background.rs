//! Going to the background: this command is started again as a process that says a line when it is ready, and then leaves the terminal.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use signal_hook::consts::SIGHUP;
use signal_hook::iterator::Signals;

use crate::child;
use crate::failure::Outcome;

/// In the environment of the process that goes to the background.
const BACKGROUND: &str = "RUMP_SERVER_BACKGROUND";

/// Whether this is the process that goes to the background.
pub(crate) fn is_it() -> bool {
    std::env::var_os(BACKGROUND).is_some()
}

/// Starts this command again, and ends when that one is ready or has failed.
pub(crate) fn start() -> Outcome {
    let mut command = Command::new(std::env::current_exe().context("where this executable is")?);
    command
        .args(std::env::args_os().skip(1))
        .env(BACKGROUND, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut server = command
        .spawn()
        .context("cannot be started in the background")?;
    let mut line = String::new();
    if let Some(out) = server.stdout.take() {
        BufReader::new(out).read_line(&mut line)?;
    }
    if line.is_empty() {
        return Ok(child::shell_status(server.wait()?));
    }
    Ok(0)
}

/// Says that we are ready; in the background, leaves the terminal.
pub(crate) fn ready(line: &str) -> Result<()> {
    println!("{line}");
    std::io::stdout().flush()?;
    if is_it() {
        leave_terminal()?;
    }
    Ok(())
}

/// A session of our own, and nothing more is said.
fn leave_terminal() -> Result<()> {
    rustix::process::setsid().context("setsid")?;
    // SIGHUP is the terminal's word.
    Signals::new([SIGHUP])?;
    let null = File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .context("/dev/null")?;
    rustix::stdio::dup2_stdout(&null).context("/dev/null")?;
    rustix::stdio::dup2_stderr(&null).context("/dev/null")?;
    Ok(())
}

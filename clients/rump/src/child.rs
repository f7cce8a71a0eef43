//! Running the program as a child: it gets our terminal, our signals, and its status becomes ours.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};
use std::sync::Arc;

use anyhow::{Context, anyhow};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::failure::{CANNOT_RUN, Failure};
use crate::signals::Forwarder;

/// Starts the program, passes signals on, and waits until it ends.
pub(crate) fn run(mut command: Command, signals: Forwarder) -> Result<ExitStatus, Failure> {
    let program = command.get_program().to_owned();
    let mut child = command.spawn().map_err(|e| {
        let text = format!("{}: cannot be run: {e}", program.display());
        Failure::with_status(CANNOT_RUN, anyhow!(text))
    })?;
    let pid = Pid::from_raw(child.id().cast_signed()).context("a child has a number")?;
    // Until the wait below nobody else can have its number.
    let process = pidfd_open(pid, PidfdFlags::empty()).context("pidfd_open")?;
    signals.forward_to(Arc::new(process))?;
    Ok(child.wait()?)
}

/// A program's status as a shell tells it: 128+N when signal N ended it.
pub(crate) fn shell_status(status: ExitStatus) -> u8 {
    let number = match (status.code(), status.signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128 + signal,
        (None, None) => i32::from(u8::MAX),
    };
    u8::try_from(number).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_the_programs_or_tells_the_signal() {
        assert_eq!(shell_status(ExitStatus::from_raw(3 << 8)), 3);
        assert_eq!(shell_status(ExitStatus::from_raw(9)), 137);
    }
}

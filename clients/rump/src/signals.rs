//! Passing signals on to the program.
//!
//! The program is in our process group, so what the terminal sends (Ctrl-C) it gets itself; we only must not die of it. What somebody
//! sends to us alone, the program would not see: that is passed on.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result};
use rustix::process::{Signal, pidfd_send_signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::low_level::siginfo::Cause;

/// Signals that are taken and kept for the program.
pub(crate) struct Forwarder {
    signals: SignalsInfo<WithOrigin>,
}

impl Forwarder {
    /// Takes the signals. From here on they do not end us. Those that are ignored (nohup) stay ignored, for the program too.
    pub(crate) fn new() -> Result<Forwarder> {
        let ignored = ignored_signals();
        let taken = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2]
            .into_iter()
            .filter(|&signal| ignored >> (signal - 1) & 1 == 0);
        let signals = SignalsInfo::new(taken).context("signal handlers cannot be set")?;
        Ok(Forwarder { signals })
    }

    /// Passes them on to the process from now on. A thread does it for the rest of our life; the descriptor of the process makes sure
    /// that nobody else gets them when it has ended.
    pub(crate) fn forward_to(mut self, process: Arc<OwnedFd>) -> Result<()> {
        thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                for origin in self.signals.forever() {
                    if origin.cause == Cause::Kernel {
                        continue;
                    }
                    if let Some(signal) = Signal::from_named_raw(origin.signal) {
                        let _ = pidfd_send_signal(&*process, signal);
                    }
                }
            })
            .context("no thread for signals")?;
        Ok(())
    }
}

/// The signals that we were started with as ignored, a bit each.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

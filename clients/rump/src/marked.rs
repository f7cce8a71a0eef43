//! Programs of a kernel, found by what the shim leaves in their environment: nobody else knows a private kernel's URL.

use std::ffi::OsStr;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal};

/// Between two looks for processes, as one that forks may have escaped the first.
const AGAIN: Duration = Duration::from_millis(10);
/// So many looks that find nobody are enough: a process in the middle of an exec has no environment to be known by.
const QUIET: u32 = 20;

/// Kills the programs of the kernels at `urls` until there are none.
pub(crate) fn kill(urls: &[&str]) {
    let mut quiet = 0;
    while quiet < QUIET {
        quiet += 1;
        for process in urls.iter().flat_map(|url| programs(url)) {
            if pidfd_send_signal(&process, Signal::KILL).is_ok() {
                quiet = 0;
            }
        }
        thread::sleep(AGAIN);
    }
}

/// The processes that run on the kernel at `url`, ourselves excepted. A shell whose user has set `RUMP_SERVER` is none of them: the shim is
/// not preloaded into it.
pub(crate) fn programs(url: &str) -> Vec<OwnedFd> {
    let server = [b"RUMP_SERVER=", url.as_bytes()].concat();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = number(&entry.file_name()).filter(|&pid| pid != getpid()) else {
            continue;
        };
        // The descriptor first: what is read afterwards is then the environment of the process that it stands for.
        let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else {
            continue;
        };
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        let has = |test: &dyn Fn(&[u8]) -> bool| environment.split(|&b| b == 0).any(test);
        if has(&|v| v == server) && has(&|v| v.starts_with(b"LD_PRELOAD=")) {
            found.push(process);
        }
    }
    found
}

fn number(name: &OsStr) -> Option<Pid> {
    let name = std::str::from_utf8(name.as_bytes()).ok()?;
    Pid::from_raw(name.parse().ok()?)
}

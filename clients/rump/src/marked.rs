//! Programs of a kernel, found by their connections, or when the kernel is gone by what was put into their environment: nobody else knows
//! a private kernel's URL.

use std::ffi::OsStr;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal};
use sysproxy::Server;

use crate::shim;

/// How long programs may take to go by themselves.
const GRACE: Duration = Duration::from_secs(2);
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

/// Ends those of our kernels' clients that run under the shim: SIGTERM, after a grace time SIGKILL. Unlike the mark in its environment,
/// which a program may write over, its connection tells a program for sure.
pub(crate) fn end_clients(servers: &[Server]) {
    let under_shim = || {
        let pids = servers.iter().flat_map(Server::processes);
        pids.filter_map(under_shim).collect::<Vec<_>>()
    };
    let programs = under_shim();
    for program in &programs {
        let _ = pidfd_send_signal(program, Signal::TERM);
    }
    wait_for(&programs);
    loop {
        let programs = under_shim();
        if programs.is_empty() {
            return;
        }
        for program in &programs {
            let _ = pidfd_send_signal(program, Signal::KILL);
        }
        wait_for(&programs);
    }
}

/// A process, if the shim is in it.
fn under_shim(pid: i32) -> Option<OwnedFd> {
    let process = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
    maps.contains(shim::SHIM).then_some(process)
}

/// Waits until they have ended, for a grace time.
fn wait_for(programs: &[OwnedFd]) {
    let deadline = Instant::now() + GRACE;
    for program in programs {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).ok();
        let _ = poll(&mut [PollFd::new(program, PollFlags::IN)], timeout.as_ref());
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

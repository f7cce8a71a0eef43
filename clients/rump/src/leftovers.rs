//! Programs that the program left behind: they are clients of a kernel that is about to end.
//!
//! We are their subreaper, so whoever loses its parent becomes our child and can be found.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, getpid, pidfd_open, pidfd_send_signal,
    set_child_subreaper, waitid,
};

/// How long a program may take to go by itself after SIGTERM.
const GRACE: Duration = Duration::from_secs(2);

/// Makes orphans below us our children.
pub(crate) fn adopt() -> Result<()> {
    set_child_subreaper(Some(getpid()))
        .context("cannot become the reaper of the program's children")
}

/// Ends every child we have and those who become our children by that: SIGTERM, after a grace time SIGKILL.
pub(crate) fn end() {
    let deadline = Instant::now() + GRACE;
    let mut asked: Vec<Pid> = Vec::new();
    loop {
        let children = children();
        if children.is_empty() {
            return;
        }
        let late = Instant::now() >= deadline;
        for (pid, process) in &children {
            if late {
                let _ = pidfd_send_signal(process, Signal::KILL);
            } else if !asked.contains(pid) {
                asked.push(*pid);
                let _ = pidfd_send_signal(process, Signal::TERM);
            }
        }
        wait_for_one(
            &children,
            if late {
                GRACE
            } else {
                deadline - Instant::now()
            },
        );
        reap(&children);
    }
}

/// Our children. Any of our threads may be the parent.
fn children() -> Vec<(Pid, OwnedFd)> {
    let tasks = std::fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .flatten();
    let lists = tasks.filter_map(|t| std::fs::read_to_string(t.path().join("children")).ok());
    let pids: Vec<i32> = lists
        .flat_map(|list| {
            list.split_whitespace()
                .filter_map(|p| p.parse().ok())
                .collect::<Vec<_>>()
        })
        .collect();
    pids.into_iter()
        .filter_map(Pid::from_raw)
        .filter_map(|pid| Some((pid, pidfd_open(pid, PidfdFlags::empty()).ok()?)))
        .collect()
}

fn wait_for_one(children: &[(Pid, OwnedFd)], time: Duration) {
    let mut fds: Vec<PollFd<'_>> = children
        .iter()
        .map(|(_, process)| PollFd::new(process, PollFlags::IN))
        .collect();
    let timeout = Timespec::try_from(time).ok();
    let _ = poll(&mut fds, timeout.as_ref());
}

fn reap(children: &[(Pid, OwnedFd)]) {
    for (pid, _) in children {
        let _ = waitid(
            WaitId::Pid(*pid),
            WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
        );
    }
}

//! Labs: kernels with links between them, started from one file, found by name, and ended together.
//!
//! All kernels of a lab live in one process. Cables between them hand packets over by reference, they are ready before `rump up` returns,
//! and a lab ends as one. Kernels of other processes are reached by a bus on a file. Start reading at `file`.

mod file;
mod state;
mod up;

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, pidfd_send_signal};

use crate::cli::{Down, Ps};
use crate::failure::Outcome;
use crate::table::{Cell, Table};
use crate::{marked, remote};
use state::Running;
pub(crate) use up::up;

/// How long a lab may take to end: its kernels write their disks.
const KERNELS: Duration = Duration::from_secs(60);

/// The labs that run. Programs of those that died are ended.
fn running() -> Result<Vec<Running>> {
    state::running(|urls| {
        let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
        marked::kill(&urls);
    })
}

/// The URL of a kernel by its name in a lab that runs, `KERNEL` or `LAB/KERNEL`.
pub(crate) fn url_of(name: &str) -> Result<String> {
    let (lab, kernel) = match name.split_once('/') {
        Some((lab, kernel)) => (Some(lab), kernel),
        None => (None, name),
    };
    let labs = running()?;
    let found: Vec<(&str, &str)> = labs
        .iter()
        .filter(|running| lab.is_none_or(|lab| lab == running.name))
        .flat_map(|running| {
            let of_name = running.kernels.iter().filter(|(k, _)| k == kernel);
            of_name.map(|(_, url)| (running.name.as_str(), url.as_str()))
        })
        .collect();
    match &found[..] {
        [(_, url)] => Ok((*url).to_owned()),
        [] => Err(anyhow!(
            "{name}: no kernel of a lab that runs, and no URL (unix://PATH, tcp://ADDRESS:PORT); rump ps shows what runs"
        )),
        _ => {
            let names: Vec<String> = found
                .iter()
                .map(|(lab, _)| format!("{lab}/{kernel}"))
                .collect();
            Err(anyhow!(
                "{name}: is in several labs; say one of {}",
                names.join(", ")
            ))
        }
    }
}

/// `rump ps`.
pub(crate) fn ps(options: &Ps) -> Outcome {
    let mut table = Table::new(&["LAB", "KERNEL", "PID", "ADDRESSES", "URL"]);
    for lab in running()? {
        for (kernel, url) in lab.kernels {
            // One that has just been halted.
            let Ok(addresses) = addresses(&url) else {
                continue;
            };
            table.row(vec![
                Cell::text(lab.name.clone()),
                Cell::text(kernel),
                Cell::Number(lab.pid.cast_unsigned().into()),
                Cell::List(addresses),
                Cell::text(url),
            ]);
        }
    }
    print!("{}", table.render(options.json));
    Ok(0)
}

/// A kernel's addresses, but those that every kernel has.
fn addresses(url: &str) -> Result<Vec<String>> {
    let everybodys = |ip: &IpAddr| match ip {
        IpAddr::V4(ip) => ip.is_loopback(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unicast_link_local(),
    };
    let addresses = remote::connect(url)?.addresses()?;
    let others = addresses.iter().filter(|a| !everybodys(&a.address));
    Ok(others
        .map(|a| format!("{}/{}", a.address, a.prefix))
        .collect())
}

/// `rump down`.
pub(crate) fn down(options: &Down) -> Outcome {
    let labs = running()?;
    let names: Vec<&str> = labs.iter().map(|lab| lab.name.as_str()).collect();
    let lab = match (&options.lab, &labs[..]) {
        (Some(name), _) => labs
            .iter()
            .find(|lab| lab.name == *name)
            .ok_or_else(|| anyhow!("{name}: no such lab runs; rump ps shows those that do"))?,
        (None, [lab]) => lab,
        (None, []) => return Err(anyhow!("no lab runs").into()),
        (None, _) => {
            return Err(anyhow!("several labs run; say which: {}", names.join(", ")).into());
        }
    };
    let _ = pidfd_send_signal(&lab.process, Signal::TERM);
    if !has_ended(&lab.process, KERNELS)? {
        pidfd_send_signal(&lab.process, Signal::KILL)?;
        has_ended(&lab.process, KERNELS)?;
        // What it left is removed.
        running()?;
        return Err(anyhow!(
            "{}: did not come down in order and was killed; run e2fsck on its images",
            lab.name
        )
        .into());
    }
    let urls: Vec<&str> = lab.kernels.iter().map(|(_, url)| url.as_str()).collect();
    marked::kill(&urls);
    Ok(0)
}

/// Waits for a process's end; whether it came in time.
fn has_ended(process: &impl std::os::fd::AsFd, time: Duration) -> Result<bool> {
    let timeout = Timespec::try_from(time)?;
    let ended = poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&timeout));
    match ended {
        Ok(n) => Ok(n > 0),
        Err(errno) => bail!("a process cannot be waited for: {errno}"),
    }
}

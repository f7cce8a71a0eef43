//! Boot: how long it takes in a fresh process, and what is resident after.

use std::time::Instant;

use anyhow::{Context, Result};
use kern::Kernel;
use rumpkit::PosixHost;

use crate::children;
use crate::figure::{Output, Target};
use crate::measure::{Effort, median};

/// Boots, each in processes of its own: the first boot counts, with everything that has to be paged in.
pub(crate) fn run(effort: &Effort, output: &mut Output) -> Result<()> {
    for (name, parts, most) in [
        ("boot.kern_ms", "kern", 1.0),
        ("boot.kern_vfs_ms", "vfs", 1.0),
        ("boot.all_ms", "all", 2.0),
    ] {
        if output.wants(name) {
            let (ms, _) = sample(effort, parts)?;
            output.figure(name, ms, None, Target::Most(most));
        }
    }
    if output.wants("boot.rss_mb") {
        let (_, mb) = sample(effort, "vfs")?;
        output.figure("boot.rss_mb", mb, None, Target::Most(3.0));
    }
    Ok(())
}

fn sample(effort: &Effort, parts: &str) -> Result<(f64, f64)> {
    let (mut times, mut sizes) = (Vec::new(), Vec::new());
    for _ in 0..effort.pick(21, 3) {
        let text = children::output(&["boot", parts])?;
        let mut numbers = text.split_whitespace().map(str::parse::<f64>);
        let mut next = || {
            numbers
                .next()
                .and_then(Result::ok)
                .context("a boot says two numbers")
        };
        times.push(next()?);
        sizes.push(next()?);
    }
    Ok((median(times), median(sizes)))
}

/// In the process that boots: prints milliseconds, and megabytes resident.
pub(crate) fn child(parts: &str) -> Result<()> {
    let began = Instant::now();
    let builder = match parts {
        "kern" => Kernel::builder(PosixHost::new()),
        "vfs" => Kernel::builder(PosixHost::new()).component(&vfs::VFS),
        _ => rumpkit::builder(),
    };
    let kernel = builder.boot().map_err(|e| anyhow::anyhow!("boot: {e}"))?;
    let ms = began.elapsed().as_secs_f64() * 1e3;
    println!("{ms} {}", resident_mb()?);
    drop(kernel);
    Ok(())
}

/// Memory of this process that is resident, in MB of 10^6 bytes.
fn resident_mb() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let kib: f64 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .context("/proc/self/status has no VmRSS")?;
    Ok(kib * 1024.0 / 1e6)
}

//! A process that does nothing but boot a kernel, and says how long that took and what is resident after. Nothing but the
//! kernel proper and the vfs is linked in: what else a program carries is not theirs.

use std::time::Instant;

use anyhow::{Context, Result, bail};
use hypercall::PosixHost;
use kern::Kernel;

fn main() -> Result<()> {
    let parts = std::env::args().nth(1).unwrap_or_default();
    let began = Instant::now();
    let builder = match parts.as_str() {
        "kern" => Kernel::builder(PosixHost::new()),
        "vfs" => Kernel::builder(PosixHost::new()).component(&vfs::VFS),
        other => bail!("{other:?}: boot what? kern or vfs"),
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

//! Boot: how long it takes in a fresh process, and what is resident after.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};

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
            let [ms, ..] = sample(effort, parts)?;
            output.figure(name, ms, None, Target::Most(most));
        }
    }
    if output.wants("boot.rss_mb") {
        // Beside it the same process before it boots.
        let [_, mb, before] = sample(effort, "vfs")?;
        output.figure("boot.rss_mb", mb, Some(before), Target::Most(3.0));
    }
    Ok(())
}

/// Milliseconds of a boot; MB that are resident after and before.
fn sample(effort: &Effort, parts: &str) -> Result<[f64; 3]> {
    let mut boots = Vec::new();
    for _ in 0..effort.pick(21, 3) {
        let text = match parts {
            "all" => children::output(&["boot-all"])?,
            _ => {
                let program = std::env::current_exe()?.with_file_name("rump-boot");
                children::finished(Command::new(program).arg(parts))?
            }
        };
        let mut numbers = text.split_whitespace().map(str::parse::<f64>);
        let mut next = || {
            numbers
                .next()
                .and_then(Result::ok)
                .context("a boot says three numbers")
        };
        boots.push([next()?, next()?, next()?]);
    }
    Ok([0, 1, 2].map(|i| median(boots.iter().map(|boot| boot[i]).collect())))
}

/// In the process that boots every component: prints milliseconds, and nothing of memory, which is this whole program's.
pub(crate) fn child() -> Result<()> {
    let began = Instant::now();
    let kernel = rumpkit::builder()
        .boot()
        .map_err(|e| anyhow::anyhow!("boot: {e}"))?;
    println!("{} 0 0", began.elapsed().as_secs_f64() * 1e3);
    drop(kernel);
    Ok(())
}

//! What is measured, group by group.

use anyhow::{Result, bail};

use crate::figure::Output;
use crate::measure::Effort;
use crate::{
    boot, call, ext4, goodput, hijack, librump, links, net, programs, remote, scale, tmpfs,
};

/// Measures a group.
type Group = fn(&Effort, &mut Output) -> Result<()>;

/// The groups in the order in which they run and are shown.
pub(crate) const GROUPS: [(&str, Group); 12] = [
    ("boot", boot::run),
    ("call", call::run),
    ("librump", librump::run),
    ("tmpfs", tmpfs::run),
    ("ext4", ext4::run),
    ("remote", remote::run),
    ("hijack", hijack::run),
    ("scale", scale::run),
    ("net", net::run),
    ("net", links::run),
    ("net", programs::run),
    ("goodput", goodput::run),
];

/// Runs the groups that are wanted. One that cannot be measured does not keep the others from it, but the run has failed then.
pub(crate) fn run(effort: &Effort, mut output: Output) -> Result<()> {
    let wanted: Vec<_> = GROUPS
        .iter()
        .filter(|(name, _)| output.wants_group(name))
        .collect();
    if wanted.is_empty() {
        let mut names: Vec<&str> = GROUPS.iter().map(|(name, _)| *name).collect();
        names.dedup();
        bail!("no such group; there are {}", names.join(", "));
    }
    let mut failed = Vec::new();
    for (name, group) in wanted {
        if let Err(error) = group(effort, &mut output) {
            eprintln!("rump-bench: {name}: {error:#}");
            failed.push(*name);
        }
    }
    output.finish();
    if !failed.is_empty() {
        bail!("could not be measured: {}", failed.join(", "));
    }
    Ok(())
}

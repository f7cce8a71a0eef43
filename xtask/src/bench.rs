//! `cargo xtask bench`: builds the benches with optimisation and runs them.

use anyhow::Result;

use crate::{packages, sh};

/// What to measure, and how to print it.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only this group (boot, call, librump, remote, hijack, tmpfs, ext4, scale, net, goodput) or this one name (tmpfs.stat_ns)
    group: Option<String>,
    /// One JSON object a line: name, value, unit, host, ratio, target
    #[arg(long)]
    json: bool,
    /// A short run that shows that everything can be measured; the figures mean little
    #[arg(long)]
    smoke: bool,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    packages::ensure()?;
    sh::run(&mut sh::cargo([
        "build",
        "--quiet",
        "--release",
        "-p",
        "rumpkit-bench",
        "-p",
        "rumpkit-hijack",
        "-p",
        "rumpkit-librump",
        "-p",
        "rumpkit-rump",
        "--lib",
        "--bin=rump-bench",
        "--bin=rump",
    ]))?;
    // The program that only boots is linked statically: what is resident of it is then what it uses, not what the host maps of
    // shared libraries because other programs have them in memory.
    sh::run(&mut sh::cargo([
        "rustc",
        "--quiet",
        "--release",
        "--package=rumpkit-bench",
        "--bin=rump-boot",
        "--",
        "-Ctarget-feature=+crt-static",
    ]))?;
    let mut bench = std::process::Command::new(sh::root().join("target/release/rump-bench"));
    bench.args(options.group.as_deref());
    bench.args(options.json.then_some("--json"));
    bench.args(options.smoke.then_some("--smoke"));
    sh::run(&mut bench)
}

//! The figures of rumpkit, each beside the host kernel's from the same run. `cargo xtask bench` builds and runs it.
//!
//! Both kernels are driven by the same code: a system call has the same number and arguments on both, so the operations are written
//! over [`abi::Invoke`], which [`host::HostKernel`] serves with the real `syscall` instruction. Names of figures are `group.figure_unit`
//! and are kept, so that figures can be compared over time.
//!
//! Unsafe code: `guest`, `host`, `place`, and `librump`, which calls C. Start reading at [`plan::GROUPS`].

mod boot;
mod call;
mod children;
mod ext4;
mod figure;
mod goodput;
mod guest;
mod hijack;
mod host;
mod initramfs;
mod librump;
mod links;
mod measure;
mod net;
mod pair;
mod place;
mod plan;
mod programs;
mod remote;
mod scale;
mod tmpfs;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use crate::figure::Output;
use crate::measure::Effort;

/// Figures of rumpkit, each beside the host kernel's.
#[derive(Parser)]
struct Cli {
    /// Only this group, or this one name
    group: Option<String>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// A short run whose figures mean little
    #[arg(long)]
    smoke: bool,
    /// What a process that the benches start does
    #[arg(long, hide = true, num_args = 1.., allow_hyphen_values = true)]
    child: Option<Vec<String>>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match &cli.child {
        Some(words) => children::run(words),
        None => bench(&cli),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rump-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn bench(cli: &Cli) -> Result<()> {
    let effort = Effort::new(cli.smoke);
    let output = Output::new(cli.json, cli.group.clone());
    plan::run(&effort, output)
}

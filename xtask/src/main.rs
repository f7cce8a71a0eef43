//! The project's chores, as `cargo xtask COMMAND`: everything that a contributor or a continuous integration machine runs, in Rust,
//! so that a checkout and a toolchain are all one needs. Start reading at [`Chore`].

mod bench;
mod demo;
mod docs;
mod install;
mod packages;
mod report;
mod sh;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The project's chores.
#[derive(Parser)]
#[command(name = "cargo xtask", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Format check, clippy, every test, documentation, system tests
    ///
    /// Installs the Debian packages that the tests use when it may (as root), and says which are missing otherwise. All steps run, also
    /// after one has failed; the last line has the form of cargo test's.
    Test,
    /// Real programs on a real ext4 image, checked from outside; a short report
    Demo(demo::Options),
    /// Figures, each beside the host kernel's from the same run
    Bench(bench::Options),
    /// Writes docs/syscalls.md from the system-call table
    Docs {
        /// Write nothing; fail when the page is stale
        #[arg(long)]
        check: bool,
    },
    /// The C libraries librump and librumpclient with headers and pkg-config files, below a directory
    Install(install::Options),
}

fn main() -> ExitCode {
    let result = match Cli::parse().chore {
        Chore::Test => test::run(),
        Chore::Demo(options) => demo::run(&options),
        Chore::Bench(options) => bench::run(&options),
        Chore::Docs { check } => docs::run(check),
        Chore::Install(options) => install::run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

//! The `rump` command: runs programs on a kernel, serves one, and looks into a served one.
//!
//! It belongs to the clients and speaks sysproxy; `run`, `trace` and `server` also are a kernel's host process, so they link the facade
//! (see ARCHITECTURE.md). Start reading at [`cli`], then [`run`].
#![forbid(unsafe_code)]

mod background;
mod child;
mod cli;
mod drive;
mod failure;
mod guard;
mod kernel;
mod lab;
mod leftovers;
mod marked;
mod net;
mod network;
mod program;
mod remote;
mod run;
mod serve;
mod server;
mod shim;
mod signals;
mod table;
mod trace;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Word};
use crate::failure::Failure;

fn main() -> ExitCode {
    let result = match Cli::parse().word {
        Word::Run(options) => run::run(&options),
        Word::Trace(options) => run::trace(&options),
        Word::Exec(options) => run::exec(&options),
        Word::Server(options) => server::run(&options),
        Word::Halt(options) => remote::halt(&options),
        Word::Sysctl(options) => remote::sysctl(&options),
        Word::Dmesg(options) => remote::dmesg(&options),
        Word::Mount(options) => remote::mount(&options),
        Word::Umount(options) => remote::umount(&options),
        Word::Df(options) => remote::df(&options),
        Word::Ifconfig(options) => net::ifconfig(&options),
        Word::Route(options) => net::route(&options),
        Word::Arp(options) => net::arp(&options),
        Word::Ndp(options) => net::ndp(&options),
        Word::Firewall(options) => net::firewall(&options),
        Word::Netstat(options) => net::netstat(&options),
        Word::Ping(options) => net::ping(&options),
        Word::Tcpdump(options) => run::tcpdump(&options),
        Word::Up(options) => lab::up(&options),
        Word::Ps(options) => lab::ps(&options),
        Word::Down(options) => lab::down(&options),
        Word::Guard { url } => guard::watch(&url),
    };
    match result {
        Ok(status) => ExitCode::from(status),
        Err(Failure { status, error }) => {
            eprintln!("rump: {error:#}");
            ExitCode::from(status)
        }
    }
}

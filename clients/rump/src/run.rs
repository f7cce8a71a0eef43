//! Running a program: on a kernel of its own (`run`, `trace`), or on one that is served (`exec`).

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::Arc;

use anyhow::anyhow;
use rumpkit::Kernel;

use crate::cli::{Exec, Run, Tcpdump, Trace};
use crate::failure::{CANNOT_RUN, Failure, Outcome};
use crate::guard::Guard;
use crate::kernel::Parts;
use crate::network::Networked;
use crate::serve::Served;
use crate::shim::Sockets;
use crate::signals::Forwarder;
use crate::trace::Tracing;
use crate::{child, kernel, leftovers, network, program, remote, shim};

/// `rump run`.
pub(crate) fn run(options: &Run) -> Outcome {
    on_a_kernel(options, serve_to)
}

/// `rump trace`.
pub(crate) fn trace(options: &Trace) -> Outcome {
    on_a_kernel(&options.run, |kernel, signals, command, shim, sockets| {
        let tracing = Tracing::start(kernel, options.output.as_deref())?;
        let status = serve_to(kernel, signals, command, shim, sockets);
        tracing.stop()?;
        status
    })
}

/// Boots a kernel, mounts, has `act` run the program on it, and takes it down in order.
fn on_a_kernel(
    options: &Run,
    act: impl FnOnce(&Arc<Kernel>, Forwarder, Command, &Path, Sockets) -> Result<ExitStatus, Failure>,
) -> Outcome {
    let words = &options.program.words;
    let mut command = command(words, program::find(&words[0])?);
    let shim = shim::find()?;
    if options.explain {
        shim::explain(&mut command);
    }
    // From here on a signal is the program's business, and no kernel is left without unmounting.
    let signals = Forwarder::new()?;
    let kernel = kernel::boot(&options.kernel, Parts::of(&options.network)?)?;
    kernel::mount_all(&kernel, &options.mounts)?;
    let network = Networked::start(&kernel, &options.network)?;
    let status = act(&kernel, signals, command, &shim, network.sockets());
    let halted = kernel::halt(&kernel);
    drop(network);
    let status = child::shell_status(status?);
    match halted {
        // The program's own failure comes first.
        Err(error) if status != 0 => {
            eprintln!("rump: {error:#}");
            Ok(status)
        }
        Err(error) => Err(error.into()),
        Ok(()) => Ok(status),
    }
}

/// Runs the program on the kernel; when it has ended, nobody is a client any more.
fn serve_to(
    kernel: &Arc<Kernel>,
    signals: Forwarder,
    mut command: Command,
    shim: &Path,
    sockets: Sockets,
) -> Result<ExitStatus, Failure> {
    leftovers::adopt()?;
    let served = Served::privately(kernel)?;
    let guard = Guard::start(&served.url)?;
    shim::prepare(&mut command, shim, &served.url, sockets);
    let status = child::run(command, signals);
    drop(guard);
    leftovers::end();
    drop(served);
    status
}

/// `rump exec`: becomes the program.
pub(crate) fn exec(options: &Exec) -> Outcome {
    become_program(&options.url.url, &options.program.words)
}

/// `rump tcpdump`: becomes tcpdump(8).
pub(crate) fn tcpdump(options: &Tcpdump) -> Outcome {
    let mut words = vec![OsString::from("tcpdump")];
    words.extend_from_slice(&options.words);
    become_program(&options.server.url, &words)
}

fn become_program(url: &str, words: &[OsString]) -> Outcome {
    let program = program::find(&words[0])?;
    let shim = shim::find()?;
    // A wrong URL is told here, in our words, and not by every program that is started.
    let url = remote::resolve(url)?;
    let sockets = network::sockets_of(&remote::connect(&url)?);
    let mut command = command(words, program);
    shim::prepare(&mut command, &shim, &url, sockets);
    let error = command.exec();
    let text = format!("{}: cannot be run: {error}", words[0].display());
    Err(Failure::with_status(CANNOT_RUN, anyhow!(text)))
}

/// The program with its arguments, under the name it was given.
fn command(words: &[OsString], program: PathBuf) -> Command {
    let mut command = Command::new(program);
    command.arg0(&words[0]).args(&words[1..]);
    command
}

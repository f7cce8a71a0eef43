//! `rump server`: a kernel at a URL, with the options of the reference's rump_server(1).

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result};
use rumpkit::module::Library;
use rumpkit::module::load::{MODULEBASE, in_order, load};
use rumpkit::{Kernel, Process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::cli::Server;
use crate::drive::Drive;
use crate::failure::Outcome;
use crate::network::Networked;
use crate::{child, kernel, remote, serve};

/// In the environment of the process that goes to the background.
const BACKGROUND: &str = "RUMP_SERVER_BACKGROUND";

pub(crate) fn run(options: &Server) -> Outcome {
    let url = remote::absolute(&options.url)?;
    let drives = options
        .drives
        .iter()
        .map(|d| Drive::parse(d))
        .collect::<Result<Vec<_>>>()?;
    let background = std::env::var_os(BACKGROUND).is_some();
    if !options.foreground && !background {
        return start_in_background();
    }
    let signals = Signals::new([SIGTERM, SIGINT]).context("signal handlers cannot be set")?;
    let kernel = kernel::boot_with(&options.kernel, libraries(&options.libraries)?)?;
    kernel::mount_all(&kernel, &options.mounts)?;
    let network = Networked::start(&kernel, &options.network)?;
    let result = register(&kernel, &drives)
        .and_then(|()| load_modules(&kernel, &options.modules))
        .and_then(|()| serve::serve(&kernel, &url));
    let server = match result {
        Ok(server) => server,
        Err(error) => {
            let _ = kernel::halt(&kernel);
            return Err(error.into());
        }
    };
    halt_on(signals, &kernel)?;
    println!("serving {url}");
    std::io::stdout().flush()?;
    if background {
        leave_terminal()?;
    }
    kernel.wait_halted();
    drop(server);
    drop(network);
    Ok(0)
}

/// Loads component libraries, before the boot.
fn libraries(names: &[String]) -> Result<Vec<Library>> {
    let base = std::env::var_os(MODULEBASE).filter(|base| !base.is_empty() && base != "0");
    let base = base.as_deref().map(Path::new);
    let load = |name: &String| Library::open(OsStr::new(name), base);
    let libraries: Result<Vec<_>, _> = names.iter().map(load).collect();
    Ok(in_order(libraries.context("-l")?))
}

/// Loads and starts modules, in order.
fn load_modules(kernel: &Arc<Kernel>, names: &[String]) -> Result<()> {
    for name in names {
        load(kernel, OsStr::new(name)).context("-m")?;
    }
    Ok(())
}

fn register(kernel: &Arc<Kernel>, drives: &[Drive]) -> Result<()> {
    let process = Process::new(kernel)?;
    drives.iter().try_for_each(|drive| drive.register(&process))
}

/// Halts the kernel in order when a signal says so.
fn halt_on(mut signals: Signals, kernel: &Arc<Kernel>) -> Result<()> {
    let kernel = kernel.clone();
    let wait = move || {
        if signals.forever().next().is_some()
            && let Err(error) = kernel::halt(&kernel)
        {
            eprintln!("rump: {error:#}");
        }
    };
    thread::Builder::new()
        .name("signals".into())
        .spawn(wait)
        .context("no thread for signals")?;
    Ok(())
}

/// Starts this command again as a process that goes to the background, and ends when that one serves or has failed.
fn start_in_background() -> Outcome {
    let mut command = Command::new(std::env::current_exe().context("where this executable is")?);
    command
        .args(std::env::args_os().skip(1))
        .env(BACKGROUND, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut server = command
        .spawn()
        .context("cannot be started in the background")?;
    let mut line = String::new();
    if let Some(out) = server.stdout.take() {
        BufReader::new(out).read_line(&mut line)?;
    }
    if line.is_empty() {
        return Ok(child::shell_status(server.wait()?));
    }
    Ok(0)
}

/// In the background: a session of our own, and nothing more is said.
fn leave_terminal() -> Result<()> {
    rustix::process::setsid().context("setsid")?;
    // SIGHUP is the terminal's word.
    Signals::new([SIGHUP])?;
    let null = File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .context("/dev/null")?;
    rustix::stdio::dup2_stdout(&null).context("/dev/null")?;
    rustix::stdio::dup2_stderr(&null).context("/dev/null")?;
    Ok(())
}

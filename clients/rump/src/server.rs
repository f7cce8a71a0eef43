//! `rump server`: a kernel at a URL, with the options of the reference's rump_server(1).

use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result};
use rumpkit::module::Library;
use rumpkit::module::load::{MODULEBASE, in_order, load};
use rumpkit::{Kernel, Process};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::cli::Server;
use crate::drive::Drive;
use crate::failure::Outcome;
use crate::kernel::Parts;
use crate::network::Networked;
use crate::{background, kernel, remote, serve};

pub(crate) fn run(options: &Server) -> Outcome {
    let url = remote::absolute(&options.url)?;
    let drives = options
        .drives
        .iter()
        .map(|d| Drive::parse(d))
        .collect::<Result<Vec<_>>>()?;
    if !options.foreground && !background::is_it() {
        return background::start();
    }
    let signals = Signals::new([SIGTERM, SIGINT]).context("signal handlers cannot be set")?;
    let parts = Parts::of(&options.network)?;
    let kernel = kernel::boot_with(&options.kernel, parts, libraries(&options.libraries)?)?;
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
    background::ready(&format!("serving {url}"))?;
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

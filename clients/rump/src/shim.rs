//! Finding the shim that redirects a program's system calls, and the environment that puts it to work.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The shim's file name.
pub(crate) const SHIM: &str = "librump_hijack.so";
/// Whose a program's sockets are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Sockets {
    /// The host's.
    #[default]
    Host,
    /// The kernel's, and so is its network.
    Kernel,
    /// The kernel's, on the host's network.
    Sockin,
}

/// The program sees the kernel's tree here and nothing else of it.
const FILES: &str = "path=/rump";
/// Its sockets are the kernel's too, the resolver asks whom the kernel asks, and what it reads of the network is of the kernel's.
const FILES_AND_SOCKETS: &str = "path=/rump,socket=all:nolocal,blanket=/etc/resolv.conf:/etc/hosts:/etc/nsswitch.conf:/proc/net:/proc/sys/net";
/// So are those that the kernel takes from its host; what the host says of its network stays true.
const FILES_AND_SOCKIN: &str = "path=/rump,socket=inet:inet6";

/// Where the shim is: in `RUMP_LIBDIR` when that is set, else beside this executable or in `../lib` from there.
pub(crate) fn find() -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("RUMP_LIBDIR") {
        let shim = Path::new(&dir).join(SHIM);
        if !shim.is_file() {
            bail!(
                "{}: there is no {SHIM} in $RUMP_LIBDIR; set it to the directory that has it, or unset it",
                dir.display()
            );
        }
        return usable(shim);
    }
    let executable = std::env::current_exe().context("where this executable is")?;
    let dir = executable.parent().unwrap_or(Path::new("/"));
    for place in [dir.to_path_buf(), dir.join("../lib")] {
        let shim = place.join(SHIM);
        if shim.is_file() {
            return usable(shim);
        }
    }
    bail!(
        "{SHIM} is neither in {0} nor in {0}/../lib; build it (cargo build -p rumpkit-hijack) or set RUMP_LIBDIR to the directory that has it",
        dir.display()
    )
}

/// The loader splits `LD_PRELOAD` at spaces and colons.
fn usable(shim: PathBuf) -> Result<PathBuf> {
    let shim = shim
        .canonicalize()
        .with_context(|| shim.display().to_string())?;
    let name = shim.to_string_lossy();
    if name.contains([' ', ':']) {
        bail!(
            "{name}: the loader cannot preload a file with a space or colon in its path; set RUMP_LIBDIR to another directory"
        );
    }
    Ok(shim)
}

/// Sets the environment by which a program runs on the kernel at `url`; its sockets too when they are the kernel's.
pub(crate) fn prepare(command: &mut Command, shim: &Path, url: &str, sockets: Sockets) {
    let mut preload = OsString::from(shim);
    if let Some(more) = std::env::var_os("LD_PRELOAD").filter(|v| !v.is_empty()) {
        preload.push(":");
        preload.push(more);
    }
    command.env("LD_PRELOAD", preload).env("RUMP_SERVER", url);
    if std::env::var_os("RUMPHIJACK").is_none() {
        let what = match sockets {
            Sockets::Host => FILES,
            Sockets::Kernel => FILES_AND_SOCKETS,
            Sockets::Sockin => FILES_AND_SOCKIN,
        };
        command.env("RUMPHIJACK", what);
    }
}

/// Has the shim say in each program, as it ends, what it rewrote and what it could not.
pub(crate) fn explain(command: &mut Command) {
    command.env("RUMPHIJACK_EXPLAIN", "1");
}

//! Serving the kernel that lives in this process.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use anyhow::{Context, Result};
use rumpkit::Kernel;
use sysproxy::{Options, Server};
use tempfile::TempDir;

/// A kernel that is served on a socket of its own.
pub(crate) struct Served {
    pub(crate) url: String,
    /// Closes every connection when it goes; the clients' processes end.
    _server: Server,
    _dir: TempDir,
}

/// The most bytes of a directory in which a socket's path still fits.
const LONGEST: usize = 80;

impl Served {
    /// Serves the kernel in a new directory. Everybody may enter, because programs may become other users; the server looks at who asks.
    pub(crate) fn privately(kernel: &Arc<Kernel>) -> Result<Served> {
        let dir = private_dir()?;
        let url = format!("unix://{}/kernel", dir.path().display());
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711))?;
        let server = serve(kernel, &url)?;
        Ok(Served {
            url,
            _server: server,
            _dir: dir,
        })
    }
}

fn private_dir() -> Result<TempDir> {
    let base = std::env::temp_dir();
    let base = if base.as_os_str().len() > LONGEST {
        "/tmp".into()
    } else {
        base
    };
    tempfile::Builder::new()
        .prefix("rump-")
        .tempdir_in(&base)
        .with_context(|| {
            format!(
                "{}: no directory for the kernel's socket; set TMPDIR to one that can be written",
                base.display()
            )
        })
}

/// Serves the kernel at a URL.
pub(crate) fn serve(kernel: &Arc<Kernel>, url: &str) -> Result<Server> {
    Ok(sysproxy::serve(kernel, url, Options::default())?)
}

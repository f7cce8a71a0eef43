//! Serving the kernel to other processes.

use std::ffi::{CStr, c_char, c_int};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use kern::{Errno, Howto};
use sysproxy::{Error, Options, Server};

use crate::kernel::{complain, current, end_process};

/// Where the kernel is served, each with the thread that ends it.
static SERVERS: Mutex<Vec<(Arc<Server>, JoinHandle<()>)>> = Mutex::new(Vec::new());

/// Serves the kernel at `unix://PATH`, `unix://@NAME` or `tcp://ADDRESS:PORT` until it halts; when a client has it halt or restart,
/// this process exits, too, as the reference's does. `ENXIO` before rump_init, `EINVAL` for a URL that is none, `EADDRINUSE` when
/// somebody serves there; the reason is on standard error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_init_server(url: *const c_char) -> c_int {
    if url.is_null() {
        return Errno::EINVAL.0;
    }
    // SAFETY: C gives a string that ends with a NUL.
    let url = unsafe { CStr::from_ptr(url) };
    let served = url.to_str().map_err(|_| Errno::EINVAL).and_then(serve);
    served.err().map_or(0, |errno| errno.0)
}

fn serve(url: &str) -> Result<(), Errno> {
    let kernel = current()?;
    let server = sysproxy::serve(kernel, url, Options::default()).map_err(|error| {
        complain(format_args!("rump_init_server: {error}"));
        errno_of(&error)
    })?;
    let server = Arc::new(server);
    let watched = server.clone();
    let thread = std::thread::Builder::new()
        .name("rumphalt".to_owned())
        .spawn(move || {
            // Comes back when the client that halts the kernel has its answer.
            watched.wait();
            drop(watched);
            let howto = kernel.wait_halted();
            forget_servers();
            if howto != Howto::Halt {
                end_process();
            }
        })
        .map_err(|_| Errno::EAGAIN)?;
    servers().push((server, thread));
    Ok(())
}

fn servers() -> std::sync::MutexGuard<'static, Vec<(Arc<Server>, JoinHandle<()>)>> {
    SERVERS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn errno_of(error: &Error) -> Errno {
    match error {
        Error::Live { .. } => Errno::EADDRINUSE,
        Error::Io { cause, .. } => Errno(cause.raw_os_error().unwrap_or(Errno::EIO.0)),
        Error::Url { .. } | Error::NotASocket { .. } => Errno::EINVAL,
    }
}

/// The kernel has halted from within this process: sockets go, clients are let go.
pub(crate) fn stop() {
    for (server, _) in &*servers() {
        // Before anybody is told: who is told ends the process.
        server.leave_name();
        server.notify_halt();
    }
    forget_servers();
}

/// Drops the servers, which disconnects their clients.
fn forget_servers() {
    let all = std::mem::take(&mut *servers());
    drop(all);
}

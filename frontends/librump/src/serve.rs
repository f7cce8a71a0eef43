//! Serving the kernel to other processes.

use std::ffi::{c_char, c_int};

use kern::Errno;

/// Serves the kernel at a URL. `ENOSYS`: there is no server yet.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_init_server(_url: *const c_char) -> c_int {
    Errno::ENOSYS.0
}

/// Stops serving: sockets go, clients are let go.
pub(crate) fn stop() {}

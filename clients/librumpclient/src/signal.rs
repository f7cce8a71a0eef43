//! Signals of the kernel for this process.

/// The kernel sends SIGPIPE with `EPIPE`.
#[cold]
pub(crate) fn sigpipe() {
    // SAFETY: what the signal does is what the program has arranged for it.
    unsafe { libc::raise(libc::SIGPIPE) };
}

/// A signal of the kernel's for this process.
pub(crate) fn send(signo: std::ffi::c_int) {
    // SAFETY: what the signal does is what the program has arranged for it.
    unsafe { libc::kill(libc::getpid(), signo) };
}

//! Signals of the kernel for this process.

/// The kernel sends SIGPIPE with `EPIPE`.
#[cold]
pub(crate) fn sigpipe() {
    // SAFETY: what the signal does is what the program has arranged for it.
    unsafe { libc::raise(libc::SIGPIPE) };
}

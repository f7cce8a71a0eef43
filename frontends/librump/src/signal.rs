//! Signals: what becomes of one that the kernel sends to a process of this one.

use std::ffi::c_int;
use std::sync::atomic::{AtomicI32, Ordering};

use crate::kernel::complain;

/// `enum rump_sigmodel`: the process aborts.
pub const RUMP_SIGMODEL_PANIC: c_int = 0;
/// `enum rump_sigmodel`: nothing.
pub const RUMP_SIGMODEL_IGNORE: c_int = 1;
/// `enum rump_sigmodel`: raise(3) in this process, the default.
pub const RUMP_SIGMODEL_RAISE: c_int = 2;
/// `enum rump_sigmodel`: only kept as pending.
pub const RUMP_SIGMODEL_RECORD: c_int = 3;

static MODEL: AtomicI32 = AtomicI32::new(RUMP_SIGMODEL_RAISE);

/// Chooses what becomes of signals. What is none of the models means [`RUMP_SIGMODEL_RAISE`], as the old host model does.
#[unsafe(no_mangle)]
pub extern "C" fn rump_boot_setsigmodel(model: c_int) {
    MODEL.store(model, Ordering::Relaxed);
}

/// The kernel sends SIGPIPE with `EPIPE`. A recorded signal stays pending, which no call of the interface shows.
#[cold]
pub(crate) fn sigpipe() {
    match MODEL.load(Ordering::Relaxed) {
        RUMP_SIGMODEL_PANIC => {
            complain(format_args!("panic: a signal for this process: SIGPIPE"));
            std::process::abort()
        }
        RUMP_SIGMODEL_IGNORE | RUMP_SIGMODEL_RECORD => {}
        // SAFETY: what the signal does is what the program has arranged for it.
        _ => unsafe {
            libc::raise(libc::SIGPIPE);
        },
    }
}

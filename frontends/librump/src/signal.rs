//! Signals: what becomes of one that the kernel sends to a process of this one.

use std::ffi::c_int;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use kern::signal::SignalSink;
use kern::{Kernel, Pid};

use crate::context;
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

/// Delivers the kernel's signals for processes of this one.
pub(crate) fn attach(kernel: &Kernel) {
    kernel.set_signal_sink(Arc::new(Model));
}

struct Model;

impl SignalSink for Model {
    fn raise(&self, _: Pid, signo: u32) -> bool {
        deliver(signo as c_int, |signo| {
            // SAFETY: what the signal does is what the program has arranged for it. Not raise(3): this may be a thread of the
            // kernel's, which is no thread of the program.
            unsafe { libc::kill(libc::getpid(), signo) };
        })
    }
}

/// Does with a signal what the model says; false when it is to stay pending.
fn deliver(signo: c_int, raise: impl FnOnce(c_int)) -> bool {
    match MODEL.load(Ordering::Relaxed) {
        RUMP_SIGMODEL_PANIC => {
            complain(format_args!("panic: signal {signo} for this process"));
            std::process::abort()
        }
        RUMP_SIGMODEL_IGNORE => {}
        RUMP_SIGMODEL_RECORD => return false,
        _ => raise(signo),
    }
    true
}

/// The signal of the thread whose call has failed with `EPIPE`.
#[cold]
pub(crate) fn sigpipe() {
    let delivered = deliver(libc::SIGPIPE, |signo| {
        // SAFETY: what the signal does is what the program has arranged for it.
        unsafe { libc::raise(signo) };
    });
    if !delivered {
        // The sink has the same model, so it stays pending. Without a kernel nobody has made the call.
        let _ = context::enter(|cx| cx.psignal(cx.proc(), libc::SIGPIPE as u32));
    }
}

/// A signal of the kernel's for the thread's process.
pub(crate) fn send(signo: c_int) {
    // Whoever asks has made a call, so there is a kernel; and the number is a signal's.
    let _ = context::enter(|cx| cx.psignal(cx.proc(), signo as u32));
}

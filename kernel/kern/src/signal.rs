//! Signals, signal(7), as far as a kernel has them whose programs run elsewhere: it says that one is sent, and whoever the process
//! belongs to delivers it. A C program of this process has its signal model for that, a remote client is sent a frame.
//!
//! Only what happens by itself is sent this way. `SIGPIPE` belongs to the thread whose call has failed, which only its own side of the
//! call knows: see [`abi::sends_sigpipe`].

use std::sync::Arc;
use std::sync::atomic::Ordering;

use abi::Errno;

use crate::procnote::ProcEvent;
use crate::{Curlwp, Kernel, Pid, Proc};

/// The highest number of a signal.
pub const NSIG: u32 = 64;
/// The signal of alarm clocks.
pub const SIGALRM: u32 = 14;

/// Delivers the signals of processes. Called with a virtual CPU held or without one, from any thread, so it may not wait.
pub trait SignalSink: Send + Sync {
    /// A signal, 1 to [`NSIG`], for the process. False when it is to stay pending.
    fn raise(&self, pid: Pid, signo: u32) -> bool;
}

impl Kernel {
    /// Says who delivers the signals of processes that have nobody of their own; once, by the frontend. Without anybody they stay
    /// pending.
    pub fn set_signal_sink(&self, sink: Arc<dyn SignalSink>) {
        let _ = self.signal_sink.set(sink);
    }

    /// Sends a process a signal. Signal 0 only asks whether it could. `EINVAL` for what is no signal.
    pub fn psignal(&self, proc: &Proc, signo: u32) -> Result<(), Errno> {
        if signo > NSIG {
            return Err(Errno::EINVAL);
        }
        if signo == 0 || proc.is_exiting() {
            return Ok(());
        }
        let sink = proc.signal_sink.get().or_else(|| self.signal_sink.get());
        if !sink.is_some_and(|sink| sink.raise(proc.pid, signo)) {
            proc.pending.fetch_or(1 << (signo - 1), Ordering::SeqCst);
        }
        Ok(())
    }
}

impl Proc {
    /// Says who delivers the signals of this process; once.
    pub fn set_signal_sink(&self, sink: Arc<dyn SignalSink>) {
        let _ = self.signal_sink.set(sink);
    }

    /// The signals that nobody has delivered: bit N-1 for signal N.
    pub fn pending_signals(&self) -> u64 {
        self.pending.load(Ordering::SeqCst)
    }

    /// Takes one of them; false when it is not pending.
    pub fn take_signal(&self, signo: u32) -> bool {
        let bit = 1u64.checked_shl(signo.wrapping_sub(1)).unwrap_or(0);
        self.pending.fetch_and(!bit, Ordering::SeqCst) & bit != 0
    }
}

impl Curlwp<'_> {
    /// Sends a process a signal, and tells those who watch it. `EINVAL` for what is no signal.
    pub fn psignal(&self, proc: &Proc, signo: u32) -> Result<(), Errno> {
        self.kernel().psignal(proc, signo)?;
        if signo != 0 {
            proc.notes().tell(self.cpu(), ProcEvent::Signal(signo));
        }
        Ok(())
    }

    /// kill(2) within the kernel. `ESRCH` when there is no such process, `EPERM` for another user's.
    pub fn kill(&self, pid: Pid, signo: u32) -> Result<(), Errno> {
        let proc = self.kernel().find_proc(self, pid).ok_or(Errno::ESRCH)?;
        let (me, other) = (self.cred(), proc.cred());
        let may = me.is_superuser()
            || [me.ruid, me.euid]
                .iter()
                .any(|id| [other.ruid, other.suid].contains(id));
        if !may {
            return Err(Errno::EPERM);
        }
        self.psignal(&proc, signo)
    }
}

//! The system-call vector and its dispatcher.

use std::sync::OnceLock;
use std::sync::atomic::Ordering;

use abi::table::MAX_NR;
use abi::{Errno, SysResult};

use crate::Curlwp;

/// Serves one system call: takes the six registers, usually as the call's typed arguments, and answers.
pub type Handler = fn(&Curlwp<'_>, &[u64; 6]) -> SysResult;

/// The vector: a handler for each number. A slot that nobody has filled, and that is no module's ([`crate::module`]), answers
/// `ENOSYS`.
pub struct Sysent {
    slots: Box<[OnceLock<Handler>]>,
}

impl Default for Sysent {
    fn default() -> Self {
        Sysent {
            slots: (0..MAX_NR).map(|_| OnceLock::new()).collect(),
        }
    }
}

impl Sysent {
    /// Fills a slot. `EBUSY` when it is filled already, `EINVAL` for a number beyond the vector.
    pub fn establish(&self, nr: u32, handler: Handler) -> Result<(), Errno> {
        let slot = self.slots.get(nr as usize).ok_or(Errno::EINVAL)?;
        slot.set(handler).map_err(|_| Errno::EBUSY)
    }

    /// The handler of a number.
    #[inline]
    pub fn get(&self, nr: u32) -> Option<Handler> {
        self.slots.get(nr as usize)?.get().copied()
    }
}

/// In `Kernel::attention`: the kernel has halted, calls answer `ESHUTDOWN`.
pub(crate) const HALTED: u32 = 1;

/// In `Kernel::attention`: there are no kernel threads; calls do what those would.
pub(crate) const THREADLESS: u32 = 2;

/// In `Kernel::attention`: calls are described to the tracer.
pub(crate) const TRACED: u32 = 4;

/// In `Kernel::attention`: the host explores orders; others may run before each call.
pub(crate) const EXPLORED: u32 = 8;

impl Curlwp<'_> {
    /// Carries out a system call of the current lwp.
    #[inline]
    pub fn syscall(&self, nr: u32, args: &[u64; 6]) -> SysResult {
        if self.kernel().attention.load(Ordering::Relaxed) != 0 {
            return self.syscall_attentive(nr, args);
        }
        self.dispatch(nr, args)
    }

    #[inline]
    fn dispatch(&self, nr: u32, args: &[u64; 6]) -> SysResult {
        match self.kernel().sysent().get(nr) {
            Some(handler) => handler(self, args),
            None => self.kernel().modules().syscall(self, nr, args),
        }
    }

    /// A call while something is out of the ordinary.
    #[cold]
    fn syscall_attentive(&self, nr: u32, args: &[u64; 6]) -> SysResult {
        let attention = self.kernel().attention.load(Ordering::Relaxed);
        if attention & HALTED != 0 {
            return Err(Errno::ESHUTDOWN);
        }
        if attention & EXPLORED != 0 {
            self.unscheduled(|| self.kernel().host().relax());
        }
        if attention & THREADLESS != 0 {
            self.kernel().serve_all(self);
        }
        if attention & TRACED != 0 {
            return crate::trace::traced(self, nr, args, || self.dispatch(nr, args));
        }
        self.dispatch(nr, args)
    }
}

/// Fills slots of a kernel's vector from functions that take typed arguments:
/// `establish!(kernel.sysent(), { read => sys_read, write => sys_write })`.
#[macro_export]
macro_rules! establish {
    ($sysent:expr, { $($name:ident => $f:path),* $(,)? }) => {{
        let sysent: &$crate::sysent::Sysent = $sysent;
        $(sysent.establish(abi::nr::$name, |cx, raw| $f(cx, abi::args::$name::from(raw)))?;)*
        Ok::<(), abi::Errno>(())
    }};
}

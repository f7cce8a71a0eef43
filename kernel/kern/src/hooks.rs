//! What factions hang into the kernel: per-process state, and work at the end.

use abi::Errno;

use crate::{Curlwp, Proc};

/// A faction's part in the life of processes.
#[derive(Clone, Copy)]
pub struct ProcHooks {
    /// A process was made; gives it the faction's state ([`Proc::set_state`]), copied from its parent's. The
    /// kernel's first process has no parent.
    pub fork: fn(&Curlwp<'_>, parent: Option<&Proc>, child: &Proc),
    /// The process is gone: its descriptors are closed and its last lwp has left.
    pub exit: fn(&Curlwp<'_>, &Proc),
}

/// What runs when the kernel halts, in the reverse order of registration. An error is reported and the halt goes on.
pub type ShutdownHook = fn(&Curlwp<'_>) -> Result<(), Errno>;

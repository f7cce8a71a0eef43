//! What factions hang into the kernel: per-process state, and work at the end.

use std::any::Any;
use std::sync::{Arc, Weak};

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

/// What stands behind the name of a socket; the net faction knows its type.
pub type SocketPoint = dyn Any + Send + Sync;

/// Names of sockets in the file system, which the vfs faction gives to the net faction.
pub trait SocketNames: Send + Sync {
    /// Makes a socket node under a path that does not exist; whoever finds it gets to `point` as long as that lives.
    /// The answer keeps the node in memory; the socket holds it. `EADDRINUSE` when there is something under the path.
    fn bind(
        &self,
        cx: &Curlwp<'_>,
        path: &[u8],
        point: Weak<SocketPoint>,
    ) -> Result<Arc<SocketPoint>, Errno>;

    /// What is behind a path. `ECONNREFUSED` when it is no socket, or one that nobody has open; `EACCES` when the
    /// caller may not write to it.
    fn find(&self, cx: &Curlwp<'_>, path: &[u8]) -> Result<Arc<SocketPoint>, Errno>;
}

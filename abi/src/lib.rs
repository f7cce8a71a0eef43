//! The line between a kernel and its clients: Linux types and errno, the one system-call table, and the
//! layouts of the sysproxy wire and of the shared-memory ring.
//!
//! This crate depends on nothing and is the only thing that both sides of the line know. Kernel crates get
//! from it the errno, the structures they copy out and the typed arguments of each call; clients get the
//! description by which arguments are marshalled and the typed stubs.
//!
//! Start reading at [`table`]: every system call is written there once. [`Errno`] is the error of everything.
#![forbid(unsafe_code)]

pub mod consts;
mod errno;
mod layout;
pub mod ring;
mod signal;
mod spin;
pub mod stubs;
pub mod sysproxy;
pub mod table;
pub mod types;
mod vfsstat;

pub use consts::*;
pub use errno::Errno;
pub use signal::sends_sigpipe;
pub use spin::{Seen, Spin};
pub use stubs::{Arg, Invoke, Syscalls};
pub use table::{ArgKind, Faction, Len, RetKind, Support, SyscallDesc, args, nr};
pub use types::*;
pub use vfsstat::{VFSSTAT_SIZE, VfsStat};

/// What a system call answers: a non-negative value, or the errno.
pub type SysResult = Result<i64, Errno>;

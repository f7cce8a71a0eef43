//! librump: a rump kernel as a C library, with the interface that rump's users know (`include/rump/`).
//!
//! The C interface is global: one kernel a process, and what a thread is to it is a property of the thread. That is all
//! this crate adds to the facade: the one kernel ([`kernel`]), the thread's lwp ([`context`]), and C's calling convention.
//! The system calls are in `syscalls.master`, one a line, from which the header, the shims ([`sys`]) and a table of
//! docs/librump.md are made (`tests/generated.rs` holds them to it).
//!
//! The crate may use the facade and everything below it. It has unsafe code because C hands it addresses: as in rump,
//! whoever is in this process is trusted with its memory, so a pointer that C gives is followed. The conditions are those
//! of the C interface, written in the headers.
//!
//! Start reading at [`kernel::rump_init`], then [`context`] and [`lwproc`].
#![deny(unsafe_op_in_unsafe_fn)]
// The conditions of every function here are those of its header: the pointers are good for what the call does with them.
#![allow(clippy::missing_safety_doc)]

pub mod boot;
pub mod context;
pub mod cred;
pub mod daemonize;
pub mod error;
pub mod etfs;
pub mod kernel;
pub mod lwproc;
mod misuse;
pub mod module;
pub mod mountpoint;
pub mod netconfig;
pub mod process;
pub mod serve;
pub mod signal;
pub mod sys;
pub mod uio;
pub mod vlock;
pub mod vnode;
pub mod vop;
pub mod vop_more;

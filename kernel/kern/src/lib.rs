//! The kernel proper: what every faction stands on.
//!
//! A [`Kernel`] is a value, made by [`Kernel::builder`] and `boot`. Code runs in it as an lwp on a virtual CPU,
//! which is the value [`Curlwp`] ("cx" in signatures): whoever has one may look at the current process, copy to
//! and from its memory, take locks and sleep. Threads get one from a [`LwpHandle`] (see [`lwproc`]) or, without
//! an lwp of their own, from [`Kernel::implicit`].
//!
//! The crate may use `abi`, `hypercall` and `sync`; it knows no faction. What a faction must be reached for goes
//! through traits and hooks here: [`File`] for what a descriptor stands for, [`Component`] for starting,
//! [`sysent`] for system calls, [`ProcHooks`] for per-process state, shutdown hooks for the end.
//!
//! Start reading at [`boot`], the table of contents; then [`curlwp`], [`lwproc`] and [`mod@file`].
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::disallowed_methods, clippy::disallowed_types))]

pub mod anon;
pub mod boot;
pub mod callout;
pub mod component;
pub mod config;
pub mod curlwp;
pub mod epoll;
pub mod evcnt;
pub mod eventfd;
pub mod fd;
pub mod file;
pub mod hooks;
pub mod kauth;
mod kernel;
pub mod kqueue;
pub mod ksem;
pub mod kthread;
pub mod lwproc;
mod mapping;
pub mod module;
pub mod msgbuf;
pub mod pipe;
pub mod poll;
pub mod proc;
pub mod procnote;
mod ptimer;
pub mod report;
mod service;
pub mod session;
pub mod signal;
pub mod softint;
mod syscalls;
pub mod sysctl;
pub mod sysent;
pub mod timerfd;
pub mod trace;
pub mod uio;
pub mod usermem;
pub mod version;
pub mod watch;
pub mod workqueue;
pub mod xcall;

pub use boot::{Builder, Howto};
pub use component::{Component, Stage};
pub use config::Config;
pub use curlwp::Curlwp;
pub use fd::FdTable;
pub use file::{Ahead, File, LockKind, LockOwner, OpenFile, RecordLock};
pub use hooks::ProcHooks;
pub use kauth::Cred;
pub use kernel::{FactionId, Kernel};
pub use lwproc::{LwpHandle, RforkFds};
pub use proc::{Lwp, Pid, Proc};
pub use sysent::Handler;
pub use uio::Uio;
pub use usermem::{ArgMemory, KernelMemory, PathBytes, UserMemory};

pub use abi::{Errno, SysResult, UserAddr};

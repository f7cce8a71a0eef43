//! A client of remote system calls: what a program links, or a preloaded shim stands on, to be a process of a rump
//! kernel that runs somewhere else.
//!
//! [`raw`] is the core: no allocation and no libc on the path of a call, its own system calls in inline assembly,
//! callable from several threads and from signal handlers. [`Client`] is the face for Rust programs and gives the
//! typed stubs of [`abi::Syscalls`].
//!
//! The crate may use `abi` and nothing of a kernel. It has unsafe code, because it makes system calls and reaches the
//! memory that a call's registers name; each block says why it may.
//!
//! Start reading at [`raw::Client::call`].

mod client;
pub mod raw;

pub use client::{Client, Reconnect};

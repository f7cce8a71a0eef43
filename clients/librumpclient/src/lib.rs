//! librumpclient: for C programs that are processes of a rump kernel in another process, `rump/rumpclient.h`.
//!
//! It is the Rust client behind C's calling convention, with the same `rump_sys_*` functions as librump: they are compiled from
//! librump's own files, which know nothing of a kernel but how a call is made. A program links one library or the other.
//!
//! The crate may use `abi` and the client. It has unsafe code because C hands it addresses, which are followed.
//!
//! Start reading at [`life::rumpclient_init`].
#![deny(unsafe_op_in_unsafe_fn)]
// The conditions of every function here are those of its header: the pointers are good for what the call does with them.
#![allow(clippy::missing_safety_doc)]

pub mod context;
#[path = "../../../frontends/librump/src/error.rs"]
pub mod error;
pub mod life;
pub mod process;
mod signal;
#[path = "../../../frontends/librump/src/sys/mod.rs"]
pub mod sys;

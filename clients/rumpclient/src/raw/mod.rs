//! The raw core: system calls of a remote kernel by number and registers.
//!
//! Rules of everything in here: no libc function (a hijacking shim sits below libc), no allocation on the path of a
//! call, no panic, no thread-local variable (each thread's [`ThreadState`] is passed in and kept by the caller), no
//! lock that a signal handler of the same thread would wait for.
//!
//! A call goes over the thread's ring (`ring`) where there is one, if the thread cannot answer it by itself (`ahead`), else over the connection that all threads share
//! (`link`). `request` knows what goes along with it, `mem` which addresses are good.

pub mod sys;

mod ahead;
mod client;
mod handshake;
mod link;
pub(crate) mod mem;
mod request;
mod ring;
mod thread;

pub use abi::sysproxy::{Cookie, GUEST_CONSOLE, Url, UrlError, Watch};
pub use client::Client;
pub use thread::ThreadState;

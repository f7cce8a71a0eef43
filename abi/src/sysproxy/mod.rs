//! The sysproxy wire: system calls over a stream socket, in the framing of RUMPSP 0.4.
//!
//! The server speaks first, a [banner] line. Then both sides send frames: a [`Header`] of 24 bytes and a body. A
//! client's first frame is a handshake, which makes it a process of the kernel. After that it sends [`Kind::Syscall`]
//! requests, as many at a time as it likes; the server answers each under its request number, in any order.
//!
//! What is ours beyond 0.4: a system-call request carries, after the six registers, the memory that the table says
//! the call will read ([`SyscallRequest`]), and the answer carries what the call has written ([`SyscallReply`]), so
//! that a call is one round trip. Only what the table cannot name is asked for by `COPYIN` and sent by `COPYOUT`
//! during the call, under the call's own request number. Kinds and handshakes from 16 on are additions too.
//!
//! Everything here is a pure function over byte slices: no input makes it panic or allocate, and no length is
//! believed before it is checked. Numbers are in host byte order, which on every machine we run on is little-endian.
//!
//! Start reading at [`Header`], then [`SyscallRequest`]; [`named`] is the marshalling rule; [`Url`] names a server.

mod frame;
mod named;
mod url;

pub use frame::*;
pub use named::{Named, Use, named};
pub use url::{Url, UrlError};

#[cfg(test)]
mod tests;

//! The sysproxy wire: system calls over a stream socket, in the framing of RUMPSP 0.4.
//!
//! The server speaks first, a banner line. Then both sides send frames: a [`Header`] of 24 bytes and a body. A
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
pub use named::{Named, Use, covered, named};
pub use url::{Url, UrlError};

use crate::table::{ArgDesc, ArgKind, Faction, Len, RetKind, Support, SyscallDesc};

/// A call that the server answers and no kernel knows: which of these descriptors are ready? Arguments: the number of a
/// readiness connection, an array of [`Watch`], their count. Fills `revents`, answers how many have any, and has a byte
/// sent on the readiness connection when that may have changed. It replaces what that connection watched before.
pub const NR_POLLWATCH: u32 = 0x8000_0000;

static POLLWATCH: SyscallDesc = SyscallDesc {
    nr: NR_POLLWATCH,
    name: "pollwatch",
    args: &[
        ArgDesc {
            name: "connection",
            kind: ArgKind::Uint,
        },
        ArgDesc {
            name: "watches",
            kind: ArgKind::InOut(Len::Times(2, Watch::SIZE as u32)),
        },
        ArgDesc {
            name: "count",
            kind: ArgKind::Uint,
        },
    ],
    ret: RetKind::Int,
    faction: Faction::Kern,
    support: Support::Full,
};

/// The description of a call as a proxy may carry it: the table's, or [`NR_POLLWATCH`]'s.
pub fn desc(nr: u32) -> Option<&'static SyscallDesc> {
    if nr == NR_POLLWATCH {
        Some(&POLLWATCH)
    } else {
        crate::table::desc(nr)
    }
}

#[cfg(test)]
mod tests;

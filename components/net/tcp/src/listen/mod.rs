//! Before and after a connection: handshakes that are not done yet, sequence numbers to begin with, and TIME-WAIT.

mod cookie;
mod isn;
mod syn_cache;
mod time_wait;

pub use isn::{Isn, Key};
pub use syn_cache::{Accepted, SynCache, SynLimits, SynReply};
pub use time_wait::{TimeWait, TimeWaitReply};

use core::net::SocketAddr;

/// What names a connection: both ends. The ports are those of the addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tuple {
    /// Our end.
    pub local: SocketAddr,
    /// The peer's.
    pub remote: SocketAddr,
}

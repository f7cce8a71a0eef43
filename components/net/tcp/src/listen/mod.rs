//! Before and after a connection: handshakes that are not done yet, sequence numbers to begin with, and TIME-WAIT.

mod cookie;
mod isn;
mod syn_cache;
mod time_wait;

pub use isn::{Isn, Key};
pub use syn_cache::{Accepted, SynCache, SynLimits, SynReply};
pub use time_wait::{TimeWait, TimeWaitReply};

use core::net::IpAddr;

/// An end of a connection: a socket address in 20 bytes, for there are many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct End {
    ip: IpAddr,
    port: u16,
}

impl End {
    /// The address.
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl<I: Into<IpAddr>> From<(I, u16)> for End {
    fn from((ip, port): (I, u16)) -> End {
        End {
            ip: ip.into(),
            port,
        }
    }
}

/// What names a connection: both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tuple {
    /// Our end.
    pub local: End,
    /// The peer's.
    pub remote: End,
}

impl Tuple {
    /// The addresses alone, with ports of zero.
    fn without_ports(&self) -> Tuple {
        Tuple {
            local: (self.local.ip, 0).into(),
            remote: (self.remote.ip, 0).into(),
        }
    }
}

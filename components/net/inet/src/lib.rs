//! The inet and inet6 domains, ip(7) and ipv6(7): IPv4, IPv6, ICMP, UDP, raw sockets, addresses and routes.
//!
//! [`Inet`] is the state of one kernel's stack. A packet comes in at `link`, goes up through `ipv4` or `ipv6` to `icmp`, `udp`
//! or `raw`, and down again through `output` to an interface. Whoever configures a stack (ioctl(2), netlink, a program of the
//! facade) calls the public methods of [`Inet`].
//!
//! **Locks.** Input runs in software interrupts, and those run whenever a virtual CPU is given up. Everything that input may
//! want is therefore a leaf: held for a few lines, over no call of another layer, and waited for without giving the virtual
//! CPU up (`leaf`). Tables that are read for every packet (routes, addresses, filters) are swapped whole and have no lock.
//!
//! It may use the net faction and what is below it. Start reading at [`Inet`], then `ipv4` and `udp`.
#![forbid(unsafe_code)]

mod addr;
mod checksum;
mod config;
mod dgram;
pub mod dhcp;
mod filter;
mod frag;
#[cfg(any(test, feature = "fuzz"))]
#[allow(unreachable_pub, reason = "public for the fuzz target alone")]
mod fuzz;
mod group;
mod icmp;
mod icmpv6;
mod ifaddr;
mod ioctl;
mod ipv4;
mod ipv6;
mod limit;
mod link;
mod neigh;
pub mod netconfig;
mod options;
mod output;
mod pathmtu;
mod ports;
mod raw;
mod report;
mod route;
mod slow;
mod sockets;
mod stack;
mod tcp;
mod trie;
mod udp;
mod whole;

pub use addr::Endpoint;
#[cfg(feature = "fuzz")]
pub use dhcp::fuzz_message;
pub use filter::{Filter, Hook, Passage, Refusal, Verdict};
#[cfg(feature = "fuzz")]
pub use fuzz::fuzz_frames;
pub use group::SourceFilter;
pub use ifaddr::IfAddr;
pub use neigh::{Neighbour, NeighbourState};
pub use route::{
    IfThere, PROTO_BOOT, PROTO_DHCP, PROTO_KERNEL, PROTO_RA, Prefix, Route, RouteKind, TABLE_LOCAL,
    TABLE_MAIN,
};
pub use sockets::SocketInfo;
pub use stack::{Event, Inet, Listener};

use kern::{Component, Stage};
use sync::{Cpu, OffCpu, Parker};

/// The component, for the list of components.
pub static INET: Component = Component {
    name: "inet",
    stage: Stage::Net,
    requires: &["net"],
    init: stack::attach,
};

/// How leaf locks are waited for: with the virtual CPU held. Given up, it would run software interrupts, which may want a
/// lock that the caller holds.
fn leaf<'a>(cpu: &'a Cpu<'_>) -> OffCpu<'a> {
    OffCpu(cpu.host())
}

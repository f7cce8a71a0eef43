//! rumpkit: a rump kernel as a Rust library. One crate to depend on.
//!
//! ```
//! use std::io::{Read, Write};
//!
//! let kernel = rumpkit::builder().boot()?;
//! let process = rumpkit::Process::new(&kernel)?;
//! process.create("/tmp/hello")?.write_all(b"from a kernel of our own")?;
//!
//! let mut text = String::new();
//! process.open("/tmp/hello")?.read_to_string(&mut text)?;
//! assert_eq!(text, "from a kernel of our own");
//! kernel.shutdown(true)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! This crate is the facade: it names every component that there is ([`COMPONENTS`]) and gives the kernel a face that Rust programs
//! know ([`Process`], [`File`], [`std::io::Error`]). [`Process`] works over anything that can invoke a system call, so also over a client
//! of a remote kernel. What it does not cover is reached by [`Process::sys`] and [`abi::Syscalls`], where every call is.
//!
//! It may use every layer below the clients. Start reading at [`builder`], then [`Process`] and [`MountSpec`].
#![forbid(unsafe_code)]

mod attach;
mod firewall;
mod mount;
mod network;
mod process;
mod rtnl;
pub mod sim;
mod sockdiag;
mod sysctl;

use std::sync::Arc;

use hypercall::Host;

pub use ::module;
pub use ::module::module;
pub use abi;
pub use hypercall;
pub use kern;
pub use net;
pub use npf;
pub use pcap;
pub use veth;
pub use vfs;

pub use abi::{Errno, Invoke, Stat, Syscalls};
pub use attach::{attach, capture, capture_incoming, plug, plug_in};
pub use firewall::{FirewallRule, FirewallState};
pub use hypercall::PosixHost;
pub use kern::{Builder, Component, Config, Kernel, LwpHandle, RforkFds};
pub use mount::{EtfsKind, MountEntry, MountSpec, SpecError};
pub use network::{IfAddress, NetKind, NetSpec};
pub use process::{File, Process};
pub use rtnl::{Interface, InterfaceAddress, InterfaceChange, Neighbour, RouteEntry};
pub use sockdiag::SocketEntry;
pub use sysctl::Variable;

/// Every component of a kernel with a network of its own, each with the line that adds it: what [`builder`] boots. A kernel of fewer
/// parts takes its own list.
pub static COMPONENTS: &[&Component] = &[
    &vfs::VFS,
    &tmpfs::TMPFS,
    &procfs::PROCFS,
    &ext2fs::EXT2FS,
    &net::NET,
    &local::LOCAL,
    &packet::PACKET,
    &inet::INET,
    &netlink::NETLINK,
    &npf::NPF,
    &netloop::LOOP,
    &veth::VETH,
    &virtif::VIRTIF,
    &shmif::SHMIF,
    &bridge::BRIDGE,
    &vlan::VLAN,
];

/// The components of a kernel whose network is its host's: what [`sockin_builder`] boots. There is no place for `inet` and what
/// stands on it.
pub static SOCKIN_COMPONENTS: &[&Component] = &[
    &vfs::VFS,
    &tmpfs::TMPFS,
    &ext2fs::EXT2FS,
    &net::NET,
    &local::LOCAL,
    &sockin::SOCKIN,
];

/// Describes a kernel on this Linux process, with every component and the settings that the environment gives (`RUMP_NCPU` and so on,
/// see [`Config`]); `boot` makes it.
pub fn builder() -> Builder {
    builder_on(PosixHost::new())
}

/// The same on another host: a simulated one, or one with parameters of its own.
pub fn builder_on(host: Arc<dyn Host>) -> Builder {
    of(COMPONENTS, host)
}

/// As [`builder`], with the host's sockets for a network (`sockin`): descriptors are the kernel's, addresses and connections the
/// host's.
pub fn sockin_builder() -> Builder {
    sockin_builder_on(PosixHost::new())
}

/// The same on another host.
pub fn sockin_builder_on(host: Arc<dyn Host>) -> Builder {
    of(SOCKIN_COMPONENTS, host)
}

fn of(components: &[&'static Component], host: Arc<dyn Host>) -> Builder {
    let bare = Kernel::builder(host);
    components.iter().fold(bare, |b, c| b.component(c))
}

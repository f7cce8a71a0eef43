//! The net faction: sockets, and the domains behind them.
//!
//! A [`Socket`] is what a descriptor stands for: the options that every socket has, and a [`Protocol`] that does the
//! work. Protocols come from a [`Domain`] (the address family), which a component registers with [`Net::register`].
//! The system calls on sockets are here; what they mean for TCP or for a local socket is in components/net.
//!
//! An [`Ifnet`] is an interface: a [`Driver`] (components/netif) is below it, a [`NetworkLayer`] above, and [`Packet`]s go
//! through it both ways.
//!
//! It may use kern and what is below it, and knows neither the vfs (names in the file system come through
//! [`kern::hooks::SocketNames`]) nor any domain. Start reading at [`Protocol`], then [`Socket`].
#![forbid(unsafe_code)]

mod addr;
mod checksum;
mod cloner;
mod coalesce;
mod common;
pub mod consts;
mod control;
mod domain;
pub mod filter;
mod frame;
mod ifioctl;
mod ifnet;
mod interfaces;
mod message;
mod offload;
mod packet;
mod protocol;
mod receiver;
mod report;
mod seldom;
mod socket;
mod sockopt;
mod syscalls;
mod wire;

pub use addr::{ADDR_MAX, Addr};
pub use checksum::InternetSum;
pub use cloner::{Cloner, IfError, Params, interface_component, parse_address, random_address};
pub use coalesce::coalesce;
pub use common::{Common, DEFAULT_BUF, MAX_BUF, Rare, Wait};
pub use control::{Control, Credentials};
pub use domain::{Domain, Net, SocketEntry};
pub use frame::ETHER_HEADER;
pub use ifioctl::named as interface_of_request;
pub use ifnet::{
    Config, Direction, Driver, EtherAddr, Features, HEIGHT_MAX, Ifnet, LinkType, Master, Stats,
    Tap, Trunk,
};
pub use interfaces::{Interfaces, LinkEvent, LinkListener, NAME_MAX, NetworkLayer};
pub use offload::{Segments, checksum_holds, complete_checksum, segment, segment_len};
pub use packet::{Checksum, Cut, Gso, Packet};
pub use protocol::{Accepted, Incoming, Kind, Outgoing, Protocol, Received, Shutdown};
pub use receiver::{Receiver, Source};
pub use seldom::Seldom;
pub use socket::Socket;
pub use sockopt::{OptValue, int_option};

use kern::{Component, Stage};

/// The faction itself, for the list of components.
pub static NET: Component = Component {
    name: "net",
    stage: Stage::FactionNet,
    requires: &[],
    init: Net::attach,
};

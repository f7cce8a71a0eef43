//! Hypercalls: what a kernel asks of its host, and nothing else it may touch.
//!
//! The [`Host`] trait is the whole border between a kernel and the machine it runs on: threads, waiting and
//! waking, clocks, memory, backing files, randomness, parameters, the console, and the end. [`PosixHost`]
//! serves it on Linux, [`sim::SimHost`] in virtual time with a seeded scheduler and faulty disks. Everything above
//! this crate names only the trait.
//!
//! This crate may use libc and unsafe code: it is where the kernel's safe world meets the host's.
//!
//! Start reading at [`Host`].

mod filtered;
mod host;
mod mapping;
mod posix;
pub mod sim;
mod socket;
mod wire;

pub use filtered::FilteredHost;
pub use posix::PosixHost;
#[cfg(feature = "fuzz")]
pub use posix::wire::{fuzz_stream, fuzz_vnet};

pub use host::{
    BackingFile, BlockOp, BlockRequest, Clock, Completion, DirEntry, FileInfo, FileKind, Host,
    JoinHandle, Nanos, OpenMode, Signal, ThreadBody, WakeReason,
};
pub use mapping::{Mapping, Region};
pub use socket::{
    HostSocket, SocketControl, SocketData, SocketFamily, SocketKind, SocketMessage, SocketQueue,
    Sockets,
};
pub use wire::{InFrame, Offload, OutFrame, Wire, WireCut, WireInfo, WireSpec};

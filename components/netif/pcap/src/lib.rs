//! Captures of interfaces to pcapng files, which tshark(1) and others read.
//!
//! A [`Capture`] is a [`Tap`](net::Tap) on any number of interfaces. The stack only queues references to packets, bounded, and never waits: when
//! the file is too slow, packets are missing in it and counted. A kernel thread writes. Checksums that were left to the wire are completed
//! on the way into the file; packets to be cut appear whole.
//!
//! It may use the net faction and what is below it. Start reading at `capture`.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::disallowed_methods, clippy::disallowed_types))]

mod capture;
mod format;
mod queue;
#[cfg(test)]
mod tests;

pub use capture::{Capture, Summary};

/// Bytes of each packet that are written unless told otherwise: all.
pub const SNAPLEN: u32 = 262_144;

//! Bytes on the wire: the header, its options, its checksum.

pub mod checksum;
mod options;
mod segment;

pub use options::{Cookie, Options, SackBlocks, Timestamps};
pub use segment::{Ecn, Flags, Malformed, Payload, Segment};

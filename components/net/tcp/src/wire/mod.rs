//! Bytes on the wire: the header and its options. The checksum is the owner's, who has the addresses.

mod options;
mod segment;

pub use options::{Cookie, Options, SackBlocks, Timestamps};
pub use segment::{Ecn, Flags, Malformed, Payload, Segment};

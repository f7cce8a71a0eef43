//! A packet filter: rules in a small language, connections that are tracked, addresses that are translated.
//!
//! It hangs in the five points that the stack has for filters (`inet::Filter`) and knows nothing else of its inside. Rules are loaded by
//! [`Npf::load`], or by writing a text of them to `/dev/npf` (`device`); [`lang`] has the language. A kernel without rules has nothing in
//! the points, so that its packets meet nobody.
//!
//! Rules are read without a lock, as they are swapped whole. The connections' table has a lock a bucket, each a leaf: packets come in
//! software interrupts (see inet).
//!
//! It may use the factions net and vfs (for the device; a kernel without a vfs has none), inet, and what is below. Start reading at
//! [`lang`], then `firewall`, then `state` and `track`.
#![forbid(unsafe_code)]

mod device;
mod firewall;
#[cfg(any(test, feature = "fuzz"))]
#[allow(unreachable_pub, reason = "public for the fuzz targets alone")]
mod fuzz;
pub mod lang;
mod log;
mod nat;
mod npf;
mod report;
mod rules;
mod state;
#[cfg(test)]
mod tests;
mod track;
mod wire;

#[cfg(feature = "fuzz")]
pub use fuzz::{fuzz_packets, fuzz_rules};
pub use npf::Npf;

use kern::{Component, Stage};

/// The component, for the list of components.
pub static NPF: Component = Component {
    name: "npf",
    stage: Stage::Net,
    requires: &["inet"],
    init: npf::attach,
};

//! Whoever is on a link may send what he likes and as much as he likes: what it makes a kernel keep has bounds, each a number of bytes
//! here, and those who behave go on being served. Memory is counted by the allocator; time is the simulated host's.
//!
//! `link.rs` has the attacked kernel and the cable, `frames.rs` what an attacker sends.

#[path = "../common/mod.rs"]
mod common;
mod errors;
mod fragments;
mod frames;
mod link;
mod memory_use;
mod neighbours;
mod sockets;

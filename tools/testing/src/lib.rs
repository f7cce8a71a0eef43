//! What tests of the kernel share.
//!
//! The body of a test that does not care for its host is written once: [`Setup::run`] runs it on the simulated host, once for
//! each of a thousand seeds, and some times on the host that is a Linux process. The body gets a [`Testbed`]: a booted kernel,
//! its host, threads that are joined, and numbers to draw.
//!
//! [`FaultyHost`] is a Linux process whose disks fail when they are told to. [`Memory`] is what calls point into that take
//! structures with pointers.
//!
//! It may use `kern` and what is below; a test that wants factions and components gives them to the setup. Start reading at
//! [`Setup`].

#![forbid(unsafe_code)]

mod dice;
mod faulty;
mod memory;
mod setup;
pub mod sockets;
mod testbed;

pub use dice::Dice;
pub use faulty::{Faults, FaultyHost};
pub use memory::Memory;
pub use setup::{SEEDS, Setup, on_both_hosts};
pub use testbed::{Testbed, Thread, program};

//! Virtual CPUs, and the locks and per-CPU cells that stand on them.
//!
//! A host thread runs kernel code only while it holds a virtual CPU. That is a value here: [`Cpu`], made by
//! [`Cpus::schedule`] and given up when dropped or for the time of [`Cpu::unscheduled`]. Everything in this
//! crate that may block takes a [`Parker`]: with a [`Cpu`] the wait gives the virtual CPU to others, with
//! [`OffCpu`] (host threads outside the kernel, such as I/O completions) it just waits.
//!
//! The uncontended paths are inline atomics; only a contended one makes a hypercall.
//!
//! Besides `hypercall` this is the only crate below the frontends with unsafe code: a lock must hand out `&mut`
//! to what it guards, and a per-CPU cell must do so without a lock. Each block says why that holds.
//!
//! The memory orderings are checked by models in `models`, with loom:
//! `RUSTFLAGS="--cfg loom" cargo test --release -p rumpkit-sync --target-dir target/loom`, which `cargo xtask test` does too.
//!
//! It may use `abi` and `hypercall`. Start reading at [`Cpus`], then [`Mutex`], [`Condvar`] and [`PerCpu`].

#![cfg_attr(test, allow(clippy::disallowed_methods, clippy::disallowed_types))]

mod condvar;
mod cpu;
mod host;
mod lockdebug;
#[cfg(all(test, loom))]
mod models;
mod mutex;
#[cfg(not(loom))]
mod once;
mod parker;
mod percpu;
mod rwlock;
mod sleeper;
mod sleepq;

pub use condvar::Condvar;
pub use cpu::{Cpu, Cpus, MAX_CPUS, OnBlock, PendingHook};
pub use mutex::{Mutex, MutexGuard};
#[cfg(not(loom))]
pub use once::Once;
pub use parker::{OffCpu, Parker};
pub use percpu::PerCpu;
pub use rwlock::{ReadGuard, RwLock, WriteGuard};
pub use sleeper::{Sleeper, Wake};
pub use sleepq::SleepQueues;

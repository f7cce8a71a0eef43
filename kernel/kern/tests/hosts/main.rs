//! The kernel proper on both hosts: on the simulated one every switch is drawn from a seed, over many seeds.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // tests are on the host's side

mod descriptors;
mod locks;
mod machinery;
mod modules;
mod processes;
mod readiness;
mod run;
mod sleeping;

use abi::Syscalls;
use kern::LwpHandle;

/// The two descriptors of a new pipe.
fn pipe(lwp: &LwpHandle, flags: i32) -> (i32, i32) {
    let mut both = [0; 8];
    lwp.pipe2(&mut both, flags).expect("a pipe");
    let [r, w] = [0, 4].map(|at| i32::from_le_bytes(both[at..at + 4].try_into().expect("4 bytes")));
    (r, w)
}

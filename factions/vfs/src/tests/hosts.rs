//! Many at once, on both hosts: on the simulated one every switch is drawn from a seed, and a deadlock is a failure.

mod ending;
mod etfs;
mod locks;
mod memory;
mod tree;

use std::sync::Arc;

use kern::KernelMemory;
use testing::{Dice, Setup, Testbed};

use super::{c, names, open, stat, touch};

/// A kernel with the faction, and with a file system that keeps its pages and names in the caches.
fn with_vfs(setup: Setup, body: impl Fn(&Arc<Testbed>) + Send + Sync + 'static) {
    setup.component(&crate::VFS).run(move |bed| {
        bed.kernel().implicit(&KernelMemory, |cx| {
            let vfs = crate::Vfs::of(cx).expect("vfs");
            vfs.register(cx, &crate::rumpfs::CACHED)
                .expect("registered");
        });
        body(bed);
    });
}

/// The numbers of one user in one run.
fn dice(bed: &Testbed, user: usize) -> Dice {
    Dice::new(bed.seed() * 16 + user as u64)
}

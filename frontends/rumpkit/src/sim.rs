//! Simulation for users: several kernels, and Rust closures as their programs, under one seed.
//!
//! A [`World`] is one simulated host. Programs are closures that get a [`Process`] of a kernel; they run as coroutines,
//! and the seed decides who goes on after each hypercall, how long a disk takes, which messages a link loses. The same
//! seed gives the same run, so a failure that [`search`] finds can be looked at again and again.
//!
//! ```
//! use rumpkit::sim;
//!
//! let found = sim::search(0..100, |world| {
//!     let kernel = world.kernel()?;
//!     for name in ["a", "b"] {
//!         world.program(&kernel, name, |process| {
//!             process.create("/tmp/who").expect("created");
//!         })?;
//!     }
//!     world.join_all();
//!     assert!(kernel.phase() == rumpkit::kern::boot::Phase::Running);
//!     Ok(())
//! });
//! assert!(found.is_none(), "{found:?}");
//! ```

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use hypercall::sim::{Failure, Run, SimConfig, SimHost};
use hypercall::{Host, JoinHandle};
use kern::Kernel;

pub use hypercall::sim;
pub use hypercall::sim::{Faults, LinkConfig, LinkEnd, SimFile};

use crate::{Process, builder_on};

/// A simulated host with its kernels and programs, in one run.
pub struct World {
    host: Arc<SimHost>,
    programs: Mutex<Vec<Box<dyn JoinHandle>>>,
}

impl World {
    /// The simulated host: its clock, its files, its chance.
    pub fn host(&self) -> &Arc<SimHost> {
        &self.host
    }

    /// Boots a kernel with every component.
    pub fn kernel(&self) -> io::Result<Arc<Kernel>> {
        builder_on(self.host.clone())
            .boot()
            .map_err(|errno| io::Error::from_raw_os_error(errno.0))
    }

    /// Starts a program: a closure with a process of its own in a kernel.
    pub fn program(
        &self,
        kernel: &Arc<Kernel>,
        name: &str,
        body: impl FnOnce(&Process) + Send + 'static,
    ) -> io::Result<()> {
        let process = Process::new(kernel)?;
        let thread = self.host.spawn(name, Box::new(move || body(&process)));
        let thread = thread.map_err(|errno| io::Error::from_raw_os_error(errno.0))?;
        self.programs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(thread);
        Ok(())
    }

    /// A link between two programs, as its ends.
    pub fn link(&self, config: LinkConfig) -> (LinkEnd, LinkEnd) {
        self.host.link(config)
    }

    /// A number below `bound` by the run's chance.
    pub fn draw(&self, bound: u64) -> u64 {
        self.host.draw(bound)
    }

    /// Waits until every program that was started has ended.
    pub fn join_all(&self) {
        loop {
            let thread = self
                .programs
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop();
            match thread {
                Some(thread) => thread.join(),
                None => return,
            }
        }
    }
}

/// Runs a scenario under a seed.
pub fn run<R: Send + 'static>(
    seed: u64,
    scenario: impl FnOnce(&World) -> R + Send + 'static,
) -> Run<R> {
    run_with(SimConfig::new(seed), scenario)
}

/// Runs a scenario as configured: seed, processors, parameters of the host, trace.
pub fn run_with<R: Send + 'static>(
    config: SimConfig,
    scenario: impl FnOnce(&World) -> R + Send + 'static,
) -> Run<R> {
    SimHost::run(config, move |host| {
        let world = World {
            host: host.clone(),
            programs: Mutex::default(),
        };
        scenario(&world)
    })
}

/// What [`search`] found: the seed under which the scenario fails, to be run again, and how.
#[derive(Debug)]
pub struct Found {
    /// Run the scenario with it to see the failure again.
    pub seed: u64,
    /// A panic, an error, a deadlock.
    pub failure: Failed,
}

/// How a scenario failed.
#[derive(Debug)]
pub enum Failed {
    /// The scenario answered an error.
    Error(io::Error),
    /// A panic, a deadlock, an exit.
    Run(Failure),
}

/// Runs a scenario under one seed after the other until it fails. A failed assertion in a program counts.
pub fn search(
    seeds: impl IntoIterator<Item = u64>,
    scenario: impl Fn(&World) -> io::Result<()> + Send + Sync + 'static,
) -> Option<Found> {
    let scenario = Arc::new(scenario);
    seeds.into_iter().find_map(|seed| {
        let scenario = scenario.clone();
        let failure = match run(seed, move |world| scenario(world)).result {
            Ok(Ok(())) => return None,
            Ok(Err(error)) => Failed::Error(error),
            Err(failure) => Failed::Run(failure),
        };
        Some(Found { seed, failure })
    })
}

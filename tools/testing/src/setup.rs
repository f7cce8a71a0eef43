//! How a body is run: on which kernel, how often, on which hosts.

use std::collections::BTreeMap;
use std::sync::Arc;

use hypercall::sim::{Run, SimConfig, SimHost};
use hypercall::{Host, PosixHost};
use kern::Kernel;
use kern::component::Component;

use crate::Testbed;

/// Seeds on the simulated host, unless a test asks for another number.
pub const SEEDS: u64 = 1000;
/// Rounds on the host that is a Linux process.
const ROUNDS: u64 = 20;

/// What kernel a body gets and how often it is run.
///
/// The number of virtual CPUs goes from one to three with the seeds, unless `RUMP_NCPU` is given.
#[derive(Clone)]
pub struct Setup {
    params: BTreeMap<String, String>,
    components: Vec<&'static Component>,
    seeds: u64,
    rounds: u64,
}

/// [`Setup::run`] with nothing special.
pub fn on_both_hosts(body: impl Fn(&Arc<Testbed>) + Send + Sync + 'static) {
    Setup::new().run(body);
}

impl Default for Setup {
    fn default() -> Self {
        Setup::new()
    }
}

impl Setup {
    /// The bare kernel, [`SEEDS`] seeds.
    pub fn new() -> Setup {
        Setup {
            params: BTreeMap::new(),
            components: Vec::new(),
            seeds: SEEDS,
            rounds: ROUNDS,
        }
    }

    /// Sets a parameter of the host.
    #[must_use]
    pub fn param(mut self, name: &str, value: &str) -> Setup {
        self.params.insert(name.into(), value.into());
        self
    }

    /// Adds a component to the kernel.
    #[must_use]
    pub fn component(mut self, component: &'static Component) -> Setup {
        self.components.push(component);
        self
    }

    /// Adds components to the kernel.
    #[must_use]
    pub fn components(mut self, components: &[&'static Component]) -> Setup {
        self.components.extend(components);
        self
    }

    /// Runs that many seeds on the simulated host, and an accordingly smaller number of rounds on the other.
    #[must_use]
    pub fn seeds(mut self, seeds: u64) -> Setup {
        self.seeds = seeds;
        self.rounds = (seeds / 50).clamp(1, ROUNDS);
        self
    }

    /// Runs the body on the simulated host and on the one that is a Linux process.
    pub fn run(self, body: impl Fn(&Arc<Testbed>) + Send + Sync + 'static) {
        let body = Arc::new(body);
        self.on_sim(body.clone());
        self.on_posix(&*body);
    }

    /// Runs the body on the simulated host alone, for what shows only there: virtual time, deadlocks, disks that lose
    /// what was not synced.
    pub fn run_sim(self, body: impl Fn(&Arc<Testbed>) + Send + Sync + 'static) {
        self.on_sim(Arc::new(body));
    }

    fn on_sim(&self, body: Arc<impl Fn(&Arc<Testbed>) + Send + Sync + 'static>) {
        for seed in 0..self.seeds {
            let body = body.clone();
            let run = self.sim(SimConfig::new(seed), move |bed| body(bed));
            if let Err(failure) = run.result {
                panic!(
                    "seed {seed}: {failure:?}\n{}",
                    String::from_utf8_lossy(&run.console)
                );
            }
            assert!(
                run.leftover.is_empty(),
                "seed {seed} leaves {:?}",
                run.leftover
            );
        }
    }

    /// One run on the simulated host, for who wants to look at it.
    pub fn sim<R: Send + 'static>(
        &self,
        mut config: SimConfig,
        body: impl FnOnce(&Arc<Testbed>) -> R + Send + 'static,
    ) -> Run<R> {
        let seed = config.seed;
        config.params = self.params(seed);
        let components = self.components.clone();
        SimHost::run(config, move |host| {
            let kernel = boot(host.clone(), &components);
            let bed = Testbed::simulated(seed, host.clone(), kernel);
            let result = body(&bed);
            bed.kernel().shutdown(true).expect("halts");
            result
        })
    }

    fn on_posix(&self, body: &(impl Fn(&Arc<Testbed>) + Send + Sync + 'static)) {
        for round in 0..self.rounds {
            let named = Named(round);
            let host = PosixHost::with_params(self.params(round));
            let kernel = boot(host.clone(), &self.components);
            let bed = Testbed::posix(round, host, kernel);
            body(&bed);
            bed.kernel().shutdown(true).expect("halts");
            std::mem::forget(named);
        }
    }

    fn params(&self, seed: u64) -> BTreeMap<String, String> {
        let mut params = self.params.clone();
        params
            .entry("RUMP_NCPU".into())
            .or_insert_with(|| (1 + seed % 3).to_string());
        params
    }
}

/// Dropped when a round fails; says which.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        eprintln!(
            "this was on the host that is a Linux process, round {}",
            self.0
        );
    }
}

fn boot(host: Arc<dyn Host>, components: &[&'static Component]) -> Arc<Kernel> {
    components
        .iter()
        .fold(Kernel::builder(host), |builder, component| {
            builder.component(component)
        })
        .boot()
        .expect("boots")
}

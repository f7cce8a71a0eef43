//! Kernels on the simulated host, over many seeds.
#![allow(dead_code)] // each test file uses a part

use std::sync::Arc;

use hypercall::Host;
use hypercall::sim::{Run, SimConfig, SimHost};
use kern::{Kernel, LwpHandle, RforkFds};

/// Boots a kernel with so many virtual CPUs and runs `f` on it.
pub(crate) fn with_kernel<R: Send + 'static>(
    seed: u64,
    ncpu: usize,
    f: impl FnOnce(&Arc<SimHost>, &Arc<Kernel>) -> R + Send + 'static,
) -> Run<R> {
    let config = SimConfig::new(seed).param("RUMP_NCPU", &ncpu.to_string());
    SimHost::run(config, move |host| {
        let as_host: Arc<dyn Host> = host.clone();
        let kernel = Kernel::builder(as_host).boot().expect("boots");
        let result = f(host, &kernel);
        kernel.shutdown(true).expect("halts");
        result
    })
}

/// Runs `body` as an lwp of its own process on each of `count` threads, and waits for all.
pub(crate) fn on_threads(
    host: &Arc<SimHost>,
    kernel: &Arc<Kernel>,
    count: usize,
    body: impl Fn(usize, &LwpHandle) + Send + Sync + 'static,
) {
    let make = |kernel: &Arc<Kernel>| kernel.rfork(RforkFds::Clear);
    run_threads(host, kernel, count, make, body);
}

/// The same with all threads in one process.
pub(crate) fn in_process(
    host: &Arc<SimHost>,
    kernel: &Arc<Kernel>,
    pid: i32,
    count: usize,
    body: impl Fn(usize, &LwpHandle) + Send + Sync + 'static,
) {
    let make = move |kernel: &Arc<Kernel>| kernel.newlwp(pid);
    run_threads(host, kernel, count, make, body);
}

fn run_threads(
    host: &Arc<SimHost>,
    kernel: &Arc<Kernel>,
    count: usize,
    make: impl Fn(&Arc<Kernel>) -> Result<LwpHandle, abi::Errno> + Copy + Send + 'static,
    body: impl Fn(usize, &LwpHandle) + Send + Sync + 'static,
) {
    let body = Arc::new(body);
    let threads: Vec<_> = (0..count)
        .map(|i| {
            let (kernel, body) = (kernel.clone(), body.clone());
            let run = move || body(i, &make(&kernel).expect("an lwp"));
            host.spawn(&format!("user{i}"), Box::new(run))
                .expect("a thread")
        })
        .collect();
    threads.into_iter().for_each(|t| t.join());
}

/// Runs each of so many seeds, and tells which one fails.
pub(crate) fn over_seeds<R: Send + 'static>(seeds: u64, make: impl Fn(u64) -> Run<R>) {
    for seed in 0..seeds {
        let run = make(seed);
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

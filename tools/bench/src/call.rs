//! The bare call: into the kernel and out again.

use std::hint::black_box;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Instant;

use abi::{Invoke, Syscalls, nr};
use anyhow::{Result, anyhow};
use kern::{Kernel, KernelMemory, RforkFds};
use rumpkit::PosixHost;

use crate::figure::{Output, Target};
use crate::host::HostKernel;
use crate::measure::Effort;

pub(crate) fn run(effort: &Effort, output: &mut Output) -> Result<()> {
    let kernel = Kernel::builder(PosixHost::new())
        .boot()
        .map_err(|e| anyhow!("boot: {e}"))?;
    let lwp = kernel
        .rfork(RforkFds::Clear)
        .map_err(|e| anyhow!("rfork: {e}"))?;
    if output.wants("call.null_ns") {
        let (ours, host) = effort.compare(|| null(&lwp), || null(&HostKernel));
        output.figure("call.null_ns", ours, Some(host), Target::Most(20.0));
    }
    if output.wants("call.null_implicit_ns") {
        let implicit = || {
            let answer = kernel.implicit(&KernelMemory, |cx| cx.syscall(nr::getppid, &[0; 6]));
            let _ = black_box(answer);
        };
        let (ours, host) = effort.compare(implicit, || null(&HostKernel));
        output.figure(
            "call.null_implicit_ns",
            ours,
            Some(host),
            Target::Most(100.0),
        );
    }
    if output.wants("call.scaling_2cpu") {
        scaling(effort, output, &kernel)?;
    }
    Ok(())
}

/// getppid, which no libc answers from memory.
#[inline]
fn null(sys: &impl Invoke) {
    let _ = black_box(sys.getppid());
}

/// Throughput of two threads on two virtual CPUs over that of one.
fn scaling(effort: &Effort, output: &mut Output, kernel: &Arc<Kernel>) -> Result<()> {
    let calls = effort.pick(2_000_000, 20_000);
    let ours = |threads| {
        together(threads, || {
            let lwp = kernel
                .rfork(RforkFds::Clear)
                .map_err(|e| anyhow!("rfork: {e}"))?;
            Ok(move || (0..calls).for_each(|_| null(&lwp)))
        })
    };
    let host = |threads| {
        together(threads, || {
            Ok(move || (0..calls / 4).for_each(|_| null(&HostKernel)))
        })
    };
    let (ours, host) = effort.samples(
        || anyhow::Ok(2.0 * ours(1)? / ours(2)?),
        || anyhow::Ok(2.0 * host(1)? / host(2)?),
    )?;
    output.figure("call.scaling_2cpu", ours, Some(host), Target::Least(1.9));
    Ok(())
}

/// Seconds that so many threads take for the work that `prepare` gives each, begun together.
fn together<W: FnOnce()>(threads: usize, prepare: impl Fn() -> Result<W> + Sync) -> Result<f64> {
    let begin = Barrier::new(threads);
    thread::scope(|scope| {
        let worker = || -> Result<f64> {
            let work = prepare()?;
            begin.wait();
            let began = Instant::now();
            work();
            Ok(began.elapsed().as_secs_f64())
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        let mut longest = 0f64;
        for worker in workers {
            let took = worker.join().map_err(|_| anyhow!("a worker panicked"))??;
            longest = longest.max(took);
        }
        Ok(longest)
    })
}

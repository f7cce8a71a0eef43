//! The bare call: into the kernel and out again.

use std::hint::black_box;
use std::sync::{Arc, Mutex, PoisonError};

use abi::{Invoke, Syscalls, nr};
use anyhow::{Result, anyhow};
use kern::{Kernel, KernelMemory, RforkFds};
use rumpkit::PosixHost;

use crate::figure::{Output, Target};
use crate::host::HostKernel;
use crate::measure::Effort;
use crate::pair;

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
    if output.wants_any(&["call.scaling_"]) {
        scaling(effort, output, &kernel)?;
    }
    Ok(())
}

/// getppid, which no libc answers from memory.
#[inline]
fn null(sys: &impl Invoke) {
    let _ = black_box(sys.getppid());
}

/// Throughput of two threads on two virtual CPUs over that of one. Beside it: two threads of which each has a kernel of its own and
/// which so share nothing but the machine.
fn scaling(effort: &Effort, output: &mut Output, kernel: &Arc<Kernel>) -> Result<()> {
    let calls = effort.pick(50_000, 2_000);
    let another = Kernel::builder(PosixHost::new())
        .boot()
        .map_err(|e| anyhow!("boot: {e}"))?;
    let lwp = |kernel: &Arc<Kernel>| {
        let made = kernel.rfork(RforkFds::Clear);
        made.map_err(|e| anyhow!("rfork: {e}"))
    };
    // An lwp belongs to one thread at a time.
    let mine = lwp(kernel)?;
    let its = Mutex::new((lwp(kernel)?, lwp(&another)?));
    let ours = || (0..calls).for_each(|_| null(&mine));
    let host = || (0..calls / 8).for_each(|_| null(&HostKernel));
    let with = || {
        let its = its.lock().unwrap_or_else(PoisonError::into_inner);
        (0..calls).for_each(|_| null(&its.0));
    };
    let apart = || {
        let its = its.lock().unwrap_or_else(PoisonError::into_inner);
        (0..calls).for_each(|_| null(&its.1));
    };
    let least = pair::on_two_cpus(&[&|| (), &with, &apart, &host], |pair| {
        effort.least_of([
            &mut || pair.time(0, ours),
            &mut || pair.time(1, ours),
            &mut || pair.time(2, ours),
            &mut || pair.time(0, host),
            &mut || pair.time(3, host),
        ])
    })?;
    if let Some([alone, with, apart, host, both]) = least {
        let host = 2.0 * host / both;
        let ours = |together| 2.0 * alone / together;
        output.figure(
            "call.scaling_2cpu",
            ours(with),
            Some(host),
            Target::Least(1.9),
        );
        output.figure("call.scaling_kernels_2cpu", ours(apart), None, Target::None);
    }
    Ok(())
}

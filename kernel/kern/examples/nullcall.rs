//! What a null system call costs, what two threads get of two virtual CPUs, and how long a boot takes.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // measures on the host

use std::sync::Barrier;
use std::time::{Duration, Instant};

use abi::Syscalls;
use hypercall::PosixHost;
use kern::{Kernel, KernelMemory, RforkFds};

const CALLS: u32 = 200_000;
const ROUNDS: usize = 60;

/// Processor time of this thread: other work on the machine does not count in it.
fn cpu_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// The best of several rounds, in nanoseconds for one of `n`.
fn best(n: u32, mut round: impl FnMut() -> Duration) -> f64 {
    let times = (0..ROUNDS).map(|_| round().as_nanos() as f64 / f64::from(n));
    times.fold(f64::INFINITY, f64::min)
}

fn main() {
    let boot = || {
        Kernel::builder(PosixHost::with_params([("RUMP_NCPU", "2")]))
            .boot()
            .expect("boots")
    };
    let start = Instant::now();
    let kernel = boot();
    println!(
        "boot.kern_first_us {:.1}",
        start.elapsed().as_nanos() as f64 / 1e3
    );
    let boots = best(100, || {
        let start = Instant::now();
        for _ in 0..100 {
            let k = boot();
            k.shutdown(true).expect("halts");
        }
        start.elapsed()
    });
    println!("boot.kern_halt_us {:.1}", boots / 1e3);

    let lwp = kernel.rfork(RforkFds::Clear).expect("a process");
    let calls = |lwp: &kern::LwpHandle| {
        let start = cpu_time();
        for _ in 0..CALLS {
            std::hint::black_box(lwp.getpid()).expect("a pid");
        }
        cpu_time() - start
    };
    println!("call.null_ns {:.1}", best(CALLS, || calls(&lwp)));
    let implicit = best(CALLS, || {
        let start = cpu_time();
        for _ in 0..CALLS {
            kernel
                .implicit(&KernelMemory, |cx| cx.syscall(abi::nr::getpid, &[0; 6]))
                .expect("a pid");
        }
        cpu_time() - start
    });
    println!("call.null_implicit_ns {implicit:.1}");

    let one = best(CALLS, || calls(&lwp));
    let two = best(CALLS, || {
        let barrier = Barrier::new(2);
        std::thread::scope(|s| {
            let threads = [0, 1].map(|_| {
                s.spawn(|| {
                    let lwp = kernel.rfork(RforkFds::Clear).expect("a process");
                    barrier.wait();
                    calls(&lwp)
                })
            });
            let times = threads.map(|t| t.join().expect("ends"));
            times.into_iter().max().expect("two")
        })
    });
    println!("call.scaling_2cpu {:.2}", 2.0 * one / two);
}

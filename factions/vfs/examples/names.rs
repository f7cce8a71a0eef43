//! What single calls on names cost in-process, on tmpfs: `cargo run --release -p rumpkit-vfs --example names [NAME]`.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // measures with the host's clock

use std::ffi::CString;
use std::time::Instant;

use abi::*;
use hypercall::PosixHost;
use kern::{Kernel, LwpHandle, RforkFds};

/// Prints the best of many short rounds, in nanoseconds a call: whatever else runs on the machine disturbs some, not all.
fn figure(name: &str, calls: u32, mut call: impl FnMut(u32)) {
    const ROUNDS: u32 = 200;
    let calls = calls / ROUNDS;
    if std::env::args().nth(1).is_some_and(|wanted| wanted != name) {
        return;
    }
    let best = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            (0..calls).for_each(&mut call);
            start.elapsed().as_nanos() as f64 / f64::from(calls)
        })
        .fold(f64::INFINITY, f64::min);
    println!("{name:24} {best:8.1} ns");
}

fn must(result: SysResult) -> i64 {
    result.expect("the call works")
}

fn main() {
    let host = PosixHost::with_params([("RUMP_NCPU", "2")]);
    let kernel = Kernel::builder(host)
        .component(&vfs::VFS)
        .component(&tmpfs::TMPFS)
        .boot()
        .expect("a kernel");
    let lwp: LwpHandle = kernel.rfork(RforkFds::Clear).expect("a process");
    must(lwp.mkdir(c"/t", 0o755));
    must(lwp.mount(c"none", c"/t", c"tmpfs", 0, c""));
    must(lwp.mkdir(c"/t/d", 0o755));
    let fd = must(lwp.open(c"/t/f", O_CREAT | O_RDWR, 0o644)) as i32;
    must(lwp.write(fd, &[7; 4096], 4096));
    let mut stat = [0; Stat::SIZE];
    let mut page = [0; 4096];

    figure("getpid", 2_000_000, |_| {
        must(lwp.getpid());
    });
    figure("fstat", 1_000_000, |_| {
        must(lwp.fstat(fd, &mut stat));
    });
    figure("pread 1", 1_000_000, |_| {
        must(lwp.pread64(fd, &mut page, 1, 0));
    });
    figure("pread 4096", 500_000, |_| {
        must(lwp.pread64(fd, &mut page, 4096, 0));
    });
    figure("pwrite 4096", 500_000, |_| {
        must(lwp.pwrite64(fd, &page, 4096, 0));
    });
    figure("stat /t/f", 500_000, |_| {
        must(lwp.stat(c"/t/f", &mut stat));
    });
    figure("stat missing", 500_000, |_| {
        assert!(lwp.stat(c"/t/none", &mut stat).is_err())
    });
    figure("open+close", 300_000, |_| {
        let fd = must(lwp.open(c"/t/f", O_RDONLY, 0)) as i32;
        must(lwp.close(fd));
    });
    figure("create+close+unlink", 100_000, |_| {
        let fd = must(lwp.open(c"/t/new", O_CREAT | O_RDWR, 0o644)) as i32;
        must(lwp.close(fd));
        must(lwp.unlink(c"/t/new"));
    });
    let names: Vec<CString> = (0..10_000)
        .map(|i| CString::new(format!("/t/d/file{i}")).expect("no NUL"))
        .collect();
    let mut creating = f64::INFINITY;
    for _ in 0..5 {
        let start = Instant::now();
        for name in &names {
            let fd = must(lwp.open(name, O_CREAT | O_WRONLY, 0o644)) as i32;
            must(lwp.close(fd));
        }
        creating = creating.min(start.elapsed().as_secs_f64());
        for name in &names {
            must(lwp.unlink(name));
        }
    }
    println!("{:24} {:8.0} /s", "10,000 creates", 10_000.0 / creating);
}

//! What a call costs beside 10, 1,000 and 100,000 idle things: it should not grow.
//!
//! The call is the same in all figures: open, fstat and close of one file.

use std::ffi::CString;
use std::hint::black_box;
use std::sync::Arc;

use abi::{AT_FDCWD, O_CREAT, O_RDWR, Rlimit, Stat, SysResult, Syscalls};
use anyhow::{Result, anyhow};
use kern::{Kernel, LwpHandle, RforkFds};
use rumpkit::{MountSpec, Process};

use crate::figure::{Output, Target};
use crate::measure::Effort;

const RLIMIT_NOFILE: i32 = 7;
/// How much dearer a call may be than beside ten, before we say that it grows.
const TOLERANCE: f64 = 1.3;

/// Makes this many idle things; they last as long as what it answers.
type Fill = fn(&Arc<Kernel>, &Process, usize) -> Result<Vec<LwpHandle>>;

const KINDS: [(&str, Fill); 4] = [
    ("fds", descriptors),
    ("procs", processes),
    ("mounts", mounts),
    ("files", cached_files),
];

pub(crate) fn run(effort: &Effort, output: &mut Output) -> Result<()> {
    for (kind, fill) in KINDS {
        let mut few = None;
        for count in effort.pick([10, 1_000, 100_000], [10, 100, 1_000]) {
            let name = format!("scale.{kind}_{count}_ns");
            if output.wants(&name) {
                let ns = sample(effort, fill, count).map_err(|e| e.context(name.clone()))?;
                let target = few.map_or(Target::None, |ns| Target::Most(TOLERANCE * ns));
                few.get_or_insert(ns);
                output.figure(&name, ns, None, target);
            }
        }
    }
    Ok(())
}

/// Each count on a kernel of its own.
fn sample(effort: &Effort, fill: Fill, count: usize) -> Result<f64> {
    let kernel = rumpkit::builder()
        .boot()
        .map_err(|e| anyhow!("boot: {e}"))?;
    let process = Process::new(&kernel)?;
    process.mount(&MountSpec::tmpfs("/t")?)?;
    process.write("/t/file", b"x")?;
    let limit = Rlimit {
        rlim_cur: 200_000,
        rlim_max: 200_000,
    };
    process
        .sys()
        .setrlimit(RLIMIT_NOFILE, &limit.to_bytes())
        .map_err(failed)?;
    let idle = fill(&kernel, &process, count)?;
    let ns = effort.one(|| {
        let _ = black_box(call(&process));
    });
    call(&process).map_err(failed)?;
    drop(idle);
    Ok(ns)
}

fn call(process: &Process) -> SysResult {
    let sys = process.sys();
    let mut stat = [0; Stat::SIZE];
    let fd = sys.openat(AT_FDCWD, c"/t/file", O_RDWR, 0)? as i32;
    sys.fstat(fd, &mut stat)?;
    sys.close(fd)
}

fn descriptors(_: &Arc<Kernel>, process: &Process, count: usize) -> Result<Vec<LwpHandle>> {
    let sys = process.sys();
    let fd = sys
        .openat(AT_FDCWD, c"/t/file", O_RDWR, 0)
        .map_err(failed)? as i32;
    for _ in 1..count {
        sys.dup(fd).map_err(failed)?;
    }
    Ok(Vec::new())
}

fn processes(kernel: &Arc<Kernel>, _: &Process, count: usize) -> Result<Vec<LwpHandle>> {
    (0..count)
        .map(|_| kernel.rfork(RforkFds::Clear).map_err(failed))
        .collect()
}

fn mounts(_: &Arc<Kernel>, process: &Process, count: usize) -> Result<Vec<LwpHandle>> {
    for i in 0..count {
        process.mount(&MountSpec::tmpfs(&format!("/mounts/{i}"))?)?;
    }
    Ok(Vec::new())
}

fn cached_files(_: &Arc<Kernel>, process: &Process, count: usize) -> Result<Vec<LwpHandle>> {
    let sys = process.sys();
    process.create_dir("/t/many")?;
    for i in 0..count {
        let name = CString::new(format!("/t/many/{i}"))?;
        let fd = sys
            .openat(AT_FDCWD, &name, O_RDWR | O_CREAT, 0o644)
            .map_err(failed)? as i32;
        sys.write(fd, b"cached", 6).map_err(failed)?;
        sys.close(fd).map_err(failed)?;
    }
    Ok(Vec::new())
}

fn failed(errno: abi::Errno) -> anyhow::Error {
    anyhow!("a call failed: {errno}")
}

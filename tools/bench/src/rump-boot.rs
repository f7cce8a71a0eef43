//! A process that does nothing but boot a kernel, and says how long that took and what is resident after and before. Nothing but
//! the kernel proper and the vfs is linked in, statically: what else a program carries is not theirs.

use std::process::ExitCode;
use std::time::Instant;

use hypercall::PosixHost;
use kern::Kernel;

fn main() -> ExitCode {
    let before = resident_mb();
    let began = Instant::now();
    let builder = match std::env::args().nth(1).as_deref() {
        Some("kern") => Kernel::builder(PosixHost::new()),
        Some("vfs") => Kernel::builder(PosixHost::new()).component(&vfs::VFS),
        _ => return fail("boot what? kern or vfs"),
    };
    let Ok(kernel) = builder.boot() else {
        return fail("the kernel does not boot");
    };
    let ms = began.elapsed().as_secs_f64() * 1e3;
    let (Some(before), Some(mb)) = (before, resident_mb()) else {
        return fail("/proc/self/status has no VmRSS");
    };
    println!("{ms} {mb} {before}");
    drop(kernel);
    ExitCode::SUCCESS
}

fn fail(why: &str) -> ExitCode {
    eprintln!("rump-boot: {why}");
    ExitCode::FAILURE
}

/// Memory of this process that is resident, in MB of 10^6 bytes.
fn resident_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024.0 / 1e6)
}

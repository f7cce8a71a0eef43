//! The hijack: what calls of an unmodified program cost, on a kernel's file and passed on to the host.
//!
//! The program is this one, once run plainly on the host's tmpfs and once by `rump run` on ours. It calls the standard library, which
//! calls libc, whose system calls are the ones that the shim redirects. What passing a call on costs is the difference between a
//! `syscall` of the program, which is rewritten, and one in a page of its own, which is not.

use std::collections::BTreeMap;
use std::fs::File;
use std::hint::black_box;
use std::io::{Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::children;
use crate::figure::{Output, Target};
use crate::host::{self, PlainSyscall};
use crate::measure::Effort;

pub(crate) fn run(effort: &Effort, output: &mut Output) -> Result<()> {
    let weight = effort.pick("full", "smoke");
    let dir = host::tmpfs()?;
    let plain = dir.path().to_str().context("a plain path")?;
    let host = figures(&children::output(&["hijack", plain, weight])?)?;

    let own = std::env::current_exe()?;
    let rump = own.with_file_name("rump");
    let mut command = Command::new(rump);
    command.args(["run", "--tmpfs", "/t", "--"]).arg(own);
    command.args(["--child", "hijack", "/rump/t", weight]);
    let ours = figures(&children::finished(&mut command)?)?;

    for name in ["hijack.pread4k_ns", "hijack.write16_ns"] {
        let ns = *ours.get(name).context("a figure")?;
        output.figure(name, ns, host.get(name).copied(), Target::None);
    }
    // Both from the program under the shim.
    let passed = *ours.get("hijack.passthrough_ns").context("a figure")?;
    let plain = ours.get("plain").copied();
    output.figure(
        "hijack.passthrough_ns",
        passed,
        plain,
        Target::MostOverHost(12.0),
    );
    Ok(())
}

fn figures(text: &str) -> Result<BTreeMap<String, f64>> {
    text.lines()
        .map(|line| {
            let (name, ns) = line.split_once(' ').context("a name and a number")?;
            Ok((name.to_owned(), ns.parse()?))
        })
        .collect()
}

/// In the program: prints names with nanoseconds.
pub(crate) fn child(dir: &str, smoke: bool) -> Result<()> {
    let effort = Effort::new(smoke);
    let path = Path::new(dir).join("file");
    let mut file = File::create_new(&path).with_context(|| path.display().to_string())?;
    file.write_all(&[1; 64 << 10])?;
    let mut written = 0u32;
    let write16 = effort.least_one(|| {
        written += 1;
        if written.is_multiple_of(4096) {
            let _ = black_box(file.rewind());
        }
        let _ = black_box(file.write(&[2; 16]));
    });
    println!("hijack.write16_ns {write16}");

    let file = File::open(&path)?;
    let mut buf = [0; 4096];
    file.read_exact_at(&mut buf, 8192)?;
    println!(
        "hijack.pread4k_ns {}",
        effort.least_one(|| {
            let _ = black_box(file.read_at(&mut buf, 8192));
        })
    );

    let zero = File::open("/dev/zero")?;
    let plain = PlainSyscall::new()?;
    let args = [zero.as_raw_fd() as u64, buf.as_mut_ptr() as u64, 1, 0, 0, 0];
    let calls = effort.pick(5_000, 50);
    let mut passed = || {
        each(calls, || {
            for _ in 0..calls {
                // SAFETY: one byte is read into the buffer.
                black_box(unsafe { rumpclient::raw::sys::syscall(abi::nr::pread64, args) });
            }
        })
    };
    let mut plain = || {
        each(calls, || {
            // SAFETY: as above.
            black_box(unsafe { plain.repeat(calls, abi::nr::pread64, args) });
        })
    };
    let [passed, plain] = effort.least_of([&mut passed, &mut plain]);
    println!("hijack.passthrough_ns {passed}\nplain {plain}");
    Ok(())
}

/// Nanoseconds that each of so many calls takes.
fn each(calls: u64, all: impl FnOnce()) -> f64 {
    let began = Instant::now();
    all();
    began.elapsed().as_nanos() as f64 / calls as f64
}

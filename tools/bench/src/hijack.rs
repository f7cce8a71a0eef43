//! The hijack: what calls of an unmodified program cost, on a kernel's file and passed on to the host.
//!
//! The program is this one, once run plainly on the host's tmpfs and once by `rump run` on ours. It calls the standard library, which
//! calls libc, whose system calls are the ones that the shim redirects.

use std::collections::BTreeMap;
use std::fs::File;
use std::hint::black_box;
use std::io::{Seek, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::children;
use crate::figure::{Output, Target};
use crate::host;
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

    for (name, ns) in &ours {
        output.figure(name, *ns, host.get(name).copied(), Target::None);
    }
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
    let write16 = effort.one(|| {
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
        effort.one(|| {
            let _ = black_box(file.read_at(&mut buf, 8192));
        })
    );

    let zero = File::open("/dev/zero")?;
    println!(
        "hijack.passthrough_ns {}",
        effort.one(|| {
            let _ = black_box(zero.read_at(&mut buf[..1], 0));
        })
    );
    Ok(())
}

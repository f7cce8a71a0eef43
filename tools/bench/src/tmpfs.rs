//! The memory file system: single calls, in-process, beside the host's tmpfs through its system calls.

use std::ffi::{CStr, CString};
use std::hint::black_box;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Instant;

use abi::{AT_FDCWD, Errno, Invoke, O_CREAT, O_RDWR, Stat, SysResult, Syscalls};
use anyhow::{Result, anyhow};
use rumpkit::{MountSpec, Process};

use crate::figure::{Output, Target};
use crate::host::{self, HostKernel};
use crate::measure::Effort;

/// A kernel's tmpfs, ours or the host's, with the files that the operations use.
struct Place<'k, S> {
    sys: &'k S,
    file: CString,
    missing: CString,
    scratch: CString,
    names: Vec<CString>,
    fd: i32,
}

/// One operation to measure, generic over the kernel.
macro_rules! compare {
    ($effort:expr, $output:expr, $ours:expr, $host:expr, $name:literal, $target:expr, $op:ident) => {
        if $output.wants($name) {
            // A call that fails at once would make a fine figure.
            $ours
                .$op()
                .and($host.$op())
                .map_err(|e| anyhow!("{}: {e}", $name))?;
            let (ours, host) = $effort.compare(|| ignore($ours.$op()), || ignore($host.$op()));
            $output.figure($name, ours, Some(host), $target);
        }
    };
}

pub(crate) fn run(effort: &Effort, output: &mut Output) -> Result<()> {
    let kernel = rumpkit::builder()
        .boot()
        .map_err(|e| anyhow!("boot: {e}"))?;
    let process = Process::new(&kernel)?;
    process.mount(&MountSpec::tmpfs("/t")?)?;
    let dir = host::tmpfs()?;
    let names = effort.pick(10_000, 500);
    let ours = Place::new(process.sys(), Path::new("/t"), names)?;
    let host = Place::new(&HostKernel, dir.path(), names)?;

    compare!(
        effort,
        output,
        ours,
        host,
        "tmpfs.pread1_ns",
        Target::MostAndHost(100.0),
        pread1
    );
    compare!(
        effort,
        output,
        ours,
        host,
        "tmpfs.pread4k_ns",
        Target::MostAndHost(300.0),
        pread4k
    );
    compare!(
        effort,
        output,
        ours,
        host,
        "tmpfs.pwrite4k_ns",
        Target::MostAndHost(350.0),
        pwrite4k
    );
    compare!(
        effort,
        output,
        ours,
        host,
        "tmpfs.fstat_ns",
        Target::MostAndHost(60.0),
        fstat
    );
    compare!(
        effort,
        output,
        ours,
        host,
        "tmpfs.stat_ns",
        Target::MostAndHost(400.0),
        stat
    );
    compare!(
        effort,
        output,
        ours,
        host,
        "tmpfs.stat_missing_ns",
        Target::MostAndHost(150.0),
        stat_missing
    );
    compare!(
        effort,
        output,
        ours,
        host,
        "tmpfs.open_close_ns",
        Target::MostAndHost(600.0),
        open_close
    );
    compare!(
        effort,
        output,
        ours,
        host,
        "tmpfs.create_unlink_ns",
        Target::MostAndHost(2500.0),
        create_unlink
    );
    if output.wants("tmpfs.create_per_s") {
        let (a, b) = effort.samples(|| ours.create_rate(), || host.create_rate())?;
        output.figure("tmpfs.create_per_s", a, Some(b), Target::Least(400_000.0));
    }
    Ok(())
}

impl<'k, S: Invoke> Place<'k, S> {
    /// Makes the files below `dir`.
    fn new(sys: &'k S, dir: &Path, names: usize) -> Result<Place<'k, S>> {
        let path = |name: &str| CString::new(dir.join(name).as_os_str().as_bytes());
        let file = path("file")?;
        let fd = sys
            .openat(AT_FDCWD, &file, O_RDWR | O_CREAT, 0o644)
            .map_err(failed)? as i32;
        sys.pwrite64(fd, &[1; 64 << 10], 64 << 10, 0)
            .map_err(failed)?;
        sys.mkdir(&path("many")?, 0o755).map_err(failed)?;
        Ok(Place {
            sys,
            file,
            missing: path("missing")?,
            scratch: path("scratch")?,
            names: (0..names)
                .map(|i| path(&format!("many/{i}")))
                .collect::<Result<_, _>>()?,
            fd,
        })
    }

    #[inline]
    fn pread1(&self) -> SysResult {
        let mut buf = [0; 1];
        self.sys.pread64(self.fd, &mut buf, 1, 4096)
    }

    #[inline]
    fn pread4k(&self) -> SysResult {
        let mut buf = [0; 4096];
        let answer = self.sys.pread64(self.fd, &mut buf, 4096, 8192);
        black_box(&buf);
        answer
    }

    #[inline]
    fn pwrite4k(&self) -> SysResult {
        self.sys
            .pwrite64(self.fd, black_box(&[2; 4096]), 4096, 8192)
    }

    #[inline]
    fn fstat(&self) -> SysResult {
        let mut stat = [0; Stat::SIZE];
        self.sys.fstat(self.fd, &mut stat)
    }

    #[inline]
    fn stat(&self) -> SysResult {
        let mut stat = [0; Stat::SIZE];
        self.sys.stat(&self.file, &mut stat)
    }

    #[inline]
    fn stat_missing(&self) -> SysResult {
        let mut stat = [0; Stat::SIZE];
        match self.sys.stat(&self.missing, &mut stat) {
            Err(Errno::ENOENT) => Ok(0),
            other => other.and(Err(Errno::EEXIST)),
        }
    }

    #[inline]
    fn open_close(&self) -> SysResult {
        let fd = self.sys.openat(AT_FDCWD, &self.file, O_RDWR, 0)?;
        self.sys.close(fd as i32)
    }

    #[inline]
    fn create_unlink(&self) -> SysResult {
        self.create(&self.scratch)?;
        self.sys.unlink(&self.scratch)
    }

    #[inline]
    fn create(&self, name: &CStr) -> SysResult {
        let fd = self.sys.openat(AT_FDCWD, name, O_RDWR | O_CREAT, 0o644)?;
        self.sys.close(fd as i32)
    }

    /// Files created a second in one directory, which is empty before and after.
    fn create_rate(&self) -> Result<f64> {
        let began = Instant::now();
        for name in &self.names {
            self.create(name).map_err(failed)?;
        }
        let rate = self.names.len() as f64 / began.elapsed().as_secs_f64();
        for name in &self.names {
            self.sys.unlink(name).map_err(failed)?;
        }
        Ok(rate)
    }
}

#[inline]
fn ignore(answer: SysResult) {
    let _ = black_box(answer);
}

fn failed(errno: abi::Errno) -> anyhow::Error {
    anyhow!("a call failed: {errno}")
}

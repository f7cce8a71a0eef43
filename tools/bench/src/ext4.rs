//! ext4 through etfs, beside the host's own mount of an image in the same place.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use abi::{AT_FDCWD, Invoke, O_CREAT, O_RDWR, O_TRUNC, Syscalls};
use anyhow::{Result, anyhow};
use rumpkit::{Kernel, MountSpec, Process};

use crate::figure::{Output, Target};
use crate::host::{HostKernel, HostMount, make_image};
use crate::measure::{Effort, median};

const CHUNK: usize = 1 << 20;

/// What one pass over a mounted image gives.
struct Pass {
    seq_write: f64,
    first_read: f64,
    cached_read: f64,
    create: f64,
}

pub(crate) fn run(effort: &Effort, output: &mut Output) -> Result<()> {
    let dir = tempfile::Builder::new().prefix("rump-bench-").tempdir()?;
    let image = |name: &str| -> Result<PathBuf> {
        let image = dir.path().join(name);
        make_image(&image, 1 << 30)?;
        Ok(image)
    };
    let ours_image = image("ours.img")?;
    let host_image = image("host.img")?;
    let mount = HostMount::new(&host_image, &dir.path().join("mnt"))?;
    match &mount {
        Some(mount) => eprintln!("ext4: the host's mount is {}", mount.how),
        None => eprintln!("ext4: the host lets us mount nothing; no figures beside ours"),
    }
    let (mut ours, mut host) = (Vec::new(), Vec::new());
    for _ in 0..effort.pick(3, 1) {
        ours.push(our_pass(effort, &ours_image)?);
        if let Some(mount) = &mount {
            host.push(host_pass(effort, mount)?);
        }
    }
    let mut figure = |name: &str, target, value: fn(&Pass) -> f64| {
        let of = |passes: &[Pass]| median(passes.iter().map(value).collect());
        let host = (!host.is_empty()).then(|| of(&host));
        output.figure(name, of(&ours), host, target);
    };
    figure("ext4.seq_write_mbps", Target::LeastOfHost(0.7), |p| {
        p.seq_write
    });
    figure("ext4.first_read_mbps", Target::LeastOfHost(0.7), |p| {
        p.first_read
    });
    figure("ext4.cached_read_mbps", Target::LeastOfHost(0.7), |p| {
        p.cached_read
    });
    figure("ext4.create_per_s", Target::Least(20_000.0), |p| p.create);
    Ok(())
}

/// A pass on our kernel. The first read is made by another kernel than the write, which has nothing cached.
fn our_pass(effort: &Effort, image: &Path) -> Result<Pass> {
    let spec: MountSpec = format!("ext4:{}:/m", image.display()).parse()?;
    let (kernel, process) = boot(&spec)?;
    let place = Place::new(process.sys(), Path::new("/m"), effort);
    let (seq_write, create) = place.write_pass()?;
    drop(process);
    halt(kernel)?;
    let (kernel, process) = boot(&spec)?;
    let place = Place::new(process.sys(), Path::new("/m"), effort);
    let (first_read, cached_read) = place.read_pass()?;
    place.clean()?;
    drop(process);
    halt(kernel)?;
    Ok(Pass {
        seq_write,
        first_read,
        cached_read,
        create,
    })
}

fn boot(spec: &MountSpec) -> Result<(Arc<Kernel>, Process)> {
    let kernel = rumpkit::builder()
        .boot()
        .map_err(|e| anyhow!("boot: {e}"))?;
    let process = Process::new(&kernel)?;
    process.mount(spec)?;
    Ok((kernel, process))
}

fn halt(kernel: Arc<Kernel>) -> Result<()> {
    kernel.shutdown(true).map_err(|e| anyhow!("halt: {e}"))
}

fn host_pass(effort: &Effort, mount: &HostMount) -> Result<Pass> {
    let place = Place::new(&HostKernel, &mount.dir, effort);
    let (seq_write, create) = place.write_pass()?;
    mount.remount()?;
    let (first_read, cached_read) = place.read_pass()?;
    place.clean()?;
    Ok(Pass {
        seq_write,
        first_read,
        cached_read,
        create,
    })
}

/// A mounted image of a kernel, ours or the host's.
struct Place<'k, S> {
    sys: &'k S,
    dir: PathBuf,
    bytes: usize,
    files: usize,
}

impl<'k, S: Invoke> Place<'k, S> {
    fn new(sys: &'k S, dir: &Path, effort: &Effort) -> Place<'k, S> {
        Place {
            sys,
            dir: dir.to_path_buf(),
            bytes: effort.pick(256 << 20, 8 << 20),
            files: effort.pick(10_000, 200),
        }
    }

    fn write_pass(&self) -> Result<(f64, f64)> {
        let buf = vec![0xa5; CHUNK];
        let began = Instant::now();
        let fd = self.open("large", O_RDWR | O_CREAT | O_TRUNC)?;
        for at in (0..self.bytes).step_by(CHUNK) {
            let n = self
                .sys
                .pwrite64(fd, &buf, CHUNK, at as i64)
                .map_err(failed)?;
            whole(n)?;
        }
        self.sys.fsync(fd).map_err(failed)?;
        let seq_write = self.rate(began);
        self.sys.close(fd).map_err(failed)?;
        Ok((seq_write, self.create_pass()?))
    }

    /// Files created a second, each with 100 bytes, with one sync at the end, which counts.
    fn create_pass(&self) -> Result<f64> {
        self.sys.mkdir(&self.path("many")?, 0o755).map_err(failed)?;
        let names: Vec<CString> = (0..self.files)
            .map(|i| self.path(&format!("many/{i}")))
            .collect::<Result<_>>()?;
        let began = Instant::now();
        for name in &names {
            let fd = self
                .sys
                .openat(AT_FDCWD, name, O_RDWR | O_CREAT, 0o644)
                .map_err(failed)? as i32;
            self.sys.write(fd, &[7; 100], 100).map_err(failed)?;
            self.sys.close(fd).map_err(failed)?;
        }
        let dir = self.open("many", abi::O_RDONLY)?;
        self.sys.syncfs(dir).map_err(failed)?;
        let rate = self.files as f64 / began.elapsed().as_secs_f64();
        self.sys.close(dir).map_err(failed)?;
        Ok(rate)
    }

    /// A read of what is not cached, then one of what is.
    fn read_pass(&self) -> Result<(f64, f64)> {
        let fd = self.open("large", abi::O_RDONLY)?;
        let first = self.read_all(fd)?;
        let cached = self.read_all(fd)?;
        self.sys.close(fd).map_err(failed)?;
        Ok((first, cached))
    }

    fn read_all(&self, fd: i32) -> Result<f64> {
        let mut buf = vec![0; CHUNK];
        let began = Instant::now();
        for at in (0..self.bytes).step_by(CHUNK) {
            let n = self
                .sys
                .pread64(fd, &mut buf, CHUNK, at as i64)
                .map_err(failed)?;
            whole(n)?;
        }
        Ok(self.rate(began))
    }

    fn clean(&self) -> Result<()> {
        for i in 0..self.files {
            self.sys
                .unlink(&self.path(&format!("many/{i}"))?)
                .map_err(failed)?;
        }
        self.sys.rmdir(&self.path("many")?).map_err(failed)?;
        self.sys.unlink(&self.path("large")?).map_err(failed)?;
        Ok(())
    }

    fn open(&self, name: &str, flags: i32) -> Result<i32> {
        let fd = self.sys.openat(AT_FDCWD, &self.path(name)?, flags, 0o644);
        Ok(fd.map_err(failed)? as i32)
    }

    fn path(&self, name: &str) -> Result<CString> {
        Ok(CString::new(self.dir.join(name).as_os_str().as_bytes())?)
    }

    fn rate(&self, began: Instant) -> f64 {
        self.bytes as f64 / f64::from(1 << 20) / began.elapsed().as_secs_f64()
    }
}

fn whole(n: i64) -> Result<()> {
    if n as usize != CHUNK {
        return Err(anyhow!("a transfer of {CHUNK} bytes moved {n}"));
    }
    Ok(())
}

fn failed(errno: abi::Errno) -> anyhow::Error {
    anyhow!("a call failed: {errno}")
}

//! The host's kernel behind the same trait as ours, and file systems of its own to measure.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use abi::{Arg, Errno, Invoke, SysResult};
use anyhow::{Context, Result, bail};
use kern::ArgMemory;

/// The host's kernel: the same calls, by the same numbers, with the `syscall` instruction.
pub(crate) struct HostKernel;

impl Invoke for HostKernel {
    #[inline]
    fn invoke(&self, nr: u32, args: &mut [Arg<'_>]) -> SysResult {
        let raw = ArgMemory::registers(args);
        // SAFETY: buffers and strings among the arguments are borrowed for the call with the access that it makes of them, as the table
        // says; the benches make only file, identity and socket calls without pointers in structures, which touch no other memory
        // of this process.
        let answer = unsafe { rumpclient::raw::sys::syscall(nr, raw) };
        if answer < 0 {
            Err(Errno(-answer as i32))
        } else {
            Ok(answer)
        }
    }
}

/// A loop around a `syscall` instruction, in a page of its own, which the hijack does not know of.
pub(crate) struct PlainSyscall(*mut libc::c_void);

impl PlainSyscall {
    const PAGE: usize = 4096;
    /// mov eax, r12d; syscall; dec r13; jnz to the beginning; ret. A return for each call would cost more than the hook: the
    /// host's kernel leaves no prediction for it.
    const CODE: [u8; 11] = [
        0x44, 0x89, 0xe0, 0x0f, 0x05, 0x49, 0xff, 0xcd, 0x75, 0xf6, 0xc3,
    ];

    pub(crate) fn new() -> Result<PlainSyscall> {
        let (access, kind) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
        );
        // SAFETY: a new page, filled before it is made code.
        let (page, failed) = unsafe {
            let page = libc::mmap(std::ptr::null_mut(), Self::PAGE, access, kind, -1, 0);
            if page == libc::MAP_FAILED {
                bail!("no page for code: {}", std::io::Error::last_os_error());
            }
            page.cast::<[u8; 11]>().write(Self::CODE);
            let code = libc::PROT_READ | libc::PROT_EXEC;
            (page, libc::mprotect(page, Self::PAGE, code) != 0)
        };
        if failed {
            bail!("no page of code: {}", std::io::Error::last_os_error());
        }
        Ok(PlainSyscall(page))
    }

    /// Makes the same call `times` times, at least once; the last answer.
    ///
    /// # Safety
    /// As for [`rumpclient::raw::sys::syscall`].
    pub(crate) unsafe fn repeat(&self, times: u64, nr: u32, args: [u64; 6]) -> i64 {
        let ret: i64;
        // SAFETY: the page's code is the loop above, which changes what is named here and what the call may change.
        unsafe {
            std::arch::asm!(
                "call {page}",
                page = in(reg) self.0,
                in("r12") u64::from(nr),
                inout("r13") times.max(1) => _,
                lateout("rax") ret,
                in("rdi") args[0],
                in("rsi") args[1],
                in("rdx") args[2],
                in("r10") args[3],
                in("r8") args[4],
                in("r9") args[5],
                lateout("rcx") _,
                lateout("r11") _,
            );
        }
        ret
    }
}

impl Drop for PlainSyscall {
    fn drop(&mut self) {
        // SAFETY: our own page, which nobody runs now.
        unsafe { libc::munmap(self.0, Self::PAGE) };
    }
}

/// A directory in the host's tmpfs, removed in the end.
pub(crate) fn tmpfs() -> Result<tempfile::TempDir> {
    tempfile::Builder::new()
        .prefix("rump-bench-")
        .tempdir_in("/dev/shm")
        .context("/dev/shm: no directory in the host's tmpfs")
}

/// Makes an ext4 image of this size.
pub(crate) fn make_image(path: &Path, bytes: u64) -> Result<()> {
    File::create(path)?.set_len(bytes)?;
    run(Command::new("/usr/sbin/mkfs.ext4")
        .args(["-q", "-F"])
        .arg(path))
    .context("an ext4 image cannot be made; is the Debian package e2fsprogs installed?")
}

/// The host's mount of an ext4 image: its loop device where we may, else fuse2fs.
pub(crate) struct HostMount {
    image: PathBuf,
    pub(crate) dir: PathBuf,
    /// How it is mounted, for the reader of the figures.
    pub(crate) how: &'static str,
}

impl HostMount {
    /// Mounts the image in a new directory `dir`; `None` where the host lets us do neither.
    pub(crate) fn new(image: &Path, dir: &Path) -> Result<Option<HostMount>> {
        std::fs::create_dir_all(dir)?;
        for how in ["loop", "fuse2fs"] {
            let mount = HostMount {
                image: image.to_path_buf(),
                dir: dir.to_path_buf(),
                how,
            };
            if mount.mount().is_ok() {
                return Ok(Some(mount));
            }
        }
        Ok(None)
    }

    fn mount(&self) -> Result<()> {
        if self.how == "loop" {
            return run(Command::new("mount")
                .args(["-t", "ext4", "-o", "loop"])
                .arg(&self.image)
                .arg(&self.dir));
        }
        run(Command::new("fuse2fs")
            .args(["-o", "fakeroot"])
            .arg(&self.image)
            .arg(&self.dir))
    }

    fn unmount(&self) -> Result<()> {
        if self.how == "loop" {
            return run(Command::new("umount").arg(&self.dir));
        }
        run(Command::new("fusermount").arg("-u").arg(&self.dir))
    }

    /// Unmounts and mounts again, so that nothing of it is cached.
    pub(crate) fn remount(&self) -> Result<()> {
        self.unmount()?;
        self.mount()
    }
}

impl Drop for HostMount {
    fn drop(&mut self) {
        if let Err(error) = self.unmount() {
            eprintln!("rump-bench: {}: {error:#}", self.dir.display());
        }
    }
}

fn run(command: &mut Command) -> Result<()> {
    let out = command.stdin(Stdio::null()).output()?;
    if !out.status.success() {
        bail!(
            "{}: {}: {}",
            command.get_program().display(),
            out.status,
            String::from_utf8_lossy(&out.stderr).trim()
        );
    }
    Ok(())
}

//! A kernel with ext2fs, images made by the host's mke2fs, and the host's e2fsck to judge them.
#![allow(dead_code, unreachable_pub)] // each test file uses its part

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use abi::{AT_FDCWD, Errno, Stat, Syscalls};
use hypercall::{Host, PosixHost};
use kern::{Kernel, LwpHandle, RforkFds};

pub mod model;

/// A kernel that may have an image mounted on /m.
pub struct Machine {
    pub kernel: Arc<Kernel>,
    pub lwp: LwpHandle,
}

pub fn c(path: impl AsRef<[u8]>) -> CString {
    CString::new(path.as_ref()).expect("no NUL")
}

impl Machine {
    pub fn boot() -> Machine {
        Machine::on(PosixHost::new())
    }

    pub fn on(host: Arc<dyn Host>) -> Machine {
        let kernel = Kernel::builder(host)
            .component(&vfs::VFS)
            .component(&ext2fs::EXT2FS)
            .boot()
            .expect("boots");
        let lwp = kernel.rfork(RforkFds::Clear).expect("a process");
        Machine { kernel, lwp }
    }

    /// Boots and mounts.
    pub fn with(image: &Path) -> Machine {
        let machine = Machine::boot();
        machine.mount(image, "").expect("mounts");
        machine
    }

    /// Mounts an image on /m.
    pub fn mount(&self, image: &Path, options: &str) -> Result<(), Errno> {
        let (key, path) = (c("/dev/disk0"), c(image.as_os_str().as_bytes()));
        let read_only = if options == "ro" { abi::ETFS_RDONLY } else { 0 };
        let kind = abi::ETFS_BLK | read_only;
        self.lwp
            .etfs_register(&key, &path, kind, 0, abi::ETFS_SIZE_ENDOFF)?;
        let _ = self.lwp.mkdir(&c("/m"), 0o755);
        let mounted = self
            .lwp
            .mount(&key, &c("/m"), &c("ext4"), 0, &c(options))
            .map(drop);
        if mounted.is_err() {
            self.lwp.etfs_remove(&key).expect("removed");
        }
        mounted
    }

    pub fn unmount(&self) -> Result<(), Errno> {
        let unmounted = self.lwp.umount2(&c("/m"), 0).map(drop);
        unmounted.and(self.lwp.etfs_remove(&c("/dev/disk0")).map(drop))
    }

    /// The kernel's messages.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&self.kernel.messages()).into_owned()
    }

    pub fn open(&self, path: &str, flags: i32) -> Result<i32, Errno> {
        self.lwp
            .openat(AT_FDCWD, &c(path), flags, 0o644)
            .map(|fd| fd as i32)
    }

    pub fn close(&self, fd: i32) {
        self.lwp.close(fd).expect("closes");
    }

    pub fn write_at(&self, fd: i32, mut data: &[u8], mut at: u64) -> Result<(), Errno> {
        while !data.is_empty() {
            let n = self.lwp.pwrite64(fd, data, data.len(), at as i64)? as usize;
            data = &data[n..];
            at += n as u64;
        }
        Ok(())
    }

    pub fn write(&self, path: &str, data: &[u8]) -> Result<(), Errno> {
        let fd = self.open(path, abi::O_WRONLY | abi::O_CREAT | abi::O_TRUNC)?;
        let result = self.write_at(fd, data, 0);
        self.close(fd);
        result
    }

    pub fn read(&self, path: &str) -> Result<Vec<u8>, Errno> {
        let fd = self.open(path, abi::O_RDONLY)?;
        let mut data = Vec::new();
        let mut buf = vec![0; 1 << 16];
        let result = loop {
            let len = buf.len();
            match self.lwp.read(fd, &mut buf, len) {
                Ok(0) => break Ok(()),
                Ok(n) => data.extend_from_slice(&buf[..n as usize]),
                Err(error) => break Err(error),
            }
        };
        self.close(fd);
        result.map(|()| data)
    }

    pub fn stat(&self, path: &str) -> Result<Stat, Errno> {
        let mut stat = [0; Stat::SIZE];
        self.lwp.lstat(&c(path), &mut stat)?;
        Ok(Stat::from_bytes(&stat))
    }

    pub fn readlink(&self, path: &str) -> Result<Vec<u8>, Errno> {
        let mut buf = vec![0; 4096];
        let n = self.lwp.readlink(&c(path), &mut buf, 4096)?;
        buf.truncate(n as usize);
        Ok(buf)
    }

    /// Names with `.` and `..` left out, sorted.
    pub fn list(&self, path: &str) -> Result<Vec<Vec<u8>>, Errno> {
        self.list_by(path, 32 << 10)
    }

    /// As [`list`](Self::list), with a buffer of this size.
    pub fn list_by(&self, path: &str, size: usize) -> Result<Vec<Vec<u8>>, Errno> {
        let fd = self.open(path, abi::O_RDONLY | abi::O_DIRECTORY)?;
        let mut names = Vec::new();
        let mut buf = vec![0; size];
        let result = loop {
            match self.lwp.getdents64(fd, &mut buf, size) {
                Ok(0) => break Ok(()),
                Ok(n) => {
                    let mut rest = &buf[..n as usize];
                    while rest.len() > 19 {
                        let len = usize::from(u16::from_le_bytes([rest[16], rest[17]]));
                        let name = &rest[19..len];
                        let end = name.iter().position(|&b| b == 0).expect("ended");
                        if !matches!(&name[..end], b"." | b"..") {
                            names.push(name[..end].to_vec());
                        }
                        rest = &rest[len..];
                    }
                }
                Err(error) => break Err(error),
            }
            assert!(names.len() < 10_000_000, "reads in circles");
        };
        self.close(fd);
        names.sort();
        result.map(|()| names)
    }

    pub fn sync(&self) -> Result<(), Errno> {
        self.lwp.sync().map(drop)
    }

    pub fn fsync(&self, fd: i32) -> Result<(), Errno> {
        self.lwp.fsync(fd).map(drop)
    }
}

pub fn run(program: &str, args: &[&str]) -> (i32, String) {
    let out = Command::new(program)
        .args(args)
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|e| {
            panic!("{program}: {e}; these tests need the Debian package e2fsprogs")
        });
    let text =
        String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    (out.status.code().unwrap_or(-1), text)
}

/// An image in a directory of its own.
pub struct Image {
    pub dir: tempfile::TempDir,
    pub path: PathBuf,
}

impl Image {
    /// `mke2fs ARGS IMAGE SIZE`.
    pub fn make(args: &str, size: &str) -> Image {
        let image = Image::empty();
        image.format(args, size);
        image
    }

    /// As [`make`](Self::make), in memory where the host has such a directory, for images that are written over and over.
    pub fn small(args: &str, size: &str) -> Image {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let image = Image::within(dir.expect("a directory"));
        image.format(args, size);
        image
    }

    pub fn empty() -> Image {
        Image::within(tempfile::tempdir().expect("a directory"))
    }

    fn within(dir: tempfile::TempDir) -> Image {
        let path = dir.path().join("image");
        Image { dir, path }
    }

    pub fn format(&self, args: &str, size: &str) {
        let path = self.path.to_str().expect("text");
        let mut all = vec!["-q", "-F"];
        all.extend(args.split_whitespace());
        all.extend([path, size]);
        let (code, text) = run("mke2fs", &all);
        assert_eq!(code, 0, "mke2fs {args}: {text}");
    }

    /// `e2fsck -fn` has nothing to say.
    pub fn assert_clean(&self) {
        assert_clean(&self.path);
    }

    pub fn debugfs(&self, request: &str) -> String {
        let (_, text) = run(
            "debugfs",
            &["-w", "-R", request, self.path.to_str().expect("text")],
        );
        text
    }
}

pub fn assert_clean(path: &Path) {
    let (code, text) = run("e2fsck", &["-fn", path.to_str().expect("text")]);
    assert_eq!(code, 0, "e2fsck -fn: {text}");
}

/// `e2fsck -fy`: it repairs what is to repair. Answers what it said; it must be able to.
pub fn repair(path: &Path) -> String {
    let (code, text) = run("e2fsck", &["-fy", path.to_str().expect("text")]);
    assert!(code <= 1, "e2fsck -fy: {code}: {text}");
    text
}

/// Bytes that can be told from those of another file or place.
pub fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut rng = testing::Dice::new(seed);
    let mut data = vec![0; len];
    for chunk in data.chunks_mut(8) {
        let word = rng.next().to_le_bytes();
        chunk.copy_from_slice(&word[..chunk.len()]);
    }
    data
}

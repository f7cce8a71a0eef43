//! The faction from outside: system calls on a kernel in this process.

use std::ffi::CString;
use std::sync::Arc;

use abi::*;
use hypercall::PosixHost;
use kern::{Kernel, LwpHandle, RforkFds};

pub(crate) fn boot() -> (Arc<Kernel>, LwpHandle) {
    let host = PosixHost::with_params([("RUMP_NCPU", "2")]);
    let kernel = Kernel::builder(host)
        .component(&crate::VFS)
        .boot()
        .expect("a kernel");
    let lwp = kernel.rfork(RforkFds::Clear).expect("a process");
    (kernel, lwp)
}

pub(crate) fn c(path: &str) -> CString {
    CString::new(path).expect("no NUL")
}

pub(crate) fn stat(lwp: &LwpHandle, path: &str) -> Result<Stat, Errno> {
    let mut buf = [0; Stat::SIZE];
    lwp.stat(&c(path), &mut buf)?;
    Ok(Stat::from_bytes(&buf))
}

pub(crate) fn open(lwp: &LwpHandle, path: &str, flags: i32) -> Result<i32, Errno> {
    lwp.open(&c(path), flags, 0o644).map(|fd| fd as i32)
}

/// Makes an empty file.
pub(crate) fn touch(lwp: &LwpHandle, path: &str) {
    let fd = open(lwp, path, O_CREAT | O_WRONLY).expect("a file");
    lwp.close(fd).expect("closed");
}

#[test]
fn a_file_in_the_root_reads_back() {
    let (_kernel, lwp) = boot();
    lwp.mkdir(&c("/d"), 0o755).expect("a directory");
    let fd = open(&lwp, "/d/f", O_CREAT | O_RDWR | O_EXCL).expect("a file");
    assert_eq!(lwp.write(fd, b"hello", 5), Ok(5));
    assert_eq!(lwp.pwrite64(fd, b"J", 1, 0), Ok(1));
    let mut buf = [0; 16];
    assert_eq!(lwp.pread64(fd, &mut buf, 16, 0), Ok(5));
    assert_eq!(&buf[..5], b"Jello");
    assert_eq!(stat(&lwp, "/d/f").expect("there").st_size, 5);
    lwp.unlink(&c("/d/f")).expect("unlinked");
    assert_eq!(lwp.pread64(fd, &mut buf, 16, 1), Ok(4), "open files stay");
    assert_eq!(stat(&lwp, "/d/f"), Err(Errno::ENOENT));
    lwp.close(fd).expect("closed");
    lwp.rmdir(&c("/d")).expect("removed");
}

mod etfs;
mod handles;
mod hosts;
mod locks;
mod model;
mod mounts;
mod names;
mod perm;
mod special;
mod splice;
mod watch;

/// The names in a directory, sorted, without the dots.
pub(crate) fn names(lwp: &LwpHandle, path: &str) -> Vec<String> {
    let fd = open(lwp, path, O_RDONLY | O_DIRECTORY).expect("a directory");
    let mut all = Vec::new();
    let mut buf = [0; 200];
    loop {
        let n = lwp.getdents64(fd, &mut buf, 200).expect("entries") as usize;
        if n == 0 {
            break;
        }
        let mut at = 0;
        while at < n {
            let len = usize::from(u16::from_le_bytes([buf[at + 16], buf[at + 17]]));
            let name = &buf[at + 19..at + len];
            let end = name.iter().position(|&b| b == 0).expect("a NUL");
            all.push(String::from_utf8_lossy(&name[..end]).into_owned());
            at += len;
        }
    }
    lwp.close(fd).expect("closed");
    all.retain(|name| name != "." && name != "..");
    all.sort();
    all
}

#[test]
fn a_dropped_kernel_leaves_nothing_behind() {
    for halted in [true, false] {
        let image = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(image.path(), [1; 100_000]).expect("written");
        let (kernel, lwp) = boot();
        kernel.implicit(&kern::KernelMemory, |cx| {
            let vfs = crate::Vfs::of(cx).expect("vfs");
            vfs.register(cx, &crate::rumpfs::CACHED)
                .expect("registered");
        });
        lwp.mkdir(c"/m", 0o755).expect("a directory");
        lwp.mount(c"x", c"/m", c"rumpfs", 0, c"").expect("mounted");
        let fd = open(&lwp, "/m/f", O_CREAT | O_RDWR).expect("a file");
        lwp.write(fd, b"dirty", 5).expect("written");
        let path = c(image.path().to_str().expect("text"));
        lwp.etfs_register(c"/dev/d", &path, ETFS_BLK, 0, -1)
            .expect("registered");
        let disk = open(&lwp, "/dev/d", O_RDWR).expect("open");
        lwp.pread64(disk, &mut [0; 5000], 5000, 0).expect("read");
        lwp.pwrite64(disk, &[0; 5000], 5000, 0).expect("written");
        let watched = kernel.implicit(&kern::KernelMemory, |cx| {
            let vfs = crate::Vfs::of(cx).expect("vfs");
            let file = crate::namei::namei(cx, AT_FDCWD, b"/m/f", true).expect("there");
            let disk = crate::namei::namei(cx, AT_FDCWD, b"/dev/d", true).expect("there");
            [
                Arc::downgrade(vfs.root()),
                Arc::downgrade(&file),
                Arc::downgrade(&disk),
            ]
        });
        drop(lwp);
        if halted {
            kernel.shutdown(true).expect("halted");
        }
        let kernel = Arc::into_inner(kernel).expect("the last one");
        drop(kernel);
        for (i, vp) in watched.iter().enumerate() {
            assert_eq!(vp.strong_count(), 0, "vnode {i}, halted: {halted}");
        }
    }
}

#[test]
fn a_vnode_is_not_large() {
    // A hundred thousand of them are an ordinary tree.
    assert!(
        size_of::<crate::Vnode>() <= 512,
        "{}",
        size_of::<crate::Vnode>()
    );
}

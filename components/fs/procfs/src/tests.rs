//! procfs from outside, by system calls.

use abi::*;
use hypercall::PosixHost;
use kern::sysctl::{Node, Value};
use kern::{Component, Curlwp, Kernel, LwpHandle, RforkFds, Stage};
use std::ffi::CString;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

/// Something that has a report and variables.
static TELLS: Component = Component {
    name: "tells",
    stage: Stage::Vfs,
    requires: &["vfs"],
    init: tells,
};

fn tells(cx: &Curlwp<'_>) -> Result<(), Errno> {
    let reports = cx.kernel().reports();
    let count = AtomicI64::new(0);
    reports.add(cx, "net/count", move |_| {
        format!("{:>7}\n", count.fetch_add(1, Relaxed))
    });
    reports.add(cx, "net/stat/deep", |_| "text\n".repeat(5000));
    let set = Arc::new(AtomicI64::new(7));
    let read = set.clone();
    let node = Node::int(move |_| read.load(Relaxed)).writable(move |_, value| match value {
        Value::Int(n @ 0..=9) => {
            set.store(n, Relaxed);
            Ok(())
        }
        _ => Err(Errno::EINVAL),
    });
    cx.kernel().sysctl().add(cx, "net.ipv4.digit", node)?;
    let fixed = Node::text(|_| "cubic".to_owned());
    cx.kernel().sysctl().add(cx, "net.ipv4.law", fixed)
}

fn boot() -> (Arc<Kernel>, LwpHandle) {
    let kernel = Kernel::builder(PosixHost::new())
        .component(&vfs::VFS)
        .component(&TELLS)
        .component(&crate::PROCFS)
        .boot()
        .expect("a kernel");
    let lwp = kernel.rfork(RforkFds::Clear).expect("a process");
    lwp.mkdir(c"/proc", 0o555).expect("a directory");
    lwp.mount(c"none", c"/proc", c"proc", 0, c"")
        .expect("mounted");
    (kernel, lwp)
}

fn open(lwp: &LwpHandle, path: &str, flags: i32) -> Result<i32, Errno> {
    let path = CString::new(path).expect("no NUL");
    lwp.open(&path, flags, 0o644).map(|fd| fd as i32)
}

fn read(lwp: &LwpHandle, fd: i32) -> String {
    let mut out = Vec::new();
    loop {
        let mut buf = [0; 1000];
        match lwp.read(fd, &mut buf, 1000).expect("read") {
            0 => return String::from_utf8(out).expect("text"),
            n => out.extend_from_slice(&buf[..n as usize]),
        }
    }
}

fn text(lwp: &LwpHandle, path: &str) -> Result<String, Errno> {
    let fd = open(lwp, path, O_RDONLY)?;
    let text = read(lwp, fd);
    lwp.close(fd).expect("closed");
    Ok(text)
}

fn names(lwp: &LwpHandle, path: &str) -> Vec<String> {
    let fd = open(lwp, path, O_RDONLY | O_DIRECTORY).expect("a directory");
    let mut out = Vec::new();
    loop {
        // Room for two or three: reading goes on where it stopped.
        let mut buf = [0; 80];
        let n = lwp.getdents64(fd, &mut buf, 80).expect("read") as usize;
        if n == 0 {
            lwp.close(fd).expect("closed");
            out.sort();
            return out;
        }
        let mut rest = &buf[..n];
        while !rest.is_empty() {
            let len = usize::from(u16::from_le_bytes([rest[16], rest[17]]));
            let name = rest[19..len].split(|b| *b == 0).next().expect("a name");
            out.push(String::from_utf8(name.to_vec()).expect("text"));
            rest = &rest[len..];
        }
    }
}

#[test]
fn reports_and_variables_are_files_in_directories() {
    let (_kernel, lwp) = boot();
    assert_eq!(names(&lwp, "/proc"), [".", "..", "net", "sys"]);
    assert_eq!(names(&lwp, "/proc/net"), [".", "..", "count", "stat"]);
    assert_eq!(
        names(&lwp, "/proc/sys/net/ipv4"),
        [".", "..", "digit", "law"]
    );
    assert_eq!(text(&lwp, "/proc/net/count"), Ok("      0\n".into()));
    assert_eq!(
        text(&lwp, "/proc/net/stat/../count"),
        Ok("      1\n".into())
    );
    assert_eq!(
        text(&lwp, "/proc/net/stat/deep").map(|t| t.len()),
        Ok(25_000)
    );
    assert_eq!(text(&lwp, "/proc/net/none"), Err(Errno::ENOENT));
    assert_eq!(text(&lwp, "/proc/net/count/x"), Err(Errno::ENOTDIR));
    lwp.chdir(c"/proc/net/stat").expect("entered");
    assert_eq!(text(&lwp, "../../sys/net/ipv4/law"), Ok("cubic\n".into()));
    assert_eq!(names(&lwp, "../../..").len(), names(&lwp, "/").len());
}

#[test]
fn a_text_stays_as_it_was_when_its_file_was_opened() {
    let (_kernel, lwp) = boot();
    let fd = open(&lwp, "/proc/net/count", O_RDONLY).expect("open");
    let mut buf = [0; 3];
    assert_eq!(lwp.pread64(fd, &mut buf, 3, 5), Ok(3));
    assert_eq!(&buf, b" 0\n");
    assert_eq!(lwp.lseek(fd, 6, SEEK_SET), Ok(6));
    assert_eq!(read(&lwp, fd), "0\n");
    assert_eq!(lwp.pread64(fd, &mut buf, 3, 1 << 40), Ok(0));
}

#[test]
fn variables_are_set_by_writing() {
    let (_kernel, lwp) = boot();
    let path = "/proc/sys/net/ipv4/digit";
    let write = |path: &str, text: &[u8]| {
        let fd = open(&lwp, path, O_WRONLY | O_CREAT | O_TRUNC)?;
        let written = lwp.write(fd, text, text.len());
        lwp.close(fd).expect("closed");
        written
    };
    assert_eq!(text(&lwp, path), Ok("7\n".into()));
    assert_eq!(write(path, b"3\n"), Ok(2));
    assert_eq!(text(&lwp, path), Ok("3\n".into()));
    assert_eq!(write(path, b"12\n"), Err(Errno::EINVAL));
    assert_eq!(write(path, b"much\n"), Err(Errno::EINVAL));
    assert_eq!(write("/proc/sys/net/ipv4/law", b"reno"), Err(Errno::EPERM));
    assert_eq!(write("/proc/net/count", b"0"), Err(Errno::EPERM));
    assert!(write("/proc/net/new", b"0").is_err());
    assert!(lwp.unlink(c"/proc/net/count").is_err());
    lwp.setuid(1000).expect("another user");
    assert_eq!(write(path, b"1"), Err(Errno::EACCES));
    assert_eq!(text(&lwp, path), Ok("3\n".into()));
}

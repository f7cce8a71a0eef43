//! The tracer's lines.

mod common;

use std::sync::Arc;

use abi::{O_CLOEXEC, Syscalls};
use common::{boot, process};
use kern::KernelMemory;
use sync::Mutex;

#[test]
fn calls_look_as_in_strace() {
    let k = boot();
    let p = process(&k);
    let lines = Arc::new(Mutex::new(Vec::new()));
    let (kernel, sink) = (Arc::downgrade(&k), lines.clone());
    k.trace(Some(Box::new(move |_, line| {
        let kernel = kernel.upgrade().expect("it runs");
        let off = sync::OffCpu(&**kernel.host());
        sink.lock(&off).push(line.to_owned());
    })));
    p.getpid().expect("a pid");
    p.pipe2(&mut [0; 8], O_CLOEXEC).expect("a pipe");
    p.write(1, b"hello\n", 6).expect("written");
    p.write(1, &[b'x'; 40], 40).expect("written");
    p.read(0, &mut [0; 100], 6).expect("read");
    let _ = p.close(9);
    let _ = p.openat(-100, c"/etc", O_CLOEXEC, 0);
    k.trace(None);
    p.getpid().expect("a pid");
    let want = [
        "getpid() = 2",
        "pipe2([0, 1], O_CLOEXEC) = 0",
        r#"write(1, "hello\n", 6) = 6"#,
        r#"write(1, "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"..., 40) = 40"#,
        r#"read(0, "hello\n", 6) = 6"#,
        "close(9) = -1 EBADF (Bad file descriptor)",
        r#"openat(AT_FDCWD, "/etc", O_RDONLY|O_CLOEXEC) = -1 ENOSYS (Function not implemented)"#,
    ];
    let lines = k.implicit(&KernelMemory, |cx| lines.lock(cx.cpu()).clone());
    assert_eq!(lines, want);
}

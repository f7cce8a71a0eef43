//! scratch figures
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]
use abi::*;
use hypercall::PosixHost;
use kern::{Kernel, RforkFds};
use std::ffi::CString;
use std::time::Instant;

fn t(name: &str, n: u64, mut f: impl FnMut(u64)) {
    let mut best = f64::MAX;
    for _ in 0..5 {
        let s = Instant::now();
        for i in 0..n {
            f(i)
        }
        best = best.min(s.elapsed().as_nanos() as f64 / n as f64);
    }
    println!("{name:28} {best:9.1} ns");
}

fn main() {
    let host = PosixHost::with_params([("RUMP_NCPU", "2")]);
    let kernel = Kernel::builder(host)
        .component(&vfs::VFS)
        .component(&tmpfs::TMPFS)
        .boot()
        .unwrap();
    let l = kernel.rfork(RforkFds::Clear).unwrap();
    l.mkdir(c"/t", 0o755).unwrap();
    l.mount(c"none", c"/t", c"tmpfs", 0, c"").unwrap();
    let fd = l.open(c"/t/f", O_CREAT | O_RDWR, 0o644).unwrap() as i32;
    let mut buf = vec![7u8; 1 << 20];
    for i in 0..64 {
        assert_eq!(l.pwrite64(fd, &buf, 1 << 20, i << 20).unwrap(), 1 << 20);
    }
    t("getpid", 5_000_000, |_| {
        let _ = l.getpid();
    });
    let mut one = [0u8; 1];
    t("pread 1", 2_000_000, |_| {
        l.pread64(fd, &mut one, 1, 0).unwrap();
    });
    let mut b4 = vec![1u8; 4096];
    t("pread 4k", 1_000_000, |i| {
        l.pread64(fd, &mut b4, 4096, ((i % 256) * 4096) as i64)
            .unwrap();
    });
    t("pwrite 4k", 1_000_000, |i| {
        l.pwrite64(fd, &b4, 4096, ((i % 256) * 4096) as i64)
            .unwrap();
    });
    t("pwrite 1", 1_000_000, |_| {
        l.pwrite64(fd, &b4[..1], 1, 0).unwrap();
    });
    t("seq read 1M", 64 * 4, |i| {
        l.pread64(fd, &mut buf, 1 << 20, ((i % 64) << 20) as i64)
            .unwrap();
    });
    let src = vec![3u8; 64 << 20];
    t("memcpy 1M", 64 * 4, |i| {
        buf.copy_from_slice(&src[((i % 64) << 20) as usize..][..1 << 20]);
        std::hint::black_box(&buf);
    });
    let mut st = [0u8; Stat::SIZE];
    t("fstat", 2_000_000, |_| {
        l.fstat(fd, &mut st).unwrap();
    });
    t("stat", 1_000_000, |_| {
        l.stat(c"/t/f", &mut st).unwrap();
    });
    t("stat missing", 1_000_000, |_| {
        l.stat(c"/t/nope", &mut st).unwrap_err();
    });
    t("open+close", 500_000, |_| {
        let fd = l.open(c"/t/f", O_RDONLY, 0).unwrap() as i32;
        l.close(fd).unwrap();
    });
    t("create+close+unlink", 200_000, |_| {
        let fd = l.open(c"/t/g", O_RDWR | O_CREAT, 0o644).unwrap() as i32;
        l.close(fd).unwrap();
        l.unlink(c"/t/g").unwrap();
    });
    t("cr+write4k+close+unlink", 200_000, |_| {
        let fd = l.open(c"/t/g", O_RDWR | O_CREAT, 0o644).unwrap() as i32;
        l.write(fd, &b4, 4096).unwrap();
        l.close(fd).unwrap();
        l.unlink(c"/t/g").unwrap();
    });
    let names: Vec<CString> = (0..10_000)
        .map(|i| CString::new(format!("/t/d/file{i}")).unwrap())
        .collect();
    l.mkdir(c"/t/d", 0o755).unwrap();
    let mut best = f64::MAX;
    for _ in 0..5 {
        let s = Instant::now();
        for n in &names {
            let fd = l.open(n, O_RDWR | O_CREAT, 0o644).unwrap() as i32;
            l.close(fd).unwrap();
        }
        best = best.min(s.elapsed().as_nanos() as f64 / 10_000.0);
        for n in &names {
            l.unlink(n).unwrap();
        }
    }
    println!(
        "create 10k in one dir {best:.0} ns each, {:.0}/s",
        1e9 / best
    );
    t("clock", 2_000_000, |_| {
        std::hint::black_box(kernel.host().now(hypercall::Clock::Realtime));
    });
}

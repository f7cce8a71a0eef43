//! splice and tee between pipes.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use abi::{Errno, O_NONBLOCK, Syscalls};
use common::sim::{in_process, over_seeds, with_kernel};
use common::{boot, pipe, process};
use kern::{LwpHandle, RforkFds};

fn splice(p: &LwpHandle, from: i32, to: i32, len: usize, flags: i32) -> Result<i64, Errno> {
    p.splice(from, &mut [], to, &mut [], len, flags)
}

fn read(p: &LwpHandle, fd: i32) -> Result<Vec<u8>, Errno> {
    let mut buf = [0; 64];
    let n = p.read(fd, &mut buf, 64)?;
    Ok(buf[..n as usize].to_vec())
}

#[test]
fn bytes_move_from_pipe_to_pipe_and_tee_leaves_them() {
    let k = boot();
    let p = process(&k);
    let (ar, aw) = pipe(&p, O_NONBLOCK).expect("a pipe");
    let (br, bw) = pipe(&p, O_NONBLOCK).expect("a pipe");
    assert_eq!(splice(&p, ar, bw, 10, 0), Err(Errno::EAGAIN));
    p.write(aw, b"hello world", 11).expect("written");
    assert_eq!(p.tee(ar, bw, 5, 0), Ok(5));
    assert_eq!(read(&p, br), Ok(b"hello".to_vec()));
    assert_eq!(splice(&p, ar, bw, 6, 0), Ok(6));
    assert_eq!(splice(&p, ar, bw, 100, 0), Ok(5));
    assert_eq!(read(&p, br), Ok(b"hello world".to_vec()));
    assert_eq!(read(&p, ar), Err(Errno::EAGAIN));
    assert_eq!(p.tee(ar, bw, 5, 0), Err(Errno::EAGAIN));

    // What the other one does not take stays, in order.
    p.write(bw, &[0; 65536], 65536).expect("full");
    p.write(aw, b"abc", 3).expect("written");
    assert_eq!(splice(&p, ar, bw, 3, 0), Err(Errno::EAGAIN));
    assert_eq!(p.tee(ar, bw, 3, 0), Err(Errno::EAGAIN));
    p.write(aw, b"def", 3).expect("written");
    assert_eq!(read(&p, ar), Ok(b"abcdef".to_vec()));

    assert_eq!(splice(&p, ar, aw, 1, 0), Err(Errno::EINVAL));
    assert_eq!(p.tee(ar, aw, 1, 0), Err(Errno::EINVAL));
    assert_eq!(splice(&p, aw, bw, 1, 0), Err(Errno::EBADF));
    assert_eq!(splice(&p, ar, br, 1, 0), Err(Errno::EBADF));
    assert_eq!(splice(&p, ar, bw, 1, 16), Err(Errno::EINVAL));
    let at = &mut [0; 8];
    assert_eq!(p.splice(ar, at, bw, &mut [], 1, 0), Err(Errno::ESPIPE));
    p.close(aw).expect("closed");
    assert_eq!(splice(&p, ar, bw, 1, 0), Ok(0), "the end");
    p.close(br).expect("closed");
    let (cr, cw) = pipe(&p, 0).expect("a pipe");
    p.write(cw, b"x", 1).expect("written");
    assert_eq!(splice(&p, cr, bw, 1, 0), Err(Errno::EPIPE));
    assert_eq!(read(&p, cr), Ok(b"x".to_vec()));
}

#[test]
fn a_chain_of_pipes_keeps_order_whatever_the_switches() {
    over_seeds(300, |seed| {
        with_kernel(seed, 1 + seed as usize % 3, |host, kernel| {
            let p = kernel.rfork(RforkFds::Clear).expect("a process");
            let (ar, aw) = pipe(&p, 0).expect("a pipe");
            let (br, bw) = pipe(&p, 0).expect("a pipe");
            let sum = Arc::new(AtomicU32::new(0));
            let total = sum.clone();
            in_process(host, kernel, p.pid(), 3, move |i, lwp| match i {
                0 => {
                    for n in 0..8u8 {
                        lwp.write(aw, &[n; 3000], 3000).expect("written");
                    }
                    lwp.close(aw).expect("closed");
                }
                1 => {
                    while splice(lwp, ar, bw, 5000, 0).expect("moved") != 0 {}
                    lwp.close(bw).expect("closed");
                }
                _ => {
                    let mut last = 0;
                    let mut buf = [0; 777];
                    while let Ok(n @ 1..) = lwp.read(br, &mut buf, 777) {
                        for &byte in &buf[..n as usize] {
                            assert!(byte >= last, "out of order");
                            last = byte;
                        }
                        total.fetch_add(n as u32, Ordering::SeqCst);
                    }
                }
            });
            assert_eq!(sum.load(Ordering::SeqCst), 24_000);
        })
    });
}

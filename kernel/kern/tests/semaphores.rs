//! POSIX semaphores through system calls.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use abi::{Errno, O_CREAT, O_EXCL, Syscalls, Timespec};
use common::sim::{in_process, over_seeds, with_kernel};
use common::{boot, process, user};
use hypercall::Host;
use kern::{KernelMemory, LwpHandle, RforkFds};

const SEEDS: u64 = 500;

fn init(p: &LwpHandle, value: u32) -> Result<i64, Errno> {
    let mut id = [0; 8];
    p._ksem_init(value, &mut id)?;
    Ok(i64::from_le_bytes(id))
}

fn open(
    p: &LwpHandle,
    name: &std::ffi::CStr,
    oflag: i32,
    mode: u32,
    value: u32,
) -> Result<i64, Errno> {
    let mut id = [0; 8];
    p._ksem_open(name, oflag, mode, value, &mut id)?;
    Ok(i64::from_le_bytes(id))
}

fn value(p: &LwpHandle, id: i64) -> Result<u32, Errno> {
    let mut value = [0; 4];
    p._ksem_getvalue(id, &mut value)?;
    Ok(u32::from_le_bytes(value))
}

#[test]
fn a_semaphore_counts() {
    let k = boot();
    let p = process(&k);
    let id = init(&p, 2).expect("a semaphore");
    assert_eq!(p._ksem_wait(id), Ok(0));
    assert_eq!(p._ksem_trywait(id), Ok(0));
    assert_eq!(p._ksem_trywait(id), Err(Errno::EAGAIN));
    assert_eq!(p._ksem_post(id), Ok(0));
    assert_eq!(value(&p, id), Ok(1));
    assert_eq!(p._ksem_close(id), Err(Errno::EINVAL));
    assert_eq!(p._ksem_destroy(id), Ok(0));
    for call in [p._ksem_post(id), p._ksem_wait(id), p._ksem_destroy(id)] {
        assert_eq!(call, Err(Errno::EINVAL));
    }
    assert_eq!(init(&p, i32::MAX as u32 + 1), Err(Errno::EINVAL));
    let full = init(&p, i32::MAX as u32).expect("a full one");
    assert_eq!(p._ksem_post(full), Err(Errno::EOVERFLOW));
    assert_eq!(p._ksem_post(1 << 40), Err(Errno::EINVAL));
}

#[test]
fn a_named_semaphore_is_shared_until_it_is_unlinked_and_closed() {
    let k = boot();
    let (p, q) = (process(&k), process(&k));
    assert_eq!(open(&p, c"/s", 0, 0, 0), Err(Errno::ENOENT));
    let mine = open(&p, c"/s", O_CREAT, 0o600, 3).expect("made");
    let theirs = open(&q, c"/s", O_CREAT, 0, 9).expect("found");
    assert_eq!(value(&q, theirs), Ok(3));
    assert_eq!(
        open(&q, c"/s", O_CREAT | O_EXCL, 0o600, 0),
        Err(Errno::EEXIST)
    );
    assert_eq!(p._ksem_post(mine), Ok(0));
    assert_eq!(p._ksem_unlink(c"/s"), Ok(0));
    assert_eq!(p._ksem_unlink(c"/s"), Err(Errno::ENOENT));
    assert_eq!(p._ksem_close(mine), Ok(0));
    assert_eq!(value(&q, theirs), Ok(4));
    assert_eq!(q._ksem_destroy(theirs), Err(Errno::EINVAL));
    let other = open(&p, c"/s", O_CREAT, 0o600, 0).expect("another one");
    assert_eq!(value(&p, other), Ok(0));
    for name in [c"s", c"/", c"/a/b", c""] {
        assert_eq!(open(&p, name, O_CREAT, 0o600, 0), Err(Errno::EINVAL));
    }
}

#[test]
fn names_are_for_who_may() {
    let k = boot();
    let (p, a, b) = (process(&k), user(&k, 10, 20), user(&k, 11, 20));
    open(&a, c"/own", O_CREAT, 0o600, 0).expect("made");
    open(&a, c"/group", O_CREAT, 0o660, 0).expect("made");
    assert_eq!(open(&b, c"/own", 0, 0, 0), Err(Errno::EACCES));
    assert!(open(&b, c"/group", 0, 0, 0).is_ok());
    assert!(open(&p, c"/own", 0, 0, 0).is_ok());
    assert_eq!(b._ksem_unlink(c"/group"), Err(Errno::EACCES));
    assert_eq!(a._ksem_unlink(c"/group"), Ok(0));
    assert_eq!(p._ksem_unlink(c"/own"), Ok(0));
}

#[test]
fn whoever_posts_one_is_let_through_whatever_the_order() {
    over_seeds(SEEDS, |seed| {
        with_kernel(seed, 1 + seed as usize % 3, |host, kernel| {
            let p = kernel.rfork(RforkFds::Clear).expect("a process");
            let id = init(&p, 2).expect("a semaphore");
            let inside = Arc::new(AtomicU32::new(0));
            let done = Arc::new(AtomicU32::new(0));
            let (within, count) = (inside.clone(), done.clone());
            in_process(host, kernel, p.pid(), 5, move |_, lwp| {
                for _ in 0..3 {
                    lwp._ksem_wait(id).expect("let in");
                    assert!(within.fetch_add(1, Ordering::SeqCst) < 2, "three inside");
                    lwp.enter(&KernelMemory, |cx| {
                        cx.unscheduled(|| cx.kernel().host().relax())
                    });
                    within.fetch_sub(1, Ordering::SeqCst);
                    count.fetch_add(1, Ordering::SeqCst);
                    lwp._ksem_post(id).expect("posted");
                }
            });
            assert_eq!(done.load(Ordering::SeqCst), 15);
            assert_eq!(value(&p, id), Ok(2));
        })
    });
}

#[test]
fn a_wait_with_a_time_ends_by_a_post_or_by_the_time_and_loses_neither() {
    over_seeds(SEEDS, |seed| {
        with_kernel(seed, 2, |host, kernel| {
            let p = kernel.rfork(RforkFds::Clear).expect("a process");
            let id = init(&p, 0).expect("a semaphore");
            let got = Arc::new(AtomicU32::new(0));
            let taken = got.clone();
            in_process(host, kernel, p.pid(), 4, move |i, lwp| {
                if i == 0 {
                    lwp.enter(&KernelMemory, |cx| {
                        let at = cx.now(hypercall::Clock::Monotonic) + 1_000_000;
                        cx.sleep_until(at).expect("sleeps");
                    });
                    lwp._ksem_post(id).expect("posted");
                    lwp._ksem_post(id).expect("posted");
                    return;
                }
                let at = lwp.enter(&KernelMemory, |cx| cx.now(hypercall::Clock::Realtime));
                let at = at + i as u64 * 500_000;
                let until = Timespec {
                    tv_sec: (at / 1_000_000_000) as i64,
                    tv_nsec: (at % 1_000_000_000) as i64,
                };
                match lwp._ksem_timedwait(id, &until.to_bytes()) {
                    Ok(_) => drop(taken.fetch_add(1, Ordering::SeqCst)),
                    Err(error) => assert_eq!(error, Errno::ETIMEDOUT),
                }
            });
            let taken = got.load(Ordering::SeqCst);
            assert_eq!(value(&p, id), Ok(2 - taken));
        })
    });
}

#[test]
fn a_semaphore_that_is_waited_for_is_not_destroyed_and_a_dying_waiter_leaves() {
    over_seeds(SEEDS / 5, |seed| {
        with_kernel(seed, 2, |host, kernel| {
            let p = kernel.rfork(RforkFds::Clear).expect("a process");
            let id = init(&p, 0).expect("a semaphore");
            let q = kernel.newlwp(p.pid()).expect("an lwp");
            // When it comes late there is no such semaphore.
            let run = move || {
                let left = q._ksem_wait(id);
                assert!(
                    matches!(left, Err(Errno::EINTR | Errno::EINVAL)),
                    "{left:?}"
                );
            };
            let thread = host.spawn("waiter", Box::new(run)).expect("a thread");
            let destroyed = p._ksem_destroy(id);
            assert!(matches!(destroyed, Ok(0) | Err(Errno::EBUSY)));
            kernel.implicit(&KernelMemory, |cx| {
                let proc = kernel.find_proc(cx, p.pid()).expect("it lives");
                kernel.proc_exit(cx, &proc);
            });
            thread.join();
        })
    });
}

//! Mutexes, readers-writer locks, and the virtual CPUs that they give up.

use std::sync::Arc;

use abi::Syscalls;
use kern::KernelMemory;
use sync::{Mutex, RwLock};
use testing::on_both_hosts;

#[test]
fn a_mutex_excludes_whatever_the_order() {
    on_both_hosts(|bed| {
        let shared = Arc::new(Mutex::new((0u32, false)));
        let inner = shared.clone();
        bed.users(4, move |_, lwp| {
            for _ in 0..5 {
                lwp.enter(&KernelMemory, |cx| {
                    let mut held = inner.lock(cx.cpu());
                    assert!(!held.1, "two in the critical section");
                    held.1 = true;
                    cx.unscheduled(|| cx.kernel().host().relax());
                    held.1 = false;
                    held.0 += 1;
                });
            }
        });
        let kernel = bed.kernel();
        let total = kernel.implicit(&KernelMemory, |cx| shared.lock(cx.cpu()).0);
        assert_eq!(total, 20);
    });
}

#[test]
fn a_try_never_waits_and_never_lets_two_in() {
    on_both_hosts(|bed| {
        let locks = Arc::new((Mutex::new(0u32), RwLock::new(0u32)));
        let inner = locks.clone();
        let got = Arc::new(std::sync::atomic::AtomicU32::new(0));
        let counter = got.clone();
        bed.users(3, move |_, lwp| {
            for _ in 0..6 {
                lwp.enter(&KernelMemory, |cx| {
                    if let Some(mut held) = inner.0.try_lock(cx.cpu()) {
                        let before = *held;
                        cx.unscheduled(|| cx.kernel().host().relax());
                        *held = before + 1;
                        counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    }
                    if let Some(mut held) = inner.1.try_write(cx.cpu()) {
                        let before = *held;
                        cx.unscheduled(|| cx.kernel().host().relax());
                        *held = before + 1;
                        counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    }
                });
            }
        });
        bed.kernel().implicit(&KernelMemory, |cx| {
            let sum = *locks.0.lock(cx.cpu()) + *locks.1.read(cx.cpu());
            assert_eq!(sum, got.load(std::sync::atomic::Ordering::SeqCst));
            assert!(sum >= 2, "a free lock is taken");
        });
    });
}

#[test]
fn readers_share_and_writers_do_not() {
    on_both_hosts(|bed| {
        let lock = Arc::new(RwLock::new([0u32; 2]));
        let inner = lock.clone();
        bed.users(5, move |i, lwp| {
            for _ in 0..5 {
                lwp.enter(&KernelMemory, |cx| {
                    if i < 2 {
                        let mut pair = inner.write(cx.cpu());
                        pair[0] += 1;
                        cx.unscheduled(|| cx.kernel().host().relax());
                        pair[1] += 1;
                    } else {
                        let pair = inner.read(cx.cpu());
                        let before = *pair;
                        cx.unscheduled(|| cx.kernel().host().relax());
                        assert_eq!(pair[0], pair[1]);
                        assert_eq!(*pair, before, "nobody writes while somebody reads");
                    }
                });
            }
        });
        let sums = bed
            .kernel()
            .implicit(&KernelMemory, |cx| *lock.read(cx.cpu()));
        assert_eq!(sums, [10; 2]);
    });
}

#[test]
fn more_lwps_than_cpus_all_come_to_run() {
    on_both_hosts(|bed| {
        bed.users(6, |_, lwp| {
            for _ in 0..4 {
                assert_eq!(lwp.getpid(), Ok(i64::from(lwp.pid())));
            }
        });
    });
}

//! Callouts, work queues, threads, software interrupts, cross-calls, counters, sysctl; and that nothing stays behind.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // tests run on the host

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use abi::{Errno, Itimerspec, O_NONBLOCK, Pollfd, Syscalls};
use common::{boot, pipe, process, user};
use hypercall::{Clock, PosixHost};
use kern::callout::Callout;
use kern::softint::Softint;
use kern::sysctl::{Node, Value};
use kern::workqueue::Workqueue;
use kern::{Kernel, KernelMemory, LwpHandle, RforkFds};

/// A kernel that may have no threads.
fn boot_threadless() -> Arc<Kernel> {
    let params = [("RUMP_NCPU", "1"), ("RUMP_THREADS", "0")];
    Kernel::builder(PosixHost::with_params(params))
        .boot()
        .expect("boots")
}

#[test]
fn callouts_come_in_the_order_of_their_times() {
    let k = boot();
    let (tx, rx) = mpsc::channel();
    let make = |n: u32| {
        let tx = tx.clone();
        Callout::new(&k, move |_| tx.send(n).expect("somebody listens"))
    };
    let (a, b, c, d) = (make(1), make(2), make(3), make(4));
    k.implicit(&KernelMemory, |cx| {
        let now = cx.now(Clock::Monotonic);
        c.schedule(cx.cpu(), now + 3_000_000);
        b.schedule(cx.cpu(), now + 2_000_000);
        a.schedule(cx.cpu(), now + 1_000_000);
        d.schedule(cx.cpu(), now + 1_500_000);
        assert!(d.pending() && d.stop(cx.cpu()) && !d.stop(cx.cpu()));
        b.schedule(cx.cpu(), now + 4_000_000);
    });
    let came: Vec<u32> = rx.iter().take(3).collect();
    assert_eq!(came, [1, 3, 2]);
    k.implicit(&KernelMemory, |cx| a.halt(cx));
}

#[test]
fn a_work_queue_does_things_in_order_and_can_be_waited_for() {
    for k in [boot(), boot_threadless()] {
        let done = Arc::new(Mutex::new(Vec::new()));
        k.implicit(&KernelMemory, |cx| {
            let queue = Workqueue::new(cx, "test");
            for n in 0..100 {
                let done = done.clone();
                queue.enqueue(cx.cpu(), move |_| done.lock().expect("a list").push(n));
            }
            queue.wait(cx);
        });
        assert_eq!(*done.lock().expect("a list"), Vec::from_iter(0..100));
    }
}

#[test]
fn shutdown_does_the_work_that_waits_and_ends_the_threads() {
    let k = boot();
    let (tx, rx) = mpsc::channel();
    let queue = k.implicit(&KernelMemory, |cx| {
        let threads_tx = tx.clone();
        k.kthread_create(cx, "test", move |cx| {
            while !cx.lwp().is_leaving() {
                let _ = cx.sleep_until(u64::MAX);
            }
            threads_tx.send("thread").expect("somebody listens");
        })
        .expect("a thread");
        let queue = Workqueue::new(cx, "test");
        queue.enqueue(cx.cpu(), move |_| {
            tx.send("work").expect("somebody listens")
        });
        queue
    });
    k.shutdown(true).expect("halts");
    let mut ended: Vec<_> = rx.iter().take(2).collect();
    ended.sort_unstable();
    assert_eq!(ended, ["thread", "work"]);
    k.implicit(&KernelMemory, |cx| {
        assert_eq!(k.kthread_create(cx, "late", |_| ()), Err(Errno::ESHUTDOWN));
    });
    drop(queue);
}

#[test]
fn software_interrupts_run_before_the_cpu_is_given_up() {
    let k = boot();
    let ran = Arc::new(AtomicUsize::new(0));
    let counter = ran.clone();
    k.implicit(&KernelMemory, |cx| {
        let softint = Softint::establish(cx, move |_| {
            counter.fetch_add(1, Ordering::SeqCst);
        })
        .expect("a place");
        softint.schedule(cx.cpu());
        softint.schedule(cx.cpu());
        assert_eq!(ran.load(Ordering::SeqCst), 0);
        cx.unscheduled(|| assert_eq!(ran.load(Ordering::SeqCst), 1));
        softint.schedule(cx.cpu());
    });
    assert_eq!(ran.load(Ordering::SeqCst), 2);
}

#[test]
fn who_enters_is_told_before_each_wait() {
    let k = boot();
    let lwp = process(&k);
    let told = AtomicUsize::new(0);
    let on_block = || {
        told.fetch_add(1, Ordering::SeqCst);
    };
    lwp.enter_told(&KernelMemory, Some(&on_block), |cx| {
        assert!(cx.syscall(abi::nr::getpid, &[0; 6]).is_ok());
        assert_eq!(told.load(Ordering::SeqCst), 0);
        cx.unscheduled(|| assert_eq!(told.load(Ordering::SeqCst), 1));
        let short = k.host().now(Clock::Monotonic) + 1;
        let sleeper = cx.sleeper();
        sleeper.prepare(false);
        sleeper.sleep(cx.cpu(), Some(short));
        assert_eq!(told.load(Ordering::SeqCst), 2);
    });
    assert_eq!(told.load(Ordering::SeqCst), 2);
}

#[test]
fn who_waits_for_a_cpu_is_told() {
    let k = boot_threadless();
    let (first, second) = (process(&k), process(&k));
    let (tell, told) = mpsc::channel();
    first.enter(&KernelMemory, |cx| {
        let waiter = std::thread::spawn(move || {
            let on_block = || {
                let _ = tell.send(());
            };
            second.enter_told(&KernelMemory, Some(&on_block), |_| ());
        });
        assert!(told.recv().is_ok());
        cx.unscheduled(|| waiter.join().expect("it gets one"));
    });
}

#[test]
fn a_cross_call_runs_on_every_cpu_busy_or_idle() {
    let k = boot();
    let other = process(&k);
    let (tx, rx) = mpsc::channel();
    let (stop, stopped) = mpsc::channel::<()>();
    let busy = std::thread::spawn(move || {
        other.enter(&KernelMemory, |cx| {
            tx.send(cx.index()).expect("somebody listens");
            while stopped.try_recv().is_err() {
                cx.unscheduled(std::thread::yield_now);
            }
        });
    });
    rx.recv().expect("it runs");
    let seen = Arc::new(Mutex::new(Vec::new()));
    k.implicit(&KernelMemory, |cx| {
        for cpu in 0..2 {
            let seen = seen.clone();
            k.xcall_unicast(cx, cpu, move |c| {
                seen.lock().expect("a list").push(c.index())
            });
        }
        let all = seen.clone();
        k.xcall_broadcast(cx, move |c| all.lock().expect("a list").push(c.index()));
    });
    stop.send(()).expect("it listens");
    busy.join().expect("ends");
    let mut seen = seen.lock().expect("a list").clone();
    assert_eq!(seen[..2], [0, 1]);
    seen[2..].sort_unstable();
    assert_eq!(seen[2..], [0, 1]);
}

#[test]
fn events_are_counted_on_all_cpus_together() {
    let k = boot();
    let counter = k.implicit(&KernelMemory, |cx| {
        let counter = k.evcnts().attach(cx, "test", "event");
        assert_eq!(k.evcnts().attach(cx, "test", "event"), counter);
        counter
    });
    std::thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| {
                for _ in 0..1000 {
                    k.implicit(&KernelMemory, |cx| k.evcnts().count(cx.cpu(), counter));
                }
            });
        }
    });
    k.implicit(&KernelMemory, |cx| {
        assert_eq!(k.evcnts().text(cx), "test event 4000\n");
    });
}

fn sysctl(lwp: &LwpHandle, name: &std::ffi::CStr, new: &[u8]) -> Result<Vec<u8>, Errno> {
    let mut old = vec![0; 4096];
    let mut len = 4096u64.to_le_bytes();
    lwp.__sysctl(name, &mut old, &mut len, new, new.len())?;
    old.truncate(u64::from_le_bytes(len) as usize);
    Ok(old)
}

#[test]
fn sysctl_reads_lists_and_lets_the_superuser_write() {
    let k = boot();
    let (root, p) = (process(&k), user(&k, 1, 1));
    assert_eq!(sysctl(&p, c"hw.ncpu", &[]), Ok(2i64.to_le_bytes().to_vec()));
    assert_eq!(sysctl(&p, c"kern.ostype", &[]), Ok(b"Linux\0".to_vec()));
    assert_eq!(sysctl(&p, c"no.such", &[]), Err(Errno::ENOENT));
    assert_eq!(sysctl(&p, c"kern.hostname", b"me"), Err(Errno::EPERM));
    assert_eq!(sysctl(&root, c"kern.ostype", b"me"), Err(Errno::EPERM));
    sysctl(&root, c"kern.hostname", b"me\0").expect("written");
    assert_eq!(sysctl(&p, c"kern.hostname", &[]), Ok(b"me\0".to_vec()));
    let list = sysctl(&p, c"hw", &[]).expect("a list");
    assert!(String::from_utf8_lossy(&list).contains("hw.ncpu int ro\n"));
    let mut len = 2u64.to_le_bytes();
    let mut old = [0; 2];
    assert_eq!(
        p.__sysctl(c"hw.ncpu", &mut old, &mut len, &[], 0),
        Err(Errno::ENOMEM)
    );
    assert_eq!(u64::from_le_bytes(len), 8);
    k.implicit(&KernelMemory, |cx| {
        let node = || {
            Node::int(|_| 1).writable(|_, value| {
                assert_eq!(value, Value::Int(-7));
                Ok(())
            })
        };
        k.sysctl().add(cx, "test.node", node()).expect("added");
        assert_eq!(k.sysctl().add(cx, "test.node", node()), Err(Errno::EEXIST));
    });
    sysctl(&root, c"test.node", &(-7i32).to_le_bytes()).expect("written");
}

fn timer(p: &LwpHandle, flags: i32, value: i64, interval: i64) -> i32 {
    let fd = p.timerfd_create(1, flags).expect("a timer") as i32;
    let spec = Itimerspec {
        value_nsec: value,
        interval_nsec: interval,
        ..Itimerspec::default()
    };
    p.timerfd_settime(fd, 0, &spec.to_bytes(), &mut [])
        .expect("set");
    fd
}

#[test]
fn a_timer_is_read_and_polled_with_and_without_threads() {
    for k in [boot(), boot_threadless()] {
        let p = process(&k);
        let fd = timer(&p, 0, 1_000_000, 1_000_000);
        let mut buf = [0; 8];
        assert_eq!(p.read(fd, &mut buf, 8), Ok(8));
        assert!(u64::from_le_bytes(buf) >= 1);
        let mut entry = Pollfd {
            fd,
            events: 1,
            revents: 0,
        }
        .to_bytes();
        for _ in 0..3 {
            assert_eq!(p.poll(&mut entry, 1, -1), Ok(1));
            assert_eq!(p.read(fd, &mut buf, 8), Ok(8));
        }
        let rest = timer(&p, O_NONBLOCK, 0, 0);
        assert_eq!(p.read(rest, &mut buf, 8), Err(Errno::EAGAIN));
        let mut spec = [0; 32];
        assert_eq!(p.timerfd_gettime(fd, &mut spec), Ok(0));
        assert_eq!(Itimerspec::from_bytes(&spec).interval_nsec, 1_000_000);
        assert_eq!(p.timerfd_gettime(0, &mut []), Err(Errno::EFAULT));
    }
}

/// A kernel that has used everything that could keep it alive.
fn used_kernel() -> Arc<Kernel> {
    let k = boot();
    let p = process(&k);
    let ep = p.epoll_create1(0).expect("an instance") as i32;
    let (r, w) = pipe(&p, 0).expect("a pipe");
    let fd = timer(&p, 0, 900_000_000, 1);
    for watched in [r, w, fd] {
        let event = abi::EpollEvent { events: 1, data: 0 };
        p.epoll_ctl(ep, 1, watched, &event.to_bytes())
            .expect("added");
    }
    let child = p.rfork(RforkFds::Copy).expect("a child");
    k.implicit(&KernelMemory, |cx| {
        let queue = Workqueue::new(cx, "test");
        queue.enqueue(cx.cpu(), |_| ());
        queue.wait(cx);
    });
    drop(child);
    k
}

#[test]
fn a_dropped_kernel_is_gone() {
    let k = used_kernel();
    let weak = Arc::downgrade(&k);
    k.shutdown(true).expect("halts");
    drop(k);
    assert!(weak.upgrade().is_none());
    let weak = Arc::downgrade(&used_kernel());
    // A thread of it may be letting go of it just now.
    while weak.upgrade().is_some() {
        std::thread::yield_now();
    }
}

fn status(field: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("procfs");
    let line = status.lines().find(|l| l.starts_with(field));
    let words = line.expect("the field").split_whitespace();
    words
        .skip(1)
        .find_map(|n| n.parse().ok())
        .expect("a number")
}

#[test]
fn a_thousand_kernels_leave_nothing() {
    let round = || {
        let k = used_kernel();
        k.shutdown(true).expect("halts");
    };
    (0..100).for_each(|_| round());
    let before = status("VmRSS");
    (0..1000).for_each(|_| round());
    let grown = status("VmRSS").saturating_sub(before);
    assert!(grown < 4096, "{grown} KiB more than before");
}

//! kqueue through system calls: every filter that needs no file system.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use abi::{Errno, Kevent, Pollfd, Syscalls};
use common::sim::{in_process, over_seeds, with_kernel};
use common::{boot, pipe, process};
use kern::kqueue::*;
use kern::{KernelMemory, LwpHandle, RforkFds};

const SEEDS: u64 = 500;

fn kev(ident: u64, filter: u32, flags: u32, fflags: u32, data: i64) -> Kevent {
    Kevent {
        ident,
        filter,
        flags,
        fflags,
        data,
        udata: ident + 1000,
        pad0: 0,
    }
}

/// Makes one change.
fn change(p: &LwpHandle, kq: i32, kev: Kevent) -> Result<i64, Errno> {
    p.kevent(kq, &kev.to_bytes(), 1, &mut [], 0, &[])
}

/// At most so many events: those that are there, or with `wait` until there is one.
fn events(p: &LwpHandle, kq: i32, max: usize, wait: bool) -> Vec<Kevent> {
    let mut raw = vec![0; max * Kevent::SIZE];
    let now = [0; 16];
    let timeout: &[u8] = if wait { &[] } else { &now };
    let n = p.kevent(kq, &[], 0, &mut raw, max, timeout).expect("waits");
    raw.as_chunks().0[..n as usize]
        .iter()
        .map(Kevent::from_bytes)
        .collect()
}

/// The one event that is there: identifier, flags, fflags and data.
fn one(p: &LwpHandle, kq: i32) -> Option<(u64, u32, u32, i64)> {
    let all = events(p, kq, 8, false);
    assert!(all.len() <= 1, "{all:?}");
    all.first().map(|e| {
        assert_eq!(e.udata, e.ident + 1000);
        (e.ident, e.flags, e.fflags, e.data)
    })
}

fn kqueue(p: &LwpHandle) -> i32 {
    p.kqueue().expect("a kqueue") as i32
}

#[test]
fn a_pipe_has_bytes_to_read_room_to_write_and_an_end() {
    let k = boot();
    let p = process(&k);
    let kq = kqueue(&p);
    let (r, w) = pipe(&p, 0).expect("a pipe");
    let (ri, wi) = (r as u64, w as u64);
    change(&p, kq, kev(ri, EVFILT_READ, EV_ADD, 0, 0)).expect("added");
    assert_eq!(one(&p, kq), None);
    p.write(w, b"hello", 5).expect("written");
    assert_eq!(one(&p, kq), Some((ri, 0, 0, 5)));
    // It stays until it is read.
    assert_eq!(one(&p, kq), Some((ri, 0, 0, 5)));
    p.read(r, &mut [0; 2], 2).expect("read");
    assert_eq!(one(&p, kq), Some((ri, 0, 0, 3)));
    p.read(r, &mut [0; 3], 3).expect("read");
    assert_eq!(one(&p, kq), None);
    change(&p, kq, kev(wi, EVFILT_WRITE, EV_ADD, 0, 0)).expect("added");
    assert_eq!(one(&p, kq), Some((wi, 0, 0, 65536)));
    change(&p, kq, kev(wi, EVFILT_WRITE, EV_DELETE, 0, 0)).expect("deleted");
    p.close(w).expect("closed");
    assert_eq!(one(&p, kq), Some((ri, EV_EOF, 0, 0)));
    assert_eq!(
        change(&p, kq, kev(wi, EVFILT_WRITE, EV_DELETE, 0, 0)),
        Err(Errno::ENOENT)
    );
}

#[test]
fn flags_say_how_often_and_whether() {
    let k = boot();
    let p = process(&k);
    let kq = kqueue(&p);
    let (r, w) = pipe(&p, 0).expect("a pipe");
    let ri = r as u64;
    let add = |flags| change(&p, kq, kev(ri, EVFILT_READ, EV_ADD | flags, 0, 0)).expect("added");
    let put = || p.write(w, b"x", 1).expect("written");

    add(EV_CLEAR);
    put();
    assert_eq!(one(&p, kq), Some((ri, EV_CLEAR, 0, 1)));
    assert_eq!(one(&p, kq), None);
    put();
    assert_eq!(one(&p, kq), Some((ri, EV_CLEAR, 0, 2)));

    // A change looks again.
    add(EV_ONESHOT);
    assert_eq!(one(&p, kq), Some((ri, EV_ONESHOT, 0, 2)));
    put();
    assert_eq!(one(&p, kq), None);

    add(EV_DISABLE);
    assert_eq!(one(&p, kq), None);
    change(&p, kq, kev(ri, EVFILT_READ, EV_ENABLE, 0, 0)).expect("enabled");
    assert_eq!(one(&p, kq), Some((ri, 0, 0, 3)));
    change(&p, kq, kev(ri, EVFILT_READ, EV_DISABLE, 0, 0)).expect("disabled");
    assert_eq!(one(&p, kq), None);

    add(EV_ENABLE | EV_DISPATCH);
    assert_eq!(one(&p, kq), Some((ri, EV_DISPATCH, 0, 3)));
    assert_eq!(one(&p, kq), None);
    change(&p, kq, kev(ri, EVFILT_READ, EV_ENABLE, 0, 0)).expect("enabled");
    assert_eq!(one(&p, kq), Some((ri, EV_DISPATCH, 0, 3)));

    // A low-water mark.
    let lowat = kev(ri, EVFILT_READ, EV_ADD | EV_ENABLE, NOTE_LOWAT, 5);
    change(&p, kq, lowat).expect("changed");
    assert_eq!(one(&p, kq), None);
    p.write(w, b"xx", 2).expect("written");
    assert_eq!(one(&p, kq), Some((ri, 0, 0, 5)));
}

#[test]
fn errors_are_events_where_there_is_room() {
    let k = boot();
    let p = process(&k);
    let kq = kqueue(&p);
    let (r, _) = pipe(&p, 0).expect("a pipe");
    let ri = r as u64;
    let wrong = [
        (kev(ri, EVFILT_READ, EV_DELETE, 0, 0), Errno::ENOENT),
        (kev(ri, EVFILT_READ, EV_ENABLE, 0, 0), Errno::ENOENT),
        (kev(77, EVFILT_READ, EV_ADD, 0, 0), Errno::EBADF),
        (kev(1 << 40, EVFILT_READ, EV_ADD, 0, 0), Errno::EBADF),
        (kev(ri, EVFILT_WRITE, EV_ADD, 0, 0), Errno::EINVAL),
        (kev(ri, EVFILT_VNODE, EV_ADD, NOTE_WRITE, 0), Errno::EINVAL),
        (kev(kq as u64, EVFILT_READ, EV_ADD, 0, 0), Errno::EINVAL),
        (kev(ri, EVFILT_AIO, EV_ADD, 0, 0), Errno::EINVAL),
        (kev(ri, u32::MAX, EV_ADD, 0, 0), Errno::EINVAL),
        (kev(7777, EVFILT_PROC, EV_ADD, NOTE_EXIT, 0), Errno::ESRCH),
        (kev(0, EVFILT_SIGNAL, EV_ADD, 0, 0), Errno::EINVAL),
        (kev(65, EVFILT_SIGNAL, EV_ADD, 0, 0), Errno::EINVAL),
        (kev(1, EVFILT_TIMER, EV_ADD, 0, -1), Errno::EINVAL),
        (kev(1, EVFILT_TIMER, EV_ADD, 9, 1), Errno::EINVAL),
    ];
    let mut list = Vec::new();
    for (kev, error) in wrong {
        assert_eq!(change(&p, kq, kev), Err(error), "{kev:?}");
        list.extend(kev.to_bytes());
    }
    list.extend(kev(ri, EVFILT_READ, EV_ADD | EV_RECEIPT, 0, 0).to_bytes());
    let count = wrong.len() + 1;
    let mut raw = vec![0; count * Kevent::SIZE];
    assert_eq!(
        p.kevent(kq, &list, count, &mut raw, count, &[]),
        Ok(count as i64)
    );
    let told: Vec<Kevent> = raw.as_chunks().0.iter().map(Kevent::from_bytes).collect();
    for (event, (_, error)) in told.iter().zip(wrong) {
        assert_eq!((event.flags, event.data), (EV_ERROR, error.0.into()));
    }
    assert_eq!((told[count - 1].flags, told[count - 1].data), (EV_ERROR, 0));
    // Without room for the second error it is the answer. (The pipe's end is there now, to be deleted and enabled.)
    assert_eq!(
        p.kevent(kq, &list[2 * Kevent::SIZE..], count - 2, &mut raw, 1, &[]),
        Err(Errno::EBADF)
    );
    assert_eq!(p.kevent(r, &[], 0, &mut raw, 1, &[]), Err(Errno::EBADF));
    assert_eq!(p.kqueue1(1), Err(Errno::EINVAL));
}

#[test]
fn a_number_that_is_closed_is_no_longer_watched() {
    let k = boot();
    let p = process(&k);
    let kq = kqueue(&p);
    let (r, w) = pipe(&p, 0).expect("a pipe");
    let copy = p.dup(r).expect("a copy") as i32;
    change(&p, kq, kev(r as u64, EVFILT_READ, EV_ADD, 0, 0)).expect("added");
    p.write(w, b"x", 1).expect("written");
    p.close(r).expect("closed");
    assert_eq!(one(&p, kq), None, "the number, not the file, is watched");
    // The number again is another file, which nobody asked for.
    let (other, other_w) = pipe(&p, 0).expect("a pipe");
    assert_eq!(other, r);
    p.write(other_w, b"x", 1).expect("written");
    assert_eq!(one(&p, kq), None);
    assert_eq!(
        change(&p, kq, kev(r as u64, EVFILT_READ, EV_DELETE, 0, 0)),
        Err(Errno::ENOENT)
    );
    change(&p, kq, kev(r as u64, EVFILT_READ, EV_ADD, 0, 0)).expect("added");
    assert_eq!(one(&p, kq), Some((r as u64, 0, 0, 1)));
    p.close(copy).expect("closed");
}

#[test]
fn a_fork_does_not_hand_a_kqueue_on() {
    let k = boot();
    let p = process(&k);
    let kq = kqueue(&p);
    let (r, _) = pipe(&p, 0).expect("a pipe");
    let child = p.rfork(RforkFds::Copy).expect("a child");
    assert_eq!(child.fcntl(kq, 1, &mut []), Err(Errno::EBADF));
    assert!(child.fcntl(r, 1, &mut []).is_ok());
    assert_eq!(child.kqueue(), Ok(kq.into()), "its number is free");
}

#[test]
fn a_users_event_is_triggered_and_carries_its_flags() {
    let k = boot();
    let p = process(&k);
    let kq = kqueue(&p);
    let user = |flags, fflags, data| {
        change(&p, kq, kev(5, EVFILT_USER, flags, fflags, data)).expect("changed");
    };
    user(EV_ADD | EV_CLEAR, NOTE_FFCOPY | 0xf0, 0);
    assert_eq!(one(&p, kq), None);
    user(0, NOTE_FFOR | 0x3 | NOTE_TRIGGER, 7);
    assert_eq!(one(&p, kq), Some((5, EV_CLEAR, 0xf3, 7)));
    assert_eq!(one(&p, kq), None);
    user(0, NOTE_FFAND | 0x81 | NOTE_TRIGGER, 0);
    assert_eq!(one(&p, kq), Some((5, EV_CLEAR, 0x81, 0)));
    // One that is not cleared stays triggered.
    user(EV_ADD, NOTE_TRIGGER, 0);
    for _ in 0..2 {
        assert_eq!(one(&p, kq), Some((5, 0, 0x81, 0)));
    }
}

#[test]
fn signals_are_counted_for_who_asked() {
    let k = boot();
    let p = process(&k);
    let kq = kqueue(&p);
    change(&p, kq, kev(10, EVFILT_SIGNAL, EV_ADD, 0, 0)).expect("added");
    let send = |signo| {
        p.enter(&KernelMemory, |cx| cx.psignal(cx.proc(), signo))
            .expect("sent");
    };
    send(12);
    assert_eq!(one(&p, kq), None);
    send(10);
    send(10);
    assert_eq!(one(&p, kq), Some((10, EV_CLEAR, 0, 2)));
    assert_eq!(one(&p, kq), None);
}

#[test]
fn a_process_forks_execs_and_ends() {
    let k = boot();
    let p = process(&k);
    let kq = kqueue(&p);
    let child = p.rfork(RforkFds::Clear).expect("a child");
    let pid = child.pid() as u64;
    let all = NOTE_FORK | NOTE_EXEC | NOTE_EXIT;
    change(&p, kq, kev(pid, EVFILT_PROC, EV_ADD, all, 0)).expect("added");
    let grandchild = child.rfork(RforkFds::Clear).expect("a grandchild");
    child
        .enter(&KernelMemory, |cx| kern::lwproc::exec(cx, "other"))
        .expect("execs");
    assert_eq!(one(&p, kq), Some((pid, EV_CLEAR, NOTE_FORK | NOTE_EXEC, 0)));
    drop(grandchild);
    assert_eq!(one(&p, kq), None);
    drop(child);
    assert_eq!(one(&p, kq), Some((pid, EV_CLEAR | EV_EOF, NOTE_EXIT, 0)));
    assert_eq!(
        change(&p, kq, kev(pid, EVFILT_PROC, EV_DELETE, 0, 0)),
        Err(Errno::ENOENT)
    );
}

#[test]
fn a_kqueue_is_readable_when_it_has_an_event() {
    let k = boot();
    let p = process(&k);
    let kq = kqueue(&p);
    let ready = || {
        let mut raw = Pollfd {
            fd: kq,
            events: 1,
            revents: 0,
        }
        .to_bytes();
        p.poll(&mut raw, 1, 0).expect("polls")
    };
    change(&p, kq, kev(1, EVFILT_USER, EV_ADD | EV_CLEAR, 0, 0)).expect("added");
    assert_eq!(ready(), 0);
    change(&p, kq, kev(1, EVFILT_USER, 0, NOTE_TRIGGER, 0)).expect("triggered");
    assert_eq!(ready(), 1);
    assert_eq!(events(&p, kq, 1, true).len(), 1);
    assert_eq!(ready(), 0);
    let mut buf = [0; 8];
    assert_eq!(p.read(kq, &mut buf, 8), Err(Errno::ENXIO));
}

#[test]
fn timers_count_what_was_missed_and_come_in_time() {
    over_seeds(SEEDS / 2, |seed| {
        with_kernel(seed, 2, |_, kernel| {
            let p = kernel.rfork(RforkFds::Clear).expect("a process");
            let kq = kqueue(&p);
            let now = || {
                let mut raw = [0; 16];
                p.clock_gettime(1, &mut raw).expect("a time");
                let time = abi::Timespec::from_bytes(&raw);
                time.tv_sec * 1_000_000_000 + time.tv_nsec
            };
            let start = now();
            let timer = |ident, flags, fflags, data| {
                change(
                    &p,
                    kq,
                    kev(ident, EVFILT_TIMER, EV_ADD | flags, fflags, data),
                )
                .expect("added");
            };
            timer(1, 0, NOTE_MSECONDS, 10);
            timer(2, EV_ONESHOT, NOTE_USECONDS, 25_000);
            timer(3, EV_DISABLE, NOTE_NSECONDS, 1);
            let mut often = 0;
            let mut once = 0;
            while often < 5 {
                for event in events(&p, kq, 4, true) {
                    match event.ident {
                        1 => {
                            often += event.data;
                            assert!(now() >= start + often * 10_000_000);
                        }
                        2 => {
                            once += event.data;
                            assert!(now() >= start + 25_000_000);
                        }
                        _ => panic!("{event:?}"),
                    }
                }
            }
            assert_eq!(once, 1);
            // A while without anybody looking counts.
            change(&p, kq, kev(3, EVFILT_TIMER, EV_DELETE, 0, 0)).expect("deleted");
            let second = abi::Timespec {
                tv_sec: 1,
                tv_nsec: 0,
            };
            p.nanosleep(&second.to_bytes(), &mut []).expect("sleeps");
            let event = one(&p, kq).expect("an event");
            assert!(event.3 >= 99, "{event:?}");
            let missing = change(&p, kq, kev(2, EVFILT_TIMER, EV_DELETE, 0, 0));
            assert_eq!(missing, Err(Errno::ENOENT));
        })
    });
}

#[test]
fn a_wait_ends_with_its_time() {
    let run = with_kernel(1, 1, |_, kernel| {
        let p = kernel.rfork(RforkFds::Clear).expect("a process");
        let kq = kqueue(&p);
        let time = abi::Timespec {
            tv_sec: 3600,
            tv_nsec: 0,
        };
        let mut raw = [0; Kevent::SIZE];
        let n = p.kevent(kq, &[], 0, &mut raw, 1, &time.to_bytes());
        assert_eq!(n, Ok(0));
        // Absolute, on the clock of days.
        let mut now = [0; 16];
        p.clock_gettime(0, &mut now).expect("a time");
        let at = abi::Timespec::from_bytes(&now).tv_sec + 60;
        let abs = kev(1, EVFILT_TIMER, EV_ADD, NOTE_SECONDS | NOTE_ABSTIME, at);
        change(&p, kq, abs).expect("added");
        assert_eq!(events(&p, kq, 1, true).len(), 1);
        p.clock_gettime(0, &mut now).expect("a time");
        assert!(abi::Timespec::from_bytes(&now).tv_sec >= at);
    });
    run.result.expect("passes");
}

#[test]
fn no_event_is_lost_whoever_waits() {
    over_seeds(SEEDS, |seed| {
        with_kernel(seed, 1 + seed as usize % 3, |host, kernel| {
            let p = kernel.rfork(RforkFds::Clear).expect("a process");
            let kq = kqueue(&p);
            let pipes: Vec<_> = (0..3).map(|_| pipe(&p, 0o4000).expect("a pipe")).collect();
            for (i, (r, _)) in pipes.iter().enumerate() {
                let flags = [0, EV_CLEAR, EV_DISPATCH][i];
                change(&p, kq, kev(*r as u64, EVFILT_READ, EV_ADD | flags, 0, 0)).expect("added");
            }
            let total = Arc::new(AtomicU32::new(0));
            let counted = total.clone();
            in_process(host, kernel, p.pid(), 5, move |i, lwp| {
                if i < 3 {
                    for _ in 0..4 {
                        lwp.write(pipes[i].1, b"x", 1).expect("written");
                    }
                    return;
                }
                // Two that wait for everything, until there were twelve bytes.
                while counted.load(Ordering::SeqCst) < 12 {
                    let mut raw = [0; 2 * Kevent::SIZE];
                    let tick = abi::Timespec {
                        tv_sec: 0,
                        tv_nsec: 50_000_000,
                    };
                    let wait: &[u8] = &tick.to_bytes();
                    let n = lwp.kevent(kq, &[], 0, &mut raw, 2, wait).expect("waits");
                    for raw in &raw.as_chunks().0[..n as usize] {
                        let event = Kevent::from_bytes(raw);
                        let fd = event.ident as i32;
                        let mut buf = [0; 16];
                        while let Ok(n @ 1..) = lwp.read(fd, &mut buf, 16) {
                            counted.fetch_add(n as u32, Ordering::SeqCst);
                        }
                        let enable = kev(event.ident, EVFILT_READ, EV_ENABLE, 0, 0);
                        change(lwp, kq, enable).expect("enabled");
                    }
                }
            });
            assert_eq!(total.load(Ordering::SeqCst), 12);
        })
    });
}

#[test]
fn one_of_many_takes_what_comes_once() {
    over_seeds(SEEDS, |seed| {
        with_kernel(seed, 2, |host, kernel| {
            let p = kernel.rfork(RforkFds::Clear).expect("a process");
            let kq = kqueue(&p);
            let taken = Arc::new(AtomicU32::new(0));
            let got = taken.clone();
            in_process(host, kernel, p.pid(), 4, move |i, lwp| {
                if i == 0 {
                    for ident in 1..=6 {
                        let once = kev(ident, EVFILT_USER, EV_ADD | EV_ONESHOT, NOTE_TRIGGER, 0);
                        change(lwp, kq, once).expect("added");
                    }
                    return;
                }
                while got.load(Ordering::SeqCst) < 6 {
                    let mut raw = [0; 2 * Kevent::SIZE];
                    let tick = abi::Timespec {
                        tv_sec: 0,
                        tv_nsec: 1_000_000,
                    };
                    let n = lwp.kevent(kq, &[], 0, &mut raw, 2, &tick.to_bytes());
                    got.fetch_add(n.expect("waits") as u32, Ordering::SeqCst);
                }
            });
            assert_eq!(taken.load(Ordering::SeqCst), 6);
            assert_eq!(events(&p, kq, 8, false).len(), 0);
        })
    });
}

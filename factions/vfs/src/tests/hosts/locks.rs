//! Locks on files: whole ones, ranges, and those of open files.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use abi::*;
use kern::{LwpHandle, RforkFds};
use testing::Setup;

use super::{dice, open, touch, with_vfs};

fn record(lwp: &LwpHandle, fd: i32, cmd: i32, kind: i16, at: i64, len: i64) -> SysResult {
    let flock = Flock {
        l_type: kind,
        l_start: at,
        l_len: len,
        ..Flock::default()
    };
    lwp.fcntl(fd, cmd, &mut flock.to_bytes())
}

#[test]
fn record_locks_let_one_in_at_a_time_and_break_circles() {
    with_vfs(Setup::new(), |bed| {
        let lwp = bed.process();
        touch(&lwp, "/f");
        let on = bed.clone();
        bed.users(3, move |user, lwp| {
            let mut dice = dice(&on, user);
            let fd = open(lwp, "/f", O_RDWR).expect("open");
            for _ in 0..10 {
                let at = dice.below(3) as i64;
                match record(lwp, fd, F_SETLKW, F_WRLCK, at, 1) {
                    Ok(_) => {
                        let mut byte = [0];
                        lwp.pread64(fd, &mut byte, 1, at).expect("read");
                        lwp.sched_yield().expect("given up");
                        byte[0] = byte[0].wrapping_add(1);
                        lwp.pwrite64(fd, &byte, 1, at).expect("written");
                        lwp.pwrite64(fd, &byte, 1, 8 + at).expect("written");
                    }
                    Err(error) => assert_eq!(error, Errno::EDEADLK),
                }
                // Holding several at times is what makes circles.
                if dice.below(3) != 0 {
                    for at in 0..3 {
                        record(lwp, fd, F_SETLK, F_UNLCK, at, 1).expect("given back");
                    }
                }
            }
            lwp.close(fd).expect("closed");
        });
        let fd = open(&lwp, "/f", O_RDONLY).expect("open");
        let mut bytes = [0; 11];
        lwp.read(fd, &mut bytes, 11).expect("read");
        assert_eq!(bytes[..3], bytes[8..], "nobody came in between");
    });
}

#[test]
fn ranges_that_overlap_exclude_each_other_and_others_do_not() {
    with_vfs(Setup::new(), |bed| {
        let lwp = bed.process();
        touch(&lwp, "/f");
        // Who has which of eight bytes: a writer alone, readers together.
        let bytes: Arc<[AtomicU32; 8]> = Arc::default();
        const WRITER: u32 = 1000;
        let on = bed.clone();
        bed.users(4, move |user, lwp| {
            let mut dice = dice(&on, user);
            let fd = open(lwp, "/f", O_RDWR).expect("open");
            // Locks of processes and of open files see each other; a circle among the latter is nobody's to find.
            let cmd = if user % 2 == 0 {
                F_SETLKW
            } else {
                F_OFD_SETLKW
            };
            for _ in 0..5 {
                let start = dice.below(8);
                let len = 1 + dice.below(8 - start);
                let write = dice.below(2) == 0;
                let (kind, weight) = if write {
                    (F_WRLCK, WRITER)
                } else {
                    (F_RDLCK, 1)
                };
                match record(lwp, fd, cmd, kind, start as i64, len as i64) {
                    Ok(_) => {}
                    Err(error) => {
                        assert_eq!(error, Errno::EDEADLK);
                        continue;
                    }
                }
                let mine = &bytes[start as usize..(start + len) as usize];
                for byte in mine {
                    let before = byte.fetch_add(weight, Ordering::SeqCst);
                    assert!(before < WRITER && (before == 0 || !write), "{before}");
                }
                lwp.sched_yield().expect("given up");
                for byte in mine {
                    byte.fetch_sub(weight, Ordering::SeqCst);
                }
                let unlock = if user % 2 == 0 { F_SETLK } else { F_OFD_SETLK };
                record(lwp, fd, unlock, F_UNLCK, 0, 0).expect("given back");
            }
        });
    });
}

#[test]
fn a_flock_is_shared_or_alone_and_goes_with_the_last_descriptor() {
    with_vfs(Setup::new(), |bed| {
        let lwp = bed.process();
        touch(&lwp, "/f");
        let holders = Arc::new(AtomicU32::new(0));
        let on = bed.clone();
        bed.users(4, move |user, lwp| {
            let mut dice = dice(&on, user);
            for _ in 0..4 {
                let fd = open(lwp, "/f", O_RDWR).expect("open");
                let alone = dice.below(2) == 0;
                lwp.flock(fd, if alone { LOCK_EX } else { LOCK_SH })
                    .expect("locked");
                let weight = if alone { 1000 } else { 1 };
                let before = holders.fetch_add(weight, Ordering::SeqCst);
                assert!(before < 1000 && (before == 0 || !alone), "{before}");
                lwp.sched_yield().expect("given up");
                holders.fetch_sub(weight, Ordering::SeqCst);
                match dice.below(3) {
                    // A copy keeps it.
                    0 => {
                        let copy = lwp.dup(fd).expect("a copy") as i32;
                        lwp.close(fd).expect("closed");
                        lwp.close(copy).expect("closed");
                    }
                    1 => {
                        lwp.flock(fd, LOCK_UN).expect("given back");
                        lwp.close(fd).expect("closed");
                    }
                    // So does a child, whose end gives it back.
                    _ => {
                        let child = lwp.rfork(RforkFds::Copy).expect("a process");
                        lwp.close(fd).expect("closed");
                        drop(child);
                    }
                }
            }
        });
        let fd = open(&lwp, "/f", O_RDWR).expect("open");
        lwp.flock(fd, LOCK_EX | LOCK_NB).expect("nobody has it");
    });
}

#[test]
fn who_waits_for_a_lock_gets_it_or_is_told_to_go() {
    with_vfs(Setup::new(), |bed| {
        let lwp = bed.process();
        touch(&lwp, "/f");
        let fd = open(&lwp, "/f", O_RDWR).expect("open");
        lwp.flock(fd, LOCK_EX).expect("locked");
        record(&lwp, fd, F_SETLK, F_WRLCK, 0, 0).expect("locked");
        let dying = bed.process();
        bed.lwps_of_dying(dying, 3, move |i, lwp| {
            let Ok(fd) = open(lwp, "/f", O_RDWR) else {
                return;
            };
            let got = match i {
                0 => lwp.flock(fd, LOCK_SH),
                1 => record(lwp, fd, F_SETLKW, F_RDLCK, 0, 1),
                _ => record(lwp, fd, F_OFD_SETLKW, F_WRLCK, 5, 1),
            };
            // Closing any descriptor of the file ends the locks of a process; so a waiter may get it.
            assert_eq!(got, Err(Errno::EINTR), "waiter {i}");
        });
        let other = bed.process();
        let again = open(&other, "/f", O_RDWR).expect("open");
        assert_eq!(other.flock(again, LOCK_SH | LOCK_NB), Err(Errno::EAGAIN));
        lwp.close(fd).expect("closed");
        other.flock(again, LOCK_EX | LOCK_NB).expect("free");
        record(&other, again, F_SETLK, F_WRLCK, 0, 0).expect("free");
    });
}

//! Record locks and flock.

use abi::*;
use kern::{LwpHandle, RforkFds};

use super::{boot, c, open};

fn record(
    lwp: &LwpHandle,
    fd: i32,
    cmd: i32,
    kind: i16,
    start: i64,
    len: i64,
) -> Result<Flock, Errno> {
    let flock = Flock {
        l_type: kind,
        l_start: start,
        l_len: len,
        ..Flock::default()
    };
    let mut buf = flock.to_bytes();
    lwp.fcntl(fd, cmd, &mut buf)?;
    Ok(Flock::from_bytes(&buf))
}

/// Waits until somebody sleeps for a lock that `holder` has: no event says so, so the wait is for `F_GETLK`'s answer of
/// the one who would wait.
fn two_processes() -> (std::sync::Arc<kern::Kernel>, LwpHandle, LwpHandle) {
    let (kernel, a) = boot();
    let fd = open(&a, "/f", O_CREAT | O_RDWR).expect("a file");
    assert_eq!(fd, 0);
    let b = a.rfork(RforkFds::Clear).expect("a process");
    assert_eq!(open(&b, "/f", O_RDWR), Ok(0));
    (kernel, a, b)
}

#[test]
fn record_locks_of_processes_exclude_each_other() {
    let (_kernel, a, b) = two_processes();
    record(&a, 0, F_SETLK, F_WRLCK, 10, 10).expect("locked");
    assert_eq!(record(&b, 0, F_SETLK, F_RDLCK, 19, 5), Err(Errno::EAGAIN));
    record(&b, 0, F_SETLK, F_RDLCK, 20, 5).expect("locked");
    let seen = record(&b, 0, F_GETLK, F_WRLCK, 0, 0).expect("told");
    assert_eq!(
        (seen.l_type, seen.l_start, seen.l_len, seen.l_pid),
        (F_WRLCK, 10, 10, a.pid())
    );
    let seen = record(&a, 0, F_GETLK, F_RDLCK, 20, 5).expect("told");
    assert_eq!(seen.l_type, F_UNLCK, "readers do not exclude readers");
    // Closing any descriptor of the file gives all of them back, as POSIX has it.
    let other = open(&a, "/f", O_RDONLY).expect("open");
    a.close(other).expect("closed");
    record(&b, 0, F_SETLK, F_WRLCK, 0, 0).expect("locked");
    drop(b);
    record(&a, 0, F_SETLK, F_WRLCK, 0, 0).expect("the end of a process gives back too");
}

#[test]
fn locks_of_open_files_stay_until_the_last_descriptor() {
    let (_kernel, a, b) = two_processes();
    record(&a, 0, F_OFD_SETLK, F_WRLCK, 0, 0).expect("locked");
    let other = open(&a, "/f", O_RDWR).expect("open");
    assert_eq!(
        record(&a, other, F_OFD_SETLK, F_WRLCK, 0, 1),
        Err(Errno::EAGAIN),
        "another open file"
    );
    let dup = a.dup(0).expect("a descriptor") as i32;
    a.close(0).expect("closed");
    a.close(other).expect("closed");
    assert_eq!(record(&b, 0, F_SETLK, F_RDLCK, 5, 1), Err(Errno::EAGAIN));
    a.close(dup).expect("closed");
    record(&b, 0, F_SETLK, F_RDLCK, 5, 1).expect("locked");
}

#[test]
fn a_waiter_gets_the_lock_when_it_is_given_back() {
    let (kernel, a, b) = two_processes();
    record(&a, 0, F_SETLK, F_WRLCK, 0, 0).expect("locked");
    std::thread::scope(|scope| {
        let waiter = scope.spawn(move || {
            let got = record(&b, 0, F_SETLKW, F_WRLCK, 0, 0);
            drop(b);
            got
        });
        until_someone_waits(&kernel, 1);
        record(&a, 0, F_SETLK, F_UNLCK, 0, 0).expect("given back");
        waiter.join().expect("no panic").expect("locked");
    });
}

#[test]
fn who_would_close_a_circle_of_waiting_is_refused() {
    let (kernel, a, b) = two_processes();
    record(&a, 0, F_SETLK, F_WRLCK, 0, 1).expect("locked");
    record(&b, 0, F_SETLK, F_WRLCK, 1, 1).expect("locked");
    std::thread::scope(|scope| {
        let waiter = scope.spawn(move || {
            let got = record(&b, 0, F_SETLKW, F_WRLCK, 0, 1);
            drop(b);
            got
        });
        until_someone_waits(&kernel, 1);
        assert_eq!(record(&a, 0, F_SETLKW, F_WRLCK, 1, 1), Err(Errno::EDEADLK));
        record(&a, 0, F_SETLK, F_UNLCK, 0, 0).expect("given back");
        waiter.join().expect("no panic").expect("locked");
    });
}

#[test]
fn flocks_belong_to_open_files_and_do_not_see_record_locks() {
    let (_kernel, a, b) = two_processes();
    record(&a, 0, F_SETLK, F_WRLCK, 0, 0).expect("locked");
    b.flock(0, LOCK_EX).expect("locked");
    assert_eq!(a.flock(0, LOCK_SH | LOCK_NB), Err(Errno::EAGAIN));
    b.flock(0, LOCK_SH).expect("weaker");
    a.flock(0, LOCK_SH).expect("locked");
    assert_eq!(b.flock(0, LOCK_EX | LOCK_NB), Err(Errno::EAGAIN));
    a.close(0).expect("closed");
    b.flock(0, LOCK_EX | LOCK_NB).expect("locked");
    assert_eq!(b.flock(0, 77), Err(Errno::EINVAL));
    let dir = open(&b, "/", O_RDONLY).expect("open");
    b.flock(dir, LOCK_EX).expect("directories too");
    assert_eq!(b.unlink(&c("/f")), Ok(0));
}

/// Looks, giving the processor up between looks, until so many wait for record locks.
fn until_someone_waits(kernel: &std::sync::Arc<kern::Kernel>, count: usize) {
    loop {
        let waiting = kernel.implicit(&kern::KernelMemory, |cx| {
            crate::Vfs::of(cx).expect("vfs").waits.count(cx)
        });
        if waiting >= count {
            return;
        }
        std::thread::yield_now();
    }
}

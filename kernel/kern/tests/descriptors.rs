//! Descriptors, pipes and eventfds through system calls.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // tests run on the host

mod common;

use abi::{
    Errno, F_DUPFD, F_DUPFD_CLOEXEC, F_GETFD, F_GETFL, F_GETPIPE_SZ, F_SETFD, F_SETFL,
    F_SETPIPE_SZ, Fdinfo, O_CLOEXEC, O_NONBLOCK, O_WRONLY, Syscalls, nr,
};
use common::{boot, call, pipe, process};
use kern::lwproc;

#[test]
fn dup_takes_the_lowest_and_dup2_the_one_asked_for() {
    let k = boot();
    let p = process(&k);
    assert_eq!(pipe(&p, O_CLOEXEC), Ok((0, 1)));
    assert_eq!(p.dup(1), Ok(2));
    assert_eq!(p.dup2(1, 9), Ok(9));
    assert_eq!(p.dup2(1, 1), Ok(1));
    assert_eq!(p.dup2(5, 5), Err(Errno::EBADF));
    assert_eq!(p.dup3(1, 1, 0), Err(Errno::EINVAL));
    assert_eq!(p.dup3(1, 10, O_CLOEXEC), Ok(10));
    assert_eq!(call(&p, nr::fcntl, &[1, F_DUPFD as u64, 20]), Ok(20));
    assert_eq!(
        call(&p, nr::fcntl, &[1, F_DUPFD_CLOEXEC as u64, 20]),
        Ok(21)
    );
    assert_eq!(call(&p, nr::fcntl, &[2, F_GETFD as u64]), Ok(0));
    assert_eq!(call(&p, nr::fcntl, &[21, F_GETFD as u64]), Ok(1));
    assert_eq!(call(&p, nr::fcntl, &[2, F_SETFD as u64, 1]), Ok(0));
    assert_eq!(call(&p, nr::fcntl, &[2, F_GETFD as u64]), Ok(1));
    assert_eq!(p.dup2(1, 1024), Err(Errno::EBADF), "beyond RLIMIT_NOFILE");
    assert_eq!(
        call(&p, nr::fcntl, &[1, F_DUPFD as u64, 1024]),
        Err(Errno::EINVAL)
    );
    let mut info = [0; 7 * Fdinfo::SIZE];
    assert_eq!(p.getfdinfo(&mut info, 7 * Fdinfo::SIZE), Ok(7));
    assert_eq!(p.close_range(3, 15, 0), Ok(0));
    assert_eq!(p.dup(1), Ok(3));
    assert_eq!(p.close_range(5, 4, 0), Err(Errno::EINVAL));
}

#[test]
fn a_client_chooses_its_descriptors() {
    let k = boot();
    let p = process(&k);
    p.lwp().set_fd_hints([40, 50]);
    assert_eq!(pipe(&p, 0), Ok((40, 50)));
    p.lwp().set_fd_hints([41, -1]);
    assert_eq!(p.dup(40), Ok(41));
    assert_eq!(p.dup(40), Ok(0), "the hint is used up");
    p.lwp().set_fd_hints([2000, -1]);
    assert_eq!(p.dup2(40, 2000), Ok(2000), "the client's limit counts");
}

#[test]
fn far_descriptors_work_as_near_ones_do() {
    let k = boot();
    let p = process(&k);
    let (r, w) = pipe(&p, 0).expect("a pipe");
    let far = [1023, 1024, 2047, 2048, 500_000, 1_048_575];
    for fd in far {
        p.lwp().set_fd_hints([fd, -1]);
        assert_eq!(p.dup(w), Ok(i64::from(fd)));
    }
    assert_eq!(p.close(w), Ok(0));
    let child = p.rfork(kern::RforkFds::Copy).expect("a process");
    for fd in far {
        assert_eq!(p.close(fd), Ok(0));
        assert_eq!(p.close(fd), Err(Errno::EBADF));
        assert_eq!(child.write(fd, b"x", 1), Ok(1));
    }
    drop(child);
    assert_eq!(p.read(r, &mut [0; 9], 9), Ok(6));
    assert_eq!(p.read(r, &mut [0; 9], 9), Ok(0), "all are closed");
    p.lwp().set_fd_hints([1_048_576, -1]);
    assert_eq!(p.dup(r), Err(Errno::EBADF));
}

#[test]
fn exec_keeps_the_process_and_closes_what_it_should() {
    let k = boot();
    let p = process(&k);
    assert_eq!(pipe(&p, O_CLOEXEC), Ok((0, 1)));
    assert_eq!(p.dup(1), Ok(2));
    p.enter(&kern::KernelMemory, |cx| {
        lwproc::exec(cx, "other").expect("execs");
        assert_eq!(cx.proc().comm(cx), "other");
    });
    assert_eq!(p.dup(0), Err(Errno::EBADF));
    assert_eq!(p.dup(2), Ok(0));
}

#[test]
fn exec_sends_the_other_lwps_home_first() {
    let k = boot();
    let p = process(&k);
    let (r, w) = pipe(&p, 0).expect("a pipe");
    let other = k.newlwp(p.pid()).expect("an lwp");
    let reader = std::thread::spawn(move || other.read(r, &mut [0; 1], 1));
    p.enter(&kern::KernelMemory, |cx| lwproc::exec(cx, "other"))
        .expect("execs");
    assert_eq!(reader.join().expect("ended"), Err(Errno::EINTR));
    assert_eq!(p.write(w, b"x", 1), Ok(1));
}

#[test]
fn a_pipe_carries_bytes_and_knows_its_ends() {
    let k = boot();
    let p = process(&k);
    let (r, w) = pipe(&p, O_NONBLOCK).expect("a pipe");
    let mut buf = [0; 16];
    assert_eq!(p.read(r, &mut buf, 16), Err(Errno::EAGAIN));
    assert_eq!(p.write(w, b"hello", 5), Ok(5));
    let mut avail = [0; 4];
    assert_eq!(p.ioctl(r, 0x541b, &mut avail), Ok(0));
    assert_eq!(common::number(&avail), 5);
    assert_eq!(p.read(r, &mut buf, 16), Ok(5));
    assert_eq!(&buf[..5], b"hello");
    assert_eq!(p.read(w, &mut buf, 16), Err(Errno::EBADF));
    assert_eq!(p.write(r, &buf, 16), Err(Errno::EBADF));
    assert_eq!(p.lseek(r, 0, 0), Err(Errno::ESPIPE));
    assert_eq!(p.pread64(r, &mut buf, 1, 0), Err(Errno::ESPIPE));
    assert_eq!(p.close(w), Ok(0));
    assert_eq!(p.read(r, &mut buf, 16), Ok(0));
    let (r, w) = pipe(&p, O_NONBLOCK).expect("a pipe");
    assert_eq!(p.close(r), Ok(0));
    assert_eq!(p.write(w, b"x", 1), Err(Errno::EPIPE));
}

#[test]
fn a_full_pipe_takes_part_of_a_large_write_and_none_of_a_small_one() {
    let k = boot();
    let p = process(&k);
    let (r, w) = pipe(&p, O_NONBLOCK).expect("a pipe");
    let large = vec![7; 70_000];
    assert_eq!(p.write(w, &large, 70_000), Ok(65_536));
    let mut one = [0; 100];
    assert_eq!(p.read(r, &mut one, 100), Ok(100));
    assert_eq!(p.write(w, &large[..101], 101), Err(Errno::EAGAIN));
    assert_eq!(p.write(w, &large[..100], 100), Ok(100));
    assert_eq!(
        call(&p, nr::fcntl, &[w as u64, F_GETPIPE_SZ as u64]),
        Ok(65_536)
    );
    assert_eq!(
        call(&p, nr::fcntl, &[w as u64, F_SETPIPE_SZ as u64, 100]),
        Err(Errno::EBUSY)
    );
    assert_eq!(
        call(&p, nr::fcntl, &[w as u64, F_SETPIPE_SZ as u64, 100_000]),
        Ok(131_072)
    );
    assert_eq!(p.write(w, &large, 65_000), Ok(65_000));
    let mut all = vec![0; 200_000];
    assert_eq!(p.read(r, &mut all, 200_000), Ok(65_536 + 65_000));
}

#[test]
fn a_blocked_reader_gets_what_is_written() {
    let k = boot();
    let p = process(&k);
    let (r, w) = pipe(&p, 0).expect("a pipe");
    let other = k.newlwp(p.pid()).expect("an lwp");
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        let mut buf = [0; 10_000];
        while let Ok(n @ 1..) = other.read(r, &mut buf, 10_000) {
            all.extend_from_slice(&buf[..n as usize]);
        }
        all
    });
    let data: Vec<u8> = (0..300_000).map(|i| i as u8).collect();
    assert_eq!(p.write(w, &data, data.len()), Ok(300_000));
    assert_eq!(p.close(w), Ok(0));
    assert_eq!(reader.join().expect("ended"), data);
}

#[test]
fn status_flags_belong_to_the_open_file() {
    let k = boot();
    let p = process(&k);
    let (r, w) = pipe(&p, O_CLOEXEC).expect("a pipe");
    assert_eq!(
        call(&p, nr::fcntl, &[w as u64, F_GETFL as u64]),
        Ok(O_WRONLY.into())
    );
    let copy = p.dup(r).expect("a copy");
    let set = [r as u64, F_SETFL as u64, O_NONBLOCK as u64];
    assert_eq!(call(&p, nr::fcntl, &set), Ok(0));
    assert_eq!(p.read(copy as i32, &mut [0; 1], 1), Err(Errno::EAGAIN));
    assert_eq!(p.ioctl(r, 0x5421, &mut [0; 4]), Ok(0), "FIONBIO off");
    assert_eq!(call(&p, nr::fcntl, &[r as u64, F_GETFL as u64]), Ok(0));
}

#[test]
fn an_eventfd_counts() {
    let k = boot();
    let p = process(&k);
    let fd = p.eventfd2(3, O_NONBLOCK).expect("an eventfd") as i32;
    let mut buf = [0; 8];
    assert_eq!(p.read(fd, &mut buf, 7), Err(Errno::EINVAL));
    assert_eq!(p.write(fd, &4u64.to_le_bytes(), 8), Ok(8));
    assert_eq!(p.read(fd, &mut buf, 8), Ok(8));
    assert_eq!(u64::from_le_bytes(buf), 7);
    assert_eq!(p.read(fd, &mut buf, 8), Err(Errno::EAGAIN));
    assert_eq!(p.write(fd, &u64::MAX.to_le_bytes(), 8), Err(Errno::EINVAL));
    assert_eq!(p.write(fd, &(u64::MAX - 1).to_le_bytes(), 8), Ok(8));
    assert_eq!(p.write(fd, &1u64.to_le_bytes(), 8), Err(Errno::EAGAIN));
    let semaphore = p.eventfd2(2, O_NONBLOCK | 1).expect("an eventfd") as i32;
    for _ in 0..2 {
        assert_eq!(p.read(semaphore, &mut buf, 8), Ok(8));
        assert_eq!(u64::from_le_bytes(buf), 1);
    }
    assert_eq!(p.read(semaphore, &mut buf, 8), Err(Errno::EAGAIN));
}

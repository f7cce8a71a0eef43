//! Fifos and devices.

use std::sync::{Arc, Barrier};

use abi::*;

use super::{boot, c, open, stat};

#[test]
fn who_opens_a_fifo_misses_no_writer_that_is_quickly_gone() {
    let (_kernel, a) = boot();
    // Several pairs, so that one that has woken another is not always the next to run.
    std::thread::scope(|scope| {
        for n in 0..3 {
            let fork = || a.rfork(kern::RforkFds::Clear).expect("a process");
            let (reader, writer, path) = (fork(), fork(), format!("/p{n}"));
            a.mknod(&c(&path), 0o010644, 0).expect("a fifo");
            let round = Arc::new(Barrier::new(2));
            let (at, done) = (path.clone(), round.clone());
            scope.spawn(move || {
                for _ in 0..200 {
                    let fd = open(&writer, &at, O_WRONLY).expect("a writer");
                    assert_eq!(writer.write(fd, b"x", 1), Ok(1));
                    writer.close(fd).expect("closed");
                    done.wait();
                }
            });
            scope.spawn(move || {
                for _ in 0..200 {
                    let fd = open(&reader, &path, O_RDONLY).expect("a reader");
                    assert_eq!(reader.read(fd, &mut [0; 2], 2), Ok(1));
                    reader.close(fd).expect("closed");
                    round.wait();
                }
            });
        }
    });
}

#[test]
fn a_fifo_joins_two_processes() {
    let (_kernel, a) = boot();
    a.mknod(&c("/p"), 0o010644, 0).expect("a fifo");
    assert_eq!(
        open(&a, "/p", O_WRONLY | O_NONBLOCK),
        Err(Errno::ENXIO),
        "no reader"
    );
    let b = a.rfork(kern::RforkFds::Clear).expect("a process");
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let fd = open(&b, "/p", O_WRONLY).expect("open");
            b.write(fd, b"through", 7).expect("written");
            drop(b);
        });
        let fd = open(&a, "/p", O_RDONLY).expect("open");
        let mut buf = [0; 16];
        assert_eq!(a.read(fd, &mut buf, 16), Ok(7));
        assert_eq!(a.read(fd, &mut buf, 16), Ok(0), "the writer has gone");
        assert_eq!(a.lseek(fd, 0, SEEK_SET), Err(Errno::ESPIPE));
    });
}

#[test]
fn devices_are_what_they_are_called() {
    let (_kernel, lwp) = boot();
    let mut buf = [1; 64];
    let fd = open(&lwp, "/dev/zero", O_RDWR).expect("open");
    assert_eq!(lwp.read(fd, &mut buf, 64), Ok(64));
    assert_eq!(buf, [0; 64]);
    let fd = open(&lwp, "/dev/null", O_RDWR).expect("open");
    assert_eq!(
        (lwp.read(fd, &mut buf, 64), lwp.write(fd, &buf, 64)),
        (Ok(0), Ok(64))
    );
    let fd = open(&lwp, "/dev/full", O_RDWR).expect("open");
    assert_eq!(lwp.write(fd, &buf, 64), Err(Errno::ENOSPC));
    let fd = open(&lwp, "/dev/urandom", O_RDONLY).expect("open");
    assert_eq!(lwp.read(fd, &mut buf, 64), Ok(64));
    assert_ne!(buf, [0; 64]);
    assert_eq!(stat(&lwp, "/dev/null").expect("there").st_rdev, 0x103);
    lwp.mknod(c"/dev/none", 0o020666, 0x7777).expect("a node");
    assert_eq!(open(&lwp, "/dev/none", O_RDONLY), Err(Errno::ENXIO));
    let mode = stat(&lwp, "/tmp").expect("there").st_mode;
    assert_eq!(mode, 0o41777);
}

//! Processes that end while their lwps are in the faction.

use abi::*;
use kern::{KernelMemory, RforkFds};
use testing::Setup;

use super::{c, dice, open, with_vfs};

#[test]
fn a_dying_process_leaves_named_pipes_and_gives_everything_back() {
    with_vfs(Setup::new(), |bed| {
        let dying = bed.process();
        dying.mkdir(c"/m", 0o755).expect("a directory");
        dying
            .mount(c"x", c"/m", c"cachedfs", 0, c"")
            .expect("mounted");
        dying.mknod(c"/m/fifo", 0o010600, 0).expect("a pipe");
        dying.mknod(c"/m/other", 0o010600, 0).expect("a pipe");
        dying.chdir(c"/m").expect("there");
        bed.lwps_of_dying(dying, 4, move |i, lwp| {
            let ended = match i {
                // Opening waits for the other end, which never comes.
                0 => open(lwp, "/m/fifo", O_RDONLY),
                1 => open(lwp, "fifo", O_RDONLY),
                2 => open(lwp, "/m/other", O_WRONLY),
                _ => open(lwp, "/m/fifo", O_RDONLY),
            };
            assert_eq!(ended, Err(Errno::EINTR), "waiter {i}");
        });
        let lwp = bed.process();
        lwp.umount2(c"/m", 0).expect("nobody is left in it");
    });
}

#[test]
fn a_process_that_ends_in_the_middle_of_its_work_leaves_no_trace_of_it() {
    with_vfs(Setup::new(), |bed| {
        let lwp = bed.process();
        lwp.mkdir(c"/m", 0o755).expect("a directory");
        lwp.mount(c"x", c"/m", c"cachedfs", 0, c"")
            .expect("mounted");
        let dying = lwp.rfork(RforkFds::Copy).expect("a process");
        let pid = dying.pid();
        let on = bed.clone();
        bed.lwps_of_dying(dying, 3, move |i, lwp| {
            let mut dice = dice(&on, i);
            for _ in 0..8 {
                let path = format!("/m/{}", dice.below(3));
                let _ = match dice.below(4) {
                    0 => lwp.unlink(&c(&path)),
                    1 => lwp
                        .mkdir(&c(&path), 0o755)
                        .and_then(|_| lwp.chdir(&c(&path))),
                    2 => lwp.rmdir(&c(&path)),
                    _ => open(lwp, &path, O_CREAT | O_RDWR).and_then(|fd| {
                        lwp.flock(fd, LOCK_EX)?;
                        lwp.write(fd, &[1; 5000], 5000)
                    }),
                };
                if lwp.lwp().is_leaving() {
                    return;
                }
            }
        });
        lwp.umount2(c"/m", 0).expect("nobody is left in it");
        bed.kernel().implicit(&KernelMemory, |cx| {
            assert!(cx.kernel().find_proc(cx, pid).is_none());
        });
    });
}

//! Processes that end while their lwps are in the faction.

use abi::*;
use kern::{KernelMemory, RforkFds};
use testing::{Setup, Thread};

use super::{c, dice, open, with_vfs};

#[test]
fn a_dying_process_leaves_named_pipes_and_gives_everything_back() {
    with_vfs(Setup::new(), |bed| {
        let dying = bed.process();
        let pid = dying.pid();
        dying.mkdir(c"/m", 0o755).expect("a directory");
        dying
            .mount(c"x", c"/m", c"cachedfs", 0, c"")
            .expect("mounted");
        dying.mknod(c"/m/fifo", 0o010600, 0).expect("a pipe");
        dying.mknod(c"/m/other", 0o010600, 0).expect("a pipe");
        dying.chdir(c"/m").expect("there");
        let waiters: Vec<_> = (0..4)
            .map(|i| {
                let on = bed.clone();
                bed.spawn(&format!("waiter{i}"), move || {
                    let Ok(lwp) = on.kernel().newlwp(pid) else {
                        return;
                    };
                    let ended = match i {
                        // Opening waits for the other end, which never comes.
                        0 => open(&lwp, "/m/fifo", O_RDONLY),
                        1 => open(&lwp, "fifo", O_RDONLY),
                        2 => open(&lwp, "/m/other", O_WRONLY),
                        _ => open(&lwp, "/m/fifo", O_RDONLY),
                    };
                    assert_eq!(ended, Err(Errno::EINTR), "waiter {i}");
                })
            })
            .collect();
        bed.pause();
        bed.kernel().implicit(&KernelMemory, |cx| {
            let proc = cx.kernel().find_proc(cx, pid).expect("it lives");
            cx.kernel().proc_exit(cx, &proc);
        });
        drop(dying);
        waiters.into_iter().for_each(Thread::join);
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
        let workers: Vec<_> = (0..3)
            .map(|i| {
                let on = bed.clone();
                bed.spawn(&format!("worker{i}"), move || {
                    let Ok(lwp) = on.kernel().newlwp(pid) else {
                        return;
                    };
                    let mut dice = dice(&on, i);
                    for _ in 0..8 {
                        let path = format!("/m/{}", dice.below(3));
                        let _ = match dice.below(4) {
                            0 => lwp.unlink(&c(&path)),
                            1 => lwp
                                .mkdir(&c(&path), 0o755)
                                .and_then(|_| lwp.chdir(&c(&path))),
                            2 => lwp.rmdir(&c(&path)),
                            _ => open(&lwp, &path, O_CREAT | O_RDWR).and_then(|fd| {
                                lwp.flock(fd, LOCK_EX)?;
                                lwp.write(fd, &[1; 5000], 5000)
                            }),
                        };
                        if lwp.lwp().is_leaving() {
                            return;
                        }
                    }
                })
            })
            .collect();
        bed.pause();
        bed.kernel().implicit(&KernelMemory, |cx| {
            let proc = cx.kernel().find_proc(cx, pid).expect("it lives");
            cx.kernel().proc_exit(cx, &proc);
        });
        drop(dying);
        workers.into_iter().for_each(Thread::join);
        lwp.umount2(c"/m", 0).expect("nobody is left in it");
        bed.kernel().implicit(&KernelMemory, |cx| {
            assert!(cx.kernel().find_proc(cx, pid).is_none());
        });
    });
}

//! Many at once on one tree, on the simulated host: every switch is drawn from a seed, and a deadlock is a failure.

use std::sync::Arc;

use abi::*;
use hypercall::Host;
use hypercall::sim::{SimConfig, SimHost};
use kern::{Kernel, KernelMemory, LwpHandle, RforkFds};

use super::{c, names, open, stat};

const SEEDS: u64 = 150;
const USERS: usize = 4;
const STEPS: usize = 40;

/// A small generator of numbers (xorshift), so that each user of each seed does something else.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % n
    }

    /// A path of up to three names below `base`.
    fn path(&mut self, base: &str) -> String {
        let mut path = base.to_owned();
        for _ in 0..=self.below(3) {
            path.push_str(["/a", "/b", "/c"][self.below(3)]);
        }
        path
    }
}

fn on_every_seed(body: impl Fn(u64, &Arc<SimHost>, &Arc<Kernel>) + Send + Sync + 'static) {
    let body = Arc::new(body);
    for seed in 0..SEEDS {
        let body = body.clone();
        let config = SimConfig::new(seed).param("RUMP_NCPU", "2");
        let run = SimHost::run(config, move |host| {
            let as_host: Arc<dyn Host> = host.clone();
            let kernel = Kernel::builder(as_host)
                .component(&crate::VFS)
                .boot()
                .expect("boots");
            kernel.implicit(&KernelMemory, |cx| {
                let vfs = crate::Vfs::of(cx).expect("vfs");
                vfs.register(cx, &crate::rumpfs::CACHED)
                    .expect("registered");
            });
            body(seed, host, &kernel);
            kernel.shutdown(true).expect("halts");
        });
        if let Err(failure) = run.result {
            panic!(
                "seed {seed}: {failure:?}\n{}",
                String::from_utf8_lossy(&run.console)
            );
        }
    }
}

fn users(
    seed: u64,
    host: &Arc<SimHost>,
    kernel: &Arc<Kernel>,
    body: impl Fn(&LwpHandle, &mut Dice) + Send + Sync + 'static,
) {
    let body = Arc::new(body);
    let threads: Vec<_> = (0..USERS)
        .map(|i| {
            let (kernel, body) = (kernel.clone(), body.clone());
            let run = move || {
                let lwp = kernel.rfork(RforkFds::Clear).expect("a process");
                body(
                    &lwp,
                    &mut Dice((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (i as u64 + 1)),
                );
            };
            host.spawn(&format!("user{i}"), Box::new(run))
                .expect("a thread")
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join());
}

/// One random change; what it answers depends on the others.
fn change(lwp: &LwpHandle, dice: &mut Dice, base: &str) {
    let (one, other) = (c(&dice.path(base)), c(&dice.path(base)));
    let _ = match dice.below(8) {
        0 | 1 => lwp.mkdir(&one, 0o755),
        2 => lwp.open(&one, O_CREAT | O_RDWR, 0o644).and_then(|fd| {
            let _ = lwp.write(fd as i32, b"data", 4);
            lwp.close(fd as i32)
        }),
        3 => lwp.unlink(&one),
        4 => lwp.rmdir(&one),
        5 => lwp.link(&one, &other),
        6 => lwp.renameat2(AT_FDCWD, &one, AT_FDCWD, &other, RENAME_EXCHANGE),
        _ => lwp.rename(&one, &other),
    };
}

/// Every directory has the links and the place that it seems to have.
fn check(lwp: &LwpHandle, dir: &str) -> u64 {
    let mut dirs = 0;
    for name in names(lwp, dir) {
        let path = format!("{dir}/{name}");
        let seen = stat(lwp, &path).expect("listed, so there");
        assert!(seen.st_nlink > 0, "{path}");
        if seen.st_mode & 0o170000 == 0o040000 {
            dirs += 1;
            let inside = check(lwp, &path);
            assert_eq!(seen.st_nlink, 2 + inside, "{path}");
            lwp.chdir(&c(&path)).expect("there");
            let mut buf = [0; 256];
            let n = lwp.getcwd(&mut buf, 256).expect("a path") as usize;
            assert_eq!(&buf[..n - 1], path.as_bytes());
        }
    }
    dirs
}

#[test]
fn changes_at_once_leave_a_tree() {
    for fstype in ["rumpfs", "cachedfs"] {
        on_every_seed(move |seed, host, kernel| {
            let lwp = kernel.rfork(RforkFds::Clear).expect("a process");
            lwp.mkdir(c"/t", 0o755).expect("a directory");
            lwp.mount(c"x", c"/t", &c(fstype), 0, c"").expect("mounted");
            users(seed, host, kernel, |lwp, dice| {
                for _ in 0..STEPS {
                    change(lwp, dice, "/t");
                }
            });
            check(&lwp, "/t");
            lwp.chdir(c"/").expect("there");
            lwp.umount2(c"/t", 0).expect("nobody uses it");
        });
    }
}

#[test]
fn mounts_come_and_go_under_those_who_use_them() {
    on_every_seed(|seed, host, kernel| {
        let lwp = kernel.rfork(RforkFds::Clear).expect("a process");
        lwp.mkdir(c"/t", 0o755).expect("a directory");
        users(seed, host, kernel, |lwp, dice| {
            for _ in 0..STEPS {
                let flags = if dice.below(2) == 0 { MNT_DETACH } else { 0 };
                let _ = match dice.below(6) {
                    0 => lwp.mount(c"x", c"/t", c"cachedfs", 0, c""),
                    1 => lwp.umount2(c"/t", flags),
                    2 => lwp.chdir(&c(&dice.path("/t"))),
                    3 => lwp.mount(c"", c"/t", c"", (MS_REMOUNT | MS_RDONLY) as i32, c""),
                    _ => {
                        change(lwp, dice, "/t");
                        Ok(0)
                    }
                };
            }
            let _ = lwp.chdir(c"/");
        });
        while lwp.umount2(c"/t", 0).is_ok() {}
        assert_eq!(lwp.getvfsstat(&mut [], 0, 0), Ok(1));
        check(&lwp, "/t");
    });
}

#[test]
fn locks_let_one_in_at_a_time_and_break_circles() {
    on_every_seed(|seed, host, kernel| {
        let lwp = kernel.rfork(RforkFds::Clear).expect("a process");
        lwp.close(open(&lwp, "/f", O_CREAT | O_RDWR).expect("a file"))
            .expect("closed");
        users(seed, host, kernel, |lwp, dice| {
            let fd = open(lwp, "/f", O_RDWR).expect("open");
            let lock = |kind: i16, at: usize| {
                let flock = Flock {
                    l_type: kind,
                    l_start: at as i64,
                    l_len: 1,
                    ..Flock::default()
                };
                lwp.fcntl(fd, F_SETLKW, &mut flock.to_bytes())
            };
            for _ in 0..STEPS {
                let at = dice.below(3);
                match lock(F_WRLCK, at) {
                    Ok(_) => {
                        let mut byte = [0];
                        lwp.pread64(fd, &mut byte, 1, at as i64).expect("read");
                        lwp.sched_yield().expect("given up");
                        byte[0] = byte[0].wrapping_add(1);
                        lwp.pwrite64(fd, &byte, 1, at as i64).expect("written");
                        lwp.pwrite64(fd, &byte, 1, 8 + at as i64).expect("written");
                    }
                    Err(error) => assert_eq!(error, Errno::EDEADLK),
                }
                // Holding several at times is what makes circles.
                if dice.below(3) != 0 {
                    for at in 0..3 {
                        lock(F_UNLCK, at).expect("given back");
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

//! Names and mounts that come and go.

use abi::*;
use kern::LwpHandle;
use testing::{Dice, Setup};

use super::{c, dice, names, open, stat, touch, with_vfs};

const USERS: usize = 3;
const STEPS: usize = 12;

/// A path of up to three names below `base`.
fn path(dice: &mut Dice, base: &str) -> String {
    let mut path = base.to_owned();
    for _ in 0..=dice.below(3) {
        path.push_str(["/a", "/b", "/c"][dice.below(3) as usize]);
    }
    path
}

/// One random change; what it answers depends on the others.
fn change(lwp: &LwpHandle, dice: &mut Dice, base: &str) {
    let (one, other) = (c(&path(dice, base)), c(&path(dice, base)));
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

fn changes_at_once(fstype: &'static str, setup: Setup) {
    with_vfs(setup, move |bed| {
        let lwp = bed.process();
        lwp.mkdir(c"/t", 0o755).expect("a directory");
        lwp.mount(c"x", c"/t", &c(fstype), 0, c"").expect("mounted");
        let on = bed.clone();
        bed.users(USERS, move |user, lwp| {
            let mut dice = dice(&on, user);
            for _ in 0..STEPS {
                change(lwp, &mut dice, "/t");
            }
        });
        check(&lwp, "/t");
        lwp.chdir(c"/").expect("there");
        lwp.umount2(c"/t", 0).expect("nobody uses it");
    });
}

#[test]
fn changes_at_once_leave_a_tree() {
    changes_at_once("rumpfs", Setup::new());
}

#[test]
fn changes_at_once_leave_a_tree_behind_the_name_cache() {
    changes_at_once("cachedfs", Setup::new());
}

#[test]
fn changes_at_once_leave_a_tree_behind_a_name_cache_that_is_full() {
    // One set of names for all, which drops some all the time.
    changes_at_once("cachedfs", Setup::new().param("RUMP_NVNODES", "8"));
}

#[test]
fn the_name_cache_never_answers_what_is_no_longer_true() {
    with_vfs(Setup::new().param("RUMP_NVNODES", "16"), |bed| {
        let lwp = bed.process();
        lwp.mkdir(c"/t", 0o755).expect("a directory");
        lwp.mount(c"x", c"/t", c"cachedfs", 0, c"")
            .expect("mounted");
        bed.users(3, |user, lwp| {
            // Each has its own name, and others' names come and go in the same sets.
            let (mine, moved) = (format!("/t/f{user}"), format!("/t/g{user}"));
            for round in 0..4u64 {
                assert_eq!(stat(lwp, &mine), Err(Errno::ENOENT));
                touch(lwp, &mine);
                let made = stat(lwp, &mine).expect("made").st_ino;
                lwp.rename(&c(&mine), &c(&moved)).expect("moved");
                assert_eq!(stat(lwp, &mine), Err(Errno::ENOENT), "round {round}");
                assert_eq!(stat(lwp, &moved).expect("there").st_ino, made);
                lwp.unlink(&c(&moved)).expect("gone");
                assert_eq!(stat(lwp, &moved), Err(Errno::ENOENT));
            }
        });
        lwp.umount2(c"/t", 0).expect("nobody uses it");
    });
}

#[test]
fn a_name_goes_to_one_of_those_who_want_it() {
    with_vfs(Setup::new(), |bed| {
        let lwp = bed.process();
        for dir in ["/t", "/t/1", "/t/2"] {
            lwp.mkdir(&c(dir), 0o755).expect("a directory");
        }
        touch(&lwp, "/t/prize");
        let won = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
        let count = won.clone();
        bed.users(4, move |user, lwp| {
            let got = match user {
                0 | 1 => lwp.rename(c"/t/prize", &c(&format!("/t/{}/mine", user + 1))),
                2 => lwp.unlink(c"/t/prize"),
                _ => lwp.renameat2(
                    AT_FDCWD,
                    c"/t/prize",
                    AT_FDCWD,
                    c"/t/other",
                    RENAME_NOREPLACE,
                ),
            };
            match got {
                Ok(_) => drop(count.fetch_add(1, std::sync::atomic::Ordering::SeqCst)),
                Err(error) => assert_eq!(error, Errno::ENOENT),
            }
            let exclusive = open(lwp, "/t/lock", O_CREAT | O_EXCL | O_RDWR);
            assert!(matches!(exclusive, Ok(_) | Err(Errno::EEXIST)));
        });
        assert_eq!(won.load(std::sync::atomic::Ordering::SeqCst), 1);
        assert_eq!(stat(&lwp, "/t/prize"), Err(Errno::ENOENT));
    });
}

#[test]
fn mounts_come_and_go_under_those_who_use_them() {
    with_vfs(Setup::new(), |bed| {
        let lwp = bed.process();
        lwp.mkdir(c"/t", 0o755).expect("a directory");
        let on = bed.clone();
        bed.users(USERS, move |user, lwp| {
            let mut dice = dice(&on, user);
            for _ in 0..STEPS {
                let flags = if dice.below(2) == 0 { MNT_DETACH } else { 0 };
                let _ = match dice.below(6) {
                    0 => lwp.mount(c"x", c"/t", c"cachedfs", 0, c""),
                    1 => lwp.umount2(c"/t", flags),
                    2 => lwp.chdir(&c(&path(&mut dice, "/t"))),
                    3 => lwp.mount(c"", c"/t", c"", (MS_REMOUNT | MS_RDONLY) as i32, c""),
                    _ => {
                        change(lwp, &mut dice, "/t");
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

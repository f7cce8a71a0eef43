//! Many processes that change one tree at once, judged by the tree itself and by e2fsck.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // tests are on the host's side

mod common;

use abi::{AT_FDCWD, O_CREAT, O_DIRECTORY, O_RDONLY, O_RDWR, RENAME_EXCHANGE, Stat, Syscalls};
use common::{Image, Machine, c};
use kern::{LwpHandle, RforkFds};

/// A small generator of numbers (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % n
    }

    fn path(&mut self) -> String {
        let mut path = "/m".to_owned();
        for _ in 0..=self.below(3) {
            path.push_str(["/a", "/b", "/c", "/d"][self.below(4)]);
        }
        path
    }
}

#[test]
fn who_stands_in_a_removed_directory_may_open_it_and_finds_nothing() {
    let image = Image::make("-t ext4", "8M");
    let m = Machine::with(&image.path);
    m.lwp.mkdir(&c("/m/d"), 0o755).expect("made");
    m.lwp.chdir(&c("/m/d")).expect("there");
    m.lwp.rmdir(&c("/m/d")).expect("removed");
    for _ in 0..2 {
        let fd = m.open(".", O_RDONLY | O_DIRECTORY).expect("opens");
        let mut buf = [0; 256];
        assert_eq!(m.lwp.getdents64(fd, &mut buf, 256), Ok(0));
        m.lwp.fchdir(fd).expect("there still");
        assert_eq!(m.lwp.fchmod(fd, 0o700), Err(abi::Errno::ENOENT));
        m.close(fd);
    }
    m.lwp.chdir(&c("..")).expect("a way out");
    assert_eq!(names(&m.lwp, "."), names(&m.lwp, "/m"));
    m.lwp.chdir(&c("/")).expect("out");
    m.unmount().expect("unmounts");
    image.assert_clean();
}

/// One random change; what it answers depends on the others.
fn change(lwp: &LwpHandle, dice: &mut Dice) {
    let (one, other) = (c(dice.path()), c(dice.path()));
    let _ = match dice.below(10) {
        0 | 1 => lwp.mkdir(&one, 0o755),
        2 | 3 => lwp.open(&one, O_CREAT | O_RDWR, 0o644).and_then(|fd| {
            let data = vec![7; dice.below(20_000)];
            let _ = lwp.write(fd as i32, &data, data.len());
            lwp.close(fd as i32)
        }),
        4 => lwp.unlink(&one),
        5 => lwp.rmdir(&one),
        6 => lwp.link(&one, &other),
        7 => lwp.renameat2(AT_FDCWD, &one, AT_FDCWD, &other, RENAME_EXCHANGE),
        8 => lwp
            .truncate(&one, dice.below(30_000) as i64)
            .and_then(|_| lwp.chmod(&one, 0o640)),
        _ => lwp.rename(&one, &other),
    };
}

fn names(lwp: &LwpHandle, dir: &str) -> Vec<String> {
    let fd = lwp.open(&c(dir), O_RDONLY | O_DIRECTORY, 0).expect(dir) as i32;
    let mut found = Vec::new();
    let mut buf = [0; 4096];
    loop {
        let n = lwp.getdents64(fd, &mut buf, 4096).expect("entries") as usize;
        if n == 0 {
            break;
        }
        let mut at = 0;
        while at < n {
            let len = usize::from(u16::from_le_bytes([buf[at + 16], buf[at + 17]]));
            let name: Vec<u8> = buf[at + 19..at + len]
                .iter()
                .copied()
                .take_while(|&b| b != 0)
                .collect();
            found.push(String::from_utf8(name).expect("text"));
            at += len;
        }
    }
    lwp.close(fd).expect("closed");
    found.retain(|name| !matches!(name.as_str(), "." | ".." | "lost+found"));
    found
}

/// Every directory has the links and the place that it seems to have.
fn check(lwp: &LwpHandle, dir: &str) -> u64 {
    let mut dirs = 0;
    for name in names(lwp, dir) {
        let path = format!("{dir}/{name}");
        let mut buf = [0; Stat::SIZE];
        lwp.stat(&c(&path), &mut buf).expect("listed, so there");
        let seen = Stat::from_bytes(&buf);
        assert!(seen.st_nlink > 0, "{path}");
        if seen.st_mode & 0o170_000 == 0o040_000 {
            dirs += 1;
            assert_eq!(check(lwp, &path) + 2, seen.st_nlink, "{path}");
            lwp.chdir(&c(&path)).expect("there");
            let mut buf = [0; 256];
            let n = lwp.getcwd(&mut buf, 256).expect("a path") as usize;
            assert_eq!(&buf[..n - 1], path.as_bytes());
        }
    }
    dirs
}

#[test]
fn changes_at_once_leave_a_tree_and_a_clean_image() {
    for (seed, kind) in [
        (1, "-t ext4 -b 1024"),
        (2, "-t ext4 -b 4096"),
        (3, "-t ext2 -b 4096"),
    ] {
        let image = Image::make(kind, "64M");
        let m = Machine::with(&image.path);
        std::thread::scope(|scope| {
            for user in 0..4u64 {
                let lwp = m.lwp.rfork(RforkFds::Clear).expect("a process");
                scope.spawn(move || {
                    let mut dice = Dice((seed << 8 | user).wrapping_mul(0x9e37_79b9_7f4a_7c15));
                    for _ in 0..1500 {
                        change(&lwp, &mut dice);
                    }
                    drop(lwp);
                });
            }
        });
        let lwp = m.lwp.rfork(RforkFds::Clear).expect("a process");
        check(&lwp, "/m");
        drop(lwp);
        m.unmount().expect("unmounts");
        image.assert_clean();
        m.mount(&image.path, "").expect("mounts again");
        let lwp = m.lwp.rfork(RforkFds::Clear).expect("a process");
        check(&lwp, "/m");
        drop(lwp);
        m.unmount().expect("unmounts");
        image.assert_clean();
    }
}

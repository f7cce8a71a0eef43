//! Names: the corners of walking and changing them, and random sequences against a model.

use std::collections::BTreeMap;
use std::sync::{Arc, Barrier};

use abi::*;
use kern::LwpHandle;
use proptest::prelude::*;

use super::{boot, c, names, open, stat};

fn touch(lwp: &LwpHandle, path: &str) {
    let fd = open(lwp, path, O_CREAT | O_WRONLY).expect("a file");
    lwp.close(fd).expect("closed");
}

#[test]
fn the_end_of_a_path_says_what_it_must_be() {
    let (_kernel, lwp) = boot();
    touch(&lwp, "/f");
    lwp.mkdir(&c("/d/"), 0o755)
        .expect("a slash behind a new directory");
    lwp.symlink(&c("d"), &c("/l")).expect("a link");
    lwp.symlink(&c("f"), &c("/lf")).expect("a link");
    assert_eq!(stat(&lwp, "/f/"), Err(Errno::ENOTDIR));
    assert_eq!(stat(&lwp, "/f/x"), Err(Errno::ENOTDIR));
    assert_eq!(stat(&lwp, "/lf/"), Err(Errno::ENOTDIR));
    assert_eq!(stat(&lwp, ""), Err(Errno::ENOENT));
    stat(&lwp, "//d//.//").expect("slashes and dots");
    let mut buf = [0; Stat::SIZE];
    lwp.lstat(&c("/l/"), &mut buf)
        .expect("a slash follows a link");
    assert_eq!(Stat::from_bytes(&buf).st_mode & 0o170000, 0o040000);
    assert_eq!(open(&lwp, "/new/", O_CREAT | O_WRONLY), Err(Errno::EISDIR));
    assert_eq!(lwp.symlink(&c("x"), &c("/new/")), Err(Errno::ENOENT));
    assert_eq!(lwp.unlink(&c("/f/")), Err(Errno::ENOTDIR));
    assert_eq!(lwp.unlink(&c("/d")), Err(Errno::EISDIR));
    assert_eq!(lwp.rmdir(&c("/d/.")), Err(Errno::EINVAL));
    assert_eq!(lwp.rmdir(&c("/d/..")), Err(Errno::ENOTEMPTY));
    assert_eq!(lwp.rmdir(&c("/")), Err(Errno::EBUSY));
    assert_eq!(lwp.rmdir(&c("/l/")), Err(Errno::ENOTDIR));
    assert_eq!(lwp.mkdir(&c("/d/."), 0), Err(Errno::EEXIST));
    assert_eq!(lwp.rename(&c("/f"), &c("/g/")), Err(Errno::ENOTDIR));
    assert_eq!(lwp.rename(&c("/d/."), &c("/g")), Err(Errno::EBUSY));
    assert_eq!(stat(&lwp, &"x".repeat(256)), Err(Errno::ENAMETOOLONG));
    assert_eq!(stat(&lwp, &"x/".repeat(2100)), Err(Errno::ENAMETOOLONG));
}

#[test]
fn links_are_followed_forty_times() {
    let (_kernel, lwp) = boot();
    touch(&lwp, "/l0");
    for i in 1..=41 {
        lwp.symlink(&c(&format!("l{}", i - 1)), &c(&format!("/l{i}")))
            .expect("a link");
    }
    stat(&lwp, "/l40").expect("forty links");
    assert_eq!(stat(&lwp, "/l41"), Err(Errno::ELOOP));
    lwp.symlink(&c("loop"), &c("/loop")).expect("a link");
    assert_eq!(stat(&lwp, "/loop"), Err(Errno::ELOOP));
    assert_eq!(open(&lwp, "/l1", O_RDONLY | O_NOFOLLOW), Err(Errno::ELOOP));
    open(&lwp, "/l1", O_PATH | O_NOFOLLOW).expect("the link itself");
    assert_eq!(
        open(&lwp, "/l1", O_CREAT | O_EXCL | O_WRONLY),
        Err(Errno::EEXIST)
    );
    lwp.symlink(&c("/tmp/made"), &c("/dangling"))
        .expect("a link");
    open(&lwp, "/dangling", O_CREAT | O_WRONLY).expect("made where the link points");
    stat(&lwp, "/tmp/made").expect("there");
    let mut buf = [0; 9];
    assert_eq!(lwp.readlink(&c("/dangling"), &mut buf, 9), Ok(9));
    assert_eq!(&buf, b"/tmp/made");
    assert_eq!(lwp.readlink(&c("/tmp"), &mut buf, 9), Err(Errno::EINVAL));
}

#[test]
fn a_process_stays_below_its_root() {
    let (_kernel, lwp) = boot();
    for dir in ["/jail", "/jail/in", "/out"] {
        lwp.mkdir(&c(dir), 0o755).expect("a directory");
    }
    lwp.symlink(&c("/in"), &c("/jail/abs")).expect("a link");
    let fd = open(&lwp, "/out", O_RDONLY).expect("open");
    lwp.chroot(&c("/jail")).expect("a new root");
    stat(&lwp, "/abs").expect("absolute links too");
    assert_eq!(stat(&lwp, "/../out"), Err(Errno::ENOENT));
    lwp.fchdir(fd).expect("a descriptor leads out");
    let mut buf = [0; 64];
    let n = lwp.getcwd(&mut buf, 64).expect("a path") as usize;
    assert_eq!(&buf[..n - 1], b"(unreachable)/out");
    lwp.chdir(&c("/in")).expect("there");
    let n = lwp.getcwd(&mut buf, 64).expect("a path") as usize;
    assert_eq!(&buf[..n - 1], b"/in");
    assert_eq!(lwp.getcwd(&mut buf, 3), Err(Errno::ERANGE));
    lwp.rmdir(&c("/in")).expect("removed");
    assert_eq!(lwp.getcwd(&mut buf, 64), Err(Errno::ENOENT));
    assert_eq!(lwp.mkdir(&c("x"), 0o755), Err(Errno::ENOENT));
    assert_eq!(stat(&lwp, "x"), Err(Errno::ENOENT));
}

fn openat2(
    lwp: &LwpHandle,
    dirfd: i32,
    path: &str,
    flags: i32,
    resolve: u64,
) -> Result<i32, Errno> {
    let how = OpenHow {
        flags: flags as u64,
        mode: 0,
        resolve,
    };
    lwp.openat2(dirfd, &c(path), &how.to_bytes(), OpenHow::SIZE)
        .map(|fd| fd as i32)
}

#[test]
fn openat2_limits_the_walk() {
    let (_kernel, lwp) = boot();
    const NO_XDEV: u64 = 1;
    const NO_SYMLINKS: u64 = 4;
    const BENEATH: u64 = 8;
    const IN_ROOT: u64 = 16;
    lwp.mkdir(&c("/a"), 0o755).expect("a directory");
    lwp.mkdir(&c("/a/b"), 0o755).expect("a directory");
    touch(&lwp, "/a/f");
    lwp.symlink(&c("/a/f"), &c("/a/abs")).expect("a link");
    lwp.symlink(&c("../f"), &c("/a/b/up")).expect("a link");
    lwp.mkdir(&c("/a/m"), 0o755).expect("a directory");
    lwp.mount(c"x", c"/a/m", c"rumpfs", 0, c"")
        .expect("mounted");
    let a = open(&lwp, "/a", O_RDONLY).expect("open");
    let try_it = |path: &str, resolve| {
        openat2(&lwp, a, path, O_RDONLY, resolve).map(|fd| lwp.close(fd).map(drop))
    };
    try_it("b/up", BENEATH).expect("inside").expect("closed");
    assert_eq!(try_it("abs", BENEATH).err(), Some(Errno::EXDEV));
    assert_eq!(try_it("..", BENEATH).err(), Some(Errno::EXDEV));
    assert_eq!(try_it("/a/f", BENEATH).err(), Some(Errno::EXDEV));
    assert_eq!(
        try_it("abs", IN_ROOT).err(),
        Some(Errno::ENOENT),
        "/a/f from /a"
    );
    try_it("/../f", IN_ROOT)
        .expect("the root is a")
        .expect("closed");
    assert_eq!(try_it("b/up", NO_SYMLINKS).err(), Some(Errno::ELOOP));
    assert_eq!(try_it("m", NO_XDEV).err(), Some(Errno::EXDEV));
    let m = open(&lwp, "/a/m", O_RDONLY).expect("open");
    assert_eq!(openat2(&lwp, m, "..", O_RDONLY, NO_XDEV), Err(Errno::EXDEV));
    assert_eq!(
        openat2(&lwp, a, "f", O_RDONLY, BENEATH | IN_ROOT),
        Err(Errno::EINVAL)
    );
    assert_eq!(openat2(&lwp, a, "f", O_RDONLY, 1 << 20), Err(Errno::EINVAL));
    let how = [OpenHow::default().to_bytes().as_slice(), &[0, 1]].concat();
    assert_eq!(lwp.openat2(a, &c("f"), &how, how.len()), Err(Errno::E2BIG));
}

#[test]
fn renames_keep_the_tree_a_tree() {
    let (_kernel, lwp) = boot();
    for dir in ["/a", "/a/b", "/a/b/c", "/e", "/full", "/full/x"] {
        lwp.mkdir(&c(dir), 0o755).expect("a directory");
    }
    touch(&lwp, "/f");
    let rename = |from: &str, to: &str| lwp.rename(&c(from), &c(to));
    let exchange =
        |from: &str, to: &str| lwp.renameat2(AT_FDCWD, &c(from), AT_FDCWD, &c(to), RENAME_EXCHANGE);
    assert_eq!(rename("/a", "/a/b/c/x"), Err(Errno::EINVAL));
    assert_eq!(rename("/a", "/a/x"), Err(Errno::EINVAL));
    assert_eq!(rename("/a/b/c", "/a"), Err(Errno::ENOTEMPTY));
    assert_eq!(exchange("/a/b/c", "/a"), Err(Errno::EINVAL));
    assert_eq!(rename("/e", "/full"), Err(Errno::ENOTEMPTY));
    assert_eq!(rename("/f", "/e"), Err(Errno::EISDIR));
    assert_eq!(rename("/e", "/f"), Err(Errno::ENOTDIR));
    assert_eq!(rename("/none", "/f"), Err(Errno::ENOENT));
    assert_eq!(rename("/tmp/../f", "/f"), Ok(0), "to itself");
    lwp.link(&c("/f"), &c("/g")).expect("a link");
    assert_eq!(rename("/f", "/g"), Ok(0));
    assert_eq!(
        names(&lwp, "/")
            .iter()
            .filter(|n| *n == "f" || *n == "g")
            .count(),
        2,
        "two names of one file"
    );
    assert_eq!(
        lwp.renameat2(AT_FDCWD, &c("/f"), AT_FDCWD, &c("/e"), RENAME_NOREPLACE),
        Err(Errno::EEXIST)
    );
    rename("/a/b", "/e/b").expect("moved");
    assert_eq!(
        stat(&lwp, "/e/b/..").expect("there"),
        stat(&lwp, "/e").expect("there")
    );
    lwp.chdir(&c("/e/b/c")).expect("there");
    rename("/e/b", "/b2").expect("moved");
    let mut buf = [0; 64];
    let n = lwp.getcwd(&mut buf, 64).expect("a path") as usize;
    assert_eq!(&buf[..n - 1], b"/b2/c");
    exchange("/b2", "/f").expect("exchanged");
    assert_eq!(
        stat(&lwp, "/b2").expect("there").st_mode & 0o170000,
        0o100000
    );
    assert_eq!(stat(&lwp, "/f").expect("there").st_nlink, 3);
    rename("/e", "/a").expect("over an empty directory");
    assert_eq!(
        lwp.linkat(AT_FDCWD, &c("/a"), AT_FDCWD, &c("/hard"), 0),
        Err(Errno::EPERM)
    );
}

#[test]
fn a_file_without_names_lives_until_it_is_closed() {
    let (_kernel, lwp) = boot();
    let fd = open(&lwp, "/f", O_CREAT | O_RDWR).expect("a file");
    lwp.unlink(&c("/f")).expect("unlinked");
    let mut buf = [0; Stat::SIZE];
    lwp.newfstatat(fd, &c(""), &mut buf, AT_EMPTY_PATH)
        .expect("told");
    assert_eq!(Stat::from_bytes(&buf).st_nlink, 0);
    assert_eq!(
        lwp.linkat(fd, &c(""), AT_FDCWD, &c("/again"), AT_EMPTY_PATH),
        Err(Errno::ENOENT)
    );
    assert_eq!(
        open(&lwp, "/tmp", O_TMPFILE | O_RDWR),
        Err(Errno::EOPNOTSUPP)
    );
    let path = open(&lwp, "/tmp", O_PATH).expect("a place");
    assert_eq!(lwp.read(path, &mut buf, 1), Err(Errno::EBADF));
    assert_eq!(lwp.fchmod(path, 0), Err(Errno::EBADF));
    lwp.fstat(path, &mut buf).expect("told");
    lwp.fchdir(path).expect("there");
}

#[test]
fn reading_a_directory_goes_on_while_it_changes() {
    let (_kernel, lwp) = boot();
    lwp.mkdir(&c("/d"), 0o755).expect("a directory");
    for i in 0..100 {
        touch(&lwp, &format!("/d/{i:03}"));
    }
    let fd = open(&lwp, "/d", O_RDONLY).expect("open");
    assert_eq!(
        lwp.getdents64(fd, &mut [0; 20], 20),
        Err(Errno::EINVAL),
        "no room for one"
    );
    let mut seen = Vec::new();
    let mut buf = [0; 256];
    loop {
        let n = lwp.getdents64(fd, &mut buf, 256).expect("entries") as usize;
        let mut at = 0;
        while at < n {
            let len = usize::from(buf[at + 16]) + 256 * usize::from(buf[at + 17]);
            let name = std::str::from_utf8(&buf[at + 19..at + 22])
                .expect("text")
                .to_owned();
            if name.bytes().all(|b| b.is_ascii_digit()) {
                lwp.unlink(&c(&format!("/d/{name}"))).expect("unlinked");
                seen.push(name);
            }
            at += len;
        }
        if n == 0 {
            break;
        }
    }
    seen.dedup();
    assert_eq!(
        seen.len(),
        100,
        "each once, although each was removed when it was seen"
    );
    lwp.lseek(fd, 0, SEEK_SET).expect("rewound");
    assert!(
        lwp.getdents64(fd, &mut buf, 256).expect("entries") > 0,
        "the dots"
    );
}

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

#[test]
fn a_read_only_mount_refuses_every_change() {
    let (_kernel, lwp) = boot();
    lwp.mkdir(c"/m", 0o755).expect("a directory");
    lwp.mount(c"x", c"/m", c"rumpfs", 0, c"").expect("mounted");
    let fd = open(&lwp, "/m/f", O_CREAT | O_RDWR).expect("a file");
    let remount = |flags: u64| lwp.mount(c"", c"/m", c"", (MS_REMOUNT | flags) as i32, c"");
    assert_eq!(
        remount(MS_RDONLY),
        Err(Errno::EBUSY),
        "a file is open for writing"
    );
    lwp.close(fd).expect("closed");
    remount(MS_RDONLY).expect("read-only");
    let erofs = Err(Errno::EROFS);
    assert_eq!(open(&lwp, "/m/f", O_RDWR).map(i64::from), erofs);
    assert_eq!(open(&lwp, "/m/g", O_CREAT | O_RDWR).map(i64::from), erofs);
    assert_eq!(open(&lwp, "/m/f", O_RDONLY | O_TRUNC).map(i64::from), erofs);
    assert_eq!(lwp.mkdir(c"/m/d", 0), erofs);
    assert_eq!(lwp.unlink(c"/m/f"), erofs);
    assert_eq!(lwp.rename(c"/m/f", c"/m/g"), erofs);
    assert_eq!(lwp.link(c"/m/f", c"/m/g"), erofs);
    assert_eq!(lwp.chmod(c"/m/f", 0), erofs);
    assert_eq!(lwp.truncate(c"/m/f", 0), erofs);
    assert_eq!(lwp.access(c"/m/f", 2), erofs);
    open(&lwp, "/m/f", O_RDONLY).expect("reading goes");
    remount(0).expect("read-write");
    open(&lwp, "/m/g", O_CREAT | O_RDWR).expect("writing goes");
}

#[test]
fn a_detached_mount_serves_whom_it_has_and_goes_with_them() {
    let (kernel, lwp) = boot();
    lwp.mkdir(c"/m", 0o755).expect("a directory");
    lwp.mount(c"x", c"/m", c"rumpfs", 0, c"").expect("mounted");
    lwp.mkdir(c"/m/n", 0o755).expect("a directory");
    lwp.mount(c"x", c"/m/n", c"rumpfs", 0, c"")
        .expect("mounted");
    assert_eq!(
        lwp.umount2(c"/m", 0),
        Err(Errno::EBUSY),
        "something is mounted inside"
    );
    let fd = open(&lwp, "/m/f", O_CREAT | O_RDWR).expect("a file");
    lwp.umount2(c"/m", MNT_DETACH).expect("out of the tree");
    assert_eq!(stat(&lwp, "/m/f"), Err(Errno::ENOENT));
    assert_eq!(lwp.write(fd, b"still", 5), Ok(5));
    assert_eq!(lwp.getvfsstat(&mut [], 0, 0), Ok(1));
    lwp.close(fd).expect("closed");
    let mut buf = vec![0; 2 * VFSSTAT_SIZE];
    lwp.mount(c"what", c"/m", c"rumpfs", 0, c"")
        .expect("mounted");
    assert_eq!(lwp.getvfsstat(&mut buf, 2 * VFSSTAT_SIZE, 0), Ok(2));
    let record = buf[VFSSTAT_SIZE..].first_chunk().expect("a record");
    let told = VfsStat::from_bytes(record);
    assert_eq!(
        (told.fstype, told.source, told.target),
        (b"rumpfs".as_slice(), b"what".as_slice(), b"/m".as_slice())
    );
    drop(lwp);
    kernel.shutdown(true).expect("halted");
}

#[test]
fn extended_attributes_are_kept_and_guarded() {
    let (kernel, lwp) = boot();
    touch(&lwp, "/f");
    let alice = kernel
        .spawn("alice", kern::Cred::user(1000, 1000, &[]))
        .expect("a process");
    let mut buf = [0; 64];
    lwp.setxattr(c"/f", c"user.a", b"one", 3, 0).expect("set");
    lwp.setxattr(c"/f", c"trusted.b", b"two", 3, 0)
        .expect("set");
    assert_eq!(
        lwp.setxattr(c"/f", c"user.a", b"x", 1, 1),
        Err(Errno::EEXIST)
    );
    assert_eq!(
        lwp.setxattr(c"/f", c"user.z", b"x", 1, 2),
        Err(Errno::ENODATA)
    );
    assert_eq!(
        lwp.setxattr(c"/f", c"system.posix_acl_access", b"x", 1, 0),
        Err(Errno::EOPNOTSUPP)
    );
    assert_eq!(lwp.getxattr(c"/f", c"user.a", &mut [], 0), Ok(3));
    assert_eq!(
        lwp.getxattr(c"/f", c"user.a", &mut buf, 2),
        Err(Errno::ERANGE)
    );
    assert_eq!(lwp.getxattr(c"/f", c"user.a", &mut buf, 64), Ok(3));
    assert_eq!(&buf[..3], b"one");
    assert_eq!(
        alice.setxattr(c"/f", c"user.a", b"x", 1, 0),
        Err(Errno::EACCES)
    );
    assert_eq!(
        alice.getxattr(c"/f", c"trusted.b", &mut buf, 64),
        Err(Errno::ENODATA)
    );
    assert_eq!(alice.listxattr(c"/f", &mut buf, 64), Ok(7));
    assert_eq!(&buf[..7], b"user.a\0");
    lwp.removexattr(c"/f", c"user.a").expect("removed");
    assert_eq!(
        lwp.getxattr(c"/f", c"user.a", &mut buf, 64),
        Err(Errno::ENODATA)
    );
}

/// What a name is in the model: a directory, or the number of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Is {
    Dir,
    File(u32),
}

/// The model: full path to what it is. The root is not in it.
#[derive(Clone, Debug, Default)]
struct Model {
    tree: BTreeMap<String, Is>,
    next: u32,
}

#[derive(Clone, Debug)]
enum Step {
    Mkdir(String),
    Create(String),
    Link(String, String),
    Unlink(String),
    Rmdir(String),
    Rename(String, String, i32),
}

impl Model {
    fn parent_of(path: &str) -> &str {
        &path[..path.rfind('/').unwrap_or(0)]
    }

    /// What walking to the directory of a path meets.
    fn walk(&self, path: &str) -> Result<(), Errno> {
        let mut at = 0;
        while let Some(next) = path[at + 1..].find('/') {
            at += 1 + next;
            match self.tree.get(&path[..at]) {
                Some(Is::Dir) => {}
                Some(Is::File(_)) => return Err(Errno::ENOTDIR),
                None => return Err(Errno::ENOENT),
            }
        }
        Ok(())
    }

    fn is_empty(&self, dir: &str) -> bool {
        !self.tree.keys().any(|path| Model::parent_of(path) == dir)
    }

    fn get(&self, path: &str) -> Result<Is, Errno> {
        self.walk(path)?;
        self.tree.get(path).cloned().ok_or(Errno::ENOENT)
    }

    fn add(&mut self, path: &str, is: Is) -> Result<(), Errno> {
        self.walk(path)?;
        if self.tree.contains_key(path) {
            return Err(Errno::EEXIST);
        }
        self.tree.insert(path.to_owned(), is);
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Result<(), Errno> {
        match step {
            Step::Mkdir(path) => self.add(path, Is::Dir),
            Step::Create(path) => {
                self.next += 1;
                self.add(path, Is::File(self.next))
            }
            Step::Link(from, to) => {
                let from = self.get(from)?;
                self.walk(to)?;
                if from == Is::Dir {
                    return Err(if self.tree.contains_key(to) {
                        Errno::EEXIST
                    } else {
                        Errno::EPERM
                    });
                }
                self.add(to, from)
            }
            Step::Unlink(path) => {
                if self.get(path)? == Is::Dir {
                    return Err(Errno::EISDIR);
                }
                self.tree.remove(path);
                Ok(())
            }
            Step::Rmdir(path) => {
                if self.get(path)? != Is::Dir {
                    return Err(Errno::ENOTDIR);
                }
                if !self.is_empty(path) {
                    return Err(Errno::ENOTEMPTY);
                }
                self.tree.remove(path);
                Ok(())
            }
            Step::Rename(from, to, flags) => self.rename(from, to, *flags),
        }
    }

    fn rename(&mut self, from: &str, to: &str, flags: i32) -> Result<(), Errno> {
        self.walk(from)?;
        self.walk(to)?;
        let exchange = flags == RENAME_EXCHANGE;
        let old = self.get(from)?;
        let new = self.tree.get(to).cloned();
        match (&new, flags) {
            (Some(_), RENAME_NOREPLACE) => return Err(Errno::EEXIST),
            (None, RENAME_EXCHANGE) => return Err(Errno::ENOENT),
            _ => {}
        }
        if to.starts_with(&format!("{from}/")) {
            return Err(Errno::EINVAL);
        }
        if from.starts_with(&format!("{to}/")) {
            return Err(if exchange {
                Errno::EINVAL
            } else {
                Errno::ENOTEMPTY
            });
        }
        match (&old, &new) {
            _ if exchange => {}
            (Is::Dir, Some(Is::File(_))) => return Err(Errno::ENOTDIR),
            (Is::File(_), Some(Is::Dir)) => return Err(Errno::EISDIR),
            _ => {}
        }
        if from == to || (new.as_ref() == Some(&old) && old != Is::Dir) {
            return Ok(());
        }
        if !exchange && new == Some(Is::Dir) && !self.is_empty(to) {
            return Err(Errno::ENOTEMPTY);
        }
        let moved = self.take(from);
        let back = self.take(to);
        self.put(to, moved);
        if exchange {
            self.put(from, back);
        }
        Ok(())
    }

    /// Takes a subtree out, as pairs of the path below it and what is there.
    fn take(&mut self, at: &str) -> Vec<(String, Is)> {
        let below = format!("{at}/");
        let paths: Vec<String> = self
            .tree
            .keys()
            .filter(|p| *p == at || p.starts_with(&below))
            .cloned()
            .collect();
        paths
            .into_iter()
            .filter_map(|p| {
                self.tree
                    .remove(&p)
                    .map(|is| (p[at.len()..].to_owned(), is))
            })
            .collect()
    }

    fn put(&mut self, at: &str, what: Vec<(String, Is)>) {
        self.tree.extend(
            what.into_iter()
                .map(|(below, is)| (format!("{at}{below}"), is)),
        );
    }
}

fn apply(lwp: &LwpHandle, base: &str, step: &Step) -> Result<(), Errno> {
    let p = |path: &String| c(&format!("{base}{path}"));
    match step {
        Step::Mkdir(path) => lwp.mkdir(&p(path), 0o755).map(drop),
        Step::Create(path) => {
            let fd = lwp.open(&p(path), O_CREAT | O_EXCL | O_WRONLY, 0o644)?;
            lwp.close(fd as i32).map(drop)
        }
        Step::Link(from, to) => lwp.link(&p(from), &p(to)).map(drop),
        Step::Unlink(path) => lwp.unlink(&p(path)).map(drop),
        Step::Rmdir(path) => lwp.rmdir(&p(path)).map(drop),
        Step::Rename(from, to, flags) => lwp
            .renameat2(AT_FDCWD, &p(from), AT_FDCWD, &p(to), *flags)
            .map(drop),
    }
}

/// Everything below a directory, with kinds and which names are one file.
fn list(lwp: &LwpHandle, base: &str, dir: &str, out: &mut BTreeMap<String, Option<u64>>) {
    for name in names(lwp, &format!("{base}{dir}/")) {
        let path = format!("{dir}/{name}");
        let seen = stat(lwp, &format!("{base}{path}")).expect("listed, so there");
        if seen.st_mode & 0o170000 == 0o040000 {
            list(lwp, base, &path, out);
            out.insert(path, None);
        } else {
            out.insert(path, Some(seen.st_ino));
        }
    }
}

/// The tree is what the model says: paths, kinds, which names are one file, and link counts.
fn compare(lwp: &LwpHandle, base: &str, model: &Model) {
    let mut seen = BTreeMap::new();
    list(lwp, base, "", &mut seen);
    let mut files: BTreeMap<u32, u64> = BTreeMap::new();
    assert_eq!(
        seen.keys().collect::<Vec<_>>(),
        model.tree.keys().collect::<Vec<_>>()
    );
    for (path, is) in &model.tree {
        let links = stat(lwp, &format!("{base}{path}")).expect("there").st_nlink;
        match (is, seen[path]) {
            (Is::Dir, None) => {
                let dirs = model
                    .tree
                    .iter()
                    .filter(|(p, is)| Model::parent_of(p) == path && **is == Is::Dir);
                assert_eq!(links, 2 + dirs.count() as u64, "{path}");
            }
            (Is::File(number), Some(ino)) => {
                assert_eq!(*files.entry(*number).or_insert(ino), ino, "{path}");
                assert_eq!(
                    links,
                    model.tree.values().filter(|other| *other == is).count() as u64,
                    "{path}"
                );
            }
            other => panic!("{path}: {other:?}"),
        }
    }
}

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 1..4)
        .prop_map(|parts| parts.iter().map(|part| format!("/{part}")).collect())
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => path().prop_map(Step::Mkdir),
        3 => path().prop_map(Step::Create),
        1 => (path(), path()).prop_map(|(a, b)| Step::Link(a, b)),
        1 => path().prop_map(Step::Unlink),
        1 => path().prop_map(Step::Rmdir),
        3 => (path(), path(), prop::sample::select(vec![0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE]))
            .prop_map(|(a, b, f)| Step::Rename(a, b, f)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn random_changes_leave_the_tree_that_the_model_says(
        steps in prop::collection::vec(step(), 1..80),
        cached in any::<bool>(),
    ) {
        let (kernel, lwp) = boot();
        lwp.mkdir(c"/t", 0o755).expect("a directory");
        if cached {
            kernel.implicit(&kern::KernelMemory, |cx| {
                crate::Vfs::of(cx).expect("vfs").register(cx, &crate::rumpfs::CACHED).expect("registered");
            });
            lwp.mount(c"x", c"/t", c"cachedfs", 0, c"").expect("mounted");
        }
        let mut model = Model::default();
        for step in &steps {
            let expected = model.clone().step(step);
            prop_assert_eq!(apply(&lwp, "/t", step), expected, "{:?} on {:?}", step, model.tree);
            if expected.is_ok() {
                model.step(step).expect("as before");
            }
        }
        compare(&lwp, "/t", &model);
    }
}

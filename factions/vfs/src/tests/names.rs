//! Names: the corners of walking, changing and listing them.

use abi::*;
use kern::LwpHandle;

use super::{boot, c, names, open, stat, touch};

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

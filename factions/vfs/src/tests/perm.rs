//! Who may do what.

use abi::*;
use kern::{Cred, LwpHandle};

use super::{boot, c, open, stat, touch};

const ALICE: u32 = 1000;
const BOB: u32 = 1001;
const STAFF: u32 = 50;

struct Users {
    root: LwpHandle,
    alice: LwpHandle,
    bob: LwpHandle,
    _kernel: std::sync::Arc<kern::Kernel>,
}

fn users() -> Users {
    let (kernel, root) = boot();
    let spawn = |name: &str, uid| {
        kernel
            .spawn(name, Cred::user(uid, uid, &[STAFF]))
            .expect("a process")
    };
    Users {
        root,
        alice: spawn("alice", ALICE),
        bob: spawn("bob", BOB),
        _kernel: kernel,
    }
}

#[test]
fn a_directory_lets_in_whom_its_mode_lets_in() {
    let u = users();
    u.root.mkdir(&c("/d"), 0o700).expect("a directory");
    open(&u.root, "/d/f", O_CREAT | O_WRONLY).expect("a file");
    u.root.chmod(&c("/d/f"), 0o666).expect("changed");
    assert_eq!(stat(&u.alice, "/d/f"), Err(Errno::EACCES));
    u.root.chmod(&c("/d"), 0o711).expect("changed");
    stat(&u.alice, "/d/f").expect("searchable");
    assert_eq!(
        open(&u.alice, "/d", O_RDONLY),
        Err(Errno::EACCES),
        "not readable"
    );
    open(&u.alice, "/d/f", O_RDWR).expect("the file is everybody's");
    assert_eq!(
        open(&u.alice, "/d/g", O_CREAT | O_WRONLY),
        Err(Errno::EACCES)
    );
    assert_eq!(u.alice.mkdir(&c("/d/g"), 0o777), Err(Errno::EACCES));
    assert_eq!(u.alice.unlink(&c("/d/f")), Err(Errno::EACCES));
    assert_eq!(u.alice.rename(&c("/d/f"), &c("/tmp/f")), Err(Errno::EACCES));
    assert_eq!(u.alice.link(&c("/d/f"), &c("/d/h")), Err(Errno::EACCES));
    assert_eq!(u.alice.symlink(&c("f"), &c("/d/h")), Err(Errno::EACCES));
    u.root.chmod(&c("/d"), 0o600).expect("changed");
    assert_eq!(u.alice.chdir(&c("/d")), Err(Errno::EACCES));
}

#[test]
fn in_a_sticky_directory_names_belong_to_owners() {
    let u = users();
    open(&u.alice, "/tmp/a", O_CREAT | O_WRONLY).expect("a file");
    u.alice.mkdir(&c("/tmp/ad"), 0o777).expect("a directory");
    open(&u.bob, "/tmp/b", O_CREAT | O_WRONLY).expect("a file");
    assert_eq!(u.bob.unlink(&c("/tmp/a")), Err(Errno::EPERM));
    assert_eq!(u.bob.rmdir(&c("/tmp/ad")), Err(Errno::EPERM));
    assert_eq!(u.bob.rename(&c("/tmp/a"), &c("/tmp/c")), Err(Errno::EPERM));
    assert_eq!(u.bob.rename(&c("/tmp/b"), &c("/tmp/a")), Err(Errno::EPERM));
    u.alice
        .rename(&c("/tmp/a"), &c("/tmp/c"))
        .expect("the owner may");
    u.root.unlink(&c("/tmp/c")).expect("the superuser may");
    u.alice.rmdir(&c("/tmp/ad")).expect("the owner may");
}

#[test]
fn set_id_bits_go_when_a_file_is_written_or_given_away() {
    let u = users();
    let fd = open(&u.alice, "/tmp/s", O_CREAT | O_RDWR).expect("a file");
    let mode = || stat(&u.root, "/tmp/s").expect("there").st_mode & 0o7777;
    u.alice.fchmod(fd, 0o4755).expect("changed");
    assert_eq!(mode(), 0o4755);
    u.alice.write(fd, b"x", 1).expect("written");
    assert_eq!(mode(), 0o755, "written by others than the superuser");
    u.alice.fchmod(fd, 0o6755).expect("changed");
    u.alice.ftruncate(fd, 0).expect("cut");
    assert_eq!(mode(), 0o755);
    u.alice.fchmod(fd, 0o6755).expect("changed");
    u.alice
        .fchown(fd, u32::MAX, STAFF)
        .expect("a group of mine");
    assert_eq!(mode(), 0o755);
    u.alice.chmod(&c("/tmp/s"), 0o4711).expect("changed");
    u.root
        .chown(&c("/tmp/s"), BOB, u32::MAX)
        .expect("given away");
    assert_eq!(mode(), 0o711);
    // A group that one is not in takes the bit away.
    u.root.chown(&c("/tmp/s"), ALICE, 77).expect("given back");
    u.alice.chmod(&c("/tmp/s"), 0o2755).expect("changed");
    assert_eq!(mode(), 0o755);
}

#[test]
fn only_owners_change_attributes_and_only_the_superuser_gives_away() {
    let u = users();
    open(&u.alice, "/tmp/f", O_CREAT | O_WRONLY).expect("a file");
    u.alice.chmod(&c("/tmp/f"), 0o622).expect("changed");
    assert_eq!(u.bob.chmod(&c("/tmp/f"), 0o777), Err(Errno::EPERM));
    assert_eq!(u.bob.chown(&c("/tmp/f"), BOB, u32::MAX), Err(Errno::EPERM));
    assert_eq!(
        u.alice.chown(&c("/tmp/f"), BOB, u32::MAX),
        Err(Errno::EPERM)
    );
    assert_eq!(u.alice.chown(&c("/tmp/f"), u32::MAX, 99), Err(Errno::EPERM));
    let long_ago = [
        Timespec {
            tv_sec: 5,
            tv_nsec: 7,
        }
        .to_bytes(),
        Timespec::default().to_bytes(),
    ]
    .concat();
    let times = |lwp: &LwpHandle, times: &[u8]| lwp.utimensat(AT_FDCWD, &c("/tmp/f"), times, 0);
    assert_eq!(times(&u.bob, &long_ago), Err(Errno::EPERM));
    times(&u.bob, &[]).expect("whoever may write may touch");
    times(&u.alice, &long_ago).expect("the owner may");
    let seen = stat(&u.alice, "/tmp/f").expect("there");
    assert_eq!(
        (seen.st_atime, seen.st_atime_nsec, seen.st_mtime),
        (5, 7, 0)
    );
    let omit = Timespec {
        tv_sec: 0,
        tv_nsec: UTIME_OMIT,
    }
    .to_bytes();
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: UTIME_NOW,
    }
    .to_bytes();
    times(&u.alice, &[omit, now].concat()).expect("changed");
    let seen = stat(&u.alice, "/tmp/f").expect("there");
    assert_eq!(seen.st_atime, 5);
    assert!(seen.st_mtime > 1_000_000_000);
}

#[test]
fn access_asks_for_the_real_user_unless_told_otherwise() {
    let u = users();
    open(&u.root, "/tmp/f", O_CREAT | O_WRONLY).expect("a file");
    u.root.chmod(&c("/tmp/f"), 0o600).expect("changed");
    assert_eq!(u.alice.access(&c("/tmp/f"), 0), Ok(0));
    assert_eq!(u.alice.access(&c("/tmp/f"), 4), Err(Errno::EACCES));
    assert_eq!(u.root.access(&c("/tmp/f"), 6), Ok(0));
    assert_eq!(
        u.root.access(&c("/tmp/f"), 1),
        Err(Errno::EACCES),
        "nobody may execute it"
    );
    u.root.setresuid(ALICE, 0, 0).expect("set-user-id");
    assert_eq!(u.root.access(&c("/tmp/f"), 4), Err(Errno::EACCES));
    assert_eq!(
        u.root.faccessat2(AT_FDCWD, &c("/tmp/f"), 4, AT_EACCESS),
        Ok(0)
    );
}

#[test]
fn new_files_take_owner_umask_and_the_group_of_a_set_group_id_directory() {
    let u = users();
    u.root.mkdir(&c("/g"), 0o777).expect("a directory");
    u.root.chown(&c("/g"), 0, STAFF).expect("changed");
    u.root.chmod(&c("/g"), 0o2777).expect("changed");
    assert_eq!(u.alice.umask(0o027), Ok(0o022));
    u.alice
        .open(&c("/g/f"), O_CREAT | O_WRONLY, 0o666)
        .expect("a file");
    u.alice.mkdir(&c("/g/d"), 0o777).expect("a directory");
    let f = stat(&u.root, "/g/f").expect("there");
    assert_eq!((f.st_mode, f.st_uid, f.st_gid), (0o100640, ALICE, STAFF));
    let d = stat(&u.root, "/g/d").expect("there");
    assert_eq!((d.st_mode, d.st_gid), (0o42750, STAFF));
    assert_eq!(u.bob.umask(0), Ok(0o022), "each process has its own");
}

#[test]
fn mounting_and_roots_are_the_superusers() {
    let u = users();
    assert_eq!(
        u.alice.mount(c"x", c"/tmp", c"rumpfs", 0, c""),
        Err(Errno::EPERM)
    );
    assert_eq!(u.alice.umount2(c"/", 0), Err(Errno::EPERM));
    assert_eq!(u.alice.chroot(c"/tmp"), Err(Errno::EPERM));
    assert_eq!(u.alice.mknod(c"/tmp/n", 0o020666, 0x103), Err(Errno::EPERM));
    u.alice
        .mknod(c"/tmp/p", 0o010666, 0)
        .expect("a fifo is everybody's");
    assert_eq!(
        u.alice
            .etfs_register(c"/e", c"/etc/passwd", ETFS_REG, 0, -1),
        Err(Errno::EPERM)
    );
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

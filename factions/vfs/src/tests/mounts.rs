//! Mounts: read-only ones, and those that are taken out of the tree while they are in use.

use abi::*;

use super::{boot, c, open, stat};

#[test]
fn mounting_covers_a_directory_until_it_is_unmounted() {
    let (kernel, lwp) = boot();
    let mount = |kind: &str, dir: &str| lwp.mount(c"none", &c(dir), &c(kind), 0, c"");
    assert_eq!(mount("rumpfs", "/m"), Err(Errno::ENOENT));
    lwp.mkdir(c"/m", 0o755).expect("a directory");
    lwp.mkdir(c"/m/under", 0o755).expect("a directory");
    assert_eq!(mount("nofs", "/m"), Err(Errno::ENODEV));
    mount("rumpfs", "/m").expect("mounted");
    assert_eq!(stat(&lwp, "/m/under"), Err(Errno::ENOENT));
    let fd = open(&lwp, "/m/f", O_CREAT | O_RDWR).expect("a file");
    assert_ne!(
        stat(&lwp, "/m").expect("there").st_dev,
        stat(&lwp, "/m/..").expect("there").st_dev
    );
    assert_eq!(lwp.rmdir(c"/m"), Err(Errno::EBUSY));
    assert_eq!(lwp.umount2(c"/m", 0), Err(Errno::EBUSY));
    lwp.close(fd).expect("closed");
    lwp.umount2(c"/m", 0).expect("unmounted");
    stat(&lwp, "/m/under").expect("visible again");
    drop(lwp);
    kernel.shutdown(true).expect("halted");
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

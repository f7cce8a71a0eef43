//! Host files in the kernel's root.

use abi::*;
use kern::KernelMemory;

use super::{boot, c, names, open, stat};
use crate::Vfs;

struct Fixture {
    dir: tempfile::TempDir,
    kernel: std::sync::Arc<kern::Kernel>,
    lwp: kern::LwpHandle,
}

impl Fixture {
    fn new() -> Fixture {
        let dir = tempfile::tempdir().expect("a directory");
        let (kernel, lwp) = boot();
        Fixture { dir, kernel, lwp }
    }

    fn host(&self, name: &str) -> String {
        self.dir
            .path()
            .join(name)
            .to_str()
            .expect("text")
            .to_owned()
    }

    fn register(&self, key: &str, host: &str, kind: i32, begin: i64, size: i64) -> SysResult {
        self.lwp
            .etfs_register(&c(key), &c(&self.host(host)), kind, begin, size)
    }

    fn read(&self, path: &str) -> Result<Vec<u8>, Errno> {
        let fd = open(&self.lwp, path, O_RDONLY)?;
        let mut buf = vec![0; 10000];
        let n = self.lwp.read(fd, &mut buf, 10000);
        self.lwp.close(fd).expect("closed");
        buf.truncate(n? as usize);
        Ok(buf)
    }
}

#[test]
fn keys_follow_the_rules_of_rump() {
    let f = Fixture::new();
    std::fs::write(f.dir.path().join("h"), "0123456789").expect("a file");
    let whole = |key: &str| f.register(key, "h", ETFS_REG, 0, ETFS_SIZE_ENDOFF);
    assert_eq!(whole("relative"), Err(Errno::EINVAL));
    assert_eq!(whole("///"), Err(Errno::EINVAL));
    whole("//key//x").expect("registered");
    assert_eq!(
        whole("/key//x"),
        Err(Errno::EEXIST),
        "leading slashes collapse"
    );
    assert_eq!(f.read("/key//x").expect("read"), b"0123456789");
    assert_eq!(
        f.read("/key/x"),
        Err(Errno::ENOENT),
        "the rest is compared verbatim"
    );
    assert!(
        !names(&f.lwp, "/").contains(&"key".to_owned()),
        "not in readdir"
    );
    assert_eq!(
        f.register("/no", "missing", ETFS_REG, 0, -1),
        Err(Errno::ENOENT)
    );
    assert_eq!(f.register("/no", ".", ETFS_REG, 0, -1), Err(Errno::EISDIR));
    assert_eq!(f.register("/no", "h", ETFS_DIR, 0, -1), Err(Errno::ENOTDIR));
    assert_eq!(f.register("/no", "h", ETFS_REG, 11, -1), Err(Errno::EINVAL));
    assert_eq!(f.register("/no", "h", 77, 0, -1), Err(Errno::EINVAL));
    assert_eq!(f.lwp.etfs_remove(&c("/key/x")), Err(Errno::ENOENT));
    let fd = open(&f.lwp, "/key//x", O_RDONLY).expect("open");
    assert_eq!(f.lwp.etfs_remove(&c("/key//x")), Err(Errno::EBUSY));
    f.lwp.close(fd).expect("closed");
    f.lwp.etfs_remove(&c("/key//x")).expect("removed");
    assert_eq!(f.read("/key//x"), Err(Errno::ENOENT));
}

#[test]
fn a_window_shows_its_part_and_no_more() {
    let f = Fixture::new();
    std::fs::write(f.dir.path().join("h"), "0123456789").expect("a file");
    for (key, kind) in [("/reg", ETFS_REG), ("/chr", ETFS_CHR), ("/blk", ETFS_BLK)] {
        f.register(key, "h", kind, 2, 5).expect("registered");
        assert_eq!(f.read(key).expect("read"), b"23456", "{key}");
        let fd = open(&f.lwp, key, O_RDWR).expect("open");
        assert_eq!(f.lwp.pwrite64(fd, b"abcdef", 6, 3), Ok(2), "{key}");
        assert_eq!(f.lwp.pwrite64(fd, b"x", 1, 5), Err(Errno::ENOSPC), "{key}");
        assert_eq!(f.lwp.lseek(fd, 0, SEEK_END), Ok(5), "{key}");
        f.lwp
            .fsync(fd)
            .or_else(|e| if kind == ETFS_CHR { Ok(0) } else { Err(e) })
            .expect("synced");
        f.lwp.close(fd).expect("closed");
        let host = std::fs::read(f.dir.path().join("h")).expect("read");
        assert_eq!(host, b"01234ab789", "{key}");
        f.lwp.etfs_remove(&c(key)).expect("removed");
        std::fs::write(f.dir.path().join("h"), "0123456789").expect("a file");
    }
}

#[test]
fn a_whole_file_grows_and_a_read_only_one_is_not_written() {
    let f = Fixture::new();
    std::fs::write(f.dir.path().join("h"), "abc").expect("a file");
    f.register("/h", "h", ETFS_REG, 0, -1).expect("registered");
    let fd = open(&f.lwp, "/h", O_RDWR | O_APPEND).expect("open");
    assert_eq!(f.lwp.write(fd, b"def", 3), Ok(3));
    assert_eq!(std::fs::read(f.host("h")).expect("read"), b"abcdef");
    std::fs::write(f.host("h"), "the host was here").expect("written");
    assert_eq!(stat(&f.lwp, "/h").expect("there").st_size, 17);
    f.lwp.close(fd).expect("closed");
    let fd = open(&f.lwp, "/h", O_WRONLY | O_TRUNC).expect("open");
    assert_eq!(std::fs::read(f.host("h")).expect("read"), b"");
    f.lwp.close(fd).expect("closed");
    f.register("/ro", "h", ETFS_REG | ETFS_RDONLY, 0, -1)
        .expect("registered");
    assert_eq!(open(&f.lwp, "/ro", O_RDWR), Err(Errno::EROFS));
}

#[test]
fn sectors_are_as_large_as_the_host_says() {
    let dir = tempfile::tempdir().expect("a directory");
    let image = dir.path().join("img");
    std::fs::write(&image, vec![7; 3 * 2048 + 512]).expect("a file");
    let booted = |shift: &'static str| {
        let host = hypercall::PosixHost::with_params([("RUMP_BLKSECTSHIFT", shift)]);
        kern::Kernel::builder(host).component(&crate::VFS).boot()
    };
    let kernel = booted("11").expect("boots");
    let lwp = kernel.rfork(kern::RforkFds::Clear).expect("a process");
    let host = c(image.to_str().expect("text"));
    lwp.etfs_register(&c("/dev/cd"), &host, ETFS_BLK, 0, -1)
        .expect("registered");
    let fd = open(&lwp, "/dev/cd", O_RDONLY).expect("open");
    let (mut sector, mut size) = ([0; 4], [0; 8]);
    lwp.ioctl(fd, 0x1268, &mut sector).expect("BLKSSZGET");
    assert_eq!(i32::from_le_bytes(sector), 2048);
    lwp.ioctl(fd, 0x8008_1272u32 as i32, &mut size)
        .expect("BLKGETSIZE64");
    assert_eq!(u64::from_le_bytes(size), 3 * 2048, "whole sectors");
    for bad in ["8", "13", "", "nine", "-9"] {
        assert_eq!(booted(bad).err(), Some(Errno::EINVAL), "{bad}");
    }
}

#[test]
fn a_block_device_is_cached_and_tells_its_size() {
    let f = Fixture::new();
    std::fs::write(f.host("img"), vec![7; 1 << 20]).expect("a file");
    f.register("/dev/disk0", "img", ETFS_BLK, 0, -1)
        .expect("registered");
    let fd = open(&f.lwp, "/dev/disk0", O_RDWR).expect("open");
    let mut size = [0; 8];
    f.lwp
        .ioctl(fd, 0x8008_1272u32 as i32, &mut size)
        .expect("BLKGETSIZE64");
    assert_eq!(u64::from_le_bytes(size), 1 << 20);
    let mut sector = [0; 4];
    f.lwp.ioctl(fd, 0x1268, &mut sector).expect("BLKSSZGET");
    assert_eq!(i32::from_le_bytes(sector), 512);
    f.lwp.ioctl(fd, 0x1260, &mut size).expect("BLKGETSIZE");
    assert_eq!(u64::from_le_bytes(size), 2048);
    assert_eq!(f.lwp.pwrite64(fd, &[9; 512], 512, 4096), Ok(512));
    assert_eq!(
        std::fs::read(f.host("img")).expect("read")[4096],
        7,
        "still in the cache"
    );
    f.lwp.fsync(fd).expect("synced");
    assert_eq!(
        std::fs::read(f.host("img")).expect("read")[4096..4096 + 513],
        [vec![9; 512], vec![7]].concat()
    );
    f.lwp.close(fd).expect("closed");
    f.kernel.implicit(&KernelMemory, |cx| {
        let vfs = Vfs::of(cx).expect("vfs");
        let (vp, _) = vfs
            .etfs
            .find(cx, b"dev/disk0")
            .expect("no error")
            .expect("there");
        assert_eq!(vp.block_device().expect("a device").size(), 1 << 20);
    });
    f.lwp.etfs_remove(&c("/dev/disk0")).expect("removed");
}

#[test]
fn directories_show_their_files_and_only_with_subdirs_more() {
    let f = Fixture::new();
    std::fs::create_dir_all(f.host("d/sub/deep")).expect("directories");
    std::fs::write(f.host("d/file"), "one").expect("a file");
    std::fs::write(f.host("d/sub/deep/file"), "two").expect("a file");
    f.register("/flat", "d", ETFS_DIR, 0, -1)
        .expect("registered");
    f.register("/tree", "d", ETFS_DIR_SUBDIRS, 0, -1)
        .expect("registered");
    assert_eq!(f.read("/flat/file").expect("read"), b"one");
    assert_eq!(f.read("/flat/sub/deep/file"), Err(Errno::ENOENT));
    assert_eq!(f.read("/tree/sub/deep/file").expect("read"), b"two");
    assert_eq!(names(&f.lwp, "/flat"), ["file"]);
    assert_eq!(names(&f.lwp, "/tree"), ["file", "sub"]);
    f.lwp.chdir(&c("/tree/sub/deep")).expect("there");
    assert_eq!(f.lwp.etfs_remove(&c("/tree")), Err(Errno::EBUSY));
    let mut buf = [0; 100];
    let n = f.lwp.getcwd(&mut buf, 100).expect("a path") as usize;
    assert_eq!(&buf[..n - 1], b"/tree/sub/deep");
    assert_eq!(
        stat(&f.lwp, "../../..").expect("there"),
        stat(&f.lwp, "/").expect("there")
    );
    f.lwp.chdir(&c("/")).expect("there");
    f.lwp.etfs_remove(&c("/tree")).expect("removed");
    assert_eq!(f.read("/flat/file").expect("read"), b"one");
}

#[test]
fn a_host_file_that_vanishes_hurts_nobody_else() {
    let f = Fixture::new();
    std::fs::create_dir(f.host("d")).expect("a directory");
    for name in ["h", "other", "d/x"] {
        std::fs::write(f.host(name), name).expect("a file");
    }
    f.register("/h", "h", ETFS_REG, 0, -1).expect("registered");
    f.register("/other", "other", ETFS_REG, 0, -1)
        .expect("registered");
    f.register("/d", "d", ETFS_DIR, 0, -1).expect("registered");
    std::fs::remove_file(f.host("h")).expect("removed");
    std::fs::remove_dir_all(f.host("d")).expect("removed");
    assert_eq!(stat(&f.lwp, "/h"), Err(Errno::ENOENT));
    assert_eq!(f.read("/h"), Err(Errno::ENOENT));
    assert_eq!(f.read("/d/x"), Err(Errno::ENOENT));
    assert_eq!(f.read("/other").expect("read"), b"other");
    f.lwp.etfs_remove(&c("/h")).expect("removed");
}

#[test]
fn a_node_can_be_there_from_boot_on() {
    use crate::{EtfsBuilder, EtfsNode, EtfsType};
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "early").expect("written");
    let node = |path: &str| EtfsNode::new("/early", path, EtfsType::Regular);
    let builder = || {
        let host = hypercall::PosixHost::with_params([("RUMP_NCPU", "1")]);
        kern::Kernel::builder(host).component(&crate::VFS)
    };
    let path = file.path().to_str().expect("text");
    let kernel = builder().etfs(node(path)).boot().expect("a kernel");
    let lwp = kernel.rfork(kern::RforkFds::Clear).expect("a process");
    assert_eq!(stat(&lwp, "/early").expect("there").st_size, 5);
    let error = builder().etfs(node("/does/not/exist")).boot().map(drop);
    assert_eq!(error, Err(Errno::ENOENT));
}

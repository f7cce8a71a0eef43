//! Images of each kind, written through the kernel and judged by e2fsck, and those of mke2fs read back.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // tests are on the host's side

mod common;

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use abi::{AT_FDCWD, AT_SYMLINK_NOFOLLOW, Errno, Syscalls};
use common::{Image, Machine, c, pattern};

const KINDS: [&str; 6] = [
    "-t ext2 -b 1024",
    "-t ext2 -b 4096",
    "-t ext3 -b 1024",
    "-t ext3 -b 4096",
    "-t ext4 -b 1024",
    "-t ext4 -b 4096",
];

fn populate(m: &Machine) {
    for dir in ["/m/a", "/m/a/b", "/m/a/b/c", "/m/empty"] {
        m.lwp.mkdir(&c(dir), 0o750).expect(dir);
    }
    for (i, len) in [0, 1, 100, 1024, 4095, 4096, 4097, 70_000, 3_000_000]
        .into_iter()
        .enumerate()
    {
        m.write(&format!("/m/a/f{i}"), &pattern(i as u64, len))
            .expect("written");
    }
    for i in 0..200 {
        m.write(&format!("/m/a/b/small{i}"), &pattern(i, 30))
            .expect("written");
    }
    m.lwp
        .link(&c("/m/a/f3"), &c("/m/a/b/c/hard"))
        .expect("linked");
    m.lwp.symlink(&c("f2"), &c("/m/a/fast")).expect("linked");
    let long = "x/".repeat(100) + "y";
    m.lwp.symlink(&c(&long), &c("/m/a/slow")).expect("linked");
    m.lwp
        .mknod(&c("/m/a/null"), 0o020_666, 0x103)
        .expect("made");
    m.lwp.mknod(&c("/m/a/fifo"), 0o010_600, 0).expect("made");
    m.lwp
        .rename(&c("/m/a/f4"), &c("/m/a/b/moved"))
        .expect("renamed");
    m.lwp
        .rename(&c("/m/a/f5"), &c("/m/a/f6"))
        .expect("replaced");
    m.lwp
        .renameat2(AT_FDCWD, &c("/m/a/f7"), AT_FDCWD, &c("/m/a/b/c"), 2)
        .expect("exchanged");
    m.lwp.unlink(&c("/m/a/b/small7")).expect("unlinked");
    m.lwp.mkdir(&c("/m/gone"), 0o755).expect("made");
    m.lwp.rmdir(&c("/m/gone")).expect("removed");
    m.lwp.chmod(&c("/m/a/f1"), 0o4711).expect("chmod");
    m.lwp.chown(&c("/m/a/f2"), 70_000, 80_000).expect("chown");
    m.lwp.truncate(&c("/m/a/f8"), 1_234_567).expect("cut");
    let fd = m
        .open("/m/sparse", abi::O_RDWR | abi::O_CREAT)
        .expect("made");
    m.write_at(fd, b"end", 5_000_000).expect("written");
    m.close(fd);
}

fn check(m: &Machine) {
    assert_eq!(m.read("/m/a/f0").expect("read"), b"");
    for (i, len) in [(1, 1), (2, 100), (3, 1024)] {
        assert_eq!(
            m.read(&format!("/m/a/f{i}")).expect("read"),
            pattern(i, len),
            "f{i}"
        );
    }
    assert_eq!(m.read("/m/a/b/moved").expect("read"), pattern(4, 4095));
    assert_eq!(m.read("/m/a/f6").expect("read"), pattern(5, 4096));
    assert_eq!(m.read("/m/a/b/c").expect("read"), pattern(7, 70_000));
    assert_eq!(m.read("/m/a/f7/hard").expect("read"), pattern(3, 1024));
    assert_eq!(
        m.read("/m/a/f8").expect("read"),
        &pattern(8, 3_000_000)[..1_234_567]
    );
    assert_eq!(m.stat("/m/a/f3").expect("stat").st_nlink, 2);
    assert_eq!(m.readlink("/m/a/fast").expect("link"), b"f2");
    assert_eq!(m.readlink("/m/a/slow").expect("link").len(), 201);
    let null = m.stat("/m/a/null").expect("stat");
    assert_eq!((null.st_mode, null.st_rdev), (0o020_644, 0x103));
    assert_eq!(m.stat("/m/a/fifo").expect("stat").st_mode, 0o010_600);
    assert_eq!(m.stat("/m/a/f1").expect("stat").st_mode, 0o104_711);
    let owned = m.stat("/m/a/f2").expect("stat");
    assert_eq!((owned.st_uid, owned.st_gid), (70_000, 80_000));
    assert_eq!(m.list("/m/a/b").expect("listed").len(), 199 + 2);
    assert_eq!(m.list_by("/m/a/b", 100).expect("listed").len(), 199 + 2);
    assert_eq!(m.stat("/m/gone").err(), Some(Errno::ENOENT));
    let sparse = m.read("/m/sparse").expect("read");
    assert_eq!(sparse.len(), 5_000_003);
    assert!(sparse[..5_000_000].iter().all(|b| *b == 0) && sparse.ends_with(b"end"));
    assert!(m.stat("/m/sparse").expect("stat").st_blocks < 100);
}

#[test]
fn what_was_written_is_read_back_and_e2fsck_is_content() {
    for kind in KINDS {
        let image = Image::make(kind, "64M");
        let m = Machine::with(&image.path);
        populate(&m);
        check(&m);
        m.unmount().expect("unmounts");
        image.assert_clean();
        m.mount(&image.path, "").expect("mounts again");
        check(&m);
        m.unmount().expect("unmounts");
        m.mount(&image.path, "ro").expect("mounts read-only");
        check(&m);
        assert_eq!(m.write("/m/new", b"x").err(), Some(Errno::EROFS));
        m.unmount().expect("unmounts");
        image.assert_clean();
        println!("{kind}: good");
    }
}

#[test]
fn times_keep_their_nanoseconds_and_go_beyond_2038() {
    let image = Image::make("-t ext4 -I 256", "16M");
    let m = Machine::with(&image.path);
    m.write("/m/f", b"x").expect("written");
    let mut times = [0; 32];
    for (i, value) in [5_000_000_000i64, 123_456_789, 1_000_000_000, 987_654_321]
        .iter()
        .enumerate()
    {
        times[i * 8..i * 8 + 8].copy_from_slice(&value.to_le_bytes());
    }
    m.lwp
        .utimensat(AT_FDCWD, &c("/m/f"), &times, AT_SYMLINK_NOFOLLOW)
        .expect("set");
    let before = m.stat("/m/f").expect("stat");
    m.unmount().expect("unmounts");
    m.mount(&image.path, "").expect("mounts");
    let after = m.stat("/m/f").expect("stat");
    assert_eq!(
        (after.st_atime, after.st_atime_nsec),
        (5_000_000_000, 123_456_789)
    );
    assert_eq!(
        (after.st_mtime, after.st_mtime_nsec),
        (1_000_000_000, 987_654_321)
    );
    assert_eq!(
        (before.st_ctime, before.st_ctime_nsec),
        (after.st_ctime, after.st_ctime_nsec)
    );
    m.unmount().expect("unmounts");
    image.assert_clean();
}

/// A tree of the host's, as something to compare: kind, size or target, mode, content.
fn tree(dir: &Path, prefix: &str, out: &mut BTreeMap<String, (u32, Vec<u8>)>) {
    for entry in std::fs::read_dir(dir).expect("listed") {
        let entry = entry.expect("an entry");
        let path = entry.path();
        let name = format!("{prefix}/{}", entry.file_name().to_str().expect("text"));
        let meta = path.symlink_metadata().expect("stat");
        let content = if meta.is_symlink() {
            path.read_link()
                .expect("link")
                .into_os_string()
                .into_encoded_bytes()
        } else if meta.is_dir() {
            tree(&path, &name, out);
            Vec::new()
        } else {
            std::fs::read(&path).expect("read")
        };
        out.insert(name, (meta.mode(), content));
    }
}

fn compare(m: &Machine, prefix: &str, want: &BTreeMap<String, (u32, Vec<u8>)>) -> usize {
    let mut seen = 0;
    for name in m.list(prefix).expect("listed") {
        let name = format!("{prefix}/{}", String::from_utf8(name).expect("text"));
        if name == "/m/lost+found" {
            continue;
        }
        seen += 1;
        let stat = m.stat(&name).expect("stat");
        let (mode, content) = &want[name.strip_prefix("/m").expect("below")];
        assert_eq!(stat.st_mode, *mode, "{name}");
        match stat.st_mode & 0o170_000 {
            0o040_000 => seen += compare(m, &name, want),
            0o120_000 => assert_eq!(&m.readlink(&name).expect("link"), content, "{name}"),
            _ => assert!(&m.read(&name).expect("read") == content, "{name}"),
        }
    }
    seen
}

#[test]
fn an_image_populated_by_mke2fs_reads_identical() {
    let source = tempfile::tempdir().expect("a directory");
    let root = source.path();
    for i in 0..20 {
        let dir = root.join(format!("dir{i}"));
        std::fs::create_dir(&dir).expect("made");
        for j in 0..60 {
            let len = [0, 10, 1024, 5000, 100_000][(i + j) % 5];
            std::fs::write(
                dir.join(format!("file-with-a-name-{j}")),
                pattern((i * 100 + j) as u64, len),
            )
            .expect("written");
        }
        symlink("file-with-a-name-3", dir.join("short")).expect("linked");
        symlink("z".repeat(150), dir.join("long")).expect("linked");
    }
    let mut want = BTreeMap::new();
    tree(root, "", &mut want);
    for kind in KINDS {
        let image = Image::make(&format!("{kind} -d {}", root.display()), "96M");
        let m = Machine::boot();
        for options in ["ro", ""] {
            m.mount(&image.path, options).expect("mounts");
            assert_eq!(compare(&m, "/m", &want), want.len());
            m.unmount().expect("unmounts");
            image.assert_clean();
        }
    }
}

#[test]
fn a_large_directory_is_listed_whole_in_pieces_of_any_size() {
    let image = Image::make("-t ext4 -b 1024 -N 6000", "32M");
    let m = Machine::with(&image.path);
    m.lwp.mkdir(&c("/m/d"), 0o755).expect("made");
    let mut want: Vec<Vec<u8>> = (0..5000)
        .map(|i| format!("name-{i}").into_bytes())
        .collect();
    for name in &want {
        m.write(
            &format!("/m/d/{}", std::str::from_utf8(name).expect("text")),
            b"",
        )
        .expect("written");
    }
    want.sort();
    for size in [64, 300, 32 << 10] {
        assert_eq!(m.list_by("/m/d", size).expect("listed"), want);
    }
    for i in (0..5000).filter(|i| i % 3 != 0) {
        m.lwp
            .unlink(&c(format!("/m/d/name-{i}")))
            .expect("unlinked");
    }
    assert_eq!(m.list("/m/d").expect("listed").len(), 1667);
    m.unmount().expect("unmounts");
    image.assert_clean();
    m.mount(&image.path, "").expect("mounts");
    assert_eq!(m.list("/m/d").expect("listed").len(), 1667);
    m.unmount().expect("unmounts");
}

#[test]
fn a_directory_without_extents_grows_through_indirect_blocks() {
    let formats = [
        ("-t ext2 -b 1024 -N 6000", 5000),
        ("-t ext3 -b 1024 -N 6000", 5000),
        ("-t ext2 -b 4096 -N 6000", 5000),
        ("-t ext3 -b 4096 -N 6000", 5000),
        ("-t ext3 -b 1024 -O metadata_csum -N 1500", 1200),
        ("-t ext2 -b 1024 -O ^dir_index -N 1500", 1200),
    ];
    for (format, n) in formats {
        let image = Image::make(format, "48M");
        let m = Machine::with(&image.path);
        m.lwp.mkdir(&c("/m/d"), 0o755).expect("made");
        m.lwp.chmod(&c("/m/d"), 0o2755).expect("set");
        let path = |i: i32| c(format!("/m/d/name-{i}"));
        let make = |i: i32| {
            let made = match i % 50 {
                0 => m.lwp.mkdir(&path(i), 0o700),
                1 => m.lwp.symlink(&c("elsewhere"), &path(i)),
                2 => m.lwp.mknod(&path(i), 0o100644, 0),
                _ => m.lwp.link(&path(i - i % 50 + 2), &path(i)),
            };
            made.unwrap_or_else(|error| panic!("{format}, {i}: {error}"));
        };
        (0..n).for_each(make);
        assert_eq!(m.stat("/m/d").expect("there").st_mode & 0o7777, 0o2755);
        let all = m.list("/m/d").expect("listed").len();
        assert_eq!(all, n as usize);
        m.sync().expect("synced");
        let gone = |i: &i32| i % 2 == 0 && i % 50 > 2;
        for i in (0..n).filter(gone) {
            m.lwp.unlink(&path(i)).expect("unlinked");
        }
        m.unmount().expect("unmounts");
        image.assert_clean();
        m.mount(&image.path, "").expect("mounts");
        (0..n).filter(gone).for_each(make);
        assert_eq!(m.list("/m/d").expect("listed").len(), all);
        let blocks = m.stat("/m/d").expect("there").st_blocks;
        m.unmount().expect("unmounts");
        image.assert_clean();
        assert!(blocks > 24, "{format}: {blocks}");
    }
}

#[test]
fn an_indexed_directory_without_extents_becomes_a_plain_one_that_grows() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(dir.path().join("d")).expect("made");
    for i in 0..400 {
        std::fs::write(dir.path().join(format!("d/a-rather-long-name-{i}")), b"").expect("written");
    }
    let source = dir.path().to_str().expect("text");
    let image = Image::make(&format!("-t ext3 -b 1024 -N 3000 -d {source}"), "32M");
    // e2fsck makes the index.
    common::run("e2fsck", &["-fyD", image.path.to_str().expect("text")]);
    let m = Machine::with(&image.path);
    assert_eq!(m.list("/m/d").expect("listed").len(), 400);
    for i in 400..2000 {
        m.write(&format!("/m/d/a-rather-long-name-{i}"), b"")
            .expect("written");
    }
    assert_eq!(m.list("/m/d").expect("listed").len(), 2000);
    m.unmount().expect("unmounts");
    image.assert_clean();
}

#[test]
fn a_directory_whose_blocks_lie_scattered_is_counted_right() {
    let image = Image::make("-t ext4 -b 1024 -N 4000", "32M");
    let m = Machine::with(&image.path);
    m.lwp.mkdir(&c("/m/d"), 0o755).expect("made");
    for i in 0..1500 {
        m.write(&format!("/m/d/a-rather-long-name-{i}"), &pattern(i, 1500))
            .expect("written");
        if i % 25 == 0 {
            m.sync().expect("synced");
        }
    }
    m.unmount().expect("unmounts");
    let stat = image.debugfs("stat /d");
    assert!(stat.contains("ETB0"), "no index node: {stat}");
    image.assert_clean();
    m.mount(&image.path, "").expect("mounts");
    for i in (0..1500).filter(|i| i % 2 == 0) {
        m.lwp
            .unlink(&c(format!("/m/d/a-rather-long-name-{i}")))
            .expect("unlinked");
    }
    m.unmount().expect("unmounts");
    image.assert_clean();
}

#[test]
fn a_directory_that_says_it_is_longer_than_the_file_system_is_none() {
    for format in KINDS {
        let image = Image::make(format, "16M");
        let m = Machine::with(&image.path);
        m.lwp.mkdir(&c("/m/d"), 0o755).expect("made");
        m.lwp.mkdir(&c("/m/d/e"), 0o755).expect("made");
        m.unmount().expect("unmounts");
        image.debugfs("sif /d size 0x40000000");
        m.mount(&image.path, "").expect("mounts");
        assert_eq!(m.stat("/m/d/e").err(), Some(Errno::EUCLEAN), "{format}");
        assert_eq!(m.list("/m/d").err(), Some(Errno::EUCLEAN), "{format}");
        m.unmount().expect("unmounts");
    }
}

#[test]
fn data_that_waits_to_be_written_has_blocks() {
    let image = Image::make("-t ext4 -b 1024", "16M");
    let m = Machine::with(&image.path);
    let blocks = |path: &str| m.stat(path).expect("there").st_blocks;
    m.write("/m/f", &pattern(1, 10_000)).expect("written");
    m.write("/m/small", b"data").expect("written");
    assert!(blocks("/m/f") >= 20, "{}", blocks("/m/f"));
    assert!(blocks("/m/small") >= 2, "{}", blocks("/m/small"));
    m.sync().expect("synced");
    assert_eq!(blocks("/m/f"), 20);
    assert_eq!(blocks("/m/small"), 2);
    m.lwp.truncate(&c("/m/f"), 1 << 20).expect("longer");
    assert_eq!(blocks("/m/f"), 20, "a hole has none");
    m.write("/m/cut", &pattern(1, 10_000)).expect("written");
    m.lwp.truncate(&c("/m/cut"), 0).expect("cut");
    assert_eq!(blocks("/m/cut"), 0);
    m.unmount().expect("unmounts");
    image.assert_clean();
}

#[test]
fn an_unlinked_open_file_keeps_its_data_and_is_freed_at_the_end() {
    let image = Image::make("-t ext4 -b 4096", "16M");
    let m = Machine::with(&image.path);
    let free = || {
        let mut stat = [0; 120];
        m.lwp.statfs(&c("/m"), &mut stat).expect("statfs");
        u64::from_le_bytes(stat[24..32].try_into().expect("eight"))
    };
    let before = free();
    let fd = m.open("/m/f", abi::O_RDWR | abi::O_CREAT).expect("made");
    m.write_at(fd, &pattern(1, 1 << 20), 0).expect("written");
    m.fsync(fd).expect("synced");
    assert_eq!(before - free(), 256);
    m.lwp.unlink(&c("/m/f")).expect("unlinked");
    let mut buf = vec![0; 1 << 20];
    m.lwp.pread64(fd, &mut buf, 1 << 20, 0).expect("read");
    assert!(buf == pattern(1, 1 << 20));
    m.close(fd);
    assert_eq!(free(), before);
    m.unmount().expect("unmounts");
    image.assert_clean();
}

#[test]
fn extended_attributes_are_kept() {
    let image = Image::make("-t ext4 -b 4096", "16M");
    let m = Machine::with(&image.path);
    m.write("/m/f", b"x").expect("written");
    let (path, name) = (c("/m/f"), c("user.colour"));
    m.lwp.setxattr(&path, &name, b"blue", 4, 0).expect("set");
    m.lwp
        .setxattr(&path, &c("user.large"), &[7; 2000], 2000, 0)
        .expect("set");
    m.unmount().expect("unmounts");
    image.assert_clean();
    m.mount(&image.path, "").expect("mounts");
    let mut value = [0; 16];
    assert_eq!(m.lwp.getxattr(&path, &name, &mut value, 16), Ok(4));
    assert_eq!(&value[..4], b"blue");
    assert_eq!(
        m.lwp.getxattr(&path, &c("user.none"), &mut value, 16),
        Err(Errno::ENODATA)
    );
    let mut list = [0; 64];
    assert_eq!(m.lwp.listxattr(&path, &mut list, 64), Ok(23));
    m.lwp.removexattr(&path, &name).expect("removed");
    assert_eq!(
        m.lwp.getxattr(&path, &name, &mut value, 16),
        Err(Errno::ENODATA)
    );
    m.unmount().expect("unmounts");
    image.assert_clean();
}

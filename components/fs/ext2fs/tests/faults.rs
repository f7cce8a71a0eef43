//! What goes wrong: full disks, failing hosts, images that are not what they should be.

#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // tests are on the host's side

mod common;

use std::os::unix::fs::FileExt;

use abi::{Errno, Syscalls};
use common::{Image, Machine, c, pattern};
use testing::{Dice, FaultyHost};

#[test]
fn a_full_disk_is_told_by_write_and_works_again_when_there_is_space() {
    for kind in ["-t ext2 -b 1024", "-t ext4 -b 4096"] {
        let image = Image::make(kind, "8M");
        let m = Machine::with(&image.path);
        m.write("/m/first", &pattern(1, 10_000)).expect("written");
        let mut files = 0;
        let error = loop {
            match m.write(&format!("/m/fill{files}"), &pattern(files, 300_000)) {
                Ok(()) => files += 1,
                Err(error) => break error,
            }
            assert!(files < 100);
        };
        assert_eq!(error, Errno::ENOSPC);
        m.sync().expect("what was taken has its space");
        for i in 0..files {
            assert!(m.read(&format!("/m/fill{i}")).expect("read") == pattern(i, 300_000));
        }
        for i in 0..3 {
            m.lwp.unlink(&c(format!("/m/fill{i}"))).expect("unlinked");
        }
        m.write("/m/again", &pattern(9, 300_000))
            .expect("there is space");
        m.sync().expect("synced");
        assert!(m.read("/m/again").expect("read") == pattern(9, 300_000));
        assert!(m.read("/m/first").expect("read") == pattern(1, 10_000));
        m.unmount().expect("unmounts");
        image.assert_clean();
    }
}

#[test]
fn a_failing_host_is_told_and_the_kernel_goes_on() {
    let image = Image::make("-t ext4 -b 4096", "32M");
    let (host, faults) = FaultyHost::new();
    let m = Machine::on(host);
    m.mount(&image.path, "").expect("mounts");
    let fd = m.open("/m/f", abi::O_RDWR | abi::O_CREAT).expect("made");
    m.write_at(fd, &pattern(1, 100_000), 0).expect("written");
    m.fsync(fd).expect("synced");
    m.write_at(fd, &pattern(2, 100_000), 0).expect("written");
    m.lwp.mkdir(&c("/m/d"), 0o755).expect("made");
    faults.writes(true);
    assert_eq!(m.fsync(fd), Err(Errno::EIO));
    m.close(fd);
    assert!(m.lwp.mkdir(&c("/elsewhere"), 0o755).is_ok());
    faults.writes(false);
    let _ = m.unmount();
    common::repair(&image.path);
    let m = Machine::with(&image.path);
    assert_eq!(m.read("/m/f").expect("read").len(), 100_000);
    m.unmount().expect("unmounts");
}

#[test]
fn unreadable_data_is_an_error_of_that_file_alone() {
    let image = Image::make("-t ext4 -b 4096", "32M");
    let m = Machine::with(&image.path);
    m.write("/m/f", &pattern(1, 100_000)).expect("written");
    m.unmount().expect("unmounts");
    let (host, faults) = FaultyHost::new();
    let m = Machine::on(host);
    m.mount(&image.path, "").expect("mounts");
    m.stat("/m/f").expect("stat");
    faults.reads(true);
    assert_eq!(m.read("/m/f").err(), Some(Errno::EIO));
    faults.reads(false);
    assert!(m.read("/m/f").expect("read") == pattern(1, 100_000));
    m.unmount().expect("unmounts");
}

#[test]
fn features_that_are_not_supported_are_refused_by_name() {
    for (args, name) in [
        ("-t ext4 -O inline_data", "INLINE_DATA (0x8000)"),
        ("-t ext4 -O encrypt", "ENCRYPT (0x10000)"),
        ("-t ext4 -O mmp", "MMP (0x100)"),
    ] {
        let image = Image::make(args, "32M");
        let m = Machine::boot();
        assert_eq!(m.mount(&image.path, ""), Err(Errno::EINVAL));
        let log = m.log();
        assert!(log.contains(name) && log.contains("Way out"), "{log}");
    }
}

#[test]
fn features_that_only_forbid_writing_mount_read_only() {
    let image = Image::make("-t ext4 -O quota", "32M");
    let m = Machine::boot();
    m.mount(&image.path, "").expect("mounts");
    assert!(m.log().contains("quota; mounted read-only"), "{}", m.log());
    assert_eq!(m.write("/m/f", b"x"), Err(Errno::EROFS));
    m.list("/m").expect("listed");
    m.unmount().expect("unmounts");
    image.assert_clean();
}

#[test]
fn unknown_options_and_what_is_no_file_system_are_refused() {
    let image = Image::make("-t ext4", "32M");
    let m = Machine::boot();
    assert_eq!(m.mount(&image.path, "frobnicate"), Err(Errno::EINVAL));
    std::fs::write(&image.path, vec![0; 1 << 20]).expect("written");
    assert_eq!(m.mount(&image.path, ""), Err(Errno::EINVAL));
    assert!(m.log().contains("no ext2, ext3 or ext4"));
    std::fs::write(&image.path, b"short").expect("written");
    assert_eq!(m.mount(&image.path, ""), Err(Errno::EINVAL));
}

#[test]
fn a_truncated_image_is_refused() {
    let image = Image::make("-t ext4", "32M");
    let file = std::fs::File::options()
        .write(true)
        .open(&image.path)
        .expect("opened");
    file.set_len(20 << 20).expect("cut");
    let m = Machine::boot();
    assert_eq!(m.mount(&image.path, ""), Err(Errno::EINVAL));
    assert!(m.log().contains("truncated"), "{}", m.log());
}

#[test]
fn a_read_only_mount_writes_nothing() {
    let image = Image::make("-t ext4", "32M");
    let m = Machine::with(&image.path);
    m.write("/m/f", &pattern(3, 9000)).expect("written");
    m.unmount().expect("unmounts");
    let before = std::fs::read(&image.path).expect("read");
    m.mount(&image.path, "ro").expect("mounts");
    assert!(m.read("/m/f").expect("read") == pattern(3, 9000));
    m.sync().expect("synced");
    m.unmount().expect("unmounts");
    assert!(before == std::fs::read(&image.path).expect("read"));
}

/// Mounts whatever it is, walks over it, writes a little.
fn use_it(image: &Image) {
    let m = Machine::boot();
    for options in ["ro", ""] {
        if m.mount(&image.path, options).is_err() {
            continue;
        }
        let mut dirs = vec![("/m".to_owned(), 0)];
        let mut seen = 0;
        while let Some((dir, depth)) = dirs.pop() {
            for name in m.list(&dir).unwrap_or_default() {
                seen += 1;
                let Ok(name) = String::from_utf8(name) else {
                    continue;
                };
                let path = format!("{dir}/{name}");
                let Ok(stat) = m.stat(&path) else {
                    continue;
                };
                match stat.st_mode & 0o170_000 {
                    0o040_000 if depth < 6 && seen < 2000 => dirs.push((path, depth + 1)),
                    0o120_000 => drop(m.readlink(&path)),
                    0o100_000 if stat.st_size < 1 << 20 => drop(m.read(&path)),
                    _ => {}
                }
            }
        }
        // So many that the last ones are made without rsext4.
        for i in 0..24 {
            let _ = m.write(&format!("/m/dir{}/new{i}", i % 4), &pattern(i, 5000));
        }
        let _ = m.sync();
        let _ = m.write("/m/new", &pattern(1, 5000));
        let _ = m.lwp.mkdir(&c("/m/newdir"), 0o755);
        let _ = m.lwp.unlink(&c("/m/dir0/file3"));
        let _ = m.sync();
        let _ = m.unmount();
        assert!(!m.log().contains("broke down"), "{}", m.log());
    }
}

#[test]
fn damaged_images_do_no_harm() {
    for kind in [
        "-t ext4 -b 1024",
        "-t ext4 -b 4096 -O ^metadata_csum",
        "-t ext2 -b 1024",
    ] {
        let image = Image::make(kind, "4M");
        let m = Machine::with(&image.path);
        for i in 0..4 {
            m.lwp.mkdir(&c(format!("/m/dir{i}")), 0o755).expect("made");
            for j in 0..40 {
                m.write(&format!("/m/dir{i}/file{j}"), &pattern(j, 3000))
                    .expect("written");
            }
        }
        m.lwp
            .symlink(&c("x".repeat(80)), &c("/m/link"))
            .expect("linked");
        m.unmount().expect("unmounts");
        let base = std::fs::read(&image.path).expect("read");
        // Where something is: a hit in a block of zeroes or of data would show nothing.
        let interesting: Vec<usize> = (0..base.len().min(1 << 20))
            .filter(|i| base[*i] != 0)
            .collect();
        for seed in 0..25 {
            let mut rng = Dice::new(seed);
            let mut bytes = base.clone();
            for _ in 0..1 + rng.below(20) {
                let at = interesting[rng.below(interesting.len() as u64) as usize];
                bytes[at] = rng.next() as u8;
            }
            std::fs::write(&image.path, &bytes).expect("written");
            use_it(&image);
        }
        let file = std::fs::File::options()
            .write(true)
            .open(&image.path)
            .expect("opened");
        file.write_all_at(&base, 0).expect("restored");
    }
}

//! Many small files: what is done without rsext4, in turn with what rsext4 does, on images of all kinds.

#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // tests are on the host's side

mod common;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use abi::{AT_FDCWD, Errno, Stat, Syscalls};
use common::{Image, Machine, assert_clean, c, pattern};
use hypercall::sim::{SimConfig, SimHost};
use testing::Dice;

const KINDS: &[&str] = &[
    "-t ext4 -b 1024",
    "-t ext4 -b 2048",
    "-t ext4 -b 4096",
    "-t ext4 -b 1024 -O ^metadata_csum",
    "-t ext4 -b 1024 -O ^metadata_csum,uninit_bg",
    "-t ext4 -b 1024 -O ^metadata_csum,uninit_bg,64bit -g 1024 -E lazy_itable_init=1",
    "-t ext4 -b 4096 -O ^has_journal",
    "-t ext4 -b 1024 -O ^64bit,^flex_bg -g 1024",
    "-t ext4 -b 1024 -O ^dir_index",
    "-t ext4 -b 1024 -I 128",
    "-t ext3 -b 1024",
    "-t ext2 -b 4096",
];

/// Names of many lengths, and of bytes beyond ASCII.
fn name(dice: &mut Dice, i: usize) -> String {
    let filler = ["", "n", "some-longer-", "\u{e9}\u{fc}\u{4e2d}"][dice.below(4) as usize];
    format!("{}{i}", filler.repeat(dice.below(6) as usize))
}

/// Makes files, and now and then something that only rsext4 does.
fn make_files(
    m: &Machine,
    dice: &mut Dice,
    which: Range<usize>,
    model: &mut BTreeMap<String, Vec<u8>>,
) {
    for dir in 0..3 {
        let _ = m.lwp.mkdir(&c(format!("/m/dir{dir}")), 0o755);
    }
    for i in which {
        let path = format!("/m/dir{}/{}", dice.below(3), name(dice, i));
        let content = pattern(
            i as u64,
            [0, 1, 100, 100, 5000, 20_000][dice.below(6) as usize],
        );
        m.write(&path, &content).expect("written");
        model.insert(path, content);
        let old = model.keys().nth(dice.below(model.len() as u64) as usize);
        let old = old.expect("there").clone();
        match dice.below(200) {
            0 => {
                m.lwp.unlink(&c(&old)).expect("unlinked");
                model.remove(&old);
            }
            1 => {
                let to = format!("/m/dir1/moved{i}");
                let moved = m.lwp.renameat2(AT_FDCWD, &c(&old), AT_FDCWD, &c(&to), 0);
                moved.expect("renamed");
                let content = model.remove(&old).expect("there");
                model.insert(to, content);
            }
            2..12 => {
                let more = pattern(i as u64 + 7, 3000);
                let content = model.get_mut(&old).expect("there");
                let fd = m.open(&old, abi::O_WRONLY).expect("opened");
                m.write_at(fd, &more, content.len() as u64)
                    .expect("appended");
                m.close(fd);
                content.extend(more);
            }
            12..20 => drop(m.lwp.chmod(&c(&old), 0o600).expect("changed")),
            20..22 => m.sync().expect("synced"),
            22..40 => assert!(m.read(&old).expect("read") == model[&old], "{old}"),
            40..50 => {
                let absent = format!("{old}-absent");
                assert_eq!(m.stat(&absent).err(), Some(Errno::ENOENT), "{absent}");
            }
            _ => {}
        }
    }
}

fn compare(m: &Machine, model: &BTreeMap<String, Vec<u8>>) {
    let mut seen = 0;
    for dir in 0..3 {
        for name in m.list(&format!("/m/dir{dir}")).expect("listed") {
            let path = format!("/m/dir{dir}/{}", String::from_utf8(name).expect("text"));
            assert!(
                Some(&m.read(&path).expect("read")) == model.get(&path),
                "{path}"
            );
            seen += 1;
        }
    }
    assert_eq!(seen, model.len());
}

#[test]
fn many_files_of_all_sizes_are_there_and_the_image_is_clean() {
    for (seed, kind) in KINDS.iter().enumerate() {
        let image = Image::make(&format!("{kind} -N 4000"), "48M");
        let m = Machine::with(&image.path);
        let mut dice = Dice::new(seed as u64);
        let mut model = BTreeMap::new();
        for round in 0..2 {
            let from = round * 500;
            make_files(&m, &mut dice, from..from + 500, &mut model);
            if round == 0 {
                compare(&m, &model);
            }
            m.unmount().expect("unmounts");
            image.assert_clean();
            m.mount(&image.path, "").expect("mounts");
            compare(&m, &model);
        }
        m.unmount().expect("unmounts");
        image.assert_clean();
        assert!(!m.log().contains("Way out"), "{kind}: {}", m.log());
    }
}

#[test]
fn names_are_hashed_as_e2fsck_does() {
    for how in [
        "flags 2", // bytes are unsigned
        "def_hash_version tea",
        "def_hash_version legacy",
        "def_hash_version half_md4",
    ] {
        let image = Image::make("-t ext4 -b 1024", "16M");
        image.debugfs(&format!("ssv {how}"));
        let m = Machine::with(&image.path);
        let path = |i: usize| format!("/m/\u{e9}\u{e8}\u{ff}-some-longer-name-{i}");
        for i in 0..300 {
            m.write(&path(i), b"").expect("made");
        }
        m.unmount().expect("unmounts");
        image.assert_clean();
        m.mount(&image.path, "").expect("mounts");
        for i in 300..320 {
            m.write(&path(i), b"").expect("made");
        }
        for i in 0..320 {
            assert_eq!(m.stat(&path(i)).map(|s| s.st_size), Ok(0), "{how}: {i}");
        }
        assert_eq!(m.stat(&path(320)).err(), Some(Errno::ENOENT), "{how}");
    }
}

/// A block of names is split for the new name, with the old one in it.
#[test]
fn files_are_renamed_in_a_directory_that_grows() {
    for kind in ["-t ext4 -b 1024", "-t ext4 -b 4096", "-t ext2 -b 1024"] {
        let image = Image::make(kind, "16M");
        let m = Machine::with(&image.path);
        let to = |i: usize| format!("/m/with-a-name-that-is-longer-than-the-other-{i}");
        for i in 0..400 {
            let from = format!("/m/f{i}");
            m.write(&from, &pattern(i as u64, 10)).expect("written");
            m.lwp.rename(&c(&from), &c(to(i))).expect("renamed");
        }
        m.unmount().expect("unmounts");
        image.assert_clean();
        m.mount(&image.path, "").expect("mounts");
        for i in 0..400 {
            let content = m.read(&to(i)).expect("read");
            assert!(content == pattern(i as u64, 10), "{kind}: {i}");
        }
        assert_eq!(m.list("/m").expect("listed").len(), 401, "{kind}");
        m.unmount().expect("unmounts");
    }
}

#[test]
fn attributes_of_new_files_are_kept() {
    let image = Image::make("-t ext4 -b 1024", "16M");
    let m = Machine::with(&image.path);
    let path = |i: u32| format!("/m/f{i}");
    for i in 0..40 {
        m.write(&path(i), b"data").expect("made");
        m.lwp.chmod(&c(path(i)), 0o4100 + i).expect("changed");
        m.lwp
            .chown(&c(path(i)), 70_000 + i, 80_000 + i)
            .expect("given");
        let times = [1u64 << 33, 5, 1 << 32, 999_999_999 - u64::from(i)];
        let times: Vec<u8> = times.iter().flat_map(|t| t.to_le_bytes()).collect();
        m.lwp
            .utimensat(AT_FDCWD, &c(path(i)), &times, 0)
            .expect("timed");
    }
    // All but the number of the device, which is another after each mount.
    let stats = |m: &Machine| {
        let stat = |i| Stat {
            st_dev: 0,
            ..m.stat(&path(i)).expect("there")
        };
        (0..40).map(stat).collect::<Vec<_>>()
    };
    let before = stats(&m);
    m.unmount().expect("unmounts");
    image.assert_clean();
    m.mount(&image.path, "").expect("mounts");
    for (i, (a, b)) in before.iter().zip(stats(&m)).enumerate() {
        assert_eq!(a.st_uid, 70_000 + i as u32);
        assert_eq!(format!("{a:?}"), format!("{b:?}"), "{i}");
    }
    m.unmount().expect("unmounts");
}

/// No inode is left before any space is.
#[test]
fn a_file_system_without_free_inodes_says_so_and_is_clean() {
    for kind in ["-t ext4 -b 1024", "-t ext4 -b 4096 -O ^has_journal"] {
        let image = Image::make(&format!("{kind} -N 200"), "16M");
        let m = Machine::with(&image.path);
        let mut made = 0;
        let error = loop {
            match m.write(&format!("/m/f{made}"), b"x") {
                Ok(()) => made += 1,
                Err(error) => break error,
            }
            assert!(made < 1000);
        };
        assert_eq!(error, Errno::ENOSPC);
        assert!(made > 100, "{made}");
        m.lwp.unlink(&c("/m/f3")).expect("unlinked");
        m.write("/m/again", b"y").expect("there is one again");
        m.unmount().expect("unmounts");
        image.assert_clean();
    }
}

/// No block is left before any inode is.
#[test]
fn a_file_system_full_of_small_files_is_clean() {
    let image = Image::make("-t ext4 -b 1024 -N 8000 -m 0", "4M");
    let m = Machine::with(&image.path);
    let mut made: u64 = 0;
    let full = loop {
        let full = m
            .write(&format!("/m/f{made}"), &pattern(made, 900))
            .and_then(|()| {
                if made.is_multiple_of(50) {
                    m.sync()
                } else {
                    Ok(())
                }
            });
        if let Err(error) = full {
            break error;
        }
        made += 1;
        assert!(made < 8000);
    };
    assert_eq!(full, Errno::ENOSPC);
    assert!(made > 300, "{made}");
    m.unmount().expect("unmounts");
    image.assert_clean();
    m.mount(&image.path, "").expect("mounts");
    for i in 0..made {
        let content = m.read(&format!("/m/f{i}")).expect("read");
        assert!(content == pattern(i, 900), "{i} of {made}");
    }
    m.unmount().expect("unmounts");
}

const DISK: &str = "/disk";

/// Mounts a disk and looks for files. Answers the disk as the unmounting leaves it.
fn look_for(disk: Vec<u8>, files: Vec<(String, Vec<u8>)>) -> Vec<u8> {
    let run = SimHost::run(SimConfig::new(2), move |host| {
        host.put_file(DISK.as_bytes(), host.new_file(disk));
        let m = Machine::on(host.clone());
        m.mount(Path::new(DISK), "").expect("mounts");
        for (path, content) in &files {
            assert!(&m.read(path).expect("there") == content, "{path}");
        }
        m.unmount().expect("unmounts");
        m.kernel.shutdown(true).expect("halts");
        host.file(DISK.as_bytes()).expect("put there").content()
    });
    run.result.expect("the disk is as it should be")
}

#[test]
fn a_crash_while_files_are_made_loses_nothing_that_was_synced() {
    for kind in [
        "-t ext4 -b 4096 -J size=4 -O ^metadata_csum",
        "-t ext4 -b 1024 -J size=1",
    ] {
        let image = Image::make(&format!("{kind} -N 1000"), "9M");
        let base = std::fs::read(&image.path).expect("read");
        let run = SimHost::run(SimConfig::new(1), move |host| {
            host.put_file(DISK.as_bytes(), host.new_file(base));
            let file = host.file(DISK.as_bytes()).expect("put there");
            file.record();
            let m = Machine::on(host.clone());
            m.mount(Path::new(DISK), "").expect("mounts");
            let (mut dice, mut model) = (Dice::new(3), BTreeMap::new());
            let mut synced = Vec::new();
            for round in 0..8 {
                let from = round * 30;
                make_files(&m, &mut dice, from..from + 30, &mut model);
                m.sync().expect("synced");
                synced.push((file.recorded(), model.clone()));
            }
            m.unmount().expect("unmounts");
            m.kernel.shutdown(true).expect("halts");
            (file.history(), synced)
        });
        let (history, synced) = run.result.expect("the workload ends");
        let mut dice = Dice::new(3);
        // Every cut would take long.
        for cut in history.cuts().skip(7).step_by(history.len() / 40) {
            let n = cut.events;
            let before = synced.iter().rfind(|(at, _)| *at <= n);
            let after = synced.iter().find(|(at, _)| *at > n);
            // What came later may have changed a file, but not one that it did not touch.
            let kept = |path: &String, content: &Vec<u8>| {
                after.is_none_or(|(_, after)| after.get(path) == Some(content))
            };
            let files = before.map(|(_, model)| model).into_iter().flatten();
            let files = files.filter(|(path, content)| kept(path, content));
            let files = files.map(|(path, content)| (path.clone(), content.clone()));
            // A superblock with a checksum of which half was written is no superblock.
            let disk = if kind.contains("^metadata_csum") {
                cut.torn(&mut |bound| dice.below(bound))
            } else {
                cut.in_order()
            };
            std::fs::write(&image.path, look_for(disk, files.collect())).expect("written");
            assert_clean(&image.path);
        }
    }
}

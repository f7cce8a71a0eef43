//! Many small files: what is done without rsext4, in turn with what rsext4 does, on images of all kinds.

#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // tests are on the host's side

mod common;

use std::collections::BTreeMap;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use abi::{AT_FDCWD, Errno, Stat, Syscalls};
use common::host::{Event, ScriptedHost};
use common::rng::Rng;
use common::{Image, Machine, c, pattern};

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
fn name(rng: &mut Rng, i: usize) -> String {
    let filler = ["", "n", "some-longer-", "\u{e9}\u{fc}\u{4e2d}"][rng.below(4) as usize];
    format!("{}{i}", filler.repeat(rng.below(6) as usize))
}

/// Makes files, and now and then something that only rsext4 does.
fn make_files(
    m: &Machine,
    rng: &mut Rng,
    which: Range<usize>,
    model: &mut BTreeMap<String, Vec<u8>>,
) {
    for dir in 0..3 {
        let _ = m.lwp.mkdir(&c(format!("/m/dir{dir}")), 0o755);
    }
    for i in which {
        let path = format!("/m/dir{}/{}", rng.below(3), name(rng, i));
        let content = pattern(
            i as u64,
            [0, 1, 100, 100, 5000, 20_000][rng.below(6) as usize],
        );
        m.write(&path, &content).expect("written");
        model.insert(path, content);
        let old = model.keys().nth(rng.below(model.len() as u64) as usize);
        let old = old.expect("there").clone();
        match rng.below(200) {
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
        let mut rng = Rng::new(seed as u64);
        let mut model = BTreeMap::new();
        for round in 0..2 {
            let from = round * 500;
            make_files(&m, &mut rng, from..from + 500, &mut model);
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

#[test]
fn a_crash_while_files_are_made_loses_nothing_that_was_synced() {
    for kind in ["-t ext4 -b 4096 -J size=4", "-t ext4 -b 1024 -J size=1"] {
        let image = Image::make(&format!("{kind} -N 4000"), "24M");
        let base = std::fs::read(&image.path).expect("read");
        let host = ScriptedHost::new();
        host.script.lock().unwrap().record = true;
        let m = Machine::on(host.clone());
        m.mount(&image.path, "").expect("mounts");
        let (mut rng, mut model) = (Rng::new(3), BTreeMap::new());
        let mut synced = Vec::new();
        for round in 0..8 {
            let from = round * 60;
            make_files(&m, &mut rng, from..from + 60, &mut model);
            m.sync().expect("synced");
            synced.push((host.script.lock().unwrap().events.len(), model.clone()));
        }
        m.unmount().expect("unmounts");
        drop(m);
        let events = std::mem::take(&mut host.script.lock().unwrap().events);
        let scratch = Image::empty();
        let samples = 30;
        for s in 0..=samples {
            let n = events.len() * s / samples;
            std::fs::write(&scratch.path, &base).expect("copied");
            let file = std::fs::File::options().write(true).open(&scratch.path);
            let file = file.expect("opened");
            let last = events[..n]
                .iter()
                .rposition(|e| matches!(e, Event::Sync))
                .unwrap_or(0);
            let mut lost = Rng::new(s as u64);
            for (i, event) in events[..n].iter().enumerate() {
                if let Event::Write(at, data) = event
                    && (i < last || lost.below(2) == 0)
                {
                    file.write_all_at(data, *at).expect("written");
                }
            }
            let m = Machine::with(&scratch.path);
            // What came later may have changed a file, but not one that it did not touch.
            let after = synced
                .iter()
                .find(|(at, _)| *at > n)
                .map(|(_, model)| model);
            let before = synced.iter().rfind(|(at, _)| *at <= n);
            for (path, content) in before.map(|(_, model)| model).into_iter().flatten() {
                if after.is_none_or(|after| after.get(path) == Some(content)) {
                    assert!(
                        &m.read(path).expect("there") == content,
                        "{kind}: {path}, {n}"
                    );
                }
            }
            m.unmount().expect("unmounts");
            scratch.assert_clean();
        }
    }
}

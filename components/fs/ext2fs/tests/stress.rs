//! Random operations against a model, and crashes at every write.

#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // tests are on the host's side

mod common;

use std::os::unix::fs::FileExt;

use abi::Syscalls;
use common::host::{Event, ScriptedHost};
use common::model::{Model, compare, step};
use common::rng::Rng;
use common::{Image, Machine, c, pattern, repair};

#[test]
fn random_changes_leave_what_the_model_says_and_a_clean_image() {
    for (i, kind) in [
        "-t ext2 -b 1024",
        "-t ext3 -b 4096",
        "-t ext4 -b 1024",
        "-t ext4 -b 4096",
    ]
    .into_iter()
    .enumerate()
    {
        for seed in 0..2 {
            let image = Image::make(kind, "48M");
            let m = Machine::with(&image.path);
            let mut rng = Rng::new(seed * 10 + i as u64);
            let mut model = Model::new();
            for _ in 0..3 {
                for _ in 0..150 {
                    step(&m, &mut rng, &mut model);
                }
                m.unmount().expect("unmounts");
                image.assert_clean();
                m.mount(&image.path, "").expect("mounts");
                compare(&m, &model);
            }
            m.unmount().expect("unmounts");
            image.assert_clean();
        }
    }
}

/// The image after the first `n` events; of what is not synced then, `lost` chooses what is missing.
fn cut(
    image: &Image,
    base: &[u8],
    events: &[Event],
    n: usize,
    mut lost: impl FnMut(usize) -> bool,
) {
    std::fs::write(&image.path, base).expect("copied");
    let file = std::fs::File::options()
        .write(true)
        .open(&image.path)
        .expect("opened");
    let synced = events[..n]
        .iter()
        .rposition(|e| matches!(e, Event::Sync))
        .unwrap_or(0);
    for (i, event) in events[..n].iter().enumerate() {
        if let Event::Write(at, data) = event
            && (i < synced || !lost(i))
        {
            file.write_all_at(data, *at).expect("written");
        }
    }
}

#[test]
fn a_crash_at_any_write_loses_nothing_that_was_synced() {
    for kind in [
        "-t ext4 -b 4096 -J size=4",
        "-t ext3 -b 1024 -J size=4",
        "-t ext4 -b 1024 -J size=1",
    ] {
        let image = Image::make(kind, "24M");
        let base = std::fs::read(&image.path).expect("read");
        let host = ScriptedHost::new();
        host.script.lock().unwrap().record = true;
        let m = Machine::on(host.clone());
        m.mount(&image.path, "").expect("mounts");
        // After how many events which file was synced with what content.
        let mut synced: Vec<(usize, String, Vec<u8>)> = Vec::new();
        let mut rng = Rng::new(7);
        for i in 0..24 {
            let path = format!("/m/kept{i}");
            let content = pattern(i, 1 + rng.below(60_000) as usize);
            let fd = m.open(&path, abi::O_RDWR | abi::O_CREAT).expect("made");
            m.write_at(fd, &content, 0).expect("written");
            m.fsync(fd).expect("synced");
            m.close(fd);
            synced.push((host.script.lock().unwrap().events.len(), path, content));
            for j in 0..6 {
                let dir = format!("/m/dir{}", (i + j) % 5);
                let _ = m.lwp.mkdir(&c(&dir), 0o755);
                let path = format!("{dir}/loose{}", rng.below(10));
                m.write(&path, &pattern(rng.next(), rng.below(100_000) as usize))
                    .expect("written");
                let _ = m.lwp.unlink(&c(format!("{dir}/loose{}", rng.below(10))));
                if j == 3 {
                    let _ = m.lwp.rename(&c(&path), &c(format!("/m/loose{i}")));
                }
            }
            if i % 5 == 4 {
                m.sync().expect("synced");
            }
        }
        m.unmount().expect("unmounts");
        let events = std::mem::take(&mut host.script.lock().unwrap().events);
        let scratch = Image::empty();
        // Every write would take long; the samples are spread evenly and end with all of them.
        let samples = 40;
        for s in 0..=samples {
            let n = events.len() * s / samples;
            let mut rng = Rng::new(s as u64);
            // Even samples lose some of what was not synced, as a power failure would.
            cut(&scratch, &base, &events, n, |_| {
                s % 2 == 0 && rng.below(2) == 0
            });
            repair(&scratch.path);
            let m = Machine::with(&scratch.path);
            for (_, path, content) in synced.iter().filter(|(at, ..)| *at <= n) {
                assert!(
                    &m.read(path).expect("still there") == content,
                    "{kind}: {path} after {n}"
                );
            }
            m.unmount().expect("unmounts");

            // The same without e2fsck: the journal is replayed by the kernel.
            let mut rng = Rng::new(s as u64);
            cut(&scratch, &base, &events, n, |_| {
                s % 2 == 0 && rng.below(2) == 0
            });
            let m = Machine::boot();
            for options in ["ro", ""] {
                m.mount(&scratch.path, options)
                    .unwrap_or_else(|error| panic!("{kind}, {options}, {n}: {error}; {}", m.log()));
                for (_, path, content) in synced.iter().filter(|(at, ..)| *at <= n) {
                    assert!(
                        &m.read(path).expect("still there") == content,
                        "{kind}: {path} after {n}"
                    );
                }
                m.unmount().expect("unmounts");
                if options == "ro" {
                    continue;
                }
                scratch.assert_clean();
            }
        }
    }
}

//! Random operations, on a mounted image and on a model in memory.

use std::collections::BTreeMap;

use abi::{AT_FDCWD, Errno, Syscalls};

use super::{Machine, c, pattern};
use testing::Dice;

/// What a path should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    File(Vec<u8>),
    Dir,
    Link(Vec<u8>),
}

pub type Model = BTreeMap<String, Entry>;

fn random_path(rng: &mut Dice, model: &Model) -> String {
    let dirs: Vec<&String> = model
        .iter()
        .filter(|(_, e)| **e == Entry::Dir)
        .map(|(p, _)| p)
        .collect();
    let dir = match dirs.len() {
        0 => "/m",
        n if rng.below(3) > 0 => dirs[rng.below(n as u64) as usize],
        _ => "/m",
    };
    format!("{dir}/name{}", rng.below(12))
}

fn existing(rng: &mut Dice, model: &Model) -> Option<String> {
    let n = model.len() as u64;
    (n > 0).then(|| {
        model
            .keys()
            .nth(rng.below(n) as usize)
            .expect("there")
            .clone()
    })
}

fn has_children(model: &Model, dir: &str) -> bool {
    let prefix = format!("{dir}/");
    model.keys().any(|p| p.starts_with(&prefix))
}

/// Makes one random change in both; they must agree whether it can be made.
pub fn step(m: &Machine, rng: &mut Dice, model: &mut Model) {
    let what = rng.below(100);
    match what {
        0..40 => {
            let path = match existing(rng, model) {
                Some(path) if rng.below(2) == 0 => path,
                _ => random_path(rng, model),
            };
            if matches!(model.get(&path), Some(Entry::Dir | Entry::Link(_))) {
                return;
            }
            let fd = m.open(&path, abi::O_RDWR | abi::O_CREAT).expect("opened");
            let at = [0, 0, 100, 5000, 40_000, 300_000][rng.below(6) as usize];
            let len = [1, 100, 4096, 10_000, 200_000][rng.below(5) as usize];
            let data = pattern(rng.next(), len);
            m.write_at(fd, &data, at as u64).expect("written");
            m.close(fd);
            let entry = model.entry(path).or_insert_with(|| Entry::File(Vec::new()));
            if let Entry::File(content) = entry {
                if content.len() < at + len {
                    content.resize(at + len, 0);
                }
                content[at..at + len].copy_from_slice(&data);
            }
        }
        40..50 => {
            let path = random_path(rng, model);
            let made = m.lwp.mkdir(&c(&path), 0o755).map(drop);
            match made {
                Ok(()) => assert_eq!(model.insert(path, Entry::Dir), None),
                Err(error) => {
                    assert_eq!(error, Errno::EEXIST, "{path}");
                    assert!(model.contains_key(&path), "{path}");
                }
            }
        }
        50..56 => {
            let path = random_path(rng, model);
            if model.contains_key(&path) {
                return;
            }
            let len = 1 + rng.below(120) as usize;
            let target = "t".repeat(len);
            m.lwp.symlink(&c(&target), &c(&path)).expect("linked");
            model.insert(path, Entry::Link(target.into_bytes()));
        }
        56..72 => {
            let Some(path) = existing(rng, model) else {
                return;
            };
            match model.get(&path) {
                Some(Entry::Dir) => {
                    let removed = m.lwp.rmdir(&c(&path)).map(drop);
                    if has_children(model, &path) {
                        assert_eq!(removed, Err(Errno::ENOTEMPTY), "{path}");
                        return;
                    }
                    removed.expect("removed");
                }
                _ => drop(m.lwp.unlink(&c(&path)).expect("unlinked")),
            }
            model.remove(&path);
        }
        72..84 => {
            let (Some(from), to) = (existing(rng, model), random_path(rng, model)) else {
                return;
            };
            let inside = to.starts_with(&format!("{from}/")) || from.starts_with(&format!("{to}/"));
            if inside || from == to {
                return;
            }
            let (a, b) = (&model[&from], model.get(&to));
            let fits = match (a, b) {
                (_, None) => true,
                (Entry::Dir, Some(Entry::Dir)) => !has_children(model, &to),
                (Entry::Dir, _) | (_, Some(Entry::Dir)) => false,
                _ => true,
            };
            let renamed = m
                .lwp
                .renameat2(AT_FDCWD, &c(&from), AT_FDCWD, &c(&to), 0)
                .map(drop);
            assert_eq!(renamed.is_ok(), fits, "{from} to {to}: {renamed:?}");
            if fits {
                model.remove(&to);
                let prefix = format!("{from}/");
                let moved: Vec<String> = model
                    .keys()
                    .filter(|p| **p == from || p.starts_with(&prefix))
                    .cloned()
                    .collect();
                for path in moved {
                    let entry = model.remove(&path).expect("there");
                    model.insert(format!("{to}{}", &path[from.len()..]), entry);
                }
            }
        }
        84..94 => {
            let Some(path) = existing(rng, model) else {
                return;
            };
            if let Some(Entry::File(content)) = model.get_mut(&path) {
                let size = [0, 1, 99, 4096, 5001, 100_000, 250_000][rng.below(7) as usize];
                m.lwp.truncate(&c(&path), size as i64).expect("cut");
                content.resize(size, 0);
            }
        }
        94..97 => m.sync().expect("synced"),
        _ => {
            let Some(path) = existing(rng, model) else {
                return;
            };
            if let Some(Entry::File(content)) = model.get(&path) {
                assert!(&m.read(&path).expect("read") == content, "{path}");
            }
        }
    }
}

/// The tree on the image is that of the model.
pub fn compare(m: &Machine, model: &Model) {
    let mut seen = 0;
    let mut dirs = vec!["/m".to_owned()];
    while let Some(dir) = dirs.pop() {
        for name in m.list(&dir).expect("listed") {
            let path = format!("{dir}/{}", String::from_utf8(name).expect("text"));
            if path == "/m/lost+found" {
                continue;
            }
            seen += 1;
            match model
                .get(&path)
                .unwrap_or_else(|| panic!("{path} should not be"))
            {
                Entry::Dir => dirs.push(path),
                Entry::Link(target) => assert_eq!(&m.readlink(&path).expect("link"), target),
                Entry::File(content) => assert!(&m.read(&path).expect("read") == content, "{path}"),
            }
        }
    }
    assert_eq!(seen, model.len());
}

//! Random changes of names against a model.

use std::collections::BTreeMap;

use abi::*;
use kern::LwpHandle;
use proptest::prelude::*;

use super::{boot, c, names, stat};

/// What a name is in the model: a directory, or the number of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Is {
    Dir,
    File(u32),
}

/// The model: full path to what it is. The root is not in it.
#[derive(Clone, Debug, Default)]
struct Model {
    tree: BTreeMap<String, Is>,
    next: u32,
}

#[derive(Clone, Debug)]
enum Step {
    Mkdir(String),
    Create(String),
    Link(String, String),
    Unlink(String),
    Rmdir(String),
    Rename(String, String, i32),
}

impl Model {
    fn parent_of(path: &str) -> &str {
        &path[..path.rfind('/').unwrap_or(0)]
    }

    /// What walking to the directory of a path meets.
    fn walk(&self, path: &str) -> Result<(), Errno> {
        let mut at = 0;
        while let Some(next) = path[at + 1..].find('/') {
            at += 1 + next;
            match self.tree.get(&path[..at]) {
                Some(Is::Dir) => {}
                Some(Is::File(_)) => return Err(Errno::ENOTDIR),
                None => return Err(Errno::ENOENT),
            }
        }
        Ok(())
    }

    fn is_empty(&self, dir: &str) -> bool {
        !self.tree.keys().any(|path| Model::parent_of(path) == dir)
    }

    fn get(&self, path: &str) -> Result<Is, Errno> {
        self.walk(path)?;
        self.tree.get(path).cloned().ok_or(Errno::ENOENT)
    }

    fn add(&mut self, path: &str, is: Is) -> Result<(), Errno> {
        self.walk(path)?;
        if self.tree.contains_key(path) {
            return Err(Errno::EEXIST);
        }
        self.tree.insert(path.to_owned(), is);
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Result<(), Errno> {
        match step {
            Step::Mkdir(path) => self.add(path, Is::Dir),
            Step::Create(path) => {
                self.next += 1;
                self.add(path, Is::File(self.next))
            }
            Step::Link(from, to) => {
                let from = self.get(from)?;
                self.walk(to)?;
                if from == Is::Dir {
                    return Err(if self.tree.contains_key(to) {
                        Errno::EEXIST
                    } else {
                        Errno::EPERM
                    });
                }
                self.add(to, from)
            }
            Step::Unlink(path) => {
                if self.get(path)? == Is::Dir {
                    return Err(Errno::EISDIR);
                }
                self.tree.remove(path);
                Ok(())
            }
            Step::Rmdir(path) => {
                if self.get(path)? != Is::Dir {
                    return Err(Errno::ENOTDIR);
                }
                if !self.is_empty(path) {
                    return Err(Errno::ENOTEMPTY);
                }
                self.tree.remove(path);
                Ok(())
            }
            Step::Rename(from, to, flags) => self.rename(from, to, *flags),
        }
    }

    fn rename(&mut self, from: &str, to: &str, flags: i32) -> Result<(), Errno> {
        self.walk(from)?;
        self.walk(to)?;
        let exchange = flags == RENAME_EXCHANGE;
        let old = self.get(from)?;
        let new = self.tree.get(to).cloned();
        match (&new, flags) {
            (Some(_), RENAME_NOREPLACE) => return Err(Errno::EEXIST),
            (None, RENAME_EXCHANGE) => return Err(Errno::ENOENT),
            _ => {}
        }
        if to.starts_with(&format!("{from}/")) {
            return Err(Errno::EINVAL);
        }
        if from.starts_with(&format!("{to}/")) {
            return Err(if exchange {
                Errno::EINVAL
            } else {
                Errno::ENOTEMPTY
            });
        }
        match (&old, &new) {
            _ if exchange => {}
            (Is::Dir, Some(Is::File(_))) => return Err(Errno::ENOTDIR),
            (Is::File(_), Some(Is::Dir)) => return Err(Errno::EISDIR),
            _ => {}
        }
        if from == to || (new.as_ref() == Some(&old) && old != Is::Dir) {
            return Ok(());
        }
        if !exchange && new == Some(Is::Dir) && !self.is_empty(to) {
            return Err(Errno::ENOTEMPTY);
        }
        let moved = self.take(from);
        let back = self.take(to);
        self.put(to, moved);
        if exchange {
            self.put(from, back);
        }
        Ok(())
    }

    /// Takes a subtree out, as pairs of the path below it and what is there.
    fn take(&mut self, at: &str) -> Vec<(String, Is)> {
        let below = format!("{at}/");
        let paths: Vec<String> = self
            .tree
            .keys()
            .filter(|p| *p == at || p.starts_with(&below))
            .cloned()
            .collect();
        paths
            .into_iter()
            .filter_map(|p| {
                self.tree
                    .remove(&p)
                    .map(|is| (p[at.len()..].to_owned(), is))
            })
            .collect()
    }

    fn put(&mut self, at: &str, what: Vec<(String, Is)>) {
        self.tree.extend(
            what.into_iter()
                .map(|(below, is)| (format!("{at}{below}"), is)),
        );
    }
}

fn apply(lwp: &LwpHandle, base: &str, step: &Step) -> Result<(), Errno> {
    let p = |path: &String| c(&format!("{base}{path}"));
    match step {
        Step::Mkdir(path) => lwp.mkdir(&p(path), 0o755).map(drop),
        Step::Create(path) => {
            let fd = lwp.open(&p(path), O_CREAT | O_EXCL | O_WRONLY, 0o644)?;
            lwp.close(fd as i32).map(drop)
        }
        Step::Link(from, to) => lwp.link(&p(from), &p(to)).map(drop),
        Step::Unlink(path) => lwp.unlink(&p(path)).map(drop),
        Step::Rmdir(path) => lwp.rmdir(&p(path)).map(drop),
        Step::Rename(from, to, flags) => lwp
            .renameat2(AT_FDCWD, &p(from), AT_FDCWD, &p(to), *flags)
            .map(drop),
    }
}

/// Everything below a directory, with kinds and which names are one file.
fn list(lwp: &LwpHandle, base: &str, dir: &str, out: &mut BTreeMap<String, Option<u64>>) {
    for name in names(lwp, &format!("{base}{dir}/")) {
        let path = format!("{dir}/{name}");
        let seen = stat(lwp, &format!("{base}{path}")).expect("listed, so there");
        if seen.st_mode & 0o170000 == 0o040000 {
            list(lwp, base, &path, out);
            out.insert(path, None);
        } else {
            out.insert(path, Some(seen.st_ino));
        }
    }
}

/// The tree is what the model says: paths, kinds, which names are one file, and link counts.
fn compare(lwp: &LwpHandle, base: &str, model: &Model) {
    let mut seen = BTreeMap::new();
    list(lwp, base, "", &mut seen);
    let mut files: BTreeMap<u32, u64> = BTreeMap::new();
    assert_eq!(
        seen.keys().collect::<Vec<_>>(),
        model.tree.keys().collect::<Vec<_>>()
    );
    for (path, is) in &model.tree {
        let links = stat(lwp, &format!("{base}{path}")).expect("there").st_nlink;
        match (is, seen[path]) {
            (Is::Dir, None) => {
                let dirs = model
                    .tree
                    .iter()
                    .filter(|(p, is)| Model::parent_of(p) == path && **is == Is::Dir);
                assert_eq!(links, 2 + dirs.count() as u64, "{path}");
            }
            (Is::File(number), Some(ino)) => {
                assert_eq!(*files.entry(*number).or_insert(ino), ino, "{path}");
                assert_eq!(
                    links,
                    model.tree.values().filter(|other| *other == is).count() as u64,
                    "{path}"
                );
            }
            other => panic!("{path}: {other:?}"),
        }
    }
}

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 1..4)
        .prop_map(|parts| parts.iter().map(|part| format!("/{part}")).collect())
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => path().prop_map(Step::Mkdir),
        3 => path().prop_map(Step::Create),
        1 => (path(), path()).prop_map(|(a, b)| Step::Link(a, b)),
        1 => path().prop_map(Step::Unlink),
        1 => path().prop_map(Step::Rmdir),
        3 => (path(), path(), prop::sample::select(vec![0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE]))
            .prop_map(|(a, b, f)| Step::Rename(a, b, f)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn random_changes_leave_the_tree_that_the_model_says(
        steps in prop::collection::vec(step(), 1..80),
        cached in any::<bool>(),
    ) {
        let (kernel, lwp) = boot();
        lwp.mkdir(c"/t", 0o755).expect("a directory");
        if cached {
            kernel.implicit(&kern::KernelMemory, |cx| {
                crate::Vfs::of(cx).expect("vfs").register(cx, &crate::rumpfs::CACHED).expect("registered");
            });
            lwp.mount(c"x", c"/t", c"cachedfs", 0, c"").expect("mounted");
        }
        let mut model = Model::default();
        for step in &steps {
            let expected = model.clone().step(step);
            prop_assert_eq!(apply(&lwp, "/t", step), expected, "{:?} on {:?}", step, model.tree);
            if expected.is_ok() {
                model.step(step).expect("as before");
            }
        }
        compare(&lwp, "/t", &model);
    }
}

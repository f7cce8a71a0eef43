//! tmpfs from outside, by system calls: against a model, at its limits, and at rest.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::sync::Arc;

use abi::*;
use hypercall::PosixHost;
use kern::{Kernel, LwpHandle, RforkFds};
use proptest::prelude::*;

fn boot(options: &str) -> (Arc<Kernel>, LwpHandle) {
    let host = PosixHost::with_params([("RUMP_NCPU", "2")]);
    let kernel = Kernel::builder(host)
        .component(&vfs::VFS)
        .component(&crate::TMPFS)
        .boot()
        .expect("a kernel");
    let lwp = kernel.rfork(RforkFds::Clear).expect("a process");
    lwp.mkdir(c"/t", 0o755).expect("a directory");
    mount(&lwp, options).expect("mounted");
    (kernel, lwp)
}

fn mount(lwp: &LwpHandle, options: &str) -> SysResult {
    lwp.mount(c"none", c"/t", c"tmpfs", 0, &c(options))
}

fn c(text: &str) -> CString {
    CString::new(text).expect("no NUL")
}

fn stat(lwp: &LwpHandle, path: &str) -> Result<Stat, Errno> {
    let mut buf = [0; Stat::SIZE];
    lwp.lstat(&c(path), &mut buf)?;
    Ok(Stat::from_bytes(&buf))
}

fn create(lwp: &LwpHandle, path: &str) -> Result<i32, Errno> {
    let fd = lwp.open(&c(path), O_RDWR | O_CREAT | O_EXCL, 0o644)?;
    Ok(fd as i32)
}

fn statfs(lwp: &LwpHandle) -> Statfs {
    let mut buf = [0; Statfs::SIZE];
    lwp.statfs(c"/t", &mut buf).expect("a mount");
    Statfs::from_bytes(&buf)
}

/// The names in a directory, read by buffers of this many bytes.
fn list(lwp: &LwpHandle, path: &str, bytes: usize) -> Vec<String> {
    let fd = lwp
        .open(&c(path), O_RDONLY | O_DIRECTORY, 0)
        .expect("a directory") as i32;
    let mut names = Vec::new();
    let mut buf = vec![0; bytes];
    loop {
        let len = buf.len();
        let got = lwp.getdents64(fd, &mut buf, len).expect("entries") as usize;
        if got == 0 {
            break;
        }
        let mut at = 0;
        while at < got {
            let len = u16::from_ne_bytes([buf[at + 16], buf[at + 17]]) as usize;
            let name = &buf[at + 19..at + len];
            let end = name.iter().position(|&b| b == 0).expect("a NUL");
            names.push(String::from_utf8(name[..end].to_vec()).expect("text"));
            at += len;
        }
    }
    lwp.close(fd).expect("closed");
    names.sort();
    names
}

#[derive(Clone, Debug)]
enum Op {
    Create(usize),
    Mkdir(usize),
    Unlink(usize),
    Rmdir(usize),
    Link(usize, usize),
    Rename(usize, usize),
    Exchange(usize, usize),
}

/// Places in the tree that operations are tried on; some are below others.
const PLACES: [&str; 8] = [
    "/t/a", "/t/b", "/t/d", "/t/d/a", "/t/d/b", "/t/e", "/t/e/f", "/t/e/f/a",
];

fn op() -> impl Strategy<Value = Op> {
    let place = || 0..PLACES.len();
    prop_oneof![
        place().prop_map(Op::Create),
        place().prop_map(Op::Mkdir),
        place().prop_map(Op::Unlink),
        place().prop_map(Op::Rmdir),
        (place(), place()).prop_map(|(a, b)| Op::Link(a, b)),
        (place(), place()).prop_map(|(a, b)| Op::Rename(a, b)),
        (place(), place()).prop_map(|(a, b)| Op::Exchange(a, b)),
    ]
}

/// A tree by its paths; a file is a number, a directory is `None`.
#[derive(Clone, Default)]
struct Model {
    tree: BTreeMap<String, Option<u32>>,
    last: u32,
}

impl Model {
    fn parent_is_dir(&self, path: &str) -> bool {
        let parent = &path[..path.rfind('/').expect("a slash")];
        parent == "/t" || self.tree.get(parent) == Some(&None)
    }

    fn is_empty(&self, path: &str) -> bool {
        let below = format!("{path}/");
        !self.tree.keys().any(|p| p.starts_with(&below))
    }

    fn is_below(path: &str, of: &str) -> bool {
        path.starts_with(&format!("{of}/"))
    }

    fn take(&mut self, path: &str) -> Vec<(String, Option<u32>)> {
        let below = format!("{path}/");
        let keys: Vec<String> = self.tree.keys().cloned().collect();
        keys.into_iter()
            .filter(|p| p == path || p.starts_with(&below))
            .map(|p| {
                let value = self.tree.remove(&p).expect("there");
                (p[path.len()..].to_owned(), value)
            })
            .collect()
    }

    fn put(&mut self, path: &str, what: Vec<(String, Option<u32>)>) {
        for (tail, value) in what {
            self.tree.insert(format!("{path}{tail}"), value);
        }
    }

    /// Whether the operation succeeds, and does it.
    fn apply(&mut self, op: &Op) -> bool {
        match *op {
            Op::Create(at) | Op::Mkdir(at) => {
                let path = PLACES[at];
                let free = self.parent_is_dir(path) && !self.tree.contains_key(path);
                if free {
                    self.last += 1;
                    let file = matches!(op, Op::Create(_)).then_some(self.last);
                    self.tree.insert(path.to_owned(), file);
                }
                free
            }
            Op::Unlink(at) => {
                let is = matches!(self.tree.get(PLACES[at]), Some(Some(_)));
                is && self.tree.remove(PLACES[at]).is_some()
            }
            Op::Rmdir(at) => {
                let path = PLACES[at];
                let is = self.tree.get(path) == Some(&None) && self.is_empty(path);
                is && self.tree.remove(path).is_some()
            }
            Op::Link(from, to) => {
                let file = self.tree.get(PLACES[from]).copied();
                let free = self.parent_is_dir(PLACES[to]) && !self.tree.contains_key(PLACES[to]);
                match file {
                    Some(Some(file)) if free => {
                        self.tree.insert(PLACES[to].to_owned(), Some(file));
                        true
                    }
                    _ => false,
                }
            }
            Op::Rename(from, to) => self.rename(PLACES[from], PLACES[to]),
            Op::Exchange(from, to) => {
                let (from, to) = (PLACES[from], PLACES[to]);
                let both = self.tree.contains_key(from) && self.tree.contains_key(to);
                if !both || Model::is_below(from, to) || Model::is_below(to, from) {
                    return false;
                }
                if from != to {
                    let (a, b) = (self.take(from), self.take(to));
                    self.put(to, a);
                    self.put(from, b);
                }
                true
            }
        }
    }

    fn rename(&mut self, from: &str, to: &str) -> bool {
        let Some(&what) = self.tree.get(from) else {
            return false;
        };
        if !self.parent_is_dir(to) || Model::is_below(to, from) || Model::is_below(from, to) {
            return false;
        }
        match (what, self.tree.get(to).copied()) {
            _ if from == to => return true,
            (_, None) => {}
            (None, Some(None)) if self.is_empty(to) => {}
            (Some(a), Some(Some(b))) if a == b => return true,
            (Some(_), Some(Some(_))) => {}
            _ => return false,
        }
        self.tree.remove(to);
        let moved = self.take(from);
        self.put(to, moved);
        true
    }
}

fn carry_out(lwp: &LwpHandle, op: &Op) -> Result<(), Errno> {
    match *op {
        Op::Create(at) => create(lwp, PLACES[at]).and_then(|fd| lwp.close(fd)),
        Op::Mkdir(at) => lwp.mkdir(&c(PLACES[at]), 0o755),
        Op::Unlink(at) => lwp.unlink(&c(PLACES[at])),
        Op::Rmdir(at) => lwp.rmdir(&c(PLACES[at])),
        Op::Link(from, to) => lwp.link(&c(PLACES[from]), &c(PLACES[to])),
        Op::Rename(from, to) => lwp.rename(&c(PLACES[from]), &c(PLACES[to])),
        Op::Exchange(from, to) => lwp.renameat2(
            AT_FDCWD,
            &c(PLACES[from]),
            AT_FDCWD,
            &c(PLACES[to]),
            RENAME_EXCHANGE,
        ),
    }
    .map(drop)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn names_behave_as_a_tree(ops in proptest::collection::vec(op(), 1..80)) {
        let (kernel, lwp) = boot("");
        let mut model = Model::default();
        for op in &ops {
            let want = model.apply(op);
            let got = carry_out(&lwp, op);
            prop_assert_eq!(got.is_ok(), want, "{:?}: {:?}", op, got);
        }
        let names: Vec<String> = model.tree.keys().cloned().collect();
        let dirs = names.iter().filter(|p| model.tree[*p].is_none()).cloned();
        for dir in dirs.chain(["/t".to_owned()]) {
            let mut below: Vec<String> = names
                .iter()
                .filter_map(|p| p.strip_prefix(&format!("{dir}/")))
                .filter(|tail| !tail.contains('/'))
                .map(str::to_owned)
                .collect();
            let subdirs = below
                .iter()
                .filter(|tail| model.tree[&format!("{dir}/{tail}")].is_none())
                .count();
            below.extend([".".to_owned(), "..".to_owned()]);
            below.sort();
            prop_assert_eq!(&list(&lwp, &dir, 64), &below);
            let stat = stat(&lwp, &dir).expect("there");
            prop_assert_eq!(stat.st_nlink, 2 + subdirs as u64);
        }
        let mut inodes = BTreeMap::new();
        for (path, file) in model.tree.iter().filter_map(|(p, f)| Some((p, (*f)?))) {
            let stat = stat(&lwp, path).expect("there");
            let links = model.tree.values().filter(|f| **f == Some(file)).count();
            prop_assert_eq!(stat.st_nlink, links as u64);
            let ino = *inodes.entry(file).or_insert(stat.st_ino);
            prop_assert_eq!(ino, stat.st_ino);
        }
        drop(lwp);
        kernel.shutdown(true).expect("halted");
    }
}

#[test]
fn the_size_limit_is_told_by_write_and_space_comes_back() {
    let (_kernel, lwp) = boot("size=64k,nr_inodes=4");
    let fd = create(&lwp, "/t/f").expect("a file");
    let data = [1; 100_000];
    assert_eq!(lwp.write(fd, &data, data.len()), Ok(65536), "what fits");
    assert_eq!(lwp.write(fd, &data, 1), Err(Errno::ENOSPC));
    assert_eq!(statfs(&lwp).f_bfree, 0);
    assert_eq!(stat(&lwp, "/t/f").expect("there").st_blocks, 128);
    lwp.pwrite64(fd, &data, 4096, 0)
        .expect("room for what is there");
    lwp.ftruncate(fd, 10_000).expect("cut");
    assert_eq!(statfs(&lwp).f_bfree, 13);
    lwp.unlink(c"/t/f").expect("unlinked");
    assert_eq!(statfs(&lwp).f_bfree, 13, "still open");
    lwp.close(fd).expect("closed");
    assert_eq!(statfs(&lwp).f_bfree, 16);
    for name in ["/t/1", "/t/2", "/t/3"] {
        lwp.mkdir(&c(name), 0o755).expect("room");
    }
    assert_eq!(create(&lwp, "/t/4"), Err(Errno::ENOSPC));
    lwp.rmdir(c"/t/2").expect("removed");
    create(&lwp, "/t/4").expect("room again");
}

#[test]
fn holes_take_no_space() {
    let (_kernel, lwp) = boot("size=64k");
    let fd = create(&lwp, "/t/f").expect("a file");
    lwp.ftruncate(fd, 1 << 40).expect("a hole");
    lwp.pwrite64(fd, b"x", 1, 1 << 39).expect("written");
    assert_eq!(stat(&lwp, "/t/f").expect("there").st_blocks, 8);
    let mut buf = [1; 64];
    assert_eq!(lwp.pread64(fd, &mut buf, 64, (1 << 39) - 1), Ok(64));
    assert_eq!((&buf[..2], &buf[2..]), (&b"\0x"[..], &[0; 62][..]));
    assert_eq!(lwp.lseek(fd, 0, SEEK_DATA), Ok(1 << 39));
    assert_eq!(lwp.lseek(fd, 1 << 39, SEEK_HOLE), Ok((1 << 39) + 4096));
    assert_eq!(lwp.lseek(fd, 1 << 40, SEEK_HOLE), Err(Errno::ENXIO));
}

#[test]
fn options_and_remounts_set_the_limits() {
    let (_kernel, lwp) = boot("size=1m,mode=700,uid=7,gid=8");
    let root = stat(&lwp, "/t").expect("there");
    assert_eq!(root.st_mode & 0o7777, 0o700);
    assert_eq!((root.st_uid, root.st_gid), (7, 8));
    let statfs_before = statfs(&lwp);
    assert_eq!(statfs_before.f_type, 0x0102_1994);
    assert_eq!(statfs_before.f_blocks, 256);
    let fd = create(&lwp, "/t/f").expect("a file");
    lwp.write(fd, &[1; 100_000], 100_000).expect("written");
    let remount = |options: &str| lwp.mount(c"none", c"/t", c"", MS_REMOUNT as i32, &c(options));
    assert_eq!(remount("size=64k"), Err(Errno::EINVAL), "there is more");
    remount("size=2m").expect("larger");
    assert_eq!(statfs(&lwp).f_blocks, 512);
    assert_eq!(mount(&lwp, "colour=red"), Err(Errno::EINVAL));
}

#[test]
fn files_of_every_kind_say_what_they_are() {
    let (_kernel, lwp) = boot("");
    lwp.symlink(c"where", c"/t/link").expect("a link");
    let mut buf = [0; 64];
    assert_eq!(lwp.readlink(c"/t/link", &mut buf, 64), Ok(5));
    assert_eq!(&buf[..5], b"where");
    assert_eq!(stat(&lwp, "/t/link").expect("there").st_size, 5);
    lwp.mknod(c"/t/fifo", 0o010644, 0).expect("a fifo");
    lwp.mknod(c"/t/null", 0o020666, 0x103).expect("a device");
    assert_eq!(stat(&lwp, "/t/fifo").expect("there").st_mode, 0o010644);
    assert_eq!(stat(&lwp, "/t/null").expect("there").st_rdev, 0x103);
}

#[test]
fn a_directory_is_read_whole_although_it_changes() {
    let (_kernel, lwp) = boot("");
    for i in 0..100 {
        let fd = create(&lwp, &format!("/t/f{i}")).expect("a file");
        lwp.close(fd).expect("closed");
    }
    let fd = lwp.open(c"/t", O_RDONLY | O_DIRECTORY, 0).expect("open") as i32;
    let mut seen = Vec::new();
    let mut buf = [0; 96];
    let mut next = 0;
    loop {
        let got = lwp.getdents64(fd, &mut buf, 96).expect("entries") as usize;
        if got == 0 {
            break;
        }
        let mut at = 0;
        while at < got {
            let len = u16::from_ne_bytes([buf[at + 16], buf[at + 17]]) as usize;
            seen.push(buf[at + 19..at + len].to_vec());
            at += len;
        }
        // What was read already goes away, and new names come.
        let _ = lwp.unlink(&c(&format!("/t/f{next}")));
        next += 1;
    }
    for i in 0..100 {
        let name = format!("f{i}");
        let times = seen
            .iter()
            .filter(|n| n.split(|b| *b == 0).next() == Some(name.as_bytes()))
            .count();
        assert_eq!(times, 1, "{name}");
    }
}

#[test]
fn a_thousand_rounds_leave_nothing_behind() {
    let (kernel, lwp) = boot("");
    let memory = || {
        kernel.implicit(&kern::KernelMemory, |cx| {
            vfs::Vfs::of(cx).expect("a vfs").page_cache().memory()
        })
    };
    let before = (memory(), statfs(&lwp).f_bfree, statfs(&lwp).f_ffree);
    for round in 0..1000 {
        let dir = format!("/t/d{round}");
        lwp.mkdir(&c(&dir), 0o755).expect("a directory");
        let fd = create(&lwp, &format!("{dir}/f")).expect("a file");
        lwp.write(fd, &[1; 20_000], 20_000).expect("written");
        lwp.unlink(&c(&format!("{dir}/f"))).expect("unlinked");
        lwp.close(fd).expect("closed");
        lwp.rmdir(&c(&dir)).expect("removed");
    }
    let after = (memory(), statfs(&lwp).f_bfree, statfs(&lwp).f_ffree);
    assert_eq!(before, after);
    assert_eq!(stat(&lwp, "/t").expect("there").st_nlink, 2);
    lwp.mkdir(c"/t/deep", 0o755).expect("a directory");
    lwp.chdir(c"/t/deep").expect("there");
    for _ in 0..20_000 {
        lwp.mkdir(c"d", 0o755).expect("a directory");
        lwp.chdir(c"d").expect("there");
    }
    lwp.chdir(c"/").expect("there");
    lwp.umount2(c"/t", 0)
        .expect("unmounted, however deep it is");
    assert_eq!(memory(), 0);
}
#[test]
fn extended_attributes_come_and_go() {
    let (_kernel, lwp) = boot("");
    let fd = create(&lwp, "/t/f").expect("a file");
    lwp.close(fd).expect("closed");
    let get = |name: &str| {
        let mut buf = [0; 64];
        let len = lwp.getxattr(c"/t/f", &c(name), &mut buf, 64)?;
        Ok(buf[..len as usize].to_vec())
    };
    let set = |name: &str, value: &[u8], flags| {
        lwp.setxattr(c"/t/f", &c(name), value, value.len(), flags)
    };
    assert_eq!(get("user.a"), Err(Errno::ENODATA));
    assert_eq!(set("user.a", b"x", 2), Err(Errno::ENODATA));
    set("user.a", b"1", 1).expect("created");
    assert_eq!(set("user.a", b"x", 1), Err(Errno::EEXIST));
    set("user.a", b"22", 2).expect("replaced");
    set("trusted.t", b"", 0).expect("trusted");
    assert_eq!(get("user.a"), Ok(b"22".to_vec()));
    assert_eq!(set("nonsense", b"x", 0), Err(Errno::EOPNOTSUPP));
    let mut names = [0; 64];
    assert_eq!(lwp.listxattr(c"/t/f", &mut names, 64), Ok(17));
    assert_eq!(&names[..17], b"trusted.t\0user.a\0");
    lwp.removexattr(c"/t/f", c"user.a").expect("removed");
    assert_eq!(get("user.a"), Err(Errno::ENODATA));
}

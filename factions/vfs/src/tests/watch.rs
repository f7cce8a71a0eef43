//! Watching files: kqueue's filters on vnodes, and inotify.

use abi::*;
use kern::LwpHandle;
use kern::kqueue::*;

use super::{boot, c, open};

const ALL: u32 = NOTE_DELETE | NOTE_WRITE | NOTE_EXTEND | NOTE_ATTRIB | NOTE_LINK | NOTE_RENAME;

/// Watches a descriptor; what is asked for is cleared when it is told.
fn watch(lwp: &LwpHandle, kq: i32, fd: i32, filter: u32, notes: u32) -> Result<i64, Errno> {
    let kev = Kevent {
        ident: fd as u64,
        filter,
        flags: EV_ADD | EV_CLEAR,
        fflags: notes,
        ..Kevent::default()
    };
    lwp.kevent(kq, &kev.to_bytes(), 1, &mut [], 0, &[])
}

/// What has happened since it was asked last: notes and data by descriptor.
fn told(lwp: &LwpHandle, kq: i32) -> Vec<(i32, u32, i64)> {
    let mut raw = [0; 8 * Kevent::SIZE];
    let n = lwp
        .kevent(kq, &[], 0, &mut raw, 8, &[0; 16])
        .expect("looks");
    let events = raw.as_chunks().0[..n as usize].iter();
    let mut all: Vec<_> = events
        .map(Kevent::from_bytes)
        .map(|e| (e.ident as i32, e.fflags, e.data))
        .collect();
    all.sort();
    all
}

#[test]
fn what_happens_to_a_file_is_told_to_a_kqueue() {
    let (_kernel, lwp) = boot();
    let kq = lwp.kqueue().expect("a kqueue") as i32;
    let fd = open(&lwp, "/f", O_CREAT | O_RDWR).expect("a file");
    watch(&lwp, kq, fd, EVFILT_VNODE, ALL).expect("watched");
    let notes = || {
        let all = told(&lwp, kq);
        assert!(all.iter().all(|e| e.0 == fd));
        all.first().map_or(0, |e| e.1)
    };
    assert_eq!(notes(), 0);
    lwp.write(fd, b"hello", 5).expect("written");
    assert_eq!(notes(), NOTE_WRITE | NOTE_EXTEND);
    lwp.pwrite64(fd, b"J", 1, 0).expect("written");
    assert_eq!(notes(), NOTE_WRITE);
    lwp.ftruncate(fd, 2).expect("cut");
    assert_eq!(notes(), NOTE_WRITE);
    lwp.ftruncate(fd, 20).expect("grown");
    assert_eq!(notes(), NOTE_WRITE | NOTE_EXTEND);
    lwp.chmod(c"/f", 0o600).expect("changed");
    assert_eq!(notes(), NOTE_ATTRIB);
    lwp.link(c"/f", c"/g").expect("linked");
    assert_eq!(notes(), NOTE_LINK | NOTE_ATTRIB);
    lwp.rename(c"/g", c"/h").expect("renamed");
    assert_eq!(notes(), NOTE_RENAME);
    lwp.unlink(c"/f").expect("unlinked");
    assert_eq!(notes(), NOTE_LINK | NOTE_ATTRIB);
    let other = open(&lwp, "/other", O_CREAT | O_RDWR).expect("a file");
    lwp.rename(c"/other", c"/h").expect("renamed over");
    assert_eq!(notes(), NOTE_DELETE | NOTE_ATTRIB);
    lwp.pread64(fd, &mut [0; 5], 5, 0).expect("read");
    assert_eq!(notes(), 0, "nobody asked for reads");
    lwp.close(other).expect("closed");
    assert_eq!(watch(&lwp, kq, fd, EVFILT_VNODE, NOTE_READ), Ok(0));
    lwp.pread64(fd, &mut [0; 5], 5, 0).expect("read");
    assert_eq!(notes(), NOTE_READ);
    lwp.close(fd).expect("closed");
    assert_eq!(told(&lwp, kq), []);
}

#[test]
fn what_happens_in_a_directory_is_written_to_it() {
    let (_kernel, lwp) = boot();
    let kq = lwp.kqueue().expect("a kqueue") as i32;
    for dir in [c"/a", c"/b"] {
        lwp.mkdir(dir, 0o755).expect("a directory");
    }
    let dir = |path| open(&lwp, path, O_RDONLY | O_DIRECTORY).expect("a directory");
    let (a, b) = (dir("/a"), dir("/b"));
    for fd in [a, b] {
        watch(&lwp, kq, fd, EVFILT_VNODE, ALL).expect("watched");
    }
    let f = open(&lwp, "/a/f", O_CREAT | O_RDWR).expect("a file");
    assert_eq!(told(&lwp, kq), [(a, NOTE_WRITE, 0)]);
    lwp.write(f, b"x", 1).expect("written");
    lwp.chmod(c"/a/f", 0o600).expect("changed");
    assert_eq!(told(&lwp, kq), [], "not the directory");
    lwp.mkdir(c"/a/d", 0o755).expect("a directory");
    assert_eq!(told(&lwp, kq), [(a, NOTE_WRITE | NOTE_LINK, 0)]);
    lwp.rename(c"/a/f", c"/b/f").expect("renamed");
    assert_eq!(told(&lwp, kq), [(a, NOTE_WRITE, 0), (b, NOTE_WRITE, 0)]);
    lwp.rmdir(c"/a/d").expect("removed");
    lwp.rmdir(c"/a").expect("removed");
    let gone = NOTE_WRITE | NOTE_LINK | NOTE_DELETE;
    assert_eq!(told(&lwp, kq), [(a, gone, 0)]);
}

#[test]
fn a_file_has_data_up_to_its_end() {
    let (_kernel, lwp) = boot();
    let kq = lwp.kqueue().expect("a kqueue") as i32;
    let fd = open(&lwp, "/f", O_CREAT | O_RDWR).expect("a file");
    watch(&lwp, kq, fd, EVFILT_READ, 0).expect("watched");
    assert_eq!(told(&lwp, kq), []);
    lwp.pwrite64(fd, b"hello", 5, 0).expect("written");
    assert_eq!(told(&lwp, kq), [(fd, 0, 5)]);
    lwp.read(fd, &mut [0; 8], 8).expect("read");
    assert_eq!(told(&lwp, kq), []);
    lwp.ftruncate(fd, 2).expect("cut");
    assert_eq!(told(&lwp, kq), [(fd, 0, -3)]);
    watch(&lwp, kq, fd, EVFILT_WRITE, 0).expect("watched");
    assert_eq!(told(&lwp, kq), [(fd, 0, 0)]);
}

/// An event: watch, mask, whether it has a cookie, and name.
type Told = (i32, u32, bool, String);

/// Everything that there is to read.
fn read(lwp: &LwpHandle, fd: i32) -> Vec<Told> {
    let mut raw = [0; 4096];
    let n = match lwp.read(fd, &mut raw, 4096) {
        Ok(n) => n as usize,
        Err(error) => {
            assert_eq!(error, Errno::EAGAIN);
            0
        }
    };
    let number = |at: usize| u32::from_le_bytes(raw[at..at + 4].try_into().expect("four"));
    let mut all = Vec::new();
    let mut at = 0;
    while at < n {
        let len = number(at + 12) as usize;
        let name = &raw[at + 16..at + 16 + len];
        let name = String::from_utf8_lossy(name.split(|&b| b == 0).next().unwrap_or_default());
        all.push((
            number(at) as i32,
            number(at + 4),
            number(at + 8) != 0,
            name.into_owned(),
        ));
        at += 16 + len;
    }
    assert_eq!(at, n);
    all
}

fn event(wd: i32, mask: u32, name: &str) -> Told {
    (wd, mask, false, name.to_owned())
}

const MODIFY: u32 = 2;
const ATTRIB: u32 = 4;
const CLOSE_WRITE: u32 = 8;
const OPEN: u32 = 0x20;
const CREATE: u32 = 0x100;
const DELETE: u32 = 0x200;
const DELETE_SELF: u32 = 0x400;
const MOVE_SELF: u32 = 0x800;
const IGNORED: u32 = 0x8000;
const ISDIR: u32 = 0x4000_0000;
const ONESHOT: u32 = 0x8000_0000;
const EVERY: u32 = 0xfff;

fn add(lwp: &LwpHandle, fd: i32, path: &str, mask: u32) -> Result<i32, Errno> {
    lwp.inotify_add_watch(fd, &c(path), mask as i32)
        .map(|wd| wd as i32)
}

#[test]
fn inotify_tells_what_happens_in_a_directory() {
    let (_kernel, lwp) = boot();
    let fd = lwp.inotify_init1(O_NONBLOCK).expect("an instance") as i32;
    lwp.mkdir(c"/d", 0o755).expect("a directory");
    let wd = add(&lwp, fd, "/d", EVERY).expect("a watch");
    assert_eq!((wd, read(&lwp, fd)), (1, vec![]));
    let f = open(&lwp, "/d/f", O_CREAT | O_RDWR).expect("a file");
    lwp.write(f, b"x", 1).expect("written");
    lwp.write(f, b"x", 1).expect("written");
    lwp.close(f).expect("closed");
    lwp.chmod(c"/d/f", 0o600).expect("changed");
    lwp.mkdir(c"/d/e", 0o755).expect("a directory");
    let want = [
        event(wd, CREATE, "f"),
        event(wd, OPEN, "f"),
        event(wd, MODIFY, "f"),
        event(wd, CLOSE_WRITE, "f"),
        event(wd, ATTRIB, "f"),
        event(wd, CREATE | ISDIR, "e"),
    ];
    assert_eq!(read(&lwp, fd), want);
    lwp.rename(c"/d/f", c"/d/g").expect("renamed");
    lwp.rename(c"/d/g", c"/g").expect("renamed");
    let moved = |mask, name: &str| (wd, mask, true, name.to_owned());
    let want = [moved(0x40, "f"), moved(0x80, "g"), moved(0x40, "g")];
    assert_eq!(read(&lwp, fd), want);
    lwp.rmdir(c"/d/e").expect("removed");
    lwp.rmdir(c"/d").expect("removed");
    let want = [
        event(wd, DELETE | ISDIR, "e"),
        event(wd, DELETE_SELF, ""),
        event(wd, IGNORED, ""),
    ];
    assert_eq!(read(&lwp, fd), want);
    assert_eq!(lwp.inotify_rm_watch(fd, wd), Err(Errno::EINVAL));
}

#[test]
fn inotify_tells_what_happens_to_a_file() {
    let (_kernel, lwp) = boot();
    let fd = lwp.inotify_init1(O_NONBLOCK).expect("an instance") as i32;
    let f = open(&lwp, "/f", O_CREAT | O_RDWR).expect("a file");
    let wd = add(&lwp, fd, "/f", EVERY).expect("a watch");
    assert_eq!(add(&lwp, fd, "/f", EVERY), Ok(wd), "the same file");
    assert_eq!(add(&lwp, fd, "/f", EVERY | 0x1000_0000), Err(Errno::EEXIST));
    lwp.write(f, b"x", 1).expect("written");
    lwp.rename(c"/f", c"/g").expect("renamed");
    lwp.unlink(c"/g").expect("unlinked");
    let want = [
        event(wd, MODIFY, ""),
        event(wd, MOVE_SELF, ""),
        event(wd, ATTRIB, ""),
    ];
    assert_eq!(read(&lwp, fd), want);
    // It lives until the last close.
    lwp.close(f).expect("closed");
    let want = [
        event(wd, CLOSE_WRITE, ""),
        event(wd, DELETE_SELF, ""),
        event(wd, IGNORED, ""),
    ];
    assert_eq!(read(&lwp, fd), want);
}

#[test]
fn a_watch_ends_when_it_is_told_or_was_for_one_event() {
    let (_kernel, lwp) = boot();
    let fd = lwp.inotify_init().expect("an instance") as i32;
    let f = open(&lwp, "/f", O_CREAT | O_RDWR).expect("a file");
    let once = add(&lwp, fd, "/f", MODIFY | ONESHOT).expect("a watch");
    lwp.write(f, b"x", 1).expect("written");
    lwp.write(f, b"x", 1).expect("written");
    assert_eq!(
        read(&lwp, fd),
        [event(once, MODIFY, ""), event(once, IGNORED, "")]
    );
    let wd = add(&lwp, fd, "/f", MODIFY).expect("a watch");
    assert_eq!(wd, once + 1);
    add(&lwp, fd, "/f", ATTRIB | 0x2000_0000).expect("added");
    lwp.fchmod(f, 0o600).expect("changed");
    lwp.inotify_rm_watch(fd, wd).expect("removed");
    lwp.write(f, b"x", 1).expect("written");
    assert_eq!(
        read(&lwp, fd),
        [event(wd, ATTRIB, ""), event(wd, IGNORED, "")]
    );
    for (path, mask, error) in [
        ("/none", MODIFY, Errno::ENOENT),
        ("/f", 0, Errno::EINVAL),
        ("/f", MODIFY | 0x0100_0000, Errno::ENOTDIR),
        ("/f", MODIFY | 0x3000_0000, Errno::EINVAL),
    ] {
        assert_eq!(add(&lwp, fd, path, mask), Err(error), "{path} {mask:#x}");
    }
    assert_eq!(add(&lwp, f, "/f", MODIFY), Err(Errno::EINVAL));
    // A buffer that no event fits.
    lwp.inotify_rm_watch(fd, 99).expect_err("no watch");
    add(&lwp, fd, "/f", MODIFY).expect("a watch");
    lwp.write(f, b"x", 1).expect("written");
    assert_eq!(lwp.read(fd, &mut [0; 15], 15), Err(Errno::EINVAL));
    let mut waiting = [0; 4];
    lwp.ioctl(fd, 0x541b, &mut waiting).expect("counts");
    assert_eq!(waiting, 16u32.to_le_bytes());
}

#[test]
fn what_is_too_much_is_told_as_lost() {
    let (_kernel, lwp) = boot();
    let fd = lwp.inotify_init1(O_NONBLOCK).expect("an instance") as i32;
    let f = open(&lwp, "/f", O_CREAT | O_RDWR).expect("a file");
    let wd = add(&lwp, fd, "/f", MODIFY | ATTRIB).expect("a watch");
    for _ in 0..10_000 {
        lwp.pwrite64(f, b"x", 1, 0).expect("written");
        lwp.fchmod(f, 0o600).expect("changed");
    }
    let mut all = Vec::new();
    loop {
        let more = read(&lwp, fd);
        if more.is_empty() {
            break;
        }
        all.extend(more);
    }
    assert_eq!(all.len(), 16385);
    assert_eq!(all[16383].0, wd);
    assert_eq!(all[16384], (-1, 0x4000, false, String::new()));
}

//! Power cuts at every write of the disk: what was synced is there, and e2fsck or the journal mends the rest.
//!
//! The workload runs once on the simulated host, which keeps what happened to the disk. Then for every write a disk is made as
//! the cut there leaves it, mended, and looked at by a kernel of its own.

#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // tests are on the host's side

mod common;

use std::path::Path;
use std::sync::Arc;

use abi::{Errno, O_APPEND, O_CREAT, O_DIRECTORY, O_RDONLY, O_RDWR, O_WRONLY, Syscalls};
use common::{Image, Machine, assert_clean, c, pattern, repair};
use hypercall::sim::{History, SimConfig, SimFile, SimHost};
use testing::Dice;

const DISK: &str = "/disk";

/// What must hold as long as the number of events on the disk is in a range.
struct Promise {
    from: usize,
    until: usize,
    path: String,
    /// `None`: it is not there.
    content: Option<Vec<u8>>,
}

/// A mounted disk, and what is promised of it.
struct Disk<'a> {
    m: &'a Machine,
    file: Arc<SimFile>,
    promises: Vec<Promise>,
}

impl Disk<'_> {
    /// From here on `path` has this content, until [`changes`](Self::changes).
    fn promise(&mut self, path: &str, content: Option<Vec<u8>>) {
        self.promises.push(Promise {
            from: self.file.recorded(),
            until: usize::MAX,
            path: path.to_owned(),
            content,
        });
    }

    /// What was promised of `path` ends here, because it is about to be changed. Answers the content.
    fn changes(&mut self, path: &str) -> Vec<u8> {
        let now = self.file.recorded();
        let mut of_it = self.promises.iter_mut().rev();
        match of_it.find(|p| p.path == path) {
            Some(last) if last.until == usize::MAX => {
                last.until = now;
                last.content.clone().unwrap_or_default()
            }
            _ => Vec::new(),
        }
    }

    /// Changes a file by `change` and syncs it.
    fn write(&mut self, path: &str, flags: i32, data: &[u8], at: usize) {
        let mut content = self.changes(path);
        let fd = self.m.open(path, O_CREAT | flags).expect("opened");
        let at = if flags & O_APPEND != 0 {
            content.len()
        } else {
            at
        };
        self.m.write_at(fd, data, at as u64).expect("written");
        self.m.fsync(fd).expect("synced");
        self.m.close(fd);
        if content.len() < at + data.len() {
            content.resize(at + data.len(), 0);
        }
        content[at..at + data.len()].copy_from_slice(data);
        self.promise(path, Some(content));
    }

    fn truncate(&mut self, path: &str, size: usize) {
        let mut content = self.changes(path);
        let fd = self.m.open(path, O_WRONLY).expect("opened");
        self.m.lwp.ftruncate(fd, size as i64).expect("cut");
        self.m.fsync(fd).expect("synced");
        self.m.close(fd);
        content.resize(size, 0);
        self.promise(path, Some(content));
    }

    fn rename(&mut self, from: &str, to: &str) {
        let content = self.changes(from);
        self.changes(to);
        self.m.lwp.rename(&c(from), &c(to)).expect("renamed");
        let fd = self.m.open(to, O_RDONLY).expect("opened");
        self.m.fsync(fd).expect("synced");
        self.m.close(fd);
        self.sync_dir();
        self.promise(to, Some(content));
        self.promise(from, None);
    }

    fn unlink(&mut self, path: &str) {
        self.changes(path);
        self.m.lwp.unlink(&c(path)).expect("unlinked");
        self.sync_dir();
        self.promise(path, None);
    }

    fn sync_dir(&self) {
        for dir in ["/m", "/m/d"] {
            let fd = self.m.open(dir, O_RDONLY | O_DIRECTORY).expect("opened");
            self.m.fsync(fd).expect("synced");
            self.m.close(fd);
        }
    }

    /// Work that nobody syncs, among the other.
    fn loose(&self, dice: &mut Dice) {
        let name = format!("/m/d/loose{}", dice.below(4));
        match dice.below(5) {
            0 => drop(self.m.lwp.unlink(&c(name))),
            1 => drop(self.m.lwp.rename(&c(name), &c("/m/d/loose0"))),
            2 => drop(
                self.m
                    .lwp
                    .mkdir(&c(format!("/m/dir{}", dice.below(3))), 0o755),
            ),
            _ => {
                let len = dice.below(9000) as usize;
                self.m
                    .write(&name, &pattern(dice.next(), len))
                    .expect("written");
            }
        }
    }
}

/// The workload: on a disk with this content; what happened to the disk, and what was promised.
fn work(image: Vec<u8>) -> (History, Vec<Promise>) {
    let run = SimHost::run(SimConfig::new(1), move |host| {
        host.put_file(DISK.as_bytes(), host.new_file(image));
        let file = host.file(DISK.as_bytes()).expect("put there");
        file.record();
        let m = Machine::on(host.clone());
        m.mount(Path::new(DISK), "").expect("mounts");
        m.lwp.mkdir(&c("/m/d"), 0o755).expect("made");
        m.sync().expect("synced");
        let mut disk = Disk {
            m: &m,
            file: file.clone(),
            promises: Vec::new(),
        };
        let mut dice = Dice::new(7);
        for i in 0..8u64 {
            let dir = ["/m", "/m/d"][i as usize % 2];
            let path = format!("{dir}/kept{i}");
            disk.write(&path, O_RDWR, &pattern(i, 1 + dice.below(9000) as usize), 0);
            disk.loose(&mut dice);
            let before = &format!(
                "{}/kept{}",
                ["/m", "/m/d"][(i as usize + 1) % 2],
                i.max(1) - 1
            );
            match i {
                1 => disk.write(before, O_RDWR, &pattern(20, 3000), 1000),
                2 => disk.write(before, O_RDWR | O_APPEND, &pattern(21, 5000), 0),
                3 => disk.truncate(before, 700),
                4 => disk.rename(before, "/m/d/moved"),
                5 => disk.unlink(before),
                6 => disk.rename(before, "/m/d/moved"),
                _ => disk.loose(&mut dice),
            }
            disk.loose(&mut dice);
        }
        let promises = disk.promises;
        m.unmount().expect("unmounts");
        m.kernel.shutdown(true).expect("halts");
        (file.history(), promises)
    });
    run.result.expect("the workload ends")
}

/// Mounts a disk and looks whether it has what was promised. Answers the disk as the unmounting leaves it, or why it is not
/// as it should be.
fn check(disk: Vec<u8>, promises: &[(String, Option<Vec<u8>>)]) -> Result<Vec<u8>, String> {
    let wanted = promises.to_vec();
    let run = SimHost::run(SimConfig::new(2), move |host| {
        host.put_file(DISK.as_bytes(), host.new_file(disk));
        let m = Machine::on(host.clone());
        m.mount(Path::new(DISK), "")
            .map_err(|error| format!("it does not mount: {error}: {}", m.log()))?;
        for (path, content) in &wanted {
            let seen = m.read(path);
            let good = match content {
                Some(content) => seen.as_ref().is_ok_and(|seen| seen == content),
                None => seen == Err(Errno::ENOENT),
            };
            if !good {
                let seen = seen.map(|seen| seen.len());
                return Err(format!("{path} is {seen:?}"));
            }
        }
        m.unmount().map_err(|error| format!("unmount: {error}"))?;
        m.kernel
            .shutdown(true)
            .map_err(|error| format!("halt: {error}"))?;
        Ok(host.file(DISK.as_bytes()).expect("put there").content())
    });
    run.result
        .unwrap_or_else(|failure| Err(format!("{failure:?}")))
}

/// Said of a superblock one sector of which was written and the other not, where it has a checksum over both.
const TORN_SUPERBLOCK: &str = "the superblock is damaged (checksum)";

/// Tries every cut of the workload on an image made with these arguments.
fn cut_everywhere(args: &str, size: &str, journal: bool) {
    let image = Image::small(args, size);
    let (history, promises) = work(std::fs::read(&image.path).expect("read"));
    let mut dice = Dice::new(3);
    let mut cuts = 0;
    for cut in history.cuts() {
        let n = cut.events;
        let wanted: Vec<_> = promises
            .iter()
            .filter(|p| (p.from..=p.until).contains(&n))
            .map(|p| (p.path.clone(), p.content.clone()))
            .collect();
        let torn = cut.torn(&mut |bound| dice.below(bound));
        let mended = |disk: &[u8]| {
            std::fs::write(&image.path, disk).expect("written");
            repair(&image.path);
            std::fs::read(&image.path).expect("read")
        };
        let good = |how, result: Result<Vec<u8>, String>| {
            let of = history.len();
            result.unwrap_or_else(|error| panic!("{args}: cut after {n} of {of}, {how}: {error}"))
        };
        good("in order", check(mended(&cut.in_order()), &wanted));
        match check(torn.clone(), &wanted) {
            // The kernel replays the journal; e2fsck has nothing to add.
            Ok(after) if journal => {
                std::fs::write(&image.path, after).expect("written");
                assert_clean(&image.path);
            }
            Err(error) if journal && !error.contains(TORN_SUPERBLOCK) => {
                drop(good("torn", Err(error)))
            }
            _ => drop(good("torn, e2fsck", check(mended(&torn), &wanted))),
        }
        cuts += 1;
    }
    assert!(cuts > 100, "{cuts}");
    println!("{args}: {cuts} cuts, {} promises", promises.len());
}

#[test]
fn ext2_keeps_what_was_synced_whenever_the_power_goes() {
    cut_everywhere("-t ext2 -b 1024 -N 64", "1M", false);
}

#[test]
fn ext3_keeps_what_was_synced_whenever_the_power_goes() {
    cut_everywhere("-t ext3 -b 1024 -N 64 -J size=1", "4M", true);
}

// With checksums the images have a second group, for the second superblock there: e2fsck takes it for a torn one.

#[test]
fn ext4_keeps_what_was_synced_whenever_the_power_goes() {
    cut_everywhere("-t ext4 -b 1024 -N 64 -J size=1", "9M", true);
}

#[test]
fn ext4_in_large_blocks_keeps_what_was_synced_whenever_the_power_goes() {
    cut_everywhere(
        "-t ext4 -b 4096 -N 64 -J size=4 -O ^metadata_csum",
        "9M",
        true,
    );
}

#[test]
fn ext4_without_a_journal_keeps_what_was_synced_whenever_the_power_goes() {
    cut_everywhere("-t ext4 -b 1024 -N 64 -O ^has_journal", "9M", false);
}

//! Tests of the cache against a driver that keeps its file in memory and can fail.

use std::any::Any;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};

use abi::Errno;
use hypercall::PosixHost;
use kern::{Curlwp, Kernel, KernelMemory, Uio};
use proptest::prelude::*;

use super::*;
use crate::{Attr, FsStat, Mount, MountArgs, MountOps, SetAttr, VFS};

/// What the fake driver has stored, and how it fails.
#[derive(Default)]
struct Disk {
    /// The file as stored; longer than the file's size when a tail was stored.
    bytes: Mutex<Vec<u8>>,
    /// Write calls that fail from now on.
    failing_writes: AtomicU64,
    failing_reads: AtomicU64,
    reads: AtomicU64,
    writes: AtomicU64,
    attr_writes: AtomicU64,
    reserved: AtomicU64,
    /// Write calls stall while it is closed.
    gate: Gate,
}

/// A gate that is open unless closed, and how many stand before it.
#[derive(Default)]
struct Gate {
    state: Mutex<(bool, u32)>,
    changed: std::sync::Condvar,
}

impl Gate {
    fn set_closed(&self, closed: bool) {
        self.state.lock().unwrap().0 = closed;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.1 += 1;
        self.changed.notify_all();
        while state.0 {
            state = self.changed.wait(state).unwrap();
        }
        state.1 -= 1;
    }

    fn wait_for_somebody(&self) {
        let mut state = self.state.lock().unwrap();
        while state.1 == 0 {
            state = self.changed.wait(state).unwrap();
        }
    }
}

impl Disk {
    fn stored(&self, len: usize) -> Vec<u8> {
        let mut bytes = self.bytes.lock().unwrap().clone();
        bytes.resize(len, 0);
        bytes
    }
}

struct FakeOps(Arc<Disk>, bool);

fn one_less(count: &AtomicU64) -> bool {
    count
        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
        .is_ok()
}

impl VnodeOps for FakeOps {
    fn read_pages(
        &self,
        _: &Curlwp<'_>,
        _: &Arc<Vnode>,
        offset: u64,
        pages: &mut [&mut [u8]],
    ) -> Result<(), Errno> {
        self.0.reads.fetch_add(1, Ordering::SeqCst);
        if one_less(&self.0.failing_reads) {
            return Err(Errno::EIO);
        }
        let bytes = self.0.bytes.lock().unwrap();
        let mut at = offset as usize;
        for page in pages {
            page.fill(0);
            let from = at.min(bytes.len());
            let to = (at + page.len()).min(bytes.len());
            page[..to - from].copy_from_slice(&bytes[from..to]);
            at += page.len();
        }
        Ok(())
    }

    fn write_pages(
        &self,
        cx: &Curlwp<'_>,
        _: &Arc<Vnode>,
        offset: u64,
        pages: &[&[u8]],
        size: u64,
    ) -> Result<(), Errno> {
        self.0.writes.fetch_add(1, Ordering::SeqCst);
        cx.unscheduled(|| self.0.gate.pass());
        if one_less(&self.0.failing_writes) {
            return Err(Errno::EIO);
        }
        let mut bytes = self.0.bytes.lock().unwrap();
        let mut at = offset as usize;
        for page in pages {
            let end = (at + page.len()).min(size as usize);
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            let len = end.saturating_sub(at);
            bytes[at..at + len].copy_from_slice(&page[..len]);
            at += page.len();
        }
        self.0
            .reserved
            .fetch_sub(pages.len() as u64, Ordering::SeqCst);
        Ok(())
    }

    fn setattr(&self, _: &Curlwp<'_>, _: &Arc<Vnode>, set: &SetAttr) -> Result<(), Errno> {
        if let Some(size) = set.size {
            let mut bytes = self.0.bytes.lock().unwrap();
            let len = bytes.len().min(size as usize);
            bytes.truncate(len);
        }
        Ok(())
    }

    fn reserve(&self, _: &Curlwp<'_>, _: &Arc<Vnode>, _: u64, len: u64) -> Result<(), Errno> {
        self.0
            .reserved
            .fetch_add(len.div_ceil(PAGE_SIZE as u64), Ordering::SeqCst);
        Ok(())
    }

    fn unreserve(&self, _: &Curlwp<'_>, _: &Arc<Vnode>, pages: u64) {
        self.0.reserved.fetch_sub(pages, Ordering::SeqCst);
    }

    fn punch(&self, _: &Curlwp<'_>, _: &Arc<Vnode>, offset: u64, len: u64) -> Result<(), Errno> {
        let mut bytes = self.0.bytes.lock().unwrap();
        let end = ((offset + len) as usize).min(bytes.len());
        let start = (offset as usize).min(end);
        bytes[start..end].fill(0);
        Ok(())
    }

    fn write_attr(&self, _: &Curlwp<'_>, _: &Arc<Vnode>) -> Result<(), Errno> {
        self.0.attr_writes.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn resident(&self) -> bool {
        self.1
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

struct FakeMount;

impl MountOps for FakeMount {
    fn statfs(&self, _: &Curlwp<'_>, _: &Mount) -> Result<FsStat, Errno> {
        Ok(FsStat::default())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

fn kernel(memlimit: Option<u64>) -> Arc<Kernel> {
    let host = PosixHost::with_params([("RUMP_NCPU", "2")]);
    let builder = Kernel::builder(host).component(&VFS);
    let builder = builder.config(move |config| config.memlimit = memlimit);
    builder.boot().expect("a kernel")
}

fn fake_mount(cx: &Curlwp<'_>) -> Arc<Mount> {
    let args = MountArgs {
        source: b"fake",
        device: None,
        flags: 0,
        data: b"",
        dev: 1,
    };
    let _ = cx;
    Mount::new(&args, "fake", false, Box::new(FakeMount), |mount| {
        let ops = Box::new(FakeOps(Arc::default(), true));
        let weak = Arc::downgrade(mount);
        let attr = Attr::default();
        Ok(Vnode::new(&weak, 1, VnodeKind::Directory, 0, attr, ops))
    })
    .expect("a mount")
}

/// A file of the fake driver, and its disk.
fn file(mount: &Weak<Mount>, resident: bool) -> (Arc<Vnode>, Arc<Disk>) {
    let disk = Arc::new(Disk::default());
    let ops = Box::new(FakeOps(disk.clone(), resident));
    let attr = Attr {
        nlink: 1,
        ..Attr::default()
    };
    let vp = Vnode::new(mount, 2, VnodeKind::Regular, 0, attr, ops);
    (vp, disk)
}

fn read_at(cx: &Curlwp<'_>, vp: &Arc<Vnode>, offset: u64, len: usize) -> Result<Vec<u8>, Errno> {
    let mut buf = vec![0xaa; len];
    let mut uio = Uio::fill(&mut buf, offset);
    read(cx, vp, &mut uio)?;
    let left = uio.resid();
    buf.truncate(len - left);
    Ok(buf)
}

fn write_at(cx: &Curlwp<'_>, vp: &Arc<Vnode>, offset: u64, data: &[u8]) -> Result<usize, Errno> {
    let mut uio = Uio::drain(data, offset);
    let result = write(cx, vp, &mut uio, false);
    let done = data.len() - uio.resid();
    if done == 0 {
        result.map(|()| 0)
    } else {
        Ok(done)
    }
}

#[derive(Clone, Debug)]
enum Op {
    Read(u64, usize),
    Write(u64, usize, u8),
    Append(usize, u8),
    Truncate(u64),
    Punch(u64, u64),
    Zero(u64, u64, bool),
    Flush,
    FailWrites(u64),
    FailReads(u64),
    Ahead(u64, u64),
    Evict(u64, u64),
}

const MOST: u64 = 200_000;

fn op() -> impl Strategy<Value = Op> {
    let at = || prop_oneof![0..MOST, (0..48u64).prop_map(|page| page * 4096)];
    let len = || prop_oneof![1..9000usize, Just(4096usize), 1..60_000usize];
    prop_oneof![
        4 => (at(), len()).prop_map(|(at, len)| Op::Read(at, len)),
        4 => (at(), len(), 1..=255u8).prop_map(|(at, len, fill)| Op::Write(at, len, fill)),
        2 => (len(), 1..=255u8).prop_map(|(len, fill)| Op::Append(len, fill)),
        2 => at().prop_map(Op::Truncate),
        2 => (at(), len()).prop_map(|(at, len)| Op::Punch(at, len as u64)),
        1 => (at(), len(), any::<bool>()).prop_map(|(at, len, keep)| Op::Zero(at, len as u64, keep)),
        1 => Just(Op::Flush),
        1 => (1..4u64).prop_map(Op::FailWrites),
        1 => (1..4u64).prop_map(Op::FailReads),
        1 => (at(), len()).prop_map(|(at, len)| Op::Ahead(at, len as u64)),
        1 => (at(), len()).prop_map(|(at, len)| Op::Evict(at, len as u64)),
    ]
}

fn model_write(model: &mut Vec<u8>, at: usize, data: &[u8]) {
    let end = at + data.len();
    if model.len() < end {
        model.resize(end, 0);
    }
    model[at..end].copy_from_slice(data);
}

/// Carries out operations on a file and on a vector. An operation may fail while the disk does, and then only what it
/// says was written counts; no content may be lost.
fn against_model(resident: bool, memlimit: Option<u64>, ops: Vec<Op>) {
    let kernel = kernel(memlimit);
    kernel.implicit(&KernelMemory, |cx| {
        let mount = fake_mount(cx);
        let (vp, disk) = file(&Arc::downgrade(&mount), resident);
        let mut model: Vec<u8> = Vec::new();
        for op in ops {
            match op {
                Op::Read(at, len) => {
                    let from = (at as usize).min(model.len());
                    let to = (at as usize + len).min(model.len());
                    if let Ok(got) = read_at(cx, &vp, at, len) {
                        assert!(got == model[from..to], "read {at} {len}");
                    }
                }
                Op::Write(at, len, fill) => {
                    let data: Vec<u8> = (0..len).map(|i| fill ^ i as u8).collect();
                    if let Ok(done) = write_at(cx, &vp, at, &data) {
                        model_write(&mut model, at as usize, &data[..done]);
                    }
                }
                Op::Append(len, fill) => {
                    let data = vec![fill; len];
                    let mut uio = Uio::drain(&data, 0);
                    let _ = write(cx, &vp, &mut uio, true);
                    let done = len - uio.resid();
                    let end = model.len();
                    model_write(&mut model, end, &data[..done]);
                }
                Op::Truncate(size) => {
                    truncate(cx, &vp, size).expect("cut");
                    model.resize(size as usize, 0);
                }
                Op::Punch(at, len) => {
                    punch(cx, &vp, at, len).expect("a hole");
                    let to = ((at + len) as usize).min(model.len());
                    let from = (at as usize).min(to);
                    model[from..to].fill(0);
                }
                Op::Zero(at, len, keep) => {
                    let full = zero(cx, &vp, at, len, keep);
                    if full.is_err() {
                        // How far it came is not told: what was zeroed is, the rest is as before.
                        let size = vp.attr(cx).size as usize;
                        if model.len() < size {
                            model.resize(size, 0);
                        }
                        disk.failing_reads.store(0, Ordering::SeqCst);
                        disk.failing_writes.store(0, Ordering::SeqCst);
                        let Ok(now) = read_at(cx, &vp, 0, size) else {
                            continue;
                        };
                        for (i, byte) in now.iter().enumerate() {
                            let inside = i as u64 >= at && (i as u64) < at + len;
                            assert!(*byte == model[i] || (inside && *byte == 0));
                        }
                        model = now;
                        continue;
                    }
                    let mut end = (at + len) as usize;
                    if keep {
                        end = end.min(model.len());
                    }
                    if at as usize <= end && (at as usize) < end {
                        model_write(&mut model, at as usize, &vec![0; end - at as usize]);
                    }
                }
                Op::Flush => {
                    if flush(cx, &vp).is_ok() && !resident {
                        assert!(
                            disk.stored(model.len()) == model,
                            "what is stored after a flush"
                        );
                        assert_eq!(disk.reserved.load(Ordering::SeqCst), 0);
                    }
                }
                Op::FailWrites(n) => disk.failing_writes.store(n, Ordering::SeqCst),
                Op::FailReads(n) => disk.failing_reads.store(n, Ordering::SeqCst),
                Op::Evict(at, len) => evict(cx, &vp, at, len),
                Op::Ahead(at, len) => readahead(cx, &vp, at, len),
            }
            assert_eq!(vp.attr(cx).size, model.len() as u64);
            let cache = memory::cache(cx).expect("a cache");
            if let Some(limit) = memlimit {
                assert!(cache.memory() <= limit, "over the limit");
            }
        }
        disk.failing_reads.store(0, Ordering::SeqCst);
        disk.failing_writes.store(0, Ordering::SeqCst);
        assert!(read_at(cx, &vp, 0, model.len()).expect("readable") == model);
        let cache = memory::cache(cx).expect("a cache").clone();
        drop_mount(cx, &mount);
        let data_pages = vp.pages.io.read(cx.cpu()).pages();
        assert_eq!(cache.memory(), data_pages * 4096);
        discard(cx, &vp);
        assert_eq!((cache.memory(), cache.dirty()), (0, 0));
        assert_eq!(disk.reserved.load(Ordering::SeqCst), 0);
        drop(vp);
        drop(mount);
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_file_behaves_as_a_vector(ops in proptest::collection::vec(op(), 1..60)) {
        against_model(false, None, ops);
    }

    #[test]
    fn a_file_behaves_as_a_vector_when_memory_is_short(
        ops in proptest::collection::vec(op(), 1..60),
    ) {
        against_model(false, Some(8 * 4096), ops);
    }

    #[test]
    fn a_resident_file_behaves_as_a_vector(ops in proptest::collection::vec(op(), 1..60)) {
        against_model(true, None, ops);
    }

    #[test]
    fn a_resident_file_is_refused_more_than_the_limit(
        ops in proptest::collection::vec(op(), 1..60),
    ) {
        against_model(true, Some(8 * 4096), ops);
    }
}

#[test]
fn an_error_of_write_back_is_told_once_and_nothing_is_lost() {
    kernel(None).implicit(&KernelMemory, |cx| {
        let mount = fake_mount(cx);
        let (vp, disk) = file(&Arc::downgrade(&mount), false);
        let (a, b) = (error_mark(&vp), error_mark(&vp));
        write_at(cx, &vp, 0, b"precious").expect("written");
        disk.failing_writes.store(1, Ordering::SeqCst);
        assert_eq!(flush_mount(cx, &mount), Err(Errno::EIO));
        assert_eq!(fsync(cx, &vp, false, &a), Err(Errno::EIO));
        assert_eq!(fsync(cx, &vp, false, &a), Ok(()));
        assert_eq!(fsync(cx, &vp, false, &b), Err(Errno::EIO));
        assert_eq!(disk.stored(8), b"precious");
        drop_mount(cx, &mount);
        assert_eq!(Arc::strong_count(&vp), 1);
    });
}

#[test]
fn dirty_pages_are_written_in_large_runs() {
    kernel(None).implicit(&KernelMemory, |cx| {
        let mount = fake_mount(cx);
        let (vp, disk) = file(&Arc::downgrade(&mount), false);
        for page in (0..512u64).rev() {
            write_at(cx, &vp, page * 4096, &[7; 4096]).expect("written");
        }
        flush_mount(cx, &mount).expect("synced");
        assert_eq!(disk.writes.load(Ordering::SeqCst), 2);
        assert_eq!(disk.reads.load(Ordering::SeqCst), 0);
        assert_eq!(disk.attr_writes.load(Ordering::SeqCst), 1);
        discard(cx, &vp);
        assert!(read_at(cx, &vp, 0, 2 << 20).expect("read") == [7; 2 << 20]);
        assert!(disk.reads.load(Ordering::SeqCst) <= 6);
    });
}

#[test]
fn a_discarded_file_is_never_written() {
    let kernel = kernel(None);
    kernel.implicit(&KernelMemory, |cx| {
        let mount = fake_mount(cx);
        let (vp, disk) = file(&Arc::downgrade(&mount), false);
        write_at(cx, &vp, 0, &[1; 10_000]).expect("written");
        discard(cx, &vp);
        flush_mount(cx, &mount).expect("nothing to sync");
        assert_eq!(disk.writes.load(Ordering::SeqCst), 0);
        assert_eq!(Arc::strong_count(&vp), 1);
    });
}

#[test]
fn concurrent_writers_and_readers_see_whole_writes() {
    let kernel = kernel(Some(64 * 4096));
    let shared: OnceLock<(Arc<Mount>, Arc<Vnode>)> = OnceLock::new();
    kernel.implicit(&KernelMemory, |cx| {
        let mount = fake_mount(cx);
        let (vp, _) = file(&Arc::downgrade(&mount), false);
        write_at(cx, &vp, 0, &[0; 6000]).expect("written");
        let _ = shared.set((mount, vp));
    });
    let (_, vp) = shared.get().expect("a file");
    std::thread::scope(|scope| {
        for writer in 0..2u8 {
            let kernel = &kernel;
            scope.spawn(move || {
                for round in 0..300u32 {
                    kernel.implicit(&KernelMemory, |cx| {
                        let fill = (round as u8).wrapping_mul(2).wrapping_add(writer);
                        write_at(cx, vp, 0, &[fill; 6000]).expect("written");
                        if round % 7 == 0 {
                            flush(cx, vp).expect("flushed");
                        }
                        let mut uio = Uio::drain(&[9; 100], 0);
                        write(cx, vp, &mut uio, true).expect("appended");
                    });
                }
            });
        }
        for _ in 0..2 {
            let kernel = &kernel;
            scope.spawn(move || {
                for _ in 0..600 {
                    kernel.implicit(&KernelMemory, |cx| {
                        let got = read_at(cx, vp, 0, 6000).expect("read");
                        assert!(got.iter().all(|b| *b == got[0]), "a torn write");
                    });
                }
            });
        }
    });
    kernel.implicit(&KernelMemory, |cx| {
        assert_eq!(vp.attr(cx).size, 6000 + 2 * 300 * 100);
        let tail = read_at(cx, vp, 6000, 2 * 300 * 100).expect("read");
        assert!(tail.iter().all(|b| *b == 9), "an append was overwritten");
    });
}

#[test]
fn a_file_is_usable_while_it_is_written_back() {
    let kernel = kernel(None);
    let (mount, vp, disk) = kernel.implicit(&KernelMemory, |cx| {
        let mount = fake_mount(cx);
        let (vp, disk) = file(&Arc::downgrade(&mount), false);
        write_at(cx, &vp, 0, &[1; 8192]).expect("written");
        (mount, vp, disk)
    });
    disk.gate.set_closed(true);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| kernel.implicit(&KernelMemory, |cx| flush(cx, &vp)));
        disk.gate.wait_for_somebody();
        kernel.implicit(&KernelMemory, |cx| {
            write_at(cx, &vp, 4096, &[2; 4096]).expect("written");
            assert_eq!(read_at(cx, &vp, 4095, 2), Ok(vec![1, 2]));
        });
        let cutter = scope.spawn(|| kernel.implicit(&KernelMemory, |cx| truncate(cx, &vp, 6000)));
        disk.gate.set_closed(false);
        assert_eq!(writer.join().expect("ended"), Ok(()));
        assert_eq!(cutter.join().expect("ended"), Ok(()));
    });
    kernel.implicit(&KernelMemory, |cx| {
        flush(cx, &vp).expect("flushed");
        let mut want = [[1; 4096], [2; 4096]].concat();
        want.truncate(6000);
        assert!(read_at(cx, &vp, 0, 8192).expect("read") == want);
        assert!(disk.stored(6000) == want);
        assert_eq!(disk.reserved.load(Ordering::SeqCst), 0);
        drop_mount(cx, &mount);
    });
}

#[test]
fn an_unlinked_file_is_discarded_although_it_is_being_written_back() {
    let kernel = kernel(None);
    let (mount, vp, disk) = kernel.implicit(&KernelMemory, |cx| {
        let mount = fake_mount(cx);
        let (vp, disk) = file(&Arc::downgrade(&mount), false);
        write_at(cx, &vp, 0, &[1; 8192]).expect("written");
        (mount, vp, disk)
    });
    disk.gate.set_closed(true);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| kernel.implicit(&KernelMemory, |cx| flush(cx, &vp)));
        disk.gate.wait_for_somebody();
        let discarder = scope.spawn(|| kernel.implicit(&KernelMemory, |cx| discard(cx, &vp)));
        disk.gate.set_closed(false);
        assert_eq!(writer.join().expect("ended"), Ok(()));
        discarder.join().expect("ended");
    });
    kernel.implicit(&KernelMemory, |cx| {
        let cache = memory::cache(cx).expect("a cache");
        assert_eq!((cache.memory(), cache.dirty()), (0, 0));
        assert_eq!(Arc::strong_count(&vp), 1, "the cache has forgotten it");
        drop(mount);
    });
}

#[test]
fn a_reader_in_order_finds_the_next_pages_there() {
    let kernel = kernel(None);
    kernel.implicit(&KernelMemory, |cx| {
        let mount = fake_mount(cx);
        let (vp, disk) = file(&Arc::downgrade(&mount), false);
        *disk.bytes.lock().unwrap() = vec![5; 8 << 20];
        vp.update(cx, |attr| attr.size = 8 << 20);
        for at in 0..2048 {
            assert_eq!(read_at(cx, &vp, at * 4096, 4096), Ok(vec![5; 4096]));
        }
        let reads = disk.reads.load(Ordering::SeqCst);
        assert!(reads <= 32, "{reads} reads of a disk for 2048 of a program");
        drop_mount(cx, &mount);
    });
}

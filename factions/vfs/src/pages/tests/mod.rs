//! Tests of the cache against a driver that keeps its file in memory and can fail.

mod model;
mod order;
mod write_back;

use std::any::Any;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};

use super::*;
use crate::{Attr, FsStat, Mount, MountArgs, MountOps, SetAttr, VFS};
use abi::Errno;
use hypercall::PosixHost;
use kern::{Curlwp, Kernel, KernelMemory, Uio};

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
        cx: &Curlwp<'_>,
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
        drop(bytes);
        // What was read may be old by the time that it is used.
        cx.unscheduled(|| (0..12).for_each(|_| cx.kernel().host().relax()));
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
        cx.unscheduled(|| {
            cx.kernel().host().relax();
            self.0.gate.pass();
        });
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

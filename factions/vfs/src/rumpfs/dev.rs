//! What is in a new root: `/dev` with the devices that every kernel has, and `/tmp`.

use std::any::Any;
use std::sync::Arc;

use abi::{Errno, SysResult, UserAddr};
use kern::poll::{Events, Watcher};
use kern::{Curlwp, File, OpenFile, Uio};

use crate::devsw::{Device, makedev};
use crate::{NewNode, Vfs, Vnode, VnodeKind};

/// The devices: name, minor number (major 1, or 5 for terminals, as Linux has them), mode.
const DEVICES: &[(&str, u32, u32, u32)] = &[
    ("null", 1, 3, 0o666),
    ("zero", 1, 5, 0o666),
    ("full", 1, 7, 0o666),
    ("random", 1, 8, 0o666),
    ("urandom", 1, 9, 0o666),
    ("tty", 5, 0, 0o666),
    ("console", 5, 1, 0o600),
];

/// Fills a new root and adds the drivers of its devices.
pub(crate) fn populate(cx: &Curlwp<'_>, vfs: &Vfs) -> Result<(), Errno> {
    let root = vfs.root();
    make(cx, root, "tmp", VnodeKind::Directory, 0o1777, 0)?;
    let dev = make(cx, root, "dev", VnodeKind::Directory, 0o755, 0)?;
    for &(name, major, minor, perm) in DEVICES {
        make(
            cx,
            &dev,
            name,
            VnodeKind::Character,
            perm,
            makedev(major, minor),
        )?;
    }
    for major in [1, 5] {
        vfs.devsw.add(
            cx,
            Device {
                kind: VnodeKind::Character,
                major,
                minor: None,
                open,
            },
        );
    }
    Ok(())
}

fn make(
    cx: &Curlwp<'_>,
    dir: &Arc<Vnode>,
    name: &str,
    kind: VnodeKind,
    perm: u32,
    rdev: u64,
) -> Result<Arc<Vnode>, Errno> {
    let new = NewNode {
        kind,
        perm,
        uid: 0,
        gid: 0,
        rdev,
        target: &[],
    };
    let _names = dir.dir.write(cx.cpu());
    let vp = dir.ops().create(cx, dir, name.as_bytes(), &new)?;
    vp.learn_parent(cx, dir, name.as_bytes());
    Ok(vp)
}

/// The memory devices mem(4), null(4), random(4), and the console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dev {
    Null,
    Zero,
    Full,
    Random,
    Console,
}

fn open(_: &Curlwp<'_>, rdev: u64, _: i32) -> Result<Arc<dyn File>, Errno> {
    let dev = match (crate::devsw::major(rdev), crate::devsw::minor(rdev)) {
        (1, 3) => Dev::Null,
        (1, 5) => Dev::Zero,
        (1, 7) => Dev::Full,
        (1, 8 | 9) => Dev::Random,
        (5, 0 | 1) => Dev::Console,
        _ => return Err(Errno::ENXIO),
    };
    Ok(Arc::new(dev))
}

/// Bytes handed over at once.
const CHUNK: usize = 4096;

impl File for Dev {
    fn read(&self, cx: &Curlwp<'_>, _: &OpenFile, uio: &mut Uio<'_>) -> Result<(), Errno> {
        let mut buf = [0; CHUNK];
        match self {
            Dev::Null => {}
            Dev::Zero | Dev::Full => {
                while uio.resid() > 0 {
                    uio.put(cx, &buf)?;
                }
            }
            Dev::Random => {
                while uio.resid() > 0 {
                    let len = CHUNK.min(uio.resid());
                    cx.kernel().host().random(&mut buf[..len]);
                    uio.put(cx, &buf[..len])?;
                }
            }
            Dev::Console => {
                let len = CHUNK.min(uio.resid());
                let n = cx.unscheduled(|| cx.kernel().host().console_read(&mut buf[..len]))?;
                uio.put(cx, &buf[..n])?;
            }
        }
        Ok(())
    }

    fn write(&self, cx: &Curlwp<'_>, _: &OpenFile, uio: &mut Uio<'_>) -> Result<(), Errno> {
        let mut buf = [0; CHUNK];
        if *self == Dev::Full && uio.resid() > 0 {
            return Err(Errno::ENOSPC);
        }
        while uio.resid() > 0 {
            let n = uio.get(cx, &mut buf)?;
            if *self == Dev::Console {
                cx.kernel().host().console_write(&buf[..n]);
            }
        }
        Ok(())
    }

    fn seekable(&self) -> bool {
        *self != Dev::Console
    }

    fn seek(&self, _: &Curlwp<'_>, _: i64, _: i32) -> Result<u64, Errno> {
        // As Linux's memory devices: there is one place, and it is the start.
        if *self == Dev::Console {
            Err(Errno::ESPIPE)
        } else {
            Ok(0)
        }
    }

    fn poll(&self, _: &Curlwp<'_>, events: Events, _: Option<&Arc<dyn Watcher>>) -> Events {
        events & (Events::IN | Events::OUT | Events::RDNORM | Events::WRNORM)
    }

    fn ioctl(&self, _: &Curlwp<'_>, _: &OpenFile, _: u32, _: UserAddr) -> SysResult {
        Err(Errno::ENOTTY)
    }

    fn stat(&self, _: &Curlwp<'_>) -> Result<abi::Stat, Errno> {
        // The vnode answers for the device.
        Err(Errno::EINVAL)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

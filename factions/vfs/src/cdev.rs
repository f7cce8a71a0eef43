//! Character devices that modules offer: a driver of a few functions, a number from the range for local use, and a node.

use std::any::Any;
use std::sync::Arc;

use abi::{AT_FDCWD, Errno, O_ACCMODE, O_APPEND, O_NONBLOCK, SysResult, UserAddr};
use kern::module::{Module, Pass};
use kern::poll::{Events, Watcher};
use kern::{Curlwp, File, OpenFile, Uio};

use crate::cwd::Cwd;
use crate::names::Create;
use crate::{Vfs, VnodeKind, makedev, namei, names};

/// A driver of a character device. Offsets are as with files; a device without positions does not look at them. None of it is called
/// with a lock held, and all may be called by several threads at once.
pub trait CharDevice: Send + Sync {
    /// The device is opened, with open(2)'s flags.
    fn open(&self, _cx: &Curlwp<'_>, _flags: i32) -> Result<(), Errno> {
        Ok(())
    }

    /// Fills the buffer as far as there is something; 0 is the end of file.
    fn read(
        &self,
        cx: &Curlwp<'_>,
        buf: &mut [u8],
        offset: u64,
        flags: i32,
    ) -> Result<usize, Errno>;

    /// Takes bytes; how many.
    fn write(&self, cx: &Curlwp<'_>, buf: &[u8], offset: u64, flags: i32) -> Result<usize, Errno>;

    /// ioctl(2).
    fn ioctl(&self, _cx: &Curlwp<'_>, _cmd: u32, _arg: UserAddr) -> SysResult {
        Err(Errno::ENOTTY)
    }

    /// What [`open`](Self::open) opened is closed.
    fn close(&self, _cx: &Curlwp<'_>) {}
}

/// The major number of modules' devices, of Linux's range for local use.
pub(crate) const MAJOR: u32 = 240;

/// Bytes that a driver is given at once.
const CHUNK: usize = 64 << 10;

/// Makes a character device with a node at `path`; both go with the module. `EEXIST` when there is something under the path,
/// `EOPNOTSUPP` without a vfs.
pub fn add_char_device(
    cx: &Curlwp<'_>,
    module: &Module,
    path: &[u8],
    perm: u32,
    driver: Arc<dyn CharDevice>,
) -> Result<(), Errno> {
    let vfs = Vfs::of(cx)?;
    let minor = vfs.devsw.add_late(cx, module.gate().clone(), driver);
    module.at_fini(cx, move |cx| {
        if let Ok(vfs) = Vfs::of(cx) {
            vfs.devsw.remove_late(cx, minor);
        }
    });
    make_device_node(cx, path, perm, makedev(MAJOR, minor))?;
    let path = path.to_vec();
    module.at_fini(cx, move |cx| {
        // Somebody may have removed or replaced it, or unmounted what it was on.
        if let Ok(vp) = namei::namei_at(cx, AT_FDCWD, &path, abi::AT_SYMLINK_NOFOLLOW)
            && vp.rdev == makedev(MAJOR, minor)
            && let Ok(at) = namei::parent(cx, AT_FDCWD, &path)
        {
            let _ = names::unlink(cx, &at);
        }
    });
    Ok(())
}

/// Makes the node of a character device, whose driver [`Vfs::add_device`] adds. `EEXIST` when there is something under the path.
pub fn make_device_node(cx: &Curlwp<'_>, path: &[u8], perm: u32, rdev: u64) -> Result<(), Errno> {
    let node = Create {
        kind: VnodeKind::Character,
        perm,
        rdev,
        target: &[],
    };
    let cwd = Cwd::of(cx)?;
    let umask = cwd.set_umask(0);
    let made = namei::parent(cx, AT_FDCWD, path).and_then(|at| names::create(cx, &at, &node));
    cwd.set_umask(umask);
    made.map(drop)
}

/// A device that is open. Its module stays as long.
pub(crate) struct Opened {
    pub(crate) driver: Arc<dyn CharDevice>,
    pub(crate) _pass: Pass,
}

/// The flags that a driver is told.
fn told(of: &OpenFile) -> i32 {
    of.flags() & (O_ACCMODE | O_NONBLOCK | O_APPEND)
}

impl File for Opened {
    fn read(&self, cx: &Curlwp<'_>, of: &OpenFile, uio: &mut Uio<'_>) -> Result<(), Errno> {
        let mut buf = vec![0; uio.resid().min(CHUNK)];
        let n = self.driver.read(cx, &mut buf, uio.offset(), told(of))?;
        uio.put(cx, buf.get(..n).ok_or(Errno::EIO)?)?;
        Ok(())
    }

    fn write(&self, cx: &Curlwp<'_>, of: &OpenFile, uio: &mut Uio<'_>) -> Result<(), Errno> {
        let mut buf = vec![0; uio.resid().min(CHUNK)];
        while uio.resid() > 0 {
            let at = uio.offset();
            let n = uio.get(cx, &mut buf)?;
            let moved = uio.moved() - n;
            let taken = match self.driver.write(cx, &buf[..n], at, told(of)) {
                Ok(taken) => taken.min(n),
                Err(error) => {
                    uio.give_back(n);
                    // What went before is what the call answers.
                    return if moved == 0 { Err(error) } else { Ok(()) };
                }
            };
            if taken < n {
                uio.give_back(n - taken);
                return Ok(());
            }
        }
        Ok(())
    }

    fn seekable(&self) -> bool {
        true
    }

    fn seek(&self, _: &Curlwp<'_>, _: i64, _: i32) -> Result<u64, Errno> {
        Err(Errno::EINVAL)
    }

    fn poll(&self, _: &Curlwp<'_>, events: Events, _: Option<&Arc<dyn Watcher>>) -> Events {
        events & (Events::IN | Events::OUT | Events::RDNORM | Events::WRNORM)
    }

    fn ioctl(&self, cx: &Curlwp<'_>, _: &OpenFile, cmd: u32, arg: UserAddr) -> SysResult {
        self.driver.ioctl(cx, cmd, arg)
    }

    fn stat(&self, _: &Curlwp<'_>) -> Result<abi::Stat, Errno> {
        // The vnode answers for the device.
        Err(Errno::EINVAL)
    }

    fn close(&self, cx: &Curlwp<'_>, _: &OpenFile) {
        self.driver.close(cx);
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

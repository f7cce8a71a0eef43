//! The device switch: what serves a device node, by its number.

use std::collections::BTreeMap;
use std::sync::Arc;

use abi::{Errno, O_ACCMODE, O_NONBLOCK, O_RDONLY, O_WRONLY, SysResult, UserAddr};
use kern::module::Gate;
use kern::pipe::Side;
use kern::{Curlwp, File, OpenFile};
use sync::Mutex;

use crate::cdev::{self, CharDevice};
use crate::file::VnodeFile;
use crate::{Mount, Vfs, Vnode, VnodeKind};

/// The number of a device, as `st_rdev` and mknod(2) have it.
pub const fn makedev(major: u32, minor: u32) -> u64 {
    let (major, minor) = (major as u64, minor as u64);
    (major & 0xfff) << 8 | minor & 0xff | (minor & !0xff) << 12 | (major & !0xfff) << 32
}

/// Opens a device: `flags` are open(2)'s.
pub type DeviceOpen = fn(&Curlwp<'_>, rdev: u64, flags: i32) -> Result<Arc<dyn File>, Errno>;

/// A driver of devices: those of one kind and major number, or of one number.
#[derive(Clone, Copy)]
pub struct Device {
    /// `Character` or `Block`.
    pub kind: VnodeKind,
    /// Major number.
    pub major: u32,
    /// Minor number; `None` for all of them.
    pub minor: Option<u32>,
    /// How it is opened.
    pub open: DeviceOpen,
}

/// The drivers there are. Both locks are leaves.
#[derive(Default)]
pub(crate) struct Devsw {
    devices: Mutex<Vec<Device>>,
    /// Those of modules, by minor number of [`cdev::MAJOR`].
    late: Mutex<BTreeMap<u32, Late>>,
}

/// A driver of a module.
struct Late {
    gate: Arc<Gate>,
    driver: Arc<dyn CharDevice>,
}

impl Devsw {
    /// Adds a driver; one that was added later comes first.
    pub(crate) fn add(&self, cx: &Curlwp<'_>, device: Device) {
        self.devices.lock(cx.cpu()).push(device);
    }

    /// Adds a module's driver; its minor number.
    pub(crate) fn add_late(
        &self,
        cx: &Curlwp<'_>,
        gate: Arc<Gate>,
        driver: Arc<dyn CharDevice>,
    ) -> u32 {
        let mut late = self.late.lock(cx.cpu());
        let minor = late.last_key_value().map_or(0, |(last, _)| last + 1);
        late.insert(minor, Late { gate, driver });
        minor
    }

    /// Takes a module's driver away.
    pub(crate) fn remove_late(&self, cx: &Curlwp<'_>, minor: u32) {
        let late = self.late.lock(cx.cpu()).remove(&minor);
        drop(late);
    }

    fn open(&self, cx: &Curlwp<'_>, vp: &Vnode, flags: i32) -> Result<Arc<dyn File>, Errno> {
        if vp.kind != VnodeKind::Character || major(vp.rdev) != cdev::MAJOR {
            let device = self.find(cx, vp.kind, vp.rdev)?;
            return (device.open)(cx, vp.rdev, flags);
        }
        let (pass, driver) = {
            let late = self.late.lock(cx.cpu());
            let found = late.get(&minor(vp.rdev)).ok_or(Errno::ENXIO)?;
            (found.gate.enter()?, found.driver.clone())
        };
        driver.open(cx, flags)?;
        Ok(Arc::new(cdev::Opened {
            driver,
            _pass: pass,
        }))
    }

    /// The driver of a number. `ENXIO` when there is none.
    fn find(&self, cx: &Curlwp<'_>, kind: VnodeKind, rdev: u64) -> Result<Device, Errno> {
        let is = |d: &&Device| {
            d.kind == kind
                && match d.minor {
                    Some(minor) => makedev(d.major, minor) == rdev,
                    None => major(rdev) == d.major,
                }
        };
        self.devices
            .lock(cx.cpu())
            .iter()
            .rev()
            .find(is)
            .copied()
            .ok_or(Errno::ENXIO)
    }
}

/// The major number of a device.
pub const fn major(rdev: u64) -> u32 {
    (rdev >> 8 & 0xfff | rdev >> 32 & 0xffff_f000) as u32
}

/// The minor number of a device.
pub const fn minor(rdev: u64) -> u32 {
    (rdev & 0xff | rdev >> 12 & 0xffff_ff00) as u32
}

/// What serves reads and writes of an open vnode; `None` for the vfs itself.
pub(crate) fn serve(
    cx: &Curlwp<'_>,
    vp: &Arc<Vnode>,
    mount: &Mount,
    flags: i32,
) -> Result<Option<Arc<dyn File>>, Errno> {
    if matches!(vp.kind, VnodeKind::Character | VnodeKind::Block)
        && mount.flags() & abi::MS_NODEV != 0
    {
        return Err(Errno::EACCES);
    }
    if let Some(file) = vp.ops().open(cx, vp, flags)? {
        return Ok(Some(file));
    }
    match vp.kind {
        VnodeKind::Regular | VnodeKind::Directory => Ok(None),
        VnodeKind::Block if vp.block_device().is_some() => Ok(None),
        VnodeKind::Character | VnodeKind::Block => Vfs::of(cx)?.devsw.open(cx, vp, flags).map(Some),
        // A link can only be opened to be looked at, with O_PATH; a socket is connected to, not opened.
        VnodeKind::Symlink => Err(Errno::ELOOP),
        VnodeKind::Socket => Err(Errno::ENXIO),
        VnodeKind::Fifo => open_fifo(cx, vp, flags).map(Some),
    }
}

/// Opens a named pipe, fifo(7): waits for the other side unless `O_NONBLOCK`.
fn open_fifo(cx: &Curlwp<'_>, vp: &Vnode, flags: i32) -> Result<Arc<dyn File>, Errno> {
    let side = match flags & O_ACCMODE {
        O_RDONLY => Side::Read,
        O_WRONLY => Side::Write,
        _ => Side::Both,
    };
    let pipe = vp.pipe(cx);
    if side == Side::Write && flags & O_NONBLOCK != 0 && pipe.ends(cx).0 == 0 {
        return Err(Errno::ENXIO);
    }
    Ok(match flags & O_NONBLOCK {
        0 => pipe.open(cx, side)?,
        _ => pipe.end(cx, side),
    })
}

const BLKROGET: u32 = 0x125e;
const BLKGETSIZE: u32 = 0x1260;
const BLKFLSBUF: u32 = 0x1261;
const BLKSSZGET: u32 = 0x1268;
const BLKBSZGET: u32 = 0x8008_1270;
const BLKGETSIZE64: u32 = 0x8008_1272;
const FIONREAD: u32 = 0x541b;

/// ioctl(2) on what the vfs itself serves: files and block devices.
pub(crate) fn file_ioctl(
    cx: &Curlwp<'_>,
    file: &VnodeFile,
    of: &OpenFile,
    cmd: u32,
    arg: UserAddr,
) -> SysResult {
    let vp = file.vnode();
    if cmd == FIONREAD && vp.kind == VnodeKind::Regular {
        let left = vp.attr(cx).size.saturating_sub(*of.lock_offset(cx));
        cx.copyout(&(left.min(i32::MAX as u64) as i32).to_le_bytes(), arg)?;
        return Ok(0);
    }
    let Some(device) = vp.block_device() else {
        return Err(Errno::ENOTTY);
    };
    match cmd {
        BLKROGET => cx.copyout(&i32::from(!device.writable()).to_le_bytes(), arg)?,
        BLKGETSIZE => cx.copyout(&(device.size() / 512).to_le_bytes(), arg)?,
        BLKGETSIZE64 => cx.copyout(&device.size().to_le_bytes(), arg)?,
        BLKSSZGET => cx.copyout(&device.sector().to_le_bytes(), arg)?,
        BLKBSZGET => cx.copyout(&4096i32.to_le_bytes(), arg)?,
        BLKFLSBUF => crate::pages::flush(cx, vp)?,
        _ => return Err(Errno::ENOTTY),
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_come_apart_as_they_were_put_together() {
        for (a, b) in [(1, 3), (0xfff, 0xff), (0x1000, 0x100), (0x12345, 0x6789a)] {
            let dev = makedev(a, b);
            assert_eq!((major(dev), minor(dev)), (a, b));
        }
        assert_eq!(makedev(1, 3), 0x103);
    }
}

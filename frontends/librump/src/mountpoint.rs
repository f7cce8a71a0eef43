//! rump_pub_vfs_*: mounts in the hands of C.

use std::ffi::{CString, c_char, c_int, c_void};
use std::sync::{Mutex, PoisonError};

use abi::{AT_FDCWD, Errno, O_DIRECTORY, O_RDONLY, Statfs, VFSSTAT_SIZE, VfsStat, nr};
use kern::Curlwp;

use crate::context::enter;
use crate::error::c_str;
use crate::sys::statvfs;
use crate::vnode::{CVnode, call, errno};

/// C's `struct mount`: where it is mounted. It does not keep the mount; when that is gone, so is what is said of it here.
pub struct CMount {
    dev: u64,
    root: CString,
}

/// The mounts that C was told of: rump's interface has no way to give one back.
static KNOWN: Mutex<Vec<&'static CMount>> = Mutex::new(Vec::new());

fn run(f: impl FnOnce(&Curlwp<'_>) -> Result<(), Errno>) -> c_int {
    errno(enter(f).and_then(|done| done))
}

/// The mount that a path is in.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_pub_vfs_getmp(path: *const c_char, mpp: *mut *const CMount) -> c_int {
    // SAFETY: C gives a string and a place.
    let (path, mpp) = match unsafe { (c_str(path), mpp.as_mut()) } {
        (Ok(path), Some(mpp)) => (path, mpp),
        _ => return Errno::EFAULT.0,
    };
    run(|cx| {
        let mut raw = [0u8; Statfs::SIZE];
        call(
            cx,
            nr::statfs,
            [path.as_ptr() as u64, raw.as_mut_ptr() as u64],
        )?;
        *mpp = known(find(cx, Statfs::from_bytes(&raw).f_fsid)?);
        Ok(())
    })
}

/// The mount of a number.
fn find(cx: &Curlwp<'_>, dev: u64) -> Result<CMount, Errno> {
    let count = call(cx, nr::getvfsstat, [0, 0, 0])? as usize;
    let mut raw = vec![[0u8; VFSSTAT_SIZE]; count];
    let (at, len) = (raw.as_mut_ptr() as u64, (count * VFSSTAT_SIZE) as u64);
    call(cx, nr::getvfsstat, [at, len, 0])?;
    let all = raw.iter().map(VfsStat::from_bytes);
    let mount = all
        .into_iter()
        .find(|m| m.statfs.f_fsid == dev)
        .ok_or(Errno::ENOENT)?;
    let root = CString::new(mount.target).map_err(|_| Errno::EINVAL)?;
    Ok(CMount { dev, root })
}

fn known(mount: CMount) -> &'static CMount {
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let same = |m: &&&CMount| m.dev == mount.dev && m.root == mount.root;
    match known.iter().find(same) {
        Some(mount) => mount,
        None => {
            let mount: &'static CMount = Box::leak(Box::new(mount));
            known.push(mount);
            mount
        }
    }
}

impl CMount {
    /// What the mount's root says now. `ENOENT` when something else is mounted there, or nothing.
    fn statfs(&self, cx: &Curlwp<'_>) -> Result<[u8; Statfs::SIZE], Errno> {
        let mut raw = [0u8; Statfs::SIZE];
        call(
            cx,
            nr::statfs,
            [self.root.as_ptr() as u64, raw.as_mut_ptr() as u64],
        )?;
        match Statfs::from_bytes(&raw).f_fsid == self.dev {
            true => Ok(raw),
            false => Err(Errno::ENOENT),
        }
    }
}

/// The vnode of a mount's root, with a reference. Vnodes have no lock that C could take.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_pub_vfs_root(
    mp: *const CMount,
    vpp: *mut *mut CVnode,
    _lock: c_int,
) -> c_int {
    // SAFETY: C gives a mount of ours and a place.
    let (mount, vpp) = unsafe { (&*mp, &mut *vpp) };
    run(|cx| {
        mount.statfs(cx)?;
        *vpp = CVnode::named(cx, AT_FDCWD, mount.root.as_ptr(), 0)?;
        Ok(())
    })
}

/// Space and flags.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_pub_vfs_statvfs(mp: *const CMount, to: *mut libc::statvfs) -> c_int {
    // SAFETY: C gives a mount of ours and a place.
    let (mount, to) = unsafe { (&*mp, &mut *to) };
    run(|cx| {
        *to = statvfs(&mount.statfs(cx)?);
        Ok(())
    })
}

/// Makes everything in a mount durable; waits for it, whatever `wait` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_pub_vfs_sync(
    mp: *const CMount,
    _wait: c_int,
    _cred: *const c_void,
) -> c_int {
    // SAFETY: C gives a mount of ours.
    let mount = unsafe { &*mp };
    run(|cx| {
        mount.statfs(cx)?;
        let flags = (O_RDONLY | O_DIRECTORY) as u64;
        let root = mount.root.as_ptr() as u64;
        let fd = call(cx, nr::openat, [AT_FDCWD as u64, root, flags, 0])? as u64;
        let synced = call(cx, nr::syncfs, [fd]);
        call(cx, nr::close, [fd])?;
        synced.map(drop)
    })
}

/// Unmounts, with the flags of rump_sys_unmount.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_pub_vfs_unmount(mp: *const CMount, flags: c_int) -> c_int {
    // SAFETY: C gives a mount of ours.
    let mount = unsafe { &*mp };
    run(|cx| {
        mount.statfs(cx)?;
        call(cx, nr::umount2, [mount.root.as_ptr() as u64, flags as u64]).map(drop)
    })
}

/// Waits until everything is durable: what rump_sys_sync does comes back after it.
#[unsafe(no_mangle)]
pub extern "C" fn rump_pub_vfs_syncwait(_mp: *const CMount) -> c_int {
    run(|cx| call(cx, nr::sync, []).map(drop))
}

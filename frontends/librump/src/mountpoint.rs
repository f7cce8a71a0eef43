//! rump_pub_vfs_*: mounts in the hands of C.

use std::ffi::{CString, c_char, c_int, c_void};
use std::sync::{Mutex, PoisonError};

use abi::{AT_FDCWD, Errno, O_DIRECTORY, O_RDONLY, Statfs, VFSSTAT_SIZE, VfsStat, nr};
use kern::Curlwp;

use crate::context::enter;
use crate::error::c_str;
use crate::sys::statvfs;
use crate::vlock;
use crate::vnode::{CVnode, ITSELF, call, errno, held, rump_pub_vp_rele};

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

/// The vnode of a mount's root, with a reference; locked if asked for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_pub_vfs_root(
    mp: *const CMount,
    vpp: *mut *mut CVnode,
    lock: c_int,
) -> c_int {
    // SAFETY: C gives a mount of ours and a place.
    let (mount, vpp) = unsafe { (&*mp, &mut *vpp) };
    let found = run(|cx| {
        mount.statfs(cx)?;
        *vpp = CVnode::named(cx, AT_FDCWD, mount.root.as_ptr(), 0)?;
        Ok(())
    });
    match (found, lock) {
        // SAFETY: made above.
        (0, 1..) => errno(vlock::lock(unsafe { &**vpp }, vlock::LK_EXCLUSIVE)),
        (found, _) => found,
    }
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

/// Bytes of a `struct fid`: Linux's `struct file_handle` with 24 bytes.
const FID_SIZE: usize = 32;

/// The handle of a vnode. `E2BIG` when there is less room than its size, which is told.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_pub_vfs_vptofh(
    vp: *const CVnode,
    fid: *mut c_void,
    size: *mut usize,
) -> c_int {
    // SAFETY: C has a reference and gives a place.
    let (vnode, size) = unsafe { (&*vp, &mut *size) };
    if std::mem::replace(size, FID_SIZE) < FID_SIZE || fid.is_null() {
        return Errno::E2BIG.0;
    }
    run(|cx| {
        let mut raw = [0u8; FID_SIZE];
        raw[0] = (FID_SIZE - 8) as u8;
        let mut mount = 0i32;
        let (to, id) = (
            raw.as_mut_ptr() as u64,
            std::ptr::from_mut(&mut mount) as u64,
        );
        vnode.at(cx, |fd| {
            let args = [fd as u64, ITSELF.0 as u64, to, id, ITSELF.1];
            call(cx, nr::name_to_handle_at, args)
        })?;
        // SAFETY: C gives as much room as it said, which a handle fits.
        unsafe { std::ptr::copy_nonoverlapping(raw.as_ptr(), fid.cast(), FID_SIZE) };
        Ok(())
    })
}

/// The vnode of a handle, with a reference. `ESTALE` when the file is gone, or is another mount's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_pub_vfs_fhtovp(
    mp: *const CMount,
    fid: *const c_void,
    vpp: *mut *mut CVnode,
) -> c_int {
    // SAFETY: C gives a mount of ours, a handle and a place.
    let (mount, vpp) = unsafe { (&*mp, &mut *vpp) };
    let mut other = None;
    let done = run(|cx| {
        let open = |flags: i32| {
            let args = [AT_FDCWD as u64, fid as u64, flags as u64];
            held(cx, call(cx, nr::open_by_handle_at, args)? as i32)
        };
        let found = CVnode::opened(cx, open)?;
        // SAFETY: made above.
        if unsafe { &*found }.stat(cx)?.st_dev != mount.dev {
            other = Some(found);
            return Err(Errno::ESTALE);
        }
        *vpp = found;
        Ok(())
    });
    if let Some(other) = other {
        // SAFETY: made above, and nobody's. Not while a virtual CPU is held: this takes one.
        unsafe { rump_pub_vp_rele(other) };
    }
    done
}

/// C's `struct vfsops`: a type of file system.
#[repr(C)]
pub struct CVfsops {
    vfs_name: *const c_char,
    /// Owns the name.
    name: CString,
}

// SAFETY: the name is never changed.
unsafe impl Send for CVfsops {}
// SAFETY: the name is never changed.
unsafe impl Sync for CVfsops {}

/// The types that C was told of, in order.
static TYPES: Mutex<Vec<&'static CVfsops>> = Mutex::new(Vec::new());

/// Every type that can be mounted.
fn types() -> Vec<&'static CVfsops> {
    let names = enter(|cx| Ok::<_, Errno>(vfs::Vfs::of(cx)?.type_names(cx)));
    let mut known = TYPES.lock().unwrap_or_else(PoisonError::into_inner);
    for name in names.and_then(|names| names).unwrap_or_default() {
        if known.iter().any(|t| t.name.as_bytes() == name.as_bytes()) {
            continue;
        }
        if let Ok(name) = CString::new(name) {
            known.push(Box::leak(Box::new(CVfsops {
                vfs_name: name.as_ptr(),
                name,
            })));
        }
    }
    known.clone()
}

/// The type after `prev`, the first for NULL; NULL after the last.
#[unsafe(no_mangle)]
pub extern "C" fn rump_pub_vfslist_iterate(prev: *const CVfsops) -> *const CVfsops {
    let types = types();
    let next = match prev.is_null() {
        true => 0,
        false => match types.iter().position(|t| std::ptr::eq(*t, prev)) {
            Some(at) => at + 1,
            None => return std::ptr::null(),
        },
    };
    types
        .get(next)
        .map_or(std::ptr::null(), |t| std::ptr::from_ref(*t))
}

/// The type of a name; NULL when there is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_pub_vfs_getopsbyname(name: *const c_char) -> *const CVfsops {
    // SAFETY: C gives a string.
    let Ok(name) = (unsafe { c_str(name) }) else {
        return std::ptr::null();
    };
    let types = types();
    let found = types.iter().find(|t| t.name.as_c_str() == name);
    found.map_or(std::ptr::null(), |t| std::ptr::from_ref(*t))
}

/// `EOPNOTSUPP`: extended attributes need no start.
#[unsafe(no_mangle)]
pub extern "C" fn rump_pub_vfs_extattrctl(
    _mp: *const CMount,
    _cmd: c_int,
    _vp: *const CVnode,
    _namespace: c_int,
    _name: *const c_char,
) -> c_int {
    Errno::EOPNOTSUPP.0
}

/// Says on the console what is mounted where a path is; with `full` how much is in it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_pub_vfs_mount_print(path: *const c_char, full: c_int) {
    let mut mp = std::ptr::null();
    // SAFETY: C gives a string.
    if unsafe { rump_pub_vfs_getmp(path, &mut mp) } != 0 {
        return;
    }
    // SAFETY: a mount of ours.
    let mount = unsafe { &*mp };
    // What is printed is all there is to tell.
    let _ = run(|cx| {
        let of = Statfs::from_bytes(&mount.statfs(cx)?);
        let root = mount.root.to_string_lossy();
        let mut line = format!(
            "mount {:#x} on {root}, type {:#x}, flags {:#x}",
            mount.dev, of.f_type, of.f_flags
        );
        if full != 0 {
            let (free, blocks, size) = (of.f_bfree, of.f_blocks, of.f_bsize);
            line += &format!(
                ", {free} of {blocks} blocks of {size} bytes free, {} of {} files",
                of.f_ffree, of.f_files
            );
        }
        line.push('\n');
        cx.kernel().host().console_write(line.as_bytes());
        Ok(())
    });
}

//! RUMP_VOP_*: what can be done with a vnode. Each is the system call that does it. What NetBSD checks with the credentials that it is
//! given is checked with them here (those of the name, for operations on names); NULL means the thread's own.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::Arc;

use abi::{
    AT_REMOVEDIR, Errno, O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_RDONLY, O_RDWR, UserAddr, nr,
};
use kern::{Cred, Curlwp, Uio};

use crate::context::enter;
use crate::cred::{CCred, acting, given};
use crate::error::c_str;
use crate::uio::CUio;
use crate::vnode::{CName, CVattr, CVnode, ITSELF, call, errno};

/// Runs an operation in the kernel with credentials.
pub(crate) fn run_as(
    cred: Option<Arc<Cred>>,
    f: impl FnOnce(&Curlwp<'_>) -> Result<(), Errno>,
) -> c_int {
    run(|cx| acting(cx, cred, || f(cx)))
}

/// Runs an operation in the kernel.
pub(crate) fn run(f: impl FnOnce(&Curlwp<'_>) -> Result<(), Errno>) -> c_int {
    errno(enter(f).and_then(|done| done))
}

/// The vnode of a name in a directory.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn RUMP_VOP_LOOKUP(
    dvp: *const CVnode,
    vpp: *mut *mut CVnode,
    cn: *const CName,
) -> c_int {
    // SAFETY: C has references, and gives a place.
    let (dir, name, vpp) = unsafe { (&*dvp, &(*cn).name, &mut *vpp) };
    // SAFETY: as above.
    run_as(unsafe { given((*cn).cred) }, |cx| {
        dir.at(cx, |fd| {
            *vpp = CVnode::named(cx, fd, name.as_ptr(), O_NOFOLLOW)?;
            Ok(())
        })
    })
}

/// Makes something by `make`, and answers its vnode.
///
/// # Safety
/// The pointers are those of a directory, a place and a name.
unsafe fn make(
    dvp: *const CVnode,
    vpp: *mut *mut CVnode,
    cn: *const CName,
    make: impl FnOnce(&Curlwp<'_>, i32, u64) -> Result<(), Errno>,
) -> c_int {
    // SAFETY: the caller's condition.
    let (dir, name, vpp) = unsafe { (&*dvp, &(*cn).name, &mut *vpp) };
    // SAFETY: as above.
    run_as(unsafe { given((*cn).cred) }, |cx| {
        dir.at(cx, |fd| {
            make(cx, fd, name.as_ptr() as u64)?;
            *vpp = CVnode::named(cx, fd, name.as_ptr(), O_NOFOLLOW)?;
            Ok(())
        })
    })
}

/// Makes a regular file.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn RUMP_VOP_CREATE(
    dvp: *const CVnode,
    vpp: *mut *mut CVnode,
    cn: *const CName,
    vap: *const CVattr,
) -> c_int {
    // SAFETY: C gives attributes.
    let mode = unsafe { (*vap).va_mode };
    let create = |cx: &Curlwp<'_>, fd: i32, name: u64| {
        let flags = O_CREAT | O_EXCL | O_RDWR;
        let made = call(cx, nr::openat, [fd as u64, name, flags as u64, mode.into()])?;
        call(cx, nr::close, [made as u64]).map(drop)
    };
    // SAFETY: C gives a directory, a place and a name.
    unsafe { make(dvp, vpp, cn, create) }
}

/// Makes a device node, a fifo or a socket.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn RUMP_VOP_MKNOD(
    dvp: *const CVnode,
    vpp: *mut *mut CVnode,
    cn: *const CName,
    vap: *const CVattr,
) -> c_int {
    // SAFETY: C gives attributes.
    let (vtype, mode, dev) = unsafe { ((*vap).va_type, (*vap).va_mode, (*vap).va_rdev) };
    let kind = match vtype {
        3 => libc::S_IFBLK,
        4 => libc::S_IFCHR,
        6 => libc::S_IFSOCK,
        7 => libc::S_IFIFO,
        _ => return Errno::EINVAL.0,
    };
    let mknod = |cx: &Curlwp<'_>, fd: i32, name: u64| {
        let mode = u64::from(mode & 0o7777 | kind);
        call(cx, nr::mknodat, [fd as u64, name, mode, dev]).map(drop)
    };
    // SAFETY: C gives a directory, a place and a name.
    unsafe { make(dvp, vpp, cn, mknod) }
}

/// Makes a directory.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn RUMP_VOP_MKDIR(
    dvp: *const CVnode,
    vpp: *mut *mut CVnode,
    cn: *const CName,
    vap: *const CVattr,
) -> c_int {
    // SAFETY: C gives attributes.
    let mode = unsafe { (*vap).va_mode };
    let mkdir = |cx: &Curlwp<'_>, fd: i32, name: u64| {
        call(cx, nr::mkdirat, [fd as u64, name, mode.into()]).map(drop)
    };
    // SAFETY: C gives a directory, a place and a name.
    unsafe { make(dvp, vpp, cn, mkdir) }
}

/// Makes a symbolic link to `target`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn RUMP_VOP_SYMLINK(
    dvp: *const CVnode,
    vpp: *mut *mut CVnode,
    cn: *const CName,
    _vap: *const CVattr,
    target: *const c_char,
) -> c_int {
    // SAFETY: C gives a string.
    let target: &CStr = match unsafe { c_str(target) } {
        Ok(target) => target,
        Err(errno) => return errno.0,
    };
    let symlink = |cx: &Curlwp<'_>, fd: i32, name: u64| {
        call(cx, nr::symlinkat, [target.as_ptr() as u64, fd as u64, name]).map(drop)
    };
    // SAFETY: C gives a directory, a place and a name.
    unsafe { make(dvp, vpp, cn, symlink) }
}

/// Takes a name away. The vnode is not looked at: the name counts.
///
/// # Safety
/// The pointers are those of a directory and a name.
unsafe fn remove(dvp: *const CVnode, cn: *const CName, flags: i32) -> c_int {
    // SAFETY: the caller's condition.
    let (dir, name) = unsafe { (&*dvp, &(*cn).name) };
    // SAFETY: as above.
    run_as(unsafe { given((*cn).cred) }, |cx| {
        dir.at(cx, |fd| {
            call(
                cx,
                nr::unlinkat,
                [fd as u64, name.as_ptr() as u64, flags as u64],
            )
            .map(drop)
        })
    })
}

/// Removes a file's name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn RUMP_VOP_REMOVE(
    dvp: *const CVnode,
    _vp: *const CVnode,
    cn: *const CName,
) -> c_int {
    // SAFETY: C gives a directory and a name.
    unsafe { remove(dvp, cn, 0) }
}

/// Removes a directory.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn RUMP_VOP_RMDIR(
    dvp: *const CVnode,
    _vp: *const CVnode,
    cn: *const CName,
) -> c_int {
    // SAFETY: C gives a directory and a name.
    unsafe { remove(dvp, cn, AT_REMOVEDIR) }
}

/// Gives a file another name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn RUMP_VOP_LINK(
    dvp: *const CVnode,
    vp: *const CVnode,
    cn: *const CName,
) -> c_int {
    // SAFETY: C has references.
    let (dir, vnode, name) = unsafe { (&*dvp, &*vp, &(*cn).name) };
    // SAFETY: as above.
    run_as(unsafe { given((*cn).cred) }, |cx| {
        dir.at(cx, |to| {
            vnode.at(cx, |from| {
                let (empty, flags) = ITSELF;
                let name = name.as_ptr() as u64;
                call(
                    cx,
                    nr::linkat,
                    [from as u64, empty as u64, to as u64, name, flags],
                )
                .map(drop)
            })
        })
    })
}

/// Moves a name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn RUMP_VOP_RENAME(
    fdvp: *const CVnode,
    _fvp: *const CVnode,
    fcn: *const CName,
    tdvp: *const CVnode,
    _tvp: *const CVnode,
    tcn: *const CName,
) -> c_int {
    // SAFETY: C has references.
    let (fdir, fname, tdir, tname) = unsafe { (&*fdvp, &(*fcn).name, &*tdvp, &(*tcn).name) };
    // SAFETY: as above.
    run_as(unsafe { given((*fcn).cred) }, |cx| {
        fdir.at(cx, |from| {
            tdir.at(cx, |to| {
                let (fname, tname) = (fname.as_ptr() as u64, tname.as_ptr() as u64);
                call(cx, nr::renameat, [from as u64, fname, to as u64, tname]).map(drop)
            })
        })
    })
}

/// Attributes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn RUMP_VOP_GETATTR(
    vp: *const CVnode,
    vap: *mut CVattr,
    _cred: *const c_void,
) -> c_int {
    // SAFETY: C has a reference, and gives a place.
    let (vnode, to) = unsafe { (&*vp, &mut *vap) };
    run(|cx| {
        *to = CVattr::new(&vnode.stat(cx)?);
        Ok(())
    })
}

/// Sets the attributes that are set: mode, owner, group, size, times.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn RUMP_VOP_SETATTR(
    vp: *const CVnode,
    vap: *const CVattr,
    cred: *const CCred,
) -> c_int {
    // SAFETY: C has a reference, and gives attributes.
    let (vnode, of) = unsafe { (&*vp, &*vap) };
    let (empty, flags) = (ITSELF.0 as u64, ITSELF.1);
    // SAFETY: C gives credentials.
    run_as(unsafe { given(cred) }, |cx| {
        if of.va_size != u64::MAX {
            let data = vnode.data(cx)?;
            crate::vnode::with_fd(cx, data, |fd| {
                call(cx, nr::ftruncate, [fd as u64, of.va_size])
            })?;
        }
        vnode.at(cx, |fd| {
            let fd = fd as u64;
            if (of.va_uid, of.va_gid) != (u32::MAX, u32::MAX) {
                let (uid, gid) = (of.va_uid.into(), of.va_gid.into());
                call(cx, nr::fchownat, [fd, empty, uid, gid, flags])?;
            }
            if of.va_mode != u32::MAX {
                call(cx, nr::fchmodat2, [fd, empty, of.va_mode.into(), flags])?;
            }
            let omit = |time: libc::timespec| match time.tv_nsec {
                -1 => libc::timespec {
                    tv_sec: 0,
                    tv_nsec: libc::UTIME_OMIT,
                },
                _ => time,
            };
            let times = [omit(of.va_atime), omit(of.va_mtime)];
            if times.iter().any(|time| time.tv_nsec != libc::UTIME_OMIT) {
                call(cx, nr::utimensat, [fd, empty, times.as_ptr() as u64, flags])?;
            }
            Ok(())
        })
    })
}

/// Reads into a uio.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn RUMP_VOP_READ(
    vp: *const CVnode,
    uio: *mut CUio,
    _ioflag: c_int,
    _cred: *const c_void,
) -> c_int {
    // SAFETY: C has a reference, and gives a uio.
    let (vnode, uio) = unsafe { (&*vp, &mut *uio) };
    run(|cx| match uio.write {
        true => Err(Errno::EINVAL),
        false => transfer(uio, |moving| vnode.data(cx)?.pread(cx, moving)),
    })
}

/// Writes from a uio.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn RUMP_VOP_WRITE(
    vp: *const CVnode,
    uio: *mut CUio,
    _ioflag: c_int,
    _cred: *const c_void,
) -> c_int {
    // SAFETY: C has a reference, and gives a uio.
    let (vnode, uio) = unsafe { (&*vp, &mut *uio) };
    run(|cx| match uio.write {
        false => Err(Errno::EINVAL),
        true => transfer(uio, |moving| match vnode.data(cx)? {
            data if data.writable() => data.pwrite(cx, moving),
            _ => Err(Errno::EACCES),
        }),
    })
}

/// Moves what the kernel's transfer moves.
fn transfer(
    uio: &mut CUio,
    f: impl FnOnce(&mut Uio<'static>) -> abi::SysResult,
) -> Result<(), Errno> {
    let offset = u64::try_from(uio.offset).map_err(|_| Errno::EINVAL)?;
    let mut moving = Uio::user(UserAddr(uio.buf as u64), uio.resid, offset);
    let moved = f(&mut moving)?;
    uio.advance(moved as usize);
    Ok(())
}

/// Reads a directory into a uio: records of the host's struct dirent. The offset is the directory's own, 0 at its start.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn RUMP_VOP_READDIR(
    vp: *const CVnode,
    uio: *mut CUio,
    _cred: *const c_void,
    eofflag: *mut c_int,
    _cookies: *mut c_void,
    _ncookies: *mut c_int,
) -> c_int {
    // SAFETY: C has a reference, and gives a uio, and null or a place.
    let (vnode, uio, eofflag) = unsafe { (&*vp, &mut *uio, eofflag.as_mut()) };
    let here = c".".as_ptr() as u64;
    run(|cx| {
        vnode.at(cx, |fd| {
            let flags = (O_RDONLY | O_DIRECTORY) as u64;
            let dir = call(cx, nr::openat, [fd as u64, here, flags, 0])? as u64;
            let read = || {
                call(
                    cx,
                    nr::lseek,
                    [dir, uio.offset as u64, libc::SEEK_SET as u64],
                )?;
                let moved = call(cx, nr::getdents64, [dir, uio.buf as u64, uio.resid as u64])?;
                let offset = call(cx, nr::lseek, [dir, 0, libc::SEEK_CUR as u64])?;
                Ok((moved, offset))
            };
            let read = read();
            call(cx, nr::close, [dir])?;
            let (moved, offset) = read?;
            uio.advance(moved as usize);
            uio.offset = offset;
            if let Some(eof) = eofflag {
                *eof = c_int::from(moved == 0);
            }
            Ok(())
        })
    })
}

/// Reads a symbolic link into a uio.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn RUMP_VOP_READLINK(
    vp: *const CVnode,
    uio: *mut CUio,
    _cred: *const c_void,
) -> c_int {
    // SAFETY: C has a reference, and gives a uio.
    let (vnode, uio) = unsafe { (&*vp, &mut *uio) };
    run(|cx| {
        vnode.at(cx, |fd| {
            let (buf, len) = (uio.buf as u64, uio.resid as u64);
            let moved = call(cx, nr::readlinkat, [fd as u64, ITSELF.0 as u64, buf, len])?;
            uio.advance(moved as usize);
            Ok(())
        })
    })
}

/// Makes a file durable, all of it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn RUMP_VOP_FSYNC(
    vp: *const CVnode,
    _cred: *const c_void,
    _flags: c_int,
    _from: i64,
    _to: i64,
) -> c_int {
    // SAFETY: C has a reference.
    let vnode = unsafe { &*vp };
    run(|cx| {
        let data = vnode.data(cx)?;
        crate::vnode::with_fd(cx, data, |fd| call(cx, nr::fsync, [fd as u64])).map(drop)
    })
}

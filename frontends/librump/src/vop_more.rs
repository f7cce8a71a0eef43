//! The rest of RUMP_VOP_*: what NetBSD's users call around reading, writing and names.

use std::ffi::{CString, c_char, c_int, c_long, c_ulong, c_void};

use abi::{AT_EACCESS, Errno, O_DIRECTORY, O_RDONLY, Pollfd, Statfs, SysResult, nr};
use kern::Curlwp;

use crate::cred::{CCred, given};
use crate::error::c_str;
use crate::sys::{attribute_prefix, path_limit};
use crate::uio::CUio;
use crate::vlock;
use crate::vnode::{CVnode, ITSELF, call, errno, with_fd};
use crate::vop::{run, run_as};

const FREAD: c_int = 1;
const FWRITE: c_int = 2;

/// Whether a vnode may be used so: `bits` are those of one class of a mode.
fn may(cx: &Curlwp<'_>, vnode: &CVnode, bits: c_int) -> Result<(), Errno> {
    let flags = ITSELF.1 | AT_EACCESS as u64;
    vnode.at(cx, |fd| {
        let args = [fd as u64, ITSELF.0 as u64, bits as u64, flags];
        call(cx, nr::faccessat2, args).map(drop)
    })
}

/// Whether the credentials may open it so. A vnode is as good as open already.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn RUMP_VOP_OPEN(
    vp: *const CVnode,
    mode: c_int,
    cred: *const CCred,
) -> c_int {
    // SAFETY: C has a reference, and gives credentials.
    let (vnode, cred) = unsafe { (&*vp, given(cred)) };
    let read = if mode & FREAD != 0 { 4 } else { 0 };
    let write = if mode & FWRITE != 0 { 2 } else { 0 };
    run_as(cred, |cx| {
        let is_dir = vnode.stat(cx)?.st_mode & libc::S_IFMT == libc::S_IFDIR;
        match is_dir && write != 0 {
            true => Err(Errno::EISDIR),
            false => may(cx, vnode, read | write),
        }
    })
}

/// Nothing: the vnode goes with its last reference.
#[unsafe(no_mangle)]
pub extern "C" fn RUMP_VOP_CLOSE(_vp: *const CVnode, _fflag: c_int, _cred: *const CCred) -> c_int {
    0
}

/// Whether the credentials allow `VREAD`, `VWRITE`, `VEXEC`: the bits of a mode's first class.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn RUMP_VOP_ACCESS(
    vp: *const CVnode,
    accmode: c_int,
    cred: *const CCred,
) -> c_int {
    // SAFETY: C has a reference, and gives credentials.
    let (vnode, cred) = unsafe { (&*vp, given(cred)) };
    run_as(cred, |cx| may(cx, vnode, accmode >> 6 & 7))
}

/// ioctl of a regular file.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn RUMP_VOP_IOCTL(
    vp: *const CVnode,
    command: c_ulong,
    data: *mut c_void,
    _fflag: c_int,
    _cred: *const CCred,
) -> c_int {
    // SAFETY: C has a reference.
    let vnode = unsafe { &*vp };
    run(|cx| {
        let file = vnode.data(cx).map_err(|_| Errno::ENOTTY)?;
        with_fd(cx, file, |fd| {
            call(cx, nr::ioctl, [fd as u64, command, data as u64])
        })
        .map(drop)
    })
}

/// Which of the events are true, as the value.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn RUMP_VOP_POLL(vp: *const CVnode, events: c_int) -> c_int {
    // SAFETY: C has a reference.
    let vnode = unsafe { &*vp };
    let mut now = 0;
    run(|cx| {
        vnode.at(cx, |fd| {
            let mut raw = Pollfd {
                fd,
                events: events as i16,
                revents: 0,
            }
            .to_bytes();
            call(cx, nr::poll, [raw.as_mut_ptr() as u64, 1, 0])?;
            now = Pollfd::from_bytes(&raw).revents.into();
            Ok(())
        })
    });
    now
}

/// Whether an offset can be one of the file's.
#[unsafe(no_mangle)]
pub extern "C" fn RUMP_VOP_SEEK(
    _vp: *const CVnode,
    _oldoff: i64,
    newoff: i64,
    _cred: *const CCred,
) -> c_int {
    errno(if newoff < 0 {
        Err(Errno::EINVAL)
    } else {
        Ok(())
    })
}

/// A limit of pathconf(2). `EINVAL` for what is none, or has no value.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn RUMP_VOP_PATHCONF(
    vp: *const CVnode,
    name: c_int,
    retval: *mut c_long,
) -> c_int {
    // SAFETY: C has a reference, and gives a place.
    let (vnode, to) = unsafe { (&*vp, &mut *retval) };
    run(|cx| {
        let mut raw = [0u8; Statfs::SIZE];
        vnode.at(cx, |fd| {
            call(cx, nr::fstatfs, [fd as u64, raw.as_mut_ptr() as u64])
        })?;
        *to = path_limit(&raw, name).ok_or(Errno::EINVAL)?;
        Ok(())
    })
}

/// Finds space for a range; the file grows to its end.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn RUMP_VOP_FALLOCATE(vp: *const CVnode, pos: i64, len: i64) -> c_int {
    // SAFETY: C has a reference.
    allocate(unsafe { &*vp }, 0, pos, len)
}

/// Makes a hole.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn RUMP_VOP_FDISCARD(vp: *const CVnode, pos: i64, len: i64) -> c_int {
    let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: C has a reference.
    allocate(unsafe { &*vp }, punch, pos, len)
}

fn allocate(vnode: &CVnode, mode: c_int, pos: i64, len: i64) -> c_int {
    run(|cx| {
        with_fd(cx, vnode.data(cx)?, |fd| {
            call(
                cx,
                nr::fallocate,
                [fd as u64, mode as u64, pos as u64, len as u64],
            )
        })
        .map(drop)
    })
}

/// Nothing: a name that was looked up keeps nothing.
#[unsafe(no_mangle)]
pub extern "C" fn RUMP_VOP_ABORTOP(_dvp: *const CVnode, _cn: *const c_void) -> c_int {
    0
}

/// Locks a vnode against others who lock it, `LK_SHARED` or `LK_EXCLUSIVE`, with `LK_NOWAIT` only if that can be at once (`EBUSY`). No
/// operation needs or takes these locks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn RUMP_VOP_LOCK(vp: *const CVnode, flags: c_int) -> c_int {
    // SAFETY: C has a reference.
    errno(vlock::lock(unsafe { &*vp }, flags))
}

/// Gives the thread's lock back. Panics when it has none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn RUMP_VOP_UNLOCK(vp: *const CVnode) -> c_int {
    // SAFETY: C has a reference.
    errno(vlock::unlock(unsafe { &*vp }, RUMP_VOP_UNLOCK as *const ()))
}

/// How it is locked: `LK_EXCLUSIVE` by this thread, `LK_EXCLOTHER` by another, `LK_SHARED`, or 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn RUMP_VOP_ISLOCKED(vp: *const CVnode) -> c_int {
    // SAFETY: C has a reference.
    vlock::status(unsafe { &*vp })
}

/// Runs `f` with a descriptor that is open to more than a look.
fn opened(cx: &Curlwp<'_>, vnode: &CVnode, f: impl FnOnce(u64) -> SysResult) -> SysResult {
    if vnode.stat(cx)?.st_mode & libc::S_IFMT != libc::S_IFDIR {
        return with_fd(cx, vnode.data(cx)?, |fd| f(fd as u64));
    }
    vnode.at(cx, |fd| {
        let (here, flags) = (c".".as_ptr() as u64, (O_RDONLY | O_DIRECTORY) as u64);
        let dir = call(cx, nr::openat, [fd as u64, here, flags, 0])? as u64;
        let done = f(dir);
        call(cx, nr::close, [dir])?;
        done
    })
}

/// Linux's name of an attribute.
///
/// # Safety
/// `name` is null or a string.
unsafe fn attribute(namespace: c_int, name: *const c_char) -> Result<CString, Errno> {
    // SAFETY: the caller's condition.
    let name = unsafe { c_str(name) }?;
    let full = [attribute_prefix(namespace)?, name.to_bytes()].concat();
    CString::new(full).map_err(|_| Errno::EINVAL)
}

/// The value of an extended attribute into a uio, if there is one, and its size into a place, if there is one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn RUMP_VOP_GETEXTATTR(
    vp: *const CVnode,
    namespace: c_int,
    name: *const c_char,
    uio: *mut CUio,
    size: *mut usize,
    cred: *const CCred,
) -> c_int {
    // SAFETY: C has a reference and gives a string, credentials, and null or places.
    let (vnode, name, cred, uio, size) = unsafe {
        (
            &*vp,
            attribute(namespace, name),
            given(cred),
            uio.as_mut(),
            size.as_mut(),
        )
    };
    run_as(cred, |cx| {
        let name = name?;
        let get = |to: *mut c_void, len: usize| {
            opened(cx, vnode, |fd| {
                call(
                    cx,
                    nr::fgetxattr,
                    [fd, name.as_ptr() as u64, to as u64, len as u64],
                )
            })
        };
        if let Some(size) = size {
            *size = get(std::ptr::null_mut(), 0)? as usize;
        }
        match uio {
            Some(uio) => transfer_whole(uio, get),
            None => Ok(()),
        }
    })
}

/// Fills a uio by a call that knows no offset.
fn transfer_whole(
    uio: &mut CUio,
    get: impl FnOnce(*mut c_void, usize) -> SysResult,
) -> Result<(), Errno> {
    if uio.write || uio.offset != 0 {
        return Err(Errno::EINVAL);
    }
    let moved = get(uio.buf, uio.resid)?;
    uio.advance(moved as usize);
    Ok(())
}

/// Sets an extended attribute to what a uio has.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn RUMP_VOP_SETEXTATTR(
    vp: *const CVnode,
    namespace: c_int,
    name: *const c_char,
    uio: *mut CUio,
    cred: *const CCred,
) -> c_int {
    // SAFETY: C has a reference and gives a string, credentials and a uio.
    let (vnode, name, cred, uio) =
        unsafe { (&*vp, attribute(namespace, name), given(cred), &mut *uio) };
    run_as(cred, |cx| {
        let name = name?;
        if !uio.write {
            return Err(Errno::EINVAL);
        }
        opened(cx, vnode, |fd| {
            let (at, len) = (uio.buf as u64, uio.resid as u64);
            call(cx, nr::fsetxattr, [fd, name.as_ptr() as u64, at, len, 0])
        })?;
        uio.advance(uio.resid);
        Ok(())
    })
}

/// Takes an extended attribute away.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn RUMP_VOP_DELETEEXTATTR(
    vp: *const CVnode,
    namespace: c_int,
    name: *const c_char,
    cred: *const CCred,
) -> c_int {
    // SAFETY: C has a reference and gives a string and credentials.
    let (vnode, name, cred) = unsafe { (&*vp, attribute(namespace, name), given(cred)) };
    run_as(cred, |cx| {
        let name = name?;
        opened(cx, vnode, |fd| {
            call(cx, nr::fremovexattr, [fd, name.as_ptr() as u64])
        })
        .map(drop)
    })
}

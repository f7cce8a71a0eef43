//! rump_pub_namei and what goes with it: files of the kernel in the hands of C, as vnodes.
//!
//! C's `struct vnode` is an open file without a descriptor. So it keeps its mount busy and its file alive as any open file does, and
//! everything that is done with it is a system call of the kernel with its checks. What a handle cannot express (locks, interlocks, the
//! fields of NetBSD's structure) is not there: docs/librump.md.

use std::ffi::{CString, c_char, c_int, c_void};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use abi::{
    AT_EMPTY_PATH, AT_FDCWD, Errno, O_CLOEXEC, O_NOFOLLOW, O_NONBLOCK, O_PATH, O_RDONLY, O_RDWR,
    Stat, SysResult, nr,
};
use kern::fd;
use kern::{Curlwp, OpenFile};

use crate::context::enter;
use crate::cred::{CCred, rump_pub_cred_put};
use crate::error::c_str;
use crate::vlock;

/// C's `struct vnode`.
pub struct CVnode {
    /// The place in the tree.
    place: Arc<OpenFile>,
    /// A regular file opened to be read and, where that may be, written.
    data: Option<Arc<OpenFile>>,
    refs: AtomicU32,
}

/// `struct vattr` of rump/rumpvfs_if_pub.h. All bits set in a number of `SETATTR` leaves what it is for as it is.
#[repr(C)]
pub struct CVattr {
    pub(crate) va_type: c_int,
    pub(crate) va_mode: u32,
    pub(crate) va_nlink: u32,
    pub(crate) va_uid: u32,
    pub(crate) va_gid: u32,
    va_fsid: u64,
    va_fileid: u64,
    pub(crate) va_size: u64,
    va_blocksize: i64,
    pub(crate) va_atime: libc::timespec,
    pub(crate) va_mtime: libc::timespec,
    va_ctime: libc::timespec,
    pub(crate) va_rdev: u64,
    va_bytes: u64,
}

/// C's `struct componentname`: a name in a directory.
pub struct CName {
    pub(crate) name: CString,
    /// Whose credentials the operations on it have.
    pub(crate) cred: *const CCred,
}

pub(crate) fn errno(result: Result<(), Errno>) -> c_int {
    result.err().map_or(0, |errno| errno.0)
}

/// Runs `f` with a descriptor for an open file, for the time.
pub(crate) fn with_fd<R>(
    cx: &Curlwp<'_>,
    file: &Arc<OpenFile>,
    f: impl FnOnce(i32) -> Result<R, Errno>,
) -> Result<R, Errno> {
    let fds = cx.proc().fds();
    let number = fds.install(cx, file.clone(), 0, fd::FD_MAX, true)?;
    let result = f(number);
    // Another thread of the process may have closed the number: then it has released it.
    if let Ok(file) = fds.remove(cx, number) {
        fd::release(cx, &file);
    }
    result
}

/// Opens, and keeps the open file without its descriptor.
fn open(
    cx: &Curlwp<'_>,
    dirfd: i32,
    name: *const c_char,
    flags: i32,
) -> Result<Arc<OpenFile>, Errno> {
    let args = [
        dirfd as u64,
        name as u64,
        (flags | O_CLOEXEC) as u64,
        0,
        0,
        0,
    ];
    held(cx, cx.syscall(nr::openat, &args)? as i32)
}

/// The open file of a descriptor, held for C in the place of the descriptor, which goes.
pub(crate) fn held(cx: &Curlwp<'_>, number: i32) -> Result<Arc<OpenFile>, Errno> {
    cx.proc().fds().remove(cx, number)
}

impl CVnode {
    /// The vnode of a name below `dirfd`.
    pub(crate) fn named(
        cx: &Curlwp<'_>,
        dirfd: i32,
        name: *const c_char,
        nofollow: i32,
    ) -> Result<*mut CVnode, Errno> {
        CVnode::opened(cx, |flags| open(cx, dirfd, name, flags | nofollow))
    }

    /// The vnode that `open` opens, with the flags that it is given.
    pub(crate) fn opened(
        cx: &Curlwp<'_>,
        open: impl Fn(i32) -> Result<Arc<OpenFile>, Errno>,
    ) -> Result<*mut CVnode, Errno> {
        let vnode = CVnode {
            data: None,
            refs: AtomicU32::new(1),
            place: open(O_PATH)?,
        };
        let is_file = vnode
            .stat(cx)
            .is_ok_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFREG);
        let data = is_file.then(|| {
            let again = |mode| open(mode | O_NONBLOCK);
            again(O_RDWR).or_else(|_| again(O_RDONLY)).ok()
        });
        Ok(Box::into_raw(Box::new(CVnode {
            data: data.flatten(),
            ..vnode
        })))
    }

    pub(crate) fn stat(&self, cx: &Curlwp<'_>) -> Result<Stat, Errno> {
        self.place.file().stat(cx)
    }

    /// The open file to read or write. `EACCES` when it could not be opened so, `EISDIR` and `EINVAL` for what is no regular file.
    pub(crate) fn data(&self, cx: &Curlwp<'_>) -> Result<&Arc<OpenFile>, Errno> {
        if let Some(data) = &self.data {
            return Ok(data);
        }
        Err(match self.stat(cx)?.st_mode & libc::S_IFMT {
            libc::S_IFREG => Errno::EACCES,
            libc::S_IFDIR => Errno::EISDIR,
            _ => Errno::EINVAL,
        })
    }

    /// A call with a descriptor of the place.
    pub(crate) fn at<R>(
        &self,
        cx: &Curlwp<'_>,
        f: impl FnOnce(i32) -> Result<R, Errno>,
    ) -> Result<R, Errno> {
        with_fd(cx, &self.place, f)
    }
}

/// The registers of a call.
pub(crate) fn call<const N: usize>(cx: &Curlwp<'_>, nr: u32, args: [u64; N]) -> SysResult {
    let mut registers = [0; 6];
    registers[..N].copy_from_slice(&args);
    cx.syscall(nr, &registers)
}

/// rump_pub_namei: nothing but a look.
pub const RUMP_NAMEI_LOOKUP: u32 = 0;
/// rump_pub_namei: the name is to be made; it may be missing.
pub const RUMP_NAMEI_CREATE: u32 = 1;
/// rump_pub_namei: a link at the end is followed.
pub const RUMP_NAMEI_FOLLOW: u32 = 0x40;

/// rump_pub_namei: the vnode comes locked.
pub const RUMP_NAMEI_LOCKLEAF: u32 = 0x04;
/// rump_pub_namei: the directory's vnode comes locked.
pub const RUMP_NAMEI_LOCKPARENT: u32 = 0x08;

/// Looks a path up: its vnode, and where asked for (not null) its directory's and the name in it. With [`RUMP_NAMEI_CREATE`] a name that is
/// missing is a null vnode and no error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_pub_namei(
    op: u32,
    flags: u32,
    path: *const c_char,
    dvpp: *mut *mut CVnode,
    vpp: *mut *mut CVnode,
    cnpp: *mut *mut CName,
) -> c_int {
    // SAFETY: C gives a string, and null or a place for each result.
    errno(unsafe { namei(op, flags, path, dvpp, vpp, cnpp) })
}

/// # Safety
/// `path` is a string or null, the others are places or null.
unsafe fn namei(
    op: u32,
    flags: u32,
    path: *const c_char,
    dvpp: *mut *mut CVnode,
    vpp: *mut *mut CVnode,
    cnpp: *mut *mut CName,
) -> Result<(), Errno> {
    // SAFETY: the caller's condition.
    let text = unsafe { c_str(path) }?;
    let nofollow = if flags & RUMP_NAMEI_FOLLOW != 0 {
        0
    } else {
        O_NOFOLLOW
    };
    let (dir, name) = split(text.to_bytes());
    let (dir, name) = (CString::new(dir), CString::new(name));
    let (dir, name) = (
        dir.map_err(|_| Errno::EINVAL)?,
        name.map_err(|_| Errno::EINVAL)?,
    );
    let found = enter(|cx| CVnode::named(cx, AT_FDCWD, path, nofollow))?;
    let vp = match found {
        Ok(vp) => vp,
        Err(Errno::ENOENT) if op == RUMP_NAMEI_CREATE => std::ptr::null_mut(),
        Err(errno) => return Err(errno),
    };
    // SAFETY: the caller's condition.
    let (mut dvpp, vpp, cnpp) = unsafe { (dvpp.as_mut(), vpp.as_mut(), cnpp.as_mut()) };
    let give_up = |errno| {
        // SAFETY: made above, if it was.
        unsafe { rump_pub_vp_rele(vp) };
        errno
    };
    if let Some(dvpp) = dvpp.as_deref_mut() {
        *dvpp = enter(|cx| CVnode::named(cx, AT_FDCWD, dir.as_ptr(), 0))
            .and_then(|made| made)
            .map_err(give_up)?;
    }
    if let Some(cnpp) = cnpp {
        let cred = std::ptr::null();
        *cnpp = Box::into_raw(Box::new(CName { name, cred }));
    }
    // A directory before what is in it.
    if let Some(dvpp) = dvpp
        && flags & RUMP_NAMEI_LOCKPARENT != 0
    {
        // SAFETY: made above.
        vlock::lock(unsafe { &**dvpp }, vlock::LK_EXCLUSIVE)?;
    }
    match vpp {
        Some(vpp) => {
            *vpp = vp;
            // SAFETY: made above, if it was.
            match unsafe { vp.as_ref() } {
                Some(vnode) if flags & RUMP_NAMEI_LOCKLEAF != 0 => {
                    vlock::lock(vnode, vlock::LK_EXCLUSIVE)?;
                }
                _ => {}
            }
        }
        // SAFETY: made above, and nobody's.
        None => unsafe { rump_pub_vp_rele(vp) },
    }
    Ok(())
}

/// A path's directory, and the name in it.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    let end = path.iter().rposition(|&b| b != b'/').map_or(0, |at| at + 1);
    let path = &path[..end];
    match path.iter().rposition(|&b| b == b'/') {
        Some(0) => (b"/", &path[1..]),
        Some(at) => (&path[..at], &path[at + 1..]),
        None if path.is_empty() => (b"/", b"."),
        None => (b".", path),
    }
}

/// A name in a directory, copied, and the credentials that operations on it have. The operation, the flags and the lwp are the call's
/// own later on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_pub_makecn(
    _nameiop: u32,
    _flags: u32,
    name: *const c_char,
    len: usize,
    cred: *const CCred,
    _lwp: *const c_void,
) -> *mut CName {
    // SAFETY: C gives `len` bytes.
    let name = unsafe { std::slice::from_raw_parts(name.cast::<u8>(), len) };
    match CString::new(name) {
        Ok(name) => Box::into_raw(Box::new(CName { name, cred })),
        Err(_) => std::ptr::null_mut(),
    }
}

/// rump_pub_freecn: give the credentials back too.
pub const RUMPCN_FREECRED: c_int = 0x02;

/// Frees a name, and with [`RUMPCN_FREECRED`] its credentials.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_pub_freecn(cn: *mut CName, flags: c_int) {
    if cn.is_null() {
        return;
    }
    // SAFETY: made by rump_pub_makecn or rump_pub_namei, and freed once.
    let cn = unsafe { Box::from_raw(cn) };
    if flags & RUMPCN_FREECRED != 0 {
        // SAFETY: C gave credentials, which are given back with the name.
        unsafe { rump_pub_cred_put(cn.cred.cast_mut()) };
    }
}

/// One more reference.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_pub_vp_incref(vp: *mut CVnode) {
    // SAFETY: C has a reference.
    unsafe { &*vp }.refs.fetch_add(1, Ordering::Relaxed);
}

/// How many references there are.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_pub_vp_getref(vp: *mut CVnode) -> c_int {
    // SAFETY: C has a reference.
    unsafe { &*vp }.refs.load(Ordering::Relaxed) as c_int
}

/// Gives a reference back; nothing for null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_pub_vp_rele(vp: *mut CVnode) {
    // SAFETY: C has a reference.
    let Some(vnode) = (unsafe { vp.as_ref() }) else {
        return;
    };
    if vnode.refs.fetch_sub(1, Ordering::AcqRel) != 1 {
        return;
    }
    // SAFETY: made by `CVnode::named`; that was the last reference.
    let vnode = unsafe { Box::from_raw(vp) };
    // There is a kernel, or there would be no vnode.
    let _ = enter(|cx| {
        for file in vnode.data.iter().chain([&vnode.place]) {
            fd::release(cx, file);
        }
    });
}

/// `enum vtype` of a mode.
fn vtype(mode: u32) -> c_int {
    match mode & libc::S_IFMT {
        libc::S_IFREG => 1,
        libc::S_IFDIR => 2,
        libc::S_IFBLK => 3,
        libc::S_IFCHR => 4,
        libc::S_IFLNK => 5,
        libc::S_IFSOCK => 6,
        libc::S_IFIFO => 7,
        _ => 0,
    }
}

/// Type, size and, of a device, number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_pub_getvninfo(
    vp: *mut CVnode,
    vtp: *mut c_int,
    sizep: *mut i64,
    devp: *mut u64,
) {
    // SAFETY: C has a reference, and gives places.
    let (vnode, vtp, sizep, devp) = unsafe { (&*vp, vtp.as_mut(), sizep.as_mut(), devp.as_mut()) };
    let stat = enter(|cx| vnode.stat(cx))
        .and_then(|stat| stat)
        .unwrap_or_default();
    if let Some(to) = vtp {
        *to = vtype(stat.st_mode);
    }
    if let Some(to) = sizep {
        *to = stat.st_size;
    }
    if let Some(to) = devp {
        *to = stat.st_rdev;
    }
}

/// Attributes of which none is set.
#[unsafe(no_mangle)]
pub extern "C" fn rump_pub_vattr_init() -> *mut CVattr {
    let never = libc::timespec {
        tv_sec: -1,
        tv_nsec: -1,
    };
    Box::into_raw(Box::new(CVattr {
        va_type: 0,
        va_mode: u32::MAX,
        va_nlink: u32::MAX,
        va_uid: u32::MAX,
        va_gid: u32::MAX,
        va_fsid: u64::MAX,
        va_fileid: u64::MAX,
        va_size: u64::MAX,
        va_blocksize: -1,
        va_atime: never,
        va_mtime: never,
        va_ctime: never,
        va_rdev: u64::MAX,
        va_bytes: u64::MAX,
    }))
}

/// Sets the type.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_pub_vattr_settype(vap: *mut CVattr, vtype: c_int) {
    // SAFETY: C gives attributes.
    unsafe { (*vap).va_type = vtype };
}

/// Sets the mode.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_pub_vattr_setmode(vap: *mut CVattr, mode: u32) {
    // SAFETY: C gives attributes.
    unsafe { (*vap).va_mode = mode };
}

/// Sets the number of a device.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_pub_vattr_setrdev(vap: *mut CVattr, dev: u64) {
    // SAFETY: C gives attributes.
    unsafe { (*vap).va_rdev = dev };
}

/// Frees attributes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_pub_vattr_free(vap: *mut CVattr) {
    // SAFETY: made by rump_pub_vattr_init, and freed once.
    drop(unsafe { Box::from_raw(vap) });
}

impl CVattr {
    pub(crate) fn new(stat: &Stat) -> CVattr {
        let time = |tv_sec, tv_nsec| libc::timespec { tv_sec, tv_nsec };
        CVattr {
            va_type: vtype(stat.st_mode),
            va_mode: stat.st_mode & 0o7777,
            va_nlink: stat.st_nlink as u32,
            va_uid: stat.st_uid,
            va_gid: stat.st_gid,
            va_fsid: stat.st_dev,
            va_fileid: stat.st_ino,
            va_size: stat.st_size as u64,
            va_blocksize: stat.st_blksize,
            va_atime: time(stat.st_atime, stat.st_atime_nsec),
            va_mtime: time(stat.st_mtime, stat.st_mtime_nsec),
            va_ctime: time(stat.st_ctime, stat.st_ctime_nsec),
            va_rdev: stat.st_rdev,
            va_bytes: stat.st_blocks as u64 * 512,
        }
    }
}

/// An empty name with which an `*at` call means the descriptor itself.
pub(crate) const ITSELF: (*const c_char, u64) = (c"".as_ptr(), AT_EMPTY_PATH as u64);

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn a_path_splits_into_directory_and_name() {
        let cases: [(&str, &str, &str); 7] = [
            ("/a/b", "/a", "b"),
            ("/a", "/", "a"),
            ("a", ".", "a"),
            ("a/b//", "a", "b"),
            ("/", "/", "."),
            ("", "/", "."),
            ("//a", "/", "a"),
        ];
        for (path, dir, name) in cases {
            let (d, n) = split(path.as_bytes());
            assert_eq!((d, n), (dir.as_bytes(), name.as_bytes()), "{path}");
        }
    }
}

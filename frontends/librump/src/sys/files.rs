//! Files, where NetBSD's calls are other than Linux's.

use std::ffi::{c_int, c_long, c_void};

use abi::{Errno, SysResult};

use super::{answer, call, fail};

/// An answer of a call that gives its error as its value.
pub(super) fn as_error(result: SysResult) -> c_int {
    result.err().map_or(0, |errno| errno.0)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_sys_posix_fadvise(
    fd: c_int,
    offset: i64,
    len: i64,
    advice: c_int,
) -> c_int {
    as_error(call!(fadvise64(fd, offset, len, advice)))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_sys_posix_fallocate(fd: c_int, pos: i64, len: i64) -> c_int {
    as_error(call!(fallocate(fd, 0, pos, len)))
}

/// Times of access and modification with nanoseconds; `None` for now. `EINVAL` for what is no time.
///
/// # Safety
/// The pointer is null or that of two times.
unsafe fn with_nanoseconds(
    times: *const libc::timeval,
) -> Result<Option<[libc::timespec; 2]>, Errno> {
    if times.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller's condition.
    let times = unsafe { *times.cast::<[libc::timeval; 2]>() };
    if times.iter().any(|t| !(0..1_000_000).contains(&t.tv_usec)) {
        return Err(Errno::EINVAL);
    }
    Ok(Some(times.map(|t| libc::timespec {
        tv_sec: t.tv_sec,
        tv_nsec: t.tv_usec * 1000,
    })))
}

fn pointer(times: &Option<[libc::timespec; 2]>) -> *const c_void {
    times
        .as_ref()
        .map_or(std::ptr::null(), |t| std::ptr::from_ref(t).cast())
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_sys_lutimes(
    path: *const c_void,
    times: *const libc::timeval,
) -> c_int {
    // SAFETY: C gives null or two times.
    let done = unsafe { with_nanoseconds(times) }.and_then(|times| {
        call!(utimensat(
            libc::AT_FDCWD,
            path,
            pointer(&times),
            libc::AT_SYMLINK_NOFOLLOW
        ))
    });
    answer(done) as c_int
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_sys_futimes(fd: c_int, times: *const libc::timeval) -> c_int {
    // SAFETY: C gives null or two times.
    let done = unsafe { with_nanoseconds(times) }
        .and_then(|times| call!(utimensat(fd, 0, pointer(&times), 0)));
    answer(done) as c_int
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_sys_pathconf(path: *const c_void, name: c_int) -> c_long {
    let mut statfs = [0u8; abi::Statfs::SIZE];
    let to: *mut c_void = statfs.as_mut_ptr().cast();
    match call!(statfs(path, to)) {
        Ok(_) => limit(&statfs, name),
        Err(errno) => fail(errno),
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_sys_fpathconf(fd: c_int, name: c_int) -> c_long {
    let mut statfs = [0u8; abi::Statfs::SIZE];
    let to: *mut c_void = statfs.as_mut_ptr().cast();
    match call!(fstatfs(fd, to)) {
        Ok(_) => limit(&statfs, name),
        // A pipe is in no file system and has limits all the same.
        Err(_) if name == libc::_PC_PIPE_BUF && call!(fcntl(fd, libc::F_GETPIPE_SZ, 0)).is_ok() => {
            PIPE_BUF
        }
        Err(errno) => fail(errno),
    }
}

const PIPE_BUF: c_long = 4096;

fn limit(statfs: &[u8; abi::Statfs::SIZE], name: c_int) -> c_long {
    path_limit(statfs, name).unwrap_or_else(|| fail(Errno::EINVAL))
}

/// pathconf(3). What has no limit is -1; `None` for what is no name.
pub(crate) fn path_limit(statfs: &[u8; abi::Statfs::SIZE], name: c_int) -> Option<c_long> {
    let statfs = abi::Statfs::from_bytes(statfs);
    Some(match name {
        libc::_PC_LINK_MAX => 65_000,
        libc::_PC_MAX_CANON | libc::_PC_MAX_INPUT => 255,
        libc::_PC_NAME_MAX => statfs.f_namelen as c_long,
        libc::_PC_PATH_MAX => libc::PATH_MAX.into(),
        libc::_PC_PIPE_BUF => PIPE_BUF,
        libc::_PC_CHOWN_RESTRICTED | libc::_PC_NO_TRUNC | libc::_PC_2_SYMLINKS => 1,
        libc::_PC_VDISABLE => 0,
        libc::_PC_FILESIZEBITS => 64,
        libc::_PC_SYMLINK_MAX => c_long::from(libc::PATH_MAX) - 1,
        libc::_PC_SYNC_IO | libc::_PC_ASYNC_IO | libc::_PC_PRIO_IO => -1,
        _ => return None,
    })
}

//! File handles: NetBSD's calls on Linux's. What C has as a handle is Linux's `struct file_handle` with 24 bytes.

use std::ffi::{c_int, c_void};

use abi::{AT_FDCWD, AT_SYMLINK_FOLLOW, Errno, SysResult};

use super::{answer, call, fail, rump_sys_fstatvfs1};

/// Bytes of a handle of ours, and of the structure around it.
const HANDLE_BYTES: u32 = 24;
const SIZE: usize = 8 + HANDLE_BYTES as usize;

#[repr(C, align(8))]
struct FileHandle {
    handle_bytes: u32,
    handle_type: c_int,
    handle: [u8; HANDLE_BYTES as usize],
}

/// The handle of a path; `E2BIG` when there is less room than its size, which is told.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_sys_getfh(
    path: *const c_void,
    fhp: *mut c_void,
    fh_size: *mut usize,
) -> c_int {
    // SAFETY: C gives null or a place.
    let Some(size) = (unsafe { fh_size.as_mut() }) else {
        return fail(Errno::EFAULT) as c_int;
    };
    let room = std::mem::replace(size, SIZE);
    if room < SIZE || fhp.is_null() {
        return fail(Errno::E2BIG) as c_int;
    }
    let mut handle = FileHandle {
        handle_bytes: HANDLE_BYTES,
        handle_type: 0,
        handle: [0; HANDLE_BYTES as usize],
    };
    let mut mount: c_int = 0;
    let (to, id) = (
        std::ptr::from_mut(&mut handle).cast::<c_void>(),
        std::ptr::from_mut(&mut mount).cast::<c_void>(),
    );
    let found = call!(name_to_handle_at(AT_FDCWD, path, to, id, AT_SYMLINK_FOLLOW));
    if found.is_ok() {
        // SAFETY: C gives a buffer of `room` bytes, which the handle fits.
        unsafe { std::ptr::copy_nonoverlapping(to.cast::<u8>(), fhp.cast(), SIZE) };
    }
    answer(found) as c_int
}

/// Opens what a handle names. `EINVAL` when it has another size.
fn open(fhp: *const c_void, fh_size: usize, flags: c_int) -> SysResult {
    match fh_size {
        SIZE => call!(open_by_handle_at(AT_FDCWD, fhp, flags)),
        _ => Err(Errno::EINVAL),
    }
}

/// Does something with a descriptor of what a handle names.
fn with(fhp: *const c_void, fh_size: usize, f: impl FnOnce(c_int) -> SysResult) -> c_int {
    let done = open(fhp, fh_size, abi::O_PATH).and_then(|fd| {
        let fd = fd as c_int;
        let done = f(fd);
        call!(close(fd)).and(done)
    });
    answer(done) as c_int
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_sys_fhopen(
    fhp: *const c_void,
    fh_size: usize,
    flags: c_int,
) -> c_int {
    answer(open(fhp, fh_size, flags)) as c_int
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_sys_fhstat(
    fhp: *const c_void,
    fh_size: usize,
    to: *mut c_void,
) -> c_int {
    with(fhp, fh_size, |fd| call!(fstat(fd, to)))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_sys_fhstatvfs1(
    fhp: *const c_void,
    fh_size: usize,
    to: *mut libc::statvfs,
    _flags: c_int,
) -> c_int {
    let fd = match open(fhp, fh_size, abi::O_PATH) {
        Ok(fd) => fd as c_int,
        Err(errno) => return fail(errno) as c_int,
    };
    // SAFETY: C gives a structure.
    let told = unsafe { rump_sys_fstatvfs1(fd, to, 0) };
    answer(call!(close(fd)).map(|_| told.into())) as c_int
}

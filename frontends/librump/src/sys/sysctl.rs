//! __sysctl: the sysctl tree by numbers, sysctl(7).

use std::ffi::{CStr, c_int, c_uint, c_void};

use abi::{Errno, SysResult};

use super::{answer, call};

/// What NetBSD keeps under a name.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Text,
    /// An int; our tree's are wider.
    Int,
}

/// The numbers that have names in our tree, as NetBSD has them.
static NAMES: &[(&[c_int], &CStr, Kind)] = &[
    (&[1, 1], c"kern.ostype", Kind::Text),
    (&[1, 2], c"kern.osrelease", Kind::Text),
    (&[1, 4], c"kern.version", Kind::Text),
    (&[1, 7], c"kern.maxfiles", Kind::Int),
    (&[1, 10], c"kern.hostname", Kind::Text),
    (&[6, 1], c"hw.machine", Kind::Text),
    (&[6, 3], c"hw.ncpu", Kind::Int),
];

/// The most numbers of a name, as NetBSD has it.
const CTL_MAXNAME: c_uint = 12;

#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_sys___sysctl(
    name: *const c_int,
    namelen: c_uint,
    oldv: *mut c_void,
    oldlenp: *mut usize,
    newv: *const c_void,
    newlen: usize,
) -> c_int {
    if namelen == 0 || namelen > CTL_MAXNAME {
        return answer(Err(Errno::EINVAL)) as c_int;
    }
    if name.is_null() {
        return answer(Err(Errno::EFAULT)) as c_int;
    }
    // SAFETY: C gives as many numbers as it says.
    let numbers = unsafe { std::slice::from_raw_parts(name, namelen as usize) };
    let Some((_, name, kind)) = NAMES.iter().find(|(known, ..)| *known == numbers) else {
        return answer(Err(Errno::ENOENT)) as c_int;
    };
    let done = match kind {
        Kind::Text => sysctl(name, oldv, oldlenp, newv, newlen),
        // SAFETY: C gives null or the places of a value and its length.
        Kind::Int => unsafe { int(name, oldv.cast(), oldlenp, newv, newlen) },
    };
    answer(done) as c_int
}

fn sysctl(
    name: &CStr,
    oldv: *mut c_void,
    oldlenp: *mut usize,
    newv: *const c_void,
    newlen: usize,
) -> SysResult {
    let (name, oldlenp): (*const c_void, *mut c_void) = (name.as_ptr().cast(), oldlenp.cast());
    call!(__sysctl(name, oldv, oldlenp, newv, newlen))
}

/// The same for a value that is an int to C.
///
/// # Safety
/// `oldlenp` is null or a length, `oldv` null or of that length.
unsafe fn int(
    name: &CStr,
    oldv: *mut c_int,
    oldlenp: *mut usize,
    newv: *const c_void,
    newlen: usize,
) -> SysResult {
    let mut wide = 0i64;
    let mut wide_len = size_of::<i64>();
    sysctl(name, (&raw mut wide).cast(), &mut wide_len, newv, newlen)?;
    // SAFETY: the caller's condition.
    let Some(len) = (unsafe { oldlenp.as_mut() }) else {
        return Ok(0);
    };
    let room = std::mem::replace(len, size_of::<c_int>());
    if oldv.is_null() {
        return Ok(0);
    }
    if room < size_of::<c_int>() {
        return Err(Errno::ENOMEM);
    }
    // SAFETY: the caller's condition, and there is room.
    unsafe { oldv.write_unaligned(wide as c_int) };
    Ok(0)
}

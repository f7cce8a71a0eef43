//! extattr_*: extended attributes as NetBSD names them, with the namespace apart.

use std::ffi::{CString, c_char, c_int, c_void};

use abi::{Errno, SysResult};

use super::{answer, call};
use crate::error::c_str;

/// The user's attributes: Linux's `user.`.
pub const EXTATTR_NAMESPACE_USER: c_int = 1;
/// The system's attributes, the superuser's: Linux's `trusted.`.
pub const EXTATTR_NAMESPACE_SYSTEM: c_int = 2;

/// The most bytes of a list of names, as Linux has it.
const LIST_MAX: usize = 65536;

/// The beginning of Linux's names of a namespace.
pub(crate) fn attribute_prefix(namespace: c_int) -> Result<&'static [u8], Errno> {
    match namespace {
        EXTATTR_NAMESPACE_USER => Ok(b"user."),
        EXTATTR_NAMESPACE_SYSTEM => Ok(b"trusted."),
        _ => Err(Errno::EINVAL),
    }
}

/// Linux's name of an attribute.
///
/// # Safety
/// `name` is null or a string.
unsafe fn full_name(namespace: c_int, name: *const c_char) -> Result<CString, Errno> {
    // SAFETY: the caller's condition.
    let name = unsafe { c_str(name) }?;
    let full = [attribute_prefix(namespace)?, name.to_bytes()].concat();
    CString::new(full).map_err(|_| Errno::EINVAL)
}

fn address(name: &CString) -> *const c_void {
    name.as_ptr().cast()
}

/// Names of one namespace as NetBSD lists them: each with its length before it, without the prefix. With a null buffer only how many
/// bytes they take; `ERANGE` does not happen, the list is cut.
///
/// # Safety
/// `data` is null or a buffer of `nbytes`.
unsafe fn list(
    namespace: c_int,
    data: *mut c_void,
    nbytes: usize,
    all: impl FnOnce(*mut c_void, usize) -> SysResult,
) -> SysResult {
    let prefix = attribute_prefix(namespace)?;
    let mut names = vec![0u8; LIST_MAX];
    let len = all(names.as_mut_ptr().cast(), names.len())?;
    names.truncate(usize::try_from(len).unwrap_or(0));
    let mut found = Vec::new();
    for name in names.split(|&b| b == 0) {
        if let Some(name) = name.strip_prefix(prefix)
            && let Ok(len) = u8::try_from(name.len())
        {
            found.push(len);
            found.extend_from_slice(name);
        }
    }
    if data.is_null() {
        return Ok(found.len() as i64);
    }
    let len = found.len().min(nbytes);
    // SAFETY: the caller's condition; no more than `nbytes` are written.
    unsafe { std::ptr::copy_nonoverlapping(found.as_ptr(), data.cast(), len) };
    Ok(len as i64)
}

macro_rules! extattr {
    ($set:ident $get:ident $delete:ident $list:ident, $file:ty: $setxattr:ident $getxattr:ident $removexattr:ident $listxattr:ident) => {
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $set(
            file: $file,
            namespace: c_int,
            name: *const c_char,
            data: *const c_void,
            nbytes: usize,
        ) -> isize {
            // SAFETY: C gives a string.
            let done = unsafe { full_name(namespace, name) }.and_then(|name| {
                call!($setxattr(file, address(&name), data, nbytes, 0)).map(|_| nbytes as i64)
            });
            answer(done) as isize
        }

        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $get(
            file: $file,
            namespace: c_int,
            name: *const c_char,
            data: *mut c_void,
            nbytes: usize,
        ) -> isize {
            // SAFETY: C gives a string.
            let done = unsafe { full_name(namespace, name) }
                .and_then(|name| call!($getxattr(file, address(&name), data, nbytes)));
            answer(done) as isize
        }

        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $delete(
            file: $file,
            namespace: c_int,
            name: *const c_char,
        ) -> c_int {
            // SAFETY: C gives a string.
            let done = unsafe { full_name(namespace, name) }
                .and_then(|name| call!($removexattr(file, address(&name))));
            answer(done) as c_int
        }

        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $list(
            file: $file,
            namespace: c_int,
            data: *mut c_void,
            nbytes: usize,
        ) -> isize {
            // SAFETY: C gives null or a buffer of `nbytes`.
            let done = unsafe {
                list(namespace, data, nbytes, |to, len| {
                    call!($listxattr(file, to, len))
                })
            };
            answer(done) as isize
        }
    };
}

extattr!(
    rump_sys_extattr_set_file rump_sys_extattr_get_file rump_sys_extattr_delete_file rump_sys_extattr_list_file,
    *const c_void: setxattr getxattr removexattr listxattr
);
extattr!(
    rump_sys_extattr_set_link rump_sys_extattr_get_link rump_sys_extattr_delete_link rump_sys_extattr_list_link,
    *const c_void: lsetxattr lgetxattr lremovexattr llistxattr
);
extattr!(
    rump_sys_extattr_set_fd rump_sys_extattr_get_fd rump_sys_extattr_delete_fd rump_sys_extattr_list_fd,
    c_int: fsetxattr fgetxattr fremovexattr flistxattr
);

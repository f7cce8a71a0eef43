//! System calls that are not the table's: of the process, and the end of the kernel.
#![allow(missing_docs)] // the calls' documentation is their manual pages

use std::ffi::{c_char, c_int};
use std::sync::{Mutex, PoisonError};

use abi::Errno;

use crate::error::c_str;
use crate::sys::fail;
use crate::{context, kernel};

#[unsafe(no_mangle)]
pub extern "C" fn rump_sys_issetugid() -> c_int {
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_sys_reboot(opt: c_int, _bootstr: *const c_char) -> c_int {
    fail(kernel::reboot(opt)) as c_int
}

/// The login name: of the kernel, as there are no sessions.
static LOGIN: Mutex<String> = Mutex::new(String::new());

/// The most bytes of a login name, with its NUL, as NetBSD has it.
const LOGIN_NAME_MAX: usize = 17;

#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_sys___getlogin(namebuf: *mut c_char, namelen: usize) -> c_int {
    let login = LOGIN.lock().unwrap_or_else(PoisonError::into_inner);
    if namebuf.is_null() {
        return fail(Errno::EFAULT) as c_int;
    }
    if namelen <= login.len() {
        return fail(Errno::ERANGE) as c_int;
    }
    // SAFETY: C gives a buffer of `namelen` bytes, which the name and its NUL fit.
    unsafe {
        std::ptr::copy_nonoverlapping(login.as_ptr(), namebuf.cast(), login.len());
        *namebuf.add(login.len()) = 0;
    }
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_sys___setlogin(namebuf: *const c_char) -> c_int {
    // SAFETY: C gives a string.
    let name = unsafe { c_str(namebuf) };
    let set = name.and_then(|name| {
        let name = name.to_str().map_err(|_| Errno::EINVAL)?;
        if name.len() >= LOGIN_NAME_MAX {
            return Err(Errno::EINVAL);
        }
        match context::enter(|cx| cx.cred().is_superuser())? {
            true => name.clone_into(&mut LOGIN.lock().unwrap_or_else(PoisonError::into_inner)),
            false => return Err(Errno::EPERM),
        }
        Ok(())
    });
    set.map_or_else(|errno| fail(errno) as c_int, |()| 0)
}

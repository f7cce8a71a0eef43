//! Errors as C programs see them. Error numbers are the host's, so there is nothing to translate.

use std::ffi::{CStr, c_char, c_int};

unsafe extern "C" {
    /// The text of an error number; null for none. Of glibc 2.32 and later.
    fn strerrordesc_np(errnum: c_int) -> *const c_char;
}

/// The text of an error number; "Unknown error" for none. The string lasts.
#[unsafe(no_mangle)]
pub extern "C" fn rump_strerror(error: c_int) -> *const c_char {
    // SAFETY: looks up a table.
    let text = unsafe { strerrordesc_np(error) };
    match text.is_null() {
        true => c"Unknown error".as_ptr(),
        false => text,
    }
}

/// A path or string of C's. `EFAULT` for null.
///
/// # Safety
/// The pointer is null or that of a string that ends with a NUL and lasts as long as the result.
pub(crate) unsafe fn c_str<'a>(text: *const c_char) -> Result<&'a CStr, abi::Errno> {
    if text.is_null() {
        return Err(abi::Errno::EFAULT);
    }
    // SAFETY: the caller's condition.
    Ok(unsafe { CStr::from_ptr(text) })
}

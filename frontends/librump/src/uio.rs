//! rump_pub_uio_*: where the bytes of a vnode operation go to or come from.

use std::ffi::{c_int, c_void};

use crate::misuse::misuse;

/// C's `struct uio`: one buffer of the caller.
#[derive(Debug)]
pub struct CUio {
    pub(crate) buf: *mut c_void,
    pub(crate) write: bool,
    pub(crate) resid: usize,
    pub(crate) offset: libc::off_t,
}

impl CUio {
    /// So many bytes have moved.
    pub(crate) fn advance(&mut self, moved: usize) {
        self.buf = self.buf.wrapping_byte_add(moved);
        self.resid = self.resid.saturating_sub(moved);
        self.offset += moved as i64;
    }
}

/// `enum rump_uiorw`: into the buffer.
pub const RUMPUIO_READ: c_int = 0;
/// `enum rump_uiorw`: from the buffer.
pub const RUMPUIO_WRITE: c_int = 1;

/// A transfer of `size` bytes at `offset` of a file. Panics for a direction that is none.
#[unsafe(no_mangle)]
pub extern "C" fn rump_pub_uio_setup(
    buf: *mut c_void,
    size: usize,
    offset: libc::off_t,
    rw: c_int,
) -> *mut CUio {
    if !matches!(rw, RUMPUIO_READ | RUMPUIO_WRITE) {
        misuse(
            rump_pub_uio_setup as *const (),
            "rump_pub_uio_setup",
            format_args!("invalid rw {rw}"),
        );
    }
    Box::into_raw(Box::new(CUio {
        buf,
        write: rw == RUMPUIO_WRITE,
        resid: size,
        offset,
    }))
}

/// Bytes still to move.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_pub_uio_getresid(uio: *const CUio) -> usize {
    // SAFETY: made by rump_pub_uio_setup and not freed yet.
    unsafe { (*uio).resid }
}

/// Where in the file the next byte belongs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_pub_uio_getoff(uio: *const CUio) -> libc::off_t {
    // SAFETY: made by rump_pub_uio_setup and not freed yet.
    unsafe { (*uio).offset }
}

/// Frees it; answers the bytes that were not moved.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_pub_uio_free(uio: *mut CUio) -> usize {
    // SAFETY: made by rump_pub_uio_setup and freed once.
    unsafe { Box::from_raw(uio) }.resid
}

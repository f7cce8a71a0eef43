//! The caller's memory: that of this process.

use kern::{Errno, PathBytes, UserAddr, UserMemory};

/// All memory of this process, by address. A pointer that a caller in this process gives is trusted, but for one that is
/// null or next to it: that is a fault, as the first page is nobody's.
#[derive(Debug)]
pub struct SelfMemory;

const FIRST_PAGE: u64 = 4096;

fn check(addr: UserAddr) -> Result<(), Errno> {
    if addr.0 < FIRST_PAGE {
        Err(Errno::EFAULT)
    } else {
        Ok(())
    }
}

impl UserMemory for SelfMemory {
    #[inline]
    fn copyin(&self, _: &sync::Cpu<'_>, from: UserAddr, to: &mut [u8]) -> Result<(), Errno> {
        if to.is_empty() {
            return Ok(());
        }
        check(from)?;
        // SAFETY: the caller of the C function vouches that what its arguments name may be read; `to` is the kernel's.
        unsafe {
            std::ptr::copy(from.0 as *const u8, to.as_mut_ptr(), to.len());
        }
        Ok(())
    }

    #[inline]
    fn copyout(&self, _: &sync::Cpu<'_>, from: &[u8], to: UserAddr) -> Result<(), Errno> {
        if from.is_empty() {
            return Ok(());
        }
        check(to)?;
        // SAFETY: the caller of the C function vouches that what its arguments name may be written; `from` is the kernel's.
        unsafe {
            std::ptr::copy(from.as_ptr(), to.0 as *mut u8, from.len());
        }
        Ok(())
    }

    fn copyinstr(
        &self,
        _: &sync::Cpu<'_>,
        from: UserAddr,
        max: usize,
        to: &mut PathBytes,
    ) -> Result<(), Errno> {
        check(from)?;
        // SAFETY: the caller vouches for a string that ends with a NUL; no more than `max` bytes and one are looked at.
        let text = unsafe {
            let len = libc::strnlen(from.0 as *const libc::c_char, max.saturating_add(1));
            std::slice::from_raw_parts(from.0 as *const u8, len)
        };
        if text.len() > max {
            return Err(Errno::ENAMETOOLONG);
        }
        to.extend_from_slice(text);
        Ok(())
    }

    #[inline]
    fn may_wait(&self) -> bool {
        false
    }
}

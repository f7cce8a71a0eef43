//! The host's system calls, made without libc: the hook runs in the middle of other people's libc calls, and this
//! object's own `syscall` instruction is the one that is never rewritten.

use core::arch::asm;

/// Makes a host system call. The answer is the kernel's: a value, or minus the errno.
///
/// # Safety
/// As the call itself demands: pointers valid for what it reads and writes, nobody's descriptors or memory pulled
/// from under them.
#[inline(always)]
pub(crate) unsafe fn syscall(nr: u32, a: [u64; 6]) -> i64 {
    let ret: i64;
    // SAFETY: the caller answers for the call; the instruction clobbers rcx and r11 and nothing else.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") u64::from(nr) => ret,
            in("rdi") a[0], in("rsi") a[1], in("rdx") a[2],
            in("r10") a[3], in("r8") a[4], in("r9") a[5],
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    ret
}

/// [`syscall`] with as many arguments as the call has.
macro_rules! host {
    ($name:ident $(, $arg:expr)* $(,)?) => {{
        let given = [$($arg as u64),*];
        let mut args = [0u64; 6];
        let mut i = 0;
        while i < given.len() {
            args[i] = given[i];
            i += 1;
        }
        $crate::sys::syscall(abi::nr::$name, args)
    }};
}
pub(crate) use host;

/// Memory protection bits, mmap(2).
pub(crate) const PROT_READ: u64 = 1;
/// Writable.
pub(crate) const PROT_WRITE: u64 = 2;
/// Executable.
pub(crate) const PROT_EXEC: u64 = 4;
/// Private copy-on-write mapping.
pub(crate) const MAP_PRIVATE: u64 = 2;
/// Memory without a file.
pub(crate) const MAP_ANONYMOUS: u64 = 0x20;
/// At this very address, unless something is there.
pub(crate) const MAP_FIXED_NOREPLACE: u64 = 0x10_0000;

/// Whether a raw answer is an error (-4095 ..= -1).
#[inline]
pub(crate) fn failed(ret: i64) -> bool {
    (-4095..0).contains(&ret)
}

/// Anonymous memory, zeroed. `None` when the host has none.
pub(crate) fn map_anon(hint: usize, bytes: usize, flags: u64) -> Option<*mut u8> {
    // SAFETY: a new mapping; with a hint and without MAP_FIXED it replaces nothing.
    let at = unsafe {
        host!(
            mmap,
            hint,
            bytes,
            PROT_READ | PROT_WRITE,
            MAP_PRIVATE | MAP_ANONYMOUS | flags,
            -1i64,
            0
        )
    };
    (!failed(at)).then_some(at as *mut u8)
}

/// Gives a mapping back.
///
/// # Safety
/// The range was mapped by the caller and nothing refers to it any more.
pub(crate) unsafe fn unmap(at: *mut u8, bytes: usize) {
    // SAFETY: as promised above.
    unsafe { host!(munmap, at, bytes) };
}

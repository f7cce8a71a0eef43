//! System calls of the host, made here and not through libc, so that no hook sees them.

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
compile_error!("rumpclient::raw knows the system-call instruction of x86-64 Linux only");

use core::arch::asm;

/// Makes a system call of the host. Answers what the kernel does: a value, or -errno.
///
/// # Safety
/// As for the call itself: pointers among the arguments must be good for what it does with them, and it must not
/// take away what others use (memory, descriptors).
#[inline]
pub unsafe fn syscall(nr: u32, args: [u64; 6]) -> i64 {
    let ret: i64;
    // SAFETY: the instruction clobbers rcx and r11 only; what the call does with the arguments is the caller's promise.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") u64::from(nr) => ret,
            in("rdi") args[0],
            in("rsi") args[1],
            in("rdx") args[2],
            in("r10") args[3],
            in("r8") args[4],
            in("r9") args[5],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    ret
}

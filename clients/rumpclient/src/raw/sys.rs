//! System calls of the host, made here and not through libc, so that no hook sees them.

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
compile_error!("rumpclient::raw knows the system-call instruction of x86-64 Linux only");

use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use abi::Errno;

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

/// Numbers of the host's calls that the core makes.
mod nr {
    pub(super) const READ: u32 = 0;
    pub(super) const CLOSE: u32 = 3;
    pub(super) const MMAP: u32 = 9;
    pub(super) const MUNMAP: u32 = 11;
    pub(super) const SCHED_YIELD: u32 = 24;
    pub(super) const MADVISE: u32 = 28;
    pub(super) const GETPID: u32 = 39;
    pub(super) const SOCKET: u32 = 41;
    pub(super) const CONNECT: u32 = 42;
    pub(super) const RT_SIGACTION: u32 = 13;
    pub(super) const SENDTO: u32 = 44;
    pub(super) const RECVFROM: u32 = 45;
    pub(super) const SENDMSG: u32 = 46;
    pub(super) const SHUTDOWN: u32 = 48;
    pub(super) const SETSOCKOPT: u32 = 54;
    pub(super) const GETSOCKOPT: u32 = 55;
    pub(super) const KILL: u32 = 62;
    pub(super) const FCNTL: u32 = 72;
    pub(super) const FTRUNCATE: u32 = 77;
    pub(super) const GETCWD: u32 = 79;
    pub(super) const SIGALTSTACK: u32 = 131;
    pub(super) const GETTID: u32 = 186;
    pub(super) const FUTEX: u32 = 202;
    pub(super) const PPOLL: u32 = 271;
    pub(super) const PROCESS_VM_READV: u32 = 310;
    pub(super) const MEMFD_CREATE: u32 = 319;
    pub(super) const FUTEX_WAITV: u32 = 449;
}

/// One buffer of a vectored call, as the host takes it.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct IoVec {
    pub(super) base: *const u8,
    pub(super) len: usize,
}

/// What a call of the host answered: a value, or the errno.
pub(super) type Answer = Result<usize, Errno>;

fn answer(raw: i64) -> Answer {
    if raw < 0 {
        Err(Errno(raw.wrapping_neg() as i32))
    } else {
        Ok(raw as usize)
    }
}

/// # Safety
/// As for [`syscall`].
unsafe fn call(nr: u32, args: [u64; 6]) -> Answer {
    // SAFETY: the caller's promise.
    answer(unsafe { syscall(nr, args) })
}

pub(super) fn close(fd: i32) {
    // SAFETY: callers close descriptors of the core's own.
    let _ = unsafe { call(nr::CLOSE, [fd as u64, 0, 0, 0, 0, 0]) };
}

pub(super) fn read(fd: i32, to: &mut [u8]) -> Answer {
    let (at, len) = (to.as_mut_ptr() as u64, to.len() as u64);
    // SAFETY: the buffer is a slice.
    unsafe { call(nr::READ, [fd as u64, at, len, 0, 0, 0]) }
}

pub(super) fn getpid() -> i32 {
    // SAFETY: takes nothing.
    unsafe { syscall(nr::GETPID, [0; 6]) as i32 }
}

pub(super) fn gettid() -> u32 {
    // SAFETY: takes nothing.
    unsafe { syscall(nr::GETTID, [0; 6]) as u32 }
}

pub(super) fn kill(pid: i32, signal: u32) {
    // SAFETY: touches no memory.
    let _ = unsafe { call(nr::KILL, [pid as u64, u64::from(signal), 0, 0, 0, 0]) };
}

/// Whether a signal ends a call that it arrives in: one with a handler, unless that asks for calls to be restarted and this one can be.
pub(super) fn interrupts(signal: u32, never_restarts: bool) -> bool {
    const SA_RESTART: u64 = 0x1000_0000;
    // The host's own layout: handler, flags, restorer, mask.
    let mut action = [0u64; 4];
    let at = action.as_mut_ptr() as u64;
    // SAFETY: the host writes an action to ours.
    let known = unsafe { call(nr::RT_SIGACTION, [u64::from(signal), 0, at, 8, 0, 0]) };
    // 0 and 1 are the default and to ignore.
    known.is_ok() && action[0] > 1 && (action[1] & SA_RESTART == 0 || never_restarts)
}

/// A stream socket of an address family, close-on-exec.
pub(super) fn socket(family: u16) -> Answer {
    const STREAM_CLOEXEC: u64 = 1 | 0o2000000;
    // SAFETY: touches no memory.
    unsafe { call(nr::SOCKET, [u64::from(family), STREAM_CLOEXEC, 0, 0, 0, 0]) }
}

pub(super) fn connect(fd: i32, addr: &[u8]) -> Answer {
    let (at, len) = (addr.as_ptr() as u64, addr.len() as u64);
    // SAFETY: the address is a slice.
    unsafe { call(nr::CONNECT, [fd as u64, at, len, 0, 0, 0]) }
}

/// Ends a connection in both directions.
pub(super) fn shutdown(fd: i32) {
    // SAFETY: touches no memory.
    let _ = unsafe { call(nr::SHUTDOWN, [fd as u64, 2, 0, 0, 0, 0]) };
}

/// Sends small packets of a TCP connection at once.
pub(super) fn set_nodelay(fd: i32) {
    let (tcp, nodelay, on) = (6, 1, 1i32);
    let at = (&raw const on) as u64;
    // SAFETY: the option's value is `on`, of four bytes.
    let _ = unsafe { call(nr::SETSOCKOPT, [fd as u64, tcp, nodelay, at, 4, 0]) };
}

/// The number of the process at the other end of a unix socket, as it was when it was made; 0 when nobody knows.
pub(super) fn peer_pid(fd: i32) -> i32 {
    let (socket, peercred) = (1, 17);
    let mut cred = [0i32; 3];
    let mut len = size_of_val(&cred) as u32;
    let (at, len_at) = ((&raw mut cred) as u64, (&raw mut len) as u64);
    // SAFETY: the value and its length are our own.
    let got = unsafe { call(nr::GETSOCKOPT, [fd as u64, socket, peercred, at, len_at, 0]) };
    if got.is_ok() { cred[0] } else { 0 }
}

/// Sends buffers, and a descriptor with them if there is one. Memory that is not there gives `EFAULT`.
pub(super) fn sendmsg(fd: i32, iov: &[IoVec], pass: Option<i32>) -> Answer {
    #[repr(C)]
    struct MsgHdr {
        name: u64,
        name_len: u64,
        iov: *const IoVec,
        iov_len: usize,
        control: *const Control,
        control_len: usize,
        flags: u64,
    }
    #[repr(C)]
    struct Control {
        len: usize,
        level: i32,
        kind: i32,
        fd: i32,
        pad: i32,
    }
    const SOL_SOCKET: i32 = 1;
    const SCM_RIGHTS: i32 = 1;
    const MSG_NOSIGNAL: u64 = 0x4000;
    if let ([one], None) = (iov, pass) {
        // The host has less to look at.
        let (at, len) = (one.base as u64, one.len as u64);
        // SAFETY: the buffer is only read, and the host checks it.
        return unsafe { call(nr::SENDTO, [fd as u64, at, len, MSG_NOSIGNAL, 0, 0]) };
    }
    let control = Control {
        len: 20,
        level: SOL_SOCKET,
        kind: SCM_RIGHTS,
        fd: pass.unwrap_or(-1),
        pad: 0,
    };
    let message = MsgHdr {
        name: 0,
        name_len: 0,
        iov: iov.as_ptr(),
        iov_len: iov.len(),
        control: if pass.is_some() {
            &raw const control
        } else {
            core::ptr::null()
        },
        control_len: if pass.is_some() { 24 } else { 0 },
        flags: 0,
    };
    let at = (&raw const message) as u64;
    // SAFETY: the message is well formed; what its buffers name is only read, and the host checks it.
    unsafe { call(nr::SENDMSG, [fd as u64, at, MSG_NOSIGNAL, 0, 0, 0]) }
}

/// Flag of [`recv`]: do not wait.
pub(super) const MSG_DONTWAIT: u64 = 0x40;

/// Receives up to `len` bytes to `to`. Memory that is not there gives `EFAULT`.
///
/// # Safety
/// What is writable of the range must be the caller's to write.
pub(super) unsafe fn recv(fd: i32, to: *mut u8, len: usize, flags: u64) -> Answer {
    // SAFETY: the caller's promise; the host checks that the memory is there.
    unsafe {
        call(
            nr::RECVFROM,
            [fd as u64, to as u64, len as u64, flags, 0, 0],
        )
    }
}

/// Waits until there is something to read, or a signal handler has run.
pub(super) fn poll_in(fd: i32) -> Answer {
    let pollfd = [fd as u32, 1u32];
    let at = pollfd.as_ptr() as u64;
    // SAFETY: one pollfd, whose second word the host writes.
    unsafe { call(nr::PPOLL, [at, 1, 0, 0, 8, 0]) }
}

pub(super) fn fcntl(fd: i32, command: i32, arg: u64) -> Answer {
    // SAFETY: the commands that the core uses take a number.
    unsafe { call(nr::FCNTL, [fd as u64, command as u64, arg, 0, 0, 0]) }
}

pub(super) fn getcwd(to: &mut [u8]) -> Answer {
    let (at, len) = (to.as_mut_ptr() as u64, to.len() as u64);
    // SAFETY: the buffer is a slice.
    unsafe { call(nr::GETCWD, [at, len, 0, 0, 0, 0]) }
}

/// Whether the caller runs on its alternate signal stack.
pub(super) fn on_altstack() -> bool {
    let mut stack = [0u64; 3];
    let at = stack.as_mut_ptr() as u64;
    // SAFETY: a `stack_t` of three words to fill.
    let done = unsafe { call(nr::SIGALTSTACK, [0, at, 0, 0, 0, 0]) };
    done.is_ok() && stack[1] as u32 & 1 != 0
}

/// Fresh zeroed memory.
pub(super) fn map(len: usize) -> Result<*mut u8, Errno> {
    const READ_WRITE: u64 = 3;
    const PRIVATE_ANONYMOUS: u64 = 0x22;
    let args = [0, len as u64, READ_WRITE, PRIVATE_ANONYMOUS, u64::MAX, 0];
    // SAFETY: a new mapping at an address that the host chooses.
    unsafe { call(nr::MMAP, args) }.map(|at| at as *mut u8)
}

/// Maps a file shared.
pub(super) fn map_shared(fd: i32, len: usize) -> Result<*mut u8, Errno> {
    const READ_WRITE: u64 = 3;
    const SHARED: u64 = 1;
    // SAFETY: a new mapping at an address that the host chooses.
    unsafe { call(nr::MMAP, [0, len as u64, READ_WRITE, SHARED, fd as u64, 0]) }
        .map(|at| at as *mut u8)
}

/// # Safety
/// The range is a mapping of the core's own that nobody uses any more.
pub(super) unsafe fn unmap(at: *mut u8, len: usize) {
    // SAFETY: the caller's promise.
    let _ = unsafe { call(nr::MUNMAP, [at as u64, len as u64, 0, 0, 0, 0]) };
}

/// Advice: a child of fork does not get the range.
pub(super) const MADV_DONTFORK: u64 = 10;
/// Advice: make the pages readable now, or say that they cannot be.
pub(super) const MADV_POPULATE_READ: u64 = 22;
/// Advice: make the pages writable now, or say that they cannot be.
pub(super) const MADV_POPULATE_WRITE: u64 = 23;

/// One of the advices above, none of which changes what memory holds.
pub(super) fn madvise(at: u64, len: u64, advice: u64) -> Answer {
    debug_assert!(matches!(advice, 10 | 22 | 23));
    // SAFETY: these advices leave the contents alone.
    unsafe { call(nr::MADVISE, [at, len, advice, 0, 0, 0]) }
}

/// Whether a byte of the process's own memory can be read.
pub(super) fn can_read(at: u64) -> bool {
    let mut byte = 0u8;
    let local = IoVec {
        base: &raw mut byte,
        len: 1,
    };
    let remote = IoVec {
        base: at as *const u8,
        len: 1,
    };
    let (l, r) = ((&raw const local) as u64, (&raw const remote) as u64);
    // SAFETY: one byte of ours is written; the host checks the other side.
    let got = unsafe { call(nr::PROCESS_VM_READV, [getpid() as u64, l, 1, r, 1, 0]) };
    got == Ok(1)
}

/// A memfd of `len` bytes that cannot change its size.
pub(super) fn sealed_memfd(len: u64) -> Result<i32, Errno> {
    const CLOEXEC_SEALING: u64 = 3;
    const F_ADD_SEALS: i32 = 1033;
    const SEAL_SEAL_SHRINK_GROW: u64 = 1 | 2 | 4;
    let name = c"rump-ring".as_ptr() as u64;
    // SAFETY: the name is a C string.
    let fd = unsafe { call(nr::MEMFD_CREATE, [name, CLOEXEC_SEALING, 0, 0, 0, 0]) }? as i32;
    // SAFETY: touches no memory.
    let sized = unsafe { call(nr::FTRUNCATE, [fd as u64, len, 0, 0, 0, 0]) };
    match sized.and_then(|_| fcntl(fd, F_ADD_SEALS, SEAL_SEAL_SHRINK_GROW)) {
        Ok(_) => Ok(fd),
        Err(e) => {
            close(fd);
            Err(e)
        }
    }
}

/// The process has had most calls forbidden to it.
static CONFINED: AtomicBool = AtomicBool::new(false);

/// Notes that the process is having most calls forbidden to it.
pub(super) fn confine() {
    CONFINED.store(true, Ordering::Relaxed);
}

/// Whether it has.
pub(super) fn is_confined() -> bool {
    CONFINED.load(Ordering::Relaxed)
}

const FUTEX_PRIVATE: u64 = 128;

/// Sleeps while the word is `expected`. Without a time it ends with `EINTR` when a signal handler without
/// `SA_RESTART` has run, with one when any has.
pub(super) fn futex_wait(
    word: &AtomicU32,
    expected: u32,
    shared: bool,
    seconds: Option<u64>,
) -> Answer {
    let op = if shared { 0 } else { FUTEX_PRIVATE };
    let time = [seconds.unwrap_or(0), 0];
    let time = seconds.map_or(0, |_| (&raw const time) as u64);
    let args = [word.as_ptr() as u64, op, u64::from(expected), time, 0, 0];
    // SAFETY: the word and the time live for the whole call.
    unsafe { call(nr::FUTEX, args) }
}

/// A time in nanoseconds, by the processor's clock, which has 1 to 5 ticks in one. To ask the host takes as long as what is timed
/// with it.
#[inline]
pub(super) fn about_nanos() -> u64 {
    // SAFETY: every x86-64 has it.
    unsafe { core::arch::x86_64::_rdtsc() / 2 }
}

/// Lets others have the processor.
pub(super) fn sched_yield() {
    // SAFETY: no conditions.
    let _ = unsafe { call(nr::SCHED_YIELD, [0; 6]) };
}

pub(super) fn futex_wake(word: &AtomicU32, count: u32, shared: bool) {
    let op = 1 | if shared { 0 } else { FUTEX_PRIVATE };
    // SAFETY: waking on an address has no conditions.
    let _ = unsafe {
        call(
            nr::FUTEX,
            [word.as_ptr() as u64, op, u64::from(count), 0, 0, 0],
        )
    };
}

/// Sleeps while all shared words are as expected. Ends with `EINTR` when a signal handler without `SA_RESTART` has run.
/// `ENOSYS` on a host before 5.16.
pub(super) fn futex_wait_all<const N: usize>(words: [(&AtomicU32, u32); N]) -> Answer {
    #[repr(C)]
    struct Waiter {
        expected: u64,
        word: u64,
        flags: u32,
        reserved: u32,
    }
    const SIZE_U32: u32 = 2;
    let waiters = words.map(|(word, expected)| Waiter {
        expected: u64::from(expected),
        word: word.as_ptr() as u64,
        flags: SIZE_U32,
        reserved: 0,
    });
    let at = waiters.as_ptr() as u64;
    // SAFETY: the words live for the whole call.
    unsafe { call(nr::FUTEX_WAITV, [at, N as u64, 0, 0, 0, 0]) }
}

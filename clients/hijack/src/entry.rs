//! The hook's entry: where every rewritten `syscall` comes out.
//!
//! A trampoline jumps here with the registers of the call and in rcx the address of its own `syscall`. For nearly every
//! call a few integer instructions find that the host serves it: the entry jumps back to that `syscall`, having used
//! r11 and no memory of the program's. The flags are not kept; `crate::scan` leaves sites alone that need them.
//!
//! What may be the kernel's goes on in `crate::dispatch`: below the red zone of the caller's stack, with the
//! registers that compiled code may change saved in a [`Frame`], xmm0-15 among them. This object is compiled for
//! x86-64 as such and has its own memory functions (`crate::mem`), so nothing touches the wider registers.
//!
//! The caller's stack is used because a signal handler that interrupts a waiting call must find what it would find
//! without the shim: the stack of its thread, with the room that the program gave it.

use core::arch::{asm, naked_asm};
use core::mem::offset_of;
use core::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use abi::table::MAX_NR;
use abi::{ArgKind, Faction, nr};

use crate::config::Config;
use crate::state::{MAIN, Process, Thread};

/// How the entry decides on a call. 0 is the host's, unseen.
mod class {
    pub(super) const HOST: u8 = 0;
    /// Seen when the descriptor in the first register is special.
    pub(super) const FD: u8 = 1;
    /// Seen when the path in the first register may be.
    pub(super) const PATH: u8 = 2;
    /// Seen when the path in the second register may be, or its directory in the first.
    pub(super) const AT: u8 = 3;
    /// Always seen.
    pub(super) const SEEN: u8 = 4;
    /// Seen while any kernel descriptor is open.
    pub(super) const ANY_FD: u8 = 5;
    /// mmap: seen for a special descriptor, for code, and for a fixed address.
    pub(super) const MMAP: u8 = 6;
    /// Seen when a descriptor in the first or the second register is special.
    pub(super) const TWO_FDS: u8 = 7;
    /// Seen while the working directory is the kernel's.
    pub(super) const CWD: u8 = 8;
}

/// The class of each call by number.
static CLASS: [AtomicU8; MAX_NR] = [const { AtomicU8::new(class::HOST) }; MAX_NR];
/// A bit for each byte that may follow the first slash of a name that is the kernel's.
static SECOND: [AtomicU32; 8] = [const { AtomicU32::new(0) }; 8];

/// Registers of a call, as the dispatcher sees and changes them.
#[repr(C, align(16))]
pub struct Frame {
    xmm: [u128; 16],
    /// The call's number; the answer when the hook has served it.
    pub rax: u64,
    /// Arguments in the order of the call: rdi, rsi, rdx, r10, r8, r9.
    pub args: [u64; 6],
    /// The stack pointer of the caller.
    pub rsp: u64,
    /// The trampoline's `syscall`.
    pub rcx: u64,
}

/// What the dispatcher wants done with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Outcome {
    /// Answered: rax has the result.
    Done = 0,
    /// The host serves it, with the registers of the frame.
    Host = 1,
    /// The host serves it and makes a child; both sides come back through `process::after_clone`.
    Clone = 2,
}

/// Bytes that a function may use below the stack pointer, x86-64 psABI.
const RED_ZONE: usize = 128;

/// Fills the tables from which the entry decides.
pub fn set_classes(config: &Config<'_>) {
    for call in abi::table::TABLE {
        CLASS[call.nr as usize].store(class_of(call, config), Ordering::Relaxed);
    }
    let second =
        |byte: u8| SECOND[usize::from(byte / 32)].fetch_or(1 << (byte % 32), Ordering::Relaxed);
    if let Some(path) = config.path {
        // Where the name begins, or one that is relative to a descriptor of a directory above.
        for component in path.split(|&b| b == b'/') {
            if let Some(&first) = component.first() {
                second(first);
            }
        }
        second(b'/');
        second(b'.');
        // Names of descriptors: /dev/fd, /proc/self/fd.
        second(b'd');
        second(b'p');
    }
    for path in config.blankets() {
        second(path[1]);
    }
}

fn class_of(call: &abi::SyscallDesc, config: &Config<'_>) -> u8 {
    use class::*;
    match call.nr {
        nr::clone | nr::clone3 | nr::fork | nr::vfork | nr::execve | nr::execveat | nr::exit => {
            return SEEN;
        }
        nr::io_uring_setup | nr::close_range | nr::umask | nr::sync | nr::prctl | nr::seccomp => {
            return SEEN;
        }
        nr::chdir | nr::fchdir | nr::munmap | nr::mremap | nr::mprotect | nr::brk | nr::msync => {
            return SEEN;
        }
        nr::setuid
        | nr::setgid
        | nr::setreuid
        | nr::setregid
        | nr::setresuid
        | nr::setresgid
        | nr::setgroups => {
            return SEEN;
        }
        nr::mmap => return MMAP,
        nr::getcwd => return CWD,
        nr::dup2 | nr::dup3 => return TWO_FDS,
        nr::poll | nr::ppoll | nr::select | nr::pselect6 => return ANY_FD,
        nr::epoll_wait | nr::epoll_pwait | nr::epoll_pwait2 | nr::epoll_ctl => return ANY_FD,
        nr::sendfile | nr::splice | nr::tee | nr::copy_file_range | nr::sendmsg | nr::sendmmsg => {
            return ANY_FD;
        }
        // Of a host descriptor it may be about the kernel's interfaces.
        nr::ioctl if config.any_socket() => return SEEN,
        // Where it gets kernel descriptors, see `crate::epoll`.
        nr::epoll_create | nr::epoll_create1 | nr::socket | nr::socketpair => {
            return if config.any_socket() { SEEN } else { HOST };
        }
        nr::__sysctl => return if config.sysctl { SEEN } else { HOST },
        nr::getvfsstat => return if config.vfs(1) { SEEN } else { HOST },
        502.. => return SEEN,
        _ => {}
    }
    if call.faction == Faction::Host {
        return HOST;
    }
    let kind = |i: usize| call.args.get(i).map(|a| a.kind);
    let named = |k: ArgKind| matches!(k, ArgKind::Path | ArgKind::Fd | ArgKind::DirFd);
    let count = call.args.iter().filter(|a| named(a.kind)).count();
    match (kind(0), kind(1), count) {
        (Some(ArgKind::Fd), _, 1) => FD,
        (Some(ArgKind::Path), _, 1) => PATH,
        (Some(ArgKind::DirFd), Some(ArgKind::Path), 2) => AT,
        (_, _, 0) => HOST,
        _ => SEEN,
    }
}

/// The address of the entry, for trampolines.
pub fn address() -> usize {
    entry as *const () as usize
}

/// Where the thread's [`Process`] is, in r11, from its thread-local storage.
macro_rules! load_process {
    () => {
        concat!(
            "mov r11, qword ptr [rip + rump_hijack_thread@GOTTPOFF]\n",
            "mov r11, qword ptr fs:[r11 + {shift}]\n",
            "add r11, qword ptr [rip + {main}]\n",
        )
    };
}

/// Not a function: see the module's comment for its protocol.
#[unsafe(naked)]
unsafe extern "C" fn entry() {
    naked_asm!(
        "cmp rax, {max_nr}",
        "jae 30f",
        "lea r11, [rip + {class}]",
        "movzx r11d, byte ptr [r11 + rax]",
        "test r11d, r11d",
        "jz 30f",
        "cmp r11d, {fd}",
        "je 31f",
        "cmp r11d, {path}",
        "je 32f",
        "cmp r11d, {at}",
        "je 34f",
        "cmp r11d, {mmap}",
        "je 36f",
        "cmp r11d, {any_fd}",
        "je 37f",
        "cmp r11d, {two_fds}",
        "je 38f",
        "cmp r11d, {cwd}",
        "je 33f",
        "jmp {seen}",
        // The host's: to the syscall in the trampoline.
        "30: jmp rcx",
        // A descriptor in edi.
        "31:",
        load_process!(),
        "39: cmp edi, dword ptr [r11 + {floor}]",
        "jae {seen}",
        "bt dword ptr [r11 + {kernel}], edi",
        "jc {seen}",
        "jmp rcx",
        // A path in rdi. Bad addresses are the host's to refuse.
        "32: lea r11, [rdi - 4096]",
        "shr r11, 47",
        "jnz 30b",
        "cmp byte ptr [rdi], 0x2f",
        "jne 33f",
        "movzx r11d, byte ptr [rdi + 1]",
        "bt dword ptr [rip + {second}], r11d",
        "jc {seen}",
        "jmp rcx",
        // A name relative to the working directory.
        "33:",
        load_process!(),
        "40: cmp dword ptr [r11 + {cwd_at}], 0",
        "jne {seen}",
        "jmp rcx",
        // A path in rsi, relative to the directory in edi; no path means the directory itself.
        "34: lea r11, [rsi - 4096]",
        "shr r11, 47",
        "jnz 35f",
        "cmp byte ptr [rsi], 0x2f",
        "jne 41f",
        "movzx r11d, byte ptr [rsi + 1]",
        "bt dword ptr [rip + {second}], r11d",
        "jc {seen}",
        "jmp rcx",
        // The directory may be the host's and above the prefix.
        "41: movzx r11d, byte ptr [rsi]",
        "bt dword ptr [rip + {second}], r11d",
        "jc {seen}",
        "35:",
        load_process!(),
        "cmp edi, -100",
        "je 40b",
        "jmp 39b",
        // mmap: PROT_EXEC in edx, MAP_FIXED in r10d, the descriptor in r8d.
        "36: test dl, 4",
        "jnz {seen}",
        "test r10b, 0x10",
        "jnz {seen}",
        load_process!(),
        "cmp r8d, -1",
        "je 30b",
        "cmp r8d, dword ptr [r11 + {floor}]",
        "jae {seen}",
        "bt dword ptr [r11 + {kernel}], r8d",
        "jc {seen}",
        "jmp rcx",
        "37:",
        load_process!(),
        "cmp dword ptr [r11 + {kernel_fds}], 0",
        "jne {seen}",
        "jmp rcx",
        "38:",
        load_process!(),
        "cmp esi, dword ptr [r11 + {floor}]",
        "jae {seen}",
        "bt dword ptr [r11 + {kernel}], esi",
        "jnc 39b",
        "jmp {seen}",
        max_nr = const MAX_NR,
        class = sym CLASS,
        second = sym SECOND,
        fd = const class::FD,
        path = const class::PATH,
        at = const class::AT,
        mmap = const class::MMAP,
        any_fd = const class::ANY_FD,
        two_fds = const class::TWO_FDS,
        cwd = const class::CWD,
        main = sym MAIN_AT,
        shift = const offset_of!(Thread, shift),
        kernel = const offset_of!(Process, kernel),
        cwd_at = const offset_of!(Process, cwd),
        kernel_fds = const offset_of!(Process, kernel_fds),
        floor = const offset_of!(Process, floor),
        seen = sym seen,
    )
}

/// Where `MAIN` lies, for the entry, which has one register to spare.
struct MainAt(#[allow(dead_code, reason = "read by assembly")] *const Process);
// SAFETY: a constant address.
unsafe impl Sync for MainAt {}
static MAIN_AT: MainAt = MainAt(&raw const MAIN);

/// Saves what compiled code may change into a frame below the red zone and aligns the stack. r11 holds the caller's
/// stack pointer at the end.
macro_rules! save {
    () => {
        "
        mov r11, rsp
        lea rsp, [rsp - {red_zone} - {frame}]
        and rsp, -64
        mov [rsp + {rax}], rax
        mov [rsp + {args}], rdi
        mov [rsp + {args} + 8], rsi
        mov [rsp + {args} + 16], rdx
        mov [rsp + {args} + 24], r10
        mov [rsp + {args} + 32], r8
        mov [rsp + {args} + 40], r9
        mov [rsp + {rsp}], r11
        mov [rsp + {rcx}], rcx
        movaps [rsp], xmm0
        movaps [rsp + 16], xmm1
        movaps [rsp + 32], xmm2
        movaps [rsp + 48], xmm3
        movaps [rsp + 64], xmm4
        movaps [rsp + 80], xmm5
        movaps [rsp + 96], xmm6
        movaps [rsp + 112], xmm7
        movaps [rsp + 128], xmm8
        movaps [rsp + 144], xmm9
        movaps [rsp + 160], xmm10
        movaps [rsp + 176], xmm11
        movaps [rsp + 192], xmm12
        movaps [rsp + 208], xmm13
        movaps [rsp + 224], xmm14
        movaps [rsp + 240], xmm15
        cld
        mov rdi, rsp
        "
    };
}

/// Takes everything back from the frame; rcx last but the stack pointer. r11 keeps what it has.
macro_rules! restore {
    () => {
        "
        movaps xmm0, [rsp]
        movaps xmm1, [rsp + 16]
        movaps xmm2, [rsp + 32]
        movaps xmm3, [rsp + 48]
        movaps xmm4, [rsp + 64]
        movaps xmm5, [rsp + 80]
        movaps xmm6, [rsp + 96]
        movaps xmm7, [rsp + 112]
        movaps xmm8, [rsp + 128]
        movaps xmm9, [rsp + 144]
        movaps xmm10, [rsp + 160]
        movaps xmm11, [rsp + 176]
        movaps xmm12, [rsp + 192]
        movaps xmm13, [rsp + 208]
        movaps xmm14, [rsp + 224]
        movaps xmm15, [rsp + 240]
        mov rax, [rsp + {rax}]
        mov rdi, [rsp + {args}]
        mov rsi, [rsp + {args} + 8]
        mov rdx, [rsp + {args} + 16]
        mov r10, [rsp + {args} + 24]
        mov r8, [rsp + {args} + 32]
        mov r9, [rsp + {args} + 40]
        mov rcx, [rsp + {rcx}]
        mov rsp, [rsp + {rsp}]
        "
    };
}

/// A call that the dispatcher must see.
#[unsafe(naked)]
unsafe extern "C" fn seen() {
    naked_asm!(
        save!(),
        "call {dispatch}",
        "mov r11, rax",
        restore!(),
        "cmp r11d, 1",
        "ja {clone}",
        "je 30f",
        "add rcx, 2",
        "30: jmp rcx",
        dispatch = sym dispatch,
        clone = sym clone,
        red_zone = const RED_ZONE,
        frame = const size_of::<Frame>(),
        rax = const offset_of!(Frame, rax),
        args = const offset_of!(Frame, args),
        rsp = const offset_of!(Frame, rsp),
        rcx = const offset_of!(Frame, rcx),
    )
}

/// Makes a child with the program's registers and nothing of ours on the stack: after vfork the child goes on there
/// first and leaves nothing of it. Both sides then see to their state in a frame of their own.
#[unsafe(naked)]
unsafe extern "C" fn clone() {
    naked_asm!(
        "syscall",
        "mov r11, qword ptr [rip + rump_hijack_thread@GOTTPOFF]",
        "mov rcx, qword ptr fs:[r11 + {clone_return}]",
        save!(),
        "call {after_clone}",
        restore!(),
        "add rcx, 2",
        "jmp rcx",
        after_clone = sym crate::process::after_clone,
        clone_return = const offset_of!(Thread, clone_return),
        red_zone = const RED_ZONE,
        frame = const size_of::<Frame>(),
        rax = const offset_of!(Frame, rax),
        args = const offset_of!(Frame, args),
        rsp = const offset_of!(Frame, rsp),
        rcx = const offset_of!(Frame, rcx),
    )
}

/// From the entry into Rust.
extern "C" fn dispatch(frame: &mut Frame) -> Outcome {
    crate::dispatch::dispatch(frame)
}

/// Makes a call as the program does through a rewritten site, for tests and benchmarks: the entry decides.
pub fn call(number: u32, args: [u64; 6]) -> i64 {
    let ret: i64;
    // SAFETY: the protocol of a trampoline: rcx has the address of the syscall, and the entry comes back to it or behind
    // it with rcx and r11 clobbered. The red zone is stepped over by the entry itself.
    unsafe {
        asm!(
            "lea rcx, [rip + 30f]",
            "jmp {entry}",
            "30: syscall",
            entry = sym entry,
            inlateout("rax") u64::from(number) => ret,
            in("rdi") args[0], in("rsi") args[1], in("rdx") args[2],
            in("r10") args[3], in("r8") args[4], in("r9") args[5],
            lateout("rcx") _, lateout("r11") _,
        );
    }
    ret
}

/// Makes a call as an unchanged program does: what [`call`] is measured against.
pub fn direct(number: u32, args: [u64; 6]) -> i64 {
    // SAFETY: as `call`, whose arguments come from tests and benchmarks of this crate.
    unsafe { crate::sys::syscall(number, args) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_classed_by_what_they_name() {
        let config = Config::parse(crate::config::DEFAULT).unwrap_or_default();
        let class = |nr| class_of(abi::table::desc(nr).unwrap(), &config);
        for (nr, want) in [
            (nr::read, class::FD),
            (nr::close, class::FD),
            (nr::openat, class::AT),
            (nr::stat, class::PATH),
            (nr::rename, class::SEEN),
            (nr::symlink, class::PATH),
            (nr::getpid, class::HOST),
            (nr::futex, class::HOST),
            (nr::mmap, class::MMAP),
            (nr::socket, class::SEEN),
            (nr::clock_gettime, class::HOST),
        ] {
            let got = class(nr);
            // symlink's path is its second argument and has no directory: the entry cannot tell.
            let want = if nr == nr::symlink { class::SEEN } else { want };
            assert_eq!(got, want, "{nr}");
        }
    }

    #[test]
    fn vector_registers_survive_a_call_that_is_seen() {
        let mut lanes = [1.5f64, -2.25];
        // SAFETY: as `call`; io_uring_setup is always seen and has no effect.
        unsafe {
            asm!(
                "movupd xmm7, [r12]",
                "lea rcx, [rip + 30f]",
                "jmp {seen}",
                "30: syscall",
                "movupd [r12], xmm7",
                in("r12") &mut lanes,
                seen = sym seen,
                inlateout("rax") u64::from(nr::io_uring_setup) => _,
                in("rdi") 0, in("rsi") 0,
                lateout("rcx") _, lateout("r11") _, out("xmm7") _,
            );
        }
        assert_eq!(lanes, [1.5, -2.25]);
    }
}

//! What the hook knows: for the process, which descriptors are the kernel's and whether the working directory is; for
//! each thread, which process it belongs to.
//!
//! There is one [`Process`] for nearly everybody, `MAIN`. Only between vfork(2) and exec does a child run in its
//! parent's memory with descriptors and a kernel process of its own: it has a second [`Process`], found through its
//! thread's state, while the parent's thread sleeps.

use core::arch::asm;
use core::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};

use rumpclient::raw::{Client, ThreadState};

/// One more than the highest descriptor that the hook tells apart; the kernel's tables end there as well.
pub(crate) const FD_MAX: usize = 1 << 20;

/// A process as the hook knows it. Its fields are read from assembly: the order is the entry's.
#[repr(C)]
pub(crate) struct Process {
    /// How many kernel descriptors are open.
    pub kernel_fds: AtomicU32,
    /// Where the working directory is, a constant of [`crate::names::cwd`].
    pub cwd: AtomicU32,
    /// Descriptors from here on are always looked at: the shim keeps its own there.
    pub floor: AtomicU32,
    /// One more than the highest descriptor that ever was the kernel's.
    high: AtomicU32,
    /// The host descriptor that kernel descriptors are duplicates of; -1 before there is one.
    placeholder: AtomicI32,
    /// The connection.
    pub client: Client,
    /// A bit for each descriptor that the kernel has: its own, and the shadows of host epoll descriptors.
    pub kernel: Bitmap,
    /// A bit for each of those that is a shadow.
    shadow: Bitmap,
}

/// Whose a descriptor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The host's, or nobody's.
    Host,
    /// The host's, an epoll instance that has a shadow in the kernel, see [`crate::epoll`].
    Shadowed,
    /// The kernel's.
    Kernel,
}

/// See [`shadows`].
static SHADOWS: AtomicU32 = AtomicU32::new(0);

/// How often a descriptor has got a shadow so far. With its number this names the shadow for ever: numbers are used again.
pub(crate) fn shadows() -> u32 {
    SHADOWS.load(Ordering::Acquire)
}

/// A bit for each descriptor.
#[repr(C)]
pub(crate) struct Bitmap([AtomicU64; FD_MAX / 64]);

impl Bitmap {
    const fn new() -> Bitmap {
        Bitmap([const { AtomicU64::new(0) }; FD_MAX / 64])
    }

    fn word(&self, fd: i32) -> Option<(&AtomicU64, u64)> {
        let fd = usize::try_from(fd).ok()?;
        Some((self.0.get(fd / 64)?, 1 << (fd % 64)))
    }

    fn has(&self, fd: i32) -> bool {
        self.word(fd)
            .is_some_and(|(word, bit)| word.load(Ordering::Acquire) & bit != 0)
    }

    /// Answers whether the bit changed.
    fn set(&self, fd: i32, on: bool) -> bool {
        let Some((word, bit)) = self.word(fd) else {
            return false;
        };
        let before = if on {
            word.fetch_or(bit, Ordering::AcqRel)
        } else {
            word.fetch_and(!bit, Ordering::AcqRel)
        };
        (before & bit != 0) != on
    }

    /// The lowest set bit from `from` on and below `end`.
    fn next(&self, from: usize, end: usize) -> Option<usize> {
        let mut at = from;
        while at < end.min(FD_MAX) {
            let word = self.0[at / 64].load(Ordering::Acquire) >> (at % 64);
            if word != 0 {
                let found = at + word.trailing_zeros() as usize;
                return (found < end).then_some(found);
            }
            at = (at / 64 + 1) * 64;
        }
        None
    }
}

impl Process {
    const fn new() -> Process {
        Process {
            kernel_fds: AtomicU32::new(0),
            cwd: AtomicU32::new(0),
            floor: AtomicU32::new(u32::MAX),
            high: AtomicU32::new(0),
            placeholder: AtomicI32::new(-1),
            client: Client::new(),
            kernel: Bitmap::new(),
            shadow: Bitmap::new(),
        }
    }

    /// Whether a descriptor is the kernel's.
    pub(crate) fn is_kernel(&self, fd: i32) -> bool {
        self.kernel.has(fd) && !self.shadow.has(fd)
    }

    /// Whether a descriptor is the host's and has a shadow in the kernel.
    pub(crate) fn is_shadowed(&self, fd: i32) -> bool {
        self.shadow.has(fd)
    }

    /// Whose a descriptor is.
    pub(crate) fn kind(&self, fd: i32) -> Kind {
        match (self.shadow.has(fd), self.kernel.has(fd)) {
            (true, _) => Kind::Shadowed,
            (false, true) => Kind::Kernel,
            (false, false) => Kind::Host,
        }
    }

    /// Whether a descriptor is the shim's or the client core's own, which the program must not touch.
    pub(crate) fn is_own(&self, fd: i32) -> bool {
        fd >= 0
            && fd as u32 >= self.floor.load(Ordering::Acquire)
            && (fd == self.placeholder() || self.client.owns_fd(fd))
    }

    /// Notes whose a descriptor is from now on.
    pub(crate) fn set(&self, fd: i32, kind: Kind) {
        let on = kind != Kind::Host;
        if kind == Kind::Shadowed {
            SHADOWS.fetch_add(1, Ordering::Release);
        }
        self.shadow.set(fd, kind == Kind::Shadowed);
        if on {
            self.high.fetch_max(fd as u32 + 1, Ordering::AcqRel);
        }
        if self.kernel.set(fd, on) {
            if on {
                self.kernel_fds.fetch_add(1, Ordering::AcqRel);
            } else {
                self.kernel_fds.fetch_sub(1, Ordering::AcqRel);
            }
        }
    }

    /// The host descriptor that stands in for the kernel's.
    pub(crate) fn placeholder(&self) -> i32 {
        self.placeholder.load(Ordering::Acquire)
    }

    /// Sets it.
    pub(crate) fn set_placeholder(&self, fd: i32) {
        self.placeholder.store(fd, Ordering::Release);
    }

    /// The descriptors from `from` on and below `end` that the kernel has, shadows too, in order, as they are when it comes to them.
    pub(crate) fn kernel_fds(&self, from: usize, end: usize) -> impl Iterator<Item = i32> + '_ {
        let end = end.min(self.high.load(Ordering::Acquire) as usize);
        let mut at = from;
        core::iter::from_fn(move || {
            let found = self.kernel.next(at, end)?;
            at = found + 1;
            Some(found as i32)
        })
    }

    /// The kernel that had the shadows is gone.
    pub(crate) fn forget_shadows(&self) {
        for fd in self
            .kernel_fds(0, FD_MAX)
            .filter(|&fd| self.is_shadowed(fd))
        {
            self.set(fd, Kind::Host);
        }
    }

    /// Takes over what another process knows of descriptors and directory, as a child of it begins. The bits of this
    /// one are all clear.
    pub(crate) fn inherit(&self, parent: &Process) {
        let high = parent.high.load(Ordering::Acquire);
        self.high.store(high, Ordering::Relaxed);
        for i in 0..(high as usize).div_ceil(64) {
            for (to, from) in [
                (&self.kernel, &parent.kernel),
                (&self.shadow, &parent.shadow),
            ] {
                to.0[i].store(from.0[i].load(Ordering::Acquire), Ordering::Relaxed);
            }
        }
        self.floor
            .store(parent.floor.load(Ordering::Acquire), Ordering::Relaxed);
        self.set_placeholder(parent.placeholder());
        self.kernel_fds
            .store(parent.kernel_fds.load(Ordering::Acquire), Ordering::Relaxed);
        self.cwd
            .store(parent.cwd.load(Ordering::Acquire), Ordering::Release);
    }
}

/// The process, but for children between vfork and exec.
pub(crate) static MAIN: Process = Process::new();

/// What a thread has for itself, in its thread-local storage; all zero at its start. The entry reads `shift`.
#[repr(C)]
pub(crate) struct Thread {
    /// How many bytes behind [`MAIN`] the thread's [`Process`] lies.
    pub shift: isize,
    /// Where the call that makes a child goes on, in the parent and in the child.
    pub clone_return: u64,
    /// The clone that is under way, of type `process::Cloning`; null for none.
    pub cloning: *mut u8,
    /// What the client core keeps for the thread.
    pub raw: ThreadState,
}

// The variable itself: in the initial-exec model, because a library that is preloaded has its place beside the thread
// pointer from the start, and the general model would call into the loader.
core::arch::global_asm!(
    ".pushsection .tbss.rump_hijack_thread,\"awT\",@nobits",
    ".globl rump_hijack_thread",
    ".hidden rump_hijack_thread",
    ".type rump_hijack_thread,@object",
    ".size rump_hijack_thread, {size}",
    ".balign 64",
    "rump_hijack_thread:",
    ".zero {size}",
    ".popsection",
    size = const size_of::<Thread>(),
);

/// The calling thread's own.
#[inline]
pub(crate) fn thread() -> *mut Thread {
    let at: *mut Thread;
    // SAFETY: reads the offset that the loader filled in and the thread pointer, which every thread has at fs:0.
    unsafe {
        asm!(
            "mov {0}, qword ptr [rip + rump_hijack_thread@GOTTPOFF]",
            "add {0}, qword ptr fs:[0]",
            out(reg) at,
            options(nostack, pure, readonly),
        );
    }
    at
}

/// The client core's state of the calling thread.
pub(crate) fn raw_thread() -> &'static ThreadState {
    // SAFETY: only this thread, and signal handlers on it, use its storage, which outlives all its calls. Nobody holds
    // a unique reference to the field.
    unsafe { &(*thread()).raw }
}

/// The process that the calling thread belongs to.
pub(crate) fn process() -> &'static Process {
    // SAFETY: `shift` leads from MAIN to MAIN itself or to the Process that `process::Cloning` keeps mapped until
    // the thread's shift is 0 again.
    unsafe {
        let shift = (*thread()).shift;
        &*(&raw const MAIN).byte_offset(shift)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_told_apart() {
        let process = unsafe {
            // SAFETY: all zero bytes are a Process that knows nothing, as the shim itself makes them.
            &*crate::sys::map_anon(0, size_of::<Process>(), 0)
                .unwrap()
                .cast::<Process>()
        };
        process.floor.store(900, Ordering::Relaxed);
        for fd in [0, 5, 63, 64, 4096, FD_MAX as i32 - 1] {
            process.set(fd, Kind::Kernel);
            process.set(fd, Kind::Kernel);
            assert!(process.is_kernel(fd) && !process.is_own(fd));
        }
        process.set_placeholder(960);
        assert!(process.is_own(960) && !process.is_kernel(960) && !process.is_own(961));
        assert_eq!(
            process.kernel_fds(1, 4097).collect::<Vec<_>>(),
            [5, 63, 64, 4096]
        );
        process.set(63, Kind::Host);
        assert_eq!(process.kernel_fds.load(Ordering::Relaxed), 5);
        process.set(5, Kind::Shadowed);
        assert!(process.is_shadowed(5) && !process.is_kernel(5));
        let kinds = [Kind::Kernel, Kind::Shadowed, Kind::Host];
        assert_eq!([0, 5, 63].map(|fd| process.kind(fd)), kinds);
        assert_eq!(process.kernel_fds(0, 64).collect::<Vec<_>>(), [0, 5]);
        process.set(5, Kind::Host);
        assert_eq!(process.kernel_fds.load(Ordering::Relaxed), 4);
        assert!(!process.is_kernel(-1) && !process.is_kernel(i32::MAX) && !process.is_kernel(63));
    }

    #[test]
    fn each_thread_has_its_own_state() {
        let here = thread() as usize;
        let there = std::thread::spawn(|| thread() as usize).join().unwrap();
        assert_ne!(here, there);
        assert_eq!(here, thread() as usize);
    }
}

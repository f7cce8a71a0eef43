//! The lwp that runs: "cx".

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use abi::{Errno, UserAddr};
use hypercall::{Clock, Nanos};
use smallvec::SmallVec;
use sync::{Cpu, OnBlock, Wake};

use crate::poll::Watcher;
use crate::usermem::PathBytes;
use crate::{Cred, Kernel, Lwp, OpenFile, Proc, UserMemory};

/// The most bytes of a path name, with its NUL.
pub const PATH_MAX: usize = 4096;

/// Says that this host thread runs in the kernel, on a virtual CPU, as this lwp and for this caller's memory. There
/// is no other way to run kernel code, and no global that says who runs.
///
/// Derefs to [`Cpu`], so it can be given wherever a [`sync::Parker`] is wanted.
pub struct Curlwp<'a> {
    cpu: Cpu<'a>,
    lwp: &'a Arc<Lwp>,
    kernel: &'a Arc<Kernel>,
    mem: &'a dyn UserMemory,
}

impl<'a> Curlwp<'a> {
    /// Takes a virtual CPU for the lwp.
    #[inline]
    pub(crate) fn enter(
        kernel: &'a Arc<Kernel>,
        lwp: &'a Arc<Lwp>,
        mem: &'a dyn UserMemory,
        on_block: Option<OnBlock<'a>>,
    ) -> Curlwp<'a> {
        Curlwp {
            cpu: kernel.cpus().schedule_for(lwp.sleeper(), on_block),
            lwp,
            kernel,
            mem,
        }
    }

    /// The virtual CPU that is held; also the [`sync::Parker`] for locks.
    #[inline]
    pub fn cpu(&self) -> &Cpu<'a> {
        &self.cpu
    }

    /// The kernel.
    #[inline]
    pub fn kernel(&self) -> &'a Arc<Kernel> {
        self.kernel
    }

    /// The lwp.
    #[inline]
    pub fn lwp(&self) -> &'a Arc<Lwp> {
        self.lwp
    }

    /// The lwp's process.
    #[inline]
    pub fn proc(&self) -> &'a Arc<Proc> {
        self.lwp.proc()
    }

    /// The credentials that count: the process's, unless the lwp acts with others.
    #[inline]
    pub fn cred(&self) -> arc_swap::Guard<Arc<Cred>> {
        self.lwp.acting().unwrap_or_else(|| self.proc().cred())
    }

    /// Runs `f` with other credentials than the process's, which it keeps.
    pub fn with_cred<R>(&self, cred: Arc<Cred>, f: impl FnOnce() -> R) -> R {
        struct Restore<'l>(&'l Lwp, Option<Arc<Cred>>);
        impl Drop for Restore<'_> {
            fn drop(&mut self) {
                self.0.act(self.1.take());
            }
        }
        let _restore = Restore(self.lwp, self.lwp.act(Some(cred)));
        f()
    }

    /// The memory of whoever made the present call.
    pub fn memory(&self) -> &'a dyn UserMemory {
        self.mem
    }

    /// Runs `f` as the same lwp with other memory as the caller's: for system calls that code in the kernel makes itself. The virtual CPU
    /// is given up and taken again.
    pub fn with_memory<R>(&self, mem: &dyn UserMemory, f: impl FnOnce(&Curlwp<'_>) -> R) -> R {
        self.unscheduled(|| f(&Curlwp::enter(self.kernel, self.lwp, mem, None)))
    }

    /// Fills a buffer from the caller's memory.
    #[inline]
    pub fn copyin(&self, from: UserAddr, to: &mut [u8]) -> Result<(), Errno> {
        self.mem.copyin(&self.cpu, from, to)
    }

    /// Writes to the caller's memory.
    #[inline]
    pub fn copyout(&self, from: &[u8], to: UserAddr) -> Result<(), Errno> {
        self.mem.copyout(&self.cpu, from, to)
    }

    /// A path name from the caller's memory. `ENAMETOOLONG` beyond [`PATH_MAX`].
    #[inline]
    pub fn copyin_path(&self, from: UserAddr) -> Result<PathBytes, Errno> {
        let mut path = SmallVec::new();
        self.mem
            .copyinstr(&self.cpu, from, PATH_MAX - 1, &mut path)?;
        Ok(path)
    }

    /// A string of at most `max` bytes from the caller's memory.
    pub fn copyin_str(&self, from: UserAddr, max: usize) -> Result<PathBytes, Errno> {
        let mut text = SmallVec::new();
        self.mem.copyinstr(&self.cpu, from, max, &mut text)?;
        Ok(text)
    }

    /// The open file of a descriptor of this process.
    #[inline]
    pub fn file(&self, fd: i32) -> Result<Arc<OpenFile>, Errno> {
        self.proc().fds().get(fd)
    }

    /// Makes a descriptor for an open file: the one the lwp was told to use, else the lowest free one.
    pub fn install(&self, file: Arc<OpenFile>, cloexec: bool) -> Result<i32, Errno> {
        let limit = self.proc().fd_limit(self);
        if let Some(fd) = self.lwp.take_fd_hint() {
            let fds = self.proc().fds();
            if let Some(old) = fds.install_at(self, file, fd, crate::fd::FD_MAX, cloexec)? {
                crate::fd::release(self, &old);
            }
            return Ok(fd);
        }
        self.proc().fds().install(self, file, 0, limit, cloexec)
    }

    /// The present time of a clock.
    #[inline]
    pub fn now(&self, clock: Clock) -> Nanos {
        self.kernel.host().now(clock)
    }

    /// tsleep: sleeps until [`wakeup`](Self::wakeup) of the identity. `EWOULDBLOCK` after `timeout` nanoseconds, `EINTR`.
    pub fn tsleep(
        &self,
        ident: usize,
        wmesg: &'static str,
        timeout: Option<Nanos>,
    ) -> Result<(), Errno> {
        let now = self.now(Clock::Monotonic);
        let deadline = timeout.map(|span| now.saturating_add(span));
        match self
            .kernel
            .sleepq()
            .tsleep(&self.cpu, ident, wmesg, deadline)
        {
            Wake::Woken => Ok(()),
            Wake::TimedOut => Err(Errno::EWOULDBLOCK),
            Wake::Interrupted => Err(Errno::EINTR),
        }
    }

    /// Wakes everybody who sleeps on the identity; answers how many.
    pub fn wakeup(&self, ident: usize) -> usize {
        self.kernel.sleepq().wakeup(&self.cpu, ident)
    }

    /// Sleeps without a condition: until the deadline on the monotonic clock, or an interrupt (`EINTR`).
    pub fn sleep_until(&self, deadline: Nanos) -> Result<(), Errno> {
        let sleeper = self.cpu.sleeper();
        sleeper.prepare(true);
        self.cpu.cpus().host().waits_for("nanoslp");
        match sleeper.sleep(&self.cpu, Some(deadline)) {
            Wake::Interrupted => Err(Errno::EINTR),
            Wake::TimedOut | Wake::Woken => Ok(()),
        }
    }

    /// [`UserMemory::waits_by`]; `None` also where the lwp has duties in its sleep, because the kernel has no threads.
    pub(crate) fn waits_by(&self, deadline: Option<Nanos>) -> Option<Arc<dyn Watcher>> {
        if self.kernel.is_threadless() {
            return None;
        }
        self.memory().waits_by(deadline)
    }

    /// How long a wait may last until something is due that only this lwp can do, because the kernel has no threads:
    /// then [`Kernel::serve_all`] is to be called.
    pub(crate) fn until_due(&self, deadline: Option<Nanos>) -> Option<Nanos> {
        if !self.kernel.is_threadless() {
            return deadline;
        }
        let due = self.kernel.timers().service().next();
        [deadline, due].into_iter().flatten().min()
    }

    /// Writes a line to the message buffer and, when the kernel is verbose, to the console.
    pub fn log(&self, line: fmt::Arguments<'_>) {
        self.kernel.log(line);
    }
}

impl<'a> Deref for Curlwp<'a> {
    type Target = Cpu<'a>;
    #[inline]
    fn deref(&self) -> &Cpu<'a> {
        &self.cpu
    }
}

//! A process of a remote kernel, as its own process sees it.

use abi::Errno;

use super::{Cookie, ThreadState, Watch};

/// A process of a remote kernel. One for the whole process, usually a `static`; every method may be called by
/// several threads at once and, where it says so, from signal handlers.
pub struct Client {
    _private: (),
}

impl Client {
    /// A client that is connected to nothing: calls answer `-ENOTCONN`.
    pub const fn new() -> Client {
        Client { _private: () }
    }

    /// Becomes a new process of the server at `url`, named `comm`. `flags`: 0 or [`super::GUEST_CONSOLE`].
    ///
    /// `EINVAL` for a URL that names no server ([`super::Url::parse`] says why), what connect(2) says, `EPROTONOSUPPORT`
    /// when the server speaks something else, `EISCONN` when there is a connection already.
    pub fn connect(
        &self,
        ts: &ThreadState,
        url: &[u8],
        comm: &[u8],
        flags: u32,
    ) -> Result<(), Errno> {
        let _ = (ts, url, comm, flags);
        Err(Errno::ENOSYS)
    }

    /// Makes a system call of the kernel. Answers what a Linux kernel does: a value, or -errno. Memory that the
    /// registers name and that is not there gives `-EFAULT`. A signal handler without `SA_RESTART` that runs
    /// meanwhile ends it with `-EINTR` if it sleeps in the kernel; poll, select, epoll and nanosleep by any handler.
    ///
    /// `-ENOTCONN` when the server is gone. May be called from a signal handler, also one that interrupts a call.
    pub fn call(&self, ts: &ThreadState, nr: u32, args: &[u64; 6]) -> i64 {
        self.call_hinted(ts, nr, args, [-1, -1])
    }

    /// [`call`](Self::call), with numbers for the descriptors that it makes; -1 for the lowest free.
    pub fn call_hinted(&self, ts: &ThreadState, nr: u32, args: &[u64; 6], hints: [i32; 2]) -> i64 {
        let _ = (ts, nr, args, hints);
        -i64::from(Errno::ENOSYS.0)
    }

    /// Before fork(2), in the parent: makes the child's process in the kernel, with a copy of the descriptors.
    pub fn prefork(&self, ts: &ThreadState) -> Result<Cookie, Errno> {
        let _ = ts;
        Err(Errno::ENOSYS)
    }

    /// The fork failed: releases what [`prefork`](Self::prefork) made.
    pub fn prefork_cancel(&self, ts: &ThreadState, cookie: Cookie) -> Result<(), Errno> {
        let _ = (ts, cookie);
        Err(Errno::ENOSYS)
    }

    /// In the child: becomes the process that [`prefork`](Self::prefork) made. `self` and `ts` are the child's copies of
    /// the parent's (or fresh ones where memory is shared); the parent's connection is closed here *after* the new one
    /// stands, because the cookie lives as long as any copy of the parent's connection.
    pub fn connect_fork(&self, ts: &ThreadState, url: &[u8], cookie: Cookie) -> Result<(), Errno> {
        let _ = (ts, url, cookie);
        Err(Errno::ENOSYS)
    }

    /// Before execve(2): writes what [`after_exec`](Self::after_exec) needs into `to`, as text without NUL, for the
    /// environment variable `RUMPCLIENT__EXECFD`; answers its length. Lets the connection's descriptor stay open over
    /// exec until [`exec_cancel`](Self::exec_cancel).
    pub fn exec_prepare(&self, to: &mut [u8]) -> Result<usize, Errno> {
        let _ = to;
        Err(Errno::ENOSYS)
    }

    /// The execve failed: the connection's descriptor closes on exec again.
    pub fn exec_cancel(&self) {}

    /// In the new program: goes on as the process of the old one, named `comm`. Descriptors with close-on-exec are
    /// closed in the kernel. `handover` is the value of `RUMPCLIENT__EXECFD`.
    pub fn after_exec(
        &self,
        ts: &ThreadState,
        url: &[u8],
        handover: &[u8],
        comm: &[u8],
    ) -> Result<(), Errno> {
        let _ = (ts, url, handover, comm);
        Err(Errno::ENOSYS)
    }

    /// Fills `buf` with the open descriptors of the process in the kernel, by number; answers how many there are.
    pub fn fdinfo(&self, ts: &ThreadState, buf: &mut [abi::Fdinfo]) -> Result<usize, Errno> {
        let _ = (ts, buf);
        Err(Errno::ENOSYS)
    }

    /// Fills `revents` of each watch with what is ready now, and answers how many have any, and a host descriptor
    /// that becomes readable (`POLLIN`) when that may have changed: so a thread can wait in one host poll(2) for host
    /// and kernel descriptors. Replaces what this thread watched before. Does not block.
    ///
    /// The descriptor belongs to the core and stays the same for the thread; [`pollwatch_clear`](Self::pollwatch_clear)
    /// makes it unreadable again.
    pub fn pollwatch(
        &self,
        ts: &ThreadState,
        watches: &mut [Watch],
    ) -> Result<(usize, i32), Errno> {
        let _ = (ts, watches);
        Err(Errno::ENOSYS)
    }

    /// Reads away what made the readiness descriptor readable. Call it before looking again with `pollwatch`.
    pub fn pollwatch_clear(&self, ts: &ThreadState) {
        let _ = ts;
    }

    /// Forgets what this thread watches.
    pub fn pollwatch_end(&self, ts: &ThreadState) {
        let _ = ts;
    }

    /// The thread ends: gives its ring back and closes its descriptors. It may make calls again, as a new thread.
    pub fn thread_exit(&self, ts: &ThreadState) {
        let _ = ts;
    }

    /// Has the core keep its host descriptors at numbers from `min` on, out of the program's way. Call it before connecting.
    pub fn set_fd_floor(&self, min: i32) {
        let _ = min;
    }

    /// Whether a host descriptor is one of the core's own, which the program must not close or replace.
    pub fn owns_fd(&self, fd: i32) -> bool {
        let _ = fd;
        false
    }

    /// Memory of this process has been unmapped or protected (munmap, mremap, mprotect, mmap over something, brk down):
    /// what the core knows of good addresses is forgotten. To be called after each such call of the program.
    pub fn memory_changed(&self) {}
}

impl Default for Client {
    fn default() -> Self {
        Client::new()
    }
}

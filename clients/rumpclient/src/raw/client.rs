//! A process of a remote kernel, as its own process sees it.

use core::cell::UnsafeCell;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU32, Ordering};

use abi::sysproxy::{
    Cookie, ForkBody, Handshake, HandshakeReply, Kind, MAX_COMM, NR_POLLWATCH, Url, Watch,
};
use abi::{Errno, Fdinfo, nr};

use super::handshake::{self, connect, shake};
use super::link::Link;
use super::mem::{Lent, Memory};
use super::request::Call;
use super::ring::Beside;
use super::sys;
use super::thread::{Block, ThreadState};

/// Calls that a thread makes before it gets a ring: a short program has no use for one.
const BEFORE_RING: u32 = 3;
/// Readiness connections that are known by number.
const READY: usize = 256;
/// The longest URL.
const URL: usize = 128;

/// A process of a remote kernel. One for the whole process, usually a `static`; every method may be called by
/// several threads at once and, where it says so, from signal handlers.
pub struct Client {
    /// The connection, until there is a newer one: a thread may be at any point of one that is gone, so that stays.
    first: Link,
    newest: AtomicPtr<Link>,
    /// Held while a connection is made anew.
    renewing: AtomicU32,
    /// How often that was done. What threads keep of an older connection is not used.
    generation: AtomicU32,
    /// Serializes connecting and what goes with it.
    url: UnsafeCell<([u8; URL], usize)>,
    session: [AtomicU32; 4],
    pid: AtomicI32,
    local: AtomicBool,
    fd_floor: AtomicI32,
    epoch: AtomicU32,
    /// Descriptors of readiness connections, plus one.
    ready: [AtomicI32; READY],
}

// SAFETY: `url` is written only while connecting, when no other method runs, and read after that.
unsafe impl Sync for Client {}

impl Client {
    /// A client that is connected to nothing: calls answer `-ENOTCONN`.
    pub const fn new() -> Client {
        Client {
            first: Link::new(),
            newest: AtomicPtr::new(ptr::null_mut()),
            renewing: AtomicU32::new(0),
            generation: AtomicU32::new(0),
            url: UnsafeCell::new(([0; URL], 0)),
            session: [const { AtomicU32::new(0) }; 4],
            pid: AtomicI32::new(0),
            local: AtomicBool::new(false),
            fd_floor: AtomicI32::new(0),
            epoch: AtomicU32::new(0),
            ready: [const { AtomicI32::new(0) }; READY],
        }
    }

    /// Becomes a new process of the server at `url`, named `comm`. `flags`: 0 or [`super::GUEST_CONSOLE`]. To be called by
    /// one thread, before the others make calls.
    ///
    /// `EINVAL` for a URL that names no server ([`super::Url::parse`] says why), what connect(2) says, `EPROTONOSUPPORT`
    /// when the server speaks something else, `EISCONN` when there is a connection already, `EPERM` when the server does
    /// not serve this user.
    pub fn connect(
        &self,
        _ts: &ThreadState,
        url: &[u8],
        comm: &[u8],
        flags: u32,
    ) -> Result<(), Errno> {
        if self.link().socket().is_some() && !self.link().is_dead() {
            return Err(Errno::EISCONN);
        }
        self.set_url(url)?;
        let mut body = [0; MAX_COMM + 5];
        let len = handshake::comm_body(comm, &flags.to_le_bytes(), &mut body);
        let (fd, reply) = self.join(Handshake::Guest, &body[..len])?;
        self.established(fd, &reply);
        Ok(())
    }

    #[inline]
    fn link(&self) -> &Link {
        // SAFETY: null, or what `renew` has put there, which stays.
        unsafe { self.newest.load(Ordering::Acquire).as_ref() }.unwrap_or(&self.first)
    }

    /// The server is gone: becomes a new process, named `comm`, of a server at the same URL, while other threads may be in calls, which
    /// end with `-ENOTCONN`. Nothing when another thread was faster. What the old process had is gone with it.
    pub fn renew(&self, comm: &[u8]) -> Result<(), Errno> {
        while self.renewing.swap(1, Ordering::Acquire) != 0 {
            let _ = sys::futex_wait(&self.renewing, 1, false, Some(1));
        }
        let result = match self.is_connected() {
            true => Ok(()),
            false => self.renew_alone(comm),
        };
        self.renewing.store(0, Ordering::Release);
        sys::futex_wake(&self.renewing, u32::MAX >> 1, false);
        result
    }

    fn renew_alone(&self, comm: &[u8]) -> Result<(), Errno> {
        const SIZE: usize = size_of::<Link>().next_multiple_of(4096);
        let mut body = [0; MAX_COMM + 5];
        let len = handshake::comm_body(comm, &[0; 4], &mut body);
        let (fd, reply) = self.join(Handshake::Guest, &body[..len])?;
        let space = sys::map(SIZE).inspect_err(|_| sys::close(fd))?;
        // The old socket stays open: another thread may be about to use its number.
        self.generation.fetch_add(1, Ordering::AcqRel);
        // Fresh zeroed memory of that size, for which all zero is valid.
        self.newest.store(space.cast(), Ordering::Release);
        self.established(fd, &reply);
        Ok(())
    }

    /// The number of the process in the kernel; 0 before there is one.
    pub fn pid(&self) -> i32 {
        self.pid.load(Ordering::Relaxed)
    }

    /// Whether there is a connection, as far as is known.
    pub fn is_connected(&self) -> bool {
        self.link().socket().is_some() && !self.link().is_dead()
    }

    /// The URL of the server, with an absolute path: good after chdir(2). Empty before there is one.
    pub fn url(&self) -> &[u8] {
        // SAFETY: written only while connecting.
        let (bytes, len) = unsafe { &*self.url.get() };
        &bytes[..*len]
    }

    /// Makes a system call of the kernel. Answers what a Linux kernel does: a value, or -errno. Memory that the
    /// registers name and that is not there gives `-EFAULT`. A signal handler without `SA_RESTART` that runs
    /// meanwhile ends it with `-EINTR` if it sleeps in the kernel; poll, select, epoll and nanosleep by any handler.
    ///
    /// `-ENOTCONN` when the server is gone. May be called from a signal handler, also one that interrupts a call, and
    /// the handler may leave that call by a jump.
    #[inline]
    pub fn call(&self, ts: &ThreadState, nr: u32, args: &[u64; 6]) -> i64 {
        self.call_hinted(ts, nr, args, [-1, -1])
    }

    /// [`call`](Self::call), with numbers for the descriptors that it makes; -1 for the lowest free.
    pub fn call_hinted(&self, ts: &ThreadState, nr: u32, args: &[u64; 6], hints: [i32; 2]) -> i64 {
        let call = Call {
            nr,
            args: *args,
            hints,
        };
        self.call_with(ts, &call, None)
    }

    /// A call that may reach only the memory that is lent.
    pub(crate) fn call_lent(
        &self,
        ts: &ThreadState,
        nr: u32,
        args: &[u64; 6],
        lent: &[Lent],
    ) -> i64 {
        let call = Call {
            nr,
            args: *args,
            hints: [-1, -1],
        };
        self.call_with(ts, &call, Some(lent))
    }

    /// A call that may sleep, by a thread that sleeps for something of the host's too: in `sleep`, which is given the descriptor
    /// that becomes readable when there is an answer, and ends when it does (true), or when the call is to end with `-EINTR`
    /// (false) if it sleeps in the kernel still. `None` when the thread has no ring and so cannot.
    pub fn call_beside(
        &self,
        ts: &ThreadState,
        nr: u32,
        args: &[u64; 6],
        sleep: &mut dyn FnMut(i32) -> bool,
    ) -> Option<i64> {
        if !ts.existing().is_some_and(|block| block.ring.is_open()) {
            return None;
        }
        let (bell, number) = self.ready(ts).ok()?;
        let call = Call {
            nr,
            args: *args,
            hints: [-1, -1],
        };
        let mut sleep = || sleep(bell);
        let beside = Beside {
            number,
            sleep: &mut sleep,
        };
        Some(self.call_waiting(ts, &call, None, Some(beside)))
    }

    fn call_with(&self, ts: &ThreadState, call: &Call, lent: Option<&[Lent]>) -> i64 {
        self.call_waiting(ts, call, lent, None)
    }

    #[inline]
    fn call_waiting(
        &self,
        ts: &ThreadState,
        call: &Call,
        lent: Option<&[Lent]>,
        beside: Option<Beside<'_>>,
    ) -> i64 {
        let entry = ts.enter();
        if entry.is_nested() {
            return self.nested(call, lent);
        }
        let block = match ts.block() {
            Ok(block) => block,
            Err(errno) => return -i64::from(errno.0),
        };
        if entry.left {
            self.recover(ts, block);
        }
        let memory = Memory::new(&block.pages, &self.epoch, lent);
        if !block.ring.is_open() && self.wants_ring(block) {
            block.ring.attach(self.link(), block, memory);
        }
        if block.ring.is_open() {
            if !block.ring.leases.is_empty()
                && let Some(answer) = block.ring.ahead(memory, call)
            {
                return answer;
            }
            // Without an answer: the server is gone, or has done with this process. What became of the call nobody knows.
            return block
                .ring
                .call(self.link(), block, memory, call, beside)
                .unwrap_or_else(|_| {
                    // The socket tells which of the two.
                    self.link().drain(block);
                    -i64::from(Errno::ENOTCONN.0)
                });
        }
        self.link().call(block, memory, call)
    }

    fn wants_ring(&self, block: &Block) -> bool {
        if !self.local.load(Ordering::Relaxed) || block.ring.is_refused() {
            return false;
        }
        block.calls.set(block.calls.get().saturating_add(1));
        block.calls.get() > BEFORE_RING
    }

    /// A call from a signal handler that has interrupted another call of this thread: goes over a connection of its own,
    /// because the other may be at any point.
    #[cold]
    fn nested(&self, call: &Call, lent: Option<&[Lent]>) -> i64 {
        struct Nested {
            block: Block,
            link: Link,
        }
        const SIZE: usize = size_of::<Nested>().next_multiple_of(4096);
        let run = || -> Result<i64, Errno> {
            let (fd, _) = self.join(Handshake::Join, &self.session().encode())?;
            let space = sys::map(SIZE).inspect_err(|_| sys::close(fd))?;
            // SAFETY: fresh zeroed memory of that size, for which all zero is valid; only this call has it.
            let nested = unsafe { &*space.cast::<Nested>() };
            nested.link.open(fd);
            let memory = Memory::new(&nested.block.pages, &self.epoch, lent);
            let result = nested.link.call(&nested.block, memory, call);
            sys::close(fd);
            // SAFETY: nothing borrowed from it is used any more.
            unsafe { sys::unmap(space, SIZE) };
            Ok(result)
        };
        run().unwrap_or_else(|errno| -i64::from(errno.0))
    }

    /// The outer call was left by a jump: gives up what it had.
    #[cold]
    fn recover(&self, ts: &ThreadState, block: &Block) {
        ts.restart();
        self.link().recover(block);
        // The ring may have a call on it still.
        if block.ring.is_open() {
            block.ring.detach(self.link(), block);
        }
    }

    /// Before fork(2), in the parent: makes the child's process in the kernel, with a copy of the descriptors.
    pub fn prefork(&self, ts: &ThreadState) -> Result<Cookie, Errno> {
        let (body, len) = self.request(ts, Kind::Prefork, 0, &[])?;
        Cookie::decode(&body[..len]).map_err(|_| Errno::EPROTO)
    }

    /// The fork failed: releases what [`prefork`](Self::prefork) made.
    pub fn prefork_cancel(&self, ts: &ThreadState, cookie: Cookie) -> Result<(), Errno> {
        let body = ForkBody {
            cookie,
            cancel: true,
        };
        self.request(ts, Kind::Handshake, Handshake::Fork as u32, &body.encode())
            .map(|_| ())
    }

    fn request(
        &self,
        ts: &ThreadState,
        kind: Kind,
        word: u32,
        body: &[u8],
    ) -> Result<([u8; super::link::SMALL], usize), Errno> {
        let entry = ts.enter();
        if entry.is_nested() {
            return Err(Errno::EBUSY);
        }
        let block = ts.block()?;
        if entry.left {
            self.recover(ts, block);
        }
        let memory = Memory::new(&block.pages, &self.epoch, None);
        self.link().request(block, memory, kind, word, body, None)
    }

    /// In the child: becomes the process that [`prefork`](Self::prefork) made. `self` and `ts` are the child's copies of
    /// the parent's (or fresh ones where memory is shared); the parent's connection is closed here *after* the new one
    /// stands, because the cookie lives as long as any copy of the parent's connection. The child must have one thread.
    pub fn connect_fork(&self, ts: &ThreadState, url: &[u8], cookie: Cookie) -> Result<(), Errno> {
        self.set_url(url)?;
        ts.reset();
        if let Some(block) = ts.existing() {
            block.ring.forget();
            block.ready.set((0, 0));
            block.slot.set(0);
            block.holds.set(0);
        }
        let body = ForkBody {
            cookie,
            cancel: false,
        };
        let joined = self.join(Handshake::Fork, &body.encode());
        for ready in &self.ready {
            close_counted(ready);
        }
        let old = self.link().take_socket();
        if let Ok((fd, reply)) = &joined {
            self.established(*fd, reply);
        }
        if let Some(old) = old {
            sys::close(old);
        }
        joined.map(|_| ())
    }

    /// Before execve(2): writes what [`after_exec`](Self::after_exec) needs into `to`, as text without NUL, for the
    /// environment variable `RUMPCLIENT__EXECFD`; answers its length. Lets the connection's descriptor stay open over
    /// exec until [`exec_cancel`](Self::exec_cancel).
    pub fn exec_prepare(&self, to: &mut [u8]) -> Result<usize, Errno> {
        let fd = self.link().socket().ok_or(Errno::ENOTCONN)?;
        let len = handshake::write_handover(fd, self.session(), to).ok_or(Errno::ERANGE)?;
        sys::fcntl(fd, abi::F_SETFD, 0)?;
        Ok(len)
    }

    /// The execve failed: the connection's descriptor closes on exec again.
    pub fn exec_cancel(&self) {
        if let Some(fd) = self.link().socket() {
            let _ = sys::fcntl(fd, abi::F_SETFD, abi::FD_CLOEXEC as u64);
        }
    }

    /// In the new program: goes on as the process of the old one, named `comm`. Descriptors with close-on-exec are
    /// closed in the kernel. `handover` is the value of `RUMPCLIENT__EXECFD`.
    pub fn after_exec(
        &self,
        _ts: &ThreadState,
        url: &[u8],
        handover: &[u8],
        comm: &[u8],
    ) -> Result<(), Errno> {
        let (old, session) = handshake::read_handover(handover).ok_or(Errno::EINVAL)?;
        self.set_url(url)?;
        let mut body = [0; MAX_COMM + 1 + Cookie::SIZE];
        let len = handshake::comm_body(comm, &session.encode(), &mut body);
        // The old connection keeps the process alive until the new one stands.
        let joined = self.join(Handshake::Exec, &body[..len]);
        sys::close(old);
        let (fd, reply) = joined?;
        self.established(fd, &reply);
        Ok(())
    }

    /// Fills `buf` with the open descriptors of the process in the kernel, by number; answers how many there are.
    pub fn fdinfo(&self, ts: &ThreadState, buf: &mut [Fdinfo]) -> Result<usize, Errno> {
        const AT_ONCE: usize = 64;
        let mut raw = [0u8; AT_ONCE * Fdinfo::SIZE];
        let mut total = AT_ONCE;
        if buf.len() <= AT_ONCE {
            total = self.getfdinfo(ts, raw.as_mut_ptr(), buf.len() * Fdinfo::SIZE)?;
            for (to, from) in buf
                .iter_mut()
                .zip(raw.chunks_exact(Fdinfo::SIZE))
                .take(total)
            {
                *to = from
                    .try_into()
                    .map_or(Fdinfo::default(), Fdinfo::from_bytes);
            }
            return Ok(total);
        }
        // A longer table is filled where it is: its records have the layout of the wire.
        const { assert!(size_of::<Fdinfo>() == Fdinfo::SIZE) };
        let bytes = size_of_val(buf);
        self.getfdinfo(ts, buf.as_mut_ptr().cast(), bytes)
            .inspect(|&n| total = n)
    }

    fn getfdinfo(&self, ts: &ThreadState, at: *mut u8, bytes: usize) -> Result<usize, Errno> {
        let result = self.call(ts, nr::getfdinfo, &[at as u64, bytes as u64, 0, 0, 0, 0]);
        usize::try_from(result).map_err(|_| Errno(result.wrapping_neg() as i32))
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
        let (fd, number) = self.ready(ts)?;
        ts.block()?.watching.set(0);
        const { assert!(size_of::<Watch>() == Watch::SIZE) };
        let (at, count) = (watches.as_mut_ptr() as u64, watches.len() as u64);
        let result = self.call(ts, NR_POLLWATCH, &[u64::from(number), at, count, 0, 0, 0]);
        match usize::try_from(result) {
            Ok(ready) => Ok((ready, fd)),
            Err(_) => Err(Errno(result.wrapping_neg() as i32)),
        }
    }

    /// The thread's readiness connection, if it has one of the present process.
    fn ready_of(&self, block: &Block) -> (i32, u32) {
        let generation = self.generation.load(Ordering::Acquire);
        if block.generation.replace(generation) != generation {
            self.give_up_ready(block);
        }
        block.ready.get()
    }

    fn give_up_ready(&self, block: &Block) {
        block.watching.set(0);
        let (fd, _) = block.ready.replace((0, 0));
        let is_it = |slot: &&AtomicI32| fd != 0 && slot.load(Ordering::Relaxed) == fd;
        if let Some(slot) = self.ready.iter().find(is_it) {
            close_counted(slot);
        }
    }

    /// The thread's readiness connection, made when there is none.
    fn ready(&self, ts: &ThreadState) -> Result<(i32, u32), Errno> {
        let block = ts.block()?;
        let (fd, number) = self.ready_of(block);
        if fd != 0 {
            return Ok((fd - 1, number));
        }
        let (fd, reply) = self.join(Handshake::Ready, &self.session().encode())?;
        let free = |slot: &&AtomicI32| {
            slot.compare_exchange(0, fd + 1, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
        };
        if self.ready.iter().find(free).is_none() {
            sys::close(fd);
            return Err(Errno::EMFILE);
        }
        block.ready.set((fd + 1, reply.connection));
        Ok((fd, reply.connection))
    }

    /// The number of the process that serves the kernel, when it is on this host.
    pub fn server_pid(&self) -> Option<i32> {
        let pid = self.link().socket().map_or(0, sys::peer_pid);
        (pid > 0).then_some(pid)
    }

    /// Notes under a name of the caller's, which is not 0, that what [`pollwatch`](Self::pollwatch) was told last stays watched
    /// over later calls, having found nothing ready.
    pub fn pollwatch_keep(&self, ts: &ThreadState, name: u64) {
        if let Some(block) = ts.existing() {
            block.watching.set(name);
        }
    }

    /// The readiness descriptor, if what was kept under that name is still watched and has not made it readable yet as far as
    /// this thread knows.
    pub fn pollwatch_kept(&self, ts: &ThreadState, name: u64) -> Option<i32> {
        let block = ts.existing()?;
        let (fd, _) = self.ready_of(block);
        (fd != 0 && block.watching.get() == name).then(|| fd - 1)
    }

    /// From now on the process may make few calls of its host, seccomp(2): the core waits by plain futex(2), and takes addresses
    /// for good that it would have to ask about, so a wrong one is the end of the process instead of `EFAULT`. Children inherit it.
    pub fn confine(&self) {
        sys::confine();
    }

    /// Reads away what made the readiness descriptor readable. Call it before looking again with `pollwatch`.
    pub fn pollwatch_clear(&self, ts: &ThreadState) {
        let Some((fd, _)) = ts.existing().map(|b| self.ready_of(b)).filter(|r| r.0 != 0) else {
            return;
        };
        if let Some(block) = ts.existing() {
            block.watching.set(0);
        }
        let mut bytes = [0u8; 64];
        // SAFETY: our own buffer.
        while let Ok(64) = unsafe { sys::recv(fd - 1, bytes.as_mut_ptr(), 64, sys::MSG_DONTWAIT) } {
        }
    }

    /// Forgets what this thread watches.
    pub fn pollwatch_end(&self, ts: &ThreadState) {
        if ts.existing().is_some_and(|b| self.ready_of(b).0 != 0) {
            let _ = self.pollwatch(ts, &mut []);
            self.pollwatch_clear(ts);
        }
    }

    /// The thread ends: gives its ring back and closes its descriptors. It may make calls again, as a new thread.
    pub fn thread_exit(&self, ts: &ThreadState) {
        let Some(block) = ts.existing() else {
            return;
        };
        // A thread that was cancelled ends in the middle of a call.
        self.link().recover(block);
        block.ring.detach(self.link(), block);
        self.give_up_ready(block);
        ts.free();
    }

    /// A child that ran in this process's memory (vfork) has gone to its own program or ended: gives the memory back that the
    /// core took for its thread. Its descriptors and its connection went with it.
    pub fn thread_discard(ts: &ThreadState) {
        if let Some(block) = ts.existing() {
            block.ring.discard();
        }
        ts.free();
    }

    /// Ends the process in the kernel: closes the connection. No call may be under way.
    pub fn disconnect(&self) {
        for ready in &self.ready {
            close_counted(ready);
        }
        if let Some(fd) = self.link().take_socket() {
            sys::close(fd);
        }
        self.pid.store(0, Ordering::Relaxed);
    }

    /// Ends the process in the kernel at once, while calls are under way: they end with `-ENOTCONN` or `-EINTR`.
    pub fn hang_up(&self) {
        if let Some(fd) = self.link().socket() {
            sys::shutdown(fd);
        }
    }

    /// Has the core keep its host descriptors at numbers from `min` on, out of the program's way. Call it before connecting.
    pub fn set_fd_floor(&self, min: i32) {
        self.fd_floor.store(min, Ordering::Relaxed);
    }

    /// The host descriptor of the connection, while there is one.
    pub fn socket(&self) -> Option<i32> {
        self.link().socket()
    }

    /// Whether a host descriptor is one of the core's own, which the program must not close or replace.
    pub fn owns_fd(&self, fd: i32) -> bool {
        self.socket() == Some(fd)
            || (fd >= 0
                && self
                    .ready
                    .iter()
                    .any(|r| r.load(Ordering::Relaxed) == fd + 1))
    }

    /// Memory of this process has been unmapped or protected (munmap, mremap, mprotect, mmap over something, brk down):
    /// what the core knows of good addresses is forgotten. To be called after each such call of the program.
    #[inline]
    pub fn memory_changed(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// Says whether the server gives each thread a ring; true at first. Without, every call goes over the socket.
    pub fn use_rings(&self, on: bool) {
        self.local
            .store(on && self.url().starts_with(b"unix://"), Ordering::Relaxed);
    }

    fn session(&self) -> Cookie {
        Cookie(core::array::from_fn(|i| {
            self.session[i].load(Ordering::Relaxed)
        }))
    }

    fn set_url(&self, url: &[u8]) -> Result<(), Errno> {
        let parsed = Url::parse(url).map_err(|_| Errno::EINVAL)?;
        // SAFETY: this is connecting, when no other method runs.
        let (bytes, len) = unsafe { &mut *self.url.get() };
        if bytes.get(..*len) != Some(url) {
            *len = handshake::absolute(&parsed, url, bytes).ok_or(Errno::ENAMETOOLONG)?;
        }
        self.local.store(parsed.is_local(), Ordering::Relaxed);
        Ok(())
    }

    /// A new connection with its handshake done, and its descriptor out of the way.
    fn join(&self, word: Handshake, body: &[u8]) -> Result<(i32, HandshakeReply), Errno> {
        let url = Url::parse(self.url()).map_err(|_| Errno::ENOTCONN)?;
        let fd = connect(&url)?;
        let floor = self.fd_floor.load(Ordering::Relaxed);
        let fd = if fd < floor {
            let moved = sys::fcntl(fd, abi::F_DUPFD_CLOEXEC, floor as u64);
            sys::close(fd);
            moved? as i32
        } else {
            fd
        };
        match shake(fd, word, body) {
            Ok(reply) => Ok((fd, reply)),
            Err(errno) => {
                sys::close(fd);
                Err(errno)
            }
        }
    }

    fn established(&self, fd: i32, reply: &HandshakeReply) {
        for (slot, word) in self.session.iter().zip(reply.session.0) {
            slot.store(word, Ordering::Relaxed);
        }
        self.pid.store(reply.pid, Ordering::Relaxed);
        self.link().open(fd);
    }
}

fn close_counted(slot: &AtomicI32) {
    let fd = slot.swap(0, Ordering::AcqRel);
    if fd != 0 {
        sys::close(fd - 1);
    }
}

impl Default for Client {
    fn default() -> Self {
        Client::new()
    }
}

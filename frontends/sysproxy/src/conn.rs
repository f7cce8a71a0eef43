//! One connection: its frames in and out.
//!
//! Reading is a role that one thread has at a time. Between requests the reader waits in recv(2) itself, which is the
//! cheapest way to be woken; when a call that it runs is about to block it lays the role down and has epoll watch the
//! socket, so that a request that arrives meanwhile is read by another worker. After the call it takes the role up again,
//! unless somebody has.
//!
//! Writing never waits. What the socket does not take is queued, and a second descriptor of the socket is armed in epoll
//! for when it takes more. A client that lets the queue grow is not read from until it has shrunk; one that lets it
//! grow further is dropped.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use abi::Errno;
use abi::sysproxy::{Class, Company, CopyData, HEADER, Header, Kind, MAX_BODY, MAX_INLINE};
use kern::poll::Watcher;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags};

use crate::client::{Client, Slot};

/// Queued output beyond which no more requests are read, in bytes.
const QUEUE_HIGH: usize = 4 << 20;
/// Queued output beyond which a client is dropped, in bytes. One reply more than fits must fit.
const QUEUE_MAX: usize = 4 * MAX_BODY;
/// How long a call waits for a client that was asked for memory, or that does not take its data.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// How long a reader stays with a quiet connection before it leaves it to epoll.
pub(crate) const LINGER: Duration = Duration::from_millis(200);
/// What one recv(2) asks for at least, in bytes.
const READ: usize = 16 << 10;
/// What is read ahead at most for a frame that is announced, in bytes: nobody gets memory for a promise.
const READ_AHEAD: usize = 256 << 10;
/// Descriptors that a connection may have sent ahead of the frames that use them.
const MAX_FDS: usize = 4;

/// Nobody reads; epoll watches, or a reader is on its way.
const ARMED: u8 = 0;
/// A thread reads.
const HELD: u8 = 1;
/// Nobody reads until the output queue has shrunk.
const PAUSED: u8 = 2;

/// Set in the epoll datum of a connection's output side.
pub(crate) const OUTPUT: u64 = 1 << 32;

/// A lock whose holder does not panic half-way; if one did, the data is good enough to go down with.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is done with a connection's place in epoll.
#[derive(Clone, Copy)]
enum Epoll {
    Add,
    Modify,
}

/// One connection. Locks: `input` belongs to the reader; `output` and `watcher` are leaves.
pub(crate) struct Conn {
    pub(crate) id: u32,
    socket: OwnedFd,
    /// Whether the peer is on this machine and descriptors can be passed.
    pub(crate) local: bool,
    /// Whether the peer is this process's own user on this machine, who may do to the host what the server may.
    pub(crate) trusted: bool,
    epoll: Arc<OwnedFd>,
    role: AtomicU8,
    input: Mutex<Input>,
    output: Mutex<Output>,
    /// Bytes in the output queue.
    queued: AtomicUsize,
    drained: Condvar,
    /// The process, once the handshake is done.
    pub(crate) client: OnceLock<Arc<Client>>,
    /// Whether it only carries readiness.
    pub(crate) ready: AtomicBool,
    /// Who is told of readiness, kept alive here.
    pub(crate) watcher: Mutex<Option<Arc<dyn Watcher>>>,
    /// Requests to come for which the client is taken to have others waiting.
    company: AtomicU32,
    /// Whether a reader stays with it, waiting without a time.
    settled: AtomicBool,
    gone: AtomicBool,
}

#[derive(Default)]
struct Input {
    /// Bytes that were received behind the last frame.
    rest: Vec<u8>,
    /// Descriptors that are to come. To look for one costs, so nothing else is.
    fds_to_come: u32,
    fds: VecDeque<OwnedFd>,
}

#[derive(Default)]
struct Output {
    queue: VecDeque<u8>,
    /// Signals whose frames the socket has not taken, a bit each: one that is sent again meanwhile is the same one, signal(7).
    signals: u64,
    /// The socket once more, so that epoll can watch its two directions apart.
    twin: Option<OwnedFd>,
}

impl Output {
    fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.signals == 0
    }
}

/// What reading gives.
pub(crate) enum Read {
    /// A whole frame lies at the front of the buffer.
    Frame(Header),
    /// Nothing came for a while.
    Idle,
    /// The client is gone, or sends what is no frame.
    End,
}

impl Conn {
    pub(crate) fn new(
        id: u32,
        socket: OwnedFd,
        local: bool,
        trusted: bool,
        epoll: Arc<OwnedFd>,
    ) -> Conn {
        Conn {
            id,
            socket,
            local,
            trusted,
            epoll,
            role: AtomicU8::new(HELD),
            input: Mutex::default(),
            output: Mutex::default(),
            queued: AtomicUsize::new(0),
            drained: Condvar::new(),
            client: OnceLock::new(),
            ready: AtomicBool::new(false),
            watcher: Mutex::new(None),
            company: AtomicU32::new(0),
            settled: AtomicBool::new(false),
            gone: AtomicBool::new(false),
        }
    }

    pub(crate) fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::SeqCst)
    }

    /// Puts the connection under epoll, not watched yet.
    pub(crate) fn register(&self) -> io::Result<()> {
        Ok(self.epoll_ctl(Epoll::Add, EventFlags::ONESHOT)?)
    }

    fn epoll_ctl(&self, what: Epoll, flags: EventFlags) -> rustix::io::Result<()> {
        let data = EventData::new_u64(u64::from(self.id));
        match what {
            Epoll::Add => epoll::add(&*self.epoll, &self.socket, data, flags),
            Epoll::Modify => epoll::modify(&*self.epoll, &self.socket, data, flags),
        }
    }

    // The reader's role.

    /// Takes the role of reader if nobody has it.
    pub(crate) fn take_role(&self) -> bool {
        self.role
            .compare_exchange(ARMED, HELD, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }

    /// Lays the role down without having epoll watch: the caller sees to it that another worker comes.
    pub(crate) fn lay_down(&self) {
        self.role.store(ARMED, Ordering::SeqCst);
    }

    /// Lays the role down and has epoll call a worker when something arrives.
    pub(crate) fn arm(&self) {
        self.lay_down();
        let flags = EventFlags::IN | EventFlags::RDHUP | EventFlags::ONESHOT;
        // A settled connection has left epoll, mostly; two threads may be here at once.
        let known = self.epoll_ctl(Epoll::Modify, flags);
        if known == Err(rustix::io::Errno::NOENT)
            && self.epoll_ctl(Epoll::Add, flags) == Err(rustix::io::Errno::EXIST)
        {
            let _ = self.epoll_ctl(Epoll::Modify, flags);
        }
    }

    /// Stops epoll, for a reader that has taken the role again.
    pub(crate) fn disarm(&self) {
        if self.is_settled() {
            let _ = epoll::delete(&*self.epoll, &self.socket);
        } else {
            let _ = self.epoll_ctl(Epoll::Modify, EventFlags::ONESHOT);
        }
    }

    /// Whether other threads of the client may be waiting while a call with this request's word runs: they are, or they were
    /// a short while ago.
    pub(crate) fn in_company(&self, company: Company) -> bool {
        const REMEMBERED: u32 = 64;
        let left = match company {
            Company::Others => REMEMBERED,
            Company::Alone => self.company.load(Ordering::Relaxed).saturating_sub(1),
        };
        self.company.store(left, Ordering::Relaxed);
        left != 0
    }

    /// Has readers wait without a time from now on, and without epoll, which would look at everything that comes and goes;
    /// false when the host does not want that. For the reader only.
    pub(crate) fn settle(&self) -> bool {
        let receive = rustix::net::sockopt::Timeout::Recv;
        let done = rustix::net::sockopt::set_socket_timeout(&self.socket, receive, None).is_ok();
        self.settled.store(done, Ordering::SeqCst);
        self.disarm();
        done
    }

    /// Whether readers wait without a time.
    pub(crate) fn is_settled(&self) -> bool {
        self.settled.load(Ordering::SeqCst)
    }

    /// At the end: whether it was settled until now.
    pub(crate) fn unsettle(&self) -> bool {
        self.settled.swap(false, Ordering::SeqCst)
    }

    /// Whether a whole frame has been received already that the next reader would not be called for.
    pub(crate) fn has_frame(&self) -> bool {
        let input = lock(&self.input);
        match input.rest.first_chunk::<HEADER>().map(Header::decode) {
            Some(Ok(header)) => input.rest.len() >= HEADER + header.body,
            Some(Err(_)) => true,
            None => false,
        }
    }

    /// Reads one frame into `buf`, which afterwards holds the frame and nothing more; a little is kept for the next.
    /// For the reader only.
    pub(crate) fn read(&self, buf: &mut Buffer) -> Read {
        let mut input = lock(&self.input);
        let input = &mut *input;
        buf.fill(&input.rest);
        input.rest.clear();
        loop {
            let mut want = READ;
            if let Some(raw) = buf.bytes().first_chunk::<HEADER>() {
                let Ok(header) = Header::decode(raw) else {
                    return Read::End;
                };
                let total = HEADER + header.body;
                if buf.len >= total {
                    input.rest.extend_from_slice(&buf.bytes()[total..]);
                    buf.len = total;
                    return Read::Frame(header);
                }
                want = (total - buf.len).clamp(READ, READ_AHEAD);
            }
            match self.receive(buf.space(want), input) {
                Ok(0) => return Read::End,
                Ok(n) => buf.len += n,
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => {
                    input.rest.extend_from_slice(buf.bytes());
                    return Read::Idle;
                }
                Err(_) => return Read::End,
            }
        }
    }

    fn receive(&self, space: &mut [u8], input: &mut Input) -> rustix::io::Result<usize> {
        if input.fds_to_come == 0 {
            return Ok(rustix::net::recv(&self.socket, space, RecvFlags::empty())?.1);
        }
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut room);
        let flags = RecvFlags::CMSG_CLOEXEC;
        let got = rustix::net::recvmsg(
            &self.socket,
            &mut [IoSliceMut::new(space)],
            &mut control,
            flags,
        )?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(new) = message {
                // What is too many is closed here.
                let room = MAX_FDS.saturating_sub(input.fds.len());
                input.fds.extend(new.take(room));
            }
        }
        Ok(got.bytes)
    }

    /// Looks for one more descriptor in what is received from now on, until [`take_fd`](Self::take_fd). False when the peer
    /// can send none. For the reader only.
    pub(crate) fn expect_fd(&self) -> bool {
        let mut input = lock(&self.input);
        input.fds_to_come = input.fds_to_come.saturating_add(u32::from(self.local));
        self.local
    }

    /// The oldest descriptor that the client has sent and no frame has used. For the reader only.
    pub(crate) fn take_fd(&self) -> Option<OwnedFd> {
        let mut input = lock(&self.input);
        input.fds_to_come = input.fds_to_come.saturating_sub(1);
        input.fds.pop_front()
    }

    // Output.

    /// Sends a frame whose parts are `frame`, or queues what does not fit. False when the client does not take its
    /// output and has to go.
    pub(crate) fn send(&self, frame: &[u8]) -> bool {
        let mut output = lock(&self.output);
        let sent = if output.queue.is_empty() {
            match self.send_now(frame) {
                Ok(n) => n,
                Err(_) => return false,
            }
        } else {
            0
        };
        if sent == frame.len() {
            return true;
        }
        if output.queue.len() + frame.len() > QUEUE_MAX {
            return false;
        }
        let was_empty = output.queue.is_empty();
        output.queue.extend(&frame[sent..]);
        self.queued.store(output.queue.len(), Ordering::SeqCst);
        !was_empty || self.watch_output(&mut output)
    }

    /// Sends a signal, or keeps it until the socket takes it. False when the client is gone.
    pub(crate) fn raise(&self, signo: u32) -> bool {
        let mut output = lock(&self.output);
        let was_empty = output.is_empty();
        output.signals |= 1 << (signo - 1);
        if !was_empty {
            return true;
        }
        if self.send_signals(&mut output).is_err() {
            output.signals = 0;
            return false;
        }
        output.is_empty() || self.watch_output(&mut output)
    }

    /// Sends the signals that are kept, behind what is queued; whether there was one that the socket took.
    fn send_signals(&self, output: &mut Output) -> rustix::io::Result<bool> {
        let before = output.signals;
        while output.queue.is_empty() && output.signals != 0 {
            let signo = output.signals.trailing_zeros() + 1;
            let frame = Header::new(Class::Request, Kind::Raise, signo, 0, 0).encode();
            let sent = self.send_now(&frame)?;
            if sent == 0 {
                break;
            }
            output.signals &= output.signals - 1;
            output.queue.extend(&frame[sent..]);
        }
        self.queued.store(output.queue.len(), Ordering::SeqCst);
        Ok(output.signals != before)
    }

    fn send_now(&self, bytes: &[u8]) -> rustix::io::Result<usize> {
        loop {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match rustix::net::send(&self.socket, bytes, flags) {
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return Ok(0),
                other => return other,
            }
        }
    }

    /// Has epoll call a worker when the socket takes more.
    fn watch_output(&self, output: &mut Output) -> bool {
        let data = EventData::new_u64(u64::from(self.id) | OUTPUT);
        let flags = EventFlags::OUT | EventFlags::ONESHOT;
        if let Some(twin) = &output.twin {
            return epoll::modify(&*self.epoll, twin, data, flags).is_ok();
        }
        let Ok(twin) = self.socket.as_fd().try_clone_to_owned() else {
            return false;
        };
        let done = epoll::add(&*self.epoll, &twin, data, flags).is_ok();
        output.twin = Some(twin);
        done
    }

    /// The socket takes more: sends from the queue. False when the client is gone.
    pub(crate) fn flush(&self) -> bool {
        let mut output = lock(&self.output);
        while !output.queue.is_empty() {
            match self.send_now(output.queue.as_slices().0) {
                Ok(0) => break,
                Ok(n) => drop(output.queue.drain(..n)),
                Err(_) => return false,
            }
        }
        let Ok(mail) = self.send_signals(&mut output) else {
            return false;
        };
        self.drained.notify_all();
        if output.is_empty() {
            output.queue.shrink_to(READ);
        } else if !self.watch_output(&mut output) {
            return false;
        }
        let resume = output.queue.len() <= QUEUE_HIGH / 2;
        drop(output);
        if mail && let Some(client) = self.client.get() {
            client.tell_of_mail();
        }
        if resume
            && self
                .role
                .compare_exchange(PAUSED, ARMED, Ordering::SeqCst, Ordering::SeqCst)
                .is_ok()
        {
            self.arm();
        }
        true
    }

    /// Whether the client has so much to read that it gets no further requests served now. The role is laid down then,
    /// and `flush` calls for a reader again.
    pub(crate) fn pause(&self) -> bool {
        if self.queued.load(Ordering::SeqCst) <= QUEUE_HIGH {
            return false;
        }
        let output = lock(&self.output);
        let full = output.queue.len() > QUEUE_HIGH && !self.is_gone();
        if full {
            self.role.store(PAUSED, Ordering::SeqCst);
        }
        full
    }

    /// Waits until the client has read enough that a call may send more of its data. `EFAULT` when it does not.
    fn wait_drained(&self) -> Result<(), Errno> {
        let full = |output: &mut Output| output.queue.len() > QUEUE_HIGH && !self.is_gone();
        let (output, _) = self
            .drained
            .wait_timeout_while(lock(&self.output), PATIENCE, full)
            .unwrap_or_else(PoisonError::into_inner);
        if self.is_gone() || output.queue.len() > QUEUE_HIGH {
            return Err(Errno::EFAULT);
        }
        Ok(())
    }

    /// Tells a client that waits on this connection that something may be ready.
    pub(crate) fn send_ready(&self) {
        // When it does not fit, there are bytes enough to read already.
        let _ = self.send_now(&[1]);
    }

    // Memory of calls in flight.

    /// Asks the client for memory of a call in flight and waits for it.
    pub(crate) fn ask(
        &self,
        kind: Kind,
        reqno: u64,
        slot: &Slot,
        addr: u64,
        len: usize,
    ) -> Result<Vec<u8>, Errno> {
        slot.ask(kind, len);
        let header = Header::new(Class::Request, kind, 0, reqno, abi::sysproxy::COPY_FIXED);
        let mut frame = header.encode().to_vec();
        frame.extend(CopyData::encode_fixed(len as u64, addr));
        if !self.send(&frame) {
            self.close();
            return Err(Errno::EFAULT);
        }
        let answer = slot.answer(Instant::now() + PATIENCE, || self.is_gone());
        if answer.is_none() {
            self.close();
        }
        answer.unwrap_or(Err(Errno::EFAULT))
    }

    /// Sends memory that a call in flight has written, ahead of its reply.
    pub(crate) fn copyout(&self, reqno: u64, addr: u64, data: &[u8]) -> Result<(), Errno> {
        debug_assert!(data.len() <= 2 * MAX_INLINE);
        let body = abi::sysproxy::COPY_FIXED + data.len();
        let mut frame = Vec::with_capacity(HEADER + body);
        frame.extend(Header::new(Class::Request, Kind::Copyout, 0, reqno, body).encode());
        frame.extend(CopyData::encode_fixed(data.len() as u64, addr));
        frame.extend(data);
        self.wait_drained().and_then(|()| {
            if self.send(&frame) {
                Ok(())
            } else {
                Err(Errno::EFAULT)
            }
        })
    }

    /// Ends the connection: the reader, or epoll, finds it ended and cleans up.
    pub(crate) fn close(&self) {
        self.gone.store(true, Ordering::SeqCst);
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
        if let Some(client) = self.client.get() {
            client.wake_calls(self.id);
        }
        {
            let mut output = lock(&self.output);
            (output.queue, output.signals) = (VecDeque::new(), 0);
        }
        self.queued.store(0, Ordering::SeqCst);
        self.drained.notify_all();
        let paused = self
            .role
            .compare_exchange(PAUSED, ARMED, Ordering::SeqCst, Ordering::SeqCst);
        if paused.is_ok() {
            self.arm();
        }
    }

    /// Takes the connection out of epoll.
    pub(crate) fn unregister(&self) {
        let _ = epoll::delete(&*self.epoll, &self.socket);
        if let Some(twin) = lock(&self.output).twin.take() {
            let _ = epoll::delete(&*self.epoll, &twin);
        }
    }
}

/// A growing buffer that a worker receives into.
#[derive(Default)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    len: usize,
}

impl Buffer {
    /// What was received.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn fill(&mut self, start: &[u8]) {
        if self.bytes.len() > READ_AHEAD {
            self.bytes = Vec::new();
        }
        self.len = start.len();
        if self.bytes.len() < start.len() {
            self.bytes.resize(start.len() + READ, 0);
        }
        self.bytes[..start.len()].copy_from_slice(start);
    }

    /// Room for at least `want` more bytes.
    fn space(&mut self, want: usize) -> &mut [u8] {
        if self.bytes.len() < self.len + want {
            self.bytes.resize(self.len + want, 0);
        }
        &mut self.bytes[self.len..]
    }
}

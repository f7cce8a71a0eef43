//! Sockets of the host, for a kernel whose network is its host's (rump's sockin).
//!
//! Every call is done at once or answers `EAGAIN` (`connect`: `EINPROGRESS`). When it is worth another try is told by
//! [`Sockets::wait`], once for all sockets, so that neither a thread nor a virtual CPU belongs to one that waits.
//! Flags, options and events are numbers, Linux's, as everywhere; addresses are values; bytes are the caller's own: no pointer goes
//! to the host.

use core::net::SocketAddr;

use smallvec::SmallVec;

use abi::Errno;

/// The address family of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketFamily {
    /// IPv4.
    Inet,
    /// IPv6.
    Inet6,
}

/// What a socket carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketKind {
    /// TCP.
    Stream,
    /// UDP.
    Datagram,
    /// ICMP echoes, icmp(7).
    Ping,
}

/// Which of a socket's queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketQueue {
    /// What came and was not received (`SIOCINQ`).
    In,
    /// What was sent and is not acknowledged (`SIOCOUTQ`).
    Out,
}

/// A piece of control data: level, type, data; cmsg(3).
pub type SocketControl = (i32, i32, SmallVec<[u8; 32]>);

/// What is known of bytes that were received.
#[derive(Debug, Default)]
pub struct SocketMessage {
    /// How many bytes it had: more than were asked for when a datagram was cut.
    pub len: usize,
    /// Who sent it, where the host says so.
    pub from: Option<SocketAddr>,
    /// What came along.
    pub control: Vec<SocketControl>,
    /// `MSG_*`.
    pub flags: i32,
}

/// A message to be sent.
#[derive(Clone, Copy, Debug)]
pub struct SocketData<'a> {
    /// Its bytes.
    pub bytes: &'a [u8],
    /// Where to, if not to the peer.
    pub to: Option<SocketAddr>,
    /// What goes along.
    pub control: &'a [SocketControl],
    /// `MSG_*`.
    pub flags: i32,
}

/// A socket of the host. It is closed when it is dropped, which **may block** as `SO_LINGER` says.
pub trait HostSocket: Send + Sync {
    /// bind(2).
    fn bind(&self, addr: SocketAddr) -> Result<(), Errno>;

    /// connect(2), to nobody any more without an address. `EINPROGRESS` when it goes on; asked again it answers how that went, or
    /// `EALREADY`.
    fn connect(&self, to: Option<SocketAddr>) -> Result<(), Errno>;

    /// listen(2).
    fn listen(&self, backlog: usize) -> Result<(), Errno>;

    /// accept(2).
    fn accept(&self) -> Result<(Box<dyn HostSocket>, SocketAddr), Errno>;

    /// sendmsg(2): how many bytes were taken. No signal is raised.
    fn send(&self, data: SocketData<'_>) -> Result<usize, Errno>;

    /// recvmsg(2): appends at most `max` bytes. With `MSG_TRUNC` the whole length of a datagram is told; a stream knows no such flag.
    fn receive(&self, into: &mut Vec<u8>, max: usize, flags: i32) -> Result<SocketMessage, Errno>;

    /// shutdown(2); `how` is `SHUT_*`.
    fn shutdown(&self, how: i32) -> Result<(), Errno>;

    /// getsockname(2).
    fn name(&self) -> Result<SocketAddr, Errno>;

    /// getpeername(2).
    fn peer(&self) -> Result<SocketAddr, Errno>;

    /// getsockopt(2): how many bytes of the value were filled. The caller knows the option: its value has no pointers.
    fn option(&self, level: i32, name: i32, value: &mut [u8]) -> Result<usize, Errno>;

    /// setsockopt(2). As [`option`](Self::option).
    fn set_option(&self, level: i32, name: i32, value: &[u8]) -> Result<(), Errno>;

    /// Bytes in a queue.
    fn queued(&self, queue: SocketQueue) -> Result<usize, Errno>;

    /// Whether urgent data is next (`SIOCATMARK`).
    fn at_mark(&self) -> Result<bool, Errno>;

    /// What is true now: `POLL*`, poll(2).
    fn ready(&self) -> u32;

    /// Has [`Sockets::wait`] tell from now on what becomes true, and at first what is, under this number. Once for a socket.
    fn watch(&self, number: u64) -> Result<(), Errno>;
}

/// The sockets that a kernel has of its host.
pub trait Sockets: Send + Sync {
    /// socket(2).
    fn open(&self, family: SocketFamily, kind: SocketKind) -> Result<Box<dyn HostSocket>, Errno>;

    /// **May block.** Appends numbers of watched sockets with what became true (`POLL*`), waiting until there is one. None when it was
    /// [woken](Self::wake). One thread at a time waits.
    fn wait(&self, into: &mut Vec<(u64, u32)>) -> Result<(), Errno>;

    /// Ends the present wait in [`wait`](Self::wait), or the next one. Does not block.
    fn wake(&self);
}

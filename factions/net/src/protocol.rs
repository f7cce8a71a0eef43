//! What a protocol does for one of its sockets.

use std::any::Any;
use std::sync::Arc;

use abi::{Errno, SysResult, UserAddr};
use hypercall::BackingFile;
use kern::poll::Events;
use kern::{Ahead, Curlwp, OpenFile, Uio};

use crate::consts::{SOCK_DGRAM, SOCK_RAW, SOCK_SEQPACKET, SOCK_STREAM};
use crate::{Addr, Common, Control, OptValue, Wait};

/// The type of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A stream of bytes over a connection.
    Stream,
    /// Messages to anybody.
    Dgram,
    /// The protocol below, as it is.
    Raw,
    /// Messages over a connection.
    Seqpacket,
}

impl Kind {
    /// The kind that the type argument of socket(2) names.
    pub const fn from_type(kind: i32) -> Option<Kind> {
        Some(match kind {
            SOCK_STREAM => Kind::Stream,
            SOCK_DGRAM => Kind::Dgram,
            SOCK_RAW => Kind::Raw,
            SOCK_SEQPACKET => Kind::Seqpacket,
            _ => return None,
        })
    }

    /// Its number.
    pub const fn number(self) -> i32 {
        match self {
            Kind::Stream => SOCK_STREAM,
            Kind::Dgram => SOCK_DGRAM,
            Kind::Raw => SOCK_RAW,
            Kind::Seqpacket => SOCK_SEQPACKET,
        }
    }
}

/// Which halves of a connection shutdown(2) ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// No more receiving.
    Read,
    /// No more sending.
    Write,
    /// Both.
    Both,
}

impl Shutdown {
    /// Whether it ends receiving.
    pub fn reads(self) -> bool {
        self != Shutdown::Write
    }

    /// Whether it ends sending.
    pub fn writes(self) -> bool {
        self != Shutdown::Read
    }
}

/// A message on its way out.
pub struct Outgoing<'m, 'b> {
    /// The bytes. What the protocol has taken is gone from it.
    pub uio: &'m mut Uio<'b>,
    /// Where to, when the call says so.
    pub to: Option<&'m Addr>,
    /// What goes along. The protocol takes it; what it leaves is given back.
    pub control: &'m mut Vec<Control>,
    /// `MSG_*`.
    pub flags: i32,
    /// How to wait for room.
    pub wait: Wait,
}

/// Where a message that comes in goes to.
pub struct Incoming<'m, 'b> {
    /// The room. It is left as long as what did not come.
    pub uio: &'m mut Uio<'b>,
    /// `MSG_*`.
    pub flags: i32,
    /// How to wait for a message.
    pub wait: Wait,
    /// Whether the caller has room for control data at all.
    pub wants_control: bool,
}

/// What is known of a message that came in, besides its bytes.
#[derive(Default)]
pub struct Received {
    /// Who sent it.
    pub from: Option<Addr>,
    /// What came along.
    pub control: Vec<Control>,
    /// `MSG_TRUNC`, `MSG_EOR`, `MSG_OOB`.
    pub flags: i32,
    /// How long the message was, for `MSG_TRUNC`; `None` for a stream.
    pub len: Option<usize>,
}

/// A connection that was accepted.
pub struct Accepted {
    /// Its protocol.
    pub protocol: Arc<dyn Protocol>,
    /// Its peer's address.
    pub peer: Addr,
}

/// A socket's protocol, and its state for one socket. Every method may block as its wait says and is called with no
/// lock held. Blocking gives the virtual CPU up.
#[allow(unused_variables)]
pub trait Protocol: Send + Sync + Any {
    /// The socket's options and readiness.
    fn common(&self) -> &Arc<Common>;

    /// bind(2).
    fn bind(&self, cx: &Curlwp<'_>, addr: &Addr) -> Result<(), Errno>;

    /// listen(2).
    fn listen(&self, cx: &Curlwp<'_>, backlog: usize) -> Result<(), Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    /// accept(2): the next connection.
    fn accept(&self, cx: &Curlwp<'_>, wait: Wait) -> Result<Accepted, Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    /// connect(2). `EINPROGRESS` when it goes on and the caller does not wait.
    fn connect(&self, cx: &Curlwp<'_>, addr: &Addr, wait: Wait) -> Result<(), Errno>;

    /// Connects two new sockets with each other, socketpair(2).
    fn pair(&self, cx: &Curlwp<'_>, other: &Arc<dyn Protocol>) -> Result<(), Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Sends. An error counts only when nothing was taken before it.
    fn send(&self, cx: &Curlwp<'_>, message: &mut Outgoing<'_, '_>) -> Result<(), Errno>;

    /// Receives. Nothing in a stream's room means its end.
    fn receive(&self, cx: &Curlwp<'_>, message: &mut Incoming<'_, '_>) -> Result<Received, Errno>;

    /// Receives an error that waits, recvmsg(2) with `MSG_ERRQUEUE`. Never blocks: `EAGAIN` when there is none.
    fn receive_error(
        &self,
        cx: &Curlwp<'_>,
        message: &mut Incoming<'_, '_>,
    ) -> Result<Received, Errno> {
        Err(Errno::EAGAIN)
    }

    /// shutdown(2).
    fn shutdown(&self, cx: &Curlwp<'_>, how: Shutdown) -> Result<(), Errno>;

    /// getsockname(2).
    fn name(&self, cx: &Curlwp<'_>) -> Result<Addr, Errno>;

    /// getpeername(2).
    fn peer(&self, cx: &Curlwp<'_>) -> Result<Addr, Errno>;

    /// Which events are true now; the socket has registered the watcher with [`Common::poll`].
    fn poll(&self, cx: &Curlwp<'_>) -> Events;

    /// An option that is not of socket(7), or whose meaning is the protocol's own.
    fn getsockopt(&self, cx: &Curlwp<'_>, level: i32, name: i32) -> Result<OptValue, Errno> {
        Err(Errno::ENOPROTOOPT)
    }

    /// The same, for the few options whose value says what is asked for.
    fn getsockopt_with(
        &self,
        cx: &Curlwp<'_>,
        level: i32,
        name: i32,
        input: &[u8],
    ) -> Result<OptValue, Errno> {
        self.getsockopt(cx, level, name)
    }

    /// Memory that a program may map to share it with the protocol, mmap(2).
    fn memory(&self, cx: &Curlwp<'_>) -> Option<Arc<dyn BackingFile>> {
        None
    }

    /// As [`getsockopt`](Self::getsockopt).
    fn setsockopt(
        &self,
        cx: &Curlwp<'_>,
        level: i32,
        name: i32,
        value: &[u8],
    ) -> Result<(), Errno> {
        Err(Errno::ENOPROTOOPT)
    }

    /// Whether an option of socket(7) is the protocol's to get and to set, though [`Common`] has it for others.
    fn owns_option(&self, name: i32) -> bool {
        false
    }

    /// An option of socket(7) was set, which [`Common`] has.
    fn option_changed(&self, cx: &Curlwp<'_>, name: i32) {}

    /// ioctl(2).
    fn ioctl(&self, cx: &Curlwp<'_>, cmd: u32, arg: UserAddr) -> SysResult {
        Err(Errno::ENOTTY)
    }

    /// How much there is to receive, in bytes, or of connections to accept: what kevent(2) says.
    fn available(&self, cx: &Curlwp<'_>) -> i64 {
        0
    }

    /// What sending and receiving would give now, [`kern::File::ahead`].
    fn ahead(&self, cx: &Curlwp<'_>, most: usize) -> Option<Ahead> {
        None
    }

    /// How much may be sent without waiting, in bytes.
    fn room(&self, cx: &Curlwp<'_>) -> i64 {
        0
    }

    /// Whether it listens, `SO_ACCEPTCONN`.
    fn listening(&self, cx: &Curlwp<'_>) -> bool {
        false
    }

    /// A descriptor is gone and others are left, [`kern::File::still_held`].
    fn still_held(&self, cx: &Curlwp<'_>, of: &Arc<OpenFile>) {}

    /// The last descriptor is gone. May wait as `SO_LINGER` says.
    fn close(&self, cx: &Curlwp<'_>);

    /// Itself, for the domain that knows what it is.
    fn as_any(&self) -> &dyn Any;
}

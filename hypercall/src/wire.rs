//! Wires: frames to and from whatever the host has for a network.

use bytes::Bytes;
use smallvec::SmallVec;

use abi::Errno;

/// What a wire is to be connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WireSpec {
    /// A tap device of the host by name. One that does not exist is made, where the host lets us, and goes with the wire.
    Tap(String),
    /// A network interface of the host by name, raw: everything that it receives comes in, what is sent goes out by it.
    Packet(String),
    /// The stream network protocol of QEMU on a unix socket: a length of 4 bytes, most significant first, before each frame.
    Stream {
        /// The socket's path.
        path: Vec<u8>,
        /// Waits there for a peer, and for the next one when it has gone, instead of connecting to one.
        listen: bool,
    },
    /// The datagram network protocol of QEMU on unix sockets: a frame in each message.
    Datagram {
        /// The path of our own socket, which is made.
        path: Vec<u8>,
        /// The path of the peer's.
        peer: Vec<u8>,
    },
    /// What the host knows under a name: a link of a simulated host.
    Named(String),
}

/// What a wire is and can.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WireInfo {
    /// What the host calls it.
    pub name: String,
    /// The longest frame that it carries, in bytes with the link-layer header.
    pub frame_max: usize,
    /// It takes and gives frames whose checksums are partial.
    pub checksum: bool,
    /// It takes and gives TCP frames to be cut.
    pub tcp: bool,
    /// It takes and gives UDP frames to be cut.
    pub udp: bool,
}

/// How a frame that is longer than the link allows is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireCut {
    /// As TCP over IPv4.
    Tcp4,
    /// As TCP over IPv6.
    Tcp6,
    /// As UDP.
    Udp,
}

/// What goes with a frame, as a virtio network device has it (Virtual I/O Device 1.2, section 5.1.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// The checksum is partial: what follows from the first number of bytes on is to be summed up, to the field so many bytes on from
    /// there as the second number says.
    pub partial: Option<(u16, u16)>,
    /// The transport's checksum has been looked at and is right.
    pub valid: bool,
    /// To be cut: the payload's bytes in each part, and how.
    pub cut: Option<(u16, WireCut)>,
}

/// A frame to be sent, in pieces.
#[derive(Clone, Debug, Default)]
pub struct OutFrame<'a> {
    /// Its bytes.
    pub pieces: SmallVec<[&'a [u8]; 4]>,
    /// What goes with it.
    pub offload: Offload,
}

impl OutFrame<'_> {
    /// Its bytes, all together.
    #[expect(
        clippy::len_without_is_empty,
        reason = "an empty frame is of no interest"
    )]
    pub fn len(&self) -> usize {
        self.pieces.iter().map(|piece| piece.len()).sum()
    }
}

/// A frame that came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InFrame {
    /// Its bytes, in memory that it shares with no other.
    pub bytes: Bytes,
    /// What goes with it; from others, and so not to be believed.
    pub offload: Offload,
}

/// A connection to a network of the host. One thread at a time receives; any number send.
pub trait Wire: Send + Sync {
    /// What it is and can.
    fn info(&self) -> &WireInfo;

    /// Sends frames in order, and does not block: how many went. The rest found no room, or nobody at the other end.
    fn send(&self, frames: &[OutFrame<'_>]) -> usize;

    /// **May block.** Appends frames that have come, at most `max`, waiting until there is one. None when it was
    /// [woken](Self::wake). An error means that nothing will come any more: `ENOTCONN` when the other end has gone.
    fn receive(&self, into: &mut Vec<InFrame>, max: usize) -> Result<(), Errno>;

    /// Ends the present wait in [`receive`](Self::receive), or the next one. Does not block.
    fn wake(&self);
}

//! Wires of a Linux process: tap devices, raw interfaces, and QEMU's protocols on unix sockets.

mod batch;
mod message;
mod stream;
mod vnet;

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use abi::Errno;

use super::errno_of;
use crate::{Wire, WireSpec};

/// The longest frame: an IP packet of 64 KiB, an Ethernet header and two tags.
const FRAME_MAX: usize = 65_535 + 14 + 8;

pub(super) fn open(spec: &WireSpec) -> Result<Arc<dyn Wire>, Errno> {
    Ok(match spec {
        WireSpec::Tap(name) => Arc::new(message::Messages::tap(name)?),
        WireSpec::Packet(device) => Arc::new(message::Messages::packet(device)?),
        WireSpec::Datagram { path, peer } => Arc::new(message::Messages::datagram(path, peer)?),
        WireSpec::Stream { path, listen } => Arc::new(stream::Stream::open(path, *listen)?),
        WireSpec::Named(_) => return Err(Errno::ENODEV),
    })
}

/// What a peer's bytes are as a stream of frames, read so many at a time. `EPROTO` for a length that no frame has.
#[cfg(feature = "fuzz")]
pub fn fuzz_stream(bytes: &[u8], step: usize) -> Result<Vec<crate::InFrame>, Errno> {
    stream::fuzz_frames(bytes, step)
}

/// What the host's header in front of a frame says.
#[cfg(feature = "fuzz")]
pub fn fuzz_vnet(header: &[u8; 10]) -> crate::Offload {
    vnet::decode(header)
}

fn last_errno() -> Errno {
    errno_of(&std::io::Error::last_os_error())
}

/// A descriptor that a system call has just made, or why it has not.
fn made(fd: libc::c_int) -> Result<OwnedFd, Errno> {
    if fd < 0 {
        return Err(last_errno());
    }
    // SAFETY: the descriptor is new and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Ends a wait for descriptors from another thread, by an eventfd(2) among them.
struct Waker {
    fd: OwnedFd,
    /// The receiver is to return, and not only to look again.
    called: AtomicBool,
}

impl Waker {
    fn new() -> Result<Waker, Errno> {
        // SAFETY: eventfd(2) has no conditions.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        Ok(Waker {
            fd: made(fd)?,
            called: AtomicBool::new(false),
        })
    }

    /// Has the receiver return.
    fn wake(&self) {
        self.called.store(true, Ordering::SeqCst);
        self.look_again();
    }

    /// Has the receiver look at what it waits for again.
    fn look_again(&self) {
        let one = 1u64;
        // SAFETY: eight bytes that live for the call. It fails only when the count is full, and then the wait ends anyhow.
        unsafe { libc::write(self.fd.as_raw_fd(), (&raw const one).cast(), 8) };
    }

    /// Whether the receiver is to return; forgets that.
    fn called(&self) -> bool {
        self.called.swap(false, Ordering::SeqCst)
    }

    /// Waits until something happens on a descriptor (`POLLIN`, `POLLOUT`), or a wake-up; a negative one is none.
    fn wait(&self, fd: libc::c_int, events: libc::c_short) {
        let entry = |fd, events| libc::pollfd {
            fd,
            events,
            revents: 0,
        };
        let mut fds = [entry(self.fd.as_raw_fd(), libc::POLLIN), entry(fd, events)];
        // SAFETY: two entries that live for the call. When it fails (a signal) the caller looks again.
        unsafe { libc::poll(fds.as_mut_ptr(), 2, -1) };
        if fds[0].revents != 0 {
            let mut count = 0u64;
            // SAFETY: eight bytes of ours to write.
            unsafe { libc::read(self.fd.as_raw_fd(), (&raw mut count).cast(), 8) };
        }
    }
}

/// An address of a unix socket, with its length.
fn unix_address(path: &[u8]) -> Result<(libc::sockaddr_un, libc::socklen_t), Errno> {
    let mut address = libc::sockaddr_un {
        sun_family: libc::AF_UNIX as libc::sa_family_t,
        sun_path: [0; 108],
    };
    if path.is_empty() || path.contains(&0) {
        return Err(Errno::EINVAL);
    }
    if path.len() >= address.sun_path.len() {
        return Err(Errno::ENAMETOOLONG);
    }
    for (to, from) in address.sun_path.iter_mut().zip(path) {
        *to = *from as libc::c_char;
    }
    Ok((address, size_of::<libc::sockaddr_un>() as libc::socklen_t))
}

/// A unix socket of a kind (`SOCK_STREAM`, `SOCK_DGRAM`) that does not block.
fn unix_socket(kind: libc::c_int) -> Result<OwnedFd, Errno> {
    let kind = kind | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: socket(2) has no conditions.
    made(unsafe { libc::socket(libc::AF_UNIX, kind, 0) })
}

/// Binds a socket to a path, in place of a socket there that nobody answers at.
fn bind(fd: &OwnedFd, path: &[u8]) -> Result<(), Errno> {
    let (address, len) = unix_address(path)?;
    // SAFETY: the address lives for the call and is as long as said.
    let bind = || unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), len) };
    if bind() == 0 {
        return Ok(());
    }
    let error = last_errno();
    if error == Errno::EADDRINUSE && is_abandoned(path) {
        let _ = std::fs::remove_file(super::host_path(path));
        if bind() == 0 {
            return Ok(());
        }
    }
    Err(error)
}

/// Whether a path is a unix socket that nobody has open.
fn is_abandoned(path: &[u8]) -> bool {
    [libc::SOCK_STREAM, libc::SOCK_DGRAM].iter().all(|&kind| {
        let refused = unix_socket(kind).and_then(|fd| connect(&fd, path));
        matches!(refused, Err(Errno::ECONNREFUSED | Errno::EPROTOTYPE))
    })
}

fn connect(fd: &OwnedFd, path: &[u8]) -> Result<(), Errno> {
    let (address, len) = unix_address(path)?;
    // SAFETY: the address lives for the call and is as long as said.
    let status = unsafe { libc::connect(fd.as_raw_fd(), (&raw const address).cast(), len) };
    if status < 0 {
        Err(last_errno())
    } else {
        Ok(())
    }
}

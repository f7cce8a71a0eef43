//! Sockets of a Linux process, with one epoll(7) for all that somebody waits for.

mod address;
mod control;

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use abi::Errno;
use core::net::SocketAddr;

use self::address::RawAddr;
use super::errno_of;
use crate::{
    HostSocket, SocketData, SocketFamily, SocketKind, SocketMessage, SocketQueue, Sockets,
};

/// The number that the eventfd has, which ends a wait.
const WAKER: u64 = u64::MAX;
/// Events that are taken at a time.
const BATCH: usize = 64;
/// What is told, once each time that it becomes true; errors and the end of both directions always are.
const EVENTS: libc::c_int =
    libc::EPOLLIN | libc::EPOLLPRI | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET;

/// The sockets of a kernel.
pub(super) struct PosixSockets {
    epoll: Arc<OwnedFd>,
    waker: OwnedFd,
}

struct PosixSocket {
    fd: OwnedFd,
    epoll: Arc<OwnedFd>,
    /// For its bytes are counted but not copied with `MSG_TRUNC`.
    stream: bool,
}

impl PosixSockets {
    pub(super) fn new() -> Result<PosixSockets, Errno> {
        // SAFETY: epoll_create1(2) has no conditions.
        let epoll = made(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: eventfd(2) has no conditions.
        let waker = made(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        add(&epoll, waker.as_raw_fd(), libc::EPOLLIN, WAKER)?;
        Ok(PosixSockets {
            epoll: Arc::new(epoll),
            waker,
        })
    }
}

impl Sockets for PosixSockets {
    fn open(&self, family: SocketFamily, kind: SocketKind) -> Result<Box<dyn HostSocket>, Errno> {
        let (domain, ping) = match family {
            SocketFamily::Inet => (libc::AF_INET, libc::IPPROTO_ICMP),
            SocketFamily::Inet6 => (libc::AF_INET6, libc::IPPROTO_ICMPV6),
        };
        let stream = kind == SocketKind::Stream;
        let (kind, protocol) = match kind {
            SocketKind::Stream => (libc::SOCK_STREAM, libc::IPPROTO_TCP),
            SocketKind::Datagram => (libc::SOCK_DGRAM, libc::IPPROTO_UDP),
            SocketKind::Ping => (libc::SOCK_DGRAM, ping),
        };
        let kind = kind | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // SAFETY: socket(2) has no conditions.
        let fd = made(unsafe { libc::socket(domain, kind, protocol) })?;
        Ok(Box::new(PosixSocket {
            fd,
            epoll: self.epoll.clone(),
            stream,
        }))
    }

    fn wait(&self, into: &mut Vec<(u64, u32)>) -> Result<(), Errno> {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; BATCH];
        // SAFETY: the array has room for so many.
        let n = unsafe {
            libc::epoll_wait(
                self.epoll.as_raw_fd(),
                events.as_mut_ptr(),
                BATCH as libc::c_int,
                -1,
            )
        };
        let n = match usize::try_from(n) {
            Ok(n) => n,
            Err(_) if last_errno() == Errno::EINTR => 0,
            Err(_) => return Err(last_errno()),
        };
        for event in &events[..n] {
            match event.u64 {
                WAKER => {
                    let mut count = 0u64;
                    // SAFETY: eight bytes of ours to write.
                    unsafe { libc::read(self.waker.as_raw_fd(), (&raw mut count).cast(), 8) };
                }
                // The bits are poll(2)'s.
                number => into.push((number, event.events)),
            }
        }
        Ok(())
    }

    fn wake(&self) {
        let one = 1u64;
        // SAFETY: eight bytes that live for the call. It fails only when the count is full, and then the wait ends anyhow.
        unsafe { libc::write(self.waker.as_raw_fd(), (&raw const one).cast(), 8) };
    }
}

impl PosixSocket {
    fn raw(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    fn address_by(
        &self,
        call: unsafe extern "C" fn(
            libc::c_int,
            *mut libc::sockaddr,
            *mut libc::socklen_t,
        ) -> libc::c_int,
    ) -> Result<SocketAddr, Errno> {
        let mut addr = RawAddr::room();
        let (to, len) = addr.parts();
        // SAFETY: the room lives for the call and is as long as said.
        done(unsafe { call(self.raw(), to, len) })?;
        addr.get().ok_or(Errno::EAFNOSUPPORT)
    }

    fn count(&self, request: libc::c_ulong) -> Result<libc::c_int, Errno> {
        let mut value: libc::c_int = 0;
        // SAFETY: these requests write one int.
        done(unsafe { libc::ioctl(self.raw(), request as _, &raw mut value) })?;
        Ok(value)
    }
}

impl HostSocket for PosixSocket {
    fn bind(&self, addr: SocketAddr) -> Result<(), Errno> {
        let addr = RawAddr::new(addr);
        let (at, len) = addr.as_parts();
        // SAFETY: the address lives for the call and is as long as said.
        done(unsafe { libc::bind(self.raw(), at, len) })
    }

    fn connect(&self, to: Option<SocketAddr>) -> Result<(), Errno> {
        let addr = to.map_or_else(RawAddr::nobody, RawAddr::new);
        let (at, len) = addr.as_parts();
        // SAFETY: the address lives for the call and is as long as said.
        done(unsafe { libc::connect(self.raw(), at, len) })
    }

    fn listen(&self, backlog: usize) -> Result<(), Errno> {
        let backlog = libc::c_int::try_from(backlog).unwrap_or(libc::c_int::MAX);
        // SAFETY: listen(2) has no conditions.
        done(unsafe { libc::listen(self.raw(), backlog) })
    }

    fn accept(&self) -> Result<(Box<dyn HostSocket>, SocketAddr), Errno> {
        let mut addr = RawAddr::room();
        let (to, len) = addr.parts();
        let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // SAFETY: the room lives for the call and is as long as said.
        let fd = made(unsafe { libc::accept4(self.raw(), to, len, flags) })?;
        let socket = PosixSocket {
            fd,
            epoll: self.epoll.clone(),
            stream: self.stream,
        };
        let from = addr.get().ok_or(Errno::ECONNABORTED)?;
        Ok((Box::new(socket), from))
    }

    fn send(&self, data: SocketData<'_>) -> Result<usize, Errno> {
        let to = data.to.map(RawAddr::new);
        let mut control = control::encode(data.control)?;
        let mut bytes = libc::iovec {
            iov_base: data.bytes.as_ptr().cast_mut().cast(),
            iov_len: data.bytes.len(),
        };
        // SAFETY: all zero is an empty message.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        if let Some(to) = &to {
            let (at, len) = to.as_parts();
            (message.msg_name, message.msg_namelen) = (at.cast_mut().cast(), len);
        }
        message.msg_iov = &raw mut bytes;
        message.msg_iovlen = 1;
        if !control.is_empty() {
            message.msg_control = control.as_mut_ptr().cast();
            message.msg_controllen = size_of_val(&control[..]) as _;
        }
        let flags = data.flags | libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: address, bytes and control data live for the call, which only reads them.
        size(unsafe { libc::sendmsg(self.raw(), &raw const message, flags) })
    }

    fn receive(&self, into: &mut Vec<u8>, max: usize, flags: i32) -> Result<SocketMessage, Errno> {
        into.reserve(max);
        let mut from = RawAddr::room();
        let mut control = control::Room::new();
        let mut bytes = libc::iovec {
            iov_base: into.spare_capacity_mut().as_mut_ptr().cast(),
            iov_len: max,
        };
        // SAFETY: all zero is an empty message.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        let (name, len) = from.parts();
        (message.msg_name, message.msg_namelen) = (name.cast(), *len);
        message.msg_iov = &raw mut bytes;
        message.msg_iovlen = 1;
        (message.msg_control, message.msg_controllen) = control.parts();
        let never = if self.stream { libc::MSG_TRUNC } else { 0 };
        let flags = (flags & !never) | libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
        // SAFETY: all that the message names is ours to write, lives for the call, and is as long as said: of the vector's room at
        // least `max` bytes have been reserved.
        let got = size(unsafe { libc::recvmsg(self.raw(), &raw mut message, flags) })?;
        // SAFETY: the host has written so many bytes, and never more than there was room for, whatever it says: only of a stream
        // it would count what it does not write, and is not asked to.
        unsafe { into.set_len(into.len() + got.min(max)) };
        from.set_len(message.msg_namelen);
        Ok(SocketMessage {
            len: got,
            from: from.get(),
            control: control.decode(message.msg_controllen as usize),
            flags: message.msg_flags,
        })
    }

    fn shutdown(&self, how: i32) -> Result<(), Errno> {
        // SAFETY: shutdown(2) has no conditions.
        done(unsafe { libc::shutdown(self.raw(), how) })
    }

    fn name(&self) -> Result<SocketAddr, Errno> {
        self.address_by(libc::getsockname)
    }

    fn peer(&self) -> Result<SocketAddr, Errno> {
        self.address_by(libc::getpeername)
    }

    fn option(&self, level: i32, name: i32, value: &mut [u8]) -> Result<usize, Errno> {
        let mut len = value.len() as libc::socklen_t;
        // SAFETY: the value lives for the call and is as long as said.
        done(unsafe {
            libc::getsockopt(
                self.raw(),
                level,
                name,
                value.as_mut_ptr().cast(),
                &raw mut len,
            )
        })?;
        Ok((len as usize).min(value.len()))
    }

    fn set_option(&self, level: i32, name: i32, value: &[u8]) -> Result<(), Errno> {
        let len = value.len() as libc::socklen_t;
        // SAFETY: the value lives for the call and is as long as said; the contract says that the option's has no pointers.
        done(unsafe { libc::setsockopt(self.raw(), level, name, value.as_ptr().cast(), len) })
    }

    fn queued(&self, queue: SocketQueue) -> Result<usize, Errno> {
        let bytes = self.count(match queue {
            SocketQueue::In => libc::FIONREAD,
            SocketQueue::Out => libc::TIOCOUTQ,
        })?;
        Ok(usize::try_from(bytes).unwrap_or(0))
    }

    fn at_mark(&self) -> Result<bool, Errno> {
        /// `SIOCATMARK`, sockatmark(3).
        const AT_MARK: libc::c_ulong = 0x8905;
        Ok(self.count(AT_MARK)? != 0)
    }

    fn ready(&self) -> u32 {
        let mut entry = libc::pollfd {
            fd: self.raw(),
            events: libc::POLLIN | libc::POLLPRI | libc::POLLOUT | libc::POLLRDHUP,
            revents: 0,
        };
        // SAFETY: one entry that lives for the call. It does not wait, and has nothing to say when it fails.
        unsafe { libc::poll(&raw mut entry, 1, 0) };
        u32::from(entry.revents as u16)
    }

    fn watch(&self, number: u64) -> Result<(), Errno> {
        add(&self.epoll, self.raw(), EVENTS, number)
    }
}

fn last_errno() -> Errno {
    errno_of(&std::io::Error::last_os_error())
}

fn done(status: libc::c_int) -> Result<(), Errno> {
    if status < 0 {
        Err(last_errno())
    } else {
        Ok(())
    }
}

fn size(status: isize) -> Result<usize, Errno> {
    usize::try_from(status).map_err(|_| last_errno())
}

/// A descriptor that a system call has just made, or why it has not.
fn made(fd: libc::c_int) -> Result<OwnedFd, Errno> {
    done(fd)?;
    // SAFETY: the descriptor is new and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn add(epoll: &OwnedFd, fd: RawFd, events: libc::c_int, number: u64) -> Result<(), Errno> {
    let mut event = libc::epoll_event {
        events: events as u32,
        u64: number,
    };
    // SAFETY: the event lives for the call.
    let added =
        unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &raw mut event) };
    match done(added) {
        Err(Errno::EEXIST) => Ok(()),
        other => other,
    }
}

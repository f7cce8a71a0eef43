//! Wires that carry a frame a message: tap devices, packet sockets, datagram sockets.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use abi::Errno;
use bytes::Bytes;
use smallvec::SmallVec;

use super::{FRAME_MAX, Waker, connect, last_errno, made, vnet};
use crate::{InFrame, Offload, OutFrame, Wire, WireInfo};

/// From this length on a frame keeps the buffer that it was received into; shorter ones are copied out, so that a small frame that
/// is kept does not keep 64 KiB.
const KEEP: usize = 16 << 10;

/// A descriptor each of whose messages is a frame.
pub(super) struct Messages {
    fd: OwnedFd,
    waker: Waker,
    info: WireInfo,
    /// Each message begins with a [`vnet`] header.
    vnet: bool,
    /// For a datagram socket: who we send to, and our own name, to be removed.
    peer: Option<Peer>,
    /// What the next frame is received into; one thread has it at a time.
    buffer: Mutex<Vec<u8>>,
}

struct Peer {
    address: libc::sockaddr_un,
    len: libc::socklen_t,
    own: Vec<u8>,
}

impl Messages {
    fn new(fd: OwnedFd, name: &str, vnet: bool) -> Result<Messages, Errno> {
        Ok(Messages {
            fd,
            waker: Waker::new()?,
            info: WireInfo {
                name: name.into(),
                frame_max: FRAME_MAX,
                checksum: vnet,
                tcp: vnet,
                udp: false,
            },
            vnet,
            peer: None,
            buffer: Mutex::default(),
        })
    }

    /// A tap device, with checksums and segmentation left to whoever comes last (`TUNSETOFFLOAD`).
    pub(super) fn tap(name: &str) -> Result<Messages, Errno> {
        const TSO: libc::c_uint =
            libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
        const USO: libc::c_uint = libc::TUN_F_USO4 | libc::TUN_F_USO6;
        let flags = libc::O_RDWR | libc::O_NONBLOCK | libc::O_CLOEXEC;
        // SAFETY: the path is a C string.
        let fd = made(unsafe { libc::open(c"/dev/net/tun".as_ptr(), flags) })?;
        let mut request = interface_request(name)?;
        let mode = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
        request.ifr_ifru.ifru_flags = mode as libc::c_short;
        // SAFETY: the request lives for the call.
        if unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETIFF, &raw mut request) } < 0 {
            return Err(last_errno());
        }
        // SAFETY: the argument is a number.
        let offload =
            |bits: libc::c_uint| unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETOFFLOAD, bits) };
        let udp = offload(TSO | USO) == 0;
        let tcp = udp || offload(TSO) == 0;
        let mut tap = Messages::new(fd, &name_of(&request), true)?;
        (tap.info.tcp, tap.info.udp) = (tcp, udp);
        Ok(tap)
    }

    /// A packet socket on an interface of the host, packet(7).
    pub(super) fn packet(device: &str) -> Result<Messages, Errno> {
        let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // SAFETY: socket(2) has no conditions. Protocol 0 receives nothing until the socket is bound.
        let fd = made(unsafe { libc::socket(libc::AF_PACKET, kind, 0) })?;
        let mut request = interface_request(device)?;
        // SAFETY: the request lives for the call.
        if unsafe { libc::ioctl(fd.as_raw_fd(), libc::SIOCGIFINDEX, &raw mut request) } < 0 {
            return Err(last_errno());
        }
        // SAFETY: the call has set this part of the union.
        let index = unsafe { request.ifr_ifru.ifru_ifindex };
        // Hosts that do not know an option are too old for it; what we sent would come back without the second.
        let vnet = set_option(&fd, libc::PACKET_VNET_HDR, &1i32).is_ok();
        set_option(&fd, libc::PACKET_IGNORE_OUTGOING, &1i32)?;
        let everything = libc::packet_mreq {
            mr_ifindex: index,
            mr_type: libc::PACKET_MR_PROMISC as libc::c_ushort,
            mr_alen: 0,
            mr_address: [0; 8],
        };
        set_option(&fd, libc::PACKET_ADD_MEMBERSHIP, &everything)?;
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as libc::c_ushort,
            sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
            sll_ifindex: index,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        let len = size_of_val(&address) as libc::socklen_t;
        // SAFETY: the address lives for the call and is as long as said.
        if unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), len) } < 0 {
            return Err(last_errno());
        }
        let mut wire = Messages::new(fd, device, vnet)?;
        // The host sends no UDP that is to be cut through such a socket.
        wire.info.udp = false;
        Ok(wire)
    }

    /// A datagram socket between two paths.
    pub(super) fn datagram(path: &[u8], peer: &[u8]) -> Result<Messages, Errno> {
        let fd = super::unix_socket(libc::SOCK_DGRAM)?;
        let (address, len) = super::unix_address(peer)?;
        super::bind(&fd, path)?;
        // Keeps others from sending to us, when the peer is there already; sending goes by address, so that it may come later.
        let _ = connect(&fd, peer);
        let size: libc::c_int = 4 << 20;
        for option in [libc::SO_SNDBUF, libc::SO_RCVBUF] {
            // SAFETY: the option is a number that lives for the call. The host gives as much as it likes.
            unsafe {
                libc::setsockopt(
                    fd.as_raw_fd(),
                    libc::SOL_SOCKET,
                    option,
                    (&raw const size).cast(),
                    4,
                )
            };
        }
        let name = String::from_utf8_lossy(path).into_owned();
        let mut wire = Messages::new(fd, &name, false)?;
        wire.peer = Some(Peer {
            address,
            len,
            own: path.to_vec(),
        });
        Ok(wire)
    }

    fn send_one(&self, frame: &OutFrame<'_>) -> bool {
        let first = frame.pieces.first().copied().unwrap_or_default();
        let header = vnet::encode(&frame.offload, first);
        let mut pieces: SmallVec<[libc::iovec; 8]> = SmallVec::new();
        if self.vnet {
            pieces.push(iovec(&header));
        }
        pieces.extend(frame.pieces.iter().map(|piece| iovec(piece)));
        loop {
            let sent = match &self.peer {
                // SAFETY: the pieces live for the call.
                None => unsafe {
                    libc::writev(self.fd.as_raw_fd(), pieces.as_ptr(), pieces.len() as i32)
                },
                Some(peer) => self.send_to(peer, &mut pieces),
            };
            if sent >= 0 {
                return true;
            }
            if last_errno() != Errno::EINTR {
                return false;
            }
        }
    }

    fn send_to(&self, peer: &Peer, pieces: &mut [libc::iovec]) -> isize {
        // SAFETY: all zero is an empty message.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_name = (&raw const peer.address).cast_mut().cast();
        message.msg_namelen = peer.len;
        message.msg_iov = pieces.as_mut_ptr();
        message.msg_iovlen = pieces.len() as _;
        // SAFETY: address and pieces live for the call, which only reads them.
        unsafe { libc::sendmsg(self.fd.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) }
    }

    /// Receives a frame; `None` when none is there. `Err` when none will come.
    fn receive_one(&self, buffer: &mut Vec<u8>) -> Result<Option<InFrame>, Errno> {
        buffer.clear();
        buffer.reserve(FRAME_MAX);
        let mut header = [0u8; vnet::LEN];
        let body = libc::iovec {
            iov_base: buffer.as_mut_ptr().cast(),
            iov_len: FRAME_MAX,
        };
        let front = libc::iovec {
            iov_base: header.as_mut_ptr().cast(),
            iov_len: header.len(),
        };
        let both = [front, body];
        let pieces = if self.vnet { &both[..] } else { &both[1..] };
        // SAFETY: the buffer has so many bytes of room, the header its own; both are ours to write.
        let got = unsafe { libc::readv(self.fd.as_raw_fd(), pieces.as_ptr(), pieces.len() as i32) };
        if got < 0 {
            return match last_errno() {
                Errno::EAGAIN | Errno::EINTR | Errno::ENETDOWN | Errno::ENOBUFS => Ok(None),
                // The other end was there once; it may be again.
                Errno::ECONNREFUSED | Errno::ECONNRESET if self.peer.is_some() => Ok(None),
                error => Err(error),
            };
        }
        let skip = if self.vnet { vnet::LEN } else { 0 };
        let len = (got as usize).saturating_sub(skip);
        // SAFETY: the host has written so many bytes, of the room for FRAME_MAX.
        unsafe { buffer.set_len(len) };
        let offload = match self.vnet {
            true => vnet::decode(&header),
            false => Offload::default(),
        };
        Ok(Some(InFrame {
            bytes: take(buffer),
            offload,
        }))
    }
}

/// What was received, and a buffer for what comes next.
fn take(buffer: &mut Vec<u8>) -> Bytes {
    if buffer.len() < KEEP {
        return Bytes::copy_from_slice(buffer);
    }
    std::mem::take(buffer).into()
}

impl Wire for Messages {
    fn info(&self) -> &WireInfo {
        &self.info
    }

    fn send(&self, frames: &[OutFrame<'_>]) -> usize {
        frames
            .iter()
            .take_while(|frame| self.send_one(frame))
            .count()
    }

    fn receive(&self, into: &mut Vec<InFrame>, max: usize) -> Result<(), Errno> {
        let mut buffer = self.buffer.lock().unwrap_or_else(PoisonError::into_inner);
        let before = into.len();
        loop {
            while into.len() - before < max
                && let Some(frame) = self.receive_one(&mut buffer)?
            {
                if !frame.bytes.is_empty() {
                    into.push(frame);
                }
            }
            if into.len() > before || self.waker.called() {
                return Ok(());
            }
            self.waker.wait(self.fd.as_raw_fd(), libc::POLLIN);
        }
    }

    fn wake(&self) {
        self.waker.wake();
    }
}

impl Drop for Messages {
    fn drop(&mut self) {
        if let Some(peer) = &self.peer {
            let _ = std::fs::remove_file(super::super::host_path(&peer.own));
        }
    }
}

fn iovec(bytes: &[u8]) -> libc::iovec {
    libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    }
}

/// A request on an interface by name, netdevice(7).
fn interface_request(name: &str) -> Result<libc::ifreq, Errno> {
    // SAFETY: all zero is a request for no name.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() || name.contains('\0') {
        return Err(Errno::EINVAL);
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(request)
}

fn name_of(request: &libc::ifreq) -> String {
    let name = request.ifr_name.iter().take_while(|&&c| c != 0);
    name.map(|&c| char::from(c as u8)).collect()
}

fn set_option<T>(fd: &OwnedFd, option: libc::c_int, value: &T) -> Result<(), Errno> {
    // SAFETY: the value lives for the call and is as long as said.
    let status = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_PACKET,
            option,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if status < 0 {
        Err(last_errno())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn frame(bytes: &[u8]) -> OutFrame<'_> {
        let (a, b) = bytes.split_at(bytes.len() / 2);
        OutFrame {
            pieces: SmallVec::from_slice(&[a, b]),
            ..OutFrame::default()
        }
    }

    #[test]
    fn datagram_wires_carry_frames_both_ways_and_leave_no_names() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = |name: &str| dir.path().join(name).into_os_string().into_encoded_bytes();
        let (a_path, b_path) = (path("a"), path("b"));
        let a = Messages::datagram(&a_path, &b_path).expect("a wire");
        assert_eq!(a.send(&[frame(b"nobody is there")]), 0);
        let b = Messages::datagram(&b_path, &a_path).expect("a wire");
        let long = vec![7; 60_000];
        assert_eq!(a.send(&[frame(b"first"), frame(&long)]), 2);
        assert_eq!(b.send(&[frame(b"back")]), 1);
        let mut got = Vec::new();
        b.receive(&mut got, 10).expect("frames");
        a.receive(&mut got, 10).expect("frames");
        let got: Vec<_> = got.iter().map(|frame| &frame.bytes[..]).collect();
        assert_eq!(got, [&b"first"[..], &long, b"back"]);
        drop((a, b));
        assert_eq!(std::fs::read_dir(dir.path()).expect("reads").count(), 0);
    }

    #[test]
    fn a_wake_ends_the_wait_of_another_thread() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a").into_os_string().into_encoded_bytes();
        let wire = Arc::new(Messages::datagram(&path, b"/nowhere").expect("a wire"));
        let waits = wire.clone();
        let thread = std::thread::spawn(move || {
            let mut got = Vec::new();
            waits.receive(&mut got, 10).map(|()| got.len())
        });
        wire.wake();
        assert_eq!(thread.join().expect("ends"), Ok(0));
    }

    #[test]
    fn what_is_not_there_or_no_name_is_an_error() {
        let error = Messages::packet("no-such-if").err();
        assert!(
            matches!(error, Some(Errno::ENODEV | Errno::EPERM)),
            "{error:?}"
        );
        assert!(Messages::packet(&"x".repeat(40)).is_err());
        assert_eq!(
            Messages::datagram(&[b'x'; 200], b"/x").err(),
            Some(Errno::ENAMETOOLONG)
        );
    }
}

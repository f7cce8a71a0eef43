//! Wires that carry a frame a message: tap devices, packet sockets, datagram sockets.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use abi::Errno;
use smallvec::SmallVec;

use super::batch::{self, Slot, iovec};
use super::{FRAME_MAX, Waker, connect, last_errno, made};
use crate::{InFrame, OutFrame, Wire, WireInfo};

/// A descriptor each of whose messages is a frame.
pub(super) struct Messages {
    fd: OwnedFd,
    waker: Waker,
    info: WireInfo,
    /// It is a device, to be read and written, and no socket.
    device: bool,
    /// Each message begins with a [`vnet`](super::vnet) header.
    vnet: bool,
    /// For a datagram socket: who we send to, and our own name, to be removed.
    peer: Option<Peer>,
    /// What the next frames are received into; one thread has them at a time.
    slots: Mutex<Vec<Slot>>,
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
            device: false,
            vnet,
            peer: None,
            slots: Mutex::default(),
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
        (tap.device, tap.info.tcp, tap.info.udp) = (true, tcp, udp);
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
        // The host takes tags (802.1Q) out of frames, and says beside them which.
        set_option(&fd, libc::PACKET_AUXDATA, &1i32)?;
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
        make_room(&fd);
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
        make_room(&fd);
        let name = String::from_utf8_lossy(path).into_owned();
        let mut wire = Messages::new(fd, &name, false)?;
        wire.peer = Some(Peer {
            address,
            len,
            own: path.to_vec(),
        });
        Ok(wire)
    }

    /// Writes a frame to a device.
    fn write(&self, frame: &OutFrame<'_>) -> bool {
        let header = batch::header(frame);
        let mut pieces: SmallVec<[libc::iovec; 8]> = SmallVec::new();
        if self.vnet {
            pieces.push(iovec(&header));
        }
        pieces.extend(frame.pieces.iter().map(|piece| iovec(piece)));
        loop {
            // SAFETY: the pieces live for the call, which only reads them.
            let sent =
                unsafe { libc::writev(self.fd.as_raw_fd(), pieces.as_ptr(), pieces.len() as i32) };
            if sent >= 0 {
                return true;
            }
            if last_errno() != Errno::EINTR {
                return false;
            }
        }
    }

    /// Reads a frame of a device; whether one was there.
    fn read(&self, slots: &mut Vec<Slot>, into: &mut Vec<InFrame>) -> Result<usize, Errno> {
        slots.resize_with(1, Slot::default);
        let room = slots[0].room();
        let pieces = if self.vnet { &room[..] } else { &room[1..] };
        // SAFETY: the room is ours to write and lives for the call.
        let got = unsafe { libc::readv(self.fd.as_raw_fd(), pieces.as_ptr(), pieces.len() as i32) };
        let got = usize::try_from(got).map_err(|_| last_errno())?;
        // SAFETY: the call was given the slot's room, and says how much it wrote there.
        let frame = unsafe { slots[0].frame(self.vnet, got, 0) };
        if !frame.bytes.is_empty() {
            into.push(frame);
        }
        Ok(1)
    }

    /// Takes up to `max` frames that are there: how many, and fewer than `max` when there are no more.
    fn receive_now(
        &self,
        slots: &mut Vec<Slot>,
        into: &mut Vec<InFrame>,
        max: usize,
    ) -> Result<usize, Errno> {
        let got = match self.device {
            true => self.read(slots, into),
            false => batch::receive(&self.fd, self.vnet, slots, into, max),
        };
        match got {
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ENETDOWN | Errno::ENOBUFS) => Ok(0),
            // The other end was there once; it may be again.
            Err(Errno::ECONNREFUSED | Errno::ECONNRESET) if self.peer.is_some() => Ok(0),
            got => got,
        }
    }
}

/// Has the host keep more for us than a burst of full windows is: what finds no room is lost.
fn make_room(fd: &OwnedFd) {
    let size: libc::c_int = 16 << 20;
    for (forced, asked) in [
        (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF),
        (libc::SO_RCVBUFFORCE, libc::SO_RCVBUF),
    ] {
        // SAFETY: the option is a number that lives for the call.
        let set = |option| unsafe {
            let size = (&raw const size).cast();
            libc::setsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, option, size, 4) == 0
        };
        // Who may not force it gets as much as the host gives to anybody.
        let _ = set(forced) || set(asked);
    }
}

impl Wire for Messages {
    fn info(&self) -> &WireInfo {
        &self.info
    }

    fn send(&self, frames: &[OutFrame<'_>]) -> usize {
        if self.device {
            return frames.iter().take_while(|frame| self.write(frame)).count();
        }
        let to = self.peer.as_ref().map(|peer| (&peer.address, peer.len));
        batch::send(&self.fd, self.vnet, to, frames)
    }

    fn receive(&self, into: &mut Vec<InFrame>, max: usize) -> Result<(), Errno> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let before = into.len();
        loop {
            while into.len() - before < max {
                let asked = max - (into.len() - before);
                let got = self.receive_now(&mut slots, into, asked)?;
                let all = if self.device {
                    1
                } else {
                    asked.min(batch::BATCH)
                };
                if got < all {
                    break;
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
    fn many_frames_keep_their_order_over_several_calls() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = |name: &str| dir.path().join(name).into_os_string().into_encoded_bytes();
        let (a_path, b_path) = (path("a"), path("b"));
        let b = Messages::datagram(&b_path, &a_path).expect("a wire");
        let a = Messages::datagram(&a_path, &b_path).expect("a wire");
        let sent: Vec<Vec<u8>> = (0..100u8).map(|i| vec![i; 2 + usize::from(i)]).collect();
        let frames: Vec<_> = sent.iter().map(|bytes| frame(bytes)).collect();
        let mut got = Vec::new();
        let mut at = 0;
        while got.len() < sent.len() {
            // The host says how many wait at most.
            let went = a.send(&frames[at..]);
            assert!(went > 0);
            at += went;
            let before = got.len();
            while got.len() < at {
                b.receive(&mut got, 40).expect("frames");
            }
            assert_eq!(got.len() - before, went);
        }
        assert!(got.iter().map(|frame| &frame.bytes[..]).eq(&sent));
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

//! A packet socket.

use std::any::Any;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use abi::{Errno, SysResult, UserAddr};
use bytes::Bytes;
use hypercall::{BackingFile, Clock};
use kern::Curlwp;
use kern::poll::Events;
use net::consts::{
    ETHERTYPE_IP, ETHERTYPE_IPV6, IFF_ALLMULTI, IFF_PROMISC, MSG_PEEK, MSG_TRUNC, SIOCGSTAMP,
    SIOCINQ, SOL_PACKET,
};
use net::filter::View;
use net::{
    Addr, Common, Control, Direction, ETHER_HEADER, EtherAddr, Ifnet, Incoming, Interfaces, Kind,
    LinkType, OptValue, Outgoing, Packet, Protocol, Received, Shutdown, SocketEntry, Tap,
    int_option,
};
use sync::{Condvar, Cpu, Mutex, Parker};

use crate::addr::{LinkAddr, PacketType};
use crate::queue::{Captured, Queue};
use crate::ring::{self, Ring, STATUS_USER};

const ETH_P_ALL: u16 = 3;

const PACKET_ADD_MEMBERSHIP: i32 = 1;
const PACKET_DROP_MEMBERSHIP: i32 = 2;
const PACKET_RX_RING: i32 = 5;
const PACKET_STATISTICS: i32 = 6;
const PACKET_AUXDATA: i32 = 8;
const PACKET_ORIGDEV: i32 = 9;
const PACKET_VERSION: i32 = 10;
const PACKET_HDRLEN: i32 = 11;
const PACKET_RESERVE: i32 = 12;
const PACKET_TIMESTAMP: i32 = 17;
/// The one version of ring that there is.
const TPACKET_V2: i32 = 1;
/// The most bytes to reserve in front of a frame.
const RESERVE_MAX: usize = 4096;
const PACKET_IGNORE_OUTGOING: i32 = 23;
const PACKET_MR_PROMISC: u16 = 1;
const PACKET_MR_ALLMULTI: u16 = 2;

/// In the status of `struct tpacket_auxdata`.
const TP_STATUS_CSUMNOTREADY: u32 = 8;
const TP_STATUS_CSUM_VALID: u32 = 128;

/// One packet socket.
///
/// `binding` and `queue` are leaf locks, never held together; `readable` goes with the queue.
pub(crate) struct PacketSocket {
    me: Weak<PacketSocket>,
    kind: Kind,
    interfaces: Arc<Interfaces>,
    common: Arc<Common>,
    binding: Mutex<Binding>,
    queue: Mutex<Queue>,
    readable: Condvar,
    auxdata: AtomicBool,
    reserve: AtomicUsize,
    ignore_outgoing: AtomicBool,
    /// When the last frame that was received came in, for `SIOCGSTAMP`.
    last_time: AtomicU64,
}

/// What a socket listens to.
#[derive(Default)]
struct Binding {
    protocol: u16,
    interface: u32,
    closed: bool,
    /// Where it is a tap.
    taps: Vec<Arc<Ifnet>>,
    /// What it asked of interfaces beyond their own frames: index and flag.
    memberships: Vec<(u32, u32)>,
}

impl PacketSocket {
    /// Itself, for lists of sockets; `None` when it is closed.
    pub(crate) fn entry(&self, cx: &Curlwp<'_>, number: u32) -> Option<SocketEntry> {
        let (protocol, interface) = {
            let binding = self.binding.lock(cx.cpu());
            if binding.closed {
                return None;
            }
            (binding.protocol, binding.interface)
        };
        Some(SocketEntry {
            number,
            kind: self.kind,
            state: 7,
            name: Vec::new(),
            peer: 0,
            receive_queue: self.queue.lock(cx.cpu()).bytes(),
            send_queue: 0,
            protocol,
            interface,
        })
    }

    pub(crate) fn new(kind: Kind, interfaces: Arc<Interfaces>, common: Arc<Common>) -> Arc<Self> {
        Arc::new_cyclic(|me| PacketSocket {
            me: me.clone(),
            kind,
            interfaces,
            common,
            binding: Mutex::default(),
            queue: Mutex::default(),
            readable: Condvar::new("packet"),
            auxdata: AtomicBool::new(false),
            reserve: AtomicUsize::new(0),
            ignore_outgoing: AtomicBool::new(false),
            last_time: AtomicU64::new(0),
        })
    }

    fn tap(&self) -> Option<Arc<dyn Tap>> {
        self.me.upgrade().map(|me| me as Arc<dyn Tap>)
    }

    /// Listens to a protocol on one interface, or on all (0). `ENODEV` when there is no such interface.
    pub(crate) fn bind_to(
        &self,
        cpu: &Cpu<'_>,
        protocol: u16,
        interface: u32,
    ) -> Result<(), Errno> {
        let chosen = match interface {
            0 => self.interfaces.list().to_vec(),
            index => vec![self.interfaces.by_index(index).ok_or(Errno::ENODEV)?],
        };
        let chosen = if protocol == 0 { Vec::new() } else { chosen };
        let before = {
            let mut binding = self.binding.lock(cpu);
            binding.protocol = protocol;
            binding.interface = interface;
            std::mem::replace(&mut binding.taps, chosen.clone())
        };
        if let Some(tap) = self.tap() {
            before.iter().for_each(|i| i.remove_tap(&tap));
            chosen.iter().for_each(|i| i.add_tap(tap.clone()));
        }
        Ok(())
    }

    pub(crate) fn interface_came(&self, cpu: &Cpu<'_>, interface: &Arc<Ifnet>) {
        {
            let mut binding = self.binding.lock(cpu);
            if binding.closed || binding.interface != 0 || binding.protocol == 0 {
                return;
            }
            binding.taps.push(interface.clone());
        }
        if let Some(tap) = self.tap() {
            interface.add_tap(tap);
        }
    }

    pub(crate) fn interface_went(&self, cpu: &Cpu<'_>, index: u32) {
        let bound = {
            let mut binding = self.binding.lock(cpu);
            binding.taps.retain(|i| i.index() != index);
            binding.interface == index
        };
        if bound {
            self.common.set_error(cpu, Errno::ENETDOWN);
            self.readable.broadcast(cpu);
        }
    }

    /// The interface that a message goes out by, and where to.
    fn target(&self, cx: &Curlwp<'_>, to: Option<&Addr>) -> Result<(Arc<Ifnet>, LinkAddr), Errno> {
        let to = match to {
            Some(addr) => LinkAddr::parse(addr)?,
            None => {
                let binding = self.binding.lock(cx.cpu());
                LinkAddr {
                    protocol: binding.protocol,
                    interface: binding.interface,
                    hardware: 0,
                    kind: PacketType::Host,
                    address: EtherAddr::default(),
                }
            }
        };
        let interface = self.interfaces.by_index(to.interface);
        Ok((interface.ok_or(Errno::ENXIO)?, to))
    }

    /// Promiscuous mode and the like, `struct packet_mreq`.
    fn membership(&self, cx: &Curlwp<'_>, value: &[u8], join: bool) -> Result<(), Errno> {
        let value: &[u8; 8] = value.first_chunk().ok_or(Errno::EINVAL)?;
        let index = u32::from_le_bytes([value[0], value[1], value[2], value[3]]);
        let interface = self.interfaces.by_index(index).ok_or(Errno::ENODEV)?;
        let flag = match u16::from_le_bytes([value[4], value[5]]) {
            PACKET_MR_PROMISC => IFF_PROMISC,
            PACKET_MR_ALLMULTI => IFF_ALLMULTI,
            // Frames to any address are seen anyway.
            _ => return Ok(()),
        };
        let mut binding = self.binding.lock(cx.cpu());
        match join {
            true => binding.memberships.push((index, flag)),
            false => {
                let at = binding.memberships.iter().position(|m| *m == (index, flag));
                binding
                    .memberships
                    .swap_remove(at.ok_or(Errno::EADDRNOTAVAIL)?);
            }
        }
        drop(binding);
        interface.request(cx.cpu(), flag, join);
        Ok(())
    }

    /// Sets the ring up, or with no frames takes it down.
    fn set_ring(&self, cx: &Curlwp<'_>, value: &[u8]) -> Result<(), Errno> {
        let none = value.first_chunk() == Some(&[0; 16]) || value.get(12..16) == Some(&[0; 4]);
        let ring = match none {
            true => None,
            false => {
                let host = cx.kernel().host();
                Some(Ring::new(&**host, value, self.reserve.load(Relaxed))?)
            }
        };
        let mut queue = self.queue.lock(cx.cpu());
        if ring.is_some() && queue.ring.is_some() {
            return Err(Errno::EBUSY);
        }
        let before = std::mem::replace(&mut queue.ring, ring);
        drop(queue);
        // Unmapping is the host's work, not to be done under a lock.
        drop(before);
        Ok(())
    }

    /// `struct tpacket_auxdata` of a frame.
    fn auxdata(&self, captured: &Captured) -> Control {
        let status = STATUS_USER | checksum_status(captured);
        let network = match self.kind {
            Kind::Dgram => 0,
            _ => captured.link_header as u16,
        };
        let mut data = Vec::with_capacity(20);
        data.extend_from_slice(&status.to_le_bytes());
        data.extend_from_slice(&(captured.len as u32).to_le_bytes());
        data.extend_from_slice(&(captured.snap as u32).to_le_bytes());
        data.extend_from_slice(&0u16.to_le_bytes());
        data.extend_from_slice(&network.to_le_bytes());
        data.extend_from_slice(&[0; 4]);
        Control::Other(SOL_PACKET, PACKET_AUXDATA, data)
    }

    fn timestamp(nanos: u64) -> [u8; 16] {
        abi::Timeval {
            tv_sec: (nanos / 1_000_000_000) as i64,
            tv_usec: (nanos % 1_000_000_000 / 1000) as i64,
        }
        .to_bytes()
    }
}

/// What the status of a frame says of its transport checksum.
fn checksum_status(captured: &Captured) -> u32 {
    match captured.packet.checksum {
        net::Checksum::None => 0,
        net::Checksum::Valid => TP_STATUS_CSUM_VALID,
        net::Checksum::Partial { .. } => TP_STATUS_CSUMNOTREADY,
    }
}

/// What stands at the link of a frame.
struct Link {
    header: usize,
    protocol: u16,
    hardware: u16,
    kind: PacketType,
    source: EtherAddr,
}

impl Link {
    fn of(
        parker: &dyn Parker,
        interface: &Ifnet,
        direction: Direction,
        packet: &Packet,
    ) -> Option<Link> {
        let outgoing = direction == Direction::Out;
        if interface.link() == LinkType::Ip {
            let mut first = [0];
            packet.read(0, &mut first)?;
            return Some(Link {
                header: 0,
                protocol: if first[0] >> 4 == 6 {
                    ETHERTYPE_IPV6
                } else {
                    ETHERTYPE_IP
                },
                hardware: interface.link().hardware(),
                kind: if outgoing {
                    PacketType::Outgoing
                } else {
                    PacketType::Host
                },
                source: EtherAddr::default(),
            });
        }
        let mut header = [0; ETHER_HEADER];
        packet.read(0, &mut header)?;
        let loopback = interface.link() == LinkType::Loopback;
        let kind = match header[0] {
            _ if outgoing => PacketType::Outgoing,
            _ if loopback => PacketType::Host,
            0xff if header[..6] == [0xff; 6] => PacketType::Broadcast,
            first if first & 1 != 0 => PacketType::Multicast,
            _ if header[..6] == interface.address(parker) => PacketType::Host,
            _ => PacketType::OtherHost,
        };
        let mut source = EtherAddr::default();
        source.copy_from_slice(&header[6..12]);
        Some(Link {
            header: ETHER_HEADER,
            protocol: u16::from_be_bytes([header[12], header[13]]),
            hardware: interface.link().hardware(),
            kind,
            source,
        })
    }
}

impl Tap for PacketSocket {
    fn packet(&self, cpu: &Cpu<'_>, interface: &Ifnet, direction: Direction, packet: &Packet) {
        if direction == Direction::Out && self.ignore_outgoing.load(Relaxed) {
            return;
        }
        let Some(link) = Link::of(cpu, interface, direction, packet) else {
            return;
        };
        let wanted = self.binding.lock(cpu).protocol;
        // As on Linux, a socket of one protocol sees what comes in; only one of all protocols sees both ways.
        if wanted != ETH_P_ALL && (wanted != link.protocol || direction == Direction::Out) {
            return;
        }
        let hidden = match self.kind {
            Kind::Dgram => link.header,
            _ => 0,
        };
        let mut shown = packet.clone();
        shown.advance(hidden);
        let snap = self.common.filter(&View {
            packet: &shown,
            link_header: link.header - hidden,
            protocol: link.protocol,
            packet_type: link.kind as u8,
            interface: interface.index(),
        });
        if snap == 0 {
            return;
        }
        let captured = Captured {
            snap: shown.len().min(snap),
            len: shown.len(),
            packet: shown,
            link_header: link.header,
            header_hidden: hidden != 0,
            from: LinkAddr {
                protocol: link.protocol,
                interface: interface.index(),
                hardware: link.hardware,
                kind: link.kind,
                address: link.source,
            },
            time: cpu.cpus().host().now(Clock::Realtime),
        };
        let limit = self.common.rcvbuf.load(Relaxed) as usize;
        let status = checksum_status(&captured);
        if self.queue.lock(cpu).push(captured, status, limit) {
            self.readable.signal(cpu);
            self.common.poll.notify(cpu, Events::IN | Events::RDNORM);
        }
    }
}

impl Protocol for PacketSocket {
    fn common(&self) -> &Arc<Common> {
        &self.common
    }

    fn bind(&self, cx: &Curlwp<'_>, addr: &Addr) -> Result<(), Errno> {
        let asked = LinkAddr::parse(addr)?;
        let protocol = match asked.protocol {
            0 => self.binding.lock(cx.cpu()).protocol,
            protocol => protocol,
        };
        self.bind_to(cx.cpu(), protocol, asked.interface)
    }

    fn connect(&self, _: &Curlwp<'_>, _: &Addr, _: net::Wait) -> Result<(), Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    fn send(&self, cx: &Curlwp<'_>, message: &mut Outgoing<'_, '_>) -> Result<(), Errno> {
        let (interface, to) = self.target(cx, message.to)?;
        let header = match interface.link() {
            LinkType::Ip => 0,
            LinkType::Ethernet | LinkType::Loopback => ETHER_HEADER,
        };
        let len = message.uio.resid();
        let most = interface.mtu() as usize + if self.kind == Kind::Raw { header } else { 0 };
        if len > most {
            return Err(Errno::EMSGSIZE);
        }
        if self.kind == Kind::Raw && len < header {
            return Err(Errno::EINVAL);
        }
        let mut bytes = vec![0; len];
        message.uio.get(cx, &mut bytes)?;
        let mut packet = Packet::new(Bytes::from(bytes));
        if self.kind == Kind::Dgram
            && header != 0
            && let Some(ether) = packet.push(header)
        {
            ether[..6].copy_from_slice(&to.address);
            ether[6..12].copy_from_slice(&interface.address(cx.cpu()));
            ether[12..].copy_from_slice(&to.protocol.to_be_bytes());
        }
        interface
            .output(cx.cpu(), packet)
            .inspect_err(|_| message.uio.give_back(len))
    }

    fn receive(&self, cx: &Curlwp<'_>, message: &mut Incoming<'_, '_>) -> Result<Received, Errno> {
        let mut queue = self.queue.lock(cx.cpu());
        let captured = loop {
            let next = match message.flags & MSG_PEEK != 0 {
                true => queue.first().cloned(),
                false => queue.pop(),
            };
            if let Some(captured) = next {
                break captured;
            }
            self.common.take_error()?;
            queue = message.wait.on(cx, &self.readable, queue)?;
        };
        drop(queue);
        self.last_time.store(captured.time, Relaxed);
        let mut received = Received {
            from: Some(captured.from.to_addr()),
            len: Some(captured.snap),
            ..Received::default()
        };
        if captured.snap > message.uio.resid() {
            received.flags |= MSG_TRUNC;
        }
        if message.wants_control {
            let time = self.common.timestamp_control(captured.time);
            received.control.extend(time);
            if self.auxdata.load(Relaxed) {
                received.control.push(self.auxdata(&captured));
            }
        }
        let mut left = captured.snap;
        for piece in captured.packet.pieces() {
            let piece = &piece[..piece.len().min(left)];
            left -= piece.len();
            if message.uio.put(cx, piece)? < piece.len() {
                break;
            }
        }
        Ok(received)
    }

    fn shutdown(&self, _: &Curlwp<'_>, _: Shutdown) -> Result<(), Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    fn name(&self, cx: &Curlwp<'_>) -> Result<Addr, Errno> {
        let (protocol, index) = {
            let binding = self.binding.lock(cx.cpu());
            (binding.protocol, binding.interface)
        };
        let interface = self.interfaces.by_index(index);
        let hardware = interface.as_ref().map_or(0, |i| i.link().hardware());
        let address = interface.map_or(EtherAddr::default(), |i| i.address(cx.cpu()));
        let name = LinkAddr {
            protocol,
            interface: index,
            hardware,
            kind: PacketType::Host,
            address,
        };
        Ok(name.to_addr())
    }

    fn peer(&self, _: &Curlwp<'_>) -> Result<Addr, Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    fn poll(&self, cx: &Curlwp<'_>) -> Events {
        let readable = self.queue.lock(cx.cpu()).readable();
        let out = Events::OUT | Events::WRNORM;
        if readable {
            out | Events::IN | Events::RDNORM
        } else {
            out
        }
    }

    fn getsockopt_with(
        &self,
        cx: &Curlwp<'_>,
        level: i32,
        name: i32,
        input: &[u8],
    ) -> Result<OptValue, Errno> {
        match (level, name) {
            // The version is asked for in the value.
            (SOL_PACKET, PACKET_HDRLEN) => match int_option(input)? {
                TPACKET_V2 => Ok(OptValue::from_slice(&(ring::HEADER as i32).to_le_bytes())),
                _ => Err(Errno::EINVAL),
            },
            _ => self.getsockopt(cx, level, name),
        }
    }

    fn getsockopt(&self, cx: &Curlwp<'_>, level: i32, name: i32) -> Result<OptValue, Errno> {
        let int = |value: i32| OptValue::from_slice(&value.to_le_bytes());
        match (level, name) {
            (SOL_PACKET, PACKET_STATISTICS) => {
                let (seen, dropped) = self.queue.lock(cx.cpu()).take_counts();
                let mut value = int(seen as i32);
                value.extend_from_slice(&dropped.to_le_bytes());
                Ok(value)
            }
            (SOL_PACKET, PACKET_AUXDATA) => Ok(int(self.auxdata.load(Relaxed).into())),
            (SOL_PACKET, PACKET_ORIGDEV) => Ok(int(1)),
            (SOL_PACKET, PACKET_VERSION) => Ok(int(TPACKET_V2)),
            (SOL_PACKET, PACKET_RESERVE) => Ok(int(self.reserve.load(Relaxed) as i32)),
            (SOL_PACKET, PACKET_IGNORE_OUTGOING) => {
                Ok(int(self.ignore_outgoing.load(Relaxed).into()))
            }
            _ => Err(Errno::ENOPROTOOPT),
        }
    }

    fn setsockopt(
        &self,
        cx: &Curlwp<'_>,
        level: i32,
        name: i32,
        value: &[u8],
    ) -> Result<(), Errno> {
        match (level, name) {
            (SOL_PACKET, PACKET_ADD_MEMBERSHIP) => self.membership(cx, value, true),
            (SOL_PACKET, PACKET_DROP_MEMBERSHIP) => self.membership(cx, value, false),
            (SOL_PACKET, PACKET_AUXDATA) => {
                self.auxdata.store(int_option(value)? != 0, Relaxed);
                Ok(())
            }
            (SOL_PACKET, PACKET_VERSION) => match int_option(value)? {
                TPACKET_V2 => Ok(()),
                _ => Err(Errno::EINVAL),
            },
            (SOL_PACKET, PACKET_RESERVE) => {
                let bytes = usize::try_from(int_option(value)?).map_err(|_| Errno::EINVAL)?;
                if bytes > RESERVE_MAX {
                    return Err(Errno::EINVAL);
                }
                self.reserve.store(bytes, Relaxed);
                Ok(())
            }
            (SOL_PACKET, PACKET_RX_RING) => self.set_ring(cx, value),
            // Times are always the kernel's clock.
            (SOL_PACKET, PACKET_TIMESTAMP) => int_option(value).map(drop),
            // Frames are always told with the interface that they came in by.
            (SOL_PACKET, PACKET_ORIGDEV) => int_option(value).map(drop),
            (SOL_PACKET, PACKET_IGNORE_OUTGOING) => {
                self.ignore_outgoing.store(int_option(value)? != 0, Relaxed);
                Ok(())
            }
            _ => Err(Errno::ENOPROTOOPT),
        }
    }

    fn ioctl(&self, cx: &Curlwp<'_>, cmd: u32, arg: UserAddr) -> SysResult {
        match cmd {
            SIOCINQ => {
                let first = self.queue.lock(cx.cpu()).first().map_or(0, |c| c.snap);
                cx.copyout(&(first as i32).to_le_bytes(), arg)?;
            }
            SIOCGSTAMP => match self.last_time.load(Relaxed) {
                0 => return Err(Errno::ENOENT),
                time => cx.copyout(&Self::timestamp(time), arg)?,
            },
            _ => return Err(Errno::ENOTTY),
        }
        Ok(0)
    }

    fn memory(&self, cx: &Curlwp<'_>) -> Option<Arc<dyn BackingFile>> {
        let queue = self.queue.lock(cx.cpu());
        queue.ring.as_ref().map(|ring| ring.file().clone())
    }

    fn close(&self, cx: &Curlwp<'_>) {
        let (taps, memberships) = {
            let mut binding = self.binding.lock(cx.cpu());
            binding.closed = true;
            (
                std::mem::take(&mut binding.taps),
                std::mem::take(&mut binding.memberships),
            )
        };
        if let Some(tap) = self.tap() {
            taps.iter().for_each(|i| i.remove_tap(&tap));
        }
        for (index, flag) in memberships {
            if let Some(interface) = self.interfaces.by_index(index) {
                interface.request(cx.cpu(), flag, false);
            }
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

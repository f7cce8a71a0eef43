//! Interfaces: what packets come in and go out by, whatever is below them.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use abi::Errno;
use kern::Curlwp;
use smallvec::SmallVec;
use sync::{Cpu, Mutex, Parker};

use crate::consts::ETHERTYPE_VLAN;
use crate::consts::{
    ARPHRD_ETHER, ARPHRD_LOOPBACK, ARPHRD_NONE, IFF_BROADCAST, IFF_LOOPBACK, IFF_MULTICAST,
    IFF_POINTOPOINT, IFF_PROMISC, IFF_RUNNING, IFF_UP,
};
use crate::frame::ETHER_HEADER;
use crate::{Checksum, Interfaces, Packet, Seldom, complete_checksum, segment};

/// An Ethernet address.
pub type EtherAddr = [u8; 6];

/// What stands in front of the network layer's header on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkType {
    /// An Ethernet header.
    Ethernet,
    /// An Ethernet header whose addresses are all zero: this kernel itself.
    Loopback,
    /// Nothing, packets of IPv4 and IPv6 as they are.
    Ip,
}

impl LinkType {
    /// `ARPHRD_*`, what Linux calls it.
    pub fn hardware(self) -> u16 {
        match self {
            LinkType::Ethernet => ARPHRD_ETHER,
            LinkType::Loopback => ARPHRD_LOOPBACK,
            LinkType::Ip => ARPHRD_NONE,
        }
    }

    /// Bytes of the link-layer header, without tags.
    pub fn header_len(self) -> usize {
        match self {
            LinkType::Ethernet | LinkType::Loopback => ETHER_HEADER,
            LinkType::Ip => 0,
        }
    }
}

fn is_tagged(packet: &mut Packet) -> bool {
    packet
        .front(ETHER_HEADER)
        .is_some_and(|header| header[12..] == ETHERTYPE_VLAN.to_be_bytes())
}

/// The most interfaces that may stand on one another, as Linux has it: each takes stack on the way of a packet.
pub const HEIGHT_MAX: usize = 8;

/// What a driver takes off the stack's hands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// It takes packets with [`Checksum::Partial`](crate::Checksum::Partial).
    pub checksum: bool,
    /// The longest packet to be cut ([`Gso`](crate::Gso)) that it takes, in bytes with the IP header; 0 when it takes none.
    pub gso_max: u32,
}

/// What is below an interface.
///
/// Methods that are given a [`Cpu`] may be called from a software interrupt: they may take leaf locks and make host calls that
/// do not block, and nothing else. Those that are given a [`Curlwp`] may wait.
pub trait Driver: Send + Sync {
    /// Sends a frame with its link-layer header. `ENOBUFS` when there is no room: the packet is gone, as on a wire.
    fn transmit(&self, cpu: &Cpu<'_>, packet: Packet) -> Result<(), Errno>;

    /// Sends several, in order, up to the first that finds no room: how many went. The others are gone.
    fn transmit_all(&self, cpu: &Cpu<'_>, packets: Vec<Packet>) -> usize {
        let sent = packets.into_iter().map(|p| self.transmit(cpu, p));
        sent.take_while(Result::is_ok).count()
    }

    /// The interface goes up or down.
    fn set_up(&self, cx: &Curlwp<'_>, interface: &Arc<Ifnet>, up: bool) -> Result<(), Errno> {
        let _ = (cx, interface, up);
        Ok(())
    }

    /// Whether it can have this MTU, in bytes. `EINVAL` if not.
    fn set_mtu(&self, cx: &Curlwp<'_>, mtu: u32) -> Result<(), Errno> {
        let _ = (cx, mtu);
        Ok(())
    }

    /// The interface's flags, address, MTU or name have changed.
    fn changed(&self, cpu: &Cpu<'_>, interface: &Ifnet) {
        let _ = (cpu, interface);
    }

    /// What kind of interface it is, for those who list them: "veth", "bridge"; empty for an ordinary one.
    fn kind(&self) -> &'static str {
        ""
    }

    /// The interfaces that what it sends goes out by: the parent of a VLAN, the ports of a bridge.
    fn lowers(&self) -> Vec<Arc<Ifnet>> {
        Vec::new()
    }

    /// The index of the interface that lists show with it: a VLAN's parent, the other end of a pair in one kernel; 0 for none.
    fn partner(&self) -> u32 {
        0
    }

    /// The VLAN whose frames it carries.
    fn vlan(&self) -> Option<u16> {
        None
    }

    /// Makes another interface a port of this one, a bridge's for example. `EOPNOTSUPP` where there are no ports, `EBUSY` when
    /// it is a port already, `ELOOP` when it stands on this one, or too many stand on one another.
    fn add_port(&self, cx: &Curlwp<'_>, port: &Arc<Ifnet>) -> Result<(), Errno> {
        let _ = (cx, port);
        Err(Errno::EOPNOTSUPP)
    }

    /// Ends what [`add_port`](Self::add_port) began.
    fn remove_port(&self, cx: &Curlwp<'_>, port: &Arc<Ifnet>) -> Result<(), Errno> {
        let _ = (cx, port);
        Err(Errno::EOPNOTSUPP)
    }

    /// The interface is being taken away: nothing is sent or received after this.
    fn detach(&self, cx: &Curlwp<'_>) {
        let _ = cx;
    }
}

/// Which way a packet that a tap sees went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// It came in.
    In,
    /// It goes out.
    Out,
}

/// Somebody who sees every packet of an interface: a capture, a packet socket.
pub trait Tap: Send + Sync {
    /// A frame as it is on the link. May be called from a software interrupt.
    fn packet(&self, cpu: &Cpu<'_>, interface: &Ifnet, direction: Direction, packet: &Packet);
}

/// Who takes the frames of an interface before the network layer sees them: the bridge that it is a port of.
pub trait Master: Send + Sync {
    /// Takes a frame, with its link-layer header; gives it back when the network layer shall have it.
    fn frame(&self, cpu: &Cpu<'_>, interface: &Arc<Ifnet>, packet: Packet) -> Option<Packet>;

    /// The index of the interface that is the master.
    fn index(&self) -> u32;
}

/// Who takes the tagged frames (802.1Q) of an interface: the VLANs on it.
pub trait Trunk: Send + Sync {
    /// Takes a frame whose Ethernet header has a tag; gives it back when it is for none of them.
    fn tagged(&self, cpu: &Cpu<'_>, interface: &Arc<Ifnet>, packet: Packet) -> Option<Packet>;
}

/// Counts of an interface since it was made.
#[derive(Default, Debug)]
#[allow(missing_docs)]
pub struct Stats {
    pub rx_packets: AtomicU64,
    pub rx_bytes: AtomicU64,
    pub rx_dropped: AtomicU64,
    pub rx_errors: AtomicU64,
    pub tx_packets: AtomicU64,
    pub tx_bytes: AtomicU64,
    pub tx_dropped: AtomicU64,
    pub tx_errors: AtomicU64,
    pub multicast: AtomicU64,
}

/// What is asked for when an interface is made.
pub struct Config {
    /// Its name, at most 15 bytes; one that ends in `%d` gets the first number that is free.
    pub name: String,
    /// What its frames look like.
    pub link: LinkType,
    /// The longest packet without the link-layer header, in bytes.
    pub mtu: u32,
    /// Its address; zero where there is none.
    pub address: EtherAddr,
    /// What the driver can.
    pub features: Features,
    /// One peer only, no broadcast.
    pub point_to_point: bool,
}

/// An interface.
///
/// `address`, `name`, `requests` are leaf locks; taps, the master and the trunk are swapped whole; everything else is atomic. No lock
/// is held over a call of the driver, a tap, a master or the network layer.
pub struct Ifnet {
    index: u32,
    name: Mutex<String>,
    link: LinkType,
    features: Features,
    flags: AtomicU32,
    mtu: AtomicU32,
    address: Mutex<EtherAddr>,
    /// How many ask for `IFF_PROMISC` and for `IFF_ALLMULTI`.
    requests: Mutex<[u32; 2]>,
    driver: Arc<dyn Driver>,
    taps: Seldom<Vec<Arc<dyn Tap>>>,
    master: Seldom<Box<dyn Master>>,
    trunk: Seldom<Box<dyn Trunk>>,
    uplink: OnceLock<Weak<Interfaces>>,
    /// Since it was made.
    pub stats: Stats,
}

impl Ifnet {
    /// One that is down, and that nobody knows yet: see [`Interfaces::attach`].
    pub(crate) fn new(
        index: u32,
        config: Config,
        driver: Arc<dyn Driver>,
        uplink: Weak<Interfaces>,
    ) -> Arc<Ifnet> {
        let kind = match config.link {
            LinkType::Loopback => IFF_LOOPBACK,
            _ if config.point_to_point => IFF_POINTOPOINT | IFF_MULTICAST,
            LinkType::Ethernet | LinkType::Ip => IFF_BROADCAST | IFF_MULTICAST,
        };
        Arc::new(Ifnet {
            index,
            name: Mutex::new(config.name),
            link: config.link,
            features: config.features,
            flags: AtomicU32::new(kind),
            mtu: AtomicU32::new(config.mtu),
            address: Mutex::new(config.address),
            requests: Mutex::default(),
            driver,
            taps: Seldom::default(),
            master: Seldom::default(),
            trunk: Seldom::default(),
            uplink: uplink.into(),
            stats: Stats::default(),
        })
    }

    /// Its number, from 1 on.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Its name.
    pub fn name(&self, parker: &dyn Parker) -> String {
        self.name.lock(parker).clone()
    }

    /// Gives it another name, for [`Interfaces::rename`], which looks whether it is free.
    pub(crate) fn set_name(&self, parker: &dyn Parker, name: &str) {
        *self.name.lock(parker) = name.into();
    }

    /// What its frames look like.
    pub fn link(&self) -> LinkType {
        self.link
    }

    /// What its driver can.
    pub fn features(&self) -> Features {
        self.features
    }

    /// What is below it.
    pub fn driver(&self) -> &Arc<dyn Driver> {
        &self.driver
    }

    /// Whether what it sends may go out by another one, or it is that one.
    pub fn stands_on(&self, other: &Ifnet) -> bool {
        std::ptr::eq(self, other)
            || self
                .driver
                .lowers()
                .iter()
                .any(|lower| lower.stands_on(other))
    }

    /// How many interfaces stand on one another from here down, itself not counted.
    pub fn height(&self) -> usize {
        let lowers = self.driver.lowers();
        lowers
            .iter()
            .map(|lower| lower.height() + 1)
            .max()
            .unwrap_or(0)
    }

    /// `IFF_*`.
    pub fn flags(&self) -> u32 {
        self.flags.load(Ordering::Relaxed)
    }

    /// Whether it leads back to this kernel.
    pub fn is_loopback(&self) -> bool {
        self.link == LinkType::Loopback
    }

    /// Whether it is up.
    pub fn is_up(&self) -> bool {
        self.flags() & IFF_UP != 0
    }

    /// Sets flags and clears others, but not [`IFF_UP`], for which there is [`set_up`](Self::set_up).
    pub fn change_flags(&self, cpu: &Cpu<'_>, set: u32, clear: u32) {
        self.flags.fetch_or(set & !IFF_UP, Ordering::Relaxed);
        self.flags.fetch_and(!(clear & !IFF_UP), Ordering::Relaxed);
        self.changed(cpu);
    }

    /// Asks for `IFF_PROMISC` or `IFF_ALLMULTI`, or takes that back: the flag is set as long as anybody asks for it.
    pub fn request(&self, cpu: &Cpu<'_>, flag: u32, on: bool) {
        let mut requests = self.requests.lock(cpu);
        let count = &mut requests[usize::from(flag != IFF_PROMISC)];
        *count = match on {
            true => count.saturating_add(1),
            false => count.saturating_sub(1),
        };
        let wanted = *count > 0;
        drop(requests);
        match wanted {
            true => self.change_flags(cpu, flag, 0),
            false => self.change_flags(cpu, 0, flag),
        }
    }

    /// Brings it up or down, and tells those who listen.
    pub fn set_up(self: &Arc<Self>, cx: &Curlwp<'_>, up: bool) -> Result<(), Errno> {
        if up == self.is_up() {
            return Ok(());
        }
        self.driver.set_up(cx, self, up)?;
        let bits = IFF_UP | IFF_RUNNING;
        match up {
            true => self.flags.fetch_or(bits, Ordering::Relaxed),
            false => self.flags.fetch_and(!bits, Ordering::Relaxed),
        };
        self.changed(cx.cpu());
        Ok(())
    }

    /// The longest packet without the link-layer header, in bytes.
    pub fn mtu(&self) -> u32 {
        self.mtu.load(Ordering::Relaxed)
    }

    /// Sets the MTU. `EINVAL` when the driver cannot.
    pub fn set_mtu(&self, cx: &Curlwp<'_>, mtu: u32) -> Result<(), Errno> {
        if !(68..=65_536).contains(&mtu) {
            return Err(Errno::EINVAL);
        }
        self.driver.set_mtu(cx, mtu)?;
        self.mtu.store(mtu, Ordering::Relaxed);
        self.changed(cx.cpu());
        Ok(())
    }

    /// Its link-layer address.
    pub fn address(&self, parker: &dyn Parker) -> EtherAddr {
        *self.address.lock(parker)
    }

    /// Gives it another address.
    pub fn set_address(&self, cpu: &Cpu<'_>, address: EtherAddr) {
        *self.address.lock(cpu) = address;
        self.changed(cpu);
    }

    /// Has somebody see every packet from now on.
    pub fn add_tap(&self, tap: Arc<dyn Tap>) {
        self.taps.change(|taps| taps.push(tap.clone()));
    }

    /// Ends what [`add_tap`](Self::add_tap) began.
    pub fn remove_tap(&self, tap: &Arc<dyn Tap>) {
        self.taps
            .change(|taps| taps.retain(|t| !Arc::ptr_eq(t, tap)));
    }

    /// Gives its frames to a master, or to nobody.
    pub fn set_master(&self, cpu: &Cpu<'_>, master: Option<Box<dyn Master>>) {
        self.master.store(master);
        self.changed(cpu);
    }

    /// The index of its master; 0 for none.
    pub fn master(&self) -> u32 {
        self.master
            .load()
            .as_ref()
            .map_or(0, |master| master.index())
    }

    /// Gives its tagged frames to VLANs, or to nobody.
    pub fn set_trunk(&self, trunk: Option<Box<dyn Trunk>>) {
        self.trunk.store(trunk);
    }

    /// Sends a frame with its link-layer header. What the driver cannot do (cut it, complete its checksum) is done before. `ENETDOWN` when the interface is down, `ENOBUFS` when there is no room below.
    pub fn output(&self, cpu: &Cpu<'_>, packet: Packet) -> Result<(), Errno> {
        if !self.is_up() {
            return Err(Errno::ENETDOWN);
        }
        self.show(cpu, Direction::Out, &packet);
        if self.takes(&packet) {
            return self.transmit(cpu, packet);
        }
        self.transmit_prepared(cpu, packet)
    }

    /// Whether the driver takes a packet as it is.
    fn takes(&self, packet: &Packet) -> bool {
        let cut = packet.gso.is_none()
            || packet.len() <= self.features.gso_max as usize + self.link.header_len();
        cut && (self.features.checksum || !matches!(packet.checksum, Checksum::Partial { .. }))
    }

    /// Does what the driver does not, and sends the packets that come of it, together.
    #[cold]
    fn transmit_prepared(&self, cpu: &Cpu<'_>, mut packet: Packet) -> Result<(), Errno> {
        if packet.gso.is_none() {
            complete_checksum(&mut packet)?;
            return self.transmit(cpu, packet);
        }
        let mut parts: Vec<Packet> = segment(self.link, packet)?.collect();
        if !self.features.checksum {
            parts.iter_mut().try_for_each(complete_checksum)?;
        }
        let lens: SmallVec<[usize; 64]> = parts.iter().map(Packet::len).collect();
        let went = self.driver.transmit_all(cpu, parts).min(lens.len());
        let bytes = lens[..went].iter().sum::<usize>();
        let lost = lens.len() - went;
        let count = |stat: &AtomicU64, n: usize| stat.fetch_add(n as u64, Ordering::Relaxed);
        count(&self.stats.tx_packets, went);
        count(&self.stats.tx_bytes, bytes);
        count(&self.stats.tx_dropped, lost);
        if lost > 0 {
            Err(Errno::ENOBUFS)
        } else {
            Ok(())
        }
    }

    fn transmit(&self, cpu: &Cpu<'_>, packet: Packet) -> Result<(), Errno> {
        let len = packet.len() as u64;
        let sent = self.driver.transmit(cpu, packet);
        match sent {
            Ok(()) => {
                self.stats.tx_packets.fetch_add(1, Ordering::Relaxed);
                self.stats.tx_bytes.fetch_add(len, Ordering::Relaxed);
            }
            Err(_) => {
                self.stats.tx_dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
        sent
    }

    /// A frame came in, with its link-layer header: the driver calls this, with no lock held. May be a software interrupt.
    pub fn input(self: &Arc<Self>, cpu: &Cpu<'_>, mut packet: Packet) {
        if !self.is_up() {
            self.stats.rx_dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        packet.received_on = self.index;
        self.stats.rx_packets.fetch_add(1, Ordering::Relaxed);
        self.stats
            .rx_bytes
            .fetch_add(packet.len() as u64, Ordering::Relaxed);
        self.show(cpu, Direction::In, &packet);
        let packet = match &*self.trunk.load() {
            Some(trunk) if is_tagged(&mut packet) => trunk.tagged(cpu, self, packet),
            _ => Some(packet),
        };
        let packet = match (&*self.master.load(), packet) {
            (Some(master), Some(packet)) => master.frame(cpu, self, packet),
            (_, packet) => packet,
        };
        if let Some(packet) = packet
            && let Some(interfaces) = self.uplink.get().and_then(Weak::upgrade)
        {
            interfaces.network_input(cpu, self, packet);
        }
    }

    fn show(&self, cpu: &Cpu<'_>, direction: Direction, packet: &Packet) {
        for tap in self.taps.load().iter().flat_map(|taps| taps.iter()) {
            tap.packet(cpu, self, direction, packet);
        }
    }

    fn changed(&self, cpu: &Cpu<'_>) {
        self.driver.changed(cpu, self);
        if let Some(interfaces) = self.uplink.get().and_then(Weak::upgrade) {
            interfaces.tell(cpu, &crate::LinkEvent::Changed(self.index));
        }
    }
}

//! A bridge: forwarding.

use std::sync::{Arc, OnceLock, Weak};

use abi::Errno;
use arc_swap::ArcSwap;
use hypercall::{Clock, Nanos};
use kern::Curlwp;
use net::consts::IFF_PROMISC;
use net::{
    Config, Driver, ETHER_HEADER, EtherAddr, Features, HEIGHT_MAX, Ifnet, Interfaces, LinkType,
    Master, Packet,
};
use sync::{Cpu, Mutex};

use crate::table::{Limits, Table};

const MTU: u32 = 1500;
const GSO_MAX: u32 = 65_535;
/// In an address's first byte: for more than one.
const GROUP: u8 = 1;

/// A bridge.
///
/// `table` is a leaf, held for a look-up. The ports are swapped whole. No lock is held while a frame is sent.
pub(crate) struct Bridge {
    table: Mutex<Table>,
    ports: ArcSwap<Vec<Arc<Ifnet>>>,
    interface: OnceLock<Weak<Ifnet>>,
    me: Weak<Bridge>,
}

/// What a bridge is to its ports.
struct Ports {
    bridge: Weak<Bridge>,
    index: u32,
}

/// Where a frame is to go.
enum To {
    /// To this kernel.
    Here,
    /// To one port.
    Port(u32),
    /// To all ports, and with true to this kernel.
    All {
        here: bool,
    },
    Nowhere,
}

impl Bridge {
    /// Makes a bridge without ports.
    pub(crate) fn attach(
        cx: &Curlwp<'_>,
        interfaces: &Arc<Interfaces>,
        name: &str,
        address: EtherAddr,
        limits: Limits,
    ) -> Result<(Arc<Ifnet>, Arc<Bridge>), Errno> {
        let bridge = Arc::new_cyclic(|me| Bridge {
            table: Mutex::new(Table::new(limits)),
            ports: ArcSwap::default(),
            interface: OnceLock::new(),
            me: me.clone(),
        });
        let config = Config {
            name: name.into(),
            link: LinkType::Ethernet,
            mtu: MTU,
            address,
            // Each port does what its own driver does not.
            features: Features {
                checksum: true,
                gso_max: GSO_MAX,
            },
            point_to_point: false,
        };
        let interface = interfaces.attach(cx, config, bridge.clone())?;
        let _ = bridge.interface.set(Arc::downgrade(&interface));
        Ok((interface, bridge))
    }

    fn interface(&self) -> Option<Arc<Ifnet>> {
        self.interface.get().and_then(Weak::upgrade)
    }

    /// A port has been taken away.
    pub(crate) fn forget_port(&self, cpu: &Cpu<'_>, index: u32) {
        if !self.ports.load().iter().any(|port| port.index() == index) {
            return;
        }
        self.ports.rcu(|ports| {
            let mut ports = Vec::clone(ports);
            ports.retain(|port| port.index() != index);
            ports
        });
        self.table.lock(cpu).forget(index);
    }

    /// Learns from a frame that came in by a port, and says where it goes.
    fn decide(&self, cpu: &Cpu<'_>, from: &Ifnet, header: &[u8; ETHER_HEADER]) -> To {
        let (to, source) = addresses(header);
        if source[0] & GROUP != 0 || is_reserved(&to) {
            return To::Nowhere;
        }
        let now = now(cpu);
        let known = {
            let mut table = self.table.lock(cpu);
            table.learn(source, from.index(), now);
            table.port_of(&to, now)
        };
        if to[0] & GROUP != 0 {
            return To::All { here: true };
        }
        if self.is_ours(cpu, &to) {
            return To::Here;
        }
        match known {
            Some(port) if port == from.index() => To::Nowhere,
            Some(port) => To::Port(port),
            None => To::All { here: false },
        }
    }

    /// Whether an address is the bridge's own or one of its ports'.
    fn is_ours(&self, cpu: &Cpu<'_>, address: &EtherAddr) -> bool {
        self.interface()
            .is_some_and(|bridge| bridge.address(cpu) == *address)
            || self
                .ports
                .load()
                .iter()
                .any(|port| port.address(cpu) == *address)
    }

    /// Sends a frame by one port.
    fn forward(&self, cpu: &Cpu<'_>, port: u32, packet: Packet) -> Result<(), Errno> {
        let ports = self.ports.load();
        let port = ports.iter().find(|p| p.index() == port);
        send(cpu, port.ok_or(Errno::ENETDOWN)?, packet)
    }

    /// Sends a frame by every port but the one it came from.
    fn flood(&self, cpu: &Cpu<'_>, from: u32, packet: &Packet) {
        for port in self.ports.load().iter().filter(|p| p.index() != from) {
            // It is lost on this port; that says nothing of the others.
            let _ = send(cpu, port, packet.clone());
        }
    }
}

/// Sends a frame by a port, if it is not too long for it.
fn send(cpu: &Cpu<'_>, port: &Arc<Ifnet>, packet: Packet) -> Result<(), Errno> {
    // A tag is not counted.
    if packet.gso.is_none() && packet.len() > port.mtu() as usize + ETHER_HEADER + 4 {
        return Err(Errno::EMSGSIZE);
    }
    port.output(cpu, packet)
}

fn addresses(header: &[u8; ETHER_HEADER]) -> (EtherAddr, EtherAddr) {
    let (mut to, mut source) = (EtherAddr::default(), EtherAddr::default());
    to.copy_from_slice(&header[..6]);
    source.copy_from_slice(&header[6..12]);
    (to, source)
}

/// Addresses that no bridge forwards, IEEE 802.1D table 7-10.
fn is_reserved(address: &EtherAddr) -> bool {
    address[..5] == [0x01, 0x80, 0xc2, 0, 0] && address[5] & 0xf0 == 0
}

fn now(cpu: &Cpu<'_>) -> Nanos {
    cpu.cpus().host().now(Clock::Monotonic)
}

fn header(packet: &mut Packet) -> Option<[u8; ETHER_HEADER]> {
    packet.front(ETHER_HEADER)?.try_into().ok()
}

impl Driver for Bridge {
    /// A frame of this kernel's own.
    fn transmit(&self, cpu: &Cpu<'_>, mut packet: Packet) -> Result<(), Errno> {
        let (to, _) = addresses(&header(&mut packet).ok_or(Errno::EINVAL)?);
        let known = match to[0] & GROUP {
            0 => self.table.lock(cpu).port_of(&to, now(cpu)),
            _ => None,
        };
        match known {
            Some(port) => self.forward(cpu, port, packet),
            None => {
                self.flood(cpu, 0, &packet);
                Ok(())
            }
        }
    }

    fn kind(&self) -> &'static str {
        "bridge"
    }

    fn lowers(&self) -> Vec<Arc<Ifnet>> {
        self.ports.load().to_vec()
    }

    /// `EINVAL` for what is no Ethernet, `ELOOP` for a bridge or what stands on this one, `EBUSY` for what has a master.
    fn add_port(&self, cx: &Curlwp<'_>, port: &Arc<Ifnet>) -> Result<(), Errno> {
        let bridge = self.interface().ok_or(Errno::ENODEV)?;
        if port.link() != LinkType::Ethernet {
            return Err(Errno::EINVAL);
        }
        if port.driver().kind() == self.kind()
            || port.stands_on(&bridge)
            || port.height() >= HEIGHT_MAX
        {
            return Err(Errno::ELOOP);
        }
        if port.master() != 0 {
            return Err(Errno::EBUSY);
        }
        self.ports.rcu(|ports| {
            let mut ports = Vec::clone(ports);
            ports.push(port.clone());
            ports
        });
        let ports = Ports {
            bridge: self.me.clone(),
            index: bridge.index(),
        };
        port.request(cx.cpu(), IFF_PROMISC, true);
        port.set_master(cx.cpu(), Some(Box::new(ports)));
        Ok(())
    }

    fn remove_port(&self, cx: &Curlwp<'_>, port: &Arc<Ifnet>) -> Result<(), Errno> {
        if !self.ports.load().iter().any(|p| Arc::ptr_eq(p, port)) {
            return Err(Errno::EINVAL);
        }
        port.set_master(cx.cpu(), None);
        port.request(cx.cpu(), IFF_PROMISC, false);
        self.forget_port(cx.cpu(), port.index());
        Ok(())
    }

    fn detach(&self, cx: &Curlwp<'_>) {
        for port in self.ports.load_full().iter() {
            // It is one of ours.
            let _ = self.remove_port(cx, port);
        }
    }
}

impl Master for Ports {
    fn frame(&self, cpu: &Cpu<'_>, from: &Arc<Ifnet>, mut packet: Packet) -> Option<Packet> {
        let bridge = self.bridge.upgrade()?;
        let interface = bridge.interface()?;
        let header = header(&mut packet)?;
        if !interface.is_up() {
            return None;
        }
        match bridge.decide(cpu, from, &header) {
            To::Here => interface.input(cpu, packet),
            To::Port(port) => {
                // Lost, as on a wire; the port has counted it.
                let _ = bridge.forward(cpu, port, packet);
            }
            To::All { here } => {
                bridge.flood(cpu, from.index(), &packet);
                if here {
                    interface.input(cpu, packet);
                }
            }
            To::Nowhere => {}
        }
        None
    }

    fn index(&self) -> u32 {
        self.index
    }
}

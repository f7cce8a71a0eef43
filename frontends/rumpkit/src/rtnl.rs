//! Interfaces, addresses, routes and neighbours of a kernel, near or far: asked and set over a netlink socket, rtnetlink(7).

use std::io;
use std::net::IpAddr;

use abi::{Errno, Invoke, Syscalls};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkBuffer,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::Process;
use crate::process::error;

const AF_NETLINK: i32 = 16;
const SOCK_RAW_CLOEXEC: i32 = 0o2000003;
const NETLINK_ROUTE: i32 = 0;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// A datagram of an answer is shorter.
const DATAGRAM: usize = 64 << 10;

/// An interface of a kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// `IFF_*`.
    pub flags: u32,
    /// The longest packet, in bytes.
    pub mtu: u32,
    /// Its link-layer address; none for a link without.
    pub mac: Option<Vec<u8>>,
    /// The index of the bridge that it is a port of; 0 for none.
    pub master: u32,
    /// Packets, bytes and dropped packets that came in.
    pub received: [u64; 3],
    /// The same that went out.
    pub sent: [u64; 3],
}

impl Interface {
    /// Whether it is up.
    pub fn is_up(&self) -> bool {
        self.flags & 1 != 0
    }
}

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// The interface's index.
    pub interface: u32,
    /// The address.
    pub address: IpAddr,
    /// Bits of the network's prefix.
    pub prefix: u8,
    /// Whether it may not be used yet, or never: somebody else has it.
    pub tentative: bool,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteEntry {
    /// The destinations' prefix; none for all of the family.
    pub destination: Option<(IpAddr, u8)>,
    /// Whether it is of IPv6.
    pub v6: bool,
    /// The router; none on the link.
    pub gateway: Option<IpAddr>,
    /// The interface's index; 0 for none.
    pub interface: u32,
    /// The source address of who has no other.
    pub source: Option<IpAddr>,
    /// Of several the lowest counts.
    pub metric: u32,
    /// `RT_TABLE_*`.
    pub table: u32,
    /// Unicast, Local, Broadcast, Blackhole, ...
    pub kind: String,
}

/// A neighbour on a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// The interface's index.
    pub interface: u32,
    /// Its address.
    pub address: IpAddr,
    /// Its link-layer address, when it is known.
    pub mac: Option<Vec<u8>>,
    /// Reachable, Stale, ...
    pub state: String,
}

fn family(v6: bool) -> AddressFamily {
    if v6 {
        AddressFamily::Inet6
    } else {
        AddressFamily::Inet
    }
}

impl<S: Invoke> Process<S> {
    /// The interfaces, in the order of their indices.
    pub fn interfaces(&self) -> io::Result<Vec<Interface>> {
        let answer = self.rtnl(
            RouteNetlinkMessage::GetLink(LinkMessage::default()),
            NLM_F_DUMP,
        )?;
        let links = answer.into_iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewLink(link) => Some(interface(&link)),
            _ => None,
        });
        Ok(links.collect())
    }

    /// The interface of a name. `ENODEV` when there is none.
    pub fn interface(&self, name: &str) -> io::Result<Interface> {
        let found = self.interfaces()?.into_iter().find(|i| i.name == name);
        found.ok_or_else(|| error(Errno::ENODEV))
    }

    /// Makes the interface of a name such as `tap0` (`tap` takes the first free number), with the parameters of its kind as
    /// `dev=tap7`. Why there is none is in the kernel's messages.
    pub fn create_interface(&self, name: &str, params: &str) -> io::Result<u32> {
        let [name, params] = [name, params].map(std::ffi::CString::new);
        let made = self.sys().ifcreate(&name?, &params?);
        made.map(|index| index as u32).map_err(error)
    }

    /// Takes an interface away.
    pub fn destroy_interface(&self, name: &str) -> io::Result<()> {
        let name = std::ffi::CString::new(name)?;
        self.sys().ifdestroy(&name).map(drop).map_err(error)
    }

    /// Changes an interface: up or down, MTU, link-layer address, name, the bridge that it is a port of.
    pub fn change_interface(&self, index: u32, change: &InterfaceChange) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        if let Some(up) = change.up {
            link.header.change_mask = LinkFlags::Up;
            link.header.flags = if up {
                LinkFlags::Up
            } else {
                LinkFlags::empty()
            };
        }
        link.attributes.extend(change.mtu.map(LinkAttribute::Mtu));
        link.attributes
            .extend(change.mac.clone().map(LinkAttribute::Address));
        link.attributes
            .extend(change.name.clone().map(LinkAttribute::IfName));
        link.attributes
            .extend(change.master.map(LinkAttribute::Controller));
        self.rtnl(RouteNetlinkMessage::SetLink(link), NLM_F_ACK)
            .map(drop)
    }

    /// The addresses of all interfaces.
    pub fn addresses(&self) -> io::Result<Vec<InterfaceAddress>> {
        let answer = self.rtnl(
            RouteNetlinkMessage::GetAddress(AddressMessage::default()),
            NLM_F_DUMP,
        )?;
        let addresses = answer.into_iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewAddress(address) => interface_address(&address),
            _ => None,
        });
        Ok(addresses.collect())
    }

    /// Gives an interface an address.
    pub fn add_address(&self, index: u32, address: IpAddr, prefix: u8) -> io::Result<()> {
        self.new_address(index, address, prefix, AddressHeaderFlags::empty())
    }

    /// The same on a link where nobody else can have it: an IPv6 address is of use at once, and nobody is asked for it (RFC 4862).
    pub fn add_own_address(&self, index: u32, address: IpAddr, prefix: u8) -> io::Result<()> {
        self.new_address(index, address, prefix, AddressHeaderFlags::Nodad)
    }

    fn new_address(
        &self,
        index: u32,
        address: IpAddr,
        prefix: u8,
        how: AddressHeaderFlags,
    ) -> io::Result<()> {
        let mut message = address_message(index, address, prefix);
        message.header.flags = how;
        if let IpAddr::V4(v4) = address
            && prefix < 31
        {
            let broadcast = u32::from(v4) | u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
            message
                .attributes
                .push(AddressAttribute::Broadcast(broadcast.into()));
        }
        // It can be used at once; that somebody else has it is found out meanwhile (RFC 4429).
        if address.is_ipv6() {
            message.header.flags |= AddressHeaderFlags::Optimistic;
        }
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        self.rtnl(RouteNetlinkMessage::NewAddress(message), flags)
            .map(drop)
    }

    /// Takes an address away from an interface.
    pub fn remove_address(&self, index: u32, address: IpAddr, prefix: u8) -> io::Result<()> {
        let message = address_message(index, address, prefix);
        self.rtnl(RouteNetlinkMessage::DelAddress(message), NLM_F_ACK)
            .map(drop)
    }

    /// The routes of all tables.
    pub fn routes(&self) -> io::Result<Vec<RouteEntry>> {
        let answer = self.rtnl(
            RouteNetlinkMessage::GetRoute(RouteMessage::default()),
            NLM_F_DUMP,
        )?;
        let routes = answer.into_iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewRoute(route) => Some(route_entry(&route)),
            _ => None,
        });
        Ok(routes.collect())
    }

    /// Adds a route to a prefix (none: to everything) by a router, an interface (0: where the router is), or both.
    pub fn add_route(
        &self,
        destination: Option<(IpAddr, u8)>,
        gateway: Option<IpAddr>,
        index: u32,
    ) -> io::Result<()> {
        let message = route_message(destination, gateway, index)?;
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        self.rtnl(RouteNetlinkMessage::NewRoute(message), flags)
            .map(drop)
    }

    /// Takes a route away.
    pub fn remove_route(
        &self,
        destination: Option<(IpAddr, u8)>,
        gateway: Option<IpAddr>,
        index: u32,
    ) -> io::Result<()> {
        let mut message = route_message(destination, gateway, index)?;
        message.header.protocol = RouteProtocol::Unspec;
        message.header.kind = RouteType::Unspec;
        message.header.scope = RouteScope::NoWhere;
        self.rtnl(RouteNetlinkMessage::DelRoute(message), NLM_F_ACK)
            .map(drop)
    }

    /// The neighbours that are known, of one family.
    pub fn neighbours(&self, v6: bool) -> io::Result<Vec<Neighbour>> {
        let mut ask = NeighbourMessage::default();
        ask.header.family = family(v6);
        let answer = self.rtnl(RouteNetlinkMessage::GetNeighbour(ask), NLM_F_DUMP)?;
        let neighbours = answer.into_iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewNeighbour(neighbour) => known(&neighbour),
            _ => None,
        });
        Ok(neighbours.collect())
    }

    /// Says for good which link-layer address a neighbour has.
    pub fn set_neighbour(&self, index: u32, address: IpAddr, mac: &[u8]) -> io::Result<()> {
        let mut message = neighbour_message(index, address);
        message.header.state = netlink_packet_route::neighbour::NeighbourState::Permanent;
        message
            .attributes
            .push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        self.rtnl(RouteNetlinkMessage::NewNeighbour(message), flags)
            .map(drop)
    }

    /// Forgets a neighbour.
    pub fn remove_neighbour(&self, index: u32, address: IpAddr) -> io::Result<()> {
        let message = neighbour_message(index, address);
        self.rtnl(RouteNetlinkMessage::DelNeighbour(message), NLM_F_ACK)
            .map(drop)
    }

    /// One request, and what is answered.
    fn rtnl(
        &self,
        request: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut message = NetlinkMessage::from(request);
        message.header.flags = NLM_F_REQUEST | flags;
        message.header.sequence_number = 1;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        let mut answer = Vec::new();
        self.netlink(NETLINK_ROUTE, &bytes, &mut |message| {
            let parsed = NetlinkMessage::<RouteNetlinkMessage>::deserialize(message);
            let parsed = parsed.map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
            if let NetlinkPayload::InnerMessage(message) = parsed.payload {
                answer.push(message);
            }
            Ok(())
        })?;
        Ok(answer)
    }

    /// Sends a request to a netlink family and hands each message of the answer on, until it ends.
    pub(crate) fn netlink(
        &self,
        family: i32,
        request: &[u8],
        each: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let fd = self
            .sys()
            .socket(AF_NETLINK, SOCK_RAW_CLOEXEC, family)
            .map_err(error)? as i32;
        let result = self.exchange(fd, request, each);
        let _ = self.sys().close(fd);
        result
    }

    fn exchange(
        &self,
        fd: i32,
        request: &[u8],
        each: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        self.sys()
            .sendto(fd, request, request.len(), 0, &[], 0)
            .map_err(error)?;
        let mut datagram = vec![0; DATAGRAM];
        loop {
            let n = self
                .sys()
                .recvfrom(fd, &mut datagram, DATAGRAM, 0, &mut [], &mut [])
                .map_err(error)?;
            let mut rest = &datagram[..n as usize];
            while let Ok(head) = NetlinkBuffer::new_checked(rest) {
                let len = head.length() as usize;
                match head.message_type() {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => {
                        let code = head
                            .payload()
                            .first_chunk()
                            .map_or(0, |c| i32::from_le_bytes(*c));
                        return match code {
                            0 => Ok(()),
                            code => Err(io::Error::from_raw_os_error(-code)),
                        };
                    }
                    _ => each(&rest[..len])?,
                }
                rest = rest.get(len.next_multiple_of(4)..).unwrap_or(&[]);
            }
        }
    }
}

/// What shall be otherwise about an interface.
#[derive(Clone, Debug, Default)]
pub struct InterfaceChange {
    /// Up or down.
    pub up: Option<bool>,
    /// The longest packet, in bytes.
    pub mtu: Option<u32>,
    /// The link-layer address.
    pub mac: Option<Vec<u8>>,
    /// Another name.
    pub name: Option<String>,
    /// The index of the bridge that it shall be a port of; 0 for none.
    pub master: Option<u32>,
}

fn interface(link: &LinkMessage) -> Interface {
    let mut interface = Interface {
        index: link.header.index,
        flags: link.header.flags.bits(),
        ..Interface::default()
    };
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => interface.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => interface.mtu = *mtu,
            LinkAttribute::Address(mac) => interface.mac = Some(mac.clone()),
            LinkAttribute::Controller(index) => interface.master = *index,
            LinkAttribute::Stats64(s) => {
                interface.received = [s.rx_packets, s.rx_bytes, s.rx_dropped];
                interface.sent = [s.tx_packets, s.tx_bytes, s.tx_dropped];
            }
            _ => {}
        }
    }
    interface
}

fn interface_address(message: &AddressMessage) -> Option<InterfaceAddress> {
    let find = |local: bool| {
        message.attributes.iter().find_map(|a| match a {
            AddressAttribute::Local(ip) if local => Some(*ip),
            AddressAttribute::Address(ip) if !local => Some(*ip),
            _ => None,
        })
    };
    let waits = AddressHeaderFlags::Tentative | AddressHeaderFlags::Dadfailed;
    Some(InterfaceAddress {
        interface: message.header.index,
        address: find(true).or(find(false))?,
        prefix: message.header.prefix_len,
        tentative: message.header.flags.intersects(waits),
    })
}

fn address_message(index: u32, address: IpAddr, prefix: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(address.is_ipv6());
    message.header.index = index;
    message.header.prefix_len = prefix;
    message.attributes = vec![
        AddressAttribute::Local(address),
        AddressAttribute::Address(address),
    ];
    message
}

fn route_entry(route: &RouteMessage) -> RouteEntry {
    let ip = |address: &RouteAddress| match address {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    };
    let mut entry = RouteEntry {
        destination: None,
        v6: route.header.address_family == AddressFamily::Inet6,
        gateway: None,
        interface: 0,
        source: None,
        metric: 0,
        table: route.header.table.into(),
        kind: format!("{:?}", route.header.kind).to_lowercase(),
    };
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(to) => {
                entry.destination = ip(to).map(|to| (to, route.header.destination_prefix_length));
            }
            RouteAttribute::Gateway(gateway) => entry.gateway = ip(gateway),
            RouteAttribute::PrefSource(source) => entry.source = ip(source),
            RouteAttribute::Oif(index) => entry.interface = *index,
            RouteAttribute::Priority(metric) => entry.metric = *metric,
            RouteAttribute::Table(table) => entry.table = *table,
            _ => {}
        }
    }
    entry
}

fn route_message(
    destination: Option<(IpAddr, u8)>,
    gateway: Option<IpAddr>,
    index: u32,
) -> io::Result<RouteMessage> {
    let any = destination.map(|d| d.0).or(gateway);
    let v6 = any.ok_or_else(|| error(Errno::EINVAL))?.is_ipv6();
    let mut message = RouteMessage::default();
    message.header.address_family = family(v6);
    message.header.table = 254;
    message.header.protocol = RouteProtocol::Static;
    message.header.kind = RouteType::Unicast;
    message.header.scope = match gateway {
        None if !v6 => RouteScope::Link,
        _ => RouteScope::Universe,
    };
    if let Some((to, prefix)) = destination
        && prefix != 0
    {
        message.header.destination_prefix_length = prefix;
        message
            .attributes
            .push(RouteAttribute::Destination(to.into()));
    }
    message
        .attributes
        .extend(gateway.map(|g| RouteAttribute::Gateway(g.into())));
    if index != 0 {
        message.attributes.push(RouteAttribute::Oif(index));
    }
    Ok(message)
}

fn known(message: &NeighbourMessage) -> Option<Neighbour> {
    let mut address = None;
    let mut mac = None;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => {
                address = Some(IpAddr::V4(*ip))
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => {
                address = Some(IpAddr::V6(*ip))
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = Some(bytes.clone()),
            _ => {}
        }
    }
    Some(Neighbour {
        interface: message.header.ifindex,
        address: address?,
        mac,
        state: format!("{:?}", message.header.state).to_lowercase(),
    })
}

fn neighbour_message(index: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(address.is_ipv6());
    message.header.ifindex = index;
    message
        .attributes
        .push(NeighbourAttribute::Destination(match address {
            IpAddr::V4(ip) => NeighbourAddress::Inet(ip),
            IpAddr::V6(ip) => NeighbourAddress::Inet6(ip),
        }));
    message
}

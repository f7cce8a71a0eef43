//! Interfaces: `RTM_GETLINK` and so on, `struct ifinfomsg`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use abi::Errno;
use inet::Inet;
use kern::Curlwp;
use net::consts::{ETHERTYPE_VLAN, IFF_ALLMULTI, IFF_NOARP, IFF_PROMISC, IFF_RUNNING, IFF_UP};
use net::{EtherAddr, Ifnet, LinkType, Params};
use sync::Cpu;

use super::RTM_NEWLINK;
use crate::message::{Attributes, NLM_F_CREATE, NLM_F_EXCL, NLM_F_MULTI, Request, Writer, u32_at};
use crate::socket::Answer;

/// Bytes of a `struct ifinfomsg`.
const FIXED: usize = 16;

const IFLA_ADDRESS: u16 = 1;
const IFLA_BROADCAST: u16 = 2;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_QDISC: u16 = 6;
const IFLA_STATS: u16 = 7;
const IFLA_MASTER: u16 = 10;
const IFLA_TXQLEN: u16 = 13;
const IFLA_OPERSTATE: u16 = 16;
const IFLA_LINKMODE: u16 = 17;
const IFLA_LINKINFO: u16 = 18;
const IFLA_STATS64: u16 = 23;
const IFLA_GROUP: u16 = 27;
const IFLA_PROMISCUITY: u16 = 30;
const IFLA_NUM_TX_QUEUES: u16 = 31;
const IFLA_NUM_RX_QUEUES: u16 = 32;
const IFLA_CARRIER: u16 = 33;
const IFLA_GSO_MAX_SIZE: u16 = 41;
const IFLA_MIN_MTU: u16 = 50;
const IFLA_MAX_MTU: u16 = 51;
const IFLA_ALT_IFNAME: u16 = 53;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_VLAN_ID: u16 = 1;
const IFLA_VLAN_PROTOCOL: u16 = 5;

/// `IFF_LOWER_UP`: there is a carrier.
const IFF_LOWER_UP: u32 = 0x10000;
const OPER_UNKNOWN: u8 = 0;
const OPER_DOWN: u8 = 2;
const OPER_UP: u8 = 6;

/// Writes a message about an interface.
pub(crate) fn describe(writer: &mut Writer, cpu: &Cpu<'_>, kind: u16, flags: u16, i: &Ifnet) {
    let up = i.is_up();
    let shown = i.flags() | if up { IFF_LOWER_UP } else { 0 };
    let mut fixed = [0; FIXED];
    fixed[2..4].copy_from_slice(&i.link().hardware().to_le_bytes());
    fixed[4..8].copy_from_slice(&i.index().to_le_bytes());
    fixed[8..12].copy_from_slice(&shown.to_le_bytes());
    let state = match i.link() {
        LinkType::Loopback if up => OPER_UNKNOWN,
        _ if i.flags() & IFF_RUNNING != 0 => OPER_UP,
        _ => OPER_DOWN,
    };
    writer
        .message(kind, flags, &fixed)
        .text(IFLA_IFNAME, &i.name(cpu))
        .u32(IFLA_TXQLEN, 1000)
        .u8(IFLA_OPERSTATE, state)
        .u8(IFLA_LINKMODE, 0)
        .u32(IFLA_MTU, i.mtu())
        .u32(IFLA_MIN_MTU, 68)
        .u32(IFLA_MAX_MTU, 65_536)
        .u32(IFLA_GROUP, 0)
        .u32(IFLA_PROMISCUITY, (i.flags() & IFF_PROMISC != 0).into())
        .u32(IFLA_NUM_TX_QUEUES, 1)
        .u32(IFLA_NUM_RX_QUEUES, 1)
        .u32(IFLA_GSO_MAX_SIZE, i.features().gso_max)
        .u8(IFLA_CARRIER, up.into())
        .text(IFLA_QDISC, "noqueue");
    if i.driver().partner() != 0 {
        writer.u32(IFLA_LINK, i.driver().partner());
    }
    if i.master() != 0 {
        writer.u32(IFLA_MASTER, i.master());
    }
    if i.link() != LinkType::Ip {
        let broadcast = match i.link() {
            LinkType::Loopback => EtherAddr::default(),
            _ => [0xff; 6],
        };
        writer
            .attr(IFLA_ADDRESS, &i.address(cpu))
            .attr(IFLA_BROADCAST, &broadcast);
    }
    statistics(writer, i);
    if !i.driver().kind().is_empty() {
        writer.nested(IFLA_LINKINFO, |w| {
            w.text(IFLA_INFO_KIND, i.driver().kind());
            if let Some(id) = i.driver().vlan() {
                w.nested(IFLA_INFO_DATA, |w| {
                    w.attr(IFLA_VLAN_ID, &id.to_le_bytes())
                        .attr(IFLA_VLAN_PROTOCOL, &ETHERTYPE_VLAN.to_be_bytes());
                });
            }
        });
    }
    writer.end();
}

/// `struct rtnl_link_stats64`, and the older one of 32 bits.
fn statistics(writer: &mut Writer, i: &Ifnet) {
    let s = &i.stats;
    let none = AtomicU64::new(0);
    let first: [&AtomicU64; 9] = [
        &s.rx_packets,
        &s.tx_packets,
        &s.rx_bytes,
        &s.tx_bytes,
        &s.rx_errors,
        &s.tx_errors,
        &s.rx_dropped,
        &s.tx_dropped,
        &s.multicast,
    ];
    // Collisions and the kinds of errors that only a real card tells apart.
    let counts = first
        .into_iter()
        .chain(std::iter::repeat(&none))
        .map(|c| c.load(Relaxed));
    let wide: Vec<u8> = counts.clone().take(25).flat_map(u64::to_le_bytes).collect();
    let narrow: Vec<u8> = counts
        .take(24)
        .flat_map(|c| (c as u32).to_le_bytes())
        .collect();
    writer.attr(IFLA_STATS64, &wide).attr(IFLA_STATS, &narrow);
}

/// The interface that a request names, by its index or its name.
fn named(
    cpu: &Cpu<'_>,
    inet: &Inet,
    fixed: &[u8],
    attributes: Attributes<'_>,
) -> Result<Option<Arc<Ifnet>>, Errno> {
    let all = inet.interfaces();
    match u32_at(fixed, 4).unwrap_or(0) {
        0 => {}
        index => return all.by_index(index).ok_or(Errno::ENODEV).map(Some),
    }
    let name = attributes
        .text(IFLA_IFNAME)
        .or(attributes.text(IFLA_ALT_IFNAME));
    Ok(name.and_then(|name| all.by_name(cpu, name)))
}

pub(super) fn get(
    cx: &Curlwp<'_>,
    inet: &Inet,
    request: &Request<'_>,
    out: &mut Answer,
) -> Result<(), Errno> {
    let fixed = request.fixed::<FIXED>().unwrap_or_default();
    if request.is_dump() {
        let attributes = request.attributes(FIXED);
        let master = attributes.u32(IFLA_MASTER).unwrap_or(0);
        let kind = attributes
            .get(IFLA_LINKINFO)
            .and_then(|i| Attributes(i).text(IFLA_INFO_KIND));
        for interface in inet.interfaces().list().iter() {
            if master != 0 && interface.master() != master
                || kind.is_some_and(|k| k != interface.driver().kind())
            {
                continue;
            }
            describe(
                &mut out.writer,
                cx.cpu(),
                RTM_NEWLINK,
                NLM_F_MULTI,
                interface,
            );
            out.breathe();
        }
        return Ok(());
    }
    let interface =
        named(cx.cpu(), inet, &fixed, request.attributes(FIXED))?.ok_or(Errno::ENODEV)?;
    describe(&mut out.writer, cx.cpu(), RTM_NEWLINK, 0, &interface);
    Ok(())
}

pub(super) fn set(cx: &Curlwp<'_>, inet: &Inet, request: &Request<'_>) -> Result<(), Errno> {
    let fixed = request.fixed::<FIXED>()?;
    let attributes = request.attributes(FIXED);
    let mut interface = named(cx.cpu(), inet, &fixed, attributes)?;
    if request.kind == RTM_NEWLINK && request.flags & NLM_F_CREATE != 0 {
        match interface {
            Some(_) if request.flags & NLM_F_EXCL != 0 => return Err(Errno::EEXIST),
            Some(_) => {}
            None => interface = Some(create(cx, inet, attributes)?),
        }
    }
    change(
        cx,
        inet,
        &interface.ok_or(Errno::ENODEV)?,
        &fixed,
        attributes,
    )
}

/// Makes an interface of the kind that a request names, with the parameters that rtnetlink has attributes for.
fn create(cx: &Curlwp<'_>, inet: &Inet, attributes: Attributes<'_>) -> Result<Arc<Ifnet>, Errno> {
    let info = Attributes(attributes.get(IFLA_LINKINFO).ok_or(Errno::EOPNOTSUPP)?);
    let kind = info.text(IFLA_INFO_KIND).ok_or(Errno::EINVAL)?;
    let name = attributes.text(IFLA_IFNAME);
    let all = inet.interfaces();
    let mut params = Params::default();
    if let Some(parent) = attributes
        .u32(IFLA_LINK)
        .and_then(|index| all.by_index(index))
    {
        params.set("parent", &parent.name(cx.cpu()));
    }
    let data = Attributes(info.get(IFLA_INFO_DATA).unwrap_or(&[]));
    match kind {
        "vlan" => {
            let id = data
                .get(IFLA_VLAN_ID)
                .and_then(|v| v.first_chunk())
                .ok_or(Errno::EINVAL)?;
            params.set("id", &u16::from_le_bytes(*id).to_string());
        }
        // VETH_INFO_PEER: a struct ifinfomsg and attributes.
        "veth" => {
            let peer = data.get(1).and_then(|p| p.get(FIXED..)).unwrap_or(&[]);
            if let Some(peer) = Attributes(peer).text(IFLA_IFNAME) {
                params.set("peer", peer);
            }
        }
        _ => {}
    }
    all.create(cx, kind, name, &params)
        .map_err(|error| error.errno)
}

fn change(
    cx: &Curlwp<'_>,
    inet: &Inet,
    interface: &Arc<Ifnet>,
    fixed: &[u8; FIXED],
    attributes: Attributes<'_>,
) -> Result<(), Errno> {
    let all = inet.interfaces();
    let (flags, mask) = (
        u32_at(fixed, 8).unwrap_or(0),
        u32_at(fixed, 12).unwrap_or(0),
    );
    // Down comes first, up last: what is changed in between needs it.
    if mask & IFF_UP != 0 && flags & IFF_UP == 0 {
        interface.set_up(cx, false)?;
    }
    if let Some(mtu) = attributes.u32(IFLA_MTU) {
        interface.set_mtu(cx, mtu)?;
    }
    if let Some(address) = attributes.get(IFLA_ADDRESS) {
        let address: EtherAddr = address.try_into().map_err(|_| Errno::EINVAL)?;
        if address[0] & 1 != 0 {
            return Err(Errno::EADDRNOTAVAIL);
        }
        interface.set_address(cx.cpu(), address);
    }
    if let Some(name) = attributes.text(IFLA_IFNAME)
        && name != interface.name(cx.cpu())
    {
        all.rename(cx, interface, name)?;
    }
    if let Some(master) = attributes.u32(IFLA_MASTER) {
        enslave(cx, inet, interface, master)?;
    }
    let settable = mask & (IFF_PROMISC | IFF_ALLMULTI | IFF_NOARP);
    if settable != 0 {
        interface.change_flags(cx.cpu(), flags & settable, !flags & settable);
    }
    if mask & flags & IFF_UP != 0 {
        interface.set_up(cx, true)?;
    }
    Ok(())
}

/// Makes an interface a port of another one, or of none (0).
fn enslave(cx: &Curlwp<'_>, inet: &Inet, interface: &Arc<Ifnet>, master: u32) -> Result<(), Errno> {
    let all = inet.interfaces();
    if let Some(before) = all.by_index(interface.master()) {
        before.driver().remove_port(cx, interface)?;
    }
    match master {
        0 => Ok(()),
        index => all
            .by_index(index)
            .ok_or(Errno::ENODEV)?
            .driver()
            .add_port(cx, interface),
    }
}

pub(super) fn delete(cx: &Curlwp<'_>, inet: &Inet, request: &Request<'_>) -> Result<(), Errno> {
    let fixed = request.fixed::<FIXED>()?;
    let interface =
        named(cx.cpu(), inet, &fixed, request.attributes(FIXED))?.ok_or(Errno::ENODEV)?;
    if interface.link() == LinkType::Loopback {
        return Err(Errno::EOPNOTSUPP);
    }
    inet.interfaces().detach(cx, &interface)
}

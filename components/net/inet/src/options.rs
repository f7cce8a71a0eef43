//! Options of the levels `IPPROTO_IP` and `IPPROTO_IPV6`, ip(7) and ipv6(7), and what goes along with messages of them.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use abi::Errno;
use kern::Curlwp;
use net::{Common, Control, OptValue, int_option};

use crate::addr::{map, unmap};
use crate::group::request::{Request, is_request};
use crate::{Inet, addr};

pub(crate) const SOL_IP: i32 = 0;
pub(crate) const SOL_IPV6: i32 = 41;
pub(crate) const SOL_UDP: i32 = 17;

pub(crate) const UDP_SEGMENT: i32 = 103;
pub(crate) const UDP_GRO: i32 = 104;

pub(crate) const IP_TOS: i32 = 1;
pub(crate) const IP_TTL: i32 = 2;
pub(crate) const IP_HDRINCL: i32 = 3;
const IP_OPTIONS: i32 = 4;
const IP_RECVOPTS: i32 = 6;
const IP_RETOPTS: i32 = 7;
pub(crate) const IP_PKTINFO: i32 = 8;
const IP_MTU_DISCOVER: i32 = 10;
pub(crate) const IP_RECVERR: i32 = 11;
const IP_RECVTTL: i32 = 12;
const IP_RECVTOS: i32 = 13;
const IP_MTU: i32 = 14;
const IP_FREEBIND: i32 = 15;
const IP_TRANSPARENT: i32 = 19;
const IP_RECVORIGDSTADDR: i32 = 20;
const IP_MINTTL: i32 = 21;
const IP_BIND_ADDRESS_NO_PORT: i32 = 24;
const IP_MULTICAST_IF: i32 = 32;
const IP_MULTICAST_TTL: i32 = 33;
const IP_MULTICAST_LOOP: i32 = 34;
const IP_MULTICAST_ALL: i32 = 49;
const IP_UNICAST_IF: i32 = 50;

const IPV6_UNICAST_HOPS: i32 = 16;
const IPV6_MULTICAST_IF: i32 = 17;
const IPV6_MULTICAST_HOPS: i32 = 18;
const IPV6_MULTICAST_LOOP: i32 = 19;
const IPV6_MTU_DISCOVER: i32 = 23;
const IPV6_MTU: i32 = 24;
pub(crate) const IPV6_RECVERR: i32 = 25;
const IPV6_V6ONLY: i32 = 26;
const IPV6_MULTICAST_ALL: i32 = 29;
pub(crate) const IPV6_HDRINCL: i32 = 36;
const IPV6_RECVPKTINFO: i32 = 49;
pub(crate) const IPV6_PKTINFO: i32 = 50;
const IPV6_RECVHOPLIMIT: i32 = 51;
const IPV6_MINHOPCOUNT: i32 = 73;
pub(crate) const IPV6_HOPLIMIT: i32 = 52;
const IPV6_DONTFRAG: i32 = 62;
const IPV6_RECVTCLASS: i32 = 66;
pub(crate) const IPV6_TCLASS: i32 = 67;
const IPV6_AUTOFLOWLABEL: i32 = 70;
const IPV6_UNICAST_IF: i32 = 76;
const IPV6_RECVORIGDSTADDR: i32 = 74;
const IPV6_TRANSPARENT: i32 = 75;
const IPV6_FREEBIND: i32 = 78;

/// How paths' MTUs are found out, `IP_PMTUDISC_*`.
pub(crate) const PMTUDISC_DONT: i32 = 0;
pub(crate) const PMTUDISC_WANT: i32 = 1;
pub(crate) const PMTUDISC_DO: i32 = 2;
pub(crate) const PMTUDISC_PROBE: i32 = 3;

/// What a socket wants to be told with each message.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Wants {
    pub(crate) pktinfo: bool,
    pub(crate) ttl: bool,
    pub(crate) tos: bool,
    pub(crate) orig_dst: bool,
    pub(crate) orig_dst6: bool,
    pub(crate) options: bool,
    pub(crate) pktinfo6: bool,
    pub(crate) hop_limit: bool,
    pub(crate) tclass: bool,
    pub(crate) errors: bool,
    pub(crate) errors6: bool,
}

/// The options of a socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IpOptions {
    /// 0 for the stack's.
    pub(crate) ttl: u8,
    pub(crate) tos: u8,
    pub(crate) hops: u8,
    pub(crate) tclass: u8,
    pub(crate) group_ttl: u8,
    pub(crate) group_hops: u8,
    pub(crate) group_loop: bool,
    pub(crate) group_loop6: bool,
    pub(crate) group_interface: u32,
    pub(crate) group_addr: Option<Ipv4Addr>,
    pub(crate) group_interface6: u32,
    pub(crate) all_groups: bool,
    pub(crate) interface: u32,
    pub(crate) pmtu: i32,
    pub(crate) dont_fragment6: bool,
    pub(crate) min_ttl: u8,
    pub(crate) min_hops: u8,
    pub(crate) v6only: bool,
    pub(crate) freebind: bool,
    pub(crate) transparent: bool,
    pub(crate) bind_without_port: bool,
    pub(crate) header_included: Option<bool>,
    pub(crate) wants: Wants,
}

impl Default for IpOptions {
    fn default() -> IpOptions {
        IpOptions {
            ttl: 0,
            tos: 0,
            hops: 0,
            tclass: 0,
            group_ttl: 1,
            group_hops: 1,
            group_loop: true,
            group_loop6: true,
            group_interface: 0,
            group_addr: None,
            group_interface6: 0,
            all_groups: true,
            interface: 0,
            pmtu: PMTUDISC_WANT,
            dont_fragment6: false,
            min_ttl: 0,
            min_hops: 0,
            v6only: false,
            freebind: false,
            transparent: false,
            bind_without_port: false,
            header_included: None,
            wants: Wants::default(),
        }
    }
}

/// What setting an option asks for besides.
pub(crate) enum Ask {
    Nothing,
    /// To hear of a group what it says.
    Group(Request),
}

fn word(value: &[u8]) -> Result<i32, Errno> {
    // A single byte will do for the options of IPv4.
    match value {
        &[byte] => Ok(byte.into()),
        _ => int_option(value),
    }
}

fn byte(value: i32, default: u8) -> Result<u8, Errno> {
    match value {
        -1 => Ok(default),
        _ => u8::try_from(value).map_err(|_| Errno::EINVAL),
    }
}

pub(crate) fn int(value: i32) -> OptValue {
    OptValue::from_slice(&value.to_ne_bytes())
}

pub(crate) fn ip4(bytes: &[u8]) -> Option<Ipv4Addr> {
    let octets: [u8; 4] = bytes.get(..4)?.try_into().ok()?;
    Some(octets.into())
}

pub(crate) fn ip6(bytes: &[u8]) -> Option<Ipv6Addr> {
    let octets: [u8; 16] = bytes.get(..16)?.try_into().ok()?;
    Some(octets.into())
}

pub(crate) fn number(bytes: &[u8]) -> Option<u32> {
    let raw: [u8; 4] = bytes.get(..4)?.try_into().ok()?;
    Some(u32::from_ne_bytes(raw))
}

impl IpOptions {
    /// setsockopt(2) at one of the two levels.
    pub(crate) fn set(
        &mut self,
        cx: &Curlwp<'_>,
        inet: &Inet,
        level: i32,
        name: i32,
        value: &[u8],
    ) -> Result<Ask, Errno> {
        match level {
            _ if is_request(level, name) => {
                return Ok(Ask::Group(Request::of(inet, level, name, value)?));
            }
            SOL_IP => self.set4(cx, inet, name, value)?,
            _ => self.set6(cx, inet, name, value)?,
        }
        Ok(Ask::Nothing)
    }

    fn set4(&mut self, cx: &Curlwp<'_>, inet: &Inet, name: i32, value: &[u8]) -> Result<(), Errno> {
        let on = || Ok::<_, Errno>(word(value)? != 0);
        let privileged = || match cx.cred().is_superuser() {
            true => Ok(()),
            false => Err(Errno::EPERM),
        };
        match name {
            // The bits of ECN are TCP's.
            IP_TOS => self.tos = word(value)? as u8,
            IP_TTL => {
                self.ttl = match word(value)? {
                    -1 => 0,
                    ttl @ 1..=255 => ttl as u8,
                    _ => return Err(Errno::EINVAL),
                }
            }
            IP_HDRINCL => self.include_header(on()?)?,
            IP_OPTIONS if value.is_empty() => {}
            IP_RECVOPTS | IP_RETOPTS => self.wants.options = on()?,
            IP_PKTINFO => self.wants.pktinfo = on()?,
            IP_MTU_DISCOVER => {
                self.pmtu = match word(value)? {
                    n @ 0..=5 => n,
                    _ => return Err(Errno::EINVAL),
                }
            }
            IP_RECVERR => self.wants.errors = on()?,
            IP_RECVTTL => self.wants.ttl = on()?,
            IP_RECVTOS => self.wants.tos = on()?,
            IP_RECVORIGDSTADDR => self.wants.orig_dst = on()?,
            IP_FREEBIND => self.freebind = on()?,
            IP_TRANSPARENT => {
                privileged()?;
                self.transparent = on()?;
            }
            IP_MINTTL => self.min_ttl = byte(word(value)?, 0)?,
            IP_BIND_ADDRESS_NO_PORT => self.bind_without_port = on()?,
            IP_MULTICAST_TTL => self.group_ttl = byte(word(value)?, 1)?,
            IP_MULTICAST_LOOP => self.group_loop = on()?,
            IP_MULTICAST_ALL => self.all_groups = on()?,
            IP_UNICAST_IF => self.interface = u32::from_be(int_option(value)? as u32),
            IP_MULTICAST_IF => {
                // struct ip_mreqn, ip_mreq or in_addr.
                let (ip, interface) = match value.len() {
                    12.. => (ip4(&value[4..]), number(&value[8..])),
                    8.. => (ip4(&value[4..]), None),
                    _ => (ip4(value), None),
                };
                let ip = ip.filter(|ip| !ip.is_unspecified());
                self.group_interface = match (interface, ip) {
                    (Some(interface), _) if interface != 0 => interface,
                    (_, Some(ip)) => inet.interface_of(&ip.into()).ok_or(Errno::EADDRNOTAVAIL)?,
                    _ => 0,
                };
                self.group_addr = ip;
            }
            _ => return Err(Errno::ENOPROTOOPT),
        }
        Ok(())
    }

    fn include_header(&mut self, on: bool) -> Result<(), Errno> {
        *self.header_included.as_mut().ok_or(Errno::ENOPROTOOPT)? = on;
        Ok(())
    }

    fn set6(&mut self, cx: &Curlwp<'_>, inet: &Inet, name: i32, value: &[u8]) -> Result<(), Errno> {
        let on = || Ok::<_, Errno>(int_option(value)? != 0);
        match name {
            IPV6_UNICAST_HOPS => self.hops = byte(int_option(value)?, 0)?,
            IPV6_MINHOPCOUNT => self.min_hops = byte(int_option(value)?, 0)?,
            IPV6_MULTICAST_HOPS => self.group_hops = byte(int_option(value)?, 1)?,
            IPV6_MULTICAST_LOOP => self.group_loop6 = on()?,
            IPV6_MULTICAST_ALL => self.all_groups = on()?,
            IPV6_MULTICAST_IF => {
                let interface = int_option(value)? as u32;
                if interface != 0 && inet.interfaces.by_index(interface).is_none() {
                    return Err(Errno::ENODEV);
                }
                self.group_interface6 = interface;
            }
            IPV6_UNICAST_IF => self.interface = u32::from_be(int_option(value)? as u32),
            IPV6_MTU_DISCOVER => {
                self.pmtu = match int_option(value)? {
                    n @ 0..=5 => n,
                    _ => return Err(Errno::EINVAL),
                }
            }
            IPV6_RECVERR => self.wants.errors6 = on()?,
            IPV6_V6ONLY => self.v6only = on()?,
            IPV6_HDRINCL => self.include_header(on()?)?,
            IPV6_RECVPKTINFO => self.wants.pktinfo6 = on()?,
            IPV6_RECVHOPLIMIT => self.wants.hop_limit = on()?,
            IPV6_RECVTCLASS => self.wants.tclass = on()?,
            IPV6_TCLASS => self.tclass = byte(int_option(value)?, 0)?,
            IPV6_DONTFRAG => self.dont_fragment6 = on()?,
            IPV6_FREEBIND => self.freebind = on()?,
            IPV6_RECVORIGDSTADDR => self.wants.orig_dst6 = on()?,
            IPV6_TRANSPARENT if !cx.cred().is_superuser() => return Err(Errno::EPERM),
            IPV6_TRANSPARENT => self.transparent = on()?,
            IPV6_AUTOFLOWLABEL => drop(on()?),
            _ => return Err(Errno::ENOPROTOOPT),
        }
        Ok(())
    }

    /// getsockopt(2) at one of the two levels.
    pub(crate) fn get(
        &self,
        inet: &Inet,
        level: i32,
        name: i32,
        peer: Option<IpAddr>,
    ) -> Result<OptValue, Errno> {
        let mtu = || {
            let peer = peer.ok_or(Errno::ENOTCONN)?;
            Ok::<_, Errno>(inet.route(&peer, 0)?.mtu as i32)
        };
        let number = match (level, name) {
            (SOL_IP, IP_TOS) => self.tos.into(),
            (SOL_IP, IP_TTL) => match self.ttl {
                0 => inet.config.ttl() as i32,
                ttl => ttl.into(),
            },
            (SOL_IP, IP_HDRINCL) => self.header_included.unwrap_or(false).into(),
            (SOL_IPV6, IPV6_HDRINCL) => self.header_included.ok_or(Errno::ENOPROTOOPT)?.into(),
            (SOL_IP, IP_OPTIONS) => return Ok(OptValue::new()),
            (SOL_IP, IP_RECVOPTS | IP_RETOPTS) => self.wants.options.into(),
            (SOL_IP, IP_PKTINFO) => self.wants.pktinfo.into(),
            (SOL_IP, IP_MTU_DISCOVER) | (SOL_IPV6, IPV6_MTU_DISCOVER) => self.pmtu,
            (SOL_IP, IP_RECVERR) => self.wants.errors.into(),
            (SOL_IP, IP_RECVTTL) => self.wants.ttl.into(),
            (SOL_IP, IP_RECVTOS) => self.wants.tos.into(),
            (SOL_IP, IP_RECVORIGDSTADDR) => self.wants.orig_dst.into(),
            (SOL_IP, IP_MTU) | (SOL_IPV6, IPV6_MTU) => mtu()?,
            (SOL_IP, IP_FREEBIND) | (SOL_IPV6, IPV6_FREEBIND) => self.freebind.into(),
            (SOL_IPV6, IPV6_RECVORIGDSTADDR) => self.wants.orig_dst6.into(),
            (SOL_IP, IP_TRANSPARENT) | (SOL_IPV6, IPV6_TRANSPARENT) => self.transparent.into(),
            (SOL_IP, IP_MINTTL) => self.min_ttl.into(),
            (SOL_IPV6, IPV6_MINHOPCOUNT) => self.min_hops.into(),
            (SOL_IP, IP_BIND_ADDRESS_NO_PORT) => self.bind_without_port.into(),
            (SOL_IP, IP_MULTICAST_TTL) => self.group_ttl.into(),
            (SOL_IP, IP_MULTICAST_LOOP) => self.group_loop.into(),
            (SOL_IP, IP_MULTICAST_ALL) | (SOL_IPV6, IPV6_MULTICAST_ALL) => self.all_groups.into(),
            (SOL_IP, IP_UNICAST_IF) | (SOL_IPV6, IPV6_UNICAST_IF) => self.interface.to_be() as i32,
            (SOL_IP, IP_MULTICAST_IF) => {
                let ip = self.group_addr.unwrap_or(Ipv4Addr::UNSPECIFIED);
                return Ok(OptValue::from_slice(&ip.octets()));
            }
            (SOL_IPV6, IPV6_UNICAST_HOPS) => match self.hops {
                0 => inet.config.hop_limit() as i32,
                hops => hops.into(),
            },
            (SOL_IPV6, IPV6_MULTICAST_HOPS) => self.group_hops.into(),
            (SOL_IPV6, IPV6_MULTICAST_LOOP) => self.group_loop6.into(),
            (SOL_IPV6, IPV6_MULTICAST_IF) => self.group_interface6 as i32,
            (SOL_IPV6, IPV6_RECVERR) => self.wants.errors6.into(),
            (SOL_IPV6, IPV6_V6ONLY) => self.v6only.into(),
            (SOL_IPV6, IPV6_RECVPKTINFO) => self.wants.pktinfo6.into(),
            (SOL_IPV6, IPV6_RECVHOPLIMIT) => self.wants.hop_limit.into(),
            (SOL_IPV6, IPV6_RECVTCLASS) => self.wants.tclass.into(),
            (SOL_IPV6, IPV6_TCLASS) => self.tclass.into(),
            (SOL_IPV6, IPV6_DONTFRAG) => self.dont_fragment6.into(),
            (SOL_IPV6, IPV6_AUTOFLOWLABEL) => 0,
            _ => return Err(Errno::ENOPROTOOPT),
        };
        Ok(int(number))
    }
}

/// What a message says about itself, by its control data.
#[derive(Clone, Copy, Default)]
pub(crate) struct Said {
    pub(crate) interface: u32,
    pub(crate) src: Option<IpAddr>,
    pub(crate) ttl: Option<u8>,
    pub(crate) tos: Option<u8>,
    /// Bytes of each datagram, `UDP_SEGMENT`.
    pub(crate) segment: Option<u16>,
}

impl Said {
    /// Finds in the control data what is ours. `EINVAL` for what cannot be.
    pub(crate) fn of(control: &[Control]) -> Result<Said, Errno> {
        let mut said = Said::default();
        for piece in control.iter() {
            let Control::Other(level, kind, data) = piece else {
                continue;
            };
            match (*level, *kind) {
                (SOL_IP, IP_PKTINFO) => {
                    said.interface = number(data).ok_or(Errno::EINVAL)?;
                    let src = data.get(4..).and_then(ip4).ok_or(Errno::EINVAL)?;
                    said.src = (!src.is_unspecified()).then_some(src.into());
                }
                (SOL_IPV6, IPV6_PKTINFO) => {
                    let src = unmap(ip6(data).ok_or(Errno::EINVAL)?);
                    said.src = (!src.is_unspecified()).then_some(src);
                    said.interface = data.get(16..).and_then(number).ok_or(Errno::EINVAL)?;
                }
                (SOL_IP, IP_TTL) | (SOL_IPV6, IPV6_HOPLIMIT) => {
                    said.ttl = match int_option(data)? {
                        -1 => None,
                        ttl => Some(u8::try_from(ttl).map_err(|_| Errno::EINVAL)?),
                    }
                }
                (SOL_IP, IP_TOS) => said.tos = Some(word(data)? as u8),
                (SOL_IPV6, IPV6_TCLASS) => {
                    said.tos = match int_option(data)? {
                        -1 => None,
                        tos => Some(u8::try_from(tos).map_err(|_| Errno::EINVAL)?),
                    }
                }
                (SOL_UDP, UDP_SEGMENT) => {
                    let raw: [u8; 2] = data
                        .get(..2)
                        .and_then(|d| d.try_into().ok())
                        .ok_or(Errno::EINVAL)?;
                    said.segment = Some(u16::from_ne_bytes(raw)).filter(|n| *n != 0);
                }
                (SOL_IP | SOL_IPV6 | SOL_UDP, _) => return Err(Errno::EINVAL),
                _ => {}
            }
        }
        Ok(said)
    }
}

/// What is known of a datagram that came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct About {
    pub(crate) dst: IpAddr,
    pub(crate) dst_port: u16,
    pub(crate) interface: u32,
    pub(crate) ttl: u8,
    pub(crate) tos: u8,
    /// Nanoseconds since the epoch.
    pub(crate) timestamp: u64,
}

impl About {
    /// The control data that a socket wants.
    pub(crate) fn control(
        &self,
        inet: &Inet,
        v6: bool,
        wants: &Wants,
        common: &Common,
    ) -> Vec<Control> {
        let mut out = Vec::from_iter(common.timestamp_control(self.timestamp));
        let mut add =
            |level, kind, data: &[u8]| out.push(Control::Other(level, kind, data.to_vec()));
        if let IpAddr::V4(dst) = self.dst {
            if wants.pktinfo {
                let local = match inet.is_local(&self.dst) {
                    true => dst,
                    false => inet.first_address4(self.interface).unwrap_or(dst),
                };
                let mut info = [0; 12];
                info[..4].copy_from_slice(&self.interface.to_ne_bytes());
                info[4..8].copy_from_slice(&local.octets());
                info[8..].copy_from_slice(&dst.octets());
                add(SOL_IP, IP_PKTINFO, &info);
            }
            if wants.ttl {
                add(SOL_IP, IP_TTL, &i32::from(self.ttl).to_ne_bytes());
            }
            if wants.tos {
                add(SOL_IP, IP_TOS, &[self.tos]);
            }
            if wants.orig_dst {
                let to = addr::Endpoint::new(self.dst, self.dst_port).to_addr(false);
                add(SOL_IP, IP_RECVORIGDSTADDR, to.bytes());
            }
        }
        if v6 {
            if wants.pktinfo6 {
                let mut info = [0; 20];
                info[..16].copy_from_slice(&map(self.dst).octets());
                info[16..].copy_from_slice(&self.interface.to_ne_bytes());
                add(SOL_IPV6, IPV6_PKTINFO, &info);
            }
            if wants.orig_dst6 {
                let to = addr::Endpoint::new(self.dst, self.dst_port).to_addr(true);
                add(SOL_IPV6, IPV6_RECVORIGDSTADDR, to.bytes());
            }
            if wants.hop_limit {
                add(SOL_IPV6, IPV6_HOPLIMIT, &i32::from(self.ttl).to_ne_bytes());
            }
            if wants.tclass {
                add(SOL_IPV6, IPV6_TCLASS, &i32::from(self.tos).to_ne_bytes());
            }
        }
        out
    }
}

impl Inet {
    pub(crate) fn first_address4(&self, interface: u32) -> Option<Ipv4Addr> {
        self.addresses().iter().find_map(|a| match a.addr {
            IpAddr::V4(ip) if a.interface == interface => Some(ip),
            _ => None,
        })
    }
}

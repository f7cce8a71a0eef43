//! What sockets ask for groups: the options of ip(7) and ipv6(7), and those of both families (RFC 3678).

use core::net::{IpAddr, Ipv4Addr};
use std::collections::BTreeSet;

use abi::Errno;
use net::{Addr, OptValue};

use super::SourceFilter;
use crate::Inet;
use crate::addr::Endpoint;
use crate::options::{SOL_IP, ip4, ip6, number};

const IP_ADD_MEMBERSHIP: i32 = 35;
const IP_DROP_MEMBERSHIP: i32 = 36;
const IP_UNBLOCK_SOURCE: i32 = 37;
const IP_BLOCK_SOURCE: i32 = 38;
const IP_ADD_SOURCE_MEMBERSHIP: i32 = 39;
const IP_DROP_SOURCE_MEMBERSHIP: i32 = 40;
const IP_MSFILTER: i32 = 41;
const MCAST_JOIN_GROUP: i32 = 42;
const MCAST_BLOCK_SOURCE: i32 = 43;
const MCAST_UNBLOCK_SOURCE: i32 = 44;
const MCAST_LEAVE_GROUP: i32 = 45;
const MCAST_JOIN_SOURCE_GROUP: i32 = 46;
const MCAST_LEAVE_SOURCE_GROUP: i32 = 47;
const MCAST_MSFILTER: i32 = 48;
const IPV6_JOIN_GROUP: i32 = 20;
const IPV6_LEAVE_GROUP: i32 = 21;

/// `MCAST_EXCLUDE` and `MCAST_INCLUDE`.
const MODES: [u32; 2] = [0, 1];
/// Bytes of a `struct sockaddr_storage`.
const STORAGE: usize = 128;
/// Bytes of a `struct group_filter` and a `struct ip_msfilter` before the list.
const GROUP_FILTER: usize = 16 + STORAGE;
const IP_FILTER: usize = 16;

/// What a socket asks for a group on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) interface: u32,
    pub(crate) group: IpAddr,
    pub(crate) what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Join,
    Leave,
    /// One source more, of those that are wanted.
    JoinSource(IpAddr),
    LeaveSource(IpAddr),
    /// One source more, of those that are not wanted.
    Block(IpAddr),
    Unblock(IpAddr),
    Filter(SourceFilter),
}

/// Whether an option of a level is about groups.
pub(crate) fn is_request(level: i32, name: i32) -> bool {
    match level {
        SOL_IP => (IP_ADD_MEMBERSHIP..=MCAST_MSFILTER).contains(&name),
        _ => matches!(
            name,
            IPV6_JOIN_GROUP | IPV6_LEAVE_GROUP | MCAST_JOIN_GROUP..=MCAST_MSFILTER
        ),
    }
}

/// The address in a `struct sockaddr_storage`, of the option's family.
fn storage(level: i32, value: &[u8], at: usize) -> Result<IpAddr, Errno> {
    let bytes = value.get(at..at + STORAGE).ok_or(Errno::EINVAL)?;
    let addr = Addr::new(&bytes[..28]);
    let addr = Endpoint::parse(&addr, level != SOL_IP).map_err(|_| Errno::EADDRNOTAVAIL)?;
    match addr.addr.is_ipv4() == (level == SOL_IP) {
        true => Ok(addr.addr),
        false => Err(Errno::EADDRNOTAVAIL),
    }
}

/// The interface of an option of IPv4 that names it by its address, which may be none.
fn interface4(inet: &Inet, address: Ipv4Addr, group: Ipv4Addr) -> Result<u32, Errno> {
    match address.is_unspecified() {
        true => inet.group_route(&group.into()),
        false => inet.interface_of(&address.into()).ok_or(Errno::ENODEV),
    }
}

fn interface(inet: &Inet, index: u32, group: &IpAddr) -> Result<u32, Errno> {
    match index {
        0 => inet.group_route(group),
        index => Ok(index),
    }
}

impl Request {
    /// What an option asks for, which [`is_request`].
    pub(crate) fn of(inet: &Inet, level: i32, name: i32, value: &[u8]) -> Result<Request, Errno> {
        let request = match (level, name) {
            (SOL_IP, ..=IP_MSFILTER) => Request::of4(inet, name, value),
            (SOL_IP, _) | (_, MCAST_JOIN_GROUP..) => Request::of_both(inet, level, name, value),
            _ => Request::of6(inet, name, value),
        }?;
        match request.group.is_multicast() {
            true => Ok(request),
            false => Err(Errno::EINVAL),
        }
    }

    fn of4(inet: &Inet, name: i32, value: &[u8]) -> Result<Request, Errno> {
        let word = |i: usize| value.get(i * 4..).and_then(ip4).ok_or(Errno::EINVAL);
        let group = word(0)?;
        let by_address = interface4(inet, word(1)?, group);
        // struct ip_mreq_source: the group, the interface, the source.
        let source = || word(2).map(IpAddr::from);
        let (interface, what) = match name {
            IP_ADD_MEMBERSHIP | IP_DROP_MEMBERSHIP => {
                // struct ip_mreqn has an interface's index more than struct ip_mreq.
                let index = value.get(8..).and_then(number).filter(|i| *i != 0);
                let what = if name == IP_ADD_MEMBERSHIP {
                    What::Join
                } else {
                    What::Leave
                };
                (index.map_or(by_address, Ok)?, what)
            }
            IP_UNBLOCK_SOURCE => (by_address?, What::Unblock(source()?)),
            IP_BLOCK_SOURCE => (by_address?, What::Block(source()?)),
            IP_ADD_SOURCE_MEMBERSHIP => (by_address?, What::JoinSource(source()?)),
            IP_DROP_SOURCE_MEMBERSHIP => (by_address?, What::LeaveSource(source()?)),
            _ => {
                let (mode, count) = mode_and_count(value, 8)?;
                inet.bound_sources(SOL_IP, count)?;
                let (list, _) = value[IP_FILTER..].as_chunks::<4>();
                let sources = list.get(..count).ok_or(Errno::EINVAL)?;
                let sources = sources.iter().map(|&s| IpAddr::from(s)).collect();
                (by_address?, filter(mode, sources)?)
            }
        };
        Ok(Request {
            interface,
            group: group.into(),
            what,
        })
    }

    /// `struct ipv6_mreq`: the group and an interface's index.
    fn of6(inet: &Inet, name: i32, value: &[u8]) -> Result<Request, Errno> {
        let group: IpAddr = ip6(value).ok_or(Errno::EINVAL)?.into();
        let index = value.get(16..).and_then(number).ok_or(Errno::EINVAL)?;
        Ok(Request {
            interface: interface(inet, index, &group)?,
            group,
            what: if name == IPV6_JOIN_GROUP {
                What::Join
            } else {
                What::Leave
            },
        })
    }

    /// `struct group_req`, `group_source_req` and `group_filter`: an interface's index, the group at byte 8, and what else.
    fn of_both(inet: &Inet, level: i32, name: i32, value: &[u8]) -> Result<Request, Errno> {
        let index = number(value).ok_or(Errno::EINVAL)?;
        let group = storage(level, value, 8)?;
        let source = || storage(level, value, 8 + STORAGE);
        let what = match name {
            MCAST_JOIN_GROUP => What::Join,
            MCAST_LEAVE_GROUP => What::Leave,
            MCAST_BLOCK_SOURCE => What::Block(source()?),
            MCAST_UNBLOCK_SOURCE => What::Unblock(source()?),
            MCAST_JOIN_SOURCE_GROUP => What::JoinSource(source()?),
            MCAST_LEAVE_SOURCE_GROUP => What::LeaveSource(source()?),
            _ => {
                let (mode, count) = mode_and_count(value, GROUP_FILTER - 8)?;
                inet.bound_sources(level, count)?;
                let at = |i| GROUP_FILTER + i * STORAGE;
                let sources = (0..count).map(|i| storage(level, value, at(i)));
                filter(mode, sources.collect::<Result<_, _>>()?)?
            }
        };
        Ok(Request {
            interface: interface(inet, index, &group)?,
            group,
            what,
        })
    }
}

fn mode_and_count(value: &[u8], at: usize) -> Result<(u32, usize), Errno> {
    let word = |at: usize| value.get(at..).and_then(number).ok_or(Errno::EINVAL);
    Ok((word(at)?, word(at + 4)? as usize))
}

fn filter(mode: u32, sources: BTreeSet<IpAddr>) -> Result<What, Errno> {
    let at = MODES.iter().position(|m| *m == mode).ok_or(Errno::EINVAL)?;
    Ok(What::Filter(SourceFilter {
        exclude: at == 0,
        sources,
    }))
}

/// A question for a filter, getsockopt(2) with `IP_MSFILTER` or `MCAST_MSFILTER`: the interface, the group, and how to answer.
pub(crate) struct Question {
    pub(crate) interface: u32,
    pub(crate) group: IpAddr,
    of_both: bool,
    room: usize,
    head: Vec<u8>,
}

impl Question {
    /// What an option asks, if it is one of these.
    pub(crate) fn of(
        inet: &Inet,
        level: i32,
        name: i32,
        value: &[u8],
    ) -> Option<Result<Question, Errno>> {
        let of_both = match (level, name) {
            (SOL_IP, IP_MSFILTER) => false,
            (_, MCAST_MSFILTER) => true,
            _ => return None,
        };
        let read = || {
            let head = value.get(..if of_both { GROUP_FILTER } else { IP_FILTER });
            let head = head.ok_or(Errno::EINVAL)?.to_vec();
            let (_, room) = mode_and_count(&head, head.len() - 8)?;
            let (index, group) = match of_both {
                true => {
                    let group = storage(level, &head, 8)?;
                    (interface(inet, number(&head).unwrap_or(0), &group)?, group)
                }
                false => {
                    let word = |i: usize| ip4(&head[i * 4..]).ok_or(Errno::EINVAL);
                    let group = word(0)?;
                    (interface4(inet, word(1)?, group)?, group.into())
                }
            };
            Ok(Question {
                interface: index,
                group,
                of_both,
                room,
                head,
            })
        };
        Some(read())
    }

    /// The answer: how many sources there are, and of them as many as there is room for.
    pub(crate) fn answer(mut self, filter: &SourceFilter) -> OptValue {
        let at = self.head.len() - 8;
        let mode = MODES[usize::from(!filter.exclude)];
        self.head[at..at + 4].copy_from_slice(&mode.to_ne_bytes());
        let count = filter.sources.len() as u32;
        self.head[at + 4..].copy_from_slice(&count.to_ne_bytes());
        for source in filter.sources.iter().take(self.room) {
            let start = self.head.len();
            match (self.of_both, source) {
                (false, _) => self.head.extend_from_slice(&crate::addr::octets(source)),
                (true, _) => {
                    let addr = Endpoint::new(*source, 0).to_addr(source.is_ipv6());
                    self.head.extend_from_slice(addr.bytes());
                    self.head.resize(start + STORAGE, 0);
                }
            }
        }
        OptValue::from_vec(self.head)
    }
}

impl Inet {
    /// The most sources of one filter of a socket, `ENOBUFS` for more.
    pub(crate) fn bound_sources(&self, level: i32, count: usize) -> Result<(), Errno> {
        let most = match level {
            SOL_IP => self.config.most_sources4(),
            _ => self.config.most_sources6(),
        };
        match count as i64 > most {
            true => Err(Errno::ENOBUFS),
            false => Ok(()),
        }
    }

    /// The interface that has an address.
    pub(crate) fn interface_of(&self, addr: &IpAddr) -> Option<u32> {
        self.addresses()
            .iter()
            .find(|a| a.addr == *addr)
            .map(|a| a.interface)
    }

    /// The interface that packets to a group leave by.
    fn group_route(&self, group: &IpAddr) -> Result<u32, Errno> {
        let hop = self.route(group, 0).map_err(|_| Errno::ENODEV)?;
        Ok(hop.interface.index())
    }
}

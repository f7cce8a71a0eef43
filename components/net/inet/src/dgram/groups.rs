//! The groups that a socket of messages has joined, and whom it hears of those who send to them.

use core::net::IpAddr;

use abi::Errno;
use kern::Curlwp;
use net::OptValue;
use sync::Cpu;

use super::Dgram;
use crate::group::request::{Question, Request, What};
use crate::group::{Member, SourceFilter};
use crate::ipv4::Header;
use crate::leaf;
use crate::options::{SOL_IP, SOL_IPV6};
use crate::route::RouteKind;

/// The most groups of a socket that are IPv6's, as Linux's limit on the memory of its options has it.
const MOST6: usize = 2048;

/// A group that a socket has joined on an interface.
pub(super) struct Membership {
    interface: u32,
    group: IpAddr,
    filter: SourceFilter,
}

impl Dgram {
    /// Whether a message to a group is for it.
    pub(crate) fn hears_group(&self, cpu: &Cpu<'_>, header: &Header) -> bool {
        if header.kind != RouteKind::Multicast {
            return true;
        }
        let leaf = leaf(cpu);
        let state = self.state.lock(&leaf);
        let key = (header.interface, header.dst);
        let joined = state.groups.iter().find(|m| (m.interface, m.group) == key);
        joined.map_or(state.options.all_groups, |m| m.filter.accepts(&header.src))
    }

    /// Does what setsockopt(2) asks for a group.
    pub(super) fn change_group(&self, cx: &Curlwp<'_>, request: Request) -> Result<(), Errno> {
        let Request {
            interface,
            group,
            what,
        } = request;
        if self.inet.interfaces.by_index(interface).is_none() {
            return Err(Errno::ENODEV);
        }
        let filter = {
            let leaf = leaf(cx.cpu());
            let mut state = self.state.lock(&leaf);
            let groups = &mut state.groups;
            let at = groups
                .iter()
                .position(|m| (m.interface, m.group) == (interface, group));
            let old = at.map(|at| &groups[at].filter);
            let new = self.new_filter(old, &group, what)?;
            match at {
                _ if old == Some(&new) => return Ok(()),
                Some(at) if new.is_nobody() => drop(groups.remove(at)),
                Some(at) => groups[at].filter = new.clone(),
                None => {
                    self.bound_groups(groups, &group)?;
                    groups.push(Membership {
                        interface,
                        group,
                        filter: new.clone(),
                    });
                }
            }
            new
        };
        let member = Member::Socket(self.id);
        self.inet
            .want_group(cx.cpu(), interface, group, member, filter);
        Ok(())
    }

    /// The filter after a request, as Linux has it: `EADDRINUSE` for who has joined, `EADDRNOTAVAIL` for what is there or not there
    /// already, `EINVAL` for a request of the other mode, `ENOBUFS`.
    fn new_filter(
        &self,
        old: Option<&SourceFilter>,
        group: &IpAddr,
        what: What,
    ) -> Result<SourceFilter, Errno> {
        let (exclude, source, adds) = match what {
            What::Join if old.is_some() => return Err(Errno::EADDRINUSE),
            What::Join => return Ok(SourceFilter::ALL),
            What::Leave if old.is_none() => return Err(Errno::EADDRNOTAVAIL),
            What::Leave => return Ok(SourceFilter::NOBODY),
            What::Filter(_) if old.is_none() => return Err(Errno::EINVAL),
            What::Filter(filter) => return Ok(filter),
            What::JoinSource(source) => (false, source, true),
            What::LeaveSource(source) => (false, source, false),
            What::Block(source) => (true, source, true),
            What::Unblock(source) => (true, source, false),
        };
        let mut filter = match old {
            // An empty list has no mode yet.
            Some(old) if !old.sources.is_empty() => old.clone(),
            Some(_) => SourceFilter {
                exclude,
                ..SourceFilter::NOBODY
            },
            None if !exclude && adds => SourceFilter::NOBODY,
            None => return Err(Errno::EINVAL),
        };
        if filter.exclude != exclude {
            return Err(Errno::EINVAL);
        }
        let level = if group.is_ipv4() { SOL_IP } else { SOL_IPV6 };
        let changed = match adds {
            true => {
                self.inet.bound_sources(level, filter.sources.len() + 1)?;
                filter.sources.insert(source)
            }
            false => filter.sources.remove(&source),
        };
        match changed {
            true => Ok(filter),
            false => Err(Errno::EADDRNOTAVAIL),
        }
    }

    /// Whether one group more is not one too many.
    fn bound_groups(&self, groups: &[Membership], group: &IpAddr) -> Result<(), Errno> {
        let count = groups
            .iter()
            .filter(|m| m.group.is_ipv4() == group.is_ipv4())
            .count();
        match group {
            IpAddr::V4(_) if count as i64 >= self.inet.config.most_groups() => Err(Errno::ENOBUFS),
            IpAddr::V6(_) if count >= MOST6 => Err(Errno::ENOMEM),
            _ => Ok(()),
        }
    }

    /// Which sources of a group it hears, `IP_MSFILTER`.
    pub(super) fn group_filter(
        &self,
        cx: &Curlwp<'_>,
        question: Question,
    ) -> Result<OptValue, Errno> {
        let leaf = leaf(cx.cpu());
        let state = self.state.lock(&leaf);
        let key = (question.interface, question.group);
        let joined = state.groups.iter().find(|m| (m.interface, m.group) == key);
        let filter = &joined.ok_or(Errno::EADDRNOTAVAIL)?.filter;
        Ok(question.answer(filter))
    }
}

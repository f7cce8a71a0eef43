//! Groups: sockets that want to be told of changes, and the telling.

use std::sync::{Arc, Weak};

use abi::Errno;
use inet::{Event, Inet};
use net::LinkEvent;
use sync::{Cpu, Mutex};

use crate::message::Writer;
use crate::route;
use crate::socket::{Family, NetlinkSocket};

/// `RTNLGRP_*`.
const LINK: u32 = 1;
const NEIGH: u32 = 3;
const IPV4_IFADDR: u32 = 5;
const IPV4_ROUTE: u32 = 7;
const IPV6_IFADDR: u32 = 9;
const IPV6_ROUTE: u32 = 11;

/// The sockets of a kernel. `list` is a leaf.
#[derive(Default)]
pub(crate) struct Members {
    list: Mutex<Vec<Weak<NetlinkSocket>>>,
}

impl Members {
    pub(crate) fn add(&self, cpu: &Cpu<'_>, socket: &Arc<NetlinkSocket>) {
        self.list.lock(cpu).push(Arc::downgrade(socket));
    }

    pub(crate) fn remove(&self, cpu: &Cpu<'_>, socket: &NetlinkSocket) {
        self.list
            .lock(cpu)
            .retain(|s| !std::ptr::eq(s.as_ptr(), socket));
    }

    /// All sockets.
    pub(crate) fn all(&self, cpu: &Cpu<'_>) -> Vec<Arc<NetlinkSocket>> {
        self.list
            .lock(cpu)
            .iter()
            .filter_map(Weak::upgrade)
            .collect()
    }

    /// A port number for a socket: `first`, or when that is taken and not asked for by name another one. `EADDRINUSE`.
    pub(crate) fn claim(
        &self,
        cpu: &Cpu<'_>,
        socket: &NetlinkSocket,
        first: u32,
        exact: bool,
    ) -> Result<u32, Errno> {
        let taken: Vec<u32> = self
            .all(cpu)
            .iter()
            .filter(|s| s.family == socket.family && !std::ptr::eq(&***s, socket))
            .map(|s| s.port())
            .collect();
        let free = |port: &u32| *port != 0 && !taken.contains(port);
        match exact {
            true => Some(first).filter(free),
            // As on Linux: the process's number, and numbers that are none of a process.
            false => std::iter::once(first)
                .chain((1..=u32::MAX >> 1).map(|n| n.wrapping_neg()))
                .find(free),
        }
        .ok_or(Errno::EADDRINUSE)
    }

    /// Sends what `describe` writes to the sockets of a group, if there are any.
    fn tell(&self, cpu: &Cpu<'_>, group: u32, describe: impl FnOnce(&mut Writer)) {
        let mut members = self.all(cpu);
        members.retain(|s| s.family == Family::Route && s.joined(group));
        if members.is_empty() {
            return;
        }
        let mut writer = Writer::new(0, 0);
        describe(&mut writer);
        let message = writer.take();
        members
            .iter()
            .for_each(|s| s.announce(cpu, &message, group));
    }
}

/// Has changes of interfaces, addresses, routes and neighbours told to the groups.
pub(crate) fn announce(inet: &Arc<Inet>, members: &Arc<Members>) {
    let (stack, to) = (Arc::downgrade(inet), members.clone());
    inet.interfaces().listen(Box::new(move |cpu, event| {
        if let Some(inet) = stack.upgrade() {
            link(cpu, &inet, &to, event);
        }
    }));
    let (stack, to) = (Arc::downgrade(inet), members.clone());
    inet.listen(Box::new(move |cpu, event| {
        if let Some(inet) = stack.upgrade() {
            change(cpu, &inet, &to, event);
        }
    }));
}

fn link(cpu: &Cpu<'_>, inet: &Inet, members: &Members, event: &LinkEvent) {
    match event {
        LinkEvent::Attached(index) | LinkEvent::Changed(index) => {
            if let Some(interface) = inet.interfaces().by_index(*index) {
                members.tell(cpu, LINK, |w| {
                    route::describe_link(w, cpu, route::RTM_NEWLINK, 0, &interface);
                });
            }
        }
        LinkEvent::Detached(index) => members.tell(cpu, LINK, |w| {
            let mut fixed = [0; 16];
            fixed[4..8].copy_from_slice(&index.to_le_bytes());
            w.message(route::RTM_DELLINK, 0, &fixed).end();
        }),
    }
}

fn change(cpu: &Cpu<'_>, inet: &Inet, members: &Members, event: &Event) {
    let by_family = |ip: &core::net::IpAddr, v4, v6| if ip.is_ipv4() { v4 } else { v6 };
    match event {
        Event::AddressAdded(a) | Event::AddressDeleted(a) => {
            let added = matches!(event, Event::AddressAdded(_));
            let kind = if added {
                route::RTM_NEWADDR
            } else {
                route::RTM_DELADDR
            };
            members.tell(cpu, by_family(&a.addr, IPV4_IFADDR, IPV6_IFADDR), |w| {
                route::describe_address(w, cpu, inet, kind, 0, a);
            });
        }
        Event::RouteAdded(r) | Event::RouteDeleted(r) => {
            let added = matches!(event, Event::RouteAdded(_));
            let kind = if added {
                route::RTM_NEWROUTE
            } else {
                route::RTM_DELROUTE
            };
            members.tell(cpu, by_family(&r.dst.addr, IPV4_ROUTE, IPV6_ROUTE), |w| {
                route::describe_route(w, kind, 0, r);
            });
        }
        Event::Neighbour(interface, address) => {
            let known = inet.neighbours(cpu);
            let found = known
                .iter()
                .find(|n| n.interface == *interface && n.addr == *address);
            if let Some(neighbour) = found {
                members.tell(cpu, NEIGH, |w| {
                    route::describe_neighbour(w, route::RTM_NEWNEIGH, 0, neighbour);
                });
            }
        }
    }
}

//! The ends of a socket of messages: bind(2), connect(2), and the port that a socket gets when it has none.

use core::net::IpAddr;
use std::sync::atomic::Ordering::Relaxed;

use abi::Errno;
use kern::Curlwp;
use net::Addr;

use super::{Dgram, Flavour, State};
use crate::addr::{Endpoint, any, is_link_local};
use crate::leaf;
use crate::ports::{Binding, Ports};
use crate::route::RouteKind;

impl Dgram {
    /// The table that its port is in.
    pub(super) fn ports(&self) -> Option<&Ports<Dgram>> {
        match self.flavour {
            Flavour::Udp => Some(&self.inet.udp),
            Flavour::Ping => Some(&self.inet.pings),
            Flavour::Raw(_) => None,
        }
    }

    fn binding(&self, cx: &Curlwp<'_>, state: &State) -> Binding {
        Binding {
            local: state.local,
            port: state.port,
            remote: state.remote,
            device: state.device,
            v6only: state.options.v6only,
            reuseaddr: self.common.reuseaddr.load(Relaxed),
            reuseport: self.common.reuseport.load(Relaxed),
            uid: cx.cred().euid,
            listening: false,
        }
    }

    /// Gives it a port when it has none yet.
    pub(crate) fn autobind(&self, cx: &Curlwp<'_>) -> Result<(), Errno> {
        let leaf = leaf(cx.cpu());
        let binding = {
            let state = self.state.lock(&leaf);
            if state.port != 0 {
                return Ok(());
            }
            self.binding(cx, &state)
        };
        let Some(ports) = self.ports() else {
            return Ok(());
        };
        let port = ports.bind(cx.cpu(), &self.inet, binding, self.id, &self.me)?;
        let mut state = self.state.lock(&leaf);
        if state.port != 0 || state.closed {
            // Somebody else was faster.
            drop(state);
            ports.release(cx.cpu(), port, self.id);
            return Ok(());
        }
        state.port = port;
        Ok(())
    }

    /// Tells the table what changed.
    pub(super) fn rebind(&self, cx: &Curlwp<'_>) {
        let binding = self.binding(cx, &self.state.lock(&leaf(cx.cpu())));
        if let Some(ports) = self.ports()
            && binding.port != 0
        {
            let _ = ports.rebind(cx.cpu(), self.id, binding, false);
        }
    }

    fn is_bindable(&self, cx: &Curlwp<'_>, to: &Endpoint) -> Result<(), Errno> {
        let special = to.addr.is_unspecified() || to.addr.is_multicast();
        let free = {
            let leaf = leaf(cx.cpu());
            let state = self.state.lock(&leaf);
            state.options.freebind || state.options.transparent
        };
        let broadcast = || {
            self.inet
                .find_route(&to.addr, 0)
                .is_some_and(|r| matches!(r.kind, RouteKind::Local | RouteKind::Broadcast))
        };
        let limited = matches!(to.addr, IpAddr::V4(ip) if ip.is_broadcast());
        if special || free || limited || broadcast() {
            return Ok(());
        }
        Err(Errno::EADDRNOTAVAIL)
    }

    /// bind(2).
    pub(super) fn bind_to(&self, cx: &Curlwp<'_>, addr: &Addr) -> Result<(), Errno> {
        let to = parse_bind(addr, self.v6)?;
        self.is_bindable(cx, &to)?;
        let privileged = i64::from(to.port) < self.inet.config.unprivileged_port();
        if self.flavour == Flavour::Udp && to.port != 0 && privileged && !cx.cred().is_superuser() {
            return Err(Errno::EACCES);
        }
        let leaf = leaf(cx.cpu());
        let (binding, ports) = {
            let mut state = self.state.lock(&leaf);
            if is_link_local(&to.addr) && to.addr.is_ipv6() {
                let device = if to.scope != 0 {
                    to.scope
                } else {
                    state.device
                };
                if device == 0 {
                    return Err(Errno::EINVAL);
                }
                if !to.addr.is_multicast() {
                    state.device = device;
                }
            }
            let Some(ports) = self.ports() else {
                state.local = to.addr;
                state.bound = true;
                return Ok(());
            };
            if state.bound || state.port != 0 {
                return Err(Errno::EINVAL);
            }
            let binding = Binding {
                local: to.addr,
                port: to.port,
                ..self.binding(cx, &state)
            };
            (binding, ports)
        };
        let port = ports.bind(cx.cpu(), &self.inet, binding, self.id, &self.me)?;
        let mut state = self.state.lock(&leaf);
        if state.port != 0 || state.closed {
            drop(state);
            ports.release(cx.cpu(), port, self.id);
            return Err(Errno::EINVAL);
        }
        state.local = to.addr;
        state.port = port;
        state.bound = true;
        Ok(())
    }

    /// connect(2).
    pub(super) fn connect_to(&self, cx: &Curlwp<'_>, addr: &Addr) -> Result<(), Errno> {
        let leaf = leaf(cx.cpu());
        if addr.family() == net::consts::AF_UNSPEC {
            let (port, bound) = {
                let mut state = self.state.lock(&leaf);
                state.remote = None;
                state.last = None;
                if !state.bound {
                    state.local = any(self.v6);
                }
                (state.port, state.bound)
            };
            if !bound && port != 0 {
                if let Some(ports) = self.ports() {
                    ports.release(cx.cpu(), port, self.id);
                }
                self.state.lock(&leaf).port = 0;
            } else {
                self.rebind(cx);
            }
            return Ok(());
        }
        let mut to = Endpoint::parse(addr, self.v6)?;
        if to.addr.is_unspecified() {
            // Any is this host.
            to.addr = match to.addr {
                IpAddr::V4(_) => core::net::Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(_) => core::net::Ipv6Addr::LOCALHOST.into(),
            };
        }
        if self.flavour != Flavour::Udp {
            to.port = 0;
        }
        self.may_reach(cx, &to)?;
        let (device, hops) = {
            let state = self.state.lock(&leaf);
            (self.device_for(&state, &to), state.local)
        };
        if is_link_local(&to.addr) && device == 0 {
            return Err(Errno::EINVAL);
        }
        let hop = self.inet.route(&to.addr, device)?;
        if hop.kind == RouteKind::Broadcast && !self.common.broadcast.load(Relaxed) {
            return Err(Errno::EACCES);
        }
        self.autobind(cx)?;
        {
            let mut state = self.state.lock(&leaf);
            if hops.is_unspecified() {
                state.local = hop.src;
            }
            state.remote = Some(to);
            state.last = None;
        }
        self.rebind(cx);
        Ok(())
    }

    /// getsockname(2).
    pub(super) fn own_name(&self, cx: &Curlwp<'_>) -> Addr {
        let leaf = leaf(cx.cpu());
        let state = self.state.lock(&leaf);
        let port = match self.flavour {
            Flavour::Raw(number) => number.into(),
            _ => state.port,
        };
        let scope = if is_link_local(&state.local) {
            state.device
        } else {
            0
        };
        let name = Endpoint {
            addr: state.local,
            port,
            scope,
        };
        name.to_addr(self.v6)
    }
}

/// The address that bind(2) gave: of an IPv4 socket "any" may come without a family.
pub(crate) fn parse_bind(addr: &Addr, v6: bool) -> Result<Endpoint, Errno> {
    if addr.bytes().len() < if v6 { 24 } else { 16 } {
        return Err(Errno::EINVAL);
    }
    if !v6 && addr.family() == net::consts::AF_UNSPEC {
        let mut bytes = addr.bytes().to_vec();
        bytes[..2].copy_from_slice(&net::consts::AF_INET.to_ne_bytes());
        let to = Endpoint::parse(&Addr::new(&bytes), false)?;
        return match to.addr.is_unspecified() {
            true => Ok(to),
            false => Err(Errno::EAFNOSUPPORT),
        };
    }
    if v6 && addr.family() != net::consts::AF_INET6 {
        return Err(Errno::EAFNOSUPPORT);
    }
    Endpoint::parse(addr, v6)
}

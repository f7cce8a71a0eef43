//! Connecting: with a handshake first, or with data in the SYN.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use abi::Errno;
use kern::Curlwp;
use kern::poll::Events;
use net::consts::AF_UNSPEC;
use net::{Addr, Outgoing, Wait};
use tcp::{Connection, Cookie, Open, Settings, Tuple};

use super::Tcp;
use super::conn::Conn;
use super::output::mss;
use crate::addr::{Endpoint, any, is_link_local};
use crate::route::RouteKind;
use crate::{Inet, leaf};

/// How often a port is chosen before there seems to be none.
const TRIES: usize = 64;

impl Tcp {
    /// connect(2).
    pub(super) fn connect_to(&self, cx: &Curlwp<'_>, addr: &Addr, wait: Wait) -> Result<(), Errno> {
        let inet = self.inet()?;
        let leaf = leaf(cx.cpu());
        if addr.family() == AF_UNSPEC {
            if let Some(conn) = self.conn.swap(None) {
                conn.own(cx).tcp.abort();
            }
            self.take_put_off(cx);
            self.forget_failed(cx);
            return Ok(());
        }
        if self.listener.load().is_some() || self.has_put_off(cx) {
            return Err(Errno::EISCONN);
        }
        if let Some(conn) = self.conn() {
            let ready = conn.own(cx).tcp.readiness();
            if ready.connected && !ready.closed {
                return match std::mem::take(&mut self.state.lock(&leaf).connecting) {
                    true => Ok(()),
                    false => Err(Errno::EISCONN),
                };
            }
            if !ready.closed {
                return match wait.nonblock() {
                    true => Err(Errno::EALREADY),
                    false => self.await_connection(cx, &conn, wait),
                };
            }
            let connecting = self.state.lock(&leaf).connecting;
            self.forget_failed(cx);
            if connecting {
                self.common.take_error()?;
                return Err(Errno::ECONNABORTED);
            }
        }
        let _ = self.common.take_error();
        let mut cookie = None;
        if self.wants_fast_open(cx) {
            let (target, _) = self.target(cx, addr)?;
            if inet.tcp.cookies.get(cx.cpu(), &target.addr).is_some() {
                // The first send connects, with its data in the SYN.
                self.put_off(cx, addr);
                return Ok(());
            }
            cookie = Cookie::new(&[]);
        }
        let conn = self.start(cx, &inet, addr, cookie)?;
        self.conn.store(Some(conn.clone()));
        self.state.lock(&leaf).connecting = true;
        drop(conn.adopt(cx.cpu()));
        if wait.nonblock() {
            return Err(Errno::EINPROGRESS);
        }
        cx.cpu().run_pending();
        self.await_connection(cx, &conn, wait)
    }

    /// Where a call wants to connect to.
    fn target(&self, cx: &Curlwp<'_>, addr: &Addr) -> Result<(Endpoint, u32), Errno> {
        let mut to = Endpoint::parse(addr, self.v6)?;
        if to.addr.is_unspecified() {
            to.addr = match to.addr {
                IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            };
        }
        let leaf = leaf(cx.cpu());
        let state = self.state.lock(&leaf);
        let elsewhere = !state.local.is_unspecified() && state.local.is_ipv4() != to.addr.is_ipv4();
        if elsewhere || self.v6 && to.addr.is_ipv4() && state.ip().v6only || to.addr.is_multicast()
        {
            return Err(Errno::ENETUNREACH);
        }
        let scope = if is_link_local(&to.addr) { to.scope } else { 0 };
        let interface = [state.device, scope, state.ip().interface];
        let interface = interface.into_iter().find(|i| *i != 0).unwrap_or(0);
        if is_link_local(&to.addr) && interface == 0 {
            return Err(Errno::EINVAL);
        }
        Ok((to, interface))
    }

    /// Begins a connection; the SYN leaves when the caller lets go of it.
    fn start(
        &self,
        cx: &Curlwp<'_>,
        inet: &Inet,
        addr: &Addr,
        cookie: Option<Cookie>,
    ) -> Result<Arc<Conn>, Errno> {
        let (to, interface) = self.target(cx, addr)?;
        let hop = inet.route(&to.addr, interface)?;
        if hop.kind == RouteKind::Broadcast {
            return Err(Errno::ENETUNREACH);
        }
        let settings = Settings {
            mss: mss(&hop),
            ..self.settings(cx.cpu())
        };
        let settings = inet.tcp.profiles.share(cx.cpu(), settings);
        let leaf = leaf(cx.cpu());
        for turn in 0..TRIES {
            let (mut binding, bound) = {
                let state = self.state.lock(&leaf);
                (self.binding(cx, &state), state.port != 0)
            };
            let src = if binding.local.is_unspecified() {
                hop.src
            } else {
                binding.local
            };
            binding.local = src;
            if !bound {
                binding.remote = Some(to);
                binding.port = inet
                    .tcp
                    .ports
                    .bind(cx.cpu(), inet, binding, self.id(), &self.me)
                    .map_err(|_| Errno::EADDRNOTAVAIL)?;
                let mut state = self.state.lock(&leaf);
                state.port = binding.port;
                state.holds = true;
            }
            let tuple = Tuple {
                local: (src, binding.port).into(),
                remote: (to.addr, to.port).into(),
            };
            let now = inet.now();
            let open = Open {
                local_port: binding.port,
                remote_port: to.port,
                iss: inet.tcp.isn.generate(now, &tuple),
                ts_offset: inet.tcp.isn.ts_offset(&tuple),
                fast_open: cookie,
            };
            let tcp = Connection::connect(now, open, settings.clone());
            let conn = Conn::new(inet, tuple, tcp, self.common.clone());
            // One in TIME-WAIT makes place when there is no other way: time stamps keep the two apart (RFC 6191).
            if inet.tcp.table.enter(cx.cpu(), &conn, bound || turn >= 8) {
                inet.tcp.open.fetch_add(1, Relaxed);
                let mut own = conn.adopt(cx.cpu());
                own.hop = Some(Box::new((inet.fib.generation(), hop)));
                own.interface = interface;
                own.holder = self.me.upgrade();
                let mut state = self.state.lock(&leaf);
                let (ip, v6) = (state.ip(), to.addr.is_ipv6());
                (own.ttl, own.tos) = Tcp::ttl_and_tos(&ip, v6);
                conn.min_ttl.store(Tcp::min_ttl(&ip, v6), Relaxed);
                if state.local.is_unspecified() {
                    state.local = src;
                }
                drop(state);
                own.forget();
                return Ok(conn);
            }
            if bound {
                return Err(Errno::EADDRNOTAVAIL);
            }
            {
                let mut state = self.state.lock(&leaf);
                state.port = 0;
                state.holds = false;
            }
            inet.tcp.ports.release(cx.cpu(), binding.port, self.id());
        }
        Err(Errno::EADDRNOTAVAIL)
    }

    /// Waits for the end of the handshake.
    fn await_connection(
        &self,
        cx: &Curlwp<'_>,
        conn: &Arc<Conn>,
        mut wait: Wait,
    ) -> Result<(), Errno> {
        loop {
            let own = conn.own(cx);
            let ready = own.tcp.readiness();
            if ready.connected && !ready.closed {
                let cookie = own.tcp.fast_open_cookie();
                drop(own);
                if let (Some(cookie), Ok(inet)) = (cookie, self.inet()) {
                    let peer = conn.tuple.remote.ip();
                    inet.tcp.cookies.put(cx.cpu(), peer, cookie);
                }
                self.state.lock(&leaf(cx.cpu())).connecting = false;
                return Ok(());
            }
            if ready.closed {
                drop(own);
                self.forget_failed(cx);
                self.common.take_error()?;
                return Err(Errno::ECONNREFUSED);
            }
            let slept = conn.sleep(cx, own, Events::OUT | Events::HUP | Events::ERR, &mut wait);
            match slept {
                Ok(()) => {}
                Err(Errno::EAGAIN) => return Err(Errno::EINPROGRESS),
                Err(error) => return Err(error),
            }
        }
    }

    /// The socket may connect again after a failure.
    fn forget_failed(&self, cx: &Curlwp<'_>) {
        self.conn.store(None);
        let leaf = leaf(cx.cpu());
        let mut state = self.state.lock(&leaf);
        state.connecting = false;
        if !state.bound {
            state.local = any(self.v6);
        }
    }

    /// `TCP_FASTOPEN_CONNECT`.
    fn wants_fast_open(&self, cx: &Curlwp<'_>) -> bool {
        let leaf = leaf(cx.cpu());
        let state = self.state.lock(&leaf);
        state.options.as_ref().is_some_and(|o| o.fast_open_connect)
    }

    /// Connects later, when there are data.
    fn put_off(&self, cx: &Curlwp<'_>, to: &Addr) {
        let leaf = leaf(cx.cpu());
        let mut state = self.state.lock(&leaf);
        state.options.get_or_insert_default().put_off = Some(to.clone());
    }

    /// Whether a connect has been put off until there are data.
    pub(super) fn has_put_off(&self, cx: &Curlwp<'_>) -> bool {
        let leaf = leaf(cx.cpu());
        let state = self.state.lock(&leaf);
        state.options.as_ref().is_some_and(|o| o.put_off.is_some())
    }

    /// Where to, of such a connect.
    pub(super) fn take_put_off(&self, cx: &Curlwp<'_>) -> Option<Addr> {
        let leaf = leaf(cx.cpu());
        self.state.lock(&leaf).options.as_mut()?.put_off.take()
    }

    /// Sends data with the SYN when the peer has given us a cookie before; else asks for one.
    pub(super) fn send_with_syn(
        &self,
        cx: &Curlwp<'_>,
        inet: &Arc<Inet>,
        to: &Addr,
        message: &mut Outgoing<'_, '_>,
    ) -> Result<(), Errno> {
        let (target, _) = self.target(cx, to)?;
        let known = inet.tcp.cookies.get(cx.cpu(), &target.addr);
        let cookie = known.or(Cookie::new(&[]));
        let mut data = vec![0; message.uio.resid().min(1200)];
        if known.is_some() {
            message.uio.get(cx, &mut data)?;
        }
        let conn = match self.start(cx, inet, to, cookie) {
            Ok(conn) => conn,
            Err(error) => {
                if known.is_some() {
                    message.uio.give_back(data.len());
                }
                return Err(error);
            }
        };
        self.conn.store(Some(conn.clone()));
        self.state.lock(&leaf(cx.cpu())).connecting = true;
        let mut own = conn.adopt(cx.cpu());
        if known.is_some() {
            let _ = own.tcp.send(&mut data.into());
        }
        drop(own);
        if message.wait.nonblock() {
            return match known {
                Some(_) => Ok(()),
                None => Err(Errno::EINPROGRESS),
            };
        }
        self.await_connection(cx, &conn, self.common.send_wait(false))?;
        self.send_stream(cx, inet, &conn, message)
    }
}

//! The socket: bind, listen, accept, shut down, close.

use core::net::IpAddr;
use std::any::Any;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};

use abi::{Errno, SysResult, UserAddr};
use arc_swap::ArcSwapOption;
use hypercall::Clock;
use kern::poll::Events;
use kern::{Ahead, Curlwp};
use net::consts::{MSG_FASTOPEN, SIOCINQ, SIOCOUTQ};
use net::{
    Accepted, Addr, Common, Incoming, OptValue, Outgoing, Protocol, Received, Shutdown, Wait,
};
use sync::{Cpu, Mutex};
use tcp::{Buffer, Settings};

use super::conn::Conn;
use super::listener::{Early, Listener};
use super::options::TcpOptions;
use crate::addr::{Endpoint, any, is_link_local};
use crate::dgram::parse_bind;
use crate::options::IpOptions;
use crate::ports::Binding;
use crate::{Inet, leaf};

const SIOCATMARK: u32 = 0x8905;
const SIOCOUTQNSD: u32 = 0x894b;

/// A TCP socket: without a connection, with one, or listening.
///
/// `state` is a leaf. `conn` and `listener` are swapped whole.
pub(crate) struct Tcp {
    pub(super) me: Weak<Tcp>,
    pub(super) inet: Weak<Inet>,
    pub(crate) v6: bool,
    pub(crate) common: Arc<Common>,
    pub(super) state: Mutex<State>,
    pub(super) conn: ArcSwapOption<Conn>,
    pub(super) listener: ArcSwapOption<Listener>,
}

/// Names and options.
pub(super) struct State {
    pub(super) local: IpAddr,
    pub(super) port: u16,
    /// By bind(2).
    pub(super) bound: bool,
    /// The port is entered under this socket.
    pub(super) holds: bool,
    closed: bool,
    pub(super) device: u32,
    /// Settings other than the defaults.
    pub(super) settings: Option<Arc<Settings>>,
    pub(super) options: Option<Box<TcpOptions>>,
    /// A connect that did not wait has not been told of its success.
    pub(super) connecting: bool,
}

impl State {
    /// What a listening socket does with data that come before a handshake is done.
    pub(super) fn early(&self) -> Early {
        let options = self.options.as_deref();
        Early {
            fast_open: options.is_some_and(|o| o.fast_open > 0),
            defer_accept: options.map_or(0, |o| o.defer),
        }
    }

    /// The options of IP.
    pub(super) fn ip(&self) -> IpOptions {
        self.options
            .as_ref()
            .map_or_else(IpOptions::default, |o| o.ip)
    }
}

impl Tcp {
    pub(crate) fn open(inet: &Arc<Inet>, v6: bool, common: &Arc<Common>) -> Arc<Tcp> {
        Tcp::new(inet, v6, common.clone(), None, any(v6), 0)
    }

    fn new(
        inet: &Arc<Inet>,
        v6: bool,
        common: Arc<Common>,
        conn: Option<Arc<Conn>>,
        local: IpAddr,
        port: u16,
    ) -> Arc<Tcp> {
        Arc::new_cyclic(|me| Tcp {
            me: me.clone(),
            inet: Arc::downgrade(inet),
            v6,
            common,
            state: Mutex::new(State {
                local,
                port,
                bound: false,
                holds: false,
                closed: false,
                device: 0,
                settings: None,
                options: None,
                connecting: false,
            }),
            conn: ArcSwapOption::new(conn),
            listener: ArcSwapOption::empty(),
        })
    }

    /// A number that no other socket has at the time.
    pub(crate) fn id(&self) -> u64 {
        self.me.as_ptr().addr() as u64
    }

    /// Its own end and the interface that it is bound to.
    pub(super) fn end(&self, cpu: &Cpu<'_>) -> (Endpoint, u32) {
        let leaf = leaf(cpu);
        let state = self.state.lock(&leaf);
        (Endpoint::new(state.local, state.port), state.device)
    }

    pub(super) fn inet(&self) -> Result<Arc<Inet>, Errno> {
        self.inet.upgrade().ok_or(Errno::ESHUTDOWN)
    }

    pub(super) fn conn(&self) -> Option<Arc<Conn>> {
        self.conn.load_full()
    }

    pub(crate) fn listener(&self) -> Option<Arc<Listener>> {
        self.listener.load_full()
    }

    pub(super) fn binding(&self, cx: &Curlwp<'_>, state: &State) -> Binding {
        Binding {
            local: state.local,
            port: state.port,
            remote: None,
            device: state.device,
            v6only: state.ip().v6only,
            reuseaddr: self.common.reuseaddr.load(Relaxed),
            reuseport: self.common.reuseport.load(Relaxed),
            uid: cx.cred().euid,
            listening: false,
        }
    }

    /// The connection that held the port is over.
    pub(super) fn release_port(&self, cpu: &Cpu<'_>, inet: &Inet) {
        let leaf = leaf(cpu);
        let port = {
            let mut state = self.state.lock(&leaf);
            if !state.holds || state.bound && !state.closed {
                return;
            }
            state.holds = false;
            std::mem::take(&mut state.port)
        };
        inet.tcp.ports.release(cpu, port, self.id());
    }

    /// What a connection or a listening socket begins with.
    pub(super) fn settings(&self, cpu: &Cpu<'_>) -> Settings {
        let settings = self.state.lock(&leaf(cpu)).settings.clone();
        let mut settings = settings.as_deref().cloned().unwrap_or_default();
        self.take_common(&mut settings);
        settings
    }

    /// Takes over what socket(7)'s options say.
    pub(super) fn take_common(&self, settings: &mut Settings) {
        settings.keepalive.on = self.common.keepalive.load(Relaxed);
        settings.oob_inline = self.common.oobinline.load(Relaxed);
        if self.common.rcvbuf_fixed.load(Relaxed) {
            settings.recv_buffer = Buffer::fixed(self.common.rcvbuf.load(Relaxed));
        }
        if self.common.sndbuf_fixed.load(Relaxed) {
            settings.send_buffer = Buffer::fixed(self.common.sndbuf.load(Relaxed));
        }
    }

    pub(super) fn ttl_and_tos(ip: &IpOptions, v6: bool) -> (u8, u8) {
        if v6 {
            (ip.hops, ip.tclass)
        } else {
            (ip.ttl, ip.tos)
        }
    }

    /// What has come from further away is not taken in (RFC 5082): the least TTL or hop limit of its packets.
    pub(super) fn min_ttl(ip: &IpOptions, v6: bool) -> u8 {
        if v6 { ip.min_hops } else { ip.min_ttl }
    }
}

impl Protocol for Tcp {
    fn common(&self) -> &Arc<Common> {
        &self.common
    }

    fn bind(&self, cx: &Curlwp<'_>, addr: &Addr) -> Result<(), Errno> {
        let inet = self.inet()?;
        let to = parse_bind(addr, self.v6)?;
        let privileged = i64::from(to.port) < inet.config.unprivileged_port();
        if to.port != 0 && privileged && !cx.cred().is_superuser() {
            return Err(Errno::EACCES);
        }
        let leaf = leaf(cx.cpu());
        let binding = {
            let mut state = self.state.lock(&leaf);
            let local = to.addr.is_unspecified() || inet.is_local(&to.addr);
            let ip = state.ip();
            if !local && !ip.freebind && !ip.transparent {
                return Err(Errno::EADDRNOTAVAIL);
            }
            if state.bound || state.port != 0 || self.conn.load().is_some() {
                return Err(Errno::EINVAL);
            }
            if is_link_local(&to.addr) && state.device == 0 {
                if to.scope == 0 {
                    return Err(Errno::EINVAL);
                }
                state.device = to.scope;
            }
            Binding {
                local: to.addr,
                port: to.port,
                ..self.binding(cx, &state)
            }
        };
        if binding.port != 0 && inet.tcp.table.holds(cx.cpu(), &binding) {
            return Err(Errno::EADDRINUSE);
        }
        let port = inet
            .tcp
            .ports
            .bind(cx.cpu(), &inet, binding, self.id(), &self.me)?;
        let mut state = self.state.lock(&leaf);
        if state.port != 0 || state.closed {
            drop(state);
            inet.tcp.ports.release(cx.cpu(), port, self.id());
            return Err(Errno::EINVAL);
        }
        state.local = to.addr;
        state.port = port;
        state.bound = true;
        state.holds = true;
        Ok(())
    }

    fn listen(&self, cx: &Curlwp<'_>, backlog: usize) -> Result<(), Errno> {
        let inet = self.inet()?;
        if self.conn.load().is_some() {
            return Err(Errno::EINVAL);
        }
        let leaf = leaf(cx.cpu());
        let (binding, early, ip) = {
            let state = self.state.lock(&leaf);
            (self.binding(cx, &state), state.early(), state.ip())
        };
        if let Some(listener) = &*self.listener.load() {
            listener.set_limits(cx.cpu(), Some(backlog), early);
            return Ok(());
        }
        let settings = self.settings(cx.cpu()).into();
        let v6 = self.v6 && binding.local.is_ipv6();
        let new = Listener::new(
            &inet,
            &self.common,
            settings,
            backlog,
            early,
            Tcp::ttl_and_tos(&ip, v6),
            Tcp::min_ttl(&ip, v6),
        );
        let mut binding = Binding {
            listening: true,
            ..binding
        };
        self.listener.store(Some(new));
        let entered = match binding.port {
            0 => inet
                .tcp
                .ports
                .bind(cx.cpu(), &inet, binding, self.id(), &self.me)
                .map(|port| binding.port = port),
            _ => inet.tcp.ports.rebind(cx.cpu(), self.id(), binding, true),
        };
        if let Err(error) = entered {
            self.listener.store(None);
            return Err(error);
        }
        let mut state = self.state.lock(&leaf);
        state.port = binding.port;
        state.holds = true;
        Ok(())
    }

    fn accept(&self, cx: &Curlwp<'_>, wait: Wait) -> Result<Accepted, Errno> {
        let inet = self.inet()?;
        let listener = self.listener().ok_or(Errno::EINVAL)?;
        let conn = listener.accept(cx, wait)?;
        let (local, remote) = (conn.tuple.local, conn.tuple.remote);
        let common = conn.common.clone();
        let socket = Tcp::new(&inet, self.v6, common, Some(conn), local.ip(), local.port());
        Ok(Accepted {
            protocol: socket,
            peer: Endpoint::new(remote.ip(), remote.port()).to_addr(self.v6),
        })
    }

    fn connect(&self, cx: &Curlwp<'_>, addr: &Addr, wait: Wait) -> Result<(), Errno> {
        self.connect_to(cx, addr, wait)
    }

    fn send(&self, cx: &Curlwp<'_>, message: &mut Outgoing<'_, '_>) -> Result<(), Errno> {
        let inet = self.inet()?;
        if let Some(conn) = self.conn() {
            return self.send_stream(cx, &inet, &conn, message);
        }
        if let Some(to) = message.to.filter(|_| message.flags & MSG_FASTOPEN != 0) {
            return self.send_with_syn(cx, &inet, to, message);
        }
        if let Some(to) = self.take_put_off(cx) {
            return self.send_with_syn(cx, &inet, &to, message);
        }
        self.common.take_error()?;
        Err(Errno::EPIPE)
    }

    fn receive(&self, cx: &Curlwp<'_>, message: &mut Incoming<'_, '_>) -> Result<Received, Errno> {
        let inet = self.inet()?;
        let Some(conn) = self.conn() else {
            self.common.take_error()?;
            return Err(Errno::ENOTCONN);
        };
        self.receive_stream(cx, &inet, &conn, message)
    }

    fn shutdown(&self, cx: &Curlwp<'_>, how: Shutdown) -> Result<(), Errno> {
        if let Some(listener) = self.listener()
            && how.reads()
        {
            // As on Linux it listens no more.
            listener.close(cx.cpu());
            return Ok(());
        }
        let conn = self.conn().ok_or(Errno::ENOTCONN)?;
        let mut own = conn.own(cx);
        if !own.tcp.readiness().connected || own.tcp.readiness().closed {
            return Err(Errno::ENOTCONN);
        }
        if how.reads() {
            conn.receive_no_more();
        }
        if how.writes() {
            own.tcp.shutdown();
        }
        Ok(())
    }

    fn name(&self, cx: &Curlwp<'_>) -> Result<Addr, Errno> {
        let leaf = leaf(cx.cpu());
        let state = self.state.lock(&leaf);
        let scope = if is_link_local(&state.local) {
            state.device
        } else {
            0
        };
        let name = Endpoint {
            addr: state.local,
            port: state.port,
            scope,
        };
        Ok(name.to_addr(self.v6))
    }

    fn peer(&self, cx: &Curlwp<'_>) -> Result<Addr, Errno> {
        let conn = self.conn().ok_or(Errno::ENOTCONN)?;
        let ready = conn.own(cx).tcp.readiness();
        if !ready.connected || ready.closed {
            return Err(Errno::ENOTCONN);
        }
        let remote = conn.tuple.remote;
        Ok(Endpoint::new(remote.ip(), remote.port()).to_addr(self.v6))
    }

    fn poll(&self, cx: &Curlwp<'_>) -> Events {
        if let Some(conn) = &*self.conn.load() {
            return conn.events();
        }
        match &*self.listener.load() {
            Some(listener) if listener.has_ready(cx.cpu()) => Events::IN | Events::RDNORM,
            Some(_) => Events::NONE,
            None if self.has_put_off(cx) => Events::OUT | Events::WRNORM,
            None => Events::OUT | Events::WRNORM | Events::HUP,
        }
    }

    fn getsockopt(&self, cx: &Curlwp<'_>, level: i32, name: i32) -> Result<OptValue, Errno> {
        self.get_option(cx, level, name)
    }

    fn setsockopt(
        &self,
        cx: &Curlwp<'_>,
        level: i32,
        name: i32,
        value: &[u8],
    ) -> Result<(), Errno> {
        self.set_option(cx, level, name, value)
    }

    fn option_changed(&self, cx: &Curlwp<'_>, _: i32) {
        let change = |settings: &mut Settings| self.take_common(settings);
        if let (Some(conn), Ok(inet)) = (self.conn(), self.inet()) {
            conn.own(cx).configure(&inet, change);
        } else if let Some(listener) = self.listener() {
            listener.configure(cx.cpu(), change);
        }
    }

    fn ioctl(&self, cx: &Curlwp<'_>, cmd: u32, arg: UserAddr) -> SysResult {
        let inet = self.inet()?;
        if !matches!(cmd, SIOCINQ | SIOCOUTQ | SIOCOUTQNSD | SIOCATMARK) {
            return inet.ioctl(cx, self.v6, cmd, arg);
        }
        if self.listener.load().is_some() {
            return Err(Errno::EINVAL);
        }
        let bytes = match self.conn() {
            None => 0,
            Some(conn) => {
                let own = conn.own(cx);
                match cmd {
                    SIOCINQ => own.tcp.readiness().readable,
                    SIOCOUTQ => own.tcp.unacknowledged(),
                    SIOCOUTQNSD => own.tcp.unsent(),
                    _ => own.tcp.at_mark().into(),
                }
            }
        };
        cx.copyout(&(bytes as i32).to_ne_bytes(), arg)?;
        Ok(0)
    }

    fn ahead(&self, cx: &Curlwp<'_>, most: usize) -> Option<Ahead> {
        Tcp::ahead_of(cx, &self.conn()?, most)
    }

    fn available(&self, cx: &Curlwp<'_>) -> i64 {
        if let Some(listener) = self.listener() {
            return listener.queue(cx.cpu()).0 as i64;
        }
        let conn = self.conn();
        conn.map_or(0, |conn| conn.own(cx).tcp.readiness().readable as i64)
    }

    fn room(&self, cx: &Curlwp<'_>) -> i64 {
        let conn = self.conn();
        conn.map_or(0, |conn| conn.own(cx).tcp.readiness().writable as i64)
    }

    fn listening(&self, _: &Curlwp<'_>) -> bool {
        self.listener.load().is_some()
    }

    fn close(&self, cx: &Curlwp<'_>) {
        let Ok(inet) = self.inet() else {
            return;
        };
        let leaf = leaf(cx.cpu());
        self.state.lock(&leaf).closed = true;
        if let Some(listener) = self.listener.swap(None) {
            listener.close(cx.cpu());
        }
        let linger = self.common.linger.load(Relaxed);
        let held = match self.conn.swap(None) {
            None => false,
            Some(conn) => {
                let mut own = conn.own(cx);
                match linger {
                    0 => own.tcp.abort(),
                    _ => own.tcp.close(inet.now()),
                }
                if !conn.outlives_its_socket(&inet, &mut own) {
                    own.tcp.abort();
                }
                let held = own.holder.is_some();
                drop(own);
                if linger > 0 {
                    self.linger(cx, &conn, linger as u64);
                }
                held
            }
        };
        if !held {
            self.release_port(cx.cpu(), &inet);
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Tcp {
    /// Waits until the peer has everything, `SO_LINGER`.
    fn linger(&self, cx: &Curlwp<'_>, conn: &Arc<Conn>, seconds: u64) {
        let deadline = cx.now(Clock::Monotonic) + seconds * 1_000_000_000;
        loop {
            let own = conn.own(cx);
            let left = deadline.saturating_sub(cx.now(Clock::Monotonic));
            let done = matches!(
                own.tcp.state(),
                tcp::State::Closed | tcp::State::TimeWait | tcp::State::FinWait2
            );
            if done || left == 0 {
                return;
            }
            let mut wait = Wait::new(false, left);
            if conn
                .sleep(cx, own, Events::HUP | Events::OUT, &mut wait)
                .is_err()
            {
                return;
            }
        }
    }
}

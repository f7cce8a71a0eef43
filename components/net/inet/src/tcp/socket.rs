//! The socket: bind, connect, listen, accept, shut down, close.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::any::Any;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::{Arc, Weak};

use abi::{Errno, SysResult, UserAddr};
use arc_swap::ArcSwapOption;
use hypercall::Clock;
use kern::poll::Events;
use kern::{Ahead, Curlwp};
use net::consts::{AF_UNSPEC, MSG_FASTOPEN, SIOCINQ, SIOCOUTQ};
use net::{
    Accepted, Addr, Common, Incoming, OptValue, Outgoing, Protocol, Received, Shutdown, Wait,
};
use sync::{Cpu, Mutex};
use tcp::{Buffer, Connection, Cookie, Open, Settings, Tuple};

use super::conn::Conn;
use super::listener::Listener;
use super::options::TcpOptions;
use super::output::mss;
use crate::addr::{Endpoint, any, is_link_local};
use crate::dgram::parse_bind;
use crate::options::IpOptions;
use crate::ports::Binding;
use crate::route::RouteKind;
use crate::{Inet, leaf};

const SIOCATMARK: u32 = 0x8905;
const SIOCOUTQNSD: u32 = 0x894b;
/// How often a port is chosen before there seems to be none.
const TRIES: usize = 64;

/// A TCP socket: without a connection, with one, or listening.
///
/// `state` is a leaf. `conn` and `listener` are swapped whole.
pub(crate) struct Tcp {
    pub(super) me: Weak<Tcp>,
    pub(super) inet: Weak<Inet>,
    pub(crate) v6: bool,
    pub(crate) common: Arc<Common>,
    pub(super) state: Mutex<State>,
    conn: ArcSwapOption<Conn>,
    listener: ArcSwapOption<Listener>,
}

/// Names and options.
pub(super) struct State {
    local: IpAddr,
    port: u16,
    /// By bind(2).
    bound: bool,
    /// The port is entered under this socket.
    holds: bool,
    closed: bool,
    pub(super) device: u32,
    /// Settings other than the defaults.
    pub(super) settings: Option<Arc<Settings>>,
    pub(super) options: Option<Box<TcpOptions>>,
    /// A connect that did not wait has not been told of its success.
    connecting: bool,
}

impl State {
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

    fn binding(&self, cx: &Curlwp<'_>, state: &State) -> Binding {
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
                (own.ttl, own.tos) = Tcp::ttl_and_tos(&state.ip(), to.addr.is_ipv6());
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
                drop(own);
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
}

impl Protocol for Tcp {
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
        let (binding, fast_open, ip) = {
            let state = self.state.lock(&leaf);
            let fast_open = state.options.as_ref().is_some_and(|o| o.fast_open > 0);
            (self.binding(cx, &state), fast_open, state.ip())
        };
        if let Some(listener) = &*self.listener.load() {
            listener.set_backlog(cx.cpu(), backlog, fast_open);
            return Ok(());
        }
        let settings = self.settings(cx.cpu()).into();
        let v6 = self.v6 && binding.local.is_ipv6();
        let new = Listener::new(
            &inet,
            &self.common,
            settings,
            backlog,
            fast_open,
            Tcp::ttl_and_tos(&ip, v6),
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
        let socket = Tcp::new(
            &inet,
            self.v6,
            common.clone(),
            Some(conn),
            local.ip(),
            local.port(),
        );
        Ok(Accepted {
            protocol: socket,
            common,
            peer: Endpoint::new(remote.ip(), remote.port()).to_addr(self.v6),
        })
    }

    fn connect(&self, cx: &Curlwp<'_>, addr: &Addr, wait: Wait) -> Result<(), Errno> {
        let inet = self.inet()?;
        let leaf = leaf(cx.cpu());
        if addr.family() == AF_UNSPEC {
            if let Some(conn) = self.conn.swap(None) {
                conn.own(cx).tcp.abort();
            }
            self.forget_failed(cx);
            return Ok(());
        }
        if self.listener.load().is_some() {
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
        let conn = self.start(cx, &inet, addr, None)?;
        self.conn.store(Some(conn.clone()));
        self.state.lock(&leaf).connecting = true;
        drop(conn.adopt(cx.cpu()));
        if wait.nonblock() {
            return Err(Errno::EINPROGRESS);
        }
        cx.cpu().run_pending();
        self.await_connection(cx, &conn, wait)
    }

    fn send(&self, cx: &Curlwp<'_>, message: &mut Outgoing<'_, '_>) -> Result<(), Errno> {
        let inet = self.inet()?;
        let conn = match (self.conn(), message.to) {
            (Some(conn), _) => conn,
            (None, Some(to)) if message.flags & MSG_FASTOPEN != 0 => {
                return self.send_with_syn(cx, &inet, to, message);
            }
            (None, _) => {
                self.common.take_error()?;
                return Err(Errno::EPIPE);
            }
        };
        self.send_stream(cx, &inet, &conn, message)
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
            conn.receives_no_more.store(true, Release);
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

    /// Sends data with the SYN when the peer has given us a cookie before; else asks for one.
    fn send_with_syn(
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
        let given = conn.own(cx).tcp.fast_open_cookie();
        if let Some(cookie) = given {
            inet.tcp.cookies.put(cx.cpu(), target.addr, cookie);
        }
        self.send_stream(cx, inet, &conn, message)
    }
}

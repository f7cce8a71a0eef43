//! A socket that is one of the host's.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use abi::{Errno, SysResult, UserAddr};
use arc_swap::ArcSwapOption;
use hypercall::{HostSocket, SocketFamily, SocketKind, SocketQueue};
use kern::Curlwp;
use kern::poll::Events;
use net::consts::{AF_UNSPEC, SIOCINQ, SIOCOUTQ, SO_ACCEPTCONN, SO_RCVLOWAT, SOL_SOCKET};
use net::{
    Accepted, Addr, Common, Incoming, MAX_BUF, OptValue, Outgoing, Protocol, Received, Shutdown,
    Wait, int_option,
};
use sync::Mutex;

use crate::ready::{Poller, Ready, Way};
use crate::{addr, options};

/// From this port on everybody may bind.
const UNPRIVILEGED_PORT: u16 = 1024;
const SIOCATMARK: u32 = 0x8905;

/// A kernel's socket on one of its host's.
///
/// `watched` says under which number the host tells of it, from the first wait on; it is held over the poller's lock, and else a leaf.
/// The host has locks of its own for the rest.
pub(crate) struct HostBacked {
    pub(crate) family: SocketFamily,
    pub(crate) kind: SocketKind,
    pub(crate) common: Arc<Common>,
    /// Counted, so that a call keeps it whatever else happens; `None` when closed.
    host: ArcSwapOption<Box<dyn HostSocket>>,
    ready: Arc<Ready>,
    poller: Arc<Poller>,
    watched: Mutex<Option<u64>>,
}

impl HostBacked {
    pub(crate) fn new(
        family: SocketFamily,
        kind: SocketKind,
        common: Arc<Common>,
        poller: Arc<Poller>,
        host: Box<dyn HostSocket>,
    ) -> Arc<HostBacked> {
        Arc::new(HostBacked {
            family,
            kind,
            ready: Ready::new(common.clone()),
            common,
            host: ArcSwapOption::from_pointee(host),
            poller,
            watched: Mutex::new(None),
        })
    }

    /// The host's socket; `EBADF` when it is closed.
    pub(crate) fn host(&self) -> Result<Arc<Box<dyn HostSocket>>, Errno> {
        self.host.load_full().ok_or(Errno::EBADF)
    }

    pub(crate) fn is_stream(&self) -> bool {
        self.kind == SocketKind::Stream
    }

    /// Has the host tell what becomes of the socket.
    fn watch(&self, cx: &Curlwp<'_>, host: &dyn HostSocket) -> Result<(), Errno> {
        self.poller.start(cx)?;
        let mut watched = self.watched.lock(cx.cpu());
        if watched.is_none() && self.host.load().is_some() {
            let number = self.poller.add(cx, &self.ready);
            host.watch(number)
                .inspect_err(|_| self.poller.remove(cx, number))?;
            *watched = Some(number);
        }
        Ok(())
    }

    /// Asks the host until it does what is asked for, or the wait ends: `attempt` answers `EAGAIN` while it cannot be done. `EBADF`
    /// when the socket is closed meanwhile.
    pub(crate) fn until_done<R>(
        &self,
        cx: &Curlwp<'_>,
        way: Way,
        wait: &mut Wait,
        mut attempt: impl FnMut(&dyn HostSocket) -> Result<R, Errno>,
    ) -> Result<R, Errno> {
        loop {
            let then = self.ready.now();
            let host = self.host()?;
            match attempt(&**host) {
                Err(Errno::EAGAIN) if !wait.nonblock() => {}
                done => return done,
            }
            // What is ready by now is told at once.
            self.watch(cx, &**host)?;
            // Nobody who sleeps keeps a socket open that another closes.
            drop(host);
            self.ready.changes(cx, then, way, wait)?;
        }
    }

    fn parse(&self, addr: &Addr) -> Result<core::net::SocketAddr, Errno> {
        addr::parse(addr, self.family)
    }
}

impl Protocol for HostBacked {
    fn common(&self) -> &Arc<Common> {
        &self.common
    }

    fn bind(&self, cx: &Curlwp<'_>, addr: &Addr) -> Result<(), Errno> {
        let addr = self.parse(addr)?;
        let privileged =
            self.kind != SocketKind::Ping && (1..UNPRIVILEGED_PORT).contains(&addr.port());
        if privileged && !cx.cred().is_superuser() {
            return Err(Errno::EACCES);
        }
        self.host()?.bind(addr)
    }

    fn listen(&self, _: &Curlwp<'_>, backlog: usize) -> Result<(), Errno> {
        self.host()?.listen(backlog)
    }

    fn accept(&self, cx: &Curlwp<'_>, mut wait: Wait) -> Result<Accepted, Errno> {
        let (host, peer) = self.until_done(cx, Way::In, &mut wait, |host| host.accept())?;
        let common = Arc::new(self.common.inherit(cx.cpu()));
        let protocol = HostBacked::new(self.family, self.kind, common, self.poller.clone(), host);
        Ok(Accepted {
            protocol,
            peer: addr::shown(peer),
        })
    }

    fn connect(&self, cx: &Curlwp<'_>, addr: &Addr, mut wait: Wait) -> Result<(), Errno> {
        let to = match addr.family() {
            AF_UNSPEC if addr.bytes().len() >= 2 => None,
            _ => Some(self.parse(addr)?),
        };
        if wait.nonblock() {
            return self.host()?.connect(to);
        }
        let connected = self.until_done(cx, Way::Out, &mut wait, |host| match host.connect(to) {
            Err(Errno::EINPROGRESS | Errno::EALREADY) => Err(Errno::EAGAIN),
            // UDP, too, may have no port left, which no wait would change.
            Err(Errno::EAGAIN) => Err(Errno::EADDRNOTAVAIL),
            done => done,
        });
        match connected {
            // The time is up; it goes on.
            Err(Errno::EAGAIN) => Err(Errno::EINPROGRESS),
            done => done,
        }
    }

    fn send(&self, cx: &Curlwp<'_>, message: &mut Outgoing<'_, '_>) -> Result<(), Errno> {
        if self.is_stream() {
            self.send_stream(cx, message)
        } else {
            self.send_datagram(cx, message)
        }
    }

    fn receive(&self, cx: &Curlwp<'_>, message: &mut Incoming<'_, '_>) -> Result<Received, Errno> {
        if self.is_stream() {
            self.receive_stream(cx, message)
        } else {
            self.receive_datagram(cx, message)
        }
    }

    fn receive_error(
        &self,
        cx: &Curlwp<'_>,
        message: &mut Incoming<'_, '_>,
    ) -> Result<Received, Errno> {
        message.wait.no_more();
        self.receive_datagram(cx, message)
    }

    fn shutdown(&self, _: &Curlwp<'_>, how: Shutdown) -> Result<(), Errno> {
        self.host()?.shutdown(match how {
            Shutdown::Read => 0,
            Shutdown::Write => 1,
            Shutdown::Both => 2,
        })
    }

    fn name(&self, _: &Curlwp<'_>) -> Result<Addr, Errno> {
        self.host()?.name().map(addr::shown)
    }

    fn peer(&self, _: &Curlwp<'_>) -> Result<Addr, Errno> {
        self.host()?.peer().map(addr::shown)
    }

    fn poll(&self, cx: &Curlwp<'_>) -> Events {
        let Ok(host) = self.host() else {
            return Events::NVAL;
        };
        // Whoever is about to wait must not do so for nothing.
        match self.watch(cx, &**host) {
            Ok(()) => Events(host.ready()),
            Err(_) => Events(host.ready()) | Events::ERR,
        }
    }

    fn getsockopt(&self, _: &Curlwp<'_>, level: i32, name: i32) -> Result<OptValue, Errno> {
        options::get(&**self.host()?, level, name)
    }

    fn setsockopt(&self, _: &Curlwp<'_>, level: i32, name: i32, value: &[u8]) -> Result<(), Errno> {
        options::set(&**self.host()?, level, name, value)?;
        if (level, name) == (SOL_SOCKET, SO_RCVLOWAT) {
            // The kernel waits for it.
            let bytes = u32::try_from(int_option(value)?).unwrap_or(MAX_BUF);
            self.common.rcvlowat.store(bytes.max(1), Ordering::Relaxed);
        }
        Ok(())
    }

    fn owns_option(&self, name: i32) -> bool {
        !options::is_of_the_kernel(name)
    }

    fn ioctl(&self, cx: &Curlwp<'_>, cmd: u32, arg: UserAddr) -> SysResult {
        let host = self.host()?;
        let value = match cmd {
            SIOCINQ => host.queued(SocketQueue::In)?,
            SIOCOUTQ => host.queued(SocketQueue::Out)?,
            SIOCATMARK => host.at_mark()?.into(),
            _ => return Err(Errno::ENOTTY),
        };
        let value = i32::try_from(value).unwrap_or(i32::MAX);
        cx.copyout(&value.to_le_bytes(), arg)?;
        Ok(0)
    }

    fn available(&self, cx: &Curlwp<'_>) -> i64 {
        let Ok(host) = self.host() else { return 0 };
        if self.listening(cx) {
            // The host says whether, not how many.
            return Events(host.ready()).intersects(Events::IN).into();
        }
        host.queued(SocketQueue::In).map_or(0, |n| n as i64)
    }

    fn listening(&self, cx: &Curlwp<'_>) -> bool {
        let value = self.getsockopt(cx, SOL_SOCKET, SO_ACCEPTCONN);
        value.is_ok_and(|value| value.first().is_some_and(|byte| *byte != 0))
    }

    fn close(&self, cx: &Curlwp<'_>) {
        let host = self.host.swap(None);
        if let Some(number) = self.watched.lock(cx.cpu()).take() {
            self.poller.remove(cx, number);
        }
        self.ready
            .tell(cx, Events::NVAL | Events::ERR | Events::HUP);
        cx.unscheduled(|| drop(host));
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

//! What all threads of a server share, and its beginning and end.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock, Weak};

use abi::sysproxy::{Class, Cookie, ErrorWord, Header, Kind, PROTOCOL};
use kern::{Kernel, LwpHandle};
use rustix::event::epoll::{self, EventData, EventFlags};

use crate::Options;
use crate::client::Client;
use crate::conn::{Conn, LINGER, lock};
use crate::listen::Listener;

/// The epoll datum of the listening socket.
pub(crate) const LISTENER: u64 = u64::MAX;
/// The epoll datum of the descriptor that wakes workers.
pub(crate) const WAKE: u64 = u64::MAX - 1;

/// A server. Locks: `conns`, `sessions`, `preforks` and `handoff` are never held together, nor over anything that
/// blocks.
pub(crate) struct Core {
    pub(crate) kernel: Arc<Kernel>,
    pub(crate) options: Options,
    pub(crate) epoll: Arc<OwnedFd>,
    pub(crate) wake: OwnedFd,
    listener: Option<Listener>,
    conns: RwLock<HashMap<u32, Arc<Conn>>>,
    next_conn: AtomicU32,
    pub(crate) sessions: Mutex<HashMap<Cookie, Weak<Client>>>,
    pub(crate) preforks: Mutex<HashMap<Cookie, Prefork>>,
    /// Connections whose next frame has been received already.
    pub(crate) handoff: Mutex<Vec<Arc<Conn>>>,
    pub(crate) workers: Workers,
    /// Rings that exist, and those that somebody awake looks at.
    pub(crate) rings: AtomicUsize,
    pub(crate) rings_awake: AtomicUsize,
    pub(crate) next_ring: AtomicU32,
    /// Processors of the host.
    pub(crate) cpus: usize,
    stopping: AtomicBool,
    halted: Mutex<bool>,
    halt: Condvar,
}

/// A process made for a fork that has been announced.
pub(crate) struct Prefork {
    pub(crate) handle: LwpHandle,
    /// Whose child it is.
    pub(crate) parent: Cookie,
}

/// The threads: those that wait for events, and all, rings included.
#[derive(Default)]
pub(crate) struct Workers {
    pub(crate) idle: AtomicUsize,
    pub(crate) workers: AtomicUsize,
    /// Connections that a reader stays with for good.
    pub(crate) residents: AtomicUsize,
    alive: Mutex<usize>,
    left: Condvar,
}

impl Core {
    pub(crate) fn start(
        kernel: &Arc<Kernel>,
        listener: Listener,
        options: Options,
    ) -> io::Result<Arc<Core>> {
        let core = Core::new(kernel, Some(listener), options)?;
        core.watch_listener(true)?;
        core.spawn_worker()?;
        Ok(core)
    }

    /// A server whose clients are brought to it.
    pub(crate) fn new(
        kernel: &Arc<Kernel>,
        listener: Option<Listener>,
        options: Options,
    ) -> io::Result<Arc<Core>> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let flags = rustix::event::EventfdFlags::CLOEXEC | rustix::event::EventfdFlags::NONBLOCK;
        let wake = rustix::event::eventfd(0, flags)?;
        let edge = EventFlags::IN | EventFlags::ET;
        epoll::add(&epoll, &wake, EventData::new_u64(WAKE), edge)?;
        Ok(Arc::new(Core {
            kernel: kernel.clone(),
            options,
            epoll: Arc::new(epoll),
            wake,
            listener,
            conns: RwLock::default(),
            next_conn: AtomicU32::new(0),
            sessions: Mutex::default(),
            preforks: Mutex::default(),
            handoff: Mutex::default(),
            workers: Workers::default(),
            rings: AtomicUsize::new(0),
            rings_awake: AtomicUsize::new(0),
            next_ring: AtomicU32::new(0),
            cpus: kernel.host().ncpu(),
            stopping: AtomicBool::new(false),
            halted: Mutex::new(false),
            halt: Condvar::new(),
        }))
    }

    /// Spinning helps while each ring that is awake can have two processors.
    pub(crate) fn may_spin(&self) -> bool {
        self.rings_awake.load(Ordering::Relaxed) * 2 <= self.cpus
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    fn watch_listener(&self, first: bool) -> io::Result<()> {
        let Some(listener) = &self.listener else {
            return Ok(());
        };
        let (data, flags) = (
            EventData::new_u64(LISTENER),
            EventFlags::IN | EventFlags::ONESHOT,
        );
        if first {
            epoll::add(&*self.epoll, listener, data, flags)?;
        } else {
            epoll::modify(&*self.epoll, listener, data, flags)?;
        }
        Ok(())
    }

    /// Takes in everybody who waits at the listening socket.
    pub(crate) fn accept(self: &Arc<Self>) {
        let Some(listener) = &self.listener else {
            return;
        };
        while !self.is_stopping() {
            match listener.accept() {
                Ok((socket, local)) => {
                    if let Some(conn) = self.greet(socket, local) {
                        conn.arm();
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        let _ = self.watch_listener(false);
    }

    /// A new connection, with the reader's role held by the caller; `None` when it is refused.
    pub(crate) fn greet(self: &Arc<Self>, socket: OwnedFd, local: bool) -> Option<Arc<Conn>> {
        let trusted = local && same_user(&socket);
        if self.conn_count() >= 4 * self.options.max_clients {
            refuse(&socket, ErrorWord::TryAgain);
            return None;
        }
        let timeout = rustix::net::sockopt::Timeout::Recv;
        rustix::net::sockopt::set_socket_timeout(&socket, timeout, Some(LINGER)).ok()?;
        let id = self.next_conn.fetch_add(1, Ordering::Relaxed) & 0x7fff_ffff;
        let conn = Arc::new(Conn::new(id, socket, local, trusted, self.epoll.clone()));
        conn.register().ok()?;
        {
            let mut conns = self.conns.write().unwrap_or_else(PoisonError::into_inner);
            conns.insert(id, conn.clone());
        }
        let banner = format!(
            "{PROTOCOL}rumpkit-{}/{}\n",
            env!("CARGO_PKG_VERSION"),
            std::env::consts::ARCH
        );
        if !conn.send(banner.as_bytes()) || self.is_stopping() {
            self.disconnect(&conn);
            return None;
        }
        Some(conn)
    }

    pub(crate) fn conn(&self, id: u32) -> Option<Arc<Conn>> {
        let conns = self.conns.read().unwrap_or_else(PoisonError::into_inner);
        conns.get(&id).cloned()
    }

    /// A readiness connection of a client.
    pub(crate) fn ready_conn(&self, client: &Arc<Client>, id: u32) -> Option<Arc<Conn>> {
        let own = |c: &Arc<Conn>| {
            c.ready.load(Ordering::SeqCst)
                && c.client.get().is_some_and(|own| Arc::ptr_eq(own, client))
        };
        self.conn(id).filter(own)
    }

    fn all_conns(&self) -> Vec<Arc<Conn>> {
        let conns = self.conns.read().unwrap_or_else(PoisonError::into_inner);
        conns.values().cloned().collect()
    }

    /// The host's process behind each connection from this machine, once.
    pub(crate) fn peers(&self) -> Vec<rustix::process::Pid> {
        let conns = self.all_conns();
        let local = conns.iter().filter(|conn| conn.local);
        let peer = |conn: &Arc<Conn>| rustix::net::sockopt::socket_peercred(conn.socket()).ok();
        let mut pids: Vec<_> = local.filter_map(peer).map(|peer| peer.pid).collect();
        pids.sort_by_key(|pid| pid.as_raw_nonzero());
        pids.dedup();
        pids
    }

    fn conn_count(&self) -> usize {
        self.conns
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    /// The connections of a client.
    pub(crate) fn conns_of(&self, client: &Arc<Client>) -> Vec<Arc<Conn>> {
        let mut conns = self.all_conns();
        conns.retain(|c| c.client.get().is_some_and(|own| Arc::ptr_eq(own, client)));
        conns
    }

    pub(crate) fn client_count(&self) -> usize {
        lock(&self.sessions).len()
    }

    /// Cleans up after a connection that has ended; with the last one of a client, after the client. Twice does nothing.
    pub(crate) fn disconnect(&self, conn: &Arc<Conn>) {
        let known = {
            let mut conns = self.conns.write().unwrap_or_else(PoisonError::into_inner);
            conns.remove(&conn.id).is_some()
        };
        conn.close();
        if !known {
            return;
        }
        conn.unregister();
        if conn.unsettle() {
            self.workers.residents.fetch_sub(1, Ordering::SeqCst);
        }
        drop(lock(&conn.watcher).take());
        let Some(client) = conn.client.get() else {
            return;
        };
        if conn.ready.load(Ordering::SeqCst) || !client.lose_connection() {
            return;
        }
        self.end_client(client);
    }

    fn end_client(&self, client: &Arc<Client>) {
        lock(&self.sessions).remove(&client.session);
        let orphans: Vec<Prefork> = {
            let mut preforks = lock(&self.preforks);
            let cookies: Vec<Cookie> = preforks
                .iter()
                .filter(|(_, p)| p.parent == client.session)
                .map(|(cookie, _)| *cookie)
                .collect();
            cookies.iter().filter_map(|c| preforks.remove(c)).collect()
        };
        drop(orphans);
        for conn in self.conns_of(client) {
            conn.close();
        }
        client.end();
    }

    /// A number that cannot be guessed.
    pub(crate) fn cookie(&self) -> Cookie {
        let mut raw = [0; Cookie::SIZE];
        self.kernel.host().random(&mut raw);
        Cookie::decode(&raw).unwrap_or_default()
    }

    // Threads.

    /// Starts a thread of the server, which `stop` waits for.
    pub(crate) fn spawn(
        self: &Arc<Self>,
        name: &str,
        body: impl FnOnce(&Arc<Core>) + Send + 'static,
    ) -> io::Result<()> {
        /// Counts the thread out, also when it panics.
        struct Alive(Arc<Core>);
        impl Drop for Alive {
            fn drop(&mut self) {
                *lock(&self.0.workers.alive) -= 1;
                self.0.workers.left.notify_all();
            }
        }
        *lock(&self.workers.alive) += 1;
        let alive = Alive(self.clone());
        std::thread::Builder::new()
            .name(name.to_owned())
            .stack_size(512 << 10)
            .spawn(move || body(&alive.0))?;
        Ok(())
    }

    /// Has one idle worker look at `handoff`.
    pub(crate) fn call_worker(&self) {
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    // The end.

    /// Ends `wait_halted`.
    pub(crate) fn set_halted(&self) {
        *lock(&self.halted) = true;
        self.halt.notify_all();
    }

    pub(crate) fn wait_halted(&self) {
        let mut halted = lock(&self.halted);
        while !*halted {
            halted = self
                .halt
                .wait(halted)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes the socket's name away.
    pub(crate) fn leave_name(&self) {
        if let Some(listener) = &self.listener {
            listener.unlink();
        }
    }

    /// Disconnects everybody and waits for every thread to leave.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.leave_name();
        if let Some(listener) = &self.listener {
            let _ = epoll::delete(&*self.epoll, listener);
        }
        for conn in self.all_conns() {
            self.disconnect(&conn);
        }
        // Level-triggered from now on, and never read: every worker sees it.
        let level = EventData::new_u64(WAKE);
        let _ = epoll::modify(&*self.epoll, &self.wake, level, EventFlags::IN);
        self.call_worker();
        let mut alive = lock(&self.workers.alive);
        while *alive != 0 {
            alive = self
                .workers
                .left
                .wait(alive)
                .unwrap_or_else(PoisonError::into_inner);
        }
        drop(alive);
        for conn in self.all_conns() {
            self.disconnect(&conn);
        }
    }
}

/// Whether the peer is our own user or the superuser.
fn same_user(socket: &OwnedFd) -> bool {
    rustix::net::sockopt::socket_peercred(socket)
        .is_ok_and(|peer| peer.uid.is_root() || peer.uid == rustix::process::geteuid())
}

/// Says why a client is not taken in.
fn refuse(socket: &OwnedFd, why: ErrorWord) {
    let frame = Header::new(Class::Error, Kind::Handshake, why as u32, 0, 0).encode();
    let flags = rustix::net::SendFlags::DONTWAIT | rustix::net::SendFlags::NOSIGNAL;
    let _ = rustix::net::send(socket, &frame, flags);
}

//! Binding, listening, connecting, accepting.

use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::{Arc, Weak};

use abi::Errno;
use kern::Curlwp;
use kern::poll::Events;
use net::consts::{AF_UNIX, AF_UNSPEC};
use net::{Addr, Credentials, Kind, Wait};

use crate::end::{End, Listening};
use crate::names;

impl End {
    /// The most bytes that may wait at a peer for this end's sake.
    pub(crate) fn send_limit(&self) -> usize {
        self.common.sndbuf.load(Relaxed) as usize
    }

    pub(crate) fn bind_to(&self, cx: &Curlwp<'_>, addr: &Addr) -> Result<(), Errno> {
        let name = names::parse(addr)?;
        if self.state.lock(cx.cpu()).name.is_some() {
            return Err(Errno::EINVAL);
        }
        let (named, node) = self.names.bind(cx, &name, &self.arc()?)?;
        let mut state = self.state.lock(cx.cpu());
        if state.name.is_some() {
            drop(state);
            self.names.forget(cx, &named, self);
            return Err(Errno::EINVAL);
        }
        state.name = Some(named);
        state.node = node;
        Ok(())
    }

    pub(crate) fn listen_for(&self, cx: &Curlwp<'_>, backlog: usize) -> Result<(), Errno> {
        if self.kind == Kind::Dgram {
            return Err(Errno::EOPNOTSUPP);
        }
        let mut state = self.state.lock(cx.cpu());
        if state.name.is_none() || state.peer.is_some() {
            return Err(Errno::EINVAL);
        }
        match &mut state.listening {
            Some(listening) => listening.backlog = backlog,
            None => {
                state.listening = Some(Listening {
                    backlog,
                    queue: Default::default(),
                    cred: Credentials::current(cx),
                });
            }
        }
        drop(state);
        // A longer queue lets connects go on that wait for a place.
        self.writable.broadcast(cx.cpu());
        Ok(())
    }

    pub(crate) fn accept_end(&self, cx: &Curlwp<'_>, mut wait: Wait) -> Result<Arc<End>, Errno> {
        let mut graph = None;
        let mut state = self.state.lock(cx.cpu());
        loop {
            let listening = state.listening.as_mut().ok_or(Errno::EINVAL)?;
            let first = listening.queue.front();
            if graph.is_none() && first.is_some_and(|end| end.carries.load(SeqCst) != 0) {
                drop(state);
                graph = Some(self.flight.graph.lock(cx.cpu()));
                state = self.state.lock(cx.cpu());
                continue;
            }
            if let Some(end) = listening.queue.pop_front() {
                end.unaccepted.store(false, SeqCst);
                drop((state, graph));
                self.writable.broadcast(cx.cpu());
                return Ok(end);
            }
            graph = None;
            state = wait.on(cx, &self.readable, state)?;
        }
    }

    pub(crate) fn connect_to(&self, cx: &Curlwp<'_>, addr: &Addr, wait: Wait) -> Result<(), Errno> {
        if self.kind == Kind::Dgram {
            return self.connect_dgram(cx, addr);
        }
        let name = names::parse(addr)?;
        let target = self.names.find(cx, &name)?;
        if target.kind != self.kind {
            return Err(Errno::EPROTOTYPE);
        }
        let mine = {
            let state = self.state.lock(cx.cpu());
            if state.listening.is_some() {
                return Err(Errno::EINVAL);
            }
            if state.peer.is_some() {
                return Err(Errno::EISCONN);
            }
            state.name.clone()
        };
        // The other side of the connection; the listener's accept finds it made.
        let server = End::new(
            cx.cpu(),
            self.kind,
            Arc::new(target.common.inherit(cx.cpu())),
            self.names.clone(),
            self.flight.clone(),
        );
        server.unaccepted.store(true, SeqCst);
        {
            let mut state = server.state.lock(cx.cpu());
            state.peer = Some(self.me.clone());
            state.peer_name = mine;
            state.peer_cred = Some(Credentials::current(cx));
            state.name = target.state.lock(cx.cpu()).name.clone();
        }
        let cred = target
            .enqueue(cx, &server, wait)
            .inspect_err(|_| self.names.strike(cx.cpu(), server.number))?;
        {
            let mut state = self.state.lock(cx.cpu());
            state.peer = Some(Arc::downgrade(&server));
            state.peer_name = server.state.lock(cx.cpu()).name.clone();
            state.peer_cred = Some(cred);
        }
        // It may have been closed between being queued and being known here.
        if server.state.lock(cx.cpu()).closed {
            self.end_of_input(cx);
        }
        target.readable.signal(cx.cpu());
        target
            .common
            .poll
            .notify(cx.cpu(), Events::IN | Events::RDNORM);
        self.common
            .poll
            .notify(cx.cpu(), Events::OUT | Events::WRNORM);
        Ok(())
    }

    /// Puts a connection into the queue of this listening end, waiting for a place; answers who listens.
    fn enqueue(
        &self,
        cx: &Curlwp<'_>,
        server: &Arc<End>,
        mut wait: Wait,
    ) -> Result<Credentials, Errno> {
        let mut state = self.state.lock(cx.cpu());
        loop {
            let listening = state.listening.as_mut().ok_or(Errno::ECONNREFUSED)?;
            if listening.queue.len() <= listening.backlog {
                listening.queue.push_back(server.clone());
                return Ok(listening.cred);
            }
            state = wait.on(cx, &self.writable, state)?;
        }
    }

    /// Chooses where datagrams go, or with `AF_UNSPEC` nowhere any more.
    fn connect_dgram(&self, cx: &Curlwp<'_>, addr: &Addr) -> Result<(), Errno> {
        let (peer, peer_name) = match addr.family() {
            AF_UNSPEC => (None, None),
            _ => {
                let target = self.dgram_target(cx, addr)?;
                let name = target.state.lock(cx.cpu()).name.clone();
                (Some(Arc::downgrade(&target)), name)
            }
        };
        let mut state = self.state.lock(cx.cpu());
        state.peer = peer;
        state.peer_name = peer_name;
        Ok(())
    }

    /// The end of a name that takes datagrams from this one. `EPERM` when it is connected to somebody else.
    pub(crate) fn dgram_target(&self, cx: &Curlwp<'_>, addr: &Addr) -> Result<Arc<End>, Errno> {
        let target = self.names.find(cx, &names::parse(addr)?)?;
        if target.kind != self.kind {
            return Err(Errno::EPROTOTYPE);
        }
        let elsewhere = |peer: &Weak<End>| !Weak::ptr_eq(peer, &self.me);
        if target
            .state
            .lock(cx.cpu())
            .peer
            .as_ref()
            .is_some_and(elsewhere)
        {
            return Err(Errno::EPERM);
        }
        Ok(target)
    }

    /// How this end is called in what it sends.
    pub(crate) fn sender_name(&self, cx: &Curlwp<'_>) -> Addr {
        let name = self.state.lock(cx.cpu()).name.clone();
        name.unwrap_or(Addr::unnamed(AF_UNIX))
    }
}

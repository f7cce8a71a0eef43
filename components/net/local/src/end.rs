//! An end of local communication: one socket's side.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Weak};

use abi::{Errno, SysResult, UserAddr};
use kern::hooks::SocketPoint;
use kern::poll::Events;
use kern::{Curlwp, OpenFile};
use net::consts::{AF_UNIX, SIOCINQ, SIOCOUTQ, SO_PEERCRED, SOL_SOCKET};
use net::{
    Accepted, Addr, Common, Credentials, Incoming, Kind, OptValue, Outgoing, Protocol, Received,
    Shutdown, SocketEntry, Wait,
};
use sync::{Condvar, Mutex, Parker};

use crate::flight::{Flight, settle};
use crate::garbage::suspect;
use crate::inbox::Inbox;
use crate::names::Names;

/// One socket's side.
///
/// Locks: the graph of [`Flight`] before `state` before `inbox`; of two ends never two locks of one kind at once. `readable` goes
/// with the inbox (and, listening, with the state), `writable` with the inbox too: senders wait at the end that they fill.
/// `in_flight` and `carries` change with the graph held and are read without; with the inbox locked `carries` is not too small.
pub(crate) struct End {
    pub(crate) me: Weak<End>,
    /// Its number among the kernel's.
    pub(crate) number: u32,
    pub(crate) kind: Kind,
    pub(crate) common: Arc<Common>,
    pub(crate) names: Arc<Names>,
    pub(crate) flight: Arc<Flight>,
    /// How often it lies in an inbox.
    pub(crate) in_flight: AtomicUsize,
    /// How many sockets of this domain lie in its own.
    pub(crate) carries: AtomicUsize,
    /// It is a connection in the queue of a listening end.
    pub(crate) unaccepted: AtomicBool,
    pub(crate) state: Mutex<State>,
    pub(crate) inbox: Mutex<Inbox>,
    pub(crate) readable: Condvar,
    pub(crate) writable: Condvar,
}

/// Names and connection.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) name: Option<Addr>,
    /// Keeps the name's node in memory.
    pub(crate) node: Option<Arc<SocketPoint>>,
    pub(crate) peer: Option<Weak<End>>,
    /// What the peer was called when the connection was made.
    pub(crate) peer_name: Option<Addr>,
    /// Who the peer was then.
    pub(crate) peer_cred: Option<Credentials>,
    pub(crate) listening: Option<Listening>,
    /// shutdown(2) has ended sending.
    pub(crate) sends_no_more: bool,
    pub(crate) closed: bool,
}

/// Connections that wait to be accepted.
pub(crate) struct Listening {
    pub(crate) backlog: usize,
    pub(crate) queue: VecDeque<Arc<End>>,
    pub(crate) cred: Credentials,
}

impl End {
    pub(crate) fn new(
        parker: &dyn Parker,
        kind: Kind,
        common: Arc<Common>,
        names: Arc<Names>,
        flight: Arc<Flight>,
    ) -> Arc<End> {
        let end = Arc::new_cyclic(|me| End {
            me: me.clone(),
            number: names.next_number(),
            kind,
            common,
            names,
            flight,
            in_flight: AtomicUsize::new(0),
            carries: AtomicUsize::new(0),
            unaccepted: AtomicBool::new(false),
            state: Mutex::default(),
            inbox: Mutex::default(),
            readable: Condvar::new("lorcv"),
            writable: Condvar::new("losnd"),
        });
        end.names.note(parker, &end);
        end
    }

    /// Itself, for lists of sockets.
    pub(crate) fn entry(&self, cx: &Curlwp<'_>) -> SocketEntry {
        let (name, peer, waiting) = {
            let state = self.state.lock(cx.cpu());
            let name = state
                .name
                .as_ref()
                .map_or(Vec::new(), |n| n.data().to_vec());
            let waiting = state.listening.as_ref().map(|l| (l.queue.len(), l.backlog));
            (name, state.peer.as_ref().and_then(Weak::upgrade), waiting)
        };
        let queued = |end: &End| end.inbox.lock(cx.cpu()).readable(false);
        let (receive_queue, send_queue) = match waiting {
            Some(counts) => counts,
            None => (queued(self), peer.as_deref().map_or(0, queued)),
        };
        SocketEntry {
            number: self.number,
            kind: self.kind,
            state: match (&waiting, &peer) {
                (Some(_), _) => 10,
                (None, Some(_)) => 1,
                (None, None) => 7,
            },
            name,
            peer: peer.map_or(0, |peer| peer.number),
            receive_queue,
            send_queue,
            protocol: 0,
            interface: 0,
        }
    }

    /// Itself, counted. There is somebody who holds it: whoever makes the call.
    pub(crate) fn arc(&self) -> Result<Arc<End>, Errno> {
        self.me.upgrade().ok_or(Errno::EBADF)
    }

    /// Whether messages keep their borders.
    pub(crate) fn is_messages(&self) -> bool {
        self.kind != Kind::Stream
    }

    /// The peer as it is now.
    pub(crate) fn peer_end(&self, cx: &Curlwp<'_>) -> Option<Arc<End>> {
        self.state
            .lock(cx.cpu())
            .peer
            .as_ref()
            .and_then(Weak::upgrade)
    }

    /// Tells everybody who waits here, and the socket's watchers.
    pub(crate) fn wake(&self, cx: &Curlwp<'_>, events: Events) {
        self.readable.broadcast(cx.cpu());
        self.writable.broadcast(cx.cpu());
        self.common.poll.notify(cx.cpu(), events);
    }

    /// No more comes in here: the peer ended sending, or is gone.
    pub(crate) fn end_of_input(&self, cx: &Curlwp<'_>) {
        self.inbox.lock(cx.cpu()).ended = true;
        self.wake(cx, Events::IN | Events::OUT | Events::HUP | Events::RDHUP);
    }

    /// Takes nothing more, and empties the inbox. Answers whether there was anything.
    fn refuse(&self, cx: &Curlwp<'_>, files: &mut VecDeque<Arc<OpenFile>>) -> bool {
        let mut inbox = self.lock_inbox(cx);
        inbox.refuses = true;
        let unread = inbox.empty(files);
        self.wake(cx, Events::IN | Events::OUT | Events::HUP | Events::RDHUP);
        unread
    }

    /// Ends everything: names, connection, what waits. The descriptors in its inbox go to `files`, to be [settled](settle).
    pub(crate) fn shut(&self, cx: &Curlwp<'_>, files: &mut VecDeque<Arc<OpenFile>>) {
        let (name, peer, listening) = {
            let mut state = self.state.lock(cx.cpu());
            if std::mem::replace(&mut state.closed, true) {
                return;
            }
            (
                state.name.clone(),
                state.peer.take(),
                state.listening.take(),
            )
        };
        if let Some(name) = name {
            self.names.forget(cx, &name, self);
        }
        self.names.strike(cx.cpu(), self.number);
        let unread = self.refuse(cx, files);
        if let Some(peer) = peer.and_then(|p| p.upgrade())
            && self.kind != Kind::Dgram
        {
            if unread {
                peer.common.set_error(cx.cpu(), Errno::ECONNRESET);
            }
            peer.end_of_input(cx);
        }
        for waiting in listening.into_iter().flat_map(|l| l.queue) {
            waiting.shut(cx, files);
        }
    }
}

impl Protocol for End {
    fn common(&self) -> &Arc<Common> {
        &self.common
    }

    fn bind(&self, cx: &Curlwp<'_>, addr: &Addr) -> Result<(), Errno> {
        self.bind_to(cx, addr)
    }

    fn listen(&self, cx: &Curlwp<'_>, backlog: usize) -> Result<(), Errno> {
        self.listen_for(cx, backlog)
    }

    fn accept(&self, cx: &Curlwp<'_>, wait: Wait) -> Result<Accepted, Errno> {
        let end = self.accept_end(cx, wait)?;
        let peer = end.state.lock(cx.cpu()).peer_name.clone();
        Ok(Accepted {
            protocol: end,
            peer: peer.unwrap_or(Addr::unnamed(AF_UNIX)),
        })
    }

    fn connect(&self, cx: &Curlwp<'_>, addr: &Addr, wait: Wait) -> Result<(), Errno> {
        self.connect_to(cx, addr, wait)
    }

    fn pair(&self, cx: &Curlwp<'_>, other: &Arc<dyn Protocol>) -> Result<(), Errno> {
        let other = other.as_any().downcast_ref::<End>().ok_or(Errno::EINVAL)?;
        let cred = Credentials::current(cx);
        for (one, two) in [(self, other), (other, self)] {
            let mut state = one.state.lock(cx.cpu());
            state.peer = Some(two.me.clone());
            state.peer_cred = Some(cred);
        }
        Ok(())
    }

    fn send(&self, cx: &Curlwp<'_>, message: &mut Outgoing<'_, '_>) -> Result<(), Errno> {
        self.transmit(cx, message)
    }

    fn receive(&self, cx: &Curlwp<'_>, message: &mut Incoming<'_, '_>) -> Result<Received, Errno> {
        if self.is_messages() {
            self.receive_message(cx, message)
        } else {
            self.receive_stream(cx, message)
        }
    }

    fn shutdown(&self, cx: &Curlwp<'_>, how: Shutdown) -> Result<(), Errno> {
        let peer = {
            let mut state = self.state.lock(cx.cpu());
            if self.kind != Kind::Dgram && state.peer.is_none() {
                return Err(Errno::ENOTCONN);
            }
            state.sends_no_more |= how.writes();
            state.peer.as_ref().and_then(Weak::upgrade)
        };
        if how.reads() {
            let mut inbox = self.inbox.lock(cx.cpu());
            inbox.refuses = true;
            inbox.ended = true;
        }
        if how.writes()
            && let Some(peer) = peer
        {
            peer.end_of_input(cx);
        }
        self.wake(cx, Events::IN | Events::OUT | Events::HUP | Events::RDHUP);
        Ok(())
    }

    fn name(&self, cx: &Curlwp<'_>) -> Result<Addr, Errno> {
        let name = self.state.lock(cx.cpu()).name.clone();
        Ok(name.unwrap_or(Addr::unnamed(AF_UNIX)))
    }

    fn peer(&self, cx: &Curlwp<'_>) -> Result<Addr, Errno> {
        let state = self.state.lock(cx.cpu());
        if state.peer.is_none() {
            return Err(Errno::ENOTCONN);
        }
        Ok(state.peer_name.clone().unwrap_or(Addr::unnamed(AF_UNIX)))
    }

    fn poll(&self, cx: &Curlwp<'_>) -> Events {
        let (peer, connected, sends_no_more, accepts) = {
            let state = self.state.lock(cx.cpu());
            let accepts = state.listening.as_ref().map(|l| !l.queue.is_empty());
            (
                state.peer.clone(),
                state.peer.is_some(),
                state.sends_no_more,
                accepts,
            )
        };
        let mut now = Events::NONE;
        if let Some(ready) = accepts {
            return if ready {
                Events::IN | Events::RDNORM
            } else {
                now
            };
        }
        {
            let inbox = self.inbox.lock(cx.cpu());
            if !inbox.is_empty() || inbox.ended {
                now = now | Events::IN | Events::RDNORM;
            }
            if inbox.ended {
                now = now | Events::RDHUP;
                if sends_no_more || peer.as_ref().is_none_or(|p| p.strong_count() == 0) {
                    now = now | Events::HUP;
                }
            }
        }
        if !connected && self.kind != Kind::Dgram {
            return now | Events::OUT | Events::HUP;
        }
        let room = match peer.and_then(|p| p.upgrade()) {
            Some(peer) => {
                let limit = self.send_limit();
                peer.inbox.lock(cx.cpu()).room(limit) * 2 > limit
            }
            None => true,
        };
        if room {
            now | Events::OUT | Events::WRNORM
        } else {
            now
        }
    }

    fn getsockopt(&self, cx: &Curlwp<'_>, level: i32, name: i32) -> Result<OptValue, Errno> {
        if (level, name) != (SOL_SOCKET, SO_PEERCRED) {
            return Err(if level == SOL_SOCKET {
                Errno::ENOPROTOOPT
            } else {
                Errno::EOPNOTSUPP
            });
        }
        let nobody = Credentials {
            pid: 0,
            uid: u32::MAX,
            gid: u32::MAX,
        };
        let cred = self.state.lock(cx.cpu()).peer_cred.unwrap_or(nobody);
        Ok(OptValue::from_slice(&cred.to_bytes()))
    }

    fn setsockopt(&self, _: &Curlwp<'_>, level: i32, _: i32, _: &[u8]) -> Result<(), Errno> {
        Err(if level == SOL_SOCKET {
            Errno::ENOPROTOOPT
        } else {
            Errno::EOPNOTSUPP
        })
    }

    fn ioctl(&self, cx: &Curlwp<'_>, cmd: u32, arg: UserAddr) -> SysResult {
        let bytes = match cmd {
            SIOCINQ => self.inbox.lock(cx.cpu()).readable(self.is_messages()),
            SIOCOUTQ => match self.peer_end(cx) {
                Some(peer) => peer.inbox.lock(cx.cpu()).readable(false),
                None => 0,
            },
            _ => return Err(Errno::ENOTTY),
        };
        cx.copyout(&(bytes as i32).to_le_bytes(), arg)?;
        Ok(0)
    }

    fn available(&self, cx: &Curlwp<'_>) -> i64 {
        if let Some(listening) = &self.state.lock(cx.cpu()).listening {
            return listening.queue.len() as i64;
        }
        self.inbox.lock(cx.cpu()).readable(self.is_messages()) as i64
    }

    fn listening(&self, cx: &Curlwp<'_>) -> bool {
        self.state.lock(cx.cpu()).listening.is_some()
    }

    fn still_held(&self, cx: &Curlwp<'_>, of: &Arc<OpenFile>) {
        suspect(cx, of);
    }

    fn close(&self, cx: &Curlwp<'_>) {
        let mut files = VecDeque::new();
        self.shut(cx, &mut files);
        settle(cx, files);
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

//! Rings: shared memory between a thread of a client and the server. The layout is `abi::ring`'s.
//!
//! Each ring has a thread here ([`thread`]) that sleeps until the client's thread asks for something. What serving takes lies in the
//! ring's [`seat`], so that a thread that happens to be awake can serve another's ring as well ([`wards`]).

mod control;
mod map;
mod memory;
mod pace;
mod posted;
mod seat;
mod thread;
mod wards;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use abi::sysproxy::{ErrorWord, Header, RingReply};
use abi::{Errno, Spin};

use crate::client::Client;
use crate::conn::{Conn, lock};
use crate::core::Core;
use crate::worker::Next;
pub(crate) use control::RingControl;
use map::Map;
pub(crate) use posted::Ran;
use seat::Seat;
use thread::RingThread;

impl Core {
    /// A client wants to hand a ring over: what it sends next is looked through for a descriptor.
    pub(crate) fn ring_offer(&self, conn: &Conn, header: Header) -> Next {
        let error = if self.rings.load(Ordering::SeqCst) >= self.options.max_rings {
            Errno::EAGAIN.0
        } else if conn.expect_fd() {
            0
        } else {
            Errno::EOPNOTSUPP.0
        };
        conn.respond(header, &RingReply { error, ring: 0 }.encode())
    }

    /// A client hands a ring over.
    pub(crate) fn ring_attach(
        self: &Arc<Self>,
        conn: &Arc<Conn>,
        client: &Arc<Client>,
        header: Header,
    ) -> Next {
        let reply = match self.ring_start(conn, client) {
            Ok(ring) => RingReply { error: 0, ring },
            Err(Errno(error)) => RingReply { error, ring: 0 },
        };
        conn.respond(header, &reply.encode())
    }

    fn ring_start(self: &Arc<Self>, conn: &Arc<Conn>, client: &Arc<Client>) -> Result<u32, Errno> {
        let memfd = conn.take_fd().ok_or(Errno::EINVAL)?;
        if self.rings.fetch_add(1, Ordering::SeqCst) >= self.options.max_rings {
            self.rings.fetch_sub(1, Ordering::SeqCst);
            return Err(Errno::EAGAIN);
        }
        let count = RingCount(self.clone());
        let map = Map::new(&memfd).map_err(|_| Errno::EINVAL)?;
        let runner = client.runner(None).map_err(ErrorWord::errno)?;
        let slot = runner.slot.clone();
        let control = RingControl::new(self, client, map, Seat::new(runner), slot);
        let number = self.next_ring.fetch_add(1, Ordering::Relaxed);
        lock(&client.rings).insert(number, control.clone());
        if client.is_dead() {
            control.close();
        }
        let peer = peer_pid(conn);
        let mut ring = RingThread {
            core: self.clone(),
            client: client.clone(),
            control,
            number,
            peer,
            spin: Spin::new(),
            linger: Spin::yielding(),
            _count: count,
        };
        // When the thread does not start, the ring is dropped, and all it has with it.
        self.spawn("sysproxy-ring", move |_| ring.serve())
            .map_err(|_| Errno::EAGAIN)?;
        Ok(number)
    }
}

/// The host's process at the other end.
fn peer_pid(conn: &Conn) -> Option<i32> {
    let cred = rustix::net::sockopt::socket_peercred(conn.socket()).ok()?;
    Some(cred.pid.as_raw_nonzero().get())
}

/// Counts a ring out when it is gone.
struct RingCount(Arc<Core>);

impl Drop for RingCount {
    fn drop(&mut self) {
        self.0.rings.fetch_sub(1, Ordering::SeqCst);
    }
}

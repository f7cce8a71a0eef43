//! A connection: the engine, and what stands around it.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use abi::Errno;
use hypercall::Nanos;
use kern::Curlwp;
use kern::poll::Events;
use net::{Common, LinkType, Wait};
use sync::{Condvar, Cpu, Mutex, MutexGuard};
use tcp::{Connection, Segment, Settings, State, Tuple};

use super::wheel::Timed;
use super::{Tcp, errno};
use crate::route::Hop;
use crate::{Inet, leaf};

/// The most segments, and bytes of them, that wait for an owner.
const MOST_SEGMENTS: usize = 1024;
const MOST_BYTES: usize = 8 << 20;
/// A timer is entered again only when it is due so much earlier than it was, in nanoseconds.
const SLACK: Nanos = 4 << 20;
const NOT_ENTERED: u64 = u64::MAX;

/// What happens to a connection besides calls.
pub(super) enum Work {
    Segment(Segment),
    Timer,
    /// Nobody wants it any more.
    Abort,
    /// An ICMP error about a segment of ours.
    Trouble {
        seq: u32,
        errno: Errno,
        mtu: u32,
    },
}

/// Who has the connection.
#[derive(Default)]
struct Gate {
    owned: bool,
    backlog: Option<Box<Backlog>>,
    /// Where they sleep who wait to own it or for events; an idle connection has it only while somebody does.
    changed: Option<Arc<Condvar>>,
    /// Somebody sleeps to own it.
    wanted: bool,
    /// Events that somebody sleeps for.
    awaited: u16,
    /// Grows with every turn of an owner and every backlog worked off, so that nothing is missed between a look and a sleep.
    turn: u32,
}

/// What waits for the owner.
#[derive(Default)]
struct Backlog {
    work: Vec<Work>,
    bytes: usize,
}

impl Gate {
    fn changed(&mut self) -> Arc<Condvar> {
        let new = || Arc::new(Condvar::new("tcp"));
        self.changed.get_or_insert_with(new).clone()
    }

    fn leave(&mut self, work: Work) {
        let len = match &work {
            Work::Segment(segment) => segment.payload_len(),
            _ => 0,
        };
        let backlog = self.backlog.get_or_insert_default();
        if backlog.work.len() < MOST_SEGMENTS && backlog.bytes + len <= MOST_BYTES {
            backlog.bytes += len;
            backlog.work.push(work);
        }
    }
}

/// A connection.
///
/// It is *owned* by one at a time, as by Linux's `lock_sock`: a call waits until it is free, input that finds it owned goes to
/// the backlog, and the owner works that off before it lets go. `gate` is a leaf and says who owns it; `inner` is locked by the
/// owner alone and so never waited for.
///
/// There may be a hundred thousand of them that are idle, so what an idle one needs not is a box that it gives back.
pub(crate) struct Conn {
    pub(super) inet: Weak<Inet>,
    pub(crate) tuple: Tuple,
    pub(super) common: Arc<Common>,
    gate: Mutex<Gate>,
    inner: Mutex<Inner>,
    /// The events that are true, as of the last owner's turn.
    events: AtomicU32,
    /// When the wheel calls at the latest.
    entered: AtomicU64,
    /// [`SHARES_PORT`] and [`RECEIVES_NO_MORE`].
    flags: AtomicU8,
    /// The least TTL or hop limit of what it takes in.
    pub(super) min_ttl: AtomicU8,
    /// What it is charged with in the stack's budget.
    charged: AtomicU16,
}

/// What the owner has.
pub(super) struct Inner {
    pub(super) tcp: Connection,
    /// Where packets go, as long as the generation of the routes holds.
    pub(super) hop: Option<Box<(u64, Hop)>>,
    pub(super) interface: u32,
    pub(super) ttl: u8,
    pub(super) tos: u8,
    /// The socket whose port it holds.
    pub(super) holder: Option<Arc<Tcp>>,
    /// It has left the table.
    gone: bool,
    /// It has no socket any more, and counts as such.
    orphan: bool,
    /// Data came in since the last turn.
    fresh: bool,
    /// `MSG_MORE` holds the cork, not the user.
    pub(super) more: bool,
}

/// `SO_REUSEADDR` when it was made: others may be bound to its port.
const SHARES_PORT: u8 = 1;
/// shutdown(2) has ended receiving.
const RECEIVES_NO_MORE: u8 = 2;

impl Conn {
    pub(super) fn shares_port(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & SHARES_PORT != 0
    }

    /// Whether shutdown(2) has ended receiving.
    pub(super) fn receives_no_more(&self) -> bool {
        self.flags.load(Ordering::Acquire) & RECEIVES_NO_MORE != 0
    }

    pub(super) fn receive_no_more(&self) {
        self.flags.fetch_or(RECEIVES_NO_MORE, Ordering::Release);
    }

    /// A connection that the caller owns, until it lets go of what [`adopt`](Conn::adopt) answers.
    pub(super) fn new(
        inet: &Inet,
        tuple: Tuple,
        tcp: Connection,
        common: Arc<Common>,
    ) -> Arc<Conn> {
        let shares_port = match common.reuseaddr.load(Ordering::Relaxed) {
            true => SHARES_PORT,
            false => 0,
        };
        Arc::new(Conn {
            inet: inet.me.clone(),
            tuple,
            common,
            gate: Mutex::new(Gate {
                owned: true,
                ..Gate::default()
            }),
            inner: Mutex::new(Inner {
                tcp,
                hop: None,
                interface: 0,
                ttl: 0,
                tos: 0,
                holder: None,
                gone: false,
                orphan: false,
                fresh: false,
                more: false,
            }),
            events: AtomicU32::new(0),
            entered: AtomicU64::new(NOT_ENTERED),
            flags: AtomicU8::new(shares_port),
            min_ttl: AtomicU8::new(0),
            charged: AtomicU16::new(0),
        })
    }

    /// Makes who made it its owner.
    pub(super) fn adopt<'a>(self: &'a Arc<Self>, cpu: &'a Cpu<'_>) -> Owned<'a> {
        Owned {
            conn: self,
            cpu,
            inner: Some(self.inner.lock(cpu)),
        }
    }

    /// Waits until it is free, and owns it.
    pub(super) fn own<'a>(self: &'a Arc<Self>, cx: &'a Curlwp<'_>) -> Owned<'a> {
        let cpu: &'a Cpu<'_> = cx.cpu();
        {
            let leaf = leaf(cpu);
            let mut gate = self.gate.lock(&leaf);
            while gate.owned {
                gate.wanted = true;
                let changed = gate.changed();
                gate = changed.wait(cpu, gate);
            }
            gate.owned = true;
        }
        self.adopt(cpu)
    }

    /// Does something now, or leaves it to the owner.
    pub(super) fn work(self: &Arc<Self>, cpu: &Cpu<'_>, work: Work) {
        {
            let leaf = leaf(cpu);
            let mut gate = self.gate.lock(&leaf);
            if gate.owned {
                return gate.leave(work);
            }
            gate.owned = true;
        }
        let mut own = self.adopt(cpu);
        if let Some(inet) = self.inet.upgrade() {
            own.take(&inet, work);
        }
    }

    /// The events that are true.
    pub(super) fn events(&self) -> Events {
        Events(self.events.load(Ordering::Acquire))
    }

    /// Lets go, and sleeps until one of the events may have become true. `EAGAIN`, `EINTR` as the wait says.
    pub(super) fn sleep(
        &self,
        cx: &Curlwp<'_>,
        own: Owned<'_>,
        events: Events,
        wait: &mut Wait,
    ) -> Result<(), Errno> {
        let leaf = leaf(cx.cpu());
        if wait.nonblock() {
            return Err(Errno::EAGAIN);
        }
        let turn = {
            let mut gate = self.gate.lock(&leaf);
            gate.awaited |= events.0 as u16;
            gate.turn
        };
        drop(own);
        // What waits to be delivered on this virtual CPU may be what is waited for.
        cx.cpu().run_pending();
        let mut gate = self.gate.lock(&leaf);
        // The turn that ended with letting go counts itself.
        while gate.turn == turn.wrapping_add(1) {
            gate.awaited |= events.0 as u16;
            let changed = gate.changed();
            gate = wait.on(cx, &changed, gate)?;
            if gate.awaited & events.0 as u16 == 0 {
                break;
            }
        }
        Ok(())
    }

    /// The socket is closed, and the connection goes on without it as long as it takes; `false` when there are too many of that kind.
    pub(super) fn outlives_its_socket(&self, inet: &Inet, inner: &mut Inner) -> bool {
        let over = inner.gone || matches!(inner.tcp.state(), State::Closed | State::TimeWait);
        if over || inner.orphan {
            return true;
        }
        let fits = inet
            .tcp
            .budget
            .allows(inet.config.tcp_memory(), inner.tcp.memory().1)
            && inet.tcp.budget.adopt(inet.config.tcp_max_orphans());
        inner.orphan = fits;
        fits
    }

    fn leave_table(&self, cpu: &Cpu<'_>, inet: &Inet, inner: &mut Inner) {
        inner.gone = true;
        if std::mem::take(&mut inner.orphan) {
            inet.tcp.budget.bury();
        }
        let wait = inner.tcp.time_wait();
        if inet.tcp.table.leave(cpu, self, wait) {
            inet.want_slow_timer(cpu);
        }
        inet.tcp.open.fetch_sub(1, Ordering::Relaxed);
        if let Some(holder) = inner.holder.take() {
            holder.release_port(cpu, inet);
        }
    }

    /// The end of an owner's turn, but for letting go: sends what is to be sent, and finds out what is true now. Answers the
    /// events that have become true.
    fn settle(self: &Arc<Self>, cpu: &Cpu<'_>, inet: &Inet, inner: &mut Inner) -> Events {
        let now = inet.now();
        self.transmit(cpu, inet, inner, now);
        let (received, unsent) = inner.tcp.memory();
        inet.tcp.budget.charge(&self.charged, received + unsent);
        let ready = inner.tcp.readiness();
        if ready.error
            && let Some(error) = inner.tcp.take_error()
        {
            self.common.set_error(&leaf(cpu), errno(error));
        }
        if !inner.gone {
            if matches!(inner.tcp.state(), State::Closed | State::TimeWait) {
                self.leave_table(cpu, inet, inner);
            } else if let Some(at) = inner.tcp.next_deadline() {
                let entered = self.entered.load(Ordering::Relaxed);
                if entered == NOT_ENTERED || at.saturating_add(SLACK) < entered {
                    let who: Weak<Conn> = Arc::downgrade(self);
                    let entered = inet.tcp.wheel.enter(cpu, now, at, who);
                    self.entered.store(entered, Ordering::Relaxed);
                }
            }
        }
        if inner.tcp.is_at_rest() {
            inner.hop = None;
        }
        let mut events = Events::NONE;
        let lowat = self.common.rcvlowat.load(Ordering::Relaxed) as usize;
        let ended = ready.eof || self.receives_no_more();
        if ready.readable >= lowat.max(1) || ended {
            events = events | Events::IN | Events::RDNORM;
        }
        if ended {
            events = events | Events::RDHUP;
        }
        let half = inner.tcp.unacknowledged() / 2;
        let sends_no_more = !inner.tcp.state().can_send();
        let may_grow = || inet.tcp.budget.allows(inet.config.tcp_memory(), unsent);
        if ready.connected && ready.writable > 0 && ready.writable >= half && may_grow()
            || ready.closed
            || ready.connected && sends_no_more
        {
            events = events | Events::OUT | Events::WRNORM;
        }
        if ready.closed || ready.connected && ended && sends_no_more {
            events = events | Events::HUP;
        }
        if ready.urgent {
            events = events | Events::PRI;
        }
        if ready.error || self.common.has_error() {
            events = events | Events::ERR;
        }
        let before = self.events.swap(events.0, Ordering::AcqRel);
        let mut fresh = events.0 & !before;
        if std::mem::take(&mut inner.fresh) {
            fresh |= events.0 & Events::IN.0;
        }
        Events(fresh)
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        if let Some(inet) = self.inet.upgrade() {
            inet.tcp.budget.charge(&self.charged, 0);
        }
    }
}

impl Timed for Conn {
    fn timer(self: Arc<Self>, cpu: &Cpu<'_>) {
        self.entered.store(NOT_ENTERED, Ordering::Relaxed);
        self.work(cpu, Work::Timer);
    }
}

/// A connection that the caller owns. Letting go sends what is to be sent and works off what came meanwhile.
pub(super) struct Owned<'a> {
    conn: &'a Arc<Conn>,
    cpu: &'a Cpu<'a>,
    inner: Option<MutexGuard<'a, Inner>>,
}

impl Owned<'_> {
    /// Changes settings. They are shared with other connections that have the same.
    pub(super) fn configure(&mut self, inet: &Inet, change: impl FnOnce(&mut Settings)) {
        let mut settings = self.tcp.settings().clone();
        change(&mut settings);
        if settings != *self.tcp.settings() {
            let settings = inet.tcp.profiles.share(self.cpu, settings);
            self.tcp.set_settings(inet.now(), settings);
        }
    }

    /// Leaves it owned, for another who adopts it.
    pub(super) fn forget(mut self) {
        self.inner = None;
    }

    /// Does what happened.
    pub(super) fn take(&mut self, inet: &Inet, work: Work) {
        let now = inet.now();
        let cpu = self.cpu;
        let inner = &mut **self;
        match work {
            // Lost, as for want of a buffer on the way: it comes again.
            Work::Segment(segment)
                if segment.payload_len() > 0
                    && !inet
                        .tcp
                        .budget
                        .allows(inet.config.tcp_memory(), inner.tcp.memory().0) => {}
            Work::Segment(segment) => {
                let before = inner.tcp.readiness().readable;
                let unacknowledged = inner.tcp.unacknowledged();
                inner.tcp.on_segment(now, segment);
                inner.fresh |= inner.tcp.readiness().readable > before;
                if inner.tcp.unacknowledged() < unacknowledged
                    && let Some(hop) = inner.hop.as_deref().map(|(_, hop)| hop)
                    && hop.interface.link() == LinkType::Ethernet
                {
                    // Progress says that the neighbour hears us, RFC 4861 7.3.1.
                    inet.confirm_neighbour(cpu, hop);
                }
            }
            Work::Timer => inner.tcp.on_timer(now),
            Work::Abort => inner.tcp.abort(),
            Work::Trouble { seq, errno, mtu } if inner.tcp.is_in_flight(seq) => match errno {
                Errno::EMSGSIZE => {
                    let mtu = inet.learn_path_mtu(cpu, self.conn.tuple.remote.ip(), mtu);
                    self.hop = None;
                    let headers = if self.conn.tuple.local.ip().is_ipv4() {
                        40
                    } else {
                        60
                    };
                    self.tcp.set_mss(now, mtu.saturating_sub(headers));
                }
                errno => inner.tcp.unreachable(errno.0),
            },
            Work::Trouble { .. } => {}
        }
    }
}

impl Deref for Owned<'_> {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        self.inner.as_ref().expect("owned until dropped")
    }
}

impl DerefMut for Owned<'_> {
    fn deref_mut(&mut self) -> &mut Inner {
        self.inner.as_mut().expect("owned until dropped")
    }
}

impl Drop for Owned<'_> {
    fn drop(&mut self) {
        let (conn, cpu) = (self.conn, self.cpu);
        if self.inner.is_none() {
            return;
        }
        let Some(inet) = conn.inet.upgrade() else {
            return;
        };
        let leaf = leaf(cpu);
        let mut fresh = Events::NONE;
        let wake = loop {
            fresh = fresh | conn.settle(cpu, &inet, self);
            let rests = self.tcp.is_at_rest();
            let mut gate = conn.gate.lock(&leaf);
            // Who looked before it goes to sleep has not seen what this turn did.
            gate.turn = gate.turn.wrapping_add(1);
            if let Some(backlog) = gate.backlog.take() {
                drop(gate);
                for work in backlog.work {
                    self.take(&inet, work);
                }
                continue;
            }
            // Nobody else locks it, and who owns it next must find it free.
            self.inner = None;
            gate.owned = false;
            let events = conn.events.load(Ordering::Relaxed);
            let awaited = gate.awaited & events as u16 != 0;
            if awaited {
                gate.awaited = 0;
            }
            if std::mem::take(&mut gate.wanted) || awaited {
                break gate.changed.clone();
            }
            if rests {
                // Those who sleep have it, too.
                gate.changed
                    .take_if(|changed| Arc::strong_count(changed) == 1);
            }
            break None;
        };
        if let Some(changed) = wake {
            changed.broadcast(&leaf);
        }
        if !fresh.is_empty() {
            conn.common.poll.notify(&leaf, fresh);
        }
    }
}

//! Listening: handshakes, and connections that wait to be accepted.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use abi::Errno;
use hypercall::Nanos;
use kern::Curlwp;
use kern::poll::Events;
use net::{Common, Wait};
use sync::{Condvar, Cpu, Mutex};
use tcp::{Connection, Flags, Segment, Settings, SynCache, SynLimits, SynReply, Tuple};

use super::conn::{Conn, Work};
use super::output::mss;
use super::table::Found;
use super::wheel::Timed;
use crate::ipv4::Header;
use crate::{Inet, leaf};

const NOT_ENTERED: u64 = u64::MAX;

/// A listening socket's side of its connections.
///
/// `state` is a leaf but for the table of connections, which is locked under it: a handshake leaves the cache and enters the
/// table in one step, so that no segment of it falls between. The shared settings are another leaf under it. `readable` goes with it.
pub(crate) struct Listener {
    me: Weak<Listener>,
    inet: Weak<Inet>,
    common: Arc<Common>,
    state: Mutex<State>,
    readable: Condvar,
    entered: AtomicU64,
    /// The least TTL or hop limit of what it takes in.
    min_ttl: AtomicU8,
}

struct State {
    cache: SynCache,
    /// What connections begin with; the segment size is that of the last one.
    settings: Arc<Settings>,
    ttl: u8,
    tos: u8,
    ready: VecDeque<Arc<Conn>>,
    backlog: usize,
    closed: bool,
}

/// What a segment brought about.
enum Outcome {
    Nothing,
    Reply(Segment),
    Known(Arc<Conn>),
    New(Arc<Conn>),
}

impl Listener {
    pub(super) fn new(
        inet: &Inet,
        common: &Arc<Common>,
        settings: Arc<Settings>,
        backlog: usize,
        early: Early,
        (ttl, tos): (u8, u8),
        min_ttl: u8,
    ) -> Arc<Listener> {
        Arc::new_cyclic(|me| Listener {
            me: me.clone(),
            inet: inet.me.clone(),
            common: common.clone(),
            state: Mutex::new(State {
                cache: SynCache::new(inet.tcp.key, limits(backlog, early)),
                settings,
                ttl,
                tos,
                ready: VecDeque::new(),
                backlog,
                closed: false,
            }),
            readable: Condvar::new("accept"),
            entered: AtomicU64::new(NOT_ENTERED),
            min_ttl: AtomicU8::new(min_ttl),
        })
    }

    /// Changes what it takes on; the backlog stays if none is given.
    pub(super) fn set_limits(&self, cpu: &Cpu<'_>, backlog: Option<usize>, early: Early) {
        let leaf = leaf(cpu);
        let mut state = self.state.lock(&leaf);
        state.backlog = backlog.unwrap_or(state.backlog);
        let limits = limits(state.backlog, early);
        state.cache.set_limits(limits);
    }

    pub(super) fn set_min_ttl(&self, min_ttl: u8) {
        self.min_ttl.store(min_ttl, Ordering::Relaxed);
    }

    /// Changes what connections begin with.
    pub(super) fn configure(&self, cpu: &Cpu<'_>, change: impl FnOnce(&mut Settings)) {
        change(Arc::make_mut(&mut self.state.lock(&leaf(cpu)).settings));
    }

    pub(super) fn settings(&self, cpu: &Cpu<'_>) -> Arc<Settings> {
        self.state.lock(&leaf(cpu)).settings.clone()
    }

    /// A segment for it, from a peer without a connection.
    pub(super) fn input(
        &self,
        cpu: &Cpu<'_>,
        inet: &Inet,
        header: &Header,
        tuple: Tuple,
        segment: Segment,
    ) {
        if header.ttl < self.min_ttl.load(Ordering::Relaxed) {
            return;
        }
        let Ok(hop) = inet.route(&header.src, inet.link_of(&header.src, header.interface)) else {
            return;
        };
        let now = inet.now();
        // Of the socket's options, before a leaf is held.
        let common = match segment.flags.has(Flags::ACK) || segment.options.fast_open.is_some() {
            true => Some(Arc::new(self.common.inherit(&leaf(cpu)))),
            false => None,
        };
        let outcome = self.handshake(cpu, inet, now, tuple, &segment, mss(&hop), common);
        match outcome {
            Outcome::Nothing => {}
            Outcome::Reply(reply) => {
                let (ttl, tos) = {
                    let leaf = leaf(cpu);
                    let state = self.state.lock(&leaf);
                    (state.ttl, state.tos)
                };
                let _ = inet.tcp_send(cpu, &hop, &tuple, ttl, tos, reply);
                self.enter_timer(cpu, inet, now);
            }
            Outcome::Known(conn) => conn.work(cpu, Work::Segment(segment)),
            Outcome::New(conn) => {
                let mut own = conn.adopt(cpu);
                own.interface = inet.link_of(&header.src, header.interface);
                own.hop = Some(Box::new((inet.fib.generation(), hop)));
                own.take(inet, Work::Segment(segment));
                drop(own);
                self.add(cpu, inet, conn);
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "what is known of one segment")]
    fn handshake(
        &self,
        cpu: &Cpu<'_>,
        inet: &Inet,
        now: Nanos,
        tuple: Tuple,
        segment: &Segment,
        mss: u16,
        common: Option<Arc<Common>>,
    ) -> Outcome {
        let leaf = leaf(cpu);
        let mut state = self.state.lock(&leaf);
        if let Some(Found::Conn(conn)) = inet.tcp.table.find(cpu, &tuple) {
            return Outcome::Known(conn);
        }
        let full = state.ready.len() > state.backlog;
        if state.closed {
            return segment.reset().map_or(Outcome::Nothing, Outcome::Reply);
        }
        if full && !segment.flags.has(Flags::RST) {
            // The handshake goes on when the peer asks again.
            return Outcome::Nothing;
        }
        if state.settings.mss != mss {
            let settings = Settings {
                mss,
                ..Settings::clone(&state.settings)
            };
            state.settings = inet.tcp.profiles.share(cpu, settings);
        }
        let settings = state.settings.clone();
        match state.cache.on_segment(now, &tuple, segment, &settings) {
            SynReply::Drop => Outcome::Nothing,
            SynReply::Reply(reply) => Outcome::Reply(reply),
            SynReply::Accept(accepted) => {
                let Some(common) = common else {
                    return Outcome::Nothing;
                };
                let tcp = Connection::accept(now, &accepted, settings);
                let conn = Conn::new(inet, tuple, tcp, common);
                {
                    let mut own = conn.adopt(cpu);
                    (own.ttl, own.tos) = (state.ttl, state.tos);
                    let min_ttl = self.min_ttl.load(Ordering::Relaxed);
                    conn.min_ttl.store(min_ttl, Ordering::Relaxed);
                    own.forget();
                }
                if !inet.tcp.table.enter(cpu, &conn, true) {
                    return Outcome::Nothing;
                }
                inet.tcp.open.fetch_add(1, Ordering::Relaxed);
                Outcome::New(conn)
            }
        }
    }

    /// A connection is ready to be accepted.
    fn add(&self, cpu: &Cpu<'_>, inet: &Inet, conn: Arc<Conn>) {
        let leaf = leaf(cpu);
        {
            let mut state = self.state.lock(&leaf);
            if state.closed {
                drop(state);
                conn.work(cpu, Work::Abort);
                return;
            }
            state.ready.push_back(conn);
        }
        let _ = inet;
        self.readable.signal(&leaf);
        self.common.poll.notify(&leaf, Events::IN | Events::RDNORM);
    }

    pub(super) fn accept(&self, cx: &Curlwp<'_>, mut wait: Wait) -> Result<Arc<Conn>, Errno> {
        let leaf = leaf(cx.cpu());
        let mut state = self.state.lock(&leaf);
        loop {
            if let Some(conn) = state.ready.pop_front() {
                return Ok(conn);
            }
            if state.closed {
                return Err(Errno::EINVAL);
            }
            state = wait.on(cx, &self.readable, state)?;
        }
    }

    pub(super) fn has_ready(&self, cpu: &Cpu<'_>) -> bool {
        !self.state.lock(&leaf(cpu)).ready.is_empty()
    }

    /// Connections that wait, and the most that may.
    pub(super) fn queue(&self, cpu: &Cpu<'_>) -> (usize, usize) {
        let leaf = leaf(cpu);
        let state = self.state.lock(&leaf);
        (state.ready.len(), state.backlog)
    }

    /// Listens no more; connections that nobody has accepted are reset.
    pub(super) fn close(&self, cpu: &Cpu<'_>) {
        let leaf = leaf(cpu);
        let waiting = {
            let mut state = self.state.lock(&leaf);
            state.closed = true;
            std::mem::take(&mut state.ready)
        };
        self.readable.broadcast(&leaf);
        for conn in waiting {
            conn.work(cpu, Work::Abort);
        }
    }

    fn enter_timer(&self, cpu: &Cpu<'_>, inet: &Inet, now: Nanos) {
        if self.entered.load(Ordering::Relaxed) != NOT_ENTERED {
            return;
        }
        let deadline = self.state.lock(&leaf(cpu)).cache.next_deadline();
        if let Some(at) = deadline {
            let who: Weak<Listener> = self.me.clone();
            let at = inet.tcp.wheel.enter(cpu, now, at, who);
            self.entered.store(at, Ordering::Relaxed);
        }
    }
}

/// What is done with data that come before a handshake is done.
#[derive(Clone, Copy)]
pub(super) struct Early {
    /// They are taken with the SYN, `TCP_FASTOPEN`.
    pub(super) fast_open: bool,
    /// They are waited for, for so many times that a SYN-ACK would be sent again, `TCP_DEFER_ACCEPT`.
    pub(super) defer_accept: u8,
}

fn limits(backlog: usize, early: Early) -> SynLimits {
    SynLimits {
        entries: backlog.clamp(16, 4096) * 2,
        fast_open: early.fast_open,
        defer_accept: early.defer_accept,
        ..SynLimits::default()
    }
}

impl Timed for Listener {
    fn timer(self: Arc<Self>, cpu: &Cpu<'_>) {
        self.entered.store(NOT_ENTERED, Ordering::Relaxed);
        let Some(inet) = self.inet.upgrade() else {
            return;
        };
        let now = inet.now();
        loop {
            let due = {
                let leaf = leaf(cpu);
                let mut state = self.state.lock(&leaf);
                if state.closed {
                    return;
                }
                state.cache.poll_transmit(now)
            };
            let Some((tuple, segment)) = due else {
                break;
            };
            inet.tcp_reply(cpu, &tuple, 0, segment);
        }
        self.enter_timer(cpu, &inet, now);
    }
}

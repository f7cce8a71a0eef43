//! The SYN cache of a listening socket: handshakes that are not done, as little of each as can be (RFC 4987). Beyond its bound
//! handshakes are remembered in cookies, so a flood of SYNs takes no memory and nobody else's place.

use std::collections::{BTreeMap, BTreeSet};

use super::isn::Isn;
use super::{Key, Tuple, cookie};
use crate::conn::Settings;
use crate::rtt::{MS, RTO_INITIAL, SEC};
use crate::seq::before;
use crate::wire::{Cookie, Flags, Options, Segment, Timestamps};

/// How long after the last cookie was given one is accepted.
const COOKIE_LIFE: u64 = 128 * SEC;

/// What a listener takes on.
#[derive(Clone, Copy, Debug)]
pub struct SynLimits {
    /// Handshakes in the cache; what is beyond gets a cookie.
    pub entries: usize,
    /// How often a SYN-ACK is sent again (tcp_synack_retries).
    pub retries: u8,
    /// Whether a SYN beyond the bound gets a cookie (else it is dropped).
    pub cookies: bool,
    /// Whether data in a SYN are taken from whom has a cookie (RFC 7413, TCP_FASTOPEN).
    pub fast_open: bool,
    /// TCP_DEFER_ACCEPT: for so many times that a SYN-ACK would be sent again, a handshake is not done before data come.
    pub defer_accept: u8,
}

impl Default for SynLimits {
    fn default() -> SynLimits {
        SynLimits {
            entries: 1024,
            retries: 5,
            cookies: true,
            fast_open: false,
            defer_accept: 0,
        }
    }
}

/// A handshake that is done: what [`crate::Connection::accept`] makes a connection of.
#[derive(Clone, Debug)]
pub struct Accepted {
    pub(crate) local_port: u16,
    pub(crate) remote_port: u16,
    pub(crate) iss: u32,
    pub(crate) irs: u32,
    pub(crate) ts_offset: u32,
    pub(crate) options: Options,
    pub(crate) ecn: bool,
    /// The window of the peer's SYN, and of our SYN-ACK; our scale.
    pub(crate) window: u16,
    pub(crate) our_window: u16,
    pub(crate) scale: u8,
    pub(crate) sent_at: u64,
    pub(crate) retransmitted: bool,
    /// By a cookie in the SYN: the handshake goes on in the connection.
    pub(crate) fast_open: bool,
    pub(crate) cookie: Option<Cookie>,
}

/// What to do with a segment that came for a listening socket.
#[derive(Clone, Debug)]
pub enum SynReply {
    /// Nothing.
    Drop,
    /// Send this.
    Reply(Segment),
    /// Make a connection, and give it the segment.
    Accept(Box<Accepted>),
}

/// The handshakes of a listening socket.
#[derive(Debug)]
pub struct SynCache {
    key: Key,
    isn: Isn,
    limits: SynLimits,
    entries: BTreeMap<Tuple, Entry>,
    deadlines: BTreeSet<(u64, Tuple)>,
    cookie_at: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    iss: u32,
    irs: u32,
    ts_offset: u32,
    mss: u16,
    window: u16,
    our_window: u16,
    ts_recent: Option<u32>,
    scale: Option<u8>,
    our_mss: u16,
    our_scale: u8,
    flags: u8,
    retries: u8,
    sent_at: u64,
    /// The round trip in ns, once the peer has acknowledged.
    rtt: u64,
    deadline: u64,
}

const SACK: u8 = 1;
const ECN: u8 = 2;
/// The peer's acknowledgement has come, and its data have not.
const ACKED: u8 = 4;

impl SynCache {
    /// An empty cache; the key is random.
    pub fn new(key: Key, limits: SynLimits) -> SynCache {
        SynCache {
            key,
            isn: Isn::new(key),
            limits,
            entries: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            cookie_at: None,
        }
    }

    /// Changes the limits, as listen(2) does with another backlog.
    pub fn set_limits(&mut self, limits: SynLimits) {
        self.limits = limits;
    }

    /// Handshakes in it.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// A segment for the listening socket, from a peer without a connection. `settings` are what a connection of this socket would
    /// have, with the interface's `mss`. `now` in ns. An owner whose accept queue is full drops the segment instead of giving it here: the
    /// handshake then goes on when the peer asks again.
    pub fn on_segment(
        &mut self,
        now: u64,
        tuple: &Tuple,
        segment: &Segment,
        settings: &Settings,
    ) -> SynReply {
        let flags = segment.flags;
        if flags.has(Flags::RST) {
            if self
                .entries
                .get(tuple)
                .is_some_and(|e| segment.seq == e.irs.wrapping_add(1))
            {
                self.remove(tuple);
            }
            return SynReply::Drop;
        }
        match (flags.has(Flags::SYN), flags.has(Flags::ACK)) {
            (true, false) => self.on_syn(now, tuple, segment, settings),
            (false, true) => self.on_ack(now, tuple, segment, settings),
            (true, true) => segment.reset().map_or(SynReply::Drop, SynReply::Reply),
            (false, false) => SynReply::Drop,
        }
    }

    fn on_syn(
        &mut self,
        now: u64,
        tuple: &Tuple,
        segment: &Segment,
        settings: &Settings,
    ) -> SynReply {
        // A SYN with a FIN is nobody's wish.
        if segment.flags.has(Flags::FIN) {
            return SynReply::Drop;
        }
        if let Some(entry) = self.entries.get(tuple) {
            return SynReply::Reply(entry.syn_ack(now, tuple, None));
        }
        let entry = self.entry(now, tuple, segment, settings);
        let cookie = self.fast_open_cookie(tuple, segment);
        if let (Some(good), Some(theirs)) = (&cookie, &segment.options.fast_open)
            && good == theirs
        {
            return SynReply::Accept(Box::new(Accepted {
                fast_open: true,
                ..entry.accepted(tuple)
            }));
        }
        if self.entries.len() < self.limits.entries {
            self.entries.insert(*tuple, entry);
            self.deadlines.insert((entry.deadline, *tuple));
            return SynReply::Reply(entry.syn_ack(now, tuple, cookie));
        }
        match self.limits.cookies {
            true => SynReply::Reply(self.cookie_syn_ack(now, tuple, segment, entry)),
            false => SynReply::Drop,
        }
    }

    /// The cookie that the peer should have, if it spoke of cookies.
    fn fast_open_cookie(&self, tuple: &Tuple, segment: &Segment) -> Option<Cookie> {
        segment
            .options
            .fast_open
            .filter(|_| self.limits.fast_open)?;
        Some(cookie::fast_open(self.key, tuple))
    }

    fn entry(&self, now: u64, tuple: &Tuple, segment: &Segment, settings: &Settings) -> Entry {
        let options = &segment.options;
        let offer = settings.offer;
        let asks_ecn = segment.flags.has(Flags::ECE) && segment.flags.has(Flags::CWR);
        let sack = if offer.sack && options.sack_permitted {
            SACK
        } else {
            0
        };
        let ecn = if offer.ecn_accept && asks_ecn { ECN } else { 0 };
        Entry {
            iss: self.isn.generate(now, tuple),
            irs: segment.seq,
            ts_offset: self.isn.ts_offset(tuple),
            mss: options.mss.unwrap_or(536),
            window: segment.window,
            our_window: settings.recv_buffer.size.min(0xffff) as u16,
            ts_recent: options
                .timestamps
                .filter(|_| offer.timestamps)
                .map(|ts| ts.value),
            scale: options.window_scale.filter(|_| offer.window_scaling),
            our_mss: settings.mss(),
            our_scale: settings.window_scale(),
            flags: sack | ecn,
            retries: 0,
            sent_at: now,
            rtt: 0,
            deadline: now + RTO_INITIAL,
        }
    }

    fn cookie_syn_ack(
        &mut self,
        now: u64,
        tuple: &Tuple,
        segment: &Segment,
        mut entry: Entry,
    ) -> Segment {
        self.cookie_at = Some(now);
        entry.iss = cookie::make(self.key, now, tuple, segment.seq, entry.mss);
        // Without timestamps there is nowhere to remember the rest.
        if entry.ts_recent.is_none() {
            entry.flags = 0;
            entry.scale = None;
        }
        let options = entry.peer_options();
        let mut syn_ack = entry.syn_ack(now, tuple, None);
        if let Some(ts) = &mut syn_ack.options.timestamps {
            ts.value = cookie::stamp(ts.value, &options, entry.flags & ECN != 0);
        }
        syn_ack
    }

    fn on_ack(
        &mut self,
        now: u64,
        tuple: &Tuple,
        segment: &Segment,
        settings: &Settings,
    ) -> SynReply {
        let reset = || segment.reset().map_or(SynReply::Drop, SynReply::Reply);
        let Some(entry) = self.entries.get_mut(tuple) else {
            let accepted = self.by_cookie(now, tuple, segment, settings);
            return accepted.map_or_else(reset, |a| SynReply::Accept(Box::new(a)));
        };
        if segment.ack != entry.iss.wrapping_add(1) {
            return reset();
        }
        let ahead = segment.seq.wrapping_sub(entry.irs.wrapping_add(1));
        let stale = match (entry.ts_recent, segment.options.timestamps) {
            (Some(recent), Some(ts)) => before(ts.value, recent),
            (Some(_), None) => true,
            _ => false,
        };
        if stale || ahead > u32::from(entry.our_window) {
            return SynReply::Reply(entry.syn_ack(now, tuple, None));
        }
        if entry.retries < self.limits.defer_accept && segment.seq_len() == 0 {
            if entry.flags & ACKED == 0 {
                entry.flags |= ACKED;
                entry.rtt = now.saturating_sub(entry.sent_at);
            }
            return SynReply::Drop;
        }
        let mut accepted = entry.accepted(tuple);
        if entry.flags & ACKED != 0 {
            // The round trip was the first acknowledgement's, not what the data waited for.
            accepted.sent_at = now.saturating_sub(entry.rtt);
            accepted.retransmitted = false;
        }
        self.remove(tuple);
        SynReply::Accept(Box::new(accepted))
    }

    fn by_cookie(
        &self,
        now: u64,
        tuple: &Tuple,
        segment: &Segment,
        settings: &Settings,
    ) -> Option<Accepted> {
        self.cookie_at
            .filter(|&at| now.saturating_sub(at) < COOKIE_LIFE)?;
        let (irs, iss) = (segment.seq.wrapping_sub(1), segment.ack.wrapping_sub(1));
        let mss = cookie::check(self.key, now, tuple, irs, iss)?;
        let ts_offset = self.isn.ts_offset(tuple);
        let (mut options, mut ecn) = (Options::default(), false);
        if let Some(ts) = segment
            .options
            .timestamps
            .filter(|_| settings.offer.timestamps)
        {
            (options, ecn) = cookie::unstamp(ts.echo);
            options.timestamps = Some(ts);
        }
        options.mss = Some(mss);
        Some(Accepted {
            local_port: tuple.local.port(),
            remote_port: tuple.remote.port(),
            iss,
            irs,
            ts_offset,
            options,
            ecn: ecn && settings.offer.ecn_accept,
            window: segment.window,
            our_window: settings.recv_buffer.size.min(0xffff) as u16,
            scale: settings.window_scale(),
            sent_at: now,
            retransmitted: false,
            fast_open: false,
            cookie: None,
        })
    }

    fn remove(&mut self, tuple: &Tuple) {
        if let Some(entry) = self.entries.remove(tuple) {
            self.deadlines.remove(&(entry.deadline, *tuple));
        }
    }

    /// When [`SynCache::poll_transmit`] has something to do, in ns.
    pub fn next_deadline(&self) -> Option<u64> {
        self.deadlines.first().map(|&(at, _)| at)
    }

    /// A SYN-ACK that is due to be sent again, and to whom; call it until it answers `None`. Handshakes that have had their retries
    /// are forgotten.
    pub fn poll_transmit(&mut self, now: u64) -> Option<(Tuple, Segment)> {
        loop {
            let (at, tuple) = *self.deadlines.first().filter(|&&(at, _)| at <= now)?;
            self.deadlines.remove(&(at, tuple));
            let entry = self.entries.get_mut(&tuple)?;
            if entry.retries >= self.limits.retries {
                self.entries.remove(&tuple);
                continue;
            }
            entry.retries += 1;
            entry.deadline = now + (RTO_INITIAL << entry.retries.min(6));
            self.deadlines.insert((entry.deadline, tuple));
            if entry.flags & ACKED != 0 && entry.retries < self.limits.defer_accept {
                continue;
            }
            return Some((tuple, entry.syn_ack(now, &tuple, None)));
        }
    }
}

impl Entry {
    /// What the peer's SYN offered and we agreed to.
    fn peer_options(&self) -> Options {
        Options {
            mss: Some(self.mss),
            window_scale: self.scale,
            sack_permitted: self.flags & SACK != 0,
            timestamps: self.ts_recent.map(|value| Timestamps { value, echo: 0 }),
            ..Options::default()
        }
    }

    fn syn_ack(&self, now: u64, tuple: &Tuple, cookie: Option<Cookie>) -> Segment {
        let ecn = if self.flags & ECN != 0 {
            Flags::ECE
        } else {
            Flags::default()
        };
        Segment {
            src_port: tuple.local.port(),
            dst_port: tuple.remote.port(),
            seq: self.iss,
            ack: self.irs.wrapping_add(1),
            flags: Flags::SYN | Flags::ACK | ecn,
            window: self.our_window,
            options: Options {
                mss: Some(self.our_mss),
                window_scale: self.scale.map(|_| self.our_scale),
                sack_permitted: self.flags & SACK != 0,
                timestamps: self.ts_recent.map(|echo| Timestamps {
                    value: ((now / MS) as u32).wrapping_add(self.ts_offset),
                    echo,
                }),
                fast_open: cookie,
                ..Options::default()
            },
            ..Segment::default()
        }
    }

    fn accepted(&self, tuple: &Tuple) -> Accepted {
        Accepted {
            local_port: tuple.local.port(),
            remote_port: tuple.remote.port(),
            iss: self.iss,
            irs: self.irs,
            ts_offset: self.ts_offset,
            options: self.peer_options(),
            ecn: self.flags & ECN != 0,
            window: self.window,
            our_window: self.our_window,
            scale: self.our_scale,
            sent_at: self.sent_at,
            retransmitted: self.retries > 0,
            fast_open: false,
            cookie: None,
        }
    }
}

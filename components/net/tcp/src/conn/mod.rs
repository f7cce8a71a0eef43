//! A connection: the transmission control block and what may be done with it.

mod ack;
mod info;
mod input;
mod output;
mod receive;
mod rest;
mod settings;
mod state;
mod timer;
mod urgent;
mod user;

pub use info::Info;
pub use settings::{Buffer, KeepAlive, Offer, Settings};
pub use state::{Error, Readiness, State};

use std::sync::Arc;

use crate::congestion::{Control, Window};
use crate::lazy::{Lazy, blank};
use crate::listen::Accepted;
use crate::loss::{Rack, Recovery, Scoreboard};
use crate::queue::SendQueue;
use crate::rtt::Rtt;
use crate::seq::origin;
use crate::wire::{Cookie, Segment};
use receive::Receive;
pub(crate) use timer::TIME_WAIT;
use timer::{Alive, Timers};
use urgent::Urgent;

/// How a connection is opened.
#[derive(Clone, Copy, Debug)]
pub struct Open {
    /// Our port.
    pub local_port: u16,
    /// The peer's.
    pub remote_port: u16,
    /// Initial sequence number: [`crate::Isn`] makes them as RFC 6528 says.
    pub iss: u32,
    /// Offset of our timestamps' clock, so that it does not tell how long we have been up.
    pub ts_offset: u32,
    /// Fast open (RFC 7413): a cookie that the peer gave us lets data go with the SYN; an empty one asks for a cookie.
    pub fast_open: Option<Cookie>,
}

/// A connection.
///
/// After each call that may have changed something (a segment, a timer, send, recv, shutdown), its owner calls
/// [`Connection::poll_transmit`] until it answers `None` and then asks for [`Connection::next_deadline`]. Times are in ns of one clock; one
/// that is before another given earlier counts as that.
#[derive(Debug)]
pub struct Connection {
    state: State,
    local_port: u16,
    remote_port: u16,
    settings: Arc<Settings>,
    agreed: Agreed,
    tx: Transmit,
    rx: Receive,
    rtt: Rtt,
    window: Window,
    congestion: Control,
    flight: Lazy<Flight>,
    alive: Alive,
    error: Option<Error>,
    /// The user has closed it: what still comes has nobody to read it.
    orphan: bool,
    connected: bool,
    /// A reset is to be sent.
    reset_due: bool,
    challenge: Challenge,
    stats: Stats,
    rare: Lazy<Rare>,
    /// The latest time that was given, in ns.
    clock: u64,
}

/// What the handshake has agreed on.
#[derive(Clone, Copy, Debug, Default)]
struct Agreed {
    sack: bool,
    timestamps: bool,
    ecn: bool,
    window_scaling: bool,
}

/// What is known of what is on the way: an idle connection has none.
#[derive(Debug)]
struct Flight {
    board: Scoreboard,
    rack: Rack,
    recovery: Recovery,
    timers: Timers,
    /// Where the last segment that was not full ended (Minshall's variant of Nagle's rule).
    small_end: u64,
    /// The position behind the urgent byte; zero if there is none.
    urgent: u64,
    /// The last thing that ICMP said, told if the connection then times out.
    soft_error: Option<Error>,
    /// A reset for a segment that is none of this connection's.
    stray_reset: Option<Box<Segment>>,
}

blank!(
    Flight = Flight {
        board: Scoreboard::new(),
        rack: Rack::new(),
        recovery: Recovery::new(),
        timers: Timers::new(),
        small_end: 0,
        urgent: 0,
        soft_error: None,
        stray_reset: None,
    }
);

/// What is sent.
#[derive(Debug)]
struct Transmit {
    /// The initial sequence number.
    iss: u32,
    /// The oldest position that is not acknowledged.
    una: u64,
    /// The position that is sent next.
    nxt: u64,
    queue: SendQueue,
    /// The user will send no more: a FIN follows the queue.
    fin: bool,
    /// The peer's window in bytes, and the segment that it comes from.
    wnd: u32,
    wl1: u32,
    wl2: u32,
    max_wnd: u32,
    /// The peer's window scale.
    scale: u8,
    /// The largest segment without regard to options: the peer's and our limits.
    mss: u32,
    /// The window was what kept data from leaving.
    limited: bool,
    ts_offset: u32,
    /// Something is to be sent once, whatever the queues say.
    probe: Option<Probe>,
    /// When data last left, in ns.
    last_at: u64,
    /// ECN: the peer is to be told of a mark; it is to be told that we have slowed down.
    echo_ce: bool,
    cwr: bool,
    /// What send_buffer has grown to.
    buffer: u32,
}

impl Transmit {
    /// The position of the SYN.
    fn iss(&self) -> u64 {
        origin(self.iss)
    }
}

/// Probes, by what they ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Probe {
    /// Is the window still shut?
    Window,
    /// Is anybody there?
    KeepAlive,
    /// Was the tail lost? (RFC 8985 section 7)
    Tail,
}

/// The rate of challenge acknowledgements (RFC 5961 section 7), each connection its own so that it tells nothing of others.
#[derive(Clone, Copy, Debug, Default)]
struct Challenge {
    /// The second, as a number.
    second: u32,
    count: u8,
}

/// Counters for TCP_INFO.
#[derive(Clone, Copy, Debug, Default)]
struct Stats {
    segs_out: u32,
    segs_in: u32,
    data_segs_out: u32,
    data_segs_in: u32,
    last_data_recv: u64,
}

/// What most connections never meet: more counters, and more.
#[derive(Debug)]
struct Rare {
    bytes_retrans: u64,
    retransmits: u32,
    timeouts: u32,
    recoveries: u32,
    undone: u32,
    dsack_dups: u32,
    delivered_ce: u32,
    urgent: Urgent,
    /// Fast open: the cookie to send, then the one that the peer gave us.
    fast_open: Option<Cookie>,
}

blank!(
    Rare = Rare {
        bytes_retrans: 0,
        retransmits: 0,
        timeouts: 0,
        recoveries: 0,
        undone: 0,
        dsack_dups: 0,
        delivered_ce: 0,
        urgent: Urgent::NONE,
        fast_open: None,
    }
);

impl Connection {
    /// Opens a connection: the SYN is what [`Connection::poll_transmit`] gives first. `now` in ns. Settings may be shared by many
    /// connections, as long as none of them changes its own.
    pub fn connect(now: u64, open: Open, settings: impl Into<Arc<Settings>>) -> Connection {
        let mut connection = Connection::new(now, &open, settings.into(), State::SynSent);
        connection.set_cookie(open.fast_open);
        connection
    }

    /// The connection of a handshake that a [`crate::SynCache`] has seen through (or of a SYN with a good fast-open cookie). The
    /// segment that ended the handshake is given to [`Connection::on_segment`] next.
    pub fn accept(now: u64, accepted: &Accepted, settings: impl Into<Arc<Settings>>) -> Connection {
        let open = Open {
            local_port: accepted.local_port,
            remote_port: accepted.remote_port,
            iss: accepted.iss,
            ts_offset: accepted.ts_offset,
            fast_open: accepted.cookie,
        };
        let mut connection = Connection::new(now, &open, settings.into(), State::SynReceived);
        connection.take_handshake(accepted.irs, &accepted.options, accepted.ecn);
        connection.rx.ts_recent_at = now;
        connection.set_cookie(accepted.cookie);
        connection.tx.wnd = u32::from(accepted.window);
        connection.tx.max_wnd = connection.tx.wnd;
        if !accepted.fast_open {
            // The cache has sent the SYN; what it said of our window holds.
            connection.rx.scale = if connection.agreed.window_scaling {
                accepted.scale
            } else {
                0
            };
            connection.rx.adv = connection.rx.nxt + u64::from(accepted.our_window);
            let tx = &mut connection.tx;
            tx.nxt = tx.iss() + 1;
            connection
                .flight
                .board
                .sent(tx.iss(), tx.nxt, accepted.sent_at.min(now), 1);
            if accepted.retransmitted {
                connection
                    .flight
                    .board
                    .resent(connection.tx.iss(), connection.tx.nxt, now, 1);
            }
        }
        connection
    }

    fn new(now: u64, open: &Open, settings: Arc<Settings>, state: State) -> Connection {
        let iss = origin(open.iss);
        let mss = u32::from(settings.mss());
        Connection {
            state,
            local_port: open.local_port,
            remote_port: open.remote_port,
            agreed: Agreed::default(),
            tx: Transmit {
                iss: open.iss,
                una: iss,
                nxt: iss,
                queue: SendQueue::new(iss + 1),
                fin: false,
                wnd: 0,
                wl1: 0,
                wl2: 0,
                max_wnd: 0,
                scale: 0,
                mss,
                limited: false,
                ts_offset: open.ts_offset,
                probe: None,
                last_at: now,
                echo_ce: false,
                cwr: false,
                buffer: settings.send_buffer.size,
            },
            rx: Receive::new(&settings),
            rtt: Rtt::default(),
            window: Window {
                cwnd: initial_window(mss),
                ssthresh: u64::MAX,
                mss: u64::from(mss),
            },
            congestion: Control::default(),
            flight: Lazy::new(),
            alive: Alive::new(now),
            error: None,
            orphan: false,
            connected: false,
            reset_due: false,
            challenge: Challenge::default(),
            stats: Stats::default(),
            rare: Lazy::new(),
            clock: now,
            settings,
        }
    }

    fn set_cookie(&mut self, cookie: Option<Cookie>) {
        if cookie != self.rare.fast_open {
            self.rare.fast_open = cookie;
        }
    }

    /// The time to reckon with: callers on several CPUs may have read the clock in another order than they come here.
    fn at(&mut self, now: u64) -> u64 {
        self.clock = self.clock.max(now);
        self.clock
    }

    /// The position behind everything that the user wants sent, the FIN included.
    fn tx_end(&self) -> u64 {
        self.tx.queue.end() + u64::from(self.tx.fin)
    }

    /// Whether our FIN has been acknowledged.
    fn fin_acked(&self) -> bool {
        self.tx.fin && self.tx.una == self.tx_end()
    }

    /// Payload of a full segment that leaves now.
    fn current_mss(&self) -> u32 {
        let options = if self.agreed.timestamps { 12 } else { 0 };
        (self
            .tx
            .mss
            .saturating_sub(options + self.rx.sack_len(self.agreed)))
        .max(MIN_SEGMENT)
    }

    /// Ends the connection. What is unread stays to be read.
    fn end(&mut self, error: Option<Error>) {
        self.state = State::Closed;
        if self.error.is_none() {
            self.error = error;
        }
        self.flight.clear();
        self.alive.stop_keepalive();
        self.tx.queue = SendQueue::new(self.tx.una);
        self.tx.probe = None;
        self.rx.stop();
    }
}

/// The least payload of a full segment, whatever a peer or a router asks for: it bounds what a byte may cost.
const MIN_SEGMENT: u32 = 48;

/// The initial window (RFC 6928), in bytes.
fn initial_window(mss: u32) -> u64 {
    u64::from((10 * mss).min((2 * mss).max(14600)))
}

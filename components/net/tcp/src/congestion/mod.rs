//! Congestion control: how much may be on the way. Loss detection and recovery are the engine's; an algorithm says how the window
//! grows and how far it falls.

mod cubic;
mod hystart;
mod reno;

pub use cubic::Cubic;
pub use reno::Reno;

use std::fmt::Debug;

/// The congestion window, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// How much may be on the way.
    pub cwnd: u64,
    /// Where slow start ends.
    pub ssthresh: u64,
    /// A full segment.
    pub mss: u64,
}

impl Window {
    /// Whether it grows exponentially.
    pub fn in_slow_start(&self) -> bool {
        self.cwnd < self.ssthresh
    }

    /// Slow start (RFC 5681 section 3.1, with appropriate byte counting of whole acknowledgements: bursts are bounded by the
    /// segment size, not here); answers the bytes that are left when it ends.
    pub(crate) fn slow_start(&mut self, acked: u64) -> u64 {
        let grow = acked.min(self.ssthresh.saturating_sub(self.cwnd));
        self.cwnd += grow;
        acked - grow
    }
}

/// What an acknowledgement outside recovery tells an algorithm.
#[derive(Clone, Copy, Debug)]
pub struct Ack {
    /// Now, in ns.
    pub now: u64,
    /// Bytes newly delivered.
    pub acked: u64,
    /// The acknowledged position: grows by one a byte and never wraps.
    pub una: u64,
    /// The position that will be sent next.
    pub nxt: u64,
    /// A round-trip time in ns, if it gave one.
    pub rtt: Option<u64>,
    /// Smoothed round-trip time in ns, or zero.
    pub srtt: u64,
    /// Whether the window was what limited the sender; if not, it does not grow.
    pub limited: bool,
}

/// An algorithm.
pub trait CongestionControl: Debug + Send + Sync {
    /// Its name, as in TCP_CONGESTION.
    fn name(&self) -> &'static str;

    /// Data were acknowledged and nothing is lost: the window may grow.
    fn on_ack(&mut self, window: &mut Window, ack: &Ack);

    /// A loss or an ECN mark: the slow-start threshold that follows. `now` in ns.
    fn on_congestion(&mut self, window: &Window, now: u64) -> u64;

    /// A retransmission timeout; as a congestion event where not said otherwise.
    fn on_timeout(&mut self, window: &Window, now: u64) -> u64 {
        self.on_congestion(window, now)
    }

    /// The last congestion event was none: the window is as before it.
    fn on_undo(&mut self) {}

    /// Sending starts again at `now` after `idle` ns of silence.
    fn on_idle(&mut self, now: u64, idle: u64) {
        let _ = (now, idle);
    }

    /// Whether one made anew would do as well after a long silence.
    fn may_be_forgotten(&self) -> bool {
        true
    }
}

/// An algorithm at work. It is made when it is first asked: until then, and when it has nothing to remember, it takes no memory.
#[derive(Debug, Default)]
pub(crate) struct Control(Option<Box<dyn CongestionControl>>);

impl Control {
    /// The algorithm of that name, or the default.
    pub(crate) fn get(&mut self, name: &str) -> &mut dyn CongestionControl {
        &mut **self
            .0
            .get_or_insert_with(|| by_name(name).unwrap_or_else(|| Box::new(Cubic::default())))
    }

    /// Forgets everything.
    pub(crate) fn forget(&mut self) {
        self.0 = None;
    }

    /// After a long silence: forgets what says nothing any more.
    pub(crate) fn rest(&mut self) {
        self.0.take_if(|algorithm| algorithm.may_be_forgotten());
    }

    /// Whether there is something that [`Control::rest`] would forget.
    pub(crate) fn may_rest(&self) -> bool {
        self.0.as_ref().is_some_and(|a| a.may_be_forgotten())
    }
}

/// The names of the algorithms, the default first.
pub const ALGORITHMS: &[&str] = &["cubic", "reno"];

/// The name itself if there is such an algorithm, or else the default's.
pub(crate) fn known(name: &str) -> &'static str {
    let found = ALGORITHMS.iter().find(|known| **known == name);
    found.unwrap_or(&ALGORITHMS[0])
}

/// The algorithm of that name.
pub fn by_name(name: &str) -> Option<Box<dyn CongestionControl>> {
    match name {
        "cubic" => Some(Box::new(Cubic::default())),
        "reno" => Some(Box::new(Reno)),
        _ => None,
    }
}

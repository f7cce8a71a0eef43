//! What every socket has, whatever its protocol: the options of socket(7), the pending error, readiness.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use abi::Errno;
use arc_swap::ArcSwapOption;
use hypercall::{Clock, Nanos};
use kern::Curlwp;
use kern::poll::{Events, PollHead};
use sync::{Condvar, Mutex, MutexGuard, Parker, Wake};

use crate::Control;
use crate::consts::{SO_TIMESTAMP, SO_TIMESTAMPNS, SOL_SOCKET};
use crate::filter::{Filter, View};

/// What SO_SNDBUF and SO_RCVBUF start with, in bytes; Linux's default.
pub const DEFAULT_BUF: u32 = 212_992;
/// The most that a buffer may be set to, in bytes.
pub const MAX_BUF: u32 = 16 << 20;
const MIN_BUF: u32 = 4608;

/// Options that few sockets set.
#[derive(Default)]
pub struct Rare {
    /// `SO_RCVTIMEO` in nanoseconds, 0 for none.
    pub rcvtimeo: AtomicU64,
    /// `SO_SNDTIMEO` in nanoseconds, 0 for none.
    pub sndtimeo: AtomicU64,
    /// `SO_PRIORITY`.
    pub priority: AtomicI32,
    /// `SO_MARK`.
    pub mark: AtomicU32,
    /// `SO_BINDTODEVICE`: the interface's name, empty for any.
    pub device: Mutex<String>,
    /// Time stamps are in nanoseconds: `SO_TIMESTAMPNS`.
    pub timestamp_nanos: AtomicBool,
    /// `SO_RXQ_OVFL`.
    pub tells_dropped: AtomicBool,
    /// `SO_ATTACH_FILTER`.
    filter: ArcSwapOption<Filter>,
}

/// The options and the state that every socket has. Shared between the socket and its protocol.
///
/// Everything is atomic but the interface's name, a leaf lock; there is no order among options. What few sockets set is in a box:
/// there may be a hundred thousand sockets.
pub struct Common {
    /// `SO_SNDBUF`, in bytes.
    pub sndbuf: AtomicU32,
    /// `SO_RCVBUF`, in bytes.
    pub rcvbuf: AtomicU32,
    /// Whether `SO_RCVBUF` was set, which ends its tuning by the protocol.
    pub rcvbuf_fixed: AtomicBool,
    /// Whether `SO_SNDBUF` was set.
    pub sndbuf_fixed: AtomicBool,
    /// `SO_RCVLOWAT`, in bytes.
    pub rcvlowat: AtomicU32,
    /// `SO_LINGER` in seconds; -1 is off.
    pub linger: AtomicI32,
    /// `SO_REUSEADDR`.
    pub reuseaddr: AtomicBool,
    /// `SO_REUSEPORT`.
    pub reuseport: AtomicBool,
    /// `SO_KEEPALIVE`.
    pub keepalive: AtomicBool,
    /// `SO_BROADCAST`.
    pub broadcast: AtomicBool,
    /// `SO_DONTROUTE`.
    pub dontroute: AtomicBool,
    /// `SO_OOBINLINE`.
    pub oobinline: AtomicBool,
    /// `SO_PASSCRED`.
    pub passcred: AtomicBool,
    /// `SO_TIMESTAMP` or `SO_TIMESTAMPNS`.
    pub timestamp: AtomicBool,
    rare: OnceLock<Box<Rare>>,
    /// `SO_ERROR`: an error that nobody has been told of yet; 0 for none.
    error: AtomicI32,
    /// Who waits for readiness.
    pub poll: PollHead,
}

impl Default for Common {
    fn default() -> Self {
        Common {
            sndbuf: AtomicU32::new(DEFAULT_BUF),
            rcvbuf: AtomicU32::new(DEFAULT_BUF),
            rcvbuf_fixed: AtomicBool::new(false),
            sndbuf_fixed: AtomicBool::new(false),
            rcvlowat: AtomicU32::new(1),
            linger: AtomicI32::new(-1),
            reuseaddr: AtomicBool::new(false),
            reuseport: AtomicBool::new(false),
            keepalive: AtomicBool::new(false),
            broadcast: AtomicBool::new(false),
            dontroute: AtomicBool::new(false),
            oobinline: AtomicBool::new(false),
            passcred: AtomicBool::new(false),
            timestamp: AtomicBool::new(false),
            rare: OnceLock::new(),
            error: AtomicI32::new(0),
            poll: PollHead::new(),
        }
    }
}

impl Common {
    /// The options of a socket that was accepted: the listening one's.
    pub fn inherit(&self, parker: &dyn Parker) -> Common {
        let new = Common::default();
        macro_rules! copy {
            ($new:ident, $old:ident: $($field:ident)*) => { $($new.$field.store($old.$field.load(Ordering::Relaxed), Ordering::Relaxed);)* };
        }
        copy!(new, self: sndbuf rcvbuf rcvbuf_fixed sndbuf_fixed rcvlowat linger reuseaddr reuseport);
        copy!(new, self: keepalive broadcast dontroute oobinline passcred timestamp);
        if let Some(old) = self.rare.get() {
            let new = new.rare();
            copy!(new, old: rcvtimeo sndtimeo priority mark timestamp_nanos tells_dropped);
            new.filter.store(old.filter.load_full());
            *new.device.lock(parker) = old.device.lock(parker).clone();
        }
        new
    }

    /// The options that few sockets set, to set one.
    pub fn rare(&self) -> &Rare {
        self.rare.get_or_init(Box::default)
    }

    /// What one of them says; the default where none was set.
    pub fn rarely<R: Default>(&self, get: impl FnOnce(&Rare) -> R) -> R {
        self.rare.get().map(|rare| get(rare)).unwrap_or_default()
    }

    /// How many bytes of a packet the socket's filter lets through; all of it where there is none.
    pub fn filter(&self, view: &View<'_>) -> usize {
        let Some(rare) = self.rare.get() else {
            return usize::MAX;
        };
        match &*rare.filter.load() {
            Some(filter) => filter.run(view) as usize,
            None => usize::MAX,
        }
    }

    /// When a message came in, nanoseconds since the epoch, as control data for who wants to know.
    pub fn timestamp_control(&self, nanos: Nanos) -> Option<Control> {
        if !self.timestamp.load(Ordering::Relaxed) {
            return None;
        }
        let (name, unit) = match self.rarely(|rare| rare.timestamp_nanos.load(Ordering::Relaxed)) {
            false => (SO_TIMESTAMP, 1000),
            true => (SO_TIMESTAMPNS, 1),
        };
        let time = [nanos / 1_000_000_000, nanos % 1_000_000_000 / unit];
        let data = time.iter().flat_map(|word| word.to_ne_bytes()).collect();
        Some(Control::Other(SOL_SOCKET, name, data))
    }

    /// Sets the filter or takes it away.
    pub(crate) fn set_filter(&self, filter: Option<Filter>) {
        self.rare().filter.store(filter.map(Arc::new));
    }

    /// Whether there is a filter.
    pub(crate) fn has_filter(&self) -> bool {
        self.rarely(|rare| rare.filter.load().is_some())
    }

    /// Sets a buffer's size as setsockopt(2) does: Linux doubles it, for its own overhead.
    pub(crate) fn set_buf(cell: &AtomicU32, asked: i32, limit: u32) {
        let asked = u32::try_from(asked).unwrap_or(0).min(limit / 2);
        cell.store((asked * 2).max(MIN_BUF), Ordering::Relaxed);
    }

    /// Leaves an error for the next call, and tells who waits.
    pub fn set_error(&self, parker: &dyn Parker, error: Errno) {
        self.error.store(error.0, Ordering::Release);
        self.poll
            .notify(parker, Events::ERR | Events::IN | Events::OUT);
    }

    /// Takes the pending error.
    pub fn take_error(&self) -> Result<(), Errno> {
        if self.error.load(Ordering::Relaxed) == 0 {
            return Ok(());
        }
        match self.error.swap(0, Ordering::AcqRel) {
            0 => Ok(()),
            number => Err(Errno(number)),
        }
    }

    /// Whether an error is pending.
    pub fn has_error(&self) -> bool {
        self.error.load(Ordering::Acquire) != 0
    }

    /// How a receiving call waits.
    pub fn receive_wait(&self, nonblock: bool) -> Wait {
        let timeout = self.rarely(|rare| rare.rcvtimeo.load(Ordering::Relaxed));
        Wait::new(nonblock, timeout)
    }

    /// How a sending call waits.
    pub fn send_wait(&self, nonblock: bool) -> Wait {
        let timeout = self.rarely(|rare| rare.sndtimeo.load(Ordering::Relaxed));
        Wait::new(nonblock, timeout)
    }
}

/// How a call waits: not at all, for a time in all, or until it is interrupted.
pub struct Wait {
    nonblock: bool,
    timeout: Nanos,
    deadline: Option<Nanos>,
}

impl Wait {
    /// A wait of at most `timeout` nanoseconds from the first sleep on; 0 for any time.
    pub fn new(nonblock: bool, timeout: Nanos) -> Wait {
        Wait {
            nonblock,
            timeout,
            deadline: None,
        }
    }

    /// Whether it does not wait at all.
    pub fn nonblock(&self) -> bool {
        self.nonblock
    }

    /// From here on it does not wait: what was asked for is there in part.
    pub fn no_more(&mut self) {
        self.nonblock = true;
    }

    /// Sleeps on a condition variable. `EAGAIN` when it may not or the time is up, `EINTR`.
    pub fn on<'a, T>(
        &mut self,
        cx: &'a Curlwp<'_>,
        cv: &Condvar,
        guard: MutexGuard<'a, T>,
    ) -> Result<MutexGuard<'a, T>, Errno> {
        if self.nonblock {
            return Err(Errno::EAGAIN);
        }
        if self.timeout != 0 && self.deadline.is_none() {
            self.deadline = Some(cx.now(Clock::Monotonic).saturating_add(self.timeout));
        }
        let (guard, wake) = cv.wait_intr(cx.cpu(), guard, self.deadline);
        match wake {
            Wake::Woken => Ok(guard),
            Wake::TimedOut => Err(Errno::EAGAIN),
            Wake::Interrupted => Err(Errno::EINTR),
        }
    }
}

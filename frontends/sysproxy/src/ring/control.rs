//! A ring as the threads of the server reach it.

use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError, Weak};

use abi::ring::{
    AT_MAGIC, BELL, CLIENT_ASLEEP, ELSEWHERE, MAIL, MAY_SPIN, NUDGE, POSTED, RECALLED, REPLY,
    REPLY_HEAD, REQUEST, REQUEST_HEAD, ReplyHead, RequestHead,
};
use kern::LwpHandle;
use kern::poll::{Events, Watcher};
use rustix::thread::futex;
use sync::Parker;

use super::map::Map;
use super::posted::{Posted, Ran};
use super::seat::Seat;
use super::wards;
use crate::client::{Client, Slot};
use crate::conn::lock;
use crate::core::Core;

/// A ring as others reach it. Locks, in this order: `seat`, what a call takes, `now`. `posted` has its place in [`crate::lease`].
pub(crate) struct RingControl {
    me: Weak<RingControl>,
    pub(super) core: Weak<Core>,
    pub(super) client: Weak<Client>,
    pub(super) map: Map,
    posted: Posted,
    closing: AtomicBool,
    slot: Arc<Slot>,
    now: Mutex<Now>,
    /// A wait is parked here and wants to be told: whoever takes this away sees to it that somebody looks.
    listens: AtomicBool,
    /// What serving takes, for one thread at a time. Held only while the lwp is busy, not while it waits for the client.
    seat: Mutex<Seat>,
}

/// Which call is on the ring, and which one is to be interrupted.
#[derive(Default)]
struct Now {
    running: Option<u32>,
    interrupted: Option<u32>,
}

impl RingControl {
    pub(super) fn new(
        core: &Arc<Core>,
        client: &Arc<Client>,
        map: Map,
        seat: Seat,
        slot: Arc<Slot>,
    ) -> Arc<RingControl> {
        Arc::new_cyclic(|me| RingControl {
            me: me.clone(),
            core: Arc::downgrade(core),
            client: Arc::downgrade(client),
            map,
            posted: Posted::default(),
            closing: AtomicBool::new(false),
            slot,
            now: Mutex::default(),
            listens: AtomicBool::new(false),
            seat: Mutex::new(seat),
        })
    }

    pub(super) fn seat(&self) -> MutexGuard<'_, Seat> {
        lock(&self.seat)
    }

    /// The seat, if nobody is at work there.
    pub(super) fn seat_if_free(&self) -> Option<MutexGuard<'_, Seat>> {
        match self.seat.try_lock() {
            Ok(seat) => Some(seat),
            Err(TryLockError::Poisoned(seat)) => Some(seat.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }

    /// Interrupts a call, if it is the present one or one that has not begun.
    pub(crate) fn interrupt(&self, call: u32) {
        let mut now = lock(&self.now);
        now.interrupted = Some(call);
        if now.running == Some(call) {
            self.slot.interrupt();
            drop(now);
            self.kick();
        }
    }

    /// Has the ring's own thread look what there is to do.
    pub(super) fn kick(&self) {
        let word = self.map.word(REQUEST);
        word.fetch_add(NUDGE, Ordering::SeqCst);
        let _ = futex::wake(word, futex::Flags::empty(), 1);
    }

    /// Has the thread leave, and tells the client that nobody is here any more.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
        self.map.write(AT_MAGIC, &[0; 4]);
        for at in [REQUEST, REPLY] {
            let word = self.map.word(at);
            word.fetch_xor(1 << 31, Ordering::SeqCst);
            let _ = futex::wake(word, futex::Flags::empty(), u32::MAX >> 1);
        }
        self.ring_bell();
        self.slot.interrupt();
    }

    /// Whether something is posted that has not run.
    pub(super) fn has_posted(&self) -> bool {
        self.posted.waits(&self.map)
    }

    /// Runs what the client has posted.
    pub(crate) fn run_posted(&self, handle: &LwpHandle) -> Ran {
        self.ran(self.posted.run(&self.map, handle, true))
    }

    /// The same without sleep.
    pub(crate) fn run_posted_at_once(&self, handle: &LwpHandle) -> Ran {
        self.ran(self.posted.run(&self.map, handle, false))
    }

    fn ran(&self, result: Result<Ran, super::posted::Malformed>) -> Ran {
        result.unwrap_or_else(|_| {
            self.close();
            Ran::Nothing
        })
    }

    /// The client has leases from now on.
    pub(crate) fn lend(&self) {
        self.map.word(POSTED).fetch_and(!RECALLED, Ordering::SeqCst);
    }

    /// The client has none any more.
    pub(crate) fn recall(&self) {
        self.map.word(POSTED).fetch_or(RECALLED, Ordering::SeqCst);
    }

    /// Copies the request's head out.
    pub(super) fn request(&self) -> RequestHead {
        let mut raw = [0; RequestHead::SIZE];
        let (short, rest) = raw.split_at_mut(RequestHead::SHORT);
        self.map.read(REQUEST_HEAD, short);
        let nr = short.first_chunk().map_or(0, |nr| u32::from_le_bytes(*nr));
        if RequestHead::used(nr) > RequestHead::SHORT {
            self.map.read(REQUEST_HEAD + RequestHead::SHORT, rest);
        }
        RequestHead::from_bytes(&raw)
    }

    /// Publishes a reply and wakes the client if it sleeps.
    pub(super) fn reply(&self, head: &ReplyHead, may_spin: bool) {
        let map = &self.map;
        // Plain stores one right after the other: the client, which looks at this cache line again and again, gets no
        // chance to take it away in between.
        let count = map.word(REPLY).load(Ordering::Relaxed).wrapping_add(1);
        map.write_words(REPLY_HEAD, &head.to_bytes());
        map.word(MAY_SPIN)
            .store(u32::from(may_spin), Ordering::Relaxed);
        map.word(REPLY).store(count, Ordering::Release);
        fence(Ordering::SeqCst);
        match map.word(CLIENT_ASLEEP).load(Ordering::SeqCst) {
            0 => {}
            ELSEWHERE => self.ring_bell(),
            _ => drop(futex::wake(map.word(REPLY), futex::Flags::empty(), 1)),
        }
    }

    /// Makes the readiness connection readable that the client has named, if it is its own.
    fn ring_bell(&self) {
        let number = self.map.word(BELL).load(Ordering::Relaxed);
        let (Some(core), Some(client)) = (self.core.upgrade(), self.client.upgrade()) else {
            return;
        };
        if number != 0
            && let Some(conn) = core.ready_conn(&client, number - 1)
        {
            conn.send_ready();
        }
    }

    /// Tells the client's thread that there is something for it in the socket.
    pub(crate) fn tell_of_mail(&self) {
        let word = self.map.word(MAIL);
        word.fetch_add(1, Ordering::SeqCst);
        match self.map.word(CLIENT_ASLEEP).load(Ordering::SeqCst) {
            ELSEWHERE => self.ring_bell(),
            _ => drop(futex::wake(word, futex::Flags::empty(), 1)),
        }
    }

    pub(super) fn begin(&self, call: u32) {
        let mut now = lock(&self.now);
        now.running = Some(call);
        if now.interrupted == Some(call) {
            self.slot.interrupt();
        }
    }

    pub(super) fn end(&self) {
        lock(&self.now).running = None;
    }

    pub(super) fn is_interrupted(&self, call: u32) -> bool {
        lock(&self.now).interrupted == Some(call)
    }

    /// The call leaves the kernel to wait here; what is to be told of events, as long as somebody has it. `one`: where it is enough that
    /// one of those who wait is told.
    pub(super) fn listen(&self, one: bool) -> Arc<dyn Watcher> {
        self.listens.store(true, Ordering::SeqCst);
        let control = self.me.clone();
        Arc::new(Ear { control, one })
    }

    /// Whether it still waits for the first word of an event.
    pub(super) fn listens(&self) -> bool {
        self.listens.load(Ordering::SeqCst)
    }

    pub(super) fn stop_listening(&self) {
        if self.listens.load(Ordering::Relaxed) {
            self.listens.store(false, Ordering::SeqCst);
        }
    }
}

/// What a parked wait hears events by. Each has its own: one of a wait that is over must not take what is for others.
struct Ear {
    control: Weak<RingControl>,
    one: bool,
}

impl Watcher for Ear {
    fn notify(&self, parker: &dyn Parker, events: Events) {
        self.notify_exclusive(parker, events);
    }

    fn exclusive(&self) -> bool {
        self.one
    }

    /// Somebody will look: the thread that is here, if it comes by when it is done, or else the ring's own.
    fn notify_exclusive(&self, _: &dyn Parker, _: Events) -> bool {
        let Some(control) = self.control.upgrade() else {
            return false;
        };
        let listens = &control.listens;
        if !listens.load(Ordering::Relaxed) || !listens.swap(false, Ordering::SeqCst) {
            return false;
        }
        if !wards::collect(control.clone()) {
            control.kick();
        }
        true
    }
}

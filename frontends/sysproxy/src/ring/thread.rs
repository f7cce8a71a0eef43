//! A ring's own thread.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use abi::ring::{AT_TID, REQUEST, SERVER_ASLEEP};
use abi::{Seen, Spin};
use hypercall::{Clock, Nanos};
use rustix::thread::futex;

use super::RingCount;
use super::control::RingControl;
use super::map::Testament;
use super::seat::{By, SOON, Work, asleep, timespec};
use super::wards::{self, Rest};
use crate::client::Client;
use crate::conn::lock;
use crate::core::Core;

/// How often an idle ring's thread looks whether its client's thread still lives.
const LOOK: Duration = Duration::from_secs(30);

/// The server's end of a ring; belongs to its thread.
pub(super) struct RingThread {
    pub(super) core: Arc<Core>,
    pub(super) client: Arc<Client>,
    pub(super) control: Arc<RingControl>,
    pub(super) number: u32,
    /// The host's process at the other end, if it is known.
    pub(super) peer: Option<i32>,
    pub(super) spin: Spin,
    pub(super) linger: Spin,
    pub(super) _count: RingCount,
}

/// The ring is being closed, or its client is gone.
struct Closed;

impl RingThread {
    pub(super) fn serve(&mut self) {
        let control = self.control.clone();
        let _testament = Testament::new(&control.map);
        self.core.rings_awake.fetch_add(1, Ordering::SeqCst);
        while self.wait().is_ok() {
            let mut seat = control.seat();
            let work = seat.work(&control);
            seat.serve(&control, &self.core, &self.client, work, By::Own);
            drop(seat);
            wards::serve_due(&self.core);
            wards::look(&self.core);
        }
        wards::let_go();
        let runner = control.seat().leave();
        if let Some(runner) = &runner {
            self.client.leases.recall_from(&control, &runner.handle);
        }
        self.core.rings_awake.fetch_sub(1, Ordering::SeqCst);
        lock(&self.client.rings).remove(&self.number);
        if let Some(runner) = runner {
            self.client.put_back(runner);
        }
    }

    /// Waits until there is something to do at the ring.
    fn wait(&mut self) -> Result<(), Closed> {
        loop {
            if self.lingers() {
                return self.if_open();
            }
            self.core.rings_awake.fetch_sub(1, Ordering::SeqCst);
            let woken = self.sleep();
            self.control
                .map
                .word(SERVER_ASLEEP)
                .store(0, Ordering::Relaxed);
            self.core.rings_awake.fetch_add(1, Ordering::SeqCst);
            wards::resume(&self.core);
            if woken? {
                return Ok(());
            }
        }
    }

    fn if_open(&self) -> Result<(), Closed> {
        match self.control.is_closing() {
            true => Err(Closed),
            false => Ok(()),
        }
    }

    /// Whether there is something to do.
    fn looks(&self) -> bool {
        self.control.is_closing() || self.control.seat().work(&self.control) == Work::Call
    }

    /// Stays awake for a while. Whether there is something to do.
    fn lingers(&mut self) -> bool {
        let word = self.control.map.word(REQUEST);
        let seen = word.load(Ordering::Acquire);
        if self.looks() {
            return true;
        }
        if self.core.may_spin() {
            for _ in 0..self.spin.turns() {
                if word.load(Ordering::Acquire) != seen {
                    self.spin.won();
                    return self.looks();
                }
                std::hint::spin_loop();
            }
            self.spin.lost();
            return false;
        }
        let (mut linger, mut posted) = (self.linger, None);
        let began = Instant::now();
        let look = || {
            if self.looks() || wards::is_overdue(&self.control, &mut posted) {
                Ok::<_, Infallible>(Seen::It)
            } else if wards::look(&self.core) {
                Ok(Seen::Else)
            } else {
                Ok(Seen::Nothing)
            }
        };
        let now = || began.elapsed().as_nanos() as u64;
        let Ok(seen) = linger.linger(look, now, std::thread::yield_now);
        self.linger = linger;
        seen
    }

    /// Sleeps; whether there is something to do.
    fn sleep(&mut self) -> Result<bool, Closed> {
        let control = self.control.clone();
        let word = control.map.word(REQUEST);
        loop {
            let guards = match wards::rest(&self.core) {
                Rest::Served => return Ok(false),
                Rest::Sleep(guards) => guards,
            };
            let seat = control.seat();
            let looks_soon = seat.looks_soon;
            let flag = asleep(looks_soon);
            // Before it says that it sleeps: who takes that for a reason to wake it changes the word afterwards.
            let value = word.load(Ordering::SeqCst);
            control
                .map
                .word(SERVER_ASLEEP)
                .store(flag, Ordering::SeqCst);
            self.if_open()?;
            match seat.work(&control) {
                Work::Nothing => {}
                // It is seen to after a while, with what else has been posted by then.
                Work::Posted if looks_soon => {}
                Work::Posted | Work::Call => return Ok(true),
            }
            let left = seat.deadline().map(|at| self.left(at));
            drop(seat);
            let soon = (looks_soon || guards).then_some(SOON);
            let time = [Some(LOOK), left, soon].into_iter().flatten().min();
            let time = time.map(timespec);
            let end = futex::wait(word, futex::Flags::empty(), value, time.as_ref());
            if end != Err(rustix::io::Errno::TIMEDOUT) {
                if guards {
                    return Ok(false);
                }
                continue;
            }
            if guards {
                wards::expire(&self.core);
            }
            if looks_soon {
                let mut seat = control.seat();
                seat.looks_soon = false;
                if seat.work(&control) == Work::Posted {
                    return Ok(true);
                }
            }
            if !guards && !looks_soon && left.is_none_or(|left| left > LOOK) && !self.client_lives()
            {
                return Err(Closed);
            }
        }
    }

    fn left(&self, deadline: Nanos) -> Duration {
        let now = self.core.kernel.host().now(Clock::Monotonic);
        Duration::from_nanos(deadline.saturating_sub(now))
    }

    /// Whether the client's thread is still there, as far as can be seen.
    fn client_lives(&self) -> bool {
        let mut tid = [0; 4];
        self.control.map.read(AT_TID, &mut tid);
        let Some(pid) = self.peer else {
            return true;
        };
        let tasks = format!("/proc/{pid}/task");
        let gone = |path: &str| {
            std::fs::metadata(path).is_err_and(|e| e.kind() == io::ErrorKind::NotFound)
        };
        gone(&tasks) || !gone(&format!("{tasks}/{}", u32::from_le_bytes(tid)))
    }
}

impl Drop for RingThread {
    /// When the thread did not start, or goes because of a bug.
    fn drop(&mut self) {
        wards::let_go();
        if let Some(runner) = self.control.seat().leave() {
            lock(&self.client.rings).remove(&self.number);
            self.client.put_back(runner);
        }
    }
}

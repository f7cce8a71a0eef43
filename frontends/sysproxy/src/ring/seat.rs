//! Serving a ring: what it takes, and how a request becomes a reply.
//!
//! The ring's own thread does it, and for calls that do not sleep any other thread of the server that happens to be awake
//! (see [`super::wards`]). A wait for events does not sleep either: it is *parked*, which is to say left lying here, and made
//! again when the kernel tells that there may be something.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use abi::ring::{COUNT, DONE, REQUEST, ReplyHead, RequestHead, SHORTLY, WINDOW};
use abi::{Errno, Pollfd, Spin, SysResult, nr};
use hypercall::{Clock, Nanos};
use kern::poll::Watcher;
use rustix::thread::futex;
use rustix::time::Timespec;

use super::control::RingControl;
use super::memory::RingMemory;
use super::pace::Pace;
use super::posted::Ran;
use super::wards;
use crate::call::Call;
use crate::client::{Client, Runner};
use crate::core::Core;

/// How long what is posted may wait for a call that comes after it.
pub(super) const SOON: Duration = Duration::from_micros(250);

/// What serving a ring takes. Belongs to whoever has it locked.
pub(super) struct Seat {
    /// The lwp; none when the ring's thread has left.
    runner: Option<Runner>,
    pub(super) end: End,
    calls: u32,
    parked: Option<Parked>,
    /// The client's thread may post something any time: it has just been given leases or has used them.
    pub(super) looks_soon: bool,
}

/// How far a ring has been read, and how it is written.
#[derive(Default)]
pub(super) struct End {
    /// The client's word as it was when we last looked.
    seen: u32,
    pub(super) pace: Pace,
    spin: Spin,
}

/// A wait that has found nothing yet.
struct Parked {
    head: RequestHead,
    /// On the kernel's monotonic clock.
    deadline: Option<Nanos>,
    /// Its watcher: files forget it with this.
    _watcher: Option<Arc<dyn Watcher>>,
}

/// Of a wait that has left the kernel: its deadline and its watcher.
type Left = (Option<Nanos>, Option<Arc<dyn Watcher>>);

/// What there is to do at a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    Nothing,
    /// A request, or a parked wait to be made again.
    Call,
    /// Something in the queue.
    Posted,
}

/// Who serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// The ring's own thread.
    Own,
    /// Another thread of the server, which must not sleep.
    Other,
}

/// The client does not answer, or the ring is being closed.
pub(super) struct Gone;

/// So many descriptors of a poll come with the request, whatever else does.
const FEW: u64 = 1024;
const _: () = assert!(FEW as usize * Pollfd::SIZE < WINDOW / 2);

/// The calls that do not sleep in the kernel when they are made for a ring: they are parked. Nor do they ask for memory.
pub(super) fn is_wait(head: &RequestHead) -> bool {
    is_of_instance(head.nr) || matches!(head.nr, nr::poll | nr::ppoll) && head.arg1 <= FEW
}

/// Those that wait at an epoll instance.
pub(super) fn is_of_instance(number: u32) -> bool {
    matches!(number, nr::epoll_wait | nr::epoll_pwait | nr::epoll_pwait2)
}

/// The reply of a call that has written no memory.
fn done(result: SysResult) -> ReplyHead {
    ReplyHead {
        kind: DONE,
        error: result.err().map_or(0, |e| e.0),
        retval: result.unwrap_or(0),
        ..ReplyHead::default()
    }
}

impl Seat {
    pub(super) fn new(runner: Runner) -> Seat {
        Seat {
            runner: Some(runner),
            end: End::default(),
            calls: 0,
            parked: None,
            looks_soon: false,
        }
    }

    /// The ring's thread leaves.
    pub(super) fn leave(&mut self) -> Option<Runner> {
        self.parked = None;
        self.runner.take()
    }

    /// When a parked wait ends in any case.
    pub(super) fn deadline(&self) -> Option<Nanos> {
        self.parked.as_ref()?.deadline
    }

    /// What there is to do. Who is about to sleep raises the ring's `SERVER_ASLEEP` before.
    pub(super) fn work(&self, control: &RingControl) -> Work {
        let word = control.map.word(REQUEST).load(Ordering::SeqCst);
        let is_due = |parked: &Parked| {
            !control.listens()
                || control.is_interrupted(self.calls)
                || self.is_over(parked.deadline)
        };
        if self.end.is_new(word) || self.parked.as_ref().is_some_and(is_due) {
            Work::Call
        } else if control.has_posted() {
            Work::Posted
        } else {
            Work::Nothing
        }
    }

    fn is_over(&self, deadline: Option<Nanos>) -> bool {
        let Some((at, runner)) = deadline.zip(self.runner.as_ref()) else {
            return false;
        };
        runner.handle.kernel().host().now(Clock::Monotonic) >= at
    }

    /// Does what there is to do; false when that is for the ring's own thread, who serves being another.
    pub(super) fn serve(
        &mut self,
        control: &Arc<RingControl>,
        core: &Arc<Core>,
        client: &Arc<Client>,
        work: Work,
        by: By,
    ) -> bool {
        match work {
            Work::Nothing => true,
            Work::Posted => self.serve_posted(control, by),
            Work::Call => self.serve_call(control, core, client, by),
        }
    }

    /// The same for a thread that is not the ring's own.
    pub(super) fn serve_by_other(&mut self, control: &Arc<RingControl>, work: Work) -> bool {
        let (Some(core), Some(client)) = (control.core.upgrade(), control.client.upgrade()) else {
            return false;
        };
        self.serve(control, &core, &client, work, By::Other)
    }

    fn serve_posted(&mut self, control: &RingControl, by: By) -> bool {
        let Some(runner) = &self.runner else {
            return false;
        };
        self.looks_soon = true;
        let ran = wards::collecting(|| match by {
            By::Own => control.run_posted(&runner.handle),
            By::Other => control.run_posted_at_once(&runner.handle),
        });
        ran != Ran::Stuck
    }

    fn serve_call(
        &mut self,
        control: &Arc<RingControl>,
        core: &Arc<Core>,
        client: &Arc<Client>,
        by: By,
    ) -> bool {
        let word = control.map.word(REQUEST).load(Ordering::SeqCst);
        let (head, since) = match self.parked.take() {
            Some(parked) if !self.end.is_new(word) => (parked.head, Some(parked.deadline)),
            _ => (control.request(), None),
        };
        if by == By::Other && !is_wait(&head) {
            return false;
        }
        let call = self.calls.wrapping_add(u32::from(since.is_none()));
        let before = std::mem::replace(&mut self.end.seen, word);
        let made = match by {
            By::Own if !is_wait(&head) => {
                wards::let_go();
                self.call(control, core, client, &head, call, by)
            }
            _ => wards::collecting(|| self.call(control, core, client, &head, call, by)),
        };
        let Some((mut reply, (asked, watcher))) = made else {
            self.end.seen = before;
            self.parked = since.map(|deadline| Parked {
                head,
                deadline,
                _watcher: None,
            });
            return false;
        };
        self.calls = call;
        if reply.error == Errno::ERESTART.0 && is_wait(&head) {
            let deadline = since.unwrap_or(asked);
            reply = if control.is_interrupted(call) {
                done(Err(Errno::EINTR))
            } else if self.is_over(deadline) {
                // What it has written says that nothing is ready.
                ReplyHead { error: 0, ..reply }
            } else {
                self.parked = Some(Parked {
                    head,
                    deadline,
                    _watcher: watcher,
                });
                return true;
            };
        }
        control.stop_listening();
        control.end();
        if let Some(runner) = &self.runner {
            runner.settle();
        }
        self.looks_soon |= reply.want != 0;
        control.reply(&reply, core.may_spin());
        core.after(head.nr);
        true
    }

    /// Makes a call. `None` when it cannot be made without sleep.
    fn call(
        &mut self,
        control: &Arc<RingControl>,
        core: &Arc<Core>,
        client: &Arc<Client>,
        head: &RequestHead,
        call: u32,
        by: By,
    ) -> Option<(ReplyHead, Left)> {
        let runner = self.runner.as_ref()?;
        let _call = match by {
            By::Own => client.leases.enter(Some(control), &runner.handle),
            By::Other => client.leases.enter_at_once(control, &runner.handle)?,
        };
        let Some(memory) = RingMemory::new(control, client, &mut self.end, head, by) else {
            return Some((done(Err(Errno::EINVAL)), (None, None)));
        };
        control.begin(call);
        let what = Call {
            number: head.nr,
            hints: [head.hint0, head.hint1],
            args: head.args(),
        };
        let result = core.run(client, runner, &memory, None, &what);
        let (count, len) = memory.written();
        let mut leases = memory.leases();
        if leases != 0 && !client.leases.give(control) {
            leases = 0;
        }
        let reply = ReplyHead {
            count,
            len,
            want: leases.into(),
            ..done(result)
        };
        Some((reply, memory.left()))
    }
}

impl End {
    fn is_new(&self, word: u32) -> bool {
        (word ^ self.seen) & COUNT != 0
    }

    /// Waits for the client's answer during a call.
    pub(super) fn answer(
        &mut self,
        control: &RingControl,
        core: &Core,
        patience: Duration,
    ) -> Result<(), Gone> {
        let word = control.map.word(REQUEST);
        let asleep = control.map.word(abi::ring::SERVER_ASLEEP);
        let deadline = Instant::now() + patience;
        if core.may_spin() {
            for _ in 0..self.spin.turns() {
                let value = word.load(Ordering::Acquire);
                if self.is_new(value) {
                    self.seen = value;
                    self.spin.won();
                    return Ok(());
                }
                std::hint::spin_loop();
            }
            self.spin.lost();
        }
        core.rings_awake.fetch_sub(1, Ordering::SeqCst);
        let result = loop {
            asleep.store(1, Ordering::SeqCst);
            let value = word.load(Ordering::SeqCst);
            if control.is_closing() {
                break Err(Gone);
            }
            if self.is_new(value) {
                self.seen = value;
                break Ok(());
            }
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                break Err(Gone);
            };
            let _ = futex::wait(word, futex::Flags::empty(), value, Some(&timespec(left)));
        };
        asleep.store(0, Ordering::Relaxed);
        core.rings_awake.fetch_add(1, Ordering::SeqCst);
        result
    }
}

/// A span of the host's time.
pub(super) fn timespec(span: Duration) -> Timespec {
    Timespec {
        tv_sec: span.as_secs() as i64,
        tv_nsec: i64::from(span.subsec_nanos()),
    }
}

/// What `SERVER_ASLEEP` says of a thread that sleeps.
pub(super) fn asleep(looks_soon: bool) -> u32 {
    if looks_soon { SHORTLY } else { 1 }
}

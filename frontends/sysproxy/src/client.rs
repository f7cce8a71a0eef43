//! A client: a process of the kernel with its connections, its lwps and its rings.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

use abi::Errno;
use abi::sysproxy::{Class, Cookie, CopyData, ErrorWord, Kind};
use kern::{Kernel, KernelMemory, Lwp, LwpHandle, Proc};

use crate::conn::lock;
use crate::lease::Leases;
use crate::ring::RingControl;

/// Calls that one client may have in flight, with its rings.
const MAX_IN_FLIGHT: usize = 1024;
/// Lwps that are kept for the next call.
const KEEP: usize = 16;

/// Where a client is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    Alive,
    /// The calls of the old program are being waited for.
    InExec,
    /// Its last connection is gone.
    Dead,
}

/// One process. Locks, in this order: `rings`, `state`, a slot's; `connections` is the core's to change.
pub(crate) struct Client {
    kernel: Arc<Kernel>,
    pub(crate) proc: Arc<Proc>,
    /// Names it to further connections.
    pub(crate) session: Cookie,
    /// Whether it may have the kernel open files of the host.
    pub(crate) trusted: AtomicBool,
    /// Connections that keep it alive.
    pub(crate) connections: AtomicUsize,
    pub(crate) rings: Mutex<HashMap<u32, Arc<RingControl>>>,
    pub(crate) leases: Leases,
    state: Mutex<State>,
    quiet: Condvar,
}

struct State {
    life: Life,
    /// Keeps the process while no call runs.
    main: Option<LwpHandle>,
    idle: Vec<Runner>,
    /// Lwps in a call, and those that serve rings. Few at a time, so they are searched.
    running: Vec<(Option<CallId>, Arc<Slot>)>,
}

impl State {
    /// Whether something may begin to run.
    fn admit(&self, call: Option<CallId>) -> Result<(), ErrorWord> {
        match self.life {
            Life::Alive => {}
            Life::InExec => return Err(ErrorWord::InExec),
            Life::Dead => return Err(ErrorWord::Auth),
        }
        if self.running.len() >= MAX_IN_FLIGHT {
            return Err(ErrorWord::TryAgain);
        }
        if call.is_some() && self.running.iter().any(|(id, _)| *id == call) {
            return Err(ErrorWord::MalformedRequest);
        }
        Ok(())
    }
}

/// A call in flight: the number of its connection, and its request number there.
pub(crate) type CallId = (u32, u64);

/// An lwp for one call at a time.
pub(crate) struct Runner {
    pub(crate) handle: LwpHandle,
    pub(crate) slot: Arc<Slot>,
}

impl Runner {
    fn new(handle: LwpHandle) -> Runner {
        Runner {
            slot: Arc::new(Slot {
                lwp: handle.lwp().clone(),
                kernel: handle.kernel().clone(),
                exchange: Mutex::default(),
                answered: Condvar::new(),
            }),
            handle,
        }
    }

    /// After a call: an interrupt that came for it is not the next call's.
    pub(crate) fn settle(&self) {
        let sleeper = self.slot.lwp.sleeper();
        if sleeper.is_interrupted() {
            sleeper.clear();
            if self.slot.lwp.proc().is_exiting() {
                self.slot.interrupt();
            }
        }
    }
}

impl Client {
    /// Whether it is the server's own user on the server's machine.
    pub(crate) fn is_trusted(&self) -> bool {
        self.trusted.load(Ordering::SeqCst)
    }

    pub(crate) fn new(main: LwpHandle, session: Cookie) -> Client {
        Client {
            kernel: main.kernel().clone(),
            proc: main.lwp().proc().clone(),
            session,
            trusted: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            rings: Mutex::default(),
            leases: Leases::default(),
            state: Mutex::new(State {
                life: Life::Alive,
                main: Some(main),
                idle: Vec::new(),
                running: Vec::new(),
            }),
            quiet: Condvar::new(),
        }
    }

    /// An lwp for a call, which has a number, or for something else. Refused when the client has too many, uses the number
    /// already, is in an exec, or is gone.
    pub(crate) fn runner(&self, call: Option<CallId>) -> Result<Runner, ErrorWord> {
        let mut state = lock(&self.state);
        state.admit(call)?;
        if let Some(runner) = state.idle.pop() {
            state.running.push((call, runner.slot.clone()));
            return Ok(runner);
        }
        drop(state);
        let handle = self
            .kernel
            .newlwp(self.proc.pid)
            .map_err(|_| ErrorWord::TryAgain)?;
        let runner = Runner::new(handle);
        let mut state = lock(&self.state);
        let admitted = state.admit(call);
        if admitted.is_ok() {
            state.running.push((call, runner.slot.clone()));
        }
        drop(state);
        admitted.map(|()| runner)
    }

    /// The call is over, and nothing interrupts it any more. Keeps the lwp for another one, if the process lives.
    pub(crate) fn put_back(&self, runner: Runner) {
        let mut state = lock(&self.state);
        let mine = |(_, slot): &(_, Arc<Slot>)| Arc::ptr_eq(slot, &runner.slot);
        if let Some(at) = state.running.iter().position(mine) {
            state.running.swap_remove(at);
        }
        if state.life != Life::Alive && state.running.is_empty() {
            self.quiet.notify_all();
        }
        runner.settle();
        if state.life != Life::Dead && state.idle.len() < KEEP {
            state.idle.push(runner);
            return;
        }
        // Dropping it enters the kernel, and may end the process.
        drop(state);
        drop(runner);
    }

    /// Runs `f` with a call, if it is in flight, and while it cannot end.
    pub(crate) fn with_call<R>(&self, call: CallId, f: impl FnOnce(&Slot) -> R) -> Option<R> {
        let state = lock(&self.state);
        let (_, slot) = state.running.iter().find(|(id, _)| *id == Some(call))?;
        Some(f(slot))
    }

    /// Has the waiting calls of a connection look whether their client is gone.
    pub(crate) fn wake_calls(&self, conn: u32) {
        for (call, slot) in &lock(&self.state).running {
            if call.is_some_and(|(of, _)| of == conn) {
                slot.wake();
            }
        }
    }

    /// Its threads that have rings do not look at the socket by themselves: tells them that a signal lies there.
    pub(crate) fn tell_of_mail(&self) {
        for ring in lock(&self.rings).values() {
            ring.tell_of_mail();
        }
    }

    /// Does something as the process, outside any call. `ESRCH` when it is gone.
    pub(crate) fn with_main<R>(&self, f: impl FnOnce(&LwpHandle) -> R) -> Result<R, Errno> {
        let runner = self.runner(None).map_err(ErrorWord::errno)?;
        let result = f(&runner.handle);
        self.put_back(runner);
        Ok(result)
    }

    /// Waits until no call runs, having interrupted those that do; no new ones begin meanwhile. False when an exec is
    /// under way already, or the client is gone.
    pub(crate) fn quiesce(&self) -> bool {
        let mut state = lock(&self.state);
        if state.life != Life::Alive {
            return false;
        }
        state.life = Life::InExec;
        for (_, slot) in &state.running {
            slot.interrupt();
        }
        while !state.running.is_empty() {
            state = self
                .quiet
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if state.life == Life::InExec {
            state.life = Life::Alive;
        }
        state.life == Life::Alive
    }

    /// The end: interrupts every lwp, and gives up those that are not in a call. The last one takes the process along.
    pub(crate) fn end(&self) {
        let kernel = &self.kernel;
        // What it has posted it has done: that goes out before its descriptors close.
        if let Ok(handle) = kernel.newlwp(self.proc.pid) {
            self.leases.recall(&handle);
        }
        for ring in std::mem::take(&mut *lock(&self.rings)).into_values() {
            ring.close();
        }
        kernel.implicit(&KernelMemory, |cx| kernel.proc_exit(cx, &self.proc));
        let mut state = lock(&self.state);
        state.life = Life::Dead;
        let gone = (state.main.take(), std::mem::take(&mut state.idle));
        drop(state);
        drop(gone);
    }

    /// Whether its last connection is gone.
    pub(crate) fn is_dead(&self) -> bool {
        lock(&self.state).life == Life::Dead
    }

    /// A connection that keeps it alive is gone; true for the last one.
    pub(crate) fn lose_connection(&self) -> bool {
        self.connections.fetch_sub(1, Ordering::SeqCst) == 1
    }
}

/// What others do to a call in flight: interrupt it, and bring it memory it has asked for.
pub(crate) struct Slot {
    lwp: Arc<Lwp>,
    kernel: Arc<Kernel>,
    exchange: Mutex<Exchange>,
    answered: Condvar,
}

#[derive(Default)]
struct Exchange {
    asked: Option<(Kind, usize)>,
    answer: Option<Result<Vec<u8>, Errno>>,
}

impl Slot {
    /// The lwp leaves its sleep with `EINTR`.
    pub(crate) fn interrupt(&self) {
        self.lwp.sleeper().interrupt(&**self.kernel.host());
    }

    /// Notes what the client is about to be asked for.
    pub(crate) fn ask(&self, kind: Kind, len: usize) {
        *lock(&self.exchange) = Exchange {
            asked: Some((kind, len)),
            answer: None,
        };
    }

    /// Waits for the answer; `None` when there is none until the deadline, `EFAULT` when `gone` says so.
    pub(crate) fn answer(
        &self,
        deadline: Instant,
        gone: impl Fn() -> bool,
    ) -> Option<Result<Vec<u8>, Errno>> {
        let mut exchange = lock(&self.exchange);
        loop {
            if let Some(answer) = exchange.answer.take() {
                return Some(answer);
            }
            if gone() {
                return Some(Err(Errno::EFAULT));
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            exchange = self
                .answered
                .wait_timeout(exchange, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Brings what the client has answered. False when nobody asked for that, or for so much.
    pub(crate) fn bring(&self, class: Class, kind: Kind, body: &[u8]) -> bool {
        let mut exchange = lock(&self.exchange);
        let Some((asked, len)) = exchange.asked.take() else {
            return false;
        };
        let answer = match class {
            Class::Error => Err(Errno::EFAULT),
            _ => match CopyData::decode(body) {
                Ok(copy) if kind == Kind::Copyin && copy.data.len() == len => {
                    Ok(copy.data.to_vec())
                }
                Ok(copy) if kind == Kind::Copyinstr && copy.data.len() <= len => {
                    Ok(copy.data.to_vec())
                }
                _ => return false,
            },
        };
        if asked != kind {
            return false;
        }
        exchange.answer = Some(answer);
        self.answered.notify_all();
        true
    }

    /// Has a waiting call look whether its client is gone.
    pub(crate) fn wake(&self) {
        drop(lock(&self.exchange));
        self.answered.notify_all();
    }
}

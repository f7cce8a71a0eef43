//! The scheduler: coroutines, virtual time, and who goes on.

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};

use corosensei::{Coroutine, CoroutineResult, Yielder};

use super::trace::{Event, Trace};
use super::{Ended, SimFile, SimHost, lock};
use crate::{JoinHandle, Nanos, ThreadBody, WakeReason};

/// What a switch costs in virtual time, at most.
const STEP: Nanos = 500;
/// One unpark in so many is followed by a switch, so that the woken thread comes to run before its waker goes on.
const UNPARK_SWITCH: u32 = 4;
/// One place where another may come in between, in so many, is used for it.
const PREEMPT_SWITCH: u32 = 8;

type Coro = Coroutine<(), (), ()>;
type Panic = Box<dyn std::any::Any + Send>;

thread_local! {
    /// The coroutine that runs on this host thread; null between coroutines.
    static YIELDER: Cell<*const Yielder<(), ()>> = const { Cell::new(std::ptr::null()) };
}

/// How a run went.
pub struct Run<R> {
    /// What `main` returned, or why it did not.
    pub result: Result<R, Failure>,
    /// A hash of everything that happened, in order.
    pub hash: u64,
    /// Everything that happened, a line each, where it was asked for.
    pub trace: String,
    /// Virtual time at the end.
    pub elapsed: Nanos,
    /// How often the scheduler let a thread run.
    pub switches: u64,
    /// Threads that had not ended when `main` had.
    pub leftover: Vec<String>,
    /// What was written to the console.
    pub console: Vec<u8>,
}

/// Why a run did not come to its end.
pub enum Failure {
    /// Every thread waits and nothing can wake one: their names.
    Deadlock(Vec<String>),
    /// A thread panicked: its name, and the panic.
    Panicked(String, Panic),
    /// The kernel ended its host process.
    Ended(Ended),
}

impl std::fmt::Debug for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Deadlock(names) => write!(f, "deadlock: {} wait", names.join(", ")),
            Failure::Panicked(name, payload) => {
                let text = payload
                    .downcast_ref::<String>()
                    .map(String::as_str)
                    .or_else(|| payload.downcast_ref::<&str>().copied());
                write!(
                    f,
                    "thread {name} panicked: {}",
                    text.unwrap_or("no message")
                )
            }
            Failure::Ended(ended) => write!(f, "the process ended: {ended:?}"),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Status {
    Runnable,
    /// Parked on the word at this address; the number tells this park from later ones.
    Parked(usize, u64),
    Done,
}

struct Thread {
    name: String,
    status: Status,
    /// What it waits for, as it said before it parked.
    wchan: &'static str,
    wake: WakeReason,
    done: Arc<AtomicU32>,
}

type DeviceWork = Box<dyn FnOnce() + Send>;

/// Everything the scheduler knows.
pub(super) struct Sched {
    pub(super) rng: fastrand::Rng,
    pub(super) now: Nanos,
    host: Weak<SimHost>,
    trace: Trace,
    threads: Vec<Thread>,
    current: Option<usize>,
    runnable: Vec<usize>,
    /// Who is parked on a word, by its address, oldest first. Never walked: addresses are not part of a run.
    parked: HashMap<usize, Vec<usize>>,
    deadlines: BinaryHeap<Reverse<(Nanos, u64, usize)>>,
    device: BinaryHeap<Reverse<Timed>>,
    started: Vec<(usize, ThreadBody)>,
    sequence: u64,
    switches: u64,
    failure: Option<Failure>,
}

/// Work of a device that is due at a time.
struct Timed {
    at: Nanos,
    sequence: u64,
    work: DeviceWork,
}

impl PartialEq for Timed {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Timed {}
impl PartialOrd for Timed {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Timed {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

impl Sched {
    pub(super) fn new(seed: u64, keep_trace: bool) -> Sched {
        Sched {
            rng: fastrand::Rng::with_seed(seed),
            now: 1_000_000_000,
            host: Weak::new(),
            trace: Trace::new(keep_trace),
            threads: Vec::new(),
            current: None,
            runnable: Vec::new(),
            parked: HashMap::new(),
            deadlines: BinaryHeap::new(),
            device: BinaryHeap::new(),
            started: Vec::new(),
            sequence: 0,
            switches: 0,
            failure: None,
        }
    }

    pub(super) fn current(&self) -> Option<usize> {
        self.current
    }

    pub(super) fn new_file(&self) -> Arc<SimFile> {
        SimFile::new(self.host.clone(), Vec::new())
    }

    /// Has `work` done on no thread, after `delay`.
    pub(super) fn after(&mut self, delay: Nanos, work: DeviceWork) {
        self.sequence += 1;
        self.device.push(Reverse(Timed {
            at: self.now.saturating_add(delay),
            sequence: self.sequence,
            work,
        }));
    }

    /// The host.
    pub(super) fn host(&self) -> Weak<SimHost> {
        self.host.clone()
    }

    fn add_thread(&mut self, name: &str, body: ThreadBody) -> Arc<AtomicU32> {
        let id = self.threads.len();
        let done = Arc::new(AtomicU32::new(0));
        self.threads.push(Thread {
            name: name.to_owned(),
            status: Status::Runnable,
            wchan: "",
            wake: WakeReason::Woken,
            done: done.clone(),
        });
        self.trace.add(self.now, id, Event::Spawn(name));
        self.started.push((id, body));
        self.runnable.push(id);
        done
    }

    /// Ends a park for a reason.
    fn wake(&mut self, id: usize, why: WakeReason) {
        if let Status::Parked(address, _) = self.threads[id].status {
            if let Some(queue) = self.parked.get_mut(&address) {
                queue.retain(|&other| other != id);
                if queue.is_empty() {
                    self.parked.remove(&address);
                }
            }
            self.threads[id].status = Status::Runnable;
            self.threads[id].wake = why;
            self.threads[id].wchan = "";
            self.runnable.push(id);
        }
    }

    /// Ends the parks whose deadlines have come.
    fn fire_deadlines(&mut self) {
        while let Some(&Reverse((at, park, id))) = self.deadlines.peek() {
            let live = matches!(self.threads[id].status, Status::Parked(_, p) if p == park);
            if live && at > self.now {
                return;
            }
            self.deadlines.pop();
            if live {
                self.trace.add(self.now, id, Event::Timeout);
                self.wake(id, WakeReason::TimedOut);
            }
        }
    }

    fn due_device_work(&mut self) -> Option<DeviceWork> {
        if self.device.peek()?.0.at > self.now {
            return None;
        }
        let Reverse(timed) = self.device.pop()?;
        self.trace.add(self.now, usize::MAX, Event::Device);
        Some(timed.work)
    }

    /// The next point in time at which anything happens by itself.
    fn next_time(&self) -> Option<Nanos> {
        let deadline = self.deadlines.peek().map(|d| d.0.0);
        let device = self.device.peek().map(|d| d.0.at);
        deadline.into_iter().chain(device).min()
    }

    /// Who goes on, by chance.
    fn pick(&mut self) -> Option<usize> {
        if self.runnable.is_empty() {
            return None;
        }
        let at = self.rng.usize(..self.runnable.len());
        let id = self.runnable.swap_remove(at);
        self.now += self.rng.u64(1..=STEP);
        self.switches += 1;
        self.current = Some(id);
        self.trace.add(self.now, id, Event::Run);
        Some(id)
    }

    /// Names what the running thread is about to wait for.
    pub(super) fn set_wchan(&mut self, wchan: &'static str) {
        if let Some(id) = self.current {
            self.threads[id].wchan = wchan;
        }
    }

    /// Threads that have not ended, each with its wait channel.
    fn waiting_names(&self) -> Vec<String> {
        let waits = |t: &&Thread| t.status != Status::Done;
        let name = |t: &Thread| match t.wchan {
            "" => t.name.clone(),
            wchan => format!("{} ({wchan})", t.name),
        };
        self.threads.iter().filter(waits).map(name).collect()
    }
}

/// A thread of a run, to be waited for.
pub(super) struct SimThread {
    done: Arc<AtomicU32>,
    host: Weak<SimHost>,
}

impl JoinHandle for SimThread {
    fn join(self: Box<Self>) {
        let Some(host) = self.host.upgrade() else {
            return;
        };
        while self.done.load(Ordering::SeqCst) == 0 {
            park(&host.sched, &self.done, 0, None);
        }
    }
}

pub(super) fn spawn(sched: &Mutex<Sched>, name: &str, body: ThreadBody) -> SimThread {
    let mut sched = lock(sched);
    SimThread {
        done: sched.add_thread(name, body),
        host: sched.host.clone(),
    }
}

pub(super) fn park(
    sched: &Mutex<Sched>,
    word: &AtomicU32,
    expected: u32,
    deadline: Option<Nanos>,
) -> WakeReason {
    let id = {
        let mut s = lock(sched);
        if word.load(Ordering::SeqCst) != expected {
            return WakeReason::Woken;
        }
        if deadline.is_some_and(|at| at <= s.now) {
            return WakeReason::TimedOut;
        }
        let Some(id) = s.current else {
            // Completions run on no thread and may not block; the contract says so, and the caller looks again.
            return WakeReason::Woken;
        };
        s.sequence += 1;
        let park = s.sequence;
        let address = word.as_ptr().addr();
        s.threads[id].status = Status::Parked(address, park);
        s.parked.entry(address).or_default().push(id);
        // The end of time does not come.
        if let Some(at) = deadline.filter(|&at| at != Nanos::MAX) {
            s.deadlines.push(Reverse((at, park, id)));
        }
        let now = s.now;
        s.trace.add(now, id, Event::Park);
        id
    };
    suspend();
    lock(sched).threads[id].wake
}

pub(super) fn unpark(sched: &Mutex<Sched>, word: &AtomicU32, count: u32) {
    let switches = {
        let mut s = lock(sched);
        let address = word.as_ptr().addr();
        let waiting = s.parked.get(&address).map_or(0, Vec::len);
        let count = waiting.min(count as usize);
        if count == 0 {
            return;
        }
        for _ in 0..count {
            let Some(&id) = s.parked.get(&address).and_then(|queue| queue.first()) else {
                break;
            };
            s.wake(id, WakeReason::Woken);
        }
        let (now, current) = (s.now, s.current);
        s.trace.add(
            now,
            current.unwrap_or(usize::MAX),
            Event::Unpark(count as u32),
        );
        current.is_some() && s.rng.u32(..UNPARK_SWITCH) == 0
    };
    if switches {
        switch(sched);
    }
}

/// Lets somebody else run, now and then.
pub(super) fn preempt(sched: &Mutex<Sched>) {
    let switches = {
        let mut s = lock(sched);
        let others = s.current.is_some() && !s.runnable.is_empty();
        others && s.rng.u32(..PREEMPT_SWITCH) == 0
    };
    if switches {
        switch(sched);
    }
}

/// Lets somebody else run who can.
pub(super) fn switch(sched: &Mutex<Sched>) {
    // What the language knows of a panic belongs to the host thread, which all share.
    if std::thread::panicking() {
        return;
    }
    {
        let mut s = lock(sched);
        let Some(id) = s.current else { return };
        s.runnable.push(id);
    }
    suspend();
}

fn suspend() {
    let yielder = YIELDER.get();
    if yielder.is_null() {
        return;
    }
    // SAFETY: the pointer is that of the coroutine running on this very thread: the loop clears it whenever none
    // runs, and each coroutine sets its own when it starts or goes on. A yielder lives as long as its coroutine.
    unsafe { (*yielder).suspend(()) };
    YIELDER.set(yielder);
}

/// The loop that every run is.
pub(super) fn run<R: Send + 'static>(
    host: &Arc<SimHost>,
    main: impl FnOnce(&Arc<SimHost>) -> R + Send + 'static,
) -> Run<R> {
    let result: Arc<Mutex<Option<R>>> = Arc::default();
    {
        let (result, weak) = (result.clone(), Arc::downgrade(host));
        let mut sched = lock(&host.sched);
        sched.host = weak.clone();
        sched.add_thread(
            "main",
            Box::new(move || {
                if let Some(host) = weak.upgrade() {
                    let value = main(&host);
                    *lock(&result) = Some(value);
                }
            }),
        );
    }
    let mut coroutines: Vec<Option<Coro>> = Vec::new();
    let failure = drive(host, &mut coroutines).err();
    // A coroutine that has not ended cannot be unwound safely (it would go on in the kernel): its stack is given up.
    coroutines.into_iter().flatten().for_each(std::mem::forget);
    let sched = lock(&host.sched);
    Run {
        result: match (failure, lock(&result).take()) {
            (None, Some(value)) => Ok(value),
            (Some(failure), _) => Err(failure),
            (None, None) => Err(Failure::Deadlock(sched.waiting_names())),
        },
        hash: sched.trace.hash(),
        trace: sched.trace.text().to_owned(),
        elapsed: sched.now,
        switches: sched.switches,
        leftover: sched.waiting_names(),
        console: host.console(),
    }
}

fn drive(host: &Arc<SimHost>, coroutines: &mut Vec<Option<Coro>>) -> Result<(), Failure> {
    loop {
        start_threads(host, coroutines);
        let due = {
            let mut sched = lock(&host.sched);
            sched.current = None;
            sched.fire_deadlines();
            sched.due_device_work()
        };
        if let Some(work) = due {
            work();
            continue;
        }
        let next = {
            let mut sched = lock(&host.sched);
            if let Some(failure) = sched.failure.take() {
                return Err(failure);
            }
            if sched
                .threads
                .first()
                .is_some_and(|t| t.status == Status::Done)
            {
                return Ok(());
            }
            match sched.pick() {
                Some(id) => id,
                None => {
                    let Some(time) = sched.next_time() else {
                        return Err(Failure::Deadlock(sched.waiting_names()));
                    };
                    sched.now = sched.now.max(time);
                    continue;
                }
            }
        };
        resume(host, coroutines, next);
    }
}

fn start_threads(host: &Arc<SimHost>, coroutines: &mut Vec<Option<Coro>>) {
    let started = std::mem::take(&mut lock(&host.sched).started);
    for (id, body) in started {
        let host = host.clone();
        debug_assert_eq!(id, coroutines.len());
        coroutines.push(Some(Coroutine::new(
            move |yielder: &Yielder<(), ()>, ()| {
                YIELDER.set(yielder);
                let outcome = catch_unwind(AssertUnwindSafe(body));
                thread_ended(&host, id, outcome.err());
            },
        )));
    }
}

fn thread_ended(host: &SimHost, id: usize, panic: Option<Panic>) {
    let done = {
        let mut sched = lock(&host.sched);
        let now = sched.now;
        sched.trace.add(now, id, Event::End);
        sched.threads[id].status = Status::Done;
        if let Some(payload) = panic {
            let name = sched.threads[id].name.clone();
            sched.failure = Some(match payload.downcast::<Ended>() {
                Ok(ended) => Failure::Ended(*ended),
                Err(payload) => Failure::Panicked(name, payload),
            });
        }
        // No switch from here on: the thread is over.
        sched.current = None;
        sched.threads[id].done.clone()
    };
    done.store(1, Ordering::SeqCst);
    unpark(&host.sched, &done, u32::MAX);
}

fn resume(host: &Arc<SimHost>, coroutines: &mut [Option<Coro>], id: usize) {
    let Some(coroutine) = coroutines[id].as_mut() else {
        return;
    };
    let outcome = catch_unwind(AssertUnwindSafe(|| coroutine.resume(())));
    YIELDER.set(std::ptr::null());
    match outcome {
        Ok(CoroutineResult::Yield(())) => {}
        Ok(CoroutineResult::Return(())) => coroutines[id] = None,
        Err(panic) => {
            // Only the few lines around a thread's body can come here.
            coroutines[id] = None;
            drop(lock(&host.sched));
            resume_unwind(panic);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::sim::{Failure, SimConfig, SimHost};
    use crate::{Clock, Host, WakeReason};
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::{Arc, Mutex};

    /// Two threads hand a word to and fro.
    fn ping_pong(host: &Arc<SimHost>, rounds: u32) {
        let word = Arc::new(AtomicU32::new(0));
        let turn = |mine: u32| {
            let (host, word) = (host.clone(), word.clone());
            move || {
                for _ in 0..rounds {
                    loop {
                        let seen = word.load(Ordering::SeqCst);
                        if seen % 2 == mine {
                            break;
                        }
                        host.park(&word, seen, None);
                    }
                    word.fetch_add(1, Ordering::SeqCst);
                    host.unpark(&word, 1);
                }
            }
        };
        let a = host.spawn("a", Box::new(turn(0))).expect("a thread");
        let b = host.spawn("b", Box::new(turn(1))).expect("a thread");
        a.join();
        b.join();
        assert_eq!(word.load(Ordering::SeqCst), 2 * rounds);
    }

    #[test]
    fn the_same_seed_gives_the_same_run_to_the_byte() {
        let run = |seed| {
            let config = SimConfig {
                keep_trace: true,
                ..SimConfig::new(seed)
            };
            SimHost::run(config, |host| ping_pong(host, 20))
        };
        let (a, b, other) = (run(1), run(1), run(2));
        assert!(a.result.is_ok() && a.leftover.is_empty());
        assert_eq!(a.trace, b.trace);
        assert_eq!(a.hash, b.hash);
        assert_ne!(a.hash, other.hash);
    }

    #[test]
    fn hours_pass_in_no_time_and_deadlines_are_kept() {
        const HOUR: u64 = 3_600_000_000_000;
        let run = SimHost::run(SimConfig::new(1), |host| {
            let start = host.now(Clock::Monotonic);
            let word = AtomicU32::new(0);
            for i in 1..=100 {
                let why = host.park(&word, 0, Some(start + i * HOUR));
                assert_eq!(why, WakeReason::TimedOut);
            }
            host.now(Clock::Monotonic) - start
        });
        let passed = run.result.expect("a value");
        assert!(
            (100 * HOUR..100 * HOUR + HOUR).contains(&passed),
            "{passed}"
        );
    }

    #[test]
    fn a_wait_that_nothing_ends_is_a_deadlock_with_names() {
        let run = SimHost::run(SimConfig::new(1), |host| {
            let waits = host.clone();
            let thread = host.spawn(
                "waits",
                Box::new(move || {
                    waits.park(&AtomicU32::new(0), 0, None);
                }),
            );
            thread.expect("a thread").join();
        });
        match run.result {
            Err(Failure::Deadlock(names)) => assert_eq!(names, ["main", "waits"]),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn panics_and_exits_end_the_run() {
        let run = SimHost::run(SimConfig::new(1), |_| {
            std::panic::resume_unwind(Box::new("planted"));
        });
        assert!(matches!(run.result, Err::<(), _>(Failure::Panicked(name, _)) if name == "main"));
        let run = SimHost::run(SimConfig::new(1), |host| -> () { host.exit(3) });
        assert!(matches!(
            run.result,
            Err(Failure::Ended(crate::sim::Ended::Exit(3)))
        ));
    }

    #[test]
    fn seeds_differ_in_who_comes_first() {
        let first = |seed| {
            let run = SimHost::run(SimConfig::new(seed), |host| {
                let order: Arc<Mutex<Vec<u32>>> = Arc::default();
                let threads: Vec<_> = (0..3)
                    .map(|i| {
                        let order = order.clone();
                        let body = move || order.lock().expect("no panic").push(i);
                        host.spawn("t", Box::new(body)).expect("a thread")
                    })
                    .collect();
                threads.into_iter().for_each(|t| t.join());
                order.lock().expect("no panic").clone()
            });
            run.result.expect("a value")
        };
        let seen: std::collections::BTreeSet<_> = (0..100).map(first).collect();
        assert_eq!(seen.len(), 6, "every order of three threads");
    }
}

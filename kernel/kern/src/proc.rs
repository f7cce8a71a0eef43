//! Processes and lwps.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use abi::Errno;
use arc_swap::ArcSwap;
use hypercall::Host;
use sync::{Condvar, Mutex, Sleeper};

use crate::mapping::Mappings;
use crate::procnote::ProcNotes;
use crate::ptimer::PosixTimers;
use crate::session::Session;
use crate::signal::SignalSink;
use crate::{Cred, Curlwp, FactionId, FdTable};

/// A process number.
pub type Pid = i32;

/// State that a faction keeps for each process (the vfs: current and root directory, umask).
pub type ProcState = Arc<dyn Any + Send + Sync>;

/// A process: descriptors, credentials, limits and the lwps that run in it.
///
/// Locks, in this order: `lwps`, then the leaves `comm` and `limits`. What the hot paths read (credentials, faction
/// state, descriptors) takes no lock.
pub struct Proc {
    /// Its number.
    pub pid: Pid,
    /// What getpid(2) says.
    shown_pid: AtomicI32,
    /// Its parent; `None` for the first process. Only looked at, never counted: children on different CPUs that ask for
    /// their parent do not meet.
    parent: Option<Arc<Life>>,
    comm: Mutex<String>,
    cred: ArcSwap<Cred>,
    fds: Arc<FdTable>,
    pub(crate) limits: Mutex<Limits>,
    /// Its lwps, which belong to the threads that run as them.
    pub(crate) lwps: Mutex<BTreeMap<u64, Weak<Lwp>>>,
    /// Told when an lwp has left; an exec waits for the others here.
    pub(crate) lwp_left: Condvar,
    /// Set while one of its lwps has the others leave (exec): no new ones meanwhile.
    pub(crate) execing: AtomicBool,
    life: Arc<Life>,
    /// Its process group and session; they change under the kernel's lock of groups.
    pgid: AtomicI32,
    session: ArcSwap<Session>,
    notes: ProcNotes,
    timers: OnceLock<Box<PosixTimers>>,
    mappings: Mappings,
    state: [OnceLock<ProcState>; FactionId::COUNT],
    /// Delivers its signals; the kernel's where there is none.
    pub(crate) signal_sink: OnceLock<Arc<dyn SignalSink>>,
    /// Signals that nobody has delivered, a bit each.
    pub(crate) pending: AtomicU64,
}

/// What a process's children know of it, also after its end.
struct Life {
    pid: Pid,
    /// Set when the process is going away: no new lwps, and those it has leave their waits.
    exiting: AtomicBool,
}

/// Resource limits, getrlimit(2): soft and hard by Linux's number of the resource.
#[derive(Clone, Copy, Debug)]
pub struct Limits(pub [(u64, u64); Limits::COUNT]);

/// The most bytes of a file, `RLIMIT_FSIZE`.
pub const RLIMIT_FSIZE: usize = 1;
/// One more than the highest descriptor, `RLIMIT_NOFILE`.
pub const RLIMIT_NOFILE: usize = 7;
/// No limit.
pub const RLIM_INFINITY: u64 = u64::MAX;

impl Limits {
    /// How many resources there are.
    pub const COUNT: usize = 16;
}

impl Default for Limits {
    fn default() -> Self {
        let mut limits = [(RLIM_INFINITY, RLIM_INFINITY); Limits::COUNT];
        limits[RLIMIT_NOFILE] = (1024, crate::fd::FD_MAX as u64);
        Limits(limits)
    }
}

impl Proc {
    pub(crate) fn new(
        pid: Pid,
        parent: Option<&Arc<Proc>>,
        comm: &str,
        cred: Arc<Cred>,
        fds: Arc<FdTable>,
        limits: Limits,
    ) -> Proc {
        fds.users.fetch_add(1, Ordering::Relaxed);
        Proc {
            pid,
            shown_pid: AtomicI32::new(pid),
            parent: parent.map(|p| p.life.clone()),
            comm: Mutex::new(comm.to_owned()),
            cred: ArcSwap::new(cred),
            fds,
            limits: Mutex::new(limits),
            lwps: Mutex::new(BTreeMap::new()),
            lwp_left: Condvar::new("lwpexit"),
            execing: AtomicBool::new(false),
            life: Arc::new(Life {
                pid,
                exiting: AtomicBool::new(false),
            }),
            pgid: AtomicI32::new(parent.map_or(pid, |p| p.pgid())),
            session: ArcSwap::new(parent.map_or_else(|| Session::new(pid), |p| p.session())),
            notes: ProcNotes::default(),
            timers: OnceLock::new(),
            mappings: Mappings::default(),
            state: [const { OnceLock::new() }; FactionId::COUNT],
            signal_sink: OnceLock::new(),
            pending: AtomicU64::new(0),
        }
    }

    /// What it has mapped of files.
    pub(crate) fn mappings(&self) -> &Mappings {
        &self.mappings
    }

    /// The number of its process group.
    pub fn pgid(&self) -> Pid {
        self.pgid.load(Ordering::SeqCst)
    }

    pub(crate) fn set_pgid(&self, pgid: Pid) {
        self.pgid.store(pgid, Ordering::SeqCst);
    }

    /// Its session.
    pub fn session(&self) -> Arc<Session> {
        self.session.load_full()
    }

    pub(crate) fn set_session(&self, session: Arc<Session>) {
        self.session.store(session);
    }

    /// Those who watch it.
    pub fn notes(&self) -> &ProcNotes {
        &self.notes
    }

    /// Its timers.
    pub(crate) fn timers(&self) -> &PosixTimers {
        self.timers.get_or_init(Box::default)
    }

    /// Its timers, if it ever had any.
    pub(crate) fn timers_if_any(&self) -> Option<&PosixTimers> {
        self.timers.get().map(|timers| &**timers)
    }

    /// The number that its own calls are told.
    #[inline]
    pub fn shown_pid(&self) -> Pid {
        self.shown_pid.load(Ordering::Relaxed)
    }

    /// Has its own calls told another number, for a server that acts for processes of its host. Everybody else goes on
    /// knowing it by [`pid`](Self::pid).
    pub fn set_shown_pid(&self, pid: Pid) {
        self.shown_pid.store(pid, Ordering::Relaxed);
    }

    /// Its parent's number: the first process's when the parent is gone, 0 for the first process itself.
    pub fn ppid(&self) -> Pid {
        match &self.parent {
            None => 0,
            Some(parent) if parent.exiting.load(Ordering::SeqCst) => 1,
            Some(parent) => parent.pid,
        }
    }

    /// The command name.
    pub fn comm(&self, cx: &Curlwp<'_>) -> String {
        self.comm.lock(cx.cpu()).clone()
    }

    /// Gives it another command name (exec).
    pub fn set_comm(&self, cx: &Curlwp<'_>, comm: &str) {
        *self.comm.lock(cx.cpu()) = comm.to_owned();
    }

    /// Its credentials.
    #[inline]
    pub fn cred(&self) -> arc_swap::Guard<Arc<Cred>> {
        self.cred.load()
    }

    /// Gives it other credentials.
    pub fn set_cred(&self, cred: Cred) {
        self.cred.store(Arc::new(cred));
    }

    /// Gives it the credentials that `change` makes of the present ones; again from the start when another thread
    /// was faster.
    pub fn change_cred(&self, change: impl Fn(&Cred) -> Result<Cred, Errno>) -> Result<(), Errno> {
        let mut old = self.cred.load_full();
        loop {
            let new = Arc::new(change(&old)?);
            let seen = self.cred.compare_and_swap(&old, new);
            if Arc::ptr_eq(&seen, &old) {
                return Ok(());
            }
            old = Arc::clone(&seen);
        }
    }

    /// Its descriptors.
    #[inline]
    pub fn fds(&self) -> &Arc<FdTable> {
        &self.fds
    }

    /// How many descriptors it may have.
    pub fn fd_limit(&self, cx: &Curlwp<'_>) -> usize {
        self.limit(cx, RLIMIT_NOFILE) as usize
    }

    /// A soft resource limit by Linux's number, such as [`RLIMIT_FSIZE`].
    pub fn limit(&self, cx: &Curlwp<'_>, resource: usize) -> u64 {
        self.limits.lock(cx.cpu()).0[resource].0
    }

    /// Whether it is going away.
    pub fn is_exiting(&self) -> bool {
        self.life.exiting.load(Ordering::SeqCst)
    }

    /// Says that it is going away.
    pub(crate) fn set_exiting(&self) {
        self.life.exiting.store(true, Ordering::SeqCst);
    }

    /// What a faction keeps for this process.
    #[inline]
    pub fn state(&self, faction: FactionId) -> Option<&ProcState> {
        self.state[faction as usize].get()
    }

    /// Sets what a faction keeps for this process; once, in the faction's fork hook.
    pub fn set_state(&self, faction: FactionId, state: ProcState) {
        let _ = self.state[faction as usize].set(state);
    }
}

/// A light-weight process: a thread of control of a process.
pub struct Lwp {
    /// Its number, unique in the kernel.
    pub lid: u64,
    proc: Arc<Proc>,
    sleeper: Arc<Sleeper>,
    /// Where the next descriptors of this lwp go, -1 for the lowest free: a client that keeps a host descriptor
    /// of the same number chooses it.
    hints: [AtomicI32; 2],
    hints_set: AtomicU32,
    /// Told to leave: see [`Lwp::is_leaving`].
    leaving: AtomicBool,
    /// Whether it acts with `cred` instead of its process's credentials: see [`Curlwp::with_cred`].
    acts: AtomicBool,
    cred: OnceLock<Box<ArcSwap<Cred>>>,
}

impl Lwp {
    pub(crate) fn new(lid: u64, proc: Arc<Proc>) -> Lwp {
        Lwp {
            lid,
            proc,
            sleeper: Arc::new(Sleeper::new(lid)),
            hints: [AtomicI32::new(-1), AtomicI32::new(-1)],
            hints_set: AtomicU32::new(0),
            leaving: AtomicBool::new(false),
            acts: AtomicBool::new(false),
            cred: OnceLock::new(),
        }
    }

    /// Its process.
    #[inline]
    pub fn proc(&self) -> &Arc<Proc> {
        &self.proc
    }

    /// Where it sleeps.
    #[inline]
    pub fn sleeper(&self) -> &Arc<Sleeper> {
        &self.sleeper
    }

    /// Whether it has been told to leave, because its process execs or goes away: every wait of it ends with `EINTR`,
    /// and whoever runs as it should drop it soon.
    pub fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::SeqCst)
    }

    /// The credentials that it acts with, if they are not its process's.
    #[inline]
    pub(crate) fn acting(&self) -> Option<arc_swap::Guard<Arc<Cred>>> {
        if !self.acts.load(Ordering::Relaxed) {
            return None;
        }
        self.cred.get().map(|cred| cred.load())
    }

    /// Has it act with other credentials, or with its process's; answers what it did before.
    pub(crate) fn act(&self, new: Option<Arc<Cred>>) -> Option<Arc<Cred>> {
        let old = self.acting().map(|cred| Arc::clone(&cred));
        if let Some(new) = &new {
            let cred = self
                .cred
                .get_or_init(|| Box::new(ArcSwap::new(new.clone())));
            cred.store(new.clone());
        }
        self.acts.store(new.is_some(), Ordering::Relaxed);
        old
    }

    /// Tells it to leave.
    pub(crate) fn dismiss(&self, host: &dyn Host) {
        self.leaving.store(true, Ordering::SeqCst);
        self.sleeper.interrupt(host);
    }

    /// Chooses the numbers of the next one or two descriptors that a call of this lwp makes; -1 for the lowest
    /// free one. A hint is used up by the descriptor it was for; set anew before each call.
    pub fn set_fd_hints(&self, hints: [i32; 2]) {
        for (slot, hint) in self.hints.iter().zip(hints) {
            slot.store(hint, Ordering::Relaxed);
        }
        self.hints_set
            .store(u32::from(hints != [-1, -1]), Ordering::Relaxed);
    }

    /// The number chosen for the next descriptor.
    pub(crate) fn take_fd_hint(&self) -> Option<i32> {
        if self.hints_set.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let hint = self.hints[0].swap(self.hints[1].swap(-1, Ordering::Relaxed), Ordering::Relaxed);
        (hint >= 0).then_some(hint)
    }
}

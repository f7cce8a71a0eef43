//! The kernel value.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use abi::Errno;
use hypercall::{Host, Nanos};
use sync::{Cpus, Mutex, MutexGuard, OffCpu, RwLock, SleepQueues};

use crate::callout::Timers;
use crate::evcnt::{Evcnt, Evcnts};
use crate::hooks::{ShutdownHook, SocketNames};
use crate::kthread::Threads;
use crate::lwproc::ImplicitPool;
use crate::module::Modules;
use crate::msgbuf::MsgBuf;
use crate::proc::Limits;
use crate::procnote::ProcEvent;
use crate::report::Reports;
use crate::service::Service;
use crate::signal::SignalSink;
use crate::softint::Softints;
use crate::sysctl::Sysctl;
use crate::sysent::{EXPLORED, Sysent, THREADLESS};
use crate::trace::Tracer;
use crate::xcall::Xcalls;
use crate::{Component, Config, Cred, Curlwp, FdTable, Pid, Proc, ProcHooks, ksem};

/// How many processes a kernel may have unless told otherwise: each client of a server has one.
const MAXPROC: usize = 1 << 18;

/// The factions besides the kernel proper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FactionId {
    /// Files and file systems.
    Vfs = 0,
    /// Sockets and protocols.
    Net = 1,
    /// Devices.
    Dev = 2,
}

impl FactionId {
    /// How many there are.
    pub const COUNT: usize = 3;
}

/// A kernel: everything that the reference keeps in globals.
///
/// Locks: `groups` comes before `procs`, and that before a process's own locks; `hooks`, `shutdown`, `hostname`, `semaphores`
/// and `msgbuf` are leaves.
pub struct Kernel {
    host: Arc<dyn Host>,
    config: Config,
    cpus: Cpus,
    sysent: Sysent,
    boottime: Nanos,
    hostname: Mutex<String>,
    procs: RwLock<BTreeMap<Pid, Arc<Proc>>>,
    init: OnceLock<Arc<Proc>>,
    implicit: ImplicitPool,
    next_pid: AtomicI32,
    maxproc: AtomicUsize,
    next_lid: AtomicU64,
    next_anon_ino: AtomicU64,
    epoll_topology: Mutex<()>,
    groups: Mutex<()>,
    semaphores: ksem::Names,
    factions: [OnceLock<Arc<dyn Any + Send + Sync>>; FactionId::COUNT],
    hooks: Mutex<Vec<ProcHooks>>,
    shutdown: Mutex<Vec<(&'static str, ShutdownHook)>>,
    socket_names: OnceLock<&'static dyn SocketNames>,
    pub(crate) signal_sink: OnceLock<Arc<dyn SignalSink>>,
    components: OnceLock<Vec<&'static Component>>,
    modules: Modules,
    msgbuf: Mutex<MsgBuf>,
    sleepq: SleepQueues,
    timers: Arc<Timers>,
    services: Mutex<Vec<Weak<Service>>>,
    threads: Threads,
    softints: Arc<Softints>,
    xcalls: Xcalls,
    evcnts: Evcnts,
    /// Counts processes as they are made.
    forks: OnceLock<Evcnt>,
    sysctl: Sysctl,
    reports: Reports,
    tracer: Tracer,
    pub(crate) phase: AtomicU32,
    pub(crate) howto: AtomicU32,
    /// Why the dispatcher may not just run a call; 0 for no reason. See [`crate::sysent`].
    pub(crate) attention: AtomicU32,
}

impl Kernel {
    /// The bare value, before boot has done anything with it.
    pub(crate) fn bare(host: Arc<dyn Host>, config: Config, me: Weak<Kernel>) -> Kernel {
        let cpus = Cpus::new(host.clone(), config.ncpu);
        Kernel {
            sleepq: SleepQueues::default(),
            timers: Timers::new(me, host.clone()),
            services: Mutex::default(),
            threads: Threads::default(),
            softints: Arc::default(),
            xcalls: Xcalls::new(&cpus),
            evcnts: Evcnts::new(&cpus),
            forks: OnceLock::new(),
            sysctl: Sysctl::default(),
            reports: Reports::default(),
            tracer: Tracer::default(),
            cpus,
            sysent: Sysent::default(),
            boottime: host.now(hypercall::Clock::Realtime),
            hostname: Mutex::new(config.hostname.clone()),
            procs: RwLock::default(),
            init: OnceLock::new(),
            implicit: ImplicitPool::new(config.ncpu),
            next_pid: AtomicI32::new(0),
            maxproc: AtomicUsize::new(MAXPROC),
            next_lid: AtomicU64::new(1),
            next_anon_ino: AtomicU64::new(1),
            epoll_topology: Mutex::new(()),
            groups: Mutex::new(()),
            semaphores: ksem::Names::default(),
            factions: [const { OnceLock::new() }; FactionId::COUNT],
            hooks: Mutex::default(),
            shutdown: Mutex::default(),
            socket_names: OnceLock::new(),
            signal_sink: OnceLock::new(),
            components: OnceLock::new(),
            modules: Modules::default(),
            msgbuf: Mutex::default(),
            phase: AtomicU32::new(0),
            howto: AtomicU32::new(0),
            attention: AtomicU32::new(if host.explores() { EXPLORED } else { 0 }),
            host,
            config,
        }
    }

    /// The host it runs on.
    pub fn host(&self) -> &Arc<dyn Host> {
        &self.host
    }

    /// What it was configured with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Bytes that caches may take.
    pub fn memory_limit(&self) -> u64 {
        let share = || self.host.memory() / 2;
        self.config.memlimit.unwrap_or_else(share)
    }

    /// Its virtual CPUs.
    #[inline]
    pub fn cpus(&self) -> &Cpus {
        &self.cpus
    }

    /// Its system-call vector.
    #[inline]
    pub fn sysent(&self) -> &Sysent {
        &self.sysent
    }

    /// When it was booted, on the realtime clock.
    pub fn boottime(&self) -> Nanos {
        self.boottime
    }

    /// Its name, `kern.hostname`.
    pub fn hostname(&self, cx: &Curlwp<'_>) -> String {
        self.hostname.lock(cx.cpu()).clone()
    }

    /// Gives it another name.
    pub fn set_hostname(&self, cx: &Curlwp<'_>, name: &str) {
        *self.hostname.lock(cx.cpu()) = name.to_owned();
    }

    /// What a faction keeps for the whole kernel; `None` when the faction is absent.
    #[inline]
    pub fn faction(&self, id: FactionId) -> Option<&Arc<dyn Any + Send + Sync>> {
        self.factions[id as usize].get()
    }

    /// Sets what a faction keeps for the whole kernel; once, when the faction starts.
    pub fn set_faction(&self, id: FactionId, state: Arc<dyn Any + Send + Sync>) {
        let _ = self.factions[id as usize].set(state);
    }

    /// Hangs a faction into the life of processes; those that exist already are told of at once.
    pub fn add_proc_hooks(&self, cx: &Curlwp<'_>, hooks: ProcHooks) {
        let existing: Vec<Arc<Proc>> = self.procs.read(cx.cpu()).values().cloned().collect();
        self.hooks.lock(cx.cpu()).push(hooks);
        for proc in existing {
            (hooks.fork)(cx, None, &proc);
        }
    }

    /// Has `hook` called when the kernel halts; `what` names it in messages.
    pub fn at_shutdown(&self, cx: &Curlwp<'_>, what: &'static str, hook: ShutdownHook) {
        self.shutdown.lock(cx.cpu()).push((what, hook));
    }

    pub(crate) fn take_shutdown_hooks(&self, cx: &Curlwp<'_>) -> Vec<(&'static str, ShutdownHook)> {
        std::mem::take(&mut *self.shutdown.lock(cx.cpu()))
    }

    /// Gives sockets names in the file system; the vfs faction does it when it starts.
    pub fn set_socket_names(&self, names: &'static dyn SocketNames) {
        let _ = self.socket_names.set(names);
    }

    /// Names of sockets in the file system; `EOPNOTSUPP` where there is no vfs faction.
    pub fn socket_names(&self) -> Result<&'static dyn SocketNames, Errno> {
        self.socket_names.get().copied().ok_or(Errno::EOPNOTSUPP)
    }

    /// The components that have started, in order.
    pub fn components(&self) -> &[&'static Component] {
        self.components.get().map_or(&[], Vec::as_slice)
    }

    pub(crate) fn set_components(&self, list: Vec<&'static Component>) {
        let _ = self.components.set(list);
    }

    pub(crate) fn modules(&self) -> &Modules {
        &self.modules
    }

    /// A line for the message buffer, and for the console when the kernel is verbose. Callable from any thread.
    pub fn log(&self, line: fmt::Arguments<'_>) {
        let text = format!("{line}\n");
        self.msgbuf
            .lock(&OffCpu(&*self.host))
            .append(text.as_bytes());
        if self.config.verbose {
            self.host.console_write(text.as_bytes());
        }
    }

    /// Where lwps sleep on an identity: tsleep and wakeup.
    pub fn sleepq(&self) -> &SleepQueues {
        &self.sleepq
    }

    /// What is in the message buffer.
    pub fn messages(&self) -> Vec<u8> {
        self.msgbuf.lock(&OffCpu(&*self.host)).contents()
    }

    /// Empties the message buffer.
    pub fn clear_messages(&self) {
        *self.msgbuf.lock(&OffCpu(&*self.host)) = MsgBuf::default();
    }

    /// How many processes there may be, `kern.maxproc`.
    pub fn maxproc(&self) -> usize {
        self.maxproc.load(Ordering::Relaxed)
    }

    /// Sets how many processes there may be; those that are there stay.
    pub fn set_maxproc(&self, count: usize) {
        self.maxproc.store(count, Ordering::Relaxed);
    }

    /// `EAGAIN` when there are as many processes as there may be.
    pub(crate) fn check_maxproc(&self, cx: &Curlwp<'_>) -> Result<(), Errno> {
        if self.proc_count(cx) >= self.maxproc() {
            return Err(Errno::EAGAIN);
        }
        Ok(())
    }

    /// How many processes there are.
    pub fn proc_count(&self, cx: &Curlwp<'_>) -> usize {
        self.procs.read(cx.cpu()).len()
    }

    /// The process of a number.
    pub fn find_proc(&self, cx: &Curlwp<'_>, pid: Pid) -> Option<Arc<Proc>> {
        self.procs.read(cx.cpu()).get(&pid).cloned()
    }

    /// Every process, by number.
    pub fn all_procs(&self, cx: &Curlwp<'_>) -> Vec<Arc<Proc>> {
        self.procs.read(cx.cpu()).values().cloned().collect()
    }

    /// The first process, to which threads without an lwp of their own belong.
    pub(crate) fn init_proc(&self) -> &Arc<Proc> {
        self.init.get_or_init(|| {
            let fds = Arc::new(FdTable::default());
            Arc::new(Proc::new(
                self.next_pid(),
                None,
                "rumplocal",
                Arc::new(Cred::root()),
                fds,
                Limits::default(),
            ))
        })
    }

    /// Its event counters.
    #[inline]
    pub fn evcnts(&self) -> &Evcnts {
        &self.evcnts
    }

    /// What its parts tell of themselves.
    pub fn reports(&self) -> &Reports {
        &self.reports
    }

    /// Its sysctl tree.
    pub fn sysctl(&self) -> &Sysctl {
        &self.sysctl
    }

    pub(crate) fn tracer(&self) -> &Tracer {
        &self.tracer
    }

    pub(crate) fn timers(&self) -> &Arc<Timers> {
        &self.timers
    }

    pub(crate) fn threads(&self) -> &Threads {
        &self.threads
    }

    pub(crate) fn softints(&self) -> &Arc<Softints> {
        &self.softints
    }

    pub(crate) fn xcalls(&self) -> &Xcalls {
        &self.xcalls
    }

    pub(crate) fn add_service(&self, cx: &Curlwp<'_>, service: &Arc<Service>) {
        let mut services = self.services.lock(cx.cpu());
        services.retain(|s| s.strong_count() != 0);
        services.push(Arc::downgrade(service));
    }

    /// What serves the work queues.
    pub(crate) fn services(&self, cx: &Curlwp<'_>) -> Vec<Arc<Service>> {
        let services = self.services.lock(cx.cpu());
        services.iter().filter_map(Weak::upgrade).collect()
    }

    /// Has system calls do what threads of the kernel would, because there are none.
    pub(crate) fn serve_without_threads(&self) {
        self.attention.fetch_or(THREADLESS, Ordering::SeqCst);
    }

    /// Whether system calls do what threads of the kernel would.
    pub(crate) fn is_threadless(&self) -> bool {
        self.attention.load(Ordering::Relaxed) & THREADLESS != 0
    }

    pub(crate) fn implicit_pool(&self) -> &ImplicitPool {
        &self.implicit
    }

    pub(crate) fn next_lid(&self) -> u64 {
        self.next_lid.fetch_add(1, Ordering::Relaxed)
    }

    /// A number for a file without a name.
    pub(crate) fn next_anon_ino(&self) -> u64 {
        self.next_anon_ino.fetch_add(1, Ordering::Relaxed)
    }

    /// Held while one epoll instance is added to another.
    pub(crate) fn epoll_topology<'a>(&'a self, cx: &'a Curlwp<'_>) -> MutexGuard<'a, ()> {
        self.epoll_topology.lock(cx.cpu())
    }

    /// Held while process groups change.
    pub(crate) fn lock_groups<'a>(&'a self, cx: &'a Curlwp<'_>) -> MutexGuard<'a, ()> {
        self.groups.lock(cx.cpu())
    }

    /// The names of semaphores.
    pub(crate) fn semaphores(&self) -> &ksem::Names {
        &self.semaphores
    }

    fn next_pid(&self) -> Pid {
        // Numbers are not used again: a kernel would have to fork two thousand million times.
        self.next_pid.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn register_init(&self, cx: &Curlwp<'_>) {
        let init = self.init_proc();
        let _ = self.forks.set(self.evcnts.attach(cx, "proc", "made"));
        self.procs.write(cx.cpu()).insert(init.pid, init.clone());
    }

    pub(crate) fn new_proc(
        &self,
        cx: &Curlwp<'_>,
        parent: Option<&Arc<Proc>>,
        comm: &str,
        cred: Arc<Cred>,
        fds: Arc<FdTable>,
        limits: Limits,
    ) -> Arc<Proc> {
        let proc = Arc::new(Proc::new(self.next_pid(), parent, comm, cred, fds, limits));
        if let Some(&forks) = self.forks.get() {
            self.evcnts.count(cx.cpu(), forks);
        }
        if let Some(parent) = parent {
            parent.notes().tell(cx.cpu(), ProcEvent::Fork(proc.pid));
        }
        let hooks = self.hooks.lock(cx.cpu()).clone();
        for hook in hooks {
            (hook.fork)(cx, parent.map(|p| &**p), &proc);
        }
        self.procs.write(cx.cpu()).insert(proc.pid, proc.clone());
        proc
    }

    /// Takes a process out of the kernel; its children count as the first process's from here on.
    pub(crate) fn forget_proc(&self, cx: &Curlwp<'_>, proc: &Proc) {
        self.procs.write(cx.cpu()).remove(&proc.pid);
        proc.notes().tell(cx.cpu(), ProcEvent::Exit);
        let hooks = self.hooks.lock(cx.cpu()).clone();
        for hook in hooks.iter().rev() {
            (hook.exit)(cx, proc);
        }
    }
}

impl Drop for Kernel {
    /// A kernel that is dropped without a shutdown still takes its service threads with it.
    fn drop(&mut self) {
        self.timers.service().stop();
        for service in self.services.get_mut().iter().filter_map(Weak::upgrade) {
            service.stop();
        }
    }
}

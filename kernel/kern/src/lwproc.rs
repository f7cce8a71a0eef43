//! lwproc: making processes and lwps, and running as one.
//!
//! A [`LwpHandle`] is an lwp that a host thread owns. It can move between threads but serves one at a time, which
//! the type holds: it is `Send` and not `Sync`. Dropping it releases the lwp; the last lwp of a process takes the
//! process with it.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use abi::{Arg, Errno, Invoke, SysResult};
use sync::OnBlock;

use crate::proc::Limits;
use crate::procnote::ProcEvent;
use crate::{
    ArgMemory, Cred, Curlwp, FdTable, Kernel, KernelMemory, Lwp, Pid, Proc, UserMemory, fd,
};

/// What a new process does with its parent's descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RforkFds {
    /// Has the same table.
    Share,
    /// Has a copy of the table (`RFFDG`).
    Copy,
    /// Starts with none (`RFCFDG`).
    Clear,
}

/// An lwp owned by a host thread.
pub struct LwpHandle {
    kernel: Arc<Kernel>,
    lwp: Arc<Lwp>,
    one_thread_at_a_time: PhantomData<Cell<()>>,
}

impl LwpHandle {
    fn new(kernel: &Arc<Kernel>, lwp: Arc<Lwp>) -> LwpHandle {
        LwpHandle {
            kernel: kernel.clone(),
            lwp,
            one_thread_at_a_time: PhantomData,
        }
    }

    /// The kernel it belongs to.
    pub fn kernel(&self) -> &Arc<Kernel> {
        &self.kernel
    }

    /// The lwp.
    pub fn lwp(&self) -> &Arc<Lwp> {
        &self.lwp
    }

    /// The number of its process.
    pub fn pid(&self) -> Pid {
        self.lwp.proc().pid
    }

    /// Runs `f` in the kernel as this lwp, with `mem` as the caller's memory.
    #[inline]
    pub fn enter<R>(&self, mem: &dyn UserMemory, f: impl FnOnce(&Curlwp<'_>) -> R) -> R {
        f(&Curlwp::enter(&self.kernel, &self.lwp, mem, None))
    }

    /// [`enter`](Self::enter), and `on_block` is called, without a virtual CPU, each time the lwp gives its own up to wait or
    /// has to wait for one: for a frontend whose thread has duties that somebody else must see to while it sleeps.
    #[inline]
    pub fn enter_told<R>(
        &self,
        mem: &dyn UserMemory,
        on_block: Option<OnBlock<'_>>,
        f: impl FnOnce(&Curlwp<'_>) -> R,
    ) -> R {
        f(&Curlwp::enter(&self.kernel, &self.lwp, mem, on_block))
    }

    /// Takes a virtual CPU as this lwp, until the value is dropped: for a frontend whose interface has no scope, such as
    /// rump_schedule.
    #[inline]
    pub fn schedule<'a>(&'a self, mem: &'a dyn UserMemory) -> Curlwp<'a> {
        Curlwp::enter(&self.kernel, &self.lwp, mem, None)
    }

    /// Makes a system call by number with raw registers.
    #[inline]
    pub fn syscall(&self, mem: &dyn UserMemory, nr: u32, args: &[u64; 6]) -> SysResult {
        self.enter(mem, |cx| cx.syscall(nr, args))
    }

    /// Makes a child process of this lwp's process and its first lwp.
    pub fn rfork(&self, fds: RforkFds) -> Result<LwpHandle, Errno> {
        self.enter(&KernelMemory, |cx| rfork(cx, fds))
    }
}

impl Invoke for LwpHandle {
    #[inline]
    fn invoke(&self, nr: u32, args: &mut [Arg<'_>]) -> SysResult {
        let raw = ArgMemory::registers(args);
        self.syscall(&ArgMemory::new(args), nr, &raw)
    }
}

impl Drop for LwpHandle {
    fn drop(&mut self) {
        self.enter(&KernelMemory, release_current);
    }
}

impl Kernel {
    /// A new process, child of the first one, with no descriptors (or the first one's, by `fds`).
    pub fn rfork(self: &Arc<Self>, fds: RforkFds) -> Result<LwpHandle, Errno> {
        self.implicit(&KernelMemory, |cx| rfork(cx, fds))
    }

    /// A new process, child of the first one, without descriptors, with a command name and credentials of its own.
    pub fn spawn(self: &Arc<Self>, comm: &str, cred: Cred) -> Result<LwpHandle, Errno> {
        self.implicit(&KernelMemory, |cx| {
            self.check_maxproc(cx)?;
            let child = self.new_proc(
                cx,
                Some(cx.proc()),
                comm,
                Arc::new(cred),
                Arc::new(FdTable::default()),
                Limits::default(),
            );
            let lwp = self.new_lwp(cx, &child)?;
            Ok(LwpHandle::new(self, lwp))
        })
    }

    /// A new lwp in a process. `ESRCH` when there is no such process, `EBUSY` when it is going away.
    pub fn newlwp(self: &Arc<Self>, pid: Pid) -> Result<LwpHandle, Errno> {
        self.implicit(&KernelMemory, |cx| {
            let proc = self.find_proc(cx, pid).ok_or(Errno::ESRCH)?;
            newlwp(cx, &proc)
        })
    }

    /// Runs `f` in the kernel for a thread that has no lwp of its own: as an lwp of the first process, kept in a
    /// pool, with `mem` as the caller's memory.
    pub fn implicit<R>(
        self: &Arc<Self>,
        mem: &dyn UserMemory,
        f: impl FnOnce(&Curlwp<'_>) -> R,
    ) -> R {
        let lwp = self.implicit_pool().take(self);
        let result = f(&Curlwp::enter(self, &lwp, mem, None));
        self.implicit_pool().put(self, lwp);
        result
    }

    /// A new lwp of the first process, for a thread of the kernel's own or one that came without an lwp.
    pub(crate) fn kernel_lwp(&self) -> Arc<Lwp> {
        let proc = self.init_proc();
        let lwp = Arc::new(Lwp::new(self.next_lid(), proc.clone()));
        proc.lwps
            .lock(&sync::OffCpu(&**self.host()))
            .insert(lwp.lid, Arc::downgrade(&lwp));
        lwp
    }

    pub(crate) fn new_lwp(&self, cx: &Curlwp<'_>, proc: &Arc<Proc>) -> Result<Arc<Lwp>, Errno> {
        let mut lwps = proc.lwps.lock(cx.cpu());
        if proc.is_exiting() || proc.execing.load(Ordering::SeqCst) {
            return Err(Errno::EBUSY);
        }
        let lwp = Arc::new(Lwp::new(self.next_lid(), proc.clone()));
        lwps.insert(lwp.lid, Arc::downgrade(&lwp));
        Ok(lwp)
    }

    /// Ends a process from outside, as when its remote client is gone: no new lwps, and every lwp it has leaves its
    /// wait at once with `EINTR`. What they hold is given back as they leave; nothing is freed under them.
    pub fn proc_exit(&self, cx: &Curlwp<'_>, proc: &Proc) {
        let lwps = proc.lwps.lock(cx.cpu());
        proc.set_exiting();
        dismiss(cx, lwps.values());
    }
}

/// Tells lwps to leave.
fn dismiss<'a>(cx: &Curlwp<'_>, lwps: impl Iterator<Item = &'a Weak<Lwp>>) {
    for lwp in lwps.filter_map(Weak::upgrade) {
        lwp.dismiss(&**cx.kernel().host());
    }
}

/// The kernel's part of execve(2): the same process goes on as another program. Its other lwps are told to leave and
/// are waited for (whoever owns their handles must drop them), close-on-exec descriptors are closed, and the saved
/// ids become the effective ones. `EBUSY` when another lwp is at it already, `EINTR`.
pub fn exec(cx: &Curlwp<'_>, comm: &str) -> Result<(), Errno> {
    let proc = cx.proc();
    if proc.execing.swap(true, Ordering::SeqCst) {
        return Err(Errno::EBUSY);
    }
    let alone = be_alone(cx);
    if alone.is_ok() {
        proc.change_cred(|old| {
            Ok(Cred {
                suid: old.euid,
                sgid: old.egid,
                ..old.clone()
            })
        })?;
        exec_alone(cx, comm);
    }
    proc.execing.store(false, Ordering::SeqCst);
    alone
}

/// The last part of an exec, for whoever has seen to it that nothing else runs in the process: descriptors that close on
/// exec and the timers of timer_create(2) go, and the process has its new name.
pub fn exec_alone(cx: &Curlwp<'_>, comm: &str) {
    let proc = cx.proc();
    for number in proc.fds().numbers(cx, 0, fd::FD_MAX) {
        if proc.fds().close_on_exec(number) == Ok(true)
            && let Ok(file) = proc.fds().remove(cx, number)
        {
            fd::release(cx, &file);
        }
    }
    if let Some(timers) = proc.timers_if_any() {
        timers.clear(cx);
    }
    proc.mappings().clear(cx);
    proc.set_comm(cx, comm);
    proc.notes().tell(cx.cpu(), ProcEvent::Exec);
}

/// Waits until the current lwp is the only one of its process.
fn be_alone(cx: &Curlwp<'_>) -> Result<(), Errno> {
    let proc = cx.proc();
    let me = cx.lwp().lid;
    let mut lwps = proc.lwps.lock(cx.cpu());
    dismiss(
        cx,
        lwps.iter().filter(|(lid, _)| **lid != me).map(|(_, l)| l),
    );
    while lwps.len() > 1 {
        let wake;
        (lwps, wake) = proc.lwp_left.wait_intr(cx.cpu(), lwps, None);
        if wake == sync::Wake::Interrupted {
            return Err(Errno::EINTR);
        }
    }
    Ok(())
}

/// Makes a child of the current process and its first lwp.
pub fn rfork(cx: &Curlwp<'_>, fds: RforkFds) -> Result<LwpHandle, Errno> {
    cx.kernel().check_maxproc(cx)?;
    let parent = cx.proc();
    let fds_table = match fds {
        RforkFds::Share => parent.fds().clone(),
        RforkFds::Copy => Arc::new(parent.fds().copy(cx)),
        RforkFds::Clear => Arc::new(FdTable::default()),
    };
    let limits: Limits = *parent.limits.lock(cx.cpu());
    let cred: Arc<Cred> = parent.cred().clone();
    let comm = parent.comm(cx);
    let child = cx
        .kernel()
        .new_proc(cx, Some(parent), &comm, cred, fds_table, limits);
    if fds != RforkFds::Clear {
        child.mappings().inherit(cx, parent.mappings());
    }
    let lwp = cx.kernel().new_lwp(cx, &child)?;
    Ok(LwpHandle::new(cx.kernel(), lwp))
}

/// Makes another lwp in a process. `EBUSY` when it is going away.
pub fn newlwp(cx: &Curlwp<'_>, proc: &Arc<Proc>) -> Result<LwpHandle, Errno> {
    let lwp = cx.kernel().new_lwp(cx, proc)?;
    Ok(LwpHandle::new(cx.kernel(), lwp))
}

/// Releases the lwp that runs; the last one of its process ends the process.
fn release_current(cx: &Curlwp<'_>) {
    let proc = cx.proc();
    let last = {
        let mut lwps = proc.lwps.lock(cx.cpu());
        lwps.remove(&cx.lwp().lid);
        let last = lwps.is_empty();
        if last {
            proc.set_exiting();
        }
        last
    };
    proc.lwp_left.broadcast(cx.cpu());
    if last {
        end_process(cx, proc);
    }
}

/// Gives back everything a process has, as its last lwp leaves.
fn end_process(cx: &Curlwp<'_>, proc: &Arc<Proc>) {
    cx.lwp().sleeper().clear();
    if let Some(timers) = proc.timers_if_any() {
        timers.end(cx);
    }
    proc.mappings().clear(cx);
    if proc.fds().users.fetch_sub(1, Ordering::AcqRel) == 1 {
        for number in proc.fds().numbers(cx, 0, fd::FD_MAX) {
            if let Ok(file) = proc.fds().remove(cx, number) {
                fd::release(cx, &file);
            }
        }
    }
    cx.kernel().forget_proc(cx, proc);
}

/// Keeps idle lwps of the first process for threads without one. A few stacks, chosen by the thread, so that two
/// threads seldom meet and the same thread finds the lwp that has its CPU.
pub(crate) struct ImplicitPool {
    stacks: Box<[sync::Mutex<Vec<Arc<Lwp>>>]>,
}

impl ImplicitPool {
    pub(crate) fn new(count: usize) -> ImplicitPool {
        ImplicitPool {
            stacks: (0..count.max(1) * 4)
                .map(|_| sync::Mutex::default())
                .collect(),
        }
    }

    fn stack(&self, kernel: &Kernel) -> &sync::Mutex<Vec<Arc<Lwp>>> {
        &self.stacks[kernel.host().thread_hint() % self.stacks.len()]
    }

    fn take(&self, kernel: &Arc<Kernel>) -> Arc<Lwp> {
        let off = sync::OffCpu(&**kernel.host());
        if let Some(lwp) = self.stack(kernel).lock(&off).pop() {
            return lwp;
        }
        let proc = kernel.init_proc();
        let lwp = Arc::new(Lwp::new(kernel.next_lid(), proc.clone()));
        proc.lwps.lock(&off).insert(lwp.lid, Arc::downgrade(&lwp));
        lwp
    }

    fn put(&self, kernel: &Kernel, lwp: Arc<Lwp>) {
        self.stack(kernel)
            .lock(&sync::OffCpu(&**kernel.host()))
            .push(lwp);
    }
}

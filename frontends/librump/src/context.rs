//! What a host thread is to the kernel: bound to an lwp or implicit, and whether it holds a virtual CPU by rump_schedule.

use std::cell::{Cell, UnsafeCell};
use std::ffi::{c_int, c_long, c_void};
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering};

use kern::{Curlwp, Errno, LwpHandle, SysResult};
use rumpkit::module::memory::SelfMemory;

use crate::kernel;
use crate::misuse::misuse;

/// C's `struct lwp`: an lwp that threads may switch to.
///
/// The handle serves one thread at a time: the one that set `running`, until it clears it.
pub struct CLwp {
    pub(crate) handle: LwpHandle,
    /// Bound to a thread.
    running: AtomicBool,
}

impl CLwp {
    /// An lwp that no thread is bound to.
    pub(crate) fn new(handle: LwpHandle) -> *const CLwp {
        Box::into_raw(Box::new(CLwp {
            handle,
            running: AtomicBool::new(false),
        }))
    }
}

impl std::fmt::Display for CLwp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (lid, pid) = (self.handle.lwp().lid, self.handle.pid());
        write!(f, "lwp {self:p} ({pid}.{lid})")
    }
}

/// A virtual CPU held from rump_schedule to rump_unschedule. The fields are dropped in this order.
struct Held {
    cx: Curlwp<'static>,
    /// The lwp of an implicit thread, which lives as long.
    #[allow(dead_code)] // held, not read
    implicit: Option<Implicit>,
}

/// A thread's own. `const`-made and without destructor, so that reaching it costs an address; a thread that ends while it
/// is bound leaves its lwp behind, as in rump.
struct Context {
    /// The lwp when a call has nothing else to ask: bound, and no CPU held.
    fast: Cell<*const CLwp>,
    /// The lwp that the thread is bound to; null for an implicit thread.
    bound: Cell<*const CLwp>,
    /// `held` has a value.
    holds: Cell<bool>,
    /// The bound lwp is to go when the CPU goes.
    leaving: Cell<bool>,
    /// How many functions, one inside the other, are using `held`: it stays meanwhile.
    using: Cell<u32>,
    held: UnsafeCell<MaybeUninit<Held>>,
}

thread_local! {
    static CONTEXT: Context = const {
        Context {
            fast: Cell::new(std::ptr::null()),
            bound: Cell::new(std::ptr::null()),
            holds: Cell::new(false),
            leaving: Cell::new(false),
            using: Cell::new(0),
            held: UnsafeCell::new(MaybeUninit::uninit()),
        }
    };
}

/// Makes a system call as the thread's lwp, with its registers naming memory of this process. `ENXIO` before rump_init.
#[inline]
pub(crate) fn syscall(nr: u32, args: &[u64; 6]) -> SysResult {
    CONTEXT.with(|c| {
        // SAFETY: an lwp that the thread is bound to lives until the thread releases it.
        match unsafe { c.fast.get().as_ref() } {
            Some(lwp) => lwp.handle.syscall(&SelfMemory, nr, args),
            None => c.enter(|cx| cx.syscall(nr, args))?,
        }
    })
}

/// Runs in the kernel as the thread's lwp, or for an implicit thread as one from the pool; on the CPU that the thread holds,
/// if it does. `ENXIO` before rump_init.
pub(crate) fn enter<R>(f: impl FnOnce(&Curlwp<'_>) -> R) -> Result<R, Errno> {
    CONTEXT.with(|c| c.enter(f))
}

/// The same with the CPU held as by rump_schedule, for functions of C's that may make calls of this interface themselves. Meanwhile
/// the thread stays the lwp that it is.
pub(crate) fn hold<R>(f: impl FnOnce(&Curlwp<'_>) -> R) -> Result<R, Errno> {
    CONTEXT.with(|c| {
        let took = !c.holds.get();
        if took {
            c.take()?;
        }
        let result = c.enter(f);
        if took {
            c.give_up();
            if c.leaving.get() {
                c.leave();
            }
        }
        result
    })
}

/// Binds the thread to an lwp, or to none when it is null. The lwp it was bound to is free for another thread, or goes if it
/// was released. An answer of false says that `new` is some thread's already.
pub(crate) fn switch(new: *const CLwp) -> bool {
    CONTEXT.with(|c| c.switch(new))
}

/// The lwp that the thread is bound to; null for an implicit thread, or when the lwp was released.
pub(crate) fn curlwp() -> *const CLwp {
    CONTEXT.with(|c| match c.leaving.get() {
        true => std::ptr::null(),
        false => c.bound.get(),
    })
}

/// Releases the thread's lwp, at once or, when it holds a CPU, with the CPU. False when there is none of its own.
pub(crate) fn release() -> bool {
    CONTEXT.with(|c| {
        if c.bound.get().is_null() || c.leaving.get() {
            return false;
        }
        c.leaving.set(true);
        if !c.holds.get() {
            c.leave();
        }
        true
    })
}

impl Context {
    fn enter<R>(&self, f: impl FnOnce(&Curlwp<'_>) -> R) -> Result<R, Errno> {
        if self.holds.get() {
            self.using.set(self.using.get() + 1);
            // SAFETY: `holds` says that there is a value; only this thread reaches it, and `using` keeps it there.
            let result = f(unsafe { &(*self.held.get()).assume_init_ref().cx });
            self.using.set(self.using.get() - 1);
            return Ok(result);
        }
        // SAFETY: as in `syscall`.
        match unsafe { self.bound.get().as_ref() } {
            Some(lwp) => Ok(lwp.handle.enter(&SelfMemory, f)),
            None => Ok(kernel::current()?.implicit(&SelfMemory, f)),
        }
    }

    fn switch(&self, new: *const CLwp) -> bool {
        // SAFETY: C's pointer to an lwp is one that lwproc gave it and that was not released since.
        if let Some(lwp) = unsafe { new.as_ref() }
            && lwp.running.swap(true, Ordering::Acquire)
        {
            return false;
        }
        let held = self.holds.get();
        if held {
            self.give_up();
        }
        self.leave();
        self.bound.set(new);
        self.fast.set(new);
        if held {
            // The CPU was held by somebody in this kernel, so there is one.
            let _ = self.take();
        }
        true
    }

    /// Unbinds the thread; the lwp goes if it was released.
    fn leave(&self) {
        let old = self.bound.replace(std::ptr::null());
        self.fast.set(std::ptr::null());
        let leaving = self.leaving.replace(false);
        // SAFETY: as in `syscall`.
        let Some(lwp) = (unsafe { old.as_ref() }) else {
            return;
        };
        if leaving {
            // SAFETY: made by `CLwp::new`, bound to this thread only, and from here on to none.
            drop(unsafe { Box::from_raw(old.cast_mut()) });
        } else {
            lwp.running.store(false, Ordering::Release);
        }
    }

    /// Takes a virtual CPU and keeps it.
    #[inline]
    fn take(&self) -> Result<(), Errno> {
        // SAFETY: an lwp that the thread is bound to lives until the thread releases it, which gives up the CPU first.
        let bound: Option<&'static CLwp> = unsafe { self.bound.get().as_ref() };
        let (lwp, implicit) = match bound {
            Some(lwp) => (&lwp.handle, None),
            None => {
                let owned = implicit()?;
                // SAFETY: it goes into the same `Held` as the CPU that is held by it, and is dropped after it.
                (unsafe { &*owned.0 }, Some(owned))
            }
        };
        let cx = lwp.schedule(&SelfMemory);
        // SAFETY: only this thread reaches its context, and `holds` was false: there is no value to lose.
        unsafe { (*self.held.get()).write(Held { cx, implicit }) };
        self.holds.set(true);
        self.fast.set(std::ptr::null());
        Ok(())
    }

    /// Gives up the CPU that `take` took. The caller has looked at `holds`.
    #[inline]
    fn give_up(&self) {
        if self.using.get() != 0 {
            in_use(self.bound.get());
        }
        self.holds.set(false);
        // SAFETY: `holds` said that there is a value, and says from now on that there is none. The CPU goes before the lwp.
        unsafe { (*self.held.get()).assume_init_drop() };
        self.fast.set(self.bound.get());
    }
}

/// An lwp of the first process for a thread without one.
struct Implicit(*mut LwpHandle);

impl Drop for Implicit {
    fn drop(&mut self) {
        // SAFETY: made by `implicit`, and dropped once.
        drop(unsafe { Box::from_raw(self.0) });
    }
}

#[cold]
fn implicit() -> Result<Implicit, Errno> {
    let lwp = kernel::current()?.newlwp(1)?;
    Ok(Implicit(Box::into_raw(Box::new(lwp))))
}

/// Makes a system call by its number in docs/syscalls.md, or by that of a module, with its registers as an array of `size` bytes. Answers
/// 0 or the errno; the value goes to `retval`. `EINVAL` for more than six registers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_syscall(
    num: c_int,
    args: *const c_void,
    size: usize,
    retval: *mut c_long,
) -> c_int {
    // SAFETY: the caller's conditions are the same.
    unsafe { crate::sys::by_number(num, args, size, retval) }
}

/// rump_schedule: takes a virtual CPU, as the thread's lwp or as a fresh one of the first process, and keeps it until
/// rump_unschedule. Panics when the thread holds one already, and when there is no kernel.
#[unsafe(no_mangle)]
pub extern "C" fn rump_schedule() {
    CONTEXT.with(|c| {
        if c.holds.get() {
            schedule_misuse(c.bound.get());
        }
        if let Err(error) = c.take() {
            misuse(
                rump_schedule as *const (),
                "rump_schedule",
                format_args!("no lwp to run as: {error} (is the kernel booted?)"),
            );
        }
    });
}

#[cold]
fn in_use(lwp: *const CLwp) -> ! {
    // SAFETY: as in `syscall`.
    let who = unsafe { lwp.as_ref() }.map_or("an implicit thread".to_owned(), |l| l.to_string());
    misuse(
        rump_unschedule as *const (),
        "rump_unschedule or rump_pub_lwproc_*",
        format_args!("{who} is in the kernel, in a module's function"),
    )
}

#[cold]
fn schedule_misuse(lwp: *const CLwp) -> ! {
    // SAFETY: as in `syscall`.
    let who = unsafe { lwp.as_ref() }.map_or("an implicit thread".to_owned(), |l| l.to_string());
    misuse(
        rump_schedule as *const (),
        "rump_schedule",
        format_args!("{who} holds a virtual CPU already"),
    )
}

/// rump_unschedule: gives the virtual CPU back; an lwp that was released meanwhile goes with it. Panics when the thread holds
/// none.
#[unsafe(no_mangle)]
pub extern "C" fn rump_unschedule() {
    CONTEXT.with(|c| {
        if !c.holds.get() {
            misuse(
                rump_unschedule as *const (),
                "rump_unschedule",
                format_args!("the thread holds no virtual CPU"),
            );
        }
        c.give_up();
        if c.leaving.get() {
            c.leave();
        }
    });
}

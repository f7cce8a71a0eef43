//! Making processes. Threads are not touched: a new one begins with fresh state. A child process gets a process of its
//! own in the kernel, made before the host makes the child (prefork), and takes it over before it returns to the
//! program.
//!
//! A child of vfork(2) or posix_spawn(3) runs in its parent's memory while the parent's thread sleeps. It must leave
//! nothing of itself there, so it gets a [`Process`] of its own in a mapping that the parent made, and the thread's
//! state leads to that until the parent wakes. Signals are blocked in between, as a handler would take one process
//! for the other.

use abi::{Errno, nr};
use rumpclient::raw::{Client, Cookie, ThreadState};

use crate::entry::{Frame, Outcome};
use crate::fds::err;
use crate::message::die;
use crate::state::{self, Process, Thread};
use crate::sys::{self, host};

const CLONE_VM: u64 = 0x100;
const CLONE_VFORK: u64 = 0x4000;
const CLONE_THREAD: u64 = 0x1_0000;
const CLONE_SETTLS: u64 = 0x8_0000;
const SIG_SETMASK: u64 = 2;

/// A clone that is under way, in a mapping of its own.
pub(crate) struct Cloning {
    cookie: Cookie,
    shares_memory: bool,
    /// The signal mask of the program.
    mask: u64,
    /// How the parent's thread finds its process.
    parent_shift: isize,
    /// What the client core keeps for the parent's thread, while the child uses its place.
    parent_raw: ThreadState,
    /// Whether the child has begun.
    begun: bool,
    /// Memory that the child took for exec and that is the parent's to give back.
    scratch: (*mut u8, usize),
    /// A clone that this child of one is under.
    outer: *mut u8,
    /// The child's process, where memory is shared.
    child: Process,
}

/// Before the host makes a child, with the call's registers.
pub(crate) fn before_clone(frame: &mut Frame) -> Outcome {
    let flags = match frame.rax as u32 {
        nr::fork => 0,
        nr::vfork => CLONE_VM | CLONE_VFORK,
        nr::clone => frame.args[0],
        // SAFETY: struct clone_args begins with its flags; a null pointer is the host's to refuse.
        _ if frame.args[0] >= 4096 => unsafe { *(frame.args[0] as *const u64) },
        _ => return Outcome::Host,
    };
    let shares_memory = flags & CLONE_VM != 0;
    let is_thread = flags & CLONE_THREAD != 0 || shares_memory && flags & CLONE_VFORK == 0;
    if is_thread || !crate::init::connected() {
        return Outcome::Host;
    }
    match prepare(frame, shares_memory, flags) {
        Ok(()) => Outcome::Clone,
        // The kernel is gone: the program may go on without it.
        Err(Errno::ENOTCONN) => Outcome::Host,
        Err(errno) => {
            frame.rax = err(errno) as u64;
            Outcome::Done
        }
    }
}

fn prepare(frame: &Frame, shares_memory: bool, flags: u64) -> Result<(), Errno> {
    if flags & CLONE_SETTLS != 0 {
        // The child would not find its state.
        return Err(Errno::EINVAL);
    }
    let parent = state::process();
    let cookie = parent.client.prefork(state::raw_thread())?;
    let Some(record) = sys::map_anon(0, size_of::<Cloning>(), 0) else {
        let _ = parent.client.prefork_cancel(state::raw_thread(), cookie);
        return Err(Errno::ENOMEM);
    };
    let cloning = record.cast::<Cloning>();
    let thread = state::thread();
    // SAFETY: fresh zeroed memory of the right size; zero bytes are a Process that knows nothing, and each other field
    // is written. The thread's state is this thread's own.
    unsafe {
        (&raw mut (*cloning).cookie).write(cookie);
        (&raw mut (*cloning).shares_memory).write(shares_memory);
        (&raw mut (*cloning).parent_shift).write((*thread).shift);
        (&raw mut (*cloning).parent_raw).write(ThreadState::new());
        (&raw mut (*cloning).outer).write((*thread).cloning);
        (&raw mut (*cloning).scratch).write((core::ptr::null_mut(), 0));
        if shares_memory {
            (*cloning).child.inherit(parent);
            let all = u64::MAX;
            host!(
                rt_sigprocmask,
                SIG_SETMASK,
                &raw const all,
                &raw mut (*cloning).mask,
                8
            );
        }
        (*thread).cloning = record;
        (*thread).clone_return = frame.rcx;
    }
    Ok(())
}

/// After the host has made a child, or has not: in the parent, and in the child before it returns to the program.
pub(crate) extern "C" fn after_clone(frame: &mut Frame) {
    let thread = state::thread();
    // SAFETY: `prepare` left the record with this thread; the child has a copy of it, or shares it while the parent
    // sleeps.
    let cloning = unsafe { &mut *(*thread).cloning.cast::<Cloning>() };
    match frame.rax as i64 {
        0 if cloning.shares_memory => begin_in_parents_memory(thread, cloning),
        0 => begin(thread, cloning),
        ret => resume(thread, cloning, ret),
    }
}

/// In the child of fork(2): memory is a copy, so what is there becomes its own.
fn begin(thread: *mut Thread, cloning: &mut Cloning) {
    let cookie = cloning.cookie;
    drop_record(thread, cloning);
    take_over(state::process(), cookie);
}

/// In the child of vfork(2).
fn begin_in_parents_memory(thread: *mut Thread, cloning: &mut Cloning) {
    let main = &raw const state::MAIN;
    // SAFETY: the thread's state is the parent's, which sleeps until this child execs or ends.
    unsafe {
        (*thread).shift = (&raw const cloning.child).byte_offset_from(main);
        core::mem::swap(&mut (*thread).raw, &mut cloning.parent_raw);
    }
    cloning.begun = true;
    let floor = cloning
        .child
        .floor
        .load(core::sync::atomic::Ordering::Acquire);
    cloning.child.client.set_fd_floor(floor as i32);
    take_over(&cloning.child, cloning.cookie);
    set_mask(cloning.mask);
}

/// In the parent.
fn resume(thread: *mut Thread, cloning: &mut Cloning, ret: i64) {
    if cloning.begun {
        // SAFETY: the child is gone from this memory.
        unsafe {
            (*thread).shift = cloning.parent_shift;
            core::mem::swap(&mut (*thread).raw, &mut cloning.parent_raw);
            Client::thread_discard(&cloning.parent_raw);
            if !cloning.scratch.0.is_null() {
                sys::unmap(cloning.scratch.0, cloning.scratch.1);
            }
        }
    }
    let (cookie, shares_memory, mask) = (cloning.cookie, cloning.shares_memory, cloning.mask);
    drop_record(thread, cloning);
    if ret < 0 {
        let _ = state::process()
            .client
            .prefork_cancel(state::raw_thread(), cookie);
    }
    if shares_memory {
        set_mask(mask);
    }
}

fn drop_record(thread: *mut Thread, cloning: &mut Cloning) {
    // SAFETY: the thread's own state; the record is its mapping and is not used after this.
    unsafe {
        (*thread).cloning = cloning.outer;
        sys::unmap((cloning as *mut Cloning).cast(), size_of::<Cloning>());
    }
}

fn set_mask(mask: u64) {
    // SAFETY: the mask that the program had.
    unsafe { host!(rt_sigprocmask, SIG_SETMASK, &raw const mask, 0, 8) };
}

/// Becomes the process that was made for the child.
fn take_over(process: &Process, cookie: Cookie) {
    let url = crate::init::url();
    if let Err(e) = process
        .client
        .connect_fork(state::raw_thread(), url, cookie)
    {
        die(format_args!(
            "rump_hijack: a child process cannot reach the kernel at {} ({e:?}); is the server still there?\n",
            crate::message::Bytes(url)
        ));
    }
}

/// Leaves memory to the parent to give back, when this is a child that runs in it and is about to exec. Answers
/// whether it is.
pub(crate) fn leave_to_parent(at: *mut u8, bytes: usize) -> bool {
    let thread = state::thread();
    // SAFETY: with a shift the thread is such a child, and its record is there until the parent wakes.
    unsafe {
        if (*thread).shift == 0 || (*thread).cloning.is_null() {
            return false;
        }
        (*(*thread).cloning.cast::<Cloning>()).scratch = (at, bytes);
    }
    true
}

//! RUMP_VOP_LOCK: locks on files among the threads of C that take them. The kernel locks its vnodes itself, so that what a thread of C
//! keeps stops nobody but those who ask for the same lock.

use std::collections::BTreeMap;
use std::ffi::c_int;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

use abi::Errno;

use crate::context::enter;
use crate::misuse::misuse;
use crate::vnode::CVnode;

/// Together with others.
pub const LK_SHARED: c_int = 0x1;
/// Alone.
pub const LK_EXCLUSIVE: c_int = 0x2;
/// Not now means never: `EBUSY`.
pub const LK_NOWAIT: c_int = 0x10;
/// An answer of RUMP_VOP_ISLOCKED: another thread has it alone.
pub const LK_EXCLOTHER: c_int = 0x800;

/// Device and number: every `struct vnode` of a file has the same lock.
type File = (u64, u64);

/// Who has a lock.
#[derive(Default)]
struct Held {
    alone: Option<ThreadId>,
    shared: Vec<ThreadId>,
}

static LOCKS: Mutex<BTreeMap<File, Held>> = Mutex::new(BTreeMap::new());
static CHANGED: Condvar = Condvar::new();

fn locks() -> MutexGuard<'static, BTreeMap<File, Held>> {
    LOCKS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn file(vnode: &CVnode) -> Result<File, Errno> {
    let stat = enter(|cx| vnode.stat(cx))??;
    Ok((stat.st_dev, stat.st_ino))
}

/// Locks. `EINVAL` for flags that say not how, `EBUSY`; `EDEADLK` when the thread has it.
pub(crate) fn lock(vnode: &CVnode, flags: c_int) -> Result<(), Errno> {
    let file = file(vnode)?;
    let me = thread::current().id();
    let alone = match flags & (LK_SHARED | LK_EXCLUSIVE) {
        LK_SHARED => false,
        LK_EXCLUSIVE => true,
        _ => return Err(Errno::EINVAL),
    };
    let try_lock = |locks: &mut BTreeMap<File, Held>| {
        let held = locks.entry(file).or_default();
        if held.alone == Some(me) || alone && held.shared.contains(&me) {
            return Err(Errno::EDEADLK);
        }
        if held.alone.is_some() || alone && !held.shared.is_empty() {
            return Err(Errno::EBUSY);
        }
        match alone {
            true => held.alone = Some(me),
            false => held.shared.push(me),
        }
        Ok(())
    };
    match try_lock(&mut locks()) {
        Err(Errno::EBUSY) if flags & LK_NOWAIT == 0 => {}
        done => return done,
    }
    // Who has it may need the virtual CPU of this thread.
    enter(|cx| {
        cx.unscheduled(|| {
            let mut locks = locks();
            loop {
                match try_lock(&mut locks) {
                    Err(Errno::EBUSY) => {
                        locks = CHANGED.wait(locks).unwrap_or_else(PoisonError::into_inner);
                    }
                    done => return done,
                }
            }
        })
    })?
}

/// Unlocks; misuse when the thread has no lock.
pub(crate) fn unlock(vnode: &CVnode, entry: *const ()) -> Result<(), Errno> {
    let file = file(vnode)?;
    let me = thread::current().id();
    let mut locks = locks();
    let mine = locks.get_mut(&file).is_some_and(|held| {
        if held.alone == Some(me) {
            held.alone = None;
            return true;
        }
        let at = held.shared.iter().position(|&t| t == me);
        at.map(|at| held.shared.swap_remove(at)).is_some()
    });
    if !mine {
        drop(locks);
        misuse(
            entry,
            "RUMP_VOP_UNLOCK",
            format_args!(
                "the thread has no lock on file {} of mount {}",
                file.1, file.0
            ),
        );
    }
    locks.retain(|_, held| held.alone.is_some() || !held.shared.is_empty());
    drop(locks);
    CHANGED.notify_all();
    Ok(())
}

/// How a file is locked.
pub(crate) fn status(vnode: &CVnode) -> c_int {
    let Ok(file) = file(vnode) else {
        return 0;
    };
    match locks().get(&file) {
        Some(held) if held.alone == Some(thread::current().id()) => LK_EXCLUSIVE,
        Some(held) if held.alone.is_some() => LK_EXCLOTHER,
        Some(held) if !held.shared.is_empty() => LK_SHARED,
        _ => 0,
    }
}

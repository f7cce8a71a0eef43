//! POSIX semaphores, `_ksem_*` of NetBSD: sem_init(3) and sem_open(3) stand on them.
//!
//! A semaphore is a file with descriptors as its identifiers, as NetBSD has it: close, fork and exec do with it what they
//! do with files. A named one is kept by its name until that is unlinked.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

use abi::{Errno, O_CREAT, O_EXCL, Stat};
use hypercall::{Clock, Nanos};
use sync::{Condvar, Mutex, Wake};

use crate::poll::{Events, Watcher};
use crate::{Cred, Curlwp, File, OpenFile, Uio, anon};

/// The highest value.
pub const SEM_VALUE_MAX: u32 = i32::MAX as u32;
/// The most bytes of a name, with its slash.
pub const SEM_NAME_MAX: usize = 255;
/// The most names.
const SEMS_MAX: usize = 4096;

/// A semaphore. `state` is a leaf.
pub struct Semaphore {
    state: Mutex<State>,
    posted: Condvar,
    named: bool,
    mode: u32,
    uid: u32,
    gid: u32,
    ident: anon::Ident,
}

struct State {
    value: u32,
    waiters: u32,
    /// Nobody may wait for it any more.
    destroyed: bool,
}

/// The names of semaphores. The lock is a leaf.
pub(crate) type Names = Mutex<BTreeMap<Box<[u8]>, Arc<Semaphore>>>;

impl Semaphore {
    fn make(cx: &Curlwp<'_>, value: u32, named: bool, mode: u32) -> Result<Arc<Semaphore>, Errno> {
        if value > SEM_VALUE_MAX {
            return Err(Errno::EINVAL);
        }
        let cred = cx.cred();
        Ok(Arc::new(Semaphore {
            state: Mutex::new(State {
                value,
                waiters: 0,
                destroyed: false,
            }),
            posted: Condvar::new("ksem"),
            named,
            mode: mode & 0o777,
            uid: cred.euid,
            gid: cred.egid,
            ident: anon::Ident::new(cx),
        }))
    }

    /// One without a name. `EINVAL` for a value that is too high.
    pub fn unnamed(cx: &Curlwp<'_>, value: u32) -> Result<Arc<Semaphore>, Errno> {
        Semaphore::make(cx, value, false, 0o600)
    }

    /// The one of a name, made if `oflag` has `O_CREAT` and there is none. `EEXIST`, `ENOENT`, `EACCES`.
    pub fn open(
        cx: &Curlwp<'_>,
        name: &[u8],
        oflag: i32,
        mode: u32,
        value: u32,
    ) -> Result<Arc<Semaphore>, Errno> {
        if oflag & !(O_CREAT | O_EXCL) != 0 {
            return Err(Errno::EINVAL);
        }
        check_name(name)?;
        let mut names = cx.kernel().semaphores().lock(cx.cpu());
        match names.get(name) {
            Some(_) if oflag == O_CREAT | O_EXCL => Err(Errno::EEXIST),
            Some(sem) if sem.admits(&cx.cred()) => Ok(sem.clone()),
            Some(_) => Err(Errno::EACCES),
            None if oflag & O_CREAT == 0 => Err(Errno::ENOENT),
            None if names.len() >= SEMS_MAX => Err(Errno::ENFILE),
            None => {
                let sem = Semaphore::make(cx, value, true, mode)?;
                names.insert(name.into(), sem.clone());
                Ok(sem)
            }
        }
    }

    /// Whether it has, or had, a name.
    pub fn is_named(&self) -> bool {
        self.named
    }

    /// Whether somebody may open it: read and write permission of the class it is in.
    fn admits(&self, cred: &Cred) -> bool {
        let class = if cred.euid == self.uid {
            self.mode >> 6
        } else if cred.in_group(self.gid) {
            self.mode >> 3
        } else {
            self.mode
        };
        cred.is_superuser() || class & 6 == 6
    }

    /// Adds one, and wakes somebody who waits for it. `EOVERFLOW`.
    pub fn post(&self, cx: &Curlwp<'_>) -> Result<(), Errno> {
        let mut state = self.state.lock(cx.cpu());
        if state.value == SEM_VALUE_MAX {
            return Err(Errno::EOVERFLOW);
        }
        state.value += 1;
        drop(state);
        self.posted.signal(cx.cpu());
        Ok(())
    }

    /// Takes one if there is one. `EAGAIN`.
    pub fn try_wait(&self, cx: &Curlwp<'_>) -> Result<(), Errno> {
        let mut state = self.state.lock(cx.cpu());
        state.value = state.value.checked_sub(1).ok_or(Errno::EAGAIN)?;
        Ok(())
    }

    /// Waits for one and takes it, until a time of the realtime clock. `ETIMEDOUT`, `EINTR`; `EINVAL` once it is
    /// destroyed.
    pub fn wait(&self, cx: &Curlwp<'_>, until: Option<Nanos>) -> Result<(), Errno> {
        let mut state = self.state.lock(cx.cpu());
        loop {
            if state.destroyed {
                return Err(Errno::EINVAL);
            }
            if let Some(less) = state.value.checked_sub(1) {
                state.value = less;
                return Ok(());
            }
            let left = until.map(|at| at.saturating_sub(cx.now(Clock::Realtime)));
            if left == Some(0) {
                return Err(Errno::ETIMEDOUT);
            }
            let deadline = left.map(|left| cx.now(Clock::Monotonic).saturating_add(left));
            state.waiters += 1;
            let wake;
            (state, wake) = self.posted.wait_intr(cx.cpu(), state, deadline);
            state.waiters -= 1;
            if wake == Wake::Interrupted {
                let pass_on = state.value != 0;
                drop(state);
                if pass_on {
                    // A post may have chosen this lwp to wake; another one has the value now.
                    self.posted.signal(cx.cpu());
                }
                return Err(Errno::EINTR);
            }
        }
    }

    /// Its value.
    pub fn value(&self, cx: &Curlwp<'_>) -> u32 {
        self.state.lock(cx.cpu()).value
    }

    /// Lets nobody wait for it any more. `EBUSY` when somebody does.
    pub fn destroy(&self, cx: &Curlwp<'_>) -> Result<(), Errno> {
        let mut state = self.state.lock(cx.cpu());
        if state.waiters != 0 {
            return Err(Errno::EBUSY);
        }
        state.destroyed = true;
        Ok(())
    }
}

/// Takes a name away; who has the semaphore open keeps it. `ENOENT`, `EACCES`.
pub fn unlink(cx: &Curlwp<'_>, name: &[u8]) -> Result<(), Errno> {
    check_name(name)?;
    let mut names = cx.kernel().semaphores().lock(cx.cpu());
    let sem = names.get(name).ok_or(Errno::ENOENT)?;
    let cred = cx.cred();
    if !cred.is_superuser() && cred.euid != sem.uid {
        return Err(Errno::EACCES);
    }
    names.remove(name);
    Ok(())
}

/// A slash, and none behind it.
fn check_name(name: &[u8]) -> Result<(), Errno> {
    match name.strip_prefix(b"/") {
        _ if name.len() > SEM_NAME_MAX => Err(Errno::ENAMETOOLONG),
        Some(rest) if !rest.is_empty() && !rest.contains(&b'/') => Ok(()),
        _ => Err(Errno::EINVAL),
    }
}

impl File for Semaphore {
    fn read(&self, _: &Curlwp<'_>, _: &OpenFile, _: &mut Uio<'_>) -> Result<(), Errno> {
        Err(Errno::EINVAL)
    }

    fn write(&self, _: &Curlwp<'_>, _: &OpenFile, _: &mut Uio<'_>) -> Result<(), Errno> {
        Err(Errno::EINVAL)
    }

    fn pollable(&self) -> bool {
        false
    }

    fn poll(&self, _: &Curlwp<'_>, _: Events, _: Option<&Arc<dyn Watcher>>) -> Events {
        Events::NONE
    }

    fn stat(&self, _: &Curlwp<'_>) -> Result<Stat, Errno> {
        Ok(self.ident.stat(self.mode))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::check_name;
    use abi::Errno;

    #[test]
    fn a_name_is_a_slash_and_something_without_one() {
        assert_eq!(check_name(b"/a"), Ok(()));
        for bad in [&b""[..], b"a", b"/", b"//a", b"/a/b"] {
            assert_eq!(check_name(bad), Err(Errno::EINVAL), "{bad:?}");
        }
        assert_eq!(check_name(&[b'/'; 256]), Err(Errno::ENAMETOOLONG));
    }
}

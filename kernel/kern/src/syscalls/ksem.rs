//! Semaphores, with the descriptors of them as identifiers.

use abi::{Errno, O_CLOEXEC, SysResult, UserAddr, args};

use super::ipc;
use super::time::copyin_timespec;
use crate::ksem::{self, SEM_NAME_MAX, Semaphore};
use crate::{Curlwp, PathBytes, fd};
use std::sync::Arc;

/// Runs `f` with a semaphore. `EINVAL` for a descriptor of something else, and for none.
fn with(cx: &Curlwp<'_>, id: i64, f: impl FnOnce(&Semaphore) -> Result<(), Errno>) -> SysResult {
    let id = i32::try_from(id).map_err(|_| Errno::EINVAL)?;
    let of = cx.file(id).map_err(|_| Errno::EINVAL)?;
    f(of.downcast().ok_or(Errno::EINVAL)?)?;
    Ok(0)
}

/// Makes a descriptor and tells its number as an `intptr_t`. A semaphore is not inherited over an exec, as POSIX asks.
fn install(cx: &Curlwp<'_>, sem: Arc<Semaphore>, idp: UserAddr) -> SysResult {
    let id = ipc::open(cx, sem, O_CLOEXEC)?;
    cx.copyout(&id.to_le_bytes(), idp)
        .inspect_err(|_| close(cx, id as i32))?;
    Ok(0)
}

fn close(cx: &Curlwp<'_>, id: i32) {
    if let Ok(of) = cx.proc().fds().remove(cx, id) {
        fd::release(cx, &of);
    }
}

fn name(cx: &Curlwp<'_>, from: UserAddr) -> Result<PathBytes, Errno> {
    cx.copyin_str(from, SEM_NAME_MAX)
}

/// _ksem_init.
pub(super) fn init(cx: &Curlwp<'_>, a: args::_ksem_init) -> SysResult {
    install(cx, Semaphore::unnamed(cx, a.value)?, a.idp)
}

/// _ksem_open.
pub(super) fn open(cx: &Curlwp<'_>, a: args::_ksem_open) -> SysResult {
    let sem = Semaphore::open(cx, &name(cx, a.name)?, a.oflag, a.mode, a.value)?;
    install(cx, sem, a.idp)
}

/// _ksem_unlink.
pub(super) fn unlink(cx: &Curlwp<'_>, a: args::_ksem_unlink) -> SysResult {
    ksem::unlink(cx, &name(cx, a.name)?)?;
    Ok(0)
}

/// _ksem_close: of one with a name. `EINVAL` for others.
pub(super) fn ksem_close(cx: &Curlwp<'_>, a: args::_ksem_close) -> SysResult {
    with(cx, a.id, |sem| match sem.is_named() {
        true => Ok(()),
        false => Err(Errno::EINVAL),
    })?;
    close(cx, a.id as i32);
    Ok(0)
}

/// _ksem_destroy: of one without a name. `EINVAL` for others, `EBUSY` while somebody waits for it.
pub(super) fn destroy(cx: &Curlwp<'_>, a: args::_ksem_destroy) -> SysResult {
    with(cx, a.id, |sem| match sem.is_named() {
        true => Err(Errno::EINVAL),
        false => sem.destroy(cx),
    })?;
    close(cx, a.id as i32);
    Ok(0)
}

/// _ksem_post.
pub(super) fn post(cx: &Curlwp<'_>, a: args::_ksem_post) -> SysResult {
    with(cx, a.id, |sem| sem.post(cx))
}

/// _ksem_wait.
pub(super) fn wait(cx: &Curlwp<'_>, a: args::_ksem_wait) -> SysResult {
    with(cx, a.id, |sem| sem.wait(cx, None))
}

/// _ksem_trywait.
pub(super) fn trywait(cx: &Curlwp<'_>, a: args::_ksem_trywait) -> SysResult {
    with(cx, a.id, |sem| sem.try_wait(cx))
}

/// _ksem_timedwait. The time is looked at only when there is a wait, as POSIX asks.
pub(super) fn timedwait(cx: &Curlwp<'_>, a: args::_ksem_timedwait) -> SysResult {
    with(cx, a.id, |sem| match sem.try_wait(cx) {
        Err(Errno::EAGAIN) => sem.wait(cx, Some(copyin_timespec(cx, a.abstime)?)),
        done => done,
    })
}

/// _ksem_getvalue.
pub(super) fn getvalue(cx: &Curlwp<'_>, a: args::_ksem_getvalue) -> SysResult {
    with(cx, a.id, |sem| {
        cx.copyout(&sem.value(cx).to_le_bytes(), a.value)
    })
}

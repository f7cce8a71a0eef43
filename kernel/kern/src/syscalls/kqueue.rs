//! kqueue(2), with NetBSD's numbers and structures.

use abi::{Errno, Kevent, O_CLOEXEC, O_NONBLOCK, SysResult, UserAddr, args};

use super::ipc;
use super::poll::{MAX_EVENTS, Until};
use crate::Curlwp;
use crate::kqueue::{EV_ERROR, EV_RECEIPT, EV_SYSFLAGS, Kqueue};

/// kqueue(2).
pub(super) fn kqueue(cx: &Curlwp<'_>, _: args::kqueue) -> SysResult {
    ipc::open(cx, Kqueue::new(cx), 0)
}

/// kqueue1(2).
pub(super) fn kqueue1(cx: &Curlwp<'_>, a: args::kqueue1) -> SysResult {
    if a.flags & !(O_CLOEXEC | O_NONBLOCK) != 0 {
        return Err(Errno::EINVAL);
    }
    ipc::open(cx, Kqueue::new(cx), a.flags)
}

/// kevent(2): makes the changes, then waits for events. A change that fails is an event with `EV_ERROR` where there is room
/// for one, and then nothing is waited for.
pub(super) fn kevent(cx: &Curlwp<'_>, a: args::kevent) -> SysResult {
    let until = Until::timespec(cx, a.timeout)?;
    let of = cx.file(a.kq)?;
    let kq: &Kqueue = of.downcast().ok_or(Errno::EBADF)?;
    let mut told = 0;
    for i in 0..a.nchanges {
        let mut raw = [0; Kevent::SIZE];
        cx.copyin(at(a.changelist, i)?, &mut raw)?;
        let mut kev = Kevent::from_bytes(&raw);
        kev.flags &= !EV_SYSFLAGS;
        let result = kq.register(cx, &kev);
        if result.is_ok() && kev.flags & EV_RECEIPT == 0 {
            continue;
        }
        if told == a.nevents {
            result?;
            return Ok(told as i64);
        }
        kev.flags = EV_ERROR;
        kev.data = result.err().map_or(0, |errno| errno.0.into());
        cx.copyout(&kev.to_bytes(), at(a.eventlist, told)?)?;
        told += 1;
    }
    if told != 0 || a.nevents == 0 {
        return Ok(told as i64);
    }
    let events = kq.wait(cx, a.nevents.min(MAX_EVENTS), until.deadline())?;
    let raw: Vec<u8> = events.iter().flat_map(Kevent::to_bytes).collect();
    cx.copyout(&raw, a.eventlist)?;
    Ok(events.len() as i64)
}

/// Where in the caller's memory the record of an index is.
fn at(list: UserAddr, index: usize) -> Result<UserAddr, Errno> {
    let offset = index.checked_mul(Kevent::SIZE).ok_or(Errno::EINVAL)?;
    Ok(list.add(offset))
}

//! Waiting for readiness: poll, select, epoll.

use abi::{EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD};
use abi::{EpollEvent, Errno, O_CLOEXEC, Pollfd, SysResult, Timeval, UserAddr, args};
use hypercall::{Clock, Nanos};
use sync::Wake;

use super::time::{copyin_timespec, copyout_timespec};
use crate::epoll::Epoll;
use crate::poll::{Events, LwpWaiter, Watcher};
use crate::{Curlwp, OpenFile};
use std::sync::Arc;

/// When a wait ends, on the monotonic clock.
#[derive(Clone, Copy)]
pub(super) enum Until {
    /// At once: only look.
    Now,
    At(Nanos),
    Never,
}

impl Until {
    /// The timeout of poll(2) and epoll_wait(2).
    fn millis(cx: &Curlwp<'_>, timeout: i32) -> Until {
        match timeout {
            0 => Until::Now,
            n if n < 0 => Until::Never,
            n => Until::after(cx, n as u64 * 1_000_000),
        }
    }

    fn after(cx: &Curlwp<'_>, span: Nanos) -> Until {
        match span {
            0 => Until::Now,
            span => Until::At(cx.now(Clock::Monotonic).saturating_add(span)),
        }
    }

    /// From a `struct timespec`; a null pointer means no end.
    pub(super) fn timespec(cx: &Curlwp<'_>, at: UserAddr) -> Result<Until, Errno> {
        if at.is_null() {
            return Ok(Until::Never);
        }
        Ok(Until::after(cx, copyin_timespec(cx, at)?))
    }

    /// The same as a deadline: 0 for at once, `None` for never.
    pub(super) fn deadline(self) -> Option<Nanos> {
        match self {
            Until::Now => Some(0),
            Until::At(end) => Some(end),
            Until::Never => None,
        }
    }

    /// What is left of the time.
    fn left(self, cx: &Curlwp<'_>) -> Nanos {
        match self {
            Until::At(end) => end.saturating_sub(cx.now(Clock::Monotonic)),
            Until::Now | Until::Never => 0,
        }
    }
}

/// One file that a poll waits for.
struct Watched {
    file: Result<Arc<OpenFile>, Errno>,
    wanted: Events,
}

impl Watched {
    fn look(&self, cx: &Curlwp<'_>, watcher: Option<&Arc<dyn Watcher>>) -> Events {
        match &self.file {
            Ok(of) => of.file().poll(cx, self.wanted, watcher) & (self.wanted | Events::ALWAYS),
            Err(_) => Events::NVAL,
        }
    }
}

/// Looks at the files, and waits until one of them has something to tell. Without any, it only sleeps.
fn wait(cx: &Curlwp<'_>, files: &[Option<Watched>], until: Until) -> Result<Vec<Events>, Errno> {
    let look = |watcher: Option<&Arc<dyn Watcher>>| -> Vec<Events> {
        let each = files.iter().map(|file| match file {
            Some(file) => file.look(cx, watcher),
            None => Events::NONE,
        });
        each.collect()
    };
    let ready = |events: &[Events]| events.iter().any(|e| !e.is_empty());
    let mut events = look(None);
    let deadline = match until {
        Until::Now => return Ok(events),
        Until::At(end) => Some(end),
        Until::Never => None,
    };
    if ready(&events) {
        return Ok(events);
    }
    if let Some(watcher) = cx.waits_by(deadline) {
        events = look(Some(&watcher));
        return match ready(&events) {
            true => Ok(events),
            false => Err(Errno::ERESTART),
        };
    }
    let waiter = LwpWaiter::new();
    let watcher: Arc<dyn Watcher> = waiter.clone();
    events = look(Some(&watcher));
    while !ready(&events) && waiter.wait(cx, deadline)? != Wake::TimedOut {
        events = look(None);
    }
    Ok(events)
}

/// poll(2).
pub(super) fn poll(cx: &Curlwp<'_>, a: args::poll) -> SysResult {
    poll_until(cx, a.fds, a.nfds, Until::millis(cx, a.timeout))
}

/// ppoll(2). The signal mask is the client's own affair: signals never reach the kernel.
pub(super) fn ppoll(cx: &Curlwp<'_>, a: args::ppoll) -> SysResult {
    let until = Until::timespec(cx, a.tmo_p)?;
    let result = poll_until(cx, a.fds, a.nfds, until);
    if !a.tmo_p.is_null() {
        let left = match result {
            Err(Errno::ERESTART) => 0,
            _ => until.left(cx),
        };
        copyout_timespec(cx, left, a.tmo_p)?;
    }
    result
}

fn poll_until(cx: &Curlwp<'_>, fds: UserAddr, nfds: u32, until: Until) -> SysResult {
    let count = nfds as usize;
    if count > cx.proc().fd_limit(cx) {
        return Err(Errno::EINVAL);
    }
    let mut raw = vec![0; count * Pollfd::SIZE];
    cx.copyin(fds, &mut raw)?;
    let (entries, _) = raw.as_chunks_mut::<{ Pollfd::SIZE }>();
    let files: Vec<Option<Watched>> = entries
        .iter()
        .map(|entry| {
            let entry = Pollfd::from_bytes(entry);
            (entry.fd >= 0).then(|| Watched {
                file: cx.file(entry.fd),
                wanted: Events(u32::from(entry.events as u16)),
            })
        })
        .collect();
    let result = wait(cx, &files, until);
    let events = match &result {
        Ok(events) => events.as_slice(),
        Err(Errno::ERESTART) => &[],
        Err(error) => return Err(*error),
    };
    let each = events.iter().chain(std::iter::repeat(&Events::NONE));
    for (entry, events) in entries.iter_mut().zip(each) {
        let revents = events.0 as i16;
        *entry = Pollfd {
            revents,
            ..Pollfd::from_bytes(entry)
        }
        .to_bytes();
    }
    cx.copyout(&raw, fds)?;
    let events = result?;
    let ready = events.iter().filter(|e| !e.is_empty()).count();
    if ready > 0 {
        tell_ahead_of(cx, &raw, &files);
    }
    Ok(ready as i64)
}

/// Tells a caller that wants to know it what calls on the files would give that a poll has found ready.
fn tell_ahead_of(cx: &Curlwp<'_>, raw: &[u8], files: &[Option<Watched>]) {
    let (entries, _) = raw.as_chunks::<{ Pollfd::SIZE }>();
    let entries = entries.iter().map(Pollfd::from_bytes);
    let found = entries.zip(files).map(|(entry, file)| {
        let alone = move || {
            let of = file.as_ref()?.file.as_ref().ok()?;
            let alone = cx.proc().fds().has_alone(entry.fd, of);
            alone.then(|| (entry.fd, of.clone()))
        };
        (Events(u32::from(entry.revents as u16)), alone)
    });
    tell_ahead(cx, None, found);
}

/// What each set of select(2) asks for, and what counts as it.
const SETS: [(Events, Events); 3] = [
    (
        Events(0x001 | 0x040 | 0x080),
        Events(0x001 | 0x040 | 0x080 | 0x010 | 0x008),
    ),
    (
        Events(0x004 | 0x100 | 0x200),
        Events(0x004 | 0x100 | 0x200 | 0x008),
    ),
    (Events::PRI, Events::PRI),
];

/// select(2).
pub(super) fn select(cx: &Curlwp<'_>, a: args::select) -> SysResult {
    let until = if a.timeout.is_null() {
        Until::Never
    } else {
        let mut raw = [0; Timeval::SIZE];
        cx.copyin(a.timeout, &mut raw)?;
        let tv = Timeval::from_bytes(&raw);
        let usec = u64::try_from(tv.tv_usec).map_err(|_| Errno::EINVAL)?;
        let sec = u64::try_from(tv.tv_sec).map_err(|_| Errno::EINVAL)?;
        let span = sec
            .saturating_mul(1_000_000_000)
            .saturating_add(usec.saturating_mul(1000));
        Until::after(cx, span)
    };
    let sets = [a.readfds, a.writefds, a.exceptfds];
    let result = select_until(cx, a.nfds, sets, until);
    if !a.timeout.is_null() {
        let left = until.left(cx);
        let tv = Timeval {
            tv_sec: (left / 1_000_000_000) as i64,
            tv_usec: (left % 1_000_000_000 / 1000) as i64,
        };
        cx.copyout(&tv.to_bytes(), a.timeout)?;
    }
    result
}

/// pselect6(2). The signal mask is the client's own affair.
pub(super) fn pselect6(cx: &Curlwp<'_>, a: args::pselect6) -> SysResult {
    let until = Until::timespec(cx, a.timeout)?;
    let sets = [a.readfds, a.writefds, a.exceptfds];
    let result = select_until(cx, a.nfds, sets, until);
    if !a.timeout.is_null() {
        copyout_timespec(cx, until.left(cx), a.timeout)?;
    }
    result
}

fn select_until(cx: &Curlwp<'_>, nfds: i32, sets: [UserAddr; 3], until: Until) -> SysResult {
    let count = usize::try_from(nfds).map_err(|_| Errno::EINVAL)?;
    let count = count.min(crate::fd::FD_MAX);
    let bytes = count.div_ceil(64) * 8;
    let mut bits: [Vec<u8>; 3] = Default::default();
    for (set, &from) in bits.iter_mut().zip(&sets) {
        if !from.is_null() {
            set.resize(bytes, 0);
            cx.copyin(from, set)?;
        }
    }
    let has = |set: &[u8], fd: usize| {
        set.get(fd / 8)
            .is_some_and(|byte| byte >> (fd % 8) & 1 != 0)
    };
    let mut numbers = Vec::new();
    let mut files = Vec::new();
    for fd in 0..count {
        let mut wanted = Events::NONE;
        for (set, (ask, _)) in bits.iter().zip(SETS) {
            if has(set, fd) {
                wanted = wanted | ask;
            }
        }
        if !wanted.is_empty() {
            numbers.push(fd);
            files.push(Some(Watched {
                file: Ok(cx.file(fd as i32)?),
                wanted,
            }));
        }
    }
    let events = wait(cx, &files, until)?;
    let mut ready = 0;
    for (set, (_, counts)) in bits.iter_mut().zip(SETS) {
        let asked = std::mem::replace(set, vec![0; set.len()]);
        for (&fd, events) in numbers.iter().zip(&events) {
            if has(&asked, fd) && events.intersects(counts) {
                set[fd / 8] |= 1 << (fd % 8);
                ready += 1;
            }
        }
    }
    for (set, &to) in bits.iter().zip(&sets) {
        if !to.is_null() {
            cx.copyout(set, to)?;
        }
    }
    Ok(ready)
}

/// epoll_create(2).
pub(super) fn epoll_create(cx: &Curlwp<'_>, a: args::epoll_create) -> SysResult {
    if a.size <= 0 {
        return Err(Errno::EINVAL);
    }
    super::ipc::open(cx, Epoll::new(cx), 0)
}

/// epoll_create1(2).
pub(super) fn epoll_create1(cx: &Curlwp<'_>, a: args::epoll_create1) -> SysResult {
    if a.flags & !O_CLOEXEC != 0 {
        return Err(Errno::EINVAL);
    }
    super::ipc::open(cx, Epoll::new(cx), a.flags)
}

/// epoll_ctl(2).
pub(super) fn epoll_ctl(cx: &Curlwp<'_>, a: args::epoll_ctl) -> SysResult {
    let mut event = EpollEvent::default();
    if a.op != EPOLL_CTL_DEL {
        let mut raw = [0; EpollEvent::SIZE];
        cx.copyin(a.event, &mut raw)?;
        event = EpollEvent::from_bytes(&raw);
    }
    let instance = cx.file(a.epfd)?;
    let of = cx.file(a.fd)?;
    let epoll: &Epoll = instance.downcast().ok_or(Errno::EINVAL)?;
    match a.op {
        EPOLL_CTL_ADD => epoll.add(cx, a.fd, &of, event),
        EPOLL_CTL_MOD => epoll.modify(cx, a.fd, &of, event),
        EPOLL_CTL_DEL => epoll.delete(cx, a.fd, &of),
        _ => Err(Errno::EINVAL),
    }?;
    Ok(0)
}

/// epoll_wait(2).
pub(super) fn epoll_wait(cx: &Curlwp<'_>, a: args::epoll_wait) -> SysResult {
    epoll_until(
        cx,
        a.epfd,
        a.events,
        a.maxevents,
        Until::millis(cx, a.timeout),
    )
}

/// epoll_pwait(2). The signal mask is the client's own affair.
pub(super) fn epoll_pwait(cx: &Curlwp<'_>, a: args::epoll_pwait) -> SysResult {
    epoll_until(
        cx,
        a.epfd,
        a.events,
        a.maxevents,
        Until::millis(cx, a.timeout),
    )
}

/// epoll_pwait2(2).
pub(super) fn epoll_pwait2(cx: &Curlwp<'_>, a: args::epoll_pwait2) -> SysResult {
    let until = Until::timespec(cx, a.timeout)?;
    epoll_until(cx, a.epfd, a.events, a.maxevents, until)
}

/// The most events of one wait, so that a client cannot ask for memory without end.
pub(super) const MAX_EVENTS: usize = 4096;

fn epoll_until(cx: &Curlwp<'_>, epfd: i32, to: UserAddr, max: i32, until: Until) -> SysResult {
    let max = usize::try_from(max)
        .ok()
        .filter(|&n| n > 0)
        .ok_or(Errno::EINVAL)?;
    let instance = cx.file(epfd)?;
    let epoll: &Epoll = instance.downcast().ok_or(Errno::EINVAL)?;
    let found = epoll.wait(cx, max.min(MAX_EVENTS), until.deadline())?;
    let raw: Vec<u8> = found
        .iter()
        .flat_map(|(event, _)| event.to_bytes())
        .collect();
    cx.copyout(&raw, to)?;
    if !found.is_empty() {
        let found = found.iter().map(|(event, item)| {
            let alone = move || item.of_one_holder(cx);
            (Events(event.events), alone)
        });
        tell_ahead(cx, Some(epfd), found);
    }
    Ok(found.len() as i64)
}

/// Tells a caller that wants to know it what calls on files would give that were found ready, of which each says its descriptor, if
/// that is the only one.
fn tell_ahead<F>(cx: &Curlwp<'_>, epfd: Option<i32>, found: impl Iterator<Item = (Events, F)>)
where
    F: FnOnce() -> Option<(i32, Arc<OpenFile>)>,
{
    let Some(most) = cx.memory().takes_ahead() else {
        return;
    };
    let plain = Events::IN | Events::RDNORM | Events::RDHUP | Events::OUT | Events::WRNORM;
    for (events, alone) in found {
        if !events.is_empty()
            && events & plain == events
            && let Some((fd, of)) = alone()
            && let Some(ahead) = of.file().ahead(cx, most)
        {
            cx.memory().tell_ahead(fd, epfd, &ahead);
        }
    }
}

//! A knote: one thing that a kqueue watches, and what has happened to it.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Weak};

use abi::{Errno, Kevent};
use hypercall::{Clock, Nanos};
use sync::{Mutex, Parker};

use super::{Kqueue, consts::*};
use crate::callout::Callout;
use crate::epoll::Epoll;
use crate::poll::{Events, Watcher};
use crate::procnote::{ProcEvent, ProcWatcher};
use crate::signal::NSIG;
use crate::timerfd::Setting;
use crate::watch::{Change, ChangeWatcher, FileChange};
use crate::{Curlwp, OpenFile, Pid, Proc};

/// What a knote watches.
enum Source {
    /// An open file, for readiness.
    Ready(Weak<OpenFile>),
    /// An open file, for what happens to it.
    Vnode(Weak<OpenFile>),
    Proc(Weak<Proc>),
    Signal(Weak<Proc>),
    Timer(Callout),
    User,
}

/// A knote. `state` is locked with what is watched locked or not, and comes before the queue's lock.
pub(super) struct Knote {
    kq: Weak<Kqueue>,
    filter: u32,
    ident: u64,
    source: Source,
    state: Mutex<State>,
    /// Whether it is in the kqueue's queue.
    pub(super) queued: AtomicBool,
    me: Weak<Knote>,
}

#[derive(Default)]
struct State {
    /// `EV_*` that stay.
    flags: u32,
    /// What was asked for.
    wanted: u32,
    wanted_data: i64,
    udata: u64,
    disabled: bool,
    /// Taken out of its kqueue.
    gone: bool,
    /// What has happened: for a file `NOTE_*`, for a signal how often.
    fflags: u32,
    data: i64,
    /// A user's event is triggered.
    triggered: bool,
    /// The process is gone.
    eof: bool,
    timer: Setting,
}

/// Where a knote goes after its event was taken.
pub(super) enum After {
    /// It waits for the next event.
    Rest,
    /// Back into the queue.
    Again,
    /// Out of its kqueue.
    Gone,
}

/// An event as it is handed out.
#[derive(Default)]
struct Event {
    flags: u32,
    fflags: u32,
    data: i64,
}

impl Knote {
    /// A knote for what a change names; [`attach`](Self::attach) has it told of events.
    pub(super) fn new(
        cx: &Curlwp<'_>,
        kq: &Weak<Kqueue>,
        kev: &Kevent,
    ) -> Result<Arc<Knote>, Errno> {
        let file = || {
            let fd = i32::try_from(kev.ident).map_err(|_| Errno::EBADF)?;
            cx.file(fd)
        };
        let mut state = State {
            flags: kev.flags & (EV_ONESHOT | EV_CLEAR | EV_DISPATCH),
            wanted: kev.fflags,
            wanted_data: kev.data,
            udata: kev.udata,
            ..State::default()
        };
        let source = match kev.filter {
            EVFILT_READ | EVFILT_WRITE => {
                let of = file()?;
                // Queues that watch queues could close a circle.
                let queue = of.downcast::<Kqueue>().is_some() || of.downcast::<Epoll>().is_some();
                if queue || kev.filter == EVFILT_WRITE && !of.writable() {
                    return Err(Errno::EINVAL);
                }
                Some(Source::Ready(Arc::downgrade(&of)))
            }
            EVFILT_VNODE => {
                let of = file()?;
                of.file().changes().ok_or(Errno::EINVAL)?;
                Some(Source::Vnode(Arc::downgrade(&of)))
            }
            EVFILT_PROC => {
                if kev.fflags & NOTE_TRACK != 0 {
                    return Err(Errno::EINVAL);
                }
                state.flags |= EV_CLEAR;
                let pid = Pid::try_from(kev.ident).map_err(|_| Errno::ESRCH)?;
                let proc = cx.kernel().find_proc(cx, pid).ok_or(Errno::ESRCH)?;
                Some(Source::Proc(Arc::downgrade(&proc)))
            }
            EVFILT_SIGNAL => {
                state.flags |= EV_CLEAR;
                match kev.ident {
                    n if (1..=u64::from(NSIG)).contains(&n) => {
                        Some(Source::Signal(Arc::downgrade(cx.proc())))
                    }
                    _ => return Err(Errno::EINVAL),
                }
            }
            EVFILT_TIMER => {
                state.flags |= EV_CLEAR;
                state.timer = timer(cx, &state)?;
                None
            }
            EVFILT_USER => {
                state.wanted = 0;
                state.user(kev);
                Some(Source::User)
            }
            _ => return Err(Errno::EINVAL),
        };
        Ok(Arc::new_cyclic(|me: &Weak<Knote>| Knote {
            kq: kq.clone(),
            filter: kev.filter,
            ident: kev.ident,
            source: source.unwrap_or_else(|| {
                let me = me.clone();
                Source::Timer(Callout::new(cx.kernel(), move |cx| {
                    if let Some(knote) = me.upgrade() {
                        knote.happened(cx.cpu());
                    }
                }))
            }),
            state: Mutex::new(state),
            queued: AtomicBool::new(false),
            me: me.clone(),
        }))
    }

    pub(super) fn key(&self) -> (u32, u64) {
        (self.filter, self.ident)
    }

    /// Has it told of events from here on. `ESRCH` for a process that has gone meanwhile.
    pub(super) fn attach(self: &Arc<Self>, cx: &Curlwp<'_>) -> Result<(), Errno> {
        match &self.source {
            Source::Ready(of) | Source::Vnode(of) => {
                let of = of.upgrade().ok_or(Errno::EBADF)?;
                if matches!(self.source, Source::Ready(_)) {
                    let watcher: Arc<dyn Watcher> = self.clone();
                    of.file().poll(cx, self.events(), Some(&watcher));
                    // A file that is always ready is so up to its end only.
                    if !of.file().seekable() {
                        return Ok(());
                    }
                }
                if let Some(changes) = of.file().changes() {
                    let watcher: Arc<dyn ChangeWatcher> = self.clone();
                    changes.watch(cx.cpu(), &watcher);
                }
            }
            Source::Proc(proc) | Source::Signal(proc) => {
                let proc = proc.upgrade().ok_or(Errno::ESRCH)?;
                let watcher: Arc<dyn ProcWatcher> = self.clone();
                proc.notes().watch(cx.cpu(), &watcher);
                if cx.kernel().find_proc(cx, proc.pid).is_none() {
                    return Err(Errno::ESRCH);
                }
            }
            Source::Timer(_) => self.arm(cx),
            Source::User => {}
        }
        Ok(())
    }

    /// Takes what a later change says of it.
    pub(super) fn touch(&self, cx: &Curlwp<'_>, kev: &Kevent) -> Result<(), Errno> {
        let mut state = self.state.lock(cx.cpu());
        if matches!(self.source, Source::User) {
            state.user(kev);
        }
        if kev.flags & EV_ADD == 0 {
            return Ok(());
        }
        let cleared = match self.filter {
            EVFILT_TIMER | EVFILT_SIGNAL | EVFILT_PROC => EV_CLEAR,
            _ => 0,
        };
        state.flags = kev.flags & (EV_ONESHOT | EV_CLEAR | EV_DISPATCH) | cleared;
        state.udata = kev.udata;
        state.wanted_data = kev.data;
        if !matches!(self.source, Source::User) {
            state.wanted = kev.fflags;
        }
        if matches!(self.source, Source::Timer(_)) {
            state.timer = timer(cx, &state)?;
            drop(state);
            self.arm(cx);
        }
        Ok(())
    }

    pub(super) fn set_disabled(&self, cx: &Curlwp<'_>, disabled: bool) {
        self.state.lock(cx.cpu()).disabled = disabled;
    }

    /// Leaves its kqueue.
    pub(super) fn leave(&self, cx: &Curlwp<'_>) {
        self.state.lock(cx.cpu()).gone = true;
        if let Source::Timer(callout) = &self.source {
            callout.stop(cx.cpu());
        }
    }

    /// Whether its identifier still stands for what it watches.
    pub(super) fn is_current(&self, kq: &Kqueue) -> bool {
        match &self.source {
            Source::Ready(of) | Source::Vnode(of) => self.file(kq, of).is_some(),
            Source::Proc(proc) => proc.strong_count() != 0,
            _ => true,
        }
    }

    /// The open file, if the process's descriptor still stands for it.
    fn file(&self, kq: &Kqueue, of: &Weak<OpenFile>) -> Option<Arc<OpenFile>> {
        let of = of.upgrade()?;
        let fds = kq.fds.upgrade()?;
        let fd = i32::try_from(self.ident).ok()?;
        let same = fds.with(fd, |now| Ok(Arc::ptr_eq(now, &of)));
        (same == Ok(true)).then_some(of)
    }

    /// Queues it if there is an event already.
    pub(super) fn look(self: &Arc<Self>, cx: &Curlwp<'_>) {
        if let Some(kq) = self.kq.upgrade()
            && self.has_event(cx, &kq)
        {
            kq.enqueue(cx.cpu(), self);
        }
    }

    /// Whether there is an event now.
    pub(super) fn has_event(&self, cx: &Curlwp<'_>, kq: &Kqueue) -> bool {
        let resting = {
            let state = self.state.lock(cx.cpu());
            state.disabled || state.gone
        };
        !resting && self.event(cx, kq).is_some()
    }

    /// Takes its event, if there is one.
    pub(super) fn take(&self, cx: &Curlwp<'_>, kq: &Kqueue) -> Option<(Kevent, After)> {
        // A file is asked without the knote locked, because asking takes the file's locks.
        let ready = match &self.source {
            Source::Ready(_) => Some(self.event(cx, kq)?),
            Source::Vnode(of) => {
                self.file(kq, of)?;
                None
            }
            _ => None,
        };
        let now = self.now(cx);
        let mut state = self.state.lock(cx.cpu());
        if state.disabled || state.gone {
            return None;
        }
        let event = match ready {
            Some(event) => event,
            None => state.event(self, now)?,
        };
        let mut after = match state.flags & EV_CLEAR {
            0 => After::Again,
            _ => After::Rest,
        };
        if state.flags & EV_CLEAR != 0 {
            (state.fflags, state.data, state.triggered) = (0, 0, false);
        }
        if let Source::Timer(_) = self.source {
            state.timer = state.timer.after(state.timer.expirations(now));
            if state.timer.next == 0 {
                after = After::Gone;
            }
        }
        if state.flags & EV_DISPATCH != 0 {
            state.disabled = true;
            after = After::Rest;
        }
        if state.flags & EV_ONESHOT != 0 || state.eof {
            after = After::Gone;
        }
        let kevent = Kevent {
            ident: self.ident,
            filter: self.filter,
            flags: state.flags | event.flags,
            fflags: event.fflags,
            data: event.data,
            udata: state.udata,
            pad0: 0,
        };
        drop(state);
        if matches!(after, After::Rest) {
            self.arm(cx);
        }
        Some((kevent, after))
    }

    fn event(&self, cx: &Curlwp<'_>, kq: &Kqueue) -> Option<Event> {
        match &self.source {
            Source::Ready(of) => self.readiness(cx, &*self.file(kq, of)?),
            Source::Vnode(of) => {
                self.file(kq, of)?;
                self.state.lock(cx.cpu()).event(self, 0)
            }
            _ => {
                let now = self.now(cx);
                self.state.lock(cx.cpu()).event(self, now)
            }
        }
    }

    /// The time, for whom it matters.
    fn now(&self, cx: &Curlwp<'_>) -> Nanos {
        match self.source {
            Source::Timer(_) => cx.now(Clock::Monotonic),
            _ => 0,
        }
    }

    fn events(&self) -> Events {
        match self.filter {
            EVFILT_READ => Events::IN | Events::RDNORM | Events::RDHUP,
            _ => Events::OUT | Events::WRNORM,
        }
    }

    fn readiness(&self, cx: &Curlwp<'_>, of: &OpenFile) -> Option<Event> {
        let wanted = self.events();
        let now = of.file().poll(cx, wanted, None) & (wanted | Events::ALWAYS);
        if now.is_empty() {
            return None;
        }
        let ends = match self.filter {
            EVFILT_READ => Events::HUP | Events::RDHUP,
            _ => Events::HUP | Events::ERR,
        };
        let eof = now.intersects(ends);
        let data = of.file().available(cx, of, now);
        if data == 0 && of.file().seekable() && self.filter == EVFILT_READ {
            return None;
        }
        let (fflags, least) = {
            let state = self.state.lock(cx.cpu());
            (state.wanted, state.wanted_data)
        };
        if fflags & NOTE_LOWAT != 0 && data < least && !eof {
            return None;
        }
        Some(Event {
            flags: if eof { EV_EOF } else { 0 },
            fflags: 0,
            data,
        })
    }

    /// Has the callout come with the timer's next expiration. When that is taken, it is asked to come again.
    fn arm(&self, cx: &Curlwp<'_>) {
        if let Source::Timer(callout) = &self.source {
            let state = self.state.lock(cx.cpu());
            match state.timer.next {
                0 => drop(callout.stop(cx.cpu())),
                _ if state.gone => {}
                next => callout.schedule(cx.cpu(), next),
            }
        }
    }

    /// Something may have happened: into the queue, unless it is disabled. What is there when it is enabled is found then.
    fn happened(&self, parker: &dyn Parker) {
        let resting = {
            let state = self.state.lock(parker);
            state.disabled || state.gone
        };
        if !resting && let (Some(kq), Some(knote)) = (self.kq.upgrade(), self.me.upgrade()) {
            kq.enqueue(parker, &knote);
        }
    }
}

impl State {
    /// What has happened, where that is kept here.
    fn event(&self, knote: &Knote, now: Nanos) -> Option<Event> {
        let event = Event {
            flags: if self.eof { EV_EOF } else { 0 },
            fflags: self.fflags,
            data: self.data,
        };
        match knote.source {
            Source::Ready(_) => None,
            Source::Vnode(_) => (self.fflags != 0).then_some(event),
            Source::Proc(_) => (self.fflags != 0 || self.eof).then_some(event),
            Source::Signal(_) => (self.data != 0).then_some(event),
            Source::User => self.triggered.then_some(Event {
                fflags: self.wanted,
                data: self.wanted_data,
                ..event
            }),
            Source::Timer(_) => match self.timer.expirations(now) {
                0 => None,
                n => Some(Event {
                    data: i64::try_from(n).unwrap_or(i64::MAX),
                    ..event
                }),
            },
        }
    }

    /// A change of a user's event: its flags by the operation that is among them, and the trigger.
    fn user(&mut self, kev: &Kevent) {
        let flags = kev.fflags & NOTE_FFLAGSMASK;
        match kev.fflags & NOTE_FFCTRLMASK {
            NOTE_FFAND => self.wanted &= flags,
            NOTE_FFOR => self.wanted |= flags,
            NOTE_FFCOPY => self.wanted = flags,
            _ => {}
        }
        if kev.fflags & NOTE_TRIGGER != 0 {
            self.triggered = true;
            self.wanted_data = kev.data;
        }
    }
}

/// The timer that a change asks for. `EINVAL` for a negative time and for a unit that is none.
fn timer(cx: &Curlwp<'_>, state: &State) -> Result<Setting, Errno> {
    let unit: Nanos = match state.wanted & !NOTE_ABSTIME {
        NOTE_MSECONDS => 1_000_000,
        NOTE_SECONDS => 1_000_000_000,
        NOTE_USECONDS => 1000,
        NOTE_NSECONDS => 1,
        _ => return Err(Errno::EINVAL),
    };
    let data = u64::try_from(state.wanted_data).map_err(|_| Errno::EINVAL)?;
    let time = data.saturating_mul(unit);
    let now = cx.now(Clock::Monotonic);
    if state.wanted & NOTE_ABSTIME != 0 {
        let left = time.saturating_sub(cx.now(Clock::Realtime));
        return Ok(Setting {
            next: now.saturating_add(left).max(1),
            interval: 0,
        });
    }
    let interval = time.max(1);
    Ok(Setting {
        next: now.saturating_add(interval),
        interval: match state.flags & EV_ONESHOT {
            0 => interval,
            _ => 0,
        },
    })
}

impl Watcher for Knote {
    fn notify(&self, parker: &dyn Parker, events: Events) {
        if events.intersects(self.events() | Events::ALWAYS) {
            self.happened(parker);
        }
    }
}

impl ChangeWatcher for Knote {
    fn changed(&self, parker: &dyn Parker, change: &FileChange<'_>) {
        if let Source::Ready(_) = self.source {
            if change.what.intersects(Change::MODIFY) && change.name.is_none() {
                self.happened(parker);
            }
            return;
        }
        let notes = notes(change);
        let news = {
            let mut state = self.state.lock(parker);
            let news = notes & state.wanted;
            state.fflags |= news;
            news
        };
        if news != 0 {
            self.happened(parker);
        }
    }
}

/// The `NOTE_*` of something that happened to a file.
fn notes(change: &FileChange<'_>) -> u32 {
    let what = change.what;
    if change.name.is_some() {
        // Of what happens in a directory, that its names change is what is told of itself.
        let linked = match what.intersects(Change::LINK) {
            true => NOTE_LINK,
            false => 0,
        };
        return match what.intersects(Change::NAMES) {
            true => NOTE_WRITE | linked,
            false => 0,
        };
    }
    let each = [
        (Change::MODIFY, NOTE_WRITE),
        (Change::EXTEND, NOTE_EXTEND),
        (Change::ATTRIB, NOTE_ATTRIB),
        (Change::LINK, NOTE_LINK),
        (Change::UNLINKED, NOTE_DELETE),
        (Change::MOVE_SELF, NOTE_RENAME),
        (Change::OPEN, NOTE_OPEN),
        (Change::CLOSE_NOWRITE, NOTE_CLOSE),
        (Change::CLOSE_WRITE, NOTE_CLOSE_WRITE),
        (Change::ACCESS, NOTE_READ),
    ];
    each.iter()
        .filter(|(bit, _)| what.intersects(*bit))
        .fold(0, |all, (_, note)| all | note)
}

impl ProcWatcher for Knote {
    fn tell(&self, parker: &dyn Parker, event: ProcEvent) {
        let mut state = self.state.lock(parker);
        let news = match (&self.source, event) {
            (Source::Signal(_), ProcEvent::Signal(signo)) => {
                let mine = u64::from(signo) == self.ident;
                state.data += i64::from(mine);
                mine
            }
            (Source::Proc(_), ProcEvent::Exit) => {
                state.eof = true;
                state.fflags |= NOTE_EXIT & state.wanted;
                true
            }
            (Source::Proc(_), ProcEvent::Fork(_)) => state.note(NOTE_FORK),
            (Source::Proc(_), ProcEvent::Exec) => state.note(NOTE_EXEC),
            _ => false,
        };
        drop(state);
        if news {
            self.happened(parker);
        }
    }
}

impl State {
    /// Notes something; false when nobody asked for it.
    fn note(&mut self, what: u32) -> bool {
        self.fflags |= what & self.wanted;
        self.wanted & what != 0
    }
}

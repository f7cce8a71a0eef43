//! kqueue(2): a queue of events of many kinds, with NetBSD's filters, flags and `struct kevent`.
//!
//! What is watched has a `Knote`; the thing that it watches tells it ([`crate::poll`], [`crate::watch`], [`crate::procnote`], a
//! callout), and it puts itself on the queue. As with epoll a wait looks only at what is queued, so what is idle costs
//! nothing. Whether there is an event is asked of the knote when it is taken from the queue; one that is not cleared goes
//! back to the end of it.
//!
//! Start reading at [`Kqueue::register`] and [`Kqueue::wait`].

mod consts;
mod knote;

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use abi::{Errno, Kevent, Stat};
use hypercall::Nanos;
use sync::{Condvar, Mutex, Parker};

use crate::poll::{self, Events, PollHead, Watcher};
use crate::{Curlwp, FdTable, File, OpenFile, Uio, anon};

pub use consts::*;
use knote::{After, Knote};

/// Filter and identifier, by which a knote is known.
type Key = (u32, u64);

/// A kqueue. It belongs to the process that made it: its identifiers are descriptors of that, and a fork does not hand it
/// on.
///
/// Locks, in this order: `knotes`, what is watched with its list of watchers, a knote's own, `ready`.
pub struct Kqueue {
    knotes: Mutex<BTreeMap<Key, Arc<Knote>>>,
    ready: Mutex<VecDeque<Arc<Knote>>>,
    changed: Condvar,
    poll: PollHead,
    fds: Weak<FdTable>,
    ident: anon::Ident,
    me: Weak<Kqueue>,
}

impl Kqueue {
    /// A kqueue of the current process that watches nothing.
    pub fn new(cx: &Curlwp<'_>) -> Arc<Kqueue> {
        Arc::new_cyclic(|me| Kqueue {
            knotes: Mutex::default(),
            ready: Mutex::default(),
            changed: Condvar::new("kqueue"),
            poll: PollHead::new(),
            fds: Arc::downgrade(cx.proc().fds()),
            ident: anon::Ident::new(cx),
            me: me.clone(),
        })
    }

    /// Makes one change: adds, changes, deletes, enables or disables what `kev` names. `EINVAL` for a filter that is none
    /// or does not go with the file, `EBADF` for no descriptor, `ESRCH` for no process, `ENOENT` for what is not watched.
    pub fn register(&self, cx: &Curlwp<'_>, kev: &Kevent) -> Result<(), Errno> {
        if kev.filter >= EVFILT_SYSCOUNT {
            return Err(Errno::EINVAL);
        }
        let key = (kev.filter, kev.ident);
        let old = self.knotes.lock(cx.cpu()).get(&key).cloned();
        // A number that was closed and opened again is another file.
        let old = old.filter(|knote| knote.is_current(self) || self.forget(cx, knote).is_none());
        let knote = match old {
            _ if kev.flags & EV_DELETE != 0 => {
                let knote = old.ok_or(Errno::ENOENT)?;
                return self.forget(cx, &knote).ok_or(Errno::ENOENT);
            }
            Some(knote) => {
                knote.touch(cx, kev)?;
                knote
            }
            None if kev.flags & EV_ADD == 0 => return Err(Errno::ENOENT),
            None => {
                let new = Knote::new(cx, &self.me, kev)?;
                let mut knotes = self.knotes.lock(cx.cpu());
                match knotes.get(&key) {
                    // Another thread of the process was faster.
                    Some(knote) => {
                        let knote = knote.clone();
                        drop(knotes);
                        knote.touch(cx, kev)?;
                        knote
                    }
                    None => {
                        knotes.insert(key, new.clone());
                        drop(knotes);
                        if let Err(error) = new.attach(cx) {
                            self.forget(cx, &new);
                            return Err(error);
                        }
                        new
                    }
                }
            }
        };
        if kev.flags & EV_DISABLE != 0 {
            knote.set_disabled(cx, true);
        }
        if kev.flags & EV_ENABLE != 0 {
            knote.set_disabled(cx, false);
        }
        knote.look(cx);
        Ok(())
    }

    /// Takes a knote out; `None` when it was out already.
    fn forget(&self, cx: &Curlwp<'_>, knote: &Arc<Knote>) -> Option<()> {
        let mut knotes = self.knotes.lock(cx.cpu());
        let here = knotes
            .get(&knote.key())
            .is_some_and(|k| Arc::ptr_eq(k, knote));
        if here {
            knotes.remove(&knote.key());
        }
        drop(knotes);
        knote.leave(cx);
        here.then_some(())
    }

    /// kevent(2)'s second half: at most `max` events, waiting until the deadline (0: not at all) for the first.
    pub fn wait(
        &self,
        cx: &Curlwp<'_>,
        max: usize,
        deadline: Option<Nanos>,
    ) -> Result<Vec<Kevent>, Errno> {
        poll::wait_for(cx, &self.ready, &self.changed, None, deadline, || {
            self.collect(cx, max)
        })
    }

    /// Goes once through the queue.
    fn collect(&self, cx: &Curlwp<'_>, max: usize) -> Vec<Kevent> {
        let mut events = Vec::new();
        let mut again = Vec::new();
        let mut turns = self.ready.lock(cx.cpu()).len();
        while turns != 0 && events.len() < max {
            turns -= 1;
            let Some(knote) = self.next(cx) else { break };
            let Some((event, after)) = knote.take(cx, self) else {
                continue;
            };
            match after {
                After::Rest => {}
                After::Again => again.push(knote),
                // Of two who take it at once, one has it.
                After::Gone if self.forget(cx, &knote).is_none() => continue,
                After::Gone => {}
            }
            events.push(event);
        }
        let mut ready = self.ready.lock(cx.cpu());
        for knote in again {
            if !knote.queued.swap(true, Ordering::SeqCst) {
                ready.push_back(knote);
            }
        }
        let more = !ready.is_empty();
        drop(ready);
        if !events.is_empty() && more {
            self.changed.signal(cx.cpu());
        }
        events
    }

    /// The first of the queue. What happens from here on puts it there again: look at it only afterwards.
    fn next(&self, cx: &Curlwp<'_>) -> Option<Arc<Knote>> {
        let knote = self.ready.lock(cx.cpu()).pop_front()?;
        knote.queued.store(false, Ordering::SeqCst);
        Some(knote)
    }

    /// Puts a knote on the queue and wakes somebody.
    fn enqueue(&self, parker: &dyn Parker, knote: &Arc<Knote>) {
        if !knote.queued.swap(true, Ordering::SeqCst) {
            self.ready.lock(parker).push_back(knote.clone());
        }
        self.changed.signal(parker);
        self.poll.notify(parker, Events::IN | Events::RDNORM);
    }

    /// Whether some queued knote really has an event; those that have not leave the queue.
    fn has_ready(&self, cx: &Curlwp<'_>) -> bool {
        let turns = self.ready.lock(cx.cpu()).len();
        for _ in 0..turns {
            let Some(knote) = self.next(cx) else {
                return false;
            };
            if knote.has_event(cx, self) {
                if !knote.queued.swap(true, Ordering::SeqCst) {
                    self.ready.lock(cx.cpu()).push_front(knote);
                }
                return true;
            }
        }
        false
    }
}

impl File for Kqueue {
    fn read(&self, _: &Curlwp<'_>, _: &OpenFile, _: &mut Uio<'_>) -> Result<(), Errno> {
        Err(Errno::ENXIO)
    }

    fn write(&self, _: &Curlwp<'_>, _: &OpenFile, _: &mut Uio<'_>) -> Result<(), Errno> {
        Err(Errno::ENXIO)
    }

    fn poll(&self, cx: &Curlwp<'_>, events: Events, watcher: Option<&Arc<dyn Watcher>>) -> Events {
        if let Some(watcher) = watcher {
            self.poll.watch(cx.cpu(), watcher);
        }
        if self.has_ready(cx) {
            (Events::IN | Events::RDNORM) & events
        } else {
            Events::NONE
        }
    }

    fn stat(&self, _: &Curlwp<'_>) -> Result<Stat, Errno> {
        Ok(self.ident.stat(0o600))
    }

    fn inherited(&self) -> bool {
        false
    }

    fn close(&self, cx: &Curlwp<'_>, _: &OpenFile) {
        let knotes = std::mem::take(&mut *self.knotes.lock(cx.cpu()));
        for knote in knotes.values() {
            knote.leave(cx);
        }
        self.ready.lock(cx.cpu()).clear();
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

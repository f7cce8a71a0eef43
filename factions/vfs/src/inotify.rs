//! inotify(7): a file from which one reads what has happened to other files.

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use abi::{Errno, Stat, SysResult, UserAddr};
use kern::poll::{Events, PollHead, Watcher};
use kern::watch::{Change, ChangeWatcher, FileChange};
use kern::{Curlwp, File, OpenFile, Uio, anon};
use sync::{Condvar, Mutex, Parker, Wake};

use crate::Vnode;

/// The events of a watch: all `IN_*` below `IN_UNMOUNT`.
const IN_ALL_EVENTS: u32 = 0xfff;
const IN_Q_OVERFLOW: u32 = 0x4000;
const IN_IGNORED: u32 = 0x8000;
/// Flags of inotify_add_watch(2).
pub(crate) const IN_ONLYDIR: u32 = 0x0100_0000;
pub(crate) const IN_DONT_FOLLOW: u32 = 0x0200_0000;
const IN_EXCL_UNLINK: u32 = 0x0400_0000;
const IN_MASK_CREATE: u32 = 0x1000_0000;
const IN_MASK_ADD: u32 = 0x2000_0000;
const IN_ISDIR: u32 = 0x4000_0000;
const IN_ONESHOT: u32 = 0x8000_0000;
const KNOWN: u32 = IN_ALL_EVENTS
    | IN_ONLYDIR
    | IN_DONT_FOLLOW
    | IN_EXCL_UNLINK
    | IN_MASK_CREATE
    | IN_MASK_ADD
    | IN_ONESHOT;

/// Bytes of an event's head.
const HEAD: usize = 16;
/// The most events that wait to be read; what is more is lost, and an event says so.
const QUEUE_MAX: usize = 16384;
/// The most watches of an instance.
const WATCHES_MAX: usize = 65536;
const FIONREAD: u32 = 0x541b;

/// An instance. Locks, in this order: `watches`, a file's list of watchers, `queue`.
pub(crate) struct Inotify {
    watches: Mutex<Watches>,
    queue: Mutex<VecDeque<Event>>,
    readable: Condvar,
    poll: PollHead,
    ident: anon::Ident,
    me: Weak<Inotify>,
}

#[derive(Default)]
struct Watches {
    by_wd: BTreeMap<i32, Arc<Watch>>,
    last: i32,
}

/// A watched file, which it keeps in memory.
struct Watch {
    inotify: Weak<Inotify>,
    wd: i32,
    mask: AtomicU32,
    vp: Arc<Vnode>,
}

#[derive(PartialEq, Eq)]
struct Event {
    wd: i32,
    mask: u32,
    cookie: u32,
    name: Box<[u8]>,
}

impl Event {
    /// Bytes of the record, whose name is padded to a multiple of the head.
    fn size(&self) -> usize {
        match self.name.len() {
            0 => HEAD,
            n => HEAD + (n + 1).next_multiple_of(HEAD),
        }
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut raw = Vec::with_capacity(self.size());
        let len = (self.size() - HEAD) as u32;
        raw.extend(self.wd.to_le_bytes());
        for number in [self.mask, self.cookie, len] {
            raw.extend(number.to_le_bytes());
        }
        raw.extend(&*self.name);
        raw.resize(self.size(), 0);
        raw
    }
}

impl Inotify {
    /// An instance that watches nothing.
    pub(crate) fn new(cx: &Curlwp<'_>) -> Arc<Inotify> {
        Arc::new_cyclic(|me| Inotify {
            watches: Mutex::default(),
            queue: Mutex::default(),
            readable: Condvar::new("inotify"),
            poll: PollHead::new(),
            ident: anon::Ident::new(cx),
            me: me.clone(),
        })
    }

    /// Watches a file for the events of a mask, or changes what it is watched for; answers the watch's number. `EINVAL` for
    /// a mask without events, `EEXIST` with `IN_MASK_CREATE`, `ENOSPC` when there are too many.
    pub(crate) fn add(&self, cx: &Curlwp<'_>, vp: Arc<Vnode>, mask: u32) -> Result<i32, Errno> {
        let both = IN_MASK_ADD | IN_MASK_CREATE;
        if mask & IN_ALL_EVENTS == 0 || mask & !KNOWN != 0 || mask & both == both {
            return Err(Errno::EINVAL);
        }
        let kept = mask & (IN_ALL_EVENTS | IN_ONESHOT | IN_EXCL_UNLINK);
        let mut watches = self.watches.lock(cx.cpu());
        let same = |w: &&Arc<Watch>| Arc::ptr_eq(&w.vp, &vp);
        if let Some(watch) = watches.by_wd.values().find(same) {
            if mask & IN_MASK_CREATE != 0 {
                return Err(Errno::EEXIST);
            }
            match mask & IN_MASK_ADD {
                0 => watch.mask.store(kept, Ordering::SeqCst),
                _ => drop(watch.mask.fetch_or(kept, Ordering::SeqCst)),
            }
            return Ok(watch.wd);
        }
        if watches.by_wd.len() >= WATCHES_MAX {
            return Err(Errno::ENOSPC);
        }
        let wd = watches.last.checked_add(1).ok_or(Errno::ENOSPC)?;
        watches.last = wd;
        let watch = Arc::new(Watch {
            inotify: self.me.clone(),
            wd,
            mask: AtomicU32::new(kept),
            vp,
        });
        watches.by_wd.insert(wd, watch.clone());
        let watcher: Arc<dyn ChangeWatcher> = watch.clone();
        watch.vp.changes().watch(cx.cpu(), &watcher);
        Ok(wd)
    }

    /// Ends a watch. `EINVAL` for a number of none.
    pub(crate) fn remove(&self, cx: &Curlwp<'_>, wd: i32) -> Result<(), Errno> {
        let watch = self.watches.lock(cx.cpu()).by_wd.remove(&wd);
        let watch = watch.ok_or(Errno::EINVAL)?;
        let told = watch.mask.swap(0, Ordering::SeqCst) != 0;
        let vp = watch.vp.clone();
        drop(watch);
        vp.changes().sweep(cx.cpu());
        if told {
            self.push(cx.cpu(), ignored(wd));
        }
        Ok(())
    }

    /// Forgets watches that have ended by themselves: their end was told with the list of their file's watchers locked.
    fn forget_ended(&self, cx: &Curlwp<'_>) {
        let mut watches = self.watches.lock(cx.cpu());
        watches
            .by_wd
            .retain(|_, w| w.mask.load(Ordering::SeqCst) != 0);
    }

    /// Adds an event. One that is as the last is told once.
    fn push(&self, parker: &dyn Parker, event: Event) {
        let mut queue = self.queue.lock(parker);
        if queue.back() == Some(&event) {
            return;
        }
        if queue.len() >= QUEUE_MAX {
            let lost = Event {
                wd: -1,
                mask: IN_Q_OVERFLOW,
                cookie: 0,
                name: Box::default(),
            };
            if queue.back() == Some(&lost) {
                return;
            }
            queue.push_back(lost);
        } else {
            queue.push_back(event);
        }
        drop(queue);
        self.readable.signal(parker);
        self.poll.notify(parker, Events::IN | Events::RDNORM);
    }
}

fn ignored(wd: i32) -> Event {
    Event {
        wd,
        mask: IN_IGNORED,
        cookie: 0,
        name: Box::default(),
    }
}

impl ChangeWatcher for Watch {
    fn changed(&self, parker: &dyn Parker, change: &FileChange<'_>) {
        let Some(inotify) = self.inotify.upgrade() else {
            return;
        };
        let mask = self.mask.load(Ordering::SeqCst);
        // A file that has lost its last name is told of by its attributes; its end comes with the last close.
        let what = change.what.0 & mask & IN_ALL_EVENTS;
        let mut ends = change.what.intersects(Change::DELETE_SELF) && change.name.is_none();
        if what != 0 {
            let itself = what & (Change::DELETE_SELF.0 | Change::MOVE_SELF.0) != 0;
            let event = Event {
                wd: self.wd,
                mask: match itself {
                    true => what,
                    false => what | change.what.0 & IN_ISDIR,
                },
                cookie: change.cookie,
                name: change.name.unwrap_or_default().into(),
            };
            ends |= mask & IN_ONESHOT != 0;
            inotify.push(parker, event);
        }
        if ends && self.mask.swap(0, Ordering::SeqCst) != 0 {
            inotify.push(parker, ignored(self.wd));
        }
    }
}

impl File for Inotify {
    fn read(&self, cx: &Curlwp<'_>, of: &OpenFile, uio: &mut Uio<'_>) -> Result<(), Errno> {
        self.forget_ended(cx);
        let mut queue = self.queue.lock(cx.cpu());
        while queue.is_empty() {
            if of.nonblocking() {
                return Err(Errno::EAGAIN);
            }
            let wake;
            (queue, wake) = self.readable.wait_intr(cx.cpu(), queue, None);
            if wake == Wake::Interrupted {
                return Err(Errno::EINTR);
            }
        }
        let mut raw = Vec::new();
        while let Some(event) = queue.front()
            && raw.len() + event.size() <= uio.resid()
        {
            raw.extend(event.to_bytes());
            queue.pop_front();
        }
        drop(queue);
        if raw.is_empty() {
            return Err(Errno::EINVAL);
        }
        uio.put(cx, &raw).map(drop)
    }

    fn write(&self, _: &Curlwp<'_>, _: &OpenFile, _: &mut Uio<'_>) -> Result<(), Errno> {
        Err(Errno::EBADF)
    }

    fn poll(&self, cx: &Curlwp<'_>, events: Events, watcher: Option<&Arc<dyn Watcher>>) -> Events {
        if let Some(watcher) = watcher {
            self.poll.watch(cx.cpu(), watcher);
        }
        match self.queue.lock(cx.cpu()).is_empty() {
            true => Events::NONE,
            false => (Events::IN | Events::RDNORM) & events,
        }
    }

    fn available(&self, cx: &Curlwp<'_>, _: &OpenFile, _: Events) -> i64 {
        let queue = self.queue.lock(cx.cpu());
        queue.iter().map(Event::size).sum::<usize>() as i64
    }

    fn ioctl(&self, cx: &Curlwp<'_>, of: &OpenFile, cmd: u32, arg: UserAddr) -> SysResult {
        if cmd != FIONREAD {
            return Err(Errno::ENOTTY);
        }
        let len = self.available(cx, of, Events::IN) as i32;
        cx.copyout(&len.to_le_bytes(), arg)?;
        Ok(0)
    }

    fn stat(&self, _: &Curlwp<'_>) -> Result<Stat, Errno> {
        Ok(self.ident.stat(0o600))
    }

    fn close(&self, cx: &Curlwp<'_>, _: &OpenFile) {
        let watches = std::mem::take(&mut self.watches.lock(cx.cpu()).by_wd);
        let files: Vec<Arc<Vnode>> = watches.values().map(|w| w.vp.clone()).collect();
        drop(watches);
        for vp in files {
            vp.changes().sweep(cx.cpu());
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_padded_to_its_head() {
        for (name, size) in [(0, 16), (1, 32), (15, 32), (16, 48), (255, 272)] {
            let event = Event {
                wd: 1,
                mask: 2,
                cookie: 3,
                name: vec![b'n'; name].into(),
            };
            let raw = event.to_bytes();
            assert_eq!((raw.len(), event.size()), (size, size), "{name}");
            assert_eq!(raw[12..16], ((size - 16) as u32).to_le_bytes());
            assert!(raw[16 + name..].iter().all(|&b| b == 0));
        }
    }
}

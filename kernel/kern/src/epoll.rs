//! epoll(7): a set of files to watch, and a queue of those that may be ready.
//!
//! A file that is watched tells its [`Item`], which puts itself on the queue; a wait looks only at what is queued,
//! so idle files cost nothing however many there are. Whether an item is really ready is asked of its file when it
//! is taken from the queue; a level-triggered one that was goes back to the end of it.

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use abi::{EpollEvent, Errno, Stat};
use hypercall::Nanos;
use sync::{Condvar, Mutex, Parker};

use crate::poll::{self, Events, PollHead, Watcher};
use crate::{Curlwp, File, OpenFile, Uio, anon};

const EPOLLEXCLUSIVE: u32 = 1 << 28;
const EPOLLWAKEUP: u32 = 1 << 29;
const EPOLLONESHOT: u32 = 1 << 30;
const EPOLLET: u32 = 1 << 31;
/// What a mask has beside the events.
const FLAGS: u32 = EPOLLEXCLUSIVE | EPOLLWAKEUP | EPOLLONESHOT | EPOLLET;
/// How deep instances may watch each other, as Linux has it.
const MAX_NESTING: usize = 5;

/// Which file an item watches: the descriptor it was added by, and the open file. The address stands for the open
/// file as long as the item has a weak reference to it.
type Key = (i32, usize);

/// An epoll instance.
///
/// Locks, in this order: `items`, `taking`, an item's `data`, the watched file's own with its [`PollHead`], then `ready`, then
/// the locks of an instance that watches this one.
pub struct Epoll {
    items: Mutex<BTreeMap<Key, Arc<Item>>>,
    /// Held by who goes through `ready`, which takes out what it looks at: else another one would find nothing there and
    /// take it for the truth.
    taking: Mutex<()>,
    ready: Mutex<VecDeque<Arc<Item>>>,
    changed: Condvar,
    poll: PollHead,
    ident: anon::Ident,
    me: Weak<Epoll>,
}

/// A file in an instance.
pub struct Item {
    epoll: Weak<Epoll>,
    file: Weak<OpenFile>,
    key: Key,
    /// The wanted events and the flags; 0 for an item that has been taken out.
    mask: AtomicU32,
    /// What the events carry. Held while `mask` is changed, and from the look at the file to the report of it, so that a
    /// one-shot event is reported once.
    data: Mutex<u64>,
    /// Whether it is in `ready`.
    queued: AtomicBool,
    exclusive: bool,
    me: Weak<Item>,
}

impl Epoll {
    /// An instance that watches nothing.
    pub fn new(cx: &Curlwp<'_>) -> Arc<Epoll> {
        Arc::new_cyclic(|me| Epoll {
            items: Mutex::default(),
            taking: Mutex::default(),
            ready: Mutex::default(),
            changed: Condvar::new("epoll"),
            poll: PollHead::new(),
            ident: anon::Ident::new(cx),
            me: me.clone(),
        })
    }

    /// `EPOLL_CTL_ADD`. `EEXIST`; `EPERM` for files that are always ready, `EINVAL` for itself, `ELOOP` for a circle
    /// of instances or one nested too deep.
    pub fn add(
        &self,
        cx: &Curlwp<'_>,
        fd: i32,
        of: &Arc<OpenFile>,
        event: EpollEvent,
    ) -> Result<(), Errno> {
        if !of.file().pollable() {
            return Err(Errno::EPERM);
        }
        let exclusive = event.events & EPOLLEXCLUSIVE != 0;
        let nested = of.downcast::<Epoll>();
        if exclusive && (nested.is_some() || event.events & EPOLLONESHOT != 0) {
            return Err(Errno::EINVAL);
        }
        // One addition of an instance to another at a time, so that two cannot close a circle together.
        let _topology = nested.map(|inner| (inner, cx.kernel().epoll_topology(cx)));
        if let Some(inner) = nested {
            if std::ptr::eq(inner, self) {
                return Err(Errno::EINVAL);
            }
            inner.check_nesting(cx, self, 1)?;
        }
        let item = Arc::new_cyclic(|me| Item {
            epoll: self.me.clone(),
            file: Arc::downgrade(of),
            key: (fd, Arc::as_ptr(of).addr()),
            mask: AtomicU32::new(event.events),
            data: Mutex::new(event.data),
            queued: AtomicBool::new(false),
            exclusive,
            me: me.clone(),
        });
        {
            let mut items = self.items.lock(cx.cpu());
            if items.contains_key(&item.key) {
                return Err(Errno::EEXIST);
            }
            items.insert(item.key, item.clone());
        }
        of.join_epoll(cx, &item);
        item.look(cx, of);
        Ok(())
    }

    /// `EPOLL_CTL_MOD`. `ENOENT`.
    pub fn modify(
        &self,
        cx: &Curlwp<'_>,
        fd: i32,
        of: &Arc<OpenFile>,
        event: EpollEvent,
    ) -> Result<(), Errno> {
        let key = (fd, Arc::as_ptr(of).addr());
        let item = self
            .items
            .lock(cx.cpu())
            .get(&key)
            .cloned()
            .ok_or(Errno::ENOENT)?;
        if item.exclusive || event.events & EPOLLEXCLUSIVE != 0 {
            return Err(Errno::EINVAL);
        }
        {
            let mut data = item.data.lock(cx.cpu());
            *data = event.data;
            item.mask.store(event.events, Ordering::SeqCst);
        }
        item.look(cx, of);
        Ok(())
    }

    /// `EPOLL_CTL_DEL`. `ENOENT`.
    pub fn delete(&self, cx: &Curlwp<'_>, fd: i32, of: &Arc<OpenFile>) -> Result<(), Errno> {
        let key = (fd, Arc::as_ptr(of).addr());
        let item = self
            .items
            .lock(cx.cpu())
            .remove(&key)
            .ok_or(Errno::ENOENT)?;
        item.mask.store(0, Ordering::SeqCst);
        Ok(())
    }

    /// epoll_wait(2): at most `max` events, waiting until the deadline (0: not at all) for the first; with what each is of.
    /// `EINTR`; `ERESTART` when the caller waits in its own way, [`UserMemory::waits_by`](crate::UserMemory::waits_by).
    pub fn wait(
        &self,
        cx: &Curlwp<'_>,
        max: usize,
        deadline: Option<Nanos>,
    ) -> Result<Vec<(EpollEvent, Arc<Item>)>, Errno> {
        let head = Some(&self.poll);
        poll::wait_for(cx, &self.ready, &self.changed, head, deadline, || {
            self.collect(cx, max)
        })
    }

    /// Goes once through the queue. Level-triggered items that are ready stay in it.
    fn collect(&self, cx: &Curlwp<'_>, max: usize) -> Vec<(EpollEvent, Arc<Item>)> {
        let _taking = self.taking.lock(cx.cpu());
        let mut events = Vec::new();
        let mut again = Vec::new();
        let mut turns = self.ready.lock(cx.cpu()).len();
        while turns != 0 && events.len() < max {
            turns -= 1;
            let Some(item) = self.ready.lock(cx.cpu()).pop_front() else {
                break;
            };
            // From here on a change puts it into the queue again: look at the file only afterwards.
            item.queued.store(false, Ordering::SeqCst);
            if let Some((event, level)) = item.take(cx) {
                if level {
                    again.push(item.clone());
                }
                events.push((event, item));
            }
        }
        if !again.is_empty() {
            let mut ready = self.ready.lock(cx.cpu());
            for item in again {
                if !item.queued.swap(true, Ordering::SeqCst) {
                    ready.push_back(item);
                }
            }
        }
        if !events.is_empty() && !self.ready.lock(cx.cpu()).is_empty() {
            self.changed.signal(cx.cpu());
            self.poll.hand_on(cx.cpu(), Events::IN | Events::RDNORM);
        }
        events
    }

    /// Refuses `self` in `outer` when that would close a circle or nest too deep.
    fn check_nesting(&self, cx: &Curlwp<'_>, outer: &Epoll, depth: usize) -> Result<(), Errno> {
        if depth >= MAX_NESTING {
            return Err(Errno::ELOOP);
        }
        let inner: Vec<Arc<OpenFile>> = {
            let items = self.items.lock(cx.cpu());
            let files = items.values().filter_map(|item| item.file.upgrade());
            files
                .filter(|of| of.downcast::<Epoll>().is_some())
                .collect()
        };
        for epoll in inner.iter().filter_map(|of| of.downcast::<Epoll>()) {
            if std::ptr::eq(epoll, outer) {
                return Err(Errno::ELOOP);
            }
            epoll.check_nesting(cx, outer, depth + 1)?;
        }
        Ok(())
    }

    /// Puts an item on the queue and wakes somebody. Answers whether anybody waited.
    fn enqueue(&self, parker: &dyn Parker, item: &Arc<Item>) -> bool {
        if !item.queued.swap(true, Ordering::SeqCst) {
            self.ready.lock(parker).push_back(item.clone());
        }
        let waited = self.changed.has_waiters();
        self.changed.signal(parker);
        let taken = self.poll.notify(parker, Events::IN | Events::RDNORM);
        waited || taken
    }
}

impl Item {
    /// Registers with the file, which tells it about changes from here on, and queues itself if it is ready now.
    fn look(self: &Arc<Self>, cx: &Curlwp<'_>, of: &OpenFile) {
        let watcher: Arc<dyn Watcher> = self.clone();
        let now = of.file().poll(cx, self.wanted(), Some(&watcher));
        if !now.is_empty()
            && let Some(epoll) = self.epoll.upgrade()
        {
            epoll.enqueue(cx.cpu(), self);
        }
    }

    /// The descriptor that it was added by and the open file, if that is still what the descriptor stands for and nobody else has it:
    /// no other descriptor and no other process. An exclusive entry, which does not change like others, is none.
    pub fn of_one_holder(&self, cx: &Curlwp<'_>) -> Option<(i32, Arc<OpenFile>)> {
        let of = self.file.upgrade()?;
        let alone = !self.exclusive && cx.proc().fds().has_alone(self.key.0, &of);
        alone.then_some((self.key.0, of))
    }

    fn wanted(&self) -> Events {
        match self.mask.load(Ordering::SeqCst) & !FLAGS {
            0 => Events::NONE,
            events => Events(events) | Events::ERR | Events::HUP,
        }
    }

    /// What to report of it, and whether it stays in the queue.
    fn take(&self, cx: &Curlwp<'_>) -> Option<(EpollEvent, bool)> {
        let of = self.file.upgrade()?;
        let data = self.data.lock(cx.cpu());
        let mask = self.mask.load(Ordering::SeqCst);
        let wanted = self.wanted();
        if wanted.is_empty() {
            return None;
        }
        let now = of.file().poll(cx, wanted, None) & wanted;
        if now.is_empty() {
            return None;
        }
        if mask & EPOLLONESHOT != 0 {
            // Rests until it is modified.
            self.mask.fetch_and(FLAGS, Ordering::SeqCst);
        }
        let event = EpollEvent {
            events: now.0,
            data: *data,
        };
        Some((event, mask & (EPOLLET | EPOLLONESHOT) == 0))
    }

    /// Leaves its instance, because the file's last descriptor is gone.
    pub(crate) fn detach(&self, cx: &Curlwp<'_>) {
        self.mask.store(0, Ordering::SeqCst);
        if let Some(epoll) = self.epoll.upgrade() {
            epoll.items.lock(cx.cpu()).remove(&self.key);
        }
    }

    fn told(&self, parker: &dyn Parker, events: Events) -> bool {
        if !self.wanted().intersects(events) {
            return false;
        }
        match (self.epoll.upgrade(), self.me.upgrade()) {
            (Some(epoll), Some(item)) => epoll.enqueue(parker, &item),
            _ => false,
        }
    }
}

impl Watcher for Item {
    fn notify(&self, parker: &dyn Parker, events: Events) {
        self.told(parker, events);
    }

    fn exclusive(&self) -> bool {
        self.exclusive
    }

    fn notify_exclusive(&self, parker: &dyn Parker, events: Events) -> bool {
        self.told(parker, events)
    }
}

impl File for Epoll {
    fn read(&self, _: &Curlwp<'_>, _: &OpenFile, _: &mut Uio<'_>) -> Result<(), Errno> {
        Err(Errno::EINVAL)
    }

    fn write(&self, _: &Curlwp<'_>, _: &OpenFile, _: &mut Uio<'_>) -> Result<(), Errno> {
        Err(Errno::EINVAL)
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

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Epoll {
    /// Whether some queued item is really ready; those that are not leave the queue.
    fn has_ready(&self, cx: &Curlwp<'_>) -> bool {
        let _taking = self.taking.lock(cx.cpu());
        let turns = self.ready.lock(cx.cpu()).len();
        for _ in 0..turns {
            let Some(item) = self.ready.lock(cx.cpu()).pop_front() else {
                return false;
            };
            item.queued.store(false, Ordering::SeqCst);
            let wanted = item.wanted();
            let is_ready = !wanted.is_empty()
                && item
                    .file
                    .upgrade()
                    .is_some_and(|of| !of.file().poll(cx, wanted, None).is_empty());
            if is_ready {
                if !item.queued.swap(true, Ordering::SeqCst) {
                    self.ready.lock(cx.cpu()).push_front(item);
                }
                // Who was about to sleep has not seen it.
                self.changed.signal(cx.cpu());
                return true;
            }
        }
        false
    }
}

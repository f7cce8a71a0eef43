//! eventfd(2): a counter that one side adds to and the other takes.

use std::any::Any;
use std::sync::Arc;

use abi::{Errno, Stat};
use sync::{Condvar, Mutex, Wake};

use crate::poll::{Events, PollHead, Watcher};
use crate::{Curlwp, File, OpenFile, Uio, anon};

/// The highest count.
const MAX: u64 = u64::MAX - 1;

/// An eventfd. `count` is a leaf.
pub struct EventFd {
    count: Mutex<u64>,
    changed: Condvar,
    poll: PollHead,
    semaphore: bool,
    ident: anon::Ident,
}

impl EventFd {
    /// With an initial count. Each read of a `semaphore` takes one, else everything.
    pub fn new(cx: &Curlwp<'_>, initial: u64, semaphore: bool) -> EventFd {
        EventFd {
            count: Mutex::new(initial),
            changed: Condvar::new("eventfd"),
            poll: PollHead::new(),
            semaphore,
            ident: anon::Ident::new(cx),
        }
    }

    /// Waits until `change` finds something to do with the count.
    fn update(
        &self,
        cx: &Curlwp<'_>,
        of: &OpenFile,
        mut change: impl FnMut(&mut u64) -> Option<u64>,
    ) -> Result<u64, Errno> {
        let mut count = self.count.lock(cx.cpu());
        loop {
            if let Some(result) = change(&mut count) {
                return Ok(result);
            }
            if of.nonblocking() {
                return Err(Errno::EAGAIN);
            }
            let wake;
            (count, wake) = self.changed.wait_intr(cx.cpu(), count, None);
            if wake == Wake::Interrupted {
                return Err(Errno::EINTR);
            }
        }
    }

    fn tell(&self, cx: &Curlwp<'_>, events: Events) {
        self.changed.broadcast(cx.cpu());
        self.poll.notify(cx.cpu(), events);
    }
}

impl File for EventFd {
    fn read(&self, cx: &Curlwp<'_>, of: &OpenFile, uio: &mut Uio<'_>) -> Result<(), Errno> {
        if uio.resid() < 8 {
            return Err(Errno::EINVAL);
        }
        let taken = self.update(cx, of, |count| {
            let taken = if self.semaphore {
                (*count).min(1)
            } else {
                *count
            };
            *count -= taken;
            (taken != 0).then_some(taken)
        })?;
        self.tell(cx, Events::OUT);
        uio.put(cx, &taken.to_le_bytes()).map(drop)
    }

    fn write(&self, cx: &Curlwp<'_>, of: &OpenFile, uio: &mut Uio<'_>) -> Result<(), Errno> {
        if uio.resid() < 8 {
            return Err(Errno::EINVAL);
        }
        let mut raw = [0; 8];
        uio.get(cx, &mut raw)?;
        let add = u64::from_le_bytes(raw);
        if add > MAX {
            uio.give_back(8);
            return Err(Errno::EINVAL);
        }
        let added = self.update(cx, of, |count| {
            let sum = count.checked_add(add).filter(|&sum| sum <= MAX)?;
            *count = sum;
            Some(add)
        });
        if let Err(error) = added {
            uio.give_back(8);
            return Err(error);
        }
        self.tell(cx, Events::IN);
        Ok(())
    }

    fn available(&self, cx: &Curlwp<'_>, _: &OpenFile, events: Events) -> i64 {
        let count = *self.count.lock(cx.cpu());
        let available = match events.intersects(Events::OUT) {
            true => MAX - count,
            false => count,
        };
        i64::try_from(available).unwrap_or(i64::MAX)
    }

    fn poll(&self, cx: &Curlwp<'_>, events: Events, watcher: Option<&Arc<dyn Watcher>>) -> Events {
        if let Some(watcher) = watcher {
            self.poll.watch(cx.cpu(), watcher);
        }
        let count = *self.count.lock(cx.cpu());
        let mut now = Events::NONE;
        if count > 0 {
            now = now | Events::IN | Events::RDNORM;
        }
        if count < MAX {
            now = now | Events::OUT | Events::WRNORM;
        }
        now & (events | Events::ALWAYS)
    }

    fn stat(&self, _: &Curlwp<'_>) -> Result<Stat, Errno> {
        Ok(self.ident.stat(0o600))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

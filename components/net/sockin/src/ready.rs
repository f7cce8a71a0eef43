//! Waiting: what the host tells of sockets, and who is woken by it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use abi::Errno;
use hypercall::Sockets;
use kern::Curlwp;
use kern::poll::Events;
use net::{Common, Wait};
use sync::{Condvar, Mutex};

/// What ends a wait to receive, to accept.
const INWARD: Events = Events(Events::IN.0 | Events::PRI.0 | Events::RDHUP.0 | ENDS.0);
/// What ends a wait to send, to be connected.
const OUTWARD: Events = Events(Events::OUT.0 | ENDS.0);
const ENDS: Events = Events(Events::ERR.0 | Events::HUP.0);

/// Which way a call goes that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// It receives or accepts.
    In,
    /// It sends or connects.
    Out,
}

/// Where the calls on a socket wait for its host's.
///
/// `changing` is a leaf, and held only to count and to fall asleep.
pub(crate) struct Ready {
    common: Arc<Common>,
    /// How often the host has told something.
    told: AtomicU32,
    changing: Mutex<()>,
    inward: Condvar,
    outward: Condvar,
}

impl Ready {
    pub(crate) fn new(common: Arc<Common>) -> Arc<Ready> {
        Arc::new(Ready {
            common,
            told: AtomicU32::new(0),
            changing: Mutex::new(()),
            inward: Condvar::new("sockinr"),
            outward: Condvar::new("sockinw"),
        })
    }

    /// What has been told up to now: asked before a call is tried.
    pub(crate) fn now(&self) -> u32 {
        self.told.load(Ordering::SeqCst)
    }

    /// Sleeps unless something was told since `then`. `EAGAIN`, `EINTR` as the wait says.
    pub(crate) fn changes(
        &self,
        cx: &Curlwp<'_>,
        then: u32,
        way: Way,
        wait: &mut Wait,
    ) -> Result<(), Errno> {
        let guard = self.changing.lock(cx.cpu());
        if self.now() != then {
            return Ok(());
        }
        let cv = match way {
            Way::In => &self.inward,
            Way::Out => &self.outward,
        };
        wait.on(cx, cv, guard).map(drop)
    }

    /// The host tells something: wakes who waits for it. Who finds that it was for another sleeps again.
    pub(crate) fn tell(&self, cx: &Curlwp<'_>, events: Events) {
        {
            let _guard = self.changing.lock(cx.cpu());
            self.told.fetch_add(1, Ordering::SeqCst);
        }
        if events.intersects(INWARD) {
            self.inward.broadcast(cx.cpu());
        }
        if events.intersects(OUTWARD) {
            self.outward.broadcast(cx.cpu());
        }
        self.common.poll.notify(cx.cpu(), events);
    }
}

/// The kernel's thread that asks the host, and the sockets that it asks for. `watched` is a leaf.
pub(crate) struct Poller {
    host: Arc<dyn Sockets>,
    watched: Mutex<HashMap<u64, Arc<Ready>>>,
    last: AtomicU64,
    /// There is a thread.
    running: AtomicBool,
    leaving: AtomicBool,
}

impl Poller {
    pub(crate) fn new(host: Arc<dyn Sockets>) -> Poller {
        Poller {
            host,
            watched: Mutex::default(),
            last: AtomicU64::new(0),
            running: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
        }
    }

    /// Takes a socket among those that the host is asked for; answers its number.
    pub(crate) fn add(&self, cx: &Curlwp<'_>, ready: &Arc<Ready>) -> u64 {
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        self.watched.lock(cx.cpu()).insert(number, ready.clone());
        number
    }

    /// Forgets a socket.
    pub(crate) fn remove(&self, cx: &Curlwp<'_>, number: u64) {
        let gone = self.watched.lock(cx.cpu()).remove(&number);
        drop(gone);
    }

    /// Has the thread leave, at the kernel's end.
    pub(crate) fn leave(&self) {
        self.leaving.store(true, Ordering::SeqCst);
        self.host.wake();
    }

    /// Starts the thread, if there is none. `EOPNOTSUPP` when the kernel may have no threads.
    pub(crate) fn start(self: &Arc<Self>, cx: &Curlwp<'_>) -> Result<(), Errno> {
        if self.running.load(Ordering::Acquire) || self.running.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let poller = self.clone();
        let started = cx
            .kernel()
            .kthread_create(cx, "sockin", move |cx| poller.serve(cx));
        if started.is_err() {
            self.running.store(false, Ordering::Release);
        }
        started
    }

    /// What the thread does.
    fn serve(&self, cx: &Curlwp<'_>) {
        let mut events = Vec::new();
        while !self.leaving.load(Ordering::SeqCst) {
            let waited = cx.unscheduled(|| self.host.wait(&mut events));
            if let Err(error) = waited {
                // Nobody would be woken any more.
                cx.log(format_args!(
                    "sockin: the host tells nothing any more: {error}"
                ));
                return;
            }
            for (number, bits) in events.drain(..) {
                let ready = self.watched.lock(cx.cpu()).get(&number).cloned();
                if let Some(ready) = ready {
                    ready.tell(cx, Events(bits));
                }
            }
        }
    }
}

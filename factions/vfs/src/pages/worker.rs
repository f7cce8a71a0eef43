//! A thread of the kernel that is made when there is first something to do.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use hypercall::{Host, JoinHandle, Nanos};
use kern::{Curlwp, Kernel, KernelMemory};
use sync::Mutex;

/// Does all there is to do; answers when to look again if nobody calls before, on the monotonic clock.
pub(super) type Work = fn(&Curlwp<'_>) -> Option<Nanos>;

/// A thread that does one kind of work, called when there is some.
///
/// It knows the kernel only weakly and ends when that is gone. The lock is a leaf.
pub(super) struct Worker {
    name: &'static str,
    work: Work,
    shared: Arc<Shared>,
    thread: Mutex<Option<Box<dyn JoinHandle>>>,
}

#[derive(Default)]
struct Shared {
    /// Changes with each call; the thread parks on it.
    calls: AtomicU32,
    running: AtomicBool,
    stop: AtomicBool,
    asleep: AtomicBool,
}

impl Worker {
    pub(super) fn new(name: &'static str, work: Work) -> Worker {
        Worker {
            name,
            work,
            shared: Arc::default(),
            thread: Mutex::new(None),
        }
    }

    /// Has the thread look for work. False when there is no thread and none may be made (`RUMP_THREADS=0`): the caller
    /// does the work itself.
    pub(super) fn call(&self, cx: &Curlwp<'_>) -> bool {
        if !self.shared.running.load(Ordering::SeqCst) && !self.start(cx) {
            return false;
        }
        self.shared.wake(&**cx.kernel().host());
        true
    }

    #[cold]
    fn start(&self, cx: &Curlwp<'_>) -> bool {
        let kernel = cx.kernel();
        if !kernel.config().threads {
            return false;
        }
        let mut thread = self.thread.lock(cx.cpu());
        if self.shared.stop.load(Ordering::SeqCst) {
            return false;
        }
        if thread.is_none() {
            let (shared, work) = (self.shared.clone(), self.work);
            let (host, kernel) = (kernel.host().clone(), Arc::downgrade(kernel));
            let body = Box::new(move || shared.run(&*host, &kernel, work));
            *thread = cx.kernel().host().spawn(self.name, body).ok();
            self.shared
                .running
                .store(thread.is_some(), Ordering::SeqCst);
        }
        thread.is_some()
    }

    /// Ends the thread and waits until it has.
    pub(super) fn stop(&self, cx: &Curlwp<'_>) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.wake(&**cx.kernel().host());
        let thread = self.thread.lock(cx.cpu()).take();
        self.shared.running.store(false, Ordering::SeqCst);
        if let Some(thread) = thread {
            cx.unscheduled(|| thread.join());
        }
    }

    /// Lets the thread end by itself, because the kernel is gone.
    pub(super) fn abandon(&self, host: &dyn Host) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.wake(host);
    }
}

impl Shared {
    fn wake(&self, host: &dyn Host) {
        self.calls.fetch_add(1, Ordering::SeqCst);
        if self.asleep.load(Ordering::SeqCst) {
            host.unpark(&self.calls, 1);
        }
    }

    fn run(&self, host: &dyn Host, kernel: &Weak<Kernel>, work: Work) {
        loop {
            let seen = self.calls.load(Ordering::SeqCst);
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            let next = match kernel.upgrade() {
                Some(kernel) => kernel.implicit(&KernelMemory, work),
                None => return,
            };
            self.asleep.store(true, Ordering::SeqCst);
            host.park(&self.calls, seen, next);
            self.asleep.store(false, Ordering::SeqCst);
        }
    }
}

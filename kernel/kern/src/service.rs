//! Service threads: what drives callouts and work queues.
//!
//! Such a thread comes into being with the first thing to do, sleeps while there is nothing, and keeps the kernel
//! alive only while it works, so that a kernel that its users drop goes away.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use hypercall::{Clock, Host, JoinHandle, Nanos};
use sync::{Mutex, OffCpu};

use crate::{Curlwp, Kernel, KernelMemory};

/// What a service thread does.
pub(crate) trait Duty: Send + Sync + 'static {
    /// When there is something to do, on the monotonic clock: 0 for now, `None` for nothing.
    fn next(&self, off: &OffCpu<'_>) -> Option<Nanos>;

    /// Does what is due.
    fn work(&self, cx: &Curlwp<'_>);
}

/// The thread of a duty, before, while and after it runs. `thread` is a leaf.
pub(crate) struct Service {
    name: String,
    kernel: Weak<Kernel>,
    host: Arc<dyn Host>,
    duty: OnceLock<Weak<dyn Duty>>,
    /// Changes when there may be something new to do; the thread parks on it.
    word: AtomicU32,
    started: AtomicBool,
    stop: AtomicBool,
    /// Set by the thread while it lets go of the kernel: whoever ends the kernel then is the thread itself.
    letting_go: AtomicBool,
    thread: Mutex<Option<Box<dyn JoinHandle>>>,
}

impl Service {
    pub(crate) fn new(kernel: Weak<Kernel>, host: Arc<dyn Host>, name: &str) -> Arc<Service> {
        Arc::new(Service {
            name: name.to_owned(),
            kernel,
            host,
            duty: OnceLock::new(),
            word: AtomicU32::new(0),
            started: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            letting_go: AtomicBool::new(false),
            thread: Mutex::new(None),
        })
    }

    /// Says what the thread does; once, before the first [`kick`](Self::kick).
    pub(crate) fn set_duty(&self, duty: Weak<dyn Duty>) {
        let _ = self.duty.set(duty);
    }

    pub(crate) fn host(&self) -> &dyn Host {
        &*self.host
    }

    /// Lets the thread look whether there is something to do, and starts it the first time.
    pub(crate) fn kick(self: &Arc<Self>) {
        self.word.fetch_add(1, Ordering::SeqCst);
        if self.started.load(Ordering::SeqCst) {
            self.host.unpark(&self.word, 1);
        } else {
            self.start();
        }
    }

    #[cold]
    fn start(self: &Arc<Self>) {
        let Some(kernel) = self.kernel.upgrade() else {
            return;
        };
        let off = OffCpu(self.host());
        let mut thread = self.thread.lock(&off);
        if self.started.swap(true, Ordering::SeqCst) || self.stop.load(Ordering::SeqCst) {
            return;
        }
        if !kernel.config().threads {
            kernel.serve_without_threads();
            return;
        }
        let me = self.clone();
        match self.host.spawn(&self.name, Box::new(move || me.run())) {
            Ok(handle) => *thread = Some(handle),
            Err(_) => kernel.serve_without_threads(),
        }
    }

    fn run(&self) {
        while !self.stop.load(Ordering::SeqCst) {
            let seen = self.word.load(Ordering::SeqCst);
            let Some(duty) = self.duty.get().and_then(Weak::upgrade) else {
                return;
            };
            let next = duty.next(&OffCpu(self.host()));
            if next.is_some_and(|at| at <= self.host.now(Clock::Monotonic)) {
                let Some(kernel) = self.kernel.upgrade() else {
                    return;
                };
                kernel.implicit(&KernelMemory, |cx| duty.work(cx));
                self.letting_go.store(true, Ordering::SeqCst);
                drop(duty);
                drop(kernel);
                self.letting_go.store(false, Ordering::SeqCst);
            } else {
                drop(duty);
                self.host.park(&self.word, seen, next);
            }
        }
    }

    /// Does what is due in the place of the thread, where there is none.
    pub(crate) fn serve(&self, cx: &Curlwp<'_>) {
        let Some(duty) = self.duty.get().and_then(Weak::upgrade) else {
            return;
        };
        let due = |at| at <= cx.now(Clock::Monotonic);
        while duty.next(&OffCpu(self.host())).is_some_and(due) {
            duty.work(cx);
        }
    }

    /// When [`serve`](Self::serve) has something to do next.
    pub(crate) fn next(&self) -> Option<Nanos> {
        let duty = self.duty.get().and_then(Weak::upgrade)?;
        duty.next(&OffCpu(self.host()))
    }

    /// Ends the thread without waiting for it.
    pub(crate) fn retire(&self) {
        self.stop.store(true, Ordering::SeqCst);
        self.word.fetch_add(1, Ordering::SeqCst);
        self.host.unpark(&self.word, 1);
    }

    /// Ends the thread and waits for it, for who holds no virtual CPU. The thread itself does not wait.
    pub(crate) fn stop(&self) {
        self.retire();
        let thread = self.thread.lock(&OffCpu(self.host())).take();
        if let Some(thread) = thread
            && !self.letting_go.load(Ordering::SeqCst)
        {
            thread.join();
        }
    }
}

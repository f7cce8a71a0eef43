//! The thread of an interface that waits for frames.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use abi::Errno;
use kern::Curlwp;
use sync::{Condvar, Mutex};

use crate::consts::IFF_RUNNING;
use crate::{Ifnet, Packet, coalesce};

/// Where the frames of an interface come from, when somebody has to wait for them.
pub trait Source: Send + Sync {
    /// **May block**; called without a virtual CPU. Appends frames that have come, waiting until there is one; none after
    /// [`wake`](Self::wake). An error means that nothing will come any more.
    fn receive(&self, batch: &mut Vec<Packet>) -> Result<(), Errno>;

    /// Ends the present wait in [`receive`](Self::receive), or the next one. Does not block.
    fn wake(&self);
}

/// One kernel thread for an interface that is up: it waits for frames, and hands them up in batches.
///
/// `running` says which thread there is; a leaf.
pub struct Receiver {
    running: Mutex<Option<Arc<Thread>>>,
    ended: Condvar,
}

struct Thread {
    source: Arc<dyn Source>,
    leaving: AtomicBool,
}

impl Default for Receiver {
    fn default() -> Receiver {
        Receiver {
            running: Mutex::new(None),
            ended: Condvar::new("ifdown"),
        }
    }
}

impl Receiver {
    /// Starts the thread, if there is none. `EOPNOTSUPP` when the kernel may have no threads, `EAGAIN` when the host gives no more.
    pub fn start(
        self: &Arc<Self>,
        cx: &Curlwp<'_>,
        interface: &Arc<Ifnet>,
        source: Arc<dyn Source>,
    ) -> Result<(), Errno> {
        let thread = Arc::new(Thread {
            source,
            leaving: AtomicBool::new(false),
        });
        {
            let mut running = self.running.lock(cx.cpu());
            if running.is_some() {
                return Ok(());
            }
            *running = Some(thread.clone());
        }
        let (receiver, interface) = (self.clone(), interface.clone());
        let name = interface.name(cx.cpu());
        let started = cx.kernel().kthread_create(cx, &name, move |cx| {
            if let Err(error) = serve(cx, &interface, &thread) {
                let name = interface.name(cx.cpu());
                cx.log(format_args!("{name}: nothing comes any more: {error}"));
                interface.change_flags(cx.cpu(), 0, IFF_RUNNING);
            }
            receiver.has_ended(cx);
        });
        if started.is_err() {
            self.has_ended(cx);
        }
        started
    }

    /// Has the thread leave, and waits until it has.
    pub fn stop(&self, cx: &Curlwp<'_>) {
        let mut running = self.running.lock(cx.cpu());
        while let Some(thread) = running.clone() {
            thread.leaving.store(true, Ordering::SeqCst);
            thread.source.wake();
            running = self.ended.wait(cx.cpu(), running);
        }
    }

    /// Whether there is a thread.
    pub fn is_running(&self, cx: &Curlwp<'_>) -> bool {
        self.running.lock(cx.cpu()).is_some()
    }

    fn has_ended(&self, cx: &Curlwp<'_>) {
        *self.running.lock(cx.cpu()) = None;
        self.ended.broadcast(cx.cpu());
    }
}

/// What the thread does until it is told to leave, or its source ends.
fn serve(cx: &Curlwp<'_>, interface: &Arc<Ifnet>, thread: &Thread) -> Result<(), Errno> {
    let mut batch = Vec::new();
    loop {
        let received = cx.unscheduled(|| thread.source.receive(&mut batch));
        if thread.leaving.load(Ordering::SeqCst) || cx.lwp().is_leaving() {
            return Ok(());
        }
        coalesce(interface.link(), &mut batch);
        for packet in batch.drain(..) {
            interface.input(cx.cpu(), packet);
        }
        received?;
    }
}

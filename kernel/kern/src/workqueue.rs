//! Work queues, as workqueue(9) has them: work that is done later, in order, by a thread of the kernel, because
//! whoever has it may not wait.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use hypercall::Nanos;
use sync::{Condvar, Mutex, OffCpu, Parker};

use crate::service::{Duty, Service};
use crate::{Curlwp, Kernel};

type Work = Box<dyn FnOnce(&Curlwp<'_>) + Send>;

/// A queue of work and its thread. Drop it with the faction or component that it belongs to.
pub struct Workqueue {
    queue: Arc<Queue>,
}

/// `state` is a leaf and is not held while work is done.
struct Queue {
    service: Arc<Service>,
    state: Mutex<State>,
    idle: Condvar,
}

#[derive(Default)]
struct State {
    work: VecDeque<Work>,
    busy: bool,
}

impl Workqueue {
    /// A queue whose thread has this name. The thread comes with the first work.
    pub fn new(cx: &Curlwp<'_>, name: &str) -> Workqueue {
        let kernel = cx.kernel();
        let queue = Arc::new(Queue {
            service: Service::new(Arc::downgrade(kernel), kernel.host().clone(), name),
            state: Mutex::default(),
            idle: Condvar::new("workq"),
        });
        let duty: Weak<Queue> = Arc::downgrade(&queue);
        queue.service.set_duty(duty);
        kernel.add_service(cx, &queue.service);
        Workqueue { queue }
    }

    /// Adds work, which runs after all that was added before. Does not wait, and may come from a host thread outside
    /// the kernel.
    pub fn enqueue(&self, parker: &dyn Parker, work: impl FnOnce(&Curlwp<'_>) + Send + 'static) {
        self.queue.state.lock(parker).work.push_back(Box::new(work));
        self.queue.service.kick();
    }

    /// Waits until everything added so far is done. Not from work of this queue.
    pub fn wait(&self, cx: &Curlwp<'_>) {
        if cx.kernel().is_threadless() {
            self.queue.service.serve(cx);
        }
        let mut state = self.queue.state.lock(cx.cpu());
        while state.busy || !state.work.is_empty() {
            state = self.queue.idle.wait(cx.cpu(), state);
        }
    }
}

impl Drop for Workqueue {
    fn drop(&mut self) {
        self.queue.service.retire();
    }
}

impl Duty for Queue {
    fn next(&self, off: &OffCpu<'_>) -> Option<Nanos> {
        let state = self.state.lock(off);
        (!state.work.is_empty()).then_some(0)
    }

    fn work(&self, cx: &Curlwp<'_>) {
        loop {
            let mut state = self.state.lock(cx.cpu());
            state.busy = false;
            let Some(work) = state.work.pop_front() else {
                drop(state);
                self.idle.broadcast(cx.cpu());
                return;
            };
            state.busy = true;
            drop(state);
            work(cx);
        }
    }
}

impl Kernel {
    /// Does what work queues and callouts have to do, where the kernel has no threads for it.
    pub(crate) fn serve_all(&self, cx: &Curlwp<'_>) {
        self.timers().service().serve(cx);
        for service in self.services(cx) {
            service.serve(cx);
        }
    }
}

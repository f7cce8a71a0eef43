//! Cross-calls, as xcall(9) has them: having a function run on another virtual CPU, or on each.
//!
//! A CPU that an lwp holds runs it when it is given up; an idle one is taken for it. There is no preemption, so a
//! call waits for an lwp that computes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::OnceLock;

use abi::Errno;
use sync::{Condvar, Cpu, Cpus, Mutex, OffCpu};

use crate::evcnt::Evcnt;
use crate::softint::Softint;
use crate::{Curlwp, Kernel};

/// What runs; it may not wait.
type Function = dyn Fn(&Cpu<'_>) + Send + Sync;

struct Call {
    function: Box<Function>,
    /// On how many CPUs it has still to run. A leaf.
    left: Mutex<usize>,
    done: Condvar,
}

/// The cross-calls of a kernel that have still to run, for each CPU. Each queue is a leaf.
pub(crate) struct Xcalls {
    queues: Arc<[Mutex<VecDeque<Arc<Call>>>]>,
    softint: OnceLock<Softint>,
    /// Counts the calls, once for each CPU.
    calls: OnceLock<Evcnt>,
}

impl Xcalls {
    pub(crate) fn new(cpus: &Cpus) -> Xcalls {
        Xcalls {
            queues: (0..cpus.count()).map(|_| Mutex::default()).collect(),
            softint: OnceLock::new(),
            calls: OnceLock::new(),
        }
    }

    pub(crate) fn attach(&self, cx: &Curlwp<'_>) -> Result<(), Errno> {
        let queues = self.queues.clone();
        let softint = Softint::establish(cx, move |cpu| {
            // This CPU is kept while a queue's lock is waited for: the function is to run here.
            let off = OffCpu(&**cpu.cpus().host());
            loop {
                let Some(call) = queues[cpu.index()].lock(&off).pop_front() else {
                    return;
                };
                (call.function)(cpu);
                *call.left.lock(&off) -= 1;
                call.done.broadcast(&off);
            }
        })?;
        let _ = self.softint.set(softint);
        let _ = self
            .calls
            .set(cx.kernel().evcnts().attach(cx, "xcall", "calls"));
        Ok(())
    }
}

impl Kernel {
    /// Runs a function on every virtual CPU, and waits until it has.
    pub fn xcall_broadcast(
        &self,
        cx: &Curlwp<'_>,
        function: impl Fn(&Cpu<'_>) + Send + Sync + 'static,
    ) {
        self.xcall(cx, 0..self.cpus().count(), Box::new(function));
    }

    /// Runs a function on one virtual CPU, and waits until it has.
    pub fn xcall_unicast(
        &self,
        cx: &Curlwp<'_>,
        cpu: usize,
        function: impl Fn(&Cpu<'_>) + Send + Sync + 'static,
    ) {
        self.xcall(cx, cpu..cpu + 1, Box::new(function));
    }

    fn xcall(&self, cx: &Curlwp<'_>, cpus: std::ops::Range<usize>, function: Box<Function>) {
        let xcalls = self.xcalls();
        let Some(softint) = xcalls.softint.get() else {
            return;
        };
        if let Some(&calls) = xcalls.calls.get() {
            self.evcnts().add(cx.cpu(), calls, cpus.len() as u64);
        }
        let call = Arc::new(Call {
            function,
            left: Mutex::new(cpus.len()),
            done: Condvar::new("xcall"),
        });
        for cpu in cpus {
            xcalls.queues[cpu].lock(cx.cpu()).push_back(call.clone());
            let busy = self.cpus().post(cpu, softint.bits());
            if (!busy && cx.try_migrate(cpu)) || cx.index() == cpu {
                cx.run_pending();
            }
        }
        let mut left = call.left.lock(cx.cpu());
        while *left != 0 {
            left = call.done.wait(cx.cpu(), left);
        }
    }
}

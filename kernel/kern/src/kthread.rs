//! Threads of the kernel, as kthread(9) has them.
//!
//! A kernel thread keeps its kernel alive until it returns. What only has to be done now and then is better a
//! [`crate::callout::Callout`] with a [`crate::workqueue::Workqueue`], which do not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use abi::Errno;
use hypercall::JoinHandle;
use sync::Mutex;

use crate::{Curlwp, Kernel, KernelMemory, Lwp};

/// The threads of a kernel. `list` is a leaf.
#[derive(Default)]
pub(crate) struct Threads {
    list: Mutex<Vec<Thread>>,
}

struct Thread {
    lwp: Arc<Lwp>,
    ended: Arc<AtomicBool>,
    handle: Box<dyn JoinHandle>,
}

impl Kernel {
    /// Starts a thread that runs `body` in the kernel. At shutdown its waits end with an interrupt
    /// ([`Lwp::is_leaving`] says that it is to go) and it is waited for. `EOPNOTSUPP` when the kernel may have no
    /// threads, `ESHUTDOWN` when it goes down, `EAGAIN` when the host gives no more.
    pub fn kthread_create(
        self: &Arc<Self>,
        cx: &Curlwp<'_>,
        name: &str,
        body: impl FnOnce(&Curlwp<'_>) + Send + 'static,
    ) -> Result<(), Errno> {
        if !self.config().threads {
            self.log(format_args!(
                "{name}: RUMP_THREADS=0: a thread is needed and not to be had"
            ));
            return Err(Errno::EOPNOTSUPP);
        }
        self.reap_threads(cx);
        let mut list = self.threads().list.lock(cx.cpu());
        if self.phase() > crate::boot::Phase::Running {
            return Err(Errno::ESHUTDOWN);
        }
        let lwp = self.kernel_lwp();
        let ended = Arc::new(AtomicBool::new(false));
        let (kernel, its_lwp, its_ended) = (self.clone(), lwp.clone(), ended.clone());
        let run = move || {
            body(&Curlwp::enter(&kernel, &its_lwp, &KernelMemory, None));
            its_ended.store(true, Ordering::SeqCst);
        };
        let handle = self.host().spawn(name, Box::new(run))?;
        list.push(Thread { lwp, ended, handle });
        Ok(())
    }

    /// Forgets threads that have returned.
    fn reap_threads(&self, cx: &Curlwp<'_>) {
        let ended: Vec<Thread> = {
            let mut list = self.threads().list.lock(cx.cpu());
            list.extract_if(.., |t| t.ended.load(Ordering::SeqCst))
                .collect()
        };
        cx.unscheduled(|| ended.into_iter().for_each(|t| t.handle.join()));
    }

    /// Has every thread leave, and waits for them; but not for the caller itself.
    pub(crate) fn join_threads(&self, cx: &Curlwp<'_>) {
        let threads = std::mem::take(&mut *self.threads().list.lock(cx.cpu()));
        for thread in &threads {
            thread.lwp.dismiss(&**self.host());
        }
        let others = threads.into_iter().filter(|t| t.lwp.lid != cx.lwp().lid);
        cx.unscheduled(|| others.for_each(|t| t.handle.join()));
    }
}

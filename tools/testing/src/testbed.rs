//! What the body of a test gets: a kernel on some host.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use hypercall::sim::{SimFile, SimHost};
use hypercall::{Host, JoinHandle, PosixHost};
use kern::{Kernel, KernelMemory, LwpHandle, Pid, RforkFds};

use crate::Dice;

/// A booted kernel on a host.
///
/// Locks are the host's, for short lists; none is held over a call into the kernel.
pub struct Testbed {
    seed: u64,
    host: Arc<dyn Host>,
    sim: Option<Arc<SimHost>>,
    kernel: Arc<Kernel>,
    dice: Mutex<Dice>,
    files: Mutex<Vec<tempfile::NamedTempFile>>,
}

/// A thread of a test.
pub struct Thread {
    handle: Box<dyn JoinHandle>,
    panic: Arc<Mutex<Option<Box<dyn Any + Send>>>>,
}

impl Thread {
    /// Waits for its end. When it panicked, so does this.
    pub fn join(self) {
        self.handle.join();
        let panic = self
            .panic
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }
}

impl Testbed {
    pub(crate) fn simulated(seed: u64, host: Arc<SimHost>, kernel: Arc<Kernel>) -> Arc<Testbed> {
        Testbed::new(seed, host.clone(), Some(host), kernel)
    }

    pub(crate) fn posix(seed: u64, host: Arc<PosixHost>, kernel: Arc<Kernel>) -> Arc<Testbed> {
        Testbed::new(seed, host, None, kernel)
    }

    fn new(
        seed: u64,
        host: Arc<dyn Host>,
        sim: Option<Arc<SimHost>>,
        kernel: Arc<Kernel>,
    ) -> Arc<Testbed> {
        Arc::new(Testbed {
            seed,
            host,
            sim,
            kernel,
            dice: Mutex::new(Dice::new(seed)),
            files: Mutex::default(),
        })
    }

    /// The seed of the run, or the number of the round.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The host.
    pub fn host(&self) -> &Arc<dyn Host> {
        &self.host
    }

    /// The simulated host, where it is that.
    pub fn sim(&self) -> Option<&Arc<SimHost>> {
        self.sim.as_ref()
    }

    /// The kernel.
    pub fn kernel(&self) -> &Arc<Kernel> {
        &self.kernel
    }

    /// A number below `bound`, from the seed.
    pub fn draw(&self, bound: u64) -> u64 {
        match &self.sim {
            Some(host) => host.draw(bound),
            None => self
                .dice
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .below(bound),
        }
    }

    /// Lets others run for a while, by chance not at all. For a caller that is not in the kernel.
    pub fn pause(&self) {
        for _ in 0..self.draw(8) {
            self.host.relax();
        }
    }

    /// A new process without descriptors.
    pub fn process(&self) -> LwpHandle {
        self.kernel.rfork(RforkFds::Clear).expect("a process")
    }

    /// Starts a thread.
    pub fn spawn(&self, name: &str, body: impl FnOnce() + Send + 'static) -> Thread {
        let panic = Arc::new(Mutex::new(None));
        let simulated = self.sim.is_some();
        let kept = panic.clone();
        let run = move || {
            if simulated {
                // The run ends with the panic, and tells of it.
                return body();
            }
            if let Err(payload) = catch_unwind(AssertUnwindSafe(body)) {
                *kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(payload);
            }
        };
        let handle = self.host.spawn(name, Box::new(run)).expect("a thread");
        Thread { handle, panic }
    }

    /// Runs `body` on each of `count` threads, each with a process of its own, and waits for all.
    pub fn users(
        self: &Arc<Self>,
        count: usize,
        body: impl Fn(usize, &LwpHandle) + Send + Sync + 'static,
    ) {
        let bed = self.clone();
        self.crowd(count, move |i| body(i, &bed.process()));
    }

    /// Runs `body` on each of `count` threads, each with an lwp of the process, and waits for all.
    pub fn lwps(
        self: &Arc<Self>,
        pid: Pid,
        count: usize,
        body: impl Fn(usize, &LwpHandle) + Send + Sync + 'static,
    ) {
        let bed = self.clone();
        self.crowd(count, move |i| {
            body(i, &bed.kernel.newlwp(pid).expect("an lwp"));
        });
    }

    /// Runs `body` on each of `count` threads, each with an lwp of a process, ends that process from outside, and waits for all.
    /// A thread that comes too late for an lwp does nothing.
    pub fn lwps_of_dying(
        self: &Arc<Self>,
        dying: LwpHandle,
        count: usize,
        body: impl Fn(usize, &LwpHandle) + Send + Sync + 'static,
    ) {
        let (bed, pid) = (self.clone(), dying.pid());
        let threads = self.start(count, move |i| {
            if let Ok(lwp) = bed.kernel.newlwp(pid) {
                body(i, &lwp);
            }
        });
        self.pause();
        self.end(pid);
        drop(dying);
        threads.into_iter().for_each(Thread::join);
    }

    /// Ends a process from outside.
    pub fn end(&self, pid: Pid) {
        self.kernel.implicit(&KernelMemory, |cx| {
            let proc = cx.kernel().find_proc(cx, pid).expect("it lives");
            cx.kernel().proc_exit(cx, &proc);
        });
    }

    fn crowd(&self, count: usize, body: impl Fn(usize) + Send + Sync + 'static) {
        let threads = self.start(count, body);
        threads.into_iter().for_each(Thread::join);
    }

    fn start(&self, count: usize, body: impl Fn(usize) + Send + Sync + 'static) -> Vec<Thread> {
        let body = Arc::new(body);
        (0..count)
            .map(|i| {
                let body = body.clone();
                self.spawn(&format!("user{i}"), move || body(i))
            })
            .collect()
    }

    /// A file of the host with this content, until the end of the test; its path.
    pub fn host_file(&self, content: &[u8]) -> String {
        match &self.sim {
            Some(host) => {
                let mut files = 0;
                let path = loop {
                    let path = format!("/host/file{files}");
                    if host.file(path.as_bytes()).is_none() {
                        break path;
                    }
                    files += 1;
                };
                host.put_file(path.as_bytes(), host.new_file(content.to_vec()));
                path
            }
            None => {
                let file = tempfile::NamedTempFile::new().expect("a file");
                std::fs::write(file.path(), content).expect("written");
                let path = file.path().to_str().expect("text").to_owned();
                self.files
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(file);
                path
            }
        }
    }

    /// What is in a file of the host.
    pub fn host_content(&self, path: &str) -> Vec<u8> {
        match &self.sim {
            Some(host) => host
                .file(path.as_bytes())
                .map_or_else(Vec::new, |file| SimFile::content(&file)),
            None => std::fs::read(path).expect("read"),
        }
    }
}

/// Runs a body on a simulated host, with a thread and a process of its own.
pub fn program(
    host: &Arc<SimHost>,
    kernel: &Arc<Kernel>,
    body: impl FnOnce(&LwpHandle) + Send + 'static,
) -> Box<dyn JoinHandle> {
    let kernel = kernel.clone();
    let run = move || body(&kernel.rfork(RforkFds::Clear).expect("a process"));
    host.spawn("program", Box::new(run)).expect("a thread")
}

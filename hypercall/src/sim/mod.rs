//! The simulated host: virtual time, one seeded scheduler that decides every switch, and disks that fail.
//!
//! Everything of a run happens on the one host thread that calls [`SimHost::run`]: the kernel's threads are
//! coroutines, and which of them goes on after a hypercall is drawn from the seed; in builds with debug assertions each lock
//! that is taken or given back is such a place, too. Time passes only as the run says:
//! a little with each switch, and at once to the next deadline when nobody can go on. The same seed gives the same
//! run, to the byte of its [`trace`](Run::trace), as long as the code under test keeps no other source of chance
//! (the order of a hash map with random keys is one).
//!
//! A wait that nothing can end is a [`Failure::Deadlock`] that names the threads that wait, and for what.

mod disk;
mod link;
mod sched;
mod socket;
mod trace;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use abi::Errno;

use crate::{
    BackingFile, Clock, DirEntry, FileInfo, FileKind, Host, JoinHandle, Nanos, OpenMode, Signal,
    Sockets, ThreadBody, WakeReason, Wire, WireSpec,
};

pub use disk::{Cut, Faults, History, SimFile};
pub use link::{LinkConfig, LinkEnd};
pub use sched::{Failure, Run};

use sched::Sched;

/// What the realtime clock says when a run starts: 2030-01-01.
const EPOCH: Nanos = 1_893_456_000 * 1_000_000_000;

/// How a run is set up.
#[derive(Clone, Debug)]
pub struct SimConfig {
    /// Decides everything that chance decides.
    pub seed: u64,
    /// Processors that the host says it has.
    pub ncpu: usize,
    /// The host's parameters.
    pub params: BTreeMap<String, String>,
    /// Keeps the whole trace, not only its hash.
    pub keep_trace: bool,
}

impl SimConfig {
    /// Two processors, no parameters, no trace kept.
    pub fn new(seed: u64) -> SimConfig {
        SimConfig {
            seed,
            ncpu: 2,
            params: BTreeMap::new(),
            keep_trace: false,
        }
    }

    /// Sets a parameter.
    #[must_use]
    pub fn param(mut self, name: &str, value: &str) -> SimConfig {
        self.params.insert(name.into(), value.into());
        self
    }
}

/// A simulated host. Made by [`run`](SimHost::run), alive as long as somebody keeps it; outside of its run nothing can
/// wait on it.
///
/// `sched`, `files`, `wires` and `net` are host locks for the type system's sake: one thread takes them, none is held over a switch.
pub struct SimHost {
    config: SimConfig,
    sched: Mutex<Sched>,
    files: Mutex<BTreeMap<Vec<u8>, Arc<SimFile>>>,
    console: Mutex<Vec<u8>>,
    wires: Mutex<BTreeMap<String, Arc<dyn Wire>>>,
    net: Mutex<socket::Net>,
}

/// How a simulated process ended itself; carried by a panic out of the thread that did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// [`Host::exit`] with this status.
    Exit(i32),
    /// [`Host::abort`].
    Abort,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SimHost {
    /// Runs `main` and every thread that it starts, until `main` has returned.
    pub fn run<R: Send + 'static>(
        config: SimConfig,
        main: impl FnOnce(&Arc<SimHost>) -> R + Send + 'static,
    ) -> Run<R> {
        let host = Arc::new(SimHost {
            sched: Mutex::new(Sched::new(config.seed, config.keep_trace)),
            files: Mutex::default(),
            console: Mutex::default(),
            wires: Mutex::default(),
            net: Mutex::default(),
            config,
        });
        sched::run(&host, main)
    }

    /// What was written to the console.
    pub fn console(&self) -> Vec<u8> {
        lock(&self.console).clone()
    }

    /// Puts a file under a host path, in place of what was there.
    pub fn put_file(&self, path: &[u8], file: Arc<SimFile>) {
        lock(&self.files).insert(path.to_vec(), file);
    }

    /// The file under a host path.
    pub fn file(&self, path: &[u8]) -> Option<Arc<SimFile>> {
        lock(&self.files).get(path).cloned()
    }

    /// A file that is on no path, with this content, all of it durable.
    pub fn new_file(self: &Arc<Self>, content: Vec<u8>) -> Arc<SimFile> {
        SimFile::new(Arc::downgrade(self), content)
    }

    /// Has [`open_wire`](Host::open_wire) answer this wire under a name: an end of a [link](Self::link).
    pub fn put_wire(&self, name: &str, wire: Arc<dyn Wire>) {
        lock(&self.wires).insert(name.into(), wire);
    }

    /// A number below `bound` from the run's chance; 0 when `bound` is 0.
    pub fn draw(&self, bound: u64) -> u64 {
        if bound == 0 {
            0
        } else {
            lock(&self.sched).rng.u64(..bound)
        }
    }

    fn weak_file(&self, path: &[u8]) -> Result<Arc<SimFile>, Errno> {
        self.file(path).ok_or(Errno::ENOENT)
    }
}

impl Host for SimHost {
    fn spawn(&self, name: &str, body: ThreadBody) -> Result<Box<dyn JoinHandle>, Errno> {
        Ok(Box::new(sched::spawn(&self.sched, name, body)))
    }

    fn park(&self, word: &AtomicU32, expected: u32, deadline: Option<Nanos>) -> WakeReason {
        sched::park(&self.sched, word, expected, deadline)
    }

    fn waits_for(&self, wchan: &'static str) {
        lock(&self.sched).set_wchan(wchan);
    }

    fn unpark(&self, word: &AtomicU32, count: u32) {
        sched::unpark(&self.sched, word, count);
    }

    fn relax(&self) {
        sched::switch(&self.sched);
    }

    fn explores(&self) -> bool {
        true
    }

    fn preempt(&self) {
        sched::preempt(&self.sched);
    }

    fn now(&self, clock: Clock) -> Nanos {
        let now = lock(&self.sched).now;
        match clock {
            Clock::Realtime => EPOCH + now,
            Clock::Monotonic => now,
        }
    }

    fn thread_hint(&self) -> usize {
        lock(&self.sched).current().unwrap_or(0)
    }

    fn random(&self, buf: &mut [u8]) {
        lock(&self.sched).rng.fill(buf);
    }

    fn param(&self, name: &str) -> Option<String> {
        self.config.params.get(name).cloned()
    }

    fn ncpu(&self) -> usize {
        self.config.ncpu
    }

    fn hostname(&self) -> String {
        self.param("RUMP_HOSTNAME")
            .unwrap_or_else(|| "rump-sim".into())
    }

    fn console_write(&self, bytes: &[u8]) {
        lock(&self.console).extend_from_slice(bytes);
    }

    fn console_read(&self, _: &mut [u8]) -> Result<usize, Errno> {
        Ok(0)
    }

    fn file_info(&self, path: &[u8]) -> Result<FileInfo, Errno> {
        let file = self.weak_file(path)?;
        Ok(FileInfo {
            kind: FileKind::Regular,
            size: file.size()?,
            mode: 0o644,
            mtime: EPOCH,
        })
    }

    fn open(&self, path: &[u8], mode: OpenMode) -> Result<Arc<dyn BackingFile>, Errno> {
        match self.weak_file(path) {
            Ok(_) if mode.create && mode.exclusive => Err(Errno::EEXIST),
            Ok(file) => Ok(Arc::new(disk::Opened::new(file))),
            Err(_) if mode.create => {
                let file = lock(&self.sched).new_file();
                self.put_file(path, file.clone());
                Ok(Arc::new(disk::Opened::new(file)))
            }
            Err(error) => Err(error),
        }
    }

    fn read_dir(&self, path: &[u8]) -> Result<Vec<DirEntry>, Errno> {
        let mut prefix = path.to_vec();
        if !prefix.ends_with(b"/") {
            prefix.push(b'/');
        }
        let names = lock(&self.files)
            .keys()
            .filter_map(|full| full.strip_prefix(&prefix[..]))
            .filter(|name| !name.contains(&b'/'))
            .map(|name| DirEntry {
                name: name.to_vec(),
                kind: FileKind::Regular,
            })
            .collect();
        Ok(names)
    }

    fn shared_memory(&self, _: &str, size: u64) -> Result<Arc<dyn BackingFile>, Errno> {
        let file = lock(&self.sched).new_file();
        file.set_size(size)?;
        Ok(file)
    }

    fn open_wire(&self, spec: &WireSpec) -> Result<Arc<dyn Wire>, Errno> {
        match spec {
            WireSpec::Named(name) => lock(&self.wires).get(name).cloned().ok_or(Errno::ENODEV),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }

    fn sockets(&self) -> Result<Arc<dyn Sockets>, Errno> {
        Ok(socket::sockets(lock(&self.sched).host()))
    }

    fn raise(&self, _: Signal) {}

    fn exit(&self, status: i32) -> ! {
        std::panic::resume_unwind(Box::new(Ended::Exit(status)))
    }

    fn abort(&self) -> ! {
        std::panic::resume_unwind(Box::new(Ended::Abort))
    }
}

//! A host that is another one but for its files.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use abi::Errno;

use crate::{
    BackingFile, Clock, DirEntry, FileInfo, Host, JoinHandle, Nanos, OpenMode, Signal, Sockets,
    ThreadBody, WakeReason, Wire, WireSpec,
};

/// A host that hands every file it opens through a function, so that what kernels do to their disks can be watched or
/// made to fail. Everything else is the other host's.
pub struct FilteredHost<F> {
    host: Arc<dyn Host>,
    filter: F,
}

impl<F> FilteredHost<F>
where
    F: Fn(Arc<dyn BackingFile>) -> Arc<dyn BackingFile> + Send + Sync + 'static,
{
    /// The host `host`, with `filter` between it and the files that it opens.
    pub fn new(host: Arc<dyn Host>, filter: F) -> Arc<FilteredHost<F>> {
        Arc::new(FilteredHost { host, filter })
    }
}

impl<F> Host for FilteredHost<F>
where
    F: Fn(Arc<dyn BackingFile>) -> Arc<dyn BackingFile> + Send + Sync + 'static,
{
    fn open(&self, path: &[u8], mode: OpenMode) -> Result<Arc<dyn BackingFile>, Errno> {
        self.host.open(path, mode).map(&self.filter)
    }

    fn spawn(&self, name: &str, body: ThreadBody) -> Result<Box<dyn JoinHandle>, Errno> {
        self.host.spawn(name, body)
    }

    fn park(&self, word: &AtomicU32, expected: u32, deadline: Option<Nanos>) -> WakeReason {
        self.host.park(word, expected, deadline)
    }

    fn waits_for(&self, wchan: &'static str) {
        self.host.waits_for(wchan);
    }

    fn unpark(&self, word: &AtomicU32, count: u32) {
        self.host.unpark(word, count);
    }

    fn relax(&self) {
        self.host.relax();
    }

    fn explores(&self) -> bool {
        self.host.explores()
    }

    fn preempt(&self) {
        self.host.preempt();
    }

    fn now(&self, clock: Clock) -> Nanos {
        self.host.now(clock)
    }

    fn thread_hint(&self) -> usize {
        self.host.thread_hint()
    }

    fn random(&self, buf: &mut [u8]) {
        self.host.random(buf);
    }

    fn param(&self, name: &str) -> Option<String> {
        self.host.param(name)
    }

    fn ncpu(&self) -> usize {
        self.host.ncpu()
    }

    fn memory(&self) -> u64 {
        self.host.memory()
    }

    fn hostname(&self) -> String {
        self.host.hostname()
    }

    fn console_write(&self, bytes: &[u8]) {
        self.host.console_write(bytes);
    }

    fn console_read(&self, buf: &mut [u8]) -> Result<usize, Errno> {
        self.host.console_read(buf)
    }

    fn file_info(&self, path: &[u8]) -> Result<FileInfo, Errno> {
        self.host.file_info(path)
    }

    fn read_dir(&self, path: &[u8]) -> Result<Vec<DirEntry>, Errno> {
        self.host.read_dir(path)
    }

    fn shared_memory(&self, name: &str, size: u64) -> Result<Arc<dyn BackingFile>, Errno> {
        self.host.shared_memory(name, size)
    }

    fn open_wire(&self, spec: &WireSpec) -> Result<Arc<dyn Wire>, Errno> {
        self.host.open_wire(spec)
    }

    fn sockets(&self) -> Result<Arc<dyn Sockets>, Errno> {
        self.host.sockets()
    }

    fn raise(&self, signal: Signal) {
        self.host.raise(signal);
    }

    fn exit(&self, status: i32) -> ! {
        self.host.exit(status)
    }

    fn abort(&self) -> ! {
        self.host.abort()
    }
}

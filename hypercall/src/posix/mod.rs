//! The host that is a Linux process.
//!
//! Nothing is made before it is needed: no thread, no descriptor, no table, so that a kernel boots in well under a
//! millisecond.

mod block;
mod console;
mod dir;
mod file;
mod map;
mod park;
mod pool;
mod socket;
mod thread;
mod uring;
pub(crate) mod wire;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use abi::Errno;

use crate::{
    BackingFile, Clock, DirEntry, FileInfo, Host, JoinHandle, Nanos, OpenMode, Signal, Sockets,
    ThreadBody, WakeReason, Wire, WireSpec,
};

/// A Linux process as a host.
///
/// No lock: the two parts that are made on first use are write-once.
#[derive(Default)]
pub struct PosixHost {
    /// Parameters instead of the environment's, where some were given.
    params: Option<BTreeMap<String, String>>,
    block: OnceLock<Arc<block::Engine>>,
}

impl PosixHost {
    /// The host whose parameters are the environment variables.
    pub fn new() -> Arc<PosixHost> {
        Arc::new(PosixHost::default())
    }

    /// A host with these parameters and none of the environment's, so that kernels in one process can differ.
    pub fn with_params<K: Into<String>, V: Into<String>>(
        params: impl IntoIterator<Item = (K, V)>,
    ) -> Arc<PosixHost> {
        let params = params
            .into_iter()
            .map(|(k, v)| (k.into(), v.into()))
            .collect();
        Arc::new(PosixHost {
            params: Some(params),
            block: OnceLock::new(),
        })
    }

    /// What carries out block I/O. The parameter `RUMP_IO_URING=0` keeps it from using io_uring.
    fn engine(&self) -> &Arc<block::Engine> {
        self.block.get_or_init(|| {
            if self.param("RUMP_IO_URING").as_deref() == Some("0") {
                block::Engine::without_ring()
            } else {
                block::Engine::new()
            }
        })
    }
}

impl Host for PosixHost {
    fn spawn(&self, name: &str, body: ThreadBody) -> Result<Box<dyn JoinHandle>, Errno> {
        thread::spawn(name, body)
    }

    fn park(&self, word: &AtomicU32, expected: u32, deadline: Option<Nanos>) -> WakeReason {
        park::park(word, expected, deadline)
    }

    fn unpark(&self, word: &AtomicU32, count: u32) {
        park::unpark(word, count);
    }

    fn relax(&self) {
        std::thread::yield_now();
    }

    fn now(&self, clock: Clock) -> Nanos {
        match clock {
            Clock::Realtime => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |d| d.as_nanos() as Nanos),
            Clock::Monotonic => park::monotonic(),
        }
    }

    fn thread_hint(&self) -> usize {
        thread::hint()
    }

    fn random(&self, buf: &mut [u8]) {
        for chunk in buf.chunks_mut(256) {
            // SAFETY: the chunk is ours to write. Up to 256 bytes are never cut short, getrandom(2).
            let n = unsafe { libc::getrandom(chunk.as_mut_ptr().cast(), chunk.len(), 0) };
            assert_eq!(
                n,
                chunk.len() as isize,
                "the host has no random bytes to give"
            );
        }
    }

    fn param(&self, name: &str) -> Option<String> {
        match &self.params {
            Some(params) => params.get(name).cloned(),
            None => std::env::var(name).ok(),
        }
    }

    fn ncpu(&self) -> usize {
        std::thread::available_parallelism().map_or(1, usize::from)
    }

    fn memory(&self) -> u64 {
        // SAFETY: sysconf(3) has no conditions.
        let (pages, size) = unsafe {
            (
                libc::sysconf(libc::_SC_PHYS_PAGES),
                libc::sysconf(libc::_SC_PAGESIZE),
            )
        };
        let bytes = u64::try_from(pages).unwrap_or(0) * u64::try_from(size).unwrap_or(0);
        if bytes == 0 { 1 << 30 } else { bytes }
    }

    fn hostname(&self) -> String {
        self.param("RUMP_HOSTNAME")
            .unwrap_or_else(|| format!("rump-{:05}", std::process::id()))
    }

    fn console_write(&self, bytes: &[u8]) {
        console::write(bytes);
    }

    fn console_read(&self, buf: &mut [u8]) -> Result<usize, Errno> {
        console::read(buf)
    }

    fn file_info(&self, path: &[u8]) -> Result<FileInfo, Errno> {
        dir::file_info(path)
    }

    fn open(&self, path: &[u8], mode: OpenMode) -> Result<Arc<dyn BackingFile>, Errno> {
        Ok(Arc::new(file::PosixFile::open(
            path,
            mode,
            self.engine().clone(),
        )?))
    }

    fn read_dir(&self, path: &[u8]) -> Result<Vec<DirEntry>, Errno> {
        dir::read_dir(path)
    }

    fn shared_memory(&self, name: &str, size: u64) -> Result<Arc<dyn BackingFile>, Errno> {
        Ok(Arc::new(file::PosixFile::memfd(
            name,
            size,
            self.engine().clone(),
        )?))
    }

    fn open_wire(&self, spec: &WireSpec) -> Result<Arc<dyn Wire>, Errno> {
        wire::open(spec)
    }

    fn sockets(&self) -> Result<Arc<dyn Sockets>, Errno> {
        Ok(Arc::new(socket::PosixSockets::new()?))
    }

    fn raise(&self, signal: Signal) {
        // SAFETY: raise(3) has no conditions; a number that is no signal is an error that changes nothing.
        unsafe { libc::raise(signal.0) };
    }

    fn exit(&self, status: i32) -> ! {
        std::process::exit(status)
    }

    fn abort(&self) -> ! {
        std::process::abort()
    }
}

/// The errno of a failed host call.
fn errno_of(error: &std::io::Error) -> Errno {
    error
        .raw_os_error()
        .filter(|&n| n > 0)
        .map(Errno)
        .unwrap_or(Errno::EIO)
}

fn host_path(path: &[u8]) -> &std::path::Path {
    use std::os::unix::ffi::OsStrExt;
    std::path::Path::new(std::ffi::OsStr::from_bytes(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_given_hide_the_environment() {
        let host = PosixHost::with_params([("RUMP_NCPU", "3")]);
        assert_eq!(host.param("RUMP_NCPU").as_deref(), Some("3"));
        assert_eq!(host.param("PATH"), None);
        assert!(PosixHost::new().param("PATH").is_some());
    }

    #[test]
    fn clocks_go_forward_and_agree_with_the_world() {
        let host = PosixHost::new();
        let a = host.now(Clock::Monotonic);
        let b = host.now(Clock::Monotonic);
        assert!(a > 0 && b >= a);
        assert!(
            host.now(Clock::Realtime) > 1_600_000_000 * 1_000_000_000,
            "later than 2020"
        );
    }

    #[test]
    fn random_bytes_differ() {
        let host = PosixHost::new();
        let (mut a, mut b) = ([0; 600], [0; 600]);
        host.random(&mut a);
        host.random(&mut b);
        assert_ne!(a, b);
    }
}

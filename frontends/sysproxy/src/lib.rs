//! The server of remote system calls: lets programs in other processes, here or over the network, be processes of a
//! kernel that runs in this one.
//!
//! [`serve`] listens at a URL. A connection whose handshake is good becomes a process; each request that is running is
//! an lwp of it. The thread that reads a request also runs it, so a call costs one wake-up: see `conn` for how reading
//! goes on meanwhile. A client on the same machine may move each of its threads to a shared-memory ring (`ring`),
//! which has a thread of its own here; threads that are awake serve each other's (`ring/wards.rs`).
//!
//! Nothing a client sends is believed: frames are decoded by `abi::sysproxy`, lengths are capped, and what a client may
//! make the server keep (unread replies, requests in flight, rings, forked processes) is bounded. When a client is
//! gone, its calls are interrupted, its descriptors closed, and its threads leave.
//!
//! The crate may use the kernel proper, std and the host. The only unsafe code is in `ring/map.rs`, where memory is
//! shared with a client.
//!
//! Start reading at [`serve`], then `worker`, `call` and `client`.
#![deny(unsafe_code)]

mod call;
mod client;
mod conn;
mod core;
mod error;
mod fuzz;
mod handshake;
mod lease;
mod listen;
mod memory;
mod ring;
mod signal;
mod watch;
mod worker;

use std::sync::Arc;

use abi::sysproxy::Url;
use kern::Kernel;

pub use error::Error;
pub use fuzz::fuzz_frames;

/// What a server allows.
#[derive(Clone, Debug)]
pub struct Options {
    /// Clients at a time; more are refused.
    pub max_clients: usize,
    /// Threads at a time that run requests from sockets; when every one is blocked, further requests answer `EAGAIN`.
    pub max_workers: usize,
    /// Shared-memory rings of all clients together; 0 forbids them.
    pub max_rings: usize,
    /// Whether other users of this machine may be clients at a unix socket. Every client is root in the kernel, so by default
    /// only the server's own user and the superuser may; what such a client forks, and what it becomes, stays one. TCP has no such check: use a firewall. Whoever
    /// is another user, or comes over TCP, cannot have the kernel open files of the host (`etfs_register`).
    pub any_user: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            max_clients: 1024,
            max_workers: 2048,
            max_rings: 1024,
            any_user: false,
        }
    }
}

/// A running server. Dropping it stops it: clients are disconnected, and every thread and descriptor is given back.
pub struct Server {
    core: Arc<core::Core>,
    url: String,
}

/// Serves a kernel at a URL: `unix://PATH`, `unix://@NAME` or `tcp://ADDRESS:PORT`. A stale socket at the path is
/// replaced, one that somebody listens on is refused.
pub fn serve(kernel: &Arc<Kernel>, url: &str, options: Options) -> Result<Server, Error> {
    let parsed = Url::parse(url.as_bytes()).map_err(|cause| Error::Url {
        url: url.to_owned(),
        cause,
    })?;
    let listener = listen::Listener::bind(parsed, url)?;
    let core = core::Core::start(kernel, listener, options).map_err(|cause| Error::Io {
        url: url.to_owned(),
        cause,
    })?;
    Ok(Server {
        core,
        url: url.to_owned(),
    })
}

impl Server {
    /// The URL it was given.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// How many processes it serves at the moment.
    pub fn clients(&self) -> usize {
        self.core.client_count()
    }

    /// The host's processes that are its clients at the moment, from this machine: those that connected.
    pub fn processes(&self) -> Vec<i32> {
        let peers = self.core.peers().into_iter();
        peers.map(|pid| pid.as_raw_nonzero().get()).collect()
    }

    /// Takes the socket's name away: nobody new comes, and who is there stays.
    pub fn leave_name(&self) {
        self.core.leave_name();
    }

    /// Waits until the kernel has halted, by a client's reboot(2) or by [`Kernel::shutdown`] and then
    /// [`notify_halt`](Self::notify_halt).
    pub fn wait(&self) {
        self.core.wait_halted();
    }

    /// Ends [`wait`](Self::wait); callable from another thread than the waiting one.
    pub fn notify_halt(&self) {
        self.core.set_halted();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.core.stop();
    }
}

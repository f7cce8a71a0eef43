//! The client for Rust programs.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};

use abi::{Arg, Errno, Invoke, SysResult};

use crate::raw::mem::Lent;
use crate::raw::{self, ThreadState};

/// What to do when the server is gone, rumpclient(3). A new connection is a new process: the old one's descriptors are
/// gone with it, so a program has to be written for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reconnect {
    /// Every further call answers `ENOTCONN`.
    #[default]
    Never,
    /// Try once with the next call.
    Once,
    /// Try again and again with the next call, for so long.
    For(Duration),
    /// Try until there is a server.
    Forever,
    /// End this process.
    Die,
}

/// A process of a remote kernel; every call of the table is a method of it by [`abi::Syscalls`], for several threads at
/// once. Dropping it ends the process in the kernel.
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    /// Another one for each connection.
    id: AtomicU64,
    /// Held for writing while the connection is made anew.
    raw: RwLock<Box<raw::Client>>,
    url: String,
    comm: String,
    policy: RwLock<Reconnect>,
}

thread_local! {
    /// What the raw core keeps for this thread, for each client that it has used.
    static STATES: RefCell<Vec<State>> = const { RefCell::new(Vec::new()) };
}

/// A thread's part of one client; given back when the thread ends.
struct State {
    id: u64,
    client: Weak<Shared>,
    thread: Box<ThreadState>,
}

impl Drop for State {
    fn drop(&mut self) {
        let client = self.client.upgrade();
        if let Some(client) = client.filter(|c| c.id.load(Ordering::SeqCst) == self.id) {
            let raw = client.raw.read().unwrap_or_else(PoisonError::into_inner);
            raw.thread_exit(&self.thread);
        } else {
            // Its connection is gone: there is only memory to give back.
            raw::Client::new().thread_exit(&self.thread);
        }
    }
}

fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Client {
    /// Becomes a new process, named `comm`, of the server at `url`. Errors are those of [`raw::Client::connect`].
    pub fn connect(url: &str, comm: &str) -> Result<Client, Errno> {
        Client::with_policy(url, comm, Reconnect::Never)
    }

    /// Becomes a new process of the server that the environment variable `RUMP_SERVER` names. `ENOENT` when it names none.
    pub fn from_env(comm: &str) -> Result<Client, Errno> {
        let url = std::env::var("RUMP_SERVER").map_err(|_| Errno::ENOENT)?;
        Client::connect(&url, comm)
    }

    /// [`connect`](Self::connect), and what to do when the server is gone.
    pub fn with_policy(url: &str, comm: &str, policy: Reconnect) -> Result<Client, Errno> {
        let raw = Box::new(raw::Client::new());
        raw.connect(&ThreadState::new(), url.as_bytes(), comm.as_bytes(), 0)?;
        Ok(Client::new(raw, url, comm, policy))
    }

    /// After an exec: goes on as the process of the program before; see [`raw::Client::after_exec`].
    pub fn after_exec(url: &str, handover: &str, comm: &str) -> Result<Client, Errno> {
        let raw = Box::new(raw::Client::new());
        let thread = ThreadState::new();
        raw.after_exec(
            &thread,
            url.as_bytes(),
            handover.as_bytes(),
            comm.as_bytes(),
        )?;
        Ok(Client::new(raw, url, comm, Reconnect::Never))
    }

    fn new(raw: Box<raw::Client>, url: &str, comm: &str, policy: Reconnect) -> Client {
        Client {
            shared: Arc::new(Shared {
                id: AtomicU64::new(next_id()),
                raw: RwLock::new(raw),
                url: url.to_owned(),
                comm: comm.to_owned(),
                policy: RwLock::new(policy),
            }),
        }
    }

    /// Chooses what to do when the server is gone.
    pub fn set_policy(&self, policy: Reconnect) {
        *self
            .shared
            .policy
            .write()
            .unwrap_or_else(PoisonError::into_inner) = policy;
    }

    /// Makes a call with registers that name this process's own memory, as [`raw::Client::call`] does, and by the policy
    /// connects anew before it.
    ///
    /// # Safety
    /// 1. What the registers name by the call's description is memory that the call may read and write.
    pub unsafe fn call(&self, nr: u32, args: &[u64; 6]) -> SysResult {
        if self.with(|raw, _| !raw.is_connected()) {
            self.reconnect()?;
        }
        Errno::from_ret(self.with(|raw, thread| raw.call(thread, nr, args)))
    }

    /// The number of the process in the kernel.
    pub fn pid(&self) -> i32 {
        self.with(|raw, _| raw.pid())
    }

    /// Whether calls may use shared memory where the server is on this machine; true at first.
    pub fn use_rings(&self, on: bool) {
        self.with(|raw, _| raw.use_rings(on));
    }

    /// Does something with the raw core and this thread's state for it.
    pub fn with<R>(&self, f: impl FnOnce(&raw::Client, &ThreadState) -> R) -> R {
        let shared = &self.shared;
        let raw = shared.raw.read().unwrap_or_else(PoisonError::into_inner);
        let thread: *const ThreadState = STATES.with_borrow_mut(|states| {
            let id = shared.id.load(Ordering::SeqCst);
            let at = states.iter().position(|s| s.id == id);
            let at = at.unwrap_or_else(|| {
                states.retain(|s| s.client.strong_count() != 0);
                states.push(State {
                    id,
                    client: Arc::downgrade(shared),
                    thread: Box::default(),
                });
                states.len() - 1
            });
            &raw const *states[at].thread
        });
        // SAFETY: the state is boxed and stays while its client lives, which `self` sees to; it is this thread's. It is not
        // borrowed from the list, so that a signal handler may make a call too.
        f(&raw, unsafe { &*thread })
    }

    /// Makes the connection anew if it is gone and the policy says so.
    #[cold]
    fn reconnect(&self) -> Result<(), Errno> {
        let shared = &self.shared;
        let policy = *shared.policy.read().unwrap_or_else(PoisonError::into_inner);
        let until = match policy {
            Reconnect::Never => return Err(Errno::ENOTCONN),
            Reconnect::Die => {
                eprintln!("{}: the server at {} is gone", shared.comm, shared.url);
                std::process::exit(1);
            }
            Reconnect::Once => Some(Instant::now()),
            Reconnect::For(time) => Instant::now().checked_add(time),
            Reconnect::Forever => None,
        };
        let mut raw = shared.raw.write().unwrap_or_else(PoisonError::into_inner);
        while !raw.is_connected() {
            let fresh = Box::new(raw::Client::new());
            let thread = ThreadState::new();
            match fresh.connect(&thread, shared.url.as_bytes(), shared.comm.as_bytes(), 0) {
                Ok(()) => {
                    raw.disconnect();
                    *raw = fresh;
                    // What threads keep for the process that is gone is not used again.
                    shared.id.store(next_id(), Ordering::SeqCst);
                }
                Err(errno) if until.is_some_and(|at| Instant::now() >= at) => return Err(errno),
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
        Ok(())
    }
}

impl Invoke for Client {
    fn invoke(&self, nr: u32, args: &mut [Arg<'_>]) -> SysResult {
        let mut registers = [0; 6];
        let mut lent = [Lent::default(); 6];
        for ((register, lent), arg) in registers.iter_mut().zip(&mut lent).zip(args) {
            *lent = match arg {
                Arg::Val(value) => {
                    *register = *value;
                    continue;
                }
                Arg::In([]) | Arg::Out([]) => continue,
                Arg::Str(text) => Lent {
                    addr: text.as_ptr().expose_provenance() as u64,
                    len: text.to_bytes_with_nul().len(),
                    writable: false,
                },
                Arg::In(buf) => Lent {
                    addr: buf.as_ptr().expose_provenance() as u64,
                    len: buf.len(),
                    writable: false,
                },
                Arg::Out(buf) => Lent {
                    addr: buf.as_mut_ptr().expose_provenance() as u64,
                    len: buf.len(),
                    writable: true,
                },
            };
            *register = lent.addr;
        }
        let call = || {
            self.with(|raw, thread| {
                let call = || raw.call_lent(thread, nr, &registers, &lent);
                raw.is_connected().then(call)
            })
        };
        let answer = match call() {
            Some(answer) => answer,
            None => {
                self.reconnect()?;
                call().unwrap_or(-i64::from(Errno::ENOTCONN.0))
            }
        };
        Errno::from_ret(answer)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.raw
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .disconnect();
    }
}

//! A loadable module: what is written to its device comes back, below a greeting that can be set.
//!
//! ```sh
//! cargo build -p rumpkit-example-module
//! rump server -m target/debug/librump_greeter.so unix:///tmp/k
//! rump sysctl -s unix:///tmp/k greeter.greeting="good morning"
//! rump exec unix:///tmp/k -- sh -c 'echo sun > /rump/dev/greeter; cat /rump/dev/greeter'    # good morning, sun
//! rump halt unix:///tmp/k
//! ```
//!
//! System call 600 answers how often somebody was greeted.

use std::ffi::CStr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use module::{Cx, Device, Errno, Init, Module, Syscalls};

/// The number of the system call.
const GREETED: u32 = 600;

struct Greeter;

/// What the node, the call and the device share.
#[derive(Default)]
struct State {
    greeting: Mutex<String>,
    who: Mutex<Vec<u8>>,
    greeted: AtomicI64,
}

/// Nobody panics with the lock held.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Module for Greeter {
    const NAME: &'static CStr = c"greeter";

    fn init(k: &Init<'_>) -> Result<(), Errno> {
        let state = Arc::new(State::default());
        *lock(&state.greeting) = "hello".to_owned();

        let (reads, writes) = (state.clone(), state.clone());
        k.sysctl_text_rw(
            "greeter.greeting",
            move |_| Ok(lock(&reads.greeting).clone()),
            move |_, text| match text {
                "" => Err(Errno::EINVAL),
                text => {
                    text.clone_into(&mut lock(&writes.greeting));
                    Ok(())
                }
            },
        )?;
        let counts = state.clone();
        k.syscall(GREETED, move |_, _| {
            Ok(counts.greeted.load(Ordering::Relaxed))
        })?;
        k.device("/dev/greeter", 0o666, Door(state))?;
        k.log("greeter: there");
        // Every system call of the kernel is there for its modules.
        k.mkdir(c"/tmp/greeter", 0o755).map(drop)
    }

    fn fini(k: &Cx<'_>) -> Result<(), Errno> {
        k.rmdir(c"/tmp/greeter").map(drop)
    }
}

/// The device.
struct Door(Arc<State>);

impl Device for Door {
    fn read(&self, _: &Cx<'_>, buf: &mut [u8], offset: u64, _: i32) -> Result<usize, Errno> {
        if offset != 0 {
            return Ok(0);
        }
        let who = lock(&self.0.who).clone();
        let line = [lock(&self.0.greeting).as_bytes(), b", ", &who[..], b"\n"].concat();
        let len = line.len().min(buf.len());
        buf[..len].copy_from_slice(&line[..len]);
        self.0.greeted.fetch_add(1, Ordering::Relaxed);
        Ok(len)
    }

    fn write(&self, _: &Cx<'_>, buf: &[u8], _: u64, _: i32) -> Result<usize, Errno> {
        *lock(&self.0.who) = buf.trim_ascii().to_vec();
        Ok(buf.len())
    }
}

module::module!(Greeter);

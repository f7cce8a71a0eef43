//! Asynchronous block I/O where the host refuses io_uring: a few threads, made when there is work, that leave when there is none for a while.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use abi::Errno;

use crate::{BackingFile, BlockOp, BlockRequest};

/// The most threads; requests beyond that queue up.
const MAX_THREADS: usize = 4;
/// How long a thread without work stays.
const LINGER: Duration = Duration::from_secs(2);

type Job = (Arc<dyn BackingFile>, BlockRequest);

/// The threads of one host. `state` is the only lock and is not held while a request is carried out.
#[derive(Default)]
pub(super) struct Pool {
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Job>,
    threads: usize,
    idle: usize,
}

impl Pool {
    /// Starts requests.
    pub(super) fn submit(self: &Arc<Self>, file: Arc<dyn BackingFile>, batch: Vec<BlockRequest>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state
            .queue
            .extend(batch.into_iter().map(|request| (file.clone(), request)));
        while state.idle < state.queue.len() && state.threads < MAX_THREADS {
            let pool = self.clone();
            let started =
                super::thread::spawn("rump-block", Box::new(move || pool.serve())).is_ok();
            if !started {
                break;
            }
            state.threads += 1;
            state.idle += 1;
        }
        let none = state.threads == 0;
        drop(state);
        self.work.notify_all();
        if none {
            // No thread to be had: the caller does it.
            self.drain();
        }
    }

    fn drain(&self) {
        loop {
            let job = self
                .state
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .queue
                .pop_front();
            match job {
                Some(job) => carry_out(job),
                None => return,
            }
        }
    }

    /// A thread's life. It counts as idle from its making.
    fn serve(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(job) = state.queue.pop_front() {
                state.idle -= 1;
                drop(state);
                carry_out(job);
                state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                state.idle += 1;
                continue;
            }
            let (next, timeout) = self
                .work
                .wait_timeout(state, LINGER)
                .unwrap_or_else(PoisonError::into_inner);
            state = next;
            if timeout.timed_out() && state.queue.is_empty() {
                state.idle -= 1;
                state.threads -= 1;
                return;
            }
        }
    }
}

fn carry_out((file, request): Job) {
    let BlockRequest {
        mut op,
        offset,
        done,
    } = request;
    let result = match &mut op {
        BlockOp::Read(buf) => read_all(&*file, buf, offset),
        BlockOp::Write(buf) => file.write_at(buf, offset),
        BlockOp::Sync => file.sync(),
    };
    done(op, result);
}

/// Fills the buffer; what is past the end of the file is zero.
fn read_all(file: &dyn BackingFile, mut buf: &mut [u8], mut offset: u64) -> Result<(), Errno> {
    while !buf.is_empty() {
        let n = file.read_at(buf, offset)?;
        if n == 0 {
            buf.fill(0);
            return Ok(());
        }
        buf = &mut buf[n..];
        offset += n as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::block::{Engine, tests::every_request_completes};

    #[test]
    fn every_request_completes_with_its_buffer() {
        every_request_completes(Engine::without_ring());
    }
}

//! Asynchronous block I/O over io_uring(7): one ring for all files of a host, and one thread that reaps what is done.
//!
//! Requests are submitted by whoever has them, on their own thread; their completions always run on the reaper, so that
//! a caller's locks are never in their way.

use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::ThreadId;

use abi::Errno;
use io_uring::{IoUring, opcode, squeue, types};

use crate::{BlockOp, BlockRequest, Completion, JoinHandle};

/// Entries of the submission queue; the completion queue has twice as many, and no more are ever in flight.
const ENTRIES: u32 = 128;
/// The most bytes of one transfer; longer ones go in pieces.
const MAX_TRANSFER: usize = 1 << 30;
/// Names the entry that ends the reaper.
const STOP: u64 = u64::MAX;

/// The ring of a host. Dropping it ends the reaper once everything in flight is done.
pub(super) struct Ring {
    shared: Arc<Shared>,
    reaper: Mutex<Option<Box<dyn JoinHandle>>>,
}

/// `queues` is the only lock, and guards the submission side of the ring too; it is not held while a completion runs.
struct Shared {
    ring: IoUring,
    queues: Mutex<Queues>,
    reaper: OnceLock<ThreadId>,
}

#[derive(Default)]
struct Queues {
    /// In flight, by the number in their entries; a free place is `None`.
    flight: Vec<Option<Job>>,
    free: Vec<usize>,
    /// Those for which the ring had no place.
    waiting: VecDeque<Job>,
    in_flight: u32,
}

struct Job {
    file: Arc<File>,
    op: BlockOp,
    offset: u64,
    /// Bytes moved so far.
    moved: usize,
    done: Completion,
}

impl Ring {
    /// A ring and its reaper. An error when the host refuses either.
    pub(super) fn new() -> Result<Ring, Errno> {
        let ring = IoUring::new(ENTRIES).map_err(|e| super::errno_of(&e))?;
        let shared = Arc::new(Shared {
            ring,
            queues: Mutex::default(),
            reaper: OnceLock::new(),
        });
        let theirs = shared.clone();
        let reaper = super::thread::spawn("rump-uring", Box::new(move || theirs.reap()))?;
        Ok(Ring {
            shared,
            reaper: Mutex::new(Some(reaper)),
        })
    }

    /// Starts requests.
    pub(super) fn submit(&self, file: &Arc<File>, batch: Vec<BlockRequest>) {
        let mut queues = self.shared.lock();
        queues.waiting.extend(batch.into_iter().map(|r| Job {
            file: file.clone(),
            op: r.op,
            offset: r.offset,
            moved: 0,
            done: r.done,
        }));
        self.shared.start(&mut queues);
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let queues = self.shared.lock();
        let stop = opcode::Nop::new().build().user_data(STOP);
        self.shared.push(&queues, &stop);
        self.shared.enter_all();
        drop(queues);
        // The reaper itself may be the one that lets go last, in a completion: it cannot wait for itself.
        if self.shared.reaper.get() != Some(&std::thread::current().id())
            && let Ok(Some(reaper)) = self.reaper.get_mut().map(Option::take)
        {
            reaper.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves waiting requests into the ring as long as there is room for their completions.
    fn start(&self, queues: &mut Queues) {
        while queues.in_flight < ENTRIES
            && let Some(job) = queues.waiting.pop_front()
        {
            let at = queues.free.pop().unwrap_or_else(|| {
                queues.flight.push(None);
                queues.flight.len() - 1
            });
            // The buffer lies in a box of its own, so that moving the job does not move it.
            let job = queues.flight[at].insert(job);
            let entry = job.entry().user_data(at as u64);
            queues.in_flight += 1;
            self.push(queues, &entry);
        }
        self.enter_all();
    }

    /// Puts an entry into the submission queue. The lock that `_queues` shows makes this the one writer.
    fn push(&self, _queues: &Queues, entry: &squeue::Entry) {
        loop {
            // SAFETY: only this function touches the submission side, and the lock is held. What the entry points at, a buffer
            // and an open file, is kept by its job until the completion has been reaped; a NOP points at nothing.
            let pushed = unsafe { self.ring.submission_shared().push(entry) };
            if pushed.is_ok() {
                return;
            }
            self.enter_all();
        }
    }

    /// Hands the host all entries that it has not seen.
    fn enter_all(&self) {
        loop {
            match self.ring.submit() {
                Err(error) if retries(error.raw_os_error().unwrap_or(0)) => {
                    std::thread::yield_now();
                }
                // Any other error is the ring's; the entries stay in it and go with the next attempt.
                _ => return,
            }
        }
    }

    /// The reaper's life.
    fn reap(&self) {
        let _ = self.reaper.set(std::thread::current().id());
        let (mut stopped, mut idle) = (false, false);
        while !(stopped && idle) {
            /// IORING_ENTER_GETEVENTS.
            const GETEVENTS: u32 = 1;
            // SAFETY: submits nothing and passes no signal mask: only waits for one completion.
            let waited = unsafe {
                self.ring
                    .submitter()
                    .enter::<libc::sigset_t>(0, 1, GETEVENTS, None)
            };
            if waited.is_err() {
                std::thread::yield_now();
            }
            // SAFETY: this thread is the only one that touches the completion side.
            let completions: Vec<(u64, i32)> = unsafe { self.ring.completion_shared() }
                .map(|c| (c.user_data(), c.result()))
                .collect();
            let mut finished = Vec::new();
            {
                let mut queues = self.lock();
                for (at, result) in completions {
                    if at == STOP {
                        stopped = true;
                    } else if let Some(done) = self.complete(&mut queues, at as usize, result) {
                        finished.push(done);
                    }
                }
                self.start(&mut queues);
                idle = queues.in_flight == 0;
            }
            for (job, result) in finished {
                (job.done)(job.op, result);
            }
        }
    }

    /// Takes note of a completion; the job comes back when there is nothing more to do for it.
    fn complete(
        &self,
        queues: &mut Queues,
        at: usize,
        result: i32,
    ) -> Option<(Job, Result<(), Errno>)> {
        let mut job = queues.flight.get_mut(at)?.take()?;
        queues.free.push(at);
        queues.in_flight -= 1;
        match job.advance(result) {
            Some(result) => Some((job, result)),
            None => {
                queues.waiting.push_front(job);
                None
            }
        }
    }
}

/// Whether an error only asks to try again: a signal came, or the host has to get on first with what it has.
fn retries(error: i32) -> bool {
    [libc::EINTR, libc::EAGAIN, libc::EBUSY].contains(&error)
}

impl Job {
    /// The entry for what is left to do.
    fn entry(&mut self) -> squeue::Entry {
        let fd = types::Fd(self.file.as_raw_fd());
        let offset = self.offset + self.moved as u64;
        match &mut self.op {
            BlockOp::Read(buf) => {
                let rest = &mut buf[self.moved..];
                let len = rest.len().min(MAX_TRANSFER) as u32;
                opcode::Read::new(fd, rest.as_mut_ptr(), len)
                    .offset(offset)
                    .build()
            }
            BlockOp::Write(buf) => {
                let rest = &buf[self.moved..];
                let len = rest.len().min(MAX_TRANSFER) as u32;
                opcode::Write::new(fd, rest.as_ptr(), len)
                    .offset(offset)
                    .build()
            }
            BlockOp::Sync => opcode::Fsync::new(fd)
                .flags(types::FsyncFlags::DATASYNC)
                .build(),
        }
    }

    /// What a completion means: how the request went, or `None` to go on with it.
    fn advance(&mut self, result: i32) -> Option<Result<(), Errno>> {
        if result < 0 {
            return match (-result, &self.op) {
                // Cancelled: the thread that submitted it has ended. It goes on from the reaper.
                (libc::ECANCELED, _) => None,
                (error, _) if retries(error) => None,
                // A character device has nothing to make durable.
                (libc::EINVAL, BlockOp::Sync) => Some(Ok(())),
                (error, _) => Some(Err(Errno(error))),
            };
        }
        self.moved += result as usize;
        match &mut self.op {
            BlockOp::Sync => Some(Ok(())),
            BlockOp::Read(buf) if result == 0 => {
                buf[self.moved..].fill(0);
                Some(Ok(()))
            }
            BlockOp::Write(buf) if result == 0 && self.moved < buf.len() => Some(Err(Errno::EIO)),
            BlockOp::Read(buf) | BlockOp::Write(buf) => (self.moved >= buf.len()).then_some(Ok(())),
        }
    }
}

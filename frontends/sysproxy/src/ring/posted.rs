//! Calls that nobody waits for: the queue of a ring, see "Posted calls" in `abi::ring`.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use abi::ring::{POST_ADDR, POSTED, QUEUE, QUEUED, RAN, RECALLED, RequestHead, post_size};
use abi::{Errno, UserAddr, nr};
use kern::{LwpHandle, UserMemory};
use sync::Cpu;

use super::map::Map;
use crate::conn::lock;

/// recvfrom(2): throws the bytes away.
const MSG_TRUNC: u64 = 0x20;

/// How far a queue has run.
#[derive(Default)]
pub(super) struct Posted {
    /// Held while calls run.
    at: Mutex<u32>,
    /// The same, when they have.
    ran: AtomicU32,
}

/// The client has put something into the queue that is none.
pub(super) struct Malformed;

impl Posted {
    /// Whether there is anything in the queue.
    pub(super) fn waits(&self, map: &Map) -> bool {
        let end = map.word(POSTED).load(Ordering::SeqCst);
        there(self.ran.load(Ordering::Acquire), end).is_some()
    }

    /// Runs what is in the queue, and not what comes meanwhile; answers whether there was anything.
    pub(super) fn run(&self, map: &Map, handle: &LwpHandle) -> Result<bool, Malformed> {
        let end = map.word(POSTED).load(Ordering::Acquire);
        if there(self.ran.load(Ordering::Acquire), end).is_none() {
            return Ok(false);
        }
        let mut at = lock(&self.at);
        let before = *at;
        let memory = Data {
            map,
            at: Cell::new(0),
            len: Cell::new(0),
        };
        let all = || {
            handle.enter(&memory, |cx| {
                while let Some((head, place)) = next(map, *at, end)? {
                    let len = head.len as usize;
                    memory.at.set(place);
                    memory.len.set(len);
                    if may_be_posted(&head) {
                        // What it answers the client knows.
                        let _ = cx.syscall(head.nr, &head.args());
                    }
                    let size = post_size(len).ok_or(Malformed)?;
                    *at = at.wrapping_add(size as u32) & !RECALLED;
                    map.word(RAN).store(*at, Ordering::Release);
                }
                Ok(())
            })
        };
        // A bug in one call must not take the server's thread, and with it other clients, along.
        let result = catch_unwind(AssertUnwindSafe(all)).unwrap_or(Err(Malformed));
        self.ran.store(*at, Ordering::Release);
        result.map(|()| *at != before)
    }
}

/// How much lies between two places of the queue, in bytes; `None` when there is nothing, or whoever has run it meanwhile has
/// seen a later end.
fn there(at: u32, end: u32) -> Option<usize> {
    let there = end.wrapping_sub(at) & !RECALLED;
    (1..RECALLED / 2).contains(&there).then_some(there as usize)
}

/// The call that stands at `at` in the queue before `end`, if one does, and where its data lie.
fn next(map: &Map, at: u32, end: u32) -> Result<Option<(RequestHead, usize)>, Malformed> {
    let Some(there) = there(at, end) else {
        return Ok(None);
    };
    if there > QUEUED {
        return Err(Malformed);
    }
    let place = QUEUE + at as usize % QUEUED;
    let mut raw = [0; RequestHead::SIZE];
    map.read(place, &mut raw);
    let head = RequestHead::from_bytes(&raw);
    match post_size(head.len as usize) {
        Some(size) if size <= there => Ok(Some((head, place + RequestHead::SIZE))),
        _ => Err(Malformed),
    }
}

/// The calls that a client may know the answer of. Others are not run.
fn may_be_posted(head: &RequestHead) -> bool {
    match head.nr {
        nr::sendto | nr::setsockopt | nr::epoll_ctl => true,
        nr::recvfrom => head.arg1 == 0 && head.arg3 & MSG_TRUNC != 0 && head.arg4 == 0,
        _ => false,
    }
}

/// The memory of a posted call: the bytes that go with it.
struct Data<'a> {
    map: &'a Map,
    at: Cell<usize>,
    len: Cell<usize>,
}

impl UserMemory for Data<'_> {
    fn copyin(&self, _: &Cpu<'_>, from: UserAddr, to: &mut [u8]) -> Result<(), Errno> {
        let skip = from.0.checked_sub(POST_ADDR).map(usize::try_from);
        let Some(Ok(skip)) = skip else {
            return Err(Errno::EFAULT);
        };
        let end = skip.checked_add(to.len()).ok_or(Errno::EFAULT)?;
        if end > self.len.get() {
            return Err(Errno::EFAULT);
        }
        self.map.read(self.at.get() + skip, to);
        Ok(())
    }

    fn copyout(&self, _: &Cpu<'_>, _: &[u8], _: UserAddr) -> Result<(), Errno> {
        Ok(())
    }

    fn may_wait(&self) -> bool {
        false
    }

    fn has_gone_on(&self) -> bool {
        true
    }
}

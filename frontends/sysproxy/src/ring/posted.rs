//! Calls that nobody waits for: the queue of a ring, see "Posted calls" in `abi::ring`.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use abi::ring::{POST_ADDR, POSTED, QUEUE, QUEUED, RAN, RECALLED, RequestHead, post_size};
use abi::{Errno, UserAddr, nr};
use kern::{Curlwp, LwpHandle, UserMemory};
use sync::Cpu;

use super::map::Map;
use super::wards;
use crate::conn::lock;

/// recvfrom(2): throws the bytes away.
const MSG_TRUNC: u64 = 0x20;
const MSG_DONTWAIT: u64 = 0x40;

/// How far a queue has run.
#[derive(Default)]
pub(super) struct Posted {
    /// Held while calls run.
    at: Mutex<At>,
    /// The same, when they have.
    ran: AtomicU32,
}

#[derive(Default)]
struct At {
    /// The first call that has not run.
    place: u32,
    /// Bytes of it that were taken already.
    taken: usize,
}

/// What came of a look at the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ran {
    /// There was nothing.
    Nothing,
    /// All that was there has run.
    All,
    /// A call would have to wait, and who asked may not.
    Stuck,
}

/// The client has put something into the queue that is none.
pub(super) struct Malformed;

impl Posted {
    /// Whether there is anything in the queue.
    pub(super) fn waits(&self, map: &Map) -> bool {
        let end = map.word(POSTED).load(Ordering::SeqCst);
        there(self.ran.load(Ordering::Acquire), end).is_some()
    }

    /// Runs what is in the queue, and not what comes meanwhile. Who may not sleep stops at a call that would.
    pub(super) fn run(
        &self,
        map: &Map,
        handle: &LwpHandle,
        may_sleep: bool,
    ) -> Result<Ran, Malformed> {
        let end = map.word(POSTED).load(Ordering::Acquire);
        if there(self.ran.load(Ordering::Acquire), end).is_none() {
            return Ok(Ran::Nothing);
        }
        let mut at = match may_sleep {
            true => lock(&self.at),
            // Who has it may be asleep.
            false => match self.at.try_lock() {
                Ok(at) => at,
                Err(_) => return Ok(Ran::Stuck),
            },
        };
        let before = at.place;
        let data = Data {
            map,
            at: Cell::new(0),
            len: Cell::new(0),
            may_sleep,
        };
        let all = || {
            let let_go: sync::OnBlock<'_> = &wards::let_go;
            handle.enter_told(&data, may_sleep.then_some(let_go), |cx| {
                while let Some((head, place)) = next(map, at.place, end)? {
                    let len = head.len as usize;
                    data.at.set(place);
                    data.len.set(len);
                    if may_be_posted(&head) && !run_one(cx, &head, &mut at.taken, may_sleep) {
                        return Ok(Ran::Stuck);
                    }
                    let size = post_size(len).ok_or(Malformed)?;
                    *at = At {
                        place: at.place.wrapping_add(size as u32) & !RECALLED,
                        taken: 0,
                    };
                    map.word(RAN).store(at.place, Ordering::Release);
                }
                Ok(Ran::All)
            })
        };
        // A bug in one call must not take the server's thread, and with it other clients, along.
        let result = catch_unwind(AssertUnwindSafe(all)).unwrap_or(Err(Malformed));
        self.ran.store(at.place, Ordering::Release);
        match result? {
            Ran::All if at.place == before => Ok(Ran::Nothing),
            ran => Ok(ran),
        }
    }
}

/// Runs a call, of whose bytes some may have been taken; false when it has to be gone on with by somebody who may sleep. What else
/// it answers the client knows.
fn run_one(cx: &Curlwp<'_>, head: &RequestHead, taken: &mut usize, may_sleep: bool) -> bool {
    let mut args = head.args();
    if head.nr == nr::recvfrom {
        args[3] |= MSG_DONTWAIT;
    }
    if head.nr == nr::close && !may_sleep && !closes_at_once(cx, args[0] as i32) {
        return false;
    }
    if head.nr != nr::sendto {
        let _ = cx.syscall(head.nr, &args);
        return true;
    }
    args[1] = args[1].wrapping_add(*taken as u64);
    args[2] = args[2].saturating_sub(*taken as u64);
    let sent = cx.syscall(head.nr, &args);
    if may_sleep || sent.is_err() && sent != Err(Errno::EAGAIN) {
        return true;
    }
    let sent = sent.unwrap_or(0) as usize;
    *taken += sent;
    args[2] == sent as u64
}

/// Whether close(2) does not wait. Others than streams may have to write to a disk.
fn closes_at_once(cx: &Curlwp<'_>, fd: i32) -> bool {
    let of = cx.file(fd);
    of.is_ok_and(|of| of.file().ahead(cx, 0).is_some_and(|ahead| ahead.closes))
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
        nr::sendto | nr::setsockopt | nr::epoll_ctl | nr::close => true,
        nr::recvfrom => head.arg1 == 0 && head.arg3 & MSG_TRUNC != 0 && head.arg4 == 0,
        _ => false,
    }
}

/// The memory of a posted call: the bytes that go with it.
struct Data<'a> {
    map: &'a Map,
    at: Cell<usize>,
    len: Cell<usize>,
    may_sleep: bool,
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

    fn may_sleep(&self) -> bool {
        self.may_sleep
    }
}

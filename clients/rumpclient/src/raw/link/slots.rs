//! Slots: the requests of a link that are unanswered, each with what the receiver needs to know of it.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use abi::sysproxy::Company;

use super::super::mem::Memory;
use super::super::request::Call;
use super::super::sys;
use super::SMALL;

/// Requests at a time: a bit each.
const COUNT: usize = u64::BITS as usize;

/// Waits for its answer.
pub(super) const WAITING: u32 = 1;
/// Waits, and is to look whether it can receive.
pub(super) const LEAD: u32 = 2;
/// Has its answer, or wants none.
pub(super) const DONE: u32 = 3;
/// Its thread has jumped away; the answer is thrown away.
pub(super) const LEFT: u32 = 4;

/// The slots. A request's number names its slot, so an answer finds its thread without a search.
pub(super) struct Slots {
    /// Which are somebody's.
    busy: AtomicU64,
    next: AtomicU64,
    /// Raised by who found none; then `freed` counts those that are given back.
    full: AtomicU32,
    freed: AtomicU32,
    slots: [Slot; COUNT],
}

/// One slot: its state, and what its thread has left there. `asks` is the thread's that has the slot, and while that
/// waits, the receiver's.
pub(super) struct Slot {
    pub(super) state: AtomicU32,
    pub(super) reqno: AtomicU64,
    pub(super) asks: UnsafeCell<Asks>,
}

/// What the receiver needs to know of a request, and what came of it.
pub(super) struct Asks {
    pub(super) call: Option<Call>,
    /// The waiting thread's view of memory, good while it waits.
    pub(super) memory: Option<Memory<'static>>,
    pub(super) result: i64,
    pub(super) small: [u8; SMALL],
    pub(super) small_len: usize,
}

impl Slots {
    pub(super) const fn new() -> Slots {
        Slots {
            busy: AtomicU64::new(0),
            next: AtomicU64::new(0),
            full: AtomicU32::new(0),
            freed: AtomicU32::new(0),
            slots: [const {
                Slot {
                    state: AtomicU32::new(DONE),
                    reqno: AtomicU64::new(0),
                    asks: UnsafeCell::new(Asks {
                        call: None,
                        memory: None,
                        result: 0,
                        small: [0; SMALL],
                        small_len: 0,
                    }),
                }
            }; COUNT],
        }
    }

    /// Gives all back. Nobody may be using any.
    pub(super) fn reset(&self) {
        self.busy.store(0, Ordering::Relaxed);
        for slot in &self.slots {
            slot.state.store(DONE, Ordering::Relaxed);
        }
    }

    pub(super) fn get(&self, index: usize) -> &Slot {
        &self.slots[index % COUNT]
    }

    /// The slot that a request's number names, whether it is that request's or not.
    pub(super) fn index(reqno: u64) -> usize {
        reqno as usize % COUNT
    }

    /// Takes one, and says whether others were taken; `None` when all are.
    pub(super) fn take(&self) -> Option<(usize, Company)> {
        let mut busy = self.busy.load(Ordering::Relaxed);
        loop {
            let index = busy.trailing_ones() as usize;
            if index == COUNT {
                return None;
            }
            let taken = self.busy.compare_exchange_weak(
                busy,
                busy | 1 << index,
                Ordering::SeqCst,
                Ordering::Relaxed,
            );
            match taken {
                Ok(0) => return Some((index, Company::Alone)),
                Ok(_) => return Some((index, Company::Others)),
                Err(now) => busy = now,
            }
        }
    }

    /// Waits until one may be free.
    #[cold]
    pub(super) fn wait_for_one(&self) {
        let seen = self.freed.load(Ordering::Acquire);
        self.full.store(1, Ordering::SeqCst);
        if self.busy.load(Ordering::SeqCst) == u64::MAX {
            let _ = sys::futex_wait(&self.freed, seen, false, Some(1));
        }
    }

    /// A number for the request in a slot.
    pub(super) fn number(&self, index: usize) -> u64 {
        let count = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        count * COUNT as u64 + index as u64
    }

    /// Gives one back.
    pub(super) fn release(&self, index: usize) {
        self.busy.fetch_and(!(1 << index), Ordering::SeqCst);
        if self.full.load(Ordering::SeqCst) != 0 {
            self.full.store(0, Ordering::SeqCst);
            self.freed.fetch_add(1, Ordering::Release);
            sys::futex_wake(&self.freed, u32::MAX >> 1, false);
        }
    }

    /// Those that are somebody's.
    pub(super) fn taken(&self) -> impl Iterator<Item = &Slot> {
        let mut busy = self.busy.load(Ordering::SeqCst);
        core::iter::from_fn(move || {
            let index = busy.trailing_zeros() as usize;
            let slot = self.slots.get(index)?;
            busy &= busy - 1;
            Some(slot)
        })
    }
}

//! A connection that several threads use at once.
//!
//! Each request has a slot (`slots`). Whoever waits and finds nobody receiving takes the role of receiver (`receive`): it
//! reads frames and does with each what its call wants, for itself and for the others, until its own answer is there; then
//! it passes the role on. A thread that is alone makes one system call to send and one to receive.
//!
//! Data goes from the program's memory into the socket (`send`) and back (`answer`) without a stop in between; the host
//! checks the addresses as it copies.

mod answer;
mod mail;
mod receive;
mod send;
mod slots;

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};

use abi::Errno;
use abi::sysproxy::{Class, Company, Header, Kind};

use super::mem::Memory;
use super::request::{Call, vec};
use super::sys;
use super::thread::Block;
use answer::Received;
use slots::{DONE, LEAD, LEFT, Slots, WAITING};

/// The longest answer to a request that is no call.
pub(super) const SMALL: usize = 64;

/// What a thread holds of a link, in [`Block::holds`].
const HOLDS_ROLE: u32 = 1;
const HOLDS_SEND: u32 = 2;

/// A connection that is made or to be made; when it is new it is not connected. In zeroed memory it is good after
/// [`open`](Link::open).
pub(super) struct Link {
    /// The socket plus one; 0 for none.
    socket: AtomicI32,
    dead: AtomicBool,
    sending: AtomicU32,
    /// Set while a frame is under way that cannot be left off in the middle.
    mid_send: AtomicBool,
    receiving: AtomicU32,
    mid_receive: AtomicBool,
    /// Signals that the server has sent, a bit each; raised by whoever has received them when the role is laid down.
    raised: AtomicU64,
    slots: Slots,
    received: UnsafeCell<Received>,
}

// SAFETY: `received` is touched only by the one thread that has the receiver's role, `asks` of a slot only by the
// thread that has the slot and, while that waits, by the receiver.
unsafe impl Sync for Link {}
// SAFETY: it can be moved to another thread only while no call is under way, and then no slot holds a view of memory that
// is used again.
unsafe impl Send for Link {}

impl Link {
    pub(super) const fn new() -> Link {
        Link {
            socket: AtomicI32::new(0),
            dead: AtomicBool::new(false),
            sending: AtomicU32::new(0),
            mid_send: AtomicBool::new(false),
            receiving: AtomicU32::new(0),
            mid_receive: AtomicBool::new(false),
            raised: AtomicU64::new(0),
            slots: Slots::new(),
            received: UnsafeCell::new(Received::new()),
        }
    }

    /// Starts afresh on a socket whose handshake is done. Nobody else may be using the link: it is new, or this is the
    /// only thread of a forked child.
    pub(super) fn open(&self, socket: i32) {
        self.sending.store(0, Ordering::Relaxed);
        self.mid_send.store(false, Ordering::Relaxed);
        self.receiving.store(0, Ordering::Relaxed);
        self.mid_receive.store(false, Ordering::Relaxed);
        self.raised.store(0, Ordering::Relaxed);
        self.slots.reset();
        // SAFETY: nobody has the receiver's role, by the condition above.
        unsafe { (*self.received.get()).clear() };
        self.dead.store(false, Ordering::Relaxed);
        self.socket.store(socket + 1, Ordering::Release);
    }

    /// The socket, if there is one.
    pub(super) fn socket(&self) -> Option<i32> {
        Some(self.socket.load(Ordering::Acquire) - 1).filter(|&fd| fd >= 0)
    }

    /// Takes the socket away.
    pub(super) fn take_socket(&self) -> Option<i32> {
        Some(self.socket.swap(0, Ordering::AcqRel) - 1).filter(|&fd| fd >= 0)
    }

    pub(super) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Acquire)
    }

    /// Marks the link as of no use and answers everybody who waits.
    fn die(&self) {
        self.dead.store(true, Ordering::SeqCst);
        for slot in self.slots.taken() {
            for waiting in [WAITING, LEAD] {
                let _ =
                    slot.state
                        .compare_exchange(waiting, LEAD, Ordering::SeqCst, Ordering::Relaxed);
            }
            sys::futex_wake(&slot.state, 1, false);
        }
    }

    /// Makes a call.
    pub(super) fn call(&self, block: &Block, memory: Memory<'_>, call: &Call) -> i64 {
        // SAFETY: the scratch belongs to the outermost call of this thread or to a nested one's own block.
        let scratch = unsafe { &mut *block.scratch.get() };
        let Some((index, company)) = self.take_slot(block, Some(call), memory) else {
            return -i64::from(Errno::ENOTCONN.0);
        };
        let slot = self.slots.get(index);
        let reqno = slot.reqno.load(Ordering::Relaxed);
        let count = call.compose(reqno, company, memory, scratch);
        let sent = self.send(block, &mut scratch.iov[..count], None);
        if let Err(errno) = sent {
            self.free_slot(block, index);
            return -i64::from(errno.0);
        }
        self.wait(block, index, call.never_restarts());
        // SAFETY: the answer is there and the slot is this thread's.
        let result = unsafe { (*slot.asks.get()).result };
        self.free_slot(block, index);
        result
    }

    /// Makes a request that is no call: `body` goes, perhaps with a descriptor, and up to [`SMALL`] bytes come back.
    pub(super) fn request(
        &self,
        block: &Block,
        memory: Memory<'_>,
        kind: Kind,
        word: u32,
        body: &[u8],
        pass: Option<i32>,
    ) -> Result<([u8; SMALL], usize), Errno> {
        let taken = self.take_slot(block, None, memory);
        let (index, _) = taken.ok_or(Errno::ENOTCONN)?;
        let slot = self.slots.get(index);
        let reqno = slot.reqno.load(Ordering::Relaxed);
        let head = Header::new(Class::Request, kind, word, reqno, body.len()).encode();
        let sent = self.send(block, &mut [vec(&head), vec(body)], pass);
        if sent.is_ok() {
            self.wait(block, index, false);
        }
        // SAFETY: the answer is there and the slot is this thread's.
        let asks = unsafe { &*slot.asks.get() };
        let answer = (asks.result, asks.small, asks.small_len);
        self.free_slot(block, index);
        sent?;
        match answer {
            (0, small, len) => Ok((small, len)),
            (errno, ..) => Err(Errno(errno.wrapping_neg() as i32)),
        }
    }

    /// Sends a request that is not answered.
    pub(super) fn post(&self, block: &Block, kind: Kind, word: u32, reqno: u64) {
        let head = Header::new(Class::Request, kind, word, reqno, 0).encode();
        let _ = self.send(block, &mut [vec(&head)], None);
    }

    fn take_slot(
        &self,
        block: &Block,
        call: Option<&Call>,
        memory: Memory<'_>,
    ) -> Option<(usize, Company)> {
        let (index, company) = loop {
            if self.is_dead() || self.socket().is_none() {
                return None;
            }
            match self.slots.take() {
                Some(taken) => break taken,
                None => self.slots.wait_for_one(),
            }
        };
        let slot = self.slots.get(index);
        // SAFETY: the slot is this thread's, and nobody is told before its state says so. The memory's lifetime is cut
        // short again: the receiver uses it only while this thread waits in `wait`, which its borrow outlives.
        unsafe {
            let asks = &mut *slot.asks.get();
            asks.call = call.copied();
            asks.memory = Some(core::mem::transmute::<Memory<'_>, Memory<'static>>(memory));
            asks.result = -i64::from(Errno::ENOTCONN.0);
            asks.small_len = 0;
        }
        slot.reqno
            .store(self.slots.number(index), Ordering::Relaxed);
        block.slot.set(index as u32 + 1);
        slot.state.store(WAITING, Ordering::Release);
        Some((index, company))
    }

    fn free_slot(&self, block: &Block, index: usize) {
        block.slot.set(0);
        let state = &self.slots.get(index).state;
        // Who was told to lead and does not wait tells the next one.
        let lead =
            state.load(Ordering::Relaxed) != DONE && state.swap(DONE, Ordering::AcqRel) == LEAD;
        self.slots.release(index);
        if lead {
            self.pass_role();
        }
    }

    /// A call of this thread was left by a jump: what it held is taken back. Frames that were under way are lost, and
    /// the link with them.
    pub(super) fn recover(&self, block: &Block) {
        let holds = block.holds.replace(0);
        if holds & HOLDS_SEND != 0 {
            if self.mid_send.load(Ordering::Relaxed) {
                self.die();
            }
            self.unlock(&self.sending);
        }
        if let Some(index) = (block.slot.replace(0) as usize).checked_sub(1) {
            let slot = self.slots.get(index);
            let reqno = slot.reqno.load(Ordering::Relaxed);
            if slot.state.swap(LEFT, Ordering::AcqRel) == DONE {
                slot.state.store(DONE, Ordering::Relaxed);
                self.slots.release(index);
            } else {
                // Nobody waits for the answer, so the kernel need not either.
                self.post(block, Kind::Interrupt, 0, reqno);
            }
        }
        if holds & HOLDS_ROLE != 0 {
            if self.mid_receive.load(Ordering::Relaxed) {
                self.die();
            }
            self.receiving.store(0, Ordering::SeqCst);
            self.pass_role();
        }
    }
}

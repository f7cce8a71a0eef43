//! A connection that several threads use at once.
//!
//! Each request has a slot; its number is in the request number, so an answer finds its thread without a search.
//! Whoever waits and finds nobody receiving takes the role of receiver: it reads frames and does with each what its
//! call wants, for itself and for the others, until its own answer is there; then it passes the role on.
//!
//! Data goes from the program's memory into the socket and back without a stop in between; the host checks the
//! addresses as it copies.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};

use abi::Errno;
use abi::sysproxy::{
    COPY_FIXED, Class, CopyData, ErrorWord, HEADER, Header, Kind, MAX_INLINE, REPLY_FIXED,
    REQUEST_FIXED, SegmentHead, SyscallReply, SyscallRequest, Use, padded,
};

use super::mem::Memory;
use super::request::{Call, Scratch};
use super::sys::{self, IoVec};
use super::thread::Block;

/// Requests at a time.
const SLOTS: usize = 64;
/// Bytes that are received at once.
const RECEIVE: usize = 4096;
/// The longest answer to a request that is no call.
pub(super) const SMALL: usize = 64;
/// Data up to this length is copied into the frame; longer data is sent from where it is.
const SHORT: usize = 512;

/// A slot that nobody has.
const FREE: u32 = 0;
/// Waits for its answer.
const WAITING: u32 = 1;
/// Waits, and is to look whether it can receive.
const LEAD: u32 = 2;
/// Has its answer.
const DONE: u32 = 3;
/// Its thread has jumped away; the answer is thrown away.
const LEFT: u32 = 4;

/// What a thread holds of a link, in [`Block::holds`].
const HOLDS_ROLE: u32 = 1;
const HOLDS_SEND: u32 = 2;

/// A connection. All zero is one that is not connected, except for its descriptor.
pub(super) struct Link {
    /// The socket plus one; 0 for none.
    socket: AtomicI32,
    dead: AtomicBool,
    sending: AtomicU32,
    /// Set while a frame is under way that cannot be left off in the middle.
    mid_send: AtomicBool,
    receiving: AtomicU32,
    mid_receive: AtomicBool,
    /// Counts slots that were given back; those who find none wait on it, having raised `full`.
    freed: AtomicU32,
    full: AtomicU32,
    next: AtomicU64,
    /// Signals that the server has sent, a bit each; raised by whoever has received them when the role is laid down.
    raised: AtomicU64,
    slots: [Slot; SLOTS],
    received: UnsafeCell<Received>,
}

// SAFETY: `received` is touched only by the one thread that has the receiver's role, `asks` of a slot only by the
// thread that has the slot and, while that waits, by the receiver.
unsafe impl Sync for Link {}
// SAFETY: it can be moved to another thread only while no call is under way, and then no slot holds a view of memory that
// is used again.
unsafe impl Send for Link {}

struct Slot {
    state: AtomicU32,
    reqno: AtomicU64,
    asks: UnsafeCell<Asks>,
}

/// What the receiver needs to know of a request, and what came of it.
struct Asks {
    call: Option<Call>,
    /// The waiting thread's view of memory, good while it waits.
    memory: Option<Memory<'static>>,
    result: i64,
    small: [u8; SMALL],
    small_len: usize,
}

struct Received {
    bytes: [u8; RECEIVE],
    start: usize,
    end: usize,
}

/// The link is of no use any more.
struct Dead;

impl Link {
    pub(super) const fn new() -> Link {
        Link {
            socket: AtomicI32::new(0),
            dead: AtomicBool::new(false),
            sending: AtomicU32::new(0),
            mid_send: AtomicBool::new(false),
            receiving: AtomicU32::new(0),
            mid_receive: AtomicBool::new(false),
            freed: AtomicU32::new(0),
            full: AtomicU32::new(0),
            next: AtomicU64::new(0),
            raised: AtomicU64::new(0),
            slots: [const {
                Slot {
                    state: AtomicU32::new(FREE),
                    reqno: AtomicU64::new(0),
                    asks: UnsafeCell::new(Asks {
                        call: None,
                        memory: None,
                        result: 0,
                        small: [0; SMALL],
                        small_len: 0,
                    }),
                }
            }; SLOTS],
            received: UnsafeCell::new(Received {
                bytes: [0; RECEIVE],
                start: 0,
                end: 0,
            }),
        }
    }

    /// Starts afresh on a socket whose handshake is done. Nobody else may be using the link: it is new, or this is the
    /// only thread of a forked child.
    pub(super) fn open(&self, socket: i32) {
        self.sending.store(0, Ordering::Relaxed);
        self.mid_send.store(false, Ordering::Relaxed);
        self.receiving.store(0, Ordering::Relaxed);
        self.mid_receive.store(false, Ordering::Relaxed);
        for slot in &self.slots {
            slot.state.store(FREE, Ordering::Relaxed);
        }
        // SAFETY: nobody has the receiver's role, by the condition above.
        let received = unsafe { &mut *self.received.get() };
        (received.start, received.end) = (0, 0);
        self.raised.store(0, Ordering::Relaxed);
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
        self.dead.store(true, Ordering::Release);
        for slot in &self.slots {
            for waiting in [WAITING, LEAD] {
                let _ =
                    slot.state
                        .compare_exchange(waiting, LEAD, Ordering::AcqRel, Ordering::Relaxed);
            }
            sys::futex_wake(&slot.state, 1, false);
        }
    }

    /// Makes a call.
    pub(super) fn call(&self, block: &Block, memory: Memory<'_>, call: &Call) -> i64 {
        // SAFETY: the scratch belongs to the outermost call of this thread or to a nested one's own block.
        let scratch = unsafe { &mut *block.scratch.get() };
        let Some(index) = self.take_slot(block, Some(*call), memory) else {
            return -i64::from(Errno::ENOTCONN.0);
        };
        let slot = &self.slots[index];
        let iov = frame(call, slot.reqno.load(Ordering::Relaxed), memory, scratch);
        let sent = self.send(block, &mut scratch.iov[..iov], None);
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
        let index = self.take_slot(block, None, memory).ok_or(Errno::ENOTCONN)?;
        let slot = &self.slots[index];
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

    // Slots.

    fn take_slot(&self, block: &Block, call: Option<Call>, memory: Memory<'_>) -> Option<usize> {
        loop {
            if self.is_dead() || self.socket().is_none() {
                return None;
            }
            let seen = self.freed.load(Ordering::Acquire);
            let free = |slot: &Slot| {
                slot.state
                    .compare_exchange(FREE, WAITING, Ordering::AcqRel, Ordering::Relaxed)
                    .is_ok()
            };
            let Some(index) = self.slots.iter().position(free) else {
                self.full.store(1, Ordering::Release);
                let _ = sys::futex_wait(&self.freed, seen, false, Some(1));
                continue;
            };
            let number = self.next.fetch_add(1, Ordering::Relaxed) + 1;
            let slot = &self.slots[index];
            // SAFETY: the slot is this thread's. The memory's lifetime is cut short again: the receiver uses it only
            // while this thread waits in `wait`, which its borrow outlives.
            unsafe {
                *slot.asks.get() = Asks {
                    call,
                    memory: Some(core::mem::transmute::<Memory<'_>, Memory<'static>>(memory)),
                    result: -i64::from(Errno::ENOTCONN.0),
                    small: [0; SMALL],
                    small_len: 0,
                };
            }
            slot.reqno
                .store(number * SLOTS as u64 + index as u64, Ordering::Release);
            block.slot.set(index as u32 + 1);
            return Some(index);
        }
    }

    fn free_slot(&self, block: &Block, index: usize) {
        block.slot.set(0);
        // Who was told to lead and does not wait tells the next one.
        let lead = self.slots[index].state.swap(FREE, Ordering::AcqRel) == LEAD;
        self.freed.fetch_add(1, Ordering::Release);
        if self.full.swap(0, Ordering::AcqRel) != 0 {
            sys::futex_wake(&self.freed, u32::MAX >> 1, false);
        }
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
        let slot = block.slot.replace(0);
        if let Some(slot) = self.slots.get((slot as usize).wrapping_sub(1)) {
            let reqno = slot.reqno.load(Ordering::Relaxed);
            let state = slot.state.swap(LEFT, Ordering::AcqRel);
            if state == DONE {
                slot.state.store(FREE, Ordering::Release);
            } else {
                // Nobody waits for the answer, so the kernel need not either.
                self.post(block, Kind::Interrupt, 0, reqno);
            }
        }
        if holds & HOLDS_ROLE != 0 {
            if self.mid_receive.load(Ordering::Relaxed) {
                self.die();
            }
            self.receiving.store(0, Ordering::Release);
            self.pass_role();
        }
    }

    // Sending.

    /// Sends a whole frame. An error before its first byte leaves the link as it was.
    fn send(&self, block: &Block, iov: &mut [IoVec], pass: Option<i32>) -> Result<(), Errno> {
        let fd = self.socket().ok_or(Errno::ENOTCONN)?;
        block.holds.set(block.holds.get() | HOLDS_SEND);
        self.lock(&self.sending);
        let result = self.send_locked(fd, iov, pass);
        self.mid_send.store(false, Ordering::Relaxed);
        self.unlock(&self.sending);
        block.holds.set(block.holds.get() & !HOLDS_SEND);
        result
    }

    fn send_locked(&self, fd: i32, iov: &mut [IoVec], mut pass: Option<i32>) -> Result<(), Errno> {
        static ZEROES: [u8; 4096] = [0; 4096];
        let mut rest = iov;
        let mut begun = false;
        loop {
            while rest.first().is_some_and(|part| part.len == 0) {
                rest = &mut rest[1..];
            }
            let Some(first) = rest.first() else {
                return Ok(());
            };
            let first_len = first.len;
            match sys::sendmsg(fd, rest, pass) {
                Ok(mut n) => {
                    begun = true;
                    pass = None;
                    self.mid_send.store(true, Ordering::Relaxed);
                    for part in rest.iter_mut() {
                        let cut = n.min(part.len);
                        part.base = part.base.wrapping_add(cut);
                        part.len -= cut;
                        n -= cut;
                    }
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EFAULT) if !begun => return Err(Errno::EFAULT),
                Err(Errno::EFAULT) => {
                    // Memory has gone since it was looked at. The frame must have its length all the same.
                    let n = sys::sendmsg(fd, &[vec(&ZEROES[..first_len.min(ZEROES.len())])], None);
                    let n = n.map_err(|_| self.lost())?;
                    rest[0].base = rest[0].base.wrapping_add(n);
                    rest[0].len -= n;
                }
                Err(_) => return Err(self.lost()),
            }
        }
    }

    fn lost(&self) -> Errno {
        self.die();
        Errno::ENOTCONN
    }

    /// Takes a lock: 0 is free, 1 held, 2 held and waited for.
    fn lock(&self, word: &AtomicU32) {
        let quick = word.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed);
        if quick.is_err() {
            while word.swap(2, Ordering::Acquire) != 0 {
                let _ = sys::futex_wait(word, 2, false, None);
            }
        }
    }

    fn unlock(&self, word: &AtomicU32) {
        if word.swap(0, Ordering::Release) == 2 {
            sys::futex_wake(word, 1, false);
        }
    }

    // Receiving.

    /// Waits until the answer of a slot is there. A signal that asks for it interrupts the call.
    fn wait(&self, block: &Block, index: usize, never_restarts: bool) {
        let slot = &self.slots[index];
        let mut interrupted = false;
        while slot.state.load(Ordering::Acquire) != DONE {
            let signal = if self.receiving.swap(1, Ordering::AcqRel) == 0 {
                block.holds.set(block.holds.get() | HOLDS_ROLE);
                let signal = self.receive_for(block, slot, never_restarts);
                self.receiving.store(0, Ordering::Release);
                block.holds.set(block.holds.get() & !HOLDS_ROLE);
                self.pass_role();
                // Nobody receives any more: whoever had the role may have been in the middle of our answer before.
                if self.is_dead() {
                    return;
                }
                signal | self.raise(never_restarts)
            } else {
                let _ =
                    slot.state
                        .compare_exchange(LEAD, WAITING, Ordering::AcqRel, Ordering::Relaxed);
                // The role may have come free before the word said WAITING.
                if self.receiving.load(Ordering::Acquire) == 0 {
                    continue;
                }
                let time = never_restarts.then_some(3600);
                sys::futex_wait(&slot.state, WAITING, false, time) == Err(Errno::EINTR)
            };
            if signal && !interrupted {
                interrupted = true;
                let reqno = slot.reqno.load(Ordering::Relaxed);
                self.post(block, Kind::Interrupt, 0, reqno);
            }
        }
    }

    /// Somebody who waits becomes the receiver.
    fn pass_role(&self) {
        for slot in &self.slots {
            let lead =
                slot.state
                    .compare_exchange(WAITING, LEAD, Ordering::AcqRel, Ordering::Relaxed);
            if lead.is_ok() {
                sys::futex_wake(&slot.state, 1, false);
                return;
            }
        }
    }

    /// Receives until `mine` has its answer; true when a signal ended the wait first.
    fn receive_for(&self, block: &Block, mine: &Slot, never_restarts: bool) -> bool {
        // SAFETY: the caller has the receiver's role.
        let received = unsafe { &mut *self.received.get() };
        while mine.state.load(Ordering::Acquire) != DONE && !self.is_dead() {
            let Some(fd) = self.socket() else {
                return false;
            };
            if self.raised.load(Ordering::Relaxed) != 0 {
                return false;
            }
            if received.start == received.end {
                if never_restarts && sys::poll_in(fd) == Err(Errno::EINTR) {
                    return true;
                }
                (received.start, received.end) = (0, 0);
                // SAFETY: our own buffer.
                match unsafe { sys::recv(fd, received.bytes.as_mut_ptr(), RECEIVE, 0) } {
                    Ok(n @ 1..) => received.end = n,
                    Err(Errno::EINTR) => return true,
                    _ => {
                        self.die();
                        return false;
                    }
                }
            }
            self.mid_receive.store(true, Ordering::Relaxed);
            if self.receive_frame(block, fd, received).is_err() {
                self.die();
            }
            self.mid_receive.store(false, Ordering::Relaxed);
        }
        false
    }

    /// Receives what lies in the socket, without waiting: for a thread with a ring, which does not look there otherwise.
    pub(super) fn drain(&self, block: &Block) {
        if self.receiving.swap(1, Ordering::AcqRel) != 0 {
            // Whoever receives finds it.
            return;
        }
        block.holds.set(block.holds.get() | HOLDS_ROLE);
        self.receive_there(block);
        self.receiving.store(0, Ordering::Release);
        block.holds.set(block.holds.get() & !HOLDS_ROLE);
        self.pass_role();
    }

    fn receive_there(&self, block: &Block) {
        // SAFETY: the caller has the receiver's role.
        let received = unsafe { &mut *self.received.get() };
        while let Some(fd) = self.socket().filter(|_| !self.is_dead()) {
            if received.start == received.end {
                (received.start, received.end) = (0, 0);
                let to = received.bytes.as_mut_ptr();
                // SAFETY: our own buffer.
                match unsafe { sys::recv(fd, to, RECEIVE, sys::MSG_DONTWAIT) } {
                    Ok(n @ 1..) => received.end = n,
                    Err(Errno::EINTR) => continue,
                    Err(Errno::EAGAIN) => return,
                    _ => return self.die(),
                }
            }
            self.mid_receive.store(true, Ordering::Relaxed);
            if self.receive_frame(block, fd, received).is_err() {
                self.die();
            }
            self.mid_receive.store(false, Ordering::Relaxed);
        }
    }

    /// Raises the signals that the server has sent; nothing is held that a handler could want or leave behind by a jump. True when
    /// one of them interrupts a call, as the program has arranged it.
    pub(super) fn raise(&self, never_restarts: bool) -> bool {
        if self.raised.load(Ordering::Acquire) == 0 {
            return false;
        }
        let mut signals = self.raised.swap(0, Ordering::AcqRel);
        let mut interrupts = false;
        while signals != 0 {
            let signo = signals.trailing_zeros() + 1;
            signals &= signals - 1;
            interrupts |= sys::interrupts(signo, never_restarts);
            sys::kill(sys::getpid(), signo);
        }
        interrupts
    }

    fn receive_frame(&self, block: &Block, fd: i32, received: &mut Received) -> Result<(), Dead> {
        let mut raw = [0; HEADER];
        received.take(fd, &mut raw)?;
        let header = Header::decode(&raw).map_err(|_| Dead)?;
        let slot = &self.slots[header.reqno as usize % SLOTS];
        let state = slot.state.load(Ordering::Acquire);
        let known = slot.reqno.load(Ordering::Acquire) == header.reqno
            && matches!(state, WAITING | LEAD | LEFT);
        if header.kind == Kind::Raise && header.class == Class::Request {
            if (1..=64).contains(&header.word) {
                self.raised
                    .fetch_or(1 << (header.word - 1), Ordering::Release);
            }
            return received.skip(fd, header.body);
        }
        if !known || state == LEFT {
            let ends = header.class != Class::Request;
            received.skip(fd, header.body)?;
            if !ends && matches!(header.kind, Kind::Copyin | Kind::Copyinstr) {
                self.answer_fault(block, header);
            }
            if known && ends {
                slot.state.store(FREE, Ordering::Release);
            }
            return Ok(());
        }
        // SAFETY: the slot's thread waits, so the receiver may use what it has left there.
        let asks = unsafe { &mut *slot.asks.get() };
        match (header.class, header.kind) {
            (Class::Response, Kind::Syscall) => received.reply(fd, header.body, asks)?,
            (Class::Response, _) => {
                let len = header.body.min(SMALL);
                received.take(fd, &mut asks.small[..len])?;
                received.skip(fd, header.body - len)?;
                (asks.result, asks.small_len) = (0, len);
            }
            (Class::Error, _) => {
                received.skip(fd, header.body)?;
                let errno = ErrorWord::from_wire(header.word).map_or(Errno::EIO, ErrorWord::errno);
                asks.result = -i64::from(errno.0);
            }
            (Class::Request, Kind::Copyin | Kind::Copyinstr) => {
                return self.copyin(block, fd, header, received, asks);
            }
            (Class::Request, Kind::Copyout | Kind::Copyoutstr) => {
                return received.copyout(fd, header.body, asks);
            }
            (Class::Request, _) => return received.skip(fd, header.body),
        }
        // From here on the slot is its thread's again.
        slot.state.store(DONE, Ordering::Release);
        sys::futex_wake(&slot.state, 1, false);
        Ok(())
    }

    /// The server wants memory of a call.
    fn copyin(
        &self,
        block: &Block,
        fd: i32,
        header: Header,
        received: &mut Received,
        asks: &Asks,
    ) -> Result<(), Dead> {
        let mut raw = [0; COPY_FIXED];
        if header.body != COPY_FIXED {
            return Err(Dead);
        }
        received.take(fd, &mut raw)?;
        let ask = CopyData::decode_ask(&raw).map_err(|_| Dead)?;
        let Some(len) = asks.readable(&ask, header.kind) else {
            self.answer_fault(block, header);
            return Ok(());
        };
        let body = COPY_FIXED + len;
        let head = Header::new(Class::Response, header.kind, 0, header.reqno, body).encode();
        let fixed = CopyData::encode_fixed(len as u64, ask.addr);
        let data = IoVec {
            base: ask.addr as *const u8,
            len,
        };
        let _ = self.send(block, &mut [vec(&head), vec(&fixed), data], None);
        Ok(())
    }

    fn answer_fault(&self, block: &Block, header: Header) {
        let word = ErrorWord::Fault as u32;
        let head = Header::new(Class::Error, header.kind, word, header.reqno, 0).encode();
        let _ = self.send(block, &mut [vec(&head)], None);
    }
}

impl Asks {
    /// How much of what the server asks for it may have; `None` when nothing.
    fn readable(&self, ask: &CopyData<'_>, kind: Kind) -> Option<usize> {
        let (call, memory) = (self.call.as_ref()?, self.memory?);
        let len = ask.len as usize;
        let found = if kind == Kind::Copyinstr {
            memory.string(ask.addr, len)
        } else {
            memory.readable(ask.addr, len).then_some(len)
        }?;
        let how = if kind == Kind::Copyinstr {
            Use::Str
        } else {
            Use::In
        };
        call.allows(memory, ask.addr, found, how).then_some(found)
    }

    /// The memory view, if the call may have this range written.
    fn writable(&self, addr: u64, len: usize) -> Option<Memory<'static>> {
        let (call, memory) = (self.call.as_ref()?, self.memory?);
        call.allows(memory, addr, len, Use::Out).then_some(memory)
    }
}

impl Received {
    /// The answer to a call: what it returned, and what it has written.
    fn reply(&mut self, fd: i32, body: usize, asks: &mut Asks) -> Result<(), Dead> {
        let mut raw = [0; REPLY_FIXED];
        self.take(fd, &mut raw)?;
        let mut left = body.checked_sub(REPLY_FIXED).ok_or(Dead)?;
        let (error, value, count) = SyscallReply::decode_fixed(&raw).map_err(|_| Dead)?;
        let mut good = true;
        for _ in 0..count {
            let mut raw = [0; SegmentHead::SIZE];
            self.take(fd, &mut raw)?;
            let head = SegmentHead::decode(&raw).map_err(|_| Dead)?;
            let len = head.len as usize;
            let used = SegmentHead::SIZE + padded(len);
            left = left.checked_sub(used).ok_or(Dead)?;
            good &= self.deliver(fd, head.addr, len, asks)?;
            self.skip(fd, padded(len) - len)?;
        }
        if left != 0 {
            return Err(Dead);
        }
        asks.result = match (good, error) {
            (false, _) => -i64::from(Errno::EFAULT.0),
            (true, 0) => value,
            (true, error) => -i64::from(error.clamp(1, 4095)),
        };
        Ok(())
    }

    /// Memory that a call has written, ahead of its answer.
    fn copyout(&mut self, fd: i32, body: usize, asks: &mut Asks) -> Result<(), Dead> {
        let mut raw = [0; COPY_FIXED];
        self.take(fd, &mut raw)?;
        let len = body.checked_sub(COPY_FIXED).ok_or(Dead)?;
        let [l, a] = [0, 8].map(|at| u64::from_le_bytes(core::array::from_fn(|i| raw[at + i])));
        if l != len as u64 {
            return Err(Dead);
        }
        // The server does not hear of memory that is not there; its call goes on.
        self.deliver(fd, a, len, asks).map(|_| ())
    }

    /// Moves `len` bytes of the frame to the program's memory. False when they may not go there; then they are dropped.
    fn deliver(&mut self, fd: i32, addr: u64, len: usize, asks: &Asks) -> Result<bool, Dead> {
        let Some(memory) = asks.writable(addr, len) else {
            self.skip(fd, len)?;
            return Ok(false);
        };
        let mut done = 0;
        while done < len {
            let at = addr.wrapping_add(done as u64);
            let here = (self.end - self.start).min(len - done);
            if here != 0 {
                if !memory.write(at, &self.bytes[self.start..self.start + here]) {
                    break;
                }
                self.start += here;
                done += here;
            } else if len - done < RECEIVE {
                self.fill(fd)?;
            } else {
                if !memory.writable(at, 1) {
                    break;
                }
                // SAFETY: the range is one that the call names as its buffer; the host checks that it is there.
                match unsafe { sys::recv(fd, at as *mut u8, len - done, 0) } {
                    Ok(n @ 1..) => done += n,
                    Err(Errno::EINTR) => {}
                    Err(Errno::EFAULT) => break,
                    _ => return Err(Dead),
                }
            }
        }
        self.skip(fd, len - done)?;
        Ok(done == len)
    }

    fn take(&mut self, fd: i32, mut to: &mut [u8]) -> Result<(), Dead> {
        while !to.is_empty() {
            if self.start == self.end {
                self.fill(fd)?;
            }
            let n = to.len().min(self.end - self.start);
            let (head, rest) = to.split_at_mut(n);
            head.copy_from_slice(&self.bytes[self.start..self.start + n]);
            self.start += n;
            to = rest;
        }
        Ok(())
    }

    fn skip(&mut self, fd: i32, mut len: usize) -> Result<(), Dead> {
        while len != 0 {
            if self.start == self.end {
                self.fill(fd)?;
            }
            let n = len.min(self.end - self.start);
            self.start += n;
            len -= n;
        }
        Ok(())
    }

    fn fill(&mut self, fd: i32) -> Result<(), Dead> {
        loop {
            // SAFETY: our own buffer.
            match unsafe { sys::recv(fd, self.bytes.as_mut_ptr(), RECEIVE, 0) } {
                Ok(n @ 1..) => {
                    (self.start, self.end) = (0, n);
                    return Ok(());
                }
                Err(Errno::EINTR) => {}
                _ => return Err(Dead),
            }
        }
    }
}

/// A slice as a buffer to send.
pub(super) fn vec(bytes: &[u8]) -> IoVec {
    IoVec {
        base: bytes.as_ptr(),
        len: bytes.len(),
    }
}

/// Composes the frame of a call in `scratch`; how many buffers it has.
fn frame(call: &Call, reqno: u64, memory: Memory<'_>, scratch: &mut Scratch) -> usize {
    let (count, bytes) = call.collect(memory, &mut scratch.segments, MAX_INLINE);
    let body = REQUEST_FIXED + bytes;
    let head = Header::new(Class::Request, Kind::Syscall, call.nr, reqno, body);
    let mut put = Put {
        scratch,
        len: 0,
        start: 0,
        iov: 0,
    };
    put.bytes(&head.encode());
    put.bytes(&SyscallRequest::encode_fixed(
        &call.args,
        call.hints,
        count as u32,
    ));
    for i in 0..count {
        let (addr, len) = put.scratch.segments[i];
        put.bytes(&SegmentHead { addr, len }.encode());
        put.memory(memory, addr, len as usize);
        let pad = padded(len as usize) - len as usize;
        put.bytes(&[0; 8][..pad]);
    }
    put.flush();
    put.iov
}

/// Puts a frame together: short parts one after the other, long ones where they are.
struct Put<'a> {
    scratch: &'a mut Scratch,
    len: usize,
    start: usize,
    iov: usize,
}

impl Put<'_> {
    /// What is always short: heads, 24 bytes at most for each of 64 segments.
    fn bytes(&mut self, bytes: &[u8]) {
        self.scratch.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    fn memory(&mut self, memory: Memory<'_>, addr: u64, len: usize) {
        const HEADS: usize = 4096;
        let room = self.scratch.bytes.len() - HEADS;
        if len <= SHORT && self.len + len <= room {
            let to = &mut self.scratch.bytes[self.len..self.len + len];
            if memory.read(addr, to) {
                self.len += len;
                return;
            }
        }
        self.flush();
        self.scratch.iov[self.iov] = IoVec {
            base: addr as *const u8,
            len,
        };
        self.iov += 1;
    }

    fn flush(&mut self) {
        if self.start != self.len {
            self.scratch.iov[self.iov] = vec(&self.scratch.bytes[self.start..self.len]);
            self.iov += 1;
            self.start = self.len;
        }
    }
}

//! The ring: a thread's own way to a thread of the server, through shared memory. The layout is `abi::ring`'s.

use core::cell::Cell;
use core::ptr;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use abi::ring::{
    ANSWER, ASKED, AT_MAGIC, AT_TID, BELL, CLIENT_ASLEEP, DONE, ELSEWHERE, IN, MAGIC, MAIL,
    MAY_SPIN, OUT, OWNER_DIED, PART, REPLY, REPLY_HEAD, REQUEST, REQUEST_HEAD, ReplyHead,
    RequestHead, SERVER, SERVER_ASLEEP, SIZE, WANT, WANT_STR, WINDOW, step,
};
use abi::sysproxy::{Kind, RingReply, SegmentHead, Use, padded};
use abi::{Errno, Seen, Spin};

use super::ahead::Leases;
use super::link::Link;
use super::mem::{self, Memory};
use super::request::Call;
use super::sys;
use super::thread::Block;

/// A thread's ring. All zero is none.
pub(super) struct Ring {
    base: Cell<*mut u8>,
    number: Cell<u32>,
    /// The server's word as it was when we last looked.
    seen: Cell<u32>,
    /// The same of its count of what it has sent to the socket meanwhile.
    mail: Cell<u32>,
    calls: Cell<u32>,
    spin: Cell<Spin>,
    linger: Cell<Spin>,
    pub(super) leases: Leases,
    /// The server did not want one.
    refused: Cell<bool>,
}

/// Where a call is waited for that sleeps for something else too.
pub(super) struct Beside<'a> {
    /// The number of the readiness connection that the server makes readable when the answer is there.
    pub(super) number: u32,
    /// Sleeps until that is so (true), or the call is to be interrupted.
    pub(super) sleep: &'a mut dyn FnMut() -> bool,
}

/// The server does not serve the ring any more.
#[derive(Debug)]
pub(super) struct Closed;

impl Ring {
    /// Whether there is one.
    #[inline]
    pub(super) fn is_open(&self) -> bool {
        !self.base.get().is_null()
    }

    /// Whether there is none and none can be had.
    pub(super) fn is_refused(&self) -> bool {
        self.refused.get()
    }

    /// Makes one and hands it to the server. When that fails the thread goes on without.
    pub(super) fn attach(&self, link: &Link, block: &Block, memory: Memory<'_>) {
        self.refused.set(true);
        let offer = link.request(block, memory, Kind::RingOffer, 0, &[], None);
        let offer = offer.map(|(body, len)| RingReply::decode(&body[..len]));
        if !matches!(offer, Ok(Ok(RingReply { error: 0, .. }))) {
            return;
        }
        let Ok(fd) = sys::sealed_memfd(SIZE as u64) else {
            return;
        };
        if let Ok(base) = sys::map_shared(fd, SIZE) {
            let _ = sys::madvise(base as u64, SIZE as u64, sys::MADV_DONTFORK);
            self.base.set(base);
            self.write(AT_MAGIC, &MAGIC.to_le_bytes());
            self.write(AT_TID, &sys::gettid().to_le_bytes());
            let answer = link.request(block, memory, Kind::RingAttach, 0, &[], Some(fd));
            match answer.map(|(body, len)| RingReply::decode(&body[..len])) {
                Ok(Ok(RingReply { error: 0, ring })) => {
                    self.number.set(ring);
                    self.seen.set(0);
                    self.mail.set(0);
                    self.calls.set(0);
                    self.spin.set(Spin::new());
                    self.linger.set(Spin::yielding());
                    self.refused.set(false);
                }
                _ => self.unmap(),
            }
        }
        sys::close(fd);
    }

    /// Gives it back.
    pub(super) fn detach(&self, link: &Link, block: &Block) {
        if self.is_open() {
            self.unmap();
            link.post(block, Kind::RingDetach, self.number.get(), 0);
        }
        self.refused.set(false);
    }

    /// In a child of fork, where the ring was not inherited.
    pub(super) fn forget(&self) {
        self.base.set(ptr::null_mut());
        self.leases.clear();
        self.refused.set(false);
    }

    /// Of a child that is gone: the mapping is all that is left.
    pub(super) fn discard(&self) {
        self.unmap();
    }

    fn unmap(&self) {
        self.leases.clear();
        let base = self.base.replace(ptr::null_mut());
        if !base.is_null() {
            // SAFETY: our own mapping, and the thread that uses it is here.
            unsafe { sys::unmap(base, SIZE) };
        }
    }

    #[inline]
    pub(super) fn word(&self, at: usize) -> &AtomicU32 {
        debug_assert!(self.is_open() && at < SIZE);
        // SAFETY: an aligned place of the layout in the mapping, which lives while the ring is open.
        unsafe { AtomicU32::from_ptr(self.base.get().add(at).cast()) }
    }

    /// A place of the layout.
    #[inline]
    pub(super) fn at(&self, at: usize) -> *mut u8 {
        debug_assert!(self.is_open() && at < SIZE);
        self.base.get().wrapping_add(at)
    }

    #[inline]
    pub(super) fn write(&self, at: usize, from: &[u8]) {
        debug_assert!(self.is_open() && at + from.len() <= SIZE);
        // SAFETY: inside the mapping; apart from the slice.
        unsafe { mem::copy(from.as_ptr(), self.base.get().add(at), from.len()) };
    }

    #[inline]
    pub(super) fn read(&self, at: usize, to: &mut [u8]) {
        debug_assert!(self.is_open() && at + to.len() <= SIZE);
        // SAFETY: inside the mapping; apart from the slice.
        unsafe { mem::copy(self.base.get().add(at), to.as_mut_ptr(), to.len()) };
    }

    /// Makes a call. `Closed` when the server has given the ring up before it was answered. With `beside`, it is waited for in
    /// there.
    pub(super) fn call(
        &self,
        link: &Link,
        block: &Block,
        memory: Memory<'_>,
        call: &Call,
        mut beside: Option<Beside<'_>>,
    ) -> Result<i64, Closed> {
        let (count, len) = self.put_request(block, memory, call);
        let head = RequestHead::call(call.nr, &call.args, call.hints, count, len);
        self.calls.set(self.calls.get().wrapping_add(1));
        self.submit(&head);
        let mut faults = false;
        let mut interrupted = false;
        loop {
            let never_restarts = call.never_restarts();
            match &mut beside {
                None => self.wait(link, block, never_restarts, &mut interrupted)?,
                Some(beside) => self.wait_beside(link, block, beside, &mut interrupted)?,
            }
            let mut raw = [0; ReplyHead::SIZE];
            self.read(REPLY_HEAD, &mut raw);
            let head = ReplyHead::from_bytes(&raw);
            match head.kind {
                DONE => {
                    faults |= !self.take_written(memory, call, &head);
                    if head.want != 0 {
                        self.take_leases(head.want);
                    }
                    self.look_for_mail(link, block, true);
                    return Ok(match head.error {
                        _ if faults => -i64::from(Errno::EFAULT.0),
                        0 => head.retval,
                        error => -i64::from(error.clamp(1, 4095)),
                    });
                }
                PART => {
                    faults |= !self.take_written(memory, call, &head);
                    self.answer(0, 0);
                }
                WANT | WANT_STR => self.put_wanted(memory, call, &head),
                _ => return Err(Closed),
            }
        }
    }

    /// Puts what the call will read into the window; how many segments, and their bytes.
    fn put_request(&self, block: &Block, memory: Memory<'_>, call: &Call) -> (u32, u32) {
        // SAFETY: the scratch belongs to the call that this thread is in.
        let scratch = unsafe { &mut *block.scratch.get() };
        let (count, len) = call.collect(memory, &mut scratch.segments, WINDOW);
        let mut at = IN;
        for &(addr, len) in &scratch.segments[..count] {
            self.write(at, &SegmentHead { addr, len }.encode());
            at += SegmentHead::SIZE;
            // SAFETY: found readable by `collect`; the window has room for all that it collected.
            unsafe { mem::copy(addr as *const u8, self.base.get().add(at), len as usize) };
            at += padded(len as usize);
        }
        (count as u32, len as u32)
    }

    /// Writes to the program's memory what the server has put into its window. False when some of it may not go there.
    fn take_written(&self, memory: Memory<'_>, call: &Call, reply: &ReplyHead) -> bool {
        let end = reply.len as usize;
        if end > WINDOW {
            return false;
        }
        let mut at = 0;
        for _ in 0..reply.count {
            let mut raw = [0; SegmentHead::SIZE];
            if at + raw.len() > end {
                return false;
            }
            self.read(OUT + at, &mut raw);
            let Ok(place) = step(&raw, &mut at, end) else {
                return false;
            };
            let may = call.allows(memory, place.addr, place.len, Use::Out)
                && memory.writable(place.addr, place.len);
            if !may {
                return false;
            }
            let from = self.base.get().wrapping_add(OUT + place.at);
            // SAFETY: the source lies in the window, by `step`; the destination is writable and is what the call names
            // as its buffer.
            unsafe { mem::copy(from, place.addr as *mut u8, place.len) };
        }
        true
    }

    /// Puts memory that the server wants into the window, if it may have it.
    fn put_wanted(&self, memory: Memory<'_>, call: &Call, reply: &ReplyHead) {
        let want = usize::try_from(reply.want).unwrap_or(0).min(WINDOW);
        let (len, how) = if reply.kind == WANT_STR {
            (memory.string(reply.addr, want), Use::Str)
        } else {
            (memory.readable(reply.addr, want).then_some(want), Use::In)
        };
        match len.filter(|&len| call.allows(memory, reply.addr, len, how)) {
            Some(len) => {
                let to = self.base.get().wrapping_add(IN + ASKED);
                // SAFETY: found readable; the window's second half has room for it.
                unsafe { mem::copy(reply.addr as *const u8, to, len) };
                self.answer(0, len as u32);
            }
            None => self.answer(Errno::EFAULT.0 as u32, 0),
        }
    }

    fn answer(&self, error: u32, len: u32) {
        self.submit(&RequestHead {
            nr: ANSWER,
            count: error,
            len,
            ..RequestHead::default()
        });
    }

    #[inline]
    fn submit(&self, head: &RequestHead) {
        // Plain stores one right after the other: the server, which looks at this cache line again and again, gets no
        // chance to take it away in between.
        let bytes = head.to_bytes();
        let used = &bytes[..RequestHead::used(head.nr)];
        for (i, field) in used.chunks_exact(8).enumerate() {
            let field = field.try_into().map_or(0, u64::from_le_bytes);
            // SAFETY: an aligned place of the layout in the mapping.
            let place = unsafe { self.base.get().add(REQUEST_HEAD + 8 * i) };
            // SAFETY: as above; both sides treat it as an atomic or copy it out.
            unsafe { AtomicU64::from_ptr(place.cast()) }.store(field, Ordering::Relaxed);
        }
        let word = self.word(REQUEST);
        let count = word.load(Ordering::Relaxed).wrapping_add(1);
        word.store(count, Ordering::Release);
        fence(Ordering::SeqCst);
        if self.word(SERVER_ASLEEP).load(Ordering::SeqCst) != 0 {
            sys::futex_wake(word, 1, true);
        }
    }

    /// Waits until the server has counted its word up. A signal that asks for it interrupts the call.
    ///
    /// One of the kernel's is not missed: the server counts the mail word up behind it, and the sleep, where the host can sleep on
    /// several words, is on the value that was seen when the mail was last looked at. One of the host's whose handler ends before the
    /// sleep begins is as one that came before the call: it interrupts nothing. Only who has seen an effect of the call and then
    /// sends a signal could tell the difference.
    fn wait(
        &self,
        link: &Link,
        block: &Block,
        never_restarts: bool,
        interrupted: &mut bool,
    ) -> Result<(), Closed> {
        let word = self.word(REPLY);
        if self.spin()? {
            return Ok(());
        }
        let asleep = self.word(CLIENT_ASLEEP);
        asleep.store(1, Ordering::SeqCst);
        let server = self.word(SERVER);
        while !self.look(word.load(Ordering::SeqCst))? {
            let owner = server.load(Ordering::SeqCst);
            if owner & OWNER_DIED != 0 {
                self.unmap();
                return Err(Closed);
            }
            if self.look_for_mail(link, block, never_restarts) && !*interrupted {
                self.interrupt(link, block, interrupted);
                continue;
            }
            let seen = self.seen.get();
            // A wait with a time is what any signal handler ends; it looks at the server now and then.
            let end = if never_restarts || sys::is_confined() {
                sys::futex_wait(word, seen, true, Some(1))
            } else {
                let mail = (self.word(MAIL), self.mail.get());
                match sys::futex_wait_all([(word, seen), (server, owner), mail]) {
                    Err(Errno::ENOSYS) => sys::futex_wait(word, seen, true, None),
                    end => end,
                }
            };
            if end == Err(Errno::EINTR) {
                self.interrupt(link, block, interrupted);
            }
        }
        asleep.store(0, Ordering::Relaxed);
        Ok(())
    }

    /// The same, sleeping in `beside` for something else too.
    fn wait_beside(
        &self,
        link: &Link,
        block: &Block,
        beside: &mut Beside<'_>,
        interrupted: &mut bool,
    ) -> Result<(), Closed> {
        if self.spin()? {
            return Ok(());
        }
        let asleep = self.word(CLIENT_ASLEEP);
        self.word(BELL).store(beside.number + 1, Ordering::Relaxed);
        asleep.store(ELSEWHERE, Ordering::SeqCst);
        while !self.look(self.word(REPLY).load(Ordering::SeqCst))? {
            if self.word(SERVER).load(Ordering::SeqCst) & OWNER_DIED != 0 {
                self.unmap();
                return Err(Closed);
            }
            if self.look_for_mail(link, block, true) && !*interrupted {
                self.interrupt(link, block, interrupted);
                continue;
            }
            if !(beside.sleep)() {
                self.interrupt(link, block, interrupted);
            }
        }
        asleep.store(0, Ordering::Relaxed);
        Ok(())
    }

    /// Looks for the answer for a while, if that makes sense. True when it is there.
    fn spin(&self) -> Result<bool, Closed> {
        if self.word(MAY_SPIN).load(Ordering::Relaxed) == 0 {
            return self.linger();
        }
        let word = self.word(REPLY);
        let mut spin = self.spin.get();
        for _ in 0..spin.turns() {
            if self.look(word.load(Ordering::Acquire))? {
                spin.won();
                self.spin.set(spin);
                return Ok(true);
            }
            core::hint::spin_loop();
        }
        spin.lost();
        self.spin.set(spin);
        Ok(false)
    }

    /// The same, and lets others have the processor in between.
    fn linger(&self) -> Result<bool, Closed> {
        let word = self.word(REPLY);
        let look = || match self.look(word.load(Ordering::Acquire))? {
            true => Ok(Seen::It),
            false => Ok(Seen::Nothing),
        };
        if sys::is_confined() {
            return Ok(look()? == Seen::It);
        }
        let mut linger = self.linger.get();
        let seen = linger.linger(look, sys::about_nanos, sys::sched_yield);
        self.linger.set(linger);
        seen
    }

    /// Has the server end the call, once.
    fn interrupt(&self, link: &Link, block: &Block, interrupted: &mut bool) {
        if !core::mem::replace(interrupted, true) {
            let call = u64::from(self.calls.get());
            link.post(block, Kind::RingInterrupt, self.number.get(), call);
        }
    }

    /// Takes what the server has sent to the socket, which is signals. True when one interrupts the call.
    #[inline]
    fn look_for_mail(&self, link: &Link, block: &Block, never_restarts: bool) -> bool {
        let mail = self.word(MAIL).load(Ordering::Acquire);
        if self.mail.replace(mail) == mail {
            return false;
        }
        link.drain(block);
        link.raise(never_restarts)
    }

    /// Whether the server has counted up to `value`.
    #[inline]
    fn look(&self, value: u32) -> Result<bool, Closed> {
        let seen = self.seen.replace(value);
        if value == seen {
            return Ok(false);
        }
        if self.word(AT_MAGIC).load(Ordering::Relaxed) != MAGIC {
            self.unmap();
            return Err(Closed);
        }
        Ok(true)
    }
}

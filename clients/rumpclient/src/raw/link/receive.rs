//! Receiving: a role that one of the waiting threads has at a time.

use core::sync::atomic::Ordering;

use abi::Errno;
use abi::sysproxy::{COPY_FIXED, Class, CopyData, ErrorWord, HEADER, Header, Kind};

use super::super::request::vec;
use super::super::sys::{self, IoVec};
use super::super::thread::Block;
use super::answer::{Dead, Received};
use super::slots::{Asks, DONE, LEAD, LEFT, Slots, WAITING};
use super::{HOLDS_ROLE, Link, SMALL};

impl Link {
    /// Waits until the answer of a slot is there. A signal that asks for it interrupts the call.
    pub(super) fn wait(&self, block: &Block, index: usize, never_restarts: bool) {
        let slot = self.slots.get(index);
        let mut interrupted = false;
        while slot.state.load(Ordering::Acquire) != DONE {
            let signal = if self.receiving.swap(1, Ordering::SeqCst) == 0 {
                block.holds.set(block.holds.get() | HOLDS_ROLE);
                let signal = self.receive_for(block, index, never_restarts);
                // A swap: who waits is looked for after it, and who has seen us receiving is found.
                self.receiving.swap(0, Ordering::SeqCst);
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
                        .compare_exchange(LEAD, WAITING, Ordering::SeqCst, Ordering::SeqCst);
                // The role may have come free before the word said WAITING.
                if self.receiving.load(Ordering::SeqCst) == 0 {
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
    pub(super) fn pass_role(&self) {
        for slot in self.slots.taken() {
            let lead = slot.state.load(Ordering::SeqCst) == WAITING
                && slot
                    .state
                    .compare_exchange(WAITING, LEAD, Ordering::SeqCst, Ordering::Relaxed)
                    .is_ok();
            if lead {
                sys::futex_wake(&slot.state, 1, false);
                return;
            }
        }
    }

    /// Receives until `mine` has its answer; true when a signal ended the wait first.
    fn receive_for(&self, block: &Block, index: usize, never_restarts: bool) -> bool {
        // SAFETY: the caller has the receiver's role.
        let received = unsafe { &mut *self.received.get() };
        let mine = self.slots.get(index);
        while mine.state.load(Ordering::Acquire) != DONE && !self.is_dead() {
            let Some(fd) = self.socket() else {
                return false;
            };
            if self.raised.load(Ordering::Relaxed) != 0 {
                return false;
            }
            if received.is_empty() {
                if never_restarts && sys::poll_in(fd) == Err(Errno::EINTR) {
                    return true;
                }
                match received.receive(fd, 0) {
                    Ok(()) => {}
                    Err(Errno::EINTR) => return true,
                    Err(_) => {
                        self.die();
                        return false;
                    }
                }
            }
            self.mid_receive.store(true, Ordering::Relaxed);
            if self
                .receive_frame(block, fd, received, Some(index))
                .is_err()
            {
                self.die();
            }
            self.mid_receive.store(false, Ordering::Relaxed);
        }
        false
    }

    /// One frame, for the thread with the slot `mine` or for another one.
    pub(super) fn receive_frame(
        &self,
        block: &Block,
        fd: i32,
        received: &mut Received,
        mine: Option<usize>,
    ) -> Result<(), Dead> {
        let raw = received.take::<HEADER>(fd)?;
        let header = Header::decode(&raw).map_err(|_| Dead)?;
        let index = Slots::index(header.reqno);
        let slot = self.slots.get(index);
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
                slot.state.store(DONE, Ordering::Relaxed);
                self.slots.release(index);
            }
            return Ok(());
        }
        // SAFETY: the slot's thread waits, so the receiver may use what it has left there.
        let asks = unsafe { &mut *slot.asks.get() };
        match (header.class, header.kind) {
            (Class::Response, Kind::Syscall) => received.reply(fd, header.body, asks)?,
            (Class::Response, _) => {
                let len = header.body.min(SMALL);
                received.take_into(fd, &mut asks.small[..len])?;
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
        if mine == Some(index) {
            slot.state.store(DONE, Ordering::Release);
        } else if slot.state.swap(DONE, Ordering::AcqRel) == LEFT {
            self.slots.release(index);
        } else {
            sys::futex_wake(&slot.state, 1, false);
        }
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
        if header.body != COPY_FIXED {
            return Err(Dead);
        }
        let raw = received.take::<COPY_FIXED>(fd)?;
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

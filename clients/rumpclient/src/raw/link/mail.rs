//! What the server sends of itself: signals.

use core::sync::atomic::Ordering;

use abi::Errno;

use super::super::sys;
use super::super::thread::Block;
use super::{HOLDS_ROLE, Link};

impl Link {
    /// Receives what lies in the socket, without waiting: for a thread with a ring, which does not look there otherwise.
    pub(in super::super) fn drain(&self, block: &Block) {
        if self.receiving.swap(1, Ordering::SeqCst) != 0 {
            // Whoever receives finds it.
            return;
        }
        block.holds.set(block.holds.get() | HOLDS_ROLE);
        self.receive_there(block);
        self.receiving.swap(0, Ordering::SeqCst);
        block.holds.set(block.holds.get() & !HOLDS_ROLE);
        self.pass_role();
    }

    fn receive_there(&self, block: &Block) {
        // SAFETY: the caller has the receiver's role.
        let received = unsafe { &mut *self.received.get() };
        while let Some(fd) = self.socket().filter(|_| !self.is_dead()) {
            if received.is_empty() {
                match received.receive(fd, sys::MSG_DONTWAIT) {
                    Ok(()) => {}
                    Err(Errno::EINTR) => continue,
                    Err(Errno::EAGAIN) => return,
                    Err(_) => return self.die(),
                }
            }
            self.mid_receive.store(true, Ordering::Relaxed);
            if self.receive_frame(block, fd, received, None).is_err() {
                self.die();
            }
            self.mid_receive.store(false, Ordering::Relaxed);
        }
    }

    /// Raises the signals that the server has sent; nothing is held that a handler could want or leave behind by a jump. True when
    /// one of them interrupts a call, as the program has arranged it.
    pub(in super::super) fn raise(&self, never_restarts: bool) -> bool {
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
}

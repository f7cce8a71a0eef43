//! Sending: a frame at a time, whole.

use core::sync::atomic::{AtomicU32, Ordering};

use abi::Errno;

use super::super::request::vec;
use super::super::sys::{self, IoVec};
use super::super::thread::Block;
use super::{HOLDS_SEND, Link};

impl Link {
    /// Sends a whole frame. An error before its first byte leaves the link as it was.
    pub(super) fn send(
        &self,
        block: &Block,
        iov: &mut [IoVec],
        pass: Option<i32>,
    ) -> Result<(), Errno> {
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
                Ok(n) if n == rest.iter().map(|part| part.len).sum() => return Ok(()),
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

    pub(super) fn unlock(&self, word: &AtomicU32) {
        if word.swap(0, Ordering::Release) == 2 {
            sys::futex_wake(word, 1, false);
        }
    }
}

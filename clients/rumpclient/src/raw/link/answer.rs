//! What comes in frames, on its way into the program's memory.

use abi::Errno;
use abi::sysproxy::{
    COPY_FIXED, CopyData, Kind, REPLY_FIXED, SegmentHead, SyscallReply, Use, padded,
};

use super::super::mem::Memory;
use super::super::sys;
use super::slots::Asks;

/// Bytes that are received at once.
const RECEIVE: usize = 4096;

/// The link is of no use any more.
pub(super) struct Dead;

/// What was received and not used yet.
pub(super) struct Received {
    bytes: [u8; RECEIVE],
    start: usize,
    end: usize,
}

impl Received {
    pub(super) const fn new() -> Received {
        Received {
            bytes: [0; RECEIVE],
            start: 0,
            end: 0,
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        (self.start, self.end) = (0, 0);
    }

    /// Whether nothing is left of what was received.
    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Receives once, when nothing is left: `EINTR` after a signal, `ENOTCONN` at the end.
    pub(super) fn receive(&mut self, fd: i32, flags: u64) -> Result<(), Errno> {
        self.clear();
        // SAFETY: our own buffer.
        match unsafe { sys::recv(fd, self.bytes.as_mut_ptr(), RECEIVE, flags) }? {
            0 => Err(Errno::ENOTCONN),
            n => {
                self.end = n;
                Ok(())
            }
        }
    }

    /// The answer to a call: what it returned, and what it has written.
    pub(super) fn reply(&mut self, fd: i32, body: usize, asks: &mut Asks) -> Result<(), Dead> {
        let raw = self.take::<REPLY_FIXED>(fd)?;
        let mut left = body.checked_sub(REPLY_FIXED).ok_or(Dead)?;
        let (error, value, count) = SyscallReply::decode_fixed(&raw).map_err(|_| Dead)?;
        let mut good = true;
        for _ in 0..count {
            let raw = self.take::<{ SegmentHead::SIZE }>(fd)?;
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
    pub(super) fn copyout(&mut self, fd: i32, body: usize, asks: &mut Asks) -> Result<(), Dead> {
        let raw = self.take::<COPY_FIXED>(fd)?;
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

    /// The next bytes.
    #[inline]
    pub(super) fn take<const N: usize>(&mut self, fd: i32) -> Result<[u8; N], Dead> {
        if let Some(bytes) = self.bytes[self.start..self.end].first_chunk() {
            self.start += N;
            return Ok(*bytes);
        }
        let mut bytes = [0; N];
        self.take_into(fd, &mut bytes)?;
        Ok(bytes)
    }

    #[cold]
    pub(super) fn take_into(&mut self, fd: i32, mut to: &mut [u8]) -> Result<(), Dead> {
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

    pub(super) fn skip(&mut self, fd: i32, mut len: usize) -> Result<(), Dead> {
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
            match self.receive(fd, 0) {
                Ok(()) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(_) => return Err(Dead),
            }
        }
    }
}

impl Asks {
    /// How much of what the server asks for it may have; `None` when nothing.
    pub(super) fn readable(&self, ask: &CopyData<'_>, kind: Kind) -> Option<usize> {
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

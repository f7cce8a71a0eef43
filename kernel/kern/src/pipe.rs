//! Pipes: a ring of bytes with a reading and a writing end, pipe(7). Named pipes of a file system use the same.

use std::any::Any;
use std::sync::Arc;

use abi::{Errno, Stat, SysResult, UserAddr};
use sync::{Condvar, Mutex, MutexGuard, Wake};

use crate::poll::{Events, PollHead, Watcher};
use crate::{Curlwp, File, OpenFile, Uio, anon};

/// Bytes that a new pipe holds.
pub const DEFAULT_SIZE: usize = 64 << 10;
/// The most bytes a pipe can be made to hold by others than the superuser.
pub const MAX_SIZE: usize = 1 << 20;
/// Writes of up to so many bytes are not mixed with others'.
pub const PIPE_BUF: usize = 4096;

const FIONREAD: u32 = 0x541b;
const S_IFIFO: u32 = 0o010000;

/// Which end of a pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// For reading.
    Read,
    /// For writing.
    Write,
    /// For both, as a named pipe can be opened.
    Both,
}

impl Side {
    fn reads(self) -> bool {
        self != Side::Write
    }

    fn writes(self) -> bool {
        self != Side::Read
    }
}

/// A pipe.
///
/// `state` is a leaf, never held while memory of a caller is touched: bytes go through a small buffer of the kernel,
/// so that a caller whose memory is slow to answer holds up nobody else.
pub struct Pipe {
    state: Mutex<State>,
    readable: Condvar,
    writable: Condvar,
    peers: Condvar,
    poll: PollHead,
    ident: anon::Ident,
}

struct State {
    ring: Ring,
    readers: usize,
    writers: usize,
    /// How often an end of each kind was opened; a named pipe's open waits for a change.
    opened: [u64; 2],
}

/// What a new end found of the other side.
struct Joined {
    /// It is open.
    met: bool,
    /// How often it was opened so far.
    opened: u64,
}

impl Pipe {
    /// A pipe without ends.
    pub fn new(cx: &Curlwp<'_>) -> Arc<Pipe> {
        Arc::new(Pipe {
            state: Mutex::new(State {
                ring: Ring::new(DEFAULT_SIZE),
                readers: 0,
                writers: 0,
                opened: [0; 2],
            }),
            readable: Condvar::new("piperd"),
            writable: Condvar::new("pipewr"),
            peers: Condvar::new("fifo"),
            poll: PollHead::new(),
            ident: anon::Ident::new(cx),
        })
    }

    /// A new end, to be opened as a file at once: it counts from here on and until [`File::close`].
    pub fn end(self: &Arc<Self>, cx: &Curlwp<'_>, side: Side) -> Arc<PipeEnd> {
        self.join(cx, side);
        Arc::new(PipeEnd {
            pipe: self.clone(),
            side,
        })
    }

    /// The same as opening a named pipe does it: waits until the other side is open too. Whoever that is may be gone
    /// again when this returns. `EINTR`: then there is no end.
    pub fn open(self: &Arc<Self>, cx: &Curlwp<'_>, side: Side) -> Result<Arc<PipeEnd>, Errno> {
        let joined = self.join(cx, side);
        if side != Side::Both && !joined.met {
            self.wait_for_peer(cx, side, joined.opened)
                .inspect_err(|_| self.leave(cx, side))?;
        }
        Ok(Arc::new(PipeEnd {
            pipe: self.clone(),
            side,
        }))
    }

    /// Counts one more end, and says what it found of the other side at that moment: it may open, write and go before
    /// this one runs on.
    fn join(&self, cx: &Curlwp<'_>, side: Side) -> Joined {
        let mut state = self.state.lock(cx.cpu());
        state.readers += usize::from(side.reads());
        state.writers += usize::from(side.writes());
        state.opened[0] += u64::from(side.reads());
        state.opened[1] += u64::from(side.writes());
        let other = usize::from(side == Side::Read);
        let joined = Joined {
            met: [state.readers, state.writers][other] != 0,
            opened: state.opened[other],
        };
        drop(state);
        self.peers.broadcast(cx.cpu());
        joined
    }

    /// Counts one end less.
    fn leave(&self, cx: &Curlwp<'_>, side: Side) {
        let mut state = self.state.lock(cx.cpu());
        state.readers -= usize::from(side.reads());
        state.writers -= usize::from(side.writes());
        if state.readers == 0 && state.writers == 0 {
            // A named pipe forgets what nobody has read.
            state.ring.clear();
        }
        drop(state);
        self.readable.broadcast(cx.cpu());
        self.writable.broadcast(cx.cpu());
        self.poll.notify(
            cx.cpu(),
            Events::IN | Events::OUT | Events::HUP | Events::ERR,
        );
    }

    /// Waits until the other side has been opened more often than `opened` times.
    fn wait_for_peer(&self, cx: &Curlwp<'_>, side: Side, opened: u64) -> Result<(), Errno> {
        let other = usize::from(side == Side::Read);
        let mut state = self.state.lock(cx.cpu());
        while state.opened[other] == opened {
            state = sleep(cx, &self.peers, state)?;
        }
        Ok(())
    }

    /// How many reading and writing ends are open.
    pub fn ends(&self, cx: &Curlwp<'_>) -> (usize, usize) {
        let state = self.state.lock(cx.cpu());
        (state.readers, state.writers)
    }

    /// How many bytes it can hold.
    pub fn capacity(&self, cx: &Curlwp<'_>) -> usize {
        self.state.lock(cx.cpu()).ring.capacity
    }

    /// Makes it hold `size` bytes, rounded up to a power of two of pages. `EBUSY` when there is more in it, `EPERM`
    /// above [`MAX_SIZE`] for others than the superuser.
    pub fn set_capacity(&self, cx: &Curlwp<'_>, size: usize) -> Result<usize, Errno> {
        if size > 1 << 31 {
            return Err(Errno::EINVAL);
        }
        let size = size.max(PIPE_BUF).next_power_of_two();
        if size > MAX_SIZE && !cx.cred().is_superuser() {
            return Err(Errno::EPERM);
        }
        let mut state = self.state.lock(cx.cpu());
        if state.ring.len > size {
            return Err(Errno::EBUSY);
        }
        state.ring.resize(size);
        drop(state);
        self.writable.broadcast(cx.cpu());
        self.poll.notify(cx.cpu(), Events::OUT);
        Ok(size)
    }

    /// Waits for bytes and takes some; none means that the last writer is gone.
    pub(crate) fn take(&self, cx: &Curlwp<'_>, buf: &mut [u8], wait: bool) -> Result<usize, Errno> {
        let mut state = self.filled(cx, wait)?;
        if state.ring.len == 0 {
            return Ok(0);
        }
        let taken = state.ring.pop(buf);
        let more = state.ring.len != 0;
        drop(state);
        self.writable.broadcast(cx.cpu());
        if more {
            self.readable.signal(cx.cpu());
        }
        self.poll.notify(cx.cpu(), Events::OUT | Events::WRNORM);
        Ok(taken)
    }

    /// Waits until there are bytes or the last writer is gone.
    fn filled<'a>(
        &'a self,
        cx: &'a Curlwp<'_>,
        wait: bool,
    ) -> Result<MutexGuard<'a, State>, Errno> {
        let mut state = self.state.lock(cx.cpu());
        while state.ring.len == 0 && state.writers != 0 {
            if !wait {
                return Err(Errno::EAGAIN);
            }
            state = sleep(cx, &self.readable, state)?;
        }
        Ok(state)
    }

    /// Waits for bytes and copies some, which stay; none means that the last writer is gone.
    pub(crate) fn peek(&self, cx: &Curlwp<'_>, buf: &mut [u8], wait: bool) -> Result<usize, Errno> {
        Ok(self.filled(cx, wait)?.ring.copy(buf))
    }

    /// Puts bytes back that were taken last and could not be brought to where they were to go. Whoever has taken some
    /// since has them out of order.
    pub(crate) fn put_back(&self, cx: &Curlwp<'_>, data: &[u8]) {
        self.state.lock(cx.cpu()).ring.push_front(data);
        self.readable.signal(cx.cpu());
        self.poll.notify(cx.cpu(), Events::IN | Events::RDNORM);
    }

    /// Waits until there is room, and tells how much. `EPIPE` when nobody reads.
    pub(crate) fn wait_for_room(&self, cx: &Curlwp<'_>, wait: bool) -> Result<usize, Errno> {
        let mut state = self.state.lock(cx.cpu());
        loop {
            if state.readers == 0 {
                return Err(Errno::EPIPE);
            }
            match state.ring.room() {
                0 if !wait => return Err(Errno::EAGAIN),
                0 => state = sleep(cx, &self.writable, state)?,
                room => return Ok(room),
            }
        }
    }

    /// Adds all bytes, waiting for room where it is short.
    pub(crate) fn add_all(&self, cx: &Curlwp<'_>, mut data: &[u8]) -> Result<(), Errno> {
        while !data.is_empty() {
            let added = self.add(cx, data, false, true)?;
            data = &data[added..];
        }
        Ok(())
    }

    /// Waits for room and adds bytes: all of them at once when `atomic`, else as many as fit.
    pub(crate) fn add(
        &self,
        cx: &Curlwp<'_>,
        data: &[u8],
        atomic: bool,
        wait: bool,
    ) -> Result<usize, Errno> {
        let need = if atomic { data.len() } else { 1 };
        let mut state = self.state.lock(cx.cpu());
        loop {
            if state.readers == 0 {
                return Err(Errno::EPIPE);
            }
            if state.ring.room() >= need {
                break;
            }
            if !wait {
                return Err(Errno::EAGAIN);
            }
            state = sleep(cx, &self.writable, state)?;
        }
        let added = state.ring.push(data);
        drop(state);
        self.readable.signal(cx.cpu());
        self.poll.notify(cx.cpu(), Events::IN | Events::RDNORM);
        Ok(added)
    }
}

fn sleep<'a>(
    cx: &'a Curlwp<'_>,
    cv: &Condvar,
    state: MutexGuard<'a, State>,
) -> Result<MutexGuard<'a, State>, Errno> {
    let (state, wake) = cv.wait_intr(cx.cpu(), state, None);
    match wake {
        Wake::Interrupted => Err(Errno::EINTR),
        Wake::Woken | Wake::TimedOut => Ok(state),
    }
}

/// An open end of a [`Pipe`].
pub struct PipeEnd {
    pipe: Arc<Pipe>,
    side: Side,
}

impl PipeEnd {
    /// The pipe.
    pub fn pipe(&self) -> &Arc<Pipe> {
        &self.pipe
    }
}

impl File for PipeEnd {
    fn read(&self, cx: &Curlwp<'_>, of: &OpenFile, uio: &mut Uio<'_>) -> Result<(), Errno> {
        if uio.resid() == 0 {
            return Ok(());
        }
        let mut chunk = [0; PIPE_BUF];
        let mut wait = !of.nonblocking();
        while uio.resid() != 0 {
            let want = uio.resid().min(PIPE_BUF);
            let taken = self.pipe.take(cx, &mut chunk[..want], wait)?;
            uio.put(cx, &chunk[..taken])?;
            if taken < want {
                break;
            }
            // There was something; waiting for more is not what read(2) does.
            wait = false;
        }
        Ok(())
    }

    fn write(&self, cx: &Curlwp<'_>, of: &OpenFile, uio: &mut Uio<'_>) -> Result<(), Errno> {
        let wait = !of.nonblocking();
        let atomic = uio.resid() <= PIPE_BUF;
        let mut chunk = [0; PIPE_BUF];
        while uio.resid() != 0 {
            let got = uio.get(cx, &mut chunk)?;
            let mut rest = &chunk[..got];
            while !rest.is_empty() {
                match self.pipe.add(cx, rest, atomic, wait) {
                    Ok(added) => rest = &rest[added..],
                    Err(error) => {
                        // What was taken from the caller but not from this chunk was not written.
                        uio.give_back(rest.len());
                        return Err(error);
                    }
                }
            }
        }
        Ok(())
    }

    fn poll(&self, cx: &Curlwp<'_>, events: Events, watcher: Option<&Arc<dyn Watcher>>) -> Events {
        if let Some(watcher) = watcher {
            self.pipe.poll.watch(cx.cpu(), watcher);
        }
        let state = self.pipe.state.lock(cx.cpu());
        let mut now = Events::NONE;
        if self.side.reads() {
            if state.ring.len != 0 {
                now = now | Events::IN | Events::RDNORM;
            }
            if state.writers == 0 {
                now = now | Events::HUP;
            }
        }
        if self.side.writes() {
            if state.ring.room() >= PIPE_BUF {
                now = now | Events::OUT | Events::WRNORM;
            }
            if state.readers == 0 {
                now = now | Events::ERR;
            }
        }
        now & (events | Events::ALWAYS)
    }

    fn available(&self, cx: &Curlwp<'_>, _: &OpenFile, events: Events) -> i64 {
        let state = self.pipe.state.lock(cx.cpu());
        match events.intersects(Events::OUT) {
            true => state.ring.room() as i64,
            false => state.ring.len as i64,
        }
    }

    fn ioctl(&self, cx: &Curlwp<'_>, _: &OpenFile, cmd: u32, arg: UserAddr) -> SysResult {
        match cmd {
            FIONREAD => {
                let len = self.pipe.state.lock(cx.cpu()).ring.len as i32;
                cx.copyout(&len.to_le_bytes(), arg)?;
                Ok(0)
            }
            _ => Err(Errno::ENOTTY),
        }
    }

    fn stat(&self, _: &Curlwp<'_>) -> Result<Stat, Errno> {
        Ok(self.pipe.ident.stat(S_IFIFO | 0o600))
    }

    fn close(&self, cx: &Curlwp<'_>, _: &OpenFile) {
        self.pipe.leave(cx, self.side);
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A ring of bytes. Its memory comes with the first byte and grows up to the capacity.
struct Ring {
    bytes: Box<[u8]>,
    head: usize,
    len: usize,
    capacity: usize,
}

impl Ring {
    fn new(capacity: usize) -> Ring {
        Ring {
            bytes: Box::default(),
            head: 0,
            len: 0,
            capacity,
        }
    }

    fn room(&self) -> usize {
        // What was put back may be more than it holds.
        self.capacity.saturating_sub(self.len)
    }

    fn push(&mut self, data: &[u8]) -> usize {
        let n = data.len().min(self.room());
        if n == 0 {
            return 0;
        }
        if self.len + n > self.bytes.len() {
            self.grow((self.len + n).next_power_of_two().max(PIPE_BUF));
        }
        let tail = (self.head + self.len) & (self.bytes.len() - 1);
        let first = n.min(self.bytes.len() - tail);
        self.bytes[tail..tail + first].copy_from_slice(&data[..first]);
        self.bytes[..n - first].copy_from_slice(&data[first..n]);
        self.len += n;
        n
    }

    /// Copies what comes next; it stays.
    fn copy(&self, buf: &mut [u8]) -> usize {
        let n = buf.len().min(self.len);
        let first = n.min(self.bytes.len() - self.head);
        buf[..first].copy_from_slice(&self.bytes[self.head..self.head + first]);
        buf[first..n].copy_from_slice(&self.bytes[..n - first]);
        n
    }

    /// Adds bytes before all others, whatever the capacity.
    fn push_front(&mut self, data: &[u8]) {
        let len = self.len + data.len();
        if len > self.bytes.len() {
            self.grow(len.next_power_of_two().max(PIPE_BUF));
        }
        if let Some(mask) = self.bytes.len().checked_sub(1) {
            self.head = self.head.wrapping_sub(data.len()) & mask;
            let first = data.len().min(self.bytes.len() - self.head);
            self.bytes[self.head..self.head + first].copy_from_slice(&data[..first]);
            self.bytes[..data.len() - first].copy_from_slice(&data[first..]);
            self.len = len;
        }
    }

    fn pop(&mut self, buf: &mut [u8]) -> usize {
        let n = self.copy(buf);
        self.len -= n;
        self.head = if self.len == 0 {
            0
        } else {
            (self.head + n) & (self.bytes.len() - 1)
        };
        n
    }

    fn resize(&mut self, capacity: usize) {
        self.capacity = capacity;
        if self.bytes.len() > capacity {
            self.grow(capacity);
        }
    }

    /// Moves the bytes to memory of another size, a power of two.
    fn grow(&mut self, size: usize) {
        let mut bytes = vec![0; size].into_boxed_slice();
        let len = self.len;
        self.pop(&mut bytes[..len]);
        (self.bytes, self.head, self.len) = (bytes, 0, len);
    }

    fn clear(&mut self) {
        (self.bytes, self.head, self.len) = (Box::default(), 0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    proptest! {
        #[test]
        fn the_ring_is_a_queue_of_bounded_length(
            ops in prop::collection::vec((0u8..4, 0usize..9000), 1..60),
        ) {
            let mut ring = Ring::new(8192);
            let mut model = VecDeque::new();
            let mut next = 0u8;
            for (op, n) in ops {
                if op == 0 {
                    let data: Vec<u8> = (0..n).map(|_| { next = next.wrapping_add(1); next }).collect();
                    let added = ring.push(&data);
                    prop_assert_eq!(added, n.min(8192usize.saturating_sub(model.len())));
                    model.extend(&data[..added]);
                } else if op == 1 && n < 1000 && model.len() < 8192 {
                    let data: Vec<u8> = (0..n).map(|i| i as u8).collect();
                    ring.push_front(&data);
                    for &byte in data.iter().rev() {
                        model.push_front(byte);
                    }
                } else if op == 2 {
                    let mut buf = vec![0; n];
                    let seen = ring.copy(&mut buf);
                    let want: Vec<u8> = model.iter().take(n).copied().collect();
                    prop_assert_eq!(&buf[..seen], &want[..]);
                } else {
                    let mut buf = vec![0; n];
                    let taken = ring.pop(&mut buf);
                    let want: Vec<u8> = model.drain(..n.min(model.len())).collect();
                    prop_assert_eq!(&buf[..taken], &want[..]);
                }
                prop_assert_eq!(ring.len, model.len());
            }
        }
    }
}

//! Calls that a thread answers by itself, ahead of the server, as its leases allow: "Posted calls" in `abi::ring`.
//!
//! Whatever is answered here is posted, and posting fails when the leases were recalled; so the leases that are noted need
//! not be up to date when others have changed the sockets. The thread's own calls end the leases of what they name.

use core::cell::Cell;
use core::sync::atomic::Ordering;

use abi::ring::{
    AHEAD, AHEAD_LEN, LEASES, LeaseHead, MAX_LEASES, NUDGE, POST_ADDR, POSTED, QUEUE, QUEUED, RAN,
    RECALLED, REQUEST, RequestHead, SERVER_ASLEEP, SHORTLY, post_size,
};
use abi::{
    ArgKind, EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, EpollEvent, F_GETFD, F_GETFL, F_SETFD,
    F_SETFL, nr,
};

use super::mem::{self, Memory};
use super::request::Call;
use super::ring::Ring;
use super::sys;

const MSG_TRUNC: u64 = 0x20;
const MSG_DONTWAIT: u64 = 0x40;
const MSG_NOSIGNAL: u64 = 0x4000;
const MSG_MORE: u64 = 0x8000;
const FIONREAD: u32 = 0x541b;
const FIONBIO: u32 = 0x5421;
const AF_UNSPEC: u16 = 0;
const IPPROTO_TCP: u64 = 6;
const TCP_NODELAY: u64 = 1;
const TCP_CORK: u64 = 3;
/// EPOLLEXCLUSIVE and EPOLLWAKEUP.
const EPOLL_ODD: u32 = 3 << 28;
/// The most pieces that a write is put together from.
const PIECES: usize = 16;
/// So much may lie in the queue before the server is woken for it, when it would look by itself.
const HEAP: u32 = 16 << 10;

/// The leases of a thread, one of a socket. All zero is none. [`LeaseHead::epfd`] is the complement of itself while the thread has
/// taken the socket out of the instance.
pub(super) struct Leases {
    count: Cell<usize>,
    fds: [Cell<i32>; MAX_LEASES],
    heads: [Cell<LeaseHead>; MAX_LEASES],
}

impl Leases {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.count.get() == 0
    }

    pub(super) fn clear(&self) {
        self.count.set(0);
    }

    fn find(&self, fd: u64) -> Option<&Cell<LeaseHead>> {
        let at = (0..self.count.get()).find(|&i| self.fds[i].get() == fd as i32)?;
        Some(&self.heads[at])
    }

    /// Whether a lease came by an instance of that number.
    fn came_by(&self, epfd: u64) -> bool {
        let by = |lease: &Cell<LeaseHead>| lease.get().epfd.max(!lease.get().epfd) == epfd as i32;
        self.heads[..self.count.get()].iter().any(by)
    }

    fn forget(&self, fd: u64) {
        if let Some(lease) = self.find(fd) {
            lease.set(LeaseHead {
                fd: -1,
                ..lease.get()
            });
            for (number, head) in self.fds.iter().zip(&self.heads) {
                number.set(head.get().fd);
            }
        }
    }
}

/// Memory of the program, address and length.
type Piece = (u64, usize);

impl Ring {
    /// Takes the leases over that a reply has brought.
    #[inline(never)]
    pub(super) fn take_leases(&self, count: u64) {
        self.leases.clear();
        let mut taken = 0;
        for i in 0..usize::try_from(count).unwrap_or(0).min(MAX_LEASES) {
            let mut raw = [0; LeaseHead::SIZE];
            self.read(LEASES + i * LeaseHead::SIZE, &mut raw);
            let head = LeaseHead::from_bytes(&raw);
            let end = u64::from(head.at) + u64::from(head.len);
            // A poll that has a socket twice finds it twice, and a lease that is forgotten must not have a double.
            let is_new = || {
                self.leases.fds[..taken]
                    .iter()
                    .all(|fd| fd.get() != head.fd)
            };
            if head.fd >= 0 && end <= AHEAD_LEN as u64 && is_new() {
                self.leases.fds[taken].set(head.fd);
                self.leases.heads[taken].set(head);
                taken += 1;
            }
        }
        self.leases.count.set(taken);
    }

    /// Answers a call by itself, if it can; else the call has to be made, and what it names is no longer leased. Not inlined: calls
    /// from signal handlers, which may have little stack, do not come here.
    #[inline(never)]
    pub(super) fn ahead(&self, memory: Memory<'_>, call: &Call) -> Option<i64> {
        let [a, b, c, d, e, _] = call.args;
        let served = match call.nr {
            nr::read => self.take(memory, a, b, c, 0),
            nr::recvfrom if e == 0 => self.take(memory, a, b, c, d),
            nr::write => self.put(memory, a, &[(b, c as usize)], 0),
            nr::sendto if e == 0 => self.put(memory, a, &[(b, c as usize)], d),
            nr::writev => self.put_vector(memory, a, b, c, 0),
            nr::sendmsg => self.put_message(memory, a, b, c),
            nr::setsockopt => self.set_option(memory, &call.args),
            nr::epoll_ctl => self.control(memory, &call.args),
            nr::close => self.close(a),
            _ => None,
        };
        if served.is_none() && !only_asks(memory, call) {
            self.forget_named(call);
        }
        served
    }

    fn forget_named(&self, call: &Call) {
        let desc = match abi::table::desc(call.nr) {
            // They do something to descriptors that they do not name in the way of the table.
            Some(desc) if !self.names_others(call) => desc,
            _ => return self.leases.clear(),
        };
        for (arg, &value) in desc.args.iter().zip(&call.args) {
            if arg.kind == ArgKind::Fd {
                self.leases.forget(value);
            }
        }
    }

    /// Whether a call may do something to descriptors besides those that the table says it works on.
    fn names_others(&self, call: &Call) -> bool {
        match call.nr {
            nr::dup2
            | nr::dup3
            | nr::close_range
            | nr::sendmsg
            | nr::sendmmsg
            | nr::poll
            | nr::ppoll
            | nr::select
            | nr::pselect6
            | nr::epoll_wait
            | nr::epoll_pwait
            | nr::epoll_pwait2
            | nr::execve
            | nr::execveat => true,
            nr::close => self.leases.came_by(call.args[0]),
            _ => false,
        }
    }

    /// Reads what was unread.
    fn take(&self, memory: Memory<'_>, fd: u64, to: u64, len: u64, flags: u64) -> Option<i64> {
        let lease = self.leases.find(fd)?;
        let head = lease.get();
        let n = len.min(u64::from(head.len)) as usize;
        let behind = head.flags & LeaseHead::MORE != 0 && len > u64::from(head.len);
        if behind || flags & !(MSG_DONTWAIT | MSG_NOSIGNAL) != 0 {
            return None;
        }
        if n == 0 {
            let at_end = len != 0 && head.flags & LeaseHead::END != 0 && self.holds();
            return at_end.then_some(0);
        }
        if !memory.writable(to, n) {
            return None;
        }
        self.copy_out(AHEAD + head.at as usize, to, n);
        let args = [fd, 0, n as u64, MSG_TRUNC | MSG_DONTWAIT, 0, 0];
        self.post(nr::recvfrom, &args, &[])?;
        lease.set(LeaseHead {
            at: head.at + n as u32,
            len: head.len - n as u32,
            ..head
        });
        Some(n as i64)
    }

    /// Writes what there is room for.
    fn put(&self, memory: Memory<'_>, fd: u64, pieces: &[Piece], flags: u64) -> Option<i64> {
        let lease = self.leases.find(fd)?;
        let head = lease.get();
        let total = pieces
            .iter()
            .try_fold(0usize, |total, piece| total.checked_add(piece.1))?;
        let taken = u32::try_from(total).ok()?.checked_add(LeaseHead::CHARGE)?;
        let room = head.room.checked_sub(taken)?;
        if total == 0 || flags & !(MSG_DONTWAIT | MSG_NOSIGNAL | MSG_MORE) != 0 {
            return None;
        }
        let there = |&(addr, len): &Piece| memory.readable(addr, len);
        if !pieces.iter().all(there) {
            return None;
        }
        let args = [fd, POST_ADDR, total as u64, flags, 0, 0];
        self.post(nr::sendto, &args, pieces)?;
        lease.set(LeaseHead { room, ..head });
        Some(total as i64)
    }

    fn put_vector(
        &self,
        memory: Memory<'_>,
        fd: u64,
        iov: u64,
        count: u64,
        flags: u64,
    ) -> Option<i64> {
        self.leases.find(fd)?;
        let mut pieces = [(0, 0); PIECES];
        let pieces = pieces.get_mut(..usize::try_from(count).ok()?)?;
        for (i, piece) in pieces.iter_mut().enumerate() {
            let mut raw = [0; 16];
            let (at, len) = raw.split_at_mut(8);
            if !memory.read(iov.checked_add(16 * i as u64)?, at)
                || !memory.read(iov.checked_add(16 * i as u64 + 8)?, len)
            {
                return None;
            }
            let word = |raw: &[u8]| raw.first_chunk().map_or(0, |raw| u64::from_le_bytes(*raw));
            *piece = (word(at), usize::try_from(word(len)).ok()?);
        }
        self.put(memory, fd, pieces, flags)
    }

    /// sendmsg(2) with nothing but data.
    fn put_message(&self, memory: Memory<'_>, fd: u64, msg: u64, flags: u64) -> Option<i64> {
        self.leases.find(fd)?;
        // Name, its length, vector, its length, control data, their length.
        let mut raw = [0; 48];
        if !memory.read(msg, &mut raw) {
            return None;
        }
        let (words, _) = raw.as_chunks::<8>();
        let [name, _, iov, count, _, control] = words else {
            return None;
        };
        if u64::from_le_bytes(*name) != 0 || u64::from_le_bytes(*control) != 0 {
            return None;
        }
        let (iov, count) = (u64::from_le_bytes(*iov), u64::from_le_bytes(*count));
        self.put_vector(memory, fd, iov, count, flags)
    }

    /// setsockopt(2) of what holds segments back or lets them go, which does not fail.
    fn set_option(&self, memory: Memory<'_>, args: &[u64; 6]) -> Option<i64> {
        let [fd, level, name, value, len, _] = *args;
        self.leases.find(fd)?;
        let known = level == IPPROTO_TCP && matches!(name, TCP_NODELAY | TCP_CORK) && len == 4;
        if !known || !memory.readable(value, 4) {
            return None;
        }
        let args = [fd, level, name, POST_ADDR, len, 0];
        self.post(nr::setsockopt, &args, &[(value, 4)])?;
        Some(0)
    }

    /// epoll_ctl(2) of a socket that is known to be in the instance, or not to be.
    fn control(&self, memory: Memory<'_>, args: &[u64; 6]) -> Option<i64> {
        let [epfd, op, fd, at, ..] = *args;
        let lease = self.leases.find(fd)?;
        let (head, op) = (lease.get(), op as i32);
        let known = match op {
            EPOLL_CTL_ADD => !head.epfd,
            EPOLL_CTL_MOD | EPOLL_CTL_DEL => head.epfd,
            _ => return None,
        };
        if known != epfd as i32 {
            return None;
        }
        let event = [(at, EpollEvent::SIZE)];
        let mut data = &event[..0];
        if op != EPOLL_CTL_DEL {
            let mut raw = [0; EpollEvent::SIZE];
            if !memory.read(at, &mut raw) || EpollEvent::from_bytes(&raw).events & EPOLL_ODD != 0 {
                return None;
            }
            data = &event;
        }
        let args = [epfd, args[1], fd, POST_ADDR, 0, 0];
        self.post(nr::epoll_ctl, &args, data)?;
        if op != EPOLL_CTL_MOD {
            let epfd = !head.epfd;
            lease.set(LeaseHead { epfd, ..head });
        }
        Some(0)
    }

    /// close(2), when it does not wait.
    fn close(&self, fd: u64) -> Option<i64> {
        let head = self.leases.find(fd)?.get();
        if head.flags & LeaseHead::CLOSES == 0 {
            return None;
        }
        self.post(nr::close, &[fd, 0, 0, 0, 0, 0], &[])?;
        self.leases.forget(fd);
        Some(0)
    }

    /// Whether the leases have not been recalled.
    fn holds(&self) -> bool {
        self.word(POSTED).load(Ordering::SeqCst) & RECALLED == 0
    }

    /// Puts a call into the queue, with data that was found readable. `None` when the leases were recalled, or there is no room.
    fn post(&self, nr: u32, args: &[u64; 6], data: &[Piece]) -> Option<()> {
        let len = data.iter().map(|piece| piece.1).sum();
        let size = post_size(len)? as u32;
        let word = self.word(POSTED);
        let end = word.load(Ordering::Acquire);
        if end & RECALLED != 0 {
            self.leases.clear();
            return None;
        }
        let ran = self.word(RAN).load(Ordering::Acquire);
        let ahead = end.wrapping_sub(ran) & !RECALLED;
        if ahead + size > QUEUED as u32 {
            return None;
        }
        let mut at = QUEUE + end as usize % QUEUED;
        let head = RequestHead::call(nr, args, [-1, -1], 0, len as u32);
        self.write(at, &head.to_bytes());
        at += RequestHead::SIZE;
        for &(addr, len) in data {
            self.copy_in(addr, at, len);
            at += len;
        }
        let next = end.wrapping_add(size) & !RECALLED;
        // What the server sees of the queue is whole.
        let moved = word.compare_exchange(end, next, Ordering::SeqCst, Ordering::Relaxed);
        if moved.is_err() {
            self.leases.clear();
            return None;
        }
        let asleep = self.word(SERVER_ASLEEP);
        let wake = match asleep.load(Ordering::SeqCst) {
            0 => false,
            SHORTLY => ahead + size > HEAP,
            _ => true,
        };
        if wake && asleep.swap(0, Ordering::SeqCst) != 0 {
            let word = self.word(REQUEST);
            word.fetch_add(NUDGE, Ordering::SeqCst);
            sys::futex_wake(word, 1, true);
        }
        Some(())
    }

    /// Copies from the ring to memory that was found writable.
    fn copy_out(&self, from: usize, to: u64, len: usize) {
        // SAFETY: `take_leases` has checked that the source lies in the mapping; the destination is what the program names
        // as its buffer.
        unsafe { mem::copy(self.at(from), to as *mut u8, len) };
    }

    /// Copies memory that was found readable into the queue.
    fn copy_in(&self, from: u64, to: usize, len: usize) {
        // SAFETY: a post of a size that `post_size` allows ends in the mapping, wherever in the queue it begins.
        unsafe { mem::copy(from as *const u8, self.at(to), len) };
    }
}

/// Whether a call on a connected stream changes nothing that a lease says.
fn only_asks(memory: Memory<'_>, call: &Call) -> bool {
    let [_, b, ..] = call.args;
    match call.nr {
        nr::getsockopt | nr::getsockname | nr::getpeername => true,
        nr::fcntl => matches!(b as i32, F_GETFD | F_SETFD | F_GETFL | F_SETFL),
        nr::ioctl => matches!(b as u32, FIONREAD | FIONBIO),
        // It is connected already, and one that has waited for that is told so.
        nr::connect => {
            let mut family = [0; 2];
            memory.read(b, &mut family) && u16::from_ne_bytes(family) != AF_UNSPEC
        }
        _ => false,
    }
}

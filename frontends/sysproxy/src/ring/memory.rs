//! The memory of a client behind a ring.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use abi::ring::{
    AHEAD, AHEAD_LEN, ANSWER, ASKED, IN, LEASES, LeaseHead, MAX_LEASES, OUT, PART, Place,
    REQUEST_HEAD, ReplyHead, RequestHead, WANT, WANT_STR, WINDOW, step,
};
use abi::sysproxy::{MAX_SEGMENTS, SegmentHead, padded};
use abi::{Errno, UserAddr};
use hypercall::Nanos;
use kern::poll::Watcher;
use kern::{Ahead, PathBytes, UserMemory};
use smallvec::SmallVec;
use sync::Cpu;

use super::control::RingControl;
use super::seat::{By, End, is_of_instance, is_wait};
use super::wards;
use crate::client::Client;
use crate::conn::PATIENCE;

/// The memory of one call on a ring.
pub(super) struct RingMemory<'a> {
    control: &'a Arc<RingControl>,
    client: &'a Client,
    end: RefCell<&'a mut End>,
    by: By,
    /// Whether the call leaves the kernel rather than sleep there, and with which deadline it has.
    parks: bool,
    /// It waits at an epoll instance.
    of_instance: bool,
    deadline: Cell<Option<Nanos>>,
    /// What is told of events instead.
    watcher: RefCell<Option<Arc<dyn Watcher>>>,
    /// What came with the request, and last what was asked for; places are relative to the client's window.
    known: RefCell<SmallVec<[Place; 8]>>,
    /// How many of those came with the request.
    given: usize,
    written: RefCell<Written>,
    /// Leases that the call may give out: how many there are, and how much they say of what is unread.
    told: Cell<(usize, usize)>,
}

/// The most unread bytes that a lease carries.
const MOST_AHEAD: usize = 2048;

/// Segments in the server's window.
#[derive(Default)]
struct Written {
    count: u32,
    len: usize,
    /// Where the last segment's head lies, and its address and length.
    last: (usize, u64, usize),
}

impl<'a> RingMemory<'a> {
    /// Memory for a call; `None` when the request's segments make no sense.
    pub(super) fn new(
        control: &'a Arc<RingControl>,
        client: &'a Client,
        end: &'a mut End,
        head: &RequestHead,
        by: By,
    ) -> Option<RingMemory<'a>> {
        let bytes = head.len as usize;
        if head.count as usize > MAX_SEGMENTS || bytes > WINDOW {
            return None;
        }
        let mut known = SmallVec::new();
        let mut at = 0;
        for _ in 0..head.count {
            let mut raw = [0; SegmentHead::SIZE];
            control.map.read(IN + at, &mut raw);
            known.push(step(&raw, &mut at, bytes).ok()?);
        }
        Some(RingMemory {
            control,
            client,
            end: RefCell::new(end),
            by,
            parks: is_wait(head),
            of_instance: is_of_instance(head.nr),
            deadline: Cell::new(None),
            watcher: RefCell::new(None),
            given: known.len(),
            known: RefCell::new(known),
            written: RefCell::default(),
            told: Cell::default(),
        })
    }

    /// How many segments are in the window, and how many bytes they take.
    pub(super) fn written(&self) -> (u32, u32) {
        let written = self.written.borrow();
        (written.count, written.len as u32)
    }

    /// Until when a call that has left the kernel would have slept, and its watcher.
    pub(super) fn left(&self) -> (Option<Nanos>, Option<Arc<dyn Watcher>>) {
        (self.deadline.get(), self.watcher.take())
    }

    /// How many leases are in the ring.
    pub(super) fn leases(&self) -> u32 {
        self.told.get().0 as u32
    }

    /// Copies what is known of the memory from `addr` on; how much.
    fn take(&self, addr: u64, to: &mut [u8]) -> usize {
        let place = self.find(addr);
        let n = place.len.min(to.len());
        self.control.map.read(IN + place.at, &mut to[..n]);
        n
    }

    /// Where the memory from `addr` on is known; a place without length when it is not.
    fn find(&self, addr: u64) -> Place {
        for place in self.known.borrow().iter() {
            if let Some(skip) = addr.checked_sub(place.addr)
                && skip < place.len as u64
            {
                return Place {
                    addr,
                    at: place.at + skip as usize,
                    len: place.len - skip as usize,
                };
            }
        }
        Place {
            addr,
            at: 0,
            len: 0,
        }
    }

    /// Asks the client for something and waits for its answer.
    fn exchange(&self, cpu: &Cpu<'_>, ask: &ReplyHead) -> Result<RequestHead, Errno> {
        let core = self.control.core.upgrade().ok_or(Errno::EFAULT)?;
        if self.by == By::Other {
            return Err(Errno::EFAULT);
        }
        let mut end = self.end.borrow_mut();
        cpu.unscheduled(|| {
            wards::let_go();
            self.control.reply(ask, core.may_spin());
            if end.answer(self.control, &core, PATIENCE).is_err() {
                self.control.close();
                return Err(Errno::EFAULT);
            }
            let mut raw = [0; RequestHead::SIZE];
            self.control.map.read(REQUEST_HEAD, &mut raw);
            let head = RequestHead::from_bytes(&raw);
            if head.nr != ANSWER || head.count != 0 {
                return Err(Errno::EFAULT);
            }
            Ok(head)
        })
    }

    /// Writes data to the client's window.
    fn write(&self, at: usize, data: &[u8]) {
        self.end.borrow().pace.write(&self.control.map, at, data);
    }

    fn fetch(&self, cpu: &Cpu<'_>, kind: u32, addr: u64, want: usize) -> Result<(), Errno> {
        let want = want.min(WINDOW);
        let ask = ReplyHead {
            kind,
            addr,
            want: want as u64,
            ..ReplyHead::default()
        };
        let answer = self.exchange(cpu, &ask)?;
        let len = answer.len as usize;
        if len == 0 || len > want || (kind == WANT && len != want) {
            return Err(Errno::EFAULT);
        }
        let mut known = self.known.borrow_mut();
        known.truncate(self.given);
        known.push(Place {
            addr,
            at: ASKED,
            len,
        });
        Ok(())
    }
}

impl UserMemory for RingMemory<'_> {
    fn copyin(&self, cpu: &Cpu<'_>, from: UserAddr, to: &mut [u8]) -> Result<(), Errno> {
        let mut done = 0;
        while done < to.len() {
            let addr = from.add(done).0;
            let n = self.take(addr, &mut to[done..]);
            if n == 0 {
                self.fetch(cpu, WANT, addr, to.len() - done)?;
            }
            done += n;
        }
        Ok(())
    }

    fn copyout(&self, cpu: &Cpu<'_>, from: &[u8], to: UserAddr) -> Result<(), Errno> {
        let mut done = 0;
        while done < from.len() {
            let addr = to.add(done).0;
            let n = {
                let mut written = self.written.borrow_mut();
                written.append(self, addr, &from[done..])
            };
            if n == 0 {
                let (count, len) = self.written();
                let part = ReplyHead {
                    kind: PART,
                    count,
                    len,
                    ..ReplyHead::default()
                };
                self.exchange(cpu, &part)?;
                *self.written.borrow_mut() = Written::default();
            }
            done += n;
        }
        Ok(())
    }

    fn copyinstr(
        &self,
        cpu: &Cpu<'_>,
        from: UserAddr,
        max: usize,
        to: &mut PathBytes,
    ) -> Result<(), Errno> {
        let mut len = 0;
        let mut piece = [0; 256];
        while len <= max {
            let addr = from.add(len).0;
            let room = piece.len().min(max + 1 - len);
            let n = self.take(addr, &mut piece[..room]);
            if n == 0 {
                self.fetch(cpu, WANT_STR, addr, max + 1 - len)?;
                continue;
            }
            if let Some(end) = piece[..n].iter().position(|&b| b == 0) {
                to.extend_from_slice(&piece[..end]);
                return Ok(());
            }
            to.extend_from_slice(&piece[..n]);
            len += n;
        }
        Err(Errno::ENAMETOOLONG)
    }

    fn takes_ahead(&self) -> Option<usize> {
        self.client.leases.offer(self.control).then_some(MOST_AHEAD)
    }

    fn tell_ahead(&self, fd: i32, epfd: Option<i32>, ahead: &Ahead) {
        let (count, used) = self.told.get();
        let unread = match ahead.unread.as_slice() {
            unread if used + unread.len() <= AHEAD_LEN => unread,
            _ => &[],
        };
        if count == MAX_LEASES {
            return;
        }
        let mut flags = 0;
        if ahead.more {
            flags |= LeaseHead::MORE;
        }
        if ahead.end && unread.len() == ahead.unread.len() {
            flags |= LeaseHead::END;
        }
        if ahead.closes {
            flags |= LeaseHead::CLOSES;
        }
        let head = LeaseHead {
            fd,
            epfd: epfd.unwrap_or(LeaseHead::IN_NONE),
            room: u32::try_from(ahead.room).unwrap_or(u32::MAX),
            at: used as u32,
            len: unread.len() as u32,
            flags,
        };
        self.write(AHEAD + used, unread);
        self.write(LEASES + count * LeaseHead::SIZE, &head.to_bytes());
        self.told.set((count + 1, used + padded(unread.len())));
    }

    fn waits_by(&self, deadline: Option<Nanos>) -> Option<Arc<dyn Watcher>> {
        if !self.parks {
            return None;
        }
        self.deadline.set(deadline);
        let watcher = self.control.listen(self.of_instance);
        self.watcher.replace(Some(watcher.clone()));
        Some(watcher)
    }
}

impl Written {
    /// Puts as much of `data` into the window as fits; how much.
    fn append(&mut self, ring: &RingMemory<'_>, addr: u64, data: &[u8]) -> usize {
        let (head, start, len) = self.last;
        let continues = self.count != 0 && start.wrapping_add(len as u64) == addr;
        if !continues {
            if self.count as usize == MAX_SEGMENTS || self.len + SegmentHead::SIZE >= WINDOW {
                return 0;
            }
            self.count += 1;
            self.last = (self.len, addr, 0);
        }
        let (head, start, len) = if continues {
            (head, start, len)
        } else {
            self.last
        };
        let begin = head + SegmentHead::SIZE;
        let n = data.len().min(WINDOW - begin - len);
        ring.write(OUT + begin + len, &data[..n]);
        let raw = SegmentHead {
            addr: start,
            len: (len + n) as u32,
        };
        ring.write(OUT + head, &raw.encode());
        self.last.2 = len + n;
        self.len = begin + padded(len + n);
        n
    }
}

//! The memory of a client behind a socket.
//!
//! Reads are served from what came with the request; what is not there is asked for, a good deal at a time when the
//! table says that more of it will be read. Writes are collected for the reply.

use std::cell::RefCell;

use abi::sysproxy::{
    Kind, MAX_INLINE, MAX_SEGMENTS, Named, SegmentHead, SyscallRequest, Use, desc, named, padded,
};
use abi::{Errno, UserAddr};
use kern::{PathBytes, UserMemory};
use sync::Cpu;

use crate::client::Slot;
use crate::conn::Conn;

/// The memory of one call.
pub(crate) struct RemoteMemory<'a> {
    conn: &'a Conn,
    slot: &'a Slot,
    reqno: u64,
    nr: u32,
    request: &'a SyscallRequest<'a>,
    fetched: RefCell<Option<(u64, Vec<u8>)>>,
    written: RefCell<Written<'a>>,
}

/// Segments of the reply, as they will go over the wire.
struct Written<'a> {
    bytes: &'a mut Vec<u8>,
    start: usize,
    count: u32,
    /// Where the last segment's head lies, and its address and length.
    last: (usize, u64, usize),
}

impl<'a> RemoteMemory<'a> {
    /// Memory for a call; what it writes is appended to `out`.
    pub(crate) fn new(
        conn: &'a Conn,
        slot: &'a Slot,
        reqno: u64,
        nr: u32,
        request: &'a SyscallRequest<'a>,
        out: &'a mut Vec<u8>,
    ) -> RemoteMemory<'a> {
        RemoteMemory {
            conn,
            slot,
            reqno,
            nr,
            request,
            fetched: RefCell::new(None),
            written: RefCell::new(Written {
                start: out.len(),
                bytes: out,
                count: 0,
                last: (0, 0, 0),
            }),
        }
    }

    /// How many segments were written.
    pub(crate) fn segments(&self) -> u32 {
        self.written.borrow().count
    }

    /// What is known of the memory from `addr` on.
    fn known<R>(&self, addr: u64, f: impl FnOnce(&[u8]) -> R) -> Option<R> {
        for (start, data) in self.request.segments {
            if let Some(rest) = tail(start, data, addr) {
                return Some(f(rest));
            }
        }
        let fetched = self.fetched.borrow();
        let (start, data) = fetched.as_ref()?;
        tail(*start, data, addr).map(f)
    }

    fn fetch(&self, cpu: &Cpu<'_>, kind: Kind, addr: u64, len: usize) -> Result<(), Errno> {
        let data = cpu.unscheduled(|| self.conn.ask(kind, self.reqno, self.slot, addr, len))?;
        if data.is_empty() {
            return Err(Errno::EFAULT);
        }
        *self.fetched.borrow_mut() = Some((addr, data));
        Ok(())
    }

    /// How much to ask for at `addr` when `len` bytes are wanted: all that the call is going to read there, if the table
    /// says so.
    fn ahead(&self, addr: u64, len: usize) -> usize {
        let mut most = len;
        if let Some(desc) = desc(self.nr) {
            let mut peek = |at: u64, to: &mut [u8]| {
                self.known(at, |data| {
                    data.get(..to.len()).map(|d| to.copy_from_slice(d))
                })
                .flatten()
                .is_some()
            };
            named(desc, &self.request.args, &mut peek, &mut |range: Named| {
                if range.how == Use::In && range.covers(addr, len) {
                    let skip = (addr - range.addr) as usize;
                    most = most.max((range.len - skip).min(MAX_INLINE));
                }
                true
            });
        }
        most
    }
}

/// The part of `data`, which begins at `start`, from `addr` on; `None` when that is empty.
fn tail(start: u64, data: &[u8], addr: u64) -> Option<&[u8]> {
    let skip = usize::try_from(addr.checked_sub(start)?).ok()?;
    data.get(skip..).filter(|rest| !rest.is_empty())
}

impl UserMemory for RemoteMemory<'_> {
    fn copyin(&self, cpu: &Cpu<'_>, from: UserAddr, to: &mut [u8]) -> Result<(), Errno> {
        let mut done = 0;
        while done < to.len() {
            let addr = from.add(done).0;
            let rest = &mut to[done..];
            let n = self.known(addr, |data| {
                let n = data.len().min(rest.len());
                rest[..n].copy_from_slice(&data[..n]);
                n
            });
            match n {
                Some(n) => done += n,
                None => {
                    let want = rest.len().min(MAX_INLINE);
                    let most = self.ahead(addr, want);
                    self.fetch(cpu, Kind::Copyin, addr, most).or_else(|e| {
                        // What lies further on may not be there, and may not be wanted.
                        if most > want {
                            self.fetch(cpu, Kind::Copyin, addr, want)
                        } else {
                            Err(e)
                        }
                    })?;
                }
            }
        }
        Ok(())
    }

    fn copyout(&self, cpu: &Cpu<'_>, from: &[u8], to: UserAddr) -> Result<(), Errno> {
        let mut done = 0;
        while done < from.len() {
            let n = (from.len() - done).min(MAX_INLINE);
            let full = {
                let mut written = self.written.borrow_mut();
                let full = !written.has_room(to.add(done).0, n);
                if !full {
                    written.append(to.add(done).0, &from[done..done + n]);
                    done += n;
                }
                full
            };
            if full {
                let mut written = self.written.borrow_mut();
                cpu.unscheduled(|| {
                    written.drain(|addr, data| self.conn.copyout(self.reqno, addr, data))
                })?;
            }
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
        loop {
            let addr = from.add(len).0;
            let known = self.known(addr, |data| {
                let data = &data[..data.len().min(max + 1 - len)];
                let end = data.iter().position(|&b| b == 0);
                to.extend_from_slice(&data[..end.unwrap_or(data.len())]);
                (end.is_some(), data.len())
            });
            match known {
                Some((true, _)) => return Ok(()),
                Some((false, n)) => len += n,
                None => self.fetch(cpu, Kind::Copyinstr, addr, max + 1 - len)?,
            }
            if len > max {
                return Err(Errno::ENAMETOOLONG);
            }
        }
    }
}

impl Written<'_> {
    fn continues(&self, addr: u64) -> bool {
        let (_, start, len) = self.last;
        self.count != 0 && start.wrapping_add(len as u64) == addr
    }

    fn has_room(&self, addr: u64, len: usize) -> bool {
        let fits =
            self.bytes.len() - self.start + SegmentHead::SIZE + padded(len) <= 2 * MAX_INLINE;
        fits && (self.continues(addr) || (self.count as usize) < MAX_SEGMENTS)
    }

    fn append(&mut self, addr: u64, data: &[u8]) {
        if self.continues(addr) {
            // The padding of the last segment goes.
            let (head, _, len) = self.last;
            self.bytes.truncate(head + SegmentHead::SIZE + len);
        } else {
            self.count += 1;
            self.last = (self.bytes.len(), addr, 0);
            self.bytes.extend([0; SegmentHead::SIZE]);
        }
        self.last.2 += data.len();
        let (head, addr, len) = self.last;
        let raw = SegmentHead {
            addr,
            len: len as u32,
        };
        self.bytes[head..head + SegmentHead::SIZE].copy_from_slice(&raw.encode());
        self.bytes.extend_from_slice(data);
        self.bytes.resize(head + SegmentHead::SIZE + padded(len), 0);
    }

    /// Hands every segment to `each` and forgets them.
    fn drain(
        &mut self,
        mut each: impl FnMut(u64, &[u8]) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let mut at = self.start;
        let mut result = Ok(());
        for _ in 0..self.count {
            let Some(raw) = self.bytes[at..].first_chunk::<{ SegmentHead::SIZE }>() else {
                break;
            };
            let Ok(head) = SegmentHead::decode(raw) else {
                break;
            };
            let data = at + SegmentHead::SIZE;
            result =
                result.and_then(|()| each(head.addr, &self.bytes[data..data + head.len as usize]));
            at = data + padded(head.len as usize);
        }
        self.bytes.truncate(self.start);
        self.count = 0;
        result
    }
}

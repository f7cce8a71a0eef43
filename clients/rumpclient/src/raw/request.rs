//! Marshalling: what goes along with a request, and which memory a server may reach for it.

use abi::sysproxy::{
    Class, Company, Header, Kind, MAX_INLINE, MAX_SEGMENTS, Named, REQUEST_FIXED, SegmentHead,
    SyscallRequest, Use, covered, desc, named, padded,
};

use super::mem::Memory;
use super::sys::IoVec;

/// One call.
#[derive(Clone, Copy)]
pub(super) struct Call {
    pub(super) nr: u32,
    pub(super) args: [u64; 6],
    pub(super) hints: [i32; 2],
}

/// Room for composing a request, kept by each thread so that the program's stack, which may be small, is not needed.
pub(super) struct Scratch {
    /// What travels with it, by address and length.
    pub(super) segments: [(u64, u32); MAX_SEGMENTS],
    /// Header, fixed part, segment heads and short data, one after the other.
    pub(super) bytes: [u8; 12 << 10],
    pub(super) iov: [IoVec; 2 * MAX_SEGMENTS + 2],
}

/// Data up to this length is copied into the frame; longer data is sent from where it is.
const SHORT: usize = 512;

impl Call {
    /// Composes the frame of the call in `scratch`; how many buffers it has.
    pub(super) fn compose(
        &self,
        reqno: u64,
        company: Company,
        memory: Memory<'_>,
        scratch: &mut Scratch,
    ) -> usize {
        let (count, bytes) = self.collect(memory, &mut scratch.segments, MAX_INLINE);
        let body = REQUEST_FIXED + bytes;
        let head = Header::new(Class::Request, Kind::Syscall, self.nr, reqno, body);
        let fixed = SyscallRequest::encode_fixed(&self.args, self.hints, company, count as u32);
        let mut put = Put {
            scratch,
            len: 0,
            start: 0,
            iov: 0,
        };
        put.bytes(&head.encode());
        put.bytes(&fixed);
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

    /// Collects the memory that the call will read, as far as it is there, at most `room` bytes with their heads; how
    /// many segments, and their bytes.
    pub(super) fn collect(
        &self,
        memory: Memory<'_>,
        segments: &mut [(u64, u32); MAX_SEGMENTS],
        room: usize,
    ) -> (usize, usize) {
        let (mut count, mut bytes) = (0, 0);
        let Some(desc) = desc(self.nr) else {
            return (0, 0);
        };
        let mut peek = |addr: u64, to: &mut [u8]| memory.read(addr, to);
        named(desc, &self.args, &mut peek, &mut |range: Named| {
            let head = abi::sysproxy::SegmentHead::SIZE;
            let left = room.saturating_sub(bytes + head) / 8 * 8;
            let len = match range.how {
                Use::Str => memory.string(range.addr, range.len),
                Use::In | Use::InOut => {
                    let len = range.len.min(left);
                    memory.readable(range.addr, len).then_some(len)
                }
                Use::Out => None,
            };
            if let Some(len) = len.filter(|&len| len != 0 && len <= left) {
                segments[count] = (range.addr, len as u32);
                count += 1;
                bytes += head + abi::sysproxy::padded(len);
            }
            count < MAX_SEGMENTS
        });
        (count, bytes)
    }

    /// Whether the call names this range for that use, so that a server may reach it.
    pub(super) fn allows(&self, memory: Memory<'_>, addr: u64, len: usize, how: Use) -> bool {
        let Some(desc) = desc(self.nr) else {
            return false;
        };
        covered(addr, len, |addr| {
            let mut reach = 0;
            let mut peek = |addr: u64, to: &mut [u8]| memory.read(addr, to);
            let anywhere = named(desc, &self.args, &mut peek, &mut |range: Named| {
                let fits = match how {
                    Use::Out => range.how.writes(),
                    Use::Str => range.how == Use::Str,
                    Use::In | Use::InOut => matches!(range.how, Use::In | Use::InOut),
                };
                if fits {
                    reach = reach.max(range.reach(addr));
                }
                reach < len as u64
            });
            if anywhere { u64::MAX } else { reach }
        })
    }

    /// Whether a signal handler ends it even when it asks for restart, signal(7).
    pub(super) fn never_restarts(&self) -> bool {
        use abi::nr;
        matches!(
            self.nr,
            nr::poll
                | nr::ppoll
                | nr::select
                | nr::pselect6
                | nr::epoll_wait
                | nr::epoll_pwait
                | nr::epoll_pwait2
                | nr::nanosleep
                | nr::clock_nanosleep
        )
    }
}

/// A slice as a buffer to send.
pub(super) fn vec(bytes: &[u8]) -> IoVec {
    IoVec {
        base: bytes.as_ptr(),
        len: bytes.len(),
    }
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

//! uio: where the bytes of a read or write come from and go to, and where in the file.

use abi::{Errno, UserAddr};
use smallvec::{SmallVec, smallvec};

use crate::Curlwp;

/// The most buffers of a vectored call, `IOV_MAX`.
pub const IOV_MAX: usize = 1024;
/// The most bytes of one call, as Linux has it.
pub const MAX_RW_COUNT: usize = 0x7fff_f000;

/// The other side of a transfer.
enum Space<'b> {
    /// Buffers in the caller's memory, each address and length.
    User {
        iov: SmallVec<[(UserAddr, usize); 1]>,
        at: usize,
        done: usize,
    },
    /// A buffer of the kernel that is filled.
    Fill(&'b mut [u8]),
    /// A buffer of the kernel that is drained.
    Drain(&'b [u8]),
}

/// A transfer between a file and memory: how many bytes are left, where in the file it stands, and the memory.
pub struct Uio<'b> {
    space: Space<'b>,
    resid: usize,
    moved: usize,
    offset: u64,
}

impl<'b> Uio<'b> {
    /// A transfer with one buffer of the caller. Longer than the kernel's limit, it is cut short, as Linux does.
    pub fn user(addr: UserAddr, len: usize, offset: u64) -> Uio<'static> {
        let len = len.min(MAX_RW_COUNT);
        Uio {
            space: Space::User {
                iov: smallvec![(addr, len)],
                at: 0,
                done: 0,
            },
            resid: len,
            moved: 0,
            offset,
        }
    }

    /// A transfer with several buffers of the caller, read from its `struct iovec` array. `EINVAL` when there are
    /// too many or they are too long together.
    pub fn user_iov(
        cx: &Curlwp<'_>,
        iov: UserAddr,
        count: i32,
        offset: u64,
    ) -> Result<Uio<'static>, Errno> {
        let count = usize::try_from(count)
            .ok()
            .filter(|&n| n <= IOV_MAX)
            .ok_or(Errno::EINVAL)?;
        let mut buffers = SmallVec::with_capacity(count);
        let mut resid = 0usize;
        for i in 0..count {
            let mut raw = [0; abi::Iovec::SIZE];
            cx.copyin(iov.add(i * abi::Iovec::SIZE), &mut raw)?;
            let one = abi::Iovec::from_bytes(&raw);
            let len = isize::try_from(one.iov_len).map_err(|_| Errno::EINVAL)? as usize;
            let len = len.min(MAX_RW_COUNT - resid);
            resid += len;
            buffers.push((UserAddr(one.iov_base), len));
        }
        Ok(Uio {
            space: Space::User {
                iov: buffers,
                at: 0,
                done: 0,
            },
            resid,
            moved: 0,
            offset,
        })
    }

    /// A read into a buffer of the kernel.
    pub fn fill(buf: &'b mut [u8], offset: u64) -> Uio<'b> {
        Uio {
            resid: buf.len(),
            moved: 0,
            space: Space::Fill(buf),
            offset,
        }
    }

    /// A write from a buffer of the kernel.
    pub fn drain(buf: &'b [u8], offset: u64) -> Uio<'b> {
        Uio {
            resid: buf.len(),
            moved: 0,
            space: Space::Drain(buf),
            offset,
        }
    }

    /// Bytes still to move.
    #[inline]
    pub fn resid(&self) -> usize {
        self.resid
    }

    /// Bytes moved so far.
    #[inline]
    pub fn moved(&self) -> usize {
        self.moved
    }

    /// Where in the file the next byte belongs.
    #[inline]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Sets where in the file the next byte belongs (a write that appends).
    pub fn set_offset(&mut self, offset: u64) {
        self.offset = offset;
    }

    /// Lets the transfer end earlier: at most `len` bytes are left afterwards.
    pub fn truncate(&mut self, len: usize) {
        self.resid = self.resid.min(len);
    }

    /// Ends the transfer because its last `len` bytes found no place after all: they count as not moved.
    pub fn give_back(&mut self, len: usize) {
        self.resid += len;
        self.moved = self.moved.saturating_sub(len);
        self.offset -= len as u64;
    }

    /// Whether moving bytes may have to wait for the caller: see [`crate::UserMemory::may_wait`].
    #[inline]
    pub fn may_wait(&self, cx: &Curlwp<'_>) -> bool {
        matches!(self.space, Space::User { .. }) && cx.memory().may_wait()
    }

    /// The read side of uiomove: hands file data to the memory, at most [`resid`](Self::resid) bytes; answers how
    /// many were taken. On `EFAULT` what was moved before stays moved.
    pub fn put(&mut self, cx: &Curlwp<'_>, mut data: &[u8]) -> Result<usize, Errno> {
        let data_len = data.len().min(self.resid);
        data = &data[..data_len];
        let mut moved = 0;
        while moved < data_len {
            let n = match &mut self.space {
                Space::Fill(buf) => {
                    let (head, tail) = std::mem::take(buf).split_at_mut(data_len - moved);
                    head.copy_from_slice(&data[moved..]);
                    *buf = tail;
                    head.len()
                }
                Space::Drain(_) => return Err(Errno::EINVAL),
                Space::User { iov, at, done } => {
                    let Some((addr, n)) = next_run(iov, at, done, data_len - moved) else {
                        break;
                    };
                    cx.copyout(&data[moved..moved + n], addr)?;
                    *done += n;
                    n
                }
            };
            self.advance(n);
            moved += n;
        }
        Ok(moved)
    }

    /// The write side of uiomove: takes bytes from the memory into `data`, at most [`resid`](Self::resid); answers
    /// how many. On `EFAULT` what was moved before stays moved.
    pub fn get(&mut self, cx: &Curlwp<'_>, data: &mut [u8]) -> Result<usize, Errno> {
        let want = data.len().min(self.resid);
        let mut moved = 0;
        while moved < want {
            let n = match &mut self.space {
                Space::Drain(buf) => {
                    let (head, tail) = buf.split_at(want - moved);
                    data[moved..want].copy_from_slice(head);
                    *buf = tail;
                    head.len()
                }
                Space::Fill(_) => return Err(Errno::EINVAL),
                Space::User { iov, at, done } => {
                    let Some((addr, n)) = next_run(iov, at, done, want - moved) else {
                        break;
                    };
                    cx.copyin(addr, &mut data[moved..moved + n])?;
                    *done += n;
                    n
                }
            };
            self.advance(n);
            moved += n;
        }
        Ok(moved)
    }

    fn advance(&mut self, n: usize) {
        self.resid -= n;
        self.moved += n;
        self.offset += n as u64;
    }
}

/// The next stretch of user memory, at most `want` bytes; steps over buffers that are used up.
fn next_run(
    iov: &[(UserAddr, usize)],
    at: &mut usize,
    done: &mut usize,
    want: usize,
) -> Option<(UserAddr, usize)> {
    loop {
        let (addr, len) = *iov.get(*at)?;
        if *done < len {
            return Some((addr.add(*done), want.min(len - *done)));
        }
        *at += 1;
        *done = 0;
    }
}

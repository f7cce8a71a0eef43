//! User memory: how the kernel reaches a caller's buffers.

use std::cell::RefCell;
use std::sync::Arc;

use abi::{Arg, Errno, UserAddr};
use hypercall::Nanos;
use sync::Cpu;

use crate::Ahead;
use crate::poll::Watcher;

/// The memory of whoever makes a system call: in this process, at the other end of a connection, or in a window
/// shared with a client. Addresses come from the caller and mean nothing before they are checked here.
///
/// A method may block (a remote client has to be asked); the virtual CPU is given up meanwhile.
pub trait UserMemory {
    /// Fills `to` from user memory. `EFAULT` when any of it is not the caller's.
    fn copyin(&self, cpu: &Cpu<'_>, from: UserAddr, to: &mut [u8]) -> Result<(), Errno>;

    /// Writes `from` to user memory. `EFAULT` when any of it is not the caller's to write.
    fn copyout(&self, cpu: &Cpu<'_>, from: &[u8], to: UserAddr) -> Result<(), Errno>;

    /// Appends the NUL-terminated string at `from` to `to`, without the NUL. `ENAMETOOLONG` when it has more than
    /// `max` bytes. Copied in byte by byte, where a memory knows no better way.
    fn copyinstr(
        &self,
        cpu: &Cpu<'_>,
        from: UserAddr,
        max: usize,
        to: &mut PathBytes,
    ) -> Result<(), Errno> {
        let mut byte = [0];
        for at in 0..=max {
            self.copyin(cpu, from.add(at), &mut byte)?;
            if byte == [0] {
                return Ok(());
            }
            to.extend(byte);
        }
        Err(Errno::ENAMETOOLONG)
    }

    /// Whether a copy may have to wait for the caller, as for a remote one who has to be asked. What others need is not
    /// kept locked meanwhile: such data is staged in memory of the kernel.
    fn may_wait(&self) -> bool {
        true
    }

    /// Whether the caller wants to know ahead what calls on the files would give that a wait has found ready, and how much of
    /// it: bytes that are unread. To be asked once, before [`tell_ahead`](Self::tell_ahead).
    fn takes_ahead(&self) -> Option<usize> {
        None
    }

    /// Tells that of the stream which is `fd` to the caller, alone and nowhere else, and which the epoll instance `epfd` watches, if it
    /// was found by one.
    fn tell_ahead(&self, _fd: i32, _epfd: Option<i32>, _ahead: &Ahead) {}

    /// Who is to be told instead of a sleep, by a caller that would rather leave the kernel than wait in it until the deadline on
    /// the monotonic clock: the call then ends with `ERESTART`, having done nothing but written what it would answer at the deadline,
    /// and the caller makes it again when it has been told. Asked by poll(2) and epoll_wait(2) when nothing is ready. Files forget
    /// the watcher when nobody else has it any more: then the wait is over.
    fn waits_by(&self, _deadline: Option<Nanos>) -> Option<Arc<dyn Watcher>> {
        None
    }

    /// Whether the caller has gone on, knowing what the call would answer. Then it takes all that is sent, however long it has
    /// to wait, and an error stays with the file for the next call.
    fn has_gone_on(&self) -> bool {
        false
    }

    /// Of a caller that has gone on: whether the thread that does the call for it may sleep. If not, what would have to wait is not
    /// taken, as for a file that does not block.
    fn may_sleep(&self) -> bool {
        true
    }
}

/// Bytes of a path name or a short string; the usual ones stay on the stack.
pub type PathBytes = smallvec::SmallVec<[u8; 128]>;

/// No user memory at all: every access is a fault. For kernel threads.
pub struct KernelMemory;

impl UserMemory for KernelMemory {
    fn copyin(&self, _: &Cpu<'_>, _: UserAddr, to: &mut [u8]) -> Result<(), Errno> {
        if to.is_empty() {
            Ok(())
        } else {
            Err(Errno::EFAULT)
        }
    }

    fn copyout(&self, _: &Cpu<'_>, from: &[u8], _: UserAddr) -> Result<(), Errno> {
        if from.is_empty() {
            Ok(())
        } else {
            Err(Errno::EFAULT)
        }
    }

    fn may_wait(&self) -> bool {
        false
    }
}

/// The memory that the arguments of one call name, and nothing else: what a caller in safe Rust lends the kernel.
/// Addresses are those of the slices, so that a pointer into the middle of one works.
pub struct ArgMemory<'m, 'a>(RefCell<&'m mut [Arg<'a>]>);

impl<'m, 'a> ArgMemory<'m, 'a> {
    /// Lends the arguments' memory.
    pub fn new(args: &'m mut [Arg<'a>]) -> Self {
        ArgMemory(RefCell::new(args))
    }

    /// The six registers that these arguments make; an empty buffer is a null pointer.
    pub fn registers(args: &[Arg<'_>]) -> [u64; 6] {
        let mut raw = [0; 6];
        for (reg, arg) in raw.iter_mut().zip(args) {
            *reg = match arg {
                Arg::Val(v) => *v,
                Arg::Str(s) => s.as_ptr().addr() as u64,
                Arg::In(b) => address(b),
                Arg::Out(b) => address(b),
            };
        }
        raw
    }
}

fn address(buf: &[u8]) -> u64 {
    if buf.is_empty() {
        0
    } else {
        buf.as_ptr().addr() as u64
    }
}

/// The part of `buf` that begins at `addr` and has `len` bytes.
fn range(buf: &[u8], addr: UserAddr, len: usize) -> Option<std::ops::Range<usize>> {
    let start = usize::try_from(addr.0.checked_sub(buf.as_ptr().addr() as u64)?).ok()?;
    let end = start.checked_add(len)?;
    (end <= buf.len()).then_some(start..end)
}

impl UserMemory for ArgMemory<'_, '_> {
    #[inline]
    fn copyin(&self, _: &Cpu<'_>, from: UserAddr, to: &mut [u8]) -> Result<(), Errno> {
        if to.is_empty() {
            return Ok(());
        }
        for arg in self.0.borrow().iter() {
            let buf: &[u8] = match arg {
                Arg::In(b) => b,
                Arg::Out(b) => b,
                Arg::Str(s) => s.to_bytes_with_nul(),
                Arg::Val(_) => continue,
            };
            if let Some(range) = range(buf, from, to.len()) {
                to.copy_from_slice(&buf[range]);
                return Ok(());
            }
        }
        Err(Errno::EFAULT)
    }

    #[inline]
    fn copyout(&self, _: &Cpu<'_>, from: &[u8], to: UserAddr) -> Result<(), Errno> {
        if from.is_empty() {
            return Ok(());
        }
        for arg in self.0.borrow_mut().iter_mut() {
            if let Arg::Out(buf) = arg
                && let Some(range) = range(buf, to, from.len())
            {
                buf[range].copy_from_slice(from);
                return Ok(());
            }
        }
        Err(Errno::EFAULT)
    }

    #[inline]
    fn copyinstr(
        &self,
        _: &Cpu<'_>,
        from: UserAddr,
        max: usize,
        to: &mut PathBytes,
    ) -> Result<(), Errno> {
        for arg in self.0.borrow().iter() {
            let buf: &[u8] = match arg {
                Arg::Str(s) => s.to_bytes_with_nul(),
                Arg::In(b) => b,
                _ => continue,
            };
            if let Some(range) = range(buf, from, 1) {
                let rest = &buf[range.start..];
                let len = rest.iter().position(|&b| b == 0).ok_or(Errno::EFAULT)?;
                if len > max {
                    return Err(Errno::ENAMETOOLONG);
                }
                to.extend_from_slice(&rest[..len]);
                return Ok(());
            }
        }
        Err(Errno::EFAULT)
    }

    #[inline]
    fn may_wait(&self) -> bool {
        false
    }
}

//! Which memory a call names: the rule by which requests are marshalled and replies are checked.

use crate::table::{ArgKind, Len, SyscallDesc};

/// What a call does with a stretch of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Reads a string from it; its length is not known ahead.
    Str,
    /// Reads it.
    In,
    /// Writes it.
    Out,
    /// Reads and writes it.
    InOut,
}

impl Use {
    /// Whether the call may write there.
    pub const fn writes(self) -> bool {
        matches!(self, Use::Out | Use::InOut)
    }
}

/// A stretch of caller memory that a call names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named {
    /// Where it begins; not null.
    pub addr: u64,
    /// How long it is; not zero. For a string, the most it can be.
    pub len: usize,
    /// What the call does with it.
    pub how: Use,
}

impl Named {
    /// Whether `len` bytes at `addr` lie inside.
    pub const fn covers(&self, addr: u64, len: usize) -> bool {
        self.reach(addr) >= len as u64
    }

    /// How many bytes from `addr` on lie inside.
    pub const fn reach(&self, addr: u64) -> u64 {
        match addr.checked_sub(self.addr) {
            Some(skip) => (self.len as u64).saturating_sub(skip),
            None => 0,
        }
    }
}

/// Whether `len` bytes at `addr` lie in ranges that may lie side by side, as the value and the length of getsockopt(2) do on a
/// stack: what is written to both comes as one. `reach` says how many bytes from an address on lie in some range.
pub fn covered(mut addr: u64, len: usize, mut reach: impl FnMut(u64) -> u64) -> bool {
    let mut left = len as u64;
    loop {
        let here = reach(addr);
        if here >= left {
            return true;
        }
        if here == 0 {
            return false;
        }
        addr += here;
        left -= here;
    }
}

/// The most buffers of a vectored call, `IOV_MAX`.
const IOV_MAX: u64 = 1024;
/// The most messages of one call whose parts are named; those of later ones are asked for.
const MESSAGES_MAX: u64 = 32;
/// The most bytes of a string, `PATH_MAX`.
const STR_MAX: usize = 4096;

/// Hands each stretch of memory that the call names to `each`, until that answers false. `peek` reads caller memory
/// where a length or an iovec array stands in it, and answers false when it cannot; what hangs on that is left out.
///
/// Answers whether the call may reach memory that the table cannot name ([`ArgKind::Addr`]).
pub fn named(
    desc: &SyscallDesc,
    raw: &[u64; 6],
    peek: &mut dyn FnMut(u64, &mut [u8]) -> bool,
    each: &mut dyn FnMut(Named) -> bool,
) -> bool {
    let mut anywhere = false;
    let mut go = true;
    for (arg, &addr) in desc.args.iter().zip(raw) {
        let mut one = |addr: u64, len: Option<usize>, how| {
            if let Some(len) = len.filter(|&len| len != 0 && addr != 0) {
                go = go && each(Named { addr, len, how });
            }
            go
        };
        match arg.kind {
            ArgKind::Path | ArgKind::Str => {
                one(addr, Some(STR_MAX), Use::Str);
            }
            ArgKind::In(len) => {
                one(addr, bytes(len, raw, peek), Use::In);
            }
            ArgKind::Out(len) => {
                one(addr, bytes(len, raw, peek), Use::Out);
            }
            ArgKind::InOut(len) => {
                one(addr, bytes(len, raw, peek), Use::InOut);
            }
            ArgKind::IovIn(count) => {
                iovec(addr, raw[usize::from(count) % 6], Use::In, peek, &mut one)
            }
            ArgKind::IovOut(count) => {
                iovec(addr, raw[usize::from(count) % 6], Use::Out, peek, &mut one)
            }
            ArgKind::Addr => anywhere = true,
            _ => {}
        }
    }
    if go {
        messages(desc.nr, raw, peek, &mut |addr, len, how| match len {
            Some(len) if len != 0 && addr != 0 => each(Named { addr, len, how }),
            _ => true,
        });
    }
    let pointed = match desc.nr {
        crate::nr::setsockopt if go => filter_program(raw, peek),
        crate::nr::ioctl if go => interface_list(raw, peek).or_else(|| route_device(raw, peek)),
        _ => None,
    };
    if let Some(pointed) = pointed {
        each(pointed);
    }
    anywhere
}

/// What a `struct msghdr` names, or an array of `struct mmsghdr`: the structure, the buffers, the address, the control data. All
/// messages together have at most as many buffers as one may have: memory may say anything.
fn messages(
    nr: u32,
    raw: &[u64; 6],
    peek: &mut dyn FnMut(u64, &mut [u8]) -> bool,
    one: &mut dyn FnMut(u64, Option<usize>, Use) -> bool,
) {
    const MSGHDR: usize = 56;
    const MMSGHDR: usize = 64;
    let (count, size, how) = match nr {
        crate::nr::sendmsg => (1, MSGHDR, Use::In),
        crate::nr::recvmsg => (1, MSGHDR, Use::Out),
        crate::nr::sendmmsg => (u64::from(raw[2] as u32), MMSGHDR, Use::In),
        crate::nr::recvmmsg => (u64::from(raw[2] as u32), MMSGHDR, Use::Out),
        _ => return,
    };
    let mut buffers = IOV_MAX;
    for i in 0..count.min(MESSAGES_MAX) {
        let at = raw[1].wrapping_add(i * size as u64);
        let mut header = [0; MSGHDR];
        if !one(at, Some(size), Use::InOut) || !peek(at, &mut header) {
            return;
        }
        let (words, _) = header.as_chunks();
        let [name, name_len, iov, iov_len, control, control_len, _] =
            core::array::from_fn(|i| words.get(i).map_or(0, |w| u64::from_le_bytes(*w)));
        let Some(left) = buffers.checked_sub(iov_len) else {
            return;
        };
        buffers = left;
        iovec(iov, iov_len, how, peek, one);
        let more = one(name, Some(name_len as u32 as usize), how)
            && one(control, usize::try_from(control_len).ok(), how);
        if !more {
            return;
        }
    }
}

/// The instructions that setsockopt(2) with `SO_ATTACH_FILTER` points to, by a `struct sock_fprog`.
fn filter_program(raw: &[u64; 6], peek: &mut dyn FnMut(u64, &mut [u8]) -> bool) -> Option<Named> {
    const SOL_SOCKET: u32 = 1;
    const SO_ATTACH_FILTER: u32 = 26;
    const INSN: usize = 8;
    if raw[1] as u32 != SOL_SOCKET || raw[2] as u32 != SO_ATTACH_FILTER {
        return None;
    }
    let mut prog = [0; 16];
    if raw[4] < prog.len() as u64 || !peek(raw[3], &mut prog) {
        return None;
    }
    let [a, b, ..] = prog;
    let [.., c, d, e, f, g, h, i, j] = prog;
    let len = usize::from(u16::from_le_bytes([a, b])) * INSN;
    let addr = u64::from_le_bytes([c, d, e, f, g, h, i, j]);
    (addr != 0 && len != 0).then_some(Named {
        addr,
        len,
        how: Use::In,
    })
}

/// Where ioctl(2) with `SIOCGIFCONF` puts the list of interfaces, by a `struct ifconf`.
fn interface_list(raw: &[u64; 6], peek: &mut dyn FnMut(u64, &mut [u8]) -> bool) -> Option<Named> {
    const SIOCGIFCONF: u32 = 0x8912;
    let mut list = [0; 16];
    if raw[1] as u32 != SIOCGIFCONF || !peek(raw[2], &mut list) {
        return None;
    }
    let [a, b, c, d, ..] = list;
    let [.., e, f, g, h, i, j, k, l] = list;
    let len = usize::try_from(i32::from_le_bytes([a, b, c, d])).ok()?;
    let addr = u64::from_le_bytes([e, f, g, h, i, j, k, l]);
    (addr != 0 && len != 0).then_some(Named {
        addr,
        len,
        how: Use::Out,
    })
}

/// The name of the interface that ioctl(2) with `SIOCADDRT` or `SIOCDELRT` points to, by a `struct rtentry`.
fn route_device(raw: &[u64; 6], peek: &mut dyn FnMut(u64, &mut [u8]) -> bool) -> Option<Named> {
    const SIOCADDRT: u32 = 0x890b;
    const SIOCDELRT: u32 = 0x890c;
    const DEVICE: u64 = 88;
    let mut pointer = [0; 8];
    let is_route = matches!(raw[1] as u32, SIOCADDRT | SIOCDELRT);
    if !is_route || !peek(raw[2].wrapping_add(DEVICE), &mut pointer) {
        return None;
    }
    let addr = u64::from_le_bytes(pointer);
    (addr != 0).then_some(Named {
        addr,
        len: STR_MAX,
        how: Use::Str,
    })
}

fn bytes(len: Len, raw: &[u64; 6], peek: &mut dyn FnMut(u64, &mut [u8]) -> bool) -> Option<usize> {
    len.bytes(raw, |at| {
        let mut word = [0; 4];
        peek(at, &mut word).then(|| u32::from_le_bytes(word))
    })
}

/// The array itself, and the buffers it names.
fn iovec(
    array: u64,
    count: u64,
    how: Use,
    peek: &mut dyn FnMut(u64, &mut [u8]) -> bool,
    one: &mut dyn FnMut(u64, Option<usize>, Use) -> bool,
) {
    // The count is an int, as the kernel takes it.
    let count = u64::from(count as u32);
    if count > IOV_MAX || !one(array, Some(count as usize * 16), Use::In) {
        return;
    }
    for i in 0..count {
        let mut raw = [0; 16];
        if !peek(array.wrapping_add(i * 16), &mut raw) {
            return;
        }
        let iov = crate::Iovec::from_bytes(&raw);
        let len = usize::try_from(iov.iov_len).ok();
        if !one(iov.iov_base, len, how) {
            return;
        }
    }
}

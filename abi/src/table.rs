//! The one system-call table.
//!
//! Each call is written here once: number, name, arguments with kind and direction, what it returns, the
//! faction that serves it and how far. Everything that knows a call is made from it: the kernel's dispatcher
//! (slots by [`nr`], typed arguments in [`args`]), the client stubs ([`crate::Syscalls`]), the marshalling that
//! makes a remote call one round trip ([`SyscallDesc::args`]), the tracer and the support page in docs/.
//!
//! Numbers and argument orders are Linux's on x86-64, syscalls(2).

use crate::types::UserAddr;

/// How long a buffer argument is, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Len {
    /// As many bytes as the argument of this index says.
    Arg(u8),
    /// The value of an argument times a record size.
    Times(u8, u32),
    /// A structure of fixed size; a null pointer means none.
    Fixed(u32),
    /// `socklen_t` at the address in the argument of this index (in and out).
    At(u8),
    /// A bit for each of as many descriptors as the argument of this index says, in whole words (select(2)).
    Bits(u8),
    /// What the operation of ioctl(2) in the argument of this index takes; with 0 the argument is a plain number.
    Ioctl(u8),
    /// What the command of fcntl(2) in the argument of this index takes; with 0 the argument is a plain number.
    Fcntl(u8),
}

impl Len {
    /// The length in bytes for a call with these registers. `socklen` reads the `socklen_t` at an address of the
    /// caller; `None` when it cannot. The result is what the caller claims, bounded by nothing.
    pub fn bytes(self, raw: &[u64; 6], socklen: impl FnOnce(u64) -> Option<u32>) -> Option<usize> {
        let arg = |i: u8| raw.get(usize::from(i)).copied().unwrap_or(0);
        Some(match self {
            Len::Arg(i) => arg(i) as usize,
            Len::Times(i, size) => (arg(i) as u32 as usize).saturating_mul(size as usize),
            Len::Fixed(size) => size as usize,
            Len::At(i) if arg(i) == 0 => 0,
            Len::At(i) => socklen(arg(i))? as usize,
            Len::Bits(i) => {
                (arg(i) as i32).max(0) as usize / 64 * 8 + 8 * usize::from(arg(i) as i32 % 64 > 0)
            }
            Len::Ioctl(i) => ioctl_size(arg(i) as u32),
            Len::Fcntl(i) => fcntl_size(arg(i) as i32),
        })
    }
}

/// Bytes that an ioctl operation takes at its argument, in either direction: what the number itself says (`_IOC_SIZE`), and
/// the old ones that say nothing, ioctl_list(2).
pub const fn ioctl_size(op: u32) -> usize {
    match op {
        // TCGETS, TCSETS, TCSETSW, TCSETSF: struct termios of the kernel.
        0x5401..=0x5404 => 36,
        // TIOCGPGRP, TIOCSPGRP, TIOCOUTQ, FIONREAD, FIONBIO, FIOASYNC.
        0x540f | 0x5410 | 0x5411 | 0x541b | 0x5421 | 0x5452 => 4,
        // TIOCGWINSZ, TIOCSWINSZ.
        0x5413 | 0x5414 => 8,
        // BLKROGET, BLKSSZGET; BLKGETSIZE.
        0x125e | 0x1268 => 4,
        0x1260 => 8,
        // SIOC*: struct ifreq; SIOCGIFCONF: struct ifconf; SIOCGSTAMP, SIOCGSTAMPNS: a time.
        0x8906 | 0x8907 | 0x8912 => 16,
        // SIOCADDRT, SIOCDELRT: struct rtentry; SIOCDARP, SIOCGARP, SIOCSARP: struct arpreq.
        0x890b | 0x890c => 120,
        0x8953..=0x8955 => 68,
        0x8900..=0x89ff => 40,
        _ if op >> 30 == 0 => 0,
        _ => (op >> 16 & 0x3fff) as usize,
    }
}

/// Bytes that an fcntl command takes at its argument: `struct flock`, `struct f_owner_ex`, or none.
pub const fn fcntl_size(cmd: i32) -> usize {
    match cmd {
        5..=7 | 36..=38 => 32,
        15 | 16 => 8,
        1035..=1038 => 8,
        _ => 0,
    }
}

/// Kind and direction of one argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArgKind {
    /// A descriptor that the call works on.
    Fd,
    /// The directory descriptor of an `*at` call; belongs to the path argument that follows. May be `AT_FDCWD`.
    DirFd,
    /// A signed number.
    Int,
    /// An unsigned number.
    Uint,
    /// A byte count.
    Size,
    /// A file offset.
    Off,
    /// Flags of open(2).
    OpenFlags,
    /// Other flag bits, shown in hexadecimal.
    Flags,
    /// A file mode, shown in octal.
    Mode,
    /// A NUL-terminated path name, read by the kernel.
    Path,
    /// A NUL-terminated string that is no path, read by the kernel.
    Str,
    /// A buffer the kernel reads.
    In(Len),
    /// A buffer the kernel writes.
    Out(Len),
    /// A buffer the kernel reads and writes.
    InOut(Len),
    /// An array of `struct iovec` the kernel reads from; its count is the argument of this index.
    IovIn(u8),
    /// An array of `struct iovec` the kernel writes into; its count is the argument of this index.
    IovOut(u8),
    /// An address that only the call itself can interpret (ioctl(2), `msghdr`): no marshalling ahead.
    Addr,
}

/// What a call returns when it succeeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetKind {
    /// Zero.
    Zero,
    /// A new descriptor.
    Fd,
    /// A number of bytes.
    Size,
    /// A plain number.
    Int,
    /// A file offset.
    Off,
    /// An address.
    Addr,
}

/// The faction that serves a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Faction {
    /// The kernel proper.
    Kern,
    /// Files and file systems.
    Vfs,
    /// Sockets.
    Net,
    /// The host process: memory, threads, signals. A kernel that is a library does not serve these.
    Host,
}

/// How far a call is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// As its manual page says.
    Full,
    /// With the limits named.
    Partial(&'static str),
    /// Answers `ENOSYS`.
    Absent,
}

/// One argument of a call.
#[derive(Clone, Copy, Debug)]
pub struct ArgDesc {
    /// Its name in the manual page.
    pub name: &'static str,
    /// Its kind and direction.
    pub kind: ArgKind,
}

/// One call.
#[derive(Clone, Copy, Debug)]
pub struct SyscallDesc {
    /// Linux's number.
    pub nr: u32,
    /// Linux's name.
    pub name: &'static str,
    /// Up to six arguments.
    pub args: &'static [ArgDesc],
    /// What it returns.
    pub ret: RetKind,
    /// Who serves it.
    pub faction: Faction,
    /// How far.
    pub support: Support,
}

/// An argument as it stands in its register, turned into its type.
pub trait FromRaw {
    /// Takes the low bits that the type has, as the kernel ABI does.
    fn from_raw(raw: u64) -> Self;
}

macro_rules! from_raw {
    ($($ty:ty)*) => { $(impl FromRaw for $ty { #[inline] fn from_raw(raw: u64) -> Self { raw as $ty } })* };
}
from_raw!(i32 u32 usize i64 u64);

impl FromRaw for UserAddr {
    #[inline]
    fn from_raw(raw: u64) -> Self {
        UserAddr(raw)
    }
}

/// The Rust type in which the kernel takes an argument of a kind.
macro_rules! arg_ty {
    (Fd) => {
        i32
    };
    (DirFd) => {
        i32
    };
    (Int) => {
        i32
    };
    (Uint) => {
        u32
    };
    (Size) => {
        usize
    };
    (Off) => {
        i64
    };
    (OpenFlags) => {
        i32
    };
    (Flags) => {
        i32
    };
    (Mode) => {
        u32
    };
    ($other:ident) => {
        UserAddr
    };
}

macro_rules! syscalls {
    ($($nr:literal $name:ident ( $($arg:ident : $kind:ident $(($($k:tt)*))?),* ) -> $ret:ident, $faction:ident, $support:ident $(($why:literal))?;)*) => {
        /// Numbers by name: `nr::openat`.
        #[allow(non_upper_case_globals, missing_docs)]
        pub mod nr {
            $(pub const $name: u32 = $nr;)*
        }

        /// Typed arguments by call: `args::openat { dirfd, path, flags, mode }`, made from the six registers.
        #[allow(non_camel_case_types, missing_docs)]
        pub mod args {
            use super::{FromRaw, UserAddr};
            $(
                #[derive(Clone, Copy, Debug)]
                pub struct $name { $(pub $arg: arg_ty!($kind),)* }

                impl From<&[u64; 6]> for $name {
                    #[inline]
                    #[allow(unused_mut, unused_variables, unused_assignments)]
                    fn from(raw: &[u64; 6]) -> Self {
                        let mut i = 0;
                        $(let $arg = <arg_ty!($kind)>::from_raw(raw[i]); i += 1;)*
                        let _unused: Option<UserAddr> = None;
                        $name { $($arg,)* }
                    }
                }
            )*
        }

        /// Every call, in the order written.
        pub static TABLE: &[SyscallDesc] = {
            use Len::*;
            #[allow(unused)]
            const fn uses_len(_: Len) {}
            uses_len(Fixed(0));
            &[$(SyscallDesc {
                nr: $nr,
                name: stringify!($name),
                args: &[$(ArgDesc { name: stringify!($arg), kind: ArgKind::$kind $(($($k)*))? },)*],
                ret: RetKind::$ret,
                faction: Faction::$faction,
                support: Support::$support $(($why))?,
            },)*]
        };

        crate::stubs::stubs! { $($name ( $($arg : $kind),* );)* }
    };
}

/// One more than the highest number a kernel takes.
pub const MAX_NR: usize = 768;

/// The description of a call by number, `None` for a number nobody defined.
pub fn desc(nr: u32) -> Option<&'static SyscallDesc> {
    const INDEX: [u16; MAX_NR] = {
        let mut index = [u16::MAX; MAX_NR];
        let mut i = 0;
        while i < TABLE.len() {
            index[TABLE[i].nr as usize] = i as u16;
            i += 1;
        }
        index
    };
    TABLE.get(*INDEX.get(nr as usize)? as usize)
}

include!("syscalls.rs");

pub use generated_stubs::Syscalls;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_is_found_by_its_number_and_numbers_are_unique() {
        for entry in TABLE {
            assert_eq!(desc(entry.nr).map(|d| d.name), Some(entry.name));
            assert!(entry.args.len() <= 6, "{}", entry.name);
        }
        assert!(desc(MAX_NR as u32 - 1).is_none());
        assert!(desc(u32::MAX).is_none());
    }

    #[test]
    fn lengths_follow_the_registers() {
        let none = |_| None;
        assert_eq!(Len::Arg(1).bytes(&[0, 9, 0, 0, 0, 0], none), Some(9));
        assert_eq!(Len::Times(0, 12).bytes(&[3, 0, 0, 0, 0, 0], none), Some(36));
        for (nfds, bytes) in [(0, 0), (1, 8), (64, 8), (65, 16), (u64::MAX, 0)] {
            assert_eq!(
                Len::Bits(0).bytes(&[nfds, 0, 0, 0, 0, 0], none),
                Some(bytes),
                "{nfds}"
            );
        }
        assert_eq!(Len::At(0).bytes(&[0; 6], none), Some(0));
        assert_eq!(Len::At(0).bytes(&[1; 6], none), None);
        assert_eq!(Len::At(0).bytes(&[1; 6], |_| Some(16)), Some(16));
        assert_eq!(Len::Ioctl(1).bytes(&[0, 0x541b, 0, 0, 0, 0], none), Some(4));
        assert_eq!(Len::Fcntl(1).bytes(&[0, 6, 0, 0, 0, 0], none), Some(32));
    }

    #[test]
    fn typed_arguments_take_the_low_bits() {
        let a = args::read::from(&[0xffff_ffff_ffff_ffff, 0x1000, 5, 0, 0, 0]);
        assert_eq!((a.fd, a.buf, a.count), (-1, UserAddr(0x1000), 5));
    }
}

//! Typed stubs of every call, made from the table and usable over anything that can invoke a call: a local
//! lwp or a remote client.

use core::ffi::CStr;

use crate::SysResult;

/// One argument of a call as a caller in safe Rust has it.
#[derive(Debug)]
pub enum Arg<'a> {
    /// A value in a register.
    Val(u64),
    /// A string the kernel reads.
    Str(&'a CStr),
    /// Memory the kernel reads.
    In(&'a [u8]),
    /// Memory the kernel writes, or reads and writes.
    Out(&'a mut [u8]),
}

/// Something that can carry out a system call: an lwp of a kernel in this process, or a client of a remote one.
pub trait Invoke {
    /// Carries out call number `nr`. The kernel reaches only the memory named in `args`; a call that is given
    /// a length beyond it answers `EFAULT`.
    fn invoke(&self, nr: u32, args: &mut [Arg<'_>]) -> SysResult;
}

/// The Rust type in which a stub takes an argument of a kind.
macro_rules! stub_ty {
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
    (Path) => {
        &core::ffi::CStr
    };
    (Str) => {
        &core::ffi::CStr
    };
    (In) => {
        &[u8]
    };
    (Out) => {
        &mut [u8]
    };
    (InOut) => {
        &mut [u8]
    };
    (IovIn) => {
        &[u8]
    };
    (IovOut) => {
        &mut [u8]
    };
    (Addr) => {
        u64
    };
}
pub(crate) use stub_ty;

/// The `Arg` of an argument of a kind.
macro_rules! stub_arg {
    (Path, $v:expr) => {
        Arg::Str($v)
    };
    (Str, $v:expr) => {
        Arg::Str($v)
    };
    (In, $v:expr) => {
        Arg::In($v)
    };
    (IovIn, $v:expr) => {
        Arg::In($v)
    };
    (Out, $v:expr) => {
        Arg::Out($v)
    };
    (InOut, $v:expr) => {
        Arg::Out($v)
    };
    (IovOut, $v:expr) => {
        Arg::Out($v)
    };
    ($other:ident, $v:expr) => {
        Arg::Val($v as u64)
    };
}
pub(crate) use stub_arg;

macro_rules! stubs {
    ($($name:ident ( $($arg:ident : $kind:ident),* );)*) => {
        pub(crate) mod generated_stubs {
            use super::nr;
            use crate::SysResult;
            use crate::stubs::{Arg, Invoke, stub_arg, stub_ty};

            /// Every call of the table with typed arguments, in the argument order of its manual page. An empty
            /// slice for a buffer argument passes a null pointer.
            #[allow(missing_docs, clippy::too_many_arguments)]
            pub trait Syscalls: Invoke {
                $(
                    #[inline]
                    fn $name(&self, $($arg: stub_ty!($kind)),*) -> SysResult {
                        self.invoke(nr::$name, &mut [$(stub_arg!($kind, $arg)),*])
                    }
                )*
            }

            impl<T: Invoke + ?Sized> Syscalls for T {}
        }
    };
}
pub(crate) use stubs;

pub use crate::table::Syscalls;

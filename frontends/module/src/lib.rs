//! Loadable modules: code that comes into a kernel after its boot, from a shared object or from the program that the kernel is in.
//!
//! A module and its kernel may have been built apart, by different compilers and in different languages. So all that passes between
//! them has C's layout: the module exports a word and a [`RawInfo`](raw::RawInfo), and is given a table of functions ([`raw::Ops`]).
//! [`raw`] is that interface and nothing else; `include/rump/rumpmodule.h` has it for C. Everything else stands on one of its sides:
//!
//! - in the module: [`author`], the safe interface, with the macro [`module!`](crate::module!);
//! - in the kernel's process: [`load`] brings a shared object in, [`serve`] starts it and serves the table from the kernel's own
//!   interface, `kern::module`.
//!
//! The crate has unsafe code because a module is code of unknown make in our own process: addresses come from it, and it must be
//! called. Whoever loads one trusts it as much as the program itself; what can be checked is that it was built for this interface.
//!
//! It may use `abi`, `kern` and `vfs`. Start reading at [`raw`], then [`author::Module`] or [`load::Library`].
#![deny(unsafe_op_in_unsafe_fn)]

pub mod author;
pub mod load;
pub mod memory;
pub mod raw;
pub mod serve;

pub use author::{Cx, Device, Init, Module};
pub use load::Library;

// For authors of modules, who then need no other crate.
pub use abi::{Errno, Invoke, SysResult, Syscalls, UserAddr};

/// Why a module is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The number for a program.
    pub errno: Errno,
    /// The words for a person: thing, cause, way out.
    pub text: String,
}

impl Error {
    fn new(errno: Errno, text: impl Into<String>) -> Error {
        Error {
            errno,
            text: text.into(),
        }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Error {}

//! `librump_hijack.so`: preloaded into an unmodified program, it sends the system calls that concern the kernel's files to a
//! rump kernel, and leaves the rest to the host.
//!
//! At load (`init`) the `syscall` instructions of everything that is mapped are rewritten (`scan`, `patch`) into
//! jumps to one hook ([`entry`]). The hook passes what is the host's in some ten nanoseconds; the rest goes to the
//! dispatcher (`dispatch`), which decides by the one table of system calls, by path names (`names`) and by
//! descriptors (`fds`), and calls the kernel through `rumpclient::raw`.
//!
//! The crate may use `abi`, `rumpclient`, a disassembler, and libc in the constructor only. Inside the hook nothing is
//! allocated, nothing of libc is called, and no lock is held while the kernel works: the program may be anywhere, in
//! its `malloc` or in a signal handler. The crate has unsafe code because all of this is about machine code and
//! other people's memory; each block says why it may.
//!
//! Start reading at [`entry`], then `dispatch`.

pub mod config;
pub mod entry;

mod areas;
mod cwd;
mod dispatch;
mod elf;
mod epoll;
mod exec;
mod fds;
mod init;
mod interfaces;
mod maps;
mod mapvec;
mod mem;
mod memory;
mod message;
mod names;
mod objects;
mod patch;
mod poll;
mod process;
mod retry;
mod scan;
mod select;
mod state;
mod sys;
mod transfer;

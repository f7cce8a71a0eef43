//! Structures that cross the line between kernel and user, with Linux's x86-64 layout.

use crate::layout::abi_struct;

/// An address in a client's memory. The kernel never follows it itself: only a `UserMemory` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct UserAddr(pub u64);

impl UserAddr {
    /// The null pointer.
    pub const NULL: UserAddr = UserAddr(0);

    /// Whether this is the null pointer.
    pub const fn is_null(self) -> bool {
        self.0 == 0
    }

    /// The address `bytes` further on; wraps, as a hostile client's pointer may.
    #[must_use]
    pub const fn add(self, bytes: usize) -> UserAddr {
        UserAddr(self.0.wrapping_add(bytes as u64))
    }
}

abi_struct! {
    /// `struct stat`, stat(2). Times are seconds and nanoseconds since the epoch; `st_blocks` counts 512-byte units.
    pub struct Stat = 144 {
        st_dev: u64, st_ino: u64, st_nlink: u64,
        st_mode: u32, st_uid: u32, st_gid: u32, pad0: u32,
        st_rdev: u64, st_size: i64, st_blksize: i64, st_blocks: i64,
        st_atime: i64, st_atime_nsec: i64,
        st_mtime: i64, st_mtime_nsec: i64,
        st_ctime: i64, st_ctime_nsec: i64,
        unused0: i64, unused1: i64, unused2: i64,
    }
}

abi_struct! {
    /// `struct timespec`: seconds and nanoseconds.
    pub struct Timespec = 16 { tv_sec: i64, tv_nsec: i64, }
}

abi_struct! {
    /// `struct iovec`: one buffer of a vectored call.
    pub struct Iovec = 16 { iov_base: u64, iov_len: u64, }
}

abi_struct! {
    /// `struct pollfd`, poll(2).
    pub struct Pollfd = 8 { fd: i32, events: i16, revents: i16, }
}

abi_struct! {
    /// `struct epoll_event`, packed on x86-64, epoll_ctl(2).
    pub struct EpollEvent = 12 { events: u32, data: u64, }
}

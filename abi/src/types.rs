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

abi_struct! {
    /// NetBSD's `struct kevent`, kqueue(2).
    pub struct Kevent = 40 { ident: u64, filter: u32, flags: u32, fflags: u32, pad0: u32, data: i64, udata: u64, }
}

abi_struct! {
    /// `struct timeval`: seconds and microseconds.
    pub struct Timeval = 16 { tv_sec: i64, tv_usec: i64, }
}

abi_struct! {
    /// `struct itimerspec`, timerfd_settime(2).
    pub struct Itimerspec = 32 { interval_sec: i64, interval_nsec: i64, value_sec: i64, value_nsec: i64, }
}

abi_struct! {
    /// `struct rlimit`, getrlimit(2).
    pub struct Rlimit = 16 { rlim_cur: u64, rlim_max: u64, }
}

abi_struct! {
    /// `struct flock`, fcntl(2).
    pub struct Flock = 32 { l_type: i16, l_whence: i16, pad0: u32, l_start: i64, l_len: i64, l_pid: i32, pad1: u32, }
}

abi_struct! {
    /// `struct statfs`, statfs(2).
    pub struct Statfs = 120 {
        f_type: u64, f_bsize: u64, f_blocks: u64, f_bfree: u64, f_bavail: u64, f_files: u64, f_ffree: u64,
        f_fsid: u64, f_namelen: u64, f_frsize: u64, f_flags: u64, spare0: u64, spare1: u64, spare2: u64, spare3: u64,
    }
}

abi_struct! {
    /// `struct statx_timestamp`.
    pub struct StatxTimestamp = 16 { tv_sec: i64, tv_nsec: u32, pad: u32, }
}

abi_struct! {
    /// `struct statx`, statx(2).
    pub struct Statx = 256 {
        stx_mask: u32, stx_blksize: u32, stx_attributes: u64,
        stx_nlink: u32, stx_uid: u32, stx_gid: u32, stx_mode: u16, pad0: u16,
        stx_ino: u64, stx_size: u64, stx_blocks: u64, stx_attributes_mask: u64,
        atime_sec: i64, atime_nsec: u32, pad1: u32,
        btime_sec: i64, btime_nsec: u32, pad2: u32,
        ctime_sec: i64, ctime_nsec: u32, pad3: u32,
        mtime_sec: i64, mtime_nsec: u32, pad4: u32,
        stx_rdev_major: u32, stx_rdev_minor: u32, stx_dev_major: u32, stx_dev_minor: u32,
        stx_mnt_id: u64, stx_dio_mem_align: u32, stx_dio_offset_align: u32,
        spare0: u64, spare1: u64, spare2: u64, spare3: u64, spare4: u64, spare5: u64,
        spare6: u64, spare7: u64, spare8: u64, spare9: u64, spare10: u64, spare11: u64,
    }
}

abi_struct! {
    /// `struct sysinfo`, sysinfo(2).
    pub struct Sysinfo = 112 {
        uptime: i64, load1: u64, load5: u64, load15: u64, totalram: u64, freeram: u64, sharedram: u64, bufferram: u64,
        totalswap: u64, freeswap: u64, procs: u16, pad0: u16, pad1: u32, totalhigh: u64, freehigh: u64,
        mem_unit: u32, pad2: u32,
    }
}

abi_struct! {
    /// `struct open_how`, openat2(2).
    pub struct OpenHow = 24 { flags: u64, mode: u64, resolve: u64, }
}

abi_struct! {
    /// One open descriptor, as `getfdinfo` gives it.
    pub struct Fdinfo = 8 { fd: i32, cloexec: u32, }
}

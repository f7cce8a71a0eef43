//! Files without a name: what fstat(2) says of pipes, eventfds and their like.

use abi::Stat;
use hypercall::{Clock, Nanos};

use crate::Curlwp;

/// Device number of all files without a name, as Linux's pipefs has one.
const DEVICE: u64 = 0x0d;

/// Who and what such a file is.
pub struct Ident {
    ino: u64,
    uid: u32,
    gid: u32,
    born: Nanos,
}

impl Ident {
    /// A new one of the current process's.
    pub fn new(cx: &Curlwp<'_>) -> Ident {
        let cred = cx.cred();
        Ident {
            ino: cx.kernel().next_anon_ino(),
            uid: cred.euid,
            gid: cred.egid,
            born: cx.now(Clock::Realtime),
        }
    }

    /// What fstat(2) answers, with file type and permissions.
    pub fn stat(&self, mode: u32) -> Stat {
        let (sec, nsec) = (
            (self.born / 1_000_000_000) as i64,
            (self.born % 1_000_000_000) as i64,
        );
        Stat {
            st_dev: DEVICE,
            st_ino: self.ino,
            st_nlink: 1,
            st_mode: mode,
            st_uid: self.uid,
            st_gid: self.gid,
            st_blksize: 4096,
            st_atime: sec,
            st_atime_nsec: nsec,
            st_mtime: sec,
            st_mtime_nsec: nsec,
            st_ctime: sec,
            st_ctime_nsec: nsec,
            ..Stat::default()
        }
    }
}

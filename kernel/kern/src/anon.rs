//! Files without a name: what fstat(2) says of pipes, eventfds and their like.

use abi::Stat;
use hypercall::{Clock, Nanos};

use crate::Curlwp;

/// Device number of all files without a name, as Linux's pipefs has one.
const DEVICE: u64 = 0x0d;

/// Who and what such a file is, without when: enough for a socket, whose times are none.
pub struct Owner {
    ino: u64,
    uid: u32,
    gid: u32,
}

impl Owner {
    /// A new file's of the current process.
    pub fn new(cx: &Curlwp<'_>) -> Owner {
        let cred = cx.cred();
        Owner {
            ino: cx.kernel().next_anon_ino(),
            uid: cred.euid,
            gid: cred.egid,
        }
    }

    /// The file's number, which no other of the kernel has.
    pub fn ino(&self) -> u64 {
        self.ino
    }

    /// What fstat(2) answers, with file type and permissions.
    pub fn stat(&self, mode: u32) -> Stat {
        Stat {
            st_dev: DEVICE,
            st_ino: self.ino,
            st_nlink: 1,
            st_mode: mode,
            st_uid: self.uid,
            st_gid: self.gid,
            st_blksize: 4096,
            ..Stat::default()
        }
    }
}

/// Who and what such a file is.
pub struct Ident {
    owner: Owner,
    born: Nanos,
}

impl Ident {
    /// A new one of the current process's.
    pub fn new(cx: &Curlwp<'_>) -> Ident {
        Ident {
            owner: Owner::new(cx),
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
            st_atime: sec,
            st_atime_nsec: nsec,
            st_mtime: sec,
            st_mtime_nsec: nsec,
            st_ctime: sec,
            st_ctime_nsec: nsec,
            ..self.owner.stat(mode)
        }
    }
}

//! flock(2).

use abi::{Errno, LOCK_EX, LOCK_NB, LOCK_SH, LOCK_UN, SysResult, args};
use kern::Curlwp;

use super::vnode_file;

/// flock(2).
pub(super) fn flock(cx: &Curlwp<'_>, a: args::flock) -> SysResult {
    let write = match a.operation & !LOCK_NB {
        LOCK_SH => Some(false),
        LOCK_EX => Some(true),
        LOCK_UN => None,
        _ => return Err(Errno::EINVAL),
    };
    vnode_file(cx, a.fd, Errno::EINVAL, |of, file| {
        file.flock(cx, of, write, a.operation & LOCK_NB == 0)?;
        Ok(0)
    })
}

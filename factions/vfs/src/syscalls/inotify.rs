//! inotify(7).

use std::sync::Arc;

use abi::{AT_FDCWD, Errno, O_CLOEXEC, O_NONBLOCK, O_RDONLY, SysResult, args};
use kern::{Curlwp, OpenFile};

use super::known_flags;
use crate::access::{self, Want};
use crate::inotify::{IN_DONT_FOLLOW, IN_ONLYDIR, Inotify};
use crate::namei::namei;

/// inotify_init(2).
pub(super) fn inotify_init(cx: &Curlwp<'_>, _: args::inotify_init) -> SysResult {
    init(cx, 0)
}

/// inotify_init1(2).
pub(super) fn inotify_init1(cx: &Curlwp<'_>, a: args::inotify_init1) -> SysResult {
    known_flags(a.flags, O_CLOEXEC | O_NONBLOCK)?;
    init(cx, a.flags)
}

fn init(cx: &Curlwp<'_>, flags: i32) -> SysResult {
    let of = OpenFile::new(Inotify::new(cx), O_RDONLY | flags & O_NONBLOCK);
    Ok(cx.install(of, flags & O_CLOEXEC != 0)?.into())
}

/// Runs `f` with the instance behind a descriptor. `EINVAL` for something else.
fn with(cx: &Curlwp<'_>, fd: i32, f: impl FnOnce(&Inotify) -> Result<i32, Errno>) -> SysResult {
    let of: Arc<OpenFile> = cx.file(fd)?;
    Ok(f(of.downcast().ok_or(Errno::EINVAL)?)?.into())
}

/// inotify_add_watch(2).
pub(super) fn inotify_add_watch(cx: &Curlwp<'_>, a: args::inotify_add_watch) -> SysResult {
    let mask = a.mask as u32;
    with(cx, a.fd, |inotify| {
        let path = cx.copyin_path(a.path)?;
        let vp = namei(cx, AT_FDCWD, &path, mask & IN_DONT_FOLLOW == 0)?;
        if mask & IN_ONLYDIR != 0 && !vp.is_dir() {
            return Err(Errno::ENOTDIR);
        }
        access::check(cx, &cx.cred(), &vp, Want::READ)?;
        inotify.add(cx, vp, mask)
    })
}

/// inotify_rm_watch(2).
pub(super) fn inotify_rm_watch(cx: &Curlwp<'_>, a: args::inotify_rm_watch) -> SysResult {
    with(cx, a.fd, |inotify| inotify.remove(cx, a.wd).map(|()| 0))
}

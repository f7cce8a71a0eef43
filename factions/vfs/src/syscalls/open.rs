//! Opening.

use std::sync::Arc;

use abi::{
    AT_FDCWD, Errno, O_ACCMODE, O_CLOEXEC, O_CREAT, O_DIRECTORY, O_EXCL, O_LARGEFILE, O_NOATIME,
    O_NOCTTY, O_NOFOLLOW, O_PATH, O_RDONLY, O_RDWR, O_TMPFILE, O_TRUNC, O_WRONLY, SysResult, args,
};
use kern::{Curlwp, OpenFile};

use crate::access::{self, Change, Want};
use crate::file::VnodeFile;
use crate::namei::{Goal, Walk, resolve};
use crate::names::{Create, open_or_create};
use crate::{Vnode, VnodeKind, pages};

/// Flags that openat2(2) knows.
const KNOWN_FLAGS: u64 = 0o37777703 & !(1 << 27);
/// Flags that count together with `O_PATH`.
const PATH_FLAGS: i32 = O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;

/// open(2).
pub(super) fn open(cx: &Curlwp<'_>, a: args::open) -> SysResult {
    open_path(cx, AT_FDCWD, a.path, a.flags, a.mode, 0)
}

/// openat(2).
pub(super) fn openat(cx: &Curlwp<'_>, a: args::openat) -> SysResult {
    open_path(cx, a.dirfd, a.path, a.flags, a.mode, 0)
}

/// creat(2).
pub(super) fn creat(cx: &Curlwp<'_>, a: args::creat) -> SysResult {
    open_path(
        cx,
        AT_FDCWD,
        a.path,
        O_CREAT | O_WRONLY | O_TRUNC,
        a.mode,
        0,
    )
}

/// openat2(2).
pub(super) fn openat2(cx: &Curlwp<'_>, a: args::openat2) -> SysResult {
    if a.size < abi::OpenHow::SIZE {
        return Err(Errno::EINVAL);
    }
    let mut raw = [0; 64];
    let raw = raw.get_mut(..a.size).ok_or(Errno::E2BIG)?;
    cx.copyin(a.how, raw)?;
    let (how, more) = raw.split_first_chunk().ok_or(Errno::EINVAL)?;
    if more.iter().any(|&b| b != 0) {
        return Err(Errno::E2BIG);
    }
    let how = abi::OpenHow::from_bytes(how);
    let makes = how.flags & (O_CREAT | (O_TMPFILE & !O_DIRECTORY)) as u64 != 0;
    let all = resolve::NO_XDEV
        | resolve::NO_MAGICLINKS
        | resolve::NO_SYMLINKS
        | resolve::BENEATH
        | resolve::IN_ROOT
        | resolve::CACHED;
    let scopes = resolve::BENEATH | resolve::IN_ROOT;
    if how.flags & !KNOWN_FLAGS != 0
        || how.resolve & !all != 0
        || how.resolve & scopes == scopes
        || how.mode & !0o7777 != 0
        || !makes && how.mode != 0
    {
        return Err(Errno::EINVAL);
    }
    if how.resolve & resolve::CACHED != 0 {
        // Whether a walk would wait cannot be promised ahead: the caller is to ask again without.
        return Err(Errno::EAGAIN);
    }
    open_path(
        cx,
        a.dirfd,
        a.path,
        how.flags as i32,
        how.mode as u32,
        how.resolve,
    )
}

fn open_path(
    cx: &Curlwp<'_>,
    dirfd: i32,
    path: abi::UserAddr,
    flags: i32,
    mode: u32,
    limits: u64,
) -> SysResult {
    let path = cx.copyin_path(path)?;
    let of = vn_open(cx, dirfd, &path, flags, mode, limits)?;
    install(cx, of, flags)
}

/// Opens a vnode that was found otherwise than by a path.
pub(super) fn open_vnode(cx: &Curlwp<'_>, vp: Arc<Vnode>, flags: i32) -> SysResult {
    may_open(cx, &vp, flags)?;
    let of = open_found(cx, vp, false, flags)?;
    install(cx, of, flags)
}

fn install(cx: &Curlwp<'_>, of: Arc<OpenFile>, flags: i32) -> SysResult {
    match cx.install(of.clone(), flags & O_CLOEXEC != 0) {
        Ok(fd) => Ok(i64::from(fd)),
        Err(error) => {
            of.file().close(cx, &of);
            Err(error)
        }
    }
}

/// Opens a path.
fn vn_open(
    cx: &Curlwp<'_>,
    dirfd: i32,
    path: &[u8],
    mut flags: i32,
    mode: u32,
    limits: u64,
) -> Result<Arc<OpenFile>, Errno> {
    if flags & O_PATH != 0 {
        flags &= PATH_FLAGS;
    }
    if flags & (O_TMPFILE & !O_DIRECTORY) != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    if flags & (O_CREAT | O_DIRECTORY) == O_CREAT | O_DIRECTORY {
        return Err(Errno::EINVAL);
    }
    let (vp, made) = find(cx, dirfd, path, flags, mode, limits)?;
    if !made {
        may_open(cx, &vp, flags)?;
    }
    open_found(cx, vp, made, flags)
}

/// Opens what may be opened so.
fn open_found(
    cx: &Curlwp<'_>,
    vp: Arc<Vnode>,
    made: bool,
    flags: i32,
) -> Result<Arc<OpenFile>, Errno> {
    let file = VnodeFile::open(cx, vp, flags)?;
    let kept = flags & !(O_CREAT | O_EXCL | O_NOCTTY | O_TRUNC | O_CLOEXEC) | O_LARGEFILE;
    let of = OpenFile::new(file.clone(), kept);
    if flags & O_TRUNC != 0 && !made && file.vnode().kind == VnodeKind::Regular {
        let cut = Change::begin(cx, file.vnode()).and_then(|_change| {
            access::clear_set_id(cx, file.vnode())?;
            pages::truncate(cx, file.vnode(), 0)
        });
        cut.inspect_err(|_| of.file().close(cx, &of))?;
    }
    Ok(of)
}

/// The vnode to open, and whether it had to be made.
fn find(
    cx: &Curlwp<'_>,
    dirfd: i32,
    path: &[u8],
    flags: i32,
    mode: u32,
    limits: u64,
) -> Result<(Arc<Vnode>, bool), Errno> {
    let exclusive = flags & (O_CREAT | O_EXCL) == O_CREAT | O_EXCL;
    let goal = if flags & O_NOFOLLOW != 0 || exclusive {
        Goal::NoFollow
    } else {
        Goal::Follow
    };
    loop {
        let cred = cx.cred();
        let at = Walk::new(cx, &cred, dirfd, path, limits)?.to(goal)?;
        if flags & O_CREAT == 0 {
            return at.vp.map(|vp| (vp, false)).ok_or(Errno::ENOENT);
        }
        if at.slash {
            return Err(Errno::EISDIR);
        }
        if let Some(vp) = at.vp {
            return if exclusive {
                Err(Errno::EEXIST)
            } else {
                Ok((vp, false))
            };
        }
        let new = Create {
            kind: VnodeKind::Regular,
            perm: mode & 0o7777,
            rdev: 0,
            target: &[],
        };
        match open_or_create(cx, &at, &new)? {
            (_, false) if exclusive => return Err(Errno::EEXIST),
            // Somebody was faster, and made a link or a mount point: look again.
            (vp, false) if vp.kind == VnodeKind::Symlink || vp.is_dir() => {}
            found => return Ok(found),
        }
    }
}

/// Whether what is there may be opened so.
fn may_open(cx: &Curlwp<'_>, vp: &Arc<Vnode>, flags: i32) -> Result<(), Errno> {
    if flags & O_DIRECTORY != 0 && !vp.is_dir() {
        return Err(Errno::ENOTDIR);
    }
    if flags & O_PATH != 0 {
        return Ok(());
    }
    if vp.kind == VnodeKind::Symlink {
        return Err(Errno::ELOOP);
    }
    let mut want = match flags & O_ACCMODE {
        O_RDONLY => Want::READ,
        O_WRONLY => Want::WRITE,
        O_RDWR => Want(Want::READ.0 | Want::WRITE.0),
        _ => return Err(Errno::EINVAL),
    };
    if flags & O_TRUNC != 0 {
        want.0 |= Want::WRITE.0;
    }
    let writes = want.0 & Want::WRITE.0 != 0;
    if vp.is_dir() && (writes || flags & O_CREAT != 0) {
        return Err(Errno::EISDIR);
    }
    let cred = cx.cred();
    access::check(cx, &cred, vp, want)?;
    if flags & O_NOATIME != 0 {
        access::owner(&cred, &vp.attr(cx))?;
    }
    Ok(())
}

//! Making and removing names.

use abi::{
    AT_EMPTY_PATH, AT_FDCWD, AT_REMOVEDIR, AT_SYMLINK_FOLLOW, AT_SYMLINK_NOFOLLOW, Errno,
    RENAME_EXCHANGE, RENAME_NOREPLACE, SysResult, UserAddr, args,
};
use kern::Curlwp;

use super::known_flags;
use crate::VnodeKind;
use crate::namei::{namei_at, parent};
use crate::names::{self, Create, Onto};

/// mkdir(2).
pub(super) fn mkdir(cx: &Curlwp<'_>, a: args::mkdir) -> SysResult {
    make_dir(cx, AT_FDCWD, a.path, a.mode)
}

/// mkdirat(2).
pub(super) fn mkdirat(cx: &Curlwp<'_>, a: args::mkdirat) -> SysResult {
    make_dir(cx, a.dirfd, a.path, a.mode)
}

fn make_dir(cx: &Curlwp<'_>, dirfd: i32, path: UserAddr, mode: u32) -> SysResult {
    let path = cx.copyin_path(path)?;
    let new = Create {
        kind: VnodeKind::Directory,
        perm: mode & 0o1777,
        rdev: 0,
        target: &[],
    };
    names::create(cx, &parent(cx, dirfd, &path)?, &new)?;
    Ok(0)
}

/// mknod(2).
pub(super) fn mknod(cx: &Curlwp<'_>, a: args::mknod) -> SysResult {
    make_node(cx, AT_FDCWD, a.path, a.mode, a.dev)
}

/// mknodat(2).
pub(super) fn mknodat(cx: &Curlwp<'_>, a: args::mknodat) -> SysResult {
    make_node(cx, a.dirfd, a.path, a.mode, a.dev)
}

fn make_node(cx: &Curlwp<'_>, dirfd: i32, path: UserAddr, mode: u32, dev: u32) -> SysResult {
    let kind = match mode & 0o170000 {
        0 => VnodeKind::Regular,
        _ => VnodeKind::from_mode(mode).ok_or(Errno::EINVAL)?,
    };
    let rdev = match kind {
        VnodeKind::Directory => return Err(Errno::EPERM),
        VnodeKind::Symlink => return Err(Errno::EINVAL),
        VnodeKind::Character | VnodeKind::Block => {
            if !cx.cred().is_superuser() {
                return Err(Errno::EPERM);
            }
            u64::from(dev)
        }
        _ => 0,
    };
    let path = cx.copyin_path(path)?;
    names::create(
        cx,
        &parent(cx, dirfd, &path)?,
        &Create {
            kind,
            perm: mode & 0o7777,
            rdev,
            target: &[],
        },
    )?;
    Ok(0)
}

/// symlink(2).
pub(super) fn symlink(cx: &Curlwp<'_>, a: args::symlink) -> SysResult {
    make_symlink(cx, a.target, AT_FDCWD, a.linkpath)
}

/// symlinkat(2).
pub(super) fn symlinkat(cx: &Curlwp<'_>, a: args::symlinkat) -> SysResult {
    make_symlink(cx, a.target, a.newdirfd, a.linkpath)
}

fn make_symlink(cx: &Curlwp<'_>, target: UserAddr, dirfd: i32, path: UserAddr) -> SysResult {
    let target = cx.copyin_path(target)?;
    if target.is_empty() {
        return Err(Errno::ENOENT);
    }
    let path = cx.copyin_path(path)?;
    let new = Create {
        kind: VnodeKind::Symlink,
        perm: 0o777,
        rdev: 0,
        target: &target,
    };
    names::create(cx, &parent(cx, dirfd, &path)?, &new)?;
    Ok(0)
}

/// link(2).
pub(super) fn link(cx: &Curlwp<'_>, a: args::link) -> SysResult {
    make_link(cx, AT_FDCWD, a.oldpath, AT_FDCWD, a.newpath, 0)
}

/// linkat(2).
pub(super) fn linkat(cx: &Curlwp<'_>, a: args::linkat) -> SysResult {
    known_flags(a.flags, AT_SYMLINK_FOLLOW | AT_EMPTY_PATH)?;
    make_link(cx, a.olddirfd, a.oldpath, a.newdirfd, a.newpath, a.flags)
}

fn make_link(
    cx: &Curlwp<'_>,
    old_dirfd: i32,
    old: UserAddr,
    new_dirfd: i32,
    new: UserAddr,
    flags: i32,
) -> SysResult {
    let follow = if flags & AT_SYMLINK_FOLLOW != 0 {
        0
    } else {
        AT_SYMLINK_NOFOLLOW
    };
    let vp = namei_at(
        cx,
        old_dirfd,
        &cx.copyin_path(old)?,
        flags & AT_EMPTY_PATH | follow,
    )?;
    let path = cx.copyin_path(new)?;
    names::link(cx, &vp, &parent(cx, new_dirfd, &path)?)?;
    Ok(0)
}

/// unlink(2).
pub(super) fn unlink(cx: &Curlwp<'_>, a: args::unlink) -> SysResult {
    let path = cx.copyin_path(a.path)?;
    names::unlink(cx, &parent(cx, AT_FDCWD, &path)?)?;
    Ok(0)
}

/// rmdir(2).
pub(super) fn rmdir(cx: &Curlwp<'_>, a: args::rmdir) -> SysResult {
    let path = cx.copyin_path(a.path)?;
    names::rmdir(cx, &parent(cx, AT_FDCWD, &path)?)?;
    Ok(0)
}

/// unlinkat(2).
pub(super) fn unlinkat(cx: &Curlwp<'_>, a: args::unlinkat) -> SysResult {
    known_flags(a.flags, AT_REMOVEDIR)?;
    let path = cx.copyin_path(a.path)?;
    let at = parent(cx, a.dirfd, &path)?;
    match a.flags & AT_REMOVEDIR {
        0 => names::unlink(cx, &at)?,
        _ => names::rmdir(cx, &at)?,
    }
    Ok(0)
}

/// rename(2).
pub(super) fn rename(cx: &Curlwp<'_>, a: args::rename) -> SysResult {
    do_rename(cx, AT_FDCWD, a.oldpath, AT_FDCWD, a.newpath, 0)
}

/// renameat(2).
pub(super) fn renameat(cx: &Curlwp<'_>, a: args::renameat) -> SysResult {
    do_rename(cx, a.olddirfd, a.oldpath, a.newdirfd, a.newpath, 0)
}

/// renameat2(2).
pub(super) fn renameat2(cx: &Curlwp<'_>, a: args::renameat2) -> SysResult {
    do_rename(cx, a.olddirfd, a.oldpath, a.newdirfd, a.newpath, a.flags)
}

fn do_rename(
    cx: &Curlwp<'_>,
    old_dirfd: i32,
    old: UserAddr,
    new_dirfd: i32,
    new: UserAddr,
    flags: i32,
) -> SysResult {
    let onto = match flags {
        0 => Onto::Replace,
        RENAME_NOREPLACE => Onto::Nothing,
        RENAME_EXCHANGE => Onto::Exchange,
        _ => return Err(Errno::EINVAL),
    };
    let (old, new) = (cx.copyin_path(old)?, cx.copyin_path(new)?);
    names::rename(
        cx,
        &parent(cx, old_dirfd, &old)?,
        &parent(cx, new_dirfd, &new)?,
        onto,
    )?;
    Ok(0)
}

/// readlink(2).
pub(super) fn readlink(cx: &Curlwp<'_>, a: args::readlink) -> SysResult {
    read_link(cx, AT_FDCWD, a.path, a.buf, a.bufsiz)
}

/// readlinkat(2).
pub(super) fn readlinkat(cx: &Curlwp<'_>, a: args::readlinkat) -> SysResult {
    read_link(cx, a.dirfd, a.path, a.buf, a.bufsiz)
}

fn read_link(cx: &Curlwp<'_>, dirfd: i32, path: UserAddr, buf: UserAddr, size: usize) -> SysResult {
    if size as i32 <= 0 {
        return Err(Errno::EINVAL);
    }
    let path = cx.copyin_path(path)?;
    let vp = namei_at(cx, dirfd, &path, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)?;
    if vp.kind != VnodeKind::Symlink {
        return Err(if path.is_empty() {
            Errno::ENOENT
        } else {
            Errno::EINVAL
        });
    }
    let target = vp.with_use(cx, || vp.ops().readlink(cx, &vp))?;
    let len = target.len().min(size);
    cx.copyout(&target[..len], buf)?;
    Ok(len as i64)
}

//! Asking about files.

use std::sync::Arc;

use abi::{
    AT_EACCESS, AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW, Errno, Statx, SysResult, UserAddr,
    args,
};
use kern::{Cred, Curlwp};

use super::known_flags;
use crate::access::{self, Want};
use crate::devsw::{major, minor};
use crate::namei::{Goal, Walk, namei, namei_at};
use crate::{Vnode, VnodeKind};

const AT_NO_AUTOMOUNT: i32 = 0x800;
const AT_STATX_SYNC_TYPE: i32 = 0x6000;

/// stat(2).
pub(super) fn stat(cx: &Curlwp<'_>, a: args::stat) -> SysResult {
    stat_path(cx, a.path, true, a.statbuf)
}

/// lstat(2).
pub(super) fn lstat(cx: &Curlwp<'_>, a: args::lstat) -> SysResult {
    stat_path(cx, a.path, false, a.statbuf)
}

#[inline]
fn stat_path(cx: &Curlwp<'_>, path: UserAddr, follow: bool, to: UserAddr) -> SysResult {
    let path = cx.copyin_path(path)?;
    let vp = namei(cx, AT_FDCWD, &path, follow)?;
    cx.copyout(&vp.stat(cx).to_bytes(), to)?;
    Ok(0)
}

/// fstatat(2).
pub(super) fn newfstatat(cx: &Curlwp<'_>, a: args::newfstatat) -> SysResult {
    known_flags(
        a.flags,
        AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH | AT_NO_AUTOMOUNT,
    )?;
    let path = path_or_none(cx, a.path, a.flags)?;
    let stat = if path.is_empty() && a.flags & AT_EMPTY_PATH != 0 && a.dirfd != AT_FDCWD {
        // Any descriptor will do, a pipe's too.
        cx.proc().fds().with(a.dirfd, |of| of.file().stat(cx))?
    } else {
        namei_at(cx, a.dirfd, &path, a.flags)?.stat(cx)
    };
    cx.copyout(&stat.to_bytes(), a.statbuf)?;
    Ok(0)
}

/// The path; with `AT_EMPTY_PATH` a null pointer is an empty one, as newer Linux takes it.
fn path_or_none(cx: &Curlwp<'_>, path: UserAddr, flags: i32) -> Result<kern::PathBytes, Errno> {
    if path.is_null() && flags & AT_EMPTY_PATH != 0 {
        return Ok(kern::PathBytes::new());
    }
    cx.copyin_path(path)
}

/// What statx(2) always tells: `STATX_BASIC_STATS`, and the time of birth and mount number where there are.
const STATX_BASIC_STATS: u32 = 0x7ff;
const STATX_BTIME: u32 = 0x800;
const STATX_MNT_ID: u32 = 0x1000;
const STATX_RESERVED: i32 = i32::MIN;
const STATX_ATTR_MOUNT_ROOT: u64 = 0x2000;

/// statx(2).
pub(super) fn statx(cx: &Curlwp<'_>, a: args::statx) -> SysResult {
    known_flags(
        a.flags,
        AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH | AT_NO_AUTOMOUNT | AT_STATX_SYNC_TYPE,
    )?;
    if a.mask & STATX_RESERVED != 0 || a.flags & AT_STATX_SYNC_TYPE == AT_STATX_SYNC_TYPE {
        return Err(Errno::EINVAL);
    }
    let path = path_or_none(cx, a.path, a.flags)?;
    let (stat, vp) = if path.is_empty() && a.flags & AT_EMPTY_PATH != 0 && a.dirfd != AT_FDCWD {
        let stat = cx.proc().fds().with(a.dirfd, |of| of.file().stat(cx))?;
        (stat, super::vnode_of(cx, a.dirfd, Errno::EBADF).ok())
    } else {
        let vp = namei_at(cx, a.dirfd, &path, a.flags)?;
        (vp.stat(cx), Some(vp))
    };
    let btime = vp.as_ref().map_or(0, |vp| vp.attr(cx).btime);
    let root = vp.as_ref().is_some_and(|vp| vp.is_mount_root());
    let out = Statx {
        stx_mask: STATX_BASIC_STATS | STATX_MNT_ID | if btime == 0 { 0 } else { STATX_BTIME },
        stx_blksize: stat.st_blksize as u32,
        stx_attributes: if root { STATX_ATTR_MOUNT_ROOT } else { 0 },
        stx_attributes_mask: STATX_ATTR_MOUNT_ROOT,
        stx_nlink: stat.st_nlink as u32,
        stx_uid: stat.st_uid,
        stx_gid: stat.st_gid,
        stx_mode: stat.st_mode as u16,
        stx_ino: stat.st_ino,
        stx_size: stat.st_size as u64,
        stx_blocks: stat.st_blocks as u64,
        atime_sec: stat.st_atime,
        atime_nsec: stat.st_atime_nsec as u32,
        btime_sec: (btime / 1_000_000_000) as i64,
        btime_nsec: (btime % 1_000_000_000) as u32,
        ctime_sec: stat.st_ctime,
        ctime_nsec: stat.st_ctime_nsec as u32,
        mtime_sec: stat.st_mtime,
        mtime_nsec: stat.st_mtime_nsec as u32,
        stx_rdev_major: major(stat.st_rdev),
        stx_rdev_minor: minor(stat.st_rdev),
        stx_dev_major: major(stat.st_dev),
        stx_dev_minor: minor(stat.st_dev),
        stx_mnt_id: stat.st_dev,
        ..Statx::default()
    };
    cx.copyout(&out.to_bytes(), a.statxbuf)?;
    Ok(0)
}

/// access(2).
pub(super) fn access(cx: &Curlwp<'_>, a: args::access) -> SysResult {
    may_access(cx, AT_FDCWD, a.path, a.mode, 0)
}

/// faccessat(2), as the system call has it: without flags.
pub(super) fn faccessat(cx: &Curlwp<'_>, a: args::faccessat) -> SysResult {
    may_access(cx, a.dirfd, a.path, a.mode, 0)
}

/// faccessat2(2).
pub(super) fn faccessat2(cx: &Curlwp<'_>, a: args::faccessat2) -> SysResult {
    known_flags(a.flags, AT_EACCESS | AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)?;
    may_access(cx, a.dirfd, a.path, a.mode, a.flags)
}

fn may_access(cx: &Curlwp<'_>, dirfd: i32, path: UserAddr, mode: u32, flags: i32) -> SysResult {
    if mode & !7 != 0 {
        return Err(Errno::EINVAL);
    }
    let path = cx.copyin_path(path)?;
    let effective = cx.cred();
    let real = Cred {
        euid: effective.ruid,
        egid: effective.rgid,
        ..Cred::clone(&effective)
    };
    let cred: &Cred = if flags & AT_EACCESS != 0 {
        &effective
    } else {
        &real
    };
    let vp: Arc<Vnode> = if path.is_empty() {
        namei_at(cx, dirfd, &path, flags)?
    } else {
        let goal = if flags & AT_SYMLINK_NOFOLLOW != 0 {
            Goal::NoFollow
        } else {
            Goal::Follow
        };
        Walk::new(cx, cred, dirfd, &path, 0)?
            .to(goal)?
            .vp
            .ok_or(Errno::ENOENT)?
    };
    access::permits(cred, vp.kind, &vp.attr(cx), Want(mode))?;
    let data = matches!(
        vp.kind,
        VnodeKind::Regular | VnodeKind::Directory | VnodeKind::Symlink
    );
    if mode & Want::WRITE.0 != 0 && data && vp.mount().is_some_and(|m| m.read_only()) {
        return Err(Errno::EROFS);
    }
    Ok(0)
}

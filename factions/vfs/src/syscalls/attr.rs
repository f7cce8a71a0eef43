//! Changing attributes: modes, owners, times.

use std::sync::Arc;

use abi::{
    AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW, Errno, SysResult, Timespec, Timeval, UTIME_NOW,
    UTIME_OMIT, UserAddr, args,
};
use hypercall::Nanos;
use kern::Curlwp;

use super::{known_flags, vnode_file};
use crate::access::{self, Change, S_ISGID, Want};
use crate::attr::store;
use crate::namei::{namei, namei_at};
use crate::{SetAttr, Vnode, VnodeKind};

/// chmod(2).
pub(super) fn chmod(cx: &Curlwp<'_>, a: args::chmod) -> SysResult {
    set_mode(
        cx,
        &namei(cx, AT_FDCWD, &cx.copyin_path(a.path)?, true)?,
        a.mode,
    )
}

/// fchmod(2).
pub(super) fn fchmod(cx: &Curlwp<'_>, a: args::fchmod) -> SysResult {
    vnode_file(cx, a.fd, Errno::EINVAL, |_, file| {
        set_mode(cx, file.vnode(), a.mode)
    })
}

/// fchmodat(2), as the system call has it: without flags.
pub(super) fn fchmodat(cx: &Curlwp<'_>, a: args::fchmodat) -> SysResult {
    set_mode(
        cx,
        &namei(cx, a.dirfd, &cx.copyin_path(a.path)?, true)?,
        a.mode,
    )
}

/// fchmodat2(2).
pub(super) fn fchmodat2(cx: &Curlwp<'_>, a: args::fchmodat2) -> SysResult {
    known_flags(a.flags, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)?;
    set_mode(
        cx,
        &namei_at(cx, a.dirfd, &cx.copyin_path(a.path)?, a.flags)?,
        a.mode,
    )
}

fn set_mode(cx: &Curlwp<'_>, vp: &Arc<Vnode>, mode: u32) -> SysResult {
    let _change = Change::begin(cx, vp)?;
    let (cred, attr) = (cx.cred(), vp.attr(cx));
    access::owner(&cred, &attr)?;
    if vp.kind == VnodeKind::Symlink {
        return Err(Errno::EOPNOTSUPP);
    }
    let mut perm = mode & 0o7777;
    if !cred.is_superuser() && !cred.in_group(attr.gid) {
        perm &= !S_ISGID;
    }
    let set = SetAttr {
        perm: Some(perm),
        ctime: Some(Vnode::timestamp(cx)),
        ..SetAttr::default()
    };
    store(cx, vp, &set)?;
    Ok(0)
}

/// chown(2).
pub(super) fn chown(cx: &Curlwp<'_>, a: args::chown) -> SysResult {
    set_owner(
        cx,
        &namei(cx, AT_FDCWD, &cx.copyin_path(a.path)?, true)?,
        a.owner,
        a.group,
    )
}

/// lchown(2).
pub(super) fn lchown(cx: &Curlwp<'_>, a: args::lchown) -> SysResult {
    set_owner(
        cx,
        &namei(cx, AT_FDCWD, &cx.copyin_path(a.path)?, false)?,
        a.owner,
        a.group,
    )
}

/// fchown(2).
pub(super) fn fchown(cx: &Curlwp<'_>, a: args::fchown) -> SysResult {
    vnode_file(cx, a.fd, Errno::EINVAL, |_, file| {
        set_owner(cx, file.vnode(), a.owner, a.group)
    })
}

/// fchownat(2).
pub(super) fn fchownat(cx: &Curlwp<'_>, a: args::fchownat) -> SysResult {
    known_flags(a.flags, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)?;
    set_owner(
        cx,
        &namei_at(cx, a.dirfd, &cx.copyin_path(a.path)?, a.flags)?,
        a.owner,
        a.group,
    )
}

/// Gives a file away. Only the superuser changes the owner; the owner may choose a group of its own. A program that
/// changes hands loses its set-id bits.
fn set_owner(cx: &Curlwp<'_>, vp: &Arc<Vnode>, owner: u32, group: u32) -> SysResult {
    let _change = Change::begin(cx, vp)?;
    let (cred, attr) = (cx.cred(), vp.attr(cx));
    let (uid, gid) = (
        (owner != u32::MAX).then_some(owner),
        (group != u32::MAX).then_some(group),
    );
    if !cred.is_superuser() {
        let mine = cred.euid == attr.uid;
        let keeps = uid.is_none_or(|uid| uid == attr.uid);
        let joins = gid.is_none_or(|gid| gid == attr.gid || cred.in_group(gid));
        if !mine || !keeps || !joins {
            return Err(Errno::EPERM);
        }
    }
    let perm = match vp.kind {
        VnodeKind::Directory => None,
        _ => Some(access::without_set_id(attr.perm)),
    };
    let set = SetAttr {
        perm,
        uid,
        gid,
        ctime: Some(Vnode::timestamp(cx)),
        ..SetAttr::default()
    };
    store(cx, vp, &set)?;
    Ok(0)
}

/// A time to set: a given one, the present, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Time {
    Given(Nanos),
    Now,
    Omit,
}

/// utime(2).
pub(super) fn utime(cx: &Curlwp<'_>, a: args::utime) -> SysResult {
    let times = read_times(cx, a.times, |raw: [u8; 16]| {
        let at = Timespec::from_bytes(&raw);
        Ok([given(at.tv_sec, 0)?, given(at.tv_nsec, 0)?])
    })?;
    set_times(
        cx,
        &namei(cx, AT_FDCWD, &cx.copyin_path(a.path)?, true)?,
        times,
    )
}

/// utimes(2).
pub(super) fn utimes(cx: &Curlwp<'_>, a: args::utimes) -> SysResult {
    let times = read_times(cx, a.times, timevals)?;
    set_times(
        cx,
        &namei(cx, AT_FDCWD, &cx.copyin_path(a.path)?, true)?,
        times,
    )
}

/// futimesat(2). A null path means the descriptor itself.
pub(super) fn futimesat(cx: &Curlwp<'_>, a: args::futimesat) -> SysResult {
    let times = read_times(cx, a.times, timevals)?;
    if a.path.is_null() {
        return vnode_file(cx, a.dirfd, Errno::EINVAL, |_, file| {
            set_times(cx, file.vnode(), times)
        });
    }
    set_times(
        cx,
        &namei(cx, a.dirfd, &cx.copyin_path(a.path)?, true)?,
        times,
    )
}

/// utimensat(2). A null path means the descriptor itself.
pub(super) fn utimensat(cx: &Curlwp<'_>, a: args::utimensat) -> SysResult {
    known_flags(a.flags, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)?;
    let times = read_times(cx, a.times, timespecs)?;
    if a.path.is_null() {
        return vnode_file(cx, a.dirfd, Errno::EINVAL, |_, file| {
            set_times(cx, file.vnode(), times)
        });
    }
    set_times(
        cx,
        &namei_at(cx, a.dirfd, &cx.copyin_path(a.path)?, a.flags)?,
        times,
    )
}

/// Times from the caller's memory; a null pointer means now.
fn read_times<const N: usize>(
    cx: &Curlwp<'_>,
    from: UserAddr,
    read: fn([u8; N]) -> Result<[Time; 2], Errno>,
) -> Result<[Time; 2], Errno> {
    if from.is_null() {
        return Ok([Time::Now; 2]);
    }
    let mut raw = [0; N];
    cx.copyin(from, &mut raw)?;
    read(raw)
}

fn halves(raw: &[u8; 32]) -> [[u8; 16]; 2] {
    let mut out = [[0; 16]; 2];
    out[0].copy_from_slice(&raw[..16]);
    out[1].copy_from_slice(&raw[16..]);
    out
}

fn timevals(raw: [u8; 32]) -> Result<[Time; 2], Errno> {
    let one = |raw: &[u8; 16]| {
        let tv = Timeval::from_bytes(raw);
        if !(0..1_000_000).contains(&tv.tv_usec) {
            return Err(Errno::EINVAL);
        }
        given(tv.tv_sec, tv.tv_usec * 1000)
    };
    let [a, b] = halves(&raw);
    Ok([one(&a)?, one(&b)?])
}

fn timespecs(raw: [u8; 32]) -> Result<[Time; 2], Errno> {
    let one = |raw: &[u8; 16]| {
        let ts = Timespec::from_bytes(raw);
        match ts.tv_nsec {
            UTIME_NOW => Ok(Time::Now),
            UTIME_OMIT => Ok(Time::Omit),
            0..1_000_000_000 => given(ts.tv_sec, ts.tv_nsec),
            _ => Err(Errno::EINVAL),
        }
    };
    let [a, b] = halves(&raw);
    Ok([one(&a)?, one(&b)?])
}

/// A time before the epoch or too far after it becomes the nearest that a vnode can have, as Linux does.
fn given(sec: i64, nsec: i64) -> Result<Time, Errno> {
    let sec = u64::try_from(sec)
        .unwrap_or(0)
        .min(u64::MAX / 1_000_000_000 - 1);
    Ok(Time::Given(sec * 1_000_000_000 + nsec as u64))
}

/// Sets times. The owner may set any; whoever may write may set both to now.
fn set_times(cx: &Curlwp<'_>, vp: &Arc<Vnode>, times: [Time; 2]) -> SysResult {
    if times == [Time::Omit; 2] {
        return Ok(0);
    }
    let _change = Change::begin(cx, vp)?;
    let (cred, attr) = (cx.cred(), vp.attr(cx));
    if let Err(not_owner) = access::owner(&cred, &attr) {
        if times != [Time::Now; 2] {
            return Err(not_owner);
        }
        access::permits(&cred, vp.kind, &attr, Want::WRITE)?;
    }
    let now = Vnode::timestamp(cx);
    let value = |time| match time {
        Time::Given(at) => Some(at),
        Time::Now => Some(now),
        Time::Omit => None,
    };
    let set = SetAttr {
        atime: value(times[0]),
        mtime: value(times[1]),
        ctime: Some(now),
        ..SetAttr::default()
    };
    store(cx, vp, &set)?;
    Ok(0)
}

/// umask(2).
pub(super) fn umask(cx: &Curlwp<'_>, a: args::umask) -> SysResult {
    Ok(i64::from(crate::cwd::Cwd::of(cx)?.set_umask(a.mask)))
}

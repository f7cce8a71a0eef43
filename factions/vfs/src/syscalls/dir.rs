//! Directories: reading them, and standing in them.

use std::sync::Arc;

use abi::{AT_FDCWD, Errno, SysResult, UserAddr, args};
use kern::Curlwp;

use super::{vnode_file, vnode_of};
use crate::Vnode;
use crate::access::{self, Want};
use crate::cwd::Cwd;
use crate::namei::namei;

/// The most bytes of entries that are read at once.
const CHUNK: usize = 64 * 1024;

/// getdents64(2).
pub(super) fn getdents64(cx: &Curlwp<'_>, a: args::getdents64) -> SysResult {
    read_dir(cx, a.fd, a.dirp, a.count, |out, name, kind, end| {
        out.push(kind);
        out.extend_from_slice(name);
        out.resize(end, 0);
    })
}

/// getdents(2), whose entries have the type behind the name.
pub(super) fn getdents(cx: &Curlwp<'_>, a: args::getdents) -> SysResult {
    read_dir(cx, a.fd, a.dirp, a.count, |out, name, kind, end| {
        out.extend_from_slice(name);
        out.resize(end, 0);
        out[end - 1] = kind;
    })
}

/// Reads entries from where the descriptor stands. `put` appends the last part of one, name and type, up to where the entry ends.
fn read_dir(
    cx: &Curlwp<'_>,
    fd: i32,
    to: UserAddr,
    count: usize,
    put: impl Fn(&mut Vec<u8>, &[u8], u8, usize),
) -> SysResult {
    vnode_file(cx, fd, Errno::ENOTDIR, |of, file| {
        let dir = file.vnode();
        if !dir.is_dir() {
            return Err(Errno::ENOTDIR);
        }
        let mut offset = of.lock_offset(cx);
        let limit = count.min(CHUNK);
        let mut out = Vec::with_capacity(limit.min(4096));
        let (mut next, mut full) = (*offset, false);
        {
            let _names = dir.dir.read(cx.cpu());
            if dir.is_removed() {
                return Ok(0);
            }
            dir.ops().readdir(cx, dir, next, &mut |entry| {
                // struct linux_dirent: inode, where the next is, length; then name, NUL and type, padded to 8.
                let len = (18 + entry.name.len() + 2).next_multiple_of(8);
                let end = out.len() + len;
                if end > limit {
                    full = true;
                    return false;
                }
                out.extend_from_slice(&entry.ino.to_le_bytes());
                out.extend_from_slice(&entry.next.to_le_bytes());
                out.extend_from_slice(&(len as u16).to_le_bytes());
                let kind = entry.kind.map_or(0, |kind| kind.dirent_type());
                put(&mut out, entry.name, kind, end);
                next = entry.next;
                true
            })?;
        }
        if out.is_empty() && full {
            return Err(Errno::EINVAL);
        }
        // Out of the directory's lock: the caller's memory may be at the end of a wire.
        cx.copyout(&out, to)?;
        *offset = next;
        file.accessed(cx, of);
        Ok(out.len() as i64)
    })
}

/// getcwd(2): answers the length with the NUL.
pub(super) fn getcwd(cx: &Curlwp<'_>, a: args::getcwd) -> SysResult {
    let place = Cwd::of(cx)?;
    let mut path = path_of(cx, &place.cwd(), &place.root())?;
    path.push(0);
    if path.len() > a.size {
        return Err(Errno::ERANGE);
    }
    cx.copyout(&path, a.buf)?;
    Ok(path.len() as i64)
}

/// The path of a directory from `root`. `ENOENT` when it has been removed; a path that starts with `(unreachable)`
/// when it is not below `root`, as Linux has it.
pub(crate) fn path_of(
    cx: &Curlwp<'_>,
    dir: &Arc<Vnode>,
    root: &Arc<Vnode>,
) -> Result<Vec<u8>, Errno> {
    let mut names = Vec::new();
    let mut at = dir.clone();
    let mut reached = true;
    while !Arc::ptr_eq(&at, root) {
        if at.is_removed() {
            return Err(Errno::ENOENT);
        }
        if at.is_mount_root() {
            match at.mount().and_then(|m| m.covered()) {
                Some(covered) => at = covered,
                None => {
                    reached = false;
                    break;
                }
            }
        } else {
            let (above, name) = at.place(cx).ok_or(Errno::ENOENT)?;
            names.push(name);
            at = above;
        }
    }
    let mut path = if reached {
        Vec::new()
    } else {
        b"(unreachable)".to_vec()
    };
    for name in names.iter().rev() {
        path.push(b'/');
        path.extend_from_slice(name);
    }
    if names.is_empty() {
        path.push(b'/');
    }
    Ok(path)
}

/// chdir(2).
pub(super) fn chdir(cx: &Curlwp<'_>, a: args::chdir) -> SysResult {
    let vp = namei(cx, AT_FDCWD, &cx.copyin_path(a.path)?, true)?;
    searchable(cx, &vp)?;
    Cwd::of(cx)?.chdir(cx, vp)?;
    Ok(0)
}

/// fchdir(2).
pub(super) fn fchdir(cx: &Curlwp<'_>, a: args::fchdir) -> SysResult {
    let vp = vnode_of(cx, a.fd, Errno::ENOTDIR)?;
    searchable(cx, &vp)?;
    Cwd::of(cx)?.chdir(cx, vp)?;
    Ok(0)
}

/// chroot(2).
pub(super) fn chroot(cx: &Curlwp<'_>, a: args::chroot) -> SysResult {
    let vp = namei(cx, AT_FDCWD, &cx.copyin_path(a.path)?, true)?;
    searchable(cx, &vp)?;
    if !cx.cred().is_superuser() {
        return Err(Errno::EPERM);
    }
    Cwd::of(cx)?.chroot(cx, vp)?;
    Ok(0)
}

/// fchroot(2) of NetBSD.
pub(super) fn fchroot(cx: &Curlwp<'_>, a: args::fchroot) -> SysResult {
    let vp = super::vnode_of(cx, a.fd, Errno::ENOTDIR)?;
    searchable(cx, &vp)?;
    if !cx.cred().is_superuser() {
        return Err(Errno::EPERM);
    }
    Cwd::of(cx)?.chroot(cx, vp)?;
    Ok(0)
}

fn searchable(cx: &Curlwp<'_>, vp: &Vnode) -> Result<(), Errno> {
    if !vp.is_dir() {
        return Err(Errno::ENOTDIR);
    }
    access::check(cx, &cx.cred(), vp, Want::EXEC)
}

//! Extended attributes, xattr(7).

use std::sync::Arc;

use abi::{AT_FDCWD, Errno, SysResult, UserAddr, args};
use kern::{Curlwp, PathBytes};

use super::vnode_file;
use crate::access::{self, Change, Want};
use crate::namei::namei;
use crate::{SetAttr, Vnode, VnodeKind};

const XATTR_NAME_MAX: usize = 255;
const XATTR_SIZE_MAX: usize = 65536;
const XATTR_CREATE: i32 = 1;
const XATTR_REPLACE: i32 = 2;

/// What a call works on: a path, whose last link is followed or not, or a descriptor.
#[derive(Clone, Copy)]
enum On {
    Path(UserAddr),
    Link(UserAddr),
    Fd(i32),
}

fn with<R>(
    cx: &Curlwp<'_>,
    on: On,
    f: impl FnOnce(&Arc<Vnode>) -> Result<R, Errno>,
) -> Result<R, Errno> {
    match on {
        On::Path(path) => f(&namei(cx, AT_FDCWD, &cx.copyin_path(path)?, true)?),
        On::Link(path) => f(&namei(cx, AT_FDCWD, &cx.copyin_path(path)?, false)?),
        On::Fd(fd) => vnode_file(cx, fd, Errno::EOPNOTSUPP, |_, file| f(file.vnode())),
    }
}

/// setxattr(2).
pub(super) fn setxattr(cx: &Curlwp<'_>, a: args::setxattr) -> SysResult {
    set(cx, On::Path(a.path), a.name, a.value, a.size, a.flags)
}

/// lsetxattr(2).
pub(super) fn lsetxattr(cx: &Curlwp<'_>, a: args::lsetxattr) -> SysResult {
    set(cx, On::Link(a.path), a.name, a.value, a.size, a.flags)
}

/// fsetxattr(2).
pub(super) fn fsetxattr(cx: &Curlwp<'_>, a: args::fsetxattr) -> SysResult {
    set(cx, On::Fd(a.fd), a.name, a.value, a.size, a.flags)
}

fn set(
    cx: &Curlwp<'_>,
    on: On,
    name: UserAddr,
    value: UserAddr,
    size: usize,
    flags: i32,
) -> SysResult {
    super::known_flags(flags, XATTR_CREATE | XATTR_REPLACE)?;
    if size > XATTR_SIZE_MAX {
        return Err(Errno::E2BIG);
    }
    let name = name_of(cx, name)?;
    let mut data = vec![0; size];
    cx.copyin(value, &mut data)?;
    with(cx, on, |vp| {
        let _change = Change::begin(cx, vp)?;
        may(cx, vp, &name, Want::WRITE)?;
        let (create, replace) = (flags & XATTR_CREATE != 0, flags & XATTR_REPLACE != 0);
        vp.ops().setxattr(cx, vp, &name, &data, create, replace)?;
        changed(cx, vp)
    })
}

/// getxattr(2).
pub(super) fn getxattr(cx: &Curlwp<'_>, a: args::getxattr) -> SysResult {
    get(cx, On::Path(a.path), a.name, a.value, a.size)
}

/// lgetxattr(2).
pub(super) fn lgetxattr(cx: &Curlwp<'_>, a: args::lgetxattr) -> SysResult {
    get(cx, On::Link(a.path), a.name, a.value, a.size)
}

/// fgetxattr(2).
pub(super) fn fgetxattr(cx: &Curlwp<'_>, a: args::fgetxattr) -> SysResult {
    get(cx, On::Fd(a.fd), a.name, a.value, a.size)
}

fn get(cx: &Curlwp<'_>, on: On, name: UserAddr, to: UserAddr, size: usize) -> SysResult {
    let name = name_of(cx, name)?;
    let value = with(cx, on, |vp| {
        may(cx, vp, &name, Want::READ)?;
        vp.with_use(cx, || vp.ops().getxattr(cx, vp, &name))
    })?;
    hand_over(cx, &value, to, size)
}

/// listxattr(2).
pub(super) fn listxattr(cx: &Curlwp<'_>, a: args::listxattr) -> SysResult {
    list(cx, On::Path(a.path), a.list, a.size)
}

/// llistxattr(2).
pub(super) fn llistxattr(cx: &Curlwp<'_>, a: args::llistxattr) -> SysResult {
    list(cx, On::Link(a.path), a.list, a.size)
}

/// flistxattr(2).
pub(super) fn flistxattr(cx: &Curlwp<'_>, a: args::flistxattr) -> SysResult {
    list(cx, On::Fd(a.fd), a.list, a.size)
}

fn list(cx: &Curlwp<'_>, on: On, to: UserAddr, size: usize) -> SysResult {
    let mut names = with(cx, on, |vp| vp.with_use(cx, || vp.ops().listxattr(cx, vp)))?;
    if !cx.cred().is_superuser() {
        // Trusted attributes are the superuser's to see.
        let shown = names
            .split_inclusive(|&b| b == 0)
            .filter(|name| !name.starts_with(b"trusted."));
        names = shown.flatten().copied().collect();
    }
    hand_over(cx, &names, to, size)
}

/// removexattr(2).
pub(super) fn removexattr(cx: &Curlwp<'_>, a: args::removexattr) -> SysResult {
    remove(cx, On::Path(a.path), a.name)
}

/// lremovexattr(2).
pub(super) fn lremovexattr(cx: &Curlwp<'_>, a: args::lremovexattr) -> SysResult {
    remove(cx, On::Link(a.path), a.name)
}

/// fremovexattr(2).
pub(super) fn fremovexattr(cx: &Curlwp<'_>, a: args::fremovexattr) -> SysResult {
    remove(cx, On::Fd(a.fd), a.name)
}

fn remove(cx: &Curlwp<'_>, on: On, name: UserAddr) -> SysResult {
    let name = name_of(cx, name)?;
    with(cx, on, |vp| {
        let _change = Change::begin(cx, vp)?;
        may(cx, vp, &name, Want::WRITE)?;
        vp.ops().removexattr(cx, vp, &name)?;
        changed(cx, vp)
    })
}

fn name_of(cx: &Curlwp<'_>, from: UserAddr) -> Result<PathBytes, Errno> {
    let name = cx
        .copyin_str(from, XATTR_NAME_MAX)
        .map_err(|error| match error {
            Errno::ENAMETOOLONG => Errno::ERANGE,
            other => other,
        })?;
    if name.is_empty() {
        Err(Errno::ERANGE)
    } else {
        Ok(name)
    }
}

/// Hands a value or a list over; with a size of 0 only its length.
fn hand_over(cx: &Curlwp<'_>, data: &[u8], to: UserAddr, size: usize) -> SysResult {
    if size != 0 {
        if data.len() > size {
            return Err(Errno::ERANGE);
        }
        cx.copyout(data, to)?;
    }
    Ok(data.len() as i64)
}

/// Who may: the class before the first dot of a name says it.
fn may(cx: &Curlwp<'_>, vp: &Arc<Vnode>, name: &[u8], want: Want) -> Result<(), Errno> {
    let cred = cx.cred();
    let attr = vp.attr(cx);
    if name.starts_with(b"user.") {
        if !matches!(vp.kind, VnodeKind::Regular | VnodeKind::Directory) {
            return Err(if want == Want::READ {
                Errno::ENODATA
            } else {
                Errno::EPERM
            });
        }
        if want == Want::WRITE && vp.is_dir() && attr.perm & access::S_ISVTX != 0 {
            access::owner(&cred, &attr)?;
        }
        return access::permits(&cred, vp.kind, &attr, want);
    }
    if name.starts_with(b"trusted.") {
        return match (cred.is_superuser(), want) {
            (true, _) => Ok(()),
            (false, Want::READ) => Err(Errno::ENODATA),
            (false, _) => Err(Errno::EPERM),
        };
    }
    if name.starts_with(b"security.") {
        return if want == Want::READ || cred.is_superuser() {
            Ok(())
        } else {
            Err(Errno::EPERM)
        };
    }
    // system.* would be access-control lists, which are not enforced here: better refused than kept and ignored.
    Err(Errno::EOPNOTSUPP)
}

fn changed(cx: &Curlwp<'_>, vp: &Arc<Vnode>) -> SysResult {
    let set = SetAttr {
        ctime: Some(Vnode::timestamp(cx)),
        ..SetAttr::default()
    };
    crate::attr::store(cx, vp, &set)?;
    Ok(0)
}

//! Unix permissions: who may do what with a file. kauth's part for the vfs.

use std::sync::Arc;

use abi::Errno;
use kern::{Cred, Curlwp};

use crate::mount::MountHold;
use crate::{Attr, SetAttr, Vnode, VnodeKind};

/// Set-user-id, set-group-id and sticky.
pub(crate) const S_ISUID: u32 = 0o4000;
pub(crate) const S_ISGID: u32 = 0o2000;
pub(crate) const S_ISVTX: u32 = 0o1000;

/// What somebody wants to do with a file: the `rwx` bits of one class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Want(pub(crate) u32);

impl Want {
    pub(crate) const READ: Want = Want(4);
    pub(crate) const WRITE: Want = Want(2);
    /// Execute a file, search a directory.
    pub(crate) const EXEC: Want = Want(1);
    /// Change the names in a directory.
    pub(crate) const CHANGE: Want = Want(3);
}

/// Whether credentials allow it: `EACCES` when not. The class of the one who asks decides alone (an owner without a
/// permission that others have is refused). The superuser may everything but execute what nobody may execute.
pub(crate) fn permits(cred: &Cred, kind: VnodeKind, attr: &Attr, want: Want) -> Result<(), Errno> {
    if cred.is_superuser() {
        let runs =
            want.0 & Want::EXEC.0 == 0 || kind == VnodeKind::Directory || attr.perm & 0o111 != 0;
        return if runs { Ok(()) } else { Err(Errno::EACCES) };
    }
    let class = if cred.euid == attr.uid {
        attr.perm >> 6
    } else if cred.in_group(attr.gid) {
        attr.perm >> 3
    } else {
        attr.perm
    };
    if class & want.0 == want.0 {
        Ok(())
    } else {
        Err(Errno::EACCES)
    }
}

/// Whether credentials allow it with this vnode.
#[inline]
pub(crate) fn check(cx: &Curlwp<'_>, cred: &Cred, vp: &Vnode, want: Want) -> Result<(), Errno> {
    if cred.is_superuser() && vp.is_dir() {
        return Ok(());
    }
    permits(cred, vp.kind, &vp.attr(cx), want)
}

/// Whether the one who asks is the owner, or the superuser: `EPERM` when not.
pub(crate) fn owner(cred: &Cred, attr: &Attr) -> Result<(), Errno> {
    if cred.is_superuser() || cred.euid == attr.uid {
        Ok(())
    } else {
        Err(Errno::EPERM)
    }
}

/// Whether a name of `vp` may be taken out of `dir`: write and search permission, and in a sticky directory only for the
/// owner of the file or of the directory.
pub(crate) fn may_remove(
    cx: &Curlwp<'_>,
    cred: &Cred,
    dir: &Vnode,
    vp: &Vnode,
) -> Result<(), Errno> {
    if cred.is_superuser() {
        return Ok(());
    }
    let attr = dir.attr(cx);
    permits(cred, dir.kind, &attr, Want::CHANGE)?;
    let sticky = attr.perm & S_ISVTX != 0;
    if sticky && cred.euid != attr.uid && cred.euid != vp.attr(cx).uid {
        return Err(Errno::EPERM);
    }
    Ok(())
}

/// Says that a directory's names are about to be changed: until the answer is dropped its mount is neither unmounted nor
/// made read-only. `EROFS` where nothing may be changed.
pub(crate) fn writing(dir: &Vnode) -> Result<MountHold, Errno> {
    MountHold::writing(dir.mount().ok_or(Errno::ENODEV)?)
}

/// A change of a file itself, found by a name or open: until this is dropped its mount is neither unmounted nor made
/// read-only, and the file is not freed, even if its last name goes meanwhile.
pub(crate) struct Change<'a> {
    cx: &'a Curlwp<'a>,
    vp: &'a Arc<Vnode>,
    _hold: MountHold,
}

impl<'a> Change<'a> {
    /// `EROFS` where nothing may be changed, `ENOENT` when the file is freed already.
    pub(crate) fn begin(cx: &'a Curlwp<'_>, vp: &'a Arc<Vnode>) -> Result<Change<'a>, Errno> {
        let _hold = writing(vp)?;
        vp.opened()?;
        Ok(Change { cx, vp, _hold })
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        self.vp.closed(self.cx);
    }
}

/// Permission bits without those that make a program run as somebody else, as writing to it and giving it away clear
/// them. Set-group-id without group execution means something else (mandatory locking) and stays.
pub(crate) fn without_set_id(perm: u32) -> u32 {
    let perm = perm & !S_ISUID;
    if perm & 0o010 != 0 {
        perm & !S_ISGID
    } else {
        perm
    }
}

/// After a write by somebody who is not the superuser: the set-id bits go.
pub(crate) fn clear_set_id(cx: &Curlwp<'_>, vp: &Arc<Vnode>) -> Result<(), Errno> {
    let perm = vp.attr(cx).perm;
    if perm & (S_ISUID | S_ISGID) == 0 || cx.cred().is_superuser() {
        return Ok(());
    }
    let cleared = without_set_id(perm);
    if cleared == perm {
        return Ok(());
    }
    let set = SetAttr {
        perm: Some(cleared),
        ctime: Some(Vnode::timestamp(cx)),
        ..SetAttr::default()
    };
    crate::attr::store(cx, vp, &set)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every mode, class and wish against the rule written the long way.
    #[test]
    fn the_class_of_the_one_who_asks_decides_alone() {
        let who = [
            (Cred::user(10, 99, &[]), 6),
            (Cred::user(11, 20, &[]), 3),
            (Cred::user(11, 99, &[5, 20]), 3),
            (Cred::user(11, 99, &[5]), 0),
        ];
        for perm in 0..0o1000 {
            let attr = Attr {
                perm,
                uid: 10,
                gid: 20,
                ..Attr::default()
            };
            for (cred, shift) in &who {
                for want in 0..8 {
                    let allowed =
                        (0..3).all(|bit| want >> bit & 1 == 0 || perm >> shift >> bit & 1 == 1);
                    let got = permits(cred, VnodeKind::Regular, &attr, Want(want));
                    assert_eq!(got.is_ok(), allowed, "{perm:o} {want} {cred:?}");
                }
            }
            let root = Cred::root();
            assert_eq!(permits(&root, VnodeKind::Regular, &attr, Want(6)), Ok(()));
            assert_eq!(permits(&root, VnodeKind::Directory, &attr, Want(7)), Ok(()));
            let runs = permits(&root, VnodeKind::Regular, &attr, Want::EXEC).is_ok();
            assert_eq!(runs, perm & 0o111 != 0);
        }
    }

    #[test]
    fn set_group_id_without_group_execution_stays() {
        assert_eq!(without_set_id(0o6755), 0o755);
        assert_eq!(without_set_id(0o6745), 0o2745);
    }
}

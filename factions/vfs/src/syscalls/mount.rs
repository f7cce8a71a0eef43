//! Mounts: mount, umount, statfs, sync.

use abi::{AT_FDCWD, Errno, MNT_DETACH, MNT_FORCE, Statfs, SysResult, UserAddr, args};
use kern::Curlwp;

use super::vnode_of;
use crate::mounts::{self, MountRequest};
use crate::namei::namei;
use crate::{FsStat, Mount, Vfs};

const MNT_EXPIRE: i32 = 4;
const UMOUNT_NOFOLLOW: i32 = 8;
/// What old programs put into the upper half of mount(2)'s flags.
const MS_MGC_VAL: u64 = 0xc0ed_0000;
const MS_MGC_MSK: u64 = 0xffff_0000;
/// Binding, moving and propagation.
const MS_TREE: u64 = 0x1000 | 0x2000 | 0x1e_0000;

/// mount(2).
pub(super) fn mount(cx: &Curlwp<'_>, a: args::mount) -> SysResult {
    let mut flags = a.flags as u32 as u64;
    if flags & MS_MGC_MSK == MS_MGC_VAL {
        flags &= !MS_MGC_MSK;
    }
    if flags & MS_TREE != 0 {
        return Err(Errno::EINVAL);
    }
    let string = |from: UserAddr| match from.is_null() {
        true => Ok(kern::PathBytes::new()),
        false => cx.copyin_path(from),
    };
    let (source, target) = (string(a.source)?, cx.copyin_path(a.target)?);
    let (fstype, data) = (string(a.fstype)?, string(a.data)?);
    mounts::mount(
        cx,
        &MountRequest {
            source: &source,
            target: &target,
            fstype: &fstype,
            flags,
            data: &data,
        },
    )?;
    Ok(0)
}

/// umount2(2).
pub(super) fn umount2(cx: &Curlwp<'_>, a: args::umount2) -> SysResult {
    super::known_flags(
        a.flags,
        MNT_FORCE | MNT_DETACH | MNT_EXPIRE | UMOUNT_NOFOLLOW,
    )?;
    if !cx.cred().is_superuser() {
        return Err(Errno::EPERM);
    }
    if a.flags & MNT_EXPIRE != 0 {
        return Err(Errno::EINVAL);
    }
    let vp = namei(
        cx,
        AT_FDCWD,
        &cx.copyin_path(a.target)?,
        a.flags & UMOUNT_NOFOLLOW == 0,
    )?;
    mounts::unmount(cx, &vp, a.flags)?;
    Ok(0)
}

/// sync(2). Errors are in the message buffer; the call itself has none.
pub(super) fn sync(cx: &Curlwp<'_>, _: args::sync) -> SysResult {
    if let Err(error) = mounts::sync_all(cx) {
        cx.log(format_args!("sync: {error}"));
    }
    Ok(0)
}

/// syncfs(2).
pub(super) fn syncfs(cx: &Curlwp<'_>, a: args::syncfs) -> SysResult {
    let mount = vnode_of(cx, a.fd, Errno::EINVAL)?
        .mount()
        .ok_or(Errno::EIO)?;
    mounts::sync(cx, &mount)?;
    Ok(0)
}

/// statfs(2).
pub(super) fn statfs(cx: &Curlwp<'_>, a: args::statfs) -> SysResult {
    let vp = namei(cx, AT_FDCWD, &cx.copyin_path(a.path)?, true)?;
    let mount = vp.mount().ok_or(Errno::EIO)?;
    tell(cx, &mount, a.buf)
}

/// fstatfs(2).
pub(super) fn fstatfs(cx: &Curlwp<'_>, a: args::fstatfs) -> SysResult {
    let vp = vnode_of(cx, a.fd, Errno::EINVAL)?;
    let mount = vp.mount().ok_or(Errno::EIO)?;
    tell(cx, &mount, a.buf)
}

fn tell(cx: &Curlwp<'_>, mount: &Mount, to: UserAddr) -> SysResult {
    cx.copyout(&statfs_of(cx, mount)?.to_bytes(), to)?;
    Ok(0)
}

/// Set in `f_flags` to say that they are filled in.
const ST_VALID: u64 = 0x20;
/// `ST_RELATIME` is elsewhere than `MS_RELATIME`.
const ST_RELATIME: u64 = 0x1000;

fn statfs_of(cx: &Curlwp<'_>, mount: &Mount) -> Result<Statfs, Errno> {
    let stat: FsStat = mount.ops().statfs(cx, mount)?;
    let flags = mount.flags();
    let relatime = if flags & abi::MS_NOATIME == 0 {
        ST_RELATIME
    } else {
        0
    };
    Ok(Statfs {
        f_type: stat.magic,
        f_bsize: u64::from(stat.bsize),
        f_blocks: stat.blocks,
        f_bfree: stat.bfree,
        f_bavail: stat.bavail,
        f_files: stat.files,
        f_ffree: stat.ffree,
        f_fsid: mount.dev,
        f_namelen: u64::from(stat.namelen),
        f_frsize: u64::from(stat.bsize),
        f_flags: flags & !abi::MS_RELATIME | ST_VALID | relatime,
        ..Statfs::default()
    })
}

/// getvfsstat, the kernel's own: a [`abi::VfsStat`] for each mount, in the order in which they were made. Answers how many
/// there are; with a null buffer no more than that. Those that do not fit are left out.
pub(super) fn getvfsstat(cx: &Curlwp<'_>, a: args::getvfsstat) -> SysResult {
    let all = Vfs::of(cx)?.mounts.all(cx);
    if a.buf.is_null() {
        return Ok(all.len() as i64);
    }
    let mut at = a.buf;
    for mount in all.iter().take(a.bufsize / abi::VFSSTAT_SIZE) {
        let record = abi::VfsStat {
            statfs: statfs_of(cx, mount).unwrap_or_default(),
            fstype: mount.fstype.as_bytes(),
            source: &mount.source,
            target: &mounts::mount_point(cx, mount).unwrap_or_default(),
        };
        cx.copyout(&record.to_bytes(), at)?;
        at = at.add(abi::VFSSTAT_SIZE);
    }
    Ok(all.len() as i64)
}

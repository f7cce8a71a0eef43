//! name_to_handle_at(2) and open_by_handle_at(2).

use abi::{
    AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_FOLLOW, AT_SYMLINK_NOFOLLOW, Errno, O_CREAT, SysResult,
    UserAddr, args,
};
use kern::Curlwp;

use super::{known_flags, open, vnode_of};
use crate::handle::{HANDLE_SIZE, Handle};
use crate::namei::namei_at;

/// Bytes of `struct file_handle` before the handle: its length and its type.
const HEAD: usize = 8;
/// The type of our handles.
const TYPE: i32 = 1;
/// The longest handle that there is anywhere.
const MAX_HANDLE_SZ: u32 = 128;
/// The handle need not be good for opening.
const AT_HANDLE_FID: i32 = 0x200;

/// name_to_handle_at(2). The mount's identifier is its device number.
pub(super) fn name_to_handle_at(cx: &Curlwp<'_>, a: args::name_to_handle_at) -> SysResult {
    known_flags(a.flags, AT_SYMLINK_FOLLOW | AT_EMPTY_PATH | AT_HANDLE_FID)?;
    let room = number(cx, a.handle)?;
    if room > MAX_HANDLE_SZ {
        return Err(Errno::EINVAL);
    }
    let follow = match a.flags & AT_SYMLINK_FOLLOW {
        0 => AT_SYMLINK_NOFOLLOW,
        _ => 0,
    };
    let path = cx.copyin_path(a.path)?;
    let vp = namei_at(cx, a.dirfd, &path, follow | a.flags & AT_EMPTY_PATH)?;
    let handle = Handle::of(cx, &vp)?;
    let mount = vp.stat(cx).st_dev as i32;
    cx.copyout(&mount.to_le_bytes(), a.mount_id)?;
    cx.copyout(&(HANDLE_SIZE as u32).to_le_bytes(), a.handle)?;
    if (room as usize) < HANDLE_SIZE {
        return Err(Errno::EOVERFLOW);
    }
    cx.copyout(&TYPE.to_le_bytes(), a.handle.add(4))?;
    cx.copyout(&handle.to_bytes(), a.handle.add(HEAD))?;
    Ok(0)
}

/// open_by_handle_at(2): the superuser's, for it goes by no directory's permissions. The handle says which mount, so the
/// descriptor is only looked at.
pub(super) fn open_by_handle_at(cx: &Curlwp<'_>, a: args::open_by_handle_at) -> SysResult {
    if !cx.cred().is_superuser() {
        return Err(Errno::EPERM);
    }
    if a.mount_fd != AT_FDCWD {
        vnode_of(cx, a.mount_fd, Errno::ESTALE)?;
    }
    if a.flags & O_CREAT != 0 {
        return Err(Errno::EINVAL);
    }
    let mut raw = [0; HANDLE_SIZE];
    match (number(cx, a.handle)?, number(cx, a.handle.add(4))? as i32) {
        (0, _) | (129.., _) => return Err(Errno::EINVAL),
        (len, TYPE) if len as usize == HANDLE_SIZE => cx.copyin(a.handle.add(HEAD), &mut raw)?,
        _ => return Err(Errno::ESTALE),
    }
    let vp = Handle::from_bytes(&raw).vnode(cx)?;
    open::open_vnode(cx, vp, a.flags)
}

fn number(cx: &Curlwp<'_>, at: UserAddr) -> Result<u32, Errno> {
    let mut raw = [0; 4];
    cx.copyin(at, &mut raw)?;
    Ok(u32::from_le_bytes(raw))
}

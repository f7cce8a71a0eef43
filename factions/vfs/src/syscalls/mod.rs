//! The system calls that the vfs serves. One file a family; each function reads like its manual page.

use std::sync::Arc;

use abi::Errno;
use kern::{Curlwp, OpenFile, establish};

use crate::file::VnodeFile;
use crate::{Vnode, VnodeKind};

mod attr;
mod data;
mod dir;
mod etfs;
mod handle;
mod inotify;
mod lock;
mod mount;
mod names;
mod open;
mod stat;
mod xattr;

pub(crate) use dir::path_of;

/// Fills the faction's slots of the system-call vector.
pub(crate) fn establish(cx: &Curlwp<'_>) -> Result<(), Errno> {
    establish!(cx.kernel().sysent(), {
        open => open::open,
        openat => open::openat,
        openat2 => open::openat2,
        creat => open::creat,
        stat => stat::stat,
        lstat => stat::lstat,
        newfstatat => stat::newfstatat,
        statx => stat::statx,
        access => stat::access,
        faccessat => stat::faccessat,
        faccessat2 => stat::faccessat2,
        readlink => names::readlink,
        readlinkat => names::readlinkat,
        mkdir => names::mkdir,
        mkdirat => names::mkdirat,
        mknod => names::mknod,
        mknodat => names::mknodat,
        rmdir => names::rmdir,
        unlink => names::unlink,
        unlinkat => names::unlinkat,
        link => names::link,
        linkat => names::linkat,
        symlink => names::symlink,
        symlinkat => names::symlinkat,
        rename => names::rename,
        renameat => names::renameat,
        renameat2 => names::renameat2,
        chmod => attr::chmod,
        fchmod => attr::fchmod,
        fchmodat => attr::fchmodat,
        fchmodat2 => attr::fchmodat2,
        chown => attr::chown,
        lchown => attr::lchown,
        fchown => attr::fchown,
        fchownat => attr::fchownat,
        utime => attr::utime,
        utimes => attr::utimes,
        futimesat => attr::futimesat,
        utimensat => attr::utimensat,
        umask => attr::umask,
        getdents => dir::getdents,
        getdents64 => dir::getdents64,
        getcwd => dir::getcwd,
        chdir => dir::chdir,
        fchdir => dir::fchdir,
        chroot => dir::chroot,
        fchroot => dir::fchroot,
        truncate => data::truncate,
        ftruncate => data::ftruncate,
        fallocate => data::fallocate,
        fsync => data::fsync,
        fdatasync => data::fdatasync,
        sync_file_range => data::sync_file_range,
        readahead => data::readahead,
        fadvise64 => data::fadvise64,
        flock => lock::flock,
        name_to_handle_at => handle::name_to_handle_at,
        open_by_handle_at => handle::open_by_handle_at,
        inotify_init => inotify::inotify_init,
        inotify_init1 => inotify::inotify_init1,
        inotify_add_watch => inotify::inotify_add_watch,
        inotify_rm_watch => inotify::inotify_rm_watch,
        sync => mount::sync,
        syncfs => mount::syncfs,
        mount => mount::mount,
        umount2 => mount::umount2,
        statfs => mount::statfs,
        fstatfs => mount::fstatfs,
        getvfsstat => mount::getvfsstat,
        etfs_register => etfs::etfs_register,
        etfs_remove => etfs::etfs_remove,
        setxattr => xattr::setxattr,
        lsetxattr => xattr::lsetxattr,
        fsetxattr => xattr::fsetxattr,
        getxattr => xattr::getxattr,
        lgetxattr => xattr::lgetxattr,
        fgetxattr => xattr::fgetxattr,
        listxattr => xattr::listxattr,
        llistxattr => xattr::llistxattr,
        flistxattr => xattr::flistxattr,
        removexattr => xattr::removexattr,
        lremovexattr => xattr::lremovexattr,
        fremovexattr => xattr::fremovexattr,
    })
}

/// The open vnode behind a descriptor. `EBADF` for one that was opened with `O_PATH`, `wrong` for what is no file of
/// ours (a pipe, a socket).
fn vnode_file<R>(
    cx: &Curlwp<'_>,
    fd: i32,
    wrong: Errno,
    f: impl FnOnce(&Arc<OpenFile>, &VnodeFile) -> Result<R, Errno>,
) -> Result<R, Errno> {
    let of = cx.file(fd)?;
    let file = of.downcast::<VnodeFile>().ok_or(wrong)?;
    if file.is_path_only() {
        return Err(Errno::EBADF);
    }
    f(&of, file)
}

/// The vnode behind a descriptor, which may have been opened with `O_PATH`.
fn vnode_of(cx: &Curlwp<'_>, fd: i32, wrong: Errno) -> Result<Arc<Vnode>, Errno> {
    let fds = cx.proc().fds();
    fds.with(fd, |of| {
        of.downcast::<VnodeFile>()
            .map(|f| f.vnode().clone())
            .ok_or(wrong)
    })
}

/// `EISDIR` or `EINVAL` for what has no data that could be cut.
fn require_regular(vp: &Vnode) -> Result<(), Errno> {
    match vp.kind {
        VnodeKind::Regular => Ok(()),
        VnodeKind::Directory => Err(Errno::EISDIR),
        _ => Err(Errno::EINVAL),
    }
}

/// `EINVAL` for flags that a call does not know.
fn known_flags(flags: i32, known: i32) -> Result<(), Errno> {
    if flags & !known == 0 {
        Ok(())
    } else {
        Err(Errno::EINVAL)
    }
}
